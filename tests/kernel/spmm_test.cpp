// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <limits>
#include <random>
#include <vector>

#include <pare/core/backend.hpp>
#include <pare/kernel/spmm.hpp>

#include "kernel/archs.hpp"
#include "kernel/guarded_array.hpp"
#include "support/tolerance.hpp"

namespace kernel_spmm_test {
namespace {

using pare::testing::GuardedArray;
using pare::testing::Tolerance;
using pare::testing::within;
namespace kernel = pare::kernel;

template <class Case>
struct SpmmKernelTest : testing::Test {};
TYPED_TEST_SUITE(SpmmKernelTest, pare::testing::ArchsAndScalars);
template <class Case>
struct AddRowsTest : testing::Test {};
TYPED_TEST_SUITE(AddRowsTest, pare::testing::ArchsAndScalars);

/// Rows of every length from 0 up, with gaps between them if `gaps`; arrays end at a page's end.
template <class T, class I>
struct Graph {
  static constexpr std::ptrdiff_t inner_size = 23;
  std::ptrdiff_t rows;
  GuardedArray<I> outer, lengths;
  GuardedArray<I> inner;
  GuardedArray<T> values;

  explicit Graph(std::ptrdiff_t row_count, std::ptrdiff_t gap)
      : rows(row_count),
        outer(row_count + 1),
        lengths(row_count),
        inner(entries(row_count, gap)),
        values(entries(row_count, gap)) {
    I place = 0;
    for (std::ptrdiff_t u = 0; u < rows; ++u) {
      outer[u] = place;
      lengths[u] = static_cast<I>(u % 12);
      place += lengths[u] + static_cast<I>(u + 1 < rows ? gap : 0);
    }
    outer[rows] = place;
    std::mt19937_64 random(4);
    for (std::ptrdiff_t u = 0; u < rows; ++u)
      for (std::ptrdiff_t e = outer[u]; e < outer[u] + lengths[u]; ++e) {
        inner[e] = static_cast<I>(random() % inner_size);
        values[e] = static_cast<T>(static_cast<int>(random() % 9) - 4);
      }
  }

  static std::ptrdiff_t entries(std::ptrdiff_t row_count, std::ptrdiff_t gap) {
    std::ptrdiff_t total = 0;
    for (std::ptrdiff_t u = 0; u < row_count; ++u) total += u % 12 + (u + 1 < row_count ? gap : 0);
    return total;
  }
};

/// Exact on small integers: any order and any fusing gives the same.
template <class Arch, class T, class I>
void expect_product(std::ptrdiff_t columns, std::ptrdiff_t gap, bool weighted, bool scaled,
                    std::ptrdiff_t extra_stride) {
  const Graph<T, I> a(25, gap);
  const std::ptrdiff_t stride = columns + extra_stride, first = 3, last = 24;
  GuardedArray<T> dense((a.inner_size - 1) * stride + columns);
  GuardedArray<T> out((last - first - 1) * stride + columns);
  GuardedArray<T> scale(last - first);
  for (std::ptrdiff_t i = 0; i < dense.size(); ++i) dense[i] = static_cast<T>(i % 31 - 15);
  for (std::ptrdiff_t i = 0; i < scale.size(); ++i) scale[i] = static_cast<T>(i % 5) / 2;
  launch(
      pare::simd_for<Arch>{},
      kernel::SpmmRows<T, I>{a.outer.data(), gap > 0 ? a.lengths.data() : nullptr, a.inner.data(),
                             weighted ? a.values.data() : nullptr, scaled ? scale.data() : nullptr,
                             dense.data(), stride, out.data(), stride, columns, first, last});
  for (std::ptrdiff_t u = first; u < last; ++u) {
    for (std::ptrdiff_t c = 0; c < columns; ++c) {
      T wanted = 0;
      for (std::ptrdiff_t e = a.outer[u]; e < a.outer[u] + a.lengths[u]; ++e)
        wanted += (weighted ? a.values[e] : T(1)) *
                  dense[static_cast<std::ptrdiff_t>(a.inner[e]) * stride + c];
      if (scaled) wanted *= scale[u - first];
      ASSERT_EQ(out[(u - first) * stride + c], wanted)
          << "row " << u << " column " << c << " of " << columns;
    }
    for (std::ptrdiff_t c = columns; c < stride && u + 1 < last; ++c)
      ASSERT_TRUE(out.untouched((u - first) * stride + c)) << "row " << u << " place " << c;
  }
  ASSERT_TRUE(out.surroundings_untouched());
}

TYPED_TEST(SpmmKernelTest, EveryRowLengthAndNumberOfColumns) {
  using T = typename TypeParam::scalar;
  for (std::ptrdiff_t columns = 0; columns <= 300; ++columns)
    expect_product<typename TypeParam::arch, T, std::int32_t>(columns, 0, true, true, 0);
}

TYPED_TEST(SpmmKernelTest, EveryFormOfTheArguments) {
  using T = typename TypeParam::scalar;
  using Arch = typename TypeParam::arch;
  for (const std::ptrdiff_t columns : {1, 2, 3, 5, 16, 31, 64, 100, 129})
    for (const std::ptrdiff_t gap : {0, 2})
      for (const bool weighted : {false, true})
        for (const bool scaled : {false, true})
          for (const std::ptrdiff_t extra : {0, 7}) {
            expect_product<Arch, T, std::int32_t>(columns, gap, weighted, scaled, extra);
            expect_product<Arch, T, std::int64_t>(columns, gap, weighted, scaled, extra);
          }
}

/// Rows of x and sums, with a stride, in guarded memory.
template <class T>
struct Rows {
  std::ptrdiff_t rows = 5, columns, stride;
  GuardedArray<T> x, sum;
  std::vector<T> before;

