// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// A tiny random Llama, the GGUF file that holds it, and its logits by the definition.

#include "io/gguf_writer.hpp"

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

/// A number with a standard deviation of what float makes of it: a running error analysis, one rule
/// for each operation of the model. Roundings are taken as independent and of mean 0, so that n of
/// them amount to sqrt(n) u (Higham and Mary, "A new approach to probabilistic rounding error
/// analysis", 2019). Bounds that hold for any roundings grow fivefold with every product here, and
/// tell nothing after two blocks.
struct Rounded {
  double x = 0, error = 0;

  /// Of the 101 logits of some hundred tokens one in 10^9 would be off by more, were they normal;
  /// rules below err on the side of more.
  double tolerance() const { return 8 * error; }
};
using RoundedRow = std::vector<Rounded>;

inline constexpr double float_roundoff = 0x1p-24;
/// Of a rounding to bf16, evenly spread within 2^-8 of the number: 2^-8 / sqrt(3).
inline constexpr double bf16_error = 0.578 / 256;
/// Of n roundings in a row, relative.
inline double float_error(double n) { return std::sqrt(n) * float_roundoff; }
inline double square(double a) { return a * a; }
inline double root_of_squares(double a, double b, double c = 0) {
  return std::sqrt(a * a + b * b + c * c);
}

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
  RoundedRow product(const std::string& name, const RoundedRow& x) const;
  RoundedRow norm(const std::string& name, const RoundedRow& x) const;
  void attend(Index block, std::vector<RoundedRow>& x, bool bf16_cache) const;
  void feed_forward(Index block, RoundedRow& x) const;
};

/// Sums of products: a product and at most n additions for each.
inline RoundedRow TinyLlama::product(const std::string& name, const RoundedRow& x) const {
  if (given != nullptr) (*given)[name].push_back(x);
  const std::vector<float>& w = values(name);
  const std::size_t n = x.size();
  RoundedRow y(w.size() / n);
  for (std::size_t o = 0; o < y.size(); ++o) {
    double size = 0, inherited = 0;
    for (std::size_t i = 0; i < n; ++i) {
      const double factor = static_cast<double>(w[o * n + i]);
      y[o].x += factor * x[i].x;
      size += std::abs(factor * x[i].x);
      inherited += square(factor * x[i].error);
    }
    y[o].error = std::sqrt(inherited + square(float_error(static_cast<double>(n) + 1) * size));
  }
  return y;
}

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

inline void round_to_bf16(RoundedRow& x) {
  for (Rounded& b : x) b.error = root_of_squares(b.error, bf16_error * b.x);
}

/// q k / sqrt(dim), as a sum of products; the scale, log2(e) and the maximum cost four roundings.
inline Rounded score_of(const Rounded* q, const Rounded* k, std::size_t dim) {
  const double scale = 1 / std::sqrt(static_cast<double>(dim));
  Rounded score;
  double size = 0, inherited = 0;
  for (std::size_t i = 0; i < dim; ++i) {
    score.x += scale * q[i].x * k[i].x;
    size += scale * std::abs(q[i].x * k[i].x);
    inherited += square(scale * q[i].x * k[i].error) + square(scale * q[i].error * k[i].x);
  }
  score.error = std::sqrt(inherited + square(float_error(static_cast<double>(dim) + 5) * size));
  return score;
}

/// One query of one head: out = sum_j p_j v_j. A score that is off by d moves it by p_j d (v_j -
/// out); an exponential is off by two units, and sums of weights add to that. bf16 rounds weights.
inline void attend_one(const Rounded* q, const std::vector<RoundedRow>& k,
                       const std::vector<RoundedRow>& v, std::size_t keys, std::size_t dim,
                       std::size_t kv_at, bool bf16_cache, Rounded* out) {
  std::vector<Rounded> score(keys);
  std::vector<double> weight(keys);
  double largest = -1e300, sum = 0;
  for (std::size_t j = 0; j < keys; ++j) {
    score[j] = score_of(q, &k[j][kv_at], dim);
    largest = std::max(largest, score[j].x);
  }
  for (std::size_t j = 0; j < keys; ++j) sum += weight[j] = std::exp(score[j].x - largest);
  const double relative = square(float_error(2 * static_cast<double>(keys) + 10)) +
                          (bf16_cache ? square(bf16_error) : 0);
  for (std::size_t i = 0; i < dim; ++i) {
    double x = 0, squares = 0;
    for (std::size_t j = 0; j < keys; ++j) x += weight[j] / sum * v[j][kv_at + i].x;
    for (std::size_t j = 0; j < keys; ++j) {
      const Rounded& b = v[j][kv_at + i];
      squares += square(weight[j] / sum) *
                 (square(score[j].error * (b.x - x)) + square(b.error) + relative * square(b.x));
    }
    out[i] = {x, std::sqrt(squares)};
  }
}

/// x += delta.
inline void add_rounded(RoundedRow& x, const RoundedRow& delta) {
  for (std::size_t i = 0; i < x.size(); ++i) {
    x[i].x += delta[i].x;
    x[i].error = root_of_squares(x[i].error, delta[i].error, float_roundoff * x[i].x);
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
