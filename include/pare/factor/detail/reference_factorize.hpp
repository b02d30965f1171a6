// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// The definition of the closed forms, on a full singular value decomposition in double.
///
/// What has no scalar to depend on is a template all the same, so that Eigen's decompositions are
/// compiled only where they are called.

#include <pare/core/check.hpp>
#include <pare/core/matrix.hpp>
#include <pare/core/scalar.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/factor/detail/metric_checks.hpp>
#include <pare/factor/detail/moment_rounding.hpp>
#include <pare/factor/detail/reference_matrix.hpp>
#include <pare/factor/detail/reference_svd.hpp>
#include <pare/factor/low_rank.hpp>
#include <pare/factor/metric.hpp>
#include <pare/factor/options.hpp>
#include <pare/linalg/symmetric_eigen.hpp>

#include <Eigen/Core>

#include <algorithm>
#include <cmath>
#include <limits>
#include <span>
#include <type_traits>

namespace pare::factor::detail {
PARE_ABI_BEGIN

/// The eigenvalues of C before damping, none below 0, and its ridge beside them.
struct ReferenceCovariance {
  Eigen::VectorXd values;
  Eigen::MatrixXd vectors;
  double ridge = 0;
  double rounding = 0;  ///< of the numbers of C, as a share of its largest eigenvalue

  /// C^(1/2), symmetric.
  template <class = void>
  Eigen::MatrixXd root() const {
    return vectors * (values.array() + ridge).sqrt().matrix().asDiagonal() * vectors.transpose();
  }

  /// Eigenvalues that are 0 but for rounding.
  template <class = void>
  double cut() const {
    return rounding * (values.maxCoeff() + ridge);
  }
  template <class = void>
  Index null_directions() const {
    return (values.array() + ridge <= cut()).count();
  }

