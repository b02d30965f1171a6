// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <pare/latent/config.hpp>
#include <pare/transformer/yarn.hpp>

#include <cmath>
#include <functional>
#include <limits>
#include <utility>
#include <vector>

#include "support/matrices.hpp"

namespace latent_config_test {
namespace {

using pare::Index;
using pare::testing::refusal;
using pare::transformer::yarn_magnitude;
using namespace pare::latent;

LatentConfig deepseek_v3() {
  return {.width = 7168,
          .heads = 128,
          .nope = 128,
          .rope = 64,
          .value = 128,
          .latent = 512,
          .query_latent = 1536,
          .softmax_scale = latent_softmax_scale(128, 64, yarn_magnitude(40, 1))};
}

LatentConfig video() {
  return {.width = 1536,
          .heads = 12,
          .nope = 96,
          .rope = 32,
          .value = 128,
          .latent = 192,
          .query_latent = 768,
          .softmax_scale = latent_softmax_scale(96, 32)};
}

TEST(LatentConfig, ScaleIsThatOfThePublishedModels) {
  // m = 1.368888 and 1.260804 in the two models, heads of 192 numbers.
  EXPECT_NEAR(latent_softmax_scale(128, 64), 0.0721688, 5e-8);
  EXPECT_NEAR(yarn_magnitude(40, 1), 1.368888, 5e-7);
  EXPECT_NEAR(yarn_magnitude(40, 0.707), 1.260804, 5e-7);
  EXPECT_NEAR(latent_softmax_scale(128, 64, yarn_magnitude(40, 1)), 0.1352338, 5e-8);
  EXPECT_NEAR(latent_softmax_scale(128, 64, yarn_magnitude(40, 0.707)), 0.1147214, 5e-8);
  EXPECT_DOUBLE_EQ(latent_softmax_scale(96, 32), 1 / std::sqrt(128.0));
  EXPECT_DOUBLE_EQ(latent_softmax_scale(64, 0), 0.125);
}

TEST(LatentConfig, ScaleDoesNotDependOnTheLatent) {
  // The trap: a kernel sees rows of 576 numbers, and 1 / sqrt(576) is another number.
  const LatentConfig c = deepseek_v3();
  EXPECT_EQ(c.row_dim(), 576);
  EXPECT_EQ(c.head_dim(), 192);
  EXPECT_GT(std::abs(c.softmax_scale - 1 / std::sqrt(576.0)), 0.09);
  EXPECT_GT(latent_softmax_scale(128, 64) / (1 / std::sqrt(576.0)), 1.7);
}

TEST(LatentConfig, SizesAreThoseOfThePapers) {
  const LatentSizes v3 = latent_sizes(deepseek_v3());
  EXPECT_EQ(v3.row, 576);
  EXPECT_EQ(v3.expanded, 40960);
  EXPECT_EQ(v3.cache_bytes(1, 61, 2), 70272);
  EXPECT_EQ(v3.expanded_bytes(1, 61, 2), 4997120);
  EXPECT_NEAR(v3.ratio(), 71.1, 0.05);
  // 128 K tokens of 62 layers: 8.72 GiB.
  EXPECT_NEAR(static_cast<double>(v3.cache_bytes(131072, 62, 2)) / (1 << 30), 8.72, 0.005);
  // As grouped attention with 2.25 heads of keys and of values of 128 numbers.
  EXPECT_DOUBLE_EQ(static_cast<double>(v3.row) / (2 * 128), 2.25);
  EXPECT_EQ(2 * v3.up, 33554432);
  EXPECT_EQ(v3.tokens_of_up(), 29127);

  LatentConfig lite = deepseek_v3();
  lite.width = 2048;
  lite.heads = 16;
  lite.query_latent.reset();
  EXPECT_EQ(latent_sizes(lite).tokens_of_up(), 3640);
  EXPECT_EQ(lite.query_inputs(), 2048);
  EXPECT_EQ(deepseek_v3().query_inputs(), 1536);
}

TEST(LatentConfig, VideoSaves92Point7PerCent) {
  const LatentSizes sizes = latent_sizes(video());
  EXPECT_EQ(sizes.expanded, 3072);
  EXPECT_EQ(sizes.row, 224);
  EXPECT_NEAR(100 * sizes.saved(), 92.7, 0.05);
  EXPECT_NEAR(sizes.ratio(), 13.71, 0.005);
  // The table of the paper: the ratio of each latent width.
  for (const auto& [latent, ratio] :
       std::vector<std::pair<Index, double>>{{64, 32.0}, {128, 19.2}, {256, 10.67}, {512, 5.65}}) {
    LatentConfig c = video();
    c.latent = latent;
    EXPECT_NEAR(latent_sizes(c).ratio(), ratio, 0.005) << latent;
  }
  // A sink of one frame and six frames, 30 layers: 147 MB instead of 2.01 GB.
  EXPECT_NEAR(static_cast<double>(sizes.cache_bytes(10920, 30, 2)) / 1e6, 146.8, 0.05);
  EXPECT_NEAR(static_cast<double>(sizes.expanded_bytes(10920, 30, 2)) / 1e9, 2.01, 0.005);
}

TEST(LatentConfig, WhatIsOutOfRangeIsRefused) {
  constexpr double infinity = std::numeric_limits<double>::infinity();
  const auto refused = [](const char* argument, const std::function<void(LatentConfig&)>& change) {
    LatentConfig c = deepseek_v3();
    change(c);
    refusal([&] { latent_sizes(c); }, "latent::latent_sizes", argument);
  };
  for (const Index bad : {0, -1}) {
    refused("width", [&](auto& c) { c.width = bad; });
    refused("heads", [&](auto& c) { c.heads = bad; });
    refused("nope", [&](auto& c) { c.nope = bad; });
    refused("value", [&](auto& c) { c.value = bad; });
    refused("latent", [&](auto& c) { c.latent = bad; });
    refused("query_latent", [&](auto& c) { c.query_latent = bad; });
  }
  for (const Index bad : {-2, 1, 63}) refused("rope", [&](auto& c) { c.rope = bad; });
  for (const double bad : {0.0, -1.0, infinity, std::nan("")})
    refused("softmax_scale", [&](auto& c) { c.softmax_scale = bad; });
  for (const double bad : {-1e-6, infinity, std::nan("")})
    refused("norm_epsilon", [&](auto& c) { c.norm_epsilon = bad; });
  constexpr Index most = std::numeric_limits<Index>::max();
  refused("nope", [&](auto& c) { c.nope = most; });
  refused("heads", [&](auto& c) { c.heads = most / 4; });
  refused("latent", [&](auto& c) { c.latent = most / 1024; });

  LatentConfig none = deepseek_v3();
  none.rope = 0;
  none.norm_epsilon = 0;
  EXPECT_EQ(latent_sizes(none).row, 512);

  constexpr const char* scale = "latent::latent_softmax_scale";
  refusal([] { latent_softmax_scale(-1, 64); }, scale, "nope");
  refusal([] { latent_softmax_scale(64, -1); }, scale, "rope");
  refusal([] { latent_softmax_scale(0, 0); }, scale, "nope");
  for (const double bad : {0.0, -1.0, infinity})
    refusal([&] { latent_softmax_scale(64, 64, bad); }, scale, "magnitude");
  constexpr const char* sizes = "latent::LatentSizes";
  const LatentSizes v3 = latent_sizes(deepseek_v3());
  refusal([&] { v3.cache_bytes(-1, 1, 2); }, sizes, "tokens");
  refusal([&] { v3.cache_bytes(most / 2, 61, 2); }, sizes, "tokens");
  refusal([&] { v3.expanded_bytes(most / 40960, 1, 2); }, sizes, "scalar_bytes");
}

}  // namespace
}  // namespace latent_config_test
