// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// How the fields of a batch are cut into items of work, by their shape alone.

#include <pare/feature/fields/field_layout.hpp>

#include <algorithm>
#include <cstddef>
#include <vector>

namespace pare::feature::detail {
PARE_ABI_BEGIN

/// Sums over the rows of one piece of a field.
struct PieceSums {
  static constexpr std::size_t slope = 0, squared = 1, absolute = 2, norm = 3;
  double values[4] = {};
};

/// Fields [first_field, last_field); of a single field perhaps some of its rows.
struct MixItem {
  Index first_field = 0, last_field = 0;
  Index first_row = 0, last_row = 0;
  Index first_piece = 0;  ///< field j's sums are piece first_piece + j - first_field
  bool by_columns = false;
};

/// The items of a pass. Each piece of a field belongs to one item.
struct MixPlan {
  std::vector<MixItem> items;
  Index pieces = 0;
  Index tile_columns = 0;  ///< of items by columns; 0 without any
  Index widest = 1;        ///< of the fields

  template <class ByColumns>
  void make(const FieldLayout& layout, Index rows, Index scalar_bytes, int tiles,
            const ByColumns& by_columns);

 private:
  /// Scalars of an item by rows: enough to be worth an atomic counter, few enough to share out.
  static constexpr Index item_size = Index{1} << 16;
  /// Bytes of all tiles of a worker. Rows of 256 contiguous bytes are worth more than tiles that
  /// fit L2: of 4096 rows, tiles of 64 columns turn in half the time of 16.
  static constexpr Index tile_bytes = Index{2} << 20;

  void add(const MixItem& item) {
    items.push_back(item);
    items.back().first_piece = pieces;
    pieces += item.last_field - item.first_field;
  }
};

/// Whole cache lines of columns, so that `tiles` of them fit the bytes, one line at least and four
/// at most.
inline Index columns_of_tile(Index rows, Index scalar_bytes, int tiles, Index tile_bytes) {
  const Index line = 64 / scalar_bytes, column = std::max(Index{1}, rows) * scalar_bytes * tiles;
  return std::clamp(tile_bytes / column / line, Index{1}, Index{4}) * line;
}

template <class ByColumns>
void MixPlan::make(const FieldLayout& layout, Index rows, Index scalar_bytes, int tiles,
                   const ByColumns& by_columns) {
  items.clear();
  pieces = tile_columns = 0;
  widest = 1;
  const Index fields = layout.fields();
  for (Index j = 0; j < fields;) {
    const bool columns = by_columns(j);
    if (columns && tile_columns == 0)
      tile_columns = columns_of_tile(rows, scalar_bytes, tiles, tile_bytes);
    Index end = j, size = 0;
    const Index enough = columns ? tile_columns : item_size, row = columns ? 1 : rows;
    do {
      widest = std::max(widest, layout.width(end));
      size += layout.width(end++) * row;
    } while (end < fields && size < enough && by_columns(end) == columns);
    if (columns || end - j > 1 || size <= 4 * item_size) {
      add({j, end, 0, rows, 0, columns});
    } else {
      const Index run = std::max(Index{1}, 4 * item_size / layout.width(j));
      for (Index b = 0; b < rows; b += run) add({j, end, b, std::min(rows, b + run), 0, false});
    }
    j = end;
  }
}

PARE_ABI_END
}  // namespace pare::feature::detail
