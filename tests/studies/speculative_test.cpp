// SPDX-License-Identifier: Apache-2.0

#include "language_model/speculative.hpp"
#include "language_model/drafters.hpp"
#include "language_model/linear_drafter.hpp"
#include "language_model/winning_size.hpp"
#include "studies/llama_reference.hpp"
#include "studies/opened_llama.hpp"

#include <pare/core/backend.hpp>

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <limits>
#include <random>
#include <span>
#include <stdexcept>
#include <utility>
#include <vector>

namespace studies_speculative_test {
namespace {

using namespace language_model;
using pare::testing::OpenedLlama;
using pare::testing::TinyLlama;

constexpr Index most = 24;

std::vector<Token> random_tokens(std::size_t count, unsigned seed) {
  std::mt19937 bits(seed);
  std::vector<Token> tokens(count);
  for (Token& token : tokens) token = static_cast<Token>(bits() % TinyLlama::vocabulary);
  return tokens;
}

/// Token by token, each through the model alone.
std::vector<Token> plain_text(const OpenedLlama& of, std::span<const Token> prompt,
                              const SamplerOptions& sampling, KvScalar scalar = KvScalar::Float) {
  KvCache cache = of.cache(scalar);
  Sampler sampler(sampling);
  std::vector<float> logits(TinyLlama::vocabulary);
  of.model.forward(pare::simd, prompt, cache, logits);
  std::vector<Token> text;
  while (true) {
    text.push_back(sampler.sample(logits, prompt.size() + text.size()));
    if (static_cast<Index>(text.size()) == most) return text;
    of.model.forward(pare::simd, {&text.back(), 1}, cache, logits);
  }
}

struct Told {
  std::vector<Token> text;
  SpeculativeCounts counts;
};

Told speculative_text(const OpenedLlama& of, std::span<const Token> prompt,
                      const SamplerOptions& sampling, const Drafter& drafter, Index budget,
                      KvScalar scalar = KvScalar::Float) {
  KvCache cache(of.model.config().kv_shape(), speculative_room(of.model, prompt, most, budget),
                scalar);
  Told told;
  told.counts = speculate(of.model, pare::simd, cache, prompt, most, sampling, drafter, budget,
                          [&](Token token) {
                            told.text.push_back(token);
                            return true;
                          });
  return told;
}

/// Drafts what it was told that the model takes, between tokens that it does not.
Drafter knowing_drafter(std::vector<Token> text, Index wrong_from) {
  return [text = std::move(text), wrong_from](const ModelBackend&, const DraftContext& context,
                                              DraftTree& tree) {
    tree.start(context.text.back(), context.budget);
    Index node = 0;
    for (std::size_t i = context.text.size(); i < text.size() && tree.size() + 2 <= context.budget;
         ++i) {
      const Token wrong = (text[i] + 1) % TinyLlama::vocabulary;
      const Index off = tree.add(node, wrong);
      const Index on = tree.add(node, text[i]);
      node = static_cast<Index>(i) % wrong_from == 0 ? off : on;
    }
  };
}

/// Random trees.
Drafter random_drafter(unsigned seed) {
  return [bits = std::mt19937(seed)](const ModelBackend&, const DraftContext& context,
                                     DraftTree& tree) mutable {
    tree.start(context.text.back(), context.budget);
    for (Index tries = 0; tries < 2 * context.budget && tree.size() < context.budget; ++tries) {
      const auto parent = static_cast<Index>(bits()) % tree.size();
      const auto token = static_cast<Token>(bits() % TinyLlama::vocabulary);
      if (!tree.child(parent, token)) tree.add(parent, token);
    }
  };
}

DraftHead dense_of(const OpenedLlama& of) {
  return dense_head(weight_of(on_any_executor(pare::simd), of.model.head()));
}

StateSample sample_of(const OpenedLlama& of, std::size_t tokens) {
  return state_sample(of.model, pare::simd, random_tokens(tokens, 77), 128, [](double) {});
}

class Speculating : public ::testing::Test {
 protected:
  /// Over many prompts, at T = 0 and above; returns the tokens of a round.
  double expect_plain(const std::function<Drafter(const std::vector<Token>&)>& drafter_of,
                      Index budget, std::size_t prompts = 24) const {
    SpeculativeCounts all;
    for (std::size_t i = 0; i < prompts; ++i) {
      const auto prompt = random_tokens(1 + i * 7 % 90, static_cast<unsigned>(i));
      const SamplerOptions sampling =
          i % 2 == 0 ? SamplerOptions{.temperature = 0}
                     : SamplerOptions{.temperature = 1, .top_p = 0.95, .seed = i};
      const auto wanted = plain_text(opened, prompt, sampling);
      std::vector<Token> whole = prompt;
      whole.insert(whole.end(), wanted.begin(), wanted.end());
      const Told told = speculative_text(opened, prompt, sampling, drafter_of(whole), budget);
      EXPECT_EQ(told.text, wanted) << "prompt " << i;
      all += told.counts;
    }
    return static_cast<double>(all.tokens) / static_cast<double>(all.rounds);
  }

