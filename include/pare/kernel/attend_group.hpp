// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// A tile of attention for a few rows at a time: of packed keys and values, or of few as they lie.

#include <pare/core/macros_off.hpp>

#include <pare/kernel/attend_call.hpp>
#include <pare/kernel/direct_product.hpp>
#include <pare/kernel/gemm.hpp>
#include <pare/kernel/math.hpp>
#include <pare/kernel/online_softmax.hpp>
#include <pare/kernel/pack.hpp>
#include <pare/kernel/weigh_scores.hpp>

#include <algorithm>
#include <cstddef>
#include <limits>
#include <type_traits>
#include <utility>

namespace pare::kernel::detail {
PARE_ABI_BEGIN

/// `rows` rows from `row` on: scores, weights, output; `Direct` with keys and values as they lie.
template <class Arch, bool Direct, class S, class M>
struct AttendGroup {
  using Tile = AttendTile<S, M>;
  using T = compute_t<S>;
  using E = element_t<S, Arch>;
  static constexpr std::ptrdiff_t n = lanes<T, Arch>;
  static constexpr std::ptrdiff_t columns = tile_columns<T, Arch>;
  static constexpr std::ptrdiff_t weighed = n * product<E>::depth;  ///< at once, at least
  using Scratch = TileScratch<E, Direct>;
  static constexpr bool modified = !std::is_same_v<M, Exact>;

  const Tile& a;
  const T factor;  ///< of scores, in units of log2
  std::ptrdiff_t row = 0;
  int rows = 0;
  std::ptrdiff_t count = 0;   ///< keys that some row sees, as far as they come first
  std::ptrdiff_t padded = 0;  ///< in whole registers, of pairs in two
  bool masked = false;
  Scratch scratch;
  alignas(64) T now[group_room] = {};
  alignas(64) T rescale[group_room];
  alignas(64) T largest[static_cast<std::size_t>(folded_rows * n)];  ///< scores, of each lane

  explicit AttendGroup(const Tile& tile) noexcept
      : a(tile), factor(modified ? T(log2_e) : tile.scale * T(log2_e)) {}

  /// Takes `size` rows from `first` on; false if they see no key of the tile.
  bool take(std::ptrdiff_t first, int size) noexcept {
    row = first;
    rows = size;
    GroupView view;
    for (std::ptrdiff_t r = 0; r < rows; ++r) view.add(a.places[row + r]);
    if (a.lowest > view.max_last) return false;
    if (a.highest < view.min_first && a.lowest >= a.sinks) return false;
    count = a.count;
    if (a.contiguous && view.max_last - a.lowest < count - 1) count = view.max_last - a.lowest + 1;
    padded = (count + weighed - 1) / weighed * weighed;
    masked = a.highest > view.min_last || a.lowest < view.max_first;
    return true;
  }

  /// Part `part` of `parts` of what these rows have to fetch.
  void fetch_share(std::ptrdiff_t part, std::ptrdiff_t parts) const noexcept {
    const std::ptrdiff_t begin = (row - a.first_row) * parts + part * rows;
    const std::ptrdiff_t whole = (a.rows - a.first_row) * parts;
    if (a.fetch.count > 0) fetch_part(a.fetch, begin, begin + rows, whole);
    if (a.fetch_keys.count > 0) fetch_part(a.fetch_keys, begin, begin + rows, whole);
  }

  void score() noexcept {
    const std::ptrdiff_t steps = steps_of<E>(a.key_depth);
    const E* queries = reinterpret_cast<const E*>(a.queries) + row * steps;
    if constexpr (Direct) {
      score_rows<Arch, S, E>(rows, {.q = queries,
                                    .keys = a.key_rows,
                                    .count = count,
                                    .ahead = a.count - count + a.ahead,
                                    .depth = a.key_depth,
                                    .scores = scratch.scores,
                                    .stride = row_room<Direct>});
    } else {
      const std::ptrdiff_t panels = (padded + columns - 1) / columns;
      std::fill_n(largest, rows * n, -std::numeric_limits<T>::infinity());
      for (std::ptrdiff_t j = 0; j < padded; j += columns) {
        fetch_share(j / columns, 2 * panels);
        multiply_tile<Arch, E>(rows, static_cast<int>(std::min(padded - j, columns) / n),
                               {.a = queries,
                                .a_stride = steps,
                                .b = reinterpret_cast<const E*>(a.keys) + j * steps,
                                .steps = steps,
                                .c = scratch.scores + j,
                                .c_stride = row_room<Direct>,
                                .b_stride = columns,
                                .largest = largest});
      }
    }
  }

