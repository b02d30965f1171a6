// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// The mass that sampled queries give blocks of keys, in one pass over the keys.

#include <pare/attention/detail/sampled_rows.hpp>
#include <pare/attention/selector.hpp>
#include <pare/core/aligned_buffer.hpp>
#include <pare/core/backend.hpp>
#include <pare/core/ceil_div.hpp>
#include <pare/core/scratch.hpp>
#include <pare/kernel/pack.hpp>
#include <pare/kernel/score_tile.hpp>
#include <pare/kernel/softmax_cells.hpp>
#include <pare/linalg/score_rows.hpp>

#include <algorithm>
#include <cstddef>
#include <limits>
#include <vector>

namespace pare::attention::detail {
PARE_ABI_BEGIN

/// Sampled queries that pass over the keys together: the panel of packed queries of AVX-512, and
/// 32 KiB of floats at a dim of 128, which the first-level cache holds.
inline constexpr Index sampled_tile = 64;

/// A sampled query, where it stands, and whose mass it adds to.
template <StorageScalar S>
struct SampledQuery {
  const S* row = nullptr;
  Index position = 0;
  Index slot = 0;  ///< (row block, head) of the run
};

/// A reducer: the scores of keys (its rows) and up to sampled_tile queries (its columns), by blocks
/// of keys. Queries come in the order of their positions, so those that do not see a key are the
/// first.
template <ComputeScalar T>
class SampledCells {
 public:
  explicit SampledCells(Index column_block) : column_block_(column_block) {}

  void carve(Carver& take, Index cells) {
    take(maximum_, cells * sampled_tile);
    take(sum_, cells * sampled_tile);
  }

  template <class Query>
  void begin(const Query* queries, Index count, Index cells) {
    std::fill_n(maximum_, cells * sampled_tile, kernel::empty_cell<T>);
    std::fill_n(sum_, cells * sampled_tile, T(0));
    for (Index q = 0; q < count; ++q) positions_[q] = queries[q].position;
    blind_ = 0;
  }
  /// The first key of the tiles that follow.
  void set_first(Index key) { first_ = key; }

  template <class B>
  void add(const B& backend, const linalg::TileOfScores<T>& tile) {
    for (Index r = 0; r < tile.rows; ++r) {
      while (positions_[blind_] < first_ + tile.row + r) ++blind_;
      std::fill_n(&tile.at(r, 0), blind_, -std::numeric_limits<T>::infinity());
    }
    launch(backend,
           kernel::AddToCells<T>{tile.scores, kernel::tile_keys, tile.rows, tile.keys,
                                 first_ + tile.row, column_block_, maximum_, sum_, sampled_tile});
  }

  /// Shares of the softmax of each query, [cells x sampled_tile].
  template <class B>
  const T* shares(const B& backend, Index count, Index cells) {
    launch(backend, kernel::CellShares<T>{maximum_, sum_, cells, count, sampled_tile});
    return sum_;
  }

 private:
  Index column_block_;
  Index first_ = 0;
  Index blind_ = 0;  ///< queries that do not see the last key
  Index positions_[sampled_tile] = {};
  T* maximum_ = nullptr;
  T* sum_ = nullptr;
};

/// The sampled queries of some rows of blocks, for all query heads of one key/value head: they pass
/// over its keys together, however few samples a row of blocks has.
template <class B, StorageScalar S>
class SampledRun {
  using T = compute_t<S>;

 public:
  SampledRun(const B& backend, AlignedBuffer<std::byte>& memory, const SelectorLayer<S>& layer,
             const SampledRows& rows, Index batch, Index first_head, Index heads)
      : layer_(layer),
        rows_(rows),
        batch_(batch),
        first_head_(first_head),
        heads_(heads),
        backend_(backend),
        memory_(memory),
        scores_(backend, layer.k.dim()),
        cells_(rows.grid.column_block) {}

