// SPDX-License-Identifier: Apache-2.0

/// \file
/// Exact causal attention against the machine, against a flash loop over OpenBLAS and against
/// Eigen; and how its cost grows.
///
/// `of_limit` counts useful flops only, 4 d for each (query, visible key): what is computed above
/// the diagonal of a tile is ours to lose.

#include "attention_data.hpp"
#include "attention_peers.hpp"
#include "child_memory.hpp"
#include "counters.hpp"
#include "workload.hpp"

#include <pare/attention/attend.hpp>

#include <benchmark/benchmark.h>

#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

namespace {
using namespace pare::bench;
using pare::bf16;
using pare::Index;

constexpr Index heads = 8;
const double largest_value = std::sqrt(3.0);

template <class T>
struct ExactWork {
  explicit ExactWork(const AttentionShape& shape) : data(shape) {}
  template <class U>
  explicit ExactWork(const AttentionData<U>& other) : data(other) {}

  void run(int threads) {
    pare::attention::attend(pare::simd.threads(threads).with(workspace), data.q(), data.k(),
                            data.v(), data.out(), {.causal = true});
  }

  // Once for a workload: sixteen thousand tokens take seconds.
  bool is_right(int threads) {
    if (!checked) {
      run(threads);
      error = worst_error(data.q(), data.k(), data.v(), data.out(), every_key);
      checked = true;
    }
    return error <= attention_tolerance<T>(largest_value);
  }

