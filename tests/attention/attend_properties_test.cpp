// SPDX-License-Identifier: Apache-2.0
// What attention must do whatever the numbers: shifts, scales, constants, extremes, no future.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <type_traits>
#include <vector>

#include <pare/attention/attend.hpp>

#include "attention/attend_calls.hpp"
#include "attention/backends.hpp"
#include "attention/data.hpp"
#include "support/tolerance.hpp"

namespace attention_attend_properties_test {
namespace {

using pare::compute_t;
using pare::Index;
using pare::testing::all_same_bits;
using pare::testing::attended;
using pare::testing::change;
using pare::testing::difference;
using pare::testing::expect_attention;
using pare::testing::Inputs;
using pare::testing::Outputs;
using pare::testing::same_bits;
using pare::testing::Sees;
using pare::testing::Sizes;
using pare::testing::unmodified;

template <class Case>
struct AttendPropertiesTest : testing::Test {
  using Storage = typename Case::scalar;
  using Compute = compute_t<Storage>;
  static constexpr double tolerance = pare::testing::attention_bound<Case>();
  static auto backend() { return Case::backend::make(); }
};
TYPED_TEST_SUITE(AttendPropertiesTest, pare::testing::AttendBackends);

// q.(k + u) = q.k + q.u, and q.u is the same for all keys of a row.
TYPED_TEST(AttendPropertiesTest, AVectorAddedToAllKeysChangesNothing) {
  using S = typename TestFixture::Storage;
  using T = typename TestFixture::Compute;
  // Integers: the sums are exact in every scalar.
  Inputs<S> x(Sizes{1, 2, 2, 30, 150, 16, 8});
  change(x.q, [](T q) { return std::round(q); });
  change(x.k, [](T k) { return std::round(k * 2); });
  Inputs<S> shifted = x;
  for (Index h = 0; h < 2; ++h)
    for (Index j = 0; j < 150; ++j)
      for (Index c = 0; c < 16; ++c)
        shifted.k(0, h, j, c) = static_cast<S>(static_cast<T>(x.k(0, h, j, c)) + T(c % 5 - 2));
  Outputs<S> a = attended(this->backend(), x, {.scale = 0.125}),
             b = attended(this->backend(), shifted, {.scale = 0.125});
  expect_attention(x, a, this->tolerance, Sees{30, 150}, unmodified, 0.125);
  EXPECT_FALSE(all_same_bits(a.lse.list, b.lse.list));
  b.lse.list = a.lse.list;
  EXPECT_LE(difference(a, b), 2 * this->tolerance);
}

TYPED_TEST(AttendPropertiesTest, ValuesTimesAPowerOfTwoScaleTheOutput) {
  using S = typename TestFixture::Storage;
  using T = typename TestFixture::Compute;
  const Inputs<S> x(Sizes{1, 2, 1, 30, 150, 16, 8});
  Inputs<S> larger = x;
  change(larger.v, [](T v) { return v * T(64); });
  Outputs<S> y = attended(this->backend(), x, {.causal = true});
  change(y.out, [](T out) { return out * T(64); });
  EXPECT_TRUE(same_outputs(attended(this->backend(), larger, {.causal = true}), y));
}

TYPED_TEST(AttendPropertiesTest, ConstantValuesGiveTheConstant) {
  using S = typename TestFixture::Storage;
  using T = typename TestFixture::Compute;
  Inputs<S> x(Sizes{1, 2, 1, 200, 300, 16, 8});
  change(x.v, [](T) { return T(3); });
  const Outputs<S> y = attended(this->backend(), x, {.causal = true, .window = 130});
  // Numerator and denominator are sums of the same weights, each with at most 131 roundings, though
  // not always in the same order.
  const double rounding = 2 * pare::testing::Tolerance<T>::gamma(140) * 3;
  for (const T out : y.out.list) ASSERT_LE(std::abs(out - T(3)), rounding);
}

/// Keys and values of tokens from `first` on are no longer numbers that mean anything.
template <class S>
void spoil(Inputs<S>& x, Index first) {
  using T = compute_t<S>;
  const T largest = std::is_same_v<S, pare::f16> ? T(60000) : T(1e30);
  for (Index h = 0; h < x.sizes.kv_heads; ++h)
    for (Index j = first; j < x.sizes.keys; ++j) {
      for (Index c = 0; c < x.sizes.key_dim; ++c)
        x.k(0, h, j, c) = static_cast<S>(c % 3 == 0   ? std::numeric_limits<T>::quiet_NaN()
                                         : c % 3 == 1 ? std::numeric_limits<T>::infinity()
                                                      : -largest);
      for (Index c = 0; c < x.sizes.value_dim; ++c)
        x.v(0, h, j, c) = static_cast<S>((j + c) % 2 == 0 ? largest : -largest);
    }
}

TYPED_TEST(AttendPropertiesTest, NothingOfTheFutureReachesARow) {
  using S = typename TestFixture::Storage;
  const Sizes sizes{1, 2, 1, 140, 150, 16, 8};
  const Inputs<S> x(sizes);
  const Outputs<S> wanted = attended(this->backend(), x, {.causal = true});
  for (const Index first : {11, 60, 128, 149}) {
    Inputs<S> spoiled = x;
    spoil(spoiled, first);
    const Outputs<S> y = attended(this->backend(), spoiled, {.causal = true});
    for (Index h = 0; h < 2; ++h)
      for (Index i = 0; i < 140 && i + 10 < first; ++i) {
        EXPECT_TRUE(same_bits(y.lse(0, h, i, 0), wanted.lse(0, h, i, 0))) << first << ' ' << i;
        for (Index c = 0; c < 8; ++c)
          EXPECT_TRUE(same_bits(y.out(0, h, i, c), wanted.out(0, h, i, c))) << first << ' ' << i;
      }
  }
}

// Integers, so that scores are exact in every scalar. The second half of the keys are the first
// with scores larger by 1, so that the largest two share the weight.
TYPED_TEST(AttendPropertiesTest, ScoresOfTenThousands) {
  using S = typename TestFixture::Storage;
  using T = typename TestFixture::Compute;
  Inputs<S> x(Sizes{1, 1, 1, 40, 140, 16, 8});
  change(x.q, [](T q) { return std::round(q * T(32)); });
  change(x.k, [](T k) { return std::round(k * T(32)); });
  for (Index i = 0; i < 40; ++i) x.q(0, 0, i, 0) = static_cast<S>(T(1));
  for (Index j = 70; j < 140; ++j)
    for (Index c = 0; c < 16; ++c)
      x.k(0, 0, j, c) =
          static_cast<S>(static_cast<T>(x.k(0, 0, j - 70, c)) + (c == 0 ? T(1) : T(0)));
  const Outputs<S> y = attended(this->backend(), x, {.scale = 1});
  const T largest = *std::max_element(y.lse.list.begin(), y.lse.list.end());
  EXPECT_GT(largest, T(1e4));
  EXPECT_LT(largest, T(2.2e4));
  // log2(e) s is below 2^15 and off by half its last bit, 2^-10 in float, as are the weights then;
  // values are below 5.
  const double u = pare::testing::Tolerance<T>::unit_roundoff * 0x1p24;
  expect_attention(x, y, std::max(this->tolerance, 2 * u * 0x1p-10 * 5), Sees{40, 140}, unmodified,
                   1);
}

TYPED_TEST(AttendPropertiesTest, EqualKeysZeroKeysAndSubnormalsShareTheWeight) {
  using S = typename TestFixture::Storage;
  using T = typename TestFixture::Compute;
  const T subnormal = static_cast<T>(static_cast<S>(std::is_same_v<S, pare::f16> ? 1e-7f : 1e-39f));
  for (const T key : {T(0), T(-0.0), T(1.5), subnormal, std::numeric_limits<T>::denorm_min()}) {
    Inputs<S> x(Sizes{1, 1, 1, 50, 150, 16, 8});
    change(x.k, [key](T) { return key; });
    const Outputs<S> y = attended(this->backend(), x, {.causal = true});
    expect_attention(x, y, this->tolerance, Sees{50, 150, true});
  }
  Inputs<S> x(Sizes{1, 1, 1, 50, 150, 16, 8});
  change(x.v, [subnormal](T) { return subnormal; });
  for (const T out : attended(this->backend(), x).out.list) ASSERT_TRUE(std::abs(out) < T(1e-6));
}

/// Rows for which `spoiled` is true must be NaN throughout, all others as they were.
template <class S, class Spoiled>
void expect_spoiled(const Outputs<S>& y, const Outputs<S>& before, const Spoiled& spoiled) {
  for (Index h = 0; h < y.out.extent[1]; ++h)
    for (Index i = 0; i < y.out.extent[2]; ++i) {
      const bool lost = spoiled(h, i);
      const auto as_expected = [lost](auto got, auto was) {
        return lost ? std::isnan(got) : same_bits(got, was);
      };
      EXPECT_TRUE(as_expected(y.lse(0, h, i, 0), before.lse(0, h, i, 0))) << h << ' ' << i;
      for (Index c = 0; c < y.out.extent[3]; ++c)
        EXPECT_TRUE(as_expected(y.out(0, h, i, c), before.out(0, h, i, c))) << h << ' ' << i;
    }
}

TYPED_TEST(AttendPropertiesTest, ANaNOrInfiniteQueryIsNaNInItsOwnRow) {
  using S = typename TestFixture::Storage;
  using T = typename TestFixture::Compute;
  Inputs<S> x(Sizes{1, 2, 1, 60, 150, 16, 8});
  const Outputs<S> before = attended(this->backend(), x, {.causal = true});
  x.q(0, 0, 7, 3) = static_cast<S>(std::numeric_limits<T>::quiet_NaN());
  x.q(0, 1, 31, 15) = static_cast<S>(std::numeric_limits<T>::infinity());
  expect_spoiled(attended(this->backend(), x, {.causal = true}), before,
                 [](Index h, Index i) { return h == 0 ? i == 7 : i == 31; });
}

TYPED_TEST(AttendPropertiesTest, ANaNKeyReachesTheRowsThatSeeItAndNoOther) {
  using S = typename TestFixture::Storage;
  using T = typename TestFixture::Compute;
  const Inputs<S> x(Sizes{1, 2, 2, 150, 150, 16, 8});
  const Outputs<S> before = attended(this->backend(), x, {.causal = true, .window = 40});
  for (const Index at : {0, 5, 64, 127, 130, 149}) {
    Inputs<S> spoiled = x;
    spoiled.k(0, 1, at, 2) = static_cast<S>(std::numeric_limits<T>::quiet_NaN());
    expect_spoiled(attended(this->backend(), spoiled, {.causal = true, .window = 40}), before,
                   [at](Index h, Index i) { return h == 1 && i >= at && i < at + 40; });
  }
}

// An infinite key gives a score of +inf to the queries that point its way.
TYPED_TEST(AttendPropertiesTest, AScoreOfPlusInfinityIsNaN) {
  using S = typename TestFixture::Storage;
  using T = typename TestFixture::Compute;
  Inputs<S> x(Sizes{1, 1, 1, 100, 150, 16, 8});
  for (Index i = 0; i < 100; ++i)
    x.q(0, 0, i, 2) = static_cast<S>(std::abs(static_cast<T>(x.q(0, 0, i, 2))) + T(0.5));
  const Outputs<S> before = attended(this->backend(), x, {.causal = true});
  x.k(0, 0, 80, 2) = static_cast<S>(std::numeric_limits<T>::infinity());
  expect_spoiled(attended(this->backend(), x, {.causal = true}), before,
                 [](Index, Index i) { return i + 50 >= 80; });
}

// A NaN value may also reach rows that are computed together with those that see it, but not rows
// that see nothing of its tile, nor other columns, nor the log-sum-exp.
TYPED_TEST(AttendPropertiesTest, ANaNValueReachesTheRowsThatSeeIt) {
  using S = typename TestFixture::Storage;
  using T = typename TestFixture::Compute;
  Inputs<S> x(Sizes{1, 1, 1, 150, 150, 16, 8});
  const Outputs<S> before = attended(this->backend(), x, {.causal = true});
  x.v(0, 0, 135, 4) = static_cast<S>(std::numeric_limits<T>::quiet_NaN());
  const Outputs<S> y = attended(this->backend(), x, {.causal = true});
  EXPECT_TRUE(all_same_bits(y.lse.list, before.lse.list));
  for (Index i = 0; i < 150; ++i)
    for (Index c = 0; c < 8; ++c) {
      if (i >= 135 && c == 4) {
        EXPECT_TRUE(std::isnan(y.out(0, 0, i, c))) << i;
      }
      if (i < 120 || c != 4) {
        EXPECT_TRUE(same_bits(y.out(0, 0, i, c), before.out(0, 0, i, c))) << i;
      }
    }
}

}  // namespace
}  // namespace attention_attend_properties_test
