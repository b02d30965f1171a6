// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <pare/transformer/rotary.hpp>
#include <pare/transformer/rotary_grid.hpp>
#include <pare/transformer/yarn.hpp>

#include <array>
#include <cmath>
#include <cstddef>
#include <limits>
#include <utility>
#include <vector>

#include "support/properties.hpp"
#include "transformer/rows.hpp"

namespace transformer_rotary_angles_test {
namespace {

using pare::Index;
using pare::TensorView;
using pare::testing::refusal;
using namespace pare::transformer;

constexpr double unit = 0x1p-53;

TEST(Yarn, FrequenciesOfDeepSeekAreKeptMixedAndDivided) {
  const Yarn yarn{.factor = 40, .trained_context = 4096};
  const RotaryFrequencies plain = rotary_frequencies(64), got = yarn_frequencies(64, yarn);
  ASSERT_EQ(got.pairs(), 32);
  EXPECT_EQ(got.magnitude(), 1);
  // corr(32) = 10.47 and corr(1) = 22.51: pairs up to 10 are kept, those from 23 on divided.
  for (std::size_t i = 0; i < 32; ++i) {
    const double share = i <= 10 ? 0 : i >= 23 ? 1 : (static_cast<double>(i) - 10) / 13;
    const double wanted = plain.frequencies[i] / 40 * share + plain.frequencies[i] * (1 - share);
    EXPECT_NEAR(got.frequencies[i], wanted, 8 * unit * wanted) << i;
  }
  EXPECT_EQ(got.frequencies[10], plain.frequencies[10]);
  EXPECT_LT(got.frequencies[11], plain.frequencies[11]);
  EXPECT_GT(got.frequencies[22], plain.frequencies[22] / 40);
}

TEST(Yarn, AFactorOfOneChangesNothing) {
  for (const Index dims : {2, 32, 128}) {
    const auto plain = rotary_frequencies(dims, 500000), got = yarn_frequencies(dims, {}, 500000);
    for (std::size_t i = 0; i < plain.frequencies.size(); ++i)
      EXPECT_NEAR(got.frequencies[i], plain.frequencies[i], 4 * unit * plain.frequencies[i]);
  }
  EXPECT_EQ(yarn_magnitude(1), 1);
  EXPECT_EQ(yarn_magnitude(0.5, 2), 1);
}

TEST(Yarn, BordersThatMeetOrCrossCutPairsInTwo) {
  // Trained on less than a turn of the fastest pair: all but pair 0 are divided.
  const auto short_context = yarn_frequencies(16, {.factor = 4, .trained_context = 1});
  const auto plain = rotary_frequencies(16);
  EXPECT_EQ(short_context.frequencies[0], plain.frequencies[0]);
  for (std::size_t i = 1; i < 8; ++i)
    EXPECT_NEAR(short_context.frequencies[i], plain.frequencies[i] / 4, 4 * unit);
  // On more than a turn of the slowest: all are kept.
  const auto long_context =
      yarn_frequencies(16, {.factor = 4, .trained_context = Index{1} << 40}, 100);
  const auto of_100 = rotary_frequencies(16, 100);
  for (std::size_t i = 0; i < 8; ++i) EXPECT_EQ(long_context.frequencies[i], of_100.frequencies[i]);
  // Also where the pair that turns so often is at infinity.
  const auto no_turns = yarn_frequencies(16, {.factor = 4,
                                              .trained_context = std::numeric_limits<Index>::max(),
                                              .beta_fast = std::numeric_limits<double>::min(),
                                              .beta_slow = std::numeric_limits<double>::min()});
  for (std::size_t i = 0; i < 8; ++i) EXPECT_EQ(no_turns.frequencies[i], plain.frequencies[i]);
}

/// Grids and YaRN have the property of rotary embedding: products depend on distances alone.
template <class A>
double product_at(const A& angles, RotaryLayout layout, const std::vector<double>& q, Index p,
                  const std::vector<double>& k, Index r) {
  std::vector<double> a = q, b = k;
  const auto dim = static_cast<Index>(q.size());
  const auto turn = [&](std::vector<double>& x, Index at) {
    const RotaryTable<double> table(angles, 1, at);
    rotate(pare::reference, TensorView<double, 4>{x.data(), {1, 1, 1, dim}, {0, 0, 0, 1}}, table,
           {.layout = layout, .first_position = at});
  };
  turn(a, p);
  turn(b, r);
  double sum = 0;
  for (std::size_t i = 0; i < a.size(); ++i) sum += a[i] * b[i];
  return sum;
}

std::vector<double> random_row(Index dim, std::uint64_t seed) {
  return pare::testing::random_gains<double>(dim, seed);
}

TEST(Yarn, ProductsDependOnTheDistanceUpToAMillionPositions) {
  const auto yarn = yarn_frequencies(64, {.factor = 40, .trained_context = 4096});
  const auto q = random_row(64, 1), k = random_row(64, 2);
  double size = 0;
  for (std::size_t i = 0; i < 64; ++i) size += 2 * std::abs(q[i] * k[i]) + 2.25;
  for (const RotaryLayout layout : {RotaryLayout::Interleaved, RotaryLayout::HalfSplit})
    for (const Index distance : {0, 1, 777}) {
      const double wanted = product_at(yarn, layout, q, distance, k, 0);
      for (const Index p : {Index{1}, Index{4096}, Index{163840}, Index{1000000}})
        EXPECT_NEAR(product_at(yarn, layout, q, p + distance, k, p), wanted,
                    size * unit * (4 * static_cast<double>(p + distance) + 200))
            << p << ' ' << distance;
    }
}

TEST(Yarn, MagnitudeIsThatOfTheTable) {
  const auto yarn = yarn_frequencies(8, {.factor = 40, .magnitude = yarn_magnitude(40, 1) / 1.5});
  const RotaryTable<double> table(yarn, 3);
  for (Index i = 0; i < 4; ++i)
    EXPECT_NEAR(std::hypot(table.cosine(2, i), table.sine(2, i)), 1.368888 / 1.5, 5e-7);
}

TEST(Yarn, WhatIsOutOfRangeIsRefused) {
  constexpr double infinity = std::numeric_limits<double>::infinity();
  constexpr const char* name = "transformer::yarn_frequencies";
  for (const Index dims : {0, 7, -2}) refusal([&] { yarn_frequencies(dims, {}); }, name, "dims");
  for (const double bad : {0.0, 1.0, -1.0, infinity})
    refusal([&] { yarn_frequencies(8, {}, bad); }, name, "base");
  for (const double bad : {0.0, 0.5, -1.0, infinity})
    refusal([&] { yarn_frequencies(8, {.factor = bad}); }, name, "factor");
  refusal([&] { yarn_frequencies(8, {.trained_context = 0}); }, name, "trained_context");
  for (const double bad : {0.0, -1.0, infinity, std::nan("")}) {
    refusal([&] { yarn_frequencies(8, {.beta_fast = bad}); }, name, "beta_fast");
    refusal([&] { yarn_frequencies(8, {.beta_slow = bad}); }, name, "beta_slow");
    refusal([&] { yarn_frequencies(8, {.magnitude = bad}); }, name, "magnitude");
    refusal([&] { yarn_magnitude(bad); }, "transformer::yarn_magnitude", "factor");
  }
  refusal([&] { yarn_frequencies(8, {.beta_fast = 1, .beta_slow = 2}); }, name, "beta_slow");
  for (const double bad : {-1.0, infinity})
    refusal([&] { yarn_magnitude(40, bad); }, "transformer::yarn_magnitude", "mscale");
}

TEST(RotaryGrid, PairsTurnByFrameLineAndColumn) {
  const RotaryGrid grid = rotary_grid(3, 5);
  ASSERT_EQ(grid.pairs(), 16);
  EXPECT_EQ(grid.frame(), 15);
  for (Index t = 0; t < 4; ++t)
    for (Index y = 0; y < 3; ++y)
      for (Index x = 0; x < 5; ++x) {
        const Index p = 15 * t + 5 * y + x;
        ASSERT_EQ(grid.position(t, y, x), p);
        for (Index i = 0; i < 16; ++i) {
          const double at = static_cast<double>(i < 6 ? t : i < 11 ? y : x);
          const double k = static_cast<double>(i < 6 ? i : i < 11 ? i - 6 : i - 11);
          const double wanted = at * std::pow(10000.0, -2 * k / (i < 6 ? 44 : 42));
          EXPECT_NEAR(grid.angle(p, i), wanted, 16 * unit * wanted) << p << ' ' << i;
        }
      }
}

TEST(RotaryGrid, ProductsDependOnTheDistanceAlongEachAxis) {
  const RotaryGrid grid = rotary_grid(40, 60);
  const auto q = random_row(32, 1), k = random_row(32, 2);
  const auto at = [&](Index t, Index y, Index x) {
    return product_at(grid, RotaryLayout::Interleaved, q, grid.position(t + 3, y + 2, x + 1), k,
                      grid.position(t, y, x));
  };
  for (const auto& [t, y, x] : std::vector<std::array<Index, 3>>{
           {1, 0, 0}, {0, 7, 0}, {0, 0, 9}, {400, 30, 50}, {1020, 37, 58}})
    EXPECT_NEAR(at(t, y, x), at(0, 0, 0), 1e-11) << t << ' ' << y << ' ' << x;
}

TEST(RotaryGrid, PositionZeroIsTheIdentityAndFramesLeavePlacesAlone) {
  const RotaryGrid grid = rotary_grid(3, 5);
  const RotaryTable<double> table(grid, 8 * 15);
  for (Index i = 0; i < 16; ++i) {
    EXPECT_EQ(table.cosine(0, i), 1);
    EXPECT_EQ(table.sine(0, i), 0);
  }
  const Index place = grid.position(0, 2, 3);
  for (const Index t : {1, 7})
    for (Index i = 0; i < 16; ++i) {
      const bool same = table.sine(place + 15 * t, i) == table.sine(place, i) &&
                        table.cosine(place + 15 * t, i) == table.cosine(place, i);
      EXPECT_EQ(same, i >= 6) << i;
    }
}

TEST(RotaryGrid, FramesAndPlacesApartTurnAsTheGridDoes) {
  const RotaryGrid grid = rotary_grid(3, 5, {.channels = {44, 42, 50}});
  const Index tokens = 4 * 15;
  const auto before = pare::testing::random_rows<double>(tokens, 32, 3);
  auto whole = before, apart = before;
  const auto rows = [&](pare::testing::Rows<double>& m, Index from) {
    return TensorView<double, 4>{m.view().data + from, {1, 1, tokens, 32 - from}, {0, 0, 32, 1}};
  };
  rotate(pare::simd, rows(whole, 0), RotaryTable<double>(grid, tokens));
  std::vector<Index> frame, place;
  for (Index t = 0; t < tokens; ++t) {
    frame.push_back(t / 15);
    place.push_back(t % 15);
  }
  rotate(pare::simd, rows(apart, 0), RotaryTable<double>(grid.frames(), 4), {.positions = frame});
  rotate(pare::simd, rows(apart, 12), RotaryTable<double>(grid.places(), 15), {.positions = place});
  // The registers of the two begin at other pairs, and so may round other products once.
  for (Index t = 0; t < tokens; ++t) {
    double before_norm = 0, norm = 0;
    for (Index d = 0; d < 32; ++d) {
      EXPECT_NEAR(apart(t, d), whole(t, d), 8 * unit) << t << ' ' << d;
      before_norm += before(t, d) * before(t, d);
      norm += whole(t, d) * whole(t, d);
    }
    EXPECT_NEAR(norm, before_norm, 64 * unit * before_norm);
  }
}

TEST(RotaryGrid, WhatIsOutOfRangeIsRefused) {
  constexpr const char* name = "transformer::rotary_grid";
  constexpr Index most = std::numeric_limits<Index>::max();
  refusal([] { rotary_grid(0, 5); }, name, "height");
  refusal([] { rotary_grid(5, -1); }, name, "width");
  refusal([] { rotary_grid(most, 2); }, name, "width");
  refusal([] { rotary_grid(1, 1, {.pairs = {6, -1, 5}}); }, name, "pairs");
  refusal([] { rotary_grid(1, 1, {.pairs = {0, 0, 0}}); }, name, "pairs");
  refusal([] { rotary_grid(1, 1, {.channels = {44, 9, 42}}); }, name, "channels");
  refusal([] { rotary_grid(1, 1, {.pairs = {6, 5, 0}, .channels = {44, 42, -1}}); }, name,
          "channels");
  for (const double bad : {0.0, -1.0, std::numeric_limits<double>::infinity()})
    refusal([&] { rotary_grid(1, 1, {.base = bad}); }, name, "base");
}

}  // namespace
}  // namespace transformer_rotary_angles_test
