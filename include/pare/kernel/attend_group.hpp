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

#include <algorithm>
#include <cstddef>
#include <limits>
#include <type_traits>

namespace pare::kernel::detail {
PARE_ABI_BEGIN

/// Room for the scores of a row; for keys as they lie a few more: rows a power of two apart would
/// share sets of L1.
template <bool Direct>
inline constexpr std::ptrdiff_t row_room = Direct ? direct_tile_keys + 64 : tile_keys;

/// Keys as they lie that are weighed before their values are multiplied: few enough that V of them
/// is in L2 when the next panel of columns comes, and enough that a panel is seldom begun.
inline constexpr std::ptrdiff_t weighed_keys = 256;

/// The scratch of one group of rows. Weights share the place of scores where they have their type.
template <class E, bool Direct>
struct TileScratch {
  using T = typename product<E>::sum;
  alignas(64) T scores[tile_rows * row_room<Direct>];
};
template <bool Direct>
struct TileScratch<Bf16Pair, Direct> {
  using T = float;
  alignas(64) T scores[tile_rows * row_room<Direct>];
  alignas(64) bf16 weights[tile_rows * row_room<Direct>];
};
/// Turns scores [begin, end) of a row into weights 2^(factor s_j - maximum) and
/// returns their sums; all are 0 in a row that has seen nothing.
template <class Arch, class E, bool Direct, class T>
PARE_TILE_INLINE WeightSums<T> weigh_row(TileScratch<E, Direct>& scratch, std::ptrdiff_t row,
                                         std::ptrdiff_t begin, std::ptrdiff_t end, T factor,
                                         T maximum_now) noexcept {
  constexpr std::ptrdiff_t n = lanes<T, Arch>;
  const bool nothing = maximum_now == -std::numeric_limits<T>::infinity();
  T* scores = scratch.scores + row * row_room<Direct>;
  if (is_far(maximum_now)) {
    far_exponents(scores + begin, end - begin, factor, maximum_now);
    factor = T(1);
    maximum_now = T(0);
  }
  const vec<T, Arch> shift = broadcast<Arch>(nothing ? T(0) : -maximum_now);
  const vec<T, Arch> scale = broadcast<Arch>(factor);
  vec<T, Arch> total = broadcast<Arch>(T(0)), exact = total;
  for (std::ptrdiff_t j = begin; j < end; j += n) {
    vec<T, Arch> weight =
        exp2<Arch>(multiply_add<Arch>(load<Arch>(static_cast<const T*>(scores) + j), scale, shift));
    if constexpr (std::is_same_v<E, Bf16Pair>) {
      exact = exact + weight;
      weight = store_rounded<Arch>(scratch.weights + row * row_room<Direct> + j, weight);
    } else {
      store<Arch>(scores + j, weight);
    }
    total = total + weight;
  }
  const T sum = reduce_add<Arch>(total);
  if constexpr (std::is_same_v<E, Bf16Pair>) return {sum, reduce_add<Arch>(exact)};
  return {sum, sum};
}

/// `rows` rows from `row` on: scores, weights, output; `Direct` with keys and values as they lie.
template <class Arch, bool Direct, class S, class M>
struct AttendGroup {
  using Tile = AttendTile<S, M>;
  using T = compute_t<S>;
  using E = element_t<S, Arch>;
  static constexpr std::ptrdiff_t n = lanes<T, Arch>;
  static constexpr std::ptrdiff_t columns = tile_columns<T, Arch>;
  using Scratch = TileScratch<E, Direct>;
  static constexpr bool modified = !std::is_same_v<M, Exact>;

  const Tile& a;
  const std::ptrdiff_t row;
  const int rows;
  Scratch scratch;
  alignas(64) T now[group_room] = {};
  alignas(64) T rescale[group_room];

  AttendGroup(const Tile& tile, std::ptrdiff_t first, int count) noexcept
      : a(tile), row(first), rows(count) {}

  /// Part `part` of `parts` of what these rows have to fetch.
  void fetch_share(std::ptrdiff_t part, std::ptrdiff_t parts) const noexcept {
    const std::ptrdiff_t begin = (row - a.first_row) * parts + part * rows;
    if (a.fetch.count > 0) fetch_part(a.fetch, begin, begin + rows, (a.rows - a.first_row) * parts);
  }

  void score(std::ptrdiff_t count, std::ptrdiff_t padded) noexcept {
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
      const std::ptrdiff_t panels = padded / columns;
      for (std::ptrdiff_t j = 0; j < padded; j += columns) {
        fetch_share(j / columns, 2 * panels);
        multiply_tile<Arch, E>(rows, tile_registers<Arch>,
                               {.a = queries,
                                .a_stride = steps,
                                .b = reinterpret_cast<const E*>(a.keys) + j * steps,
                                .steps = steps,
                                .c = scratch.scores + j,
                                .c_stride = row_room<Direct>});
      }
    }
  }

