// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Kernels that sum products along rows in double, in one order on every arch.

#include <pare/core/macros_off.hpp>

#include <pare/kernel/product_tile.hpp>

#include <cstddef>
#include <type_traits>

namespace pare::kernel {

/// sums_i += sum_j x_ij y_ij. Cost: rows columns multiply-adds in double; x and y read once.
template <ComputeScalar T>
struct AddRowDots {
  const T* x = nullptr;  ///< [rows x columns]
  std::ptrdiff_t x_stride = 0;
  const T* y = nullptr;  ///< [rows x columns]
  std::ptrdiff_t y_stride = 0;
  std::ptrdiff_t rows = 0;
  std::ptrdiff_t columns = 0;
  double* sums = nullptr;  ///< [rows]
};

/// sums_i += sum_j x_ij^2 of what PackLeftLines packed. Cost: as AddRowDots.
template <ComputeScalar T, bool Pairs>
struct AddRowSquares {
  const T* packed = nullptr;
  std::ptrdiff_t rows = 0;
  std::ptrdiff_t depth = 0;
  double* sums = nullptr;  ///< [rows]
};

namespace detail {
PARE_ABI_BEGIN

/// sum_j term(j), in sixteen sums so that the additions overlap.
template <class Term>
PARE_ALWAYS_INLINE double sum_terms(std::ptrdiff_t size, const Term& term) noexcept {
  constexpr std::ptrdiff_t width = 16;
  double sums[width] = {};
  std::ptrdiff_t j = 0;
  for (; j + width <= size; j += width)
    for (std::ptrdiff_t i = 0; i < width; ++i) sums[i] += term(j + i);
  for (std::ptrdiff_t i = 0; j + i < size; ++i) sums[i] += term(j + i);
  for (std::ptrdiff_t half = width / 2; half > 0; half /= 2)
    for (std::ptrdiff_t i = 0; i < half; ++i) sums[i] += sums[i + half];
  return sums[0];
}

PARE_ABI_END
}  // namespace detail
PARE_ABI_BEGIN

template <class Arch, class T>
void run_kernel(Arch, const AddRowDots<T>& a) noexcept {
  for (std::ptrdiff_t i = 0; i < a.rows; ++i) {
    const T *x = a.x + i * a.x_stride, *y = a.y + i * a.y_stride;
    a.sums[i] += detail::sum_terms(a.columns, [x, y](std::ptrdiff_t j) PARE_LAMBDA_INLINE {
      return static_cast<double>(x[j]) * static_cast<double>(y[j]);
    });
  }
}

template <class Arch, class T, bool Pairs>
void run_kernel(Arch, const AddRowSquares<T, Pairs>& a) noexcept {
  using E = detail::product_element<T, Pairs, Arch>;
  // A pair is two bf16 in memory, of which the last may be one and a zero.
  using Element = std::conditional_t<std::is_same_v<E, Bf16Pair>, bf16, T>;
  const std::ptrdiff_t size = steps_of<E>(a.depth) * product<E>::depth;
  for (std::ptrdiff_t i = 0; i < a.rows; ++i) {
    const Element* x = reinterpret_cast<const Element*>(a.packed) + i * size;
    a.sums[i] += detail::sum_terms(size, [x](std::ptrdiff_t j) PARE_LAMBDA_INLINE {
      const auto value = static_cast<double>(static_cast<compute_t<Element>>(x[j]));
      return value * value;
    });
  }
}

PARE_ABI_END

}  // namespace pare::kernel

#include <pare/core/macros_on.hpp>
