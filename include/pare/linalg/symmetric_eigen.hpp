// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// All eigenvalues and eigenvectors of a symmetric matrix, A = V diag(lambda) V^T.
///
/// ```cpp
/// const auto eigen = symmetric_eigen(a);            // Eigen::MatrixXd, its lower half is read
/// eigen.values[eigen.values.size() - 1];            // the largest
/// const auto basis = eigen.leading<float>(rank);    // [n x rank], the largest first
/// ```
///
/// The matrix is reduced to a tridiagonal one by Householder reflections, then diagonalised by
/// implicit QR steps (Golub and Van Loan, Matrix Computations, 8.3). The result has the bits of
/// Eigen::SelfAdjointEigenSolver, at a third of its compile time: with Eigen 3.4 only the functions
/// that run are compiled, not the blocked reflections that the class compiles too. In Eigen 5 those
/// functions changed, and the class is called.

#include <pare/core/macros_off.hpp>

#include <pare/core/matrix.hpp>

#include <Eigen/Core>
#include <Eigen/Eigenvalues>

#include <algorithm>
#include <cmath>
#include <utility>

namespace pare::linalg {

PARE_ABI_BEGIN

/// Eigenvalues that do not decrease, and their vectors.
struct SymmetricEigen {
  Eigen::VectorXd values;   ///< [n]
  Eigen::MatrixXd vectors;  ///< [n x n], column i belongs to value i

  /// The vectors of the `rank` largest values, the largest first; `rank` is at most n.
  template <class T>
  RowMatrix<T> leading(Index rank) const {
    RowMatrix<T> basis(vectors.rows(), rank);
    for (Index i = 0; i < basis.rows(); ++i)
      for (Index k = 0; k < rank; ++k)
        basis(i, k) = static_cast<T>(vectors(i, vectors.cols() - 1 - k));
    return basis;
  }

  /// The `rank` largest values, the largest first, none below 0.
  Eigen::VectorXd leading_values(Index rank) const {
    Eigen::VectorXd leading(rank);
    for (Index k = 0; k < rank; ++k) leading[k] = std::max(values[values.size() - 1 - k], 0.0);
    return leading;
  }
};

PARE_ABI_END

namespace detail {
PARE_ABI_BEGIN

#if EIGEN_VERSION_AT_LEAST(3, 4, 90)
/// The eigenvalues of the matrix `v`, whose eigenvectors take its place.
template <class = void>
void diagonalize(Eigen::VectorXd& values, Eigen::MatrixXd& v) {
  const Eigen::SelfAdjointEigenSolver<Eigen::MatrixXd> eigen(v);
  values = eigen.eigenvalues();
  v = eigen.eigenvectors();
}
#else
/// Turns the reflections that reduced a matrix to a tridiagonal one into their product.
template <class = void>
void accumulate_reflections(Eigen::MatrixXd& v, const Eigen::VectorXd& coefficients) {
  const Index n = v.rows();
  Eigen::VectorXd scratch(n);
  for (Index j = 0; j < n; ++j) {
    v(j, j) = 1;
    for (Index i = 0; i < j; ++i) v(i, j) = 0;
  }
  for (Index k = n - 2; k >= 0; --k) {
    const Index size = n - 1 - k;
    v.bottomRightCorner(size, size)
        .applyHouseholderOnTheLeft(v.col(k).tail(size - 1), coefficients[k], scratch.data());
    for (Index i = k + 1; i < n; ++i) v(i, k) = 0;
  }
}

/// The eigenvalues of the matrix `v`, of at least two rows, whose eigenvectors take its place.
template <class = void>
void diagonalize(Eigen::VectorXd& values, Eigen::MatrixXd& v) {
  const Index n = v.rows();
  double largest = 0;
  for (Index j = 0; j < n; ++j)
    for (Index i = j; i < n; ++i) largest = std::max(largest, std::abs(v(i, j)));
  const double scale = largest == 0 ? 1.0 : largest;
  for (Index j = 0; j < n; ++j)
    for (Index i = j; i < n; ++i) v(i, j) /= scale;
  Eigen::VectorXd coefficients(n - 1), below(n - 1);
  Eigen::internal::tridiagonalization_inplace(v, coefficients);
  for (Index i = 0; i < n; ++i) values[i] = v(i, i);
  for (Index i = 0; i + 1 < n; ++i) below[i] = v(i + 1, i);
  accumulate_reflections(v, coefficients);
  constexpr Index steps_per_value = 30;
  Eigen::internal::computeFromTridiagonal_impl(values, below, steps_per_value, true, v);
  for (double& value : values) value *= scale;
}
#endif

PARE_ABI_END
}  // namespace detail
PARE_ABI_BEGIN

/// The decomposition of a symmetric matrix of finite numbers.
///
/// \param a [n x n], n at least 1; what lies above the diagonal is not read
/// \return n values and vectors; the error of a value is a few roundings of the largest
///
/// Cost: about 9 n^3 FLOPs on the calling thread. Memory: the result.
template <class = void>
SymmetricEigen symmetric_eigen(Eigen::MatrixXd a) {
  SymmetricEigen result{Eigen::VectorXd(a.rows()), std::move(a)};
  if (result.values.size() > 1) {
    detail::diagonalize(result.values, result.vectors);
  } else {
    result.values[0] = result.vectors(0, 0);
    result.vectors(0, 0) = 1;
  }
  return result;
}

PARE_ABI_END
}  // namespace pare::linalg

#include <pare/core/macros_on.hpp>
