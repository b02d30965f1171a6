// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// What conversions ask of weights and of the second moment of their inputs.

#include <pare/core/check.hpp>
#include <pare/core/scalar.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/core/view_check.hpp>
#include <pare/factor/metric.hpp>

#include <algorithm>
#include <array>
#include <cmath>
#include <optional>

namespace pare::latent::detail {
PARE_ABI_BEGIN

template <StorageScalar S>
double widened(S value) {
  return static_cast<double>(static_cast<compute_t<S>>(value));
}

template <StorageScalar S>
void check_all_finite(const char* function, const char* name, TensorView<const S, 2> m) {
  for (Index i = 0; i < m.rows(); ++i)
    for (Index j = 0; j < m.cols(); ++j)
      check(is_finite(widened(m(i, j))), function, name, widened(m(i, j)), "finite elements");
}

/// A weight [outputs, inputs]: not empty, finite.
template <StorageScalar S>
void check_weight(const char* function, const char* name, TensorView<const S, 2> w) {
  check_view(function, name, w);
  check(w.rows() >= 1 && w.cols() >= 1, function, name, w.extent, "extents of at least 1");
  check_all_finite(function, name, w);
}

/// Weights of the same inputs.
template <StorageScalar S>
void check_key_value(const char* function, TensorView<const S, 2> key,
                     TensorView<const S, 2> value) {
  check_weight(function, "key", key);
  check_weight(function, "value", value);
  check_extents<2>(function, "value", value.extent, {value.rows(), key.cols()});
}

inline void check_rank(const char* function, const char* name, Index rank, Index out, Index in) {
  check(rank >= 1 && rank <= std::min(out, in), function, name, rank,
        Worded{"1 to min(outputs, inputs), ", std::min(out, in)});
}

/// A second moment [n, n]: finite, symmetric to 1e-5 of the geometric mean of two variances, none
/// of them negative, not all 0.
template <ComputeScalar T>
void check_moment(const char* function, const char* name, TensorView<const T, 2> c, Index n) {
  check_view(function, name, c);
  check_extents<2>(function, name, c.extent, {n, n});
  check_all_finite(function, name, c);
  double trace = 0;
  for (Index i = 0; i < n; ++i) {
    check(c(i, i) >= 0, function, name, widened(c(i, i)), "a diagonal of at least 0");
    trace += widened(c(i, i));
  }
  check(trace > 0, function, name, "a diagonal of 0", "a variance above 0");
  for (Index i = 0; i < n; ++i)
    for (Index j = 0; j < i; ++j) {
      const double off = widened(c(i, j)) - widened(c(j, i));
      const double size = std::sqrt(widened(c(i, i))) * std::sqrt(widened(c(j, j)));
      check(std::abs(off) <= 1e-5 * size, function, name, off, "a symmetric matrix");
    }
}

/// The metric's covariance, where it has one.
template <factor::Metric M>
void check_metric_moment(const char* function, const M& metric, Index inputs) {
  const auto covariance = metric.input_covariance();
  if (covariance.empty()) return;
  check_moment(function, "metric", covariance.matrix, inputs);
  check(is_finite(covariance.ridge) && covariance.ridge >= 0, function, "damping", covariance.ridge,
        "a finite share of at least 0");
}

PARE_ABI_END
}  // namespace pare::latent::detail
