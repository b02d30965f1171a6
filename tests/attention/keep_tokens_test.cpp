// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <pare/attention/budget/head_groups.hpp>
#include <pare/attention/budget/keep_tokens.hpp>
#include <pare/attention/budget/retention.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <limits>
#include <random>
#include <set>
#include <utility>
#include <vector>

#include "support/matrices.hpp"

namespace attention_keep_tokens_test {
namespace {

using pare::Index;
using pare::TensorView;
using pare::attention::adjusted_ratio;
using pare::attention::BudgetCount;
using pare::attention::BudgetScope;
using pare::attention::HeadGroups;
using pare::attention::keep_tokens;
using pare::attention::KeepOptions;
using pare::attention::KeptTokens;
using pare::attention::RetentionProfile;
using pare::testing::refusal;

constexpr Index layers = 3, kv_heads = 4, cells = layers * kv_heads;

/// [layers, kv heads, n] normal numbers, times a factor of each head's own.
template <class T>
struct ScoreTable {
  Index n;
  std::vector<T> list;

  explicit ScoreTable(Index tokens, std::uint64_t seed = 3)
      : n(tokens), list(static_cast<std::size_t>(cells * tokens)) {
    std::mt19937_64 random(seed);
    std::normal_distribution<double> normal;
    for (std::size_t i = 0; i < list.size(); ++i)
      list[i] = static_cast<T>(normal(random) *
                               static_cast<double>(1 + i / static_cast<std::size_t>(n) * 7 % 5));
  }
  TensorView<const T, 3> view() const {
    return {list.data(), {layers, kv_heads, n}, {kv_heads * n, n, 1}};
  }
  T& at(Index cell, Index t) { return list[static_cast<std::size_t>(cell * n + t)]; }
  T at(Index cell, Index t) const { return list[static_cast<std::size_t>(cell * n + t)]; }
};

/// Shares that sort the heads anew in each layer, two of them equal.
std::vector<double> shares() { return {.2, .9, .3, .3, .5, .1, .8, .4, .25, .35, .15, .95}; }
TensorView<const double, 2> matrix(const std::vector<double>& list) {
  return {list.data(), {layers, kv_heads}, {kv_heads, 1}};
}

double clamped(const KeepOptions& o, Index tokens) {
  const double p = static_cast<double>(std::max<Index>(0, tokens - o.sinks));
  const double w = static_cast<double>(o.window);
  if (o.ratio >= 1 || p <= w) return 1;
  return std::min(1.0, std::max(0.0, (o.ratio * p - w) / (p - w)));
}

/// The counts of a group by the words of keep_tokens.hpp, all sorted.
template <class T>
Index wanted_count(const ScoreTable<T>& x, const HeadGroups& groups, const KeepOptions& o,
                   Index group) {
  const Index begin = std::min(o.sinks, x.n);
  const Index end = x.n - std::min(o.window, x.n - begin);
  const double ratio = clamped(o, x.n);
  if (ratio >= 1) return end - begin;
  if (ratio <= 0) return 0;
  Index most = 0;
  if (o.count == BudgetCount::Uniform) {
    most = static_cast<Index>(std::floor(ratio * static_cast<double>(end - begin)));
  } else {
    const auto group_of = [&](Index cell) {
      return groups.group_of(cell / kv_heads, cell % kv_heads);
    };
    const auto score = [&](Index row, Index t) {
      if (o.count == BudgetCount::Head) return x.at(row, t);
      T best = -std::numeric_limits<T>::infinity();
      for (Index cell = 0; cell < cells; ++cell)
        if (group_of(cell) == row) best = std::max(best, x.at(cell, t));
      return best;
    };
    const Index rows = o.count == BudgetCount::Head ? cells : groups.groups();
    for (Index row = 0; row < rows; ++row) {
      if (o.count == BudgetCount::Head ? group_of(row) != group : row != group) continue;
      std::vector<T> competing;
      for (Index other = 0; other < rows; ++other)
        if (o.scope == BudgetScope::CrossLayer || other / (rows / layers) == row / (rows / layers))
          for (Index t = begin; t < end; ++t) competing.push_back(score(other, t));
      std::sort(competing.begin(), competing.end(), std::greater<>());
      const auto m = std::max<std::ptrdiff_t>(
          static_cast<std::ptrdiff_t>(std::floor(static_cast<double>(competing.size()) * ratio)) -
              1,
          0);
      Index count = 0;
      for (Index t = begin; t < end; ++t)
        count += score(row, t) > competing[static_cast<std::size_t>(m)] ? 1 : 0;
      most = std::max(most, count);
    }
  }
  return std::min(end - begin, (most + o.multiple - 1) / o.multiple * o.multiple);
}

/// Sinks, window, and between them the `count` first when sorted by score and then by position.
template <class T>
std::vector<Index> wanted_tokens(const ScoreTable<T>& x, const KeepOptions& o, Index cell,
                                 Index count) {
  const Index begin = std::min(o.sinks, x.n);
  const Index end = x.n - std::min(o.window, x.n - begin);
  std::vector<std::pair<T, Index>> order;
  for (Index t = begin; t < end; ++t) order.emplace_back(-x.at(cell, t), t);
  std::sort(order.begin(), order.end());
  std::set<Index> kept;
  for (Index t = 0; t < begin; ++t) kept.insert(t);
  for (Index t = end; t < x.n; ++t) kept.insert(t);
  for (Index i = 0; i < count; ++i) kept.insert(order[static_cast<std::size_t>(i)].second);
  return {kept.begin(), kept.end()};
}

template <class T>
void expect_kept(const ScoreTable<T>& x, const HeadGroups& groups, const KeepOptions& o) {
  const KeptTokens kept = keep_tokens(x.view(), groups, o);
  for (Index cell = 0; cell < cells; ++cell) {
    const Index l = cell / kv_heads, h = cell % kv_heads;
    const Index count = wanted_count(x, groups, o, groups.group_of(l, h));
    const auto got = kept.of(l, h);
    ASSERT_EQ(std::vector<Index>(got.begin(), got.end()), wanted_tokens(x, o, cell, count))
        << "cell " << cell << ", " << x.n << " tokens, ratio " << o.ratio;
  }
}

TEST(KeepTokens, CountsAndTokensAreThoseOfTheDefinition) {
  const HeadGroups by_layer = HeadGroups::by_retention(matrix(shares()), 2, BudgetScope::PerLayer);
  const HeadGroups across = HeadGroups::by_retention(matrix(shares()), 3, BudgetScope::CrossLayer);
  for (const Index n : {0, 1, 5, 36, 37, 200}) {
    const ScoreTable<float> x(n);
    const ScoreTable<double> y(n, 4);
    for (const double ratio : {.01, .2, .3, .77, 1.0})
      for (const BudgetCount count : {BudgetCount::Head, BudgetCount::Group, BudgetCount::Uniform})
        for (const BudgetScope scope : {BudgetScope::PerLayer, BudgetScope::CrossLayer}) {
          expect_kept(x, by_layer, {.ratio = ratio, .scope = scope, .count = count});
          expect_kept(y, by_layer,
                      {.ratio = ratio,
                       .sinks = 0,
                       .window = 0,
                       .scope = scope,
                       .count = count,
                       .multiple = 16});
          if (scope == BudgetScope::CrossLayer || count != BudgetCount::Group)
            expect_kept(x, across, {.ratio = ratio, .window = 7, .scope = scope, .count = count});
        }
  }
}

TEST(KeepTokens, EqualScoresKeepTheEarlierToken) {
  ScoreTable<float> x(100);
  std::fill(x.list.begin(), x.list.end(), 1.0f);
  const HeadGroups groups = HeadGroups::natural(layers, kv_heads, 2);
  const KeepOptions uniform{.ratio = .3, .sinks = 0, .window = 0, .count = BudgetCount::Uniform};
  const KeptTokens kept = keep_tokens(x.view(), groups, uniform);
  for (Index i = 0; i < 30; ++i) EXPECT_EQ(kept.of(1, 2)[static_cast<std::size_t>(i)], i);
  EXPECT_EQ(kept.length(1, 2), 30);
  // None is above the threshold, which they all are.
  EXPECT_EQ(keep_tokens(x.view(), groups, {.ratio = .3, .sinks = 0, .window = 0}).share(), 0);
}

TEST(KeepTokens, ANaNIsTheLowestScore) {
  ScoreTable<float> x(50);
  for (Index t = 0; t < 50; t += 2) x.at(5, t) = std::numeric_limits<float>::quiet_NaN();
  const KeptTokens kept =
      keep_tokens(x.view(), HeadGroups::natural(layers, kv_heads, 4),
                  {.ratio = .5, .sinks = 0, .window = 0, .count = BudgetCount::Uniform});
  for (Index i = 0; i < 25; ++i) EXPECT_EQ(kept.of(1, 1)[static_cast<std::size_t>(i)], 2 * i + 1);
}

TEST(KeepTokens, TheBudgetOfGroupsIsThatOfTheRatio) {
  const Index n = 4000;
  const ScoreTable<double> x(n);
  const KeepOptions o{.ratio = .3};
  const auto share = [&](const HeadGroups& groups, BudgetCount count) {
    KeepOptions with = o;
    with.count = count;
    return keep_tokens(x.view(), groups, with).share();
  };
  const HeadGroups groups = HeadGroups::natural(layers, kv_heads, 4);
  EXPECT_NEAR(share(groups, BudgetCount::Group), .3, 2e-3);
  EXPECT_NEAR(share(groups, BudgetCount::Uniform), .3, 2e-3);
  EXPECT_NEAR(share(HeadGroups::natural(layers, kv_heads, 1), BudgetCount::Head), .3, 2e-3);
  EXPECT_GT(share(groups, BudgetCount::Head), .35);  // as long as the longest
}

TEST(KeepTokens, TheRatioOfTheMiddleMakesUpForSinksAndWindow) {
  EXPECT_DOUBLE_EQ(adjusted_ratio({.ratio = .3, .sinks = 4, .window = 32}, 1004),
                   (300.0 - 32) / (1000 - 32));
  EXPECT_EQ(adjusted_ratio({.ratio = .3, .sinks = 4, .window = 32}, 36), 1);
  EXPECT_EQ(adjusted_ratio({.ratio = .3, .sinks = 4, .window = 32}, 90), 0);
  EXPECT_EQ(adjusted_ratio({.ratio = 1}, 5000), 1);
}

TEST(HeadGroups, EachHeadHasOnePlaceAndLikeHeadsStandTogether) {
  for (const BudgetScope scope : {BudgetScope::PerLayer, BudgetScope::CrossLayer})
    for (const Index group : {1, 2, 4}) {
      const HeadGroups groups = HeadGroups::by_retention(matrix(shares()), group, scope);
      std::set<std::pair<Index, Index>> places;
      for (Index cell = 0; cell < cells; ++cell) {
        const Index l = cell / kv_heads, h = cell % kv_heads;
        places.insert({groups.group_of(l, h), groups.column_of(l, h)});
        const auto members = groups.members(groups.group_of(l, h));
        EXPECT_EQ(members[static_cast<std::size_t>(groups.column_of(l, h))], cell);
        EXPECT_TRUE(std::is_sorted(members.begin(), members.end()));
      }
      EXPECT_EQ(places.size(), static_cast<std::size_t>(cells));
      double above = 2;  // every group retains at most what the one before it does
      for (Index g = 0; g < groups.groups(); ++g) {
        double most = 0, least = 1;
        for (const Index cell : groups.members(g)) {
          most = std::max(most, shares()[static_cast<std::size_t>(cell)]);
          least = std::min(least, shares()[static_cast<std::size_t>(cell)]);
        }
        const bool starts_layer = scope == BudgetScope::PerLayer && g % (kv_heads / group) == 0;
        EXPECT_LE(most, starts_layer ? 1 : above);
        above = least;
      }
    }
}

TEST(HeadGroups, OrdersFillTheCachesOfTheirLayers) {
  const HeadGroups groups = HeadGroups::by_retention(matrix(shares()), 2, BudgetScope::PerLayer);
  EXPECT_EQ(groups.order(0), (std::vector<Index>{1, 2, 0, 3}));
  EXPECT_EQ(groups.order(2), (std::vector<Index>{1, 3, 0, 2}));
  EXPECT_EQ(groups.order()[8], 9);
}

TEST(HeadGroups, SortedHeadsLeaveLessRoomUnused) {
  const auto unused = [](const HeadGroups& groups) {
    return pare::attention::over_allocation(matrix(shares()), groups);
  };
  const auto natural = unused(HeadGroups::natural(layers, kv_heads, 4));
  EXPECT_DOUBLE_EQ(natural.allocated, 4 * (.9 + .8 + .95));
  EXPECT_NEAR(natural.ideal, 5.2, 1e-15);
  const auto across =
      unused(HeadGroups::by_retention(matrix(shares()), 4, BudgetScope::CrossLayer));
  EXPECT_LT(across.unused(), natural.unused() / 2);
  EXPECT_NEAR(unused(HeadGroups::natural(layers, kv_heads, 1)).unused(), 0, 1e-15);
}

TEST(RetentionProfile, MeansGroupHeadsAndTheMostReservesPages) {
  RetentionProfile profile(1, 2);
  const auto sample = [](Index a, Index b) {
    std::vector<std::vector<Index>> lists(2);
    for (Index t = 0; t < a; ++t) lists[0].push_back(t);
    for (Index t = 0; t < b; ++t) lists[1].push_back(t);
    return KeptTokens(1, 2, 10, lists);
  };
  profile.add(sample(8, 2));
  profile.add(sample(7, 4));
  EXPECT_DOUBLE_EQ(profile.mean()(0, 0), .75);
  EXPECT_DOUBLE_EQ(profile.mean()(0, 1), .3);
  const auto apart =
      pare::attention::reserve_pages(profile, HeadGroups::natural(1, 2, 1), 1000, 16, 1);
  EXPECT_EQ(apart.of_group, (std::vector<Index>{50, 25}));
  EXPECT_EQ(apart.total, 75);
  const HeadGroups together = HeadGroups::natural(1, 2, 2);
  EXPECT_EQ(pare::attention::reserve_pages(profile, together, 1000, 16, 1).total, 50);
  const auto shared = pare::attention::reserve_pages(profile, together, 1000, 16, 2);
  EXPECT_EQ(shared.total, 63);  // no more than all
}

TEST(KeptTokens, OfNoHeadsAreAllTokens) {
  EXPECT_EQ(KeptTokens(0, 2, 5, {}).share(), 1);
  EXPECT_EQ(KeptTokens(3, 0, 5, {}).share(), 1);
}

TEST(KeepTokens, WhatDoesNotFitIsRefused) {
  const ScoreTable<float> x(60);
  const HeadGroups groups = HeadGroups::natural(layers, kv_heads, 2);
  constexpr const char* name = "attention::keep_tokens";
  const auto refused = [&](const char* argument, const KeepOptions& options) {
    refusal([&] { keep_tokens(x.view(), groups, options); }, name, argument);
  };
  for (const double bad : {0.0, -.1, 1.01, std::numeric_limits<double>::quiet_NaN()})
    refused("ratio", {.ratio = bad});
  refused("sinks", {.sinks = -1});
  refusal([] { pare::attention::KeptTokens(1, 1, -5, {{}}); }, "attention::KeptTokens", "tokens");
  refused("window", {.window = -1});
  refused("multiple", {.multiple = 0});
  refused("scope", {.scope = static_cast<BudgetScope>(2)});
  refused("count", {.count = static_cast<BudgetCount>(3)});
  auto view = x.view();
  view.extent[1] = 3;
  refusal([&] { keep_tokens(view, groups); }, name, "scores");
  view = x.view();
  view.stride[2] = 2;
  refusal([&] { keep_tokens(view, groups); }, name, "scores");
  refusal(
      [&] {
        keep_tokens(x.view(),
                    HeadGroups::by_retention(matrix(shares()), 4, BudgetScope::CrossLayer));
      },
      name, "groups");
  refusal([&] { adjusted_ratio({}, -1); }, "attention::adjusted_ratio", "tokens");
  constexpr const char* lists = "attention::KeptTokens";
  refusal([] { KeptTokens(1, 2, 5, {{1}}); }, lists, "lists");
  refusal([] { KeptTokens(1, 1, 5, {{1, 1}}); }, lists, "lists");
  refusal([] { KeptTokens(1, 1, 5, {{5}}); }, lists, "lists");
  refusal([] { KeptTokens(1, 1, 5, {{-1}}); }, lists, "lists");
}

TEST(HeadGroups, WhatDoesNotFitIsRefused) {
  constexpr const char* natural = "attention::HeadGroups::natural";
  refusal([] { HeadGroups::natural(0, 4, 2); }, natural, "layers");
  refusal([] { HeadGroups::natural(1, 0, 1); }, natural, "kv_heads");
  refusal([] { HeadGroups::natural(1, 4, 3); }, natural, "group");
  refusal([] { HeadGroups::natural(Index{1} << 40, Index{1} << 40, 1); }, natural, "layers");
  constexpr const char* name = "attention::HeadGroups::by_retention";
  const auto by = [&](const std::vector<double>& list, Index group, BudgetScope scope,
                      const char* argument) {
    refusal([&] { HeadGroups::by_retention(matrix(list), group, scope); }, name, argument);
  };
  by(shares(), 3, BudgetScope::PerLayer, "group");
  by(shares(), 0, BudgetScope::CrossLayer, "group");
  by(shares(), 5, BudgetScope::CrossLayer, "group");
  by(shares(), 2, static_cast<BudgetScope>(9), "scope");
  auto bad = shares();
  bad[3] = std::numeric_limits<double>::quiet_NaN();
  by(bad, 2, BudgetScope::PerLayer, "retention");
  const auto over = [](const std::vector<double>& list) {
    refusal(
        [&] {
          pare::attention::over_allocation(matrix(list), HeadGroups::natural(layers, kv_heads, 2));
        },
        "attention::over_allocation", "retention");
  };
  over(bad);
  bad[3] = -.1;
  over(bad);
  const HeadGroups across = HeadGroups::by_retention(matrix(shares()), 4, BudgetScope::CrossLayer);
  refusal([&] { across.order(0); }, "attention::HeadGroups::order", "scope");
  const HeadGroups groups = HeadGroups::natural(layers, kv_heads, 2);
  refusal([&] { groups.order(3); }, "attention::HeadGroups::order", "layer");
  constexpr const char* new_profile = "attention::RetentionProfile";
  refusal([] { RetentionProfile(0, 2); }, new_profile, "layers");
  refusal([] { RetentionProfile(2, 0); }, new_profile, "kv_heads");
  refusal([] { RetentionProfile(1 << 20, 1 << 10); }, new_profile, "layers");
  RetentionProfile profile(layers, kv_heads);
  refusal([&] { profile.mean(); }, "attention::RetentionProfile::mean", "samples");
  refusal([&] { profile.add(KeptTokens(1, 1, 1, {{0}})); }, "attention::RetentionProfile::add",
          "kept");
  constexpr const char* reserve = "attention::reserve_pages";
  const auto reserved = [&](Index tokens, Index page, double margin, const char* argument) {
    refusal([&] { pare::attention::reserve_pages(profile, groups, tokens, page, margin); }, reserve,
            argument);
  };
  reserved(10, 16, 1, "profile");
  profile.add(KeptTokens(layers, kv_heads, 1, std::vector<std::vector<Index>>(cells)));
  reserved(-1, 16, 1, "tokens");
  reserved(10, 0, 1, "page_size");
  reserved(10, 16, .9, "margin");
  refusal([&] { pare::attention::reserve_pages(profile, HeadGroups::natural(1, 4, 2), 10, 16); },
          reserve, "groups");
}

}  // namespace
}  // namespace attention_keep_tokens_test
