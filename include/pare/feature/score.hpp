// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Scores of all features from one training run: LeAP with a built-in model.
///
/// ```cpp
/// auto scores = score_features(x, labels);            // each column a feature
/// auto kept   = above(scores.ranking);                // whose gate stayed open
/// auto unsure = undetermined_fields(scores.ranking);  // too little was seen of these
/// auto fields = score_features(x, labels, {.layout = FieldLayout({1, 1, 64})});
/// ```
///
/// A built-in model and the gates train in turn (train_leap.hpp does the same with your own model).
/// Each field, one column or several, has a gate in [0, 1], which closes if the field does not
/// help. The number of rows that pass the model does not depend on the number of features. Source:
/// LeAP (arXiv 2606.01111). Its penalty is reconstructed here (divergence.hpp); the order of fields
/// whose gates stay open is our own (path_importance.hpp).

#include <pare/core/macros_off.hpp>

#include <pare/core/backend.hpp>
#include <pare/core/check.hpp>
#include <pare/core/refused_call.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/feature/fields/detail/copied_fields.hpp>
#include <pare/feature/fields/field_layout.hpp>
#include <pare/feature/importance/path_importance.hpp>
#include <pare/feature/leap/detail/split_rows.hpp>
#include <pare/feature/leap/leap.hpp>
#include <pare/feature/leap/train_leap.hpp>
#include <pare/feature/model/factorization_machine.hpp>
#include <pare/feature/model/logistic.hpp>
#include <pare/feature/model/mlp.hpp>
#include <pare/feature/model/model.hpp>
#include <pare/feature/ranking.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <type_traits>
#include <vector>

namespace pare::feature {

PARE_ABI_BEGIN

/// Which built-in model scores.
enum class ScoreModel { Logistic, FactorizationMachine, Mlp };

/// Options of score_features.
struct ScoreOptions {
  /// The fields; none: each column is one.
  FieldLayout layout{};

  ScoreModel model = ScoreModel::Mlp;
  LogisticOptions logistic{.adam = {.learning_rate = 3e-3}};
  FactorizationMachineOptions factorization_machine{.adam = {.learning_rate = 3e-3}};
  MlpOptions mlp{.adam = {.learning_rate = 3e-3}};

  /// The share of rows, of each class, that only the gates learn from; in (0, 1).
  double holdout = 0.2;

  /// Subtracts the mean of the training rows from each column. Gates, divergence and their
  /// gradients do not change by it. The built-in models need it: they start at 0 and take small
  /// steps, so they cannot use a column that lies many deviations from 0 (years, ages, times).
  /// Switch it off only for columns that are centred already.
  bool center = true;

  /// Divides each column by its deviation on the training rows. Without it, the caller's units
  /// decide how large a gate's penalty is.
  bool scale = true;

  TrainLeapOptions training{};

  /// LeapOptions::alpha_per_field, the strength of the penalty, at least 0. Left out: 1e-3, or 3 /
  /// held-out rows if that is more, since few rows cannot show a smaller gain from a field.
  std::optional<double> alpha_per_field{};

  /// Leaves out fields that are copies of an earlier field: equal numbers in every row, once
  /// columns are centred and scaled. They are then Inactive, with a gate of 0 (Scores::copy_of).
  /// Without this, all but one of the gates of copies close only from about 20 times the default
  /// penalty on; copies that are only nearly equal need that much too.
  bool drop_copies = true;

  /// Options of the gates. Rows come in random order here, so the cheapest choice of donors (the
  /// rows that lend a field another value) is good enough. `alpha_per_field` and `learning_rate`
  /// are not read.
  LeapOptions leap{.donors = DonorPolicy::Shift};

  /// Learning rate of the gates, above 0. Left out: 1e-3, or 8 / steps if the run is too short for
  /// 1e-3 to close a gate.
  std::optional<double> gate_learning_rate{};

