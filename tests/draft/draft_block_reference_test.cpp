// SPDX-License-Identifier: Apache-2.0
// The definition of a draft block, and caches of 16 bits.
#include <gtest/gtest.h>

#include <pare/draft/draft_block.hpp>
#include <pare/draft/draft_block_reference.hpp>

#include <cmath>
#include <vector>

#include "draft/draft_block_models.hpp"
#include "draft/draft_blocks.hpp"
#include "support/properties.hpp"

namespace draft_draft_block_reference_test {
namespace {

using pare::bf16;
using pare::f16;
using pare::Index;
using pare::rows_of;
using pare::testing::base;
using pare::testing::block_difference;
using pare::testing::bound;
using pare::testing::Doubles;
using pare::testing::doubles_of;
using pare::testing::equal_bits;
using pare::testing::in_rounds;
using pare::testing::Model;
using pare::testing::random_rows;
using pare::testing::refuses_and_leaves_alone;
using pare::testing::Rows;
using pare::testing::small_block_config;
using pare::transformer::DenseLinear;
using pare::transformer::rotary_frequencies;
using namespace pare::draft;

template <class S>
void expect_reference(const DraftBlockConfig& c, Index tokens, Index b) {
  using T = pare::compute_t<S>;
  const Model<DenseLinear<S>> model(c);
  const auto tapped = random_rows<T>(tokens, c.tapped_width, 7);
  const auto embeddings = random_rows<T>(b, c.width, 8);
  Rows<T> wanted(b - 1, c.width);
  reference_draft_block(c, model.block.weights(), rotary_frequencies(c.head_dim, base),
                        tapped.view(), embeddings.view(), wanted.view());
  // Rounded to T once, in the end.
  EXPECT_LE(block_difference(wanted, model.oracle(tapped, embeddings)), bound<T> / 10);
  auto cache = model.cache();
  const auto got =
      in_rounds(model, pare::simd, cache, tapped, embeddings, {tokens / 2, tokens - tokens / 2});
  EXPECT_LE(block_difference(got, doubles_of(wanted)), bound<T>);
}
TEST(DraftBlockReference, IsTheOracleAndWhatBlocksGive) {
  DraftBlockConfig shifted = small_block_config();
  shifted.draft_shift = true;
  shifted.heads = shifted.kv_heads = 1;
  for (const DraftBlockConfig& c : {small_block_config(), shifted})
    for (const Index b : {Index{2}, c.block}) {
      expect_reference<float>(c, 29, b);
      expect_reference<double>(c, 29, b);
      expect_reference<bf16>(c, 0, b);
      expect_reference<f16>(c, 3, b);
    }
}

TEST(DraftBlockReference, WhatDoesNotFitIsRefused) {
  const DraftBlockConfig c = small_block_config();
  const auto weights = pare::testing::random_block_weights<float>(c);
  const auto tapped = random_rows<float>(5, c.tapped_width, 7);
  auto embeddings = random_rows<float>(8, c.width, 8);
  Rows<float> out(6, c.width);
  const auto refuses = [&](const char* argument, const DraftBlockConfig& config, Index dims,
                           const auto& t, const auto& x, const auto& y) {
    refuses_and_leaves_alone(
        [&] { reference_draft_block(config, weights, rotary_frequencies(dims), t, x, y); },
        "draft::reference_draft_block", argument, out, embeddings);
  };
  const auto x = rows_of(embeddings.view(), 0, 7);
  DraftBlockConfig other = c;
  other.hidden += 1;
  refuses("layers[0].gate", other, c.head_dim, tapped.view(), x, out.view());
  other = c;
  other.block = 1;
  refuses("block", other, c.head_dim, tapped.view(), x, out.view());
  refuses("angles", c, 8, tapped.view(), x, out.view());
  refuses("tapped", c, c.head_dim, embeddings.view(), x, out.view());
  refuses("embeddings", c, c.head_dim, tapped.view(), tapped.view(), out.view());
  refuses("embeddings", c, c.head_dim, tapped.view(), embeddings.view(), out.view());
  refuses("embeddings", c, c.head_dim, tapped.view(), rows_of(x, 0, 1), rows_of(out.view(), 0, 0));
  refuses("out", c, c.head_dim, tapped.view(), x, rows_of(out.view(), 0, 5));
  refuses("out", c, c.head_dim, tapped.view(), x, rows_of(embeddings.view(), 0, 6));
}

/// Context keys and values are rounded to the bit. A row of a block is that of the definition with
/// rounded ones, but for the few of 2,000 that lie so near a tie that float and double round them
/// apart: by a step, 2^(1 - bits) of one number, which is one of 18 that a head weighs, so that two
/// such move a row by less than a quarter of 2^-bits. All roundings together move it by 2^-bits.
template <class S>
void expect_rounded_cache(double bits) {
  const Model<DenseLinear<float>> model(small_block_config());
  const auto tapped = random_rows<float>(11, model.config.tapped_width, 7);
  const auto embeddings = random_rows<float>(7, model.config.width, 8);
  auto wide = model.cache(20);
  DraftBlockCache<S> cache(model.config, {.tokens = 20});
  model.block.append(tapped.view(), wide);
  model.block.append(rows_of(tapped.view(), 0, 4), cache);
  Rows<float> got(6, model.config.width), again(6, model.config.width);
  model.block.forward(rows_of(tapped.view(), 4, 7), embeddings.view(), cache, got.view());
  for (Index i = 0; i < model.config.layers; ++i)
    for (Index h = 0; h < model.config.kv_heads; ++h)
      for (Index t = 0; t < 11; ++t)
        for (Index j = 0; j < model.config.head_dim; ++j) {
          ASSERT_EQ(static_cast<float>(cache.keys(i)(0, h, t, j)),
                    static_cast<float>(static_cast<S>(wide.keys(i)(0, h, t, j))));
          ASSERT_EQ(static_cast<float>(cache.values(i)(0, h, t, j)),
                    static_cast<float>(static_cast<S>(wide.values(i)(0, h, t, j))));
        }
  const auto stored = [](double x) {
    return static_cast<double>(static_cast<float>(static_cast<S>(static_cast<float>(x))));
  };
  const Doubles rounded = model.oracle(tapped, embeddings, {.stored = stored});
  const Doubles exact = model.oracle(tapped, embeddings);
  const double least = std::exp2(-bits);
  EXPECT_LE(block_difference(got, rounded), least / 4);
  EXPECT_GE(block_difference(got, exact), least / 2);
  EXPECT_LE(block_difference(got, exact), 4 * least);
  model.block.draft(pare::simd.threads(3), embeddings.view(), cache, again.view());
  EXPECT_TRUE(equal_bits(got, again));
}
TEST(DraftBlock, ACacheOf16BitsRoundsKeysAndValuesOnce) {
  expect_rounded_cache<bf16>(8);
  expect_rounded_cache<f16>(11);
}

}  // namespace
}  // namespace draft_draft_block_reference_test