  /// Moves the maximum of each row, to `now`, and scales its sum.
  void advance(std::ptrdiff_t count, std::ptrdiff_t padded, bool masked, T factor) noexcept {
    alignas(64) T before[group_room] = {};
    for (std::ptrdiff_t r = 0; r < rows; ++r) {
      T* scores = scratch.scores + r * row_room<Direct>;
      if constexpr (modified) modify_scores(a, a.places[row + r], count, scores);
      if (masked) hide_keys(a, a.places[row + r], count, scores);
      for (std::ptrdiff_t j = count; j < padded; ++j)
        scores[j] = -std::numeric_limits<T>::infinity();
      before[r] = a.maximum[row + r];
      now[r] = advance_maximum<Arch>(static_cast<const T*>(scores), padded, factor, before[r]);
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
  void weigh(std::ptrdiff_t begin, std::ptrdiff_t end, T factor) noexcept {
    for (std::ptrdiff_t r = 0; r < rows; ++r) {
      const WeightSums<T> sums = weigh_row<Arch>(scratch, r, begin, end, factor, now[r]);
      a.sum[row + r] += sums.rounded;
      if (a.mass != nullptr) a.mass[row + r] += sums.exact;
    }
  }

  /// The weights of keys from `begin` on.
  const E* weights(std::ptrdiff_t begin) const noexcept {
    if constexpr (std::is_same_v<E, Bf16Pair>)
      return reinterpret_cast<const E*>(scratch.weights) + begin / product<E>::depth;
    else
      return scratch.scores + begin;
  }

  /// Columns from c on, `registers` registers of them, of the output.
  void accumulate_panel(int registers, std::ptrdiff_t begin, std::ptrdiff_t count,
                        std::ptrdiff_t c) noexcept {
    constexpr std::ptrdiff_t weight_stride = row_room<Direct> / product<E>::depth;
    const std::ptrdiff_t stride = padded_columns<T>(a.value_columns);
    T* out = a.out + row * stride;
    if constexpr (Direct) {
      multiply_rows<Arch, S, E>(rows, registers,
                                {.weights = weights(begin),
                                 .stride = weight_stride,
                                 .rows = a.value_rows + begin,
                                 .count = count,
                                 .ahead = a.count - begin - count + a.ahead,
                                 .c = c,
                                 .columns = a.value_columns,
                                 .out = out,
                                 .out_stride = stride,
                                 .scale = rescale});
    } else {
      multiply_tile<Arch, E>(rows, registers,
                             {.a = weights(begin),
                              .a_stride = weight_stride,
                              .b = reinterpret_cast<const E*>(a.values) + c * steps_of<E>(a.count),
                              .steps = steps_of<E>(count),
                              .c = out + c,
                              .c_stride = stride,
                              .start = TileStart::Scaled,
                              .scale = rescale});
    }
  }

  /// Adds `count` keys from `begin` on, all there are if they are packed.
  void accumulate(std::ptrdiff_t begin, std::ptrdiff_t count) noexcept {
    const PanelSplit split{static_cast<int>((a.value_columns + n - 1) / n), tile_registers<Arch>};
    std::ptrdiff_t c = 0;
    for (int p = 0; p < split.panels(); ++p) {
      fetch_share(split.panels() + p, 2 * split.panels());
      accumulate_panel(split.width(p), begin, count, c);
      c += split.width(p) * n;
    }
  }

  void run() noexcept {
    GroupView view;
    for (std::ptrdiff_t r = 0; r < rows; ++r) view.add(a.places[row + r]);
    if (a.lowest > view.max_last) return;
    if (a.highest < view.min_first && a.lowest >= a.sinks) return;
    std::ptrdiff_t count = a.count;
    if (a.contiguous && view.max_last - a.lowest < count - 1) count = view.max_last - a.lowest + 1;
    const std::ptrdiff_t padded = (count + columns - 1) / columns * columns;
    const bool masked = a.highest > view.min_last || a.lowest < view.max_first;
    const T factor = modified ? T(log2_e) : a.scale * T(log2_e);
    score(count, padded);
    advance(count, padded, masked, factor);
    // A packed tile is one part.
    constexpr std::ptrdiff_t part = Direct ? weighed_keys : tile_keys;
    for (std::ptrdiff_t begin = 0; begin < count; begin += part) {
      const std::ptrdiff_t end = std::min(begin + part, padded);
      weigh(begin, end, factor);
      accumulate(begin, std::min(end, count) - begin);
      if constexpr (Direct) std::fill_n(rescale, rows, T(1));
    }
  }
};

template <class Arch, bool Direct, class S, class M>
void attend_rows(const AttendTile<S, M>& a) noexcept {
  for (std::ptrdiff_t row = a.first_row; row < a.rows;) {
    const int rows = next_group(a.rows - row, Direct ? direct_tile_rows : tile_rows);
    AttendGroup<Arch, Direct, S, M>(a, row, rows).run();
    row += rows;
  }
}
PARE_ABI_END
}  // namespace pare::kernel::detail

#include <pare/core/macros_on.hpp>
