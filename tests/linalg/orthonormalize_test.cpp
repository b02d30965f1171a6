// SPDX-License-Identifier: Apache-2.0
// Orthonormal columns by Cholesky decomposition, and the random columns that it falls back on.
#include <gtest/gtest.h>

#include <Eigen/Core>
#include <Eigen/QR>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>

#include <pare/linalg/gaussian.hpp>
#include <pare/linalg/orthonormalize.hpp>

#include "factor/data.hpp"
#include "support/backends.hpp"

namespace linalg_orthonormalize_test {
namespace {

using namespace pare::linalg;
using namespace pare::testing;
using Eigen::MatrixXd;
using Eigen::VectorXd;
using pare::Index;
using pare::RowMatrix;

using Kernels = ::testing::Types<
    BackendAndScalar<ScalarBackend, float>, BackendAndScalar<ScalarBackend, double>,
    BackendAndScalar<BestBackend, float>, BackendAndScalar<BestBackend, double>,
    BackendAndScalar<ThreadedBackend, float>, BackendAndScalar<ThreadedBackend, double>>;

/// 1, ..., 1 / condition in equal ratios.
VectorXd falling(Index n, double condition) {
  return Eigen::ArrayXd::LinSpaced(n, 0, -std::log(condition)).exp();
}

/// How much of a lies outside the space of the orthonormal columns of q.
double outside(const MatrixXd& a, const MatrixXd& q) {
  return (a - q * (q.transpose() * a)).norm();
}

template <class Case>
class Orthonormal : public ::testing::Test {
 public:
  static void SetUpTestSuite() { use_one_thread_for_oracles(); }
  using Scalar = typename Case::scalar;
  using Rows = RowMatrix<Scalar>;
  static auto backend() { return Case::backend::make(); }
  static Rows orthonormalized(const MatrixXd& m, std::uint64_t seed = 0) {
    Rows y = stored_in<Scalar>(m), scratch;
    orthonormalize(backend(), y, seed, scratch);
    return y;
  }
};
TYPED_TEST_SUITE(Orthonormal, Kernels);

TYPED_TEST(Orthonormal, SpansTheSameSpace) {
  using T = typename TypeParam::scalar;
  const Index shapes[][2] = {{1, 1}, {7, 1}, {9, 9}, {31, 17}, {200, 64}, {150, 149}, {300, 280}};
  for (const auto& [rows, cols] : shapes) {
    SCOPED_TRACE(testing::Message() << rows << " x " << cols);
    const MatrixXd m = values_of(stored_in<T>(normal_matrix(rows, cols, 1)));
    const auto q = this->orthonormalized(m);
    ASSERT_EQ(q.rows(), rows);
    ASSERT_EQ(q.cols(), cols);
    // Higham, section 19.3, for a triangular solve instead of reflections: rounding is multiplied
    // by the condition number.
    const VectorXd s = jacobi_values(m);
    const double rounding =
        Tolerance<T>::gamma(static_cast<double>(cols + 2)) * std::sqrt(static_cast<double>(cols));
    EXPECT_LE(orthonormality(q), 2 * rounding * s[0] / s[cols - 1]);
    EXPECT_LE(outside(m, values_of(q)), 2 * rounding * m.norm() * s[0] / s[cols - 1]);
  }
}

TYPED_TEST(Orthonormal, HoldsForIllConditionedColumns) {
  using T = typename TypeParam::scalar;
  for (const double condition : {1e1, 1e3, 1e5}) {
    const MatrixXd m = values_of(stored_in<T>(with_spectrum(160, 40, falling(40, condition), 2)));
    const auto q = this->orthonormalized(m);
    const double of_products = Tolerance<T>::unit_roundoff * condition,
                 of_gram = Tolerance<double>::unit_roundoff * condition * condition;
    EXPECT_LE(orthonormality(q), 20 * (of_products + of_gram)) << condition;
  }
}

TYPED_TEST(Orthonormal, LengthsOfColumnsDoNotMatter) {
  using T = typename TypeParam::scalar;
  const MatrixXd m = values_of(stored_in<T>(normal_matrix(120, 30, 3)));
  VectorXd lengths(30);
  for (Index j = 0; j < 30; ++j) lengths[j] = std::exp2((j * 7) % 61 - 30);
  const auto q = this->orthonormalized(m);
  const auto scaled = this->orthonormalized(m * lengths.asDiagonal());
  EXPECT_TRUE(
      within((values_of(q) - values_of(scaled)).norm(), 0, 200 * Tolerance<T>::unit_roundoff));
}

TYPED_TEST(Orthonormal, DependentColumnsAreReplaced) {
  using T = typename TypeParam::scalar;
  for (const Index rank : {0, 1, 5, 19}) {
    MatrixXd m = MatrixXd::Zero(90, 20);
    if (rank > 0) m = integer_matrix<MatrixXd>(90, rank, 4) * integer_matrix<MatrixXd>(rank, 20, 5);
    const auto q = this->orthonormalized(m, 7);
    EXPECT_LE(orthonormality(q), 100 * Tolerance<T>::unit_roundoff) << rank;
    EXPECT_LE(outside(m, values_of(q)), 300 * Tolerance<T>::unit_roundoff * m.norm()) << rank;
    EXPECT_TRUE(equal_bits(q, this->orthonormalized(m, 7)));
    EXPECT_FALSE(equal_bits(q, this->orthonormalized(m, 8))) << "filled by the seed";
  }
  // A column twice, and one of zeros, as many as there are rows.
  MatrixXd m = normal_matrix(20, 20, 6);
  m.col(3) = m.col(17);
  m.col(11).setZero();
  const MatrixXd held = values_of(stored_in<T>(m));
  const auto q = this->orthonormalized(held);
  EXPECT_LE(orthonormality(q), 1e4 * Tolerance<T>::unit_roundoff);
}

TYPED_TEST(Orthonormal, TheSameBitsForEveryNumberOfThreads) {
  using T = typename TypeParam::scalar;
  const MatrixXd dependent = normal_matrix(700, 20, 7) * normal_matrix(20, 290, 8);
  for (const MatrixXd& m : {normal_matrix(700, 290, 9), dependent}) {
    const auto one = this->orthonormalized(m);
    const auto expect_same = [&](const auto& backend) {
      RowMatrix<T> y = stored_in<T>(m);
      orthonormalize(backend, y, 0);
      EXPECT_TRUE(equal_bits(one, y));
    };
    const auto backend = this->backend();
    for (const int threads : {1, 2, 4}) expect_same(backend.threads(threads));
    expect_same(backend.on(ReversePool{3}));
  }
}

TYPED_TEST(Orthonormal, InnerProductsAreSummedInDouble) {
  using T = typename TypeParam::scalar;
  const RowMatrix<T> a = stored_in<T>(normal_matrix(600, 37, 10));
  const RowMatrix<double> gram = inner_products(this->backend(), a, a);
  const MatrixXd wanted = values_of(a).transpose() * values_of(a);
  for (Index i = 0; i < 37; ++i)
    for (Index j = 0; j < 37; ++j) {
      EXPECT_TRUE(within(gram(i, j), wanted(i, j),
                         2 * Tolerance<double>::dot(600, a.col(i).norm() * a.col(j).norm())));
      EXPECT_TRUE(same_bits(gram(i, j), gram(j, i)));
    }
}

TEST(InverseCholeskyFactor, InvertsTheFactorAndTellsDependence) {
  const MatrixXd y =
      normal_matrix(50, 12, 11) * Eigen::ArrayXd::LinSpaced(12, -6, 6)
                                      .unaryExpr([](double x) { return std::pow(10.0, x); })
                                      .matrix()
                                      .asDiagonal();
  const MatrixXd inverse = inverse_cholesky_factor(RowMatrix<double>(y.transpose() * y));
  ASSERT_EQ(inverse.rows(), 12);
  EXPECT_LE(orthonormality(MatrixXd(y * inverse)), 1e-13);
  for (Index i = 0; i < 12; ++i)
    for (Index j = 0; j < i; ++j) EXPECT_EQ(inverse(i, j), 0) << "upper triangular";
  RowMatrix<double> dependent = RowMatrix<double>::Ones(3, 3);
  EXPECT_EQ(inverse_cholesky_factor(dependent).size(), 0);
  dependent.setIdentity();
  dependent(1, 1) = 0;
  EXPECT_EQ(inverse_cholesky_factor(dependent).size(), 0);
  dependent(1, 1) = std::numeric_limits<double>::quiet_NaN();
  EXPECT_EQ(inverse_cholesky_factor(dependent).size(), 0);
}

TYPED_TEST(Orthonormal, RandomNumbersAreNormalAndKeyedByPlaceAndSeed) {
  using T = typename TypeParam::scalar;
  const auto filled = [](Index rows, Index cols, std::uint64_t seed, Index first) {
    RowMatrix<T> m = RowMatrix<T>::Constant(rows, cols, T(7));
    fill_normal(TestFixture::backend().executor, seed, first, m);
    return m;
  };
  const RowMatrix<T> m = filled(400, 51, 3, 0);
  const double n = 400 * 51;
  const Eigen::ArrayXd x = values_of(m).reshaped().array();
  // Moments within five standard deviations of theirs: of a normal number's powers 1, 2, 4.
  EXPECT_TRUE(within(x.mean(), 0, 5 / std::sqrt(n)));
  EXPECT_TRUE(within(x.square().mean(), 1, 5 * std::sqrt(2 / n)));
  EXPECT_TRUE(within(x.square().square().mean(), 3, 5 * std::sqrt(96 / n)));
  const MatrixXd correlation = values_of(m).transpose() * values_of(m) / 400;
  EXPECT_LE((correlation - MatrixXd::Identity(51, 51)).cwiseAbs().maxCoeff(),
            7 * std::sqrt(2.0 / 400));
  EXPECT_TRUE(
      equal_bits(RowMatrix<T>(filled(300, 20, 3, 0)), RowMatrix<T>(m.topLeftCorner(300, 20))))
      << "an element does not depend on the size";
  EXPECT_FALSE(equal_bits(filled(400, 51, 4, 0), m));
  const RowMatrix<T> part = filled(400, 51, 3, 17);
  EXPECT_TRUE((part.leftCols(17).array() == T(7)).all()) << "what is kept";
  EXPECT_TRUE(equal_bits(RowMatrix<T>(part.rightCols(34)), RowMatrix<T>(m.rightCols(34))));
}

}  // namespace
}  // namespace linalg_orthonormalize_test
