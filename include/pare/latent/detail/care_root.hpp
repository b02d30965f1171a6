// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// CARE by a root of the covariance, as the paper has it.

#include <pare/core/check.hpp>
#include <pare/core/matrix.hpp>
#include <pare/factor/low_rank.hpp>
#include <pare/linalg/symmetric_eigen.hpp>

#include <Eigen/Core>

#include <algorithm>
#include <cmath>

namespace pare::latent::detail {
PARE_ABI_BEGIN

/// sqrt(C) and its inverse.
struct CovarianceRoot {
  Eigen::MatrixXd root, inverse;
};

template <class B = Reference>  // compiled where it is called, as the next
CovarianceRoot covariance_root(const char* function, const Eigen::MatrixXd& c) {
  const linalg::SymmetricEigen eigen = linalg::symmetric_eigen(B{}, c);
  const double smallest = eigen.values[0], largest = eigen.values[c.rows() - 1];
  check(smallest > 1e-12 * largest, function, "c", smallest,
        "no eigenvalue below 1e-12 of the largest, which has no inverse: damp it");
  const Eigen::VectorXd s = eigen.values.cwiseSqrt();
  const Eigen::MatrixXd& v = eigen.vectors;
  return {v * s.asDiagonal() * v.transpose(), v * s.cwiseInverse().asDiagonal() * v.transpose()};
}

/// sqrt(C) W^T = P S V^T: P and S^2 from the [d, d] Gram matrix, V from both.
template <class B = Reference>
factor::LowRank<double> care_by_root(const char* function, const RowMatrix<double>& w,
                                     const RowMatrix<double>& c, Index rank, double damping) {
  Eigen::MatrixXd damped = (c + c.transpose()) / 2;
  damped.diagonal().array() += damping * c.diagonal().mean();
  const CovarianceRoot of_c = covariance_root(function, damped);
  const Eigen::MatrixXd outputs = of_c.root * w.transpose();
  const linalg::SymmetricEigen eigen = linalg::symmetric_eigen(B{}, outputs * outputs.transpose());
  const Eigen::MatrixXd p = eigen.leading<double>(rank);
  factor::LowRank<double> factors;
  factors.singular_values = eigen.leading_values(std::min(w.rows(), w.cols())).cwiseSqrt();
  factors.total_energy = outputs.squaredNorm();
  factors.captured_energy = factors.singular_values.head(rank).squaredNorm();
  factors.error_bound = factors.error();
  const Eigen::VectorXd s = factors.singular_values.head(rank);
  factors.right = (of_c.inverse * p * s.asDiagonal()).transpose();
  factors.left = outputs.transpose() * p;
  for (Index k = 0; k < rank; ++k) {
    // A direction without energy has no vector of its own; its product is 0.
    const bool is_clamped = s[k] <= 1e-12 * s[0];
    factors.left.col(k) *= is_clamped ? 0.0 : 1 / s[k];
    factors.clamped_directions += is_clamped ? 1 : 0;
  }
  return factors;
}

PARE_ABI_END
}  // namespace pare::latent::detail