  Rows(std::ptrdiff_t column_count, std::ptrdiff_t extra)
      : columns(column_count),
        stride(column_count + extra),
        x((rows - 1) * stride + columns),
        sum((rows - 1) * stride + columns) {
    for (std::ptrdiff_t i = 0; i < x.size(); ++i) {
      const std::ptrdiff_t r = i / stride;
      x[i] = r == 2 ? T(0) : static_cast<T>(i % 13 - 6) / 8;
      if (i % stride < columns) sum[i] = static_cast<T>(i % 7);
    }
    before.assign(sum.begin(), sum.end());
  }

  template <class Arch>
  void run(T weight, bool normalize, bool assign) {
    launch(pare::simd_for<Arch>{}, kernel::AddRows<T>{x.data(), stride, sum.data(), stride, rows,
                                                      columns, weight, normalize, assign});
  }

  void expect(T weight, bool normalize, bool assign) const {
    for (std::ptrdiff_t r = 0; r < rows; ++r) {
      double squares = 0;
      for (std::ptrdiff_t c = 0; c < columns; ++c)
        squares += static_cast<double>(x[r * stride + c]) * static_cast<double>(x[r * stride + c]);
      for (std::ptrdiff_t c = 0; c < columns; ++c) {
        const double old = assign ? 0.0 : static_cast<double>(before[at(r, c)]);
        double term = static_cast<double>(weight) * static_cast<double>(x[r * stride + c]);
        if (normalize && squares > 0) term /= std::sqrt(squares);
        // The norm: a dot product, halved by the root, the root, the division; then a product and
        // an addition.
        const double n = static_cast<double>(columns);
        const double bound = Tolerance<T>::gamma(n + 5) * (std::abs(term) + std::abs(old));
        ASSERT_TRUE(within(static_cast<double>(sum[r * stride + c]), old + term, bound))
            << "row " << r << " column " << c << " of " << columns;
      }
      for (std::ptrdiff_t c = columns; c < stride && r + 1 < rows; ++c)
        ASSERT_TRUE(sum.untouched(r * stride + c)) << "row " << r << " place " << c;
    }
    ASSERT_TRUE(sum.surroundings_untouched());
  }

  std::size_t at(std::ptrdiff_t r, std::ptrdiff_t c) const {
    return static_cast<std::size_t>(r * stride + c);
  }
};

TYPED_TEST(AddRowsTest, EqualsBruteForceForEveryTail) {
  using T = typename TypeParam::scalar;
  for (std::ptrdiff_t columns = 1; columns <= 70; ++columns)
    for (const bool normalize : {false, true})
      for (const bool assign : {false, true}) {
        Rows<T> rows(columns, columns % 3);
        rows.template run<typename TypeParam::arch>(T(-1.5), normalize, assign);
        rows.expect(T(-1.5), normalize, assign);
      }
}

TYPED_TEST(AddRowsTest, ARowOfZerosStaysZero) {
  using T = typename TypeParam::scalar;
  std::vector<T> x(37, T(0)), sum(37, std::numeric_limits<T>::quiet_NaN());
  launch(pare::simd_for<typename TypeParam::arch>{},
         kernel::AddRows<T>{x.data(), 37, sum.data(), 37, 1, 37, T(3), true, true});
  for (const T value : sum) EXPECT_EQ(value, T(0));
}

TYPED_TEST(AddRowsTest, UnitRowsOfAnyFiniteScale) {
  using T = typename TypeParam::scalar;
  using Limits = std::numeric_limits<T>;
  // The second: squares that are subnormal, and so have a few bits each.
  const T limits[] = {Limits::min() * 8, 3 * std::sqrt(Limits::denorm_min()),
                      T(1e-25),          T(1),
                      T(1e25),           Limits::max() / 64};
  for (const T size : limits) {
    std::vector<T> x(37, size), sum(37, T(0));
    launch(pare::simd_for<typename TypeParam::arch>{},
           kernel::AddRows<T>{x.data(), 37, sum.data(), 37, 1, 37, T(1), true, true});
    for (const T value : sum)
      ASSERT_TRUE(
          within(static_cast<double>(value), 1 / std::sqrt(37.0), Tolerance<T>::gamma(37 + 6)))
          << "rows of " << size << " give " << value;
  }
}

// weight / norm may leave the scalar's range where weight * (x / norm) does not.
TYPED_TEST(AddRowsTest, AnyWeightOfUnitRowsOfAnyScale) {
  using T = typename TypeParam::scalar;
  using Limits = std::numeric_limits<T>;
  const T ends[] = {Limits::min() * 8, T(1e-20), T(1e20), Limits::max() / 64};
  for (const T size : ends)
    for (const T weight : ends)
      for (const bool assign : {false, true}) {
        std::vector<T> x(37, size), sum(37, assign ? Limits::quiet_NaN() : T(0));
        x[5] = 0;
        launch(pare::simd_for<typename TypeParam::arch>{},
               kernel::AddRows<T>{x.data(), 37, sum.data(), 37, 1, 37, -weight, true, assign});
        const double wanted = -static_cast<double>(weight) / 6;  // the root of 36
        for (std::size_t i = 0; i < sum.size(); ++i)
          ASSERT_TRUE(within(static_cast<double>(sum[i]), i == 5 ? 0.0 : wanted,
                             Tolerance<T>::gamma(37 + 8) * static_cast<double>(weight)))
              << "rows of " << size << " times " << weight << " give " << sum[i];
      }
}

}  // namespace
}  // namespace kernel_spmm_test
