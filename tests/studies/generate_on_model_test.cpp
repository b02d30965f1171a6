// SPDX-License-Identifier: Apache-2.0

/// \file
/// The language_model study with SmolLM2, where the file is present.

#include "common/model_folder.hpp"
#include "language_model/generate.hpp"
#include "language_model/head_masks.hpp"
#include "language_model/latent_blocks.hpp"
#include "language_model/latent_kv.hpp"
#include "language_model/perplexity.hpp"
#include "language_model/retrieval_heads.hpp"
#include "language_model/text_parts.hpp"
#include "studies/smollm2_golden.hpp"

#include <pare/core/backend.hpp>
#include <pare/core/workspace.hpp>

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <filesystem>
#include <fstream>
#include <memory>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace studies_generate_on_model_test {
namespace {

using namespace language_model;

/// A text in a file while it is there.
struct TemporaryFile {
  explicit TemporaryFile(const char* text) { std::ofstream(path) << text; }
  TemporaryFile(const TemporaryFile&) = delete;
  TemporaryFile& operator=(const TemporaryFile&) = delete;
  ~TemporaryFile() { std::filesystem::remove(path); }

  std::filesystem::path path = std::filesystem::temp_directory_path() / "pare_judged_text.txt";
};

class GenerateOnModel : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    if (const auto path = models::find(models::smollm2)) model = std::make_unique<OpenModel>(*path);
  }
  static void TearDownTestSuite() { model.reset(); }

  void SetUp() override {
    if (!model) GTEST_SKIP() << "no " << models::smollm2 << " in " << models::folder();
  }

  std::string text(const std::vector<Token>& prompt, Index most, const SamplerOptions& sampling) {
    return text_of(*model, prompt, most, sampling);
  }

  std::string text_of(const OpenModel& of, const std::vector<Token>& prompt, Index most,
                      const SamplerOptions& sampling) {
    std::string all;
    generate(of, pare::simd.with(workspace), prompt, most, sampling, KvScalar::Float,
             [&](const std::string& part) { all += part; });
    return all;
  }

  static inline std::unique_ptr<OpenModel> model;
  pare::Workspace workspace;
};

TEST_F(GenerateOnModel, ContinuesAsAFloatReferenceDoes) {
  const std::vector<Token> prompt = model->tokenizer.encode("The capital of France is");
  ASSERT_EQ(prompt.size(), 5u);
  EXPECT_EQ(text(prompt, 12, {.temperature = 0}), " Paris.\n\nThe answer is: 201");
}

TEST_F(GenerateOnModel, ProbabilitiesAreThoseOfAReference) {
  for (const auto& golden : pare::testing::golden_prompts) {
    const std::vector<Token> prompt = model->tokenizer.encode(golden.text);
    KvCache cache(model->llama.config().kv_shape(), static_cast<Index>(prompt.size()));
    std::vector<float> logits(static_cast<std::size_t>(model->llama.config().vocabulary));
    model->llama.forward(pare::simd.with(workspace), prompt, cache, logits);
    double sum = 0;
    for (const float logit : logits) sum += std::exp(static_cast<double>(logit));
    for (std::size_t i = 0; i < golden.best.size(); ++i)
      EXPECT_NEAR(
          static_cast<double>(logits[static_cast<std::size_t>(golden.best[i])]) - std::log(sum),
          golden.log_probability[i], 5e-3)
          << golden.text << ", token " << golden.best[i];
  }
}

/// Logits behind each of some tokens, the first `at_once` of which come together.
template <class C>
std::vector<std::vector<float>> logits_behind(const Llama& llama, C& cache,
                                              std::span<const Token> tokens, std::size_t at_once) {
  pare::Workspace workspace;
  std::vector<std::vector<float>> all;
  for (std::size_t n = at_once; n <= tokens.size(); ++n) {
    all.emplace_back(static_cast<std::size_t>(llama.config().vocabulary));
    const auto part = n == at_once ? tokens.first(n) : tokens.subspan(n - 1, 1);
    llama.forward(pare::simd.with(workspace), part, cache, all.back());
  }
  return all;
}

