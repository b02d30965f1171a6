// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <pare/transformer/rotary.hpp>

#include <Eigen/Core>
#include <unsupported/Eigen/CXX11/Tensor>

#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <type_traits>
#include <vector>

#include "support/allocations.hpp"
#include "support/properties.hpp"
#include "transformer/rows.hpp"

namespace transformer_rotary_test {
namespace {

using pare::Index;
using pare::TensorView;
using pare::testing::expect_stored;
using pare::testing::refuses_and_leaves_alone;
using pare::testing::Tolerance;
using namespace pare::transformer;

template <class Case>
struct RotaryTest : testing::Test {
  static auto backend() { return Case::backend::make(); }
};
TYPED_TEST_SUITE(RotaryTest, pare::testing::RowCases);

/// A tensor [batch, heads, tokens, dim] of random numbers: by heads, or by tokens with gaps.
template <class S>
struct Heads {
  std::vector<S> memory;
  TensorView<S, 4> view;

  Heads(std::array<Index, 4> extent, bool by_heads, std::uint64_t seed = 1)
      : view{nullptr, extent, {}} {
    const auto [batch, heads, tokens, dim] = extent;
    const Index row = dim + (by_heads ? 0 : 3);
    view.stride = by_heads ? std::array<Index, 4>{heads * tokens * row, tokens * row, row, 1}
                           : std::array<Index, 4>{heads * tokens * row, row, heads * row, 1};
    memory.assign(static_cast<std::size_t>(batch * heads * tokens * row),
                  static_cast<S>(std::numeric_limits<float>::quiet_NaN()));
    view.data = memory.data();
    pare::testing::Engine random(seed);
    each([&](S& x, Index, Index, Index, Index) {
      x = static_cast<S>(static_cast<pare::compute_t<S>>(pare::testing::uniform(random)));
    });
  }
  Heads(const Heads& other) : memory(other.memory), view(other.view) { view.data = memory.data(); }

