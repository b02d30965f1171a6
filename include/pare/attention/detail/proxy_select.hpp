// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Block selection by proxy heads: the budget of a row, and the blocks.

#include <pare/attention/block_mask.hpp>
#include <pare/attention/detail/proxy_budgets.hpp>
#include <pare/attention/detail/proxy_scores.hpp>
#include <pare/attention/detail/reference_proxy.hpp>
#include <pare/attention/proxy_heads_options.hpp>
#include <pare/attention/select_blocks.hpp>
#include <pare/attention/selector.hpp>
#include <pare/core/backend.hpp>
#include <pare/core/ceil_div.hpp>
#include <pare/core/tensor_view.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <numeric>
#include <span>
#include <vector>

namespace pare::attention::detail {
PARE_ABI_BEGIN

/// Blocks of row block m for a head that needs `blocks` of all.
inline Index row_budget(const ProxyHeads& p, const BlockMask::Shape& shape, Index m, Index blocks) {
  const Index visible = shape.causal_columns(m), all = shape.column_blocks();
  const Index share = p.budget == ProxyBudget::AllBlocks ? blocks : ceil_div(blocks * visible, all);
  return std::clamp<Index>(std::max(share, least_blocks(p)), 1, visible);
}

/// Collects the blocks of the heads of a group.
class ProxyRows {
 public:
  ProxyRows(const ProxyHeads& options, const BlockMask::Shape& shape)
      : options_(options),
        shape_(shape),
        kept_(static_cast<std::size_t>(shape.column_blocks())),
        ranks_(static_cast<std::size_t>(shape.row_blocks())) {}

  /// Ranks the blocks of every row by the scores of a group.
  void rank(const std::vector<double>& scores) {
    for (std::size_t m = 0; m < ranks_.size(); ++m)
      ranks_[m] =
          reference_rank({scores.data() + m * kept_.size(),
                          static_cast<std::size_t>(shape_.causal_columns(static_cast<Index>(m)))});
  }

  /// Adds the blocks of a head of the group that needs `blocks` of all.
  void add_head(Index blocks, BlockLists& keep) {
    for (Index m = 0; m < shape_.row_blocks(); ++m) {
      const std::vector<std::uint32_t>& rank = ranks_[static_cast<std::size_t>(m)];
      std::fill_n(kept_.begin(), rank.size(), char{0});
      const auto budget = static_cast<std::size_t>(row_budget(options_, shape_, m, blocks));
      for (std::size_t b = 0; b < budget; ++b) kept_[rank[b]] = 1;
      if (options_.force_first) kept_[0] = 1;
      const Index position = m * shape_.row_block + shape_.keys - shape_.queries;
      if (options_.force_diagonal)
        std::fill(kept_.begin() + position / shape_.column_block,
                  kept_.begin() + static_cast<Index>(rank.size()), char{1});
      for (std::size_t n = 0; n < rank.size(); ++n)
        if (kept_[n] != 0) keep.add(m, static_cast<Index>(n));
    }
  }

