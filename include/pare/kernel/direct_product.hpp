// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Products with rows as they lie in memory: for so few rows on the left that packing the right
/// side would cost more than it saves, as when one token is decoded.

#include <pare/core/macros_off.hpp>

#include <pare/kernel/gemm.hpp>
#include <pare/kernel/pack.hpp>
#include <pare/kernel/partial_register.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <iterator>
#include <type_traits>
#include <utility>

namespace pare::kernel {

/// Rows on the left that are multiplied at once.
inline constexpr std::ptrdiff_t direct_tile_rows = 4;

namespace detail {
PARE_ABI_BEGIN

/// Rows are fetched this many before they are multiplied, which is farther than a core looks ahead.
/// Into L2, not L1: L1 has too few fill buffers to keep memory busy. Twice, since what L2 has no
/// room to wait for is dropped.
inline constexpr std::ptrdiff_t direct_rows_ahead[] = {64, 16};

/// The rows that are fetched while `Rows` are multiplied, as many at each distance: those at `row`
/// themselves where fewer are left, which costs less than a branch at every line.
template <int Rows, class S>
class RowsToFetch {
 public:
  PARE_TILE_INLINE RowsToFetch(const S* const* rows, const S* const* row,
                               std::ptrdiff_t left) noexcept {
    for (std::size_t d = 0; d < distances; ++d)
      rows_[d] = left >= direct_rows_ahead[d] + Rows ? rows + direct_rows_ahead[d] : row;
  }

  /// Fetches the lines that begin in `Bytes` bytes from `byte` on.
  template <std::ptrdiff_t Bytes>
  PARE_TILE_INLINE void fetch(std::ptrdiff_t byte) const noexcept {
    if (Bytes % 64 != 0 && byte % 64 >= Bytes) return;
    [&]<std::size_t... I>(std::index_sequence<I...>) PARE_LAMBDA_INLINE {
      (fetch_row<Bytes>(rows_[I / Rows][I % Rows], byte), ...);
    }(std::make_index_sequence<distances * Rows>{});
  }

 private:
  template <std::ptrdiff_t Bytes>
  PARE_TILE_INLINE static void fetch_row(const S* row, std::ptrdiff_t byte) noexcept {
    prefetch<2>(row, byte);
    if constexpr (Bytes > 64) fetch_row<Bytes - 64>(row, byte + 64);
  }
  static constexpr std::size_t distances = std::size(direct_rows_ahead);

  const S* const* rows_[distances];
};

/// The lanes of each of v[0] ... v[N - 1], folded by f(a, b) halves onto halves: that of v[i]
/// stands in lane i * lanes / N. N is a power of 2, at most the lanes of a register.
template <class Arch, class V, std::size_t N, class F>
PARE_TILE_INLINE V fold_lanes_of_each(V (&v)[N], const F& f) noexcept {
  constexpr auto n = static_cast<std::size_t>(lanes<lane_t<V>, Arch>);
  static_assert(N <= n && n <= 16);
  const auto halve = [&v, &f]<std::size_t... I>(std::index_sequence<I...>) PARE_LAMBDA_INLINE {
    constexpr std::size_t half = sizeof...(I);
    ((v[I] = f(interleave_low<Arch>(v[I], v[I + half]), interleave_high<Arch>(v[I], v[I + half]))),
     ...);
  };
  if constexpr (N > 8) halve(std::make_index_sequence<8>{});
  if constexpr (N > 4) halve(std::make_index_sequence<4>{});
  if constexpr (N > 2) halve(std::make_index_sequence<2>{});
  if constexpr (N > 1) halve(std::make_index_sequence<1>{});
  if constexpr (n > N)
    for (std::size_t rest = n / N; rest > 1; rest /= 2)
      v[0] = f(interleave_low<Arch>(v[0], v[0]), interleave_high<Arch>(v[0], v[0]));
  return v[0];
}

/// The sums by add(a, b) of the lanes of each of v[0] ... v[N - 1], in this order; N is a
/// register's lanes. Lanes trade places where that is faster: 15 shuffles for 16 registers, not 30,
/// and the same bits.
template <class Arch, class V, std::size_t N, class F>
PARE_TILE_INLINE V add_lanes_of_each(V (&v)[N], const F& add) noexcept {
  if constexpr (trades_lanes<Arch, V>) {
    static_assert(N == 16);
    const auto halve = [&v, &add]<std::size_t... I>(std::index_sequence<I...>) PARE_LAMBDA_INLINE {
      constexpr int half = sizeof...(I);
      ((v[I] = add(keep_lanes<Arch, half>(v[I], v[I + half]),
                   trade_lanes<Arch, half>(v[I], v[I + half]))),
       ...);
    };
    halve(std::make_index_sequence<8>{});
    halve(std::make_index_sequence<4>{});
    halve(std::make_index_sequence<2>{});
    halve(std::make_index_sequence<1>{});
    return v[0];
  } else {
    return fold_lanes_of_each<Arch>(v, add);
  }
}

/// The sums of lanes.
template <class Arch, class V, std::size_t N>
PARE_TILE_INLINE V sum_lanes_of_each(V (&v)[N]) noexcept {
  return add_lanes_of_each<Arch>(v,
                                 [](const V& a, const V& b) PARE_LAMBDA_INLINE { return a + b; });
}

/// The same of integers, which are shuffled as floats.
template <class Arch, std::size_t N>
PARE_TILE_INLINE vec<std::int32_t, Arch> sum_integers_of_each(
    const vec<std::int32_t, Arch> (&v)[N]) noexcept {
  using I = vec<std::int32_t, Arch>;
  using F = vec<float, Arch>;
  F bits[N];
  for (std::size_t i = 0; i < N; ++i) bits[i] = bits_as<F>(v[i]);
  return bits_as<I>(add_lanes_of_each<Arch>(bits, [](const F& a, const F& b) PARE_LAMBDA_INLINE {
    return bits_as<F>(I(bits_as<I>(a) + bits_as<I>(b)));
  }));
}

/// A register of the first `count` scalars of a row, fewer than it holds, with zeros behind them.
template <class Arch, class E, class S>
PARE_TILE_INLINE auto load_row_end(const S* row, std::ptrdiff_t count) noexcept {
  if constexpr (std::is_same_v<E, Bf16Pair>)
    return load_first_words<Arch>(row, count);
  else
    return load_first<Arch>(row, count, E(0));
}

/// The products of `Rows` rows and `Keys` keys, at most a register's lanes, as sums over registers.
template <class Arch, int Rows, int Keys, class S>
struct ScoreSums {
  using E = element_t<S, Arch>;
  using T = compute_t<S>;
  static constexpr std::ptrdiff_t n = lanes<T, Arch>;
  static constexpr std::ptrdiff_t scalars = product<E>::depth;

