// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// A tiny random Llama, the GGUF file that holds it, and its logits by the definition.

#include "io/gguf_writer.hpp"
#include "studies/rounded.hpp"

#include <pare/core/tensor_view.hpp>
#include <pare/io/gguf.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <map>
#include <random>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace pare::testing {

struct TinyLlama {
  static constexpr Index blocks = 2, dim = 48, heads = 3, kv_heads = 1, head_dim = 16, hidden = 96,
                         vocabulary = 101, context = 640;
  static constexpr double base = 10000, epsilon = static_cast<double>(1e-5f);

  struct Tensor {
    std::vector<Index> shape;
    std::vector<float> values;
  };
  std::map<std::string, Tensor> tensors{};
  bool tied_head = true;
  /// Heads that do not attend, by block and head: whether to all keys alike, else their output is
  /// 0.
  std::map<std::pair<Index, Index>, bool> masked{};
  /// If it is there, the inputs of each product are appended to it, by the weight's name.
  std::map<std::string, std::vector<RoundedRow>>* given = nullptr;

  explicit TinyLlama(unsigned seed, bool tied = true) : tied_head(tied) {
    std::mt19937 bits(seed);
    std::normal_distribution<double> normal;
    const auto add = [&](const std::string& name, const std::vector<Index>& shape, double mean,
                         double deviation) {
      Tensor& t = tensors[name];
      t.shape = shape;
      Index size = 1;
      for (const Index n : shape) size *= n;
      for (Index i = 0; i < size; ++i)
        t.values.push_back(static_cast<float>(mean + deviation * normal(bits)));
    };
    const auto matrix = [&](const std::string& name, Index outputs, Index inputs, double gain) {
      add(name, {outputs, inputs}, 0, gain / std::sqrt(static_cast<double>(inputs)));
    };
    add("token_embd.weight", {vocabulary, dim}, 0, 1);
    if (!tied) matrix("output.weight", vocabulary, dim, 2);
    add("output_norm.weight", {dim}, 1, .2);
    for (Index i = 0; i < blocks; ++i) {
      const std::string name = "blk." + std::to_string(i) + ".";
      add(name + "attn_norm.weight", {dim}, 1, .2);
      add(name + "ffn_norm.weight", {dim}, 1, .2);
      matrix(name + "attn_q.weight", heads * head_dim, dim, 1.5);  // weights far from uniform
      matrix(name + "attn_k.weight", kv_heads * head_dim, dim, 1.5);
      matrix(name + "attn_v.weight", kv_heads * head_dim, dim, 1);
      matrix(name + "attn_output.weight", dim, heads * head_dim, 1);
      matrix(name + "ffn_gate.weight", hidden, dim, 1);
      matrix(name + "ffn_up.weight", hidden, dim, 1);
      matrix(name + "ffn_down.weight", dim, hidden, 1);
    }
  }

  /// Metadata and tensors, but for the tensor `without`.
  GgufWriter file(const std::string& without = {}) const {
    GgufWriter writer;
    writer.add("general.architecture", "llama");
    const auto number = [&](const char* key, Index value) {
      writer.add(key, static_cast<std::uint32_t>(value));
    };
    number("llama.block_count", blocks);
    number("llama.context_length", context);
    number("llama.embedding_length", dim);
    number("llama.feed_forward_length", hidden);
    number("llama.attention.head_count", heads);
    number("llama.attention.head_count_kv", kv_heads);
    number("llama.rope.dimension_count", head_dim);
    writer.add("llama.rope.freq_base", static_cast<float>(base));
    writer.add("llama.attention.layer_norm_rms_epsilon", static_cast<float>(epsilon));
    for (const auto& [name, tensor] : tensors)
      if (name != without)
        writer.tensor(name, io::GgufType::F32, tensor.shape, gguf_raw(tensor.values));
    return writer;
  }

  /// [tokens][vocabulary], with errors for a cache in float or in bf16.
  std::vector<RoundedRow> logits(std::span<const std::int32_t> tokens,
                                 bool bf16_cache = false) const;

 private:
  const std::vector<float>& values(const std::string& name) const {
    return tensors.at(name).values;
  }
  RoundedRow product(const std::string& name, const RoundedRow& x) const {
    if (given != nullptr) (*given)[name].push_back(x);
    return rounded_product(values(name), x);
  }
  RoundedRow norm(const std::string& name, const RoundedRow& x) const;
  void attend(Index block, std::vector<RoundedRow>& x, bool bf16_cache) const;
  void feed_forward(Index block, RoundedRow& x) const;
};

