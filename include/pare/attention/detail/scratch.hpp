// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// The arrays of one worker, carved from the call's memory.

#include <pare/attention/detail/attend_memory.hpp>
#include <pare/attention/key_value_source.hpp>
#include <pare/core/ceil_div.hpp>
#include <pare/core/scratch.hpp>
#include <pare/kernel/attend_tile.hpp>
#include <pare/kernel/pack.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <type_traits>

namespace pare::attention::detail {
PARE_ABI_BEGIN

/// Rows that a source loads stay in memory until their tile has run. They are those of one tile:
/// nothing of a second could be fetched while the first is packed, and L2 has no room to spare.
inline constexpr Index loaded_rows = kernel::tile_keys;

/// Up to this many rows, of few queries of a sequence, are the lanes of registers, and keys and
/// values are read as they lie. They take more than direct_tile_rows to pay.
inline constexpr Index lane_rows = 128;

/// What one worker needs for an item of up to `rows` rows.
template <class C>
struct Scratch {
  using S = typename C::Scalar;
  using T = typename C::T;

  T* keys = nullptr;
  T* values = nullptr;
  T* queries = nullptr;
  T* state = nullptr;
  T* maximum = nullptr;
  T* sum = nullptr;
  T* mass = nullptr;                  ///< sums for the log-sum-exp
  std::int32_t* positions = nullptr;  ///< of two tiles, as key_rows and value_rows
  kernel::RowPlace* places = nullptr;
  const S** key_rows = nullptr;
  const S** value_rows = nullptr;
  S* loaded_keys = nullptr;    ///< of a tile, where the source loads them
  S* loaded_values = nullptr;  ///< likewise
  const S** query_rows = nullptr;
  typename C::Output** out_rows = nullptr;
  T** lse_rows = nullptr;
  kernel::LaneRoom<T> lanes{};  ///< of rows_in_lanes
  T* lane_queries = nullptr;    ///< of storage that is widened
  const T** lane_query_rows = nullptr;

  Scratch(AlignedBuffer<std::byte>& memory, Index rows, Index key_dim, Index value_dim) {
    carve_from(memory, [&](Carver& take) { carve(take, rows, key_dim, value_dim); });
  }

 private:
  void carve(Carver& take, Index rows, Index key_dim, Index value_dim) {
    const Index columns = kernel::padded_columns<T>(value_dim);
    take(keys, key_dim * kernel::tile_keys);
    take(values, (kernel::tile_keys + 1) * columns);
    const Index lanes_of_rows = whole_lanes(rows);
    take(queries, std::max(rows, lanes_of_rows) * key_dim);
    take(state, rows * columns);
    take(maximum, rows);
    take(sum, rows);
    take(mass, rows);
    take(positions, 2 * kernel::direct_tile_keys);
    take(places, rows);
    take(key_rows, 2 * kernel::direct_tile_keys);
    take(value_rows, 2 * kernel::direct_tile_keys);
    take(loaded_keys, LoadsKeys<typename C::Keys> ? loaded_rows * key_dim : 0);
    take(loaded_values, LoadsValues<typename C::Keys> && !keys_hold_values<typename C::Keys>
                            ? loaded_rows * value_dim
                            : 0);
    take(query_rows, rows);
    take(out_rows, rows);
    take(lse_rows, rows);
    carve_lanes(take, lanes_of_rows, key_dim, value_dim);
  }

  void carve_lanes(Carver& take, Index rows, Index key_dim, Index value_dim) {
    using Room = kernel::LaneRoom<T>;
    constexpr bool widens = !std::is_same_v<S, T>;
    if (rows == 0) return;
    take(lanes.scores, (kernel::tile_keys + Room::lane_room) * rows);
    take(lanes.rows, Room::lane_states * rows);
    take(lanes.keys, widens ? kernel::tile_keys * key_dim : 0);
    take(lanes.values, widens ? kernel::tile_keys * value_dim : 0);
    take(lane_queries, widens ? rows * key_dim : 0);
    take(lane_query_rows, widens ? rows : 0);
  }

  /// Rows that may be lanes, as whole panels of any arch.
  static Index whole_lanes(Index rows) {
    constexpr Index widest = 256 / static_cast<Index>(sizeof(T));
    return ceil_div(std::min(rows, lane_rows), widest) * widest;
  }
};

/// The states of all parts of split keys.
template <class T>
class Parts {
 public:
  Parts(AlignedBuffer<std::byte>& memory, Index rows, Index columns) : columns_(columns) {
    if (rows > 0) carve_from(memory, [&](Carver& take) { carve(take, rows); });
  }

  /// Points a scratch to the rows of a part.
  template <class C>
  void state_of(Index row, Scratch<C>& scratch) const {
    scratch.maximum = maximum_ + row;
    scratch.sum = sum_ + row;
    scratch.mass = mass_ + row;
    scratch.state = state_ + row * columns_;
  }

 private:
  void carve(Carver& take, Index rows) {
    take(maximum_, rows);
    take(sum_, rows);
    take(mass_, rows);
    take(state_, rows * columns_);
  }

  Index columns_;
  T* maximum_ = nullptr;
  T* sum_ = nullptr;
  T* mass_ = nullptr;
  T* state_ = nullptr;
};

PARE_ABI_END
}  // namespace pare::attention::detail
