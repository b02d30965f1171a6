// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// The error of factors that are so good that a difference of energies cannot tell: summed over the
/// elements of W - A B.

#include <pare/core/matrix.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/factor/detail/factor_problem.hpp>
#include <pare/factor/low_rank.hpp>
#include <pare/factor/metric.hpp>
#include <pare/linalg/multiply.hpp>

#include <Eigen/Core>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <type_traits>

namespace pare::factor::detail {
PARE_ABI_BEGIN

/// A number that ||x R|| / ||x|| does not exceed for any x.
template <class C>
double covariance_root_bound(const CovarianceView<C>& covariance) {
  double trace = 0;
  for (Index i = 0; i < covariance.matrix.rows(); ++i)
    trace += double{covariance.matrix(i, i)} + covariance.ridge;
  return std::sqrt(trace);
}

/// The roots of C's diagonal.
template <class C>
Eigen::VectorXd deviations(const CovarianceView<C>& covariance) {
  Eigen::VectorXd roots(covariance.matrix.rows());
  for (Index i = 0; i < roots.size(); ++i)
    roots[i] = std::sqrt(double{covariance.matrix(i, i)} + covariance.ridge);
  return roots;
}

/// An energy, and by how much rounding may have lowered it.
struct MeasuredEnergy {
  double energy = 0;
  double rounding = 0;
};

/// tr(D (W - A B) C (W - A B)^T D) with W and A B times the problem's factor; weigh(x) is x C, of
/// those `deviations`; none if C is diagonal.
///
/// A product x C x^T is off by (n + 1) epsilon sum_ij |x_i C_ij x_j| at most, |C_ij| is at most the
/// product of both deviations, and where C is singular the sum may cancel.
template <class B, class S, class T, class Weigh>
MeasuredEnergy measured_energy(FactorProblem<B, S>& problem, const Weigh& weigh,
                               const Eigen::VectorXd& deviations, const LowRank<T>& result) {
  constexpr Index block = 64;
  const auto& weights = problem.output_weights.values;
  MeasuredEnergy total;
  for (Index begin = 0; begin < problem.w.rows(); begin += block) {
    const Index rows = std::min(block, problem.w.rows() - begin);
    RowMatrix<double> rest(rows, problem.w.cols());
    linalg::multiply(problem.backend, rows_of(const_view(result.left), begin, rows),
                     const_view(result.right), to_view(rest));
    for (Index i = 0; i < rows; ++i)
      for (Index j = 0; j < rest.cols(); ++j) {
        const auto w = static_cast<double>(static_cast<compute_t<S>>(problem.w(begin + i, j)));
        rest(i, j) = problem.factor * (w - rest(i, j));
      }
    const RowMatrix<double> weighed = weigh(rest);
    for (Index i = 0; i < rows; ++i) {
      const double weight = weights.empty() ? 1.0 : weights[static_cast<std::size_t>(begin + i)];
      const double energy = rest.row(i).dot(weighed.row(i));
      const double size = deviations.size() > 0 ? rest.row(i).cwiseAbs().dot(deviations) : 0.0;
      total.energy += weight * energy;
      total.rounding += weight * std::max(size * size, std::abs(energy));
    }
  }
  total.rounding *=
      static_cast<double>(problem.w.cols() + 1) * std::numeric_limits<double>::epsilon();
  return total;
}

/// Sets `measured_error`, and the bound by it, where the energy that is left is rounding of the
/// total, of which the subspace has `values`. `root`: a bound of ||x R|| / ||x||, and `deviations`
/// as of measured_energy.
///
/// Cost: 2 out in rank FLOPs in double, and 2 out in^2 more with a covariance. Elsewhere none.
template <class B, class S, class T, class Weigh>
void measure_small_error(FactorProblem<B, S>& problem, const Eigen::VectorXd& values, double total,
                         double root, const Weigh& weigh, const Eigen::VectorXd& deviations,
                         LowRank<T>& result) {
  const double left = total - values.sum();
  constexpr double share = std::is_same_v<T, float> ? 1e-4 : 1e-10;
  if (left > share * total) return;
  const auto [energy, rounding] = measured_energy(problem, weigh, deviations, result);
  const double measured = std::max(0.0, energy);
  const auto scaled = [&](double norm) {
    return std::ldexp(norm / problem.factor, problem.exponent());
  };
  result.measured_error = scaled(std::sqrt(measured));
  // Elements of W - A B are sums of rank + 1 products, each of them rounded in double; weights are
  // below 4 after they were normalized.
  constexpr double unit = std::numeric_limits<double>::epsilon() / 2;
  const double outputs = problem.output_weights.empty() ? 1.0 : 2.0;
  const double sums = static_cast<double>(result.rank() + 4) * unit * problem.factor *
                      result.left.template cast<double>().norm() *
                      result.right.template cast<double>().norm() * outputs * root;
  result.error_bound = scaled(std::sqrt(measured + rounding) + sums);
}

PARE_ABI_END
}  // namespace pare::factor::detail
