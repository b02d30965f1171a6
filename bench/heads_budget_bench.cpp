// SPDX-License-Identifier: Apache-2.0

/// \file
/// Caches whose heads keep different numbers of tokens: what their scores cost, and decoding from
/// them against attention to all tokens of all heads.

#include "counters.hpp"
#include "latent_data.hpp"
#include "peer.hpp"

#include <pare/attention/attend.hpp>
#include <pare/attention/budget/attend_heads.hpp>
#include <pare/attention/budget/eviction_score.hpp>
#include <pare/attention/budget/head_partition.hpp>
#include <pare/attention/budget/key_diff.hpp>
#include <pare/attention/budget/snap_kv.hpp>
#include <pare/core/workspace.hpp>
#include <pare/latent/ragged_cache.hpp>
#include <pare/latent/ragged_heads.hpp>

#include <benchmark/benchmark.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <string>
#include <type_traits>
#include <vector>

namespace {
using namespace pare::bench;
using pare::Index;
using pare::TensorView;

struct Sizes {
  Index heads, kv_heads, dim, tokens;

  std::string name() const {
    return "h" + std::to_string(heads) + "_kv" + std::to_string(kv_heads) + "/d" +
           std::to_string(dim) + "/t" + std::to_string(tokens);
  }
  std::vector<std::string> arguments(const char* work, const std::string& scalar,
                                     int threads) const {
    std::vector<std::string> list{work, scalar, std::to_string(threads)};
    for (const Index size : {heads, kv_heads, dim}) list.push_back(std::to_string(size));
    return list;
  }
  double kept_bytes(double share, std::size_t scalar) const {
    return 2 * share * static_cast<double>(kv_heads * dim * tokens) * static_cast<double>(scalar);
  }
};

/// A layer whose kv head h of n keeps (h + 1/2) / n of 2 x .3 of its tokens, evenly spread.
template <class S>
struct Layer {
  explicit Layer(const Sizes& sizes)
      : size(sizes),
        keys(count()),
        values(count()),
        queries(static_cast<std::size_t>(size.heads * size.dim)),
        out(queries.size()),
        cache({.kv_heads = size.kv_heads,
               .key_dim = size.dim,
               .value_dim = size.dim,
               .pages = size.kv_heads * (size.tokens / 16 + 1)}) {
    fill_uniform(keys.data(), static_cast<Index>(keys.size()), 1);
    fill_uniform(values.data(), static_cast<Index>(values.size()), 2);
    fill_uniform(queries.data(), static_cast<Index>(queries.size()), 3);
    cache.append(0, all(keys), all(values));
    for (Index h = 0; h < size.kv_heads; ++h) {
      std::vector<Index> list;
      for (Index i = 0; i < kept(h); ++i) list.push_back(position(h, i));
      cache.keep(0, h, list);
    }
    source = pare::latent::paged_heads(cache, 0, size.kv_heads, 0, 1, pages);
  }

  std::size_t count() const {
    return static_cast<std::size_t>(size.kv_heads * size.tokens * size.dim);
  }
  Index kept(Index h) const { return size.tokens * 6 * (2 * h + 1) / (20 * size.kv_heads); }
  Index position(Index h, Index i) const { return i * size.tokens / kept(h); }
  double share() const {
    double sum = 0;
    for (Index h = 0; h < size.kv_heads; ++h) sum += static_cast<double>(kept(h));
    return sum / static_cast<double>(size.kv_heads * size.tokens);
  }
  TensorView<const S, 3> all(const std::vector<S>& x) const {
    return {
        x.data(), {size.kv_heads, size.tokens, size.dim}, {size.tokens * size.dim, size.dim, 1}};
  }
  TensorView<const S, 4> q() const {
    return {queries.data(), {1, size.heads, 1, size.dim}, strides()};
  }
  TensorView<float, 4> to() { return {out.data(), {1, size.heads, 1, size.dim}, strides()}; }
  std::array<Index, 4> strides() const { return {size.heads * size.dim, size.dim, size.dim, 1}; }
  pare::attention::HeadPartition partition(int threads) const {
    return {{pages.lengths.data(), {1, size.kv_heads}, {size.kv_heads, 1}},
            {.heads = size.heads, .threads = threads}};
  }

