// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// The products of a tile of attention whose query rows are the lanes of registers, and whose keys
/// and values are read where they lie: for more rows than direct_product.hpp takes and fewer than
/// packing a tile pays for, as when a token of a model with many heads to a key is decoded.
///
/// Scores are kept as [key][row]. A key's scalars are broadcast, so keys need no transposing; the
/// maximum and the sum of a row run down the lanes; a weight is broadcast to the values.

#include <pare/core/macros_off.hpp>

#include <pare/kernel/gemm.hpp>
#include <pare/kernel/pack.hpp>

#include <algorithm>
#include <cstddef>
#include <utility>

namespace pare::kernel::detail {
PARE_ABI_BEGIN

/// Keys that are scored at once by `registers` registers of rows: more sums than the multiplier has
/// products under way, and a pointer to each key.
template <class Arch>
constexpr int lane_keys(int registers) noexcept {
  return Arch::registers < 32 ? 6 : registers == 1 ? 10 : 8;
}

/// Of a single register of rows, one key in so many has two of its scalars from one load and two
/// shuffles. With a load to every product, and one to a step for the queries, two loads a cycle
/// bind: 0.88 of the multiplier on Zen 5; so it is 0.95, with one in 3 or 10 0.93 and 0.91.
inline constexpr int paired_key = 5;

/// Rows of the next tile that are asked for, into L2, while one is computed: evenly over its time,
/// since memory answers for so many lines a microsecond and no more.
struct LaneFetch {
  const char* const* rows = nullptr;  ///< [count]
  std::ptrdiff_t count = 0;
  std::ptrdiff_t begin = 0, end = 0;  ///< bytes of a row
};

/// scores[j * stride + r] = <k_j, q_r> for `lane_keys` keys and up to `lane_registers` registers of
/// rows; meanwhile lines of as many rows, or of none, are fetched.
template <class T>
struct ScoreLanesCall {
  const T* const* keys = nullptr;  ///< [lane_keys]
  std::ptrdiff_t depth = 0;
  const T* queries = nullptr;  ///< [depth x registers], a row in a lane
  T* scores = nullptr;
  std::ptrdiff_t stride = 0;
  LaneFetch fetch{};
};

/// The sums of those scores.
template <class Arch, int Registers, class T>
struct LaneScores {
  static constexpr int keys = lane_keys<Arch>(Registers);
  static constexpr std::ptrdiff_t n = lanes<T, Arch>;

  RegisterTile<T, Arch, keys, Registers> tile;
  const T* row[keys];

  explicit LaneScores(const T* const* rows) noexcept {
    tile.clear();
    for (int j = 0; j < keys; ++j) row[j] = rows[j];
  }

  /// Adds the products of scalar s, with the queries at q.
  PARE_TILE_INLINE void step(std::ptrdiff_t s, const T* q) noexcept {
    tile.each([&](int j, int i) PARE_LAMBDA_INLINE {
      tile.sum[j][i] = multiply_elements<Arch>(row[j][s], load<Arch>(q + i * n), tile.sum[j][i]);
    });
  }

