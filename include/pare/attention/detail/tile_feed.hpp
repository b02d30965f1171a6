// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// How keys and values of a head become tiles: gathered or loaded by position, packed, handed to
/// the kernel.

#include <pare/attention/detail/problem.hpp>
#include <pare/attention/detail/scratch.hpp>
#include <pare/attention/key_value_source.hpp>
#include <pare/core/backend.hpp>
#include <pare/kernel/attend_tile.hpp>
#include <pare/kernel/pack.hpp>

#include <algorithm>
#include <cstdint>
#include <type_traits>

namespace pare::attention::detail {
PARE_ABI_BEGIN

/// When the rows behind a tile are fetched.
enum class Fetch {
  Packing,    ///< keys while keys are packed, values while values are: of few query rows
  Computing,  ///< while the tile is computed, which of many rows takes longer than to fetch
  Throughout  ///< keys while both are packed, values while the tile is computed: scattered rows
};

/// Collects keys and values of one key/value head in a scratch, in the order in which they are
/// added, and makes tiles of the first of them. There is room for two tiles, so that the second can
/// be fetched while the first is packed; for one where the source loads rows.
template <class B, class C>
class TileFeed {
  using T = typename C::T;
  using S = typename C::Scalar;
  using Source = typename C::Keys;

 public:
  using Tile = kernel::AttendTile<S, typename C::Modifier>;

  TileFeed(const B& backend, const C& call, Index sequence, Index kv_head,
           const Scratch<C>& scratch)
      : backend_(backend), call_(call), sequence_(sequence), kv_head_(kv_head), scratch_(scratch) {}

  /// Keys that were added and not yet left behind.
  Index count() const { return count_; }

  void add(Index position) { place(count_++, position); }
  /// Positions [begin, begin + n).
  void add_run(Index begin, Index n) {
    if constexpr (HasRowRuns<Source> && !keys_hold_values<Source>)
      place_run(begin, n);
    else
      for (Index i = 0; i < n; ++i) place(count_ + i, begin + i);
    count_ += n;
  }

  /// The first `n` as they lie; the others are fetched meanwhile.
  Tile direct(Index n) const {
    Tile tile = tile_of(n);
    tile.key_rows = scratch_.key_rows;
    tile.value_rows = scratch_.value_rows;
    tile.ahead = count_ - n;
    return tile;
  }

  /// The first `n`, packed here; the others are fetched.
  Tile packed(Index n, Fetch fetch) const {
    const Problem& p = call_.problem;
    const kernel::FetchRows<S> keys{scratch_.key_rows + n, count_ - n, p.key_dim};
    const kernel::FetchRows<S> values{scratch_.value_rows + n, count_ - n, p.value_dim};
    kernel::PackTransposed<S> pack_keys{scratch_.key_rows, n, p.key_dim, scratch_.keys};
    kernel::PackRows<S> pack_values{scratch_.value_rows, n, p.value_dim, scratch_.values};
    Tile tile = tile_of(n);
    if (fetch == Fetch::Packing) {
      pack_keys.fetch = keys;
      pack_values.fetch = values;
    } else {
      tile.fetch = values;
    }
    if (fetch == Fetch::Throughout) {
      const Index half = keys.count / 2;
      pack_keys.fetch = {keys.rows, half, p.key_dim};
      pack_values.fetch = {keys.rows + half, keys.count - half, p.key_dim};
    } else if (fetch == Fetch::Computing && !keys_hold_values<Source>) {
      tile.fetch_keys = keys;
    }
    launch(backend_, pack_keys);
    tile.keys = scratch_.keys;
    if (fetch != Fetch::Packing && are_panels(n)) {
      if constexpr (std::is_same_v<S, T>) tile.values = scratch_.value_rows[0];
      tile.value_stride = p.value_dim;
      return tile;
    }
    launch(backend_, pack_values);
    tile.values = scratch_.values;
    return tile;
  }

  /// The keys of the first `n`, packed here, with the values of another feed's tile of the same
  /// positions.
  Tile packed_keys(Index n, Fetch fetch, const Tile& values) const {
    const Index depth = call_.problem.key_dim;
    const kernel::FetchRows<S> next{scratch_.key_rows + n, count_ - n, depth};
    kernel::PackTransposed<S> pack{scratch_.key_rows, n, depth, scratch_.keys};
    Tile tile = tile_of(n);
    if (fetch == Fetch::Packing)
      pack.fetch = next;
    else
      tile.fetch_keys = next;
    launch(backend_, pack);
    tile.keys = scratch_.keys;
    tile.values = values.values;
    tile.value_stride = values.value_stride;
    return tile;
  }