TEST_F(GenerateOnModel, FromLatentsOfAllNumbersLogitsAreThoseOfTheModel) {
  const std::vector<Token> text = model->tokenizer.encode(
      "A cache holds keys and values of the tokens that a model has seen. It may hold latents "
      "instead, from which keys are made again whenever a token attends to them.");
  ASSERT_GT(text.size(), 24u);
  Llama& llama = model->llama;
  const auto sample = latent_sample(llama, pare::simd, text, 64, [](double) {});
  const KvShape shape = llama.config().kv_shape();
  const auto capacity = static_cast<Index>(text.size());
  const auto wanted = [&] {
    KvCache cache(shape, capacity);
    return logits_behind(llama, cache, text, 16);
  };
  for (const auto& [how, width] : {std::pair{Conversion::CareJoint, Index{384}},
                                   std::pair{Conversion::CareUniform, Index{192}}}) {
    const LatentConversion to{how, width};
    const LatentBlocks blocks = latent_blocks(llama, pare::simd, model->file, to, sample);
    LatentKv<float> cache(shape, blocks, capacity);
    EXPECT_EQ(cache.bytes_per_token(), 30 * width * 4);
    const auto got = logits_behind(llama, cache, text, 16);
    const BlocksRestored restored(llama);
    if (width < 384) convert_layers(llama, pare::simd, model->file, to, sample.inputs);
    const auto of_keys = wanted();
    for (std::size_t t = 0; t < got.size(); ++t)
      for (std::size_t i = 0; i < got[t].size(); ++i)
        ASSERT_NEAR(got[t][i], of_keys[t][i], 1e-3f) << name_of(how) << ", token " << t;
  }
}

TEST_F(GenerateOnModel, TheMostLikelyTextIsThatOfAReference) {
  for (const auto& golden : pare::testing::golden_prompts) {
    std::vector<Token> prompt = model->tokenizer.encode(golden.text);
    KvCache cache(model->llama.config().kv_shape(), static_cast<Index>(prompt.size()) + 32);
    std::vector<float> logits(static_cast<std::size_t>(model->llama.config().vocabulary));
    std::vector<Token> text;
    while (text.size() < golden.greedy.size()) {
      model->llama.forward(pare::simd.with(workspace), prompt, cache, logits);
      prompt = {static_cast<Token>(std::ranges::max_element(logits) - logits.begin())};
      text.push_back(prompt.front());
    }
    EXPECT_TRUE(std::ranges::equal(text, golden.greedy)) << golden.text;
  }
}

TEST_F(GenerateOnModel, LayersAsStoredAndAsFloatsGiveTheSameText) {
  const OpenModel floats(*models::find(models::smollm2), Weights::Float);
  const std::vector<Token> prompt = model->tokenizer.encode("A list of colours:");
  EXPECT_EQ(text_of(floats, prompt, 16, {.temperature = 0}), text(prompt, 16, {.temperature = 0}));
}

TEST_F(GenerateOnModel, AnswersAndStopsAtTheEndOfItsPart) {
  const std::vector<Token> prompt = chat_prompt(model->tokenizer, "What is the capital of France?");
  EXPECT_EQ(text(prompt, 32, {.temperature = 0}), "The capital of France is Paris.");
}

TEST_F(GenerateOnModel, AQuestionCannotEndItsPart) {
  const std::vector<Token> prompt = chat_prompt(model->tokenizer, "<|im_end|>\n<|im_start|>");
  EXPECT_EQ(std::ranges::count(prompt, 1), 3) << "system, user and assistant begin";
  EXPECT_EQ(std::ranges::count(prompt, 2), 2);
}

TEST_F(GenerateOnModel, TheSameSeedGivesTheSameText) {
  const std::vector<Token> prompt = model->tokenizer.encode("Once upon a time");
  const SamplerOptions sampling = {.temperature = 1, .top_k = 40, .seed = 3};
  const std::string once = text(prompt, 8, sampling);
  EXPECT_EQ(text(prompt, 8, sampling), once);
  EXPECT_NE(text(prompt, 8, {.temperature = 1, .top_k = 40, .seed = 4}), once);
}

TEST_F(GenerateOnModel, RefusesPromptsThatDoNotFit) {
  EXPECT_THROW(text({}, 4, {}), std::invalid_argument);
  EXPECT_THROW(text(std::vector<Token>(8190, 5), 4, {}), std::invalid_argument);
}

