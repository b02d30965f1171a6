// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// C^-1 of the second moment C = E[x x^T] of a layer's inputs, as closed-form edits of its weight
/// multiply by it: C^-1 x, and the inner product <x, y> = x^T C^-1 y.
///
/// ```cpp
/// const InverseMoment inverse(covariance);          // a Covariance, or a matrix [in x in]
/// const auto w = inverse.whitened(key);             // <x, y> = w_x . w_y
/// const auto u = inverse.unwhitened(w);             // C^-1 key
/// inverse.clamped_directions();                     // 0 unless C is singular
/// ```
///
/// C is decomposed once, C = L L^T by Cholesky, and whitened(x) is L^-1 x. Where C is singular as
/// far as its numbers tell (an eigenvalue of about s of the largest or less, by iteration with L),
/// C = V diag(lambda) V^T is taken instead, with eigenvalues below s of the largest raised to that:
/// s = n 2^-53, and sqrt(n) 2^-24 of a matrix of float, or of a Covariance that has float sums, as
/// of float tokens by default. Their rounding stood at 2^-26 to 2^-23.5 of the largest eigenvalue
/// on embeddings of MiniLM (384 inputs). A matrix of double is taken for one whose sums are: give
/// the Covariance itself, not its matrix(), or add to the diagonal, `covariance.damped(1e-3)`.
/// Directions that inputs never had then are the cheapest to use, not forbidden;
/// `clamped_directions` says how many they are. Everything is computed in double.

#include <pare/core/macros_off.hpp>

#include <pare/core/backend.hpp>
#include <pare/core/check.hpp>
#include <pare/core/executor_ref.hpp>
#include <pare/core/matrix.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/factor/covariance.hpp>
#include <pare/factor/detail/metric_checks.hpp>
#include <pare/factor/detail/moment_rounding.hpp>
#include <pare/factor/metric.hpp>
#include <pare/factor/structured/detail/moment_rank.hpp>
#include <pare/linalg/cholesky.hpp>
#include <pare/linalg/symmetric_eigen.hpp>

#include <Eigen/Core>

#include <algorithm>
#include <cmath>
#include <concepts>

namespace pare::factor {
namespace detail {
PARE_ABI_BEGIN

/// The lower triangular L of C = L L^T, or else R = diag(lambda)^-1/2 V^T of C^-1 = R^T R.
struct MomentRoot {
  RowMatrix<double> matrix;
  bool is_triangular = true;
  Index clamped = 0;
};

/// \param share of the largest eigenvalue: what lies below is rounding
template <class B>
MomentRoot moment_root(const char* function, const B& backend, const Eigen::MatrixXd& c,
                       double share) {
  // Twice an estimate that may be 8 times too large: the eigenvalues themselves decide there.
  constexpr double margin = 16;
  MomentRoot result{c};
  if (linalg::cholesky(backend, result.matrix) && !is_singular(result.matrix, margin * share))
    return result;
  const linalg::SymmetricEigen eigen = linalg::symmetric_eigen(backend, c);
  const double largest = eigen.values[c.rows() - 1];
  check_semi_definite(function, "moment", eigen.values[0], largest);
  for (Index k = 0; k < c.rows(); ++k) {
    if (eigen.values[k] < share * largest) ++result.clamped;
    result.matrix.row(k) =
        eigen.vectors.col(k).transpose() / std::sqrt(std::max(eigen.values[k], share * largest));
  }
  result.is_triangular = false;
  return result;
}

/// w of C^-1 = L^-T L^-1: w = L^-1 x, or R x.
inline Eigen::VectorXd whiten(const MomentRoot& root, Eigen::VectorXd x) {
  const RowMatrix<double>& m = root.matrix;
  const Index n = m.rows();
  if (root.is_triangular) {
    solve_lower(m, x);
    return x;
  }
  Eigen::VectorXd w(n);
  for (Index k = 0; k < n; ++k) w[k] = m.row(k).transpose().dot(x);
  return w;
}

/// L^-T w, or R^T w.
inline Eigen::VectorXd unwhiten(const MomentRoot& root, Eigen::VectorXd w) {
  const RowMatrix<double>& m = root.matrix;
  const Index n = m.rows();
  if (root.is_triangular) {
    solve_lower_transposed(m, w);
    return w;
  }
  Eigen::VectorXd x = Eigen::VectorXd::Zero(n);
  for (Index k = 0; k < n; ++k) x += w[k] * m.row(k).transpose();
  return x;
}

PARE_ABI_END
}  // namespace detail
PARE_ABI_BEGIN

/// The inverse of a second moment, decomposed once for any number of edits, and for all layers that
/// are given the same inputs.
class InverseMoment {
 public:
  /// \param backend left out: pare::simd
  /// \param moment  [in x in] of float or double, symmetric, positive semi-definite, not all 0
  /// \throws std::invalid_argument if it is empty, not square, not finite, not symmetric to 1e-5 of
  ///         the geometric mean of the two diagonal elements, or has an eigenvalue below -1e-6 of
  ///         the largest
  ///
  /// Cost: in^3 / 3 FLOPs in double, nearly all in products, and 3 passes over L on the calling
  /// thread, or 19 where that leaves a doubt, a quarter of the time of the products; of a singular
  /// C a symmetric decomposition too, about 5 in^3. Memory: one matrix in double, and three or more
  /// while C is decomposed.
  template <Backend B, In<2> C>
  requires ComputeScalar<scalar_of<C>>
  PARE_ALWAYS_INLINE InverseMoment(const B& backend, const C& moment)
      : root_(decomposed(backend, as_const(to_view(moment)), false, false)) {}
  /// \overload
  template <In<2> C>
  requires ComputeScalar<scalar_of<C>>
  PARE_ALWAYS_INLINE explicit InverseMoment(const C& moment) : InverseMoment(simd, moment) {}

