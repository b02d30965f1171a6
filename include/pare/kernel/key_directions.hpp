// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Directions of rows: their sum, and their cosines with a vector, each in one pass over the rows
/// at the speed of memory.

#include <pare/core/macros_off.hpp>

#include <pare/kernel/simd.hpp>

#include <cstddef>

namespace pare::kernel {

/// inverse_r = 1 / |x_r|, and sums_c += sum_r x_rc / |x_r|.
///
/// A row whose sum of squares is not within [2^-60, 2^60], where sums of products could leave the
/// range of T or round to nothing, has an inverse of -1 and is not added: the caller sees to it.
/// Cost: rows columns scalars read, which binds; a row is read again for the second sum from L1.
template <StorageScalar S>
struct AddDirections {
  using T = compute_t<S>;

  const S* x = nullptr;  ///< [rows x columns], rows contiguous
  std::ptrdiff_t stride = 0;
  std::ptrdiff_t rows = 0;
  std::ptrdiff_t columns = 0;
  T* inverse = nullptr;  ///< [rows]
  T* sums = nullptr;     ///< [columns]
};

/// out_r = factor_r sum_c x_rc y_c. Cost: rows columns scalars read, which binds.
template <StorageScalar S>
struct ScaledRowDots {
  using T = compute_t<S>;

  const S* x = nullptr;  ///< [rows x columns], rows contiguous
  std::ptrdiff_t stride = 0;
  std::ptrdiff_t rows = 0;
  std::ptrdiff_t columns = 0;
  const T* y = nullptr;        ///< [columns]
  const T* factors = nullptr;  ///< [rows]
  T* out = nullptr;            ///< [rows]
};

namespace detail {
PARE_ABI_BEGIN

/// Bytes from the row that is read to what is fetched: some rows of the usual heads.
inline constexpr std::ptrdiff_t direction_bytes_ahead = 2048;

/// sum_c x_c y_c, in four registers so that additions overlap; what is no whole register goes to
/// scalars.
template <class Arch, class S, class Y>
PARE_ALWAYS_INLINE compute_t<S> row_dot(const S* x, const Y* y, std::ptrdiff_t columns) noexcept {
  using T = compute_t<S>;
  constexpr std::ptrdiff_t n = lanes<T, Arch>;
  vec<T, Arch> sum[4];
  for (auto& s : sum) s = broadcast<Arch>(T(0));
  std::ptrdiff_t c = 0;
  for (; c + 4 * n <= columns; c += 4 * n)
    for (std::ptrdiff_t i = 0; i < 4; ++i)
      sum[i] = multiply_add<Arch>(load_widened<Arch>(x + c + i * n),
                                  load_widened<Arch>(y + c + i * n), sum[i]);
  for (; c + n <= columns; c += n)
    sum[0] = multiply_add<Arch>(load_widened<Arch>(x + c), load_widened<Arch>(y + c), sum[0]);
  T total = reduce_add<Arch>((sum[0] + sum[1]) + (sum[2] + sum[3]));
  for (; c < columns; ++c) total += static_cast<T>(x[c]) * static_cast<T>(y[c]);
  return total;
}

/// sums_c += sum_r factors_r x_rc of `Rows` rows, which are added in ascending order.
template <class Arch, std::ptrdiff_t Rows, class S>
PARE_ALWAYS_INLINE void add_scaled_rows(const S* x, std::ptrdiff_t stride,
                                        const compute_t<S>* factors, std::ptrdiff_t columns,
                                        compute_t<S>* sums) noexcept {
  using T = compute_t<S>;
  constexpr std::ptrdiff_t n = lanes<T, Arch>;
  vec<T, Arch> times[Rows];
  for (std::ptrdiff_t r = 0; r < Rows; ++r) times[r] = broadcast<Arch>(factors[r]);
  std::ptrdiff_t c = 0;
  for (; c + n <= columns; c += n) {
    vec<T, Arch> sum = load<Arch>(static_cast<const T*>(sums) + c);
    for (std::ptrdiff_t r = 0; r < Rows; ++r)
      sum = multiply_add<Arch>(times[r], load_widened<Arch>(x + r * stride + c), sum);
    store<Arch>(sums + c, sum);
  }
  for (; c < columns; ++c)
    for (std::ptrdiff_t r = 0; r < Rows; ++r)
      sums[c] += factors[r] * static_cast<T>(x[r * stride + c]);
}

template <class S>
PARE_ALWAYS_INLINE void fetch_row(const S* row, std::ptrdiff_t columns) noexcept {
  for (std::ptrdiff_t b = 0; b < columns * static_cast<std::ptrdiff_t>(sizeof(S)); b += 64)
    prefetch<2>(row, direction_bytes_ahead + b);
}

PARE_ABI_END
}  // namespace detail
PARE_ABI_BEGIN

template <class Arch, class S>
void run_kernel(Arch, const AddDirections<S>& a) noexcept {
  using T = compute_t<S>;
  constexpr std::ptrdiff_t group = 4;  // rows to one load and store of the sums
  for (std::ptrdiff_t first = 0; first < a.rows; first += group) {
    const std::ptrdiff_t rows = first + group <= a.rows ? group : a.rows - first;
    std::ptrdiff_t plain = 0;
    for (std::ptrdiff_t r = first; r < first + rows; ++r) {
      const S* const x = a.x + r * a.stride;
      detail::fetch_row(x, a.columns);
      const T squares = detail::row_dot<Arch>(x, x, a.columns);
      const bool is_plain = squares >= T(0x1p-60) && squares <= T(0x1p60);
      a.inverse[r] = is_plain ? T(1) / square_root(squares) : T(-1);
      plain += is_plain ? 1 : 0;
    }
    const S* const x = a.x + first * a.stride;
    if (plain == group) {
      detail::add_scaled_rows<Arch, group>(x, a.stride, a.inverse + first, a.columns, a.sums);
      continue;
    }
    for (std::ptrdiff_t r = 0; r < rows; ++r)
      if (a.inverse[first + r] > T(0))
        detail::add_scaled_rows<Arch, 1>(x + r * a.stride, a.stride, a.inverse + first + r,
                                         a.columns, a.sums);
  }
}

template <class Arch, class S>
void run_kernel(Arch, const ScaledRowDots<S>& a) noexcept {
  for (std::ptrdiff_t r = 0; r < a.rows; ++r) {
    const S* const x = a.x + r * a.stride;
    detail::fetch_row(x, a.columns);
    a.out[r] = a.factors[r] * detail::row_dot<Arch>(x, a.y, a.columns);
  }
}

PARE_ABI_END

}  // namespace pare::kernel

#include <pare/core/macros_on.hpp>
