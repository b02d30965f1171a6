// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <random>
#include <type_traits>
#include <vector>

#include <pare/kernel/activate_rows.hpp>
#include <pare/kernel/activation.hpp>

#include "kernel/archs.hpp"
#include "kernel/guarded_array.hpp"
#include "support/tolerance.hpp"

namespace kernel_activation_test {
namespace {

using pare::testing::Guard;
using pare::testing::GuardedArray;
using pare::testing::same_bits;
using pare::testing::Tolerance;
namespace kernel = pare::kernel;

template <class Case>
struct ActivationTest : testing::Test {};
TYPED_TEST_SUITE(ActivationTest, pare::testing::ArchsAndScalars);

/// A of every element, register by register.
template <class A, class Arch, class T>
std::vector<T> applied(std::vector<T> x) {
  constexpr auto n = static_cast<std::size_t>(kernel::lanes<T, Arch>);
  const std::size_t size = x.size();
  x.resize((size + n - 1) / n * n, T(1));
  for (std::size_t i = 0; i < x.size(); i += n)
    kernel::store<Arch>(x.data() + i, A::template apply<Arch>(
                                          kernel::load<Arch>(static_cast<const T*>(x.data() + i))));
  x.resize(size);
  return x;
}

/// Numbers of both signs and of every size: evenly spread, by exponent, and where tails end.
template <class T>
std::vector<T> inputs(double tail) {
  std::mt19937_64 random(1);
  std::vector<T> x;
  for (int i = 0; i < 100000; ++i) {
    const double unit = static_cast<double>(random()) * 0x1p-63 - 1;
    x.push_back(static_cast<T>(unit * tail));
    x.push_back(static_cast<T>(unit * 4));
    x.push_back(static_cast<T>(std::ldexp(unit, static_cast<int>(random() % 60) - 50)));
  }
  for (double far : {50.0, 100.0, 1e4, 1e10, 1e30})
    for (double sign : {1.0, -1.0}) x.push_back(static_cast<T>(sign * far));
  return x;
}

/// Within `bound` roundings of what is wanted, or one step of the subnormal numbers.
template <class T>
void expect_close(T x, T got, long double wanted, double bound) {
  const auto smallest = static_cast<long double>(std::numeric_limits<T>::denorm_min());
  const long double allowed =
      bound * static_cast<long double>(Tolerance<T>::unit_roundoff) * std::abs(wanted) + smallest;
  ASSERT_TRUE(std::abs(static_cast<long double>(got) - wanted) <= allowed)
      << "of " << x << " gives " << got << ", wanted " << static_cast<double>(wanted) << ", off by "
      << static_cast<double>(std::abs(static_cast<long double>(got) / wanted - 1)) /
             Tolerance<T>::unit_roundoff
      << " u";
}

long double silu(long double x) { return x / (1 + std::exp(-x)); }
long double gelu(long double x) { return x / 2 * std::erfc(-x / std::sqrt(2.0L)); }
const long double gelu_scale = std::sqrt(8 / std::acos(-1.0L));
long double gelu_argument(long double x) { return gelu_scale * (x + 0.044715L * x * x * x); }

// The exponential's 4 u, a product, a sum and a quotient: 7 u.
TYPED_TEST(ActivationTest, SiluKeepsItsBoundFarIntoTheTail) {
  using T = typename TypeParam::scalar;
  const std::vector<T> x = inputs<T>(std::is_same_v<T, float> ? 110 : 760);
  const std::vector<T> got = applied<kernel::Silu, typename TypeParam::arch>(x);
  for (std::size_t i = 0; i < x.size(); ++i) expect_close(x[i], got[i], silu(x[i]), 8);
}

// The exponential's 4 u, a sum and a quotient: 6 u.
TYPED_TEST(ActivationTest, SigmoidKeepsItsBoundFarIntoTheTail) {
  using T = typename TypeParam::scalar;
  const std::vector<T> x = inputs<T>(std::is_same_v<T, float> ? 110 : 760);
  const std::vector<T> got = applied<kernel::Sigmoid, typename TypeParam::arch>(x);
  for (std::size_t i = 0; i < x.size(); ++i)
    expect_close(x[i], got[i], 1 / (1 + std::exp(-static_cast<long double>(x[i]))), 8);
}

TYPED_TEST(ActivationTest, SigmoidKeepsItsLimits) {
  using T = typename TypeParam::scalar;
  constexpr T infinity = std::numeric_limits<T>::infinity();
  const std::vector<T> x{-infinity,
                         infinity,
                         T(-0.0),
                         T(0),
                         std::numeric_limits<T>::lowest(),
                         std::numeric_limits<T>::quiet_NaN()};
  const std::vector<T> got = applied<kernel::Sigmoid, typename TypeParam::arch>(x);
  const T wanted[] = {T(0), T(1), T(0.5), T(0.5), T(0)};
  for (std::size_t i = 0; i < 5; ++i) {
    EXPECT_TRUE(same_bits(got[i], wanted[i])) << x[i] << ' ' << got[i];
    EXPECT_EQ(kernel::Sigmoid::exact(static_cast<double>(x[i])), static_cast<double>(wanted[i]));
  }
  EXPECT_TRUE(std::isnan(got[5]));
  EXPECT_TRUE(std::isnan(kernel::Sigmoid::exact(static_cast<double>(x[5]))));
}

TYPED_TEST(ActivationTest, IdentityIsItsArgument) {
  using T = typename TypeParam::scalar;
  const std::vector<T> x = inputs<T>(100);
  const std::vector<T> got = applied<kernel::Identity, typename TypeParam::arch>(x);
  for (std::size_t i = 0; i < x.size(); ++i) ASSERT_TRUE(same_bits(got[i], x[i]));
  EXPECT_EQ(kernel::Identity::exact(-0.75), -0.75);
}

// In the tail, which is the worst: t of 2 u, by which t P(1 - 2 shift t) changes 1.2 times as much;
// u for the rounding of 1 - 2 shift t, 3 u of Horner's scheme, 4 u of the exponential and 3
// products: 14 u.
TYPED_TEST(ActivationTest, GeluKeepsItsBoundFarIntoTheTail) {
  using T = typename TypeParam::scalar;
  const std::vector<T> x = inputs<T>(std::is_same_v<T, float> ? 15 : 39);
  const std::vector<T> got = applied<kernel::Gelu, typename TypeParam::arch>(x);
  for (std::size_t i = 0; i < x.size(); ++i) expect_close(x[i], got[i], gelu(x[i]), 16);
}

TYPED_TEST(ActivationTest, GeluTanhLosesNoMoreThanItsArgumentDoes) {
  using T = typename TypeParam::scalar;
  const std::vector<T> x = inputs<T>(std::is_same_v<T, float> ? 11 : 22);
  const std::vector<T> got = applied<kernel::GeluTanh, typename TypeParam::arch>(x);
  for (std::size_t i = 0; i < x.size(); ++i) {
    const long double w = gelu_argument(x[i]);
    // w takes two products, a fused sum and the rounding of a constant: 6 u of it.
    expect_close(x[i], got[i], x[i] / (1 + std::exp(-w)),
                 10 + 6 * std::min(800.0, std::abs(static_cast<double>(w))));
  }
}

template <class A, class Arch, class T>
void expect_limits(T at_minus_infinity) {
  constexpr T infinity = std::numeric_limits<T>::infinity();
  constexpr T nan = std::numeric_limits<T>::quiet_NaN();
  const std::vector<T> x{-infinity,
                         infinity,
                         T(-0.0),
                         T(0),
                         std::numeric_limits<T>::lowest(),
                         std::numeric_limits<T>::max(),
                         nan,
                         -nan};
  const std::vector<T> got = applied<A, Arch>(x);
  EXPECT_TRUE(same_bits(got[0], at_minus_infinity)) << got[0];
  EXPECT_EQ(got[1], infinity);
  EXPECT_TRUE(same_bits(got[2], T(-0.0)));
  EXPECT_TRUE(same_bits(got[3], T(0)));
  EXPECT_TRUE(same_bits(got[4], at_minus_infinity)) << got[4];
  EXPECT_EQ(got[5], std::numeric_limits<T>::max());
  EXPECT_TRUE(std::isnan(got[6]) && std::isnan(got[7]));
  for (std::size_t i = 0; i < 6; ++i) {
    const double exact = A::exact(static_cast<double>(x[i]));
    EXPECT_TRUE(same_bits(static_cast<T>(exact), got[i])) << "of " << x[i] << ": " << exact;
  }
  EXPECT_TRUE(std::isnan(A::exact(static_cast<double>(nan))));
}

TYPED_TEST(ActivationTest, LimitsAreKept) {
  using T = typename TypeParam::scalar;
  using Arch = typename TypeParam::arch;
  expect_limits<kernel::Silu, Arch>(T(-0.0));
  expect_limits<kernel::Gelu, Arch>(T(-0.0));
  expect_limits<kernel::GeluTanh, Arch>(T(-0.0));
  expect_limits<kernel::Relu, Arch>(T(0));
}

TYPED_TEST(ActivationTest, SiluOfMinus200IsTinyOrMinusZero) {
  using T = typename TypeParam::scalar;
  const T got = applied<kernel::Silu, typename TypeParam::arch>(std::vector<T>{T(-200)})[0];
  EXPECT_TRUE(std::signbit(got));
  EXPECT_TRUE(std::abs(static_cast<double>(got)) < 3e-85) << got;
  if constexpr (std::is_same_v<T, double>) expect_close(T(-200), got, silu(-200), 8);
}

template <class Case>
struct ActivateRowsTest : testing::Test {};
TYPED_TEST_SUITE(ActivateRowsTest, pare::testing::ArchsAndStorages);

/// Every tail gets the bits of whole registers, and nothing behind a row is touched.
TYPED_TEST(ActivateRowsTest, TailsHaveTheBitsOfWholeRegisters) {
  using S = typename TypeParam::scalar;
  using T = pare::compute_t<S>;
  using Arch = typename TypeParam::arch;
  constexpr std::ptrdiff_t most = 150, rows = 2;
  std::vector<S> x(most), up(most), whole(most);
  for (std::ptrdiff_t i = 0; i < most; ++i) {
    x[static_cast<std::size_t>(i)] = static_cast<S>(static_cast<T>(i - 70) / T(9));
    up[static_cast<std::size_t>(i)] = static_cast<S>(T(1) + static_cast<T>(i % 7) / T(4));
  }
  for (std::size_t i = 0; i < x.size(); ++i) {
    const T y = applied<kernel::Silu, Arch>(std::vector<T>{static_cast<T>(x[i])})[0];
    whole[i] = static_cast<S>(y * static_cast<T>(up[i]));
  }
  for (const Guard guard : {Guard::before, Guard::after})
    for (const std::ptrdiff_t columns : {1, 2, 7, 8, 15, 16, 17, 31, 64, 65, 100, 150}) {
      GuardedArray<S> from(rows * columns, guard), times(columns, guard), to(rows * columns, guard);
      for (std::ptrdiff_t i = 0; i < rows * columns; ++i)
        from[i] = x[static_cast<std::size_t>(i % columns)];
      for (std::ptrdiff_t i = 0; i < columns; ++i) times[i] = up[static_cast<std::size_t>(i)];
      run_kernel(Arch{},
                 kernel::ActivateRows<S, kernel::Silu, true>{from.data(), columns, times.data(), 0,
                                                             to.data(), columns, rows, columns});
      for (std::ptrdiff_t i = 0; i < rows * columns; ++i)
        ASSERT_TRUE(same_bits(to[i], whole[static_cast<std::size_t>(i % columns)]))
            << columns << ' ' << i;
      EXPECT_TRUE(to.surroundings_untouched());
    }
}

}  // namespace
}  // namespace kernel_activation_test