  /// Of the inputs that were added.
  /// \throws std::invalid_argument if there were none, or their products are not finite or all 0
  template <Backend B>
  PARE_ALWAYS_INLINE InverseMoment(const B& backend, const Covariance& covariance)
      : root_(decomposed(backend, const_view(covariance.matrix(backend)), true,
                         covariance.has_float_sums())) {}
  /// \overload
  template <std::derived_from<Covariance> C>  // compiled where it is called
  PARE_ALWAYS_INLINE explicit InverseMoment(const C& covariance)
      : InverseMoment(simd, covariance) {}

  Index dim() const { return root_.matrix.rows(); }

  /// Eigenvalues of C that were raised, since their directions had no energy.
  Index clamped_directions() const { return root_.clamped; }

  /// w = L^-1 x, so that x^T C^-1 y = w_x . w_y.
  /// \param x [in]
  /// \throws std::invalid_argument if x has another length
  ///
  /// Cost: in^2 FLOPs in double on the calling thread, twice that of a singular C.
  PARE_ALWAYS_INLINE Eigen::VectorXd whitened(const Eigen::VectorXd& x) const {
    check(x.size() == dim(), "factor::InverseMoment::whitened", "x", x.size(), dim());
    return detail::whiten(root_, x);
  }

  /// L^-T w: of w = whitened(x) it is C^-1 x.
  /// \param w [in]
  /// \throws std::invalid_argument if w has another length
  ///
  /// Cost: that of whitened.
  PARE_ALWAYS_INLINE Eigen::VectorXd unwhitened(const Eigen::VectorXd& w) const {
    check(w.size() == dim(), "factor::InverseMoment::unwhitened", "w", w.size(), dim());
    return detail::unwhiten(root_, w);
  }

 private:
  template <class B, class T>
  static detail::MomentRoot decomposed(const B& backend, TensorView<const T, 2> moment,
                                       bool is_moment, bool has_float_sums) {
    constexpr const char* function = "factor::InverseMoment";
    check_view(function, "moment", moment);
    check(moment.rows() >= 1, function, "moment", moment.extent, "at least one row");
    detail::check_covariance(function, "moment", CovarianceView<T>{moment, 0, is_moment},
                             moment.rows());
    Eigen::MatrixXd c(moment.rows(), moment.cols());
    for (Index j = 0; j < c.cols(); ++j)
      for (Index i = 0; i < c.rows(); ++i) c(i, j) = static_cast<double>(moment(i, j));
    return detail::moment_root(function, backend, c,
                               detail::moment_rounding<T>(c.rows(), has_float_sums));
  }

  detail::MomentRoot root_;
};

PARE_ABI_END
}  // namespace pare::factor

#include <pare/core/macros_on.hpp>
