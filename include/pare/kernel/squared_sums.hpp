// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Sums of the squares of a matrix along rows and columns, in one pass at the speed of memory.

#include <pare/core/macros_off.hpp>

#include <pare/kernel/simd.hpp>

#include <cstddef>
#include <utility>

namespace pare::kernel {

/// row_sums_i += sum_j x_ij^2 and column_sums_j += sum_i weight_i x_ij^2.
///
/// Squares are added in T: along a row at most 64 to a lane before the sum goes to double, along a
/// column all rows of the call. Cost: rows columns scalars read, which binds; column_sums should
/// fit L1 or L2, it is read and written once for every eight rows (four with weights).
template <StorageScalar S>
struct SquaredSums {
  using T = compute_t<S>;

  const S* data = nullptr;  ///< [rows x columns], rows contiguous
  std::ptrdiff_t row_stride = 0;
  std::ptrdiff_t rows = 0;
  std::ptrdiff_t columns = 0;
  double* row_sums = nullptr;      ///< [rows], or null
  T* column_sums = nullptr;        ///< [columns], or null
  const T* row_weights = nullptr;  ///< [rows], or null
};

/// sums_ij += x_ij^2 in double. Cost: per element one scalar read, a double read and written, which
/// binds.
template <StorageScalar S>
struct AddSquares {
  const S* data = nullptr;  ///< [rows x columns], rows contiguous
  std::ptrdiff_t row_stride = 0;
  std::ptrdiff_t rows = 0;
  std::ptrdiff_t columns = 0;
  double* sums = nullptr;  ///< [rows x columns]
  std::ptrdiff_t sums_stride = 0;
};

namespace detail {
PARE_ABI_BEGIN

/// `R` rows from `row` on, over columns [begin, end), `Registers` registers at a time.
template <class Arch, int Registers, bool Columns, bool Weighted, class S, std::size_t... R>
void squared_rows(const SquaredSums<S>& a, std::ptrdiff_t row, std::ptrdiff_t begin,
                  std::ptrdiff_t end, std::index_sequence<R...>) noexcept {
  using T = compute_t<S>;
  using V = vec<T, Arch>;
  constexpr std::ptrdiff_t n = lanes<T, Arch>;
  const S* x[] = {a.data + (row + static_cast<std::ptrdiff_t>(R)) * a.row_stride...};
  V sum[] = {(static_cast<void>(R), broadcast<Arch>(T(0)))...};
  V weight[sizeof...(R)];
  if constexpr (Weighted)
    ((weight[R] = broadcast<Arch>(a.row_weights[row + static_cast<std::ptrdiff_t>(R)])), ...);
  // The same place of the next rows: so many streams are more than the processor follows.
  const auto ahead = static_cast<std::ptrdiff_t>(sizeof...(R) * sizeof(S)) * a.row_stride;
  for (std::ptrdiff_t c = begin; c < end; c += Registers * n) {
    (prefetch<2>(x[R] + c, ahead), ...);
    for (std::ptrdiff_t i = c; i < c + Registers * n; i += n) {
      const V value[] = {load_widened<Arch>(x[R] + i)...};
      ((sum[R] = multiply_add<Arch>(value[R], value[R], sum[R])), ...);
      if constexpr (Columns) {
        V column = load<Arch>(static_cast<const T*>(a.column_sums) + i);
        if constexpr (Weighted)
          ((column = multiply_add<Arch>(weight[R], value[R] * value[R], column)), ...);
        else
          ((column = multiply_add<Arch>(value[R], value[R], column)), ...);
        store<Arch>(a.column_sums + i, column);
      }
    }
  }
  if (a.row_sums != nullptr)
    ((a.row_sums[row + static_cast<std::ptrdiff_t>(R)] +=
      static_cast<double>(reduce_add<Arch>(sum[R]))),
     ...);
}

/// `Rows` rows: whole cache lines, then registers, then the rest.
template <class Arch, bool Columns, bool Weighted, std::size_t Rows, class S>
void squared_rows(const SquaredSums<S>& a, std::ptrdiff_t row) noexcept {
  constexpr std::ptrdiff_t n = lanes<compute_t<S>, Arch>, run = 64 * n;
  constexpr int registers = static_cast<int>(64 / static_cast<std::ptrdiff_t>(sizeof(S)) / n);
  constexpr std::make_index_sequence<Rows> rows;
  const std::ptrdiff_t lines = a.columns / (registers * n) * (registers * n);
  const std::ptrdiff_t whole = a.columns / n * n;
  for (std::ptrdiff_t c = 0; c < lines; c += run)
    squared_rows<Arch, registers, Columns, Weighted>(a, row, c, c + run < lines ? c + run : lines,
                                                     rows);
  if (lines < whole) squared_rows<Arch, 1, Columns, Weighted>(a, row, lines, whole, rows);
  if (whole < a.columns)
    squared_rows<arch::scalar, 1, Columns, Weighted>(a, row, whole, a.columns, rows);
}

/// Registers: 8 sums, a column, a value (10 of AVX2's 16); with weights 4 of each, 10 too.
template <class Arch, bool Columns, bool Weighted, class S>
void squared_sums(const SquaredSums<S>& a) noexcept {
  constexpr std::ptrdiff_t group = Weighted ? 4 : 8;
  std::ptrdiff_t row = 0;
  for (; row + group <= a.rows; row += group)
    squared_rows<Arch, Columns, Weighted, static_cast<std::size_t>(group)>(a, row);
  for (; row < a.rows; ++row) squared_rows<Arch, Columns, Weighted, 1>(a, row);
}

PARE_ABI_END
}  // namespace detail
PARE_ABI_BEGIN

template <class Arch, class S>
void run_kernel(Arch, const SquaredSums<S>& a) noexcept {
  if (a.column_sums == nullptr) return detail::squared_sums<Arch, false, false>(a);
  if (a.row_weights == nullptr) return detail::squared_sums<Arch, true, false>(a);
  detail::squared_sums<Arch, true, true>(a);
}

template <class Arch, class S>
void run_kernel(Arch, const AddSquares<S>& a) noexcept {
  using T = compute_t<S>;
  constexpr std::ptrdiff_t n = lanes<T, Arch>;
  for (std::ptrdiff_t i = 0; i < a.rows; ++i) {
    const S* x = a.data + i * a.row_stride;
    double* sums = a.sums + i * a.sums_stride;
    std::ptrdiff_t c = 0;
    for (; c + n <= a.columns; c += n) {
      T value[static_cast<std::size_t>(n)];
      store<Arch>(static_cast<T*>(value), load_widened<Arch>(x + c));
      for (std::ptrdiff_t l = 0; l < n; ++l) {
        const auto wide = static_cast<double>(value[l]);
        sums[c + l] += wide * wide;
      }
    }
    for (; c < a.columns; ++c) {
      const auto wide = static_cast<double>(static_cast<T>(x[c]));
      sums[c] += wide * wide;
    }
  }
}

PARE_ABI_END

}  // namespace pare::kernel

#include <pare/core/macros_on.hpp>
