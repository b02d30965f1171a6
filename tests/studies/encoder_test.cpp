// SPDX-License-Identifier: Apache-2.0

#include "common/bert.hpp"
#include "common/open_encoder.hpp"
#include "encoder/factored_layers.hpp"
#include "encoder/pruned_heads.hpp"
#include "io/memory.hpp"
#include "io/temporary_folder.hpp"
#include "studies/bert_reference.hpp"

#include <pare/core/backend.hpp>
#include <pare/core/matrix.hpp>
#include <pare/core/workspace.hpp>

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
#include <utility>
#include <vector>

namespace studies_encoder_test {
namespace {

using namespace encoder;
using pare::testing::RoundedRow;
using pare::testing::TinyBert;
using Matrix = pare::RowMatrix<float>;

/// A model with the file that it reads.
struct Opened {
  explicit Opened(const TinyBert& tiny) : Opened(tiny.file()) {}
  explicit Opened(const std::string& content)
      : memory(content), file(memory.bytes()), model(file, parse_bert_config(TinyBert::config())) {}

  Memory memory;
  pare::io::SafetensorsFile file;
  Bert model;
};

std::vector<Token> some_tokens(std::size_t count, unsigned seed) {
  std::mt19937 bits(seed);
  std::vector<Token> tokens(count);
  for (Token& token : tokens) token = static_cast<Token>(bits() % TinyBert::vocabulary);
  return tokens;
}

/// Sentences of these lengths.
Batch batch_of(std::span<const std::size_t> lengths) {
  Batch batch;
  for (std::size_t i = 0; i < lengths.size(); ++i)
    batch.add(some_tokens(lengths[i], static_cast<unsigned>(i)));
  return batch;
}
Batch some_batch() {
  constexpr std::size_t lengths[] = {5, 1, 70, 16, 17, 2};
  return batch_of(lengths);
}

template <class B>
Matrix token_vectors(const B& backend, const Bert& model, const Batch& batch) {
  Matrix out(static_cast<Index>(batch.tokens.size()), TinyBert::dim);
  model.forward(backend, batch, pare::to_view(out));
  return out;
}

void expect_within(const Matrix& got, Index row, const RoundedRow& wanted) {
  for (Index j = 0; j < got.cols(); ++j) {
    const auto& w = wanted[static_cast<std::size_t>(j)];
    ASSERT_NEAR(static_cast<double>(got(row, j)), w.x, w.tolerance()) << row << ", " << j;
    ASSERT_LE(w.tolerance(), 2e-4) << "a bound that tells little of numbers about 1";
  }
}

TEST(Bert, VectorsAreThoseOfTheDefinitionSentenceBySentence) {
  const TinyBert tiny(1);
  const Opened opened(tiny);
  const Batch batch = some_batch();
  const Matrix tokens = token_vectors(pare::simd, opened.model, batch);
  Matrix means(batch.sentences(), TinyBert::dim);
  mean_vectors(batch, pare::as_const(pare::to_view(tokens)), pare::to_view(means));
  for (std::size_t i = 0; i + 1 < batch.offsets.size(); ++i) {
    const auto first = static_cast<std::size_t>(batch.offsets[i]);
    const auto sentence =
        std::span(batch.tokens)
            .subspan(first, static_cast<std::size_t>(batch.offsets[i + 1]) - first);
    const std::vector<RoundedRow> wanted = tiny.token_vectors(sentence);
    for (std::size_t t = 0; t < wanted.size(); ++t)
      expect_within(tokens, static_cast<Index>(first + t), wanted[t]);
    expect_within(means, static_cast<Index>(i), TinyBert::mean_vector(wanted));
  }
}

TEST(Bert, AFileWithAPrefixIsTheSame) {
  const TinyBert tiny(2);
  const Batch batch = some_batch();
  EXPECT_EQ(token_vectors(pare::simd, Opened(tiny.file("bert.")).model, batch),
            token_vectors(pare::simd, Opened(tiny).model, batch));
}

TEST(Bert, TheSameBitsOnAnyNumberOfThreadsAndInMemoryOfAnotherCall) {
  const Opened opened(TinyBert(3));
  const Batch batch = some_batch();
  const Matrix wanted = token_vectors(pare::simd, opened.model, batch);
  pare::Workspace workspace;
  for (const int threads : {1, 2, 3, 7})
    EXPECT_EQ(token_vectors(pare::simd.threads(threads).with(workspace), opened.model, batch),
              wanted);
}

TEST(Bert, NothingGivesNothing) {
  const Opened opened(TinyBert(4));
  EXPECT_EQ(token_vectors(pare::simd, opened.model, Batch{}).size(), 0);
  const TensorView<float, 2> none{nullptr, {0, TinyBert::dim}, {TinyBert::dim, 1}};
  mean_vectors(Batch{}, none, none);
}

TEST(Bert, ALayerMayBeReplaced) {
  Opened opened(TinyBert(5));
  const Batch batch = some_batch();
  const Matrix before = token_vectors(pare::simd, opened.model, batch);
  AnyLinear& down = opened.model.blocks()[1].down.linear;
  const AnyLinear kept = down;
  down = pare::transformer::DenseLinear<float>(TinyBert::dim, TinyBert::hidden);
  EXPECT_NE(token_vectors(pare::simd, opened.model, batch), before);
  down = kept;
  EXPECT_EQ(token_vectors(pare::simd, opened.model, batch), before);
}

TEST(Bert, RefusesBatchesThatDoNotFit) {
  const Opened opened(TinyBert(6));
  const std::string prefix = "pare::encoder::Bert::forward: ";
  const auto of = [&](const Batch& batch, Index rows, Index columns) {
    Matrix out = Matrix::Constant(rows, columns, 7);
    const std::string message =
        refusal([&] { opened.model.forward(pare::simd, batch, pare::to_view(out)); });
    EXPECT_EQ(out, Matrix::Constant(rows, columns, 7));
    return message;
  };
  const auto batch = [](const std::vector<Token>& tokens, const std::vector<Index>& offsets) {
    return Batch{tokens, offsets};
  };
  EXPECT_EQ(of(batch({61}, {0, 1}), 1, 48),
            prefix + "tokens: got 61, wanted tokens from 0 to below 61");
  EXPECT_EQ(of(batch({-1}, {0, 1}), 1, 48),
            prefix + "tokens: got -1, wanted tokens from 0 to below 61");
  EXPECT_EQ(of(batch({1, 2}, {0, 0, 2}), 2, 48), prefix + "sentence: got 0, wanted 1 to 70 tokens");
  EXPECT_EQ(of(batch({1, 2}, {0, 2, 1, 2}), 2, 48),
            prefix + "sentence: got -1, wanted 1 to 70 tokens");
  EXPECT_EQ(of(batch(some_tokens(71, 1), {0, 71}), 71, 48),
            prefix + "sentence: got 71, wanted 1 to 70 tokens");
  EXPECT_EQ(of(batch({1, 2}, {0, 1}), 2, 48),
            prefix + "offsets: got others, wanted 0 first and 2 last");
  EXPECT_EQ(of(batch({1, 2}, {}), 2, 48),
            prefix + "offsets: got others, wanted 0 first and 2 last");
  EXPECT_EQ(of(batch({1, 2}, {1, 2}), 2, 48),
            prefix + "offsets: got others, wanted 0 first and 2 last");
  EXPECT_EQ(of(batch({1, 2}, {0, 2}), 1, 48), prefix + "out: got [1, 48], wanted [2, 48]");
  EXPECT_EQ(of(batch({1, 2}, {0, 2}), 2, 47), prefix + "out: got [2, 47], wanted [2, 48]");
  Matrix out(2, 3);
  EXPECT_EQ(refusal([&] {
              mean_vectors(batch({1, 2}, {0, 2}), pare::as_const(pare::to_view(out)),
                           pare::to_view(out));
            }),
            "pare::encoder::mean_vectors: out: got [2, 3], wanted [1, 3]");
}

/// What a model is refused with whose file was changed.
template <class Change>
std::string refused(const Change& change) {
  TinyBert tiny(7);
  change(tiny.tensors);
  return refusal([&] { Opened{tiny}; });
}

TEST(Bert, RefusesFilesOfOtherModels) {
  const std::string prefix = "pare::encoder::Bert: ";
  EXPECT_EQ(refused([](auto&) {}), "(accepted)");
  EXPECT_EQ(
      refused([](auto& t) { t.erase("encoder.layer.1.output.dense.bias"); }),
      prefix + "file: got no tensor encoder.layer.1.output.dense.bias, wanted a BERT's tensors");
  EXPECT_EQ(refused([](auto& t) { t["encoder.layer.0.adapter"] = t["embeddings.LayerNorm.bias"]; }),
            prefix + "file: got tensor encoder.layer.0.adapter, wanted only those of a BERT");
  EXPECT_EQ(
      refused([](auto& t) {
        t["encoder.layer.2.output.LayerNorm.bias"] = t["embeddings.LayerNorm.bias"];
      }),
      prefix +
          "file: got tensor encoder.layer.2.output.LayerNorm.bias, wanted only those of a BERT");
  EXPECT_EQ(refused([](auto& t) { t["encoder.layer.0.output.dense.weight"].shape = {96, 48}; }),
            prefix + "encoder.layer.0.output.dense.weight: got [96, 48], wanted [48, 96]");
}

// No memory is taken for it first, which nobody has.
TEST(Bert, RefusesExtentsBeyondThoseOfTheFile) {
  const Memory memory(TinyBert(1).file());
  const pare::io::SafetensorsFile file(memory.bytes());
  BertConfig config = parse_bert_config(TinyBert::config());
  config.positions = Index{1} << 30;
  const std::string message = refusal([&] { Bert(file, config); });
  EXPECT_NE(message.find("embeddings.position_embeddings.weight: got ["), std::string::npos)
      << message;
}

/// What a configuration is refused with in which a part was replaced.
std::string refused_config(const std::string& part, const std::string& by) {
  std::string text = TinyBert::config();
  text.replace(text.find(part), part.size(), by);
  return refusal([&] { parse_bert_config(text); });
}

TEST(BertConfig, RefusesWhatTheModelWouldNotHonour) {
  const std::string parse = "pare::encoder::parse_bert_config: ",
                    config = "pare::encoder::BertConfig: ";
  EXPECT_EQ(refused_config("\"bert\"", "\"roberta\""),
            parse + "model_type: got \"roberta\", wanted bert");
  EXPECT_EQ(refused_config("\"gelu\"", "\"relu\""),
            parse + "hidden_act: got \"relu\", wanted gelu");
  EXPECT_EQ(refused_config("\"absolute\"", "\"relative_key\""),
            parse + "position_embedding_type: got \"relative_key\", wanted absolute");
  EXPECT_EQ(refused_config("\"position_embedding_type\": \"absolute\"", "\"is_decoder\": true"),
            parse + "is_decoder: got true, wanted none");
  EXPECT_EQ(refused_config("\"position_embedding_type\"", "\"other\""), "(accepted)");
  EXPECT_EQ(refused_config("\"hidden_size\": 48", "\"hidden_size\": \"48\""),
            parse + "hidden_size: got \"48\", wanted a whole number");
  EXPECT_EQ(refused_config("layers\": 2", "layers\": 2.5"),
            parse + "num_hidden_layers: got 2.5, wanted a whole number");
  EXPECT_EQ(refused_config("layers\": 2", "layers\": 1e300"),
            parse + "num_hidden_layers: got 1e+300, wanted a whole number");
  EXPECT_EQ(refused_config("layers\": 2", "layers\": 18446744073709551615"),
            config + "blocks: got -1, wanted 1 to 2^30");
  EXPECT_EQ(refused_config("\"layer_norm_eps\"", "\"eps\""),
            parse + "layer_norm_eps: got null, wanted a number");
  EXPECT_EQ(refused_config("heads\": 3", "heads\": 5"),
            config + "heads: got 5, wanted a divisor of the 48 numbers of a token");
  EXPECT_EQ(refused_config("layers\": 2", "layers\": 0"),
            config + "blocks: got 0, wanted 1 to 2^30");
  EXPECT_EQ(refusal([] { parse_bert_config("{"); }),
            parse + "text: got no JSON object, wanted a config.json");
  EXPECT_EQ(
      refusal([] { read_bert_config("/there/is/none"); }),
      "pare::encoder::read_bert_config: path: got /there/is/none, wanted a file that can be read");
}

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

TEST_F(Encoder, PrunedHeadsAreHeadsWhoseOutputIsZero) {
  OpenEncoder model(folder_);
  const auto tokens = tokens_of(model.tokenizer, some_sentences(), 30);
  const auto vectors = [&] {
    return sentence_vectors(model.bert, pare::simd, tokens, no_progress);
  };
  const Matrix whole = vectors();
  const auto usage = head_usage(model.bert, model.file, vectors);
  ASSERT_EQ(usage.size(), 2u);
  Index all = 0;
  for (const auto& sentence : tokens) all += static_cast<Index>(sentence.size());
  for (const HeadUsage& of : usage) EXPECT_EQ(of.tokens(), all);
  EXPECT_EQ(vectors(), whole) << "looking changes nothing";
  const BlocksRestored restored(model.bert);
  prune_heads(model.bert, model.file, {{0, 1, 2}, {0, 1, 2}});
  EXPECT_EQ(vectors(), whole) << "all heads are kept";
  prune_heads(model.bert, model.file, {{1}, {0, 2}});
  const Matrix pruned = vectors();
  const Index dim = model.bert.config().dim / 3;
  for (const auto& [block, head] : {std::pair<std::size_t, Index>{0, 0}, {0, 2}, {1, 1}}) {
    BertBlock& of = model.bert.blocks()[block];
    for (BiasedLinear* layer : {&of.query, &of.key, &of.value}) {
      auto weight = model.file.read_matrix<float>(layer->weight);
      layer->linear = pare::transformer::DenseLinear<float>::copy_of(weight);
      layer->bias.assign(static_cast<std::size_t>(weight.rows()), 0);
      model.file.read_rows(layer->weight.substr(0, layer->weight.rfind('.')) + ".bias", 0,
                           TensorView<float, 2>{layer->bias.data(), {weight.rows(), 1}, {1, 1}});
    }
    auto output = model.file.read_matrix<float>(of.output.weight);
    output.middleCols(head * dim, dim).setZero();
    if (block == 0 && head == 2) output.leftCols(dim).setZero();
    of.output.linear = pare::transformer::DenseLinear<float>::copy_of(output);
  }
  // Sums of the same numbers, some of them zeros, in another order; vectors have length 1.
  EXPECT_LE((vectors() - pruned).cwiseAbs().maxCoeff(), 1e-5f);
  EXPECT_GT((whole - pruned).cwiseAbs().maxCoeff(), 1e-2f) << "it makes a difference";
}

TEST_F(Encoder, HeadsAreChosenByUsageOrByLot) {
  std::vector<HeadUsage> usage(2, HeadUsage(3));
  usage[0].add(Matrix::Identity(3, 3).topRows(2).eval());
  usage[0].add(Matrix::Identity(3, 3).topRows(1).eval());
  usage[1].add(Matrix::Identity(3, 3).bottomRows(1).eval());
  EXPECT_EQ(heads_by("most used", 1, usage), (std::vector<std::vector<Index>>{{0}, {2}}));
  EXPECT_EQ(heads_by("least used", 1, usage), (std::vector<std::vector<Index>>{{2}, {0}}));
  EXPECT_EQ(heads_by("draw 1", 2, usage).front().size(), 2u);
  EXPECT_EQ(heads_by("draw 1", 2, usage), heads_by("draw 1", 2, usage));
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
}  // namespace studies_encoder_test
