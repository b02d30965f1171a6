// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// How keys are cut up for the statistics of blocks.

#include <pare/core/check.hpp>
#include <pare/kernel/attend_tile.hpp>

#include <algorithm>

namespace pare::attention::detail {
PARE_ABI_BEGIN

/// Of each block of keys the first of every `stride`, in cells that a tile of scores holds: a block
/// is one cell or, above tile_keys sampled keys, several. A tile is one cell or several.
struct KeyCells {
  Index keys = 0;
  Index block = 1;
  Index stride = 1;
  Index per_block = 1;  ///< cells of a block
  Index size = 1;       ///< sampled keys of a cell; the last ones have fewer
  Index per_tile = 1;   ///< cells of a tile

  KeyCells(Index key_count, Index block_size, Index key_stride)
      : keys(key_count), block(block_size), stride(key_stride) {
    const Index samples = (std::min(block, keys) - 1) / stride + 1;
    per_block = (samples - 1) / kernel::tile_keys + 1;
    size = (samples - 1) / per_block + 1;
    // TileStats overwrites up to the end of a register (at most 16 scores) behind a cell: that must
    // be a cell it has done, or the same row.
    constexpr Index lanes = 16;
    const Index room = size % lanes == 0 ? kernel::tile_keys : kernel::tile_keys - lanes;
    per_tile = std::max<Index>(1, room / size);
  }

  Index cells() const { return ((keys - 1) / block + 1) * per_block; }
  Index tiles() const { return (cells() - 1) / per_tile + 1; }
  /// The first key of a cell; of an empty one, not a key of the block.
  Index first(Index cell) const {
    return cell / per_block * block + cell % per_block * size * stride;
  }
  /// Sampled keys of a cell.
  Index count(Index cell) const {
    const Index begin = first(cell),
                left = std::min(cell / per_block * block + block, keys) - begin;
    return left <= 0 ? 0 : std::min(size, (left - 1) / stride + 1);
  }
  /// Sampled keys of a cell that are not after a position.
  Index visible(Index cell, Index position) const {
    const Index begin = first(cell);
    return position < begin ? 0 : std::min(count(cell), (position - begin) / stride + 1);
  }
  Index tile_begin(Index tile) const { return tile * per_tile; }
  Index tile_end(Index tile) const { return std::min(cells(), (tile + 1) * per_tile); }
  /// Columns of a tile: each cell takes `size` of them.
  Index tile_columns(Index tile) const { return (tile_end(tile) - tile_begin(tile)) * size; }
  /// The key in a column of a tile; some key of the tensor where a cell has none.
  Index key(Index tile, Index column) const {
    const Index cell = tile_begin(tile) + column / size;
    return std::min(first(cell) + column % size * stride, keys - 1);
  }
};

PARE_ABI_END
}  // namespace pare::attention::detail
