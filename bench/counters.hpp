// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// The counters every benchmark of the suite speaks in, and the loop that fills them.

#include "limits.hpp"
#include "timing.hpp"

#include <pare/core/backend.hpp>

#include <benchmark/benchmark.h>

#include <cmath>
#include <string>
#include <vector>

namespace pare::bench {

/// Fraction of the machine's limit that was reached: 1 is the limit.
inline void set_of_limit(benchmark::State& state, double limit_seconds, double own_seconds) {
  state.counters["of_limit"] = limit_seconds / own_seconds;
}

/// How many times faster than the peer: above 1 is faster. Nothing of a peer that did not run.
inline void set_vs(benchmark::State& state, const std::string& peer, double peer_seconds,
                   double own_seconds) {
  if (std::isnan(peer_seconds)) return;
  state.counters["vs_" + peer] = peer_seconds / own_seconds;
}

/// How much worse than the best known result: ours / best - 1.
inline void set_excess(benchmark::State& state, double ours, double best) {
  state.counters["excess"] = ours / best - 1.0;
}

/// Peak resident memory of the work with its inputs and outputs, and what it may be, in MiB.
inline void set_peak(benchmark::State& state, double peak_bytes, double bound_bytes) {
  state.counters["peak_MiB"] = peak_bytes / (1 << 20);
  state.counters["peak_bound_MiB"] = bound_bytes / (1 << 20);
}

/// How many threads the timed work ran on, where the name of the benchmark does not say it.
inline void set_threads(benchmark::State& state, int threads) {
  state.counters["on_threads"] = threads;
}

/// Runs the timed loop of a `UseManualTime` benchmark with a limit probe on both sides of it.
/// Returns the median seconds of one call of `work`.
template <class Work>
double time_between_probes(benchmark::State& state, LimitProbe& probe, const Work& work) {
  std::vector<double> times;
  probe.sample();
  for (auto _ : state) {
    times.push_back(seconds(work));
    state.SetIterationTime(times.back());
  }
  probe.sample();
  return median(std::move(times));
}

/// Seconds of so many runs of data with its workspace.
template <class Data>
double time_calls(benchmark::State& state, LimitProbe& probe, Data& data, int threads, int calls) {
  return time_between_probes(state, probe, [&] {
    for (int i = 0; i < calls; ++i)
      on_threads(threads, data.workspace, [&](const auto& backend) { data.run(backend); });
  });
}

/// The same without a limit.
template <class Work>
double time_alone(benchmark::State& state, const Work& work) {
  LimitProbe none(1, {});
  return time_between_probes(state, none, work);
}

/// The median seconds of five calls after a first one: of what the work is compared with.
template <class Work>
double usual_seconds(const Work& work) {
  work();
  std::vector<double> times;
  for (int i = 0; i < 5; ++i) times.push_back(seconds(work));
  return median(std::move(times));
}

/// What every large benchmark asks for: a known number of calls, three repetitions (each with its
/// own limits, checks and fast peers, so that an area takes minutes), wall time.
inline benchmark::internal::Benchmark* large(benchmark::internal::Benchmark* benchmark,
                                             int calls_a_repetition) {
  return benchmark->UseManualTime()
      ->Iterations(calls_a_repetition)
      ->Repetitions(3)
      ->Unit(benchmark::kMillisecond);
}

}  // namespace pare::bench
