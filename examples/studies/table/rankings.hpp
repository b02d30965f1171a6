// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Rankings of the fields of a table by LeAP, by permutation importance, and at random.

#include "table/data_table.hpp"
#include "table/embedded_model.hpp"
#include "table/train.hpp"

#include <pare/feature/importance/path_importance.hpp>
#include <pare/feature/importance/permutation_importance.hpp>
#include <pare/feature/leap/leap.hpp>
#include <pare/feature/ranking.hpp>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <optional>
#include <random>
#include <string>
#include <vector>

namespace table {

struct RankOptions {
  ModelOptions model;
  TrainOptions training;
  /// What a field of average divergence must save to stay, times two; none: as many as the held-out
  /// rows can show, max(1e-3, 3 / rows).
  std::optional<double> alpha{};
  Index repeats = 5;  ///< of permutation importance
};

/// What a method says of the fields.
struct MethodRanking {
  std::string method;
  pare::feature::Ranking ranking;
  double seconds = 0;  ///< from the table to the ranking, the training of its model included
  Index selected = 0;  ///< fields that the method itself would keep
};

namespace detail {

template <class F>
double seconds(const F& f) {
  const auto start = std::chrono::steady_clock::now();
  f();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

}  // namespace detail

/// Steps of the gates that tell fields from noise, however small the table.
inline constexpr Index gate_steps = 1000;

/// By the gates of one training run, which begin when the model has learned: those that are open by
/// what their fields are worth to the model on the held-out rows, the others by how long they were
/// open.
inline MethodRanking rank_by_leap(const Table& table, const Split& split,
                                  const RankOptions& options) {
  MethodRanking result{"LeAP", {}, 0, 0};
  result.seconds = detail::seconds([&] {
    EmbeddedModel model(table, split.train, options.model);
    const auto held_out = static_cast<double>(split.holdout.size());
    TrainOptions training = options.training;
    training.epochs = std::max<Index>(training.epochs / 2, 1);
    train(model, split.train, training);
    const Index batches = Batches(split.train, training.batch, 0).count();
    training.epochs = std::max(options.training.epochs, (gate_steps - 1) / batches + 1);
    // From 1, a gate takes 1 / learning_rate steps to close.
    const auto steps = static_cast<double>(training.epochs * batches);
    pare::feature::Leap<float> gates(
        model.layout(), {.alpha_per_field = options.alpha.value_or(std::max(1e-3, 3 / held_out)),
                         .learning_rate = std::max(1e-3, 8 / steps),
                         .seed = options.training.seed});
    train_with_gates(model, gates, split.train, split.holdout, training);
    const auto worth = pare::feature::path_importance(
        model.network(), model.layout(), model.inputs(split.holdout), model.labels(split.holdout),
        {.seed = options.training.seed});
    result.ranking = open_first_by(worth.scores, gates.ranking_by_time_open());
    result.selected = static_cast<Index>(above(result.ranking).size());
  });
  return result;
}

/// By what permuting a field of the held-out rows costs a trained model in AUC. It would keep what
/// costs more than two standard errors of its repeats.
inline MethodRanking rank_by_permutation(const Table& table, const Split& split,
                                         const RankOptions& options) {
  MethodRanking result{"permutation", {}, 0, 0};
  result.seconds = detail::seconds([&] {
    EmbeddedModel model(table, split.train, options.model);
    train(model, split.train, options.training);
    const auto importance = pare::feature::permutation_importance(
        model.network(), model.layout(), model.inputs(split.holdout), model.labels(split.holdout),
        {.repeats = options.repeats, .seed = options.training.seed});
    result.ranking = importance.ranking();
    const double repeats = static_cast<double>(options.repeats);
    result.selected =
        (importance.mean.array() > 2 * importance.std.array() / std::sqrt(repeats)).count();
  });
  return result;
}

/// In an order drawn from the seed.
inline MethodRanking rank_at_random(const Table& table, std::uint64_t seed) {
  std::mt19937_64 bits(seed);
  std::vector<double> scores(table.fields.size());
  double score = 0;
  for (const Index j : shuffled(static_cast<Index>(scores.size()), bits))
    scores[static_cast<std::size_t>(j)] = score++;
  return {"random", pare::feature::rank_fields(scores), 0, 0};
}

/// The AUC, on rows not seen, of a model trained anew on the best `kept` fields.
inline double auc_of_best(const Table& table, const Split& split,
                          const pare::feature::Ranking& ranking, Index kept,
                          const RankOptions& options) {
  std::vector<Index> best = top_k(ranking, kept);
  std::sort(best.begin(), best.end());  // all fields are the same model, whoever ranked them
  const Table some = table.with_fields(best);
  EmbeddedModel model(some, split.seen(), options.model);
  train(model, split.seen(), options.training);
  return auc_of(model, split.test);
}

}  // namespace table
