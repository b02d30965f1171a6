// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Choosing blocks by the product of their mean query and mean key.
///
/// ```cpp
/// const auto blocks = select_blocks(q, k, MeanPool{.mass = 0.95f}, {.causal = true});
/// const auto fewer =  // PBS-Attn
///     select_blocks(q, k, order, MeanPool{.segment = 256}, {.causal = true});
/// ```
///
/// Column block n scores softmax_n(scale mean(q of m).mean(k of n)) for row block m. The row block
/// keeps the largest scores until their sum reaches a share of the whole. It also keeps the blocks
/// around the diagonal and that of the first token, whatever their score. Without segments this is
/// the mean pooling that sparse methods are compared with. With segments, over keys in an order of
/// `order_keys`, it is the selection of PBS-Attn (arXiv 2510.21270, appendix D.1, algorithm 2).

#include <pare/core/macros_off.hpp>

#include <pare/attention/detail/keep_mass.hpp>
#include <pare/attention/detail/reference_max_pool.hpp>
#include <pare/attention/select_blocks.hpp>
#include <pare/attention/selector.hpp>
#include <pare/core/backend.hpp>
#include <pare/core/ceil_div.hpp>
#include <pare/linalg/score_rows.hpp>

#include <algorithm>
#include <cstddef>
#include <limits>
#include <span>
#include <vector>

namespace pare::attention {

/// The one row that stands for the tokens of a block.
enum class BlockPooling { Mean, Max };

/// How the last block is pooled if it is shorter than the others.
enum class BlockPadding {
  None,  ///< as a block of the tokens it has
  Zeros  ///< as if zeros filled it: the authors' code
};

PARE_ABI_BEGIN

/// A BlockSelector. A default is that of the PBS-Attn code, unless its comment says otherwise. It
/// needs causal attention and at most as many queries as keys. Fewer queries than keys, aligned to
/// the end of the keys, and blocks that are not square are our extensions.
struct MeanPool {
  /// If there are few heads, their rows are shared among threads.
  static constexpr bool shares_rows = true;

  Index row_block = 128;     ///< queries of a block, at least 1
  Index column_block = 128;  ///< keys or key slots of a block, at least 1

  /// Share of the softmax over candidate blocks that is kept, above 0. The block that crosses it is
  /// kept too; if rounding never lets the sum reach it, all blocks are. From 1 on, every block that
  /// a row can see is kept: exact attention.
  float mass = 0.9f;

  /// A share for each query head; empty: `mass` for all.
  std::vector<float> head_masses{};

  /// Keys of a segment, a multiple of column_block. The candidates are then the blocks of the
  /// segments before the row's own; all blocks of its own segment are kept. An order must leave
  /// keys in their segment. 0: there is no order, and the candidates are all blocks up to the
  /// diagonal, which is kept.
  Index segment = 0;

  /// Keeps the block with the first token in every row, whatever its score.
  bool force_first = true;

  BlockPooling pooling = BlockPooling::Mean;

  /// The default is ours: a short block counts like any other.
  BlockPadding padding = BlockPadding::None;

  /// \throws std::invalid_argument if a block size is below 1, the segment is negative or not a
  /// multiple of column_block, a mass is NaN or not above 0, head_masses are not one for each query
  /// head, there are more queries than keys, attention is not causal, or there is an order but no
  /// segment.
  void validate(const char* function, const SelectorCall& call) const {
    detail::check_grid(function, detail::grid_of(*this, call.queries, call.keys));
    detail::check_causal_segments(function, call, segment);
    detail::check_masses(function, mass, head_masses, call.heads);
    check_enumerator(function, "pooling", pooling, BlockPooling::Max);
    check_enumerator(function, "padding", padding, BlockPadding::Zeros);
  }

  /// Whether every mass is 1 or more.
  bool keeps_all(const SelectorCall&) const { return detail::whole_masses(mass, head_masses); }

  /// Adds the blocks of every row. Returns the share of the block scores that was kept, mean over
  /// rows. This is what the selector believes, not attention mass, and it leaves out blocks that
  /// are kept without a score. Cost: one reading of q and k, and 2 dim FLOPs for each pair of
  /// blocks. Memory: the pooled keys and, per thread, 48 rows of block scores.
  /// \throws std::invalid_argument if an order moves keys out of their segment.
  template <class B, StorageScalar S>
  PARE_ALWAYS_INLINE double select(const B& backend, const SelectorHead<S>& head,
                                   BlockLists& blocks) const;
};

PARE_ABI_END

namespace detail {
PARE_ABI_BEGIN

/// One row in place of rows row(0) ... row(count - 1), of which the last `zeros` more are zero.
template <class T, class Row>
void pool_rows(Index count, Index zeros, Index dim, BlockPooling pooling, const Row& row, T* out) {
  if (pooling == BlockPooling::Mean) {
    std::fill_n(out, dim, T(0));
    for (Index i = 0; i < count; ++i) {
      const auto* x = row(i);
      for (Index c = 0; c < dim; ++c) out[c] += static_cast<T>(x[c]);
    }
    for (Index c = 0; c < dim; ++c) out[c] /= static_cast<T>(count + zeros);
    return;
  }
  std::fill_n(out, dim, zeros > 0 ? T(0) : -std::numeric_limits<T>::infinity());
  for (Index i = 0; i < count; ++i) {
    const auto* x = row(i);
    for (Index c = 0; c < dim; ++c) {
      const T value = static_cast<T>(x[c]);
      out[c] = value > out[c] || is_nan(value) ? value : out[c];
    }
  }
}

/// Pools the keys of a head once, then scores and keeps row blocks, a few dozen at a time.
template <class B, class S>
class MeanPoolSelection {
  using T = compute_t<S>;

