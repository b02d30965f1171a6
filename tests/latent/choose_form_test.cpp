// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <pare/latent/choose_form.hpp>

#include <cmath>
#include <limits>
#include <utility>
#include <vector>

#include "support/matrices.hpp"

namespace latent_choose_form_test {
namespace {

using pare::Index;
using pare::testing::refusal;
using namespace pare::latent;

constexpr LatentConfig deepseek{.width = 7168,
                                .heads = 128,
                                .nope = 128,
                                .rope = 64,
                                .value = 128,
                                .latent = 512,
                                .query_latent = 1536,
                                .softmax_scale = 0.13};
constexpr LatentConfig video{.width = 1536,
                             .heads = 12,
                             .nope = 96,
                             .rope = 32,
                             .value = 128,
                             .latent = 192,
                             .query_latent = 768,
                             .softmax_scale = 0.09};
constexpr FormOptions all_pairs{.causal = false};

TEST(ChooseForm, FormsCrossWhereThePagesSay) {
  EXPECT_EQ(least_expanded_queries(deepseek), 171);
  EXPECT_EQ(least_expanded_queries(video), 269);
  LatentConfig narrow = deepseek;
  narrow.latent = 128;
  EXPECT_EQ(least_expanded_queries(narrow), std::nullopt);
  EXPECT_EQ(choose_form(narrow, 100000, 100000), LatentForm::Absorbed);
}

TEST(ChooseForm, RatiosAreThoseOfDeepSeekAt4096Keys) {
  for (const auto& [queries, ratio] : std::vector<std::pair<Index, double>>{
           {1, 0.0085}, {16, 0.13}, {64, 0.47}, {128, 0.83}, {256, 1.35}, {2048, 2.9}}) {
    const FormCost cost = form_cost(deepseek, queries, 4096, all_pairs);
    EXPECT_NEAR(cost.absorbed / cost.expanded, ratio, ratio * 0.04) << queries;
    EXPECT_EQ(choose_form(deepseek, queries, 4096, all_pairs),
              ratio > 1 ? LatentForm::Expanded : LatentForm::Absorbed);
  }
}

TEST(ChooseForm, CostsAreThoseOfTheEquations) {
  for (const LatentConfig& c : {deepseek, video})
    for (const Index queries : {1, 7, 300})
      for (const Index keys : {1, 300, 5000}) {
        Index pairs = 0;
        for (Index i = 0; i < queries; ++i)
          for (Index j = 0; j < keys; ++j) pairs += j <= keys - queries + i ? 1 : 0;
        for (const bool causal : {true, false}) {
          const Index seen = causal ? pairs : queries * keys;
          const FormCost cost = form_cost(c, queries, keys, {.causal = causal});
          EXPECT_EQ(cost.absorbed,
                    static_cast<double>(c.heads * (seen * (2 * c.latent + c.rope) +
                                                   queries * c.latent * (c.nope + c.value))));
          EXPECT_EQ(cost.expanded,
                    static_cast<double>(c.heads * (seen * (c.nope + c.rope + c.value) +
                                                   keys * c.latent * (c.nope + c.value))));
        }
      }
}

TEST(ChooseForm, TheFactorMovesTheCrossing) {
  EXPECT_EQ(choose_form(deepseek, 1, 4096), LatentForm::Absorbed);
  EXPECT_EQ(choose_form(deepseek, 4096, 4096), LatentForm::Expanded);
  EXPECT_EQ(choose_form(deepseek, 4096, 4096, {.factor = 4}), LatentForm::Absorbed);
  EXPECT_EQ(choose_form(deepseek, 1, 4096, {.factor = 0.005}), LatentForm::Expanded);
  EXPECT_EQ(choose_form(deepseek, 0, 0), LatentForm::Absorbed);
}

TEST(ChooseForm, WhatIsOutOfRangeIsRefused) {
  refusal([] { form_cost(deepseek, -1, 1); }, "latent::form_cost", "queries");
  refusal([] { choose_form(deepseek, 1, -1); }, "latent::form_cost", "keys");
  for (const double bad : {0.0, -1.0, std::numeric_limits<double>::infinity(), std::nan("")})
    refusal([&] { choose_form(deepseek, 1, 1, {.factor = bad}); }, "latent::choose_form", "factor");
  refusal([] { form_cost({}, 1, 1); }, "latent::form_cost", "width");
  constexpr Index most = std::numeric_limits<Index>::max();
  const LatentConfig huge{.width = 1,
                          .heads = 1,
                          .nope = 1,
                          .rope = 2,
                          .value = 1,
                          .latent = most / 2,
                          .softmax_scale = 1};
  EXPECT_NEAR(form_cost(huge, 1, 1).absorbed * 0x1p-63, 2, 1e-9);
  EXPECT_GT(form_cost(deepseek, most, most).expanded, 0x1p126);
  refusal([] { least_expanded_queries({}); }, "latent::least_expanded_queries", "width");
}

}  // namespace
}  // namespace latent_choose_form_test
