// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <type_traits>
#include <vector>

#include <pare/kernel/score_modifier.hpp>

#include "support/tolerance.hpp"

namespace kernel_score_modifier_test {
namespace {

using pare::testing::same_bits;
using pare::testing::Tolerance;
using pare::testing::within;
namespace kernel = pare::kernel;

template <class T>
struct ScoreModifierTest : testing::Test {};
using Scalars = testing::Types<float, double>;
TYPED_TEST_SUITE(ScoreModifierTest, Scalars);

constexpr kernel::ScorePlace somewhere{1, 2, 3, 17, 5};

template <class T>
T infinity() {
  return std::numeric_limits<T>::infinity();
}

/// A quiet NaN with a payload in its lowest bits.
template <class T>
T payload_nan() {
  if constexpr (std::is_same_v<T, float>)
    return std::bit_cast<float>(std::uint32_t{0x7fc00001});
  else
    return std::bit_cast<double>(std::uint64_t{0x7ff80000000007a2});
}

TYPED_TEST(ScoreModifierTest, ExactIsTheIdentity) {
  const TypeParam values[] = {TypeParam(-0.0), TypeParam(1) / 3, -infinity<TypeParam>(),
                              std::numeric_limits<TypeParam>::quiet_NaN()};
  for (const TypeParam x : values)
    EXPECT_TRUE(same_bits(kernel::Exact{}.modify(x, somewhere), x)) << x;
}

TYPED_TEST(ScoreModifierTest, SoftCapIsItsFormula) {
  for (const float cap : {0.5f, 30.0f, 50.0f, 1000.0f})
    for (int i = -4000; i <= 4000; ++i) {
      const auto x = static_cast<TypeParam>(i * static_cast<double>(cap) / 150);
      const long double wanted = cap * std::tanh(static_cast<long double>(x) / cap);
      // Of cap: the argument of the power has 3 roundings, by which 1 - 2 / (e^2x + 1) moves
      // 3 |x| / cosh^2 x <= 1.4 u; the power's 3 u move it 1.5 u; 4 u come of the sum and the
      // quotient, which is at most 2, and one each of the difference and the last product.
      const double bound = Tolerance<TypeParam>::gamma(9) * static_cast<double>(cap);
      ASSERT_TRUE(within(static_cast<double>(kernel::SoftCap{cap}.modify(x, somewhere)),
                         static_cast<double>(wanted), bound))
          << "cap " << cap << " of " << x;
    }
}

// In units of the result: of e = 2^t - 1, t a product of 3 roundings, no more than 8 u are left,
// and the sum, the quotient and the last product round.
TYPED_TEST(ScoreModifierTest, SoftCapIsAccurateForEveryCap) {
  for (const float cap : {1e-30f, 0.5f, 50.0f, 1000.0f, 1e8f, 1e30f, 3e38f})
    for (int i = -200; i <= 200; ++i)
      for (const double size : {1e-9, 1e-5, 1e-3, 0.1, 1.0}) {
        const auto x = static_cast<TypeParam>(i * size * std::min(1.0, static_cast<double>(cap)));
        const long double wanted = cap * std::tanh(static_cast<long double>(x) / cap);
        ASSERT_TRUE(within(static_cast<double>(kernel::SoftCap{cap}.modify(x, somewhere)),
                           static_cast<double>(wanted),
                           Tolerance<TypeParam>::gamma(12) * std::abs(static_cast<double>(wanted))))
            << "cap " << cap << " of " << x;
      }
}

TYPED_TEST(ScoreModifierTest, SoftCapBoundsAnyScoreAndKeepsNans) {
  const kernel::SoftCap cap{50};
  const TypeParam large[] = {TypeParam(2000), TypeParam(1e6), std::numeric_limits<TypeParam>::max(),
                             infinity<TypeParam>()};
  for (const TypeParam x : large) {
    EXPECT_EQ(cap.modify(x, somewhere), TypeParam(50)) << x;
    EXPECT_EQ(cap.modify(-x, somewhere), TypeParam(-50)) << x;
  }
  EXPECT_TRUE(std::isnan(cap.modify(std::numeric_limits<TypeParam>::quiet_NaN(), somewhere)));
  EXPECT_TRUE(std::isnan(cap.modify(payload_nan<TypeParam>(), somewhere)));
}

TYPED_TEST(ScoreModifierTest, AlibiSubtractsTheDistanceTimesTheSlopeOfTheHead) {
  const float slopes[] = {0.5f, 0.25f, 0.125f};
  for (std::int64_t head = 0; head < 3; ++head)
    for (std::int64_t key = 0; key < 40; ++key) {
      const kernel::ScorePlace place{7, head, 4, 20, key};
      const auto got = kernel::Alibi{slopes}.modify(TypeParam(3), place);
      EXPECT_EQ(static_cast<double>(got),
                3 - static_cast<double>(slopes[head]) * std::abs(static_cast<double>(20 - key)));
    }
}

/// A bias of whole numbers over [2][3][4][8], each different.
template <class B>
std::vector<B> numbered_bias() {
  std::vector<B> bias;
  for (int i = 0; i < 2 * 3 * 4 * 8; ++i) bias.push_back(B(static_cast<pare::compute_t<B>>(i)));
  return bias;
}

template <class T, class B>
void expect_bias() {
  const std::vector<B> bias = numbered_bias<B>();
  const kernel::AddBias<B> full{bias.data(), {96, 32, 8, 1}};
  const kernel::AddBias<B> broadcast{bias.data(), {0, 8, 0, 1}};
  for (std::int64_t b = 0; b < 2; ++b)
    for (std::int64_t h = 0; h < 3; ++h)
      for (std::int64_t q = 0; q < 4; ++q)
        for (std::int64_t k = 0; k < 8; ++k) {
          // The position of the query is not where its bias is.
          const kernel::ScorePlace place{b, h, q, q + 100, k};
          EXPECT_EQ(full.modify(T(0.5), place), T(0.5) + T(b * 96 + h * 32 + q * 8 + k));
          EXPECT_EQ(broadcast.modify(T(0.5), place), T(0.5) + T(h * 8 + k));
        }
}

TYPED_TEST(ScoreModifierTest, AddBiasReadsItsPlaceWhateverItsScalar) {
  expect_bias<TypeParam, float>();
  expect_bias<TypeParam, double>();
  expect_bias<TypeParam, pare::bf16>();
  expect_bias<TypeParam, pare::f16>();
}

TYPED_TEST(ScoreModifierTest, AddBiasOfMinusInfinityHidesTheKey) {
  const float bias[] = {0, -std::numeric_limits<float>::infinity()};
  const kernel::AddBias<float> hide{bias, {0, 0, 0, 1}};
  EXPECT_EQ(hide.modify(TypeParam(1e4), kernel::ScorePlace{0, 0, 0, 0, 1}), -infinity<TypeParam>());
  EXPECT_EQ(hide.modify(TypeParam(1e4), kernel::ScorePlace{0, 0, 0, 0, 0}), TypeParam(1e4));
}

/// A user's modifiers, which do not commute.
struct Double {
  template <class T>
  T modify(T score, const kernel::ScorePlace&) const noexcept {
    return 2 * score;
  }
};
struct AddKey {
  template <class T>
  T modify(T score, const kernel::ScorePlace& place) const noexcept {
    return score + static_cast<T>(place.key);
  }
};

TYPED_TEST(ScoreModifierTest, ChainAppliesTheFirstFirst) {
  EXPECT_EQ((kernel::Chain<Double, AddKey>{}.modify(TypeParam(10), somewhere)), TypeParam(25));
  EXPECT_EQ((kernel::Chain<AddKey, Double>{}.modify(TypeParam(10), somewhere)), TypeParam(30));
  EXPECT_EQ(
      (kernel::Chain<AddKey, kernel::Chain<Double, AddKey>>{}.modify(TypeParam(10), somewhere)),
      TypeParam(35));
}

}  // namespace
}  // namespace kernel_score_modifier_test