 private:
  const ProxyHeads& options_;
  BlockMask::Shape shape_;
  std::vector<char> kept_;
  std::vector<std::vector<std::uint32_t>> ranks_;
};

/// The selection by kernels; returns the mean mass.
template <KernelBackend B, class S>
double proxy_blocks(const B& backend, const SelectorLayer<S>& layer,
                    const TensorView<const S, 4>& k, const ProxyHeads& options,
                    const BlockMask::Shape& shape, std::span<BlockLists> keep) {
  const TensorView<const S, 4>& q = layer.q;
  WorkerMemory memory(
      static_cast<std::size_t>(worker_count(backend.executor, std::numeric_limits<Index>::max())));
  const std::vector<HeadBudget> budgets =
      HeadBudgets<B, S>(backend, memory, shape, q, k, layer.scale).reach(options.mass);
  ProxyScores<B, S> scores(backend, memory, shape, options.stride_queries, options.stride_keys,
                           q.extent[3], layer.scale);
  ProxyRows rows(options, shape);
  const Index heads = shape.heads / options.groups, kv_heads = k.extent[1] / options.groups;
  double mass = 0;
  for (Index b = 0; b < shape.batch; ++b)
    for (Index g = 0; g < options.groups; ++g) {
      rows.rank(
          scores.of(heads_of(q, b, g * heads, heads), heads_of(k, b, g * kv_heads, kv_heads)));
      for (Index h = g * heads; h < (g + 1) * heads; ++h) {
        const auto at = static_cast<std::size_t>(b * shape.heads + h);
        rows.add_head(budgets[at].blocks, keep[at]);
        mass += budgets[at].mass / static_cast<double>(shape.batch * shape.heads);
      }
    }
  return mass;
}

/// Adds the blocks of a group's heads [begin, end) by the definition, and returns the sum of their
/// masses.
template <class S>
double reference_group(const SelectorLayer<S>& layer, const TensorView<const S, 4>& k, Index batch,
                       Index begin, Index end, const ProxyHeads& p, const BlockMask::Shape& shape,
                       std::span<BlockLists> keep) {
  const TensorView<const S, 4>& q = layer.q;
  const Index kv_heads = k.extent[1] / p.groups, first = begin / (end - begin) * kv_heads;
  const std::vector<double> mean_q = reference_mean_heads(heads_of(q, batch, begin, end - begin));
  const std::vector<double> mean_k = reference_mean_heads(heads_of(k, batch, first, kv_heads));
  const std::vector<double> scores = reference_proxy_scores(
      reference_matrix(mean_q, q.extent[3]), reference_matrix(mean_k, q.extent[3]), shape,
      {layer.scale, p.stride_queries, p.stride_keys});
  const bool all = p.budget == ProxyBudget::AllBlocks;
  const ReferenceProxySelection select{all ? ReferenceBudget::All : ReferenceBudget::Visible,
                                       p.min_budget, p.force_diagonal, p.force_first};
  double kept = 0;
  for (Index h = begin; h < end; ++h) {
    const TensorView<const S, 2> own_q = layer.of(batch, h).q;
    const auto heads_k = heads_of(k, batch, h / (q.extent[1] / k.extent[1]), 1);
    const TensorView<const S, 2> own_k{
        heads_k.data, {k.extent[2], k.extent[3]}, {k.stride[2], k.stride[3]}};
    const Index budget = reference_head_budget(own_q, own_k, shape, p.mass, layer.scale);
    const auto lists = reference_proxy_select(scores, shape, budget, select);
    for (std::size_t m = 0; m < lists.size(); ++m)
      for (const std::int32_t n : lists[m])
        keep[static_cast<std::size_t>(batch * shape.heads + h)].add(static_cast<Index>(m), n);
    std::vector<double> masses = reference_head_masses(own_q, own_k, shape, layer.scale);
    std::sort(masses.rbegin(), masses.rend());
    kept += std::accumulate(masses.begin(), masses.begin() + budget, 0.0);
  }
  return kept;
}

/// The selection by its definition.
template <class S>
double proxy_blocks(const Reference&, const SelectorLayer<S>& layer,
                    const TensorView<const S, 4>& k, const ProxyHeads& options,
                    const BlockMask::Shape& shape, std::span<BlockLists> keep) {
  const Index heads = shape.heads / options.groups;
  double kept = 0;
  for (Index b = 0; b < shape.batch; ++b)
    for (Index h = 0; h < shape.heads; h += heads)
      kept += reference_group(layer, k, b, h, h + heads, options, shape, keep);
  return kept / static_cast<double>(shape.batch * shape.heads);
}

/// Every block that a row can see.
inline double keep_causal(const BlockMask::Shape& shape, std::span<BlockLists> keep) {
  for (BlockLists& head : keep)
    for (Index m = 0; m < shape.row_blocks(); ++m)
      for (Index n = 0; n < shape.causal_columns(m); ++n) head.add(m, n);
  return 1;
}

template <class B, class S>
double select_proxy(const B& backend, const SelectorLayer<S>& layer, const ProxyHeads& options,
                    std::span<BlockLists> keep) {
  const SelectorCall call = layer.call();
  const BlockMask::Shape shape{call.batch, call.heads,        call.queries,
                               call.keys,  options.row_block, options.column_block};
  if (keeps_all(options, call)) return keep_causal(shape, keep);
  std::vector<S> copy;
  return proxy_blocks(backend, layer, layer.k.tensor(copy), options, shape, keep);
}

PARE_ABI_END
}  // namespace pare::attention::detail
