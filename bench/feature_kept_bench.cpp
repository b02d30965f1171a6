// SPDX-License-Identifier: Apache-2.0

/// \file
/// The fields that score_features puts first, from 300 to 30,000 rows of nine kinds of tables,
/// against permutation importance (5 repeats) of the same network: means of 8 tables.

#include "counters.hpp"
#include "kept_fields.hpp"

#include <benchmark/benchmark.h>

#include <cstdint>
#include <string>

namespace {
using namespace pare::bench;
using pare::Index;

void kept(benchmark::State& state, const std::string& design, Index rows) {
  constexpr std::uint64_t tables = 8;
  KeptComparison mean;
  time_alone(state, [&] {
    mean = {};
    for (std::uint64_t seed = 0; seed < tables; ++seed) {
      const KeptComparison one = compare_kept(design, rows, seed);
      mean.leap.signal_auc += one.leap.signal_auc / tables;
      mean.leap.model_auc += one.leap.model_auc / tables;
      mean.permutation.signal_auc += one.permutation.signal_auc / tables;
      mean.permutation.model_auc += one.permutation.model_auc / tables;
    }
  });
  state.counters["auc"] = mean.leap.signal_auc;
  state.counters["auc_of_permutation"] = mean.permutation.signal_auc;
  state.counters["model_auc"] = mean.leap.model_auc;
  state.counters["model_auc_of_permutation"] = mean.permutation.model_auc;
  set_threads(state, 1);
}

const bool registered = [] {
  for (const std::string& design : kept_designs())
    for (const Index rows : {300, 1000, 3000, 10000, 30000})
      benchmark::RegisterBenchmark(("feature/kept/" + design + "/" + std::to_string(rows)).c_str(),
                                   [design, rows](benchmark::State& s) { kept(s, design, rows); })
          ->UseManualTime()
          ->Iterations(1)
          ->Unit(benchmark::kMillisecond);
  return true;
}();

}  // namespace
