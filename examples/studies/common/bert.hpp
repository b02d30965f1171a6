// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// The forward pass of a BERT encoder, and its sentence vectors: the mean of the token vectors, at
/// length 1.
///
/// ```cpp
/// const Bert model(file, read_bert_config(folder / "config.json"));
/// Batch batch;                                   // sentences of any lengths, one behind the other
/// for (const std::string& sentence : sentences) batch.add(tokenizer.encode(sentence));
/// pare::RowMatrix<float> tokens(batch.tokens.size(), model.config().dim);
/// model.forward(pare::simd.threads(2).with(workspace), batch, pare::to_view(tokens));
/// mean_vectors(batch, pare::to_view(tokens), pare::to_view(vectors));
/// ```
///
///     x = norm(E[token] + P[position] + T[0])
///     for each block:  q, k, v = W x + b
///                      x = norm(x + W_output attention(q, k, v) + b)
///                      x = norm(x + W_down gelu(W_up x + b) + b)
///
/// Nothing is padded: linear layers see the tokens of all sentences as the rows of one matrix, and
/// attention those of each sentence. Source: Devlin et al., "BERT", 2019; Reimers and Gurevych,
/// "Sentence-BERT", 2019, section 3.

#include "common/bert_weights.hpp"
#include "common/word_piece.hpp"

#include <pare/attention/attend.hpp>
#include <pare/core/aligned_buffer.hpp>
#include <pare/core/backend.hpp>
#include <pare/core/check.hpp>
#include <pare/core/executor_ref.hpp>
#include <pare/core/matrix.hpp>
#include <pare/core/parallel.hpp>
#include <pare/core/scratch.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/core/workspace.hpp>
#include <pare/transformer/gates.hpp>
#include <pare/transformer/norms.hpp>

#include <cmath>
#include <concepts>
#include <cstddef>
#include <span>
#include <string>
#include <vector>

namespace encoder {

/// Sentences one behind the other: sentence i has the tokens [offsets[i], offsets[i + 1]).
struct Batch {
  std::vector<Token> tokens{};
  std::vector<Index> offsets = {0};

  void add(std::span<const Token> sentence) {
    tokens.insert(tokens.end(), sentence.begin(), sentence.end());
    offsets.push_back(static_cast<Index>(tokens.size()));
  }
  Index sentences() const { return static_cast<Index>(offsets.size()) - 1; }
};

struct BertBlock {
  BiasedLinear query, key, value, output;
  LayerNorm attention_norm;
  BiasedLinear up, down;
  LayerNorm norm;
};

class Bert {
 public:
  /// \param file must outlive the model, which reads rows of the embedding from it
  /// \throws std::invalid_argument if a tensor is missing, of another shape, or not known
  Bert(const pare::io::SafetensorsFile& file, const BertConfig& config)
      : config_(config.checked()), file_(file) {
    BertWeights weights(file);
    const Index dim = config_.dim, hidden = config_.hidden;
    embedding_ = weights.checked(BertWeights::word_embedding, {config_.vocabulary, dim});
    positions_ = weights.numbers("embeddings.position_embeddings.weight", {config_.positions, dim});
    types_ = weights.numbers("embeddings.token_type_embeddings.weight", {config_.types, dim});
    embedding_norm_ = weights.norm("embeddings.LayerNorm", dim);
    for (Index i = 0; i < config_.blocks; ++i) {
      const std::string at = "encoder.layer." + std::to_string(i) + ".";
      blocks_.push_back({.query = weights.linear(at + "attention.self.query", dim, dim),
                         .key = weights.linear(at + "attention.self.key", dim, dim),
                         .value = weights.linear(at + "attention.self.value", dim, dim),
                         .output = weights.linear(at + "attention.output.dense", dim, dim),
                         .attention_norm = weights.norm(at + "attention.output.LayerNorm", dim),
                         .up = weights.linear(at + "intermediate.dense", hidden, dim),
                         .down = weights.linear(at + "output.dense", dim, hidden),
                         .norm = weights.norm(at + "output.LayerNorm", dim)});
    }
    weights.check_all_used();
  }