 public:
  MeanPoolSelection(const B& backend, const SelectorHead<S>& head, const MeanPool& options,
                    const BlockGrid& grid, const MassRule& rule)
      : backend_(backend), head_(head), options_(options), grid_(grid), rule_(rule) {}

  double run(BlockLists& blocks) {
    keys_.resize(static_cast<std::size_t>(grid_.columns() * dim()));
    parallel_for(backend_.executor, grid_.columns(), [&](Index n, int) {
      pool(
          n, grid_.column_block, grid_.keys, [&](Index slot) { return head_.key(slot); },
          keys_.data() + n * dim());
    });
    masses_.resize(static_cast<std::size_t>(grid_.rows()));
    const Index groups = ceil_div(grid_.rows(), rows_at_once);
    std::vector<AlignedBuffer<std::byte>> memory(
        static_cast<std::size_t>(worker_count(backend_.executor, groups)));
    parallel_for(backend_.executor, groups, [&](Index group, int worker) {
      keep_group(group * rows_at_once, memory[static_cast<std::size_t>(worker)], blocks);
    });
    return mean_of(masses_);
  }

 private:
  static constexpr Index rows_at_once = 48;

  Index dim() const { return head_.q.cols(); }

  template <class Row>
  void pool(Index block, Index size, Index tokens, const Row& row, T* out) const {
    const Index first = block * size, count = std::min(size, tokens - first);
    pool_rows(
        count, options_.padding == BlockPadding::Zeros ? size - count : 0, dim(), options_.pooling,
        [&](Index i) { return row(first + i); }, out);
  }

  void keep_group(Index begin, AlignedBuffer<std::byte>& memory, BlockLists& blocks) {
    const Index count = std::min(rows_at_once, grid_.rows() - begin);
    const Index columns = grid_.candidates(begin + count - 1);
    std::vector<T> queries(static_cast<std::size_t>(count * dim()));
    for (Index r = 0; r < count; ++r)
      pool(
          begin + r, grid_.row_block, grid_.queries, [&](Index i) { return head_.query(i); },
          queries.data() + r * dim());
    std::vector<double> logits(static_cast<std::size_t>(count * columns));
    linalg::ScoreRows<B, T> scores(backend_, memory, count, dim());
    scores.set_rows(count, [&](Index r) { return queries.data() + r * dim(); });
    scores.over_keys(
        0, columns, [&](Index n) { return keys_.data() + n * dim(); }, static_cast<T>(head_.scale),
        [&](Index first, Index n, const T* tile) {
          for (Index r = 0; r < count; ++r)
            std::copy_n(tile + r * kernel::tile_keys, n, logits.begin() + r * columns + first);
        });
    MassKeeper keeper(grid_, rule_);
    for (Index r = 0; r < count; ++r) {
      const std::span<double> row(logits.data() + r * columns,
                                  static_cast<std::size_t>(grid_.candidates(begin + r)));
      softmax_in_place(row);
      masses_[static_cast<std::size_t>(begin + r)] = keeper.keep(begin + r, row, blocks);
    }
  }

  const B& backend_;
  const SelectorHead<S>& head_;
  const MeanPool& options_;
  const BlockGrid& grid_;
  const MassRule& rule_;
  std::vector<T> keys_;         ///< [column blocks, dim]
  std::vector<double> masses_;  ///< [row blocks]
};

template <class S>
std::vector<double> reference_pool_scores(const SelectorHead<S>& head, const MeanPool& options,
                                          const ReferenceBlocks& blocks,
                                          ReferenceCandidates candidates) {
  const auto padding = options.padding == BlockPadding::Zeros ? ReferenceBlockMean::ZeroPadded
                                                              : ReferenceBlockMean::TrueCount;
  std::vector<S> copy;
  const TensorView<const S, 2> k = head.k.matrix(copy);
  if (options.pooling == BlockPooling::Max)
    return reference_max_pool_scores(head.q, k, head.order, blocks, head.scale, candidates,
                                     padding);
  return reference_mean_pool_scores(head.q, k, head.order, blocks, head.scale, candidates, padding);
}

template <class B, class S>
double select_mean_pool(const B& backend, const SelectorHead<S>& head, const MeanPool& options,
                        BlockLists& blocks) {
  check_segments(select_name, head, options.segment);
  const BlockGrid grid = grid_of(options, head.q.rows(), head.k.rows());
  const MassRule rule{mass_of(head, options.mass, options.head_masses),
                      options.force_first ? first_token_block(head, options.column_block) : -1,
                      false};
  if (rule.mass >= 1) return keep_all(grid, rule, blocks);
  if constexpr (KernelBackend<B>) {
    return MeanPoolSelection<B, S>(backend, head, options, grid, rule).run(blocks);
  } else {
    const ReferenceBlocks shape = reference_blocks(grid);
    const ReferenceCandidates which = reference_candidates(grid);
    return reference_keep(head, grid, rule, shape, which,
                          reference_pool_scores(head, options, shape, which), blocks);
  }
}

PARE_ABI_END
}  // namespace detail

template <class B, StorageScalar S>
PARE_ALWAYS_INLINE double MeanPool::select(const B& backend, const SelectorHead<S>& head,
                                           BlockLists& blocks) const {
  return detail::select_mean_pool(backend, head, *this, blocks);
}

}  // namespace pare::attention

#include <pare/core/macros_on.hpp>
