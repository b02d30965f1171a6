// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Choosing blocks by sums of scores along antidiagonals.
///
/// ```cpp
/// const auto blocks =  // XAttention
///     select_blocks(q, k, Antidiagonal{.stride = 16}, {.causal = true});
/// const auto fewer =  // PBS-Attn+
///     select_blocks(q, k, order, Antidiagonal{.segment = 256}, {.causal = true});
/// ```
///
/// Xu et al., "XAttention: Block Sparse Attention with Antidiagonal Scoring" (arXiv 2503.16428).
/// Queries and key slots are cut into cells of stride x stride. The logit of a cell is scale /
/// stride times the sum of the scores on its antidiagonal, which crosses every row and every column
/// of the cell once. A softmax over each row of cells, added up by block, gives the scores of
/// blocks. The largest are kept until their sum reaches a share of the whole.

#include <pare/core/macros_off.hpp>

#include <pare/attention/detail/keep_mass.hpp>
#include <pare/attention/select_blocks.hpp>
#include <pare/attention/selector.hpp>
#include <pare/core/backend.hpp>
#include <pare/core/ceil_div.hpp>
#include <pare/kernel/score_tile.hpp>
#include <pare/linalg/score_rows.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <vector>

namespace pare::attention {

PARE_ABI_BEGIN

/// A BlockSelector. It needs causal attention and at most as many queries as keys. Fewer queries
/// than keys, aligned to the end of the keys, and blocks that are not square are our extensions.
struct Antidiagonal {
  /// If there are few heads, their rows are shared among threads.
  static constexpr bool shares_rows = true;

  Index row_block = 128;     ///< queries of a block, at least 1
  Index column_block = 128;  ///< keys or key slots of a block, at least 1

  /// Side of a cell, in [1, block] and a divisor of both block sizes. The work falls with it;
  /// XAttention uses 8 and 16.
  Index stride = 8;

  /// Share of the block scores that is kept, above 0, as in MeanPool. Blocks that are always kept
  /// count. The default is what users of XAttention run with.
  float mass = 0.9f;

  /// A share for each query head; empty: `mass` for all.
  std::vector<float> head_masses{};

  /// As in MeanPool. The PBS-Attn paper does not say how antidiagonal scores combine with a key
  /// order. Our reconstruction: slots take the place of keys, the softmax runs over the cells of
  /// candidate blocks, and the row's own segment is kept without a score.
  Index segment = 0;

  /// Keeps the block with the first token in every row, whatever its score.
  bool force_first = true;

  /// \throws std::invalid_argument as MeanPool::validate, or if the stride is below 1 or does not
  /// divide both block sizes.
  void validate(const char* function, const SelectorCall& call) const {
    detail::check_grid(function, detail::grid_of(*this, call.queries, call.keys));
    detail::check_causal_segments(function, call, segment);
    check(stride >= 1 && stride <= std::min(row_block, column_block), function, "stride", stride,
          "at least 1 and at most the block");
    check(row_block % stride == 0 && column_block % stride == 0, function, "stride", stride,
          "a divisor of both block sizes");
    detail::check_masses(function, mass, head_masses, call.heads);
  }

  /// Whether every mass is 1 or more.
  bool keeps_all(const SelectorCall&) const { return detail::whole_masses(mass, head_masses); }

  /// Adds the blocks of every row. Returns the share of the block scores that was kept, mean over
  /// rows. Cost: 2 dim / stride FLOPs for each visible (query, key) pair, which bind: 1/16 of exact
  /// attention at a stride of 8 and equal dims. Memory per thread: 256 rows of cells, or those of
  /// one row block, times the column blocks.
  /// \throws std::invalid_argument as MeanPool::select.
  template <class B, StorageScalar S>
  PARE_ALWAYS_INLINE double select(const B& backend, const SelectorHead<S>& head,
                                   BlockLists& blocks) const;
};

PARE_ABI_END

namespace detail {
PARE_ABI_BEGIN

/// Block weights of one row of cells, under a maximum that grows from tile to tile.
template <class T>
struct CellRow {
  T maximum = -std::numeric_limits<T>::infinity();
  std::span<T> weight{};  ///< [column blocks]