  const BertConfig& config() const { return config_; }
  /// Layers that may be replaced by others of their inputs and outputs.
  std::vector<BertBlock>& blocks() { return blocks_; }

  /// The token vectors of a batch, [tokens, dim].
  /// \param out rows contiguous
  /// \throws std::invalid_argument if a token is not of the vocabulary, a sentence has none or more
  ///         than the model has positions, or out does not fit. Nothing is written then.
  template <class B>
  requires std::same_as<pare::OnAnyExecutor<B>, ModelBackend>
  void forward(const B& backend, const Batch& batch, TensorView<float, 2> out) const {
    check_call(batch, out);
    if (out.rows() == 0) return;
    const ModelBackend on = on_any_executor(backend);
    const auto memory = pare::leased<Memory>(on);
    const Activations a = activations(out.rows(), memory->activations);
    embed(on, batch, out);
    for (const BertBlock& block : blocks_) {
      attend(on, block, batch.offsets, out, a);
      feed_forward(on, block, out, a);
    }
  }

 private:
  struct Memory {
    pare::AlignedBuffer<std::byte> activations;
  };
  struct Activations {
    TensorView<float, 2> q, k, v, attended, h, hidden;
  };

  Activations activations(Index rows, pare::AlignedBuffer<std::byte>& memory) const {
    Activations a;
    const auto matrix = [rows](pare::Carver& take, TensorView<float, 2>& m, Index columns) {
      take(m.data, rows * columns);
      m.extent = {rows, columns};
      m.stride = {columns, 1};
    };
    pare::carve_from(memory, [&](pare::Carver& take) {
      for (auto* m : {&a.q, &a.k, &a.v, &a.attended, &a.h}) matrix(take, *m, config_.dim);
      matrix(take, a.hidden, config_.hidden);
    });
    return a;
  }

  void check_call(const Batch& batch, TensorView<float, 2> out) const {
    constexpr const char* function = "encoder::Bert::forward";
    const auto tokens = static_cast<Index>(batch.tokens.size());
    for (const Token token : batch.tokens)
      pare::check(token >= 0 && token < config_.vocabulary, function, "tokens", token,
                  pare::Worded{"tokens from 0 to below ", config_.vocabulary});
    pare::check(
        !batch.offsets.empty() && batch.offsets.front() == 0 && batch.offsets.back() == tokens,
        function, "offsets", "others", pare::Worded{"0 first and ", tokens, " last"});
    for (std::size_t i = 1; i < batch.offsets.size(); ++i) {
      const Index length = batch.offsets[i] - batch.offsets[i - 1];
      pare::check(length >= 1 && length <= config_.positions, function, "sentence", length,
                  pare::Worded{"1 to ", config_.positions, " tokens"});
    }
    pare::check_extents<2>(function, "out", out.extent, {tokens, config_.dim});
    pare::check_writable(function, "out", out);
    pare::check(out.stride[1] == 1 || config_.dim == 1, function, "out", out.stride,
                "contiguous rows");
  }

  /// x = norm(E[token] + P[position] + T[0]).
  void embed(const ModelBackend& backend, const Batch& batch, TensorView<float, 2> x) const {
    const Index dim = config_.dim;
    for (std::size_t i = 1; i < batch.offsets.size(); ++i)
      for (Index t = batch.offsets[i - 1]; t < batch.offsets[i]; ++t) {
        const TensorView<float, 2> row{&x(t, 0), {1, dim}, {dim, 1}};
        file_.read_rows(embedding_, batch.tokens[static_cast<std::size_t>(t)], row);
        const float* const position = positions_.data() + (t - batch.offsets[i - 1]) * dim;
        for (Index j = 0; j < dim; ++j)
          row(0, j) += position[j] + types_[static_cast<std::size_t>(j)];
      }
    pare::transformer::layer_norm(backend, x, embedding_norm_.gain, embedding_norm_.bias, x,
                                  {.epsilon = config_.epsilon});
  }

