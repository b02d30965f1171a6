// SPDX-License-Identifier: Apache-2.0

/// \file
/// The machine's limits as rows of their own; the time is that of 10^9 flops or bytes.

#include "limits.hpp"
#include "timing.hpp"

#include <benchmark/benchmark.h>

#include <string>

namespace {
using namespace pare::bench;

void run_limit(benchmark::State& state, Limit limit, int threads) {
  const bool flops = is_arithmetic(limit);
  double rate = 0.0;
  for (auto _ : state) {
    rate = measure(limit, threads);
    state.SetIterationTime(1e9 / rate);
  }
  state.counters[flops ? "GFLOP/s" : "GB/s"] = rate * 1e-9;
}

const bool registered = [] {
  for (const Limit limit :
       {Limit::fma_f32, Limit::fma_f64, Limit::dot_bf16, Limit::dot_int8, Limit::dram_read,
        Limit::copy, Limit::l1_read, Limit::l2_read, Limit::l1_add}) {
    for (const int threads : {1, all_threads()}) {
      const std::string name =
          std::string("limits/") + name_of(limit) + (threads == 1 ? "/t1" : "/all");
      benchmark::RegisterBenchmark(name.c_str(), run_limit, limit, threads)
          ->UseManualTime()
          ->Iterations(1)
          ->Repetitions(5)
          ->Unit(benchmark::kMillisecond);
      if (all_threads() == 1) break;
    }
  }
  return true;
}();
}  // namespace
