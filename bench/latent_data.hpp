// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Decode steps of latent attention: their sizes, random queries and rows, and what their results
/// are in double.

#include "random_data.hpp"

#include <pare/attention/attend.hpp>
#include <pare/core/aligned_buffer.hpp>
#include <pare/core/backend.hpp>
#include <pare/core/scalar.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/core/workspace.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <string>
#include <type_traits>
#include <vector>

namespace pare::bench {

/// The name of a scalar in those of benchmarks, and what peers in Python take.
template <class S>
std::string scalar_name() {
  return std::is_same_v<S, bf16> ? "bf16" : "f32";
}

/// One new token of `heads` absorbed queries behind `tokens` rows of a latent and a rotary key. The
/// head before absorption has nope + rope numbers, and values of `value`, which peers expand to.
struct LatentShape {
  Index heads = 0, tokens = 0;
  Index latent = 512, rope = 64, nope = 128, value = 128;

  Index width() const { return latent + rope; }
  double scale() const { return 1 / std::sqrt(static_cast<double>(nope + rope)); }
  /// Two products, over the row and over its latent.
  double flops() const { return 2.0 * static_cast<double>(heads * tokens * (width() + latent)); }
  double row_count() const { return static_cast<double>(tokens * width()); }

  /// `h16/t4096`; other latents than 512 and 64 are named: `h9/d192_32/t512`.
  std::string name() const {
    std::string name("h");
    name.append(std::to_string(heads));
    if (latent != 512 || rope != 64)
      name.append("/d").append(std::to_string(latent)).append("_").append(std::to_string(rope));
    return name.append("/t").append(std::to_string(tokens));
  }
};

/// n numbers uniform in [-1, 1).
template <class S>
void fill_uniform(S* to, Index n, std::uint64_t seed) {
  SplitMix64 random(seed);
  for (Index i = 0; i < n; ++i) to[i] = static_cast<S>(static_cast<float>(2 * random.unit() - 1));
}

/// The largest |out - definition| of one query, in double. key(j) and value(j) are rows.
template <class S, class Key, class Value>
double query_error(const S* query, Index key_dim, Index tokens, const Key& key, const Value& value,
                   double scale, const float* out, Index value_dim) {
  const auto number = [](S x) { return static_cast<double>(static_cast<float>(x)); };
  std::vector<double> weight(static_cast<std::size_t>(tokens));
  std::vector<double> mean(static_cast<std::size_t>(value_dim));
  double total = 0;
  for (Index j = 0; j < tokens; ++j) {
    double sum = 0;
    for (Index c = 0; c < key_dim; ++c) sum += number(query[c]) * number(key(j)[c]);
    const double w = std::exp(scale * sum);
    total += w;
    for (Index c = 0; c < value_dim; ++c)
      mean[static_cast<std::size_t>(c)] += w * number(value(j)[c]);
  }
  double worst = 0;
  for (Index c = 0; c < value_dim; ++c) {
    const double error =
        std::abs(mean[static_cast<std::size_t>(c)] / total - static_cast<double>(out[c]));
    worst = error <= worst ? worst : error;
  }
  return worst;
}

/// Queries and rows, the scores of which spread by about 0.6.
template <class S>
struct LatentData {
  explicit LatentData(const LatentShape& sizes)
      : shape(sizes),
        queries(static_cast<std::size_t>(sizes.heads * sizes.width())),
        rows(static_cast<std::size_t>(sizes.tokens * sizes.width())),
        out(static_cast<std::size_t>(sizes.heads * sizes.latent)) {
    fill_uniform(queries.data(), shape.heads * shape.width(), 1);
    fill_uniform(rows.data(), shape.tokens * shape.width(), 2);
    std::fill_n(out.data(), shape.heads * shape.latent, 0.0f);
  }

  TensorView<const S, 4> q() const {
    const Index w = shape.width();
    return {queries.data(), {1, shape.heads, 1, w}, {shape.heads * w, w, w, 1}};
  }
  /// The first `columns` of rows [first, first + tokens).
  TensorView<const S, 4> keys(Index columns, Index first, Index tokens) const {
    const Index w = shape.width();
    return {rows.data() + first * w, {1, 1, tokens, columns}, {tokens * w, tokens * w, w, 1}};
  }
  TensorView<float, 4> outputs() {
    const Index l = shape.latent;
    return {out.data(), {1, shape.heads, 1, l}, {shape.heads * l, l, l, 1}};
  }
  attention::AttendOptions options() const { return {.causal = true, .scale = shape.scale()}; }

  void run(int threads) {
    attention::attend(simd.threads(threads).with(workspace), q(),
                      keys(shape.width(), 0, shape.tokens), keys(shape.latent, 0, shape.tokens),
                      outputs(), options());
  }
  /// The same from a cache that holds the rows.
  template <class Cache>
  void run(const Cache& cache, int threads) {
    attention::attend(simd.threads(threads).with(workspace), q(), cache, outputs(), options());
  }

  /// The largest error of a few heads.
  double worst_error() const {
    const auto row = [this](Index j) { return rows.data() + j * shape.width(); };
    double worst = 0;
    for (const Index h : {Index{0}, shape.heads / 2, shape.heads - 1}) {
      const double error =
          query_error(queries.data() + h * shape.width(), shape.width(), shape.tokens, row, row,
                      shape.scale(), out.data() + h * shape.latent, shape.latent);
      worst = error <= worst ? worst : error;
    }
    return worst;
  }

  LatentShape shape;
  AlignedBuffer<S> queries, rows;
  AlignedBuffer<float> out;
  Workspace workspace;
};

/// Of means of numbers in [-1, 1]: floats as attention's bound; rows of bf16 are widened exactly,
/// or multiplied in pairs by weights that are rounded to bf16, at most 2^-9 of each.
template <class S>
inline constexpr double latent_tolerance = std::is_same_v<S, pare::bf16> ? 0x1p-8 : 1e-5;

}  // namespace pare::bench
