// SPDX-License-Identifier: Apache-2.0

#include "language_model/drafters.hpp"
#include "studies/llama_reference.hpp"
#include "studies/opened_llama.hpp"

#include <pare/core/backend.hpp>

#include <gtest/gtest.h>

#include <algorithm>
#include <cstddef>
#include <span>
#include <stdexcept>
#include <string>
#include <vector>

namespace studies_early_exit_test {
namespace {

using namespace language_model;
using pare::testing::OpenedLlama;
using pare::testing::TinyLlama;

const std::vector<Token> text = {5, 80, 3, 41, 9, 77, 12, 60, 33, 8};
constexpr auto dim = static_cast<std::size_t>(TinyLlama::dim);

class EarlyExit : public ::testing::Test {
 protected:
  DraftHead head() const {
    return draft_head(
        pare::draft::DenseHead<float>(weight_of(on_any_executor(pare::simd), opened.model.head())));
  }

  /// log q of a token behind some others, by the first block, the norm and the head.
  double log_probability(std::span<const Token> before, Token token) const {
    KvCache alone = opened.cache();
    pare::draft::HeadSummary<float> top;
    opened.model.states(pare::simd, before, alone, {.blocks = 1},
                        [&](const ModelBackend& on, const auto& states) {
                          head()(on, rows_of(states, states.rows() - 1, 1), {.k = 101}, top);
                        });
    return top.log_probability(0, std::ranges::find(top.ids, token) - top.ids.begin());
  }

  /// The tokens from the text to a node.
  static std::vector<Token> path_to(const DraftTree& tree, Index node) {
    std::vector<Token> path;
    for (; node > 0; node = tree.parent(node)) path.insert(path.begin(), tree.token(node));
    path.insert(path.begin(), text.begin(), text.end());
    return path;
  }

  /// What a drafter makes behind the text, of which the cache has all but the root.
  DraftTree drafted(const Drafter& drafter, Index budget) {
    opened.model.states(pare::simd, std::span(text).first(text.size() - 1), cache, {},
                        [](const ModelBackend&, const auto&) {});
    DraftTree tree;
    drafter(on_any_executor(pare::simd), {text, {}, cache, budget, seconds, blocks}, tree);
    EXPECT_EQ(cache.length(), std::ssize(text) - 1);
    return tree;
  }

  void expect_probabilities_of_paths(const DraftTree& tree) const {
    for (Index node = 1; node < tree.size(); ++node) {
      const Index parent = tree.parent(node);
      EXPECT_NEAR(tree.log_probability(node) - tree.log_probability(parent),
                  log_probability(path_to(tree, parent), tree.token(node)), 1e-4)
          << "node " << node;
    }
  }

  OpenedLlama opened{TinyLlama(3)};
  KvCache cache = opened.cache();
  double seconds = 0;
  DraftedBlocks blocks;
};

TEST_F(EarlyExit, ChainsHaveTheProbabilitiesOfTheirTokens) {
  const DraftTree tree = drafted(early_exit(opened.model, 1, head()), 7);
  ASSERT_EQ(tree.size(), 7);
  EXPECT_EQ(tree.depth(6), 6);
  EXPECT_GT(seconds, 0);
  expect_probabilities_of_paths(tree);
}

TEST_F(EarlyExit, TreesHaveTheProbabilitiesOfTheirPaths) {
  const DraftTree tree = drafted(EarlyExitTree(opened.model, 1, head(), 4), 24);
  ASSERT_EQ(tree.size(), 24);
  EXPECT_EQ(blocks.blocks, 0);
  Index deepest = 0;
  for (Index node = 1; node < tree.size(); ++node) deepest = std::max(deepest, tree.depth(node));
  EXPECT_GT(deepest, 2);
  expect_probabilities_of_paths(tree);
}

TEST_F(EarlyExit, TreesFitTheRoomOfTheCache) {
  // Behind the text are 4 tokens of room: the root's level alone fits, and 3 of its tokens.
  cache = KvCache(opened.model.config().kv_shape(), std::ssize(text) + 3);
  const DraftTree tree = drafted(EarlyExitTree(opened.model, 1, head(), 4), 4);
  EXPECT_EQ(tree.size(), 4);
}

/// What the judging pass begins with: states and keys of the first block, as of a pass of all.
TEST_F(EarlyExit, ChainsLeaveWhatTheirBlocksMade) {
  const DraftTree tree = drafted(early_exit(opened.model, 1, head()), 6);
  ASSERT_EQ(blocks.blocks, 1);
  ASSERT_EQ(blocks.states.size(), 6 * dim);
  cache.append(6);
  KvCache other = opened.cache();
  std::vector<float> made(15 * dim);
  const std::vector<Token> whole = path_to(tree, 5);
  ASSERT_EQ(whole.size(), 15u);
  opened.model.states(pare::simd, whole, other, {.blocks = 1, .made = made},
                      [](const ModelBackend&, const auto&) {});
  for (std::size_t i = 0; i < 6 * dim; ++i)
    EXPECT_NEAR(blocks.states[i], made[9 * dim + i], 1e-5f) << i;
  for (Index t = 0; t < 15; ++t)
    for (Index i = 0; i < TinyLlama::head_dim; ++i) {
      EXPECT_NEAR(cache.keys<float>(0)(0, 0, t, i), other.keys<float>(0)(0, 0, t, i), 1e-5f);
      EXPECT_NEAR(cache.values<float>(0)(0, 0, t, i), other.values<float>(0)(0, 0, t, i), 1e-5f);
    }
}

TEST_F(EarlyExit, APassInTwoPartsIsThePass) {
  KvCache parts = opened.cache(), at_once = opened.cache();
  std::vector<float> made(text.size() * dim), wanted;
  const auto keep = [](std::vector<float>& to) {
    return [&to](const ModelBackend&, const auto& states) {
      to.assign(states.data, states.data + states.rows() * states.cols());
    };
  };
  opened.model.states(pare::simd, text, at_once, {}, keep(wanted));
  for (Index first = 0; first <= TinyLlama::blocks; ++first) {
    parts.reset();
    std::vector<float> got;
    opened.model.states(pare::simd, text, parts, {.blocks = first, .made = made}, keep(got));
    parts.reset();
    const std::span<const float> given = made;
    opened.model.states(pare::simd, text, parts,
                        {.first = first, .given = first > 0 ? given : given.first(0)}, keep(got));
    EXPECT_EQ(got, wanted) << "from block " << first;
  }
}

TEST_F(EarlyExit, MoreBranchesThanTheHeadHasTokensAreRefused) {
  const auto weight = weight_of(on_any_executor(pare::simd), opened.model.head());
  const DraftHead small = subset_head(weight, text, 3);
  try {
    drafted(EarlyExitTree(opened.model, 1, small, 4), 8);
    FAIL() << "drafted four of three tokens";
  } catch (const std::invalid_argument& error) {
    EXPECT_NE(std::string(error.what()).find("branch"), std::string::npos) << error.what();
  }
}

}  // namespace
}  // namespace studies_early_exit_test
