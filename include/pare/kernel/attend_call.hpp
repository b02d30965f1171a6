// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// One tile of attention: what its kernel is given, and what its rows see.

#include <pare/core/macros_off.hpp>

#include <pare/kernel/pack.hpp>
#include <pare/kernel/score_modifier.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <type_traits>

namespace pare::kernel {

/// Keys of a full tile. K and V of 128 keys of 128 floats are 128 KiB: they stay in the
/// second-level cache while all rows of a block pass over them.
inline constexpr std::ptrdiff_t tile_keys = 128;

/// The same for up to direct_tile_rows rows, of keys and values as they lie, which are passed over
/// once: K of a tile, and then V, is read as one long stream.
inline constexpr std::ptrdiff_t direct_tile_keys = 2048;

/// Where a query row stands and what it sees: keys at positions [first, last], and those below the
/// tile's `sinks` that are not after `last`.
struct RowPlace {
  std::int32_t query = 0;     ///< token in its sequence
  std::int32_t position = 0;  ///< the same, counted as keys are
  std::int32_t first = 0;
  std::int32_t last = 0;
  std::int32_t head = 0;
};

/// Memory of a tile whose query rows are the lanes of registers, of keys and values as they lie.
template <class T>
struct LaneRoom {
  T* scores = nullptr;        ///< [tile_keys + lane_room, stride]
  T* rows = nullptr;          ///< [lane_states, stride]
  T* keys = nullptr;          ///< [tile_keys, key_depth], where storage is widened
  T* values = nullptr;        ///< [tile_keys, value_columns], likewise
  std::ptrdiff_t stride = 0;  ///< rows rounded up to padded_columns

  /// Keys beyond a tile, and numbers kept for each row.
  static constexpr std::ptrdiff_t lane_room = 16, lane_states = 4;
};

/// Advances the online softmax of `rows` query rows by one tile of keys.
///
/// Per row, with s_j = scale <q, k_j>, modified, over the visible keys of the tile:
/// m' = max(m, max_j s_j), l = l e^(m - m') + sum_j e^(s_j - m'),
/// o = o e^(m - m') + sum_j e^(s_j - m') v_j. The state before the first tile is (-inf, 0, 0); m is
/// kept in units of log2. A row that sees no key is left alone. A finite score whose logarithm to
/// base 2 would overflow counts as the largest or the lowest number that does not. Cost: 2 rows
/// count (key_depth + value_columns) FLOPs, which binds, and rows * count exponentials.
///
/// A score of NaN or +infinity makes its row NaN and no other. A NaN or infinite value reaches the
/// up to tile_rows rows that are computed together.
template <StorageScalar S, class Modifier>
struct AttendTile {
  using T = compute_t<S>;

  const T* keys = nullptr;                  ///< PackTransposed; null: key_rows and value_rows
  const T* values = nullptr;                ///< PackRows, or rows value_stride apart
  std::ptrdiff_t value_stride = 0;          ///< of rows in whole registers; 0: PackRows
  const S* const* key_rows = nullptr;       ///< [count + ahead], as they lie: for few rows
  const S* const* value_rows = nullptr;     ///< [count + ahead]
  std::ptrdiff_t ahead = 0;                 ///< of the next tile, to be fetched
  const std::int32_t* positions = nullptr;  ///< [count]
  std::ptrdiff_t count = 0;                 ///< at most direct_tile_keys; packed tile_keys
  std::int32_t lowest = 0;                  ///< of all positions
  std::int32_t highest = 0;
  bool contiguous = false;  ///< positions are lowest, lowest + 1, ...
  std::int32_t sinks = 0;
  std::ptrdiff_t key_depth = 0;
  std::ptrdiff_t value_columns = 0;

