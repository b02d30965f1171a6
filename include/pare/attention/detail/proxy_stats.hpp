// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Softmax statistics of some rows over blocks of keys, in one pass over the keys.

#include <pare/attention/detail/proxy_cells.hpp>
#include <pare/attention/detail/scratch.hpp>
#include <pare/core/aligned_buffer.hpp>
#include <pare/kernel/block_weights.hpp>
#include <pare/kernel/score_tile.hpp>
#include <pare/linalg/score_rows.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <vector>

namespace pare::attention::detail {
PARE_ABI_BEGIN

/// Scratch of each worker.
using WorkerMemory = std::vector<AlignedBuffer<std::byte>>;

/// Rows that pass over the packed keys together: a tile of keys is read from afar once for them.
inline constexpr Index proxy_rows = 288;

/// A reducer: of each row the maximum and the sum in every cell of the keys up to the row's
/// position. The keys of a tile are its columns, of which each cell takes `size`.
template <ComputeScalar T>
class CellStats {
 public:
  explicit CellStats(const KeyCells& cells)
      : cells_(cells), stride_(kernel::padded_columns<T>(cells.cells())) {}

  void carve(Carver& take, Index rows) {
    take(maximum_, rows * stride_);
    take(sum_, rows * stride_);
    take(limits_, linalg::score_tile_rows);
    take(positions_, rows);
  }

  void begin(Index rows) {
    std::fill_n(maximum_, rows * stride_, -std::numeric_limits<T>::infinity());
    std::fill_n(sum_, rows * stride_, T(0));
  }
  Index stride() const { return stride_; }
  Index* positions() { return positions_; }
  const T* maximum(Index row) const { return maximum_ + row * stride_; }
  const T* sum(Index row) const { return sum_ + row * stride_; }

  bool sees(Index row, Index rows, Index column, Index) const {
    const Index first = cells_.first(column / cells_.size);
    return *std::max_element(positions_ + row, positions_ + row + rows) >= first;
  }

  template <class B>
  void add(const B& backend, const linalg::TileOfScores<T>& tile) {
    // Downwards, see KeyCells.
    for (Index column = tile.keys; (column -= cells_.size) >= 0;) {
      const Index cell = (tile.key + column) / cells_.size, at = tile.row * stride_ + cell;
      for (Index i = 0; i < tile.rows; ++i)
        limits_[i] = static_cast<std::int32_t>(cells_.visible(cell, positions_[tile.row + i]));
      launch(backend, kernel::TileStats<T>{tile.scores + column, tile.rows, cells_.size, limits_,
                                           maximum_ + at, sum_ + at, stride_});
    }
  }

 private:
  const KeyCells& cells_;
  Index stride_;
  T* maximum_ = nullptr;
  T* sum_ = nullptr;
  std::int32_t* limits_ = nullptr;
  Index* positions_ = nullptr;
};

/// CellStats of up to `rows` rows, and what follows from them. Memory: rows * (depth + 2 cells)
/// scalars and a few tiles.
template <class B, StorageScalar S>
class RowStats {
 public:
  using T = compute_t<S>;

  RowStats(const B& backend, AlignedBuffer<std::byte>& memory, const KeyCells& cells, Index rows,
           Index depth)
      : backend_(backend), cells_(cells), scores_(backend, depth), stats_(cells) {
    carve_from(memory, [&](Carver& take) {
      scores_.carve(take, rows, linalg::score_tile_rows);
      stats_.carve(take, rows);
      take(mass_, stats_.stride());
      take(top_, stats_.stride());
    });
  }

  /// Begins with rows row(0) ... row(count - 1), given as pointers; their positions are to be
  /// filled in.
  template <class Row>
  void begin(Index count, const Row& row) {
    stats_.begin(count);
    scores_.set_rows(count, row);
  }
  /// Begins with `count` rows, [count x depth], that are to be filled in, as their positions are.
  T* begin(Index count) {
    stats_.begin(count);
    return scores_.set_rows(count);
  }
  Index* positions() { return stats_.positions(); }

  /// Scores all rows that see something of the tile, and keeps their statistics.
  void add_packed_tile(Index tile, const T* packed_keys, T scale) {
    scores_.reduce_packed(packed_keys, cells_.tile_begin(tile) * cells_.size,
                          cells_.tile_columns(tile), scale, stats_);
  }
  /// The same for keys key(column), given as pointers.
  template <class Key>
  void add_tile(Index tile, const Key& key, T scale) {
    const Index first = cells_.tile_begin(tile) * cells_.size;
    scores_.reduce_tile(
        first, cells_.tile_columns(tile), [&](Index column) { return key(column - first); }, scale,
        stats_);
  }

  /// Adds the weights of rows [begin, end) to `mass` and `top`, each [cells, padded].
  void add_weights(Index begin, Index end, T* mass, T* top) const {
    launch(backend_, kernel::BlockWeights<T>{stats_.maximum(begin), stats_.sum(begin), end - begin,
                                             stats_.stride(), mass, top});
  }
  /// Room for `mass` and `top`, emptied.
  T* mass() { return std::fill_n(mass_, stats_.stride(), T(0)) - stats_.stride(); }
  T* top() {
    return std::fill_n(top_, stats_.stride(), -std::numeric_limits<T>::infinity()) -
           stats_.stride();
  }

 private:
  const B& backend_;
  const KeyCells& cells_;
  linalg::ScoreRows<B, S> scores_;
  CellStats<T> stats_;
  T* mass_ = nullptr;
  T* top_ = nullptr;
};

PARE_ABI_END
}  // namespace pare::attention::detail
