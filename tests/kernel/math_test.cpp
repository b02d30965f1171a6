// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <random>
#include <type_traits>
#include <vector>

#include <pare/kernel/math.hpp>

#include "kernel/archs.hpp"
#include "support/tolerance.hpp"

namespace kernel_math_test {
namespace {

using pare::testing::same_bits;
using pare::testing::Tolerance;
namespace kernel = pare::kernel;

template <class Case>
struct Exp2Test : testing::Test {};
TYPED_TEST_SUITE(Exp2Test, pare::testing::ArchsAndScalars);

/// The whole exponents whose powers are normal numbers within the documented range.
template <class T>
constexpr int lowest_exponent = std::numeric_limits<T>::min_exponent - 1;
template <class T>
constexpr int highest_exponent = std::numeric_limits<T>::max_exponent - 1;

/// exp2 of every element, register by register; the last one is filled up with ones.
template <class Arch, class T>
std::vector<T> exp2_of(std::vector<T> x) {
  constexpr auto n = static_cast<std::size_t>(kernel::lanes<T, Arch>);
  const std::size_t size = x.size();
  x.resize((size + n - 1) / n * n, T(1));
  for (std::size_t i = 0; i < x.size(); i += n) {
    const auto v = kernel::load<Arch>(static_cast<const T*>(x.data() + i));
    kernel::store<Arch>(x.data() + i, kernel::exp2<Arch>(v));
    // Of some registers at once, each has the bits that it has alone.
    kernel::vec<T, Arch> some[] = {kernel::broadcast<Arch>(T(-3.25)), v,
                                   kernel::broadcast<Arch>(T(0.5))};
    kernel::exp2_each<Arch>(some);
    T each[n];
    kernel::store<Arch>(static_cast<T*>(each), some[1]);
    for (std::size_t lane = 0; lane < n; ++lane)
      EXPECT_TRUE(same_bits(each[lane], x[i + lane])) << x[i + lane];
  }
  x.resize(size);
  return x;
}

/// Quiet NaNs of both signs with an empty, a low, and a full payload.
template <class T>
std::vector<T> nans() {
  std::vector<T> all;
  if constexpr (std::is_same_v<T, float>)
    for (const std::uint32_t bits : {0x7fc00000u, 0x7fc00001u, 0x7fc000ffu, 0x7fffffffu})
      for (const std::uint32_t sign : {0u, 0x80000000u})
        all.push_back(std::bit_cast<float>(bits | sign));
  else
    for (const std::uint64_t bits :
         {0x7ff8000000000000u, 0x7ff80000000007a2u, 0x7ff8000000000001u, 0x7fffffffffffffffu})
      for (const std::uint64_t sign : {std::uint64_t{0}, std::uint64_t{1} << 63})
        all.push_back(std::bit_cast<double>(bits | sign));
  return all;
}

TYPED_TEST(Exp2Test, KeepsToItsRoundingBoundOverTheWholeRange) {
  using T = typename TypeParam::scalar;
  // 2^f = 1 + f q with |f| <= 1/2 exact. The last addition gives u. f q is at most sqrt(2) - 1 of
  // the result and carries the u of its product and 3 u of q: 1.2 u of the leading coefficient,
  // which is at most 1.2 q, u of its addition, 4 u on the fifth of q that follows. That is 2.66 u;
  // the polynomial itself has the rest.
  constexpr double bound = 3 * Tolerance<T>::unit_roundoff;
  std::mt19937_64 random(1);
  std::vector<T> x;
  for (int n = lowest_exponent<T>; n < highest_exponent<T>; ++n)
    for (const double f : {0.0, 1e-6, 0.25, 0.4999, 0.5, 0.5001, 0.75, 0.999999})
      x.push_back(static_cast<T>(n + f));
  for (int i = 0; i < 200000; ++i) {
    const double unit = static_cast<double>(random()) * 0x1p-64;
    x.push_back(static_cast<T>(i % 2 == 0 ? -30 * unit : lowest_exponent<T> * unit));
    x.push_back(static_cast<T>(unit * 2 - 1));
  }
  const std::vector<T> got = exp2_of<typename TypeParam::arch>(x);
  for (std::size_t i = 0; i < x.size(); ++i) {
    const long double wanted = std::exp2(static_cast<long double>(x[i]));
    const auto error = static_cast<double>(std::abs(got[i] - wanted) / wanted);
    ASSERT_LE(error, bound) << "2^" << x[i] << " gives " << got[i];
  }
}

TYPED_TEST(Exp2Test, WholeExponentsGiveExactPowers) {
  using T = typename TypeParam::scalar;
  std::vector<T> x{T(-0.0)}, wanted{T(1)};
  for (int n = lowest_exponent<T>; n < highest_exponent<T>; ++n) {
    x.push_back(static_cast<T>(n));
    wanted.push_back(std::ldexp(T(1), n));
  }
  const std::vector<T> got = exp2_of<typename TypeParam::arch>(x);
  for (std::size_t i = 0; i < x.size(); ++i) ASSERT_EQ(got[i], wanted[i]) << "2^" << x[i];
}

TYPED_TEST(Exp2Test, BelowTheSmallestNormalResultIsZero) {
  using T = typename TypeParam::scalar;
  constexpr T infinity = std::numeric_limits<T>::infinity();
  constexpr T smallest = lowest_exponent<T>;
  const std::vector<T> x{std::nextafter(smallest, -infinity),
                         smallest - T(0.25),
                         smallest - T(0.5),
                         smallest - 1,
                         smallest - 30,
                         2 * smallest,
                         T(-1e30),
                         std::numeric_limits<T>::lowest(),
                         -infinity};
  const std::vector<T> got = exp2_of<typename TypeParam::arch>(x);
  for (std::size_t i = 0; i < x.size(); ++i)
    EXPECT_TRUE(same_bits(got[i], T(0))) << "2^" << x[i] << " gives " << got[i];
}

TYPED_TEST(Exp2Test, EveryNanStaysOne) {
  using T = typename TypeParam::scalar;
  const std::vector<T> x = nans<T>(), got = exp2_of<typename TypeParam::arch>(x);
  for (std::size_t i = 0; i < x.size(); ++i)
    EXPECT_TRUE(std::isnan(got[i])) << "NaN " << i << " gives " << got[i];
}

TYPED_TEST(Exp2Test, LanesDoNotReachEachOther) {
  using T = typename TypeParam::scalar;
  using Arch = typename TypeParam::arch;
  constexpr auto n = static_cast<std::size_t>(kernel::lanes<T, Arch>);
  const T odd[] = {std::numeric_limits<T>::quiet_NaN(), -std::numeric_limits<T>::infinity(),
                   std::numeric_limits<T>::lowest(), T(-3.7)};
  for (std::size_t place = 0; place < n; ++place)
    for (const T value : odd) {
      std::vector<T> x(n);
      for (std::size_t i = 0; i < n; ++i) x[i] = T(0.3) - static_cast<T>(i) * T(1.7);
      x[place] = value;
      const std::vector<T> got = exp2_of<Arch>(x);
      for (std::size_t i = 0; i < n; ++i) {
        const T alone = exp2_of<Arch>(std::vector<T>(n, x[i]))[0];
        if (std::isnan(x[i]))
          ASSERT_TRUE(std::isnan(got[i])) << "lane " << i;
        else
          ASSERT_TRUE(same_bits(got[i], alone)) << "lane " << i << " beside " << value;
      }
    }
}

template <class Case>
struct ExpTest : testing::Test {};
TYPED_TEST_SUITE(ExpTest, pare::testing::ArchsAndScalars);

/// exp of every element, register by register; the last one is filled up with ones.
template <class Arch, class T>
std::vector<T> exp_of(std::vector<T> x) {
  constexpr auto n = static_cast<std::size_t>(kernel::lanes<T, Arch>);
  const std::size_t size = x.size();
  x.resize((size + n - 1) / n * n, T(1));
  for (std::size_t i = 0; i < x.size(); i += n)
    kernel::store<Arch>(x.data() + i,
                        kernel::exp<Arch>(kernel::load<Arch>(static_cast<const T*>(x.data() + i))));
  x.resize(size);
  return x;
}

TYPED_TEST(ExpTest, KeepsItsBoundHoweverLargeTheArgument) {
  using T = typename TypeParam::scalar;
  // 2.66 u of 2^f, as above; f has 2 u of at most 1/2, which is 0.7 u of the result.
  constexpr double bound = 4 * Tolerance<T>::unit_roundoff;
  const auto smallest = static_cast<long double>(std::numeric_limits<T>::denorm_min());
  constexpr double lowest = std::is_same_v<T, float> ? -110 : -750;
  constexpr double highest = std::is_same_v<T, float> ? 88.7 : 709.7;
  std::mt19937_64 random(1);
  std::vector<T> x{T(0), T(-0.0), T(1), T(-1)};
  for (int i = 0; i < 200000; ++i) {
    const double unit = static_cast<double>(random()) * 0x1p-64;
    x.push_back(static_cast<T>(lowest + (highest - lowest) * unit));
    x.push_back(static_cast<T>(2 * unit - 1));
  }
  const std::vector<T> got = exp_of<typename TypeParam::arch>(x);
  for (std::size_t i = 0; i < x.size(); ++i) {
    const long double wanted = std::exp(static_cast<long double>(x[i]));
    ASSERT_LE(std::abs(static_cast<long double>(got[i]) - wanted), bound * wanted + smallest)
        << "e^" << x[i] << " gives " << got[i];
  }
}

TYPED_TEST(ExpTest, EndsInZeroAndInfinityAndKeepsNans) {
  using T = typename TypeParam::scalar;
  constexpr T infinity = std::numeric_limits<T>::infinity();
  const std::vector<T> x{-infinity, std::numeric_limits<T>::lowest(), T(-800),
                         infinity,  std::numeric_limits<T>::max(),    T(800)};
  const std::vector<T> got = exp_of<typename TypeParam::arch>(x);
  for (std::size_t i = 0; i < x.size(); ++i)
    EXPECT_TRUE(same_bits(got[i], i < 3 ? T(0) : infinity)) << "e^" << x[i] << " gives " << got[i];
  for (const T nan : exp_of<typename TypeParam::arch>(nans<T>())) EXPECT_TRUE(std::isnan(nan));
}

}  // namespace
}  // namespace kernel_math_test
