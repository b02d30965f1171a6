// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// The closed forms of metric.hpp on kernels: the dominant subspace on one side of M = D W R, the
/// factors from it, and what is told of their error.

#include <pare/core/backend.hpp>
#include <pare/core/ceil_div.hpp>
#include <pare/core/check.hpp>
#include <pare/core/matrix.hpp>
#include <pare/core/parallel.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/factor/detail/covariance_subspace.hpp>
#include <pare/factor/detail/energy.hpp>
#include <pare/factor/detail/factor_problem.hpp>
#include <pare/factor/detail/factors.hpp>
#include <pare/factor/detail/find_subspace.hpp>
#include <pare/factor/detail/measured_error.hpp>
#include <pare/factor/detail/metric_checks.hpp>
#include <pare/factor/detail/normal_operator.hpp>
#include <pare/factor/low_rank.hpp>
#include <pare/factor/metric.hpp>
#include <pare/factor/options.hpp>
#include <pare/linalg/multiply.hpp>
#include <pare/linalg/positive_definite.hpp>

#include <Eigen/Core>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <utility>
#include <vector>

namespace pare::factor::detail {
PARE_ABI_BEGIN

/// A covariance whose largest variance is near 1, in a matrix of its own where that of the user is
/// so far from it that squares could leave the range of double.
template <class C>
struct NormalizedCovariance {
  RowMatrix<C> copy;
  CovarianceView<C> view;
  int root_exponent = 0;  ///< the root of the matrix was divided by two to this

  explicit NormalizedCovariance(const CovarianceView<C>& c) : view(c) {
    double largest = 0;
    for (Index i = 0; i < c.matrix.rows(); ++i)
      largest = std::max(largest, static_cast<double>(c.matrix(i, i)));
    if (largest > 1e-20 && largest < 1e20) return;
    root_exponent = std::ilogb(largest) / 2;
    copy.resize(c.matrix.rows(), c.matrix.cols());
    for (Index i = 0; i < copy.rows(); ++i)
      for (Index j = 0; j < copy.cols(); ++j)
        copy(i, j) = static_cast<C>(std::ldexp(double{c.matrix(i, j)}, -2 * root_exponent));
    view = {const_view(copy), std::ldexp(c.ridge, -2 * root_exponent)};
  }
  NormalizedCovariance(const NormalizedCovariance&) = delete;
  NormalizedCovariance& operator=(const NormalizedCovariance&) = delete;
};

/// x C / ||x||, of rows that threads share.
template <class B, class C>
Eigen::VectorXd power_step(const B& backend, TensorView<const C, 2> c, const Eigen::VectorXd& x) {
  constexpr Index block = 64;
  const double over = 1 / x.norm();
  Eigen::VectorXd y(x.size());
  parallel_for(backend.executor, ceil_div(c.rows(), block), [&](Index at, int) {
    for (Index i = at * block; i < std::min((at + 1) * block, c.rows()); ++i)
      y[i] = over * line_dot(&c(i, 0), c.stride[1], x);
  });
  return y;
}

/// \throws std::invalid_argument if C has an eigenvalue below -1e-6 of the largest: then C plus
/// that much of the identity has no Cholesky decomposition.
///
/// Power steps tell the largest from below. Two do as a rule: less of the identity makes C definite
/// too, unless it is not, or nearly.
template <class B, class C>
void check_semi_definite(const char* function, const B& backend,
                         const CovarianceView<C>& covariance) {
  RowMatrix<double> c;
  Eigen::VectorXd x(covariance.matrix.rows());
  for (Index i = 0; i < x.size(); ++i) x[i] = double{covariance.matrix(i, i)};
  double largest = 0;
  for (const int steps : {2, 18}) {
    for (int step = 0; step < steps && x.norm() > 0; ++step) {
      x = power_step(backend, covariance.matrix, x);
      largest = std::max(largest, x.norm());
    }
    c = row_matrix<double>(covariance.matrix);
    c.diagonal().array() += 1e-6 * largest;
    if (linalg::is_positive_definite(backend, c)) return;
  }
  check(false, function, "input_covariance", "an indefinite matrix",
        "no eigenvalue below -1e-6 of the largest");
}

/// min over rank k of ||D (W - A B) R||_F for a covariance of the inputs.
template <class B, class S, class C>
LowRank<compute_t<S>> factorize_covariance(FactorProblem<B, S>& problem,
                                           const CovarianceView<C>& users) {
  using T = compute_t<S>;
  const NormalizedCovariance<C> normalized(users);
  const CovarianceView<C>& covariance = normalized.view;
  if (!users.is_moment) check_semi_definite(problem.function, problem.backend, covariance);
  const double plain = checked_energy(problem);
  problem.covariance_exponent = normalized.root_exponent;
  problem.factor = safe_factor<double>(plain);
  const auto found = find_covariance_subspace(problem, covariance);
  if (!(found.total_energy > 0))
    return zero_result<T>(problem.w.rows(), problem.w.cols(), problem.options);
  const auto weigh = [&](const RowMatrix<double>& x) {
    return weigh_by(problem.backend, covariance, x);
  };
  LowRank<double> wide;
  factors_from_outputs(problem, found.space, weigh, wide);
  restore_scale(wide.right, wide.left, problem.output_weights.root_exponent);
  describe(found, problem.factor, problem.exponent(), std::numeric_limits<T>::epsilon(), wide);
  move_singular_values(wide, Split::Right, wanted_split(problem, true), problem.factor,
                       found.rounding);
  LowRank<T> result = rounded_to<T>(std::move(wide));
  check_factors(problem.function, result);
  set_signs(result, problem.options.signs);
  measure_small_error(problem, found.space.values, found.total_energy,
                      covariance_root_bound(covariance), weigh, deviations(covariance), result);
  return result;
}

/// x with its columns times weights; x itself for none.
struct InputWeighing {
  std::vector<double> weights;

