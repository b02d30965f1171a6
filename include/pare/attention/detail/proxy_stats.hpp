// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Softmax statistics of some rows over blocks of keys, in one pass over the keys.

#include <pare/attention/detail/proxy_cells.hpp>
#include <pare/attention/detail/scratch.hpp>
#include <pare/core/aligned_buffer.hpp>
#include <pare/kernel/block_weights.hpp>
#include <pare/kernel/score_tile.hpp>

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

/// Of up to `rows` rows the maximum and the sum in every cell of the keys up to the row's position.
/// Memory: rows * (depth + 2 cells) scalars and a few tiles.
template <class B, StorageScalar S>
class RowStats {
 public:
  using T = compute_t<S>;

  RowStats(const B& backend, AlignedBuffer<std::byte>& memory, const KeyCells& cells, Index rows,
           Index depth)
      : backend_(backend),
        cells_(cells),
        depth_(depth),
        stride_(kernel::padded_columns<T>(cells.cells())) {
    carve_from(memory, [&](Carver& take) { carve(take, rows); });
  }

  /// Begins with `count` rows; their pointers, or packed queries, and positions are to be filled
  /// in.
  void begin(Index count) {
    rows_ = count;
    std::fill_n(maximum_, count * stride_, -std::numeric_limits<T>::infinity());
    std::fill_n(sum_, count * stride_, T(0));
  }
  const S** row_pointers() { return row_pointers_; }
  Index* positions() { return positions_; }
  /// Row r at r * depth, where the packed form is that of the rows.
  T* queries() { return queries_; }

  void pack_rows() {
    for (Index r = 0; r < rows_; r += group)
      launch(backend_, kernel::PackLeft<S>{row_pointers_ + r, std::min(group, rows_ - r), depth_,
                                           queries_ + r * depth_});
  }

  /// Scores all rows that see something of the tile, and keeps their statistics.
  void add_tile(Index tile, const T* packed_keys, T scale) {
    const Index first = cells_.first(cells_.tile_begin(tile));
    for (Index r = 0; r < rows_; r += group) {
      const Index count = std::min(group, rows_ - r);
      if (*std::max_element(positions_ + r, positions_ + r + count) < first) continue;
      launch(backend_,
             kernel::ScoreTile<S>{queries_ + r * depth_, packed_keys, count,
                                  cells_.tile_columns(tile), depth_, scale, false, scores_});
      // Downwards, see KeyCells.
      for (Index cell = cells_.tile_end(tile); cell-- > cells_.tile_begin(tile);)
        add_cell(cell, (cell - cells_.tile_begin(tile)) * cells_.size, r, count);
    }
  }

  /// Adds the weights of rows [begin, end) to `mass` and `top`, each [cells, padded].
  void add_weights(Index begin, Index end, T* mass, T* top) const {
    launch(backend_, kernel::BlockWeights<T>{maximum_ + begin * stride_, sum_ + begin * stride_,
                                             end - begin, stride_, mass, top});
  }
  /// Room for `mass` and `top`, emptied.
  T* mass() { return std::fill_n(mass_, stride_, T(0)) - stride_; }
  T* top() { return std::fill_n(top_, stride_, -std::numeric_limits<T>::infinity()) - stride_; }
  /// Room for a packed tile, and for the pointers to pack it from.
  T* tile() { return tile_; }
  const S** key_pointers() { return key_pointers_; }

 private:
  /// Rows whose scores stay in the first-level cache: whole groups of the GEMM.
  static constexpr Index group = 8 * kernel::tile_rows;

  void add_cell(Index cell, Index column, Index row, Index count) {
    for (Index i = 0; i < count; ++i)
      limits_[i] = static_cast<std::int32_t>(cells_.visible(cell, positions_[row + i]));
    launch(backend_, kernel::TileStats<T>{scores_ + column, count, cells_.size, limits_,
                                          maximum_ + row * stride_ + cell,
                                          sum_ + row * stride_ + cell, stride_});
  }

  void carve(Carver& take, Index rows) {
    take(queries_, rows * depth_);
    take(maximum_, rows * stride_);
    take(sum_, rows * stride_);
    take(mass_, stride_);
    take(top_, stride_);
    take(scores_, group * kernel::tile_keys);
    take(tile_, depth_ * kernel::tile_keys);
    take(limits_, group);
    take(positions_, rows);
    take(row_pointers_, rows);
    take(key_pointers_, kernel::tile_keys);
  }

  const B& backend_;
  const KeyCells& cells_;
  Index depth_;
  Index stride_;
  Index rows_ = 0;
  T* queries_ = nullptr;
  T* maximum_ = nullptr;
  T* sum_ = nullptr;
  T* mass_ = nullptr;
  T* top_ = nullptr;
  T* scores_ = nullptr;
  T* tile_ = nullptr;
  std::int32_t* limits_ = nullptr;
  Index* positions_ = nullptr;
  const S** row_pointers_ = nullptr;
  const S** key_pointers_ = nullptr;
};

PARE_ABI_END
}  // namespace pare::attention::detail
