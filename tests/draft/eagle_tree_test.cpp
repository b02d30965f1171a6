// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <Eigen/Core>

#include <pare/core/random.hpp>
#include <pare/draft/eagle_tree.hpp>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <set>
#include <string>
#include <vector>

#include "draft/tables.hpp"
#include "support/allocations.hpp"

namespace draft_eagle_tree_test {
namespace {

using pare::Index;
using pare::draft::DraftTree;
using pare::draft::EagleOptions;
using pare::draft::EagleTree;
using pare::testing::path_of;
using pare::testing::refused;
using Tokens = Eigen::Matrix<std::int32_t, Eigen::Dynamic, Eigen::Dynamic>;
using Path = std::vector<std::int32_t>;

/// A drafter: the list after a path, a function of the path. With `grid` many scores are equal,
/// some log probabilities 0.
struct Drafter {
  unsigned seed;
  bool grid;

  void list(const Path& path, Index k, std::vector<std::int32_t>& tokens,
            std::vector<float>& logs) const {
    std::uint32_t hash = seed;
    for (const std::int32_t t : path) hash = hash * 31 + static_cast<std::uint32_t>(t) + 1;
    tokens.clear();
    logs.clear();
    for (Index r = 0; r < k; ++r) {
      const auto w = pare::philox({hash, static_cast<std::uint32_t>(r), 0, 0}, {1, 2});
      tokens.push_back(static_cast<std::int32_t>(w[0] % 50) * 64 + static_cast<std::int32_t>(r));
      logs.push_back(grid ? -static_cast<float>(w[1] % 3) : -3 * static_cast<float>(w[1]) / 4e9f);
    }
    std::sort(logs.rbegin(), logs.rend());
  }
};

void run(EagleTree& eagle, const Drafter& drafter, const EagleOptions& options, DraftTree& tree) {
  Tokens tokens;
  Eigen::MatrixXf logs;
  std::vector<std::int32_t> t;
  std::vector<float> p;
  for (eagle.start(7, options); !eagle.done();) {
    tokens.resize(eagle.frontier(), options.top_k);
    logs.resize(eagle.frontier(), options.top_k);
    for (Index i = 0; i < eagle.frontier(); ++i) {
      drafter.list(path_of(eagle.drafted(), eagle.first() + i), options.top_k, t, p);
      for (Index r = 0; r < options.top_k; ++r) {
        tokens(i, r) = t[static_cast<std::size_t>(r)];
        logs(i, r) = p[static_cast<std::size_t>(r)];
      }
    }
    eagle.expand(tokens, logs);
  }
  eagle.finish(tree);
}

struct Node {
  Path path;
  double score;
};

/// The same by lists of paths. Of equal scores the earlier candidate is better.
std::vector<Node> oracle(const Drafter& drafter, const EagleOptions& o) {
  std::vector<Node> all, frontier{{{}, 0}};
  std::vector<std::int32_t> t;
  std::vector<float> p;
  const auto better = [](const Node& a, const Node& b) { return a.score > b.score; };
  for (Index level = 0; level <= o.depth; ++level) {
    std::vector<Node> next;
    for (const Node& node : frontier) {
      drafter.list(node.path, o.top_k, t, p);
      for (std::size_t r = 0; r < t.size(); ++r) {
        Node child = node;
        child.path.push_back(t[r]);
        child.score += static_cast<double>(p[r]);
        next.push_back(child);
      }
    }
    all.insert(all.end(), next.begin(), next.end());
    std::stable_sort(next.begin(), next.end(), better);
    next.resize(std::min(next.size(), static_cast<std::size_t>(o.top_k)));
    frontier = next;
  }
  std::stable_sort(all.begin(), all.end(), better);
  all.resize(std::min(all.size(), static_cast<std::size_t>(o.nodes - 1)));
  return all;
}

TEST(EagleTree, IsTheBestOfAllCandidatesAndHasNoOrphans) {
  EagleTree eagle;
  for (unsigned seed = 0; seed < 60; ++seed) {
    const Drafter drafter{seed, seed % 2 == 0};
    const EagleOptions o{.top_k = 1 + static_cast<Index>(seed) % 5,
                         .depth = static_cast<Index>(seed) % 4,
                         .nodes = 1 + static_cast<Index>(seed) % 23};
    DraftTree tree;
    run(eagle, drafter, o, tree);
    const auto wanted = oracle(drafter, o);
    ASSERT_EQ(tree.size(), static_cast<Index>(wanted.size()) + 1);
    std::set<Path> got;
    for (Index i = 1; i < tree.size(); ++i) got.insert(path_of(tree, i));
    for (const Node& node : wanted) {
      EXPECT_TRUE(got.contains(node.path)) << seed;
      const Path above(node.path.begin(), node.path.end() - 1);
      EXPECT_TRUE(above.empty() || got.contains(above)) << "its parent is there";
    }
  }
}

TEST(EagleTree, TheDrafterRunsOnTheBestOfEachLevel) {
  EagleTree eagle;
  DraftTree tree;
  run(eagle, {3, false}, {.top_k = 4, .depth = 3, .nodes = 20}, tree);
  EXPECT_EQ(eagle.drafted().size(), 1 + 3 * 4);
  for (Index i = 1; i < 13; ++i) EXPECT_EQ(eagle.drafted().depth(i), 1 + (i - 1) / 4);
  EXPECT_TRUE(eagle.done());
}

TEST(EagleTree, CandidatesThatAreNotFiniteAreSkipped) {
  constexpr float inf = std::numeric_limits<float>::infinity();
  EagleTree eagle;
  eagle.start(7, {.top_k = 3, .depth = 2, .nodes = 20});
  Tokens tokens(1, 3);
  tokens << 1, 2, 3;
  Eigen::MatrixXf logs(1, 3);
  logs << -1, std::nanf(""), -inf;
  eagle.expand(tokens, logs);
  EXPECT_EQ(eagle.frontier(), 1);
  logs.setConstant(-inf);
  eagle.expand(tokens, logs);
  EXPECT_TRUE(eagle.done()) << "nothing to go on from";
  DraftTree tree;
  eagle.finish(tree);
  EXPECT_EQ(tree.size(), 2);
}

TEST(EagleTree, TheSecondRoundAllocatesNothing) {
  EagleTree eagle;
  DraftTree tree;
  Tokens tokens(1, 3), more(3, 3);
  tokens << 1, 2, 3;
  more << 1, 2, 3, 1, 2, 3, 1, 2, 3;
  const Eigen::MatrixXf one = Eigen::MatrixXf::Constant(1, 3, -1);
  const Eigen::MatrixXf three = Eigen::MatrixXf::Constant(3, 3, -1);
  const auto round = [&] {
    eagle.start(7, {.top_k = 3, .depth = 2, .nodes = 12});
    eagle.expand(tokens, one);
    eagle.expand(more, three);
    eagle.expand(more, three);
    eagle.finish(tree);
  };
  round();
  const long before = pare::testing::allocations.load();
  round();
  EXPECT_EQ(pare::testing::allocations.load(), before);
}

TEST(EagleTree, WhatDoesNotFitIsRefused) {
  EagleTree eagle;
  DraftTree tree;
  const auto refuse = [](const char* word, const auto& call) {
    EXPECT_NE(refused(call).find(word), std::string::npos) << word << ": " << refused(call);
  };
  refuse("tree", [&] { eagle.finish(tree); });
  for (const Index k : {0, 65}) refuse("top_k", [&] { eagle.start(1, {.top_k = k}); });
  for (const Index d : {-1, 61}) refuse("depth", [&] { eagle.start(1, {.depth = d}); });
  for (const Index n : {0, 5000}) refuse("nodes", [&] { eagle.start(1, {.nodes = n}); });
  refuse("token", [&] { eagle.start(-1); });
  EXPECT_TRUE(eagle.done());
  eagle.start(1, {.top_k = 2, .depth = 0, .nodes = 3});
  Tokens tokens(1, 2);
  tokens << 4, 5;
  Eigen::MatrixXf logs(1, 2);
  logs << -1, -2;
  const Tokens wide(1, 3), twice = Tokens::Constant(1, 2, 4);
  const Eigen::MatrixXf few(1, 1);
  refuse("tokens", [&] { eagle.expand(wide, logs); });
  refuse("log_probabilities", [&] { eagle.expand(tokens, few); });
  refuse("tokens", [&] { eagle.expand(twice, logs); });
  const Eigen::MatrixXf rising = logs.rowwise().reverse();
  refuse("log_probabilities", [&] { eagle.expand(tokens, rising); });
  EXPECT_EQ(eagle.frontier(), 1);
  eagle.expand(tokens, logs);
  refuse("tree", [&] { eagle.expand(tokens, logs); });
}

}  // namespace
}  // namespace draft_eagle_tree_test
