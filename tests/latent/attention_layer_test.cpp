// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <pare/attention/attend_selected.hpp>
#include <pare/latent/attention_layer.hpp>
#include <pare/latent/reference.hpp>
#include <pare/transformer/quantized_linear.hpp>
#include <pare/transformer/rotary_table.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "latent/layers.hpp"
#include "latent/plain_cache.hpp"
#include "support/allocations.hpp"
#include "support/properties.hpp"

namespace latent_attention_layer_test {
namespace {

using pare::as_const;
using pare::bf16;
using pare::compute_t;
using pare::f16;
using pare::Index;
using pare::rows_of;
using pare::TensorView;
using pare::testing::PlainCache;
using pare::testing::random_latent_weights;
using pare::testing::random_rows;
using pare::testing::refusal;
using pare::testing::refuses_and_leaves_alone;
using pare::testing::Rows;
using pare::testing::small_latent_config;
using pare::transformer::rotary_frequencies;
using pare::transformer::RotaryFrequencies;
using pare::transformer::RotaryLayout;
using pare::transformer::RotaryTable;
using namespace pare::latent;

static_assert(LatentStore<PlainCache<float>, float> && LatentStore<PlainCache<bf16>, float>);
static_assert(!LatentStore<PlainCache<float>, double>);

/// What the issue of both forms allows: sums in float differ by some 1e-6 of the largest output.
template <class T>
constexpr double bound = std::is_same_v<T, double> ? 1e-12 : 1e-5;

RotaryFrequencies angles_of(const LatentConfig& c) {
  return c.rope == 0 ? RotaryFrequencies{{1}} : rotary_frequencies(c.rope);
}

/// A layer and its table, which have one life.
template <class S>
struct Model {
  using T = compute_t<S>;
  LatentConfig config;
  RotaryTable<T> table;
  LatentAttention<S> layer;

  explicit Model(const LatentConfig& c, RotaryLayout layout = RotaryLayout::Interleaved)
      : config(c), table(angles_of(c), 300), layer(make(c, table, layout)) {}
  Model(const Model&) = delete;

  static LatentAttention<S> make(const LatentConfig& c, const RotaryTable<T>& table,
                                 RotaryLayout layout) {
    if (c.rope == 0) return {c, random_latent_weights<S>(c)};
    return {c, random_latent_weights<S>(c), table, layout};
  }