  vec<T, Arch> sums[static_cast<std::size_t>(n)];

  /// Adds the elements of `depth` scalars of packed rows q and of keys; of `next` as many are
  /// fetched.
  PARE_TILE_INLINE void add(const E* q, const S* const* keys, std::ptrdiff_t depth,
                            const RowsToFetch<Keys, S>& next) noexcept {
    const std::ptrdiff_t steps = steps_of<E>(depth), whole = depth / scalars / n * n;
    for (std::ptrdiff_t s = 0; s < whole; s += n)
      add_register(
          next, s, [&](int r) PARE_LAMBDA_INLINE { return load_elements<Arch>(q + r * steps + s); },
          [&](std::size_t j) PARE_LAMBDA_INLINE { return load_row<Arch, E>(keys[j], s); });
    if (whole == steps) return;
    add_register(
        next, whole,
        [&](int r) PARE_LAMBDA_INLINE {
          const auto* const end = reinterpret_cast<const T*>(q + r * steps + whole);
          return load_first<Arch>(end, steps - whole, T(0));
        },
        [&](std::size_t j) PARE_LAMBDA_INLINE {
          return load_row_end<Arch, E>(keys[j] + whole * scalars, depth - whole * scalars);
        });
  }

 private:
  /// Adds the products of a register query(r) of each row and one key(j) of each key.
  template <class Query, class Key>
  PARE_TILE_INLINE void add_register(const RowsToFetch<Keys, S>& next, std::ptrdiff_t step,
                                     const Query& query, const Key& key) noexcept {
    constexpr auto bytes = scalars * static_cast<std::ptrdiff_t>(sizeof(S));
    next.template fetch<n * bytes>(step * bytes);
    [&]<std::size_t... J>(std::index_sequence<J...>) PARE_LAMBDA_INLINE {
      const vec<T, Arch> row[] = {key(J)...};
      RegisterTile<T, Arch, Rows, Keys>::each([&](int r, int j) PARE_LAMBDA_INLINE {
        sums[r * Keys + j] = multiply_vectors<Arch, E>(query(r), row[j], sums[r * Keys + j]);
      });
    }(std::make_index_sequence<static_cast<std::size_t>(Keys)>{});
  }
};

/// scores[r * stride + j] = <q_r, k_j> for `Rows` packed rows q_r and the `Keys` keys from `rows`
/// on, of which those past `count`, whatever they are, are not written.
template <class Arch, int Rows, int Keys, class S>
PARE_TILE_INLINE void score_block(const element_t<S, Arch>* q, const S* const* rows,
                                  const RowsToFetch<Keys, S>& next, std::ptrdiff_t count,
                                  std::ptrdiff_t depth, compute_t<S>* scores,
                                  std::ptrdiff_t stride) noexcept {
  using Sums = ScoreSums<Arch, Rows, Keys, S>;
  using T = compute_t<S>;
  constexpr std::ptrdiff_t n = Sums::n;
  Sums block;
  for (std::ptrdiff_t i = 0; i < n; ++i) block.sums[i] = broadcast<Arch>(T(0));
  block.add(q, rows, depth, next);
  alignas(64) T totals[static_cast<std::size_t>(n)];
  store<Arch>(static_cast<T*>(totals), sum_lanes_of_each<Arch>(block.sums));
  for (int r = 0; r < Rows; ++r) {
    if (count >= Keys)
      std::memcpy(scores + r * stride, totals + r * Keys, sizeof(T) * std::size_t(Keys));
    else
      for (std::ptrdiff_t j = 0; j < count; ++j) scores[r * stride + j] = totals[r * Keys + j];
  }
}

/// scores[r * stride + j] = <q_r, k_j> for packed rows q and `count` > 0 keys as they lie, behind
/// which `ahead` more are to come.
template <class S, class E>
struct ScoreRowsCall {
  const E* q = nullptr;
  const S* const* keys = nullptr;
  std::ptrdiff_t count = 0;
  std::ptrdiff_t ahead = 0;
  std::ptrdiff_t depth = 0;
  compute_t<S>* scores = nullptr;
  std::ptrdiff_t stride = 0;
};

/// Rows that are scored at once.
template <class T, class Arch>
inline constexpr int direct_score_rows = lanes<T, Arch> < 4 ? static_cast<int>(lanes<T, Arch>) : 4;

template <class Arch, int Rows, class S, class E>
void score_rows_shape(const ScoreRowsCall<S, E>& call) noexcept {
  const ScoreRowsCall<S, E> a = call;  // in registers
  constexpr int keys = static_cast<int>(lanes<compute_t<S>, Arch>) / Rows;
  const S* last[keys];
  for (std::ptrdiff_t i = 0; i < keys; ++i)
    last[i] = a.keys[std::min((a.count - 1) / keys * keys + i, a.count - 1)];
  for (std::ptrdiff_t j = 0; j < a.count; j += keys) {
    const S* const* block = a.count - j >= keys ? a.keys + j : static_cast<const S* const*>(last);
    score_block<Arch, Rows, keys>(a.q, block,
                                  RowsToFetch<keys, S>(a.keys + j, block, a.count + a.ahead - j),
                                  a.count - j, a.depth, a.scores + j, a.stride);
  }
}

/// The same for `rows` rows.
template <class Arch, class S, class E>
void score_rows(int rows, ScoreRowsCall<S, E> a) noexcept {
  constexpr int most = direct_score_rows<compute_t<S>, Arch>;
  const auto shape = [&a]<int Rows>(std::integral_constant<int, Rows>) {
    if constexpr (Rows <= most) score_rows_shape<Arch, Rows>(a);
  };
  static_assert(most <= 4);
  while (rows > 0) {
    const int now = std::min(rows, most);
    if (now == 1) shape(std::integral_constant<int, 1>{});
    if (now == 2) shape(std::integral_constant<int, 2>{});
    if (now == 3) shape(std::integral_constant<int, 3>{});
    if (now == 4) shape(std::integral_constant<int, 4>{});
    a.q += now * steps_of<E>(a.depth);
    a.scores += now * a.stride;
    a.ahead = 0;
    rows -= now;
  }
}

/// A step's registers: of row `first`, or of pairs of it and row `second`.
template <class Arch, class E, class S, class V, std::size_t Registers>
PARE_TILE_INLINE void load_step_registers(const S* first, const S* second,
                                          V (&row)[Registers]) noexcept {
  constexpr auto n = static_cast<std::size_t>(lanes<typename product<E>::sum, Arch>);
  [&]<std::size_t... I>(std::index_sequence<I...>) PARE_LAMBDA_INLINE {
    if constexpr (std::is_same_v<E, Bf16Pair> && Registers % 2 == 0)
      ((I % 2 == 0 ? load_pairs<Arch>(first + I * n, second + I * n, row[I], row[I + 1 - I % 2 * 2])
                   : void()),
       ...);
    else if constexpr (std::is_same_v<E, Bf16Pair>)
      ((row[I] = load_pairs<Arch>(first + I * n, second + I * n)), ...);
    else
      ((row[I] = load_widened<Arch>(first + I * n)), ...);
  }(std::make_index_sequence<Registers>{});
}

/// The same of a step that ends within the tile, after `left` columns or without a second row, with
/// zeros behind it.
template <class Arch, class E, class S, class V, std::size_t Registers>
PARE_TILE_INLINE void load_step_end(const S* first, const S* second, std::ptrdiff_t left,
                                    V (&row)[Registers]) noexcept {
  constexpr std::ptrdiff_t n = lanes<typename product<E>::sum, Arch>;
  [&]<std::size_t... I>(std::index_sequence<I...>) PARE_LAMBDA_INLINE {
    if constexpr (std::is_same_v<E, Bf16Pair>) {
      const auto pair = [&](std::ptrdiff_t c, V& low, V& high) PARE_LAMBDA_INLINE {
        const std::ptrdiff_t count = std::clamp<std::ptrdiff_t>(left - c, 0, 2 * n);
        const V none = broadcast<Arch>(0.0f), x = load_first_words<Arch>(first + c, count);
        pair_words<Arch>(x, second != nullptr ? load_first_words<Arch>(second + c, count) : none,
                         low, high);
      };
      V beyond;
      ((I % 2 == 0 ? pair(I * n, row[I], I + 1 < Registers ? row[I + 1 - I % 2 * 2] : beyond)
                   : void()),
       ...);
    } else {
      ((row[I] = left - static_cast<std::ptrdiff_t>(I) * n >= n
                     ? load_widened<Arch>(first + I * n)
                     : load_first<Arch>(first + I * n, left - static_cast<std::ptrdiff_t>(I) * n,
                                        compute_t<S>(0))),
       ...);
    }
  }(std::make_index_sequence<Registers>{});
}

/// C = scale C + W X for the weights W [rows x steps elements] of `count` rows of X as they lie,
/// from column c on, of `columns` in all; behind the rows `ahead` more are to come.
template <class S, class E>
struct MultiplyRowsCall {
  using T = compute_t<S>;

