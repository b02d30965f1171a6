// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// A tiny random BERT, the .safetensors file that holds it, and its vectors by the definition.

#include "studies/rounded.hpp"

#include <pare/core/tensor_view.hpp>
#include <pare/io/safetensors.hpp>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <map>
#include <random>
#include <span>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

namespace pare::testing {

struct TinyBert {
  static constexpr Index blocks = 2, dim = 48, heads = 3, hidden = 96, vocabulary = 61,
                         positions = 70, types = 2;
  static constexpr double epsilon = 1e-12;

  struct Tensor {
    std::vector<Index> shape;
    std::vector<float> values;
  };
  std::map<std::string, Tensor> tensors{};

  explicit TinyBert(unsigned seed) {
    std::mt19937 bits(seed);
    std::normal_distribution<double> normal;
    const auto add = [&](const std::string& name, const std::vector<Index>& shape, double mean,
                         double deviation) {
      Tensor& t = tensors[name];
      t.shape = shape;
      for (Index i = 0; i < shape.front() * (shape.size() == 1 ? 1 : shape.back()); ++i)
        t.values.push_back(static_cast<float>(mean + deviation * normal(bits)));
    };
    const auto norm = [&](const std::string& name) {
      add(name + ".weight", {dim}, 1, .2);
      add(name + ".bias", {dim}, 0, .2);
    };
    const auto linear = [&](const std::string& name, Index outputs, Index inputs, double gain) {
      add(name + ".weight", {outputs, inputs}, 0, gain / std::sqrt(static_cast<double>(inputs)));
      add(name + ".bias", {outputs}, 0, .3);
    };
    add("embeddings.word_embeddings.weight", {vocabulary, dim}, 0, 1);
    add("embeddings.position_embeddings.weight", {positions, dim}, 0, .5);
    add("embeddings.token_type_embeddings.weight", {types, dim}, 0, .5);
    norm("embeddings.LayerNorm");
    for (Index i = 0; i < blocks; ++i) {
      linear(layer(i) + "attention.self.query", dim, dim, 1.5);  // weights far from uniform
      linear(layer(i) + "attention.self.key", dim, dim, 1.5);
      linear(layer(i) + "attention.self.value", dim, dim, 1);
      linear(layer(i) + "attention.output.dense", dim, dim, 1);
      norm(layer(i) + "attention.output.LayerNorm");
      linear(layer(i) + "intermediate.dense", hidden, dim, 1);
      linear(layer(i) + "output.dense", dim, hidden, 1);
      norm(layer(i) + "output.LayerNorm");
    }
  }

  static std::string layer(Index i) { return "encoder.layer." + std::to_string(i) + "."; }

  /// The bytes of a file, with a pooler that is none of the encoder's business.
  std::string file(const std::string& prefix = {}) const {
    std::vector<io::NamedTensor> named;
    for (const auto& [name, tensor] : tensors)
      named.emplace_back(prefix + name, "F32", tensor.shape,
                         std::as_bytes(std::span(tensor.values)));
    const std::vector<std::int64_t> numbers{0, 1, 2};
    named.emplace_back(prefix + "embeddings.position_ids", numbers);
    named.emplace_back(prefix + "pooler.dense.bias", numbers);
    std::ostringstream stream;
    io::write_safetensors(stream, named);
    return std::move(stream).str();
  }

  static const char* config() {
    return R"({"model_type": "bert", "hidden_act": "gelu", "position_embedding_type": "absolute",
               "num_hidden_layers": 2, "hidden_size": 48, "intermediate_size": 96,
               "num_attention_heads": 3, "vocab_size": 61, "max_position_embeddings": 70,
               "type_vocab_size": 2, "layer_norm_eps": 1e-12})";
  }

  /// Of one sentence, [tokens][dim].
  std::vector<RoundedRow> token_vectors(std::span<const std::int32_t> tokens) const;

  /// The mean of token vectors at length 1.
  static RoundedRow mean_vector(const std::vector<RoundedRow>& tokens);

 private:
  const std::vector<float>& values(const std::string& name) const {
    return tensors.at(name).values;
  }
  RoundedRow linear(const std::string& name, const RoundedRow& x) const;
  RoundedRow norm(const std::string& name, const RoundedRow& x) const;
};

inline RoundedRow TinyBert::linear(const std::string& name, const RoundedRow& x) const {
  RoundedRow y = rounded_product(values(name + ".weight"), x);
  const std::vector<float>& bias = values(name + ".bias");
  for (std::size_t i = 0; i < y.size(); ++i) {
    y[i].x += static_cast<double>(bias[i]);
    y[i].error = root_of_squares(y[i].error, float_roundoff * y[i].x);
  }
  return y;
}

