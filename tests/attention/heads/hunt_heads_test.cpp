// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <limits>
#include <map>
#include <set>
#include <span>
#include <stdexcept>
#include <vector>

#include <pare/attention/heads/hunt_heads.hpp>

#include "support/backends.hpp"
#include "support/matrices.hpp"
#include "support/properties.hpp"

namespace attention_heads_hunt_heads_test {
namespace {

using pare::Index;
using pare::attention::HeadHunt;
using pare::attention::HeadId;
using pare::attention::hunt_heads;
using pare::attention::top_heads;
using pare::testing::refusal;

using Heads = std::vector<HeadId>;
constexpr double nan_value = std::numeric_limits<double>::quiet_NaN();
constexpr double infinity = std::numeric_limits<double>::infinity();

Heads all_heads(Index layers, Index heads) {
  Heads all;
  for (Index layer = 0; layer < layers; ++layer)
    for (Index head = 0; head < heads; ++head) all.push_back({layer, head});
  return all;
}

bool has(std::span<const HeadId> heads, HeadId id) {
  return std::ranges::find(heads, id) != heads.end();
}

/// What each head adds; no two alike.
double weight(HeadId id) { return static_cast<double>((id.layer * 37 + id.head * 11) % 29) - 8; }
double additive(std::span<const HeadId> heads) {
  double sum = 0;
  for (const HeadId id : heads) sum += weight(id);
  return sum;
}

/// Nothing is worth more than a, but a and b together.
constexpr HeadId a{0, 1}, b{1, 0}, lure{2, 2};
double synergy(std::span<const HeadId> heads) {
  if (has(heads, a) && has(heads, b)) return 10;
  return has(heads, a) ? 2 : has(heads, lure) ? 1 : 0;
}

TEST(HuntHeads, FindsTheLargestWeightsOfAnAdditiveObjective) {
  const Heads pool = all_heads(4, 5);
  Heads wanted = pool;
  std::ranges::stable_sort(wanted, [](HeadId x, HeadId y) { return weight(x) > weight(y); });
  wanted.resize(6);
  for (const auto& [per_round, rounds] : {std::pair<Index, Index>{1, 6}, {2, 3}, {3, 2}, {6, 1}}) {
    const HeadHunt hunt = hunt_heads(pool, additive, {.per_round = per_round, .rounds = rounds});
    EXPECT_EQ(hunt.heads, wanted) << per_round;
    ASSERT_EQ(static_cast<Index>(hunt.round_scores.size()), rounds);
    for (Index r = 0; r < rounds; ++r)
      EXPECT_EQ(hunt.round_scores[static_cast<std::size_t>(r)],
                additive(std::span(wanted).first(static_cast<std::size_t>((r + 1) * per_round))));
    for (std::size_t i = 0; i < 6; ++i) {
      const std::size_t before =
          i / static_cast<std::size_t>(per_round) * static_cast<std::size_t>(per_round);
      EXPECT_EQ(hunt.scores[i], additive(std::span(wanted).first(before)) + weight(wanted[i]));
    }
    EXPECT_FALSE(hunt.base || hunt.refused);
  }
}

TEST(HuntHeads, RoundsFindWhatOnlyHelpsBesideOthers) {
  const Heads pool = all_heads(3, 3);
  const HeadHunt rounds = hunt_heads(pool, synergy, {.per_round = 1, .rounds = 2});
  EXPECT_EQ(rounds.heads, (Heads{a, b}));
  EXPECT_EQ(rounds.round_scores, (std::vector<double>{2, 10}));
  const HeadHunt once = hunt_heads(pool, synergy, {.per_round = 2, .rounds = 1});
  EXPECT_EQ(once.heads, (Heads{a, lure})) << "alone b does nothing";
  EXPECT_EQ(once.round_scores, (std::vector<double>{2}));
}

TEST(HuntHeads, CallsTheObjectiveForEachHeadOfThePoolInEachRound) {
  const Heads pool = all_heads(2, 5);
  Index calls = 0;
  std::set<std::size_t> sizes;
  const auto counting = [&](std::span<const HeadId> heads) {
    ++calls;
    sizes.insert(heads.size());
    return additive(heads);
  };
  EXPECT_EQ(hunt_heads(pool, counting, {.per_round = 1, .rounds = 3}).calls, 10 + 9 + 8);
  EXPECT_EQ(calls, 10 + 9 + 8);
  EXPECT_EQ(sizes, (std::set<std::size_t>{1, 2, 3}));
  // One more for the set of a round of several.
  EXPECT_EQ(hunt_heads(pool, counting, {.per_round = 4, .rounds = 2}).calls, 10 + 1 + 6 + 1);
  // And one for no heads.
  EXPECT_EQ(hunt_heads(pool, counting, {.rounds = 1, .stop_when_worse = true}).calls, 10 + 1);
}

TEST(HuntHeads, CandidatesStandBehindTheHeadsThatAreIn) {
  const Heads pool = all_heads(2, 2);
  hunt_heads(pool,
             [&](std::span<const HeadId> heads) {
               if (heads.size() == 2) {
                 EXPECT_EQ(heads[0], (HeadId{1, 1}));
               }
               return heads.back() == HeadId{1, 1} ? 1.0 : 0.0;
             },
             {.rounds = 2});
}

TEST(HuntHeads, TiesGoToTheLowerLayerThenTheLowerHeadInWhateverOrderThePoolIs) {
  Heads pool = all_heads(3, 3);
  std::ranges::reverse(pool);
  const auto flat = [](std::span<const HeadId>) { return 1.0; };
  EXPECT_EQ(hunt_heads(pool, flat, {.per_round = 2, .rounds = 2}).heads,
            (Heads{{0, 0}, {0, 1}, {0, 2}, {1, 0}}));
  std::swap(pool[1], pool[6]);
  EXPECT_EQ(hunt_heads(pool, additive, {.per_round = 2, .rounds = 2}).heads,
            hunt_heads(all_heads(3, 3), additive, {.per_round = 2, .rounds = 2}).heads);
}

TEST(HuntHeads, EndsWithThePool) {
  const Heads pool = all_heads(1, 5);
  constexpr Index huge = std::numeric_limits<Index>::max();
  for (const auto& [per_round, rounds] :
       {std::pair<Index, Index>{2, 9}, {huge, huge}, {huge, 1}, {1, huge}}) {
    const HeadHunt hunt = hunt_heads(pool, additive, {.per_round = per_round, .rounds = rounds});
    EXPECT_EQ(hunt.heads.size(), 5u);
    EXPECT_EQ(hunt.scores.size(), 5u);
    EXPECT_EQ(static_cast<Index>(hunt.round_scores.size()), per_round == huge ? 1
                                                            : per_round == 2  ? 3
                                                                              : 5);
    EXPECT_EQ(hunt.round_scores.back(), additive(pool));
  }
}

TEST(HuntHeads, AddsHeadsThatMakeItWorseUnlessToldToStop) {
  const Heads pool = all_heads(1, 5);  // -8, 3, 14, -4, 7
  const HeadHunt all = hunt_heads(pool, additive, {.rounds = 5});
  EXPECT_EQ(all.round_scores, (std::vector<double>{14, 21, 24, 20, 12}));
  const HeadHunt stopped = hunt_heads(pool, additive, {.rounds = 5, .stop_when_worse = true});
  EXPECT_EQ(stopped.round_scores, (std::vector<double>{14, 21, 24}));
  EXPECT_EQ(stopped.heads, (Heads{{0, 2}, {0, 4}, {0, 1}}));
  EXPECT_EQ(stopped.scores.size(), 3u);
  EXPECT_EQ(stopped.base, 0.0);
  EXPECT_EQ(stopped.refused, 20.0);
  EXPECT_EQ(stopped.calls, 1 + 5 + 4 + 3 + 2);
  // A round of three is judged by what it comes to.
  const HeadHunt rounds =
      hunt_heads(pool, additive, {.per_round = 3, .rounds = 2, .stop_when_worse = true});
  EXPECT_EQ(rounds.round_scores, (std::vector<double>{24}));
  EXPECT_EQ(rounds.refused, 12.0);
  // What is as good is not worse, and nothing may be the best.
  const auto flat = [](std::span<const HeadId>) { return 1.0; };
  EXPECT_EQ(hunt_heads(pool, flat, {.rounds = 2, .stop_when_worse = true}).heads.size(), 2u);
  const auto loss = [](std::span<const HeadId> heads) {
    return -static_cast<double>(heads.size());
  };
  const HeadHunt none = hunt_heads(pool, loss, {.rounds = 2, .stop_when_worse = true});
  EXPECT_TRUE(none.heads.empty() && none.round_scores.empty());
  EXPECT_EQ(none.refused, -1.0);
}

TEST(HuntHeads, InfinitiesAreScores) {
  const auto lost = [](std::span<const HeadId> heads) {
    return heads.back() == HeadId{0, 1} ? -1e300 : -infinity;
  };
  EXPECT_EQ(hunt_heads(all_heads(1, 3), lost, {.rounds = 2}).heads, (Heads{{0, 1}, {0, 0}}));
}

TEST(HuntHeads, ThreadsChangeNothing) {
  const Heads pool = all_heads(5, 7);
  const auto objective = [](std::span<const HeadId> heads) {
    return additive(heads) + (heads.size() > 1 ? 3 * (heads.front().head == heads.back().head) : 0);
  };
  for (const bool concurrent : {false, true})
    pare::testing::same_bits_for_any_threads(pare::simd, [&](const auto& backend) {
      const HeadHunt hunt = hunt_heads(backend, pool, objective,
                                       {.per_round = 2, .rounds = 4, .concurrent = concurrent});
      std::vector<double> all = hunt.scores;
      all.insert(all.end(), hunt.round_scores.begin(), hunt.round_scores.end());
      for (const HeadId id : hunt.heads)
        all.push_back(static_cast<double>(10 * id.layer + id.head));
      all.push_back(static_cast<double>(hunt.calls));
      return all;
    });
}

/// Only with leave are there two calls at once; without it, an objective has its own threads.
TEST(HuntHeads, CallsAtOnceOnlyIfTheObjectiveAllowsIt) {
  const Heads pool = all_heads(4, 4);
  const auto workers_inside = [&](bool concurrent) {
    std::atomic<int> most{0};
    hunt_heads(pare::simd.threads(3), pool,
               [&](std::span<const HeadId>) {
                 const int workers = pare::worker_count(pare::DefaultExecutor{3}, 100);
                 if (workers > most) most = workers;
                 return 0.0;
               },
               {.concurrent = concurrent});
    return most.load();
  };
  EXPECT_EQ(workers_inside(false), 3);
  EXPECT_EQ(workers_inside(true), 1);
  Index calls = 0;  // the reference is one thread whatever is allowed
  hunt_heads(pare::reference, pool,
             [&](std::span<const HeadId>) { return static_cast<double>(++calls); },
             {.concurrent = true});
  EXPECT_EQ(calls, 16);
}

TEST(HuntHeads, NamesTheHeadOfWhichTheScoreIsNaN) {
  const auto bad = [](std::span<const HeadId> heads) {
    return has(heads, {2, 1}) || has(heads, {3, 0}) ? nan_value : 0.0;
  };
  for (const bool concurrent : {false, true}) try {
      hunt_heads(pare::simd.threads(3), all_heads(4, 3), bad, {.concurrent = concurrent});
      ADD_FAILURE() << "a NaN was taken";
    } catch (const std::invalid_argument& error) {
      EXPECT_STREQ(
          error.what(),
          "pare::attention::hunt_heads: objective: got NaN for head 1 of layer 2, wanted a "
          "number");
    }
  const auto bad_pair = [](std::span<const HeadId> heads) {
    return heads.size() > 1 ? nan_value : 0.0;
  };
  refusal([&] { hunt_heads(all_heads(1, 3), bad_pair, {.per_round = 2}); }, "attention::hunt_heads",
          "objective");
  const auto bad_base = [](std::span<const HeadId> heads) { return heads.empty() ? nan_value : 0; };
  refusal([&] { hunt_heads(all_heads(1, 3), bad_base, {.stop_when_worse = true}); },
          "attention::hunt_heads", "objective");
}

TEST(HuntHeads, RefusesWhatMakesNoSense) {
  const auto refused = [](const Heads& pool, const pare::attention::HuntOptions& options,
                          const char* argument) {
    Index calls = 0;
    const auto objective = [&](std::span<const HeadId>) { return static_cast<double>(++calls); };
    refusal([&] { hunt_heads(pool, objective, options); }, "attention::hunt_heads", argument);
    EXPECT_EQ(calls, 0);
  };
  refused({}, {}, "pool");
  refused({{0, 1}, {1, 1}, {0, 1}}, {}, "pool");
  refused({{0, -1}}, {}, "pool");
  refused({{-1, 0}}, {}, "pool");
  for (const Index none : {Index{0}, Index{-1}, std::numeric_limits<Index>::min()}) {
    refused({{0, 0}}, {.per_round = none}, "per_round");
    refused({{0, 0}}, {.rounds = none}, "rounds");
  }
}

TEST(HuntHeads, WhatTheObjectiveThrowsPassesThrough) {
  const auto broken = [](std::span<const HeadId>) -> double { throw std::runtime_error("lost"); };
  for (const bool concurrent : {false, true})
    EXPECT_THROW(
        hunt_heads(pare::simd.threads(2), all_heads(2, 2), broken, {.concurrent = concurrent}),
        std::runtime_error);
}

TEST(TopHeads, RanksByScoreThenLayerThenHead) {
  const std::vector<double> scores{.1, .7, .7, .9, 0, .7};
  EXPECT_EQ(top_heads(scores, 3, .5), (Heads{{1, 0}, {0, 1}, {0, 2}}));
  EXPECT_EQ(top_heads(scores, 2, .5), (Heads{{1, 1}, {0, 1}, {1, 0}}));
  EXPECT_EQ(top_heads(scores, 3, 1e-9).size(), 1u) << "at least one";
  EXPECT_EQ(top_heads(scores, 3, 1).size(), 6u);
  EXPECT_EQ(top_heads(scores, 3, .41).size(), 2u) << "2.46 is rounded";
  EXPECT_EQ(top_heads(scores, 3, .42).size(), 3u);
}

TEST(TopHeads, RefusesWhatCannotBeRanked) {
  const char* const name = "attention::top_heads";
  const std::vector<double> scores(6);
  for (const double share : {0.0, -.1, 1.01, nan_value, infinity})
    refusal([&] { top_heads(scores, 3, share); }, name, "share");
  for (const Index heads : {0, -3, 4})
    refusal([&] { top_heads(scores, heads, .5); }, name, heads < 1 ? "heads" : "scores");
  refusal([&] { top_heads({}, 3, .5); }, name, "scores");
  refusal([&] { top_heads(std::vector{1.0, nan_value}, 2, .5); }, name, "scores");
}

}  // namespace
}  // namespace attention_heads_hunt_heads_test
