// SPDX-License-Identifier: Apache-2.0

#include "encoder/factored_layers.hpp"
#include "encoder/open_encoder.hpp"
#include "io/temporary_folder.hpp"
#include "studies/bert_reference.hpp"

#include <pare/core/backend.hpp>
#include <pare/core/matrix.hpp>

#include <gtest/gtest.h>
#include <Eigen/Core>

#include <cmath>
#include <cstddef>
#include <filesystem>
#include <stdexcept>
#include <string>
#include <vector>

namespace {

using namespace encoder;
using pare::testing::RoundedRow;
using pare::testing::TinyBert;
using Matrix = pare::RowMatrix<float>;
const auto no_progress = [](double) {};

/// A folder with a tiny model, whose vocabulary is of letters.
class Encoder : public TemporaryFolder {
 protected:
  void SetUp() override {
    TemporaryFolder::SetUp();
    put(folder_ / "model.safetensors", tiny_.file());
    put(folder_ / "config.json", TinyBert::config());
    std::string pieces = "[UNK]\n[CLS]\n[SEP]\n";
    for (char letter = 'a'; letter <= 'z'; ++letter)
      pieces += std::string(1, letter) + "\n##" + letter + "\n";
    put(folder_ / "vocab.txt", pieces);
  }

  TinyBert tiny_{3};
};

/// Lines of letters, of 3 to 60 tokens; more than go through the model together.
std::vector<std::string> some_sentences() {
  std::vector<std::string> sentences;
  for (std::size_t i = 0; i < 60; ++i) {
    std::string text;
    for (std::size_t j = 0; j <= i * 7 % 58; ++j) {
      text += static_cast<char>('a' + (i * i + j * j * 3 + j) % 26);
      if ((i + j) % 5 == 0) text += ' ';
    }
    sentences.push_back(text);
  }
  return sentences;
}

TEST_F(Encoder, SentenceVectorsAreThoseOfTheDefinitionInTheirOrder) {
  const OpenEncoder model(folder_);
  const auto tokens = tokens_of(model.tokenizer, some_sentences(), 30);
  std::size_t count = 0;
  for (const auto& sentence : tokens) count += sentence.size();
  ASSERT_GT(count, batch_tokens) << "one batch tests no batches";
  double progress = 0;
  const Matrix got = sentence_vectors(model.bert, pare::simd, tokens, [&](double share) {
    EXPECT_GT(share, progress);
    progress = share;
  });
  EXPECT_EQ(progress, 1);
  ASSERT_EQ(got.rows(), 60);
  for (const std::size_t i : {0u, 1u, 17u, 41u, 58u, 59u}) {
    ASSERT_LE(tokens[i].size(), 30u);
    const RoundedRow wanted = TinyBert::mean_vector(tiny_.token_vectors(tokens[i]));
    for (std::size_t j = 0; j < wanted.size(); ++j)
      ASSERT_NEAR(static_cast<double>(got(static_cast<Index>(i), static_cast<Index>(j))),
                  wanted[j].x, wanted[j].tolerance());
  }
}

TEST_F(Encoder, ProductsAreThoseOfTheInputsOfEachLayer) {
  OpenEncoder model(folder_);
  const auto tokens = tokens_of(model.tokenizer, some_sentences(), 30);
  const Matrix before = sentence_vectors(model.bert, pare::simd, tokens, no_progress);
  // What a layer is given, seen by another layer in its place.
  std::vector<float> seen;
  const auto products = input_products(
      model.bert, [&] { sentence_vectors(model.bert, pare::simd, tokens, no_progress); });
  ASSERT_EQ(products.size(), 2u);
  for (const BlockLayer& part : block_layers) {
    const BlocksRestored restored(model.bert);
    AnyLinear& layer = (model.bert.blocks()[1].*part.layer).linear;
    seen.clear();
    layer = models::WatchedLinear(layer, [&](const ModelBackend&, TensorView<const float, 2> x) {
      seen.insert(seen.end(), x.data, x.data + x.rows() * x.cols());
    });
    sentence_vectors(model.bert, pare::simd, tokens, no_progress);
    const Index inputs = layer.inputs(), rows = static_cast<Index>(seen.size()) / inputs;
    const auto& sum = products[1][part.inputs];
    EXPECT_EQ(sum.count(), rows);
    const Eigen::MatrixXd x = Eigen::Map<const Matrix>(seen.data(), rows, inputs).cast<double>();
    const Eigen::MatrixXd wanted = x.transpose() * x / static_cast<double>(rows);
    // factor/covariance.hpp: off by at most 513 units of the sum of magnitudes.
    EXPECT_LE((sum.matrix() - wanted).cwiseAbs().maxCoeff(),
              513 * 0x1p-24 * wanted.diagonal().maxCoeff());
  }
  EXPECT_EQ(sentence_vectors(model.bert, pare::simd, tokens, no_progress), before)
      << "layers are as before";
}

double mean_cosine(const Matrix& a, const Matrix& b) {
  return a.cast<double>().cwiseProduct(b.cast<double>()).sum() / static_cast<double>(a.rows());
}

TEST_F(Encoder, FactorsOfFullRankChangeNothingAndFewerCost) {
  OpenEncoder model(folder_);
  const auto tokens = tokens_of(model.tokenizer, some_sentences(), 30);
  const Matrix whole = sentence_vectors(model.bert, pare::simd, tokens, no_progress);
  const auto products = input_products(
      model.bert, [&] { sentence_vectors(model.bert, pare::simd, tokens, no_progress); });
  const auto factored = [&](SvdMetric metric, double share, double& kept) {
    const BlocksRestored restored(model.bert);
    kept = factor_layers(model.bert, pare::simd, model.file, metric, share, products, no_progress);
    return sentence_vectors(model.bert, pare::simd, tokens, no_progress);
  };
  double kept = 0;
  for (const SvdMetric metric : {SvdMetric::Plain, SvdMetric::Inputs, SvdMetric::Covariance}) {
    // Every share of 2 or more is the rank of the shorter side. Factors in float are off by some
    // units in each of 2 x 48 terms: numbers of vectors of length 1 by far less than 1e-4.
    EXPECT_LE((factored(metric, 2, kept) - whole).cwiseAbs().maxCoeff(), 1e-4f);
    double last = 1;
    for (const double share : {.75, .5, .25}) {
      const double cosine = mean_cosine(factored(metric, share, kept), whole);
      EXPECT_LT(cosine, last);
      last = cosine;
      // floor(share m n / (m + n)) of sides 48 and 96.
      const double square = std::floor(share * 24) * 96, wide = std::floor(share * 32) * 144;
      EXPECT_DOUBLE_EQ(kept, (4 * square + 2 * wide) / (4 * 48 * 48 + 2 * 48 * 96));
    }
  }
  const Matrix plain = factored(SvdMetric::Plain, .5, kept);
  EXPECT_GT(mean_cosine(factored(SvdMetric::Covariance, .5, kept), whole),
            mean_cosine(plain, whole))
      << "on the sample itself";
  EXPECT_EQ(sentence_vectors(model.bert, pare::simd, tokens, no_progress), whole);
}

TEST_F(Encoder, TextsAreLinesThatAreNotBlank) {
  put(folder_ / "text", "one\n\n \t\r\n two\r\nthree");
  EXPECT_EQ(read_sentences((folder_ / "text").string()),
            (std::vector<std::string>{"one", " two\r", "three"}));
  put(folder_ / "blank", "\n \n");
  EXPECT_THROW(read_sentences((folder_ / "blank").string()), std::runtime_error);
  EXPECT_THROW(read_sentences((folder_ / "none").string()), std::runtime_error);
  EXPECT_THROW(read_sentences(folder_.string()), std::runtime_error);
}

TEST_F(Encoder, AFolderThatLacksAFileIsRefused) {
  EXPECT_NO_THROW(OpenEncoder{folder_});
  for (const char* const name : {"model.safetensors", "config.json", "vocab.txt"}) {
    const std::string kept = content(folder_ / name);
    std::filesystem::remove(folder_ / name);
    EXPECT_THROW(OpenEncoder{folder_}, std::invalid_argument) << name;
    put(folder_ / name, kept);
  }
}

}  // namespace
