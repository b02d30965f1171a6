// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Orthonormal rows for one factor without a change of the product.

#include <pare/core/backend.hpp>
#include <pare/core/matrix.hpp>
#include <pare/linalg/multiply.hpp>
#include <pare/linalg/orthonormalize.hpp>

#include <Eigen/Core>
#include <Eigen/QR>

namespace pare::factor::detail {
PARE_ABI_BEGIN

/// y <- m y for a small m.
template <class B>
void multiply_left(const B& backend, const Eigen::MatrixXd& m, RowMatrix<double>& y) {
  RowMatrix<double> out(m.rows(), y.cols());
  linalg::multiply(backend, as_const(to_view(m)), const_view(y), to_view(out));
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
    const Eigen::MatrixXd transposed = inverse.transpose();
    multiply_left(backend, transposed, y);
    Eigen::MatrixXd r = Eigen::MatrixXd::Identity(k, k);
    inverse.triangularView<Eigen::Upper>().solveInPlace(r);
    return r;
  }
  const Eigen::HouseholderQR<Eigen::MatrixXd> qr(y.transpose());
  y = (qr.householderQ() * Eigen::MatrixXd::Identity(y.cols(), k)).transpose();
  return qr.matrixQR().topRows(k).triangularView<Eigen::Upper>();
}

/// Makes the rows of `fixed` orthonormal and leaves other^T fixed as it is.
template <class B>
void balance(const B& backend, RowMatrix<double>& fixed, RowMatrix<double>& other) {
  multiply_left(backend, orthonormal_rows(backend, fixed), other);
}

PARE_ABI_END
}  // namespace pare::factor::detail
