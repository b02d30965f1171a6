// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <Eigen/Core>
#include <Eigen/SparseCore>

#include <cmath>
#include <limits>

#include <pare/linalg/spmm.hpp>

#include "support/backends.hpp"
#include "support/matrices.hpp"
#include "support/properties.hpp"

namespace linalg_spmm_test {
namespace {

using pare::Index;
using pare::linalg::spmm;
using pare::testing::equal_bits;
using pare::testing::integer_matrix;
using pare::testing::ragged_sparse;
using pare::testing::random_matrix;
using pare::testing::Tolerance;
using pare::testing::within;

template <class T>
using Rows = Eigen::Matrix<T, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

template <class Case>
struct SpmmTest : testing::Test {
  static auto backend() { return Case::backend::make(); }
};
TYPED_TEST_SUITE(SpmmTest, pare::testing::BackendsAndScalars);

double small_integer(pare::testing::Engine& random) {
  return static_cast<double>(random() % 9) - 4;
}

template <class T, class I, class Backend>
void expect_exact(const Backend& backend, Index columns, Index gap, Index extra) {
  const auto a = ragged_sparse<T, I>(150, 40, 3, gap, small_integer, 25);
  const Rows<T> b = integer_matrix<Rows<T>>(40, columns + extra, 4);
  Rows<T> c = Rows<T>::Constant(150, columns + extra, T(-77));
  spmm(backend, a.map(), b.leftCols(columns), c.leftCols(columns));
  const Eigen::MatrixXd wanted = a.dense() * b.leftCols(columns).template cast<double>();
  ASSERT_EQ(Eigen::MatrixXd(c.leftCols(columns).template cast<double>()), wanted)
      << columns << " columns";
  ASSERT_TRUE((c.rightCols(extra).array() == T(-77)).all()) << columns << " columns";
}

TYPED_TEST(SpmmTest, IntegersAreExactForEveryNumberOfColumns) {
  using T = typename TypeParam::scalar;
  for (Index columns = 1; columns <= 300; columns = columns < 70 ? columns + 3 : columns + 29)
    expect_exact<T, std::int32_t>(this->backend(), columns, 0, columns % 4);
  expect_exact<T, std::int32_t>(this->backend(), 300, 2, 5);
  expect_exact<T, std::int64_t>(this->backend(), 65, 0, 0);
  expect_exact<T, std::int64_t>(this->backend(), 17, 2, 3);
}

TYPED_TEST(SpmmTest, RealNumbersStayWithinTheRoundingBound) {
  using T = typename TypeParam::scalar;
  const auto a = ragged_sparse<T>(90, 40, 3, 1, pare::testing::uniform, 30);
  const Rows<T> b = random_matrix<Rows<T>>(40, 37, 4);
  Rows<T> c(90, 37);
  spmm(this->backend(), a.map(), b, c);
  for (std::size_t u = 0; u < 90; ++u)
    for (Index k = 0; k < 37; ++k) {
      long double sum = 0, magnitude = 0;
      const auto begin = static_cast<std::size_t>(a.outer[u]);
      for (std::size_t e = begin; e < begin + static_cast<std::size_t>(a.lengths[u]); ++e) {
        const long double term = static_cast<long double>(a.values[e]) * b(a.inner[e], k);
        sum += term;
        magnitude += std::abs(term);
      }
      ASSERT_TRUE(within(
          static_cast<double>(c(static_cast<Index>(u), k)), static_cast<double>(sum),
          Tolerance<T>::dot(static_cast<double>(a.lengths[u]), static_cast<double>(magnitude))));
    }
}

TYPED_TEST(SpmmTest, EigenMatricesCompressedAndNot) {
  using T = typename TypeParam::scalar;
  const auto raw = ragged_sparse<T>(50, 40, 3, 0, small_integer);
  auto a = pare::testing::sparse_of<Eigen::SparseMatrix<T, Eigen::RowMajor>>(raw.dense());
  const Rows<T> b = integer_matrix<Rows<T>>(40, 19, 4);
  const Rows<T> wanted = a * b;
  Rows<T> c(50, 19);
  spmm(this->backend(), a, b, c);
  EXPECT_EQ(c, wanted);
  a.uncompress();
  a.reserve(Eigen::VectorXi::Constant(50, 3));
  c.setZero();
  spmm(this->backend(), a, b, c);
  EXPECT_EQ(c, wanted);
}

TYPED_TEST(SpmmTest, VectorsAndEmptyShapes) {
  using T = typename TypeParam::scalar;
  const auto raw = ragged_sparse<T>(50, 40, 3, 0, small_integer);
  const Eigen::Matrix<T, Eigen::Dynamic, 1> b = integer_matrix<Eigen::MatrixXd>(40, 1, 4).cast<T>();
  Eigen::Matrix<T, Eigen::Dynamic, 1> c(50);
  spmm(this->backend(), raw.map(), b, c);
  EXPECT_EQ(c.template cast<double>(), raw.dense() * b.template cast<double>());
  Rows<T> no_rows(0, 5), no_columns(50, 0), zeros = Rows<T>::Constant(4, 5, T(1));
  spmm(this->backend(), Eigen::SparseMatrix<T, Eigen::RowMajor>(0, 40), Rows<T>(40, 5), no_rows);
  spmm(this->backend(), raw.map(), Rows<T>(40, 0), no_columns);
  spmm(this->backend(), Eigen::SparseMatrix<T, Eigen::RowMajor>(4, 0), Rows<T>(0, 5), zeros);
  EXPECT_TRUE((zeros.array() == T(0)).all());
}

TYPED_TEST(SpmmTest, NanReachesTheRowsThatReadIt) {
  using T = typename TypeParam::scalar;
  const auto raw = ragged_sparse<T>(50, 40, 3, 0, [](pare::testing::Engine&) { return 1.0; });
  Rows<T> b = integer_matrix<Rows<T>>(40, 19, 4), wanted(50, 19), c(50, 19);
  spmm(this->backend(), raw.map(), b, wanted);
  b(7, 3) = std::numeric_limits<T>::quiet_NaN();
  spmm(this->backend(), raw.map(), b, c);
  for (Index u = 0; u < 50; ++u)
    for (Index k = 0; k < 19; ++k) {
      if (raw.dense()(u, 7) != 0 && k == 3)
        ASSERT_TRUE(std::isnan(c(u, k)));
      else
        ASSERT_EQ(c(u, k), wanted(u, k));
    }
}

TEST(Spmm, SameBitsForEveryExecutor) {
  const auto a = ragged_sparse<float>(700, 40, 3, 0, pare::testing::uniform, 30);
  const Rows<float> b = random_matrix<Rows<float>>(40, 77, 4);
  pare::testing::same_bits_for_any_threads(pare::simd, [&](const auto& backend) {
    Rows<float> c(700, 77);
    spmm(backend, a.map(), b, c);
    return c;
  });
}

}  // namespace
}  // namespace linalg_spmm_test
