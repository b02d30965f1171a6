// SPDX-License-Identifier: Apache-2.0
// Products and sums of rows that lie anywhere, against plain loops in double.
#include <gtest/gtest.h>

#include <cmath>
#include <cstddef>
#include <limits>
#include <vector>

#include <pare/core/backend.hpp>
#include <pare/kernel/dot_gathered.hpp>
#include <pare/kernel/sum_gathered.hpp>

#include "kernel/archs.hpp"
#include "kernel/guarded_array.hpp"
#include "support/tolerance.hpp"

namespace kernel_gathered_rows_test {
namespace {

using pare::testing::Guard;
using pare::testing::GuardedArray;
using pare::testing::same_bits;
using pare::testing::Tolerance;
using pare::testing::within;
namespace kernel = pare::kernel;

template <class Case>
struct GatheredRowsTest : testing::Test {};
TYPED_TEST_SUITE(GatheredRowsTest, pare::testing::ArchsAndStorages);

// Fewer rows than are fetched ahead, as many and more; whole registers, four and eight of them, and
// what is left.
constexpr std::ptrdiff_t row_counts[] = {0, 1, 3, 4, 5, 11};
constexpr std::ptrdiff_t column_counts[] = {1, 2, 7, 16, 33, 64, 71, 130, 200};

/// Numbers in [-1, 1] that no scalar holds exactly.
double value_at(std::ptrdiff_t i, std::ptrdiff_t j) {
  return static_cast<double>((i * 31 + j * 17) % 101 - 50) / 50;
}

/// Of a sum of `terms` products, and of the oracle's, which is rounded in double.
template <class T>
double rounding_bound(std::ptrdiff_t terms, double magnitude) {
  const auto n = static_cast<double>(terms);
  return Tolerance<T>::dot(n, magnitude) + Tolerance<double>::dot(n, magnitude);
}

/// A table of `slots` rows, the last of which ends at a page, and rows of it that repeat.
template <class S>
struct Table {
  using T = pare::compute_t<S>;
  static constexpr std::ptrdiff_t slots = 7, gap = 3;

  Table(std::ptrdiff_t rows, std::ptrdiff_t width, Guard guard)
      : count(rows),
        columns(width),
        stride(width + gap),
        table((slots - 1) * stride + width, guard),
        ids(rows, guard),
        weights(rows, guard),
        x(width, guard) {
    for (std::ptrdiff_t i = 0; i < table.size(); ++i)
      table[i] = static_cast<S>(static_cast<T>(value_at(i / stride, i % stride)));
    for (std::ptrdiff_t i = 0; i < rows; ++i) {
      ids[i] = (i * i + 6) % slots;
      weights[i] = static_cast<T>(value_at(i, 5));
    }
    for (std::ptrdiff_t j = 0; j < width; ++j) x[j] = static_cast<T>(value_at(3, j + 1));
  }
  double at(std::ptrdiff_t i, std::ptrdiff_t j) const {
    return static_cast<double>(static_cast<T>(table[ids[i] * stride + j]));
  }