  Rows<T> reference(const Rows<T>& hidden, const LatentReferenceOptions& options = {}) const {
    Rows<T> out(hidden.rows(), config.width);
    const RotaryFrequencies angles = config.rope == 0 ? RotaryFrequencies{} : angles_of(config);
    reference_expanded(config, layer.weights(), angles, hidden.view(), out.view(), options);
    return out;
  }
};

template <class T>
void expect_near(const Rows<T>& got, const Rows<T>& wanted, double relative, const char* what) {
  double size = 0;
  for (Index i = 0; i < wanted.rows(); ++i)
    for (Index j = 0; j < wanted.cols(); ++j)
      size = std::max(size, std::abs(static_cast<double>(wanted(i, j))));
  for (Index i = 0; i < wanted.rows(); ++i)
    for (Index j = 0; j < wanted.cols(); ++j)
      ASSERT_TRUE(pare::testing::within(static_cast<double>(got(i, j)),
                                        static_cast<double>(wanted(i, j)), relative * size))
          << what << ", token " << i << ", " << j << ": got " << got(i, j) << ", wanted "
          << wanted(i, j) << " of " << size;
}

/// The rows of a sequence in pieces, one call each.
template <class M, class B, class C, class T>
Rows<T> in_pieces(const M& model, const B& backend, C& cache, const Rows<T>& hidden,
                  const std::vector<Index>& pieces, LatentForwardOptions options = {}) {
  Rows<T> out(hidden.rows(), hidden.cols());
  Index at = 0;
  for (const Index n : pieces) {
    model.layer.forward(backend, rows_of(hidden.view(), at, n), cache, rows_of(out.view(), at, n),
                        options);
    at += n;
  }
  EXPECT_EQ(at, hidden.rows());
  return out;
}

template <class Case>
struct LatentAttentionTest : testing::Test {
  static auto backend() { return Case::backend::make(); }
};
TYPED_TEST_SUITE(LatentAttentionTest, pare::testing::BackendsAndScalars);

TYPED_TEST(LatentAttentionTest, PromptsAndTokensInEitherFormAreTheReference) {
  using T = typename TypeParam::scalar;
  std::vector<LatentConfig> configs(5, small_latent_config());
  configs[1].query_latent.reset();
  configs[2].rope = 0;
  configs[3].heads = 1;
  configs[4].nope = configs[4].value = configs[4].latent = 1;
  for (const LatentConfig& c : configs) {
    const Model<T> model(c);
    const auto hidden = random_rows<T>(31, c.width, 9);
    const auto wanted = model.reference(hidden);
    for (const auto form : {std::optional<LatentForm>{}, std::optional{LatentForm::Absorbed},
                            std::optional{LatentForm::Expanded}})
      for (const std::optional<Index> chunk : {std::optional<Index>{}, std::optional<Index>{5}}) {
        PlainCache<T> cache(1, c);
        expect_near(in_pieces(model, this->backend(), cache, hidden, {19, 1, 1, 10},
                              {.form = form, .chunk = chunk}),
                    wanted, bound<T>, form == LatentForm::Expanded ? "expanded" : "absorbed");
        EXPECT_EQ(cache.length(0), 31);
      }
  }
}

TYPED_TEST(LatentAttentionTest, BatchesAreTheirSequencesWhateverTheirForms) {
  using T = typename TypeParam::scalar;
  const LatentConfig c = small_latent_config();
  const Model<T> model(c);
  const std::vector<Index> cached{0, 12, 3, 0, 7}, tokens{40, 1, 0, 36, 2};
  // Many tokens are expanded here, few are not.
  EXPECT_EQ(choose_form(c, 40, 40), LatentForm::Expanded);
  EXPECT_EQ(choose_form(c, 1, 13), LatentForm::Absorbed);
  PlainCache<T> batch(5, c);
  Rows<T> hidden(79, c.width), out(79, c.width), wanted(79, c.width);
  std::vector<Index> offsets{0};
  for (Index s = 0; s < 5; ++s) {
    const auto at = static_cast<std::size_t>(s);
    const auto all =
        random_rows<T>(cached[at] + tokens[at], c.width, 20 + static_cast<std::uint64_t>(s));
    const auto alone = model.reference(all);
    const auto before = rows_of(all.view(), 0, cached[at]);
    Rows<T> unused(cached[at], c.width);
    model.layer.forward(this->backend(), before, batch, unused.view(), {.sequence = s});
    for (Index t = 0; t < tokens[at]; ++t)
      for (Index i = 0; i < c.width; ++i) {
        hidden(offsets.back() + t, i) = all(cached[at] + t, i);
        wanted(offsets.back() + t, i) = alone(cached[at] + t, i);
      }
    offsets.push_back(offsets.back() + tokens[at]);
  }
  model.layer.forward(this->backend(), hidden.view(), batch, out.view(), {.offsets = offsets});
  expect_near(out, wanted, bound<T>, "batch");
  for (Index s = 0; s < 5; ++s)
    EXPECT_EQ(batch.length(s),
              cached[static_cast<std::size_t>(s)] + tokens[static_cast<std::size_t>(s)]);
}

/// What a token sees through a window is what it sees of a cache that has those rows alone.
TYPED_TEST(LatentAttentionTest, WindowsAndSinksHideTheOtherRows) {
  using T = typename TypeParam::scalar;
  const LatentConfig c = small_latent_config();
  const Model<T> model(c);
  const auto hidden = random_rows<T>(40, c.width, 9);
  for (const Index window : {1, 7, 100})
    for (const Index sinks : {0, 3}) {
      Rows<T> wanted(40, c.width);
      PlainCache<T> full(1, c);
      in_pieces(model, this->backend(), full, hidden, {40});
      for (Index t = 0; t < 40; ++t) {
        PlainCache<T> seen(1, c);
        for (Index j = 0; j < t; ++j)
          if (j < sinks || j > t - window)
            seen.append(pare::simd, 0,
                        TensorView<const T, 2>{full.key(0, 0, j), {1, c.row_dim()}, {0, 1}});
        const std::vector<Index> position{t};
        model.layer.forward(this->backend(), rows_of(hidden.view(), t, 1), seen,
                            rows_of(wanted.view(), t, 1), {.positions = position});
      }
      for (const auto form : {LatentForm::Absorbed, LatentForm::Expanded})
        for (const Index chunk : {4, 100}) {
          PlainCache<T> cache(1, c);
          expect_near(in_pieces(model, this->backend(), cache, hidden, {12, 27, 1},
                                {.window = window, .sinks = sinks, .form = form, .chunk = chunk}),
                      wanted, bound<T>, "window");
        }
    }
}

/// Blocks on the diagonal, as a user would choose them.
struct Diagonal : pare::attention::SelectorHooks {
  Index row_block = 4, column_block = 4;
  template <class B, class S>
  double select(const B&, const pare::attention::SelectorHead<S>& head,
                pare::attention::BlockLists& keep) const {
    for (Index m = 0; m < keep.rows(); ++m)
      keep.add(m, head.position(m * row_block) / column_block);
    return 0.5;
  }
  void validate(const char* function, const pare::attention::SelectorCall& call) const {
    pare::check(call.queries % 4 == 0 && call.heads == call.kv_heads && call.heads == 3, function,
                "q", call.queries, "a multiple of 4 queries of each of 3 heads");
  }
};

TEST(LatentAttention, SelectorsOfAttentionChooseBlocksOfExpandedKeys) {
  const LatentConfig c = small_latent_config();
  const Model<double> model(c);
  const auto hidden = random_rows<double>(20, c.width, 9);
  Rows<double> got(20, c.width), wanted(20, c.width);
  PlainCache<double> full(1, c), cache(1, c);
  in_pieces(model, pare::simd, full, hidden, {20});
  for (Index t = 0; t < 20; ++t) {
    PlainCache<double> seen(1, c);
    for (Index j = t / 4 * 4; j < t; ++j)
      seen.append(pare::simd, 0,
                  TensorView<const double, 2>{full.key(0, 0, j), {1, c.row_dim()}, {0, 1}});
    const std::vector<Index> position{t};
    model.layer.forward(rows_of(hidden.view(), t, 1), seen, rows_of(wanted.view(), t, 1),
                        {.positions = position});
  }
  const auto forward = [&](Index from, Index n, const LatentForwardOptions& options) {
    model.layer.forward(pare::simd, rows_of(hidden.view(), from, n), cache,
                        rows_of(got.view(), from, n), Diagonal{}, options);
  };
  forward(0, 12, {});
  forward(12, 8, {});
  expect_near(got, wanted, 1e-12, "diagonal");
  const auto refused = [&](Index n, const LatentForwardOptions& options, const char* argument) {
    refuses_and_leaves_alone([&] { forward(0, n, options); }, "latent::LatentAttention::forward",
                             argument, got, cache.rows(0));
  };
  refused(3, {}, "q");
  refused(4, {.window = 8}, "window");
  refused(4, {.chunk = 8}, "chunk");
  refused(4, {.form = LatentForm::Absorbed}, "form");
}

TYPED_TEST(LatentAttentionTest, TokensThatSeeEachOtherAndGivenPositions) {
  using T = typename TypeParam::scalar;
  const LatentConfig c = small_latent_config();
  const Model<T> model(c, RotaryLayout::HalfSplit);
  const auto hidden = random_rows<T>(9, c.width, 9);
  const std::vector<Index> positions{5, 3, 0, 9, 1, 2, 8, 7, 299};
  const auto wanted = model.reference(
      hidden, {.layout = RotaryLayout::HalfSplit, .positions = positions, .causal = false});
  for (const auto form : {LatentForm::Absorbed, LatentForm::Expanded}) {
    PlainCache<T> cache(1, c);
    expect_near(in_pieces(model, this->backend(), cache, hidden, {9},
                          {.positions = positions, .causal = false, .form = form, .chunk = 4}),
                wanted, bound<T>, "not causal");
  }
}

// Weights of 16 bits are exact in the reference; rows of 16 bits round queries, keys and values by
// 2^-9 each (f16: 2^-12), and sums of them by less.
TEST(LatentAttention, SixteenBitWeightsAndCaches) {
  const LatentConfig c = small_latent_config();
  const Model<bf16> model(c);
  const auto hidden = random_rows<float>(31, c.width, 9);
  const auto wanted = model.reference(hidden);
  for (const auto form : {LatentForm::Absorbed, LatentForm::Expanded}) {
    const LatentForwardOptions options{.form = form, .chunk = 8};
    PlainCache<float> exact(1, c);
    expect_near(in_pieces(model, pare::simd, exact, hidden, {30, 1}, options), wanted, 1e-5,
                "float");
    PlainCache<bf16> cache(1, c);
    expect_near(in_pieces(model, pare::simd, cache, hidden, {30, 1}, options), wanted, 0x1p-5,
                "bf16");
    PlainCache<bf16> slow(1, c);
    expect_near(in_pieces(model, pare::reference, slow, hidden, {30, 1}, options), wanted, 0x1p-5,
                "bf16, reference");
    PlainCache<f16> half(1, c);
    expect_near(in_pieces(model, pare::simd, half, hidden, {30, 1}, options), wanted, 0x1p-8,
                "f16");
  }
}

TEST(LatentAttention, ProjectionsMayBeStoredInBlocks) {
  using Blocks = pare::transformer::QuantizedLinear<pare::kernel::Q8_0>;
  LatentConfig c = small_latent_config();
  c.width = 64;
  c.heads = 4;
  c.value = 8;
  c.query_latent.reset();
  auto dense = random_latent_weights<float>(c);
  std::vector<std::vector<pare::kernel::Q8_0>> memory;
  memory.reserve(3);
  const auto blocks = [&](pare::transformer::DenseLinear<float>& layer) {
    const auto w = layer.own_weights();
    auto& stored = memory.emplace_back();
    for (Index o = 0; o < w.rows(); ++o)
      for (Index i = 0; i < w.cols(); i += 32) {
        pare::kernel::Q8_0 block{};
        const std::uint16_t scale = f16(0x1p-8f).bits;
        block.d = {static_cast<std::uint8_t>(scale & 255), static_cast<std::uint8_t>(scale >> 8)};
        for (Index k = 0; k < 32; ++k) {
          const long q = std::clamp(std::lround(w(o, i + k) * 256), -127L, 127L);
          block.q[k] = static_cast<std::int8_t>(q);
          w(o, i + k) = static_cast<float>(q) / 256;  // the dense layer has the same numbers
        }
        stored.push_back(block);
      }
    return Blocks(stored, w.rows(), w.cols());
  };
  Blocks query = blocks(dense.query), down = blocks(dense.latent_down);
  Blocks output = blocks(dense.output);
  const auto up = [&] {
    return UpWeights<float>(c, pare::transformer::DenseLinear<float>(dense.up.all()));
  };
  const RotaryTable<float> table(angles_of(c), 100);
  const LatentAttention<float, Blocks> small(c,
                                             {.query = std::move(query),
                                              .latent_down = std::move(down),
                                              .latent_norm = dense.latent_norm,
                                              .up = up(),
                                              .output = std::move(output)},
                                             table);
  const auto hidden = random_rows<float>(11, c.width, 9);
  Rows<float> got(11, c.width), wanted(11, c.width);
  PlainCache<float> cache(1, c);
  small.forward(hidden.view(), cache, got.view());
  reference_expanded(c, dense, angles_of(c), hidden.view(), wanted.view());
  expect_near(got, wanted, 1e-5, "blocks");
}

TEST(LatentAttention, ADistanceIsThatOfPositionsAlone) {
  const LatentConfig c = small_latent_config();
  const Model<double> model(c);
  const auto hidden = random_rows<double>(20, c.width, 9);
  const auto at = [&](Index shift) {
    std::vector<Index> positions;
    for (Index t = 0; t < 20; ++t) positions.push_back(t + shift);
    PlainCache<double> cache(1, c);
    return in_pieces(model, pare::simd, cache, hidden, {20}, {.positions = positions});
  };
  expect_near(at(280), at(0), 1e-12, "shifted");
}

TEST(LatentAttention, AnyThreadsHaveTheSameBits) {
  const LatentConfig c = small_latent_config();
  const Model<float> model(c);
  const auto hidden = random_rows<float>(50, c.width, 9);
  for (const auto form : {LatentForm::Absorbed, LatentForm::Expanded})
    pare::testing::same_bits_for_any_threads(pare::simd, [&](const auto& backend) {
      PlainCache<float> cache(1, c);
      return in_pieces(model, backend, cache, hidden, {47, 1, 2}, {.form = form, .chunk = 16});
    });
}

TEST(LatentAttention, CallsAllocateNothingOnceMemoryHasGrown) {
  const LatentConfig c = small_latent_config();
  const Model<bf16> model(c);
  const auto hidden = random_rows<float>(16, c.width, 9);
  Rows<float> out(16, c.width);
  PlainCache<bf16> cache(2, c, 400);
  pare::Workspace workspace;
  const auto backend = pare::simd.with(workspace);
  const std::vector<Index> offsets{0, 15, 16};
  const auto step = [&](LatentForm form) {
    model.layer.forward(backend, hidden.view(), cache, out.view(),
                        {.offsets = offsets, .form = form, .chunk = 32});
  };
  step(LatentForm::Absorbed);
  for (int i = 0; i < 4; ++i) step(LatentForm::Expanded);  // as many chunks as the rest has
  const long before = pare::testing::allocations;
  for (int i = 0; i < 3; ++i) step(LatentForm::Absorbed), step(LatentForm::Expanded);
  EXPECT_EQ(pare::testing::allocations - before, 0);
}

// Earlier tokens of its call may have it too, where values share a tile.
TEST(LatentAttention, ANaNReachesThoseThatSeeItAndNoOtherSequence) {
  const LatentConfig c = small_latent_config();
  const Model<float> model(c);
  auto hidden = random_rows<float>(20, c.width, 9);
  hidden(3, 5) = std::numeric_limits<float>::quiet_NaN();
  const std::vector<Index> offsets{0, 10, 20};
  for (const auto form : {LatentForm::Absorbed, LatentForm::Expanded}) {
    PlainCache<float> cache(2, c);
    Rows<float> out(20, c.width);
    model.layer.forward(hidden.view(), cache, out.view(),
                        {.offsets = offsets, .form = form, .chunk = 4});
    for (Index t = 3; t < 20; ++t) EXPECT_EQ(std::isnan(out(t, 0)), t < 10) << t;
  }
}

// Tokens of one step share every product of the layer, and none of them but the spoilt one may
// tell.
TEST(LatentAttention, ANaNInAStepOfManySequencesStaysInItsRow) {
  const LatentConfig c = small_latent_config();
  const Model<float> model(c);
  constexpr Index sequences = 7, spoilt = 3;
  const auto prompt = random_rows<float>(5 * sequences, c.width, 11);
  const auto clean = random_rows<float>(sequences, c.width, 12);
  auto step = clean;
  step(spoilt, 5) = std::numeric_limits<float>::quiet_NaN();
  std::vector<Index> prompts, ones;
  for (Index s = 0; s <= sequences; ++s) prompts.push_back(5 * s), ones.push_back(s);
  for (const auto form : {LatentForm::Absorbed, LatentForm::Expanded}) {
    // The step with the NaN or without it, and one more behind it.
    const auto outputs = [&](const Rows<float>& first) {
      PlainCache<float> cache(sequences, c);
      Rows<float> out(5 * sequences, c.width), a(sequences, c.width), b(sequences, c.width);
      model.layer.forward(prompt.view(), cache, out.view(), {.offsets = prompts});
      model.layer.forward(first.view(), cache, a.view(), {.offsets = ones, .form = form});
      model.layer.forward(clean.view(), cache, b.view(), {.offsets = ones, .form = form});
      return std::pair(std::move(a), std::move(b));
    };
    const auto got = outputs(step), wanted = outputs(clean);
    for (Index s = 0; s < sequences; ++s)
      for (Index j = 0; j < c.width; ++j) {
        if (s == spoilt) {
          EXPECT_TRUE(std::isnan(got.first(s, j)) && std::isnan(got.second(s, j))) << j;
        } else {
          EXPECT_EQ(got.first(s, j), wanted.first(s, j)) << s << ' ' << j;
          EXPECT_EQ(got.second(s, j), wanted.second(s, j)) << s << ' ' << j;
        }
      }
  }
}

TEST(LatentAttention, WhatDoesNotFitIsRefusedAndLeavesTheCacheAlone) {
  const LatentConfig c = small_latent_config();
  const Model<float> model(c);
  auto hidden = random_rows<float>(4, c.width, 9);
  Rows<float> out(4, c.width), narrow(4, c.width - 1);
  PlainCache<float> cache(2, c, 100);
  model.layer.forward(hidden.view(), cache, out.view());
  const auto in = as_const(hidden.view());
  const auto refused = [&](const char* argument, const LatentForwardOptions& options) {
    refuses_and_leaves_alone(
        [&] { model.layer.forward(pare::reference, in, cache, out.view(), options); },
        "latent::LatentAttention::forward", argument, out, cache.rows(0), cache.rows(1));
  };
  const auto refused_views = [&](const char* argument, TensorView<const float, 2> x,
                                 TensorView<float, 2> y) {
    refuses_and_leaves_alone([&] { model.layer.forward(pare::reference, x, cache, y); },
                             "latent::LatentAttention::forward", argument, out, hidden,
                             cache.rows(0));
  };
  refused("sequence", {.sequence = 2});
  refused("sequence", {.sequence = -1});
  const std::vector<Index> offsets{0, 1, 4}, down{0, 5, 4}, early{1, 1, 4}, few{0, 4},
      less{0, 1, 3};
  refused("sequence", {.sequence = 1, .offsets = offsets});
  for (const auto* bad : {&down, &early, &few, &less}) refused("offsets", {.offsets = *bad});
  const std::vector<Index> three{0, 1, 2}, far{0, 1, 2, 300}, negative{0, 1, -1, 2};
  for (const auto* bad : {&three, &far, &negative}) refused("positions", {.positions = *bad});
  refused("window", {.window = 0});
  refused("sinks", {.sinks = -1});
  refused("form", {.form = LatentForm{2}});
  for (const double bad : {0.0, -1.0, std::nan("")}) refused("form_factor", {.form_factor = bad});
  refused("chunk", {.chunk = 0});
  refused_views("hidden", as_const(narrow.view()), out.view());
  refused_views("out", in, narrow.view());
  refused_views("out", in, rows_of(out.view(), 0, 3));
  refused_views("out", in, hidden.view());
  refused_views(
      "out", in,
      {const_cast<float*>(model.layer.weights().up.all().data), {4, c.width}, {c.width, 1}});
  refused_views(
      "out", in,
      {const_cast<float*>(model.layer.weights().query.weights().data), {4, c.width}, {c.width, 1}});
  LatentConfig other = c;
  other.latent += 2;
  PlainCache<float> wide(1, other);
  refusal([&] { model.layer.forward(in, wide, out.view()); }, "latent::LatentAttention::forward",
          "cache");
  other = c;
  other.latent += 2;
  other.rope -= 2;
  PlainCache<float> shifted(1, other);
  refusal([&] { model.layer.forward(in, shifted, out.view()); }, "latent::LatentAttention::forward",
          "cache");
  // Position 300 is none of the table's.
  PlainCache<float> full(1, c);
  const auto many = random_rows<float>(299, c.width, 3);
  Rows<float> outs(299, c.width);
  model.layer.forward(many.view(), full, outs.view(), {.window = 8});
  refusal([&] { model.layer.forward(in, full, out.view()); }, "latent::LatentAttention::forward",
          "positions");
  EXPECT_EQ(full.length(0), 299);
  // No tokens: a no-op.
  model.layer.forward(rows_of(in, 0, 0), cache, rows_of(out.view(), 0, 0));
  EXPECT_EQ(cache.length(0), 4);
}

TEST(LatentAttention, PartsThatDoNotFitAreRefused) {
  const LatentConfig c = small_latent_config();
  constexpr const char* name = "latent::LatentAttention";
  const RotaryTable<float> table(rotary_frequencies(6), 10), wider(rotary_frequencies(8), 10);
  using Layer = LatentAttention<float>;
  refusal([&] { Layer(c, random_latent_weights<float>(c), wider); }, name, "table");
  refusal([&] { Layer(c, random_latent_weights<float>(c)); }, name, "rope");
  refusal([&] { Layer(c, random_latent_weights<float>(c), table, RotaryLayout{2}); }, name,
          "layout");
  LatentConfig other = c;
  other.width += 1;
  refusal([&] { Layer(c, random_latent_weights<float>(other), table); }, name, "query_down");
  for (const double bad : {1e-39, 3e38}) {
    other = c;
    other.softmax_scale = bad;
    refusal([&] { Layer(other, random_latent_weights<float>(c), table); }, name, "softmax_scale");
  }
}

}  // namespace
}  // namespace latent_attention_layer_test