  template <class F>
  void each(const F& f) {
    for (Index b = 0; b < view.extent[0]; ++b)
      for (Index h = 0; h < view.extent[1]; ++h)
        for (Index t = 0; t < view.extent[2]; ++t)
          for (Index d = 0; d < view.extent[3]; ++d) f(view(b, h, t, d), b, h, t, d);
  }
  long double at(Index b, Index h, Index t, Index d) const {
    return static_cast<long double>(static_cast<pare::compute_t<S>>(view(b, h, t, d)));
  }
  std::size_t gaps() const {
    std::size_t count = 0;
    for (const S x : memory) count += std::isnan(static_cast<pare::compute_t<S>>(x)) ? 1 : 0;
    return count;
  }
};

/// Angles in double: a power and a product, each within a rounding of it, and one of the exponent,
/// which costs log(base) times as much, 10 u; then the rounding of sines, and two products.
template <class S>
void expect_rotated(const Heads<S>& before, Heads<S>& after, RotaryLayout layout, Index pairs,
                    double base, const std::vector<Index>& positions) {
  using T = pare::compute_t<S>;
  const Index tokens = before.view.extent[2];
  after.each([&](S& got, Index b, Index h, Index t, Index d) {
    if (d >= 2 * pairs) {
      ASSERT_TRUE(pare::testing::same_bits(got, before.view(b, h, t, d)));
      return;
    }
    const bool interleaved = layout == RotaryLayout::Interleaved;
    const Index i = interleaved ? d / 2 : d % pairs;
    const bool second = interleaved ? d % 2 == 1 : d >= pairs;
    const long double x = before.at(b, h, t, interleaved ? 2 * i : i);
    const long double y = before.at(b, h, t, interleaved ? 2 * i + 1 : i + pairs);
    const auto at =
        static_cast<std::size_t>(positions.size() == std::size_t(tokens) ? t : b * tokens + t);
    const long double angle =
        static_cast<long double>(positions[at]) *
        std::pow(static_cast<long double>(base),
                 -static_cast<long double>(2 * i) / static_cast<long double>(2 * pairs));
    const long double wanted = second ? y * std::cos(angle) + x * std::sin(angle)
                                      : x * std::cos(angle) - y * std::sin(angle);
    const double size = std::abs(static_cast<double>(x)) + std::abs(static_cast<double>(y));
    expect_stored(got, wanted,
                  size * (4 * Tolerance<T>::unit_roundoff +
                          13 * Tolerance<double>::unit_roundoff * static_cast<double>(angle)),
                  t, d);
  });
}

std::vector<Index> counted(Index from, Index count) {
  std::vector<Index> all;
  for (Index i = 0; i < count; ++i) all.push_back(from + i);
  return all;
}

TYPED_TEST(RotaryTest, TurnsPairsByTheAnglesOfTheirPosition) {
  using S = typename TypeParam::scalar;
  using T = pare::compute_t<S>;
  for (const auto layout : {RotaryLayout::Interleaved, RotaryLayout::HalfSplit})
    for (const Index pairs : {1, 3, 8, 16, 17, 32})
      for (const Index rest : {0, 5})
        for (const Index first : {0, 8190, 1000000}) {
          const RotaryTable<T> table(rotary_frequencies(2 * pairs), 8, first);
          const Heads<S> before({2, 3, 6, 2 * pairs + rest}, rest == 0);
          Heads<S> after = before;
          rotate(this->backend(), after.view, table,
                 {.layout = layout, .first_position = first + 1});
          expect_rotated(before, after, layout, pairs, 10000, counted(first + 1, 6));
          EXPECT_EQ(after.gaps(), before.gaps());
        }
}

TYPED_TEST(RotaryTest, TakesAListOfPositionsForAllOrForEachOfTheBatch) {
  using S = typename TypeParam::scalar;
  const RotaryTable<pare::compute_t<S>> table(rotary_frequencies(32, 500000), 100);
  const std::vector<Index> all{7, 0, 99, 7, 3}, each{7, 0, 99, 7, 3, 1, 2, 3, 50, 98};
  for (const auto* list : {&all, &each}) {
    const Heads<S> before({2, 3, 5, 32}, false);
    Heads<S> after = before;
    rotate(this->backend(), after.view, table, {.positions = *list});
    expect_rotated(before, after, RotaryLayout::Interleaved, 16, 500000, *list);
  }
}

TYPED_TEST(RotaryTest, ScoresDependOnTheDistanceAlone) {
  using S = typename TypeParam::scalar;
  using T = pare::compute_t<S>;
  if (!pare::ComputeScalar<S>) return;
  const RotaryTable<T> table(rotary_frequencies(64), 4000);
  for (const auto layout : {RotaryLayout::Interleaved, RotaryLayout::HalfSplit}) {
    std::vector<long double> scores;
    for (const Index shift : {0, 1, 1000, 3000}) {
      Heads<S> q({1, 1, 1, 64}, true, 1), k({1, 1, 1, 64}, true, 2);
      rotate(this->backend(), q.view, table, {.layout = layout, .first_position = shift + 40});
      rotate(this->backend(), k.view, table, {.layout = layout, .first_position = shift + 7});
      long double score = 0;
      for (Index d = 0; d < 64; ++d) score += q.at(0, 0, 0, d) * k.at(0, 0, 0, d);
      scores.push_back(score);
    }
    // 64 products of numbers below 1.5, each of 8 u and an angle of up to 4000.
    const double bound = 64 * 2 * (10 * Tolerance<T>::unit_roundoff + 13 * 4000 * 0x1p-53);
    for (const long double score : scores)
      EXPECT_NEAR(static_cast<double>(score), static_cast<double>(scores[0]), bound);
  }
}

TYPED_TEST(RotaryTest, PositionZeroIsTheIdentityAndMinusTheAngleTurnsBack) {
  using S = typename TypeParam::scalar;
  using T = pare::compute_t<S>;
  RotaryFrequencies back = rotary_frequencies(32);
  const RotaryTable<T> table(back, 50);
  for (double& f : back.frequencies) f = -f;
  const RotaryTable<T> inverse(back, 50);
  const Heads<S> before({1, 2, 1, 32}, true);
  Heads<S> after = before;
  rotate(this->backend(), after.view, table);
  EXPECT_TRUE(after.memory.size() == before.memory.size());
  after.each([&](S& x, Index b, Index h, Index t, Index d) {
    ASSERT_EQ(static_cast<T>(x), static_cast<T>(before.view(b, h, t, d)));
  });
  rotate(this->backend(), after.view, table, {.first_position = 49});
  rotate(this->backend(), after.view, inverse, {.first_position = 49});
  after.each([&](S& x, Index b, Index h, Index t, Index d) {
    const double tolerance = std::is_same_v<T, S> ? 16 * Tolerance<T>::unit_roundoff
                                                  : 4 * pare::testing::storage_roundoff<S>;
    ASSERT_NEAR(static_cast<double>(static_cast<T>(x)), static_cast<double>(before.at(b, h, t, d)),
                tolerance);
  });
}

/// Positions of two dimensions, and a magnitude, as types of a user's.
struct Grid {
  Index width = 5;
  Index pairs() const { return 4; }
  double angle(Index token, Index pair) const {
    return 0.25 * static_cast<double>(pair < 2 ? token / width : token % width);
  }
  double magnitude() const { return 1.5; }
};

TEST(Rotary, AnglesAreAPolicy) {
  const RotaryTable<double> table(Grid{}, 20);
  for (const Index token : {0, 7, 19})
    for (Index pair = 0; pair < 4; ++pair) {
      const double angle = 0.25 * static_cast<double>(pair < 2 ? token / 5 : token % 5);
      EXPECT_DOUBLE_EQ(table.cosine(token, pair), 1.5 * std::cos(angle));
      EXPECT_DOUBLE_EQ(table.sine(token, pair), 1.5 * std::sin(angle));
    }
}

TEST(Rotary, AnyThreadsHaveTheSameBits) {
  const Heads<float> before({2, 9, 300, 64}, false);
  const RotaryTable<float> table(rotary_frequencies(64), 300);
  pare::testing::same_bits_for_any_threads(pare::simd, [&](const auto& backend) {
    Heads<float> x = before;
    rotate(backend, x.view, table);
    return x.memory;
  });
}

TEST(Rotary, ADecodeStepAllocatesNothing) {
  Eigen::Tensor<float, 4, Eigen::RowMajor> q(1, 9, 1, 64);
  q.setConstant(1);
  const RotaryTable<float> table(rotary_frequencies(64), 100);
  rotate(q, table);
  const long before = pare::testing::allocations;
  for (Index position = 1; position < 100; ++position)
    rotate(q, table, {.layout = RotaryLayout::HalfSplit, .first_position = position});
  EXPECT_EQ(pare::testing::allocations - before, 0);
}

TYPED_TEST(RotaryTest, WhatDoesNotFitIsRefused) {
  using S = typename TypeParam::scalar;
  const auto b = this->backend();
  const RotaryTable<pare::compute_t<S>> table(rotary_frequencies(8), 10, 5);
  Heads<S> x({2, 1, 3, 8}, true), narrow({2, 1, 3, 7}, true);
  const auto refused = [&](const auto& call, const char* argument) {
    refuses_and_leaves_alone(call, "transformer::rotate", argument, x.memory, narrow.memory);
  };
  refused([&] { rotate(b, narrow.view, table, {.first_position = 5}); }, "x");
  refused(
      [&] {
        rotate(b, TensorView<S, 4>{x.view.data, {1, 1, 2, 8}, {0, 0, 1, 2}}, table,
               {.first_position = 5});
      },
      "x");
  refused(
      [&] {
        rotate(b, TensorView<S, 4>{x.view.data, {1, 2, 2, 8}, {0, 0, 8, 1}}, table,
               {.first_position = 5});
      },
      "x");
  refused(
      [&] {
        rotate(b, TensorView<S, 4>{nullptr, {1, 2, 2, 8}, {0, 16, 8, 1}}, table,
               {.first_position = 5});
      },
      "x");
  for (const Index p :
       {Index{-1}, Index{0}, Index{4}, Index{13}, Index{15}, std::numeric_limits<Index>::max()})
    refused([&] { rotate(b, x.view, table, {.first_position = p}); }, "first_position");
  for (const Index p : {Index{-1}, Index{4}, Index{15}, std::numeric_limits<Index>::min()}) {
    const std::vector<Index> list{5, p, 6};
    refused([&] { rotate(b, x.view, table, {.positions = list}); }, "positions");
  }
  const std::vector<Index> four{5, 6, 7, 8}, three{5, 6, 7};
  refused([&] { rotate(b, x.view, table, {.positions = four}); }, "positions");
  refused([&] { rotate(b, x.view, table, {.first_position = 5, .positions = three}); },
          "first_position");
  refused([&] { rotate(b, x.view, table, {.layout = RotaryLayout{2}, .first_position = 5}); },
          "layout");
  // No tokens: nothing to do, whatever the position.
  rotate(b, TensorView<S, 4>{nullptr, {1, 2, 0, 8}, {0, 16, 8, 1}}, table);
}

TEST(Rotary, BadTablesAreRefused) {
  using pare::testing::refusal;
  constexpr Index most = std::numeric_limits<Index>::max();
  for (const Index dims : {0, 7, -2})
    refusal([&] { rotary_frequencies(dims); }, "transformer::rotary_frequencies", "dims");
  for (const double base : {0.0, -1.0, std::numeric_limits<double>::infinity()})
    refusal([&] { rotary_frequencies(8, base); }, "transformer::rotary_frequencies", "base");
  const auto table = [](const RotaryFrequencies& f, Index count, Index first) {
    RotaryTable<float> t(f, count, first);
  };
  const RotaryFrequencies right = rotary_frequencies(8);
  constexpr const char* name = "transformer::RotaryTable";
  refusal([&] { table({}, 1, 0); }, name, "angles");
  refusal([&] { table(right, -1, 0); }, name, "count");
  refusal([&] { table(right, 1, -1); }, name, "first");
  refusal([&] { table(right, 2, most); }, name, "first");
  refusal([&] { table(right, most / 8, 0); }, name, "count");
  refusal([&] { table({{1, std::nan("")}}, 2, 0); }, name, "angles");
  refusal([&] { table({{1}, 0}, 2, 0); }, name, "magnitude");
}

}  // namespace
}  // namespace transformer_rotary_test
