// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// How well a model foretells a text: the loss of each token, -log p(token | those before it).
///
/// ```cpp
/// const std::vector<double> losses = next_token_losses(backend, model, tokens, cache);
/// std::printf("perplexity %.2f\n", std::exp(mean_of(losses)));
/// ```

#include "language_model/cache_attention.hpp"
#include "language_model/kv_cache.hpp"
#include "language_model/llama.hpp"

#include <pare/core/check.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/transformer/softmax.hpp>

#include <array>
#include <cstddef>
#include <numeric>
#include <span>
#include <vector>

namespace language_model {

/// Of tokens[1], tokens[2] ..., in nats. The cache, which forgets what it has, then has all tokens.
///
/// Memory: 64 rows of logits, however long the text.
/// \throws std::invalid_argument if there are fewer than two tokens, and as Llama::forward
template <class B>
std::vector<double> next_token_losses(const B& backend, const Llama& model,
                                      std::span<const Token> tokens, KvCache& cache,
                                      const Attention& attention = exact_attention) {
  pare::check(tokens.size() >= 2, "language_model::next_token_losses", "tokens", tokens.size(),
              "at least 2");
  cache.reset();
  std::vector<double> losses;
  losses.reserve(tokens.size() - 1);
  std::array<float, Llama::logit_rows> sums{};
  const auto visit = [&](Index first, TensorView<const float, 2> logits) {
    const TensorView<float, 1> sum{sums.data(), {logits.rows()}, {1}};
    pare::transformer::log_sum_exp(backend, logits, sum);
    for (Index i = 0; i < logits.rows(); ++i) {
      const auto next = static_cast<std::size_t>(first + i) + 1;
      if (next < tokens.size())
        losses.push_back(static_cast<double>(sum(i)) -
                         static_cast<double>(logits(i, tokens[next])));
    }
  };
  model.forward(backend, tokens, cache, visit, attention);
  return losses;
}

inline double mean_of(const std::vector<double>& values) {
  return std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
}

}  // namespace language_model
