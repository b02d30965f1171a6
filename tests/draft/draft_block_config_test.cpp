// SPDX-License-Identifier: Apache-2.0
// Sizes, weights and caches of draft blocks, and what is refused of them.
#include <gtest/gtest.h>

#include <pare/draft/draft_block.hpp>
#include <pare/draft/draft_block_cache.hpp>
#include <pare/draft/draft_block_config.hpp>
#include <pare/draft/draft_block_weights.hpp>

#include <functional>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "draft/draft_blocks.hpp"
#include "support/properties.hpp"

namespace draft_draft_block_config_test {
namespace {

using pare::Index;
using pare::testing::random_block_weights;
using pare::testing::random_linear;
using pare::testing::refusal;
using pare::testing::small_block_config;
using pare::transformer::DenseLinear;
using pare::transformer::rotary_frequencies;
using pare::transformer::RotaryTable;
using namespace pare::draft;

constexpr Index largest = std::numeric_limits<Index>::max();

/// Those of the released code; of 30 and 5 two places are halves, which go to the even layer.
TEST(TappedLayers, AreThoseOfTheReleasedCode) {
  using List = std::vector<Index>;
  EXPECT_EQ(tapped_layers(36, 5), (List{1, 9, 17, 25, 33}));
  EXPECT_EQ(tapped_layers(28, 5), (List{1, 7, 13, 19, 25}));
  EXPECT_EQ(tapped_layers(32, 5), (List{1, 8, 15, 22, 29}));
  EXPECT_EQ(tapped_layers(30, 5), (List{1, 8, 14, 20, 27}));
  EXPECT_EQ(tapped_layers(31, 4), (List{1, 10, 19, 28}));
  EXPECT_EQ(tapped_layers(41, 5), (List{1, 10, 20, 29, 38}));
  EXPECT_EQ(tapped_layers(8, 5), (List{1, 2, 3, 4, 5}));
  EXPECT_EQ(tapped_layers(7, 3), (List{1, 2, 4}));
  EXPECT_EQ(tapped_layers(5, 2), (List{1, 2}));
  EXPECT_EQ(tapped_layers(36, 1), List{18});
  EXPECT_EQ(tapped_layers(1, 1), List{0});
}

TEST(TappedLayers, AreRisingLayersOfTheTarget) {
  for (Index layers = 5; layers < 90; ++layers)
    for (Index taps = 2; taps <= layers - 3; ++taps) {
      const std::vector<Index> list = tapped_layers(layers, taps);
      ASSERT_EQ(list.front(), 1);
      ASSERT_EQ(list.back(), layers - 3);
      for (std::size_t i = 1; i < list.size(); ++i) ASSERT_GT(list[i], list[i - 1]);
    }
  const std::vector<Index> wide = tapped_layers(largest, 3);
  EXPECT_EQ(wide[1],
            1 + (largest - 4) / 2 + ((largest - 4) % 2 != 0 && (largest - 4) / 2 % 2 == 0));
}

TEST(TappedLayers, RefuseWhatHasNoPlaces) {
  for (const auto& [layers, taps] :
       std::vector<std::pair<Index, Index>>{{36, 0}, {36, -1}, {36, 34}, {4, 2}, {3, 2}})
    refusal([&] { tapped_layers(layers, taps); }, "draft::tapped_layers", "draft_layers");
  refusal([] { tapped_layers(0, 1); }, "draft::tapped_layers", "target_layers");
}

TEST(DraftBlockConfig, EachSizeOutOfItsRangeIsRefused) {
  const auto refuse = [](const char* argument,
                         const std::function<void(DraftBlockConfig&)>& change) {
    DraftBlockConfig c = small_block_config();
    c.validate("f");
    change(c);
    refusal([&] { c.validate("f"); }, "f", argument);
  };
  using C = DraftBlockConfig;
  for (const Index bad : {Index{0}, Index{-3}}) {
    refuse("width", [=](C& c) { c.width = bad; });
    refuse("tapped_width", [=](C& c) { c.tapped_width = bad; });
    refuse("layers", [=](C& c) { c.layers = bad; });
    refuse("heads", [=](C& c) { c.heads = bad; });
    refuse("kv_heads", [=](C& c) { c.kv_heads = bad; });
    refuse("head_dim", [=](C& c) { c.head_dim = bad; });
    refuse("hidden", [=](C& c) { c.hidden = bad; });
    refuse("block", [=](C& c) { c.block = bad; });
  }
  refuse("heads", [](C& c) { c.heads = 5; });
  refuse("heads", [](C& c) { c.heads = largest - 1; });
  refuse("head_dim", [](C& c) { c.head_dim = 9; });
  refuse("block", [](C& c) { c.block = 1; });
  refuse("block", [](C& c) { c.block = largest; });
  refuse("norm_epsilon", [](C& c) { c.norm_epsilon = -1e-6; });
  refuse("norm_epsilon", [](C& c) { c.norm_epsilon = std::numeric_limits<double>::infinity(); });
  refuse("norm_epsilon", [](C& c) { c.norm_epsilon = std::numeric_limits<double>::quiet_NaN(); });
}

TEST(DraftBlockWeights, EachWeightOfAnotherShapeIsRefusedByItsName) {
  using W = DraftBlockWeights<DenseLinear<float>>;
  const DraftBlockConfig c = small_block_config();
  const RotaryTable<float> table(rotary_frequencies(c.head_dim), 50);
  const auto refuse = [&](const char* argument, const std::function<void(W&)>& change) {
    W weights = random_block_weights<float>(c);
    change(weights);
    refusal([&] { const DraftBlock block(c, std::move(weights), table); }, "draft::DraftBlock",
            argument);
  };
  const auto odd = [] { return random_linear<float>(5, 6, 1); };
  refuse("context", [&](W& w) { w.context = odd(); });
  refuse("context_norm", [](W& w) { w.context_norm.pop_back(); });
  refuse("final_norm", [](W& w) { w.final_norm.clear(); });
  refuse("layers", [](W& w) { w.layers.pop_back(); });
  refuse("layers[1].input_norm", [](W& w) { w.layers[1].input_norm.push_back(1); });
  refuse("layers[2].query", [&](W& w) { w.layers[2].query = odd(); });
  refuse("layers[0].key", [&](W& w) { w.layers[0].key = odd(); });
  refuse("layers[0].value", [&](W& w) { w.layers[0].value = odd(); });
  refuse("layers[1].query_norm", [](W& w) { w.layers[1].query_norm.pop_back(); });
  refuse("layers[1].key_norm", [](W& w) { w.layers[1].key_norm.pop_back(); });
  refuse("layers[1].output", [&](W& w) { w.layers[1].output = odd(); });
  refuse("layers[1].mlp_norm", [](W& w) { w.layers[1].mlp_norm.pop_back(); });
  refuse("layers[1].gate", [&](W& w) { w.layers[1].gate = odd(); });
  refuse("layers[1].up", [&](W& w) { w.layers[1].up = odd(); });
  refuse("layers[2].down", [&](W& w) { w.layers[2].down = odd(); });
  const RotaryTable<float> narrow(rotary_frequencies(c.head_dim - 2), 50);
  refusal([&] { const DraftBlock block(c, random_block_weights<float>(c), narrow); },
          "draft::DraftBlock", "table");
  DraftBlockConfig bad = c;
  bad.width = 0;
  refusal([&] { const DraftBlock block(bad, random_block_weights<float>(c), table); },
          "draft::DraftBlock", "width");
}

TEST(DraftBlock, AnOutputInAWeightIsRefused) {
  const DraftBlockConfig c = small_block_config();
  const RotaryTable<float> table(rotary_frequencies(c.head_dim), 50);
  auto weights = random_block_weights<float>(c);
  const auto inside = weights.layers[2].down.own_weights();
  const DraftBlock block(c, std::move(weights), table);
  DraftBlockCache<float> cache(c, {.tokens = 20});
  const auto x = pare::testing::random_rows<float>(3, c.width, 8);
  refusal(
      [&] {
        block.draft(pare::simd, x.view(), cache,
                    pare::TensorView<float, 2>{inside.data, {2, c.width}, {c.width, 1}});
      },
      "draft::DraftBlock::draft", "out");
}

TEST(DraftBlockCache, SizesAndTokensOutOfTheirRangeAreRefused) {
  const DraftBlockConfig c = small_block_config();
  const auto refuse = [](const char* argument, const DraftBlockConfig& config,
                         const DraftBlockCacheOptions& options) {
    refusal([&] { const DraftBlockCache<float> cache(config, options); }, "draft::DraftBlockCache",
            argument);
  };
  refuse("tokens", c, {});
  refuse("tokens", c, {.tokens = -1});
  refuse("tokens", c, {.tokens = largest});
  refuse("tokens", c, {.tokens = 1 << 20, .sequences = largest / 2});
  refuse("sequences", c, {.tokens = 5, .sequences = 0});
  DraftBlockConfig bad = c;
  bad.kv_heads = 0;
  refuse("kv_heads", bad, {.tokens = 5});

  DraftBlockCache<float> cache(c, {.tokens = 9, .sequences = 2});
  EXPECT_EQ(cache.capacity(), 9);
  EXPECT_EQ(cache.length(1), 0);
  EXPECT_EQ(cache.keys(2).extent, (std::array<Index, 4>{2, 2, 16, 10}));
  const char* const truncate = "draft::DraftBlockCache::truncate";
  refusal([&] { cache.truncate(0, 1); }, truncate, "length");
  refusal([&] { cache.truncate(0, -1); }, truncate, "length");
  refusal([&] { cache.truncate(2, 0); }, truncate, "sequence");
  refusal([&] { cache.truncate(-1, 0); }, truncate, "sequence");
}

}  // namespace
}  // namespace draft_draft_block_config_test
