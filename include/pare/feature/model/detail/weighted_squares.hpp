// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Sums of squares of a matrix with weights, in double, in the order in which it lies in memory.

#include <pare/core/tensor_view.hpp>

#include <algorithm>
#include <cstddef>
#include <span>
#include <vector>

namespace pare::feature::detail {
PARE_ABI_BEGIN

/// Calls visit(row, column) for all elements, a block of rows at a time, along what is contiguous.
template <class T, class Visit>
void for_each_element(TensorView<const T, 2> x, const Visit& visit) {
  constexpr Index block = 256;
  const bool by_rows = x.stride[1] == 1;
  for (Index begin = 0; begin < x.rows(); begin += block) {
    const Index end = std::min(begin + block, x.rows());
    if (by_rows) {
      for (Index b = begin; b < end; ++b)
        for (Index i = 0; i < x.cols(); ++i) visit(b, i);
    } else {
      for (Index i = 0; i < x.cols(); ++i)
        for (Index b = begin; b < end; ++b) visit(b, i);
    }
  }
}

/// state_b0 -= sum_i weights_i x_bi^2.
template <class T>
void subtract_weighted_row_squares(TensorView<const T, 2> x, std::span<const T> weights,
                                   TensorView<T, 2> state) {
  std::vector<double> sums(static_cast<std::size_t>(x.rows()));
  for_each_element(x, [&](Index b, Index i) {
    const auto value = static_cast<double>(x(b, i));
    sums[static_cast<std::size_t>(b)] +=
        static_cast<double>(weights[static_cast<std::size_t>(i)]) * value * value;
  });
  for (std::size_t b = 0; b < sums.size(); ++b)
    state(static_cast<Index>(b), 0) -= static_cast<T>(sums[b]);
}

/// sum_b weights_b x_bi^2 for each column i.
template <class T>
std::vector<double> weighted_column_squares(TensorView<const T, 2> x, std::span<const T> weights) {
  std::vector<double> sums(static_cast<std::size_t>(x.cols()));
  for_each_element(x, [&](Index b, Index i) {
    const auto value = static_cast<double>(x(b, i));
    sums[static_cast<std::size_t>(i)] +=
        static_cast<double>(weights[static_cast<std::size_t>(b)]) * value * value;
  });
  return sums;
}

PARE_ABI_END
}  // namespace pare::feature::detail
