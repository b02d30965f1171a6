// SPDX-License-Identifier: Apache-2.0

#include "language_model/adaptive_budget.hpp"
#include "language_model/prompt_bytes.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

namespace studies_adaptive_budget_test {
namespace {

using language_model::AdaptiveBudget;
using pare::Index;
using pare::draft::DraftTree;
using pare::draft::MeasuredCost;
using pare::draft::Verified;

/// A chain whose every token has the probability q.
DraftTree chain(Index nodes, double q, Index budget = 64) {
  DraftTree tree;
  tree.start(1, budget);
  for (Index node = 0; node + 1 < nodes;) node = tree.add(node, 1, std::log(q));
  return tree;
}

/// A round that takes a chain's first `length` tokens.
Verified round_of(Index length) {
  Verified round;
  for (Index node = 0; node <= length; ++node) round.path.push_back(node);
  return round;
}

const MeasuredCost in_proportion({{1, 1.0}, {64, 64.0}});
const MeasuredCost flat_to_eight({{1, 1.0}, {8, 1.0}, {64, 57.0}});

TEST(AdaptiveBudget, CutsToTheNodesThatAreWorthTheirTime) {
  AdaptiveBudget budget(flat_to_eight, 1);
  EXPECT_EQ(budget.offered(), 64);
  DraftTree tree = chain(64, 0.9);
  // Rows up to the eighth are free; a ninth costs as much as all of these and is worth 0.43.
  EXPECT_NEAR(budget.cut(tree, 0.1), (1 - std::pow(0.9, 8)) / 0.1, 1e-12);
  EXPECT_EQ(tree.size(), 8);
  EXPECT_EQ(budget.offered(), 64);
}

TEST(AdaptiveBudget, LearnsHowOftenDraftsAreTaken) {
  AdaptiveBudget budget(flat_to_eight, 1);
  for (int i = 0; i < 80; ++i) budget.observe(chain(4, 0.9), round_of(i % 2));
  DraftTree tree = chain(64, 0.9);
  // The first token is taken in half of the rounds, one behind it never.
  EXPECT_NEAR(budget.cut(tree, 0), 1.5, 1e-12);
  EXPECT_EQ(tree.size(), 2);
}

TEST(AdaptiveBudget, PausesWhileDraftsLose) {
  AdaptiveBudget budget(in_proportion, 1);
  const auto rounds_to_draft = [&] {
    Index rounds = 0;
    for (; budget.offered() == 1; ++rounds) {
      DraftTree root = chain(1, 1, 1);
      EXPECT_EQ(budget.cut(root, 0), 1);
      EXPECT_EQ(root.size(), 1);
    }
    return rounds;
  };
  for (const Index pause : {4, 8, 16, 32, 64, 64}) {
    DraftTree tree = chain(8, 0.5);
    EXPECT_EQ(budget.cut(tree, 0.5), 1);
    EXPECT_EQ(tree.size(), 1);
    EXPECT_EQ(rounds_to_draft(), pause);
  }
  // A draft of no time goes on, though it gains nothing.
  AdaptiveBudget free(in_proportion, 1);
  for (int i = 0; i < 20; ++i) {
    DraftTree tree = chain(8, 0.5);
    EXPECT_EQ(free.cut(tree, 1e-4), 1);
    EXPECT_EQ(free.offered(), 64);
  }
}

TEST(AdaptiveBudget, OfDraftsThatCostPerNodeOffersTwiceWhatWasWorthIt) {
  AdaptiveBudget budget(flat_to_eight, 2, {.most = 32, .costs_per_node = true});
  EXPECT_EQ(budget.offered(), 32);
  DraftTree tree = chain(32, 0.5, 32);
  // Of B nodes, (1 + B / 16) / (2 - 2^(1 - B)) is least for 4: 0.667, after 0.679 and before 0.677.
  budget.cut(tree, 2.0);
  EXPECT_EQ(tree.size(), 4);
  EXPECT_EQ(budget.offered(), 8);
}

TEST(PromptBytes, AreOfATextUntilItEndsAndThenOfAll) {
  language_model::PromptBytes bytes;
  bytes.begin_text();
  bytes.add(1);
  bytes.add(3);
  EXPECT_EQ(bytes.mean(), 2);
  bytes.end_text();
  bytes.begin_text();
  bytes.add(11);
  EXPECT_EQ(bytes.mean(), 11);
  bytes.end_text();
  EXPECT_EQ(bytes.mean(), 5);
}

}  // namespace
}  // namespace studies_adaptive_budget_test