  const E* weights = nullptr;
  std::ptrdiff_t stride = 0;
  const S* const* rows = nullptr;
  std::ptrdiff_t count = 0;
  std::ptrdiff_t ahead = 0;
  std::ptrdiff_t c = 0;
  std::ptrdiff_t columns = 0;
  T* out = nullptr;  ///< rows out_stride apart
  std::ptrdiff_t out_stride = 0;
  const T* scale = nullptr;  ///< [rows of W]
};

/// `Rows` rows of C, `Registers` registers wide.
template <class Arch, int Rows, int Registers, class S, class E>
void multiply_rows_shape(const MultiplyRowsCall<S, E>& call) noexcept {
  const MultiplyRowsCall<S, E> a = call;  // in registers
  using T = compute_t<S>;
  constexpr std::ptrdiff_t depth = product<E>::depth, width = Registers * lanes<T, Arch>;
  constexpr auto size = static_cast<std::ptrdiff_t>(sizeof(S));
  RegisterTile<T, Arch, Rows, Registers> tile;
  tile.load_scaled(a.out + a.c, a.out_stride, a.scale);
  const std::ptrdiff_t left = std::min(a.columns - a.c, width);
  const std::ptrdiff_t whole = left == width ? a.count / depth : 0;
  for (std::ptrdiff_t s = 0; s < steps_of<E>(a.count); ++s) {
    const S* const* row = a.rows + s * depth;
    if (depth == 1 || (s + 1) * depth <= a.count)
      RowsToFetch<depth, S>(row, row, a.count + a.ahead - s * depth)
          .template fetch<width * size>(a.c * size);
    const StepRows<S> step = step_rows<E>(a.rows, a.count, s);
    const S* const second = step.second != nullptr ? step.second + a.c : nullptr;
    vec<T, Arch> registers[static_cast<std::size_t>(Registers)];
    if (s < whole)
      load_step_registers<Arch, E>(step.first + a.c, second, registers);
    else
      load_step_end<Arch, E>(step.first + a.c, second, left, registers);
    tile.multiply_step(a.weights + s, a.stride, registers);
  }
  tile.store_to(a.out + a.c, a.out_stride);
}

/// The shapes of up to direct_tile_rows x tile_registers, by rows and then by registers.
template <class Arch, class S, class E,
          class I = std::make_index_sequence<std::size_t(direct_tile_rows) *
                                             std::size_t(tile_registers<Arch>)>>
struct MultiplyRowsShapes;
template <class Arch, class S, class E, std::size_t... I>
struct MultiplyRowsShapes<Arch, S, E, std::index_sequence<I...>> {
  static constexpr std::size_t width = static_cast<std::size_t>(tile_registers<Arch>);
  static constexpr void (*run[])(const MultiplyRowsCall<S, E>&) noexcept = {
      multiply_rows_shape<Arch, static_cast<int>(I / width) + 1, static_cast<int>(I % width) + 1, S,
                          E>...};
};

/// The same for a tile of `rows` x (`registers` registers).
template <class Arch, class S, class E>
void multiply_rows(int rows, int registers, const MultiplyRowsCall<S, E>& a) noexcept {
  MultiplyRowsShapes<Arch, S, E>::run[(rows - 1) * tile_registers<Arch> + registers - 1](a);
}

PARE_ABI_END
}  // namespace detail
}  // namespace pare::kernel

#include <pare/core/macros_on.hpp>
