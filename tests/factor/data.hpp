// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Test data of factorizations: matrices of a given spectrum, weights, inputs with their
/// covariance, and the objectives in double as they are defined.

#include <pare/core/tensor_view.hpp>
#include <pare/factor/low_rank.hpp>

#include <Eigen/Core>
#include <Eigen/QR>
#include <Eigen/SVD>

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "projection/data.hpp"
#include "tolerance.hpp"

namespace pare::testing {

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
