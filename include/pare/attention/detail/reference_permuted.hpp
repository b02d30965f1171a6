// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// The definition of permuted block-sparse attention: which key order, which blocks.
///
/// Wang et al., "Sparser Block-Sparse Attention via Token Permutation" (PBS-Attn, arXiv
/// 2510.21270); Xu et al., "XAttention: Block Sparse Attention with Antidiagonal Scoring" (arXiv
/// 2503.16428). All functions take one head; q [queries, dim], k [keys, dim], and query i stands at
/// position i + keys - queries. The paper has as many queries as keys; fewer are our extension.

#include <pare/attention/block_mask.hpp>
#include <pare/attention/detail/reference_row.hpp>
#include <pare/core/ceil_div.hpp>
#include <pare/core/check.hpp>
#include <pare/core/tensor_view.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <numeric>
#include <span>
#include <utility>
#include <vector>

namespace pare::attention::detail {

/// Over which keys the last queries spread their weight.
enum class ReferenceImportance {
  CompleteSegments,  ///< the keys of complete segments, not causal: the authors' code
  Causal             ///< every key that the query sees: equation 7
};

/// What the mean of a block divides by, where the last block is shorter.
enum class ReferenceBlockMean {
  TrueCount,   ///< the tokens it has
  ZeroPadded,  ///< the block size: the authors' code
};

/// From which key blocks a row of blocks may choose.
enum class ReferenceCandidates {
  EarlierSegments,  ///< those of segments before the row's own: PBS-Attn
  Causal            ///< all that start at or before the last query of the row: mean pooling
};

PARE_ABI_BEGIN

/// Blocks and segments of one head.
struct ReferenceBlocks {
  BlockMask::Shape shape{};  ///< batch and heads are not looked at
  Index segment = 256;       ///< a multiple of shape.column_block

  /// First and last position of the queries of row block m.
  Index first_position(Index m) const { return m * shape.row_block + shape.keys - shape.queries; }
  Index last_position(Index m) const {
    return std::min((m + 1) * shape.row_block, shape.queries) - 1 + shape.keys - shape.queries;
  }

  /// The column blocks [first, second) of the segments that the queries of row block m stand in.
  std::pair<Index, Index> own(Index m) const {
    const Index first = first_position(m) / segment * segment;
    const Index last = std::min((last_position(m) / segment + 1) * segment, shape.keys);
    return {first / shape.column_block, (last - 1) / shape.column_block + 1};
  }

