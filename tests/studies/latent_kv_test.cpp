// SPDX-License-Identifier: Apache-2.0

/// \file
/// A model that generates with a cache of latents.

#include "language_model/latent_kv.hpp"
#include "language_model/latent_blocks.hpp"
#include "language_model/latent_layers.hpp"
#include "language_model/perplexity.hpp"
#include "studies/llama_reference.hpp"
#include "studies/opened_llama.hpp"

#include <pare/core/backend.hpp>
#include <pare/core/matrix.hpp>
#include <pare/core/scalar.hpp>

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <random>
#include <span>
#include <stdexcept>
#include <string>
#include <vector>

namespace studies_latent_kv_test {
namespace {

using namespace language_model;
using pare::testing::OpenedLlama;
using pare::testing::RoundedRow;
using pare::testing::TinyLlama;

using Logits = std::vector<float>;

constexpr auto unseen = [](double) {};
constexpr Conversion made_keys[] = {Conversion::Svd,         Conversion::SvdJoint,
                                    Conversion::CareUniform, Conversion::CareJoint,
                                    Conversion::Care,        Conversion::CarePaper};
constexpr Conversion apart[] = {Conversion::TransMla, Conversion::TransMlaFold, Conversion::Mha2Mla,
                                Conversion::Mha2MlaCare};

/// A model of two blocks whose keys and values have 16 numbers each.
struct LatentKvTest : ::testing::Test {
  TinyLlama tiny{21};
  OpenedLlama opened{tiny};
  Llama& model = opened.model;
  std::vector<Token> tokens = some_tokens(120);
  const LatentSample sample = latent_sample(model, pare::simd, tokens, 50, unseen);