  std::ptrdiff_t count, columns, stride;
  GuardedArray<S> table;
  GuardedArray<std::ptrdiff_t> ids;
  GuardedArray<T> weights, x;
};

template <class Arch, class S>
void dots(const Table<S>& t, pare::compute_t<S>* out) {
  launch(pare::simd_for<Arch>{}, kernel::DotGathered<S>{t.table.data(), t.stride, t.ids.data(),
                                                        t.count, t.x.data(), t.columns, out});
}

template <class Arch, class S>
void sums(const Table<S>& t, pare::compute_t<S>* out, bool accumulate) {
  launch(pare::simd_for<Arch>{},
         kernel::SumGathered<S>{t.table.data(), t.stride, t.ids.data(), t.weights.data(), t.count,
                                out, t.columns, accumulate});
}

template <class Case>
void expect_dots(std::ptrdiff_t rows, std::ptrdiff_t columns, Guard guard) {
  using S = typename Case::scalar;
  using T = pare::compute_t<S>;
  const Table<S> t(rows, columns, guard);
  GuardedArray<T> out(rows, guard);
  dots<typename Case::arch>(t, out.data());
  for (std::ptrdiff_t i = 0; i < rows; ++i) {
    double wanted = 0, magnitude = 0;
    for (std::ptrdiff_t j = 0; j < columns; ++j) {
      const double term = t.at(i, j) * static_cast<double>(t.x[j]);
      wanted += term;
      magnitude += std::abs(term);
    }
    ASSERT_TRUE(within(static_cast<double>(out[i]), wanted, rounding_bound<T>(columns, magnitude)))
        << rows << ' ' << columns << ' ' << i;
  }
  EXPECT_TRUE(out.surroundings_untouched());
}

template <class Case>
void expect_sums(std::ptrdiff_t rows, std::ptrdiff_t columns, Guard guard, bool accumulate) {
  using S = typename Case::scalar;
  using T = pare::compute_t<S>;
  const Table<S> t(rows, columns, guard);
  GuardedArray<T> out(columns, guard);
  if (accumulate)
    for (std::ptrdiff_t j = 0; j < columns; ++j) out[j] = static_cast<T>(value_at(9, j));
  const std::vector<T> before(out.begin(), out.end());
  sums<typename Case::arch>(t, out.data(), accumulate);
  for (std::ptrdiff_t j = 0; j < columns; ++j) {
    double wanted = accumulate ? static_cast<double>(before[static_cast<std::size_t>(j)]) : 0;
    double magnitude = std::abs(wanted);
    for (std::ptrdiff_t i = 0; i < rows; ++i) {
      const double term = static_cast<double>(t.weights[i]) * t.at(i, j);
      wanted += term;
      magnitude += std::abs(term);
    }
    ASSERT_TRUE(within(static_cast<double>(out[j]), wanted, rounding_bound<T>(rows + 1, magnitude)))
        << rows << ' ' << columns << ' ' << j;
  }
  EXPECT_TRUE(out.surroundings_untouched());
}

TYPED_TEST(GatheredRowsTest, AreTheProductsOfPlainLoops) {
  for (const Guard guard : {Guard::before, Guard::after})
    for (const std::ptrdiff_t rows : row_counts)
      for (const std::ptrdiff_t columns : column_counts)
        expect_dots<TypeParam>(rows, columns, guard);
}

TYPED_TEST(GatheredRowsTest, AreTheSumsOfPlainLoops) {
  for (const Guard guard : {Guard::before, Guard::after})
    for (const std::ptrdiff_t rows : row_counts)
      for (const std::ptrdiff_t columns : column_counts)
        for (const bool accumulate : {false, true})
          expect_sums<TypeParam>(rows, columns, guard, accumulate);
}

TYPED_TEST(GatheredRowsTest, ARowHasTheSameBitsWhereverItStands) {
  using S = typename TypeParam::scalar;
  using T = pare::compute_t<S>;
  Table<S> t(9, 71, Guard::after);
  for (std::ptrdiff_t i = 0; i < 9; ++i) t.ids[i] = i % 2 == 0 ? 4 : 2;
  std::vector<T> out(9);
  dots<typename TypeParam::arch>(t, out.data());
  for (std::size_t i = 2; i < 9; ++i) EXPECT_TRUE(same_bits(out[i], out[i - 2])) << i;
}

TYPED_TEST(GatheredRowsTest, NaNStaysInItsRowAndColumn) {
  using S = typename TypeParam::scalar;
  using T = pare::compute_t<S>;
  Table<S> t(3, 71, Guard::after);
  for (std::ptrdiff_t i = 0; i < 3; ++i) t.ids[i] = i;
  const S nan = static_cast<S>(std::numeric_limits<T>::quiet_NaN());
  t.table[t.stride + 6] = t.table[t.stride + 70] = nan;
  std::vector<T> dot(3), sum(71);
  dots<typename TypeParam::arch>(t, dot.data());
  sums<typename TypeParam::arch>(t, sum.data(), false);
  for (std::size_t i = 0; i < 3; ++i) EXPECT_EQ(std::isnan(dot[i]), i == 1) << i;
  for (std::size_t j = 0; j < 71; ++j) EXPECT_EQ(std::isnan(sum[j]), j == 6 || j == 70) << j;
}

}  // namespace
}  // namespace kernel_gathered_rows_test
