// SPDX-License-Identifier: Apache-2.0

/// \file
/// Scores of a thousand features with planted truth: LeAP, which trains its model beside the gates,
/// against permutation importance of the same model when it is trained already.

#include "counters.hpp"
#include "random_data.hpp"
#include "workload.hpp"

#include <pare/feature/importance/group_lasso.hpp>
#include <pare/feature/importance/permutation_importance.hpp>
#include <pare/feature/score.hpp>

#include <benchmark/benchmark.h>
#include <Eigen/Core>

#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

namespace {
using namespace pare::bench;
using namespace pare::feature;
using pare::Index;

/// Normal columns of which every second one adds to the logit of the label.
struct PlantedTable {
  PlantedTable(Index rows, Index features, double effect)
      : layout(FieldLayout::scalars(features)),
        training(rows - rows / 5, features),
        holdout(rows / 5, features) {
    SplitMix64 random(1);
    std::vector<double> weights;
    for (Index j = 0; j < features; ++j) {
      truth.push_back(j % 2 == 0 ? 1 : 0);
      const double size = effect * (0.5 + random.unit());
      weights.push_back(truth.back() == 0 ? 0 : random.unit() < 0.5 ? -size : size);
    }
    for (Index b = 0; b < rows; ++b) {
      const bool held_out = b >= training.rows();
      auto row = held_out ? holdout.row(b - training.rows()) : training.row(b);
      double logit = 0;
      for (Index j = 0; j < features; ++j) {
        row(j) = static_cast<float>(random.normal());
        logit += weights[static_cast<std::size_t>(j)] * static_cast<double>(row(j));
      }
      (held_out ? holdout_labels : labels)
          .push_back(random.unit() < 1 / (1 + std::exp(-logit)) ? 1 : 0);
    }
  }

  FieldLayout layout;
  Eigen::MatrixXf training, holdout;
  std::vector<int> labels, holdout_labels, truth;
};

constexpr Index epochs = 10, batch = 256;

/// The model as its own training leaves it: a lasso of no strength.
Mlp<float> trained_model(const PlantedTable& table) {
  Mlp<float> model(table.layout.dim());
  group_lasso(model, table.layout, table.training, table.labels,
              {.strength = 0, .epochs = epochs, .batch = batch});
  return model;
}

double auc_of(const PlantedTable& table, const Ranking& ranking) {
  // Ranks, so that the order of fields whose gates are closed counts too.
  std::vector<double> scores(ranking.order.size());
  for (std::size_t i = 0; i < scores.size(); ++i)
    scores[static_cast<std::size_t>(ranking.order[i])] = -static_cast<double>(i);
  return roc_auc(table.truth, scores);
}

/// What permutation importance takes and finds, once for all repetitions.
struct Baselines {
  double naive_seconds = 0, incremental_seconds = 0, naive_auc = 0, incremental_auc = 0;

  explicit Baselines(const PlantedTable& table) {
    Mlp<float> model = trained_model(table);
    const auto run = [&](PermutationPasses passes, double& time, double& auc) {
      PermutationImportance importance;
      time = seconds([&] {
        importance = permutation_importance(model, table.layout, table.holdout,
                                            table.holdout_labels, {.repeats = 5, .passes = passes});
      });
      auc = auc_of(table, importance.ranking());
    };
    run(PermutationPasses::Full, naive_seconds, naive_auc);
    run(PermutationPasses::Incremental, incremental_seconds, incremental_auc);
  }
};

void score(benchmark::State& state) {
  const PlantedTable& table =
      workload<PlantedTable>("planted table", [] { return PlantedTable(20000, 1000, 0.1); });
  static const Baselines baselines(table);
  double auc = 0;
  TrainLeapReport report;
  const double own = time_alone(state, [&] {
    Mlp<float> model(table.layout.dim());
    // A run as short as the model's own training.
    const double steps = static_cast<double>(epochs * table.training.rows() / batch);
    Leap<float> leap(
        table.layout,
        {.alpha_per_field = 1e-3, .donors = DonorPolicy::Shift, .learning_rate = 4 / steps});
    report =
        train_leap(model, leap, table.training, table.labels, table.holdout, table.holdout_labels,
                   {.epochs = epochs, .batch = batch, .gate_batch = batch, .pretrain_epochs = 0});
    auc = auc_of(table, leap.ranking());
  });
  set_vs(state, "permutation", baselines.naive_seconds, own);
  set_vs(state, "incremental", baselines.incremental_seconds, own);
  state.counters["auc"] = auc;
  state.counters["auc_over_permutation"] = auc - baselines.naive_auc;
  state.counters["auc_of_incremental"] = baselines.incremental_auc;
  state.counters["row_passes"] =
      static_cast<double>(report.forward_rows + report.backward_rows + report.input_gradient_rows);
  set_threads(state, 1);
}

/// The same run over more and more columns: passes stay as many.
void score_growth(benchmark::State& state) {
  const Index features = state.range(0);
  const PlantedTable& table =
      workload<PlantedTable>("planted table " + std::to_string(features),
                             [&] { return PlantedTable(5000, features, 0.1); });
  TrainLeapReport report;
  time_alone(state, [&] {
    Mlp<float> model(table.layout.dim());
    Leap<float> leap(table.layout, {.donors = DonorPolicy::Shift});
    report =
        train_leap(model, leap, table.training, table.labels, table.holdout, table.holdout_labels,
                   {.epochs = 2, .batch = batch, .gate_batch = batch, .pretrain_epochs = 0});
  });
  state.counters["row_passes"] =
      static_cast<double>(report.forward_rows + report.backward_rows + report.input_gradient_rows);
  state.SetComplexityN(features);
  set_threads(state, 1);
}

const bool registered = [] {
  large(benchmark::RegisterBenchmark("feature/score/1000", score), 1);
  benchmark::RegisterBenchmark("feature/growth/score_features", score_growth)
      ->UseManualTime()
      ->Iterations(3)
      ->Repetitions(3)
      ->Unit(benchmark::kMillisecond)
      ->Complexity(benchmark::oN)
      ->Arg(500)
      ->Arg(1000)
      ->Arg(2000)
      ->Arg(4000);
  return true;
}();

}  // namespace
