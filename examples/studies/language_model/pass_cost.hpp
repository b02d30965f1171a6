// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// What a pass of a model costs by the number of its rows, measured.
///
/// ```cpp
/// const auto cost = pass_cost(llama, backend, cache, 128);
/// cost(1);                                                   // seconds of a token alone
/// ```

#include "language_model/speculative.hpp"

#include <pare/draft/budget.hpp>
#include <pare/draft/tree.hpp>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <numeric>
#include <vector>

namespace language_model {

/// Seconds of a pass of a chain through the blocks from `first` on, and the head.
inline double pass_seconds(const Llama& llama, const ModelBackend& on, KvCache& cache, Index rows,
                           Index first) {
  const LlamaConfig& config = llama.config();
  const Index past = cache.length();
  const std::vector<Token> tokens(static_cast<std::size_t>(rows), 1);
  std::vector<Index> positions(tokens.size());
  std::iota(positions.begin(), positions.end(), past);
  std::vector<float> given(first > 0 ? static_cast<std::size_t>(rows * config.dim) : 0, 1.0f);
  std::vector<float> logits(static_cast<std::size_t>(rows * config.vocabulary));
  DraftTree chain;
  chain.start(1, rows);
  for (Index node = 0; node + 1 < rows;) node = chain.add(node, 1);
  const auto start = std::chrono::steady_clock::now();
  llama.states(
      on, tokens, cache, {.positions = positions, .first = first, .given = given},
      [&](const ModelBackend& backend, const auto& states) {
        llama.head().apply(backend, states, matrix(logits.data(), rows, config.vocabulary));
      },
      tree_attention(chain));
  cache.truncate(past);
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

/// The same for 1, 2, 4, ..., `most` rows, each the median of five, behind `past` tokens.
/// \param first the block that the passes begin with
inline pare::draft::MeasuredCost pass_cost(const Llama& llama, const ModelBackend& on,
                                           KvScalar scalar, Index past, Index most = 64,
                                           Index first = 0) {
  KvCache cache(llama.config().kv_shape(), past + most, scalar);
  const std::vector<Token> text(static_cast<std::size_t>(past), 1);
  llama.states(on, text, cache, {}, [](const ModelBackend&, const auto&) {});
  std::vector<pare::draft::CallTime> points;
  for (Index rows = 1; rows <= most; rows *= 2) {
    std::vector<double> seconds(5);
    for (double& s : seconds) s = pass_seconds(llama, on, cache, rows, first);
    std::ranges::nth_element(seconds, seconds.begin() + 2);
    points.push_back({rows, seconds[2]});
  }
  return pare::draft::MeasuredCost(std::move(points));
}

}  // namespace language_model
