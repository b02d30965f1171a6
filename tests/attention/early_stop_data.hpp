// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <pare/attention/early_stop.hpp>

#include "attention/oracle.hpp"

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <random>
#include <vector>

namespace pare::testing {

/// Sizes of a sample.
struct SampleShape {
  Index batch = 1, heads = 1, kv_heads = 1, queries = 0, keys = 0, key_dim = 16, value_dim = 5;
};

/// Queries, keys and values, with room between tokens.
template <class S>
class Sample {
 public:
  /// Independent normal numbers; queries are `spread` times as wide.
  explicit Sample(const SampleShape& s, std::uint64_t seed = 1, double spread = 1)
      : shape(s),
        q_(fill({s.batch, s.heads, s.queries, s.key_dim}, seed, spread)),
        k_(fill({s.batch, s.kv_heads, s.keys, s.key_dim}, seed + 1, 1)),
        v_(fill({s.batch, s.kv_heads, s.keys, s.value_dim}, seed + 2, 1)) {}

  const SampleShape shape;
  TensorView<S, 4> q() { return view(q_, shape.heads, shape.queries, shape.key_dim); }
  TensorView<S, 4> k() { return view(k_, shape.kv_heads, shape.keys, shape.key_dim); }
  TensorView<S, 4> v() { return view(v_, shape.kv_heads, shape.keys, shape.value_dim); }

  /// The same queries and keys, where the value of key j is the unit vector j: outputs are weights.
  Sample with_unit_values() const {
    SampleShape s = shape;
    s.value_dim = s.keys;
    Sample unit(s);
    unit.q_ = q_;
    unit.k_ = k_;
    std::fill(unit.v_.begin(), unit.v_.end(), S(0));
    const auto v = unit.v();
    for (Index b = 0; b < s.batch; ++b)
      for (Index h = 0; h < s.kv_heads; ++h)
        for (Index j = 0; j < s.keys; ++j) v(b, h, j, j) = S(1);
    return unit;
  }

  Oracle oracle(Index b, Index h, double scale) {
    const auto rows = [](const TensorView<S, 4>& x, Index batch, Index head) {
      return TensorView<const S, 2>{
          &x(batch, head, 0, 0), {x.extent[2], x.extent[3]}, {x.stride[2], 1}};
    };
    const Index kv_head = h / (shape.heads / shape.kv_heads);
    return dense_attention(rows(q(), b, h), rows(k(), b, kv_head), rows(v(), b, kv_head), scale,
                           causal_visibility(shape.queries, shape.keys));
  }

 private:
  static constexpr Index gap = 3;

  static std::vector<S> fill(std::array<Index, 4> e, std::uint64_t seed, double spread) {
    std::vector<S> list(static_cast<std::size_t>(e[0] * e[1] * e[2] * (e[3] + gap)));
    std::mt19937_64 random(seed);
    std::normal_distribution<double> normal;
    for (S& x : list) x = static_cast<S>(static_cast<compute_t<S>>(spread * normal(random)));
    return list;
  }

  TensorView<S, 4> view(std::vector<S>& list, Index heads, Index tokens, Index dim) const {
    const Index row = dim + gap;
    return {list.data(),
            {shape.batch, heads, tokens, dim},
            {heads * tokens * row, tokens * row, row, 1}};
  }

  std::vector<S> q_, k_, v_;
};

/// What a call wrote, [batch, heads, queries, value dim] and [batch, heads, queries].
template <class T>
struct EarlyRun {
  std::vector<T> out{}, lse{};
  attention::AttendStats stats{};
};

template <class B, class S>
EarlyRun<compute_t<S>> run_early(const B& backend, Sample<S>& x, const attention::EarlyStop& rule,
                                 attention::AttendOptions options = {.causal = true}) {
  using T = compute_t<S>;
  const SampleShape& s = x.shape;
  const Index rows = s.batch * s.heads * s.queries;
  EarlyRun<T> run;
  run.out.assign(static_cast<std::size_t>(rows * s.value_dim), T(-77));
  run.lse.assign(static_cast<std::size_t>(rows), T(-77));
  options.lse = TensorView<T, 3>{
      run.lse.data(), {s.batch, s.heads, s.queries}, {s.heads * s.queries, s.queries, 1}};
  const TensorView<T, 4> out{
      run.out.data(),
      {s.batch, s.heads, s.queries, s.value_dim},
      {s.heads * s.queries * s.value_dim, s.queries * s.value_dim, s.value_dim, 1}};
  run.stats = attention::attend(backend, x.q(), x.k(), x.v(), out, rule, options);
  return run;
}

/// Which keys each row read, [batch * heads * queries, keys]; no weight may underflow to 0.
template <class B, class S>
std::vector<bool> keys_read(const B& backend, const Sample<S>& x, const attention::EarlyStop& rule,
                            const attention::AttendOptions& options = {.causal = true}) {
  Sample<S> unit = x.with_unit_values();
  std::vector<bool> read;
  for (const auto weight : run_early(backend, unit, rule, options).out) read.push_back(weight > 0);
  return read;
}

}  // namespace pare::testing