  /// How many leading column blocks row block m may choose from.
  Index candidates(Index m, ReferenceCandidates which) const {
    return which == ReferenceCandidates::Causal ? shape.causal_columns(m) : own(m).first;
  }
};

/// s_j = mean over the last min(block, queries) queries i of softmax_j(scale q_i.k_j) (section 3.2,
/// equation 7): the keys that the end of the prompt looks at. `complete_segments` leaves the keys
/// behind the last complete segment at 0.
template <StorageScalar T, StorageScalar U>
std::vector<double> reference_key_importance(TensorView<const T, 2> q, TensorView<const U, 2> k,
                                             Index block, Index segment, double scale,
                                             ReferenceImportance which) {
  const Index last = std::min(block, q.rows()), complete = k.rows() / segment * segment;
  std::vector<double> importance(static_cast<std::size_t>(k.rows()), 0.0);
  for (Index i = q.rows() - last; i < q.rows(); ++i) {
    const Index seen =
        which == ReferenceImportance::Causal ? i + k.rows() - q.rows() + 1 : complete;
    std::vector<double> scores;
    for (Index j = 0; j < seen; ++j)
      scores.push_back(scale * reference_dot(reference_row(q, i), reference_row(k, j), q.cols()));
    const std::vector<double> p = reference_softmax(scores);
    for (std::size_t j = 0; j < p.size(); ++j) importance[j] += p[j] / static_cast<double>(last);
  }
  return importance;
}

/// pi[gS + t] = gS + (the t-th most important key of segment g), for complete segments g; the keys
/// behind them stay in place (equations 6 and 8). Of equal keys the earlier comes first.
inline std::vector<std::uint32_t> reference_order_segments(std::span<const double> importance,
                                                           Index segment) {
  std::vector<std::uint32_t> order(importance.size());
  std::iota(order.begin(), order.end(), std::uint32_t{0});
  if (static_cast<Index>(order.size()) <= segment) return order;
  const auto length = static_cast<std::size_t>(segment);
  for (std::size_t start = 0; start + length <= order.size(); start += length) {
    const std::vector<std::uint32_t> rank = reference_rank(importance.subspan(start, length));
    for (std::size_t t = 0; t < length; ++t)
      order[start + t] = static_cast<std::uint32_t>(start) + rank[t];
  }
  return order;
}

/// The mean row of each block of x read in an order (empty: as it lies), [blocks, dim].
template <StorageScalar T>
std::vector<double> reference_mean_pool(TensorView<const T, 2> x,
                                        std::span<const std::uint32_t> order, Index block,
                                        ReferenceBlockMean mean) {
  std::vector<double> pooled;
  for (Index first = 0; first < x.rows(); first += block) {
    const Index last = std::min(first + block, x.rows());
    const Index count = mean == ReferenceBlockMean::TrueCount ? last - first : block;
    for (Index c = 0; c < x.cols(); ++c) {
      double sum = 0;
      for (Index slot = first; slot < last; ++slot)
        sum += reference_value(
            x(order.empty() ? slot : Index{order[static_cast<std::size_t>(slot)]}, c));
      pooled.push_back(sum / static_cast<double>(count));
    }
  }
  return pooled;
}

/// a_mn = softmax over the candidates n of scale mean(q of m).mean(k of n), [row blocks, column
/// blocks] (algorithm 2); 0 for other blocks, and for rows without a candidate.
template <StorageScalar T, StorageScalar U>
std::vector<double> reference_mean_pool_scores(TensorView<const T, 2> q, TensorView<const U, 2> k,
                                               std::span<const std::uint32_t> order,
                                               const ReferenceBlocks& blocks, double scale,
                                               ReferenceCandidates which, ReferenceBlockMean mean) {
  const BlockMask::Shape& shape = blocks.shape;
  const Index dim = q.cols(), columns = shape.column_blocks();
  const std::vector<double> queries = reference_mean_pool(q, {}, shape.row_block, mean);
  const std::vector<double> keys = reference_mean_pool(k, order, shape.column_block, mean);
  std::vector<double> scores;
  for (Index m = 0; m < shape.row_blocks(); ++m) {
    std::vector<double> row(static_cast<std::size_t>(columns), reference_hidden);
    for (Index n = 0; n < blocks.candidates(m, which); ++n)
      row[static_cast<std::size_t>(n)] =
          scale * reference_dot(queries.data() + m * dim, keys.data() + n * dim, dim);
    row = reference_softmax(row);
    scores.insert(scores.end(), row.begin(), row.end());
  }
  return scores;
}

/// q_i.k_j summed over the antidiagonal of the stride x stride cell (t, u) of query rows and key
/// slots: sum_a q[t stride + stride-1-a].k[u stride + a]. What lies behind the last row is 0.
template <StorageScalar T, StorageScalar U>
double reference_antidiagonal(TensorView<const T, 2> q, TensorView<const U, 2> k,
                              std::span<const std::uint32_t> order, Index stride, Index t,
                              Index u) {
  double sum = 0;
  const Index first = std::max(Index{0}, stride - q.rows()), last = std::min(stride, k.rows());
  for (Index a = first; a < last; ++a) {
    const Index i = t * stride + stride - 1 - a, slot = u * stride + a;
    if (i >= q.rows() || slot >= k.rows()) continue;
    const Index j = order.empty() ? slot : Index{order[static_cast<std::size_t>(slot)]};
    sum += reference_dot(reference_row(q, i), reference_row(k, j), q.cols());
  }
  return sum;
}

/// XAttention's block scores, [row blocks, column blocks]: a softmax over each row of cells of
/// scale / stride times their antidiagonal sums, added up per block and divided by the row's total;
/// 0 for blocks that are no candidates. The stride divides both block sizes.
///
/// How they join with a key order is not given by the paper: here the softmax runs over the cells
/// of candidate blocks alone. With causal candidates a cell counts if it starts at or before the
/// start of the row's cell.
template <StorageScalar T, StorageScalar U>
std::vector<double> reference_antidiagonal_scores(TensorView<const T, 2> q,
                                                  TensorView<const U, 2> k,
                                                  std::span<const std::uint32_t> order,
                                                  const ReferenceBlocks& blocks, Index stride,
                                                  double scale, ReferenceCandidates which) {
  const BlockMask::Shape& shape = blocks.shape;
  const Index columns = shape.column_blocks(), cells = ceil_div(shape.keys, stride);
  std::vector<double> scores;
  for (Index m = 0; m < shape.row_blocks(); ++m) {
    std::vector<double> row(static_cast<std::size_t>(columns), 0.0);
    const Index first = m * shape.row_block;
    const Index last = std::min(first + shape.row_block, shape.queries);
    for (Index i = first; i < last; i += stride) {
      const Index position = i + shape.keys - shape.queries;
      std::vector<double> logits(static_cast<std::size_t>(cells), reference_hidden);
      for (Index u = 0; u < cells; ++u)
        if (u * stride <= position && u * stride / shape.column_block < blocks.candidates(m, which))
          logits[static_cast<std::size_t>(u)] =
              scale / static_cast<double>(stride) *
              reference_antidiagonal(q, k, order, stride, i / stride, u);
      const std::vector<double> p = reference_softmax(logits);
      for (Index u = 0; u < cells; ++u)
        row[static_cast<std::size_t>(u * stride / shape.column_block)] +=
            p[static_cast<std::size_t>(u)];
    }
    const double total = std::accumulate(row.begin(), row.end(), 0.0);
    for (double& score : row)
      if (total != 0) score /= total;
    scores.insert(scores.end(), row.begin(), row.end());
  }
  return scores;
}

/// Which of the scores, non-negative and of sum 1, are kept: those forced, then the largest until
/// their sum reaches `mass`, the one that crosses it included; all if it is never reached or mass
/// is 1 or more. Of equal scores the earlier is taken first.
inline std::vector<bool> reference_select_mass(std::span<const double> scores, double mass,
                                               std::vector<bool> kept) {
  double sum = 0;
  for (std::size_t n = 0; n < scores.size(); ++n)
    if (kept[n]) sum += scores[n];
  for (const std::uint32_t n : reference_rank(scores))
    if (!kept[n] && (mass >= 1 || !(sum >= mass))) {
      kept[n] = true;
      sum += scores[n];
    }
  return kept;
}

/// How a row of scores becomes a row of the mask.
struct ReferenceSelection {
  double mass = 0.9;
  ReferenceCandidates candidates = ReferenceCandidates::EarlierSegments;
  bool first_token = true;    ///< force the block that holds the key at position 0
  bool count_forced = false;  ///< the mass of forced candidates counts (XAttention)
};

/// The kept column blocks of each row block: the candidates of the largest scores up to the mass,
/// every block of the row's own segments, and the block of the first token (algorithm 2).
///
/// For mean pooling without an order, and for XAttention, the segment is one block: the row's own
/// segment is the diagonal.
inline std::vector<std::vector<std::int32_t>> reference_select_blocks(
    const std::vector<double>& scores, std::span<const std::uint32_t> order,
    const ReferenceBlocks& blocks, const ReferenceSelection& selection) {
  const Index columns = blocks.shape.column_blocks();
  const Index first_slot =
      order.empty() ? 0 : std::find(order.begin(), order.end(), 0u) - order.begin();
  std::vector<std::vector<std::int32_t>> lists;
  for (Index m = 0; m < blocks.shape.row_blocks(); ++m) {
    std::vector<bool> forced(static_cast<std::size_t>(columns), false);
    if (selection.first_token)
      forced[static_cast<std::size_t>(first_slot / blocks.shape.column_block)] = true;
    for (Index n = blocks.own(m).first; n < blocks.own(m).second; ++n)
      forced[static_cast<std::size_t>(n)] = true;

    const auto count = static_cast<std::size_t>(blocks.candidates(m, selection.candidates));
    std::vector<bool> start(count, false);
    for (std::size_t n = 0; n < count && selection.count_forced; ++n) start[n] = forced[n];
    const std::vector<bool> kept = reference_select_mass(
        std::span(scores).subspan(static_cast<std::size_t>(m * columns), count), selection.mass,
        start);

    lists.emplace_back();
    for (std::size_t n = 0; n < forced.size(); ++n)
      if (forced[n] || (n < count && kept[n])) lists.back().push_back(static_cast<std::int32_t>(n));
  }
  return lists;
}

PARE_ABI_END
}  // namespace pare::attention::detail