/// (x - m) / sqrt(v + epsilon) gain + bias: m is off by what x is and by n + 1 roundings; v as the
/// mean of squares in an RMS norm; then a product, and a sum.
inline RoundedRow TinyBert::norm(const std::string& name, const RoundedRow& x) const {
  const std::vector<float>&gain = values(name + ".weight"), &bias = values(name + ".bias");
  const auto n = static_cast<double>(x.size());
  double mean = 0, size = 0, mean_off = 0;
  for (const Rounded& b : x) {
    mean += b.x / n;
    size += std::abs(b.x) / n;
    mean_off = root_of_squares(mean_off, b.error / n);
  }
  mean_off = root_of_squares(mean_off, float_error(n + 1) * size);
  double variance = epsilon, off = 0;
  RoundedRow y(x.size());
  for (std::size_t i = 0; i < x.size(); ++i) {
    y[i] = {x[i].x - mean, root_of_squares(x[i].error, mean_off, float_roundoff * x[i].x)};
    variance += square(y[i].x) / n;
    off = root_of_squares(off, 2 * y[i].x * y[i].error / n);
  }
  const double relative = root_of_squares(off / variance / 2, float_error(n + 5));
  for (std::size_t i = 0; i < y.size(); ++i) {
    const double g = static_cast<double>(gain[i]) / std::sqrt(variance);
    const double scaled = std::abs(g) * root_of_squares(y[i].x * relative, y[i].error);
    y[i].x = y[i].x * g + static_cast<double>(bias[i]);
    y[i].error = root_of_squares(scaled, float_roundoff * y[i].x);
  }
  return y;
}

/// The slope is within 1.13, and Pare's function off by at most 16 units.
inline void rounded_gelu(RoundedRow& x) {
  for (Rounded& b : x) {
    const double y = b.x / 2 * (1 + std::erf(b.x / std::sqrt(2.0)));
    b = {y, root_of_squares(1.13 * b.error, 16 * float_roundoff * y)};
  }
}

inline std::vector<RoundedRow> TinyBert::token_vectors(std::span<const std::int32_t> tokens) const {
  std::vector<RoundedRow> x;
  constexpr auto width = static_cast<std::size_t>(dim), head = width / heads;
  for (std::size_t t = 0; t < tokens.size(); ++t) {
    RoundedRow row;
    for (std::size_t i = 0; i < width; ++i) {
      const double sum =
          static_cast<double>(values(
              "embeddings.word_embeddings.weight")[static_cast<std::size_t>(tokens[t]) * width +
                                                   i]) +
          static_cast<double>(values("embeddings.position_embeddings.weight")[t * width + i]) +
          static_cast<double>(values("embeddings.token_type_embeddings.weight")[i]);
      row.push_back({sum, float_error(2) * (std::abs(sum) + 2)});  // of what cancels: terms of 1
    }
    x.push_back(norm("embeddings.LayerNorm", row));
  }
  for (Index i = 0; i < blocks; ++i) {
    std::vector<RoundedRow> q, k, v;
    for (const RoundedRow& row : x) {
      q.push_back(linear(layer(i) + "attention.self.query", row));
      k.push_back(linear(layer(i) + "attention.self.key", row));
      v.push_back(linear(layer(i) + "attention.self.value", row));
    }
    for (std::size_t t = 0; t < x.size(); ++t) {
      RoundedRow attended(width);
      for (std::size_t at = 0; at < width; at += head)
        attend_one(&q[t][at], k, v, x.size(), head, at, false, &attended[at]);
      add_rounded(x[t], linear(layer(i) + "attention.output.dense", attended));
      x[t] = norm(layer(i) + "attention.output.LayerNorm", x[t]);
      RoundedRow wide = linear(layer(i) + "intermediate.dense", x[t]);
      rounded_gelu(wide);
      add_rounded(x[t], linear(layer(i) + "output.dense", wide));
      x[t] = norm(layer(i) + "output.LayerNorm", x[t]);
    }
  }
  return x;
}

/// Sums are in double; the length is off by no more than the vector, and both are rounded.
inline RoundedRow TinyBert::mean_vector(const std::vector<RoundedRow>& tokens) {
  RoundedRow sum(tokens.front().size());
  for (const RoundedRow& token : tokens) add_rounded(sum, token);
  double squares = 0, off = 0;
  for (const Rounded& b : sum) {
    squares += square(b.x);
    off = root_of_squares(off, b.x * b.error);
  }
  for (Rounded& b : sum)
    b = {b.x / std::sqrt(squares),
         root_of_squares(b.error / std::sqrt(squares), b.x * off / squares / std::sqrt(squares),
                         float_roundoff * b.x / std::sqrt(squares))};
  return sum;
}

}  // namespace pare::testing