  /// Whether the first `n` rows of values are panels where they lie: one behind the other, in whole
  /// registers.
  bool are_panels(Index n) const {
    const Index columns = call_.problem.value_dim;
    if (!std::is_same_v<S, T> || columns != kernel::padded_columns<T>(columns)) return false;
    const S* const first = scratch_.value_rows[0];
    bool together = true;
    for (Index j = 1; j < n; ++j)
      together &= scratch_.value_rows[j] == scratch_.value_rows[j - 1] + columns;
    return together && first != nullptr;
  }

  /// Leaves the first `n` behind.
  void drop(Index n) {
    count_ -= n;
    std::copy_n(scratch_.positions + n, count_, scratch_.positions);
    std::copy_n(scratch_.key_rows + n, count_, scratch_.key_rows);
    std::copy_n(scratch_.value_rows + n, count_, scratch_.value_rows);
  }
  void clear() { count_ = 0; }

 private:
  void place(Index at, Index position) {
    scratch_.positions[at] = static_cast<std::int32_t>(position);
    scratch_.key_rows[at] =
        key_row(call_.source, sequence_, kv_head_, position,
                LoadsKeys<Source> ? scratch_.loaded_keys + room_ * call_.problem.key_dim : nullptr);
    if constexpr (keys_hold_values<Source>)
      scratch_.value_rows[at] = scratch_.key_rows[at];
    else
      scratch_.value_rows[at] = value_row(
          call_.source, sequence_, kv_head_, position,
          LoadsValues<Source> ? scratch_.loaded_values + room_ * call_.problem.value_dim : nullptr);
    // Rows that were dropped leave room: no more than loaded_rows are held at a time.
    if constexpr (LoadsKeys<Source> || LoadsValues<Source>) room_ = (room_ + 1) % loaded_rows;
  }

  void place_run(Index begin, Index n) {
    for (Index i = 0; i < n; ++i)
      scratch_.positions[count_ + i] = static_cast<std::int32_t>(begin + i);
    point_at_rows<S>(begin, n, scratch_.key_rows + count_, [this](Index position) {
      return call_.source.key_run(sequence_, kv_head_, position);
    });
    point_at_rows<S>(begin, n, scratch_.value_rows + count_, [this](Index position) {
      return call_.source.value_run(sequence_, kv_head_, position);
    });
  }

  /// All but the operands, the extremes of the positions and the rows.
  Tile tile_of(Index n) const {
    const Problem& p = call_.problem;
    Tile tile;
    tile.positions = scratch_.positions;
    tile.count = n;
    tile.sinks = static_cast<std::int32_t>(p.sinks);
    tile.key_depth = p.key_dim;
    tile.value_columns = p.value_dim;
    tile.scale = static_cast<T>(p.scale);
    tile.batch = sequence_;
    tile.modifier = call_.modifier;
    tile.queries = scratch_.queries;
    tile.places = scratch_.places;
    tile.maximum = scratch_.maximum;
    tile.sum = scratch_.sum;
    tile.out = scratch_.state;
    tile.mass = call_.keeps_mass() ? scratch_.mass : nullptr;
    return tile;
  }

  const B& backend_;
  const C& call_;
  Index sequence_;
  Index kv_head_;
  const Scratch<C>& scratch_;
  Index count_ = 0;
  Index room_ = 0;  ///< of the rows that are loaded, where the next one goes
};

/// Says of a tile what its positions are: their extremes, and whether one follows the other.
template <class Tile>
void note_positions(Tile& tile) {
  const std::int32_t* const positions = tile.positions;
  const std::int32_t first = positions[0], count = static_cast<std::int32_t>(tile.count);
  std::int32_t lowest = first, highest = first, jumps = 0;
  for (std::int32_t j = 0; j < count; ++j) {
    jumps |= (positions[j] - first) ^ j;  // 0 only where they are equal
    lowest = positions[j] < lowest ? positions[j] : lowest;
    highest = positions[j] > highest ? positions[j] : highest;
  }
  tile.lowest = lowest;
  tile.highest = highest;
  tile.contiguous = jumps == 0;
}

PARE_ABI_END
}  // namespace pare::attention::detail
