// SPDX-License-Identifier: Apache-2.0

/// \file
/// The fields that score_features puts first, from 300 to 30,000 rows of nine kinds of tables,
/// against permutation importance (5 repeats) of the same network: means of 8 tables, of 4 from
/// 3,000 rows on, each on a thread of its own.

#include "counters.hpp"
#include "kept_fields.hpp"

#include <benchmark/benchmark.h>

#include <cstdint>
#include <string>
#include <vector>

namespace {
using namespace pare::bench;
using pare::Index;

void kept(benchmark::State& state, const std::string& design, Index rows) {
  const Index tables = rows < 3000 ? 8 : 4;
  std::vector<KeptComparison> all(static_cast<std::size_t>(tables));
  time_alone(state, [&] {
    over_ranges(all_threads(), tables, 1, [&](Index seed, Index) {
      all[static_cast<std::size_t>(seed)] =
          compare_kept(design, rows, static_cast<std::uint64_t>(seed));
    });
  });
  KeptComparison mean;
  const auto share = 1 / static_cast<double>(tables);
  for (const KeptComparison& one : all) {
    mean.leap.signal_auc += share * one.leap.signal_auc;
    mean.leap.model_auc += share * one.leap.model_auc;
    mean.permutation.signal_auc += share * one.permutation.signal_auc;
    mean.permutation.model_auc += share * one.permutation.model_auc;
  }
  state.counters["auc"] = mean.leap.signal_auc;
  state.counters["auc_of_permutation"] = mean.permutation.signal_auc;
  state.counters["model_auc"] = mean.leap.model_auc;
  state.counters["model_auc_of_permutation"] = mean.permutation.model_auc;
  set_threads(state, all_threads());
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