  void run(const pare::attention::HeadPartition& shared, int threads) {
    pare::attention::attend_heads(pare::simd.threads(threads).with(workspace), q(), source, to(),
                                  shared);
  }
  void run_all(int threads) {
    const auto of_batch = [&](const std::vector<S>& x) {
      const auto view = all(x);
      return TensorView<const S, 4>{view.data,
                                    {1, view.extent[0], view.extent[1], view.extent[2]},
                                    {0, view.stride[0], view.stride[1], 1}};
    };
    pare::attention::attend(pare::simd.threads(threads).with(workspace), q(), of_batch(keys),
                            of_batch(values), to());
  }
  double worst_error() const {
    double worst = 0;
    for (Index head = 0; head < size.heads; ++head) {
      const Index kv = head / (size.heads / size.kv_heads);
      const auto row = [&](const std::vector<S>& x) {
        return
            [&, kv](Index j) { return x.data() + (kv * size.tokens + position(kv, j)) * size.dim; };
      };
      const double error =
          query_error(queries.data() + head * size.dim, size.dim, kept(kv), row(keys), row(values),
                      1 / std::sqrt(double(size.dim)), out.data() + head * size.dim, size.dim);
      worst = error <= worst ? worst : error;
    }
    return worst;
  }

  Sizes size;
  std::vector<S> keys, values, queries;
  std::vector<float> out;
  pare::latent::RaggedCache<S> cache;
  pare::latent::HeadPages pages;
  pare::attention::PagedKeyValue<S> source;
  pare::Workspace workspace;
};

template <class S>
void ragged_decode(benchmark::State& state, const Sizes& size, int threads) {
  Layer<S> layer(size);
  const auto shared = layer.partition(threads), alone = layer.partition(1);
  layer.run(shared, threads);
  if (!(layer.worst_error() <= latent_tolerance<S>))
    return state.SkipWithError("result differs from the definition");
  const double bytes = size.kept_bytes(layer.share(), sizeof(S));
  const int calls = bytes > (8 << 20) ? 1 : 20;
  LimitProbe probe(threads,
                   {{bytes > (1 << 20) ? Limit::dram_read : Limit::l2_read, bytes * calls}});
  const auto times = [&](const auto& call) {
    return usual_seconds([&] {
      for (int i = 0; i < calls; ++i) call();
    });
  };
  const double all = times([&] { layer.run_all(threads); });
  const double one = times([&] { layer.run(alone, 1); });
  const double own = time_between_probes(state, probe, [&] {
    for (int i = 0; i < calls; ++i) layer.run(shared, threads);
  });
  set_of_limit(state, probe.seconds(), own);
  set_vs(state, "all_tokens", all, own);
  if (threads > 1) set_vs(state, "one_thread", one, own);
  std::vector<std::string> arguments = size.arguments("ragged", scalar_name<S>(), threads);
  for (Index h = 0; h < size.kv_heads; ++h) arguments.push_back(std::to_string(layer.kept(h)));
  set_vs(state, "torch", python_peer_seconds("latent_torch.py", arguments) * calls, own);
  state.counters["max_to_mean"] = shared.imbalance();
  state.counters["us_a_call"] = own / calls * 1e6;
  set_threads(state, threads);
}

/// Scores of one layer's tokens by a policy, checked against the reference. Products bind SnapKV,
/// and KeyDiff reads the keys twice: no cosine is known before the mean direction is.
template <class S, class Policy>
void scores(benchmark::State& state, const Sizes& size, int threads, const Policy& policy,
            const char* peer) {
  constexpr Index window = 32;
  std::vector<S> keys(static_cast<std::size_t>(size.kv_heads * size.tokens * size.dim));
  std::vector<S> queries(static_cast<std::size_t>(size.heads * window * size.dim));
  std::vector<float> got(static_cast<std::size_t>(size.kv_heads * size.tokens)), wanted(got.size());
  fill_uniform(keys.data(), static_cast<Index>(keys.size()), 1);
  fill_uniform(queries.data(), static_cast<Index>(queries.size()), 2);
  const auto view = [](auto& x, Index heads, Index rows, Index dim) {
    return TensorView<std::remove_pointer_t<decltype(x.data())>, 4>{
        x.data(), {1, heads, rows, dim}, {0, rows * dim, dim, 1}};
  };
  const auto q = as_const(view(queries, size.heads, window, size.dim));
  const auto k = as_const(view(keys, size.kv_heads, size.tokens, size.dim));
  const auto to = [&](std::vector<float>& x) {
    return TensorView<float, 3>{x.data(), {1, size.kv_heads, size.tokens}, {0, size.tokens, 1}};
  };
  pare::Workspace workspace;
  const auto run = [&] {
    pare::attention::score_tokens(pare::simd.threads(threads).with(workspace), q, k, to(got),
                                  policy);
  };
  run();
  pare::attention::score_tokens(pare::reference, q, k, to(wanted), policy);
  for (std::size_t i = 0; i < got.size(); ++i)
    if (!(std::abs(got[i] - wanted[i]) <= 1e-4f * std::max(std::abs(wanted[i]), 1e-2f)))
      return state.SkipWithError("result differs from the definition");
  const double pairs = static_cast<double>(size.kv_heads * size.tokens * size.dim);
  const double rows = static_cast<double>(size.heads / size.kv_heads * window);
  LimitProbe probe(
      threads,
      Policy::reads_queries
          ? std::vector<Demand>{{Limit::fma_f32, 2 * rows * pairs}}
          : std::vector<Demand>{{Limit::dram_read, 2 * pairs * static_cast<double>(sizeof(S))}});
  const double own = time_between_probes(state, probe, run);
  set_of_limit(state, probe.seconds(), own);
  auto arguments = size.arguments(peer, scalar_name<S>(), threads);
  arguments.push_back(std::to_string(size.tokens));
  set_vs(state, "torch", python_peer_seconds("budget_torch.py", arguments), own);
  set_threads(state, threads);
}

template <class F>
void add(const std::string& name, const F& run) {
  for (const int threads : {1, all_threads()}) {
    const std::string full = name + (threads > 1 ? "/threads_all" : "");
    large(benchmark::RegisterBenchmark(full.c_str(),
                                       [=](benchmark::State& state) { run(state, threads); }),
          5);
    if (all_threads() == 1) break;
  }
}

template <class S>
void add_decode(const Sizes& size) {
  add("heads/ragged_decode/" + scalar_name<S>() + "/" + size.name(),
      [size](benchmark::State& state, int threads) { ragged_decode<S>(state, size, threads); });
}

template <class S, class Policy>
void add_scores(const char* name, const Sizes& size) {
  add(std::string("heads/") + name + "/" + scalar_name<S>() + "/" + size.name(),
      [=](benchmark::State& state, int threads) {
        scores<S>(state, size, threads, Policy{}, name);
      });
}

const bool registered = [] {
  add_decode<float>({32, 8, 128, 32768});
  add_decode<pare::bf16>({32, 8, 128, 65536});
  add_decode<float>({9, 3, 64, 1000});
  add_scores<float, pare::attention::SnapKV>("snap_kv", {32, 8, 128, 8192});
  add_scores<pare::bf16, pare::attention::SnapKV>("snap_kv", {32, 8, 128, 8192});
  add_scores<float, pare::attention::KeyDiff>("key_diff", {32, 8, 128, 16384});
  add_scores<pare::bf16, pare::attention::KeyDiff>("key_diff", {32, 8, 128, 16384});
  add_scores<float, pare::attention::SnapKV>("snap_kv", {9, 3, 64, 1000});
  return true;
}();

}  // namespace
