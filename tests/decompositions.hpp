// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Eigen's decompositions that oracles and the reference path share, compiled once a test program:
/// each would take every file that uses it 20 seconds.

#include <Eigen/Cholesky>
#include <Eigen/Eigenvalues>
#include <Eigen/QR>
#include <Eigen/SVD>

#ifndef PARE_TEST_DECOMPOSITIONS
#define PARE_TEST_DECOMPOSITIONS extern template
#endif

#if EIGEN_VERSION_AT_LEAST(3, 4, 90)
PARE_TEST_DECOMPOSITIONS class Eigen::JacobiSVD<Eigen::MatrixXd,
                                                Eigen::ComputeThinU | Eigen::ComputeThinV>;
#else
PARE_TEST_DECOMPOSITIONS class Eigen::JacobiSVD<Eigen::MatrixXd>;
#endif
PARE_TEST_DECOMPOSITIONS class Eigen::ColPivHouseholderQR<Eigen::MatrixXd>;
PARE_TEST_DECOMPOSITIONS class Eigen::HouseholderQR<Eigen::MatrixXd>;
PARE_TEST_DECOMPOSITIONS class Eigen::SelfAdjointEigenSolver<Eigen::MatrixXd>;
PARE_TEST_DECOMPOSITIONS Eigen::SelfAdjointEigenSolver<Eigen::MatrixXd>&
Eigen::SelfAdjointEigenSolver<Eigen::MatrixXd>::compute(const Eigen::EigenBase<Eigen::MatrixXd>&,
                                                        int);
PARE_TEST_DECOMPOSITIONS Eigen::LLT<Eigen::MatrixXd>& Eigen::LLT<Eigen::MatrixXd>::compute(
    const Eigen::EigenBase<Eigen::MatrixXd>&);

// Products of matrices, and of a matrix and a vector.
#define PARE_TEST_PRODUCT(T, LEFT, RIGHT)                                         \
  PARE_TEST_DECOMPOSITIONS struct Eigen::internal::general_matrix_matrix_product< \
      Eigen::Index, T, Eigen::LEFT, false, T, Eigen::RIGHT, false, Eigen::ColMajor, 1>;
PARE_TEST_PRODUCT(double, ColMajor, ColMajor)
PARE_TEST_PRODUCT(double, ColMajor, RowMajor)
PARE_TEST_PRODUCT(double, RowMajor, ColMajor)
PARE_TEST_PRODUCT(double, RowMajor, RowMajor)
PARE_TEST_PRODUCT(float, ColMajor, ColMajor)
PARE_TEST_PRODUCT(float, ColMajor, RowMajor)
PARE_TEST_PRODUCT(float, RowMajor, ColMajor)
PARE_TEST_PRODUCT(float, RowMajor, RowMajor)
#undef PARE_TEST_PRODUCT
