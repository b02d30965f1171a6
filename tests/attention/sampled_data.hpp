// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Blocks chosen by the mass that sampled queries give them, by brute force.

#include <gtest/gtest.h>

#include <pare/attention/block_mask.hpp>
#include <pare/attention/sampled_mass.hpp>
#include <pare/attention/select_blocks.hpp>
#include <pare/core/tensor_view.hpp>

#include "attention/data.hpp"
#include "attention/oracle.hpp"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <tuple>
#include <utility>
#include <vector>

namespace pare::testing {

inline constexpr double sampled_scale = 0.9;

/// Queries and keys of some heads.
template <class T>
struct SampledInput {
  Tensor<T> q, k;

  SampledInput(Index batch, Index heads, Index kv_heads, Index queries, Index keys, Index dim,
               Layout layout = Layout::by_head)
      : q(normal_tensor<T>({batch, heads, queries, dim}, 51, layout)),
        k(normal_tensor<T>({batch, kv_heads, keys, dim}, 52, layout)) {}

  Index kv_head(Index head) const { return head / (q.extent[1] / k.extent[1]); }
  attention::BlockMask::Shape shape(const attention::SampledMass& s) const {
    return {q.extent[0], q.extent[1], q.extent[2], k.extent[2], s.row_block, s.column_block};
  }
  template <class B>
  attention::SelectedBlocks select(const B& backend, const attention::SampledMass& selector) const {
    return attention::select_blocks(backend, q.view(), k.view(), selector,
                                    {.causal = true, .scale = sampled_scale});
  }
};

/// A block of a head, and the mass that the sampled queries of its row give it.
struct SampledBlock {
  double mass = 0;
  Index head = 0, row = 0, column = 0;
};

/// The queries that are looked at in the row of blocks that starts with query `begin`.
inline std::vector<Index> sampled_queries(Index begin, Index queries,
                                          const attention::SampledMass& s) {
  std::vector<Index> sampled;
  const Index end = std::min(begin + s.row_block, queries);
  for (Index i = begin + s.stride / 2; i < end; i += s.stride) sampled.push_back(i);
  if (sampled.empty()) sampled.push_back(end - 1);
  return sampled;
}

/// All blocks that a batch entry sees, in order, by brute force.
template <class T>
std::vector<SampledBlock> seen_blocks(const SampledInput<T>& x, const attention::SampledMass& s,
                                      Index batch) {
  std::vector<SampledBlock> blocks;
  const attention::BlockMask::Shape shape = x.shape(s);
  for (Index h = 0; h < shape.heads; ++h) {
    const auto k = x.k.head(batch, x.kv_head(h));
    const auto o = dense_attention(x.q.head(batch, h), k, k, sampled_scale,
                                   causal_visibility(shape.queries, shape.keys));
    for (Index m = 0; m < shape.row_blocks(); ++m) {
      const std::vector<Index> sampled = sampled_queries(m * s.row_block, shape.queries, s);
      for (Index n = 0; n < shape.causal_columns(m); ++n) {
        double mass = 0;
        for (const Index i : sampled)
          for (Index j = n * s.column_block; j < std::min((n + 1) * s.column_block, shape.keys);
               ++j)
            mass += o.p(i, j) / static_cast<double>(sampled.size());
        blocks.push_back({mass, h, m, n});
      }
    }
  }
  return blocks;
}

/// Whether a block is kept whatever its mass.
template <class T>
bool is_forced(const SampledInput<T>& x, const attention::SampledMass& s, const SampledBlock& b) {
  const Index position = b.row * s.row_block + x.k.extent[2] - x.q.extent[2];
  return (s.force_first && b.column == 0) || b.column >= position / s.column_block;
}

using Chosen = std::vector<std::tuple<Index, Index, Index>>;  ///< head, row, column

/// What is to be chosen, and its mass, summed over rows. Fails where rounding could choose
/// otherwise: where two masses at the cut differ by less than `gap` of the larger.
template <class T>
std::pair<Chosen, double> wanted_blocks(const SampledInput<T>& x, const attention::SampledMass& s,
                                        Index batch, double gap) {
  std::vector<SampledBlock> blocks = seen_blocks(x, s, batch);
  const auto budget = static_cast<std::size_t>(
      std::max(std::round(s.share * static_cast<double>(blocks.size())),
               static_cast<double>(std::ranges::count_if(
                   blocks, [&](const SampledBlock& b) { return is_forced(x, s, b); }))));
  std::ranges::stable_sort(blocks, [&](const SampledBlock& a, const SampledBlock& b) {
    const bool first = is_forced(x, s, a), second = is_forced(x, s, b);
    return first != second ? first : !first && a.mass > b.mass;
  });
  const std::size_t count = std::min(budget, blocks.size());
  const bool cut = count < blocks.size() && !is_forced(x, s, blocks[count - 1]);
  EXPECT_TRUE(!cut || blocks[count - 1].mass > blocks[count].mass * (1 + gap))
      << "a tie in the test's data";
  Chosen chosen;
  double mass = 0;
  for (std::size_t i = 0; i < count; ++i) {
    chosen.emplace_back(blocks[i].head, blocks[i].row, blocks[i].column);
    mass += blocks[i].mass;
  }
  std::ranges::sort(chosen);
  return {chosen, mass};
}

/// What a mask has chosen, in order.
inline Chosen chosen_blocks(const attention::BlockMask& mask, Index batch) {
  Chosen chosen;
  for (Index h = 0; h < mask.shape().heads; ++h)
    for (Index m = 0; m < mask.row_blocks(); ++m)
      for (const std::int32_t n : mask.row(batch, h, m)) chosen.emplace_back(h, m, Index{n});
  return chosen;
}

/// The columns of a row of a head of the first batch entry.
inline std::vector<Index> columns_of(const attention::BlockMask& mask, Index head, Index row) {
  const auto columns = mask.row(0, head, row);
  return {columns.begin(), columns.end()};
}

}  // namespace pare::testing
