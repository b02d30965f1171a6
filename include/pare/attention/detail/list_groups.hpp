// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// How lists are cut into groups of keys that lie near each other.
///
/// Keys are numbered by blocks of 2^shift, and a window is list_window_blocks of them, one behind
/// the other. From its first key on, a list is cut every kernel::listed_group entries, and sooner
/// where a key is beyond the window that begins with the block of the group's first key. Groups are
/// then sorted by that block, those of one by row. Most groups of lists with enough keys are whole,
/// however many keys of a block each row lists.

#include <pare/core/macros_off.hpp>

#include <pare/core/check.hpp>
#include <pare/kernel/listed_window.hpp>

#include <algorithm>
#include <cstdint>
#include <span>

namespace pare::attention::detail {
PARE_ABI_BEGIN

/// Blocks of a window, 2 to this: what the groups that begin in one read is a block more than they
/// span. Windows of 4, 8 and 16 blocks took the same within 3 %.
inline constexpr int list_window_shift = 3;
inline constexpr Index list_window_blocks = Index{1} << list_window_shift;

/// Groups of so many lists, at most: whole ones, the last of each list, and those that end where a
/// window does, the next of which begins a window later.
inline Index most_groups(Index listed, Index lists, Index blocks) {
  return std::min(listed,
                  listed / kernel::listed_group + lists * (blocks / list_window_blocks + 2));
}

/// A group before they are sorted; the groups of a row follow each other.
struct ListCut {
  std::int32_t block = 0;  ///< of its first key
  std::int32_t count = 0;
};

/// Groups of the rows of an item, sorted by block.
struct ListGroups {
  int shift = 0;
  Index blocks = 0;
  ListCut* cuts = nullptr;                ///< [most_groups]
  Index* row_begin = nullptr;             ///< [rows + 1] of cuts
  Index* row_entry = nullptr;             ///< [rows] of places
  kernel::ListedGroup* groups = nullptr;  ///< as many
  Index* begin = nullptr;                 ///< [blocks + 1] of groups
  Index* last = nullptr;  ///< [blocks] the last block that has keys of a group, or -1
  Index rows = 0;

  void start() {
    rows = 0;
    row_begin[0] = 0;
    std::fill_n(begin, blocks + 1, Index{0});
    std::fill_n(last, blocks, Index{-1});
  }

  /// Adds a row whose places begin at `entry`.
  void add_row(std::span<const std::int32_t> keys, Index entry) {
    const auto count = static_cast<Index>(keys.size());
    Index cut = row_begin[rows];
    for (Index e = 0; e < count; ++cut) {
      const Index block = keys[static_cast<std::size_t>(e)] >> shift;
      const Index end = (block + list_window_blocks) << shift;
      Index n = std::min<Index>(kernel::listed_group, count - e);
      while (keys[static_cast<std::size_t>(e + n - 1)] >= end) --n;
      cuts[cut] = {static_cast<std::int32_t>(block), static_cast<std::int32_t>(n)};
      last[block] =
          std::max<Index>(last[block], keys[static_cast<std::size_t>(e + n - 1)] >> shift);
      ++begin[block + 1];
      e += n;
    }
    row_entry[rows] = entry;
    row_begin[++rows] = cut;
  }

  void sort() {
    for (Index b = 0; b < blocks; ++b) begin[b + 1] += begin[b];
    for (Index r = 0; r < rows; ++r) {
      Index entry = row_entry[r];
      for (Index c = row_begin[r]; c < row_begin[r + 1]; ++c) {
        const ListCut cut = cuts[c];
        groups[begin[cut.block]++] = {static_cast<std::int32_t>(r), cut.count, entry};
        entry += cut.count;
      }
    }
    std::copy_backward(begin, begin + blocks, begin + blocks + 1);
    begin[0] = 0;
  }

  Index count(Index block) const { return begin[block + 1] - begin[block]; }
  /// The first block from b on that a group begins in, or `blocks`.
  Index next(Index b) const {
    while (b < blocks && count(b) == 0) ++b;
    return b;
  }
};

PARE_ABI_END
}  // namespace pare::attention::detail

#include <pare/core/macros_on.hpp>