  template <class T>
  RowMatrix<T> operator()(const RowMatrix<T>& x) const {
    RowMatrix<T> weighed = x;
    for (Index i = 0; i < x.rows() && !weights.empty(); ++i)
      for (Index j = 0; j < x.cols(); ++j)
        weighed(i, j) *= static_cast<T>(weights[static_cast<std::size_t>(j)]);
    return weighed;
  }
};

/// What weights are where their roots are rounded to U: also in double, which holds them as they
/// are.
template <class U>
InputWeighing input_weighing(const NormalizedWeights& weights, Index size) {
  const std::vector<U> squares = squares_of(weight_roots<U>(weights.values, size, 1.0));
  return {std::vector<double>(squares.begin(), squares.end())};
}

/// The same for weights on the diagonals, or none, computed in U.
template <class U, class B, class S>
LowRank<compute_t<S>> factorize_weighted_in(FactorProblem<B, S>& problem, double plain) {
  using T = compute_t<S>;
  const Index out = problem.w.rows(), in = problem.w.cols();
  const NormalizedWeights &outputs = problem.output_weights, &inputs = problem.input_weights;
  problem.factor = safe_factor<U>(plain);
  // Small tolerances ask for the side whose factor needs no division by what is nearly 0.
  const bool small =
      !resolves<double>(problem.options.tolerance) && outputs.empty() != inputs.empty();
  const Axis side = small ? (outputs.empty() ? Axis::Output : Axis::Input)
                          : basis_side(out, in, !outputs.empty(), !inputs.empty());
  const auto found = find_subspace<U>(problem, side, plain * problem.factor * problem.factor);
  LowRank<U> wide;
  const InputWeighing weigh = input_weighing<U>(inputs, in);
  if (side == Axis::Output) {
    factors_from_outputs(problem, found.space, weigh, wide);
    restore_scale(wide.right, wide.left, outputs.root_exponent);
  } else {
    factors_from_inputs(problem, found.space, wide);
    restore_scale(wide.left, wide.right, inputs.root_exponent);
  }
  describe(found, problem.factor, problem.exponent(), std::numeric_limits<T>::epsilon(), wide);
  move_singular_values(wide, side == Axis::Output ? Split::Right : Split::Left,
                       wanted_split(problem, !inputs.empty()), problem.factor, found.rounding);
  LowRank<T> result = rounded_to<T>(std::move(wide));
  check_factors(problem.function, result);
  set_signs(result, problem.options.signs);
  measure_small_error(problem, found.space.values, found.total_energy, 2.0, weigh, {}, result);
  return result;
}

/// The same in T, or in double where float does not resolve a tolerance: the inverse of a Gram
/// matrix in float leaves 2e-6 of the norm (`invert_gram`).
template <class B, class S>
LowRank<compute_t<S>> factorize_weighted(FactorProblem<B, S>& problem) {
  using T = compute_t<S>;
  const double plain = checked_energy(problem);
  if (!(plain > 0)) return zero_result<T>(problem.w.rows(), problem.w.cols(), problem.options);
  const bool weighed = !problem.output_weights.empty() || !problem.input_weights.empty();
  if (weighed && !resolves<T>(problem.options.tolerance))
    return factorize_weighted_in<double>(problem, plain);
  return factorize_weighted_in<T>(problem, plain);
}

PARE_ABI_END
}  // namespace pare::factor::detail
