// SPDX-License-Identifier: Apache-2.0

/// \file
/// Decoding from a cache whose heads keep different numbers of tokens, against attention to all
/// tokens of all heads.

#include "counters.hpp"
#include "latent_data.hpp"
#include "peer.hpp"

#include <pare/attention/attend.hpp>
#include <pare/latent/attend_ragged.hpp>
#include <pare/latent/ragged_cache.hpp>

#include <benchmark/benchmark.h>

#include <cstddef>
#include <numeric>
#include <string>
#include <utility>
#include <vector>

namespace {
using namespace pare::bench;
using namespace pare::latent;
using pare::Index;
using pare::TensorView;

/// Grouped heads of `dim`, each key head with keys and values of its own, of which each group of
/// key heads keeps some tokens, evenly spread.
struct Ragged {
  Ragged(Index query_heads, Index kv_heads, Index key_dim, std::vector<Index> kept_tokens)
      : heads(query_heads),
        dim(key_dim),
        kept(std::move(kept_tokens)),
        tokens(kept.front()),
        keys(LatentShape{heads, tokens * kv_heads, dim, 0, dim, dim}),
        values(LatentShape{1, tokens * kv_heads, dim, 0, dim, dim}),
        cache({.kv_heads = kv_heads,
               .group = kv_heads / groups(),
               .key_dim = dim,
               .value_dim = dim,
               .pages = groups() * (tokens / 16 + 1)}) {
    const auto all = [&](const LatentData<float>& x) {
      return TensorView<const float, 3>{
          x.rows.data(), {kv_heads, tokens, dim}, {tokens * dim, dim, 1}};
    };
    cache.append(0, all(keys), all(values));
    for (Index g = 0; g < groups(); ++g) {
      std::vector<Index> list;
      for (Index i = 0; i < count(g); ++i) list.push_back(position(g, i));
      cache.keep(0, g, list);
    }
  }

  Index groups() const { return static_cast<Index>(kept.size()); }
  Index count(Index g) const { return kept[static_cast<std::size_t>(g)]; }
  Index position(Index g, Index i) const { return i * tokens / count(g); }
  /// Of all tokens of all groups, what is kept.
  double share() const {
    const Index sum = std::accumulate(kept.begin(), kept.end(), Index{0});
    return static_cast<double>(sum) / static_cast<double>(tokens * groups());
  }
  void run(int threads) {
    attend_ragged(pare::simd.threads(threads).with(keys.workspace), keys.q(), cache, keys.outputs(),
                  keys.options());
  }
  void run_all(int threads) {
    const auto all = [&](const LatentData<float>& x) {
      const Index n = cache.kv_heads();
      return TensorView<const float, 4>{
          x.rows.data(), {1, n, tokens, dim}, {n * tokens * dim, tokens * dim, dim, 1}};
    };
    pare::attention::attend(pare::simd.threads(threads).with(keys.workspace), keys.q(), all(keys),
                            all(values), keys.outputs(), keys.options());
  }
  double worst_error() const {
    double worst = 0;
    for (Index kv = 0; kv < cache.kv_heads(); ++kv) {
      const Index g = cache.group_of(kv), head = kv * (heads / cache.kv_heads());
      const auto row = [&](const LatentData<float>& x) {
        return [&, kv](Index j) { return x.rows.data() + (kv * tokens + position(g, j)) * dim; };
      };
      const double error =
          query_error(keys.queries.data() + head * dim, dim, count(g), row(keys), row(values),
                      keys.shape.scale(), keys.out.data() + head * dim, dim);
      worst = error <= worst ? worst : error;
    }
    return worst;
  }

  Index heads, dim;
  std::vector<Index> kept;
  Index tokens;
  LatentData<float> keys, values;  // queries and outputs are those of keys
  RaggedCache<float> cache;
};

void ragged(benchmark::State& state, Index heads, Index kv_heads, Index dim,
            const std::vector<Index>& kept, int threads) {
  Ragged work(heads, kv_heads, dim, kept);
  work.run(threads);
  if (!(work.worst_error() <= latent_tolerance<float>))
    return state.SkipWithError("result differs from the definition");
  const int calls = kept.front() > 4096 ? 1 : 20;
  const double pairs = work.share() * static_cast<double>(work.tokens * kv_heads * dim) * calls;
  const bool small = pairs / calls * 8 <= (1 << 20);
  LimitProbe probe(threads, {{Limit::fma_f32, 4 * pairs * static_cast<double>(heads / kv_heads)},
                             {small ? Limit::l2_read : Limit::dram_read, 8 * pairs}});
  const double all = usual_seconds([&] {
    for (int i = 0; i < calls; ++i) work.run_all(threads);
  });
  const double own = time_between_probes(state, probe, [&] {
    for (int i = 0; i < calls; ++i) work.run(threads);
  });
  set_of_limit(state, probe.seconds(), own);
  set_vs(state, "all_tokens", all, own);
  std::vector<std::string> arguments{"ragged", "f32", std::to_string(threads)};
  for (const Index size : {heads, kv_heads, dim}) arguments.push_back(std::to_string(size));
  for (const Index tokens : kept) arguments.push_back(std::to_string(tokens));
  set_vs(state, "torch", python_peer_seconds("latent_torch.py", arguments) * calls, own);
  state.counters["of_saving"] = all * work.share() / own;
  state.counters["us_a_call"] = own / calls * 1e6;
  set_threads(state, threads);
}

void add(const std::string& name, Index heads, Index kv_heads, Index dim,
         const std::vector<Index>& kept) {
  for (const int threads : {1, all_threads()}) {
    const std::string full = "latent/ragged/f32/" + name + (threads > 1 ? "/threads_all" : "");
    large(benchmark::RegisterBenchmark(
              full.c_str(),
              [=](benchmark::State& state) { ragged(state, heads, kv_heads, dim, kept, threads); }),
          5);
    if (all_threads() == 1) break;
  }
}

const bool registered = [] {
  add("h9_kv3/d64/t512_200_77", 9, 3, 64, {512, 200, 77});
  add("h32_kv8/d128/t16384_8192_4096_2048", 32, 8, 128, {16384, 8192, 4096, 2048});
  return true;
}();

}  // namespace
