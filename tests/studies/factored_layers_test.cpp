// SPDX-License-Identifier: Apache-2.0

#include "language_model/factored_layers.hpp"
#include "io/temporary_folder.hpp"
#include "studies/llama_reference.hpp"
#include "studies/opened_llama.hpp"

#include <pare/core/backend.hpp>
#include <pare/core/matrix.hpp>
#include <pare/io/gguf.hpp>
#include <pare/io/npy.hpp>

#include <gtest/gtest.h>
#include <Eigen/Core>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <filesystem>
#include <map>
#include <random>
#include <span>
#include <stdexcept>
#include <string>
#include <vector>

namespace studies_factored_layers_test {
namespace {

using namespace language_model;
using pare::testing::RoundedRow;
using pare::testing::TinyLlama;

using Logits = std::vector<float>;
using GivenInputs = std::map<std::string, std::vector<RoundedRow>>;

std::vector<Token> some_tokens(std::size_t count) {
  std::mt19937 bits(7);
  std::vector<Token> tokens(count);
  for (Token& token : tokens) token = static_cast<Token>(bits() % TinyLlama::vocabulary);
  return tokens;
}

constexpr auto unseen = [](double) {};

/// More than all parameters: every rank is then min(outputs, inputs).
constexpr double whole = 2;

struct FactoredLayers : TemporaryFolder {
  TinyLlama tiny{21};
  pare::testing::OpenedLlama opened{tiny};
  Llama& model = opened.model;
  const pare::io::GgufFile& file = opened.file;
  std::vector<Token> tokens = some_tokens(120);