  static void apply(const ModelBackend& backend, const BiasedLinear& layer, TensorView<float, 2> x,
                    TensorView<float, 2> y) {
    layer.linear.apply(backend, as_const(x), y);
    pare::parallel_for(backend.executor, y.rows(), [&](Index row, int) {
      for (Index j = 0; j < y.cols(); ++j)
        y.data[row * y.stride[0] + j] += layer.bias[static_cast<std::size_t>(j)];
    });
  }

  /// y = norm(x + delta); y may be delta, and x is lost.
  void add_norm(const ModelBackend& backend, const LayerNorm& norm, TensorView<float, 2> x,
                TensorView<float, 2> delta, TensorView<float, 2> y) const {
    pare::transformer::add_layer_norm(backend, x, delta, norm.gain, norm.bias, y,
                                      {.epsilon = config_.epsilon});
  }

  /// [tokens, heads x dim] as [1, heads, tokens, dim].
  TensorView<float, 4> heads_of(TensorView<float, 2> m) const {
    const Index dim = config_.dim / config_.heads;
    return {m.data, {1, m.cols() / dim, m.rows(), dim}, {0, dim, m.stride[0], 1}};
  }

  /// h = norm(x + W_output attention(x) + b). A block may have fewer heads than the config says.
  void attend(const ModelBackend& backend, const BertBlock& block, std::span<const Index> offsets,
              TensorView<float, 2> x, const Activations& a) const {
    const auto heads = [&block](TensorView<float, 2> m) {
      return pare::columns_of(m, 0, block.query.linear.outputs());
    };
    apply(backend, block.query, x, heads(a.q));
    apply(backend, block.key, x, heads(a.k));
    apply(backend, block.value, x, heads(a.v));
    pare::attention::attend(backend, heads_of(heads(a.q)), heads_of(heads(a.k)),
                            heads_of(heads(a.v)), heads_of(heads(a.attended)),
                            {.causal = false, .query_offsets = offsets, .key_offsets = offsets});
    apply(backend, block.output, heads(a.attended), a.h);
    add_norm(backend, block.attention_norm, x, a.h, a.h);
  }

  /// x = norm(h + W_down gelu(W_up h + b) + b).
  void feed_forward(const ModelBackend& backend, const BertBlock& block, TensorView<float, 2> x,
                    const Activations& a) const {
    apply(backend, block.up, a.h, a.hidden);
    pare::transformer::activate(backend, a.hidden, a.hidden, pare::transformer::Gelu{});
    apply(backend, block.down, a.hidden, x);
    add_norm(backend, block.norm, a.h, x, x);
  }

  BertConfig config_;
  const pare::io::SafetensorsFile& file_;
  std::string embedding_;
  std::vector<float> positions_, types_;
  LayerNorm embedding_norm_;
  std::vector<BertBlock> blocks_;
};

/// The mean of each sentence's token vectors at length 1, [sentences, dim]; zeros stay zeros.
/// \param tokens of Bert::forward, [tokens, dim]
/// \throws std::invalid_argument if an extent does not fit
inline void mean_vectors(const Batch& batch, TensorView<const float, 2> tokens,
                         TensorView<float, 2> out) {
  constexpr const char* function = "encoder::mean_vectors";
  const Index dim = tokens.cols();
  pare::check_extents<2>(function, "tokens", tokens.extent, {batch.offsets.back(), dim});
  pare::check_extents<2>(function, "out", out.extent, {batch.sentences(), dim});
  std::vector<double> sums(static_cast<std::size_t>(dim));
  for (Index i = 0; i < batch.sentences(); ++i) {
    sums.assign(sums.size(), 0);
    const auto at = static_cast<std::size_t>(i);
    for (Index t = batch.offsets[at]; t < batch.offsets[at + 1]; ++t)
      for (Index j = 0; j < dim; ++j)
        sums[static_cast<std::size_t>(j)] += static_cast<double>(tokens(t, j));
    double squares = 0;
    for (const double sum : sums) squares += sum * sum;
    const double factor = squares > 0 ? 1 / std::sqrt(squares) : 0;
    for (Index j = 0; j < dim; ++j)
      out(i, j) = static_cast<float>(sums[static_cast<std::size_t>(j)] * factor);
  }
}

}  // namespace encoder
