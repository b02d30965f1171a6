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
