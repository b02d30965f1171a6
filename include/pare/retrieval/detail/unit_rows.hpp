// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Norms of rows, and rows of norm 1.

#include <pare/core/check.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/core/view_check.hpp>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <vector>

namespace pare::retrieval::detail {
PARE_ABI_BEGIN

/// A number of any storage scalar, as it is.
template <class S>
double widened(S x) {
  return static_cast<double>(static_cast<compute_t<S>>(x));
}

/// The norm of a row, in double. Eight sums, which a compiler keeps in registers side by side.
template <class S>
double row_norm(TensorView<const S, 2> x, Index row) {
  constexpr Index n = 8;
  std::array<double, n> squares{};
  const S* const from = &x(row, 0);
  const Index stride = x.stride[1], whole = x.cols() / n * n;
  const auto add = [&](Index c, Index step) {
    for (Index k = 0; k < n; ++k) {
      const auto value = widened(from[(c + k) * step]);
      squares[static_cast<std::size_t>(k)] += value * value;
    }
  };
  if (stride == 1)
    for (Index c = 0; c < whole; c += n) add(c, 1);
  else
    for (Index c = 0; c < whole; c += n) add(c, stride);
  double sum = 0;
  for (const double part : squares) sum += part;
  for (Index c = whole; c < x.cols(); ++c) {
    const auto value = widened(from[c * stride]);
    sum += value * value;
  }
  if (is_finite(sum) && sum > 1e-280) return std::sqrt(sum);
  // Squares of doubles may be too large or too small where the row is not.
  double largest = 0, scaled = 0;
  for (Index c = 0; c < x.cols(); ++c) largest = std::max(largest, std::abs(widened(x(row, c))));
  for (Index c = 0; c < x.cols(); ++c) {
    const double part = widened(x(row, c)) / largest;
    scaled += part * part;
  }
  return largest * std::sqrt(scaled);
}

/// 1 / |x_i| of each row. \throws std::invalid_argument if a row has no direction: its norm is 0,
/// or it or its inverse is not finite
template <class S>
void inverse_norms(const char* function, const char* argument, TensorView<const S, 2> x,
                   std::vector<double>& inverse) {
  inverse.resize(static_cast<std::size_t>(x.rows()));
  for (Index i = 0; i < x.rows(); ++i) {
    const double norm = row_norm(x, i);
    // In the scalar that unit rows are made in, and so neither 0 nor infinite there.
    const auto own = static_cast<double>(static_cast<compute_t<S>>(1 / norm));
    check(norm > 0 && is_finite(norm) && is_finite(own) && own > 0, function, argument,
          Worded{"row ", i, ", whose norm is 0, not finite or out of range"},
          "rows that have a direction");
    inverse[static_cast<std::size_t>(i)] = 1 / norm;
  }
}

/// Row `row` of x with norm 1.
template <class S>
void unit_row(TensorView<const S, 2> x, Index row, double inverse_norm, compute_t<S>* unit) {
  using T = compute_t<S>;
  const auto factor = static_cast<T>(inverse_norm);
  const S* const from = &x(row, 0);
  if (x.stride[1] == 1)
    for (Index c = 0; c < x.cols(); ++c) unit[c] = static_cast<T>(from[c]) * factor;
  else
    for (Index c = 0; c < x.cols(); ++c) unit[c] = static_cast<T>(from[c * x.stride[1]]) * factor;
}

/// What is common to objectives of unit rows: at least two rows and a column, and rows that have a
/// direction.
template <class S>
void check_unit_rows(const char* function, const char* argument, TensorView<const S, 2> x,
                     std::vector<double>& inverse) {
  check_view(function, argument, x);
  check(x.cols() >= 1, function, argument, x.extent, "at least one column");
  checked_count(function, argument, x.rows(), sizeof(double));
  inverse_norms(function, argument, x, inverse);
}

PARE_ABI_END
}  // namespace pare::retrieval::detail
