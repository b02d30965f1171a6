// SPDX-License-Identifier: Apache-2.0

#include "language_model/head_masks.hpp"
#include "io/temporary_folder.hpp"
#include "language_model/document_forms.hpp"
#include "language_model/retrieval_heads.hpp"
#include "studies/llama_reference.hpp"
#include "studies/opened_llama.hpp"

#include <pare/core/backend.hpp>

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <fstream>
#include <random>
#include <set>
#include <span>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace studies_head_masks_test {
namespace {

using namespace language_model;
using pare::testing::RoundedRow;
using pare::testing::TinyLlama;

struct HeadMasks : TemporaryFolder {
  TinyLlama tiny{22};
  pare::testing::OpenedLlama opened{tiny};
  Llama& model = opened.model;

  std::vector<float> logits(std::span<const Token> tokens, const Attention& attention) const {
    KvCache cache(model.config().kv_shape(), static_cast<Index>(tokens.size()));
    std::vector<float> last(static_cast<std::size_t>(model.config().vocabulary));
    model.forward(pare::simd, tokens, cache, last, attention);
    return last;
  }
  std::string refused(const std::string& text) const {
    std::ofstream(folder_ / "heads") << text;
    try {
      read_heads((folder_ / "heads").string(), model.config());
    } catch (const std::runtime_error& error) {
      const std::string message = error.what();
      return message.substr(message.find(": ") + 2);
    }
    return "not refused";
  }
};

TEST_F(HeadMasks, AreThoseOfTheDefinition) {
  std::mt19937 bits(3);
  std::vector<Token> tokens(70);
  for (Token& token : tokens) token = static_cast<Token>(bits() % TinyLlama::vocabulary);
  const std::vector<LayerHead> heads = {{0, 1}, {1, 0}, {1, 2}};
  const std::vector<float> exact = logits(tokens, exact_attention);
  for (const HeadMode mode : {HeadMode::Uniform, HeadMode::Zero}) {
    TinyLlama masked = tiny;
    for (const auto [layer, head] : heads) masked.masked[{layer, head}] = mode == HeadMode::Uniform;
    const RoundedRow wanted = masked.logits(tokens).back();
    const auto got = logits(tokens, masked_attention(heads, mode, model.config()));
    double most = 0;
    for (std::size_t i = 0; i < got.size(); ++i) {
      ASSERT_NEAR(static_cast<double>(got[i]), wanted[i].x, wanted[i].tolerance());
      most = std::max(most, std::abs(static_cast<double>(got[i] - exact[i])));
    }
    EXPECT_GT(most, 0.1) << "it makes a difference";
  }
  EXPECT_EQ(logits(tokens, masked_attention({}, HeadMode::Zero, model.config())), exact);
  EXPECT_THROW(masked_attention({{0, 3}}, HeadMode::Zero, model.config()), std::invalid_argument);
  EXPECT_THROW(masked_attention({{2, 0}}, HeadMode::Zero, model.config()), std::invalid_argument);
}

TEST_F(HeadMasks, AreReadAsTheyWereWritten) {
  const std::vector<LayerHead> heads = {{1, 2}, {0, 0}};
  const std::string path = (folder_ / "heads").string();
  write_heads(path, heads);
  EXPECT_EQ(read_heads(path, model.config()), heads);
  EXPECT_THROW(write_heads((folder_ / "none" / "heads").string(), heads), std::runtime_error);
}

TEST_F(HeadMasks, RefuseLinesThatNameNoHead) {
  const std::string wanted = "', wanted a layer below 2 and a head below 3";
  EXPECT_EQ(refused("0 1\n2 0\n"), "got the line '2 0" + wanted);
  EXPECT_EQ(refused("0 3\n"), "got the line '0 3" + wanted);
  EXPECT_EQ(refused("-1 0\n"), "got the line '-1 0" + wanted);
  EXPECT_EQ(refused("1\n"), "got the line '1" + wanted);
  EXPECT_EQ(refused("1 1 1\n"), "got the line '1 1 1" + wanted);
  EXPECT_EQ(refused(""), "has no heads");
  EXPECT_THROW(read_heads((folder_ / "none").string(), model.config()), std::runtime_error);
}

/// A passage of two different tokens from 5 on, and again at the end.
RetrievalPrompt small_prompt(unsigned seed) {
  RetrievalPrompt prompt;
  std::mt19937 bits(seed);
  for (int i = 0; i < 40; ++i)
    prompt.tokens.push_back(static_cast<Token>(bits() % TinyLlama::vocabulary));
  prompt.passage = 5;
  prompt.size = 9;
  for (Index i = 0; i < 9; ++i)
    prompt.tokens[static_cast<std::size_t>(31 + i)] =
        prompt.tokens[static_cast<std::size_t>(5 + i)] = static_cast<Token>(17 + bits() % 2);
  return prompt;
}

/// By the scores of queries and keys in double.
TEST_F(HeadMasks, RetrievalScoresAreThoseOfTheDefinition) {
  std::vector<RetrievalPrompt> prompts;
  for (unsigned seed = 0; seed < 20; ++seed) prompts.push_back(small_prompt(seed));
  std::vector<double> wanted(TinyLlama::blocks * TinyLlama::heads);
  for (const RetrievalPrompt& prompt : prompts)
    logits(prompt.tokens, [&](const ModelBackend& on, const AttentionCall& call) {
      const auto keys = call.cache.keys<float>(call.layer);
      for (Index head = 0; head < TinyLlama::heads; ++head)
        for (std::size_t query = 30; query < 39; ++query) {
          std::vector<double> scores(query + 1);
          for (std::size_t key = 0; key <= query; ++key)
            for (Index i = 0; i < TinyLlama::head_dim; ++i)
              scores[key] += static_cast<double>(call.q(0, head, static_cast<Index>(query), i)) *
                             static_cast<double>(keys(0, 0, static_cast<Index>(key), i));
          const auto best =
              static_cast<std::size_t>(std::ranges::max_element(scores) - scores.begin());
          if (best >= 5 && best < 14 && prompt.tokens[best] == prompt.tokens[query + 1])
            wanted[static_cast<std::size_t>(call.layer * TinyLlama::heads + head)] += 1 / 180.0;
        }
      return exact_attention(on, call);
    });
  const std::vector<double> scores = retrieval_scores(model, pare::simd, prompts, [](double) {});
  ASSERT_EQ(scores.size(), wanted.size());
  for (std::size_t i = 0; i < scores.size(); ++i) EXPECT_NEAR(scores[i], wanted[i], 1e-12);
  EXPECT_GT(*std::ranges::max_element(wanted), 0.1);
}

TEST(RetrievalHeads, TheBestComeFirstAndOthersAreOthers) {
  const std::vector<double> scores = {0, .5, .2, .9, 0, .5};
  const std::vector<LayerHead> best = pare::attention::top_heads(scores, 3, .5);
  EXPECT_EQ(best, (std::vector<LayerHead>{{1, 0}, {0, 1}, {1, 2}}));
  std::set<std::pair<Index, Index>> drawn;
  for (std::uint64_t seed = 0; seed < 20; ++seed) {
    const std::vector<LayerHead> others = other_heads({{1, 0}, {0, 1}}, 2, 3, seed);
    ASSERT_EQ(others.size(), 2u);
    EXPECT_FALSE(others[0] == others[1]);
    for (const auto [layer, head] : others) drawn.emplace(layer, head);
    EXPECT_EQ(other_heads({{1, 0}, {0, 1}}, 2, 3, seed), others);
  }
  EXPECT_EQ(drawn, (std::set<std::pair<Index, Index>>{{0, 0}, {0, 2}, {1, 1}, {1, 2}}));
}

TEST(DocumentForms, AreTheTextItsHalfTwiceAndItsTokensShuffled) {
  std::vector<Token> text(101);
  for (std::size_t i = 0; i < text.size(); ++i) text[i] = static_cast<Token>(i);
  const auto forms = document_forms(text);
  ASSERT_EQ(forms.size(), 3u);
  EXPECT_EQ(forms[0].second, text);
  const std::vector<Token>& twice = forms[1].second;
  ASSERT_EQ(twice.size(), 100u);
  for (std::size_t i = 0; i < 50; ++i) {
    EXPECT_EQ(twice[i], text[i]);
    EXPECT_EQ(twice[50 + i], text[i]);
  }
  std::vector<Token> shuffled = forms[2].second;
  EXPECT_NE(shuffled, text);
  std::ranges::sort(shuffled);
  EXPECT_EQ(shuffled, text);
}

}  // namespace
}  // namespace studies_head_masks_test
