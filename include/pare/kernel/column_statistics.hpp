// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Sums over the rows of a table in double: moments of its columns, distances to another one.

#include <pare/core/macros_off.hpp>

#include <pare/kernel/simd.hpp>

#include <cstddef>

namespace pare::kernel {

/// *sum += sum over rows of |x_b - donor_b|_2, each row's squares added in double.
template <ComputeScalar T>
struct AddRowDistances {
  const T* x = nullptr;      ///< [rows x columns], contiguous
  const T* donor = nullptr;  ///< [rows x columns], contiguous
  std::ptrdiff_t rows = 0;
  std::ptrdiff_t columns = 0;
  double* sum = nullptr;
};

/// squares_i += (x_i - donor_i)^2 in double.
template <ComputeScalar T>
struct AddSquaredDifferences {
  const T* x = nullptr;      ///< [size]
  const T* donor = nullptr;  ///< [size]
  std::ptrdiff_t size = 0;
  double* squares = nullptr;  ///< [size]
};

/// sums_c += sum_b (x_bc - x_0c), squares_c += sum_b (x_bc - x_0c)^2, in double.
template <ComputeScalar T>
struct ColumnMoments {
  const T* data = nullptr;
  std::ptrdiff_t row_stride = 0;
  std::ptrdiff_t column_stride = 0;
  std::ptrdiff_t rows = 0;
  std::ptrdiff_t columns = 0;
  double* sums = nullptr;     ///< [columns]
  double* squares = nullptr;  ///< [columns]
};

PARE_ABI_BEGIN

template <class Arch, class T>
void run_kernel(Arch, const AddRowDistances<T>& a) noexcept {
  double sum = 0;
  for (std::ptrdiff_t b = 0; b < a.rows; ++b) {
    const T* x = a.x + b * a.columns;
    const T* t = a.donor + b * a.columns;
    double squares = 0;
    for (std::ptrdiff_t c = 0; c < a.columns; ++c) {
      const auto delta = static_cast<double>(x[c] - t[c]);
      squares += delta * delta;
    }
    sum += square_root(squares);
  }
  *a.sum += sum;
}

template <class Arch, class T>
void run_kernel(Arch, const AddSquaredDifferences<T>& a) noexcept {
  // A length known beforehand is what compilers vectorise at -O2.
  constexpr std::ptrdiff_t run = 16;
  const auto add = [&a](std::ptrdiff_t i) PARE_LAMBDA_INLINE {
    const auto delta = static_cast<double>(a.x[i] - a.donor[i]);
    a.squares[i] += delta * delta;
  };
  std::ptrdiff_t i = 0;
  for (; i + run <= a.size; i += run)
    for (std::ptrdiff_t l = 0; l < run; ++l) add(i + l);
  for (; i < a.size; ++i) add(i);
}

template <class Arch, class T>
void run_kernel(Arch, const ColumnMoments<T>& a) noexcept {
  if (a.rows < 1) return;
  for (std::ptrdiff_t c = 0; c < a.columns; ++c) {
    constexpr std::ptrdiff_t width = 8;
    const T* x = a.data + c * a.column_stride;
    const auto centre = static_cast<double>(x[0]);
    double sums[width] = {}, squares[width] = {};
    const auto add = [&](std::ptrdiff_t b, std::ptrdiff_t l) PARE_LAMBDA_INLINE {
      const double delta = static_cast<double>(x[b * a.row_stride]) - centre;
      sums[l] += delta;
      squares[l] += delta * delta;
    };
    std::ptrdiff_t b = 0;
    for (; b + width <= a.rows; b += width)
      for (std::ptrdiff_t l = 0; l < width; ++l) add(b + l, l);
    for (; b < a.rows; ++b) add(b, 0);
    for (std::ptrdiff_t l = 0; l < width; ++l) {
      a.sums[c] += sums[l];
      a.squares[c] += squares[l];
    }
  }
}

PARE_ABI_END

}  // namespace pare::kernel

#include <pare/core/macros_on.hpp>
