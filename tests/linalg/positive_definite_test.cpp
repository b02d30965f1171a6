// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <Eigen/Cholesky>
#include <Eigen/Core>
#include <Eigen/QR>

#include <cstdint>
#include <limits>

#include <pare/core/backend.hpp>
#include <pare/linalg/positive_definite.hpp>

#include "factor/data.hpp"
#include "support/backends.hpp"
#include "support/tolerance.hpp"

namespace linalg_positive_definite_test {
namespace {

using namespace pare::testing;
using Eigen::MatrixXd;
using Eigen::VectorXd;
using pare::Index;
using pare::RowMatrix;
using pare::linalg::is_positive_definite;

/// A square matrix of these eigenvalues.
RowMatrix<double> with_values(const VectorXd& values, std::uint64_t seed) {
  const Index n = values.size();
  const MatrixXd q = Eigen::HouseholderQR<MatrixXd>(normal_matrix(n, n, seed)).householderQ();
  return q * values.asDiagonal() * q.transpose();
}

const auto backend = pare::simd.threads(2);

TEST(PositiveDefinite, ReadsTheLowerHalf) {
  for (const Index n : {1, 2, 127, 128, 129, 300}) {
    const RowMatrix<double> a = with_values(VectorXd::LinSpaced(n, 1, 3), 1);
    RowMatrix<double> l = a;
    for (Index i = 0; i < n; ++i)
      for (Index j = i + 1; j < n; ++j) l(i, j) = std::numeric_limits<double>::quiet_NaN();
    EXPECT_TRUE(is_positive_definite(backend, l)) << n;
  }
}

TEST(PositiveDefinite, OneSmallNegativeValueIsSeenWhereverItIs) {
  for (const Index n : {1, 40, 129, 300})
    for (const Index at : {Index{0}, n / 2, n - 1})
      for (const double least : {1e-9, -1e-9}) {
        VectorXd values = VectorXd::LinSpaced(n, 1, 3);
        values[at] = least;
        RowMatrix<double> a = with_values(values, static_cast<std::uint64_t>(n));
        RowMatrix<double> b = a;
        EXPECT_EQ(is_positive_definite(backend, a), least > 0) << n << ' ' << at;
        EXPECT_EQ(is_positive_definite(pare::reference, b), least > 0) << n << ' ' << at;
      }
}

/// The last row alone decides, after every block before it.
TEST(PositiveDefinite, TheLastPivotCounts) {
  for (const Index n : {65, 128, 129, 257}) {
    RowMatrix<double> a = with_values(VectorXd::LinSpaced(n, 1, 2), 3);
    const MatrixXd lead = a.topLeftCorner(n - 1, n - 1);
    const VectorXd row = a.row(n - 1).head(n - 1);
    const double least = row.dot(lead.ldlt().solve(row));
    for (const double over : {1e-8, -1e-8}) {
      RowMatrix<double> b = a;
      b(n - 1, n - 1) = least + over;
      EXPECT_EQ(is_positive_definite(backend, b), over > 0) << n;
    }
  }
}

TEST(PositiveDefinite, ZerosAndNanAreNot) {
  RowMatrix<double> zero = RowMatrix<double>::Zero(5, 5);
  EXPECT_FALSE(is_positive_definite(backend, zero));
  for (const Index at : {3, 150}) {
    RowMatrix<double> a = RowMatrix<double>::Identity(200, 200);
    a(at, at) = std::numeric_limits<double>::quiet_NaN();
    EXPECT_FALSE(is_positive_definite(backend, a)) << at;
  }
}

}  // namespace
}  // namespace linalg_positive_definite_test