  /// C^-power on the range of C and 0 on its null space.
  template <class = void>
  Eigen::MatrixXd inverse(double power) const {
    const auto invert = [&](double value) {
      return value + ridge > cut() ? std::pow(value + ridge, -power) : 0.0;
    };
    return vectors * values.unaryExpr(invert).asDiagonal() * vectors.transpose();
  }
};

/// \throws std::invalid_argument if C is not positive semi-definite.
template <class T>
ReferenceCovariance reference_covariance(const char* function, const char* name,
                                         const CovarianceView<T>& c) {
  const Eigen::MatrixXd matrix = reference_matrix(c.matrix);
  const auto eigen = linalg::symmetric_eigen(reference, (matrix + matrix.transpose()) / 2);
  const Eigen::VectorXd& values = eigen.values;
  check_semi_definite(function, name, values.minCoeff(), values.maxCoeff());
  // Twice: of C and of its decomposition. A ridge is exact, whatever the scalar of C.
  const Index n = values.size();
  const double rounding = 2 * (c.ridge > 0 ? moment_rounding<double>(n) : moment_rounding<T>(n));
  return {values.cwiseMax(0.0), eigen.vectors, c.ridge, rounding};
}

/// sqrt(weights) on a diagonal [n x n]; the identity without weights.
template <class = void>
Eigen::MatrixXd reference_weight_root(std::span<const double> weights, Index n) {
  Eigen::VectorXd root = Eigen::VectorXd::Ones(n);
  if (!weights.empty()) root = Eigen::Map<const Eigen::VectorXd>(weights.data(), n).cwiseSqrt();
  return root.asDiagonal();
}

/// R of the metric, [n x n].
template <Metric M>
Eigen::MatrixXd reference_input_root(const char* function, const M& metric, Index n) {
  const auto covariance = metric.input_covariance();
  if (covariance.empty()) return reference_weight_root(metric.input_weights(), n);
  return reference_covariance(function, "input_covariance", covariance).root();
}

/// The rank that the options ask for, given all singular values and the squared error that no rank
/// takes away.
template <class = void>
Index reference_rank(const Eigen::VectorXd& s, double floor, const SvdOptions& options) {
  Index rank = std::min(rank_limit(options, s.size(), s.size()), s.size());
  if (!options.tolerance) return rank;
  const double allowed =
      *options.tolerance * *options.tolerance * (s.tail(s.size()).squaredNorm() + floor);
  while (rank > 1 && s.tail(s.size() - rank + 1).squaredNorm() + floor <= allowed) --rank;
  return rank;
}

/// 1 / s, and 0 where s is 0 but for the rounding of a decomposition of [rows x cols].
template <class = void>
Eigen::VectorXd reference_reciprocal(const Eigen::VectorXd& s, Index rows, Index cols) {
  const double cut =
      static_cast<double>(std::max(rows, cols)) * std::numeric_limits<double>::epsilon() * s(0);
  return s.unaryExpr([&](double value) { return value > cut ? 1 / value : 0.0; });
}

/// Moves the singular values s from the factor that carries them to the one that shall.
template <class = void>
void reference_split(Eigen::MatrixXd& left, Eigen::MatrixXd& right, const Eigen::VectorXd& s,
                     Split from, Split to) {
  if (to == Split::Natural || to == from) return;
  Eigen::VectorXd moved = s, back = reference_reciprocal(s, left.rows(), right.cols());
  if (to == Split::Both) {
    moved = moved.cwiseSqrt().eval();
    back = back.cwiseSqrt().eval();
  }
  left = (left * (from == Split::Left ? back : moved).asDiagonal()).eval();
  right = ((from == Split::Left ? moved : back).asDiagonal() * right).eval();
}

/// Turns the signs of pairs of columns and rows to what is asked for.
template <class T>
void set_signs(LowRank<T>& result, Signs signs) {
  if (signs == Signs::AsFound) return;
  for (Index k = 0; k < result.rank(); ++k) {
    Index at = 0;
    for (Index j = 1; j < result.right.cols(); ++j)
      if (std::abs(result.right(k, j)) > std::abs(result.right(k, at))) at = j;
    if (!(result.right(k, at) < 0)) continue;
    for (Index j = 0; j < result.right.cols(); ++j) result.right(k, j) = -result.right(k, j);
    for (Index i = 0; i < result.left.rows(); ++i) result.left(i, k) = -result.left(i, k);
  }
}

/// Refuses a result whose factors left the range of T.
template <class T>
void check_factors(const char* function, const LowRank<T>& result) {
  for (const RowMatrix<T>* m : {&result.left, &result.right})
    for (Index i = 0; i < m->size(); ++i)
      check(is_finite(double{m->data()[i]}), function, "w", double{m->data()[i]},
            "factors within the range of their scalar, or a split that keeps them there");
}

/// The result with factors A B, the first k of the singular values s, and the squared error that
/// no rank takes away.
template <ComputeScalar T>
LowRank<T> reference_result(const char* function, const Eigen::MatrixXd& left,
                            const Eigen::MatrixXd& right, const Eigen::VectorXd& s, double floor) {
  const Index k = left.cols();
  LowRank<T> result;
  result.left = left.cast<T>();
  result.right = right.cast<T>();
  result.singular_values = s.head(k);
  result.captured_energy = s.head(k).squaredNorm();
  result.total_energy = s.squaredNorm() + floor;
  check_factors(function, result);
  const double rest = s.tail(s.size() - k).squaredNorm() + floor;
  if (rest <= (std::is_same_v<T, float> ? 1e-4 : 1e-10) * result.total_energy)
    result.measured_error = std::sqrt(rest);
  // Of the factors in T, and of the decomposition in double.
  const double rounding = double{std::numeric_limits<T>::epsilon()} +
                          static_cast<double>(k + 4) * std::numeric_limits<double>::epsilon();
  result.error_bound = std::sqrt(rest) + rounding * std::sqrt(result.total_energy);
  return result;
}

/// Refuses a W whose energy in the metric is beyond double on either side.
template <class = void>
void check_energy(const char* function, const Eigen::MatrixXd& m) {
  const double energy = m.squaredNorm();
  check(is_finite(energy), function, "w", energy, "a squared norm in the metric that is finite");
  check(energy >= least_energy || m.isZero(0), function, "w", energy,
        "a squared norm in the metric of 0 or at least 1e-292");
}

/// min over rank k of ||D (W - A B) R||_F with the factors of metric.hpp.
/// \throws std::invalid_argument as check_factorize, and if a covariance is indefinite.
template <StorageScalar S, Metric M>
LowRank<compute_t<S>> reference_factorize(const char* function, TensorView<const S, 2> weight,
                                          const M& metric, const SvdOptions& options) {
  check_factorize(function, weight, metric, options);
  const Eigen::MatrixXd w = reference_matrix(weight);
  const Eigen::MatrixXd d = reference_weight_root(metric.output_weights(), w.rows());
  const Eigen::MatrixXd r = reference_input_root(function, metric, w.cols());
  const Eigen::MatrixXd weighted = d * w * r;
  check_energy(function, weighted);
  const ReferenceSvd svd = reference_svd(weighted);
  const Index k = reference_rank(svd.s, 0, options);
  const auto u = svd.u.leftCols(k);
  const auto v = svd.v.leftCols(k);
  const Eigen::VectorXd s = svd.s.head(k);

  const bool outputs = !metric.output_weights().empty();
  const bool inputs = !metric.input_weights().empty() || !metric.input_covariance().empty();
  Eigen::MatrixXd left, right;
  if (!inputs) {
    left = w * v;
    right = v.transpose();
  } else if (!outputs) {
    left = u;
    right = u.transpose() * w;
  } else {
    left = w * r * v * reference_reciprocal(s, w.rows(), w.cols()).asDiagonal();
    right = u.transpose() * d * w;
  }
  reference_split(left, right, s, inputs ? Split::Right : Split::Left, options.split);
  auto result = reference_result<compute_t<S>>(function, left, right, svd.s, 0);
  set_signs(result, options.signs);
  return result;
}

PARE_ABI_END
}  // namespace pare::factor::detail
