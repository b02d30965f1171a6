// SPDX-License-Identifier: Apache-2.0

/// \file
/// Speculative decoding with SmolLM2, where the file is present, and what its table says.

#include "common/model_folder.hpp"
#include "language_model/speculate.hpp"

#include <pare/core/backend.hpp>
#include <pare/core/workspace.hpp>

#include <gtest/gtest.h>

#include <memory>
#include <vector>

namespace studies_speculate_on_model_test {
namespace {

using namespace language_model;

class SpeculateOnModel : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    if (const auto path = models::find(models::smollm2)) model = std::make_unique<OpenModel>(*path);
  }
  static void TearDownTestSuite() { model.reset(); }

  void SetUp() override {
    if (!model) GTEST_SKIP() << "no " << models::smollm2 << " in " << models::folder();
  }

  std::vector<std::vector<Token>> prompts() const {
    std::vector<std::vector<Token>> all;
    for (const char* text : {"one, two, three, one, two, three, one,", "The capital of France is"})
      all.push_back(model->tokenizer.encode(text));
    return all;
  }

  static inline std::unique_ptr<OpenModel> model;
  pare::Workspace workspace;
};

TEST_F(SpeculateOnModel, TextsAreThoseOfPlainDecodingAtAnyTemperature) {
  const ModelBackend on = on_any_executor(pare::simd.with(workspace));
  const DraftHead head = dense_head(weight_of(on, model->llama.head()));
  Arguments arguments;
  arguments.tokens = 10;
  for (const double temperature : {0.0, 0.8}) {
    const bool is_chain = temperature > 0;
    arguments.sampling = {.temperature = temperature, .seed = 5};
    const Drafter early = is_chain ? early_exit(model->llama, 24, head)
                                   : Drafter(EarlyExitTree(model->llama, 24, head, 4));
    const auto expect_same = [&](const Drafter& drafter, auto&& budget) {
      const ComparedTexts texts =
          compared_texts(arguments, *model, on, prompts(), drafter, budget, "test");
      EXPECT_EQ(texts.same(), 2u) << "temperature " << temperature;
      EXPECT_EQ(texts.plain.counts.rounds, 18);
      EXPECT_LE(texts.drafted.counts.rounds, 18);
      for (const auto& text : texts.drafted.texts) EXPECT_EQ(text.size(), 10u);
    };
    expect_same(prompt_drafter(is_chain ? 1 : 4), Index{8});
    expect_same(early, Index{5});
    AdaptiveBudget adaptive(pare::draft::MeasuredCost({{1, 1.0}, {16, 1.0}}), 1000,
                            {.most = 8, .costs_per_node = true});
    expect_same(early, adaptive);
  }
}

TEST_F(SpeculateOnModel, PassesAreMeasuredByTheirRows) {
  const ModelBackend on = on_any_executor(pare::simd.threads(1).with(workspace));
  const auto all = pass_cost(model->llama, on, KvScalar::Float, 32, 16);
  const auto last_blocks = pass_cost(model->llama, on, KvScalar::Float, 32, 16, 29);
  // Sixteen rows take some 7 times as long as one; 30 blocks and the head 2 (SSE2) to 4 times
  // (AVX-512) as long as one block and the head, and as long if the first block were ignored.
  EXPECT_GT(all(16), all(1));
  EXPECT_GT(all(1), 1.4 * last_blocks(1));
}

/// A head of half the time and nine tenths of the tokens, where the dense one takes a third of a
/// round: 0.9 (1 + 1/2) / (1 + 1/4).
TEST(ForetoldSpeed, IsThatOfTokensAndTimesOfARound) {
  DraftedTexts dense, other;
  dense.counts = {.rounds = 10, .tokens = 20, .seconds = 30, .head_seconds = 10};
  other.counts = {.rounds = 20, .tokens = 36, .seconds = 50, .head_seconds = 10};
  EXPECT_NEAR(foretold_speed(dense, other), 0.9 * 1.5 / 1.25, 1e-12);
}

}  // namespace
}  // namespace studies_speculate_on_model_test
