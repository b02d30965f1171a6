// SPDX-License-Identifier: Apache-2.0

#include "io/temporary_folder.hpp"
#include "language_model/dump.hpp"
#include "language_model/llama.hpp"
#include "language_model/perplexity.hpp"
#include "studies/llama_reference.hpp"
#include "studies/opened_llama.hpp"

#include <pare/attention/attend.hpp>
#include <pare/core/backend.hpp>
#include <pare/io/npy.hpp>

#include <gtest/gtest.h>
#include <Eigen/Core>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <filesystem>
#include <random>
#include <span>
#include <stdexcept>
#include <string>
#include <vector>

namespace studies_language_model_test {
namespace {

using namespace language_model;
using pare::testing::TinyLlama;

struct Opened {
  TinyLlama tiny{8};
  pare::testing::OpenedLlama opened{tiny};
  Llama& model = opened.model;
};

std::vector<Token> some_tokens(std::size_t count) {
  std::mt19937 bits(5);
  std::vector<Token> tokens(count);
  for (Token& token : tokens) token = static_cast<Token>(bits() % TinyLlama::vocabulary);
  return tokens;
}

/// Appends the losses of one window by the definition in double, and how far floats may be off.
void append_losses(const TinyLlama& tiny, std::span<const Token> window,
                   std::vector<double>& losses, double& tolerance) {
  const auto logits = tiny.logits(window);
  for (std::size_t i = 0; i + 1 < window.size(); ++i) {
    double sum = 0, most = 0;
    for (const auto& logit : logits[i]) {
      sum += std::exp(logit.x);
      most = std::max(most, logit.tolerance());
    }
    losses.push_back(std::log(sum) - logits[i][static_cast<std::size_t>(window[i + 1])].x);
    // Of the logarithm and of the logit; and the logarithm, below 32, is a float.
    tolerance = std::max(tolerance, 2 * most + 32 * 0x1p-23);
  }
}

TEST(TokenLosses, AreThoseOfTheDefinitionWindowByWindow) {
  const Opened opened;
  const std::vector<Token> tokens = some_tokens(150);
  for (const Index window : {64, 65, 149, 500}) {
    std::vector<double> wanted;
    double tolerance = 0;
    for (std::size_t begin = 0; begin < tokens.size(); begin += static_cast<std::size_t>(window))
      append_losses(opened.tiny,
                    std::span(tokens).subspan(
                        begin, std::min(static_cast<std::size_t>(window), tokens.size() - begin)),
                    wanted, tolerance);
    double progress = 0;
    const std::vector<double> losses =
        token_losses(opened.model, pare::simd, tokens, window, KvScalar::Float, exact_attention,
                     [&](double share) {
                       EXPECT_GE(share, progress);
                       progress = share;
                     });
    EXPECT_LE(progress, 1);
    ASSERT_EQ(losses.size(), wanted.size());
    for (std::size_t i = 0; i < losses.size(); ++i) ASSERT_NEAR(losses[i], wanted[i], tolerance);
  }
}

TEST(TokenLosses, RefuseTextsThatAreTooShort) {
  const Opened opened;
  const auto judge = [&](std::size_t tokens, Index window) {
    return token_losses(opened.model, pare::simd, some_tokens(tokens), window, KvScalar::Float,
                        exact_attention, [](double) {});
  };
  EXPECT_THROW(judge(0, 4), std::invalid_argument);
  EXPECT_THROW(judge(1, 4), std::invalid_argument);
  EXPECT_THROW(judge(5, 1), std::invalid_argument);
  EXPECT_EQ(judge(9, 4).size(), 6u) << "the last token is alone in its window";
}

TEST(TokenLosses, MeansHaveTheStandardErrorOfIndependentValues) {
  const std::vector<double> values = {1, 2, 4, 5};
  const Mean mean = mean_of(values);
  EXPECT_DOUBLE_EQ(mean.value, 3);
  EXPECT_DOUBLE_EQ(mean.error, std::sqrt(10.0 / 3 / 4));
}

using Dump = TemporaryFolder;

TEST_F(Dump, WritesWhatTheLayersWereGiven) {
  Opened opened;
  const std::vector<Token> tokens = some_tokens(70);
  dump_layers(opened.model, pare::simd, tokens, {1}, KvScalar::Float, true, folder_ / "new");
  const auto shape = [&](const std::string& name) {
    return pare::io::read_npy<float>(folder_ / "new" / ("blk.1." + name + ".npy")).shape;
  };
  using Shape = std::vector<Index>;
  EXPECT_EQ(shape("q"), (Shape{1, TinyLlama::heads, 70, TinyLlama::head_dim}));
  EXPECT_EQ(shape("k"), (Shape{1, TinyLlama::kv_heads, 70, TinyLlama::head_dim}));
  EXPECT_EQ(shape("v"), (Shape{1, TinyLlama::kv_heads, 70, TinyLlama::head_dim}));
  EXPECT_FALSE(std::filesystem::exists(folder_ / "new" / "blk.0.q.npy"));
  EXPECT_EQ(pare::io::read_npy<Token>(folder_ / "new" / "tokens.npy").data, tokens);
  for (const char* const name : {"attn_q", "attn_output", "ffn_gate", "ffn_down"}) {
    const std::string base = (folder_ / "new" / ("blk.1." + std::string(name))).string();
    const auto inputs = pare::io::read_npy_matrix<float>(base + ".inputs.npy");
    const auto products = pare::io::read_npy_matrix<double>(base + ".products.npy");
    ASSERT_EQ(inputs.rows(), 70);
    const Eigen::MatrixXd wanted = inputs.cast<double>().transpose() * inputs.cast<double>() / 70;
    // Sums of 70 products in float: 70 roundings of at most the largest sum of magnitudes.
    const double bound = 71 * 0x1p-24 * wanted.diagonal().maxCoeff();
    EXPECT_LE((products - wanted).cwiseAbs().maxCoeff(), bound) << name;
  }
}

TEST_F(Dump, AttentionOfWhatWasWrittenIsWhatTheOutputLayerWasGiven) {
  Opened opened;
  dump_layers(opened.model, pare::simd, some_tokens(33), {0}, KvScalar::Float, true, folder_);
  const auto q = pare::io::read_npy<float>(folder_ / "blk.0.q.npy");
  const auto k = pare::io::read_npy<float>(folder_ / "blk.0.k.npy");
  const auto v = pare::io::read_npy<float>(folder_ / "blk.0.v.npy");
  const auto given = pare::io::read_npy_matrix<float>(folder_ / "blk.0.attn_output.inputs.npy");
  constexpr Index dim = TinyLlama::head_dim, width = TinyLlama::heads * dim;
  pare::RowMatrix<float> wanted(33, width);
  const pare::TensorView<float, 4> out{
      wanted.data(), {1, TinyLlama::heads, 33, dim}, {0, dim, width, 1}};
  pare::attention::attend(pare::reference, q.view<4>(), k.view<4>(), v.view<4>(), out,
                          {.causal = true});
  // Weights are off by the roundings of dots of 16 and of what is summed, 33 of them.
  const float most =
      Eigen::Map<const Eigen::VectorXf>(v.data.data(), static_cast<Index>(v.data.size()))
          .cwiseAbs()
          .maxCoeff();
  EXPECT_LE((given - wanted).cwiseAbs().maxCoeff(), 64 * 0x1p-23f * 33 * most);
}

TEST_F(Dump, RefusesLayersThatAreNotAndWritesNothing) {
  Opened opened;
  const auto dump = [&](std::size_t tokens, Index layer) {
    dump_layers(opened.model, pare::simd, some_tokens(tokens), {0, layer}, KvScalar::Float, false,
                folder_);
  };
  EXPECT_THROW(dump(9, TinyLlama::blocks), std::invalid_argument);
  EXPECT_THROW(dump(9, -1), std::invalid_argument);
  EXPECT_THROW(dump(1, 0), std::invalid_argument);
  EXPECT_EQ(files(), 0u);
}

}  // namespace
}  // namespace studies_language_model_test
