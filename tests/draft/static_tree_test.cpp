// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <pare/core/workspace.hpp>
#include <pare/draft/static_tree.hpp>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <functional>
#include <limits>
#include <string>
#include <vector>

#include "draft/tables.hpp"
#include "support/allocations.hpp"

namespace draft_static_tree_test {
namespace {

using pare::Index;
using pare::draft::choose_static_tree;
using pare::draft::DraftTree;
using pare::draft::fill_static;
using pare::draft::static_tree;
using pare::draft::StaticTree;
using pare::testing::OwnedTable;
using pare::testing::path_of;
using pare::testing::random_table;
using pare::testing::refused;

const std::vector<double> rates{.5, .2, .12, .06};

/// F of a shape, read off its parents and ranks; checks that it is one.
double value_of(const StaticTree& t, const std::vector<double>& p, Index depth) {
  std::vector<double> reach{1};
  std::vector<Index> depths{0}, children(t.parents.size(), 0);
  double sum = 1;
  EXPECT_EQ(t.parents[0], -1);
  for (std::size_t v = 1; v < t.parents.size(); ++v) {
    const auto parent = static_cast<std::size_t>(t.parents[v]);
    EXPECT_LT(parent, v);
    EXPECT_EQ(t.ranks[v], children[parent]++) << "children in the order of ranks";
    reach.push_back(reach[parent] * p[static_cast<std::size_t>(t.ranks[v])]);
    depths.push_back(depths[parent] + 1);
    EXPECT_LE(depths.back(), depth);
    sum += reach.back();
  }
  return sum;
}

/// The products of all paths of at most `depth` ranks.
void add_products(const std::vector<double>& p, Index depth, double before,
                  std::vector<double>& all) {
  if (depth == 0) return;
  for (const double x : p) {
    all.push_back(before * x);
    add_products(p, depth - 1, before * x, all);
  }
}

// With rates that do not increase, the nodes of the greatest products are a tree.
TEST(StaticTree, IsWorthTheGreatestProductsOfRates) {
  for (const Index depth : {1, 2, 5}) {
    std::vector<double> products;
    add_products(rates, depth, 1, products);
    std::sort(products.begin(), products.end(), std::greater<>());
    double wanted = 1;
    for (Index nodes = 1; nodes <= std::min<Index>(40, 1 + static_cast<Index>(products.size()));
         ++nodes) {
      if (nodes > 1) wanted += products[static_cast<std::size_t>(nodes - 2)];
      const StaticTree t = static_tree(rates, {.nodes = nodes, .depth = depth});
      ASSERT_EQ(t.size(), nodes);
      EXPECT_NEAR(t.expected_tokens, wanted, 1e-12);
      EXPECT_NEAR(value_of(t, rates, depth), wanted, 1e-12);
    }
  }
}

/// The best F of trees of m nodes and at most l levels, by trying all sizes of the children.
double brute(const std::vector<double>& p, Index m, Index l, std::size_t rank = 0) {
  if (m == 1) return rank == 0 ? 1 : 0;
  if (l == 0 || rank == p.size()) return -100;
  double best = -100;
  for (Index y = 1; y < m; ++y)
    best = std::max(best, (rank == 0 ? 1 : 0) + p[rank] * brute(p, y, l - 1) +
                              (y == m - 1 ? 0 : brute(p, m - y, l, rank + 1)));
  return best;
}

// A second child that is accepted more often than the first must still come after it.
TEST(StaticTree, RanksAreTakenInOrderWhateverTheirRates) {
  const std::vector<double> odd{.1, .6, .2};
  for (const Index depth : {1, 2, 4})
    for (Index nodes = 1; nodes <= 9; ++nodes) {
      const StaticTree t = static_tree(odd, {.nodes = nodes, .depth = depth});
      EXPECT_NEAR(value_of(t, odd, depth), t.expected_tokens, 1e-12);
      if (t.size() < nodes) continue;
      EXPECT_NEAR(t.expected_tokens, brute(odd, nodes, depth), 1e-12);
    }
}

TEST(StaticTree, HasAsManyNodesAsThereCanBe) {
  EXPECT_EQ(static_tree(rates, {.nodes = 50, .depth = 1}).size(), 5);
  EXPECT_EQ(static_tree(rates, {.nodes = 50, .depth = 0}).size(), 1);
  EXPECT_EQ(static_tree(std::vector<double>{.9}, {.nodes = 50, .depth = 6}).size(), 7);
}

TEST(StaticTree, TheChosenShapeTakesTheLeastTimeOfAToken) {
  const auto cost = [](Index m) { return m <= 8 ? 1.0 : static_cast<double>(m) / 8; };
  for (const double draft : {0.0, .05, .5}) {
    const StaticTree chosen = choose_static_tree(rates, {.nodes = 30, .depth = 6}, draft, cost);
    double least = 1e9;
    for (Index m = 1; m <= 30; ++m)
      for (Index l = 0; l <= 6; ++l) {
        const StaticTree t = static_tree(rates, {.nodes = m, .depth = l});
        if (t.size() == m)
          least = std::min(least, (static_cast<double>(l) * draft + cost(m)) / t.expected_tokens);
      }
    Index levels = 0;
    std::vector<Index> depths{0};
    for (std::size_t v = 1; v < chosen.parents.size(); ++v) {
      depths.push_back(depths[static_cast<std::size_t>(chosen.parents[v])] + 1);
      levels = std::max(levels, depths.back());
    }
    EXPECT_NEAR(
        (static_cast<double>(levels) * draft + cost(chosen.size())) / chosen.expected_tokens, least,
        1e-12);
    EXPECT_TRUE(draft > 0 || chosen.size() == 8) << "the knee";
  }
}

TEST(StaticTree, IsFilledWithTheTokensOfItsRanks) {
  auto x = random_table<float>(4, 3, 5, 1, false);
  for (auto& n : x.next) n = std::max(n, 0);
  const StaticTree shape = static_tree(rates, {.nodes = 20, .depth = 4});
  DraftTree tree;
  fill_static(shape, 9, x.table(), tree);
  ASSERT_EQ(tree.size(), 20);
  std::vector<Index> rows{0};
  for (Index v = 1; v < 20; ++v) {
    const auto i = static_cast<std::size_t>(v);
    EXPECT_EQ(tree.parent(v), shape.parents[i]);
    const Index row = rows[static_cast<std::size_t>(shape.parents[i])];
    const auto at = x.at(tree.depth(v) - 1, row, shape.ranks[i]);
    EXPECT_EQ(tree.token(v), x.tokens[at]);
    rows.push_back(x.next[at]);
  }
  // What the table does not have is left out with all below it.
  x.log_probabilities[1] = std::numeric_limits<float>::quiet_NaN();
  const std::int32_t gone = x.tokens[1];
  DraftTree less;
  fill_static(shape, 9, x.table(), less);
  EXPECT_LT(less.size(), 20);
  for (Index v = 1; v < less.size(); ++v) EXPECT_NE(path_of(less, v)[0], gone);
}

TEST(StaticTree, TheSecondFillAllocatesNothing) {
  const auto x = random_table<float>(4, 3, 5, 1, false);
  const StaticTree shape = static_tree(rates, {.nodes = 20, .depth = 4});
  DraftTree tree;
  pare::Workspace workspace;
  fill_static(pare::simd.with(workspace), shape, 9, x.table(), tree);
  const long before = pare::testing::allocations.load();
  fill_static(pare::simd.with(workspace), shape, 9, x.table(), tree);
  EXPECT_EQ(pare::testing::allocations.load(), before);
}

TEST(StaticTree, WhatIsOutOfRangeIsRefused) {
  const auto refuse = [](const char* word, const std::vector<double>& p, Index nodes, Index depth) {
    EXPECT_NE(refused([&] {
                static_tree(p, {.nodes = nodes, .depth = depth});
              }).find("draft::static_tree: " + std::string(word)),
              std::string::npos);
  };
  refuse("acceptance", {}, 4, 2);
  refuse("acceptance", {-.1}, 4, 2);
  refuse("acceptance", {.6, .5}, 4, 2);
  refuse("acceptance", {std::nan("")}, 4, 2);
  refuse("acceptance", std::vector<double>(65, .01), 4, 2);
  for (const Index n : {0, 513}) refuse("nodes", rates, n, 2);
  for (const Index d : {-1, 65}) refuse("depth", rates, 4, d);
  const auto choose = [](double draft, double call) {
    return refused([&] { choose_static_tree(rates, {}, draft, [=](Index) { return call; }); });
  };
  EXPECT_NE(choose(-1, 1).find("draft_seconds"), std::string::npos);
  for (const double call : {0.0, -1.0, std::nan("")})
    EXPECT_NE(choose(1, call).find("verify_seconds"), std::string::npos);
  const auto x = random_table<float>(2, 1, 3, 1, false);
  DraftTree tree;
  tree.start(5, 2);
  for (const StaticTree& broken :
       {StaticTree{}, StaticTree{{-1, 1}, {0, 0}, 1}, StaticTree{{-1, 0}, {0, -1}, 1},
        StaticTree{{-1, 0}, {0}, 1}, StaticTree{{0, 0}, {0, 0}, 1}, StaticTree{{-1, 1}, {0, 0}, 1},
        StaticTree{{-1, 0, 0}, {0, 1, 1}, 1}, StaticTree{{-1, 0, 0}, {0, 1, 0}, 1}})
    EXPECT_NE(refused([&] { fill_static(broken, 1, x.table(), tree); }).find("shape"),
              std::string::npos);
  EXPECT_NE(refused([&] { fill_static(static_tree(rates), -1, x.table(), tree); }).find("root"),
            std::string::npos);
  EXPECT_EQ(tree.token(0), 5);
  EXPECT_EQ(tree.budget(), 2);
}

}  // namespace
}  // namespace draft_static_tree_test