  /// Hides what a row does not see, up to the key that is returned: from it on nothing is seen.
  std::ptrdiff_t hide(const RowPlace& place, T* scores) const noexcept {
    const bool from_first = place.first <= a.lowest || place.first <= a.sinks;
    if (a.contiguous && from_first)
      return std::clamp<std::ptrdiff_t>(place.last - a.lowest + 1, 0, count);
    hide_keys(a, place, count, scores);
    return count;
  }

  /// Moves the maximum of each row, to `now`, and scales its sum.
  void advance() noexcept {
    alignas(64) T before[group_room] = {};
    // A product of packed tiles says what is largest as long as nothing changes it.
    if (Direct || modified || masked || count < padded)
      for (std::ptrdiff_t r = 0; r < rows; ++r) {
        T* scores = scratch.scores + r * row_room<Direct>;
        if constexpr (modified) modify_scores(a, a.places[row + r], count, scores);
        hide_from<Arch>(scores, masked ? hide(a.places[row + r], scores) : count, padded);
        store<Arch>(largest + r * n, largest_of_lanes<Arch>(static_cast<const T*>(scores), padded));
      }
    fold_rows<Arch>(static_cast<const T*>(largest), rows, static_cast<T*>(now),
                    [](const auto& x, const auto& y)
                        PARE_LAMBDA_INLINE { return maximum<Arch>(x, y); });
    for (std::ptrdiff_t r = 0; r < rows; ++r) {
      const T tile = in_log2(now[r], factor);
      before[r] = a.maximum[row + r];
      now[r] = before[r] >= tile ? before[r] : tile;  // a NaN stays
    }
    rescale_factors<Arch>(static_cast<const T*>(before), static_cast<const T*>(now),
                          static_cast<T*>(rescale));
    for (std::ptrdiff_t r = 0; r < rows; ++r) {
      a.maximum[row + r] = now[r];
      a.sum[row + r] *= rescale[r];
      if (a.mass != nullptr) a.mass[row + r] *= rescale[r];
    }
  }

  /// Turns the scores of keys [begin, end) into weights and adds them to the sums.
  void weigh(std::ptrdiff_t begin, std::ptrdiff_t end) noexcept {
    constexpr bool rounds = std::is_same_v<E, Bf16Pair>;
    alignas(64) T sums[static_cast<std::size_t>(folded_rows * n)];
    alignas(64) T exact[static_cast<std::size_t>(rounds ? folded_rows * n : 1)];
    if (rounds && a.mass != nullptr)
      for (std::ptrdiff_t r = 0; r < rows; ++r)
        weigh_row<Arch, rounds>(scratch, r, begin, end, factor, now[r], sums + r * n,
                                exact + r * n);
    else
      for (std::ptrdiff_t r = 0; r < rows; ++r)
        weigh_row<Arch, false>(scratch, r, begin, end, factor, now[r], sums + r * n,
                               static_cast<T*>(nullptr));
    add_sums(sums, a.sum);
    if (a.mass != nullptr) add_sums(rounds ? exact : sums, a.mass);
  }

  /// Adds the lanes of each row's register to its number.
  void add_sums(const T* registers, T* to) const noexcept {
    alignas(64) T folded[group_room];
    fold_rows<Arch>(registers, rows, static_cast<T*>(folded),
                    [](const auto& x, const auto& y) PARE_LAMBDA_INLINE { return x + y; });
    for (std::ptrdiff_t r = 0; r < rows; ++r) to[row + r] += folded[r];
  }

