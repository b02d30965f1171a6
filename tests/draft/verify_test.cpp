// SPDX-License-Identifier: Apache-2.0
// Trees over a small Markov model: whatever is drafted, rounds commit what the model alone gives.
#include <gtest/gtest.h>

#include <Eigen/Core>

#include <pare/core/workspace.hpp>
#include <pare/draft/best_first.hpp>
#include <pare/draft/keyed_noise.hpp>
#include <pare/draft/node_rules.hpp>
#include <pare/draft/typical.hpp>
#include <pare/draft/verify.hpp>
#include <pare/draft/verify_sampled.hpp>

#include <cmath>
#include <cstdint>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "draft/chi_square.hpp"
#include "draft/markov_model.hpp"
#include "draft/tables.hpp"
#include "support/allocations.hpp"

namespace draft_verify_test {
namespace {

using pare::Index;
using pare::draft::cut_after;
using pare::draft::DraftTree;
using pare::draft::keyed_sample;
using pare::draft::laws_of;
using pare::draft::Sampling;
using pare::draft::SequentialRule;
using pare::draft::SequoiaRule;
using pare::draft::Siblings;
using pare::draft::Verified;
using pare::draft::verify_greedy;
using pare::draft::verify_match;
using pare::draft::verify_sampled;
using pare::testing::drafted_tree;
using pare::testing::goodness_of_fit;
using pare::testing::MarkovModel;
using pare::testing::random_tree;
using pare::testing::refused;
using Matrix = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
using Text = std::vector<std::int32_t>;

constexpr Index length = 60;

/// Rounds until the text is long enough: `draft(text)` makes a tree, `verify(text, tree, round)`.
template <class Draft, class Verify>
Text decode(Text text, const Draft& draft, const Verify& verify, Index& rounds) {
  Verified round;
  while (static_cast<Index>(text.size()) < length) {
    const DraftTree tree = draft(text);
    verify(text, tree, round);
    EXPECT_EQ(round.tokens.size(), round.path.size());
    text.insert(text.end(), round.tokens.begin(), round.tokens.end());
    ++rounds;
  }
  text.resize(length);
  return text;
}

TEST(Verify, GreedyRoundsGiveGreedyText) {
  Index rounds = 0, all_rounds = 0, tokens = 0;
  for (unsigned seed = 0; seed < 60; ++seed) {
    const MarkovModel model{24, seed};
    Text text{1, 2};
    while (static_cast<Index>(text.size()) < length) text.push_back(model.greedy(text));
    std::mt19937 random(seed);
    const auto verify = [&](const Text& t, const DraftTree& tree, Verified& round) {
      verify_greedy(tree, model.tree_logits(t, tree), round);
    };
    const auto any = [&](const Text& t) {
      DraftTree tree = random_tree(1 + static_cast<Index>(random() % 20), random, 24);
      return model.rooted(tree, t.back());
    };
    const auto wrong = [&](const Text& t) { return model.wrong_chain(t, 5); };
    const auto good = [&](const Text& t) { return drafted_tree(model, t, 12, .3, random); };
    const auto single = [&](const Text& t) {
      DraftTree tree;
      tree.start(t.back(), 1);
      return tree;
    };
    EXPECT_EQ(decode({1, 2}, any, verify, rounds), text);
    EXPECT_EQ(decode({1, 2}, wrong, verify, rounds), text);
    EXPECT_EQ(decode({1, 2}, single, verify, rounds), text);
    rounds = 0;
    EXPECT_EQ(decode({1, 2}, good, verify, rounds), text);
    tokens += length - 2;
    all_rounds += rounds;
  }
  EXPECT_LT(all_rounds, tokens * 3 / 4) << "drafts are accepted";
}

TEST(Verify, KeyedNoiseGivesTheTokensOfPlainSamplingWhateverTheTree) {
  Index rounds = 0;
  constexpr int sequences = 240;
  for (unsigned seed = 0; seed < sequences; ++seed) {
    const MarkovModel model{20, seed};
    const Sampling sampling = seed % 3 == 0 ? Sampling{.temperature = .7, .top_k = 9, .top_p = .95}
                                            : Sampling{.temperature = 1 + .1 * (seed % 4)};
    Text text{3};
    while (static_cast<Index>(text.size()) < length)
      text.push_back(keyed_sample(model.logits(text), sampling, {.seed = seed},
                                  static_cast<Index>(text.size())));
    std::mt19937 random(seed + 1000);
    const auto verify = [&](const Text& t, const DraftTree& tree, Verified& round) {
      const Matrix logits = model.tree_logits(t, tree);
      Text y;
      for (Index i = 0; i < tree.size(); ++i)
        y.push_back(keyed_sample(
            pare::TensorView<const float, 1>{
                logits.data() + i * logits.cols(), {logits.cols()}, {1}},
            sampling, {.seed = seed}, tree.position(i, static_cast<Index>(t.size()) - 1) + 1));
      verify_match(tree, y, round, {.vocabulary = 20});
    };
    const auto draft = [&](const Text& t) {
      return seed % 2 == 0 ? drafted_tree(model, t, 10, .5, random)
                           : model.rooted(random_tree(12, random, 20), t.back());
    };
    ASSERT_EQ(decode({3}, draft, verify, rounds), text) << seed;
  }
  EXPECT_LT(rounds, sequences * (length - 1) * 9 / 10) << "drafts are accepted";
}

/// The joint law of two tokens after a context.
std::vector<double> joint_law(const MarkovModel& model, const Text& context,
                              const Sampling& sampling) {
  const auto n = static_cast<std::size_t>(model.vocabulary);
  std::vector<double> first(n), second(n), joint;
  pare::draft::token_law(model.logits(context), sampling, first);
  for (std::size_t a = 0; a < n; ++a) {
    Text more = context;
    more.push_back(static_cast<std::int32_t>(a));
    pare::draft::token_law(model.logits(more), sampling, second);
    for (const double p : second) joint.push_back(first[a] * p);
  }
  return joint;
}

/// Two tokens of a round; if it committed one, the other is drawn from the model.
void count_pair(const MarkovModel& model, const Text& context, const Sampling& sampling,
                Verified& round, pare::draft::Coins& coins, std::vector<std::int64_t>& counts) {
  if (round.tokens.size() < 2) {
    Text more = context;
    more.push_back(round.tokens[0]);
    std::vector<double> law(static_cast<std::size_t>(model.vocabulary));
    pare::draft::token_law(model.logits(more), sampling, law);
    round.tokens.push_back(pare::draft::draw(law, coins()));
  }
  ++counts[static_cast<std::size_t>(round.tokens[0] * model.vocabulary + round.tokens[1])];
}

TEST(Verify, TwoTokensOfATreeHaveTheirJointLaw) {
  const MarkovModel model{6, 3};
  const Text context{1, 4};
  const Sampling sampling{.temperature = .9};
  const auto joint = joint_law(model, context, sampling);
  DraftTree tree;
  tree.start(4, 8);
  for (const std::int32_t t : {2, 5, 0}) tree.add(0, t);
  for (const std::int32_t t : {1, 3}) tree.add(1, t);
  tree.add(2, 4);
  const Matrix logits = model.tree_logits(context, tree);
  std::vector<std::int64_t> counts(36);
  Verified round;
  pare::Workspace workspace;
  Index tokens = 0;
  constexpr Index rounds = 500'000;
  for (Index i = 0; i < rounds; ++i) {
    verify_sampled(pare::simd.with(workspace), tree, SequentialRule{}, laws_of(logits, sampling),
                   {.seed = 21}, i, round);
    tokens += static_cast<Index>(round.tokens.size());
    pare::draft::Coins coins({.seed = 22}, i);
    count_pair(model, context, sampling, round, coins, counts);
  }
  EXPECT_GE(goodness_of_fit(counts, joint), 1e-4);
  EXPECT_GT(tokens, rounds * 5 / 4);
}

TEST(Verify, TwoTokensOfADrawnTreeHaveTheirJointLaw) {
  const MarkovModel model{6, 4}, drafter{6, 5};
  const Text context{1, 4};
  const Sampling sampling{.temperature = .9};
  const auto joint = joint_law(model, context, sampling);
  std::vector<std::int64_t> counts(36);
  std::vector<std::int32_t> draws, below;
  std::vector<double> q(6);
  Verified round;
  pare::Workspace workspace;
  for (Index i = 0; i < 200'000; ++i) {
    pare::draft::Coins drafting({.seed = 31}, i);
    DraftTree tree;
    tree.start(4, 8);
    pare::draft::token_law(drafter.logits(context), {}, q);
    draw_distinct(q, 3, drafting, draws);
    for (const std::int32_t t : draws) tree.add(0, t);
    pare::draft::token_law(drafter.logits({1, 4, draws[0]}), {}, q);
    draw_distinct(q, 2, drafting, below);
    for (const std::int32_t t : below) tree.add(1, t);
    const Matrix logits = model.tree_logits(context, tree);
    const Matrix draft_logits = drafter.tree_logits(context, tree);
    verify_sampled(pare::simd.with(workspace), tree, SequoiaRule{},
                   laws_of(logits, sampling, draft_logits, {}), {.seed = 32}, i, round);
    pare::draft::Coins coins({.seed = 33}, i);
    count_pair(model, context, sampling, round, coins, counts);
  }
  EXPECT_GE(goodness_of_fit(counts, joint), 1e-4);
}

TEST(Verify, TemperatureZeroIsGreedyByEveryRule) {
  for (unsigned seed = 0; seed < 40; ++seed) {
    const MarkovModel model{20, seed};
    std::mt19937 random(seed);
    const DraftTree tree = drafted_tree(model, {1, 2}, 12, .3, random);
    const Matrix logits = model.tree_logits({1, 2}, tree);
    Verified greedy, round;
    verify_greedy(tree, logits, greedy);
    const auto laws = laws_of(logits, {.temperature = 0});
    verify_sampled(tree, SequentialRule{}, laws, {.seed = 1}, 2, round);
    EXPECT_EQ(round.tokens, greedy.tokens);
    verify_sampled(tree, pare::draft::OneCoinRule{}, laws, {.seed = 1}, 2, round);
    EXPECT_EQ(round.path, greedy.path);
    EXPECT_EQ(round.tokens, greedy.tokens);
  }
}

TEST(Verify, TheFirstOfRepeatedSiblingsIsTaken) {
  DraftTree tree;
  tree.start(1, 4, Siblings::MayRepeat);
  tree.add(0, 5);
  tree.add(0, 5);
  tree.add(2, 7);
  Verified round;
  verify_match(tree, Text{5, 9, 7, 3}, round);
  EXPECT_EQ(round.path, (std::vector<Index>{0, 1}));
  EXPECT_EQ(round.tokens, (Text{5, 9}));
}

TEST(Verify, ARoundEndsAfterAStopToken) {
  const Verified whole{{0, 2, 5}, {7, 8, 9}};
  Verified round = whole;
  EXPECT_FALSE(cut_after(round, Text{1, 2}));
  EXPECT_EQ(round.path, whole.path);
  EXPECT_TRUE(cut_after(round, Text{9})) << "the last: the cache is as it was";
  EXPECT_EQ(round.path, whole.path);
  EXPECT_TRUE(cut_after(round, Text{1, 8}));
  EXPECT_EQ(round.tokens, (Text{7, 8}));
  EXPECT_EQ(round.path, (std::vector<Index>{0, 2, 5}));
  round = whole;
  EXPECT_TRUE(cut_after(round, Text{9, 7}));
  EXPECT_EQ(round.tokens, (Text{7}));
  EXPECT_EQ(round.path, (std::vector<Index>{0, 2}));
}

TEST(Verify, TypicalAcceptanceMustBeAskedForAndTakesTheDeepestPath) {
  DraftTree tree;
  tree.start(0, 8);
  const Index a = tree.add(0, 1), b = tree.add(0, 2), c = tree.add(b, 3);
  Matrix logits = Matrix::Constant(4, 5, -20);
  logits(0, 1) = 1;
  logits(0, 2) = .9f;
  logits(a, 0) = logits(b, 3) = logits(c, 4) = 1;
  Verified round;
  EXPECT_NE(refused([&] {
              verify_typical(tree, laws_of(logits, {}), {}, {.seed = 1}, 1, round);
            }).find("lossy"),
            std::string::npos);
  verify_typical(tree, laws_of(logits, {}), {.lossy = true}, {.seed = 1}, 1, round);
  EXPECT_EQ(round.path, (std::vector<Index>{0, b, c}));
  EXPECT_EQ(round.tokens, (Text{2, 3, 4}));
  EXPECT_NE(refused([&] {
              verify_typical(tree, laws_of(logits, {}), {.lossy = true, .epsilon = 2}, {.seed = 1},
                             1, round);
            }).find("epsilon"),
            std::string::npos);
  // -sum p log(p + 1e-5) of four equal tokens is log 4 but for the 1e-5.
  const std::vector<double> even(4, .25);
  EXPECT_NEAR(pare::draft::typical_threshold(even, {}), .3 / 4, 1e-4);
  EXPECT_EQ(pare::draft::typical_threshold(std::vector<double>{1}, {}), .09);
}

TEST(Verify, TheSecondRoundAllocatesNothing) {
  const MarkovModel model{20, 1};
  std::mt19937 random(1);
  const DraftTree tree = drafted_tree(model, {1, 2}, 12, .1, random);
  const Matrix logits = model.tree_logits({1, 2}, tree);
  Verified round;
  pare::Workspace workspace;
  const auto call = [&] {
    verify_greedy(tree, logits, round);
    verify_sampled(pare::simd.with(workspace), tree, SequoiaRule{},
                   laws_of(logits, {.top_k = 9}, logits, {.top_p = .9}), {.seed = 1}, 2, round);
    verify_typical(pare::simd.with(workspace), tree, laws_of(logits, {.top_p = .9}),
                   {.lossy = true}, {.seed = 1}, 2, round);
  };
  for (int i = 0; i < 3; ++i) call();
  const long before = pare::testing::allocations.load();
  call();
  EXPECT_EQ(pare::testing::allocations.load(), before);
}

/// Laws of a user, which are broken at one node.
struct BrokenLaws {
  std::vector<double> law;
  Index vocabulary() const { return 3; }
  void target(Index node, std::span<double> p) const {
    const std::vector<double> good{0, 1, 0};
    std::copy_n((node == 0 ? good : law).begin(), 3, p.begin());
  }
};

/// The same of the laws that children were drawn from.
struct BrokenDraft {
  std::vector<double> law;
  Index vocabulary() const { return 3; }
  void target(Index, std::span<double> p) const {
    const std::vector<double> good{0, 1, 0};
    std::copy_n(good.begin(), 3, p.begin());
  }
  void draft(Index node, std::span<double> q) const {
    const std::vector<double> good{0, 1, 0};
    std::copy_n((node == 0 ? good : law).begin(), 3, q.begin());
  }
};

/// A rule of a user, which accepts a child that is not there.
struct BrokenRule {
  static constexpr bool reads_draft_law = false;
  template <class Uniform>
  Index accept(const pare::draft::NodeChildren& node, Uniform&) const {
    return static_cast<Index>(node.tokens.size());
  }
};

TEST(Verify, WhatIsNoRoundIsRefusedAndTheOldOneIsLeft) {
  DraftTree tree, empty;
  tree.start(0, 4);
  tree.add(0, 1);
  tree.add(1, 2);
  const Verified before{{0, 4}, {5, 6}};
  Verified round = before;
  const auto refuse = [&](const char* word, const auto& call) {
    EXPECT_NE(refused(call).find(word), std::string::npos) << word << ": " << refused(call);
    EXPECT_EQ(round.path, before.path);
    EXPECT_EQ(round.tokens, before.tokens);
  };
  refuse("tree", [&] { verify_match(empty, Text{}, round); });
  refuse("next", [&] { verify_match(tree, Text{1, 2}, round); });
  refuse("next", [&] { verify_match(tree, Text{1, 2, -1}, round); });
  refuse("next", [&] { verify_match(tree, Text{1, 2, 8}, round, {.vocabulary = 8}); });
  Verified three{{0}, {1, 2, 3}};
  EXPECT_NE(refused([&] { verify_match(tree, three.tokens, three); }).find("out"),
            std::string::npos);
  EXPECT_EQ(three.tokens, (Text{1, 2, 3}));
  Matrix logits = Matrix::Zero(3, 4);
  logits(0, 1) = logits(1, 2) = 1;
  refuse("tree", [&] { verify_greedy(empty, logits, round); });
  const Matrix few = Matrix::Zero(2, 4), none(3, 0);
  refuse("logits", [&] { verify_greedy(tree, few, round); });
  refuse("logits", [&] { verify_greedy(tree, none, round); });
  Matrix broken = logits;
  broken(2, 3) = std::numeric_limits<float>::quiet_NaN();
  refuse("logits", [&] { verify_greedy(tree, broken, round); });
  refuse("logits", [&] {
    verify_sampled(tree, SequentialRule{}, laws_of(broken, {.temperature = 1e-3}), {.seed = 1}, 0,
                   round);
  });
  const auto sampled = [&](const DraftTree& t, const auto& rule, const auto& laws) {
    return [&, laws] { verify_sampled(t, rule, laws, {.seed = 1}, 0, round); };
  };
  const SequentialRule rule;
  refuse("tree", sampled(empty, rule, laws_of(logits, {})));
  refuse("logits", sampled(tree, rule, laws_of(few, {})));
  refuse("temperature", sampled(tree, rule, laws_of(logits, {.temperature = -1})));
  const SequoiaRule drawn;
  const Matrix wide = Matrix::Zero(3, 5), narrow = Matrix::Zero(3, 2);
  refuse("draft logits", sampled(tree, drawn, laws_of(logits, {}, wide, {})));
  refuse("tree", sampled(tree, rule, laws_of(narrow, {})));
  for (const std::vector<double>& law : {std::vector<double>{.5, .6, 0},
                                         {.5, .49, 0},
                                         {1.5, -.5, 0},
                                         {std::numeric_limits<double>::quiet_NaN(), .5, .5}}) {
    refuse("target law", sampled(tree, rule, BrokenLaws{law}));
    refuse("draft law", sampled(tree, drawn, BrokenDraft{law}));
  }
  refuse("rule", sampled(tree, BrokenRule{}, laws_of(logits, {})));
  DraftTree branched = tree;
  branched.add(0, 3);
  const pare::draft::ChainRule chain;
  const Matrix four = Matrix::Zero(4, 4);
  refuse("tree", sampled(branched, chain, laws_of(four, {}, four, {})));
}

// Rows beside the path are not read: what they hold does not matter.
TEST(Verify, RowsBesideThePathAreNotRead) {
  DraftTree tree;
  tree.start(0, 3);
  tree.add(0, 1);
  tree.add(0, 2);
  Matrix logits = Matrix::Zero(3, 4);
  logits(0, 2) = 1;
  logits(2, 3) = 1;
  logits.row(1).setConstant(std::numeric_limits<float>::quiet_NaN());
  Verified round;
  verify_greedy(tree, logits, round);
  EXPECT_EQ(round.tokens, (Text{2, 3}));
}

}  // namespace
}  // namespace draft_verify_test
