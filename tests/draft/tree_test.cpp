// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <pare/draft/tree.hpp>

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <random>
#include <set>
#include <vector>

#include "draft/tables.hpp"
#include "support/allocations.hpp"

namespace draft_tree_test {
namespace {

using pare::Index;
using pare::draft::DraftTree;
using pare::draft::Siblings;
using pare::testing::random_tree;
using pare::testing::refused;
using pare::testing::same_nodes;

TEST(DraftTree, MasksAreTheAncestorsThatParentsGive) {
  std::mt19937 random(1);
  for (const Index nodes : {1, 2, 17, 63, 64, 65, 128, 200}) {
    const DraftTree tree = random_tree(nodes, random, 300);
    ASSERT_EQ(tree.mask_words(), (nodes + 63) / 64);
    for (Index i = 0; i < nodes; ++i) {
      std::set<Index> above;
      double sum = 0;
      for (Index v = i; v >= 0; v = tree.parent(v)) above.insert(v);
      int bits = 0;
      for (const std::uint64_t word : tree.mask(i)) bits += std::popcount(word);
      EXPECT_EQ(bits, tree.depth(i) + 1);
      EXPECT_EQ(static_cast<Index>(above.size()), tree.depth(i) + 1);
      for (Index j = 0; j < nodes; ++j) EXPECT_EQ(tree.sees(i, j), above.contains(j));
      EXPECT_EQ(tree.position(i, 1000), 1000 + tree.depth(i));
      if (i == 0) continue;
      sum = tree.log_probability(i) - tree.log_probability(tree.parent(i));
      EXPECT_LE(sum, 0);
      EXPECT_LT(tree.parent(i), i);
    }
  }
}

TEST(DraftTree, ChildrenAreInTheOrderInWhichTheyWereAdded) {
  std::mt19937 random(2);
  const DraftTree tree = random_tree(90, random, 200);
  for (Index v = 0; v < tree.size(); ++v) {
    std::vector<Index> expected, linked;
    for (Index c = 1; c < tree.size(); ++c)
      if (tree.parent(c) == v) expected.push_back(c);
    for (Index c = tree.first_child(v); c >= 0; c = tree.next_sibling(c)) linked.push_back(c);
    EXPECT_EQ(linked, expected);
    for (const Index c : expected) EXPECT_EQ(tree.child(v, tree.token(c)), c);
    EXPECT_FALSE(tree.child(v, 200));
  }
}

TEST(DraftTree, ATruncatedTreeIsTheTreeOfItsFirstNodesAndCanGrow) {
  std::mt19937 random(3);
  const DraftTree whole = random_tree(70, random, 200);
  for (Index n = 1; n <= whole.size(); ++n) {
    DraftTree cut = whole, grown;
    cut.truncate(n);
    grown.start(whole.token(0), whole.budget());
    for (Index i = 1; i < whole.size(); ++i) {
      if (i == n) {
        ASSERT_TRUE(same_nodes(cut, grown)) << n;
      }
      const double log_probability =
          whole.log_probability(i) - whole.log_probability(whole.parent(i));
      grown.add(whole.parent(i), whole.token(i), log_probability);
      if (i >= n) cut.add(whole.parent(i), whole.token(i), log_probability);
    }
    EXPECT_TRUE(same_nodes(cut, grown)) << n;
    for (Index i = 0; i < whole.size(); ++i)
      for (Index j = 0; j < whole.size(); ++j) ASSERT_EQ(cut.sees(i, j), whole.sees(i, j));
  }
}

TEST(DraftTree, ArraysGiveTheTreeThatTheyDescribe) {
  std::mt19937 random(4);
  const DraftTree tree = random_tree(40, random, 100);
  std::vector<std::int32_t> tokens, parents, depths;
  std::vector<double> log_probabilities;
  for (Index i = 0; i < tree.size(); ++i) {
    tokens.push_back(tree.token(i));
    parents.push_back(static_cast<std::int32_t>(tree.parent(i)));
    depths.push_back(static_cast<std::int32_t>(tree.depth(i)));
    log_probabilities.push_back(
        i == 0 ? 5.0 : tree.log_probability(i) - tree.log_probability(tree.parent(i)));
  }
  const DraftTree same = DraftTree::from_parents(tokens, parents, depths, log_probabilities);
  ASSERT_EQ(same.size(), tree.size());
  for (Index i = 0; i < tree.size(); ++i) {
    EXPECT_EQ(same.parent(i), tree.parent(i));
    EXPECT_EQ(same.token(i), tree.token(i));
    EXPECT_NEAR(same.log_probability(i), tree.log_probability(i), 1e-12);
  }
  const DraftTree plain = DraftTree::from_parents(tokens, parents);
  EXPECT_EQ(plain.log_probability(7), 0);
}

TEST(DraftTree, RepeatedSiblingsOnlyWhereTheyAreAskedFor) {
  DraftTree tree;
  tree.start(1, 4);
  tree.add(0, 5);
  EXPECT_NE(refused([&] { tree.add(0, 5); }).find("token"), std::string::npos);
  EXPECT_EQ(tree.size(), 2);
  tree.start(1, 4, Siblings::MayRepeat);
  tree.add(0, 5);
  tree.add(0, 5);
  EXPECT_EQ(tree.child(0, 5), 1) << "the first of them";
}

TEST(DraftTree, BuiltAnewItAllocatesNothing) {
  std::mt19937 random(5);
  DraftTree tree;
  const auto build = [&] {
    tree.start(3, 64);
    for (Index i = 1; i < 64; ++i) tree.add((i - 1) / 2, static_cast<std::int32_t>(i), -0.5);
  };
  build();
  const long before = pare::testing::allocations.load();
  build();
  EXPECT_EQ(pare::testing::allocations.load(), before);
}

TEST(DraftTree, WhatIsNoTreeIsRefused) {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  DraftTree tree;
  EXPECT_NE(refused([&] { tree.start(1, 0); }).find("budget"), std::string::npos);
  EXPECT_NE(refused([&] { tree.start(1, 4097); }).find("budget"), std::string::npos);
  EXPECT_NE(refused([&] { tree.start(1, 4, static_cast<Siblings>(2)); }).find("siblings"),
            std::string::npos);
  EXPECT_NE(refused([&] { tree.start(-1, 4); }).find("token"), std::string::npos);
  EXPECT_EQ(tree.size(), 0);
  EXPECT_NE(refused([&] { tree.add(0, 1); }).find("parent"), std::string::npos);
  tree.start(1, 3);
  tree.add(0, 2);
  for (const Index parent : {-1, 2, 100})
    EXPECT_NE(refused([&] { tree.add(parent, 3); }).find("parent"), std::string::npos);
  EXPECT_NE(refused([&] { tree.add(0, -1); }).find("token"), std::string::npos);
  for (const double p : {0.1, nan, -std::numeric_limits<double>::infinity()})
    EXPECT_NE(refused([&] { tree.add(0, 3, p); }).find("log_probability"), std::string::npos);
  EXPECT_EQ(tree.size(), 2);
  tree.add(0, 3);
  EXPECT_NE(refused([&] { tree.add(0, 4); }).find("room"), std::string::npos);
  for (const Index nodes : {0, -1, 4})
    EXPECT_NE(refused([&] { tree.truncate(nodes); }).find("nodes"), std::string::npos);

  using List = std::vector<std::int32_t>;
  const auto from = [](const List& tokens, const List& parents) {
    return refused([&] { DraftTree::from_parents(tokens, parents); });
  };
  EXPECT_NE(from({}, {}).find("tokens"), std::string::npos);
  EXPECT_NE(from({1, 2}, {-1}).find("parents"), std::string::npos);
  EXPECT_NE(from({1, 2}, {0, 0}).find("parents[0]"), std::string::npos);
  EXPECT_NE(from({1, 2}, {-1, -1}).find("parents"), std::string::npos) << "two roots";
  EXPECT_NE(from({1, 2, 3}, {-1, 0, 2}).find("parents"), std::string::npos) << "its own parent";
  EXPECT_NE(from({1, 2, 3}, {-1, 2, 0}).find("parents"), std::string::npos) << "a later parent";
  EXPECT_NE(from({1, 2, 2}, {-1, 0, 0}).find("token"), std::string::npos);
  EXPECT_EQ(from({1, 2, 2}, {-1, 0, 1}), "");
  const List tokens{1, 2, 3}, parents{-1, 0, 1};
  for (const List& depths : {List{0, 1, 1}, List{1, 2, 3}, List{0, 1}})
    EXPECT_NE(refused([&] { DraftTree::from_parents(tokens, parents, depths); }).find("depths"),
              std::string::npos);
  const std::vector<double> few{0, 0};
  EXPECT_NE(
      refused([&] { DraftTree::from_parents(tokens, parents, {}, few); }).find("log_probabilities"),
      std::string::npos);
}

}  // namespace
}  // namespace draft_tree_test
