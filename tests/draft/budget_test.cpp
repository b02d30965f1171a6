// SPDX-License-Identifier: Apache-2.0
// Budgets, calibration of acceptance, and the acceptance-cost model of draft heads.
#include <gtest/gtest.h>

#include <pare/draft/acceptance_cost.hpp>
#include <pare/draft/best_first.hpp>
#include <pare/draft/budget.hpp>
#include <pare/draft/calibration.hpp>

#include <cmath>
#include <cstdint>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "draft/tables.hpp"

namespace draft_budget_test {
namespace {

using pare::Index;
using pare::draft::AcceptanceCalibration;
using pare::draft::break_even_acceptance;
using pare::draft::BudgetChoice;
using pare::draft::build_best_first;
using pare::draft::CallTime;
using pare::draft::choose_budget;
using pare::draft::DraftTree;
using pare::draft::expected_tokens;
using pare::draft::MeasuredCost;
using pare::draft::relative_speed;
using pare::draft::RooflineCost;
using pare::draft::Verified;
using pare::testing::random_table;
using pare::testing::refused;

const double nan_value = std::numeric_limits<double>::quiet_NaN();

TEST(Budget, ExpectedTokensOfEveryBudgetAreThoseOfItsOwnTree) {
  const auto x = random_table<double>(5, 2, 4, 3, false);
  DraftTree tree;
  build_best_first(1, x.table(), tree, {.budget = 40});
  std::vector<double> all, one;
  expected_tokens(tree, all);
  ASSERT_EQ(static_cast<Index>(all.size()), tree.size());
  for (Index budget = 1; budget <= tree.size(); ++budget) {
    DraftTree own;
    build_best_first(1, x.table(), own, {.budget = budget});
    double sum = 0;
    for (Index i = 0; i < budget; ++i) sum += std::exp(own.log_probability(i));
    EXPECT_NEAR(all[static_cast<std::size_t>(budget - 1)], sum, 1e-12);
  }
}

TEST(Budget, TheChosenBudgetTakesTheLeastTimeOfAToken) {
  const auto x = random_table<double>(6, 1, 4, 3, false);
  DraftTree tree;
  build_best_first(1, x.table(), tree, {.budget = 60});
  std::vector<double> expected;
  expected_tokens(tree, expected);
  const MeasuredCost cost({{1, .02}, {8, .022}, {16, .035}, {64, .2}});
  for (const double draft : {0.0, .01, 1.0}) {
    const BudgetChoice choice = choose_budget(expected, cost, draft);
    double least = 1e9;
    for (Index b = 1; b <= static_cast<Index>(expected.size()); ++b)
      least = std::min(least, (draft + cost(b)) / expected[static_cast<std::size_t>(b - 1)]);
    EXPECT_NEAR(choice.seconds / choice.tokens, least, 1e-15);
    EXPECT_EQ(choice.tokens, expected[static_cast<std::size_t>(choice.nodes - 1)]);
    EXPECT_NEAR(choice.seconds, draft + cost(choice.nodes), 1e-15);
  }
  // Drafts that are never accepted: the root alone.
  EXPECT_EQ(choose_budget(std::vector<double>{1, 1, 1}, cost, 0).nodes, 1);
}

TEST(Budget, MeasuredCostGoesThroughItsPoints) {
  const MeasuredCost cost({{2, 1}, {4, 2}, {10, 8}});
  const std::vector<double> wanted{1, 1, 1.5, 2, 3, 4, 5, 6, 7, 8, 9, 10};
  for (std::size_t i = 0; i < wanted.size(); ++i)
    EXPECT_NEAR(cost(static_cast<Index>(i) + 1), wanted[i], 1e-12);
  EXPECT_EQ(MeasuredCost({{4, 2}})(100), 2);
  EXPECT_EQ(MeasuredCost({{4, 2}, {8, 1}})(100), 1) << "noise does not make calls free";
}

TEST(Budget, ARooflineIsFlatUpToItsKnee) {
  const RooflineCost cost{
      .bytes = 16e9, .bandwidth = 60e9, .flops_per_row = 16e9, .flop_rate = 380e9};
  EXPECT_NEAR(cost.knee(), 380.0 / 60, 1e-12);
  EXPECT_EQ(cost(1), cost(6));
  EXPECT_NEAR(cost(7), 7 * 16.0 / 380, 1e-12);
}

TEST(Calibration, IsTheIsotonicFitOfWhatWasObserved) {
  AcceptanceCalibration c;
  EXPECT_NEAR(c.acceptance(1, std::log(.3)), .3, 1e-15) << "q, while nothing is known";
  const auto observe = [&](Index depth, double q, int seen, int accepted) {
    for (int i = 0; i < seen; ++i) c.observe(depth, std::log(q), i < accepted);
  };
  observe(1, .1, 100, 10);
  observe(1, .3, 100, 40);
  observe(1, .5, 100, 20);  // fewer than at .3: both are 60 of 200
  observe(1, .9, 100, 80);
  observe(2, .9, 100, 50);
  observe(3, .9, 5, 5);  // too few
  c.fit();
  const auto at = [&](Index depth, double q) { return c.acceptance(depth, std::log(q)); };
  EXPECT_EQ(at(1, .1), .1);
  EXPECT_EQ(at(1, .3), .3);
  EXPECT_EQ(at(1, .5), .3);
  EXPECT_EQ(at(1, .9), .8);
  EXPECT_EQ(at(1, .01), .1) << "below all: the first above";
  EXPECT_EQ(at(1, .7), .3) << "between: the next below";
  EXPECT_EQ(at(1, 1), .8);
  EXPECT_EQ(at(2, .2), .5);
  EXPECT_EQ(at(3, .9), .5) << "that of the depth before";
  EXPECT_EQ(at(9, .9), .5);
  for (double q = .01, before = 0; q < 1; q += .01) {
    EXPECT_GE(at(1, q), before);
    before = at(1, q);
  }
}

// Nodes are accepted with probability q^2 of the drafter's q: A of the tree is off, and the
// calibrated A is the mean number of tokens of a round.
TEST(Calibration, CalibratedTokensAreThoseOfRounds) {
  std::mt19937 random(1);
  std::uniform_real_distribution<double> uniform;
  AcceptanceCalibration c;
  double tokens = 0, drafted = 0, calibrated = 0;
  std::vector<double> expected;
  constexpr int rounds = 40'000;
  for (int i = 0; i < rounds; ++i) {
    // q is the middle of a bin, so that the bin's acceptance is q^2 too.
    const auto q = [&] { return (std::floor(uniform(random) * 64) + .5) / 64; };
    DraftTree tree;
    tree.start(0, 4);
    for (Index v = 0; v < 3; ++v) tree.add(v, 1, std::log(q()));
    Verified round{{0}, {}};
    for (Index v = 1; v < 4; ++v) {
      const double p = std::exp(tree.log_probability(v) - tree.log_probability(v - 1));
      if (uniform(random) >= p * p) break;
      round.path.push_back(v);
    }
    c.observe(tree, round);
    if (i == rounds / 2) c.fit();
    if (i <= rounds / 2) continue;
    tokens += static_cast<double>(round.path.size());
    expected_tokens(tree, expected);
    drafted += expected.back();
    expected_tokens(tree, expected, &c);
    calibrated += expected.back();
  }
  // About 1.47 tokens with a standard deviation below 1: six standard errors are .03 of a token in
  // either half.
  EXPECT_NEAR(calibrated / tokens, 1, .05);
  EXPECT_GT(drafted / tokens, 1.15);
}

TEST(AcceptanceCost, IsThePapersTable) {
  struct Row {
    double acceptance, head_time, reported, break_even;
  };
  for (const Row& r : {Row{1, .58, 1.09, .916}, Row{1.01, .46, 1.16, .892},
                       Row{.99, .21, 1.19, .842}, Row{.98, .14, 1.18, .828}}) {
    EXPECT_NEAR(relative_speed({r.acceptance, r.head_time, .25}), r.reported, .03);
    EXPECT_NEAR(break_even_acceptance(r.head_time, .25), r.break_even, 5e-4);
    EXPECT_NEAR(relative_speed({break_even_acceptance(r.head_time, .25), r.head_time, .25}), 1,
                1e-14);
  }
  EXPECT_EQ(relative_speed({}), 1);
}

// Tables are padded with the lowest double, of which two add up to -infinity.
TEST(Budget, NodesOfNoProbabilityAreNotAccepted) {
  const double lowest = std::numeric_limits<double>::lowest();
  DraftTree tree;
  tree.start(1, 5);
  for (Index i = 0; i < 4; ++i) tree.add(i, 7, i == 0 ? std::log(.5) : lowest);
  std::vector<double> expected;
  expected_tokens(tree, expected);
  EXPECT_EQ(expected[4], expected[1]);
  AcceptanceCalibration c;
  for (Index d = 1; d <= 4; ++d)
    for (int i = 0; i < 40; ++i) {
      c.observe(d, 0, true);  // of q = 1 all, of q = 0 half
      c.observe(d, lowest, i % 2 == 0);
    }
  for (Index i = 0; i < 4; ++i) c.observe(tree, Verified{{0, 1, 2, 3}, {}});
  c.fit();
  EXPECT_EQ(c.acceptance(4, 0), 1);  // nothing was counted there but what is above
  expected_tokens(tree, expected, &c);
  EXPECT_GT(expected[4], expected[3]);
  EXPECT_NEAR(expected[4] - expected[3], (expected[3] - expected[2]) * c.acceptance(4, lowest),
              1e-15);
}

TEST(Budget, WhatIsOutOfRangeIsRefused) {
  const auto refuse = [](const char* word, const auto& call) {
    EXPECT_NE(refused(call).find(word), std::string::npos) << word << ": " << refused(call);
  };
  std::vector<double> expected;
  const DraftTree empty;
  refuse("tree", [&] { expected_tokens(empty, expected); });
  for (const std::vector<CallTime>& points :
       {std::vector<CallTime>{}, {{0, 1}}, {{1, 0}}, {{1, nan_value}}, {{2, 1}, {2, 1}}})
    refuse("points", [&] { MeasuredCost{points}; });
  const Index most = std::numeric_limits<Index>::max();
  refuse("points", [&] { MeasuredCost({{most, 1}, {1, 1}}); });
  EXPECT_EQ(MeasuredCost({{1, 1}, {most, 2}})(most), 2);
  const auto one = [](Index) { return 1.0; };
  refuse("expected", [&] { choose_budget(std::vector<double>{}, one, 0); });
  for (const double a : {0.0, nan_value})
    refuse("expected", [&] { choose_budget(std::vector<double>{a}, one, 0); });
  for (const double t : {-1.0, nan_value})
    refuse("draft_seconds", [&] { choose_budget(std::vector<double>{1}, one, t); });
  refuse("verify_seconds",
         [&] { choose_budget(std::vector<double>{1}, [](Index) { return 0.0; }, 0); });
  AcceptanceCalibration c;
  for (const Index d : {0, 5000}) refuse("depth", [&] { c.observe(d, -1, true); });
  for (const double p : {.1, nan_value}) refuse("log_probability", [&] { c.acceptance(1, p); });
  DraftTree tree;
  tree.start(1, 2);
  refuse("path", [&] { c.observe(tree, Verified{{0, 1}, {}}); });
  refuse("acceptance", [] { relative_speed({-1, 1, 1}); });
  refuse("head_time", [] { relative_speed({1, nan_value, 1}); });
  refuse("head_share", [] { relative_speed({1, 1, -1}); });
}

}  // namespace
}  // namespace draft_budget_test
