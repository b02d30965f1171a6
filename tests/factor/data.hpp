// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Test data of factorizations: matrices of a given spectrum, weights, inputs with their
/// covariance, and the objectives in double as they are defined.

#include <pare/core/matrix.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/factor/low_rank.hpp>

#include <Eigen/Core>
#include <Eigen/QR>
#include <Eigen/SVD>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <type_traits>

#include "support/matrices.hpp"
#include "support/tolerance.hpp"

namespace pare::testing {

using pare::RowMatrix;

/// How far a result of a decomposition [rows x cols] in double may be off, where `size` is the
/// Frobenius norm of what is decomposed. Householder and Jacobi methods are backward stable: the
/// result is exact for a matrix within p(rows, cols) u ||M|| of the given one, p of low degree
/// (Higham, chapter 19), in practice below rows + cols. The products of three or four matrices that
/// lead to a result and away from it add at most rows + cols each.
inline double decomposition_bound(Index rows, Index cols, double size) {
  return 8 * static_cast<double>(rows + cols) * Tolerance<double>::unit_roundoff * size;
}

/// By how much rounding the factors to T moves their product in the Frobenius norm: each entry by
/// u of itself.
template <class T>
double rounding_bound(const factor::LowRank<T>& r) {
  return 2.01 * Tolerance<T>::unit_roundoff * r.left.template cast<double>().norm() *
         r.right.template cast<double>().norm();
}

/// Products of the small matrices of tests would take longer on Eigen's threads than without.
inline void use_one_thread_for_oracles() { Eigen::setNbThreads(1); }

/// m as a user holds it: by rows, each element rounded to S.
template <class S>
pare::RowMatrix<S> stored_in(const Eigen::MatrixXd& m) {
  pare::RowMatrix<S> to(m.rows(), m.cols());
  for (Index i = 0; i < m.rows(); ++i)
    for (Index j = 0; j < m.cols(); ++j)
      to(i, j) = static_cast<S>(static_cast<compute_t<S>>(m(i, j)));
  return to;
}

/// The elements of a matrix of any storage scalar.
template <class M>
Eigen::MatrixXd values_of(const M& m) {
  Eigen::MatrixXd to(m.rows(), m.cols());
  for (Index i = 0; i < m.rows(); ++i)
    for (Index j = 0; j < m.cols(); ++j)
      to(i, j) = static_cast<double>(static_cast<compute_t<typename M::Scalar>>(m(i, j)));
  return to;
}

/// ||Q^T Q - I||_F of a basis in T: what the specification asks for (T0.3).
template <class T>
constexpr double basis_bound = std::is_same_v<T, float> ? 5e-6 : 1e-13;

template <class M>
double orthonormality(const M& columns) {
  const Eigen::MatrixXd q = values_of(columns);
  return (q.transpose() * q - Eigen::MatrixXd::Identity(q.cols(), q.cols())).norm();
}

/// How far a product of factors in T may be from the projection of M onto the space of their basis
/// U, where ||M||_F is `size`: U^T M, sums of `depth` products, is off by gamma(depth) |U|^T |M|
/// and hence by gamma(depth) sqrt(rank) ||M||; U U^T differs from the projector by its lack of
/// orthonormality. Three more roundings are those of scaling a factor and its inverse. All of it
/// lies in the space of U, orthogonal to the error of the projection.
template <class T>
double projection_bound(Index depth, Index rank, double size) {
  return (Tolerance<T>::gamma(static_cast<double>(depth + 3)) *
              std::sqrt(static_cast<double>(rank)) +
          basis_bound<T>)*size;
}

/// By how much the energy that eigenvectors of M M^T capture may fall short of the best, where the
/// matrix is summed in T, by products as deep as `depth`: twice the sum of the errors of `rank`
/// eigenvalues, each at most the error of the matrix.
template <class T>
double captured_bound(Index depth, Index rank, double size) {
  return 2 * std::sqrt(static_cast<double>(rank)) *
         Tolerance<T>::gamma(static_cast<double>(depth + 1)) * size * size;
}

inline Eigen::MatrixXd normal_matrix(Index rows, Index cols, std::uint64_t seed) {
  Engine random(seed);
  Eigen::MatrixXd m(rows, cols);
  for (Index i = 0; i < rows; ++i)
    for (Index j = 0; j < cols; ++j) m(i, j) = normal(random);
  return m;
}

/// [rows x cols] with orthonormal columns, cols <= rows.
inline Eigen::MatrixXd orthonormal(Index rows, Index cols, std::uint64_t seed) {
  const Eigen::HouseholderQR<Eigen::MatrixXd> qr(normal_matrix(rows, cols, seed));
  return qr.householderQ() * Eigen::MatrixXd::Identity(rows, cols);
}

/// [rows x cols] whose singular values are s, of at most min(rows, cols).
inline Eigen::MatrixXd with_spectrum(Index rows, Index cols, const Eigen::VectorXd& s,
                                     std::uint64_t seed) {
  return orthonormal(rows, s.size(), seed) * s.asDiagonal() *
         orthonormal(cols, s.size(), seed + 1).transpose();
}

/// 1, 2^-exponent, 3^-exponent, ...
inline Eigen::VectorXd power_spectrum(Index n, double exponent) {
  return Eigen::ArrayXd::LinSpaced(n, 1, static_cast<double>(n)).pow(-exponent);
}

/// Positive weights over about three orders of magnitude.
inline Eigen::VectorXd positive_weights(Index n, std::uint64_t seed) {
  Engine random(seed);
  Eigen::VectorXd w(n);
  for (double& x : w) x = std::exp(1.5 * normal(random));
  return w;
}

/// Inputs [tokens x dim] that are correlated, with one channel 30 times the others.
inline Eigen::MatrixXd correlated_inputs(Index tokens, Index dim, std::uint64_t seed) {
  const Eigen::MatrixXd mix =
      with_spectrum(dim, dim, power_spectrum(dim, 0.7), seed) + 0.1 * normal_matrix(dim, dim, seed);
  Eigen::MatrixXd x = normal_matrix(tokens, dim, seed + 2) * mix;
  x.col(dim / 2) *= 30;
  return x;
}

template <class T>
Eigen::MatrixXd product(const factor::LowRank<T>& r) {
  return r.left.template cast<double>() * r.right.template cast<double>();
}

/// ||W - left right||_F.
template <class T>
double error_of(const Eigen::MatrixXd& w, const factor::LowRank<T>& r) {
  return (w - product(r)).norm();
}

/// A matrix of a user, known by its products alone.
template <class T>
struct PlainMatrix {
  using scalar = T;
  pare::RowMatrix<T> w;

