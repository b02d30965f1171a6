// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// The definitions of this folder, in plain loops that sum in double on one thread (in long double
/// what is double, whose squares may be too large for it).
///
/// ```cpp
/// rms_norm(pare::reference, x, gain, y);  // the backend that runs them
/// ```

#include <pare/core/macros_off.hpp>

#include <pare/core/scalar.hpp>
#include <pare/core/tensor_view.hpp>

#include <cmath>
#include <limits>
#include <type_traits>

namespace pare::transformer::detail {
PARE_ABI_BEGIN

/// What sums of T are kept in.
template <class T>
using wide_t = std::conditional_t<std::is_same_v<T, double>, long double, double>;

template <class S>
auto widened(S x) {
  using T = compute_t<S>;
  return static_cast<wide_t<T>>(static_cast<T>(x));
}

template <class S, class W>
S narrowed(W x) {
  return static_cast<S>(static_cast<compute_t<S>>(x));
}

/// y_ij = (x_ij - mean) / sqrt(mean of (x - mean)^2 + epsilon) gain_j + bias_j; without a bias the
/// mean counts as 0.
template <class S>
void reference_norm(TensorView<const S, 2> x, const compute_t<S>* gain, const compute_t<S>* bias,
                    TensorView<S, 2> y, double epsilon) {
  using W = wide_t<compute_t<S>>;
  const auto count = static_cast<W>(x.cols());
  for (Index i = 0; i < x.rows(); ++i) {
    W mean = 0, squares = 0;
    if (bias != nullptr)
      for (Index j = 0; j < x.cols(); ++j) mean += widened(x(i, j)) / count;
    for (Index j = 0; j < x.cols(); ++j) {
      const W v = widened(x(i, j)) - mean;
      squares += v * v;
    }
    const W root = std::sqrt(squares / count + static_cast<W>(epsilon));
    for (Index j = 0; j < x.cols(); ++j)
      y(i, j) = narrowed<S>((widened(x(i, j)) - mean) / root * static_cast<W>(gain[j]) +
                            (bias != nullptr ? static_cast<W>(bias[j]) : W(0)));
  }
}

/// x_ij = x_ij + delta_ij.
template <class S>
void reference_add(TensorView<S, 2> x, TensorView<const S, 2> delta) {
  for (Index i = 0; i < x.rows(); ++i)
    for (Index j = 0; j < x.cols(); ++j)
      x(i, j) = narrowed<S>(widened(x(i, j)) + widened(delta(i, j)));
}

/// y_ij = A(x_ij), times factor_ij if it has data.
template <class A, class S>
void reference_activate(TensorView<const S, 2> x, TensorView<const S, 2> factor,
                        TensorView<S, 2> y) {
  for (Index i = 0; i < x.rows(); ++i)
    for (Index j = 0; j < x.cols(); ++j) {
      double value = A::exact(static_cast<double>(widened(x(i, j))));
      if (factor.data != nullptr) value *= static_cast<double>(widened(factor(i, j)));
      y(i, j) = narrowed<S>(value);
    }
}

/// The largest number of row i and the sum of e^((x_ij - largest) inverse_temperature). Of a row of
/// minus infinities the largest counts as 0; a NaN makes the sum one.
struct RowSum {
  double largest = 0;
  double sum = 0;
};
template <class S>
RowSum reference_sum(TensorView<const S, 2> x, Index i, double inverse_temperature) {
  constexpr double lowest = -std::numeric_limits<double>::infinity();
  RowSum row{lowest, 0};
  for (Index j = 0; j < x.cols(); ++j) {
    const auto v = static_cast<double>(widened(x(i, j)));
    row.largest = v > row.largest ? v : row.largest;
  }
  if (row.largest == lowest) row.largest = 0;
  for (Index j = 0; j < x.cols(); ++j)
    row.sum +=
        std::exp((static_cast<double>(widened(x(i, j))) - row.largest) * inverse_temperature);
  return row;
}

/// y_ij = e^((x_ij - largest) / temperature) / sum, or its logarithm.
template <bool Log, class S>
void reference_softmax(TensorView<const S, 2> x, TensorView<S, 2> y, double inverse_temperature) {
  for (Index i = 0; i < x.rows(); ++i) {
    const RowSum row = reference_sum(x, i, inverse_temperature);
    const double sum = row.sum == 0 ? 1 : row.sum;
    for (Index j = 0; j < x.cols(); ++j) {
      const double v = (static_cast<double>(widened(x(i, j))) - row.largest) * inverse_temperature;
      y(i, j) = narrowed<S>(Log ? v - std::log(sum) : std::exp(v) / sum);
    }
  }
}

/// out_i = log sum_j e^(x_ij / temperature).
template <class S>
void reference_log_sum_exp(TensorView<const S, 2> x, TensorView<compute_t<S>, 1> out,
                           double inverse_temperature) {
  for (Index i = 0; i < x.rows(); ++i) {
    const RowSum row = reference_sum(x, i, inverse_temperature);
    out(i) = static_cast<compute_t<S>>(row.largest * inverse_temperature + std::log(row.sum));
  }
}

/// The pair (a, b) of a row turned by an angle: (a cos - b sin, b cos + a sin).
template <class S>
void reference_rotate(S& a, S& b, double cosine, double sine) {
  const auto x = static_cast<double>(widened(a)), y = static_cast<double>(widened(b));
  a = narrowed<S>(x * cosine - y * sine);
  b = narrowed<S>(y * cosine + x * sine);
}

PARE_ABI_END
}  // namespace pare::transformer::detail

#include <pare/core/macros_on.hpp>