  /// Makes room for scores up to `tile_maximum`.
  void raise(T tile_maximum) {
    if (!(tile_maximum > maximum)) return;
    const T factor =
        maximum == -std::numeric_limits<T>::infinity() ? T(0) : std::exp(maximum - tile_maximum);
    for (T& w : weight) w *= factor;
    maximum = tile_maximum;
  }
};

/// Scores the row blocks of a head, some at a time against all their keys.
template <class B, class S>
class AntidiagonalSelection {
  using T = compute_t<S>;

 public:
  AntidiagonalSelection(const B& backend, const SelectorHead<S>& head, Index stride,
                        const BlockGrid& grid, const MassRule& rule)
      : backend_(backend),
        head_(head),
        stride_(stride),
        grid_(grid),
        rule_(rule),
        row_cells_(grid.row_block / stride),
        group_blocks_(std::max<Index>(1, rows_at_once / row_cells_)),
        zero_(static_cast<std::size_t>(head.q.cols())) {}

  double run(BlockLists& blocks) {
    masses_.resize(static_cast<std::size_t>(grid_.rows()));
    const Index groups = ceil_div(grid_.rows(), group_blocks_);
    std::vector<AlignedBuffer<std::byte>> memory(
        static_cast<std::size_t>(worker_count(backend_.executor, groups)));
    parallel_for(backend_.executor, groups, [&](Index group, int worker) {
      // The last groups have the most keys.
      keep_group((groups - 1 - group) * group_blocks_, memory[static_cast<std::size_t>(worker)],
                 blocks);
    });
    return mean_of(masses_);
  }

 private:
  /// A tile of keys is packed once for this many rows of cells.
  static constexpr Index rows_at_once = 256;

  /// Cells that row t of cells may weigh, a prefix.
  Index limit(Index t) const {
    const Index seen = (t * stride_ + grid_.keys - grid_.queries) / stride_ + 1;
    const Index slots = std::min(grid_.candidates(t / row_cells_) * grid_.column_block, grid_.keys);
    return std::min(seen, ceil_div(slots, stride_));
  }

  /// The query of product `a` of row t of cells.
  Index query(Index t, Index a) const { return t * stride_ + stride_ - 1 - a; }
  /// The key behind the last is zero.
  const S* key(Index u, Index a) const {
    const Index slot = u * stride_ + a;
    return slot < grid_.keys ? head_.key(slot) : zero_.data();
  }

  void keep_group(Index first_block, AlignedBuffer<std::byte>& memory, BlockLists& blocks) {
    const Index last_block = std::min(first_block + group_blocks_, grid_.rows());
    const Index begin = first_block * row_cells_;
    const Index cells = ceil_div(grid_.queries, stride_);
    const Index rows = std::min(last_block * row_cells_, cells) - begin;
    const Index columns = grid_.candidates(last_block - 1);
    std::vector<T> weights(static_cast<std::size_t>(rows * columns));
    std::vector<CellRow<T>> states(static_cast<std::size_t>(rows));
    for (Index r = 0; r < rows; ++r)
      states[static_cast<std::size_t>(r)].weight = {weights.data() + r * columns,
                                                    static_cast<std::size_t>(columns)};
    add_tiles(begin, rows, memory, states);
    MassKeeper keeper(grid_, rule_);
    for (Index m = first_block; m < last_block; ++m) {
      const Index from = m * row_cells_ - begin;
      const std::span<const CellRow<T>> own(
          states.data() + from, static_cast<std::size_t>(std::min(row_cells_, rows - from)));
      masses_[static_cast<std::size_t>(m)] = keeper.keep(m, block_scores(m, own), blocks);
    }
  }

  /// Weighs the cells of all rows, tile by tile.
  void add_tiles(Index begin, Index rows, AlignedBuffer<std::byte>& memory,
                 std::vector<CellRow<T>>& states) const {
    linalg::ScoreRows<B, S> scores(backend_, memory, rows, head_.q.cols());
    const T scale = static_cast<T>(head_.scale / static_cast<double>(stride_));
    const Index end = limit(begin + rows - 1);
    // The other antidiagonal products of a cell larger than the tensors are with zeros.
    const Index first_product = std::min(std::max(Index{0}, stride_ - grid_.queries), stride_ - 1);
    const Index products = std::max(std::min(stride_, grid_.keys) - first_product, Index{1});
    for (Index first = 0; first < end; first += kernel::tile_keys) {
      const Index count = std::min(kernel::tile_keys, end - first);
      T* tile = nullptr;
      for (Index a = first_product; a < first_product + products; ++a) {
        // A product with what lies behind the last query is 0, though the key be infinite.
        const Index whole = rows - (query(begin + rows - 1, a) < grid_.queries ? 0 : 1);
        scores.set_rows(whole, [&](Index r) { return head_.query(query(begin + r, a)); });
        tile = scores.score(
            first, count, [&](Index u) { return key(u, a); }, scale, a > first_product);
        if (whole < rows && a == first_product)
          std::fill_n(tile + whole * kernel::tile_keys, kernel::tile_keys, T(0));
      }
      for (Index r = 0; r < rows; ++r) {
        const Index seen = std::min(count, limit(begin + r) - first);
        if (seen > 0)
          add_cells(first, static_cast<std::int32_t>(seen), tile + r * kernel::tile_keys,
                    states[static_cast<std::size_t>(r)]);
      }
    }
  }