/// x / sqrt(m + epsilon) gain: the root halves what is relative to m; then a sum of squares, a
/// root, a division and two products.
inline RoundedRow TinyLlama::norm(const std::string& name, const RoundedRow& x) const {
  const std::vector<float>& gain = values(name);
  const auto n = static_cast<double>(x.size());
  double mean = epsilon, off = 0;
  for (const Rounded& b : x) {
    mean += b.x * b.x / n;
    off = root_of_squares(off, 2 * b.x * b.error / n);
  }
  const double factor = 1 / std::sqrt(mean);
  const double relative = root_of_squares(off / mean / 2, float_error(n + 5));
  RoundedRow y(x.size());
  for (std::size_t i = 0; i < x.size(); ++i) {
    const double g = static_cast<double>(gain[i]) * factor;
    y[i] = {x[i].x * g, std::abs(g) * root_of_squares(x[i].x * relative, x[i].error)};
  }
  return y;
}

/// Turns neighbours; cosine and sine are rounded, as are two products and a sum.
inline void turn_neighbours(RoundedRow& x, Index head_dim, double position, double base) {
  const auto dim = static_cast<std::size_t>(head_dim);
  for (std::size_t i = 0; i < x.size(); i += 2) {
    const double angle =
        position * std::pow(base, -static_cast<double>(i % dim) / static_cast<double>(dim));
    const double c = std::cos(angle), s = std::sin(angle), r = float_error(3);
    const Rounded a = x[i], b = x[i + 1];
    x[i] = {c * a.x - s * b.x,
            root_of_squares(c * a.error, s * b.error, r * (std::abs(c * a.x) + std::abs(s * b.x)))};
    x[i + 1] = {s * a.x + c * b.x, root_of_squares(s * a.error, c * b.error,
                                                   r * (std::abs(s * a.x) + std::abs(c * b.x)))};
  }
}

inline void TinyLlama::attend(Index block, std::vector<RoundedRow>& x, bool bf16_cache) const {
  const std::string name = "blk." + std::to_string(block) + ".";
  std::vector<RoundedRow> q, k, v;
  for (std::size_t t = 0; t < x.size(); ++t) {
    const RoundedRow h = norm(name + "attn_norm.weight", x[t]);
    q.push_back(product(name + "attn_q.weight", h));
    k.push_back(product(name + "attn_k.weight", h));
    v.push_back(product(name + "attn_v.weight", h));
    turn_neighbours(q[t], head_dim, static_cast<double>(t), base);
    turn_neighbours(k[t], head_dim, static_cast<double>(t), base);
    if (bf16_cache)
      for (RoundedRow* row : {&q[t], &k[t], &v[t]}) round_to_bf16(*row);
  }
  constexpr auto width = static_cast<std::size_t>(head_dim);
  for (std::size_t t = 0; t < x.size(); ++t) {
    RoundedRow attended(q[t].size());
    for (std::size_t h = 0; h < static_cast<std::size_t>(heads); ++h) {
      const auto mask = masked.find({block, static_cast<Index>(h)});
      if (mask != masked.end() && !mask->second) continue;
      if (mask != masked.end()) std::fill_n(&q[t][h * width], width, Rounded{});  // equal scores
      attend_one(&q[t][h * width], k, v, t + 1, width, h / (heads / kv_heads) * width, bf16_cache,
                 &attended[h * width]);
    }
    add_rounded(x[t], product(name + "attn_output.weight", attended));
  }
}

/// The slope of silu is within 1.1, and Pare's is off by at most 8 units.
inline void TinyLlama::feed_forward(Index block, RoundedRow& x) const {
  const std::string name = "blk." + std::to_string(block) + ".";
  const RoundedRow h = norm(name + "ffn_norm.weight", x);
  RoundedRow gate = product(name + "ffn_gate.weight", h);
  const RoundedRow up = product(name + "ffn_up.weight", h);
  for (std::size_t i = 0; i < gate.size(); ++i) {
    const double a = gate[i].x / (1 + std::exp(-gate[i].x));
    gate[i] = {a * up[i].x, root_of_squares(a * up[i].error, 1.1 * gate[i].error * up[i].x,
                                            10 * float_roundoff * a * up[i].x)};
  }
  add_rounded(x, product(name + "ffn_down.weight", gate));
}

inline std::vector<RoundedRow> TinyLlama::logits(std::span<const std::int32_t> tokens,
                                                 bool bf16_cache) const {
  std::vector<RoundedRow> x;
  const std::vector<float>& embedding = values("token_embd.weight");
  for (const std::int32_t token : tokens) {
    RoundedRow row;
    for (Index i = 0; i < dim; ++i)
      row.push_back({static_cast<double>(embedding[static_cast<std::size_t>(token * dim + i)]), 0});
    x.push_back(row);
  }
  for (Index block = 0; block < blocks; ++block) {
    attend(block, x, bf16_cache);
    for (RoundedRow& row : x) feed_forward(block, row);
  }
  for (RoundedRow& row : x)
    row =
        product(tied_head ? "token_embd.weight" : "output.weight", norm("output_norm.weight", row));
  return x;
}

}  // namespace pare::testing
