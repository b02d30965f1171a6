// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// The definitions of factorizations with covariances that are no metric of metric.hpp, or that
/// papers write with an inverse. An inverse acts on the range of its covariance only;
/// `clamped_directions` counts what it leaves out, and the error does not see it.

#include <pare/core/tensor_view.hpp>
#include <pare/factor/detail/metric_checks.hpp>
#include <pare/factor/detail/reference_factorize.hpp>
#include <pare/factor/detail/reference_svd.hpp>
#include <pare/factor/low_rank.hpp>
#include <pare/factor/metric.hpp>
#include <pare/factor/options.hpp>

#include <Eigen/Core>

#include <algorithm>

namespace pare::factor::detail {
PARE_ABI_BEGIN

/// min ||(W - A B) C^(1/2)||_F as CARE writes it: W C^(1/2) = U S V^T, A = U_k,
/// B = S_k V_k^T C^(-1/2). The same product as the metric InputCovariance wherever C is not
/// singular.
template <StorageScalar S, class T>
LowRank<compute_t<S>> reference_whitened_svd(const char* function, TensorView<const S, 2> weight,
                                             const CovarianceView<T>& covariance,
                                             const SvdOptions& options) {
  validate(function, options, weight.rows(), weight.cols());
  check_covariance(function, "input_covariance", covariance, weight.cols());
  check_finite(function, "w", weight);
  const auto c = reference_covariance(function, "input_covariance", covariance);
  const Eigen::MatrixXd whitened = reference_matrix(weight) * c.root();
  check_energy(function, whitened);
  const ReferenceSvd svd = reference_svd(whitened);
  const Index k = reference_rank(svd.s, 0, options);
  const Eigen::VectorXd s = svd.s.head(k);
  Eigen::MatrixXd left = svd.u.leftCols(k);
  Eigen::MatrixXd right = s.asDiagonal() * svd.v.leftCols(k).transpose() * c.inverse(0.5);
  reference_split(left, right, s, Split::Right, options.split);
  auto result = reference_result<compute_t<S>>(function, left, right, svd.s, 0);
  result.clamped_directions = c.null_directions();
  return result;
}

/// min ||Y - A B Z||_F for Y = W X, where the compressed layer sees inputs Z [in x tokens] in the
/// place of X: `clean` = X X^T, `cross` = X Z^T, `shifted` = Z Z^T. With P = W cross and
/// P shifted^(-1/2) = U S V^T: A = U_k, B = U_k^T P shifted^-1, and the squared error is ||Y||^2 -
/// sum_(i<=k) s_i^2. Reduced-rank regression; the setting is that of AA-SVD, arXiv 2604.02119.
/// A ridge of `shifted` adds ridge ||A B||^2 to the squared error; `clean` has none.
template <StorageScalar S, class T>
LowRank<compute_t<S>> reference_shifted_svd(const char* function, TensorView<const S, 2> weight,
                                            TensorView<const T, 2> clean,
                                            TensorView<const T, 2> cross,
                                            const CovarianceView<T>& shifted,
                                            const SvdOptions& options) {
  const Index in = weight.cols();
  validate(function, options, weight.rows(), in);
  check_covariance(function, "clean", CovarianceView<T>{clean, 0}, in);
  check_extents<2>(function, "cross", cross.extent, {in, in});
  check_finite(function, "cross", cross);
  check_covariance(function, "shifted", shifted, in);
  check_finite(function, "w", weight);
  const Eigen::MatrixXd w = reference_matrix(weight);
  const Eigen::MatrixXd p = w * reference_matrix(cross);
  const Eigen::MatrixXd outputs =
      w * reference_covariance(function, "clean", CovarianceView<T>{clean, 0}).root();
  const auto c = reference_covariance(function, "shifted", shifted);
  const Eigen::MatrixXd whitened = p * c.inverse(0.5);
  check_energy(function, outputs);
  check_energy(function, whitened);
  const ReferenceSvd svd = reference_svd(whitened);
  const double floor = std::max(0.0, outputs.squaredNorm() - whitened.squaredNorm());
  const Index k = reference_rank(svd.s, floor, options);
  Eigen::MatrixXd left = svd.u.leftCols(k);
  Eigen::MatrixXd right = left.transpose() * p * c.inverse(1);
  reference_split(left, right, svd.s.head(k), Split::Right, options.split);
  auto result = reference_result<compute_t<S>>(function, left, right, svd.s, floor);
  result.clamped_directions = c.null_directions();
  return result;
}

/// min ||C_out^(1/2) (W - A B) C_in^(1/2)||_F, the metric of a Kronecker-factored Fisher
/// information (GFWSVD, arXiv 2505.17974): C_out^(1/2) W C_in^(1/2) = U S V^T,
/// A = C_out^(-1/2) U_k, B = U_k^T C_out^(1/2) W.
template <StorageScalar S, class T>
LowRank<compute_t<S>> reference_two_sided_svd(const char* function, TensorView<const S, 2> weight,
                                              const CovarianceView<T>& output_covariance,
                                              const CovarianceView<T>& input_covariance,
                                              const SvdOptions& options) {
  validate(function, options, weight.rows(), weight.cols());
  check_covariance(function, "output_covariance", output_covariance, weight.rows());
  check_covariance(function, "input_covariance", input_covariance, weight.cols());
  check_finite(function, "w", weight);
  const Eigen::MatrixXd w = reference_matrix(weight);
  const auto y = reference_covariance(function, "output_covariance", output_covariance);
  const auto x = reference_covariance(function, "input_covariance", input_covariance);
  const Eigen::MatrixXd weighted = y.root() * w * x.root();
  check_energy(function, weighted);
  const ReferenceSvd svd = reference_svd(weighted);
  const Index k = reference_rank(svd.s, 0, options);
  const auto u = svd.u.leftCols(k);
  Eigen::MatrixXd left = y.inverse(0.5) * u;
  Eigen::MatrixXd right = u.transpose() * y.root() * w;
  reference_split(left, right, svd.s.head(k), Split::Right, options.split);
  auto result = reference_result<compute_t<S>>(function, left, right, svd.s, 0);
  result.clamped_directions = y.null_directions();
  return result;
}

PARE_ABI_END
}  // namespace pare::factor::detail
