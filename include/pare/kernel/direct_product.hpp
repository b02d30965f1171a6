// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Products with rows as they lie in memory: for so few rows on the left that packing the right
/// side would cost more than it saves, as when one token is decoded.

#include <pare/core/macros_off.hpp>

#include <pare/kernel/gemm.hpp>
#include <pare/kernel/pack.hpp>

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <iterator>
#include <type_traits>
#include <utility>

namespace pare::kernel::detail {
PARE_ABI_BEGIN

/// Rows are fetched this many before they are multiplied, which is farther than a core looks ahead.
/// Into L2, not L1: L1 has too few fill buffers to keep memory busy. Twice, since what L2 has no
/// room to wait for is dropped.
inline constexpr std::ptrdiff_t direct_rows_ahead[] = {64, 16};

/// The rows that are fetched while `Rows` are multiplied, as many at each distance: those at `row`
/// themselves where fewer are left, which costs less than a branch at every line.
template <int Rows, class S>
class RowsAhead {
 public:
  PARE_TILE_INLINE RowsAhead(const S* const* rows, const S* const* row,
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

/// The sums of the lanes of each of v[0] ... v[N - 1], in this order; N is a register's lanes.
template <class Arch, class V, std::size_t N>
PARE_TILE_INLINE V sum_lanes_of_each(V (&v)[N]) noexcept {
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
PARE_TILE_INLINE auto load_end(std::ptrdiff_t step, std::ptrdiff_t steps, const At& at) noexcept {
  constexpr std::ptrdiff_t n = lanes<typename product<E>::sum, Arch>;
  E end[static_cast<std::size_t>(n)] = {};
  for (std::ptrdiff_t s = step; s < steps; ++s) end[s - step] = at(s);
  return load_elements<Arch>(static_cast<const E*>(end));
}

/// scores[r * stride + j] = <q_r, k_j> for `Rows` packed rows q_r and the `Keys` keys from `rows`
/// on, of which those past `count`, whatever they are, are not written. Rows * Keys is at most a
/// register's lanes.
template <class Arch, int Rows, int Keys, class S>
PARE_TILE_INLINE void score_block(const element_t<S, Arch>* q, const S* const* rows,
                                  const RowsAhead<Keys, S>& next, std::ptrdiff_t count,
                                  std::ptrdiff_t depth, compute_t<S>* scores,
                                  std::ptrdiff_t stride) noexcept {
  using E = element_t<S, Arch>;
  using T = compute_t<S>;
  constexpr std::ptrdiff_t n = lanes<T, Arch>;
  constexpr std::ptrdiff_t scalars = product<E>::depth;
  constexpr auto size = static_cast<std::ptrdiff_t>(sizeof(S));
  const std::ptrdiff_t steps = steps_of<E>(depth), whole = depth / scalars / n * n;
  vec<T, Arch> sums[static_cast<std::size_t>(n)];
  for (std::ptrdiff_t i = 0; i < n; ++i) sums[i] = broadcast<Arch>(T(0));
  const auto add = [&](std::ptrdiff_t s, auto key_row, auto query_row) PARE_LAMBDA_INLINE {
    [&]<std::size_t... J>(std::index_sequence<J...>) PARE_LAMBDA_INLINE {
      next.template fetch<n * scalars * size>(s * scalars * size);
      const vec<T, Arch> keys[] = {key_row(rows[J])...};
      RegisterTile<T, Arch, Rows, Keys>::each([&](auto r, auto j) PARE_LAMBDA_INLINE {
        sums[r * Keys + j] = multiply_vectors<Arch, E>(query_row(r), keys[j], sums[r * Keys + j]);
      });
    }(std::make_index_sequence<static_cast<std::size_t>(Keys)>{});
  };
  for (std::ptrdiff_t s = 0; s < whole; s += n)
    add(
        s, [&](const S* row) PARE_LAMBDA_INLINE { return load_row<Arch, E>(row, s); },
        [&](int r) PARE_LAMBDA_INLINE { return load_elements<Arch>(q + r * steps + s); });
  if (whole < steps)
    add(
        whole,
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

/// scores[r * stride + j] = <q_r, k_j> for `Rows` packed rows and `count` > 0 keys, behind which
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
    const S* last[keys];
    for (std::ptrdiff_t i = 0; i < keys; ++i)
      last[i] = rows[std::min((count - 1) / keys * keys + i, count - 1)];
    for (std::ptrdiff_t j = 0; j < count; j += keys) {
      const S* const* block = count - j >= keys ? rows + j : static_cast<const S* const*>(last);
      score_block<Arch, Rows, keys>(q, block,
                                    RowsAhead<keys, S>(rows + j, block, count + ahead - j),
                                    count - j, depth, scores + j, stride);
    }
  }
}

/// A step's registers from column c on; `Whole` where neither columns nor the second row of a pair
/// end within them.
template <bool Whole, class Arch, class E, class S, class V, std::size_t Registers>
PARE_TILE_INLINE void load_step_registers(const StepRows<S>& step, std::ptrdiff_t c,
                                          std::ptrdiff_t columns, V (&row)[Registers]) noexcept {
  constexpr auto n = static_cast<std::size_t>(lanes<typename product<E>::sum, Arch>);
  [&]<std::size_t... I>(std::index_sequence<I...>) PARE_LAMBDA_INLINE {
    if constexpr (Whole && std::is_same_v<E, Bf16Pair> && Registers % 2 == 0) {
      const S *a = step.first + c, *b = step.second + c;
      ((I % 2 == 0 ? load_pairs<Arch>(a + I * n, b + I * n, row[I], row[I + 1 - I % 2 * 2])
                   : void()),
       ...);
    } else if constexpr (Whole && std::is_same_v<E, Bf16Pair>) {
      ((row[I] = load_pairs<Arch>(step.first + c + I * n, step.second + c + I * n)), ...);
    } else if constexpr (Whole) {
      ((row[I] = load_widened<Arch>(step.first + c + I * n)), ...);
    } else {
      ((row[I] = load_step<Arch, E>(step, c + static_cast<std::ptrdiff_t>(I * n), columns)), ...);
    }
  }(std::make_index_sequence<Registers>{});
}

/// sum += W X for the weights W [Rows x steps elements] of `count` rows of X, from column c on;
/// behind the rows `ahead` more are to come.
template <class Arch, class S, class Tile>
PARE_TILE_INLINE void multiply_rows(Tile& tile, const element_t<S, Arch>* weights,
                                    std::ptrdiff_t stride, const S* const* rows,
                                    std::ptrdiff_t count, std::ptrdiff_t ahead, std::ptrdiff_t c,
                                    std::ptrdiff_t columns) noexcept {
  using E = element_t<S, Arch>;
  constexpr std::ptrdiff_t depth = product<E>::depth, width = Tile::registers * Tile::n;
  constexpr auto size = static_cast<std::ptrdiff_t>(sizeof(S));
  const auto add = [&](auto whole, std::ptrdiff_t s) PARE_LAMBDA_INLINE {
    const S* const* row = rows + s * depth;
    if (whole.value || (s + 1) * depth <= count)
      RowsAhead<depth, S>(row, row, count + ahead - s * depth)
          .template fetch<width * size>(c * size);
    vec<compute_t<S>, Arch> registers[static_cast<std::size_t>(Tile::registers)];
    load_step_registers<whole.value, Arch, E>(step_rows<E>(rows, count, s), c, columns, registers);
    tile.multiply_step(weights + s, stride, registers);
  };
  const std::ptrdiff_t whole = c + width <= columns ? count / depth : 0;
  for (std::ptrdiff_t s = 0; s < whole; ++s) add(std::true_type{}, s);
  for (std::ptrdiff_t s = whole; s < steps_of<E>(count); ++s) add(std::false_type{}, s);
}

PARE_ABI_END
}  // namespace pare::kernel::detail

#include <pare/core/macros_on.hpp>
