// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <cmath>
#include <cstddef>

#include <pare/core/backend.hpp>
#include <pare/kernel/secular_sums.hpp>

#include "kernel/archs.hpp"
#include "kernel/guarded_array.hpp"
#include "support/tolerance.hpp"

namespace kernel_secular_sums_test {
namespace {

using pare::testing::Guard;
using pare::testing::GuardedArray;
using pare::testing::Tolerance;
using pare::testing::within;
namespace kernel = pare::kernel;

template <class Arch>
struct SecularSumsTest : testing::Test {};
TYPED_TEST_SUITE(SecularSumsTest, pare::testing::Archs);

template <class Arch>
void expect_sums(std::ptrdiff_t count, double origin, double shift, Guard guard) {
  GuardedArray<double> d(count, guard), z(count, guard);
  for (std::ptrdiff_t j = 0; j < count; ++j) {
    d[j] = static_cast<double>(j) + 0.25 * std::sin(static_cast<double>(j));
    z[j] = std::cos(static_cast<double>(3 * j));
  }
  double sum = 7, slope = 7;
  launch(pare::simd_for<Arch>{},
         kernel::SecularSums{d.data(), z.data(), count, origin, shift, &sum, &slope});
  double wanted = 0, wanted_slope = 0, size = 0;
  for (std::ptrdiff_t j = 0; j < count; ++j) {
    const double pole = (d[j] - origin) - shift;
    wanted += z[j] * z[j] / pole;
    size += std::abs(z[j] * z[j] / pole);
    wanted_slope += z[j] * z[j] / (pole * pole);
  }
  const auto n = static_cast<double>(count);
  EXPECT_TRUE(within(sum, wanted, 2 * Tolerance<double>::gamma(n + 6) * size)) << count;
  EXPECT_TRUE(within(slope, wanted_slope, 2 * Tolerance<double>::gamma(n + 8) * wanted_slope));
}

TYPED_TEST(SecularSumsTest, EqualPlainSums) {
  for (const Guard guard : {Guard::before, Guard::after})
    for (const std::ptrdiff_t count : {1, 2, 7, 8, 9, 16, 31, 200})
      for (const double shift : {0.125, -0.4, 1e-9}) expect_sums<TypeParam>(count, 3, shift, guard);
}

/// Near its pole a term is the reciprocal of the shift: nothing of it is lost by adding the origin.
TYPED_TEST(SecularSumsTest, KeepTheDistanceToTheOrigin) {
  const double d[] = {1, 2}, z[] = {1, 1};
  double sum = 0, slope = 0;
  launch(pare::simd_for<TypeParam>{}, kernel::SecularSums{d, z, 2, 1.0, 1e-30, &sum, &slope});
  EXPECT_TRUE(within(sum, -1e30, 1e15));
  EXPECT_TRUE(within(slope, 1e60, 1e45));
}

TYPED_TEST(SecularSumsTest, OfNothingAreZero) {
  double sum = 7, slope = 7;
  launch(pare::simd_for<TypeParam>{}, kernel::SecularSums{nullptr, nullptr, 0, 0, 0, &sum, &slope});
  EXPECT_EQ(sum, 0);
  EXPECT_EQ(slope, 0);
}

}  // namespace
}  // namespace kernel_secular_sums_test
