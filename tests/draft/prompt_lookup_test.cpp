// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <pare/draft/prompt_lookup.hpp>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "draft/tables.hpp"
#include "support/allocations.hpp"

namespace draft_prompt_lookup_test {
namespace {

using pare::Index;
using pare::draft::DraftTree;
using pare::draft::prompt_lookup;
using pare::draft::PromptLookupOptions;
using pare::testing::path_of;
using pare::testing::refused;
using Text = std::vector<std::int32_t>;

/// Continuations after the longest match, in the order in which they are followed.
struct Found {
  Index length = 0;
  std::vector<Text> continuations{};
};

Found oracle(const Text& text, const PromptLookupOptions& o) {
  const auto size = static_cast<Index>(text.size());
  for (Index n = o.longest_match; n >= o.shortest_match; --n) {
    if (n >= size) continue;
    const Text last(text.end() - n, text.end());
    Found found{n};
    for (Index at = 0; at + n < size; ++at)
      if (Text(text.begin() + at, text.begin() + at + n) == last)
        found.continuations.emplace_back(text.begin() + at + n,
                                         text.begin() + std::min(size, at + n + o.tokens));
    if (o.latest) std::reverse(found.continuations.begin(), found.continuations.end());
    if (static_cast<Index>(found.continuations.size()) > o.matches)
      found.continuations.resize(static_cast<std::size_t>(o.matches));
    if (!found.continuations.empty()) return found;
  }
  return {};
}

TEST(PromptLookup, DraftsWhatFollowedTheLongestMatch) {
  std::mt19937 random(1);
  int drafted = 0;
  for (int round = 0; round < 400; ++round) {
    Text text;
    for (std::uint64_t i = 0, n = 1 + random() % 60; i < n; ++i)
      text.push_back(static_cast<std::int32_t>(random() % 5));
    for (const bool latest : {false, true})
      for (const Index matches : {1, 3, 50}) {
        const PromptLookupOptions o{
            .longest_match = 4, .tokens = 5, .matches = matches, .latest = latest};
        DraftTree tree;
        const Index length = prompt_lookup(text, tree, o);
        const Found found = oracle(text, o);
        ASSERT_EQ(length, found.length);
        EXPECT_EQ(tree.token(0), text.back());
        // The trie of the continuations, nodes in the order in which they are first met.
        std::vector<Text> paths;
        std::map<Text, double> through{{{}, static_cast<double>(found.continuations.size())}};
        for (const Text& c : found.continuations)
          for (std::size_t d = 1; d <= c.size(); ++d) {
            const Text path(c.begin(), c.begin() + static_cast<Index>(d));
            if (through[path]++ == 0) paths.push_back(path);
          }
        ASSERT_EQ(tree.size(), static_cast<Index>(paths.size()) + 1);
        for (Index i = 1; i < tree.size(); ++i) {
          const Text& path = paths[static_cast<std::size_t>(i - 1)];
          EXPECT_EQ(path_of(tree, i), path);
          const double share = through[path] / through[{}];
          EXPECT_NEAR(tree.log_probability(i), std::log(share), 1e-12);
        }
        drafted += tree.size() > 1 ? 1 : 0;
      }
  }
  EXPECT_GT(drafted, 1000);
}

TEST(PromptLookup, ABudgetCutsTheTree) {
  const Text text{1, 2, 3, 4, 5, 1, 2, 6, 7, 8, 1, 2};
  for (Index budget = 1; budget < 9; ++budget) {
    DraftTree tree, whole;
    prompt_lookup(text, whole, {.tokens = 3, .matches = 2});
    EXPECT_EQ(prompt_lookup(text, tree, {.tokens = 3, .matches = 2, .budget = budget}), 2);
    EXPECT_EQ(whole.size(), 7);
    EXPECT_EQ(tree.size(), std::min<Index>(budget, 7));
    for (Index i = 0; i < tree.size(); ++i) EXPECT_EQ(path_of(tree, i), path_of(whole, i));
  }
}

TEST(PromptLookup, WithoutAMatchTheTreeIsItsRoot) {
  DraftTree tree;
  EXPECT_EQ(prompt_lookup(Text{7}, tree), 0);
  EXPECT_EQ(tree.size(), 1);
  EXPECT_EQ(prompt_lookup(Text{1, 2, 3}, tree), 0);
  EXPECT_EQ(tree.token(0), 3);
  EXPECT_EQ(prompt_lookup(Text{4, 4}, tree, {.tokens = 0}), 1);
  EXPECT_EQ(tree.size(), 1);
  EXPECT_EQ(prompt_lookup(Text{1, 2, 3, 2}, tree, {.shortest_match = 2}), 0);
}

TEST(PromptLookup, TheSecondCallAllocatesNothing) {
  const Text text{1, 2, 3, 4, 5, 1, 2, 6, 7, 8, 1, 2};
  DraftTree tree;
  const auto call = [&] { prompt_lookup(text, tree, {.matches = 3}); };
  call();
  const long before = pare::testing::allocations.load();
  call();
  EXPECT_EQ(pare::testing::allocations.load(), before);
}

TEST(PromptLookup, WhatCannotBeLookedUpIsRefused) {
  DraftTree tree;
  tree.start(5, 2);
  const auto refuse = [&](const char* word, const Text& text, const PromptLookupOptions& o) {
    EXPECT_NE(refused([&] {
                prompt_lookup(text, tree, o);
              }).find("draft::prompt_lookup: " + std::string(word)),
              std::string::npos)
        << word;
    EXPECT_EQ(tree.token(0), 5);
  };
  refuse("text", {}, {});
  refuse("text", {1, -1, 2}, {});
  refuse("shortest_match", {1}, {.shortest_match = 0});
  refuse("longest_match", {1}, {.longest_match = 2, .shortest_match = 3});
  for (const Index n : {-1, 4096}) refuse("tokens", {1}, {.tokens = n});
  for (const Index n : {0, 5000}) refuse("matches", {1}, {.matches = n});
  for (const Index n : {0, 5000}) refuse("budget", {1}, {.budget = n});
}

}  // namespace
}  // namespace draft_prompt_lookup_test
