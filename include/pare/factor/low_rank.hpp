// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// The result of every factorization: two factors, and what a user judges them by.
///
/// ```cpp
/// LowRank<float> f = truncated_svd(w, {.rank = 128});      // w [out x in] of float
/// Eigen::MatrixXf product = f.left * f.right;                 // [out x 128] [128 x in]
/// f.relative_error(), f.parameter_saving(), f.singular_values(0)
/// ```

#include <pare/core/macros_off.hpp>

#include <pare/core/check.hpp>
#include <pare/core/matrix.hpp>
#include <pare/core/scalar.hpp>
#include <pare/factor/options.hpp>

#include <Eigen/Core>

#include <algorithm>
#include <cmath>
#include <optional>
#include <vector>

namespace pare::factor {

PARE_ABI_BEGIN

/// W ~ left right, W [out x in]. Energies are squares of the Frobenius norm in the metric of the
/// call (metric.hpp), before the factors were rounded to T.
template <ComputeScalar T>
struct LowRank {
  using scalar = T;

  RowMatrix<T> left;   ///< [out x k]
  RowMatrix<T> right;  ///< [k x in]

  /// [k] of W in the metric, not increasing.
  Eigen::VectorXd singular_values;

  double captured_energy = 0;  ///< of left right
  double total_energy = 0;     ///< of what is approximated

  /// Upper bound of the metric error, rounding of the factors included. An estimate for an operator
  /// that does not know its squared norm. With a covariance of n inputs it may be up to
  /// 1.5e-8 n times ||W - left right||_F times the largest deviation above the error: the rounding
  /// of the sum that measures it.
  double error_bound = 0;

  /// The metric error summed over the elements of W - left right: where it is so small, below
  /// 1e-5 of ||W|| (1 % for factors in float), that the difference of energies would be rounding.
  /// Of some units of others (nested.hpp) it comes from the singular values that leave.
  std::optional<double> measured_error{};

  Route route = Route::Exact;  ///< that ran, never Auto
  int steps = 0;               ///< power iterations that ran

  /// Directions of a covariance without energy, which a form with an inverse left out.
  Index clamped_directions = 0;

  Index rank() const { return left.cols(); }

  /// Numbers in both factors: k (out + in).
  Index parameters() const { return left.size() + right.size(); }

  /// ||W - left right|| in the metric: `measured_error`, or sqrt(total - captured). Of a sparse
  /// matrix or an operator always the latter, which is rounding below about 1e-8 of ||W||.
  double error() const {
    return measured_error.value_or(std::sqrt(std::max(total_energy - captured_energy, 0.0)));
  }

  /// error() / ||W||; 0 if W is 0 in the metric.
  double relative_error() const {
    return total_energy > 0 ? error() / std::sqrt(total_energy) : 0.0;
  }

  /// 1 - k (out + in) / (out in): the share of W's parameters that the factors save; negative where
  /// they need more. 0 for an empty result.
  double parameter_saving() const {
    const double dense = static_cast<double>(left.rows()) * static_cast<double>(right.cols());
    return dense > 0 ? 1 - static_cast<double>(parameters()) / dense : 0.0;
  }

  /// The share of the layer's FLOPs that the factors save: the share of parameters, since W and the
  /// factors multiply each parameter once per token.
  double flop_saving() const { return parameter_saving(); }

  /// k < out in / (out + in): the factors are smaller than W.
  bool compresses() const { return parameter_saving() > 0; }
};

/// The result of the element-wise weighted problem: energies in sum_ij f_ij x_ij^2, singular values
/// of the product itself (left carries them, right has orthonormal rows).
template <ComputeScalar T>
struct ElementwiseLowRank {
  using scalar = T;

  LowRank<T> factors;

  /// sum_ij f_ij (W - left right)_ij^2 at the start and after each sweep: sweeps + 1 numbers, none
  /// above the one before but for rounding.
  std::vector<double> losses;
};

PARE_ABI_END

}  // namespace pare::factor

#include <pare/core/macros_on.hpp>