  static std::vector<Token> some_tokens(std::size_t count) {
    std::mt19937 bits(7);
    std::vector<Token> tokens(count);
    for (Token& token : tokens) token = static_cast<Token>(bits() % TinyLlama::vocabulary);
    return tokens;
  }
  LatentBlocks blocks(Conversion how, Index width) {
    return latent_blocks(model, pare::simd, opened.file, {how, width}, sample);
  }
  template <class S = float>
  LatentKv<S> cache(const LatentBlocks& of, Index capacity = 128) const {
    return {model.config().kv_shape(), of, capacity};
  }
  /// Logits of the last of some tokens.
  template <class C, class B = decltype(pare::simd)>
  Logits forward(C& cache, std::span<const Token> some, const B& backend = pare::simd) const {
    Logits last(static_cast<std::size_t>(model.config().vocabulary));
    model.forward(backend, some, cache, last);
    return last;
  }
  /// The likeliest tokens behind a prompt, each fed back.
  template <class C>
  std::vector<Token> greedy(C& cache, std::size_t prompt, int count) const {
    Logits logits = forward(cache, std::span(tokens).first(prompt));
    std::vector<Token> text;
    for (int i = 0; i < count; ++i) {
      text.push_back(static_cast<Token>(std::ranges::max_element(logits) - logits.begin()));
      logits = forward(cache, {&text.back(), 1});
    }
    return text;
  }
  /// The model of the definition whose keys and values are those of the layers in place.
  TinyLlama as_converted() const {
    TinyLlama converted = tiny;
    for (std::size_t i = 0; i < 2; ++i) {
      const LlamaBlock& block = opened_blocks()[i];
      for (const auto& [name, layer] : {std::pair("k", &block.key), std::pair("v", &block.value)}) {
        const pare::RowMatrix<float> unit = pare::RowMatrix<float>::Identity(48, 48);
        pare::RowMatrix<float> columns(48, 16);
        layer->apply(on_any_executor(pare::simd), pare::const_view(unit), pare::to_view(columns));
        const pare::RowMatrix<float> weight = columns.transpose();
        converted.tensors.at(detail::attention_weight(i, name))
            .values.assign(weight.data(), weight.data() + weight.size());
      }
    }
    return converted;
  }
  const std::vector<LlamaBlock>& opened_blocks() const {
    return const_cast<OpenedLlama&>(opened).model.blocks();
  }
};

TEST_F(LatentKvTest, GivesTheLogitsOfTheConvertedModel) {
  for (const Conversion how : made_keys) {
    const LatentBlocks latents = blocks(how, 20);
    const BlocksRestored restored(model);
    convert_layers(model, pare::simd, opened.file, {how, 20}, sample.inputs);
    const auto wanted = as_converted().logits(std::span(tokens).first(90));
    auto of_latents = cache(latents);
    Logits got = forward(of_latents, std::span(tokens).first(70));
    for (std::size_t n = 70; n <= 90; ++n) {
      if (n > 70) got = forward(of_latents, {&tokens[n - 1], 1});
      for (std::size_t i = 0; i < got.size(); ++i)
        // Factors are rounded, as are two sums in place of one: each as far off as the product was.
        ASSERT_NEAR(static_cast<double>(got[i]), wanted[n - 1][i].x,
                    2 * wanted[n - 1][i].tolerance())
            << name_of(how) << ", token " << n;
    }
  }
}

TEST_F(LatentKvTest, GeneratesWhatTheConvertedModelDoes) {
  for (const Conversion how : made_keys)
    for (const Index width : {8, 20, 32}) {
      const LatentBlocks latents = blocks(how, width);
      auto of_latents = cache(latents);
      const std::vector<Token> got = greedy(of_latents, 40, 60);
      const BlocksRestored restored(model);
      convert_layers(model, pare::simd, opened.file, {how, width}, sample.inputs);
      KvCache of_keys = opened.cache();
      EXPECT_EQ(got, greedy(of_keys, 40, 60)) << name_of(how) << ' ' << width;
    }
}

TEST_F(LatentKvTest, OfFullWidthGeneratesWhatTheModelDoes) {
  KvCache of_keys = opened.cache();
  const std::vector<Token> wanted = greedy(of_keys, 40, 60);
  for (const Conversion how : made_keys) {
    const LatentBlocks latents = blocks(how, 32);
    auto of_latents = cache(latents);
    EXPECT_EQ(greedy(of_latents, 40, 60), wanted) << name_of(how);
  }
  // With one key head TransMLA keeps all rotations: a latent of 16 values and 16 unturned keys.
  const LatentBlocks mla = blocks(Conversion::TransMla, 32);
  auto of_latents = cache(mla);
  EXPECT_EQ(greedy(of_latents, 40, 60), wanted);
}

TEST_F(LatentKvTest, OfTransMlaWithAllRotationsGivesTheLogitsOfTheModel) {
  const RoundedRow wanted = tiny.logits(std::span(tokens).first(40)).back();
  const LatentBlocks latents = blocks(Conversion::TransMla, 32);
  EXPECT_EQ(latents.layers.cached, 2 * 32);
  EXPECT_LE(latents.layers.value_error, 1e-5);
  auto of_latents = cache(latents);
  const Logits got = forward(of_latents, std::span(tokens).first(40));
  // With one key head all rotations stay. Keys are summed twice, and queries absorb a weight.
  for (std::size_t i = 0; i < got.size(); ++i)
    ASSERT_NEAR(static_cast<double>(got[i]), wanted[i].x, 8 * wanted[i].tolerance());
  EXPECT_GT(blocks(Conversion::TransMla, 24).layers.value_error, 0.05);
}

TEST_F(LatentKvTest, OneByOneIsAtOnce) {
  for (const Conversion how : apart) {
    const LatentBlocks latents = blocks(how, 24);
    auto one = cache(latents), all = cache(latents);
    Logits last;
    for (std::size_t i = 0; i < 80; ++i) last = forward(one, {&tokens[i], 1});
    const Logits wanted = forward(all, std::span(tokens).first(80));
    for (std::size_t i = 0; i < last.size(); ++i)
      ASSERT_NEAR(last[i], wanted[i], 1e-4f) << name_of(how);
    const Logits next = forward(all, {&tokens[80], 1});
    all.truncate(80);
    EXPECT_EQ(forward(all, {&tokens[80], 1}, pare::simd.threads(3)), next)
        << name_of(how) << ": other bits on three threads";
  }
}

TEST_F(LatentKvTest, HoldsTheWidthOfEachBlock) {
  for (const Index width : {20, 24, 32}) {
    for (const Conversion how : made_keys) {
      const LatentBlocks latents = blocks(how, width);
      EXPECT_EQ(latents.layers.cached, 2 * width) << name_of(how);
      EXPECT_EQ(cache(latents).bytes_per_token(), 2 * width * 4);
      EXPECT_EQ(cache<pare::bf16>(latents).bytes_per_token(), 2 * width * 2);
    }
    for (const Conversion how : apart) {
      const LatentBlocks latents = blocks(how, width);
      EXPECT_EQ(latents.layers.cached, 2 * width) << name_of(how);
      EXPECT_EQ(cache(latents).bytes_per_token(), 2 * width * 4) << name_of(how);
    }
  }
}

TEST_F(LatentKvTest, InBf16IsOffByItsRounding) {
  for (const Conversion how : {Conversion::CareJoint, Conversion::Mha2MlaCare}) {
    const LatentBlocks latents = blocks(how, 24);
    auto exact = cache(latents);
    auto rounded = cache<pare::bf16>(latents);
    const auto part = std::span(tokens).first(70);
    const Logits wanted = forward(exact, part), got = forward(rounded, part);
    double off = 0, size = 0;
    for (std::size_t i = 0; i < got.size(); ++i) {
      off = std::max(off, std::abs(static_cast<double>(got[i]) - static_cast<double>(wanted[i])));
      size = std::max(size, std::abs(static_cast<double>(wanted[i])));
    }
    EXPECT_LE(off, 0.05 * size) << name_of(how);
    EXPECT_GT(off, 1e-4 * size) << name_of(how);
  }
}

TEST_F(LatentKvTest, ForgetsWhatIsTruncatedAndWhatFails) {
  const LatentBlocks latents = blocks(Conversion::Care, 20);
  auto of_latents = cache(latents, 70);
  const Logits wanted = forward(of_latents, std::span(tokens).first(69));
  forward(of_latents, {&tokens[69], 1});
  EXPECT_THROW(forward(of_latents, {&tokens[70], 1}), std::invalid_argument) << "no room";
  const Token none = TinyLlama::vocabulary;
  of_latents.truncate(60);
  EXPECT_THROW(forward(of_latents, {&none, 1}), std::invalid_argument);
  EXPECT_EQ(of_latents.length(), 60);
  const Logits again = forward(of_latents, std::span(tokens).subspan(60, 9));
  for (std::size_t i = 0; i < again.size(); ++i) ASSERT_NEAR(again[i], wanted[i], 1e-4f);
  EXPECT_THROW(of_latents.truncate(70), std::invalid_argument);
  EXPECT_THROW(of_latents.append(2), std::invalid_argument);
}

TEST_F(LatentKvTest, RefusesWhatDoesNotFit) {
  LatentBlocks latents = blocks(Conversion::Care, 20);
  EXPECT_THROW(cache(latents, 0), std::invalid_argument);
  latents.attention.pop_back();
  EXPECT_THROW(cache(latents), std::invalid_argument);
  EXPECT_THROW(blocks(Conversion::TransMla, 16), std::invalid_argument) << "no latent is left";
  EXPECT_THROW(blocks(Conversion::Mha2Mla, 4), std::invalid_argument);
  for (const Conversion how : made_keys)
    EXPECT_THROW(blocks(how, 100), std::invalid_argument) << name_of(how);
}

}  // namespace
}  // namespace studies_latent_kv_test
