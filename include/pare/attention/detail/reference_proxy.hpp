// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// The definition of block selection by a proxy head (ProxyAttn, arXiv 2509.24745).
///
/// The heads of a group share the block scores of one proxy, the mean of their queries against the
/// mean of their keys; how many blocks each takes is its own. Query i stands at position
/// i + keys - queries. The paper gives the formulas; block size, the side of the stride, how a
/// budget is rounded for a row and forced blocks are not given by it.

#include <pare/attention/block_mask.hpp>
#include <pare/attention/detail/reference_row.hpp>
#include <pare/core/ceil_div.hpp>
#include <pare/core/check.hpp>
#include <pare/core/tensor_view.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace pare::attention::detail {

/// Options of the proxy's block scores.
struct ReferenceProxy {
  double scale = 1;
  /// Of each block, the first of every `query_stride` queries and of every `key_stride` keys are
  /// looked at, so that no block is left without one. A stride of 4 on queries alone matches the
  /// cost that the paper reports; which side it is on is not given.
  Index query_stride = 4;
  Index key_stride = 1;
};

/// What a head's budget counts.
enum class ReferenceBudget {
  Visible,  ///< a share of the blocks that the row can see; not given by the paper
  All       ///< a share of all blocks, for every row
};

/// Options of the proxy's selection.
struct ReferenceProxySelection {
  ReferenceBudget budget = ReferenceBudget::Visible;
  Index min_budget = 2048;  ///< tokens, rounded up to blocks
  bool diagonal = true;     ///< force the blocks that the row's queries stand in; not in the paper
  bool first = true;        ///< force block 0; not in the paper
};

PARE_ABI_BEGIN

/// A_mn = max over queries i of block m and keys j of block n of softmax_j(scale q_i.k_j), causal,
/// [row blocks, column blocks]; q and k are the proxy's.
template <StorageScalar T, StorageScalar U>
std::vector<double> reference_proxy_scores(TensorView<const T, 2> q, TensorView<const U, 2> k,
                                           const BlockMask::Shape& shape, const ReferenceProxy& o) {
  const Index columns = shape.column_blocks();
  std::vector<double> scores(static_cast<std::size_t>(shape.row_blocks() * columns), 0.0);
  for (Index i = 0; i < q.rows(); ++i) {
    if (i % shape.row_block % o.query_stride != 0) continue;
    std::vector<double> logits(static_cast<std::size_t>(k.rows()), reference_hidden);
    for (Index j = 0; j <= i + k.rows() - q.rows(); ++j)
      if (j % shape.column_block % o.key_stride == 0)
        logits[static_cast<std::size_t>(j)] =
            o.scale * reference_dot(reference_row(q, i), reference_row(k, j), q.cols());
    const std::vector<double> p = reference_softmax(logits);
    for (Index j = 0; j < k.rows(); ++j) {
      double& block =
          scores[static_cast<std::size_t>(i / shape.row_block * columns + j / shape.column_block)];
      block = std::max(block, p[static_cast<std::size_t>(j)]);
    }
  }
  return scores;
}

/// What the last min(row block, queries) queries of a head give each column block:
/// a_n = mean over those queries and the keys of block n of softmax_j(scale q_i.k_j), causal, of
/// sum 1.
template <StorageScalar T, StorageScalar U>
std::vector<double> reference_head_masses(TensorView<const T, 2> q, TensorView<const U, 2> k,
                                          const BlockMask::Shape& shape, double scale) {
  std::vector<double> pooled(static_cast<std::size_t>(shape.column_blocks()), 0.0);
  for (Index i = std::max<Index>(q.rows() - shape.row_block, 0); i < q.rows(); ++i) {
    std::vector<double> logits;
    for (Index j = 0; j <= i + k.rows() - q.rows(); ++j)
      logits.push_back(scale * reference_dot(reference_row(q, i), reference_row(k, j), q.cols()));
    const std::vector<double> p = reference_softmax(logits);
    for (std::size_t j = 0; j < p.size(); ++j) {
      const Index n = static_cast<Index>(j) / shape.column_block;
      const Index count = std::min((n + 1) * shape.column_block, k.rows()) - n * shape.column_block;
      pooled[static_cast<std::size_t>(n)] += p[j] / static_cast<double>(count);
    }
  }
  double total = 0;
  for (const double a : pooled) total += a;
  for (double& a : pooled) a /= total;
  return pooled;
}

/// How many of the T column blocks a head needs: the least b so that the b largest a_n of
/// `reference_head_masses` add up to `mass`, and T if mass is 1 or more. The paper's ratio is
/// b / T.
template <StorageScalar T, StorageScalar U>
Index reference_head_budget(TensorView<const T, 2> q, TensorView<const U, 2> k,
                            const BlockMask::Shape& shape, double mass, double scale) {
  const std::vector<double> masses = reference_head_masses(q, k, shape, scale);
  double sum = 0;
  Index budget = 0;
  for (const std::uint32_t n : reference_rank(masses)) {
    if (mass < 1 && sum >= mass) break;
    sum += masses[n];
    ++budget;
  }
  return budget;
}

/// How many blocks of row block m a head with `budget` of T column blocks keeps.
inline Index reference_row_budget(const BlockMask::Shape& shape, Index m, Index budget,
                                  const ReferenceProxySelection& o) {
  const Index visible = shape.causal_columns(m), columns = shape.column_blocks();
  const Index share =
      o.budget == ReferenceBudget::All ? budget : ceil_div(budget * visible, columns);
  const Index least = ceil_div(o.min_budget, shape.column_block);
  return std::clamp<Index>(std::max(share, least), 1, visible);
}

/// The kept column blocks of each row block of one head: the highest of the proxy's scores among
/// the visible, as many as its budget, and the forced ones. Of equal scores the earlier is taken.
inline std::vector<std::vector<std::int32_t>> reference_proxy_select(
    const std::vector<double>& scores, const BlockMask::Shape& shape, Index budget,
    const ReferenceProxySelection& o) {
  const auto columns = static_cast<std::size_t>(shape.column_blocks());
  std::vector<std::vector<std::int32_t>> lists;
  for (Index m = 0; m < shape.row_blocks(); ++m) {
    const auto visible = static_cast<std::size_t>(shape.causal_columns(m));
    const std::vector<std::uint32_t> rank =
        reference_rank(std::span(scores).subspan(static_cast<std::size_t>(m) * columns, visible));
    std::vector<bool> kept(visible, false);
    for (Index b = 0; b < reference_row_budget(shape, m, budget, o); ++b)
      kept[rank[static_cast<std::size_t>(b)]] = true;
    if (o.first) kept[0] = true;
    const Index first_position = m * shape.row_block + shape.keys - shape.queries;
    for (auto n = static_cast<std::size_t>(first_position / shape.column_block);
         n < visible && o.diagonal; ++n)
      kept[n] = true;
    lists.emplace_back();
    for (std::size_t n = 0; n < visible; ++n)
      if (kept[n]) lists.back().push_back(static_cast<std::int32_t>(n));
  }
  return lists;
}

PARE_ABI_END
}  // namespace pare::attention::detail
