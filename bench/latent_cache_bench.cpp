// SPDX-License-Identifier: Apache-2.0

/// \file
/// Absorbed decoding from caches: pages against contiguous rows, sequences of different lengths in
/// one call against one by one, and 8 bits against bf16.

#include "counters.hpp"
#include "latent_data.hpp"
#include "peer.hpp"
#include "workload.hpp"

#include <pare/attention/attend.hpp>
#include <pare/core/ceil_div.hpp>
#include <pare/latent/cache.hpp>
#include <pare/latent/e4m3_cache.hpp>
#include <pare/latent/e4m3_layout.hpp>

#include <benchmark/benchmark.h>

#include <cstddef>
#include <numeric>
#include <string>
#include <utility>
#include <vector>

namespace {
using namespace pare::bench;
using namespace pare::latent;
using pare::bf16;
using pare::Index;
using pare::TensorView;

template <class S>
LatentData<S>& latent_work(const char* what, const LatentShape& shape) {
  return workload<LatentData<S>>(
      std::string("latent ") + what + " " + scalar_name<S>() + " " + shape.name(),
      [&] { return LatentData<S>(shape); });
}

template <class S>
TensorView<const S, 2> rows_of_data(const LatentData<S>& data, Index first, Index tokens) {
  const Index w = data.shape.width();
  return {data.rows.data() + first * w, {tokens, w}, {w, 1}};
}

LatentCacheOptions cache_options(const LatentShape& shape, Index page_size, Index pages) {
  return {.latent = shape.latent, .rope = shape.rope, .pages = pages, .page_size = page_size};
}

/// A way of torch, and what stands behind the sizes of the shape.
double torch_seconds(const char* way, const std::string& scalar, int threads, const LatentShape& s,
                     const std::vector<Index>& more) {
  std::vector<std::string> arguments{way, scalar, std::to_string(threads)};
  for (const Index size : {s.heads, s.nope, s.rope, s.value, s.latent})
    arguments.push_back(std::to_string(size));
  for (const Index size : more) arguments.push_back(std::to_string(size));
  return python_peer_seconds("latent_torch.py", arguments);
}

template <class S, RopePlace Place>
void paged(benchmark::State& state, const LatentShape& shape, Index page_size) {
  auto& data = latent_work<S>("paged", shape);
  LatentCache<S, Place> cache(
      cache_options(shape, page_size, pare::ceil_div(shape.tokens, page_size)));
  cache.append(0, rows_of_data(data, 0, shape.tokens));
  const auto run = [&] { data.run(cache, 1); };
  run();
  if (!(data.worst_error() <= latent_tolerance<S>))
    return state.SkipWithError("result differs from the definition");
  LimitProbe probe(
      1, {{Limit::fma_f32, shape.flops()}, {Limit::dram_read, shape.row_count() * sizeof(S)}});
  const double contiguous = usual_seconds([&] { data.run(1); });
  const double own = time_between_probes(state, probe, run);
  set_of_limit(state, probe.seconds(), own);
  set_vs(state, "contiguous", contiguous, own);
  set_vs(state, "torch",
         torch_seconds("paged", scalar_name<S>(), 1, shape, {shape.tokens, page_size}), own);
  state.counters["bytes_per_token"] = static_cast<double>(cache.bytes_per_token());
  set_threads(state, 1);
}

/// A cache in 8 bits, beside rows of bf16.
template <class Layout>
void decode_e4m3(benchmark::State& state, const LatentShape& shape, int threads) {
  auto& data = latent_work<bf16>("e4m3", shape);
  E4m3Cache<Layout> cache(cache_options(shape, 64, pare::ceil_div(shape.tokens, Index{64})));
  cache.append(0, rows_of_data(data, 0, shape.tokens));
  const auto run = [&] { data.run(cache, threads); };
  run();
  // A code is off by up to 2^-4 of its number, and means over thousands of tokens by far less.
  if (!(data.worst_error() <= 0x1p-5)) return state.SkipWithError("result differs by too much");
  const double bytes = static_cast<double>(shape.tokens * cache.bytes_per_token());
  LimitProbe probe(threads, {{Limit::fma_f32, shape.flops()}, {Limit::dram_read, bytes}});
  std::vector<double> times, wide_times;
  probe.sample();
  for (auto _ : state) {  // side by side: probes leave no row in the caches
    times.push_back(seconds(run));
    wide_times.push_back(seconds([&] { data.run(threads); }));
    state.SetIterationTime(times.back());
  }
  probe.sample();
  const double own = median(std::move(times)), wide = median(std::move(wide_times));
  set_of_limit(state, probe.seconds(), own);
  set_vs(state, "bf16", wide, own);
  state.counters["bytes_per_token"] = static_cast<double>(cache.bytes_per_token());
  set_threads(state, threads);
}

/// Sequences of these lengths, their rows one behind the other; each has queries of its own.
struct Batch {
  explicit Batch(const LatentShape& sizes, std::vector<Index> tokens)
      : lengths(std::move(tokens)),
        shape(sizes),
        data([&] {
          LatentShape all = sizes;
          all.tokens = std::accumulate(lengths.begin(), lengths.end(), Index{0});
          all.heads = sizes.heads * sequences();
          return all;
        }()),
        cache({.latent = sizes.latent,
               .rope = sizes.rope,
               .pages = data.shape.tokens / 16 + sequences(),
               .page_size = 16,
               .sequences = sequences()}) {
    for (Index s = 0, first = 0; s < sequences(); first += length(s), ++s)
      cache.append(s, rows_of_data(data, first, length(s)));
  }

