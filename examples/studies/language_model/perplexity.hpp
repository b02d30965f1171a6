// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// How well a model foretells a text.

#include "common/mean.hpp"
#include "language_model/cache_attention.hpp"
#include "language_model/llama.hpp"

#include <pare/core/check.hpp>
#include <pare/transformer/softmax.hpp>

#include <algorithm>
#include <array>
#include <cstddef>
#include <span>
#include <vector>

namespace language_model {

using models::Mean;
using models::mean_of;

/// The losses -log p(token | those before it in its window), in nats, of all tokens but the first
/// of each window, in their order: two methods on the same text can be compared token by token.
///
/// \param window   tokens that are foretold together, at least 2; the last window may be shorter
/// \param progress is given the share that is done
/// \param run      run(part, visit) is Llama::forward of the tokens of a window, without others
///                 before it
/// \throws std::invalid_argument as Llama::forward, or if there are fewer than 2 tokens
template <class B, class Run, class Progress>
std::vector<double> token_losses(const B& backend, std::span<const Token> tokens, Index window,
                                 const Run& run, Progress&& progress) {
  const auto count = static_cast<Index>(tokens.size());
  pare::check(count >= 2, "language_model::token_losses", "tokens", count, "at least 2");
  pare::check(window >= 2, "language_model::token_losses", "window", window, "at least 2");
  std::vector<double> losses;
  std::array<float, Llama::logit_rows> sums{};
  for (Index begin = 0; begin + 1 < count; begin += window) {
    const auto part = tokens.subspan(static_cast<std::size_t>(begin),
                                     static_cast<std::size_t>(std::min(window, count - begin)));
    const auto judge = [&](Index first, TensorView<const float, 2> logits) {
      const std::span<float> of_rows(sums.data(), static_cast<std::size_t>(logits.rows()));
      pare::transformer::log_sum_exp(backend, logits, of_rows);
      for (Index row = 0; row < logits.rows(); ++row) {
        const auto next = static_cast<std::size_t>(first + row) + 1;
        if (next == part.size()) break;
        losses.push_back(static_cast<double>(of_rows[static_cast<std::size_t>(row)]) -
                         static_cast<double>(logits(row, part[next])));
      }
      progress(static_cast<double>(begin + first + logits.rows()) / static_cast<double>(count));
    };
    run(part, judge);
  }
  return losses;
}

/// \overload
/// With keys and values in a cache.
template <class B, class Progress>
std::vector<double> token_losses(const Llama& llama, const B& backend,
                                 std::span<const Token> tokens, Index window, KvScalar kv,
                                 const Attention& attention, Progress&& progress) {
  const auto most =
      std::clamp<Index>(static_cast<Index>(tokens.size()), 1, std::max<Index>(window, 1));
  KvCache cache(llama.config().kv_shape(), most, kv);
  return token_losses(
      backend, tokens, window,
      [&](std::span<const Token> part, const auto& visit) {
        cache.reset();
        llama.forward(backend, part, cache, visit, attention);
      },
      progress);
}

}  // namespace language_model
