// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Rows of a matrix in guarded memory, with a gap behind each but the last.

#include <cstddef>
#include <random>

#include "kernel/guarded_array.hpp"

namespace pare::testing {

template <class T>
struct MatrixRows {
  std::ptrdiff_t rows, columns, stride;
  GuardedArray<T> values;

  MatrixRows(std::ptrdiff_t rows_of, std::ptrdiff_t columns_of, Guard guard)
      : rows(rows_of),
        columns(columns_of),
        stride(columns_of + 3),
        values((rows_of - 1) * stride + columns_of, guard) {}
  void fill() {
    std::mt19937_64 random(5);
    for (std::ptrdiff_t r = 0; r < rows; ++r)
      for (std::ptrdiff_t c = 0; c < columns; ++c)
        values[r * stride + c] = static_cast<T>(random() % 4001) / T(2000) - T(1);
  }
  bool gaps_untouched() const {
    for (std::ptrdiff_t r = 0; r + 1 < rows; ++r)
      for (std::ptrdiff_t c = columns; c < stride; ++c)
        if (!values.untouched(r * stride + c)) return false;
    return values.surroundings_untouched();
  }
};

}  // namespace pare::testing