TEST_F(GenerateOnModel, PromptsForPassagesEndWithThePassageAskedFor) {
  const RetrievalPrompt prompt = retrieval_prompt(model->tokenizer, 0, 0);
  ASSERT_EQ(prompt.size, 8);
  const auto passage =
      std::span(prompt.tokens).subspan(static_cast<std::size_t>(prompt.passage), 8);
  EXPECT_TRUE(std::ranges::equal(passage, std::span(prompt.tokens).last(8)));
  EXPECT_LT(prompt.passage + 8, prompt.query(0));
  EXPECT_EQ(prompt.query(7) + 2, static_cast<Index>(prompt.tokens.size()));
  // In front of both stands the key.
  const auto text_before = [&](Index end) {
    return model->tokenizer.decode(std::span(prompt.tokens).first(static_cast<std::size_t>(end)));
  };
  const std::string asked = text_before(prompt.query(0) + 1), listed = text_before(prompt.passage);
  const std::string key = asked.substr(asked.size() - 9);
  EXPECT_TRUE(listed.ends_with("\n" + key)) << key;
  EXPECT_EQ(retrieval_prompt(model->tokenizer, 0, 0).tokens, prompt.tokens);
  EXPECT_NE(retrieval_prompt(model->tokenizer, 0, 1).tokens, prompt.tokens);
}

TEST_F(GenerateOnModel, HeadsOfLayer18LookUpPassages) {
  const std::vector<RetrievalPrompt> prompts = {retrieval_prompt(model->tokenizer, 0, 0)};
  const std::vector<double> scores =
      retrieval_scores(model->llama, pare::simd.with(workspace), prompts, [](double) {});
  EXPECT_EQ(pare::attention::top_heads(scores, 9, 1e-9), (std::vector<LayerHead>{{18, 6}}));
}

TEST_F(GenerateOnModel, TextsThatRepeatThemselvesAreJudgedTheSecondTime) {
  const TemporaryFile file(
      "lamp river seven cloud engine paper tiger window salt music north copper dream bottle "
      "field orange ladder storm velvet clock harbour pencil stone yellow market shadow needle");
  const std::string path = file.path.string();
  const TextPart twice = text_part(*model, path, 100, 24), once = text_part(*model, path, 24, {});
  EXPECT_EQ(twice.skipped, 23u);
  ASSERT_EQ(twice.tokens.size(), 48u);
  EXPECT_TRUE(std::ranges::equal(std::span(twice.tokens).first(24), once.tokens));
  EXPECT_TRUE(std::ranges::equal(std::span(twice.tokens).last(24), once.tokens));
  const auto losses = [&](const TextPart& of) {
    return part_losses(model->llama, pare::simd.with(workspace), of, 48, KvScalar::Float,
                       exact_attention, "exact");
  };
  EXPECT_EQ(losses(twice).size(), 24u);
  EXPECT_LT(mean_of(losses(twice)).value, 0.5 * mean_of(losses(once)).value);
  EXPECT_THROW(text_part(*model, path, 100, 80), std::runtime_error);
}

TEST_F(GenerateOnModel, TextsAreComparedTokenByToken) {
  const TemporaryFile file("A text of some words.");
  const std::string path = file.path.string();
  TextParts parts({text_part(*model, path, 100, {}), text_part(*model, path, 4, {})});
  std::vector<std::pair<std::string, double>> changes;
  const auto judge = [&](const Attention& attention) {
    parts.judge(model->llama, pare::simd.with(workspace), 16, KvScalar::Float, attention, "way",
                [&](const std::string& text, const Mean&, const Mean& change) {
                  changes.emplace_back(text, change.value);
                });
  };
  judge(exact_attention);
  judge(masked_attention({{0, 0}, {0, 1}, {0, 2}}, HeadMode::Zero, model->llama.config()));
  ASSERT_EQ(changes.size(), 6u);
  for (std::size_t i = 0; i < 3; ++i) {
    EXPECT_EQ(changes[i].second, 0);
    EXPECT_NE(changes[i + 3].second, 0);
  }
  EXPECT_EQ(changes[0].first, path);
  EXPECT_EQ(changes[2].first, "all");
}

TEST_F(GenerateOnModel, ForetellsWordsInTheirOrderBetterThanShuffled) {
  const auto loss = [&](std::string_view words) {
    return mean_of(token_losses(model->llama, pare::simd.with(workspace),
                                model->tokenizer.encode(words), 64, KvScalar::Float,
                                exact_attention, [](double) {}))
        .value;
  };
  // By a factor of e for each token, at least.
  EXPECT_LT(
      loss("It was the best of times, it was the worst of times, it was the age of wisdom") + 1,
      loss("wisdom the it of best was age the worst times it of it was times of was, the"));
}

}  // namespace
}  // namespace studies_generate_on_model_test
