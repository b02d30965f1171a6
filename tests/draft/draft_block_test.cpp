// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <pare/draft/draft_block.hpp>
#include <pare/transformer/quantized_linear.hpp>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <list>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "draft/draft_block_models.hpp"
#include "draft/draft_blocks.hpp"
#include "support/allocations.hpp"
#include "support/properties.hpp"

namespace draft_draft_block_test {
namespace {

using pare::bf16;
using pare::compute_t;
using pare::f16;
using pare::Index;
using pare::rows_of;
using pare::testing::base;
using pare::testing::block_difference;
using pare::testing::bound;
using pare::testing::Doubles;
using pare::testing::doubles_of;
using pare::testing::equal_bits;
using pare::testing::Gapped;
using pare::testing::in_rounds;
using pare::testing::Model;
using pare::testing::random_block_weights;
using pare::testing::random_rows;
using pare::testing::refuses_and_leaves_alone;
using pare::testing::Rows;
using pare::testing::small_block_config;
using pare::transformer::DenseLinear;
using pare::transformer::QuantizedLinear;
using pare::transformer::rotary_frequencies;
using pare::transformer::RotaryTable;
using namespace pare::draft;

template <class Case>
struct DraftBlockTest : testing::Test {
  static auto backend() { return Case::backend::make(); }
};
TYPED_TEST_SUITE(DraftBlockTest, pare::testing::BackendsAndScalars);

TYPED_TEST(DraftBlockTest, RowsAreTheDefinitionAfterAnyRounds) {
  using T = typename TypeParam::scalar;
  std::vector<DraftBlockConfig> configs(5, small_block_config());
  configs[1].draft_shift = true;
  configs[2].heads = configs[2].kv_heads = 1;
  configs[3].layers = 1;
  configs[4].width = configs[4].tapped_width = configs[4].hidden = 1;
  configs[4].head_dim = configs[4].block = 2;
  for (const DraftBlockConfig& c : configs) {
    const Model<DenseLinear<T>> model(c);
    const auto tapped = random_rows<T>(29, c.tapped_width, 7);
    for (const Index b : {Index{2}, c.block}) {
      const auto embeddings = random_rows<T>(b, c.width, 8);
      const Doubles wanted = model.oracle(tapped, embeddings);
      for (const std::vector<Index>& rounds :
           {std::vector<Index>{29}, std::vector<Index>{20, 1, 0, 8}}) {
        auto cache = model.cache();
        const auto got = in_rounds(model, this->backend(), cache, tapped, embeddings, rounds);
        EXPECT_LE(block_difference(got, wanted), bound<T>) << b << " rows, width " << c.width;
      }
    }
  }
}

/// Of 512 tokens at a time, and of none.
TYPED_TEST(DraftBlockTest, LongContextsAndNone) {
  using T = typename TypeParam::scalar;
  const Model<DenseLinear<T>> model(small_block_config());
  const auto embeddings = random_rows<T>(7, model.config.width, 8);
  for (const Index n : {0, 1, 530}) {
    const auto tapped = random_rows<T>(n, model.config.tapped_width, 7);
    auto cache = model.cache();
    model.block.append(this->backend(), tapped.view(), cache);
    EXPECT_EQ(cache.length(0), n);
    Rows<T> out(6, model.config.width);
    model.block.draft(this->backend(), embeddings.view(), cache, out.view());
    EXPECT_LE(block_difference(out, model.oracle(tapped, embeddings)), bound<T>) << n;
  }
}

/// The fault that JetSpec's code names: a length of layer 0 in later layers. And positions that do
/// not go on behind the context. Both change rows by far more than rounding does.
TEST(DraftBlock, AStaleLengthOrPositionsOfTheBlockAloneWouldBeSeen) {
  const Model<DenseLinear<double>> model(small_block_config());
  const auto tapped = random_rows<double>(12, model.config.tapped_width, 7);
  const auto embeddings = random_rows<double>(7, model.config.width, 8);
  auto cache = model.cache();
  const auto got = in_rounds(model, pare::simd, cache, tapped, embeddings, {12});
  EXPECT_GT(block_difference(got, model.oracle(tapped, embeddings, {.stale_length = true})), 1e-2);
  EXPECT_GT(block_difference(got, model.oracle(tapped, embeddings, {.block_positions = true})),
            1e-2);
}

TYPED_TEST(DraftBlockTest, TwoRoundsHaveTheBitsOfOne) {
  using T = typename TypeParam::scalar;
  const Model<DenseLinear<T>> model(small_block_config());
  const auto tapped = random_rows<T>(40, model.config.tapped_width, 7);
  const auto embeddings = random_rows<T>(7, model.config.width, 8);
  auto one = model.cache(), more = model.cache();
  const auto at_once = in_rounds(model, this->backend(), one, tapped, embeddings, {40});
  const auto rounds = in_rounds(model, this->backend(), more, tapped, embeddings, {30, 1, 9});
  EXPECT_TRUE(equal_bits(at_once, rounds));
}

/// The block's own keys are gone after a round, and what was truncated may come again.
TYPED_TEST(DraftBlockTest, ARoundLeavesNothingButItsContext) {
  using T = typename TypeParam::scalar;
  const Model<DenseLinear<T>> model(small_block_config());
  const auto tapped = random_rows<T>(20, model.config.tapped_width, 7);
  const auto embeddings = random_rows<T>(7, model.config.width, 8);
  auto cache = model.cache();
  const auto first = in_rounds(model, this->backend(), cache, tapped, embeddings, {20});
  Rows<T> again(6, model.config.width), other(6, model.config.width);
  const auto others = random_rows<T>(7, model.config.width, 80);
  model.block.draft(this->backend(), others.view(), cache, other.view());
  EXPECT_FALSE(equal_bits(first, other));
  model.block.draft(this->backend(), embeddings.view(), cache, again.view());
  EXPECT_TRUE(equal_bits(first, again));
  cache.truncate(0, 11);
  model.block.forward(this->backend(), rows_of(tapped.view(), 11, 9), embeddings.view(), cache,
                      again.view());
  EXPECT_TRUE(equal_bits(first, again));
}

/// Row i of a block is that of a block which ends there, so that causality holds in every layer.
TYPED_TEST(DraftBlockTest, RowsDoNotKnowTheRowsBehindThem) {
  using T = typename TypeParam::scalar;
  for (const bool shift : {false, true}) {
    DraftBlockConfig c = small_block_config();
    c.draft_shift = shift;
    const Model<DenseLinear<T>> model(c);
    const auto tapped = random_rows<T>(9, c.tapped_width, 7);
    const auto embeddings = random_rows<T>(7, c.width, 8);
    auto cache = model.cache();
    const auto all = in_rounds(model, this->backend(), cache, tapped, embeddings, {9});
    for (Index changed = 1; changed < 7; ++changed) {
      auto others = embeddings;
      for (Index i = changed; i < 7; ++i)
        for (Index j = 0; j < c.width; ++j) others(i, j) = -others(i, j);
      Rows<T> got(6, c.width);
      model.block.draft(this->backend(), others.view(), cache, got.view());
      const Index same = changed - (shift ? 0 : 1);
      for (Index i = 0; i < 6; ++i)
        for (Index j = 0; j < c.width; ++j)
          ASSERT_EQ(got(i, j) == all(i, j), i < same) << "row " << i << ", changed " << changed;
      if (changed == 1) continue;
      Rows<T> shorter(changed - 1, c.width);
      model.block.draft(this->backend(), rows_of(embeddings.view(), 0, changed), cache,
                        shorter.view());
      // Few rows are attended to in another order.
      EXPECT_LE(block_difference(shorter, doubles_of(all).topRows(changed - 1)), bound<T>);
    }
  }
}

TYPED_TEST(DraftBlockTest, ABatchHasTheBitsOfItsSequences) {
  using T = typename TypeParam::scalar;
  const Model<DenseLinear<T>> model(small_block_config());
  const DraftBlockConfig& c = model.config;
  const std::vector<std::vector<Index>> offsets{{0, 12, 12, 30}, {0, 1, 8, 8}};
  auto batch = model.cache(50, 3);
  std::vector<DraftBlockCache<T>> alone;
  for (int s = 0; s < 3; ++s) alone.push_back(model.cache(50));
  for (std::size_t round = 0; round < 2; ++round) {
    const auto& o = offsets[round];
    const auto tapped = random_rows<T>(o.back(), c.tapped_width, 7 + round);
    const auto embeddings = random_rows<T>(3 * 5, c.width, 17 + round);
    Rows<T> out(3 * 4, c.width), single(4, c.width);
    model.block.forward(this->backend(), tapped.view(), embeddings.view(), batch, out.view(),
                        {.offsets = o});
    for (Index s = 0; s < 3; ++s) {
      const auto at = static_cast<std::size_t>(s);
      model.block.forward(this->backend(), rows_of(tapped.view(), o[at], o[at + 1] - o[at]),
                          rows_of(embeddings.view(), 5 * s, 5), alone[at], single.view());
      EXPECT_EQ(batch.length(s), alone[at].length(0));
      for (Index i = 0; i < 4; ++i)
        for (Index j = 0; j < c.width; ++j) ASSERT_EQ(out(4 * s + i, j), single(i, j)) << s;
    }
  }
}

TYPED_TEST(DraftBlockTest, PlainRowsAreThoseBeforeTheLastNorm) {
  using T = typename TypeParam::scalar;
  const Model<DenseLinear<T>> model(small_block_config());
  const auto tapped = random_rows<T>(9, model.config.tapped_width, 7);
  const auto embeddings = random_rows<T>(7, model.config.width, 8);
  auto cache = model.cache();
  model.block.append(this->backend(), tapped.view(), cache);
  Rows<T> plain(6, model.config.width);
  model.block.draft_plain(this->backend(), embeddings.view(), cache, plain.view());
  const Doubles wanted = pare::testing::plain_block_oracle(
      model.config, model.block.weights(), doubles_of(tapped), doubles_of(embeddings), base);
  EXPECT_LE(block_difference(plain, wanted.bottomRows(6)), bound<T>);
}

/// Weights of 16 bits and in blocks: their numbers are exact, products are float.
template <class L>
void expect_oracle(const Model<L>& model) {
  const auto tapped = random_rows<float>(11, model.config.tapped_width, 7);
  const auto embeddings = random_rows<float>(model.config.block, model.config.width, 8);
  const Doubles wanted = model.oracle(tapped, embeddings);
  auto cache = model.cache();
  EXPECT_LE(
      block_difference(in_rounds(model, pare::simd, cache, tapped, embeddings, {8, 3}), wanted),
      bound<float>);
}
template <class W>
void expect_oracle_of_blocks() {
  DraftBlockConfig c = small_block_config();
  c.width = c.hidden = 64, c.tapped_width = 96, c.head_dim = 16;
  std::list<std::vector<W>> stored;
  const auto make = [&](Index outputs, Index inputs, std::uint64_t seed) {
    pare::testing::Engine random(seed);
    auto& blocks = stored.emplace_back(static_cast<std::size_t>(outputs * inputs / 32));
    for (W& w : blocks) {
      w = pare::testing::random_block<W>(random);
      w.d.high = static_cast<std::uint8_t>((w.d.high & 0x83) | 0x18);  // 2^-9 to 2^-8
      if constexpr (requires { w.m; })
        w.m.high = static_cast<std::uint8_t>((w.m.high & 0x83) | 0x20);
    }
    return QuantizedLinear<W>(std::span<const W>(blocks), outputs, inputs);
  };
  expect_oracle(Model<QuantizedLinear<W>>(c, random_block_weights<QuantizedLinear<W>>(c, make)));
}
TEST(DraftBlock, WeightsOfAnyStorage) {
  expect_oracle(Model<DenseLinear<bf16>>(small_block_config()));
  expect_oracle(Model<DenseLinear<f16>>(small_block_config()));
  expect_oracle_of_blocks<pare::kernel::Q8_0>();
  expect_oracle_of_blocks<pare::kernel::Q4_1>();
}

TEST(DraftBlock, WithoutABackendHasTheBitsOfSimd) {
  const Model<DenseLinear<float>> model(small_block_config());
  const auto tapped = random_rows<float>(11, model.config.tapped_width, 7);
  const auto embeddings = random_rows<float>(7, model.config.width, 8);
  auto cache = model.cache(), other = model.cache();
  Rows<float> out(6, model.config.width), given(6, model.config.width);
  model.block.append(tapped.view(), cache);
  model.block.append(pare::simd, tapped.view(), other);
  model.block.draft(embeddings.view(), cache, out.view());
  model.block.draft(pare::simd, embeddings.view(), other, given.view());
  EXPECT_TRUE(equal_bits(out, given));
  model.block.draft_plain(embeddings.view(), cache, out.view());
  model.block.draft_plain(pare::simd, embeddings.view(), other, given.view());
  EXPECT_TRUE(equal_bits(out, given));
}

TEST(DraftBlock, TheBitsOfAnyThreadsAndStrides) {
  const Model<DenseLinear<bf16>> model(small_block_config());
  const auto tapped = random_rows<float>(60, model.config.tapped_width, 7);
  const auto embeddings = random_rows<float>(7, model.config.width, 8);
  const auto run = [&](const auto& backend) {
    auto cache = model.cache();
    Rows<float> out(6, model.config.width);
    model.block.forward(backend, tapped.view(), embeddings.view(), cache, out.view());
    return out;
  };
  pare::testing::same_bits_for_any_threads(pare::simd, run);
  const Rows<float> wanted = run(pare::simd);
  Gapped<float> t(tapped), e(embeddings), y(wanted);
  auto cache = model.cache();
  for (Index i = 0; i < 6; ++i)
    for (Index j = 0; j < model.config.width; ++j) y.view()(i, j) = 0;
  model.block.forward(t.view(), e.view(), cache, y.view());
  EXPECT_TRUE(equal_bits(y.rows(), wanted));
  EXPECT_TRUE(y.gaps_untouched());
}

TEST(DraftBlock, CallsAllocateNothingOnceMemoryHasGrown) {
  const Model<DenseLinear<bf16>> model(small_block_config());
  const auto tapped = random_rows<float>(10, model.config.tapped_width, 7);
  const auto embeddings = random_rows<float>(14, model.config.width, 8);
  Rows<float> out(12, model.config.width);
  auto cache = model.cache(300, 2);
  pare::Workspace workspace;
  const std::vector<Index> offsets{0, 6, 10};
  const auto round = [&] {
    model.block.forward(pare::simd.with(workspace), tapped.view(), embeddings.view(), cache,
                        out.view(), {.offsets = offsets});
  };
  for (int i = 0; i < 8; ++i) round();
  const long before = pare::testing::allocations;
  for (int i = 0; i < 8; ++i) round();
  EXPECT_EQ(pare::testing::allocations - before, 0);
}

TEST(DraftBlock, ANaNReachesRowsBehindItAndNoOtherSequence) {
  const Model<DenseLinear<float>> model(small_block_config());
  auto embeddings = random_rows<float>(14, model.config.width, 8);
  embeddings(3, 5) = std::numeric_limits<float>::quiet_NaN();
  auto cache = model.cache(10, 2);
  Rows<float> out(12, model.config.width);
  model.block.draft(pare::simd, embeddings.view(), cache, out.view());
  for (Index i = 2; i < 12; ++i) EXPECT_EQ(std::isnan(out(i, 0)), i < 6) << i;
}

TEST(DraftBlock, CallsThatDoNotFitAreRefusedAndLeaveAllAsItWas) {
  const DraftBlockConfig c = small_block_config();
  const Model<DenseLinear<float>> model(c, random_block_weights<float>(c), 40);
  const auto tapped = random_rows<float>(10, c.tapped_width, 7);
  const auto x = random_rows<float>(7, c.width, 8);
  auto cache = model.cache(20);
  Rows<float> out(6, c.width);
  model.block.forward(tapped.view(), x.view(), cache, out.view());
  const auto refuse = [&](const char* argument, pare::TensorView<const float, 2> states,
                          pare::TensorView<const float, 2> rows, DraftBlockCache<float>& kept,
                          pare::TensorView<float, 2> y, const DraftBlockOptions& options = {}) {
    const Index before = kept.length(0);
    refuses_and_leaves_alone(
        [&] { model.block.forward(pare::simd, states, rows, kept, y, options); },
        "draft::DraftBlock::forward", argument, out);
    EXPECT_EQ(kept.length(0), before) << argument;
  };
  const auto t = tapped.view();
  const auto e = x.view();
  const auto y = out.view();
  const auto narrow = random_rows<float>(10, c.tapped_width - 1, 7);
  refuse("tapped", narrow.view(), e, cache, y);
  refuse("tapped", {nullptr, {3, c.tapped_width}, {c.tapped_width, 1}}, e, cache, y);
  const auto narrow_rows = random_rows<float>(7, c.width - 1, 8);
  refuse("embeddings", t, narrow_rows.view(), cache, y);
  refuse("embeddings", t, rows_of(e, 0, 1), cache, rows_of(y, 0, 0));
  const auto long_block = random_rows<float>(8, c.width, 8);
  Rows<float> seven(7, c.width);
  refuse("embeddings", t, long_block.view(), cache, seven.view());
  refuse("out", t, e, cache, rows_of(y, 0, 5));
  refuse("out", t, e, cache, pare::columns_of(y, 0, c.width - 1));
  refuse("out", t, rows_of(pare::as_const(y), 0, 6), cache, rows_of(y, 0, 5));
  refuse("out", t, e, cache, {out.view().data, {6, c.width}, {0, 1}});
  refuse("out", {out.view().data, {3, c.tapped_width}, {c.tapped_width, 1}}, e, cache, y);
  const std::vector<Index> two{0, 5, 10}, late{1, 10}, early{0, 9};
  refuse("offsets", t, e, cache, y, {.offsets = two});
  refuse("offsets", t, e, cache, y, {.offsets = late});
  refuse("offsets", t, e, cache, y, {.offsets = early});
  // Room for 10 more tokens, but not for 11; and two caches of other blocks.
  const auto eleven = random_rows<float>(11, c.tapped_width, 7);
  refuse("cache", eleven.view(), e, cache, y);
  for (const int which : {0, 1, 2}) {
    DraftBlockConfig other = c;
    if (which == 0) other.layers = 2;
    if (which == 1) other.kv_heads = 1;
    if (which == 2) other.head_dim = 12;
    DraftBlockCache<float> odd(other, {.tokens = 20});
    refuse("cache", t, e, odd, y);
  }
  DraftBlockConfig shorter = c;
  shorter.block = 6;
  DraftBlockCache<float> small(shorter, {.tokens = 20});
  refuse("embeddings", t, e, small, y);
  DraftBlockCache<float> batch(c, {.tokens = 20, .sequences = 2});
  refuse("offsets", t, e, batch, y);
  refuse("embeddings", rows_of(t, 0, 0), e, batch, y);
  // The table has positions below 40: of 30 tokens, 4 more and a block of 7.
  auto far = model.cache(100);
  for (int i = 0; i < 3; ++i) model.block.append(pare::simd, t, far);
  refuse("table", rows_of(t, 0, 4), e, far, y);
  refuse("table", rows_of(t, 0, 5), rows_of(e, 0, 7), far, y);
  EXPECT_NO_THROW(model.block.forward(rows_of(t, 0, 3), e, far, y));
  const auto nothing = [&](const char* name, const char* argument, const auto& call) {
    refuses_and_leaves_alone(call, name, argument, out);
  };
  nothing("draft::DraftBlock::append", "table", [&] { model.block.append(pare::simd, t, far); });
  nothing("draft::DraftBlock::append", "tapped",
          [&] { model.block.append(pare::simd, narrow.view(), cache); });
  nothing("draft::DraftBlock::append", "tapped", [&] {
    model.block.append(
        pare::simd,
        pare::TensorView<const float, 2>{nullptr, {3, c.tapped_width}, {c.tapped_width, 1}}, cache);
  });
  nothing("draft::DraftBlock::draft", "embeddings", [&] {
    model.block.draft(pare::simd,
                      pare::TensorView<const float, 2>{nullptr, {7, c.width}, {c.width, 1}}, cache,
                      y);
  });
  // A table that starts at position 5, and a cache that has 4 tokens.
  const RotaryTable<float> late_table(rotary_frequencies(c.head_dim), 40, 5);
  const DraftBlock late_block(c, random_block_weights<float>(c), late_table);
  auto four = model.cache(20);
  model.block.append(pare::simd, rows_of(t, 0, 4), four);
  nothing("draft::DraftBlock::draft", "table", [&] { late_block.draft(pare::simd, e, four, y); });
  nothing("draft::DraftBlock::draft", "out",
          [&] { model.block.draft(pare::simd, e, cache, seven.view()); });
  nothing("draft::DraftBlock::draft_plain", "embeddings",
          [&] { model.block.draft_plain(pare::simd, narrow_rows.view(), cache, y); });
}

TEST(DraftBlock, NoRowsAreANoOp) {
  const Model<DenseLinear<float>> model(small_block_config());
  auto cache = model.cache();
  Rows<float> none(0, model.config.width), states(0, model.config.tapped_width);
  model.block.forward(states.view(), none.view(), cache, none.view());
  model.block.append(pare::reference, states.view(), cache);
  EXPECT_EQ(cache.length(0), 0);
}

}  // namespace
}  // namespace draft_draft_block_test