  /// The same of scalars s and s + 1.
  PARE_TILE_INLINE void two_steps(std::ptrdiff_t s, const T* q) noexcept {
    constexpr std::ptrdiff_t next = Registers * n;
    tile.each([&](int j, int i) PARE_LAMBDA_INLINE {
      vec<T, Arch>& sum = tile.sum[j][i];
      const vec<T, Arch> first = load<Arch>(q + i * n), second = load<Arch>(q + next + i * n);
      if (Registers == 1 && j % paired_key == paired_key - 1) {
        vec<T, Arch> x, y;
        broadcast_pair<Arch>(row[j] + s, x, y);
        sum = multiply_add<Arch>(y, second, multiply_add<Arch>(x, first, sum));
      } else {
        sum = multiply_elements<Arch>(row[j][s], first, sum);
        sum = multiply_elements<Arch>(row[j][s + 1], second, sum);
      }
    });
  }
};

template <class Arch, int Registers, class T>
void score_lanes(const ScoreLanesCall<T>& call) noexcept {
  constexpr std::ptrdiff_t step = Registers * lanes<T, Arch>, part = 16;
  const ScoreLanesCall<T> a = call;  // in registers
  LaneScores<Arch, Registers, T> sums(a.keys);
  const T* q = a.queries;
  std::ptrdiff_t s = 0;
  // A line of each row is asked for in every part of the depth.
  for (std::ptrdiff_t byte = a.fetch.begin; byte < a.fetch.end && s + part <= a.depth; byte += 64) {
    for (std::ptrdiff_t j = 0; j < a.fetch.count; ++j) prefetch<2>(a.fetch.rows[j], byte);
    for (const std::ptrdiff_t end = s + part; s < end; s += 2, q += 2 * step) sums.two_steps(s, q);
  }
  for (; s + 2 <= a.depth; s += 2, q += 2 * step) sums.two_steps(s, q);
  if (s < a.depth) sums.step(s, q);
  sums.tile.store_to(a.scores, a.stride);
}

/// The same for `registers` registers of rows, up to lane_registers.
template <class Arch, class T>
void score_lanes(int registers, const ScoreLanesCall<T>& a) noexcept {
  if (registers == 1)
    score_lanes<Arch, 1>(a);
  else
    score_lanes<Arch, lane_registers<Arch>>(a);
}

/// out = scale out + W^T V for the weights W [count x stride] of rows of V as they lie, from column
/// c on.
template <class T>
struct WeighValuesCall {
  const T* weights = nullptr;
  std::ptrdiff_t stride = 0;
  const T* const* values = nullptr;  ///< [count]
  std::ptrdiff_t count = 0;
  std::ptrdiff_t c = 0;
  T* out = nullptr;
  std::ptrdiff_t out_stride = 0;
  const T* scale = nullptr;  ///< [rows]
  LaneFetch fetch{};         ///< of which a row is asked for beside each of the values
};

template <class Arch, int Rows, int Registers, class T>
void weigh_values_shape(const WeighValuesCall<T>& call) noexcept {
  constexpr std::ptrdiff_t n = lanes<T, Arch>;
  const WeighValuesCall<T> a = call;  // in registers
  RegisterTile<T, Arch, Rows, Registers> tile;
  tile.load_scaled(a.out, a.out_stride, a.scale);
  const T* weights = a.weights;
  for (std::ptrdiff_t j = 0; j < a.count; ++j) {
    if (j < a.fetch.count)
      for (std::ptrdiff_t byte = a.fetch.begin; byte < a.fetch.end; byte += 64)
        prefetch<2>(a.fetch.rows[j], byte);
    const T* const value = a.values[j] + a.c;
    [&]<std::size_t... I>(std::index_sequence<I...>) PARE_LAMBDA_INLINE {
      const vec<T, Arch> row[] = {load<Arch>(value + static_cast<std::ptrdiff_t>(I) * n)...};
      tile.multiply_step(weights, 1, row);
    }(std::make_index_sequence<static_cast<std::size_t>(Registers)>{});
    weights += a.stride;
  }
  tile.store_to(renewed(a.out), renewed(a.out_stride));
}

/// The shapes of up to tile_rows x tile_registers, by rows and then by registers.
template <class Arch, class T,
          class I =
              std::make_index_sequence<std::size_t(tile_rows) * std::size_t(tile_registers<Arch>)>>
struct WeighValuesShapes;
template <class Arch, class T, std::size_t... I>
struct WeighValuesShapes<Arch, T, std::index_sequence<I...>> {
  static constexpr std::size_t width = static_cast<std::size_t>(tile_registers<Arch>);
  static constexpr void (*run[])(const WeighValuesCall<T>&) noexcept = {
      weigh_values_shape<Arch, static_cast<int>(I / width) + 1, static_cast<int>(I % width) + 1,
                         T>...};
};

template <class Arch, class T>
void weigh_values(int rows, int registers, const WeighValuesCall<T>& a) noexcept {
  WeighValuesShapes<Arch, T>::run[(rows - 1) * tile_registers<Arch> + registers - 1](a);
}

/// Rows of S as rows of T, one behind the other.
template <class Arch, class S, class T>
void widen_rows(const S* const* rows, std::ptrdiff_t count, std::ptrdiff_t columns,
                T* out) noexcept {
  constexpr std::ptrdiff_t n = lanes<T, Arch>;
  for (std::ptrdiff_t j = 0; j < count; ++j, out += columns) {
    std::ptrdiff_t c = 0;
    for (; c + n <= columns; c += n) store<Arch>(out + c, load_widened<Arch>(rows[j] + c));
    for (; c < columns; ++c) out[c] = static_cast<T>(rows[j][c]);
  }
}

PARE_ABI_END
}  // namespace pare::kernel::detail

#include <pare/core/macros_on.hpp>
