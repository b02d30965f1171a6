// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <numeric>
#include <random>
#include <vector>

#include <pare/linalg/top_k.hpp>

namespace linalg_top_k_test {
namespace {

using pare::Index;
using pare::linalg::LazyRanking;
using pare::linalg::Ranked;

/// The order by its definition.
template <class T>
std::vector<std::uint32_t> sorted(const std::vector<T>& scores) {
  std::vector<std::uint32_t> order(scores.size());
  std::iota(order.begin(), order.end(), 0u);
  std::stable_sort(order.begin(), order.end(), [&](std::uint32_t a, std::uint32_t b) {
    if (std::isnan(scores[a])) return false;
    return std::isnan(scores[b]) || scores[a] > scores[b];
  });
  return order;
}

/// Reads the ranking `step` keys at a time.
template <class T>
std::vector<std::uint32_t> read(const std::vector<T>& scores, Index step) {
  const auto count = static_cast<Index>(scores.size());
  std::vector<Ranked<T>> ranked(scores.size() + 1), rest(scores.size());
  LazyRanking<T> ranking(ranked.data(), rest.data());
  ranking.start(scores.data(), count);
  std::vector<std::uint32_t> order;
  for (Index first = 0; first < count; first += step) {
    const Index end = std::min(first + step, count);
    ranking.reach(end);
    EXPECT_GE(ranking.known(), end);
    for (Index i = first; i < end; ++i) order.push_back(ranking[i]);
  }
  return order;
}

template <class T>
struct EarlyStopRankTest : testing::Test {};
using Scalars = testing::Types<float, double>;
TYPED_TEST_SUITE(EarlyStopRankTest, Scalars);

TYPED_TEST(EarlyStopRankTest, RanksRandomScores) {
  using T = TypeParam;
  std::mt19937_64 random(1);
  std::normal_distribution<double> normal;
  for (const std::size_t count : {0u, 1u, 255u, 256u, 257u, 1500u, 20000u}) {
    std::vector<T> scores(count);
    for (T& s : scores) s = static_cast<T>(normal(random));
    for (const Index step : {7, 64, 1000, 30000}) EXPECT_EQ(read(scores, step), sorted(scores));
  }
}

TYPED_TEST(EarlyStopRankTest, RanksTiesByIndex) {
  using T = TypeParam;
  std::mt19937_64 random(2);
  for (const std::uint64_t levels : {1u, 2u, 5u, 300u}) {
    std::vector<T> scores(5000);
    for (T& s : scores) s = static_cast<T>(static_cast<double>(random() % levels) - 2);
    EXPECT_EQ(read(scores, 64), sorted(scores)) << levels;
  }
}

TYPED_TEST(EarlyStopRankTest, RanksSortedAndPeriodicScores) {
  using T = TypeParam;
  for (const Index period : {2, 128, 4096, 1 << 20})
    for (const int sign : {1, -1}) {
      std::vector<T> scores;
      for (Index i = 0; i < 9000; ++i) scores.push_back(static_cast<T>(sign * (i % period)));
      EXPECT_EQ(read(scores, 64), sorted(scores)) << period;
    }
}

TYPED_TEST(EarlyStopRankTest, RanksSpecialValues) {
  using T = TypeParam;
  using Limits = std::numeric_limits<T>;
  const std::vector<T> special{Limits::quiet_NaN(),
                               -Limits::quiet_NaN(),
                               Limits::infinity(),
                               -Limits::infinity(),
                               T(0),
                               -T(0),
                               Limits::max(),
                               Limits::lowest(),
                               Limits::denorm_min(),
                               -Limits::denorm_min(),
                               T(1),
                               T(-1)};
  std::mt19937_64 random(3);
  std::vector<T> scores(3000);
  for (T& s : scores) s = special[random() % special.size()];
  EXPECT_EQ(read(scores, 100), sorted(scores));
}

TYPED_TEST(EarlyStopRankTest, KnowsNoMoreThanItMust) {
  using T = TypeParam;
  std::mt19937_64 random(4);
  std::normal_distribution<double> normal;
  std::vector<T> scores(50000);
  for (T& s : scores) s = static_cast<T>(normal(random));
  std::vector<Ranked<T>> ranked(scores.size() + 1), rest(scores.size());
  LazyRanking<T> ranking(ranked.data(), rest.data());
  ranking.start(scores.data(), 50000);
  ranking.reach(500);
  EXPECT_LT(ranking.known(), 5000);
}

TYPED_TEST(EarlyStopRankTest, TakesTheLargestUntilTheyReachAMass) {
  using T = TypeParam;
  const std::vector<T> scores{T(0.125), T(0.5), T(0), T(0.25), T(0.125)};
  std::vector<std::uint32_t> rank;
  const auto taken = [&](const std::vector<T>& of, double mass, double counted = 0) {
    std::vector<std::uint32_t> list;
    pare::linalg::take_mass(
        std::span<const T>(of), mass, rank,
        [&](std::uint32_t i) {
          list.push_back(i);
          return of[i];
        },
        counted);
    return list;
  };
  using List = std::vector<std::uint32_t>;
  EXPECT_EQ(taken(scores, 0.5), List({1}));
  EXPECT_EQ(taken(scores, 0.51), List({1, 3}));
  EXPECT_EQ(taken(scores, 0.8), List({1, 3, 0})) << "of equal ones the earlier";
  EXPECT_EQ(taken(scores, 0.8, 0.3), List({1}));
  EXPECT_EQ(taken(scores, 0), List());
  EXPECT_EQ(taken(scores, 1), List({1, 3, 0, 4}));
  EXPECT_EQ(taken(scores, 2), List({1, 3, 0, 4, 2}));
  EXPECT_EQ(taken({}, 1), List());
  EXPECT_EQ(taken({T(1), std::numeric_limits<T>::quiet_NaN(), T(0.5)}, 1.25), List({0, 2}));
  EXPECT_EQ(taken({T(1), std::numeric_limits<T>::quiet_NaN(), T(0.5)}, 9), List({0, 2, 1}));
}

}  // namespace
}  // namespace linalg_top_k_test