  const T* queries = nullptr;  ///< PackLeft
  const RowPlace* places = nullptr;
  std::ptrdiff_t first_row = 0;  ///< rows [first_row, rows) are advanced
  std::ptrdiff_t rows = 0;
  T* maximum = nullptr;  ///< [rows]
  T* sum = nullptr;      ///< [rows]
  T* out = nullptr;      ///< [rows x padded_columns(value_columns)]
  T* mass = nullptr;     ///< [rows] sums of weights before they are rounded; null: not wanted

  T scale = 1;
  std::int64_t batch = 0;
  Modifier modifier{};
  FetchRows<S> fetch{};
  FetchRows<S> fetch_keys{};  ///< beside them
  LaneRoom<T> lanes{};        ///< given: rows are lanes, queries in PanelWidth::Lanes, first_row 0
};

namespace detail {
PARE_ABI_BEGIN

/// What a group of rows sees of a tile.
struct GroupView {
  std::int32_t min_first = std::numeric_limits<std::int32_t>::max();
  std::int32_t max_first = 0;
  std::int32_t min_last = std::numeric_limits<std::int32_t>::max();
  std::int32_t max_last = std::numeric_limits<std::int32_t>::min();

  void add(const RowPlace& place) noexcept {
    min_first = place.first < min_first ? place.first : min_first;
    max_first = place.first > max_first ? place.first : max_first;
    min_last = place.last < min_last ? place.last : min_last;
    max_last = place.last > max_last ? place.last : max_last;
  }
};

/// A row's scores lie one behind the other.
using Dense = std::integral_constant<std::ptrdiff_t, 1>;

/// Keys [begin, end) of a tile.
struct KeyRange {
  std::ptrdiff_t begin, end;
};

/// Scores of keys that row `place` does not see become -infinity.
template <class S, class M, class T, class Stride = Dense>
void hide_keys(const AttendTile<S, M>& a, const RowPlace& place, std::ptrdiff_t count, T* scores,
               Stride stride = {}) noexcept {
  constexpr T hidden = -std::numeric_limits<T>::infinity();
  if (a.contiguous) {
    // In ranges: a branch for each key would be guessed wrong at every row's end.
    const auto key = [&](std::int64_t position) {
      return static_cast<std::ptrdiff_t>(
          std::clamp<std::int64_t>(position - a.lowest, 0, std::int64_t{count}));
    };
    const std::ptrdiff_t end = key(std::int64_t{place.last} + 1);
    for (const KeyRange hide : {KeyRange{key(a.sinks), key(place.first)}, KeyRange{end, count}})
      for (std::ptrdiff_t j = hide.begin; j < hide.end; ++j) scores[j * stride] = hidden;
    return;
  }
  for (std::ptrdiff_t j = 0; j < count; ++j) {
    const std::int32_t position = a.positions[j];
    const bool visible = position <= place.last && (position >= place.first || position < a.sinks);
    scores[j * stride] = visible ? scores[j * stride] : hidden;
  }
}

/// Whether a modifier says that it leaves the scores of a tile as they are.
template <class S, class M>
bool keeps_scores(const AttendTile<S, M>& a) noexcept {
  if constexpr (requires { a.modifier.keeps(a.batch, a.lowest, a.highest); })
    return a.modifier.keeps(a.batch, std::int64_t{a.lowest}, std::int64_t{a.highest});
  else
    return false;
}

template <class S, class M, class T, class Stride = Dense>
void modify_scores(const AttendTile<S, M>& a, const RowPlace& place, std::ptrdiff_t count,
                   T* scores, Stride stride = {}) noexcept {
  if (keeps_scores(a)) {
    for (std::ptrdiff_t j = 0; j < count; ++j) scores[j * stride] *= a.scale;
    return;
  }
  ScorePlace at{a.batch, place.head, place.query, place.position, 0};
  for (std::ptrdiff_t j = 0; j < count; ++j) {
    at.key = a.positions[j];
    scores[j * stride] = modified(a.modifier, scores[j * stride] * a.scale, at);
  }
}

PARE_ABI_END
}  // namespace detail
}  // namespace pare::kernel

#include <pare/core/macros_on.hpp>
