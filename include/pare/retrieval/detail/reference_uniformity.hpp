// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Uniformity and its gradient by their definitions, in double.

#include <pare/core/check.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/retrieval/detail/unit_rows.hpp>

#include <cmath>
#include <cstddef>
#include <vector>

namespace pare::retrieval::detail {
PARE_ABI_BEGIN

/// e^(-t |u_i - u_j|^2).
template <class S>
double reference_weight(TensorView<const S, 2> x, const std::vector<double>& inverse, double t,
                        Index i, Index j) {
  double distance = 0;
  for (Index c = 0; c < x.cols(); ++c) {
    const double d = widened(x(i, c)) * inverse[static_cast<std::size_t>(i)] -
                     widened(x(j, c)) * inverse[static_cast<std::size_t>(j)];
    distance += d * d;
  }
  return std::exp(-t * distance);
}

/// Z, the sum of the weights of all pairs.
template <class S>
double reference_pairs(TensorView<const S, 2> x, const std::vector<double>& inverse, double t) {
  double total = 0;
  for (Index i = 0; i < x.rows(); ++i)
    for (Index j = 0; j < i; ++j) total += reference_weight(x, inverse, t, i, j);
  return total;
}

/// Z, and the gradient: of each row the sum of -2 t w (u_i - u_j) / Z, through the norm.
template <class S>
double reference_pair_gradient(TensorView<const S, 2> x, const std::vector<double>& inverse,
                               double t, double weight, TensorView<compute_t<S>, 2> gradient) {
  const double total = reference_pairs(x, inverse, t);
  const auto dim = static_cast<std::size_t>(x.cols());
  std::vector<double> u(dim), by_unit(dim);
  for (Index i = 0; i < x.rows(); ++i) {
    const double own = inverse[static_cast<std::size_t>(i)];
    for (std::size_t c = 0; c < dim; ++c) {
      u[c] = widened(x(i, static_cast<Index>(c))) * own;
      by_unit[c] = 0;
    }
    for (Index j = 0; j < x.rows(); ++j) {
      if (j == i) continue;
      const double w = reference_weight(x, inverse, t, i, j);
      for (std::size_t c = 0; c < dim; ++c)
        by_unit[c] -=
            2 * t * w / total *
            (u[c] - widened(x(j, static_cast<Index>(c))) * inverse[static_cast<std::size_t>(j)]);
    }
    double along = 0;
    for (std::size_t c = 0; c < dim; ++c) along += u[c] * by_unit[c];
    for (std::size_t c = 0; c < dim; ++c)
      gradient(i, static_cast<Index>(c)) =
          static_cast<compute_t<S>>(weight * (by_unit[c] - u[c] * along) * own);
  }
  return total;
}

PARE_ABI_END
}  // namespace pare::retrieval::detail