  Logits logits() const {
    KvCache cache(model.config().kv_shape(), 64);
    Logits last(static_cast<std::size_t>(model.config().vocabulary));
    model.forward(pare::simd, std::span(tokens).first(40), cache, last);
    return last;
  }
  InputProducts products() { return input_products(model, pare::simd, tokens, 50, unseen); }
  Index factor(SvdMetric metric, double share, bool bf16 = false) {
    return factor_layers(model, pare::simd, file, {metric, share, bf16, folder_}, products(),
                         unseen);
  }
  /// Squares of gradients that differ from element to element, as files of the folder.
  void write_squares(const std::string& without = {}) const {
    for (Index block = 0; block < TinyLlama::blocks; ++block)
      for (const NamedLayer& named : block_layers) {
        const std::string name = named.of_block(block);
        if (name == without) continue;
        const auto& tensor = file.tensor(name + ".weight");
        pare::RowMatrix<float> squares(tensor.rows(), tensor.cols());
        for (Index i = 0; i < squares.size(); ++i)
          squares.data()[i] = static_cast<float>(1 + i * i % 7);
        pare::io::write_npy(folder_ / (name + ".squares.npy"), squares);
      }
  }
  /// What the model gives its layers, in double, window by window.
  GivenInputs given(Index window) {
    GivenInputs inputs;
    tiny.given = &inputs;
    for (std::size_t begin = 0; begin < tokens.size(); begin += static_cast<std::size_t>(window))
      tiny.logits(std::span(tokens).subspan(
          begin, std::min(static_cast<std::size_t>(window), tokens.size() - begin)));
    tiny.given = nullptr;
    return inputs;
  }
  pare::RowMatrix<float> weight(const std::string& name) const {
    return detail::read_weight(file, name);
  }
};

TEST_F(FactoredLayers, OfFullRankLeaveLogitsAsTheyAre) {
  write_squares();
  const RoundedRow wanted = tiny.logits(std::span(tokens).first(40)).back();
  for (const SvdMetric metric :
       {SvdMetric::Plain, SvdMetric::Inputs, SvdMetric::Covariance, SvdMetric::Elementwise}) {
    factor(metric, whole);
    const Logits got = logits();
    // Factors are rounded, as are two sums in place of one: each as far off as the product was.
    for (std::size_t i = 0; i < got.size(); ++i)
      ASSERT_NEAR(static_cast<double>(got[i]), wanted[i].x, 2 * wanted[i].tolerance())
          << name_of(metric);
  }
}

TEST_F(FactoredLayers, InBf16AreRoundedAndNoMore) {
  factor(SvdMetric::Plain, whole, true);
  const pare::RowMatrix<float> w = weight("blk.0.ffn_up.weight");
  pare::RowMatrix<float> x = pare::RowMatrix<float>::Random(3, w.cols()), y(3, w.rows());
  model.blocks()[0].up.apply(on_any_executor(pare::simd), as_const(pare::to_view(x)),
                             pare::to_view(y));
  // With W = A B, B of orthonormal rows, and elements off by 2^-9 of themselves:
  // ||dA B x|| <= 2^-9 ||A|| ||x||, ||A dB x|| <= 2^-9 ||A|| sqrt(rank) ||x||.
  const double most = 0x1p-9 * (1 + std::sqrt(static_cast<double>(w.cols()))) *
                      static_cast<double>(w.norm()) * static_cast<double>(x.norm());
  const auto off = static_cast<double>((y - x * w.transpose()).norm());
  EXPECT_LE(off, most);
  EXPECT_GT(off, 1e-5 * static_cast<double>(y.norm())) << "floats are nearer";
}

TEST_F(FactoredLayers, HaveTheShareOfTheParameters) {
  const Index all = layer_parameters(model);
  // Of a block: q and output [48, 48], k and v [16, 48], gate, up and down [96, 48].
  EXPECT_EQ(all, 2 * (2 * 48 * 48 + 2 * 16 * 48 + 3 * 96 * 48));
  // Ranks at one half: 12, 12, 6, 6, 16, 16, 16.
  EXPECT_EQ(factor(SvdMetric::Plain, 0.5), 2 * (2 * 12 * 96 + 2 * 6 * 64 + 3 * 16 * 144));
  EXPECT_EQ(factor(SvdMetric::Plain, 1e-9), 2 * (2 * 96 + 2 * 64 + 3 * 144)) << "rank 1";
  EXPECT_EQ(layer_parameters(model), all) << "inputs and outputs are as before";
}

TEST_F(FactoredLayers, ProductsOfInputsAreThoseOfTheDefinition) {
  const InputProducts products = this->products();
  const GivenInputs inputs = given(50);
  ASSERT_EQ(products.size(), 2u);
  for (std::size_t block = 0; block < 2; ++block)
    for (const NamedLayer& named : block_layers) {
      const auto& rows = inputs.at(named.of_block(static_cast<Index>(block)) + ".weight");
      const auto got = products[block][named.inputs].matrix();
      ASSERT_EQ(products[block][named.inputs].count(), 120);
      ASSERT_EQ(rows.size(), 120u);
      for (Index i = 0; i < got.rows(); ++i)
        for (Index j = 0; j <= i; ++j) {
          double sum = 0, size = 0, inherited = 0;
          for (const RoundedRow& row : rows) {
            const auto a = row[static_cast<std::size_t>(i)], b = row[static_cast<std::size_t>(j)];
            sum += a.x * b.x / 120;
            size += std::abs(a.x * b.x) / 120;
            inherited += (std::abs(a.x) * b.error + std::abs(b.x) * a.error) / 120;
          }
          // Errors of different rows are taken as dependent, and sums are of 120 floats.
          ASSERT_NEAR(got(i, j), sum, 8 * inherited + 121 * 0x1p-24 * size) << named.name;
        }
    }
}

TEST_F(FactoredLayers, AreWholeAgainWhenProductsAreFound) {
  const Logits before = logits();
  products();
  EXPECT_EQ(logits(), before);
  {
    const BlocksRestored restored(model);
    factor(SvdMetric::Plain, 0.5);
    EXPECT_NE(logits(), before);
  }
  EXPECT_EQ(logits(), before);
}

/// What a layer's outputs are off on its inputs, squared and summed.
double output_error(const AnyLinear& layer, const pare::RowMatrix<float>& weight,
                    const std::vector<RoundedRow>& inputs) {
  double error = 0;
  for (const RoundedRow& row : inputs) {
    std::vector<float> x(row.size()), y(static_cast<std::size_t>(layer.outputs()));
    std::ranges::transform(row, x.begin(), [](const auto& r) { return static_cast<float>(r.x); });
    layer.apply(on_any_executor(pare::simd), {x.data(), {1, layer.inputs()}, {layer.inputs(), 1}},
                {y.data(), {1, layer.outputs()}, {layer.outputs(), 1}});
    const Eigen::VectorXf wanted =
        weight * Eigen::Map<const Eigen::VectorXf>(x.data(), static_cast<Index>(x.size()));
    error += static_cast<double>(
        (wanted - Eigen::Map<const Eigen::VectorXf>(y.data(), wanted.size())).squaredNorm());
  }
  return error;
}

TEST_F(FactoredLayers, ByCovarianceChangeOutputsLeast) {
  const GivenInputs inputs = given(50);
  const std::vector<SvdMetric> metrics = {SvdMetric::Covariance, SvdMetric::Inputs,
                                          SvdMetric::Plain};
  std::vector<std::vector<LlamaBlock>> factored;
  for (const SvdMetric metric : metrics) {
    factor(metric, 0.5);
    factored.push_back(model.blocks());
  }
  for (std::size_t block = 0; block < 2; ++block)
    for (const NamedLayer& named : block_layers) {
      const std::string name = named.of_block(static_cast<Index>(block)) + ".weight";
      std::vector<double> errors;
      for (const auto& blocks : factored)
        errors.push_back(output_error(blocks[block].*named.layer, weight(name), inputs.at(name)));
      // It is the optimum, up to the error that Accuracy::Standard allows and rounding.
      EXPECT_LE(errors[0], 1.01 * errors[1]) << name;
      EXPECT_LT(errors[0], errors[2]) << name;
    }
}

TEST_F(FactoredLayers, ElementsOfLargeGradientsAreKept) {
  write_squares();
  const std::string name = "blk.1.attn_output";
  pare::RowMatrix<float> squares = pare::RowMatrix<float>::Constant(48, 48, 1e-6f);
  squares.topLeftCorner(8, 8).setOnes();
  pare::io::write_npy(folder_ / (name + ".squares.npy"), squares);
  factor(SvdMetric::Elementwise, 0.5);  // of rank 12, above 8
  pare::RowMatrix<float> x = pare::RowMatrix<float>::Identity(8, 48), y(8, 48);
  model.blocks()[1].output.apply(on_any_executor(pare::simd), as_const(pare::to_view(x)),
                                 pare::to_view(y));
  const pare::RowMatrix<float> w = weight(name + ".weight");
  EXPECT_LT((y.leftCols(8).transpose() - w.topLeftCorner(8, 8)).norm(),
            0.1f * w.topLeftCorner(8, 8).norm());
}

TEST_F(FactoredLayers, AreAsTheyWereIfAFileOfGradientsIsMissing) {
  write_squares("blk.1.ffn_down");
  const Logits before = logits();
  EXPECT_THROW(factor(SvdMetric::Elementwise, 0.5), std::runtime_error);
  EXPECT_EQ(logits(), before);
  pare::io::write_npy(folder_ / "blk.1.ffn_down.squares.npy", pare::RowMatrix<float>(3, 3));
  EXPECT_THROW(factor(SvdMetric::Elementwise, 0.5), std::invalid_argument);
  EXPECT_EQ(logits(), before);
}

}  // namespace
}  // namespace studies_factored_layers_test