  OpenedLlama opened{TinyLlama(3)};
};

TEST_F(Speculating, WhatIsKnownIsAcceptedAndTheTextIsPlain) {
  // A budget of 12 nodes holds five of the text; two of three are on the way.
  EXPECT_GT(expect_plain([](const auto& text) { return knowing_drafter(text, 1000); }, 12), 4);
  EXPECT_GT(expect_plain([](const auto& text) { return knowing_drafter(text, 3); }, 12), 1.5);
}

TEST_F(Speculating, OverTwoHundredPromptsWithRandomTreesTheTextIsPlain) {
  unsigned seed = 0;
  EXPECT_GE(expect_plain([&](const auto&) { return random_drafter(++seed); }, 33, 210), 1);
}

TEST_F(Speculating, NothingDraftedIsATokenARound) {
  EXPECT_EQ(expect_plain([](const auto&) { return no_drafter(); }, 1), 1);
}

TEST_F(Speculating, FromTheTextItselfTheTextIsPlain) {
  EXPECT_GE(expect_plain([](const auto&) { return prompt_drafter(1); }, 8), 1);
  EXPECT_GE(expect_plain([](const auto&) { return prompt_drafter(4); }, 16), 1);
}

TEST_F(Speculating, AllBlocksAndAHeadOfFloatsDraftThePlainText) {
  const auto weight = weight_of(on_any_executor(pare::simd), opened.model.head());
  const Drafter drafter = early_exit(opened.model, TinyLlama::blocks,
                                     draft_head(pare::draft::DenseHead<float>(weight)));
  EXPECT_GT(expect_plain([&](const auto&) { return drafter; }, 4), 1.5);
  for (unsigned i = 0; i < 12; ++i) {
    const Told told =
        speculative_text(opened, random_tokens(20, i), {.temperature = 0}, drafter, 4);
    // 23 tokens behind the first, four a round.
    EXPECT_EQ(told.counts.rounds, 6) << "prompt " << i;
  }
}

TEST_F(Speculating, ByTheFirstBlockTheTextIsPlain) {
  const Drafter drafter = early_exit(opened.model, 1, dense_of(opened));
  EXPECT_GE(expect_plain([&](const auto&) { return drafter; }, 5), 1);
}

TEST_F(Speculating, ByTreesOfTheFirstBlockTheTextIsPlain) {
  for (const Index branch : {2, 4})
    for (const Index budget : {2, 3, 16, 64}) {
      const Drafter drafter = EarlyExitTree(opened.model, 1, dense_of(opened), branch);
      EXPECT_GE(expect_plain([&](const auto&) { return drafter; }, budget, 8), 1);
    }
}

TEST_F(Speculating, WithABudgetThatIsChosenTheTextIsPlain) {
  const pare::draft::MeasuredCost cost({{1, 1.0}, {8, 1.2}, {64, 4.0}});
  for (unsigned i = 0; i < 24; ++i) {
    const auto prompt = random_tokens(1 + i * 7 % 90, i);
    const SamplerOptions sampling{.temperature = i % 2 == 0 ? 0.0 : 1.0, .seed = i};
    const Drafter drafter = i % 3 == 0   ? random_drafter(i)
                            : i % 3 == 1 ? prompt_drafter(4)
                                         : early_exit(opened.model, 1, dense_of(opened));
    AdaptiveBudget budget(cost, 1, {.costs_per_node = i % 3 == 2});
    KvCache cache = opened.cache();
    std::vector<Token> text;
    const auto counts = speculate(opened.model, pare::simd, cache, prompt, most, sampling, drafter,
                                  budget, [&](Token token) {
                                    text.push_back(token);
                                    return true;
                                  });
    EXPECT_EQ(text, plain_text(opened, prompt, sampling)) << "prompt " << i;
    EXPECT_GE(counts.foretold, static_cast<double>(counts.rounds));
  }
}

TEST_F(Speculating, ByLinearHeadsTheTextIsPlain) {
  const auto on = on_any_executor(pare::simd);
  const StateSample sample = sample_of(opened, 1500);
  const auto maps = fit_linear_heads(opened.model, sample, 3, [](double) {});
  const auto weight = weight_of(on, opened.model.head());
  for (const DraftHead& head : {dense_head(weight), low_rank_head(on, weight, sample.states, 12),
                                subset_head(weight, sample.tokens, 40)})
    for (const Index branch : {1, 4})
      EXPECT_GE(expect_plain(
                    [&](const auto&) { return linear_drafter(opened.model, maps, head, branch); },
                    branch == 1 ? 4 : 16, 8),
                1);
}

TEST_F(Speculating, ACacheOfBf16GivesThePlainTextOfABf16Cache) {
  for (unsigned i = 0; i < 12; ++i) {
    const auto prompt = random_tokens(5 + i * 11, i);
    const SamplerOptions sampling{.temperature = i % 2 == 0 ? 0.0 : 1.0};
    EXPECT_EQ(
        speculative_text(opened, prompt, sampling, random_drafter(i), 20, KvScalar::Bf16).text,
        plain_text(opened, prompt, sampling, KvScalar::Bf16));
  }
}

TEST_F(Speculating, AtTheEndOfTheContextTreesShrink) {
  const auto prompt = random_tokens(static_cast<std::size_t>(TinyLlama::context - most), 4);
  const SamplerOptions sampling{.temperature = 0};
  EXPECT_EQ(speculative_text(opened, prompt, sampling, random_drafter(1), 64).text,
            plain_text(opened, prompt, sampling));
  EXPECT_THROW(speculative_text(opened, random_tokens(630, 4), sampling, random_drafter(1), 64),
               std::invalid_argument);
  EXPECT_THROW(speculative_text(opened, {}, sampling, no_drafter(), 1), std::invalid_argument);
}

TEST_F(Speculating, EndsWhereItIsTold) {
  KvCache cache = opened.cache();
  const auto prompt = random_tokens(9, 2);
  const auto wanted = plain_text(opened, prompt, {.temperature = 0});
  std::vector<Token> whole = prompt, got;
  whole.insert(whole.end(), wanted.begin(), wanted.end());
  speculate(opened.model, pare::simd, cache, prompt, most, {.temperature = 0},
            knowing_drafter(whole, 1000), 12, [&](Token token) {
              got.push_back(token);
              return got.size() < 4;
            });
  EXPECT_TRUE(std::ranges::equal(got, std::span(wanted).first(4)));
}

TEST_F(Speculating, TheCacheKeepsThePathAlone) {
  KvCache cache = opened.cache();
  const auto prompt = random_tokens(12, 8);
  Speculation text(opened.model, on_any_executor(pare::simd), cache, {.temperature = 0});
  const auto wanted = plain_text(opened, prompt, {.temperature = 0});
  std::vector<Token> whole = prompt;
  whole.insert(whole.end(), wanted.begin(), wanted.end());
  text.start(prompt);
  text.round(knowing_drafter(whole, 1000), 9);
  EXPECT_EQ(text.verified().path, (std::vector<Index>{0, 2, 4, 6, 8}));
  ASSERT_EQ(cache.length(), 17);
  KvCache one_by_one = opened.cache();
  std::vector<float> logits(TinyLlama::vocabulary);
  for (const Token& token : std::span(whole).first(17))
    opened.model.forward(pare::simd, {&token, 1}, one_by_one, logits);
  for (Index layer = 0; layer < TinyLlama::blocks; ++layer)
    for (Index t = 0; t < 17; ++t)
      for (Index i = 0; i < TinyLlama::head_dim; ++i) {
        EXPECT_NEAR(cache.keys<float>(layer)(0, 0, t, i), one_by_one.keys<float>(layer)(0, 0, t, i),
                    1e-4f);
        EXPECT_NEAR(cache.values<float>(layer)(0, 0, t, i),
                    one_by_one.values<float>(layer)(0, 0, t, i), 1e-4f);
      }
}

TEST_F(Speculating, DraftersAreGivenTheStateThatTheRootIsOf) {
  KvCache cache = opened.cache(), again = opened.cache();
  const auto prompt = random_tokens(12, 8);
  Speculation text(opened.model, on_any_executor(pare::simd), cache, {.temperature = 0});
  const auto wanted = plain_text(opened, prompt, {.temperature = 0});
  std::vector<Token> whole = prompt;
  whole.insert(whole.end(), wanted.begin(), wanted.end());
  text.start(prompt);
  text.round(knowing_drafter(whole, 1000), 9);
  Index rounds = 0;
  text.round(
      [&](const ModelBackend& on, const DraftContext& context, DraftTree& tree) {
        ASSERT_TRUE(std::ranges::equal(context.text, std::span(whole).first(18)));
        opened.model.states(
            on, context.text.first(17), again, {}, [&](const ModelBackend&, const auto& states) {
              for (Index i = 0; i < TinyLlama::dim; ++i)
                EXPECT_NEAR(context.state[static_cast<std::size_t>(i)], states(16, i), 1e-3f);
            });
        tree.start(context.text.back(), 1);
        ++rounds;
      },
      4);
  EXPECT_EQ(rounds, 1);
}

/// Every node has the probability that the head gives it for the map's state of its own path.
TEST_F(Speculating, LinearTreesHaveTheProbabilitiesOfTheirPaths) {
  const auto on = on_any_executor(pare::simd);
  const StateSample sample = sample_of(opened, 1500);
  const auto maps = fit_linear_heads(opened.model, sample, 3, [](double) {});
  const DraftHead head = dense_of(opened);
  KvCache cache = opened.cache();
  double seconds = 0;
  DraftedBlocks drafted;
  const std::vector<Token> text = {5, 80};
  const std::vector<float> state(&sample.states(40, 0), &sample.states(40, 0) + TinyLlama::dim);
  DraftTree tree;
  linear_drafter(opened.model, maps, head, 4)(on, {text, state, cache, 24, seconds, drafted}, tree);
  EXPECT_EQ(tree.size(), 24);
  EXPECT_EQ(tree.token(0), 80);
  EXPECT_GT(seconds, 0);
  Index deepest = 0;
  for (Index node = 1; node < tree.size(); ++node) {
    const Index depth = tree.depth(node), parent = tree.parent(node);
    const AnyLinear& map = maps[static_cast<std::size_t>(depth - 1)];
    std::vector<float> features(static_cast<std::size_t>(map.inputs())), foretold(TinyLlama::dim);
    linear_features(opened.model, state, 80, tree.token(parent), depth, features.data());
    map.apply(on, matrix<const float>(features.data(), 1, map.inputs()),
              matrix(foretold.data(), 1, TinyLlama::dim));
    pare::draft::HeadSummary<float> all;
    head(on, matrix<const float>(foretold.data(), 1, TinyLlama::dim), {.k = 101}, all);
    const auto rank = std::ranges::find(all.ids, tree.token(node)) - all.ids.begin();
    EXPECT_LT(rank, 4);
    EXPECT_NEAR(tree.log_probability(node) - tree.log_probability(parent),
                all.log_probability(0, rank), 1e-4)
        << "node " << node;
    deepest = std::max(deepest, depth);
  }
  EXPECT_GT(deepest, 1);
}

TEST(WinningSize, IsWhereARoundTakesNoLongerThanItsTokensAlone) {
  EXPECT_EQ(winning_size(3, 1, 0.9, 2, draft_power("linear")), 1);  // 2.9 < 3
  // 3 F - 2 F = 2 sqrt(F) at F = 4; a constant 2 at F = 2; a draft that grows with F never.
  EXPECT_DOUBLE_EQ(winning_size(3, 1, 2, 2, draft_power("linear")), 4);
  EXPECT_DOUBLE_EQ(winning_size(3, 1, 2, 2, draft_power("prompt")), 2);
  EXPECT_EQ(winning_size(3, 1, 2, 2, draft_power("early")),
            std::numeric_limits<double>::infinity());
  EXPECT_EQ(winning_size(2, 1, 0.1, 2, draft_power("prompt")),
            std::numeric_limits<double>::infinity());
}

TEST_F(Speculating, PassesThatDoNotFitAreRefused) {
  KvCache cache = opened.cache();
  const std::vector<Token> tokens = {1, 2};
  const std::vector<Index> one = {0}, far = {0, TinyLlama::context}, before = {0, -1};
  const auto refuses = [&](const Pass& pass) {
    EXPECT_THROW(opened.model.states(pare::simd, tokens, cache, pass,
                                     [](const ModelBackend&, const auto&) {}),
                 std::invalid_argument);
    EXPECT_EQ(cache.length(), 0);
  };
  refuses({.blocks = -1});
  refuses({.blocks = TinyLlama::blocks + 1});
  std::vector<float> fits(2 * TinyLlama::dim), short_of(fits.size() - 1);
  refuses({.first = -1});
  refuses({.first = 1});
  refuses({.first = 1, .given = short_of});
  refuses({.first = 0, .given = fits});
  refuses({.first = TinyLlama::blocks + 1, .given = fits});
  refuses({.blocks = 0, .first = 1, .given = fits});
  refuses({.made = short_of});
  for (const auto& positions : {one, far, before}) refuses({.positions = positions});
}

/// Maps are those that least squares in plain loops gives.
TEST(LinearHeads, LeaveErrorsThatNoFeatureExplains) {
  const OpenedLlama opened{TinyLlama(5)};
  const Llama& llama = opened.model;
  const StateSample sample = sample_of(opened, 1200);
  for (const Index depth : {1, 2}) {
    const auto map = fit_linear_head(llama, sample, depth, 0);
    const Index inputs = linear_inputs(llama, depth), dim = TinyLlama::dim;
    ASSERT_EQ(map.rows(), dim);
    ASSERT_EQ(map.cols(), inputs);
    std::vector<double> sums(static_cast<std::size_t>(inputs * dim)), scale(sums.size());
    std::vector<float> f(static_cast<std::size_t>(inputs));
    for (Index t = 0; t + depth < 1200; ++t) {
      if (t / 128 != (t + depth) / 128) continue;
      const auto token = [&](Index i) { return sample.tokens[static_cast<std::size_t>(i)]; };
      linear_features(llama, {&sample.states(t, 0), static_cast<std::size_t>(dim)}, token(t + 1),
                      token(t + depth), depth, f.data());
      for (Index o = 0; o < dim; ++o) {
        double error = static_cast<double>(sample.states(t + depth, o));
        for (Index i = 0; i < inputs; ++i)
          error -=
              static_cast<double>(map(o, i)) * static_cast<double>(f[static_cast<std::size_t>(i)]);
        for (Index i = 0; i < inputs; ++i) {
          const double term = error * static_cast<double>(f[static_cast<std::size_t>(i)]);
          sums[static_cast<std::size_t>(o * inputs + i)] += term;
          scale[static_cast<std::size_t>(o * inputs + i)] += std::abs(term);
        }
      }
    }
    for (std::size_t i = 0; i < sums.size(); ++i)
      ASSERT_LE(std::abs(sums[i]), 1e-3 * scale[i]) << "depth " << depth << ", " << i;
  }
  EXPECT_THROW(fit_linear_head(llama, sample_of(opened, 60), 1, 0), std::runtime_error);
}

TEST(DraftHeads, AreOfTheModelsHead) {
  const OpenedLlama opened{TinyLlama(6)};
  const auto on = on_any_executor(pare::simd);
  const auto weight = weight_of(on, opened.model.head());
  std::vector<float> row(TinyLlama::dim);
  for (Token t = 0; t < TinyLlama::vocabulary; ++t) {
    opened.model.embed(t, row);  // the head is tied
    for (Index i = 0; i < TinyLlama::dim; ++i)
      ASSERT_EQ(weight(t, i), row[static_cast<std::size_t>(i)]);
  }
  const std::vector<std::int32_t> text = {7, 3, 7, 9, 3, 7, 50};
  EXPECT_EQ(frequent_tokens(text, 101, 2), (std::vector<std::int32_t>{3, 7}));
  EXPECT_EQ(frequent_tokens(text, 101, 6), (std::vector<std::int32_t>{0, 1, 3, 7, 9, 50}));
  EXPECT_EQ(frequent_tokens(text, 101, 1000).size(), 101u);
}

}  // namespace
}  // namespace studies_speculative_test
