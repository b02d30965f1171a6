// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// A full singular value decomposition in double, by Jacobi rotations: the definition of those that
/// are truncated.
///
/// What has no scalar to depend on is a template all the same, so that Eigen's decompositions are
/// compiled only where they are called.

#include <pare/core/tensor_view.hpp>

#include <Eigen/Core>
#include <Eigen/Jacobi>
#include <Eigen/QR>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <utility>
#include <vector>

namespace pare::factor::detail {
PARE_ABI_BEGIN

/// U S V^T, thin, with singular values that do not increase.
struct ReferenceSvd {
  Eigen::MatrixXd u;
  Eigen::VectorXd s;
  Eigen::MatrixXd v;
};

/// Rotates pairs of columns of X until all are orthogonal, and the columns of V with them: X V
/// stays what it was.
///
/// One-sided Jacobi: each pair is turned by the angle that makes it orthogonal, until every
/// |x_i . x_j| <= 8 epsilon |x_i| |x_j| (Demmel and Veselic, Jacobi's method is more accurate than
/// QR, 1992). 60 sweeps are many times what any matrix needs.
template <class = void>
void make_columns_orthogonal(Eigen::MatrixXd& x, Eigen::MatrixXd& v) {
  bool rotated = true;
  for (int sweep = 0; rotated && sweep < 60; ++sweep) {
    rotated = false;
    for (Index i = 0; i < x.cols(); ++i)
      for (Index j = i + 1; j < x.cols(); ++j) {
        const double a = x.col(i).squaredNorm(), b = x.col(j).squaredNorm();
        const double c = x.col(i).dot(x.col(j));
        if (std::abs(c) <= 8 * std::numeric_limits<double>::epsilon() * std::sqrt(a) * std::sqrt(b))
          continue;
        rotated = true;
        Eigen::JacobiRotation<double> turn;
        turn.makeJacobi(a, c, b);
        x.applyOnTheRight(i, j, turn);
        v.applyOnTheRight(i, j, turn);
      }
  }
}

/// X <- Q X for the reflections of a QR decomposition, one after the other: in blocks, as
/// householderQ() applies them, they took 6 s of compilation wherever a factorization is called. A
/// copy of them has the types of the decomposition itself, so that what applies them is compiled
/// once.
template <class = void>
void apply_reflections(const Eigen::ColPivHouseholderQR<Eigen::MatrixXd>& qr, Eigen::MatrixXd& x) {
  const Index rows = x.rows();
  Eigen::MatrixXd reflections = qr.matrixQR();
  Eigen::VectorXd scratch(x.cols());
  for (Index k = qr.hCoeffs().size() - 1; k >= 0; --k)
    x.bottomRightCorner(rows - k, x.cols())
        .applyHouseholderOnTheLeft(reflections.col(k).tail(rows - k - 1), qr.hCoeffs()[k],
                                   scratch.data());
}

/// What is 1 where the row is the column plus `first`, and 0 elsewhere.
template <class = void>
Eigen::MatrixXd unit_columns(Index rows, Index cols, Index first = 0) {
  Eigen::MatrixXd m = Eigen::MatrixXd::Zero(rows, cols);
  for (Index k = 0; k < std::min(rows - first, cols); ++k) m(first + k, k) = 1;
  return m;
}

/// Turns columns of V from `rank` on, which are those of the identity, into what completes the
/// orthonormal ones before them.
template <class = void>
void complete_columns(Eigen::MatrixXd& v, Index rank) {
  const Index n = v.rows();
  if (rank == 0 || rank == n) return;
  Eigen::MatrixXd known(n, rank), rest = unit_columns(n, n - rank, rank);
  std::copy_n(v.data(), known.size(), known.data());
  apply_reflections(Eigen::ColPivHouseholderQR<Eigen::MatrixXd>(std::as_const(known)), rest);
  std::copy_n(rest.data(), rest.size(), v.data() + n * rank);
}

/// The columns in descending order of their lengths, equal ones as they stand.
template <class = void>
std::vector<Index> order_of_lengths(const Eigen::VectorXd& length) {
  std::vector<Index> order;
  for (Index k = 0; k < length.size(); ++k) {
    std::size_t at = order.size();
    order.push_back(k);
    for (; at > 0 && length[order[at - 1]] < length[k]; --at) order[at] = order[at - 1];
    order[at] = k;
  }
  return order;
}

/// C += factor A B by Eigen's kernel itself: the expression compiles six ways to multiply besides.
template <class = void>
void add_product(double factor, const Eigen::MatrixXd& a, const Eigen::MatrixXd& b,
                 Eigen::MatrixXd& c) {
#if EIGEN_VERSION_AT_LEAST(3, 4, 90)
  c.noalias() += factor * a * b;
#else
  using Product =
      Eigen::internal::general_matrix_matrix_product<Index, double, Eigen::ColMajor, false, double,
                                                     Eigen::ColMajor, false, Eigen::ColMajor, 1>;
  Eigen::internal::gemm_blocking_space<Eigen::ColMajor, double, double, Eigen::Dynamic,
                                       Eigen::Dynamic, Eigen::Dynamic>
      blocking(c.rows(), c.cols(), a.cols(), 1, true);
  Product::run(c.rows(), c.cols(), a.cols(), a.data(), a.rows(), b.data(), b.rows(), c.data(), 1,
               c.rows(), factor, blocking, nullptr);
#endif
}

/// V <- 3/2 V - 1/2 V V^T V, a step of Newton and Schulz: takes away what thousands of rotations
/// left of rounding.
template <class = void>
void orthonormalize_again(Eigen::MatrixXd& v) {
  const Index n = v.cols();
  Eigen::MatrixXd gram = Eigen::MatrixXd::Zero(n, n), next(n, n), turned(n, n);
  for (Index i = 0; i < v.size(); ++i) next.data()[i] = 1.5 * v.data()[i];
  for (Index j = 0; j < n; ++j)
    for (Index i = 0; i < n; ++i) turned(i, j) = v(j, i);
  constexpr Index small = 6;  // up to which packing would take longer than the products
  if (n > small) {
    add_product(1.0, turned, v, gram);
    add_product(-0.5, v, gram, next);
  } else {
    for (Index j = 0; j < n; ++j)
      for (Index i = 0; i < n; ++i) gram(i, j) = v.col(i).dot(v.col(j));
    for (Index j = 0; j < n; ++j)
      for (Index i = 0; i < n; ++i) {
        double sum = 0;
        for (Index k = 0; k < n; ++k) sum += v(i, k) * gram(k, j);
        next(i, j) -= 0.5 * sum;
      }
  }
  v.swap(next);
}

/// The decomposition of M [rows x cols] with rows >= cols and elements of about 1: M P = Q R, then
/// R^T V = U S by rotations, which converge the faster for being applied to R^T (Drmac and Veselic,
/// New fast and accurate Jacobi SVD algorithm, 2008). Rows of R that are rounding are 0, and take
/// any orthonormal vectors.
template <class = void>
ReferenceSvd reference_tall_svd(const Eigen::MatrixXd& m) {
  const Index n = m.cols();
  const Eigen::ColPivHouseholderQR<Eigen::MatrixXd> qr(m);
  const Eigen::MatrixXd& r = qr.matrixQR();
  Index rank = 0;
  for (Index k = 0; k < n; ++k)
    if (std::abs(r(k, k)) > std::numeric_limits<double>::epsilon() * std::abs(r(0, 0))) ++rank;
  Eigen::MatrixXd x = Eigen::MatrixXd::Zero(n, rank), v = unit_columns(rank, rank);
  for (Index k = 0; k < rank; ++k)
    for (Index j = k; j < n; ++j) x(j, k) = r(k, j);
  make_columns_orthogonal(x, v);
  orthonormalize_again(v);
  Eigen::VectorXd length(rank);
  for (Index k = 0; k < rank; ++k) length[k] = std::sqrt(x.col(k).squaredNorm());
  const std::vector<Index> order = order_of_lengths(length);
  ReferenceSvd svd{unit_columns(m.rows(), n), Eigen::VectorXd::Zero(n), Eigen::MatrixXd(n, n)};
  Eigen::MatrixXd turned = unit_columns(n, n);
  for (Index k = 0; k < rank; ++k) {
    const Index from = order[static_cast<std::size_t>(k)];
    svd.s[k] = length[from];
    for (Index i = 0; i < rank; ++i) svd.u(i, k) = v(i, from);
    for (Index i = 0; i < n; ++i) turned(i, k) = x(i, from) / length[from];
  }
  apply_reflections(qr, svd.u);
  complete_columns(turned, rank);
  for (Index i = 0; i < n; ++i)
    for (Index k = 0; k < n; ++k) svd.v(qr.colsPermutation().indices()[i], k) = turned(i, k);
  return svd;
}

/// By Jacobi's rotations written out: Eigen 3.4.0's divide and conquer loses vectors of repeated
/// singular values, or reads out of bounds.
template <class = void>
ReferenceSvd reference_svd(const Eigen::MatrixXd& m) {
  double largest = 0;
  for (Index i = 0; i < m.size(); ++i) largest = std::max(largest, std::abs(m.data()[i]));
  const int exponent = largest > 0 ? std::ilogb(largest) : 0;
  const bool tall = m.rows() >= m.cols();
  Eigen::MatrixXd scaled(std::max(m.rows(), m.cols()), std::min(m.rows(), m.cols()));
  for (Index j = 0; j < m.cols(); ++j)
    for (Index i = 0; i < m.rows(); ++i)
      (tall ? scaled(i, j) : scaled(j, i)) = std::ldexp(m(i, j), -exponent);
  ReferenceSvd svd = reference_tall_svd(scaled);
  if (!tall) svd.u.swap(svd.v);
  for (double& value : svd.s) value = std::ldexp(value, exponent);
  return svd;
}

PARE_ABI_END
}  // namespace pare::factor::detail
