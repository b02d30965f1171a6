// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// What dropping the worst fields of each ranking costs, over splits of the rows.

#include "table/data_table.hpp"
#include "table/rankings.hpp"

#include <pare/core/parallel.hpp>
#include <pare/feature/metrics.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <random>
#include <string>
#include <vector>

namespace table {

/// Shares of the fields that are dropped.
inline constexpr double dropped_shares[] = {0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9};

inline Index kept_of(Index fields, double dropped) {
  return std::max<Index>(1, std::llround((1 - dropped) * static_cast<double>(fields)));
}

/// One method on one split.
struct MethodRun {
  MethodRanking ranking;
  std::vector<double> aucs;  ///< after dropping each of dropped_shares
};

/// All methods on one split, in the same order on each.
using SplitRun = std::vector<MethodRun>;

/// Ranks the fields by every method and scores what each leaves.
inline SplitRun run_split(const Table& table, RankOptions options, std::uint64_t seed) {
  std::mt19937_64 bits(seed);
  const Split split = split_rows(table, bits);
  options.model.seed = options.training.seed = seed;
  SplitRun run;
  run.push_back({rank_by_leap(table, split, options), {}});
  run.push_back({rank_by_permutation(table, split, options), {}});
  run.push_back({rank_at_random(table, seed), {}});
  for (MethodRun& method : run)
    for (const double dropped : dropped_shares)
      method.aucs.push_back(auc_of_best(table, split, method.ranking.ranking,
                                        kept_of(static_cast<Index>(table.fields.size()), dropped),
                                        options));
  return run;
}

/// Runs on splits 0, 1, ..., several at a time. The numbers do not depend on how many; the times
/// do.
inline std::vector<SplitRun> run_splits(const Table& table, const RankOptions& options,
                                        std::size_t splits, int threads) {
  // What a table lacks is said before hours of training, not after.
  for (std::size_t seed = 0; seed < splits; ++seed) {
    std::mt19937_64 bits(seed);
    split_rows(table, bits);
  }
  std::vector<SplitRun> runs(splits);
  pare::parallel_for(pare::DefaultExecutor{threads}, static_cast<pare::Index>(splits),
                     [&](pare::Index item, int) {
                       const auto seed = static_cast<std::size_t>(item);
                       runs[seed] = run_split(table, options, seed);
                     });
  return runs;
}

/// Means of a method over the splits.
struct MethodMeans {
  std::string method;
  std::vector<double> aucs;    ///< by dropped_shares
  std::vector<double> errors;  ///< standard errors of aucs - the AUC of all fields, split by split
  double seconds = 0, selected = 0, aukc = 0;

  /// The most fields, of dropped_shares, without which the mean AUC is still at least `least`.
  Index droppable(Index fields, double least) const {
    Index dropped = 0;
    for (std::size_t i = 0; i < aucs.size(); ++i)
      if (aucs[i] >= least) dropped = fields - kept_of(fields, dropped_shares[i]);
    return dropped;
  }
};

namespace detail {

inline double mean_of(const std::vector<double>& values) {
  double sum = 0;
  for (const double value : values) sum += value;
  return sum / static_cast<double>(values.size());
}

inline double error_of(const std::vector<double>& values) {
  const double mean = mean_of(values), n = static_cast<double>(values.size());
  double squares = 0;
  for (const double value : values) squares += (value - mean) * (value - mean);
  return std::sqrt(squares / (n - 1) / n);
}

/// AUKC over the shares that keep different numbers of fields: small tables have fewer than shares.
/// Of one field, where no area is, its height.
inline double aukc_of(const std::vector<double>& aucs, Index fields) {
  std::vector<double> kept, heights;
  for (std::size_t i = aucs.size(); i-- > 0;) {
    const auto count = static_cast<double>(kept_of(fields, dropped_shares[i]));
    if (!kept.empty() && kept.back() == count) continue;
    kept.push_back(count);
    heights.push_back(aucs[i]);
  }
  return kept.size() < 2 ? 2 * heights.front() - 1 : pare::feature::aukc(kept, heights);
}

/// One number of each split.
template <class F>
std::vector<double> of_splits(const std::vector<SplitRun>& runs, std::size_t method, const F& f) {
  std::vector<double> values(runs.size());
  std::transform(runs.begin(), runs.end(), values.begin(),
                 [&](const SplitRun& run) { return f(run[method]); });
  return values;
}

}  // namespace detail

inline MethodMeans means_of(const std::vector<SplitRun>& runs, std::size_t method, Index fields) {
  MethodMeans means{runs.front()[method].ranking.method, {}, {}};
  for (std::size_t i = 0; i < std::size(dropped_shares); ++i) {
    const auto mean = [&](const auto& f) { return detail::of_splits(runs, method, f); };
    means.aucs.push_back(detail::mean_of(mean([&](const MethodRun& run) { return run.aucs[i]; })));
    means.errors.push_back(
        detail::error_of(mean([&](const MethodRun& run) { return run.aucs[i] - run.aucs[0]; })));
  }
  means.seconds = detail::mean_of(
      detail::of_splits(runs, method, [](const MethodRun& run) { return run.ranking.seconds; }));
  means.selected = detail::mean_of(detail::of_splits(runs, method, [](const MethodRun& run) {
    return static_cast<double>(run.ranking.selected);
  }));
  means.aukc = detail::aukc_of(means.aucs, fields);
  return means;
}

}  // namespace table
