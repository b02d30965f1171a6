// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Products with rows as they lie in memory: for so few rows on the left that packing the right
/// side would cost more than it saves, as when one token is decoded.

#include <pare/kernel/gemm.hpp>
#include <pare/kernel/pack.hpp>

#include <cstddef>
#include <cstring>
#include <type_traits>
#include <utility>

namespace pare::kernel::detail {
PARE_ABI_BEGIN

/// Rows are fetched this many before they are multiplied, which is farther than a core looks ahead.
/// Into L2, not L1: L1 has too few fill buffers to keep memory busy. Twice, since what L2 has no
/// room to wait for is dropped.
inline constexpr std::ptrdiff_t direct_rows_ahead[] = {64, 16};

template <class S>
PARE_ALWAYS_INLINE void fetch_ahead(const S* const* rows, std::ptrdiff_t row, std::ptrdiff_t end,
                                    std::ptrdiff_t columns) noexcept {
  const auto bytes = columns * static_cast<std::ptrdiff_t>(sizeof(S));
  for (const std::ptrdiff_t ahead : direct_rows_ahead) {
    if (row + ahead >= end) continue;
    for (std::ptrdiff_t byte = 0; byte < bytes; byte += 64) prefetch<2>(rows[row + ahead], byte);
  }
}

/// The sums of the lanes of each of v[0] ... v[N - 1], in this order; N is a register's lanes.
template <class Arch, class V, std::size_t N>
PARE_ALWAYS_INLINE V sum_lanes_of_each(V (&v)[N]) noexcept {
  const auto halve = [&v]<std::size_t... I>(std::index_sequence<I...>) PARE_LAMBDA_INLINE {
    constexpr std::size_t half = sizeof...(I);
    ((v[I] = interleave_low<Arch>(v[I], v[I + half]) + interleave_high<Arch>(v[I], v[I + half])),
     ...);
  };
  if constexpr (N > 8) halve(std::make_index_sequence<8>{});
  if constexpr (N > 4) halve(std::make_index_sequence<4>{});
  if constexpr (N > 2) halve(std::make_index_sequence<2>{});
  if constexpr (N > 1) halve(std::make_index_sequence<1>{});
  return v[0];
}

/// The elements at(step) ... at(steps - 1) and zeros behind them.
template <class Arch, class E, class At>
PARE_ALWAYS_INLINE auto load_end(std::ptrdiff_t step, std::ptrdiff_t steps, const At& at) noexcept {
  constexpr std::ptrdiff_t n = lanes<typename product<E>::sum, Arch>;
  E end[static_cast<std::size_t>(n)] = {};
  for (std::ptrdiff_t s = step; s < steps; ++s) end[s - step] = at(s);
  return load_elements<Arch>(static_cast<const E*>(end));
}

/// scores[r * stride + j] = <q_r, k_j> for `Rows` packed rows q_r and the `Keys` keys from `rows`
/// on, of which those past `count` are not written. Rows * Keys is at most a register's lanes.
template <class Arch, int Rows, int Keys, class S>
PARE_ALWAYS_INLINE void score_block(const element_t<S, Arch>* q, const S* const* rows,
                                    std::ptrdiff_t count, std::ptrdiff_t depth,
                                    compute_t<S>* scores, std::ptrdiff_t stride) noexcept {
  using E = element_t<S, Arch>;
  using T = compute_t<S>;
  constexpr std::ptrdiff_t n = lanes<T, Arch>;
  const std::ptrdiff_t steps = steps_of<E>(depth), whole = depth / product<E>::depth / n * n;
  vec<T, Arch> sums[static_cast<std::size_t>(n)];
  for (std::ptrdiff_t i = 0; i < n; ++i) sums[i] = broadcast<Arch>(T(0));
  const auto add = [&](auto key_row, auto query_row) PARE_LAMBDA_INLINE {
    [&]<std::size_t... J>(std::index_sequence<J...>) PARE_LAMBDA_INLINE {
      const vec<T, Arch> keys[] = {
          key_row(rows[static_cast<std::ptrdiff_t>(J) < count ? static_cast<std::ptrdiff_t>(J)
                                                              : count - 1])...};
      RegisterTile<T, Arch, Rows, Keys>::each([&](auto r, auto j) PARE_LAMBDA_INLINE {
        sums[r * Keys + j] = multiply_vectors<Arch, E>(query_row(r), keys[j], sums[r * Keys + j]);
      });
    }
    (std::make_index_sequence<static_cast<std::size_t>(Keys)>{});
  };
  for (std::ptrdiff_t s = 0; s < whole; s += n)
    add([&](const S* row) PARE_LAMBDA_INLINE { return load_row<Arch, E>(row, s); },
        [&](int r) PARE_LAMBDA_INLINE { return load_elements<Arch>(q + r * steps + s); });
  if (whole < steps)
    add(
        [&](const S* row) PARE_LAMBDA_INLINE {
          return load_end<Arch, E>(whole, steps,
                                   [&](std::ptrdiff_t s) { return element_at<E>(row, s, depth); });
        },
        [&](int r) PARE_LAMBDA_INLINE {
          return load_end<Arch, E>(whole, steps,
                                   [&](std::ptrdiff_t s) { return q[r * steps + s]; });
        });
  alignas(64) T totals[static_cast<std::size_t>(n)];
  store<Arch>(static_cast<T*>(totals), sum_lanes_of_each<Arch>(sums));
  for (int r = 0; r < Rows; ++r) {
    if (count >= Keys)
      std::memcpy(scores + r * stride, totals + r * Keys, sizeof(T) * std::size_t(Keys));
    else
      for (std::ptrdiff_t j = 0; j < count; ++j) scores[r * stride + j] = totals[r * Keys + j];
  }
}

/// scores[r * stride + j] = <q_r, k_j> for `Rows` packed rows and `count` keys, behind which
/// `ahead` more are to come.
template <class Arch, int Rows, class S>
void score_rows(const element_t<S, Arch>* q, const S* const* rows, std::ptrdiff_t count,
                std::ptrdiff_t ahead, std::ptrdiff_t depth, compute_t<S>* scores,
                std::ptrdiff_t stride) noexcept {
  constexpr int n = static_cast<int>(lanes<compute_t<S>, Arch>);
  constexpr int most = n < 4 ? n : 4;
  if constexpr (Rows > most) {
    score_rows<Arch, most, S>(q, rows, count, ahead, depth, scores, stride);
    score_rows<Arch, Rows - most, S>(q + most * steps_of<element_t<S, Arch>>(depth), rows, count, 0,
                                     depth, scores + most * stride, stride);
  } else {
    constexpr int keys = n / Rows;
    for (std::ptrdiff_t j = 0; j < count; j += keys) {
      for (std::ptrdiff_t i = j; i < j + keys; ++i) fetch_ahead(rows, i, count + ahead, depth);
      score_block<Arch, Rows, keys>(q, rows + j, count - j, depth, scores + j, stride);
    }
  }
}

/// A step's registers from column c on.
template <class Arch, class E, class S, class V, std::size_t Registers>
PARE_ALWAYS_INLINE void load_step_registers(const StepRows<S>& step, std::ptrdiff_t c,
                                            std::ptrdiff_t columns, V (&row)[Registers]) noexcept {
  constexpr auto n = static_cast<std::size_t>(lanes<typename product<E>::sum, Arch>);
  [&]<std::size_t... I>(std::index_sequence<I...>) PARE_LAMBDA_INLINE {
    if constexpr (std::is_same_v<E, Bf16Pair> && Registers % 2 == 0) {
      if (c + static_cast<std::ptrdiff_t>(Registers * n) <= columns && step.second != nullptr) {
        const S *a = step.first + c, *b = step.second + c;
        ((I % 2 == 0 ? load_pairs<Arch>(a + I * n, b + I * n, row[I], row[I + 1 - I % 2 * 2])
                     : void()),
         ...);
        return;
      }
    }
    ((row[I] = load_step<Arch, E>(step, c + static_cast<std::ptrdiff_t>(I * n), columns)), ...);
  }
  (std::make_index_sequence<Registers>{});
}

/// sum += W X for the weights W [Rows x steps elements] of `count` rows of X, from column c on;
/// behind the rows `ahead` more are to come.
template <class Arch, class S, class Tile>
PARE_ALWAYS_INLINE void multiply_rows(Tile& tile, const element_t<S, Arch>* weights,
                                      std::ptrdiff_t stride, const S* const* rows,
                                      std::ptrdiff_t count, std::ptrdiff_t ahead, std::ptrdiff_t c,
                                      std::ptrdiff_t columns) noexcept {
  using E = element_t<S, Arch>;
  for (std::ptrdiff_t s = 0; s < steps_of<E>(count); ++s) {
    for (std::ptrdiff_t i = s * product<E>::depth; i < (s + 1) * product<E>::depth; ++i)
      fetch_ahead(rows, i, count + ahead, columns);
    vec<compute_t<S>, Arch> row[static_cast<std::size_t>(Tile::registers)];
    load_step_registers<Arch, E>(step_rows<E>(rows, count, s), c, columns, row);
    tile.multiply_step(weights + s, stride, row);
  }
}

PARE_ABI_END
}  // namespace pare::kernel::detail
