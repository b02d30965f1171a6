// SPDX-License-Identifier: Apache-2.0

/// \file
/// Exact causal attention at every head size that models have, and of few queries to a long cache,
/// in float and bf16, against the machine and against torch.
///
/// `of_limit` is the share of the multiplier's peak for useful products, 4 d flops for each (query,
/// visible key); of few queries the share of what takes longer, those or reading the cache once.

#include "attention_data.hpp"
#include "counters.hpp"
#include "peer.hpp"
#include "workload.hpp"

#include <pare/attention/attend.hpp>

#include <benchmark/benchmark.h>

#include <array>
#include <cmath>
#include <cstddef>
#include <string>
#include <type_traits>

namespace {
using namespace pare::bench;
using pare::bf16;
using pare::Index;

constexpr Index heads = 8, cached = 8192;
constexpr std::array<Index, 9> head_sizes{40, 64, 72, 80, 96, 112, 128, 192, 256};
const double largest_value = std::sqrt(3.0);

template <class T>
const std::string scalar_name = std::is_same_v<T, bf16> ? "bf16" : "f32";

// Two layers' caches are read in turn where queries are few, as a model does.
template <class T>
struct ShapeWork {
  explicit ShapeWork(const AttentionShape& s)
      : layers{AttentionData<T>(s, 1), AttentionData<T>(few(s) ? s : AttentionShape{}, 11)},
        shape(s) {}

  static bool few(const AttentionShape& s) { return s.queries < s.keys; }
  std::size_t count() const { return few(shape) ? 2 : 1; }

  void run() {
    const AttentionData<T>& layer = layers[turn++ % count()];
    pare::attention::attend(pare::simd.threads(1).with(workspace), layer.q(), layer.k(), layer.v(),
                            layer.out(), {.causal = true});
  }

  bool is_right() {
    if (checked) return right;
    checked = true;
    for (std::size_t i = 0; i < count(); ++i) {
      const AttentionData<T>& layer = layers[i];
      run();
      const double error = worst_error(layer.q(), layer.k(), layer.v(), layer.out(), every_key);
      right = right && error <= attention_tolerance<T>(largest_value);
    }
    return right;
  }

  std::array<AttentionData<T>, 2> layers;
  AttentionShape shape;
  pare::Workspace workspace;
  std::size_t turn = 0;
  bool checked = false, right = true;
};

double flops(const AttentionShape& s) {
  const auto queries = static_cast<double>(s.queries), keys = static_cast<double>(s.keys);
  const double pairs = queries * (keys - queries) + queries * (queries + 1.0) / 2.0;
  return 4.0 * static_cast<double>(s.dim * s.heads) * pairs;
}

template <class T>
double cache_bytes(const AttentionShape& s) {
  return 2.0 * static_cast<double>(s.kv_heads * s.keys * s.dim) * sizeof(T);
}

template <class T>
void shaped(benchmark::State& state, const AttentionShape& s) {
  const bool few = ShapeWork<T>::few(s);
  const std::string name = scalar_name<T> + " q" + std::to_string(s.queries) + " n" +
                           std::to_string(s.keys) + " d" + std::to_string(s.dim);
  ShapeWork<T>& work =
      workload<ShapeWork<T>>("attention shape " + name, [&] { return ShapeWork<T>(s); });
  if (!work.is_right()) return state.SkipWithError("result differs from the definition");
  const Limit multiplier = std::is_same_v<T, bf16> ? Limit::dot_bf16 : Limit::fma_f32;
  LimitProbe probe(
      1, few ? std::vector<Demand>{{multiplier, flops(s)}, {Limit::dram_read, cache_bytes<T>(s)}}
             : std::vector<Demand>{{multiplier, flops(s)}});
  const double own = time_between_probes(state, probe, [&] { work.run(); });
  set_of_limit(state, probe.seconds(), own);
  const double torch = python_peer_seconds(
      "attention_torch.py",
      {scalar_name<T>, "1", std::to_string(s.heads), std::to_string(s.queries),
       std::to_string(s.keys), std::to_string(s.dim), std::to_string(work.count())});
  if (!std::isnan(torch)) set_vs(state, "torch", torch, own);
  state.counters["GFLOP/s"] = flops(s) / own * 1e-9;
  if (few) state.counters["GB/s"] = cache_bytes<T>(s) / own * 1e-9;
  set_threads(state, 1);
}

template <class T>
void register_shape(const std::string& name, Index queries, Index keys, Index dim, int calls) {
  large(benchmark::RegisterBenchmark(
            (name + "/" + scalar_name<T> + "/d" + std::to_string(dim)).c_str(),
            [=](benchmark::State& state) { shaped<T>(state, {heads, heads, queries, keys, dim}); }),
        calls)
      ->Repetitions(3);
}

template <class T>
void register_shapes() {
  for (const Index tokens : {1024, 4096})
    for (const Index dim : head_sizes)
      register_shape<T>("attention/head_size/n" + std::to_string(tokens), tokens, tokens, dim,
                        tokens == 1024 ? 5 : 2);
  for (const Index queries : {1, 2, 3, 5, 8, 16})
    for (const Index dim : {64, 80, 128})
      register_shape<T>("attention/few_queries/q" + std::to_string(queries), queries, cached, dim,
                        10);
}

const bool registered = [] {
  register_shapes<float>();
  register_shapes<bf16>();
  return true;
}();

}  // namespace
