// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Weights of pairs of unit vectors that fall with their distance, from products that are not
/// stored.

#include <pare/core/macros_off.hpp>

#include <pare/kernel/attend_tile.hpp>
#include <pare/kernel/gemm.hpp>
#include <pare/kernel/math.hpp>
#include <pare/kernel/pack.hpp>

#include <cstddef>

namespace pare::kernel {

/// w_rj = 2^(-|scale <x_r, y_j> - scale|) for `rows` rows and `count` columns, both packed: for
/// unit vectors and scale = 2 t log2 e that is e^(-t |x_r - y_j|^2). Adds the weights of row r to
/// sums[r], lane by lane, and stores them if there is room. Row r is column own + r itself: with
/// that column it makes no pair, nor, if `before`, with later ones. A pair that is none weighs 0.
///
/// Cost: 2 rows count depth FLOPs, which bind from a depth of about 30 on, and an exponential per
/// pair.
template <ComputeScalar T>
struct PairWeights {
  /// Lanes of the widest register: elements from sums of a row to those of the next.
  static constexpr std::ptrdiff_t sum_lanes = 64 / static_cast<std::ptrdiff_t>(sizeof(T));

  const T* rows_packed = nullptr;     ///< PackLeft: the rows one behind the other
  const T* columns_packed = nullptr;  ///< PackTransposed
  std::ptrdiff_t rows = 0;
  std::ptrdiff_t count = 0;  ///< at most tile_keys
  std::ptrdiff_t depth = 0;
  T scale = 1;  ///< above 0
  std::ptrdiff_t own = 0;
  bool before = false;
  T* sums = nullptr;     ///< [rows x sum_lanes]
  T* weights = nullptr;  ///< [rows x tile_keys], or null; columns up to whole tiles are written
};

namespace detail {
PARE_ABI_BEGIN

/// One row of a tile: products become weights, which are added to its sums.
template <class Arch, class T>
PARE_TILE_INLINE void weigh_pairs(const PairWeights<T>& a, std::ptrdiff_t row,
                                  std::ptrdiff_t column, T* products, bool whole) noexcept {
  constexpr std::ptrdiff_t n = lanes<T, Arch>;
  constexpr auto registers = static_cast<std::size_t>(tile_registers<Arch>);
  const vec<T, Arch> scale = broadcast<Arch>(a.scale), shift = broadcast<Arch>(-a.scale);
  vec<T, Arch> w[registers];
  for (std::size_t i = 0; i < registers; ++i)
    w[i] = minus_magnitude<Arch>(multiply_add<Arch>(
        load<Arch>(static_cast<const T*>(products) + static_cast<std::ptrdiff_t>(i) * n), scale,
        shift));
  exp2_each<Arch>(w);
  if (!whole) {
    for (std::size_t i = 0; i < registers; ++i)
      store<Arch>(products + static_cast<std::ptrdiff_t>(i) * n, w[i]);
    const std::ptrdiff_t self = a.own + row - column, left = a.count - column;
    for (std::ptrdiff_t j = 0; j < tile_columns<T, Arch>; ++j)
      if (j >= left || j == self || (a.before && j > self)) products[j] = T(0);
    for (std::size_t i = 0; i < registers; ++i)
      w[i] = load<Arch>(static_cast<const T*>(products) + static_cast<std::ptrdiff_t>(i) * n);
  }
  T* const sums = a.sums + row * PairWeights<T>::sum_lanes;
  vec<T, Arch> sum = load<Arch>(static_cast<const T*>(sums));
  for (std::size_t i = 0; i < registers; ++i) {
    sum = sum + w[i];
    if (a.weights != nullptr)
      store<Arch>(a.weights + row * tile_keys + column + static_cast<std::ptrdiff_t>(i) * n, w[i]);
  }
  store<Arch>(sums, sum);
}

/// A group of `rows` rows and a tile of columns.
template <class Arch, class T>
void weigh_pair_group(const PairWeights<T>& a, std::ptrdiff_t row, int rows,
                      std::ptrdiff_t column) noexcept {
  constexpr std::ptrdiff_t columns = tile_columns<T, Arch>;
  const std::ptrdiff_t first = a.own + row, end = column + columns;  // the rows as columns
  if (a.before && first + rows - 1 <= column && a.weights == nullptr) return;
  const bool whole = end <= a.count && (end <= first || (!a.before && column >= first + rows));
  alignas(64) T products[static_cast<std::size_t>(tile_rows * columns)];
  multiply_tile<Arch, T>(rows, tile_registers<Arch>,
                         {.a = a.rows_packed + row * a.depth,
                          .a_stride = a.depth,
                          .b = a.columns_packed + column * a.depth,
                          .steps = a.depth,
                          .c = products,
                          .c_stride = columns});
  for (std::ptrdiff_t r = 0; r < rows; ++r)
    weigh_pairs<Arch>(a, row + r, column, products + r * columns, whole);
}

PARE_ABI_END
}  // namespace detail
PARE_ABI_BEGIN

template <class Arch, class T>
void run_kernel(Arch, const PairWeights<T>& a) noexcept {
  for (std::ptrdiff_t column = 0; column < a.count; column += tile_columns<T, Arch>)
    for (std::ptrdiff_t row = 0; row < a.rows;) {
      const int rows = next_group(a.rows - row);
      detail::weigh_pair_group<Arch>(a, row, rows, column);
      row += rows;
    }
}

PARE_ABI_END
}  // namespace pare::kernel

#include <pare/core/macros_on.hpp>
