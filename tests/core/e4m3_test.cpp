// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <pare/core/e4m3.hpp>
#include <pare/core/scalar.hpp>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <random>

namespace core_e4m3_test {
namespace {

using pare::e4m3;

/// Sign, 4 bits of exponent, 3 of significand, as the paper's table has them.
double value_of(int code) {
  const double sign = code >= 128 ? -1 : 1;
  const int exponent = code / 8 % 16, significand = code % 8;
  if (exponent == 15 && significand == 7) return std::numeric_limits<double>::quiet_NaN();
  if (exponent == 0) return sign * std::ldexp(significand, -9);
  return sign * std::ldexp(8 + significand, exponent - 10);
}

float decoded(int code) {
  return static_cast<float>(e4m3::from_bits(static_cast<std::uint8_t>(code)));
}

TEST(E4m3, EachOfTheCodesHasItsValueExactly) {
  for (int code = 0; code < 256; ++code) {
    const double wanted = value_of(code);
    const float got = decoded(code);
    if (std::isnan(wanted)) {
      EXPECT_TRUE(pare::is_nan(got)) << code;
    } else {
      EXPECT_EQ(got, wanted) << code;
      EXPECT_EQ(std::signbit(got), code >= 128) << code;
    }
  }
  EXPECT_EQ(decoded(0x7e), 448);
  EXPECT_EQ(decoded(0x08), 0x1p-6f);
  EXPECT_EQ(decoded(0x01), 0x1p-9f);
}

TEST(E4m3, EachValueHasItsCode) {
  for (int code = 0; code < 256; ++code) EXPECT_EQ(e4m3(decoded(code)).bits, code) << code;
}

/// The nearest of all values, the one with an even code of two that are as near.
std::uint8_t nearest(float x) {
  int best = 0;
  for (int code = 0; code < 127; ++code) {
    const double off = std::abs(value_of(code) - std::abs(static_cast<double>(x)));
    const double least = std::abs(value_of(best) - std::abs(static_cast<double>(x)));
    if (off < least || (off == least && code % 2 == 0)) best = code;
  }
  return static_cast<std::uint8_t>(best + (std::signbit(x) ? 128 : 0));
}

TEST(E4m3, NumbersAreRoundedToTheNearestAndTiesToEven) {
  for (int code = 0; code < 126; ++code) {
    const float low = decoded(code), high = decoded(code + 1), middle = low + (high - low) / 2;
    for (const float x : {std::nextafter(middle, 0.0f), middle, std::nextafter(middle, 500.0f),
                          std::nextafter(low, 500.0f), std::nextafter(high, 0.0f)})
      for (const float y : {x, -x}) EXPECT_EQ(e4m3(y).bits, nearest(y)) << y;
  }
  std::mt19937_64 random(3);
  for (int n = 0; n < 20000; ++n) {
    const float x = std::ldexp(static_cast<float>(random() % 20001) / 10000 - 1,
                               static_cast<int>(random() % 24) - 14);
    EXPECT_EQ(e4m3(x).bits, nearest(x)) << x;
  }
}

TEST(E4m3, WhatIsTooLargeBecomesTheLargest) {
  for (const float x :
       {448.0f, 449.0f, 463.0f, 464.0f, 465.0f, 480.0f, 1e9f, std::numeric_limits<float>::max(),
        std::numeric_limits<float>::infinity()}) {
    EXPECT_EQ(e4m3(x).bits, 0x7e) << x;
    EXPECT_EQ(e4m3(-x).bits, 0xfe) << x;
  }
}

TEST(E4m3, WhatIsTooSmallBecomesZeroWithItsSign) {
  for (const float x : {0.0f, 0x1p-10f, std::numeric_limits<float>::min(),
                        std::numeric_limits<float>::denorm_min()}) {
    EXPECT_EQ(e4m3(x).bits, 0) << x;
    EXPECT_EQ(e4m3(-x).bits, 0x80) << x;
  }
  EXPECT_EQ(e4m3(std::nextafter(0x1p-10f, 1.0f)).bits, 1);
}

TEST(E4m3, ANaNStaysOneWithItsSign) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  EXPECT_EQ(e4m3(nan).bits, 0x7f);
  EXPECT_EQ(e4m3(-nan).bits, 0xff);
  EXPECT_EQ(e4m3(std::numeric_limits<float>::signaling_NaN()).bits, 0x7f);
}

TEST(E4m3, ConstantsAreMadeByTheCompiler) {
  static_assert(e4m3(0.3f).bits == 0x2a && static_cast<float>(e4m3(0.3f)) == 0.3125f);
  static_assert(static_cast<float>(e4m3(-1e4f)) == -pare::largest_e4m3);
  static_assert(sizeof(e4m3) == 1 && e4m3().bits == 0);
  static_assert(!pare::StorageScalar<e4m3>);
}

}  // namespace
}  // namespace core_e4m3_test
