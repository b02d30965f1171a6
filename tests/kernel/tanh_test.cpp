// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <cmath>
#include <cstddef>
#include <limits>

#include <pare/kernel/tanh.hpp>

#include "kernel/archs.hpp"
#include "support/tolerance.hpp"

namespace kernel_tanh_test {
namespace {

namespace kernel = pare::kernel;
using pare::testing::Tolerance;

template <class Case>
struct TanhTest : testing::Test {
  template <class T>
  static T of(T x) {
    using Arch = typename Case::arch;
    T out[static_cast<std::size_t>(kernel::lanes<T, Arch>)];
    kernel::store<Arch>(static_cast<T*>(out), kernel::tanh<Arch>(kernel::broadcast<Arch>(x)));
    return out[0];
  }
};
TYPED_TEST_SUITE(TanhTest, pare::testing::ArchsAndScalars);

/// Near 0: a ratio whose error counts a seventh, a sum, a product. Far: an exponential of 4
/// roundings that counts 0.6 at most, a sum, a difference, a quotient.
TYPED_TEST(TanhTest, IsItselfToFourRoundings) {
  using T = typename TypeParam::scalar;
  const double tiny = std::numeric_limits<T>::min();
  for (const double start : {tiny, 1e-5, 1e-3})
    for (double x = start; x < 1e3; x *= x < 0.1 ? 1.7 : 1.003)
      for (const double sign : {1.0, -1.0}) {
        const T at = static_cast<T>(sign * x);
        const auto wanted = std::tanh(static_cast<long double>(at));
        ASSERT_TRUE(pare::testing::within(
            static_cast<double>(this->of(at)), static_cast<double>(wanted),
            4 * Tolerance<T>::unit_roundoff * static_cast<double>(std::abs(wanted))))
            << at << ' ' << this->of(at);
      }
}

TYPED_TEST(TanhTest, KeepsItsLimits) {
  using T = typename TypeParam::scalar;
  constexpr T infinity = std::numeric_limits<T>::infinity();
  EXPECT_EQ(this->of(infinity), T(1));
  EXPECT_EQ(this->of(-infinity), T(-1));
  EXPECT_TRUE(pare::testing::same_bits(this->of(T(0)), T(0)));
  EXPECT_TRUE(pare::testing::same_bits(this->of(T(-0.0)), T(-0.0)));
  EXPECT_TRUE(std::isnan(this->of(std::numeric_limits<T>::quiet_NaN())));
}

}  // namespace
}  // namespace kernel_tanh_test
