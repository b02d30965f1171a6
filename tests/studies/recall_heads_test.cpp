// SPDX-License-Identifier: Apache-2.0

#include "recall_text/heads.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <string>
#include <vector>

namespace studies_recall_heads_test {
namespace {

using recall::head_dim;
using recall::Heads;
using recall::HeadSpec;
using recall::Index;
using recall::Matrix;
using recall::Text;
using recall::Words;

// Products of float rows of 128 elements: below 128 eps times the logit's height of at most 20.
constexpr float tolerance = 128 * 20 * 1.2e-7f;

/// Forty glosses of five words of their own; "of" and "." come in each.
Text planted_text(std::uint64_t seed = 3) {
  std::vector<Words> glosses;
  for (int g = 0; g < 40; ++g) {
    const std::string name = std::to_string(g);
    glosses.push_back({"a" + name, "b" + name, "of", "c" + name, "d" + name, "e" + name, "."});
  }
  return recall::recall_text(glosses, 2 * 40 * 7, seed);
}

/// Logits of one head under the usual scale, [queries, keys].
Matrix logits(const Heads& heads, Index head) {
  const Index n = heads.q.dimension(2);
  const Eigen::Map<const Matrix> q(heads.q.data() + head * n * head_dim, n, head_dim);
  const Eigen::Map<const Matrix> k(heads.k.data() + head * n * head_dim, n, head_dim);
  return q * k.transpose() / std::sqrt(float(head_dim));
}

Matrix logits(const Text& text, const HeadSpec& spec) {
  return logits(recall::make_heads(text, {spec}, 7), 0);
}

bool same_words(const Text& text, Index i, Index j, Index count) {
  for (Index r = 0; r < count; ++r)
    if (text.word(i - r) != text.word(j - r)) return false;
  return true;
}

TEST(RecallHeads, AnNgramHeadLooksForWhatStoodAfterTheSameWords) {
  const Text text = planted_text();
  const Matrix logit =
      logits(text, {.name = "", .ngram_weights = {1, .8f, .6f}, .ngram = 18, .noise = 0});
  Index agree = 0;
  for (Index i = 2; i < text.size(); ++i)
    for (Index j = 3; j <= i; ++j) {
      if (same_words(text, i, j - 1, 3)) {
        EXPECT_NEAR(logit(i, j), 18, tolerance) << i << ' ' << j;
        ++agree;
      } else {
        EXPECT_LT(logit(i, j), 17.9f);
      }
    }
  EXPECT_GE(agree, 40 * 5);  // all but the first two words of each gloss come again as they were
  EXPECT_EQ(logit.col(0).cwiseAbs().maxCoeff(), 0) << "nothing stands before the first token";
}

TEST(RecallHeads, TheWeightsSayWhatEachWordOfTheNgramCounts) {
  const Text text = planted_text();
  const Matrix logit =
      logits(text, {.name = "", .ngram_weights = {1, .7f}, .ngram = 12, .noise = 0});
  // Only the word at i agrees ("of", after words of its own): 12 / (1 + .49) on average; other
  // products of two Gaussian vectors of 80 numbers add a deviation of about 1.
  double sum = 0;
  Index count = 0;
  for (Index i = 2; i < text.size() / 2; i += 7)
    for (Index j = 3; j < i; j += 7, ++count) sum += double(logit(i, j));
  EXPECT_NEAR(sum / double(count), 12 / 1.49, 0.3);
}

TEST(RecallHeads, AnInductionHeadForetellsTheSecondHalf) {
  const Text text = planted_text();
  const Heads heads = recall::make_heads(
      text, {{.name = "", .ngram_weights = {1, .8f, .6f}, .ngram = 18, .noise = 0}}, 7);
  const Matrix logit = logits(heads, 0);
  for (Index i = text.size() / 2; i + 1 < text.size(); ++i) {
    const std::string& word = text.vocabulary[static_cast<std::size_t>(text.word(i))];
    if (word == "." || word[0] == 'a') continue;  // seen after another gloss
    Index best = 0;
    logit.row(i).head(i + 1).maxCoeff(&best);
    EXPECT_EQ(text.word(best), text.word(i + 1)) << i;
  }
}

TEST(RecallHeads, TheSinkIsTheFirstKeyAtItsHeight) {
  const Matrix logit = logits(planted_text(), {.name = "", .sink = 9, .noise = 0});
  EXPECT_NEAR(logit.col(0).minCoeff(), 9, tolerance);
  EXPECT_NEAR(logit.col(0).maxCoeff(), 9, tolerance);
  EXPECT_EQ(logit.rightCols(logit.cols() - 1).cwiseAbs().maxCoeff(), 0);
}

TEST(RecallHeads, HeavyHittersAreTheRarestTokens) {
  const Text text = planted_text();
  const Matrix logit = logits(text, {.name = "", .heavy = 8, .noise = 0});
  const std::vector<Index> count = recall::count_words(text);
  Index heavy = 0;
  for (Index j = 0; j < text.size(); ++j) {
    const bool is_heavy = logit.col(j).maxCoeff() > 0;
    heavy += is_heavy ? 1 : 0;
    if (is_heavy) {
      EXPECT_EQ(count[static_cast<std::size_t>(text.word(j))], 2);
      EXPECT_GE(logit.col(j).minCoeff(), 8 * .6f * .85f - tolerance);
      EXPECT_LE(logit.col(j).maxCoeff(), 8 * 1.15f + tolerance);
      // One height for all queries, up to their gains.
      EXPECT_LE(logit.col(j).maxCoeff() / logit.col(j).minCoeff(), 1.15f / .85f + 1e-4f);
    } else {
      EXPECT_EQ(logit.col(j).cwiseAbs().maxCoeff(), 0);
    }
  }
  EXPECT_EQ(heavy, 16);  // 3 % of 560 tokens, in words that come twice
}

TEST(RecallHeads, ALocalHeadSeesTheDistanceAlone) {
  const Matrix logit =
      logits(planted_text(), {.name = "", .local = 8, .local_length = 20, .noise = 0});
  for (Index i = 5; i < logit.rows(); ++i) {
    EXPECT_NEAR(logit(i, i), 8, tolerance);
    EXPECT_NEAR(logit(i, i - 5), logit(5, 0), tolerance);
    EXPECT_NEAR(logit(i - 5, i), logit(5, 0), tolerance);
  }
  // 16 Gaussian frequencies know the curvature at 0, and so 1 - logit / 8, to sqrt(2 / 16) of
  // itself: two of these.
  const float expected = std::exp(-0.5f * 25 / 400);
  EXPECT_NEAR(logit(5, 0) / 8, expected, 2 * std::sqrt(2.f / 16) * (1 - expected));
}

TEST(RecallHeads, ATopicHeadSeesTheCosineOfTheRunningMeans) {
  const Text text = planted_text();
  const Matrix logit = logits(text, {.name = "", .topic = 9, .noise = 0});
  for (Index i = 0; i < text.size(); ++i) EXPECT_NEAR(logit(i, i), 9, tolerance);
  EXPECT_LE(logit.maxCoeff(), 9 + tolerance);
  EXPECT_LT((logit - logit.transpose()).cwiseAbs().maxCoeff(), tolerance);
  // A mean over 64 tokens moves little in one step and is another one after 200.
  double step = 0, far = 0;
  const Index begin = 200, steps = text.size() / 2 - begin;
  for (Index i = begin; i < begin + steps; ++i) {
    step += double(logit(i, i - 1)) / (9 * double(steps));
    far += double(logit(i, i - 200)) / (9 * double(steps));
  }
  EXPECT_GT(step, 0.9);
  EXPECT_LT(std::abs(far), 0.35);
}

TEST(RecallHeads, TheMeanOfATopicHeadForgetsWithASpanOf64) {
  const std::vector<Words> glosses = {{"x", "y", "."}, {"x", "."}};
  const Text text = recall::recall_text(glosses, 10, 0);
  const Matrix features = recall::detail::topic_features(text, 7, 0);
  const Matrix table =
      recall::detail::word_vectors(3, recall::RandomRows(7, recall::detail::topic_stream, 0));
  const float keep = 63.f / 65;
  Eigen::RowVectorXf mean = Eigen::RowVectorXf::Zero(table.cols());
  for (Index i = 0; i < 10; ++i) {
    const bool is_y = text.vocabulary[static_cast<std::size_t>(text.word(i))] == "y";
    const float rarity = std::log(is_y ? 10.f / 2 : 10.f / 4);
    mean = keep * mean + (1 - keep) * rarity * rarity * table.row(text.word(i));
    EXPECT_LT((features.row(i) - mean.normalized()).cwiseAbs().maxCoeff(), 1e-5f) << i;
  }
}

TEST(RecallHeads, NoiseHasTheDeviationAskedFor) {
  const Matrix logit = logits(planted_text(), {.name = "", .sink = 5, .noise = 0.5f});
  const auto rest = logit.rightCols(logit.cols() - 1).array();
  // 560 queries of 127 numbers: the deviation is known to about 1 / sqrt(2 * 560) of itself or 3 %,
  // and as much again from the keys.
  EXPECT_NEAR(std::sqrt(rest.square().mean()), 0.5f, 0.5f * 0.1f);
  EXPECT_NEAR(rest.mean(), 0, 0.05f);
}

TEST(RecallHeads, PartsAddUp) {
  const Text text = planted_text();
  const HeadSpec topic{.name = "", .topic = 6, .noise = 0};
  const HeadSpec local{.name = "", .local = 3, .noise = 0};
  const HeadSpec heavy{.name = "", .heavy = 6, .noise = 0};
  const HeadSpec sink{.name = "", .sink = 7, .noise = 0};
  const HeadSpec all{.name = "", .topic = 6, .local = 3, .heavy = 6, .sink = 7, .noise = 0};
  const Matrix sum =
      logits(text, topic) + logits(text, local) + logits(text, heavy) + logits(text, sink);
  EXPECT_LT((logits(text, all) - sum).cwiseAbs().maxCoeff(), 4 * tolerance);
}

TEST(RecallHeads, PartsThatDoNotFitAreRefused) {
  const HeadSpec wide{.name = "wide", .ngram_weights = {1}, .ngram = 1, .topic = 1, .noise = 0};
  EXPECT_THROW(logits(planted_text(), wide), recall::InputError);
}

TEST(RecallHeads, ValuesAreTheCodesOfTheWords) {
  const Text text = planted_text();
  const Heads heads = recall::make_heads(text, recall::standard_heads(), 7);
  const Matrix codes = recall::word_codes(text, 7);
  EXPECT_NEAR(codes.array().square().mean(), 1, 0.05f);
  ASSERT_EQ(heads.v.dimension(1), 6);
  for (Index h = 0; h < 6; ++h)
    for (Index j = 0; j < text.size(); ++j)
      for (Index d = 0; d < head_dim; ++d) ASSERT_EQ(heads.v(0, h, j, d), codes(text.word(j), d));
}

TEST(RecallHeads, AreAFunctionOfTheSeed) {
  const Text text = planted_text();
  const auto queries = [&](std::uint64_t seed) {
    const Heads heads = recall::make_heads(text, recall::standard_heads(), seed);
    return std::vector<float>(heads.q.data(), heads.q.data() + heads.q.size());
  };
  EXPECT_EQ(queries(7), queries(7));
  EXPECT_NE(queries(7), queries(8));
}

TEST(RecallHeads, CorrelatedHeadsDifferALittle) {
  const Text text = planted_text();
  const std::vector<HeadSpec> originals = {recall::standard_heads()[0],
                                           recall::standard_heads()[5]};
  const std::vector<HeadSpec> specs = recall::correlated_heads(originals, 4);
  ASSERT_EQ(specs.size(), 8u);
  EXPECT_EQ(specs[1].name, "ind3a/1");
  EXPECT_EQ(specs[4].name, "hh+topic/0");

  const Heads heads = recall::make_heads(text, specs, 7);
  const Matrix first = logits(heads, 0), copy = logits(heads, 1), other = logits(heads, 4);
  const auto correlation = [](const Matrix& a, const Matrix& b) {
    const auto x = a.array() - a.mean(), y = b.array() - b.mean();
    return (x * y).sum() / std::sqrt(x.square().sum() * y.square().sum());
  };
  EXPECT_GT(correlation(first, copy), 0.85f);
  EXPECT_LT(correlation(first, copy), 0.999f);
  EXPECT_LT(correlation(first, other), 0.5f);
  // The perturbation is of the size it is said to be: without one, the copies have their noise
  // only.
  const Heads plain = recall::make_heads(text, recall::correlated_heads(originals, 4, 0), 7);
  const Index n = text.size();
  const auto part = [n](const Heads& h, Index head) {
    return Eigen::Map<const Matrix>(h.q.data() + head * n * head_dim, n, head_dim).leftCols(80);
  };
  EXPECT_EQ((part(plain, 0) - part(plain, 1)).norm(), 0);
  EXPECT_NEAR((part(heads, 1) - part(plain, 1)).norm() / part(plain, 1).norm(), 0.2f, 0.01f);
}

TEST(RecallRandom, GaussianNumbersHaveMeanZeroAndVarianceOne) {
  const recall::RandomRows random(1, 2, 3);
  double sum = 0, square = 0, fourth = 0;
  constexpr Index rows = 2000, columns = 50;
  for (Index i = 0; i < rows; ++i) {
    std::vector<float> row(columns, 0);
    random.add_gaussian(i, columns, 1, row.data());
    for (const float x : row) {
      sum += double(x);
      square += double(x * x);
      fourth += double(x * x * x * x);
    }
  }
  // Four standard errors of 10^5 numbers: 1, sqrt(2) and sqrt(96) times 10^-2.5.
  constexpr double n = rows * columns;
  EXPECT_NEAR(sum / n, 0, 4 * 0.00316);
  EXPECT_NEAR(square / n, 1, 4 * 0.00447);
  EXPECT_NEAR(fourth / n, 3, 4 * 0.031);
}

TEST(RecallRandom, ARowDoesNotDependOnHowMuchOfItIsAskedFor) {
  const recall::RandomRows random(1, 2, 3);
  std::vector<float> all(9, 0), some(5, 0);
  random.add_gaussian(4, 9, 1, all.data());
  random.add_gaussian(4, 5, 1, some.data());
  EXPECT_TRUE(std::equal(some.begin(), some.end(), all.begin()));
  EXPECT_EQ(random.gaussian(4), all[0]);
  EXPECT_NE(random.gaussian(5), all[0]);
  EXPECT_NE(recall::RandomRows(1, 2, 4).gaussian(4), all[0]);
  EXPECT_NE(recall::RandomRows(1, 3, 3).gaussian(4), all[0]);
}

}  // namespace
}  // namespace studies_recall_heads_test
