// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <cmath>
#include <cstddef>
#include <vector>

#include <pare/core/backend.hpp>
#include <pare/kernel/key_directions.hpp>

#include "kernel/archs.hpp"
#include "kernel/guarded_array.hpp"
#include "support/tolerance.hpp"

namespace kernel_key_directions_test {
namespace {

using pare::testing::Guard;
using pare::testing::GuardedArray;
using pare::testing::Tolerance;
using pare::testing::within;
namespace kernel = pare::kernel;

template <class Case>
struct KeyDirectionsTest : testing::Test {};
TYPED_TEST_SUITE(KeyDirectionsTest, pare::testing::ArchsAndStorages);

/// Rows with a gap of 2, the last of which ends at a page that may not be touched.
template <class S>
struct Rows {
  std::ptrdiff_t rows, columns, stride;
  GuardedArray<S> list;

  Rows(std::ptrdiff_t row_count, std::ptrdiff_t column_count, Guard guard)
      : rows(row_count),
        columns(column_count),
        stride(columns + 2),
        list((rows - 1) * stride + columns, guard) {
    for (std::ptrdiff_t i = 0; i < list.size(); ++i)
      list[i] = static_cast<S>(static_cast<pare::compute_t<S>>(i * 37 % 101 - 50));
  }
  double at(std::ptrdiff_t r, std::ptrdiff_t c) const {
    return static_cast<double>(static_cast<pare::compute_t<S>>(list.data()[r * stride + c]));
  }
  double length(std::ptrdiff_t r) const {
    double sum = 0;
    for (std::ptrdiff_t c = 0; c < columns; ++c) sum += at(r, c) * at(r, c);
    return std::sqrt(sum);
  }
};

// A length is within gamma(columns + 2) of itself, its inverse and the product add 2 roundings, and
// the sum of the rows as many as there are.
TYPED_TEST(KeyDirectionsTest, SumsAndCosinesAreThoseOfTheRows) {
  using S = typename TypeParam::scalar;
  using T = pare::compute_t<S>;
  const pare::simd_for<typename TypeParam::arch> backend{};
  for (const Guard guard : {Guard::before, Guard::after})
    for (const std::ptrdiff_t rows : {1, 3, 4, 9})
      for (const std::ptrdiff_t columns : {1, 7, 16, 33, 64, 130}) {
        const Rows<S> x(rows, columns, guard);
        GuardedArray<T> inverse(rows, guard), sums(columns, guard), dots(rows, guard);
        for (std::ptrdiff_t c = 0; c < columns; ++c) sums[c] = T(1);
        launch(backend, kernel::AddDirections<S>{x.list.data(), x.stride, rows, columns,
                                                 inverse.data(), sums.data()});
        const double bound = Tolerance<T>::gamma(static_cast<double>(columns + rows + 5));
        for (std::ptrdiff_t c = 0; c < columns; ++c) {
          double sum = 1, magnitude = 1;
          for (std::ptrdiff_t r = 0; r < rows; ++r) {
            if (x.length(r) == 0) continue;
            sum += x.at(r, c) / x.length(r);
            magnitude += std::abs(x.at(r, c)) / x.length(r);
          }
          ASSERT_TRUE(within(sums[c], sum, bound * magnitude)) << rows << ' ' << columns;
        }
        launch(backend, kernel::ScaledRowDots<S>{x.list.data(), x.stride, rows, columns,
                                                 sums.data(), inverse.data(), dots.data()});
        for (std::ptrdiff_t r = 0; r < rows; ++r) {
          double dot = 0, magnitude = 0;
          for (std::ptrdiff_t c = 0; c < columns; ++c) {
            const double product = x.at(r, c) * static_cast<double>(sums[c]);
            dot += product;
            magnitude += std::abs(product);
          }
          const auto factor = static_cast<double>(inverse[r]);
          ASSERT_TRUE(within(dots[r], factor * dot, bound * magnitude * std::abs(factor)));
        }
        EXPECT_TRUE(inverse.surroundings_untouched() && sums.surroundings_untouched() &&
                    dots.surroundings_untouched());
      }
}

TYPED_TEST(KeyDirectionsTest, RowsThatHaveNoPlainLengthAreLeft) {
  using S = typename TypeParam::scalar;
  using T = pare::compute_t<S>;
  constexpr std::ptrdiff_t rows = 6, columns = 20;
  Rows<S> x(rows, columns, Guard::after), plain(rows, columns, Guard::after);
  for (std::ptrdiff_t c = 0; c < columns; ++c) {
    x.list[x.stride + c] = static_cast<S>(T(0));
    plain.list[x.stride + c] = static_cast<S>(T(0));
  }
  x.list[2 * x.stride + 3] = static_cast<S>(static_cast<T>(NAN));
  std::vector<T> inverse(rows), sums(columns), wanted(columns);
  launch(pare::simd_for<typename TypeParam::arch>{},
         kernel::AddDirections<S>{x.list.data(), x.stride, rows, columns, inverse.data(),
                                  sums.data()});
  EXPECT_EQ(inverse[1], T(-1));
  EXPECT_EQ(inverse[2], T(-1));
  for (std::ptrdiff_t c = 0; c < columns; ++c) {
    double sum = 0;
    for (const std::ptrdiff_t r : {0, 3, 4, 5}) sum += plain.at(r, c) / plain.length(r);
    EXPECT_NEAR(static_cast<double>(sums[static_cast<std::size_t>(c)]), sum, 1e-5);
  }
}

}  // namespace
}  // namespace kernel_key_directions_test
