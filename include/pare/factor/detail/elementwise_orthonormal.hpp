// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Orthonormal rows for one factor without a change of the product.

#include <pare/core/backend.hpp>
#include <pare/core/matrix.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/factor/detail/reference_matrix.hpp>
#include <pare/factor/detail/reference_svd.hpp>
#include <pare/linalg/multiply.hpp>
#include <pare/linalg/orthonormalize.hpp>

#include <Eigen/Core>
#include <Eigen/QR>

namespace pare::factor::detail {
PARE_ABI_BEGIN

/// y <- m y for a small m.
template <class B>
void multiply_left(const B& backend, TensorView<const double, 2> m, RowMatrix<double>& y) {
  RowMatrix<double> out(m.rows(), y.cols());
  linalg::multiply(backend, m, const_view(y), to_view(out));
  y.swap(out);
}

/// Y = R^T Q with orthonormal rows of Q, which takes the place of Y, and an upper triangular R.
///
/// By the Gram matrix, whose products bind; rows that depend on others up to 1e-6 are left to
/// Householder's method, which finds orthonormal rows for every Y.
template <class B>
Eigen::MatrixXd orthonormal_rows(const B& backend, RowMatrix<double>& y) {
  const Index k = y.rows();
  RowMatrix<double> gram(k, k);
  linalg::multiply(backend, const_view(y), transpose(const_view(y)), to_view(gram),
                   {.half = linalg::Half::Lower});
  linalg::mirror_lower(backend, to_view(gram));
  const Eigen::MatrixXd inverse = linalg::inverse_cholesky_factor(gram);
  if (inverse.rows() == k) {
    multiply_left(backend, transpose(as_const(to_view(inverse))), y);
    Eigen::MatrixXd r = unit_columns(k, k);
    inverse.triangularView<Eigen::Upper>().solveInPlace(r);
    return r;
  }
  const Eigen::HouseholderQR<Eigen::MatrixXd> qr(reference_matrix(transpose(const_view(y))));
  Eigen::MatrixXd q = unit_columns(y.cols(), k);
  qr.householderQ().applyThisOnTheLeft(q, q.rows() == q.cols());
  y = row_matrix<double>(transpose(as_const(to_view(q))));
  Eigen::MatrixXd r = Eigen::MatrixXd::Zero(k, k);
  for (Index j = 0; j < k; ++j)
    for (Index i = 0; i <= j; ++i) r(i, j) = qr.matrixQR()(i, j);
  return r;
}

/// Makes the rows of `fixed` orthonormal and leaves other^T fixed as it is.
template <class B>
void balance(const B& backend, RowMatrix<double>& fixed, RowMatrix<double>& other) {
  const Eigen::MatrixXd turn = orthonormal_rows(backend, fixed);
  multiply_left(backend, as_const(to_view(turn)), other);
}

PARE_ABI_END
}  // namespace pare::factor::detail