  void add_cells(Index first, std::int32_t count, T* scores, CellRow<T>& state) const {
    T maximum = 0, sum = 0;
    launch(backend_, kernel::TileStats<T>{scores, 1, count, &count, &maximum, &sum, 1});
    state.raise(maximum);
    T weight[kernel::tile_keys] = {};
    launch(backend_, kernel::AddWeights<T>{scores, 1, count, &count, &state.maximum, weight});
    const Index block = grid_.column_block / stride_;
    for (Index j = 0; j < count;) {
      const Index n = (first + j) / block, end = std::min<Index>((n + 1) * block - first, count);
      T& total = state.weight[static_cast<std::size_t>(n)];
      for (; j < end; ++j) total += weight[j];
    }
    // A NaN, wherever it was: the row knows nothing.
    if (is_nan(sum)) state.weight[0] = std::numeric_limits<T>::quiet_NaN();
  }

  /// The shares of the candidates of row block m; they add up to 1.
  std::vector<double> block_scores(Index m, std::span<const CellRow<T>> rows) const {
    std::vector<double> scores(static_cast<std::size_t>(grid_.candidates(m)), 0.0);
    double total = 0;
    for (const CellRow<T>& row : rows) {
      double sum = 0;
      for (std::size_t n = 0; n < scores.size(); ++n) sum += static_cast<double>(row.weight[n]);
      if (sum == 0) continue;
      for (std::size_t n = 0; n < scores.size(); ++n)
        scores[n] += static_cast<double>(row.weight[n]) / sum;
      total += 1;
    }
    if (total > 0)
      for (double& score : scores) score /= total;
    return scores;
  }

  const B& backend_;
  const SelectorHead<S>& head_;
  Index stride_;
  const BlockGrid& grid_;
  const MassRule& rule_;
  Index row_cells_;             ///< rows of cells in a row block
  Index group_blocks_;          ///< row blocks taken at a time
  std::vector<S> zero_;         ///< [dim]
  std::vector<double> masses_;  ///< [row blocks]
};

template <class B, class S>
double select_antidiagonal(const B& backend, const SelectorHead<S>& head,
                           const Antidiagonal& options, BlockLists& blocks) {
  check_segments(select_name, head, options.segment);
  const BlockGrid grid = grid_of(options, head.q.rows(), head.k.rows());
  const MassRule rule{mass_of(head, options.mass, options.head_masses),
                      options.force_first ? first_token_block(head, options.column_block) : -1,
                      true};
  if (rule.mass >= 1) return keep_all(grid, rule, blocks);
  if constexpr (KernelBackend<B>) {
    return AntidiagonalSelection<B, S>(backend, head, options.stride, grid, rule).run(blocks);
  } else {
    const ReferenceBlocks shape = reference_blocks(grid);
    const ReferenceCandidates which = reference_candidates(grid);
    std::vector<S> copy;
    const std::vector<double> scores = reference_antidiagonal_scores(
        head.q, head.k.matrix(copy), head.order, shape, options.stride, head.scale, which);
    return reference_keep(head, grid, rule, shape, which, scores, blocks);
  }
}

PARE_ABI_END
}  // namespace detail

template <class B, StorageScalar S>
PARE_ALWAYS_INLINE double Antidiagonal::select(const B& backend, const SelectorHead<S>& head,
                                               BlockLists& blocks) const {
  return detail::select_antidiagonal(backend, head, *this, blocks);
}

}  // namespace pare::attention

#include <pare/core/macros_on.hpp>
