// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Rows of a matrix gathered, and turned into columns and back.

#include <pare/core/macros_off.hpp>

#include <pare/kernel/simd.hpp>
#include <pare/kernel/streaming.hpp>

#include <cstddef>
#include <cstdint>
#include <cstring>

namespace pare::kernel {

/// to_b = from_index(b), rows of `columns` scalars; index(b) = first + b without `rows`.
template <ComputeScalar T>
struct GatherRows {
  const T* from = nullptr;
  std::ptrdiff_t from_stride = 0;
  const std::uint32_t* index = nullptr;  ///< [rows], or null
  std::ptrdiff_t first = 0;
  std::ptrdiff_t rows = 0;
  std::ptrdiff_t columns = 0;
  T* to = nullptr;
  std::ptrdiff_t to_stride = 0;
};

/// to_cb = from_bc: columns of a row-major matrix, each made contiguous.
template <ComputeScalar T>
struct ColumnsFromRows {
  const T* from = nullptr;  ///< [rows x columns], rows contiguous
  std::ptrdiff_t from_stride = 0;
  std::ptrdiff_t rows = 0;
  std::ptrdiff_t columns = 0;
  T* to = nullptr;  ///< [columns x rows]
  std::ptrdiff_t to_stride = 0;
};

/// to_bc = from_cb: the way back.
template <ComputeScalar T>
struct RowsFromColumns {
  const T* from = nullptr;  ///< [columns x rows]
  std::ptrdiff_t from_stride = 0;
  std::ptrdiff_t rows = 0;
  std::ptrdiff_t columns = 0;
  T* to = nullptr;  ///< [rows x columns], rows contiguous
  std::ptrdiff_t to_stride = 0;
  bool streaming = false;
};

namespace detail {
PARE_ABI_BEGIN

/// Rows of a width known beforehand, which compilers turn into a few moves. The arguments are
/// copied: what is written might change them for all that compilers know.
template <std::ptrdiff_t Columns, class T>
void gather_narrow(const GatherRows<T> a) noexcept {
  const auto copy_row = [&a](std::ptrdiff_t b, std::ptrdiff_t row) PARE_LAMBDA_INLINE {
    std::memcpy(a.to + b * a.to_stride, a.from + row * a.from_stride,
                static_cast<std::size_t>(Columns) * sizeof(T));
  };
  if (a.index == nullptr)
    for (std::ptrdiff_t b = 0; b < a.rows; ++b) copy_row(b, a.first + b);
  else
    for (std::ptrdiff_t b = 0; b < a.rows; ++b)
      copy_row(b, static_cast<std::ptrdiff_t>(a.index[b]));
}

/// Turns [rows x columns] in square blocks of registers; what is left, one by one.
template <class Arch, bool Streaming, class T>
void turn(const T* from, std::ptrdiff_t from_stride, std::ptrdiff_t rows, std::ptrdiff_t columns,
          T* to, std::ptrdiff_t to_stride) noexcept {
  constexpr std::ptrdiff_t n = lanes<T, Arch>;
  const std::ptrdiff_t whole_rows = rows / n * n, whole_columns = columns / n * n;
  for (std::ptrdiff_t b = 0; b < whole_rows; b += n)
    for (std::ptrdiff_t c = 0; c < whole_columns; c += n) {
      vec<T, Arch> block[static_cast<std::size_t>(n)];
      for (std::ptrdiff_t l = 0; l < n; ++l)
        block[l] = load<Arch>(from + (b + l) * from_stride + c);
      transpose_block<Arch>(block);
      for (std::ptrdiff_t l = 0; l < n; ++l)
        put<Arch, Streaming>(to + (c + l) * to_stride + b, block[l]);
    }
  for (std::ptrdiff_t c = 0; c < columns; ++c)
    for (std::ptrdiff_t b = c < whole_columns ? whole_rows : 0; b < rows; ++b)
      to[c * to_stride + b] = from[b * from_stride + c];
}

/// So many rows at a time: each lies in a page of its own.
inline constexpr std::ptrdiff_t turned_rows = 16;

PARE_ABI_END
}  // namespace detail
PARE_ABI_BEGIN

template <class Arch, class T>
void run_kernel(Arch, const GatherRows<T>& a) noexcept {
  switch (a.columns) {
    case 1:
      return detail::gather_narrow<1>(a);
    case 2:
      return detail::gather_narrow<2>(a);
    case 4:
      return detail::gather_narrow<4>(a);
    case 8:
      return detail::gather_narrow<8>(a);
    case 16:
      return detail::gather_narrow<16>(a);
    default:
      break;
  }
  for (std::ptrdiff_t b = 0; b < a.rows; ++b) {
    const std::ptrdiff_t row =
        a.index != nullptr ? static_cast<std::ptrdiff_t>(a.index[b]) : a.first + b;
    detail::copy(a.from + row * a.from_stride, a.to + b * a.to_stride, a.columns);
  }
}

template <class Arch, class T>
void run_kernel(Arch, const ColumnsFromRows<T>& a) noexcept {
  constexpr std::ptrdiff_t run = detail::turned_rows;
  constexpr auto line = static_cast<std::ptrdiff_t>(64 / sizeof(T));
  for (std::ptrdiff_t b = 0; b < a.rows; b += run) {
    const std::ptrdiff_t rows = b + run < a.rows ? run : a.rows - b;
    const T* from = a.from + b * a.from_stride;
    // No processor fetches ahead into other pages by itself.
    const std::ptrdiff_t ahead = 2 * run * a.from_stride * static_cast<std::ptrdiff_t>(sizeof(T));
    for (std::ptrdiff_t l = 0; l < rows; ++l)
      for (std::ptrdiff_t c = 0; c < a.columns; c += line)
        prefetch(from + l * a.from_stride + c, ahead);
    detail::turn<Arch, false>(from, a.from_stride, rows, a.columns, a.to + b, a.to_stride);
  }
}

template <class Arch, class T>
void run_kernel(Arch, const RowsFromColumns<T>& a) noexcept {
  constexpr std::ptrdiff_t run = detail::turned_rows;
  constexpr auto line = static_cast<std::ptrdiff_t>(64 / sizeof(T));
  const bool lines = a.streaming && detail::at_line(a.to) && a.to_stride % line == 0;
  const std::ptrdiff_t whole = lines ? a.columns / line * line : 0;
  for (std::ptrdiff_t b = 0; b < a.rows; b += run) {
    const std::ptrdiff_t rows = b + run < a.rows ? run : a.rows - b;
    T* to = a.to + b * a.to_stride;
    detail::turn<Arch, true>(a.from + b, a.from_stride, whole, rows, to, a.to_stride);
    detail::turn<Arch, false>(a.from + whole * a.from_stride + b, a.from_stride, a.columns - whole,
                              rows, to + whole, a.to_stride);
  }
}

PARE_ABI_END

}  // namespace pare::kernel

#include <pare/core/macros_on.hpp>
