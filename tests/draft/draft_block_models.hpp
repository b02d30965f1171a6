// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Draft blocks with tables of their own, beside their oracle, and calls of them in rounds.

#include <gtest/gtest.h>

#include <pare/core/matrix.hpp>
#include <pare/draft/draft_block.hpp>
#include <pare/transformer/rotary_table.hpp>

#include <cstddef>
#include <type_traits>
#include <utility>
#include <vector>

#include "draft/draft_blocks.hpp"

namespace pare::testing {

inline constexpr double base = 500;

/// Some 40 roundings of numbers near 1 in a layer, of sums over 20 to 60 terms.
template <class T>
inline constexpr double bound = std::is_same_v<T, double> ? 1e-13 : 1e-5;

/// A block and its table, which have one life.
template <class L>
struct Model {
  using T = transformer::linear_scalar<L>;
  draft::DraftBlockConfig config;
  transformer::RotaryTable<T> table;
  draft::DraftBlock<L> block;

  Model(const draft::DraftBlockConfig& c, draft::DraftBlockWeights<L> weights,
        Index positions = 900)
      : config(c),
        table(transformer::rotary_frequencies(c.head_dim, base), positions),
        block(config, std::move(weights), table) {}
  explicit Model(const draft::DraftBlockConfig& c)
  requires requires { typename L::scalar; }
      : Model(c, random_block_weights<typename L::weight>(c)) {}
  Model(const Model&) = delete;

  draft::DraftBlockCache<T> cache(Index tokens = 800, Index sequences = 1) const {
    return {config, {.tokens = tokens, .sequences = sequences}};
  }
  Doubles oracle(const Rows<T>& tapped, const Rows<T>& embeddings,
                 const BlockFaults& faults = {}) const {
    return block_oracle(config, block.weights(), doubles_of(tapped), doubles_of(embeddings), base,
                        faults);
  }
};

/// The rows of a block behind `tapped`, by calls with parts of it, whose blocks are other ones.
template <class M, class B>
Rows<typename M::T> in_rounds(const M& model, const B& backend,
                              draft::DraftBlockCache<typename M::T>& cache,
                              const Rows<typename M::T>& tapped,
                              const Rows<typename M::T>& embeddings,
                              const std::vector<Index>& rounds) {
  using T = typename M::T;
  Rows<T> out(embeddings.rows() - 1, model.config.width);
  Index at = 0;
  for (std::size_t i = 0; i < rounds.size(); ++i) {
    const bool last = i + 1 == rounds.size();
    const auto other = random_rows<T>(embeddings.rows(), model.config.width, 900 + i);
    model.block.forward(backend, rows_of(tapped.view(), at, rounds[i]),
                        last ? embeddings.view() : other.view(), cache, out.view());
    at += rounds[i];
    EXPECT_EQ(cache.length(0), at);
  }
  EXPECT_EQ(at, tapped.rows());
  return out;
}

}  // namespace pare::testing