  Index sequences() const { return static_cast<Index>(lengths.size()); }
  Index length(Index s) const { return lengths[static_cast<std::size_t>(s)]; }
  template <class T>
  TensorView<T, 4> rows(T* of, Index count, Index dim) const {
    return {of, {count, shape.heads, 1, dim}, {shape.heads * dim, dim, dim, 1}};
  }
  void run(int threads) {
    pare::attention::attend(pare::simd.threads(threads).with(data.workspace),
                            rows<const float>(data.queries.data(), sequences(), shape.width()),
                            cache, rows(data.out.data(), sequences(), shape.latent),
                            data.options());
  }
  /// One after the other, from contiguous rows.
  void run_singles(int threads) {
    for (Index s = 0, first = 0; s < sequences(); first += length(s), ++s)
      pare::attention::attend(
          pare::simd.threads(threads).with(data.workspace),
          rows<const float>(data.queries.data() + s * shape.heads * shape.width(), 1,
                            shape.width()),
          data.keys(shape.width(), first, length(s)), data.keys(shape.latent, first, length(s)),
          rows(data.out.data() + s * shape.heads * shape.latent, 1, shape.latent), data.options());
  }
  double worst_error() const {
    double worst = 0;
    for (Index s = 0, first = 0; s < sequences(); first += length(s), ++s)
      for (const Index h : {Index{0}, shape.heads - 1}) {
        const auto row = [&](Index j) { return rows_of_data(data, first + j, 1).data; };
        const Index head = s * shape.heads + h;
        const double error =
            query_error(data.queries.data() + head * shape.width(), shape.width(), length(s), row,
                        row, shape.scale(), data.out.data() + head * shape.latent, shape.latent);
        worst = error <= worst ? worst : error;
      }
    return worst;
  }

  std::vector<Index> lengths;
  LatentShape shape;
  LatentData<float> data;  // of heads and tokens of all
  LatentCache<float> cache;
};

void batch(benchmark::State& state, const LatentShape& shape, const std::vector<Index>& lengths,
           int threads) {
  Batch work(shape, lengths);
  work.run(threads);
  if (!(work.worst_error() <= latent_tolerance<float>))
    return state.SkipWithError("result differs from the definition");
  const double flops = work.data.shape.flops() / static_cast<double>(work.sequences());
  constexpr int calls = 20;
  LimitProbe probe(threads, {{Limit::fma_f32, flops * calls},
                             {Limit::l2_read, work.data.shape.row_count() * 4 * calls}});
  const double singles = usual_seconds([&] {
    for (int i = 0; i < calls; ++i) work.run_singles(threads);
  });
  const double own = time_between_probes(state, probe, [&] {
    for (int i = 0; i < calls; ++i) work.run(threads);
  });
  set_of_limit(state, probe.seconds(), own);
  set_vs(state, "singles", singles, own);
  set_vs(state, "torch", torch_seconds("batch", "f32", threads, shape, lengths) * calls, own);
  state.counters["us_a_call"] = own / calls * 1e6;
  set_threads(state, threads);
}

template <class Run>
void add(const std::string& name, int threads, const Run& run) {
  const std::string full = "latent/" + name + (threads > 1 ? "/threads_all" : "");
  large(benchmark::RegisterBenchmark(full.c_str(), run), 5);
}

const bool registered = [] {
  constexpr LatentShape few{16, 4096}, many{128, 4096}, users{9, 512, 192, 32, 64, 64};
  for (const LatentShape& shape : {few, many})
    add("decode/e4m3/" + shape.name(), 1,
        [=](benchmark::State& state) { decode_e4m3<DeepSeekV32Layout>(state, shape, 1); });
  add("decode/e4m3_flat/" + many.name(), 1,
      [=](benchmark::State& state) { decode_e4m3<FlatLayout>(state, many, 1); });
  add("paged/f32/" + few.name(), 1,
      [=](benchmark::State& state) { paged<float, RopePlace::InRow>(state, few, 64); });
  add("paged/bf16/" + few.name(), 1,
      [=](benchmark::State& state) { paged<bf16, RopePlace::InRow>(state, few, 64); });
  add("paged/f32/" + few.name() + "/page1", 1,
      [=](benchmark::State& state) { paged<float, RopePlace::InRow>(state, few, 1); });
  add("paged/f32/" + few.name() + "/apart", 1,
      [=](benchmark::State& state) { paged<float, RopePlace::Apart>(state, few, 64); });
  for (const int threads : {1, all_threads()}) {
    add("batch/f32/h9/d192_32/t512_300_77_1", threads,
        [=](benchmark::State& state) { batch(state, users, {512, 300, 77, 1}, threads); });
    if (all_threads() == 1) break;
  }
  return true;
}();

}  // namespace
