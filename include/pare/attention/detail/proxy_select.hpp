// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Block selection by proxy heads: checks, the budget of a row, and the mask.

#include <pare/attention/attend.hpp>
#include <pare/attention/block_mask.hpp>
#include <pare/attention/detail/proxy_budgets.hpp>
#include <pare/attention/detail/proxy_scores.hpp>
#include <pare/attention/detail/reference_proxy.hpp>
#include <pare/attention/options.hpp>
#include <pare/attention/proxy_heads_options.hpp>
#include <pare/attention/select_blocks.hpp>
#include <pare/core/backend.hpp>
#include <pare/core/ceil_div.hpp>
#include <pare/core/executor_ref.hpp>
#include <pare/core/tensor_view.hpp>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <numeric>
#include <optional>
#include <utility>
#include <vector>

namespace pare::attention::detail {
PARE_ABI_BEGIN

inline void check_proxy(const char* function, const ProxyHeads& p, Index kv_heads, Index queries,
                        Index keys) {
  check(p.groups >= 1 && kv_heads % p.groups == 0, function, "groups", p.groups,
        "at least 1, and a divisor of the key/value heads");
  check(is_finite(static_cast<double>(p.mass)) && p.mass > 0 && p.mass <= 1, function, "mass",
        p.mass, "a share in (0, 1]");
  check(p.row_block >= 1, function, "row_block", p.row_block, "at least 1");
  check(p.column_block >= 1, function, "column_block", p.column_block, "at least 1");
  check(p.stride_queries >= 1 && p.stride_queries <= p.row_block, function, "stride_queries",
        p.stride_queries, "1 to row_block");
  check(p.stride_keys >= 1 && p.stride_keys <= p.column_block, function, "stride_keys",
        p.stride_keys, "1 to column_block");
  check(p.min_budget >= 0, function, "min_budget", p.min_budget, "0 or a number of tokens");
  check_enumerator(function, "budget", p.budget, ProxyBudget::AllBlocks);
  check(queries <= keys, function, "q", queries, "no more queries than keys");
}

/// Column blocks that every row keeps at least, if it sees them.
inline Index least_blocks(const ProxyHeads& p) { return ceil_div(p.min_budget, p.column_block); }

/// True where every row keeps all it can see, so that there is nothing to select.
inline bool keeps_all(const ProxyHeads& p, const BlockMask::Shape& shape) {
  return p.mass >= 1 || least_blocks(p) >= shape.column_blocks() || shape.batch == 0 ||
         shape.heads == 0 || shape.queries == 0;
}

/// Blocks of row block m for a head that needs `blocks` of all.
inline Index row_budget(const ProxyHeads& p, const BlockMask::Shape& shape, Index m, Index blocks) {
  const Index visible = shape.causal_columns(m), all = shape.column_blocks();
  const Index share = p.budget == ProxyBudget::AllBlocks ? blocks : ceil_div(blocks * visible, all);
  return std::clamp<Index>(std::max(share, least_blocks(p)), 1, visible);
}

/// Collects the rows of a mask: head after head, row after row.
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

  /// Adds a head of the group that needs `blocks` of all blocks.
  void add_head(Index blocks) {
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
        if (kept_[n] != 0) columns_.push_back(static_cast<std::int32_t>(n));
      offsets_.push_back(static_cast<Index>(columns_.size()));
    }
  }

  BlockMask take() { return BlockMask::from_csr(shape_, std::move(offsets_), std::move(columns_)); }

 private:
  const ProxyHeads& options_;
  BlockMask::Shape shape_;
  std::vector<char> kept_;
  std::vector<std::vector<std::uint32_t>> ranks_;
  std::vector<Index> offsets_{0};
  std::vector<std::int32_t> columns_;
};

/// The selection by kernels.
template <KernelBackend B, class S>
SelectedBlocks proxy_blocks(const B& backend, const TensorView<const S, 4>& q,
                            const TensorView<const S, 4>& k, const ProxyHeads& options,
                            const BlockMask::Shape& shape, double scale) {
  WorkerMemory memory(
      static_cast<std::size_t>(worker_count(backend.executor, std::numeric_limits<Index>::max())));
  const std::vector<HeadBudget> budgets =
      HeadBudgets<B, S>(backend, memory, shape, q, k, scale).reach(options.mass);
  ProxyScores<B, S> scores(backend, memory, shape, options.stride_queries, options.stride_keys,
                           q.extent[3], scale);
  ProxyRows rows(options, shape);
  const Index heads = shape.heads / options.groups, kv_heads = k.extent[1] / options.groups;
  double mass = 0;
  for (Index b = 0; b < shape.batch; ++b)
    for (Index g = 0; g < options.groups; ++g) {
      rows.rank(
          scores.of(heads_of(q, b, g * heads, heads), heads_of(k, b, g * kv_heads, kv_heads)));
      for (Index h = g * heads; h < (g + 1) * heads; ++h) {
        const HeadBudget& budget = budgets[static_cast<std::size_t>(b * shape.heads + h)];
        rows.add_head(budget.blocks);
        mass += budget.mass / static_cast<double>(shape.batch * shape.heads);
      }
    }
  return {rows.take(), mass, 0};
}

