// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <Eigen/Core>

#include <cmath>
#include <limits>

#include <pare/core/backend.hpp>
#include <pare/graph/detail/standardize.hpp>

#include "support/backends.hpp"
#include "support/matrices.hpp"

namespace graph_standardize_test {
namespace {

using pare::Index;
using pare::graph::detail::standardize_columns;
using pare::testing::equal_bits;
using pare::testing::Tolerance;
using pare::testing::within;

template <class T>
using Rows = Eigen::Matrix<T, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

template <class T>
struct StandardizeTest : testing::Test {};
using Scalars = testing::Types<float, double>;
TYPED_TEST_SUITE(StandardizeTest, Scalars);

/// Columns of different means and spreads, the last one constant.
template <class T>
Rows<T> columns_of_many_scales(Index rows, Index cols) {
  Rows<T> x = pare::testing::random_matrix<Rows<T>>(rows, cols, 7);
  for (Index c = 0; c < cols; ++c)
    x.col(c) = x.col(c).array() * static_cast<T>(c + 1) + static_cast<T>(10 * (c % 4));
  x.col(cols - 1).setConstant(T(0.1));
  return x;
}

TYPED_TEST(StandardizeTest, IsTheFormulaOfEachColumn) {
  using T = TypeParam;
  for (const auto& [rows, cols] :
       {std::pair<Index, Index>{1, 3}, {2, 3}, {17, 5}, {5000, 3}, {3000, 40}}) {
    const Rows<T> x = columns_of_many_scales<T>(rows, cols);
    Rows<T> y = x;
    standardize_columns(pare::SerialExecutor{}, pare::to_view(y));
    for (Index c = 0; c < cols; ++c) {
      long double mean = 0, squares = 0;
      for (Index u = 0; u < rows; ++u) mean += x(u, c);
      mean /= rows;
      for (Index u = 0; u < rows; ++u) squares += (x(u, c) - mean) * (x(u, c) - mean);
      const auto deviation = static_cast<double>(std::sqrt(squares / rows));
      for (Index u = 0; u < rows; ++u) {
        // Constant columns, and any of one row.
        if (rows == 1 || c + 1 == cols) {
          ASSERT_EQ(y(u, c), T(0)) << u << ' ' << c;
          continue;
        }
        const double wanted = static_cast<double>((x(u, c) - mean)) / deviation;
        // Moments: sums of `rows` terms in double. Then one rounding to T.
        const double moments =
            Tolerance<double>::gamma(3.0 * static_cast<double>(rows) + 10) *
            (static_cast<double>(std::abs(mean)) / deviation + 1 + std::abs(wanted));
        ASSERT_TRUE(within(static_cast<double>(y(u, c)), wanted,
                           moments + Tolerance<T>::gamma(2) * std::abs(wanted)))
            << u << ' ' << c << ": " << y(u, c) << " for " << wanted;
      }
    }
  }
}

// Embeddings of well-mixed graphs: all rows are nearly one row.
TYPED_TEST(StandardizeTest, AMeanFarAboveTheDeviationLeavesNoShift) {
  using T = TypeParam;
  Rows<T> x = pare::testing::random_matrix<Rows<T>>(3000, 4, 7);
  x.array() = x.array() / 256 + T(1.7);
  standardize_columns(pare::SerialExecutor{}, pare::to_view(x));
  for (Index c = 0; c < 4; ++c) {
    EXPECT_LT(std::abs(x.col(c).template cast<double>().mean()), 1e-6);
    EXPECT_NEAR(x.col(c).template cast<double>().array().square().mean(), 1, 1e-6);
  }
}

TYPED_TEST(StandardizeTest, ConstantColumnsBecomeZero) {
  using T = TypeParam;
  for (const Index rows : {1, 3, 10, 49, 1000, 20000}) {
    Rows<T> x(rows, 5);
    const T values[] = {T(0.1), T(-1) / 3, T(1e-30), T(12345.678), T(0)};
    for (Index c = 0; c < 5; ++c) x.col(c).setConstant(values[c]);
    standardize_columns(pare::SerialExecutor{}, pare::to_view(x));
    EXPECT_TRUE((x.array() == T(0)).all()) << rows << " rows: " << x.row(0);
  }
}

// Rounding that differs from row to row must not pass for a result, nor a deviation that T holds
// for rounding.
TYPED_TEST(StandardizeTest, ColumnsConstantUpToRoundingBecomeZero) {
  using T = TypeParam;
  constexpr T ulp = std::numeric_limits<T>::epsilon();
  for (const T mean : {T(1), T(-1), T(1e-20), T(3e20)}) {
    Rows<T> x(40, 3);
    for (Index u = 0; u < 40; ++u) {
      x(u, 0) = mean * (1 + static_cast<T>(u % 3) * ulp);
      x(u, 1) = mean * (1 + static_cast<T>(u % 2) * 16 * ulp);
      x(u, 2) = mean * static_cast<T>(u % 2) * ulp;
    }
    standardize_columns(pare::SerialExecutor{}, pare::to_view(x));
    EXPECT_TRUE((x.col(0).array() == T(0)).all()) << x.col(0).transpose();
    for (Index u = 0; u < 40; ++u)
      for (const Index c : {1, 2})
        EXPECT_TRUE(within(x(u, c), (u % 2 == 0) == (mean > 0) ? -1 : 1, 1e-5)) << x(u, c);
  }
}

TYPED_TEST(StandardizeTest, SameBitsForEveryExecutor) {
  using T = TypeParam;
  // Above 64 blocks of 16 rows at this width, so that blocks are merged in several rounds.
  const Rows<T> x = columns_of_many_scales<T>(1500, 4200);
  Rows<T> wanted = x;
  standardize_columns(pare::SerialExecutor{}, pare::to_view(wanted));
  for (const int workers : {2, 7}) {
    Rows<T> y = x;
    standardize_columns(pare::testing::ReversePool{workers}, pare::to_view(y));
    EXPECT_TRUE(equal_bits(y, wanted));
    y = x;
    standardize_columns(pare::ThreadExecutor{workers}, pare::to_view(y));
    EXPECT_TRUE(equal_bits(y, wanted));
  }
}

TYPED_TEST(StandardizeTest, WritesItsColumnsOnly) {
  using T = TypeParam;
  Rows<T> frame = Rows<T>::Constant(30, 9, T(-77));
  frame.block(2, 3, 20, 4) = pare::testing::random_matrix<Rows<T>>(20, 4, 7);
  auto inside = frame.block(2, 3, 20, 4);
  standardize_columns(pare::SerialExecutor{}, pare::to_view(inside));
  EXPECT_EQ((frame.array() == T(-77)).count(), 30 * 9 - 20 * 4);
}

}  // namespace
}  // namespace graph_standardize_test
