// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <Eigen/Core>

#include <pare/core/workspace.hpp>
#include <pare/draft/best_first.hpp>
#include <pare/draft/transition_table.hpp>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <functional>
#include <limits>
#include <set>
#include <string>
#include <vector>

#include "draft/tables.hpp"
#include "support/allocations.hpp"

namespace draft_best_first_test {
namespace {

using pare::Index;
using pare::draft::build_best_first;
using pare::draft::DraftTree;
using pare::draft::shared_lists;
using pare::testing::add_paths;
using pare::testing::OwnedTable;
using pare::testing::path_of;
using pare::testing::random_table;
using pare::testing::refused;
using pare::testing::same_nodes;
using pare::testing::TablePath;

/// The sums of the best paths, greatest first.
template <class T>
std::vector<double> best_scores(const OwnedTable<T>& x) {
  std::vector<TablePath> paths;
  add_paths(x, 0, {}, paths);
  std::vector<double> scores;
  for (const TablePath& path : paths) scores.push_back(path.score);
  std::sort(scores.begin(), scores.end(), std::greater<>());
  return scores;
}

// Path sums are added in the same order on both sides, and so are equal to the bit.
TEST(BestFirst, TheTreeIsTheMostProbableNodesOfAll) {
  for (unsigned seed = 0; seed < 500; ++seed) {
    const auto x = random_table<double>(1 + seed % 4, 1 + seed % 3, 1 + seed % 5, seed, seed % 2);
    const std::vector<double> scores = best_scores(x);
    for (const Index budget : {1, 2, 7, 30}) {
      DraftTree tree;
      build_best_first(9, x.table(), tree, {.budget = budget});
      ASSERT_EQ(tree.size(), std::min<Index>(budget, static_cast<Index>(scores.size()) + 1));
      std::set<std::vector<std::int32_t>> seen;
      for (Index i = 1; i < tree.size(); ++i) {
        EXPECT_EQ(tree.log_probability(i), scores[static_cast<std::size_t>(i - 1)]) << seed;
        EXPECT_TRUE(seen.insert(path_of(tree, i)).second) << "a path is there once";
      }
    }
  }
}

// Every path of the tree is one of the table, with the table's sum.
TEST(BestFirst, ItsPathsAreThoseOfTheTable) {
  for (unsigned seed = 0; seed < 50; ++seed) {
    const auto x = random_table<float>(4, 3, 4, seed, false);
    std::vector<TablePath> paths;
    add_paths(x, 0, {}, paths);
    DraftTree tree;
    build_best_first(9, x.table(), tree, {.budget = 25});
    for (Index i = 1; i < tree.size(); ++i)
      EXPECT_EQ(std::count_if(paths.begin(), paths.end(),
                              [&](const TablePath& p) {
                                return p.tokens == path_of(tree, i) &&
                                       p.score == tree.log_probability(i);
                              }),
                1);
  }
}

TEST(BestFirst, TheDefinitionGivesTheSameTreeAlsoWhereScoresAreEqual) {
  for (unsigned seed = 0; seed < 300; ++seed) {
    const auto x = random_table<float>(1 + seed % 6, 1 + seed % 4, 1 + seed % 7, seed, seed % 2);
    DraftTree fast, plain;
    build_best_first(9, x.table(), fast, {.budget = 40});
    build_best_first(pare::reference, 9, x.table(), plain, {.budget = 40});
    ASSERT_TRUE(same_nodes(fast, plain)) << seed;
  }
}

TEST(BestFirst, TheTreeOfABudgetIsTheStartOfThatOfOneMore) {
  for (unsigned seed = 0; seed < 20; ++seed) {
    const auto x = random_table<double>(5, 3, 4, seed, seed % 2);
    DraftTree largest;
    build_best_first(9, x.table(), largest, {.budget = 70});
    for (Index budget = 1; budget <= largest.size(); ++budget) {
      DraftTree tree, cut = largest;
      build_best_first(9, x.table(), tree, {.budget = budget});
      cut.truncate(budget);
      ASSERT_TRUE(same_nodes(tree, cut)) << budget;
    }
  }
}

TEST(BestFirst, SharedListsAreATableOfOneListADepth) {
  for (unsigned seed = 0; seed < 30; ++seed) {
    auto x = random_table<float>(5, 1, 6, seed, seed % 2);
    std::fill(x.next.begin(), x.next.end(), 0);
    Eigen::Matrix<std::int32_t, Eigen::Dynamic, Eigen::Dynamic> tokens(5, 6);  // column-major
    Eigen::MatrixXf logs(5, 6);
    for (Index d = 0; d < 5; ++d)
      for (Index r = 0; r < 6; ++r) {
        tokens(d, r) = x.tokens[x.at(d, 0, r)];
        logs(d, r) = x.log_probabilities[x.at(d, 0, r)];
      }
    DraftTree general, shared;
    build_best_first(9, x.table(), general, {.budget = 50});
    build_best_first(9, shared_lists(tokens, logs), shared, {.budget = 50});
    EXPECT_TRUE(same_nodes(general, shared));
  }
}

// JetSpec's released builder takes all children of a node at once. Node a below has the children
// c and d; the builder that takes whole families has no room for e, which is likelier than d.
TEST(BestFirst, WholeFamiliesAreNotTheBestTree) {
  OwnedTable<double> x(2, 1, 2);
  x.tokens = {1, 2, 3, 4};
  x.log_probabilities = {std::log(.6), std::log(.4), std::log(.9), std::log(.1)};
  DraftTree tree;
  build_best_first(9, x.table(), tree, {.budget = 5});
  ASSERT_EQ(tree.size(), 5);
  EXPECT_EQ(path_of(tree, 3), (std::vector<std::int32_t>{2})) << ".4 after .6 and .54";
  EXPECT_EQ(path_of(tree, 4), (std::vector<std::int32_t>{2, 3})) << ".36, not .06";
}

TEST(BestFirst, EntriesThatAreNotFiniteAreSkipped) {
  constexpr float inf = std::numeric_limits<float>::infinity();
  const float nan = std::numeric_limits<float>::quiet_NaN();
  OwnedTable<float> x(2, 1, 4);
  x.tokens = {1, 2, 3, 4, 5, 5, 6, 7};
  x.log_probabilities = {inf, -.5f, nan, -1.f, nan, -.25f, -.5f, -inf};
  DraftTree tree, plain;
  build_best_first(9, x.table(), tree, {.budget = 20});
  build_best_first(pare::reference, 9, x.table(), plain, {.budget = 20});
  EXPECT_TRUE(same_nodes(tree, plain));
  ASSERT_EQ(tree.size(), 7) << "two of depth 1, and two below each";
  for (Index i = 1; i < 7; ++i) EXPECT_TRUE(std::isfinite(tree.log_probability(i)));
  x.log_probabilities.assign(8, nan);
  build_best_first(9, x.table(), tree, {.budget = 20});
  EXPECT_EQ(tree.size(), 1);
}

TEST(BestFirst, NoNodeIsDeeperThanAsked) {
  const auto x = random_table<float>(6, 2, 3, 1, false);
  for (const Index most : {0, 1, 3, 6, 100}) {
    DraftTree tree;
    build_best_first(9, x.table(), tree, {.budget = 200, .max_depth = most});
    for (Index i = 0; i < tree.size(); ++i) EXPECT_LE(tree.depth(i), most);
    EXPECT_EQ(tree.size() == 1, most == 0);
  }
}

TEST(BestFirst, TheSecondCallAllocatesNothing) {
  const auto x = random_table<float>(15, 1, 16, 1, false);
  pare::Workspace workspace;
  DraftTree tree;
  build_best_first(pare::simd.with(workspace), 9, x.table(), tree, {.budget = 64});
  const long before = pare::testing::allocations.load();
  build_best_first(pare::simd.with(workspace), 9, x.table(), tree, {.budget = 64});
  EXPECT_EQ(pare::testing::allocations.load(), before);
}

TEST(BestFirst, WhatIsNoTableIsRefusedAndTheTreeIsLeft) {
  DraftTree tree;
  tree.start(5, 3);
  tree.add(0, 6);
  const auto refuse = [&](const char* word, const auto& change, Index budget = 8, Index most = 3,
                          std::int32_t root = 1) {
    auto x = random_table<float>(3, 2, 3, 1, false);
    std::fill(x.next.begin(), x.next.end(), 1);
    auto table = x.table();
    change(x, table);
    for (int i = 0; i < 2; ++i) {
      const std::string text = refused([&] {
        if (i == 0)
          build_best_first(root, table, tree, {.budget = budget, .max_depth = most});
        else
          build_best_first(pare::reference, root, table, tree,
                           {.budget = budget, .max_depth = most});
      });
      EXPECT_NE(text.find("draft::build_best_first: " + std::string(word)), std::string::npos)
          << text << " for " << word;
    }
    EXPECT_EQ(tree.size(), 2);
    EXPECT_EQ(tree.token(0), 5);
  };
  const auto same = [](auto&, auto&) {};
  refuse("budget", same, 0);
  refuse("budget", same, 5000);
  refuse("max_depth", same, 8, -1);
  refuse("root", same, 8, 3, -1);
  for (const std::size_t d : {0u, 1u, 2u})
    refuse("table", [=](auto&, auto& t) { t.tokens.extent[d] = 0; });
  refuse("log_probabilities", [](auto&, auto& t) { t.log_probabilities.extent[0] = 2; });
  refuse("next", [](auto&, auto& t) { t.next.extent[2] = 2; });
  refuse("tokens", [](auto&, auto& t) { t.tokens.data = nullptr; });
  refuse("log_probabilities",
         [](auto& x, auto&) { std::swap(x.log_probabilities[0], x.log_probabilities[2]); });
  refuse("log_probabilities", [](auto& x, auto&) { x.log_probabilities[0] = .01f; });
  refuse("tokens", [](auto& x, auto&) { x.tokens[2] = x.tokens[0]; });
  refuse("tokens", [](auto& x, auto&) { x.tokens[x.at(1, 1, 1)] = -1; });
  refuse("next", [](auto& x, auto&) { x.next[0] = 2; });
  refuse("next", [](auto& x, auto&) { x.next[x.at(1, 0, 2)] = -2; });
  // Neither the last depth's next nor a list of depth 0 but the first is read.
  auto x = random_table<float>(3, 2, 3, 1, false);
  x.next[x.at(2, 0, 0)] = 77;
  x.tokens[x.at(0, 1, 0)] = -5;
  EXPECT_EQ(refused([&] { build_best_first(1, x.table(), tree); }), "");
  Eigen::Matrix<std::int32_t, 2, 3> tokens;
  const Eigen::MatrixXf wide(2, 4);
  EXPECT_NE(refused([&] { shared_lists(tokens, wide); }).find("log_probabilities"),
            std::string::npos);
}

// What rounding makes larger than 0 counts as 0.
TEST(BestFirst, ALogarithmThatRoundingMadePositiveIsZero) {
  OwnedTable<float> x(2, 1, 1);
  x.tokens = {1, 2};
  x.log_probabilities = {1e-6f, 1e-6f};
  DraftTree tree;
  build_best_first(9, x.table(), tree, {.budget = 3});
  ASSERT_EQ(tree.size(), 3);
  EXPECT_EQ(tree.log_probability(2), 0);
}

}  // namespace
}  // namespace draft_best_first_test
