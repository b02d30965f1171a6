// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// The definition of the element-wise weighted problem, min over rank k of
/// sum_ij F_ij (W - A B)_ij^2. It has no closed form and, unless F has rank one, minima that are
/// not global (Srebro and Jaakkola, "Weighted low-rank approximations", ICML 2003).

#include <pare/core/tensor_view.hpp>
#include <pare/factor/detail/elementwise_problem.hpp>
#include <pare/factor/detail/elementwise_start.hpp>
#include <pare/factor/detail/metric_checks.hpp>
#include <pare/factor/detail/reference_factorize.hpp>
#include <pare/factor/detail/reference_svd.hpp>
#include <pare/factor/low_rank.hpp>
#include <pare/factor/metric.hpp>
#include <pare/factor/options.hpp>

#include <Eigen/Core>
#include <Eigen/QR>

#include <cmath>
#include <utility>
#include <vector>

namespace pare::factor::detail {
PARE_ABI_BEGIN

/// sum_ij F_ij (W - X)_ij^2.
template <class = void>
double reference_loss(const Eigen::MatrixXd& w, const Eigen::MatrixXd& f,
                      const Eigen::MatrixXd& x) {
  return f.cwiseProduct((w - x).cwiseAbs2()).sum();
}

/// X with each row of A replaced by one that minimises the loss for this B, the nearest to the old
/// of those: what no weight determines stays.
template <class = void>
Eigen::MatrixXd reference_fit_rows(const Eigen::MatrixXd& w, const Eigen::MatrixXd& f,
                                   Eigen::MatrixXd a, const Eigen::MatrixXd& b) {
  for (Index i = 0; i < w.rows(); ++i) {
    const Eigen::VectorXd root = f.row(i).cwiseSqrt();
    const Eigen::VectorXd residual = (w.row(i) - a.row(i) * b).transpose();
    const Eigen::MatrixXd system = root.asDiagonal() * b.transpose();
    a.row(i) +=
        system.completeOrthogonalDecomposition().solve(root.cwiseProduct(residual)).transpose();
  }
  return a;
}

/// One sweep of alternating least squares over A and B.
template <class = void>
void reference_als_sweep(const Eigen::MatrixXd& w, const Eigen::MatrixXd& f, Eigen::MatrixXd& a,
                         Eigen::MatrixXd& b) {
  a = reference_fit_rows(w, f, a, b);
  b = reference_fit_rows(w.transpose(), f.transpose(), b.transpose(), a.transpose()).transpose();
}

/// One step of expectation and maximisation: A B <- SVD_k(P.*W + (1 - P).*(A B)), P = F / max F.
template <class = void>
void reference_em_sweep(const Eigen::MatrixXd& w, const Eigen::MatrixXd& f, Eigen::MatrixXd& a,
                        Eigen::MatrixXd& b) {
  const Eigen::MatrixXd x = a * b;
  const Index k = a.cols();
  const ReferenceSvd svd = reference_svd(x + (f / f.maxCoeff()).cwiseProduct(w - x));
  a = svd.u.leftCols(k) * svd.s.head(k).asDiagonal();
  b = svd.v.leftCols(k).transpose();
}

/// The losses of sweeps from factors A and B, which become the last.
template <class = void>
std::vector<double> reference_sweeps(const Eigen::MatrixXd& w, const Eigen::MatrixXd& f,
                                     const ElementwiseOptions& options, Eigen::MatrixXd& a,
                                     Eigen::MatrixXd& b) {
  std::vector<double> losses{reference_loss(w, f, a * b)};
  for (int sweep = 0; sweep < options.sweeps; ++sweep) {
    if (options.method == ElementwiseMethod::Als)
      reference_als_sweep(w, f, a, b);
    else
      reference_em_sweep(w, f, a, b);
    const double before = losses.back();
    losses.push_back(reference_loss(w, f, a * b));
    if (before - losses.back() <= options.tolerance * before) break;
  }
  return losses;
}

/// The optimum for the row sums of F, or for the products of its row and column sums, whichever has
/// the lower loss.
template <class = void>
void reference_start(const char* function, const Eigen::MatrixXd& w, const Eigen::MatrixXd& f,
                     Index rank, double squares, Eigen::MatrixXd& a, Eigen::MatrixXd& b) {
  const ElementwiseMargins margins(as_const(to_view(f)));
  const auto solve = [&](const auto& metric) {
    return reference_factorize<double>(function, as_const(to_view(w)), metric, {.rank = rank});
  };
  const auto rows = solve(OutputWeights(margins.rows));
  a = rows.left;
  b = rows.right;
  if (!takes_both_margins(squares)) return;
  const auto both = solve(margins.both());
  if (!(reference_loss(w, f, both.left * both.right) < reference_loss(w, f, a * b))) return;
  a = both.left;
  b = both.right;
}

/// Either method, from a closed form or from the factors that are given.
/// \throws std::invalid_argument if an option is out of range, F has another shape, a NaN, an
///         infinity, a negative or only zeros, or W a NaN or an infinity.
template <StorageScalar S, StorageScalar F>
ElementwiseLowRank<compute_t<S>> reference_elementwise_svd(const char* function,
                                                           TensorView<const S, 2> weight,
                                                           TensorView<const F, 2> importance,
                                                           const ElementwiseOptions& options,
                                                           const ElementwiseStart& given = {}) {
  check_view(function, "w", weight);
  check_view(function, "f", importance);
  validate(function, options, weight.rows(), weight.cols());
  check_extents<2>(function, "f", importance.extent, weight.extent);
  check_weights(function, "f", importance);
  check_finite(function, "w", weight);
  const Eigen::MatrixXd w = reference_matrix(weight);
  const Eigen::MatrixXd f = reference_matrix(importance);
  const double squares =
      reference_loss(w, f / f.maxCoeff(), Eigen::MatrixXd::Zero(w.rows(), w.cols()));
  check_weighted_squares(function, weight, importance, squares);
  Eigen::MatrixXd a = given.left, b = given.right;
  if (given.empty()) reference_start(function, w, f, options.rank, squares, a, b);
  std::vector<double> losses = reference_sweeps(w, f, options, a, b);
  check_loss(function, losses.front());
  const double size =
      std::sqrt(reference_loss(w, f, Eigen::MatrixXd::Zero(w.rows(), w.cols())) / f.sum());
  for (int start = 0; start < options.restarts; ++start) {
    const ElementwiseStart random = random_start(w.rows(), w.cols(), options, start, size);
    Eigen::MatrixXd other_a = random.left, other_b = random.right;
    std::vector<double> other = reference_sweeps(w, f, options, other_a, other_b);
    if (!(other.back() < losses.back())) continue;
    losses = std::move(other);
    a = other_a;
    b = other_b;
  }

  const ReferenceSvd svd = reference_svd(a * b);
  const Index k = options.rank;
  const Eigen::VectorXd s = svd.s.head(k);
  ElementwiseLowRank<compute_t<S>> result;
  result.factors = reference_result<compute_t<S>>(function, svd.u.leftCols(k) * s.asDiagonal(),
                                                  svd.v.leftCols(k).transpose(), s, 0);
  result.factors.total_energy = reference_loss(w, f, Eigen::MatrixXd::Zero(w.rows(), w.cols()));
  result.factors.captured_energy = result.factors.total_energy - losses.back();
  result.factors.measured_error.reset();
  result.factors.error_bound = std::sqrt(losses.back());
  result.factors.steps = static_cast<int>(losses.size()) - 1;
  result.losses = std::move(losses);
  return result;
}

PARE_ABI_END
}  // namespace pare::factor::detail