  std::uint64_t seed = 0;  ///< of split, batches, donors and model; added to the seeds inside
};

/// What score_features found.
struct Scores {
  /// Scores are the gates. Fields with open gates come first, in the order of `importance`. The
  /// others follow: the longer a gate was open, the earlier (Leap::ranking_by_time_open).
  Ranking ranking;
  std::vector<double> gates;       ///< [fields] in [0, 1]; above 0.5: to be kept. 0 of
                                   ///< Inactive fields
  std::vector<double> importance;  ///< [fields] path_importance of the trained model, in loss of
                                   ///< the held-out rows
  std::vector<std::optional<Index>> copy_of;  ///< [fields] the field that a field is a copy of
  double polarization = 0;                    ///< Leap::polarization
  TrainLeapReport training;
  Index importance_rows = 0;  ///< rows that passed the model forward, and back to the input, for
                              ///< `importance`
};

PARE_ABI_END

namespace detail {
PARE_ABI_BEGIN

/// The steps that a run will take, less what offsets of epochs leave out. The options are planned.
inline double expected_gate_steps(const TrainLeapOptions& options, Index rows) {
  const auto steps = static_cast<double>(epoch_steps(*options.batch, rows));
  return std::max(
      static_cast<double>(*options.epochs) * steps / static_cast<double>(options.gate_every), 1.0);
}

inline LeapOptions leap_options(const ScoreOptions& options, const TrainLeapOptions& training,
                                Index training_rows, Index holdout_rows) {
  LeapOptions leap = options.leap;
  leap.alpha_per_field =
      options.alpha_per_field.value_or(std::max(1e-3, 3 / static_cast<double>(holdout_rows)));
  leap.seed += options.seed;
  leap.learning_rate = options.gate_learning_rate.value_or(
      std::max(1e-3, 8 / expected_gate_steps(training, training_rows)));
  return leap;
}

/// Path importance of the held-out rows, mean of some permutations.
template <class B, class M, class T>
std::vector<double> mean_path_importance(const B& backend, M& model, const FieldLayout& layout,
                                         const LabelledRows<T>& rows, std::uint64_t seed,
                                         Index& passed) {
  constexpr int repeats = 4;
  constexpr Index nodes = 4;
  std::vector<double> mean(static_cast<std::size_t>(layout.fields()));
  for (int repeat = 0; repeat < repeats; ++repeat) {
    const Ranking ranking =
        path_importance(backend, model, layout, rows.x, rows.labels,
                        {.nodes = nodes, .seed = seed * repeats + static_cast<unsigned>(repeat)});
    for (std::size_t j = 0; j < mean.size(); ++j) mean[j] += ranking.scores[j] / repeats;
    passed += nodes * rows.rows();
  }
  return mean;
}

template <class B, class T, class M>
Scores score_with(const B& backend, M&& model, const FieldLayout& layout, const SplitRows<T>& rows,
                  const ScoreOptions& options) {
  TrainLeapOptions training = planned(options.training, rows.training.rows());
  training.seed += options.seed;
  Leap<T> leap(layout, leap_options(options, training, rows.training.rows(), rows.holdout.rows()));
  Scores scores;
  scores.training = train_model(backend, model, leap, rows.training, rows.holdout, training);
  scores.gates = leap.gates();
  scores.polarization = leap.polarization();
  scores.importance = mean_path_importance(backend, model, layout, rows.holdout, options.seed,
                                           scores.importance_rows);
  scores.ranking = open_first_by(scores.importance, leap.ranking_by_time_open());
  return scores;
}

PARE_ABI_END
}  // namespace detail
PARE_ABI_BEGIN

/// Scores every feature of a table in one training run.
///
/// \param backend left out: pare::simd. The reference sums in double and calls no kernel
/// \param x       [rows x dim] float or double, any strides; finite
/// \param labels  [rows] 0 or 1; at least two of each for each of training and hold-out
/// \throws std::invalid_argument if a size does not fit, a number is not finite or, once centred
///         and scaled, above 2^60 (float) or 2^500 (double), a label is neither 0 nor 1, a class
///         has too few rows, or an option is out of its range
///
/// Columns that never change, and copies, are Inactive in the ranking. Cost: that of train_leap;
/// besides, x is copied once, shuffled, and the held-out rows pass the model 16 times, forward and
/// back to the input. Memory: that copy.
template <Backend B, RowsIn X, NumberList Y>
Scores score_features(const B& backend, const X& x, const Y& labels,
                      const ScoreOptions& options = {}) {
  constexpr const char* function = "feature::score_features";
  using T = scalar_of<X>;
  const TensorView<const T, 2> view = as_const(to_view(x));
  check_view(function, "x", view);
  const auto y = detail::labels_of_rows<T>(function, labels, view.rows());
  check(view.cols() >= 1, function, "x", view.extent, "at least one column");
  const FieldLayout layout =
      options.layout.fields() > 0 ? options.layout : FieldLayout::scalars(view.cols());
  check(view.cols() == layout.dim(), function, "x", view.extent,
        std::to_string(layout.dim()) + " columns");
  detail::validate(function, options.training);
  check_enumerator(function, "model", options.model, ScoreModel::Mlp);
  const double rate = options.gate_learning_rate.value_or(1);
  check(is_finite(rate) && rate > 0, function, "gate_learning_rate", rate,
        "a finite number above 0");
  const double alpha = options.alpha_per_field.value_or(0);
  check(is_finite(alpha) && alpha >= 0, function, "alpha_per_field", alpha,
        "a finite number of at least 0");
  // Fields of several columns are mixed row by row: the model wants one matrix.
  const bool by_columns = layout.dim() == layout.fields();
  detail::SplitRows<T> rows(function, view, std::span<const T>(y), options.holdout,
                            {.center = options.center, .scale = options.scale}, by_columns,
                            options.seed);
  std::vector<std::optional<Index>> copy_of(static_cast<std::size_t>(layout.fields()));
  if (options.drop_copies) copy_of = detail::drop_copies(layout, rows);
  const auto run = [&](auto&& model) {
    Scores scores = detail::score_with<B, T>(backend, model, layout, rows, options);
    for (std::size_t j = 0; j < copy_of.size(); ++j)
      if (scores.ranking.status[j] == FieldStatus::Inactive) scores.gates[j] = 0;
    scores.copy_of = copy_of;
    return scores;
  };
  if (options.model == ScoreModel::Logistic)
    return run(Logistic<T>(layout.dim(), options.logistic));
  if (options.model == ScoreModel::FactorizationMachine) {
    FactorizationMachineOptions of_model = options.factorization_machine;
    of_model.seed += options.seed;
    return run(FactorizationMachine<T>(layout.dim(), of_model));
  }
  MlpOptions of_model = options.mlp;
  of_model.seed += options.seed;
  return run(Mlp<T>(layout.dim(), of_model));
}

/// \overload
template <RowsIn X, NumberList Y>
Scores score_features(const X& x, const Y& labels, const ScoreOptions& options = {}) {
  return score_features(simd, x, labels, options);
}

PARE_REFUSE_CALLS(score_features, "feature::score_features",
                  "after labels: wanted ScoreOptions, members spelt and ordered as declared",
                  (INPUT, (roles::ReadsCompute<2>), "x", "[rows, features]"),
                  (PLAIN, (roles::Takes<detail::IsNumberList>), "labels",
                   "a vector in memory of numbers, which std::vector<bool> is not"))

PARE_ABI_END
}  // namespace pare::feature

#include <pare/core/macros_on.hpp>