  /// Row blocks [begin, end).
  void run(Index begin, Index end, SampledMasses<T>& masses) {
    gather(begin, end);
    const Index slots = (end - begin) * heads_, seen = rows_.seen(end - 1);
    carve_from(memory_, [&](Carver& take) {
      scores_.carve(take, linalg::score_tile_rows, linalg::score_tile_rows);
      cells_.carve(take, seen);
      take(packed_, sampled_tile * layer_.k.dim());
      take(mass_, seen * slots);
    });
    std::fill_n(mass_, seen * slots, 0.0);
    const auto all = static_cast<Index>(queries_.size());
    for (Index first = 0; first < all; first += sampled_tile)
      add_tile(queries_.data() + first, std::min(sampled_tile, all - first), slots);
    for (Index m = begin; m < end; ++m)
      for (Index h = 0; h < heads_; ++h) {
        const double* const mass = mass_ + (m - begin) * heads_ + h;
        const auto samples = static_cast<double>(rows_.samples(m));
        masses.set(first_head_ + h, m, [&](Index n) { return mass[n * slots] / samples; });
      }
  }

 private:
  /// Those of all heads, by position.
  void gather(Index begin, Index end) {
    queries_.clear();
    for (Index m = begin; m < end; ++m)
      for (Index s = 0; s < rows_.samples(m); ++s)
        for (Index h = 0; h < heads_; ++h) {
          const SelectorHead<S> head = layer_.of(batch_, first_head_ + h);
          const Index i = rows_.first_query(m) + s * rows_.stride;
          queries_.push_back({head.query(i), head.position(i), (m - begin) * heads_ + h});
        }
  }

  /// Adds the mass that up to sampled_tile queries give to blocks.
  void add_tile(const SampledQuery<S>* queries, Index count, Index slots) {
    const S* pointers[sampled_tile];
    for (Index q = 0; q < count; ++q) pointers[q] = queries[q].row;
    launch(backend_, kernel::PackTransposed<S>{pointers, count, layer_.k.dim(), packed_});
    const KeyRows<S> keys = layer_.of(batch_, first_head_).k;
    const Index end = queries[count - 1].position + 1;
    const Index seen = ceil_div(end, rows_.grid.column_block);
    cells_.begin(queries, count, seen);
    for (Index first = 0; first < end; first += linalg::score_tile_rows) {
      scores_.set_rows(std::min(linalg::score_tile_rows, end - first),
                       [&](Index r) { return keys[first + r]; });
      cells_.set_first(first);
      scores_.reduce_packed(packed_, 0, count, static_cast<T>(layer_.scale), cells_);
    }
    const T* const shares = cells_.shares(backend_, count, seen);
    for (Index n = 0; n < seen; ++n)
      for (Index q = 0; q < count; ++q)
        mass_[n * slots + queries[q].slot] += static_cast<double>(shares[n * sampled_tile + q]);
  }

  const SelectorLayer<S>& layer_;
  const SampledRows& rows_;
  Index batch_, first_head_, heads_;
  const B& backend_;
  AlignedBuffer<std::byte>& memory_;
  linalg::ScoreRows<B, S> scores_;
  SampledCells<T> cells_;
  std::vector<SampledQuery<S>> queries_;
  T* packed_ = nullptr;     ///< PackTransposed
  double* mass_ = nullptr;  ///< [blocks x slots]
};

/// The masses of the heads of a batch entry. Work is cut by key/value heads and runs of row blocks;
/// a query's share of a block does not depend on the queries beside it.
template <class B, class S>
void sampled_masses(const B& backend, const SelectorLayer<S>& layer, Index batch,
                    std::vector<AlignedBuffer<std::byte>>& memory,
                    SampledMasses<compute_t<S>>& masses) {
  const SampledRows& rows = masses.rows;
  const Index kv_heads = layer.k.kv_heads(), heads = layer.q.extent[1] / kv_heads;
  const Index blocks = std::max<Index>(1, 2 * sampled_tile / (rows.samples(0) * heads));
  const Index runs = ceil_div(rows.grid.rows(), blocks);
  parallel_for(backend.executor, runs * kv_heads, [&](Index i, int worker) {
    const Index begin = (runs - 1 - i % runs) * blocks;  // the longest first
    SampledRun<B, S>(backend, memory[static_cast<std::size_t>(worker)], layer, rows, batch,
                     i / runs * heads, heads)
        .run(begin, std::min(begin + blocks, rows.grid.rows()), masses);
  });
}

PARE_ABI_END
}  // namespace pare::attention::detail