  Index rows() const { return w.rows(); }
  Index cols() const { return w.cols(); }
  void multiply(TensorView<const T, 2> x, TensorView<T, 2> y) const {
    map(y) = w * Eigen::Map<const pare::RowMatrix<T>>(x.data, x.rows(), x.cols());
  }
  void multiply_transposed(TensorView<const T, 2> x, TensorView<T, 2> y) const {
    map(y) = w.transpose() * Eigen::Map<const pare::RowMatrix<T>>(x.data, x.rows(), x.cols());
  }

 private:
  static auto map(TensorView<T, 2> y) {
    return Eigen::Map<pare::RowMatrix<T>>(y.data, y.rows(), y.cols());
  }
};

/// sum_ij f_ij (W - X)_ij^2.
inline double elementwise_objective(const Eigen::MatrixXd& w, const Eigen::MatrixXd& x,
                                    const Eigen::MatrixXd& f) {
  double sum = 0;
  for (Index i = 0; i < w.rows(); ++i)
    for (Index j = 0; j < w.cols(); ++j) sum += f(i, j) * (w(i, j) - x(i, j)) * (w(i, j) - x(i, j));
  return sum;
}

/// sum_ij output_i (W - X)_ij^2 input_j.
inline double weighted_objective(const Eigen::MatrixXd& w, const Eigen::MatrixXd& x,
                                 const Eigen::VectorXd& output, const Eigen::VectorXd& input) {
  return elementwise_objective(w, x, output * input.transpose());
}

/// ||(W - X) inputs^T||_F^2 for inputs [tokens x in]: what a covariance stands for.
inline double output_objective(const Eigen::MatrixXd& w, const Eigen::MatrixXd& x,
                               const Eigen::MatrixXd& inputs) {
  return (inputs * (w - x).transpose()).squaredNorm();
}

/// Singular values by Jacobi's method, which no route of the library uses.
inline Eigen::VectorXd jacobi_values(const Eigen::MatrixXd& m) {
  return Eigen::JacobiSVD<Eigen::MatrixXd>(m).singularValues();
}

/// The least squared error of rank k: sum of the squares of the singular values behind it.
inline double tail_energy(const Eigen::MatrixXd& m, Index k) {
  const Eigen::VectorXd s = jacobi_values(m);
  return s.tail(std::max<Index>(s.size() - k, 0)).squaredNorm();
}

}  // namespace pare::testing
