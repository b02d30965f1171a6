// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// The kernels of a large matrix product: packing a block of each factor (pack_lines.hpp), and
/// multiplying them.

#include <pare/core/macros_off.hpp>

#include <pare/kernel/gemm.hpp>
#include <pare/kernel/pack_lines.hpp>
#include <pare/kernel/rows_ahead.hpp>

#include <cstddef>
#include <type_traits>

namespace pare::kernel {

/// C = A B, or C += A B, of packed factors.
///
/// Cost: 2 rows columns depth FLOPs, which bind; of each panel steps * w elements are read for
/// every tile_rows rows, from L2.
template <ComputeScalar T, bool Pairs>
struct MultiplyPanels {
  const T* left = nullptr;
  const T* panels = nullptr;
  std::ptrdiff_t rows = 0;
  std::ptrdiff_t columns = 0;
  std::ptrdiff_t depth = 0;
  T* c = nullptr;
  std::ptrdiff_t c_stride = 0;
  bool accumulate = false;
  std::ptrdiff_t first_row = 0;  ///< rows before it are left alone; a multiple of tile_rows
  /// Elements from a row of A to the next, which lie along the depth; 0: they are packed.
  std::ptrdiff_t left_stride = 0;
  RowsAhead ahead{};                ///< what the next rows of A are packed from
  std::ptrdiff_t packed_depth = 0;  ///< of the panels, if they were packed with more than `depth`
};

namespace detail {
PARE_ABI_BEGIN

/// rows x (`registers` registers) of C, of which `columns` columns are there. What hangs over is
/// computed beside it.
template <class Arch, class E>
void multiply_block(int rows, int registers, std::ptrdiff_t columns,
                    const TileCall<E>& call) noexcept {
  using T = typename TileCall<E>::T;
  const std::ptrdiff_t width = registers * lanes<T, Arch>;
  if (columns >= width) return multiply_tile<Arch>(rows, registers, call);
  alignas(64) T edge[static_cast<std::size_t>(tile_rows * tile_columns<T, Arch>)];
  T* const c = call.c;
  const std::ptrdiff_t c_stride = call.c_stride;
  if (call.start != TileStart::Zero)
    for (std::ptrdiff_t r = 0; r < rows; ++r)
      for (std::ptrdiff_t j = 0; j < width; ++j)
        edge[r * width + j] = j < columns ? c[r * c_stride + j] : T(0);
  TileCall<E> beside = call;
  beside.c = edge;
  beside.c_stride = width;
  multiply_tile<Arch>(rows, registers, beside);
  for (std::ptrdiff_t r = 0; r < rows; ++r)
    for (std::ptrdiff_t j = 0; j < columns; ++j) c[r * c_stride + j] = edge[r * width + j];
}

/// Asks for the rows [begin, end) of C, `width` columns of them: they come from beyond L2, and a
/// tile would wait for them for a tenth of its time.
template <class T>
PARE_TILE_INLINE void prefetch_tile(const T* c, std::ptrdiff_t c_stride, std::ptrdiff_t begin,
                                    std::ptrdiff_t end, std::ptrdiff_t width) noexcept {
  constexpr std::ptrdiff_t line = 64 / static_cast<std::ptrdiff_t>(sizeof(T));
  for (std::ptrdiff_t row = begin; row < end; ++row)
    for (std::ptrdiff_t j = 0; j < width; j += line) prefetch(c + row * c_stride + j);
}

/// The rows of C under one panel, `registers` wide, which stays in L2 meanwhile. `ahead` is read if
/// `Ahead`: products that fetch nothing ahead of themselves take 3 % longer if they ask.
template <class Arch, bool Ahead, class T, bool Pairs>
void multiply_panel(const MultiplyPanels<T, Pairs>& a, std::ptrdiff_t column, int registers,
                    FetchAhead& ahead) noexcept {
  using E = product_element<T, Pairs, Arch>;
  const std::ptrdiff_t steps = steps_of<E>(a.depth);
  const E* left = reinterpret_cast<const E*>(a.left);
  const std::ptrdiff_t left_stride = a.left_stride != 0 ? a.left_stride : steps;
  const std::ptrdiff_t packed = a.packed_depth != 0 ? steps_of<E>(a.packed_depth) : steps;
  const E* panel = reinterpret_cast<const E*>(a.panels) + column * packed;
  for (std::ptrdiff_t row = a.first_row; row < a.rows;) {
    const int rows = next_group(a.rows - row);
    const std::ptrdiff_t next = row + rows, end = next + tile_rows;
    prefetch_tile(a.c + column, a.c_stride, next, end < a.rows ? end : a.rows,
                  registers * lanes<T, Arch>);
    if constexpr (Ahead) ahead.turn();
    multiply_block<Arch, E>(rows, registers, a.columns - column,
                            {.a = left + row * left_stride,
                             .a_stride = left_stride,
                             .b = panel,
                             .steps = steps,
                             .c = a.c + row * a.c_stride + column,
                             .c_stride = a.c_stride,
                             .start = a.accumulate ? TileStart::Sum : TileStart::Zero});
    row = next;
  }
}

template <class Arch, bool Ahead, class T, bool Pairs>
void multiply_panels(const MultiplyPanels<T, Pairs>& a) noexcept {
  constexpr std::ptrdiff_t n = lanes<T, Arch>, full = tile_columns<T, Arch>;
  const std::ptrdiff_t tiles = (a.columns + full - 1) / full * ((a.rows - a.first_row) / tile_rows);
  FetchAhead ahead(Ahead ? a.ahead : RowsAhead{}, tiles);
  for (std::ptrdiff_t column = 0; column < a.columns; column += full) {
    const std::ptrdiff_t left = a.columns - column;
    multiply_panel<Arch, Ahead>(
        a, column, left < full ? static_cast<int>((left + n - 1) / n) : tile_registers<Arch>,
        ahead);
  }
}

PARE_ABI_END
}  // namespace detail
PARE_ABI_BEGIN

template <class Arch, class T, bool Pairs>
void run_kernel(Arch, const MultiplyPanels<T, Pairs>& a) noexcept {
  if (a.ahead.rows > 0)
    detail::multiply_panels<Arch, true>(a);
  else
    detail::multiply_panels<Arch, false>(a);
}

PARE_ABI_END
}  // namespace pare::kernel

#include <pare/core/macros_on.hpp>