  /// The weights of keys from `begin` on.
  const E* weights(std::ptrdiff_t begin) const noexcept {
    if constexpr (std::is_same_v<E, Bf16Pair>)
      return reinterpret_cast<const E*>(scratch.weights) + begin / product<E>::depth;
    else
      return scratch.scores + begin;
  }

  /// Columns from c on, `registers` registers of them, of the output.
  void accumulate_panel(int registers, std::ptrdiff_t begin, std::ptrdiff_t keys,
                        std::ptrdiff_t c) noexcept {
    constexpr std::ptrdiff_t weight_stride = row_room<Direct> / product<E>::depth;
    const std::ptrdiff_t stride = padded_columns<T>(a.value_columns);
    T* out = a.out + row * stride;
    if constexpr (Direct) {
      multiply_rows<Arch, S, E>(rows, registers,
                                {.weights = weights(begin),
                                 .stride = weight_stride,
                                 .rows = a.value_rows + begin,
                                 .count = keys,
                                 .ahead = a.count - begin - keys + a.ahead,
                                 .c = c,
                                 .columns = a.value_columns,
                                 .out = out,
                                 .out_stride = stride,
                                 .scale = rescale});
    } else {
      multiply_tile<Arch, E>(rows, registers,
                             {.a = weights(begin),
                              .a_stride = weight_stride,
                              .b = reinterpret_cast<const E*>(a.values) +
                                   (a.value_stride > 0 ? c : c * steps_of<E>(a.count)),
                              .steps = steps_of<E>(keys),
                              .c = out + c,
                              .c_stride = stride,
                              .start = TileStart::Scaled,
                              .scale = rescale,
                              .b_stride = a.value_stride});
    }
  }

  /// Adds `keys` keys from `begin` on, all there are if they are packed.
  void accumulate(std::ptrdiff_t begin, std::ptrdiff_t keys) noexcept {
    const PanelSplit split{static_cast<int>((a.value_columns + n - 1) / n), tile_registers<Arch>};
    std::ptrdiff_t c = 0;
    for (int p = 0; p < split.panels(); ++p) {
      fetch_share(split.panels() + p, 2 * split.panels());
      accumulate_panel(split.width(p), begin, keys, c);
      c += split.width(p) * n;
    }
  }

  /// All steps, of keys and values as they lie: those in parts.
  void run_direct() noexcept {
    score();
    advance();
    for (std::ptrdiff_t begin = 0; begin < count; begin += weighed_keys) {
      const std::ptrdiff_t end = std::min(begin + weighed_keys, padded);
      weigh(begin, end);
      accumulate(begin, std::min(end, count) - begin);
      std::fill_n(rescale, rows, T(1));
    }
  }
};

template <class Arch, class S, class M>
void attend_direct_rows(const AttendTile<S, M>& a) noexcept {
  for (std::ptrdiff_t row = a.first_row; row < a.rows;) {
    const int rows = next_group(a.rows - row, direct_tile_rows);
    AttendGroup<Arch, true, S, M> group(a);
    if (group.take(row, rows)) group.run_direct();
    row += rows;
  }
}

/// Of two groups in turn, so that a softmax stands between products that do not wait for it: those
/// of values of the rows before it, and of queries of the rows behind it.
template <class Arch, class S, class M>
void attend_packed_rows(const AttendTile<S, M>& a) noexcept {
  using Group = AttendGroup<Arch, false, S, M>;
  Group groups[] = {Group(a), Group(a)};
  Group *now = groups, *before = groups + 1;
  const auto finish = [](Group& group) {
    if (group.count > 0) group.accumulate(0, group.count);
  };
  for (std::ptrdiff_t row = a.first_row; row < a.rows;) {
    const int rows = next_group(a.rows - row);
    const bool sees = now->take(row, rows);
    row += rows;
    if (!sees) continue;
    now->score();
    finish(*before);
    now->advance();
    now->weigh(0, now->padded);
    std::swap(now, before);
  }
  finish(*before);
}
PARE_ABI_END
}  // namespace pare::kernel::detail

#include <pare/core/macros_on.hpp>
