// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <cmath>
#include <cstddef>
#include <limits>
#include <vector>

#include <pare/core/backend.hpp>
#include <pare/kernel/squared_sums.hpp>

#include "kernel/archs.hpp"
#include "kernel/guarded_array.hpp"
#include "support/tolerance.hpp"

namespace kernel_squared_sums_test {
namespace {

using pare::testing::Guard;
using pare::testing::GuardedArray;
using pare::testing::Tolerance;
using pare::testing::within;
namespace kernel = pare::kernel;

template <class Case>
struct SquaredSumsTest : testing::Test {};
TYPED_TEST_SUITE(SquaredSumsTest, pare::testing::ArchsAndStorages);

/// Integers in [-8, 8]: exact in every storage scalar, and so are the sums below.
std::ptrdiff_t value_at(std::ptrdiff_t i, std::ptrdiff_t j) { return (i * 31 + j * 7) % 17 - 8; }

template <class S>
void fill(S* x, std::ptrdiff_t stride, std::ptrdiff_t rows, std::ptrdiff_t columns) {
  for (std::ptrdiff_t i = 0; i < rows; ++i)
    for (std::ptrdiff_t j = 0; j < columns; ++j)
      x[i * stride + j] = static_cast<S>(static_cast<pare::compute_t<S>>(value_at(i, j)));
}

constexpr std::ptrdiff_t row_counts[] = {1, 3, 4, 8, 9, 21};
constexpr std::ptrdiff_t column_counts[] = {1, 3, 8, 16, 33, 64, 200, 1100};

template <class P>
void expect_sums(std::ptrdiff_t rows, std::ptrdiff_t columns, Guard guard, bool weighted) {
  using S = typename P::scalar;
  using T = pare::compute_t<S>;
  const std::ptrdiff_t stride = columns + 5;
  GuardedArray<S> x((rows - 1) * stride + columns, guard);
  GuardedArray<double> row_sums(rows, guard);
  GuardedArray<T> column_sums(columns, guard), weights(rows, guard);
  fill(x.data(), stride, rows, columns);
  for (std::ptrdiff_t i = 0; i < rows; ++i) {
    row_sums[i] = static_cast<double>(i);
    weights[i] = static_cast<T>(i % 5);
  }
  for (std::ptrdiff_t j = 0; j < columns; ++j) column_sums[j] = static_cast<T>(2 * j);
  launch(pare::simd_for<typename P::arch>{},
         kernel::SquaredSums<S>{x.data(), stride, rows, columns, row_sums.data(),
                                column_sums.data(), weighted ? weights.data() : nullptr});
  std::vector<std::ptrdiff_t> wanted_columns(static_cast<std::size_t>(columns));
  for (std::ptrdiff_t i = 0; i < rows; ++i) {
    std::ptrdiff_t wanted = i;
    for (std::ptrdiff_t j = 0; j < columns; ++j) {
      const std::ptrdiff_t square = value_at(i, j) * value_at(i, j);
      wanted += square;
      wanted_columns[static_cast<std::size_t>(j)] += (weighted ? i % 5 : 1) * square;
    }
    ASSERT_EQ(row_sums[i], static_cast<double>(wanted)) << rows << ' ' << columns << ' ' << i;
  }
  for (std::ptrdiff_t j = 0; j < columns; ++j)
    ASSERT_EQ(column_sums[j], static_cast<T>(2 * j + wanted_columns[static_cast<std::size_t>(j)]))
        << rows << ' ' << columns << ' ' << j;
  EXPECT_TRUE(row_sums.surroundings_untouched());
  EXPECT_TRUE(column_sums.surroundings_untouched());
}

TYPED_TEST(SquaredSumsTest, AddsSquaresOfRowsAndColumns) {
  for (const Guard guard : {Guard::before, Guard::after})
    for (const std::ptrdiff_t rows : row_counts)
      for (const std::ptrdiff_t columns : column_counts)
        for (const bool weighted : {false, true})
          expect_sums<TypeParam>(rows, columns, guard, weighted);
}

TYPED_TEST(SquaredSumsTest, EitherSumMayBeLeftOut) {
  using S = typename TypeParam::scalar;
  using T = pare::compute_t<S>;
  std::vector<S> x(9 * 70);
  fill(x.data(), 70, 9, 70);
  std::vector<double> rows(9), rows_alone(9);
  std::vector<T> columns(70), columns_alone(70);
  const auto run = [&](double* r, T* c) {
    launch(pare::simd_for<typename TypeParam::arch>{},
           kernel::SquaredSums<S>{x.data(), 70, 9, 70, r, c, nullptr});
  };
  run(rows.data(), columns.data());
  run(rows_alone.data(), nullptr);
  run(nullptr, columns_alone.data());
  EXPECT_EQ(rows, rows_alone);
  EXPECT_EQ(columns, columns_alone);
}

TYPED_TEST(SquaredSumsTest, RowsAreSummedInDoubleFromSixtyFourALaneOn) {
  using S = typename TypeParam::scalar;
  using T = pare::compute_t<S>;
  constexpr std::ptrdiff_t columns = 100000;
  const std::vector<S> x(columns, static_cast<S>(static_cast<T>(0.37f)));
  const auto value = static_cast<double>(static_cast<T>(x[0]));
  double sum = 0;
  launch(pare::simd_for<typename TypeParam::arch>{},
         kernel::SquaredSums<S>{x.data(), columns, 1, columns, &sum, nullptr, nullptr});
  const double wanted = columns * value * value;
  const double in_double = Tolerance<double>::gamma(columns / 64.0);
  EXPECT_TRUE(within(sum, wanted, (Tolerance<T>::gamma(70) + in_double) * wanted));
}

TYPED_TEST(SquaredSumsTest, ANanStaysInItsRowAndColumn) {
  using S = typename TypeParam::scalar;
  using T = pare::compute_t<S>;
  std::vector<S> x(9 * 70);
  fill(x.data(), 70, 9, 70);
  x[5 * 70 + 66] = static_cast<S>(std::numeric_limits<T>::quiet_NaN());
  std::vector<double> rows(9);
  std::vector<T> columns(70);
  launch(pare::simd_for<typename TypeParam::arch>{},
         kernel::SquaredSums<S>{x.data(), 70, 9, 70, rows.data(), columns.data(), nullptr});
  for (std::size_t i = 0; i < 9; ++i) EXPECT_EQ(std::isnan(rows[i]), i == 5) << i;
  for (std::size_t j = 0; j < 70; ++j) EXPECT_EQ(std::isnan(columns[j]), j == 66) << j;
}

TYPED_TEST(SquaredSumsTest, ElementsAreSquaredInDouble) {
  using S = typename TypeParam::scalar;
  using T = pare::compute_t<S>;
  for (const Guard guard : {Guard::before, Guard::after})
    for (const std::ptrdiff_t columns : column_counts) {
      constexpr std::ptrdiff_t rows = 3;
      const std::ptrdiff_t stride = columns + 3, sums_stride = columns + 2;
      GuardedArray<S> x((rows - 1) * stride + columns, guard);
      GuardedArray<double> sums((rows - 1) * sums_stride + columns, guard);
      for (std::ptrdiff_t i = 0; i < rows; ++i)
        for (std::ptrdiff_t j = 0; j < columns; ++j) {
          x[i * stride + j] = static_cast<S>(static_cast<T>(value_at(i, j)) / T(3));
          sums[i * sums_stride + j] = 1;
        }
      launch(pare::simd_for<typename TypeParam::arch>{},
             kernel::AddSquares<S>{x.data(), stride, rows, columns, sums.data(), sums_stride});
      for (std::ptrdiff_t i = 0; i < rows; ++i)
        for (std::ptrdiff_t j = 0; j < columns; ++j) {
          const auto value = static_cast<double>(static_cast<T>(x[i * stride + j]));
          const double wanted = 1 + value * value;
          ASSERT_TRUE(
              within(sums[i * sums_stride + j], wanted, Tolerance<double>::gamma(2) * wanted))
              << columns << ' ' << i << ' ' << j;
        }
      EXPECT_TRUE(sums.untouched(columns)) << "what lies between rows";
      EXPECT_TRUE(sums.surroundings_untouched());
    }
}

TYPED_TEST(SquaredSumsTest, NothingIsWrittenForNoRows) {
  using S = typename TypeParam::scalar;
  GuardedArray<double> row(1), sums(1);
  GuardedArray<pare::compute_t<S>> column(1);
  const pare::simd_for<typename TypeParam::arch> backend;
  launch(backend, kernel::SquaredSums<S>{nullptr, 1, 0, 1, row.data(), column.data(), nullptr});
  launch(backend, kernel::AddSquares<S>{nullptr, 1, 0, 1, sums.data(), 1});
  EXPECT_TRUE(row.untouched(0) && column.untouched(0) && sums.untouched(0));
}

}  // namespace
}  // namespace kernel_squared_sums_test
