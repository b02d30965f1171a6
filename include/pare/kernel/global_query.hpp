// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// The pass of a global query (LAMA) over some rows of tokens: scores of all heads, the weights
/// that follow from them, and the sums of the rows by these weights, while the rows are in cache.

#include <pare/core/macros_off.hpp>

#include <pare/kernel/direct_product.hpp>
#include <pare/kernel/gemm.hpp>
#include <pare/kernel/math.hpp>
#include <pare/kernel/partial_register.hpp>
#include <pare/kernel/tanh.hpp>

#include <cstddef>

namespace pare::kernel {

/// For rows h_t of `dim` scalars and heads i:
///
///     f_ti = tanh(scale_i <key_i, h_t>), f_t / max(|f_t|, epsilon) over all heads
///     w_ti = e^f_ti, mass_i += sum_t w_ti, sum_i += sum_t w_ti h_t
///
/// After the norm f is in [-1, 1], so that no largest score has to be known first.
///
/// Cost: 2 heads multiply-adds an element, which bind from some 8 heads of float on; the rows are
/// read once, which binds below.
template <StorageScalar S>
struct GlobalQueryRows {
  using T = compute_t<S>;

  const S* const* rows = nullptr;  ///< [count], each [dim]
  std::ptrdiff_t count = 0;
  std::ptrdiff_t dim = 0;
  const T* keys = nullptr;   ///< [whole heads x dim_room]: zeros behind heads and dim
  const T* scale = nullptr;  ///< [heads]
  std::ptrdiff_t heads = 0;
  T epsilon = 0;
  T* sum = nullptr;      ///< [whole heads x dim_room]
  T* mass = nullptr;     ///< [whole heads]
  T* weights = nullptr;  ///< [heads x weights_stride], e^f of each row; null: not kept
  std::ptrdiff_t weights_stride = 0;
  T* room = nullptr;  ///< [whole heads x global_query_rows]
  /// Scalars from a row to one that is read soon, which is fetched into L2; 0: none.
  std::ptrdiff_t ahead = 0;
};

/// sum_j += the elements j of `count` rows.
template <StorageScalar S>
struct SumRows {
  const S* const* rows = nullptr;  ///< [count], each [dim]
  std::ptrdiff_t count = 0;
  std::ptrdiff_t dim = 0;
  compute_t<S>* sum = nullptr;  ///< [dim]
};

PARE_ABI_BEGIN

/// Rows of a block: those of 512 floats are 32 KiB, and their scores a register of AVX-512.
inline constexpr std::ptrdiff_t global_query_rows = 16;
/// Heads of a tile; keys, sums and masses have whole ones.
inline constexpr std::ptrdiff_t global_query_heads = 4;

constexpr std::ptrdiff_t whole_query_heads(std::ptrdiff_t heads) noexcept {
  return (heads + global_query_heads - 1) / global_query_heads * global_query_heads;
}
/// Scalars of a key or a sum: whole registers of any arch.
constexpr std::ptrdiff_t query_dim_room(std::ptrdiff_t dim) noexcept {
  return (dim + 15) / 16 * 16;
}

PARE_ABI_END

namespace detail {
PARE_ABI_BEGIN

/// Registers of sums of a tile of 4 heads: 16 sums + 4 of a row + a weight of 32, 8 + 2 + 1 of 16.
template <class Arch>
inline constexpr int query_registers = Arch::registers >= 32 ? 4 : 2;
/// Rows of a tile of scores: 16 sums + 4 keys + 1 of 32, 8 + 4 + 1 of 16.
template <class Arch>
inline constexpr int query_rows = Arch::registers >= 32 ? 4 : 2;

/// Scores of `Rows` rows, from row r on, and a tile of heads: at room[head * global_query_rows +
/// row]. Lanes are folded in one order, whatever the rows of a tile.
template <class Arch, int Rows, class S>
PARE_TILE_INLINE void score_query_rows(const GlobalQueryRows<S>& a, std::ptrdiff_t r,
                                       std::ptrdiff_t head, const S* const* rows) noexcept {
  using T = compute_t<S>;
  using V = vec<T, Arch>;
  constexpr int heads = static_cast<int>(global_query_heads);
  constexpr std::ptrdiff_t n = lanes<T, Arch>;
  const std::ptrdiff_t stride = query_dim_room(a.dim);
  const T* const keys = a.keys + head * stride;
  const bool fetches = head == 0 && a.ahead != 0;
  const std::ptrdiff_t ahead = a.ahead * static_cast<std::ptrdiff_t>(sizeof(S));
  RegisterTile<T, Arch, heads, Rows> tile;
  tile.clear();
  const auto step = [&]<bool Whole>(std::ptrdiff_t j) PARE_LAMBDA_INLINE {
    V key[heads];
    RegisterTile<T, Arch, heads, 1>::each(
        [&](int i, int) PARE_LAMBDA_INLINE { key[i] = load<Arch>(keys + i * stride + j); });
    RegisterTile<T, Arch, Rows, 1>::each([&](int t, int) PARE_LAMBDA_INLINE {
      V row;
      if constexpr (Whole)
        row = load_widened<Arch>(rows[t] + j);
      else
        row = load_first<Arch>(rows[t] + j, a.dim - j, T(0));
      if (fetches) prefetch<2>(rows[t] + j, ahead);
      RegisterTile<T, Arch, heads, 1>::each([&](int i, int) PARE_LAMBDA_INLINE {
        tile.sum[i][t] = multiply_add<Arch>(key[i], row, tile.sum[i][t]);
      });
    });
  };
  std::ptrdiff_t j = 0;
  for (; j + n <= a.dim; j += n) step.template operator()<true>(j);
  if (j < a.dim) step.template operator()<false>(j);
  constexpr int together = heads * Rows < static_cast<int>(n) ? heads * Rows : static_cast<int>(n);
  for (int first = 0; first < heads * Rows; first += together) {
    V sums[together];
    RegisterTile<T, Arch, together, 1>::each([&](int k, int) PARE_LAMBDA_INLINE {
      sums[k] = tile.sum[(first + k) / Rows][(first + k) % Rows];
    });
    T folded[static_cast<std::size_t>(n)];
    store<Arch>(static_cast<T*>(folded),
                fold_lanes_of_each<Arch>(
                    sums, [](const V& x, const V& y) PARE_LAMBDA_INLINE { return x + y; }));
    for (int k = 0; k < together; ++k)
      a.room[(head + (first + k) / Rows) * global_query_rows + r + (first + k) % Rows] =
          folded[k * (n / together)];
  }
}

/// Scores become weights, a register of rows at a time; what the last one holds behind `count` is
/// of no row, and is not read.
template <class Arch, class S>
PARE_TILE_INLINE void weigh_query_rows(const GlobalQueryRows<S>& a, std::ptrdiff_t count) noexcept {
  using T = compute_t<S>;
  using V = vec<T, Arch>;
  for (std::ptrdiff_t r = 0; r < count; r += lanes<T, Arch>) {
    V squares = broadcast<Arch>(T(0));
    for (std::ptrdiff_t i = 0; i < a.heads; ++i) {
      T* const f = a.room + i * global_query_rows + r;
      const V bent = tanh<Arch>(load<Arch>(static_cast<const T*>(f)) * broadcast<Arch>(a.scale[i]));
      squares = multiply_add<Arch>(bent, bent, squares);
      store<Arch>(f, bent);
    }
    V norm;
    if constexpr (is_batch<V>)
      norm = xsimd::sqrt(squares);
    else
      norm = square_root(squares);
    // A NaN is not below epsilon, and stays.
    const V over = broadcast<Arch>(T(1)) / maximum<Arch>(broadcast<Arch>(a.epsilon), norm);
    for (std::ptrdiff_t i = 0; i < a.heads; ++i) {
      T* const f = a.room + i * global_query_rows + r;
      store<Arch>(f, exp<Arch>(load<Arch>(static_cast<const T*>(f)) * over));
    }
  }
  for (std::ptrdiff_t i = 0; i < a.heads; ++i) {
    T* const w = a.room + i * global_query_rows;
    T mass = a.mass[i];
    for (std::ptrdiff_t t = 0; t < count; ++t) mass += w[t];
    a.mass[i] = mass;
  }
}

/// Adds the rows of a block to a tile of heads, `Registers` registers from element j on. Not Whole:
/// what is left of a row.
template <class Arch, int Registers, bool Whole, class S>
PARE_TILE_INLINE void add_query_rows(const GlobalQueryRows<S>& a, std::ptrdiff_t head,
                                     std::ptrdiff_t j, const S* const* rows,
                                     std::ptrdiff_t count) noexcept {
  using T = compute_t<S>;
  using V = vec<T, Arch>;
  constexpr int heads = static_cast<int>(global_query_heads);
  const std::ptrdiff_t stride = query_dim_room(a.dim);
  T* const sum = a.sum + head * stride + j;
  RegisterTile<T, Arch, heads, Registers> tile;
  tile.load(sum, stride);
  for (std::ptrdiff_t t = 0; t < count; ++t) {
    const T* const w = a.room + head * global_query_rows + t;
    V row[Registers];
    RegisterTile<T, Arch, Registers, 1>::each([&](int k, int) PARE_LAMBDA_INLINE {
      row[k] = Whole ? load_widened<Arch>(rows[t] + j + k * lanes<T, Arch>)
                     : load_first<Arch>(rows[t] + j, a.dim - j, T(0));
    });
    tile.each([&](int i, int k) PARE_LAMBDA_INLINE {
      tile.sum[i][k] =
          multiply_add<Arch>(broadcast<Arch>(w[i * global_query_rows]), row[k], tile.sum[i][k]);
    });
  }
  tile.each([&](int i, int k) PARE_LAMBDA_INLINE {
    store<Arch>(sum + i * stride + k * lanes<T, Arch>, tile.sum[i][k]);
  });
}

template <class Arch, class S>
PARE_TILE_INLINE void query_block(const GlobalQueryRows<S>& a, const S* const* rows,
                                  std::ptrdiff_t count) noexcept {
  using T = compute_t<S>;
  constexpr int together = query_rows<Arch>, registers = query_registers<Arch>;
  const std::ptrdiff_t heads = whole_query_heads(a.heads);
  std::ptrdiff_t t = 0;
  for (; t + together <= count; t += together)
    for (std::ptrdiff_t i = 0; i < heads; i += global_query_heads)
      score_query_rows<Arch, together>(a, t, i, rows + t);
  for (; t < count; ++t)
    for (std::ptrdiff_t i = 0; i < heads; i += global_query_heads)
      score_query_rows<Arch, 1>(a, t, i, rows + t);
  for (std::ptrdiff_t i = 0; i < heads; ++i)
    for (std::ptrdiff_t r = count; r < global_query_rows; ++r)
      a.room[i * global_query_rows + r] = T(0);
  weigh_query_rows<Arch>(a, count);
  std::ptrdiff_t j = 0;
  for (; j + registers * lanes<T, Arch> <= a.dim; j += registers * lanes<T, Arch>)
    for (std::ptrdiff_t i = 0; i < heads; i += global_query_heads)
      add_query_rows<Arch, registers, true>(a, i, j, rows, count);
  for (; j + lanes<T, Arch> <= a.dim; j += lanes<T, Arch>)
    for (std::ptrdiff_t i = 0; i < heads; i += global_query_heads)
      add_query_rows<Arch, 1, true>(a, i, j, rows, count);
  if (j < a.dim)
    for (std::ptrdiff_t i = 0; i < heads; i += global_query_heads)
      add_query_rows<Arch, 1, false>(a, i, j, rows, count);
}

/// `Rows` rows in their order, for which a sum is loaded and stored once.
template <class Arch, int Rows, class S>
PARE_TILE_INLINE void sum_rows(const SumRows<S>& a, const S* const* rows) noexcept {
  using T = compute_t<S>;
  using Each = RegisterTile<T, Arch, Rows, 1>;
  const std::ptrdiff_t dim = a.dim;
  T* const to = a.sum;
  const S* row[Rows];
  Each::each([&](int r, int) PARE_LAMBDA_INLINE { row[r] = rows[r]; });
  for_row<lanes<T, Arch>, true>(
      dim,
      [&](std::ptrdiff_t j) PARE_LAMBDA_INLINE {
        auto sum = load<Arch>(static_cast<const T*>(to) + j);
        Each::each([&](int r, int)
                       PARE_LAMBDA_INLINE { sum = sum + load_widened<Arch>(row[r] + j); });
        store<Arch>(to + j, sum);
      },
      [&](std::ptrdiff_t j, std::ptrdiff_t count) PARE_LAMBDA_INLINE {
        auto sum = load_first<Arch>(static_cast<const T*>(to) + j, count, T(0));
        Each::each([&](int r, int) PARE_LAMBDA_INLINE {
          sum = sum + load_first<Arch>(row[r] + j, count, T(0));
        });
        store_first<Arch>(to + j, count, sum);
      });
}

PARE_ABI_END
}  // namespace detail
PARE_ABI_BEGIN

template <class Arch, class S>
void run_kernel(Arch, const GlobalQueryRows<S>& a) noexcept {
  for (std::ptrdiff_t r = 0; r < a.count; r += global_query_rows) {
    const std::ptrdiff_t left = a.count - r;
    const std::ptrdiff_t count = left < global_query_rows ? left : global_query_rows;
    detail::query_block<Arch>(a, a.rows + r, count);
    if (a.weights == nullptr) continue;
    for (std::ptrdiff_t i = 0; i < a.heads; ++i)
      for (std::ptrdiff_t t = 0; t < count; ++t)
        a.weights[i * a.weights_stride + r + t] = a.room[i * global_query_rows + t];
  }
}

template <class Arch, class S>
void run_kernel(Arch, const SumRows<S>& a) noexcept {
  std::ptrdiff_t r = 0;
  for (; r + 4 <= a.count; r += 4) detail::sum_rows<Arch, 4>(a, a.rows + r);
  for (; r < a.count; ++r) detail::sum_rows<Arch, 1>(a, a.rows + r);
}

PARE_ABI_END
}  // namespace pare::kernel

#include <pare/core/macros_on.hpp>