/// Adds the rows of a group's heads [begin, end) to `lists` by the definition, and returns the sum
/// of their masses.
template <class S>
double reference_group(const TensorView<const S, 4>& q, const TensorView<const S, 4>& k,
                       Index batch, Index begin, Index end, const ProxyHeads& p,
                       const BlockMask::Shape& shape, double scale,
                       std::vector<std::vector<std::int32_t>>& lists) {
  const Index kv_heads = k.extent[1] / p.groups, first = begin / (end - begin) * kv_heads;
  const std::vector<double> mean_q = reference_mean_heads(heads_of(q, batch, begin, end - begin));
  const std::vector<double> mean_k = reference_mean_heads(heads_of(k, batch, first, kv_heads));
  const std::vector<double> scores = reference_proxy_scores(
      reference_matrix(mean_q, q.extent[3]), reference_matrix(mean_k, q.extent[3]), shape,
      {scale, p.stride_queries, p.stride_keys});
  const bool all = p.budget == ProxyBudget::AllBlocks;
  const ReferenceProxySelection select{all ? ReferenceBudget::All : ReferenceBudget::Visible,
                                       p.min_budget, p.force_diagonal, p.force_first};
  double kept = 0;
  for (Index h = begin; h < end; ++h) {
    const SelectorHead<S> head = selector_head(q, k, batch, h, nullptr, scale, true);
    const Index budget = reference_head_budget(head.q, head.k, shape, p.mass, scale);
    for (auto& row : reference_proxy_select(scores, shape, budget, select))
      lists.push_back(std::move(row));
    std::vector<double> masses = reference_head_masses(head.q, head.k, shape, scale);
    std::sort(masses.rbegin(), masses.rend());
    kept += std::accumulate(masses.begin(), masses.begin() + budget, 0.0);
  }
  return kept;
}

/// The selection by its definition.
template <class S>
SelectedBlocks proxy_blocks(const Reference&, const TensorView<const S, 4>& q,
                            const TensorView<const S, 4>& k, const ProxyHeads& options,
                            const BlockMask::Shape& shape, double scale) {
  std::vector<std::vector<std::int32_t>> lists;
  const Index heads = shape.heads / options.groups;
  double kept = 0;
  for (Index b = 0; b < shape.batch; ++b)
    for (Index h = 0; h < shape.heads; h += heads)
      kept += reference_group(q, k, b, h, h + heads, options, shape, scale, lists);
  const auto all = static_cast<double>(shape.batch * shape.heads);
  return {BlockMask::from_lists(shape, lists), kept / all, 0};
}

template <class B, class S>
SelectedBlocks select_proxy(const char* function, const B& backend, const TensorView<const S, 4>& q,
                            const TensorView<const S, 4>& k, const ProxyHeads& options,
                            const std::optional<double>& scale) {
  const double factor = check_selection(function, q, k, nullptr, true, scale);
  check_proxy(function, options, k.extent[1], q.extent[2], k.extent[2]);
  const auto start = std::chrono::steady_clock::now();
  const BlockMask::Shape shape{q.extent[0], q.extent[1],       q.extent[2],
                               k.extent[2], options.row_block, options.column_block};
  SelectedBlocks selected =
      keeps_all(options, shape)
          ? SelectedBlocks{BlockMask::causal(shape), 1, 0}
          : proxy_blocks(on_any_executor(backend), q, k, options, shape, factor);
  selected.seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return selected;
}

/// Options that change what a row sees, or that come in place of the selection.
inline void check_proxy_options(const AttendOptions& o) {
  check(o.causal, attend_name, "causal", "false", "true with ProxyHeads");
  check(o.mask == nullptr && o.order == nullptr, attend_name, "mask, order", "a mask or an order",
        "neither with ProxyHeads");
  check_plain_visibility(attend_name, o, "none with ProxyHeads");
  check(o.key_lengths.empty() && o.key_offsets.empty() && o.query_offsets.empty(), attend_name,
        "key_lengths, query_offsets, key_offsets", "lengths or offsets", "none with ProxyHeads");
}

template <class B, class S, class O>
AttendStats attend_proxy(const B& backend, const TensorView<const S, 4>& q,
                         const TensorView<const S, 4>& k, const TensorView<const S, 4>& v,
                         const TensorView<O, 4>& out, const ProxyHeads& policy,
                         AttendOptions options) {
  check_proxy_options(options);
  const SelectedBlocks selected = select_proxy(attend_name, backend, q, k, policy, options.scale);
  if (!keeps_all(policy, selected.shape())) options.mask = &selected;
  AttendStats stats = attend_dense(backend, q, k, v, out, Exact{}, options);
  stats.selected_mass = selected.mass;
  stats.select_seconds = selected.seconds;
  return stats;
}

PARE_ABI_END
}  // namespace pare::attention::detail
