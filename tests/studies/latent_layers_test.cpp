// SPDX-License-Identifier: Apache-2.0

#include "language_model/latent_layers.hpp"
#include "studies/llama_reference.hpp"
#include "studies/opened_llama.hpp"

#include <pare/core/backend.hpp>
#include <pare/core/matrix.hpp>

#include <gtest/gtest.h>

#include <cmath>
#include <cstddef>
#include <map>
#include <random>
#include <span>
#include <stdexcept>
#include <string>
#include <vector>

namespace studies_latent_layers_test {
namespace {

using namespace language_model;
using pare::testing::RoundedRow;
using pare::testing::TinyLlama;

using Logits = std::vector<float>;

constexpr auto unseen = [](double) {};
constexpr Conversion all_conversions[] = {Conversion::Svd,         Conversion::SvdJoint,
                                          Conversion::CareUniform, Conversion::CareJoint,
                                          Conversion::Care,        Conversion::CarePaper};

/// A model of two blocks whose keys and values have 16 numbers each.
struct LatentLayers : ::testing::Test {
  TinyLlama tiny{21};
  pare::testing::OpenedLlama opened{tiny};
  Llama& model = opened.model;
  const pare::io::GgufFile& file = opened.file;
  std::vector<Token> tokens = some_tokens(120);
  /// Of the layers as they are, before any conversion.
  const std::vector<pare::factor::Covariance> inputs =
      attention_inputs(model, pare::simd, tokens, 50, unseen);

  static std::vector<Token> some_tokens(std::size_t count) {
    std::mt19937 bits(7);
    std::vector<Token> tokens(count);
    for (Token& token : tokens) token = static_cast<Token>(bits() % TinyLlama::vocabulary);
    return tokens;
  }
  Logits logits(const Attention& attention = exact_attention) const {
    KvCache cache(model.config().kv_shape(), 64);
    Logits last(static_cast<std::size_t>(model.config().vocabulary));
    model.forward(pare::simd, std::span(tokens).first(40), cache, last, attention);
    return last;
  }
  ConvertedLayers convert(Conversion how, Index width) {
    return convert_layers(model, pare::simd, file, {how, width}, inputs);
  }
};

TEST_F(LatentLayers, OfFullWidthLeaveLogitsAsTheyAre) {
  const RoundedRow wanted = tiny.logits(std::span(tokens).first(40)).back();
  for (const Conversion how : all_conversions) {
    const ConvertedLayers layers = convert(how, 32);
    EXPECT_EQ(layers.cached, 2 * 32) << name_of(how);
    EXPECT_LE(layers.key_error, 1e-5);
    EXPECT_LE(layers.value_error, 1e-5);
    const Logits got = logits();
    // Factors are rounded, as are two sums in place of one: each as far off as the product was.
    for (std::size_t i = 0; i < got.size(); ++i)
      ASSERT_NEAR(static_cast<double>(got[i]), wanted[i].x, 2 * wanted[i].tolerance())
          << name_of(how);
  }
}

TEST_F(LatentLayers, HaveTheWidthOrItAsTheirMean) {
  for (const Conversion how : all_conversions) {
    const ConvertedLayers layers = convert(how, 9);
    EXPECT_EQ(layers.cached, 2 * 9) << name_of(how);
    EXPECT_EQ(model.blocks()[0].key.outputs(), 16);
    EXPECT_EQ(model.blocks()[1].value.inputs(), 48);
  }
}

TEST_F(LatentLayers, ReportTheErrorOfWhatTheModelRuns) {
  std::map<std::string, std::vector<RoundedRow>> given;
  tiny.given = &given;
  for (const std::size_t begin : {0u, 50u, 100u})
    tiny.logits(std::span(tokens).subspan(begin, std::min<std::size_t>(50, 120 - begin)));
  tiny.given = nullptr;
  for (const Conversion how : {Conversion::Svd, Conversion::CareJoint, Conversion::Care}) {
    const ConvertedLayers layers = convert(how, 12);
    double mean = 0;
    for (const std::string block : {"0", "1"}) {
      const std::string name = "blk." + block + ".attn_v.weight";
      const auto weight = detail::read_weight(file, name);
      const AnyLinear& layer = model.blocks()[block == "0" ? 0 : 1].value;
      double off = 0, all = 0;
      for (const RoundedRow& row : given.at(name)) {
        pare::RowMatrix<float> x(1, 48), y(1, 16);
        for (Index i = 0; i < 48; ++i)
          x(0, i) = static_cast<float>(row[static_cast<std::size_t>(i)].x);
        layer.apply(on_any_executor(pare::simd), as_const(pare::to_view(x)), pare::to_view(y));
        const pare::RowMatrix<float> wanted = x * weight.transpose();
        off += static_cast<double>((y - wanted).squaredNorm());
        all += static_cast<double>(wanted.squaredNorm());
      }
      mean += std::sqrt(off / all) / 2;
    }
    EXPECT_NEAR(layers.value_error, mean, 1e-3 * mean) << name_of(how);
    EXPECT_GT(mean, 0.05);
  }
}

TEST_F(LatentLayers, ByCovarianceChangeOutputsLess) {
  const ConvertedLayers plain = convert(Conversion::Svd, 12);
  const ConvertedLayers aware = convert(Conversion::CareUniform, 12);
  EXPECT_LT(aware.key_error, plain.key_error);
  EXPECT_LT(aware.value_error, plain.value_error);
}

TEST_F(LatentLayers, AreAsTheyWereIfTheWidthIsTooLarge) {
  const Logits before = logits();
  attention_inputs(model, pare::simd, tokens, 50, unseen);
  EXPECT_EQ(logits(), before) << "gathering restores the layers";
  for (const Conversion how : all_conversions) {
    EXPECT_THROW(convert(how, 100), std::invalid_argument) << name_of(how);
    EXPECT_EQ(logits(), before) << name_of(how);
  }
}

}  // namespace
}  // namespace studies_latent_layers_test