  AttentionData<T> data;
  pare::Workspace workspace;
  std::vector<float> peer_out;  ///< kept, since a slow peer runs once
  bool checked = false;
  double error = 0.0;
};

ExactWork<float>& float_work(Index tokens, Index dim) {
  return workload<ExactWork<float>>(
      "attention exact f32 n" + std::to_string(tokens) + " d" + std::to_string(dim),
      [&] { return ExactWork<float>(AttentionShape::prefill(heads, tokens, dim)); });
}

bool peer_is_right(const AttentionData<float>& data, const DenseHeads& work) {
  auto q = data.q(), k = data.k(), v = data.v();
  auto out = data.out();
  q.extent[1] = k.extent[1] = v.extent[1] = out.extent[1] = work.heads;
  out.data = work.out;
  return worst_error(q, k, v, out, every_key) <= attention_tolerance<float>(largest_value);
}

// A peer that takes seconds a head is timed on one head of the eight: a thread takes them one after
// the other, and the peer meets the same minutes as our own code, again in each repetition.
void set_peers(benchmark::State& state, ExactWork<float>& exact, int threads, double own) {
  const AttentionData<float>& data = exact.data;
  const Index timed = data.shape().keys > 8192 && threads == 1 ? 1 : heads;
  const double share = static_cast<double>(heads) / static_cast<double>(timed);
  exact.peer_out.resize(static_cast<std::size_t>(timed * data.shape().queries * data.shape().dim));
  const DenseHeads work = data.dense_heads(timed, exact.peer_out.data());
  const double openblas = openblas_attention_seconds(work, threads);
  if (!std::isnan(openblas)) {
    if (!peer_is_right(data, work)) return state.SkipWithError("OpenBLAS's result is wrong");
    set_vs(state, "openblas", share * openblas, own);
  }
  const double eigen = eigen_attention_seconds(work, threads);
  if (std::isnan(eigen)) return;
  if (!peer_is_right(data, work)) return state.SkipWithError("Eigen's result is wrong");
  set_vs(state, "eigen", share * eigen, own);
}

// ---------------------------------------------------------------- memory

// Beyond inputs and outputs: tiles and states of a few hundred rows a thread, and what a process
// takes to run threads at all. One head's scores at 16384 tokens would be 1 GiB, its keys and
// values packed 16 MiB.
double memory_bound(double data_bytes, int threads) {
  return data_bytes + static_cast<double>(2 + 2 * threads) * (1 << 20);
}

const AttentionShape memory_shape = AttentionShape::prefill(heads, 16384, 128);
const std::string memory_task = "attention/exact";

void exact_in_child() { ExactWork<float>(memory_shape).run(all_threads()); }

// ---------------------------------------------------------------- exact

void exact(benchmark::State& state, Index tokens, Index dim) {
  const bool shows_memory = tokens == memory_shape.keys && dim == memory_shape.dim;
  const double peak = shows_memory ? peak_bytes_in_child(memory_task) : 0.0;
  ExactWork<float>& work = float_work(tokens, dim);
  if (!work.is_right(1)) return state.SkipWithError("result differs from the definition");
  LimitProbe probe(1, {{Limit::fma_f32, causal_flops(work.data.shape())}});
  const double own = time_between_probes(state, probe, [&] { work.run(1); });
  set_of_limit(state, probe.seconds(), own);
  set_peers(state, work, 1, own);
  if (shows_memory) set_peak(state, peak, memory_bound(work.data.bytes(), all_threads()));
  state.counters["GFLOP/s"] = causal_flops(work.data.shape()) / own * 1e-9;
  set_threads(state, 1);
}

void exact_all_threads(benchmark::State& state) {
  ExactWork<float>& work = float_work(4096, 128);
  const int threads = all_threads();
  if (!work.is_right(threads)) return state.SkipWithError("result differs from the definition");
  const double alone = seconds([&] { work.run(1); });
  LimitProbe probe(threads, {{Limit::fma_f32, causal_flops(work.data.shape())}});
  const double own = time_between_probes(state, probe, [&] { work.run(threads); });
  const double alone_again = seconds([&] { work.run(1); });
  set_of_limit(state, probe.seconds(), own);
  state.counters["linear"] = 0.5 * (alone + alone_again) / (threads * own);
  set_peers(state, work, threads, own);
  set_threads(state, threads);
}

// ---------------------------------------------------------------- bf16

struct Bf16Work {
  ExactWork<float> floats{AttentionShape::prefill(heads, 4096, 128)};
  ExactWork<bf16> halves{floats.data};
};

void exact_bf16(benchmark::State& state) {
  Bf16Work& work = workload<Bf16Work>("attention exact bf16", [] { return Bf16Work(); });
  if (!work.halves.is_right(1)) return state.SkipWithError("result differs from the definition");
  if (!work.floats.is_right(1)) return state.SkipWithError("result in f32 is wrong");
  const double before = seconds([&] { work.floats.run(1); });
  LimitProbe probe(1, {{Limit::dot_bf16, causal_flops(work.halves.data.shape())}});
  const double own = time_between_probes(state, probe, [&] { work.halves.run(1); });
  const double after = seconds([&] { work.floats.run(1); });
  set_of_limit(state, probe.seconds(), own);
  set_vs(state, "f32", 0.5 * (before + after), own);
  set_threads(state, 1);
}

// ---------------------------------------------------------------- growth

void exact_growth(benchmark::State& state) {
  ExactWork<float>& work = float_work(state.range(0), 128);
  work.run(1);
  time_alone(state, [&] { work.run(1); });
  state.SetComplexityN(state.range(0));
  set_threads(state, 1);
}

const bool registered = [] {
  register_memory_task(memory_task, exact_in_child);
  const auto add = [](const std::string& name, auto function, int calls, int repetitions) {
    large(benchmark::RegisterBenchmark(("attention/" + name).c_str(), function), calls)
        ->Repetitions(repetitions);
  };
  add("exact/f32/d128/n4096", [](benchmark::State& state) { exact(state, 4096, 128); }, 3, 5);
  add("exact/f32/d64/n4096", [](benchmark::State& state) { exact(state, 4096, 64); }, 3, 5);
  add("exact_mt/f32/d128/n4096", exact_all_threads, 5, 5);
  add("exact/bf16/d128/n4096", exact_bf16, 3, 5);
  // Six seconds a call: three medians of one.
  add("exact/f32/d128/n16384", [](benchmark::State& state) { exact(state, 16384, 128); }, 1, 3);
  auto* growth = benchmark::RegisterBenchmark("attention/growth/exact_tokens", exact_growth)
                     ->UseManualTime()
                     ->Iterations(2)
                     ->Repetitions(3)
                     ->Unit(benchmark::kMillisecond)
                     ->Complexity(benchmark::oNSquared);
  for (const std::int64_t tokens : {1024, 2048, 4096, 8192}) growth->Arg(tokens);
  return true;
}();

}  // namespace
