// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// LeAP's training run: it trains your own model and the gates of its fields in turn.
///
/// ```cpp
/// Mlp<float> model(layout.dim());
/// Leap<float> leap(layout);
/// auto report = train_leap(model, leap, x, labels, x_held_out, labels_held_out);
/// auto kept   = above(leap.ranking());
/// ```
///
/// The model takes a step on a mixed training batch; then the gates take one on a mixed batch that
/// was held out from the model. This is first-order: the model's answer to the gates is not
/// differentiated. The loop is that of LeAP's released code (arXiv 2606.01111). How long it runs by
/// default, and that the model first trains by itself, are our choice.

#include <pare/core/macros_off.hpp>

#include <pare/core/backend.hpp>
#include <pare/core/ceil_div.hpp>
#include <pare/core/check.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/feature/importance/detail/input_gradients.hpp>
#include <pare/feature/leap/detail/mixed_model.hpp>
#include <pare/feature/leap/leap.hpp>
#include <pare/feature/metrics.hpp>
#include <pare/feature/model/detail/batch_cycle.hpp>
#include <pare/feature/model/detail/model_on.hpp>
#include <pare/feature/model/model.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <optional>
#include <span>
#include <string>
#include <type_traits>
#include <vector>

namespace pare::feature {

/// How model and gates are trained. What is left out follows from the number of rows (our choice,
/// by measurement from 300 to 30,000 rows): to tell its field from noise, a gate needs about a
/// thousand steps and a model that has learned something.
struct TrainLeapOptions {
  /// Passes over the training rows, at least 1. Left out: as many as make 1,000 steps of the gates,
  /// and at least 10.
  std::optional<Index> epochs{};

  /// Rows of a batch, at least 2; fewer if there are fewer rows. Left out: an eighth of the
  /// training rows, from 16 to 256.
  std::optional<Index> batch{};

  /// Held-out rows of a step of the gates, at least 2; fewer if there are fewer. Left out: 512.
  std::optional<Index> gate_batch{};

  Index gate_every = 1;  ///< model steps for each step of the gates, at least 1

  /// Epochs in which the model first trains by itself, on rows that are not mixed; at least 0. Left
  /// out: half of `epochs`.
  std::optional<Index> pretrain_epochs{};

  /// Training stops after this many epochs, at least 1, without a better AUC of the held-out rows
  /// (or a lower loss, if they are of one class), and the gates of the best epoch are taken. Left
  /// out: all epochs run.
  std::optional<Index> patience{};

  bool gates_on_training = false;  ///< trains the gates on the model's own rows: what it memorised
                                   ///< then looks useful. To show that, not to use it
  std::uint64_t seed = 0;          ///< of the order of batches
};

PARE_ABI_BEGIN

/// What a training run cost, and where it ended.
struct TrainLeapReport {
  Index model_steps = 0, gate_steps = 0;
  Index forward_rows = 0;          ///< rows that passed the model forward
  Index backward_rows = 0;         ///< rows whose gradient by its parameters was taken
  Index input_gradient_rows = 0;   ///< rows whose gradient by its input was taken
  double training_loss = 0;        ///< mean of the last epoch, on mixed rows
  double holdout_loss = 0;         ///< of the held-out rows, as Leap::evaluate shows them
  double holdout_auc = 0;          ///< the same; NaN where they are of one class
  std::vector<double> epoch_aucs;  ///< held out, after each epoch; only with patience
};

PARE_ABI_END

namespace detail {

PARE_ABI_BEGIN

inline void check_at_least(const char* function, const char* argument,
                           const std::optional<Index>& value, Index least) {
  check(!value || *value >= least, function, argument, value.value_or(0),
        "at least " + std::to_string(least));
}

inline void validate(const char* function, const TrainLeapOptions& options) {
  check_at_least(function, "epochs", options.epochs, 1);
  check_at_least(function, "batch", options.batch, 2);
  check_at_least(function, "gate_batch", options.gate_batch, 2);
  check(options.gate_every >= 1, function, "gate_every", options.gate_every, "at least 1");
  check_at_least(function, "pretrain_epochs", options.pretrain_epochs, 0);
  check_at_least(function, "patience", options.patience, 1);
}

/// Steps of the model in an epoch, at least; offsets of epochs leave out what is short of a batch.
inline Index epoch_steps(Index batch, Index rows) {
  return std::max<Index>(rows / std::min(batch, rows) - 1, 1);
}

/// The options with everything given.
inline TrainLeapOptions planned(TrainLeapOptions options, Index rows) {
  constexpr Index gate_steps = 1000, least_epochs = 10;
  if (!options.batch) options.batch = std::clamp<Index>(rows / 8, 16, 256);
  if (!options.gate_batch) options.gate_batch = 512;
  if (!options.epochs) {
    const Index steps = epoch_steps(*options.batch, rows);
    const Index epochs = options.gate_every < (Index{1} << 40)
                             ? ceil_div(gate_steps * options.gate_every, steps)
                             : options.gate_every;
    options.epochs = std::max(least_epochs, epochs);
  }
  if (!options.pretrain_epochs) options.pretrain_epochs = *options.epochs / 2;
  return options;
}

/// The alternation; the parts are checked and the options planned.
template <class B, class M>
class LeapTraining {
 public:
  using T = typename M::scalar;

  LeapTraining(const B& backend, M& model, Leap<T>& leap, LabelledRows<T> training,
               LabelledRows<T> holdout, const TrainLeapOptions& options)
      : model_(model),
        leap_(leap),
        holdout_(holdout),
        options_(options),
        mixed_(backend, model, leap),
        training_(training, *options.batch, options.seed, 0),
        gate_rows_(options.gates_on_training ? training : holdout, *options.gate_batch,
                   options.seed, 1) {}

  TrainLeapReport run() {
    for (Index epoch = 0; epoch < *options_.pretrain_epochs; ++epoch) pretrain_epoch();
    for (Index epoch = 0; epoch < *options_.epochs; ++epoch) {
      train_epoch();
      if (options_.patience && !improves(epoch)) break;
    }
    if (!best_thetas_.empty()) leap_.set_thetas(best_thetas_);
    evaluate();
    return report_;
  }

 private:
  void pretrain_epoch() {
    std::vector<T> logits, gradients;
    do {
      const LabelledRows<T> batch = training_.next();
      logits.resize(batch.labels.size());
      gradients.resize(logits.size());
      model_.forward(batch.x, logits);
      logistic_gradient<T>(logits, batch.labels, gradients);
      model_.backward(gradients);
      model_.step();
      count_model_step(batch.rows());
    } while (!training_.at_end());
  }

  void train_epoch() {
    double loss = 0;
    Index batches = 0;
    do {
      const LabelledRows<T> batch = training_.next();
      loss += mixed_.step_model(batch);
      ++batches;
      count_model_step(batch.rows());
      if (report_.model_steps % options_.gate_every != 0) continue;
      const LabelledRows<T> held_out = gate_rows_.next();
      mixed_.step_gates(held_out);
      ++report_.gate_steps;
      report_.forward_rows += held_out.rows();
      report_.input_gradient_rows += held_out.rows();
    } while (!training_.at_end());
    report_.training_loss = loss / static_cast<double>(batches);
  }

  void count_model_step(Index rows) {
    ++report_.model_steps;
    report_.forward_rows += rows;
    report_.backward_rows += rows;
  }

  /// Whether the best epoch is less than `patience` epochs ago.
  bool improves(Index epoch) {
    evaluate();
    report_.epoch_aucs.push_back(report_.holdout_auc);
    // Held-out rows of one class have no AUC.
    const double score =
        is_finite(report_.holdout_auc) ? report_.holdout_auc : -report_.holdout_loss;
    if (best_thetas_.empty() || score > best_score_) {
      best_score_ = score;
      best_epoch_ = epoch;
      best_thetas_.assign(leap_.thetas().begin(), leap_.thetas().end());
    }
    return epoch - best_epoch_ < *options_.patience;
  }

  void evaluate() {
    std::vector<T> logits(holdout_.labels.size());
    mixed_.evaluate(holdout_, logits);
    report_.forward_rows += holdout_.rows();
    report_.holdout_loss = logistic_loss(holdout_.labels, logits);
    const auto ones = std::count(holdout_.labels.begin(), holdout_.labels.end(), T(1));
    const bool both = ones > 0 && ones < holdout_.rows();
    report_.holdout_auc =
        both ? roc_auc(holdout_.labels, logits) : std::numeric_limits<double>::quiet_NaN();
  }

  M& model_;
  Leap<T>& leap_;
  LabelledRows<T> holdout_;
  TrainLeapOptions options_;
  MixedModel<B, M> mixed_;
  BatchCycle<T> training_, gate_rows_;
  TrainLeapReport report_;
  double best_score_ = 0;
  Index best_epoch_ = 0;
  std::vector<double> best_thetas_;
};

/// train_leap with checked parts and planned options.
template <class B, class M, class T>
TrainLeapReport train_model(const B& backend, M& model, Leap<T>& leap,
                            const LabelledRows<T>& training, const LabelledRows<T>& holdout,
                            const TrainLeapOptions& options) {
  ModelOn<B, M> on(backend, model);
  return LeapTraining<B, ModelOn<B, M>>(backend, on, leap, training, holdout, options).run();
}

PARE_ABI_END
}  // namespace detail
PARE_ABI_BEGIN

/// Trains a model and the gates of its fields in turn.
///
/// \param backend        of the mix and of the model's passes (model.hpp); left out: pare::simd
/// \param model          at its start, or further; trained here
/// \param leap           its gates; trained here
/// \param x              [rows x dim] training rows in random order, rows or columns contiguous
///                       (columns, where fields are scalars, are mixed faster)
/// \param labels         [rows] 0 or 1
/// \param holdout        [rows x dim] that the model does not train on, in random order
/// \param holdout_labels [rows] 0 or 1
/// \throws std::invalid_argument if sizes do not fit, there are fewer than 2 rows of either, a
///         label is another, or an option is out of its range. x is not searched for NaN and
///         infinities.
///
/// Cost: epochs * rows rows pass forward and backward; if gate_every is 1, as many held-out rows
/// pass forward and back to the input. Each is mixed once. Only the width of a row depends on the
/// number of fields. Memory: two batches and what the model keeps.
template <Backend B, Model M, RowsOf<M> X, NumberList Y, RowsOf<M> H, NumberList Z>
TrainLeapReport train_leap(const B& backend, M& model, Leap<typename M::scalar>& leap, const X& x,
                           const Y& labels, const H& holdout, const Z& holdout_labels,
                           const TrainLeapOptions& options = {}) {
  constexpr const char* function = "feature::train_leap";
  using T = typename M::scalar;
  detail::validate(function, options);
  check(model.dim() == leap.layout().dim(), function, "model", model.dim(), leap.layout().dim());
  const auto y = detail::labels_of_rows<T>(function, labels, to_view(x).rows());
  const auto z = detail::labels_of_rows<T>(function, holdout_labels, to_view(holdout).rows(),
                                           "holdout_labels");
  const detail::LabelledRows<T> training{as_const(to_view(x)), y};
  const detail::LabelledRows<T> held_out{as_const(to_view(holdout)), z};
  detail::check_labelled(function, "x", "labels", training.x, y.size(), model.dim());
  detail::check_labelled(function, "holdout", "holdout_labels", held_out.x, z.size(), model.dim());
  return detail::train_model(backend, model, leap, training, held_out,
                             detail::planned(options, training.rows()));
}

/// \overload
template <Model M, RowsOf<M> X, NumberList Y, RowsOf<M> H, NumberList Z>
TrainLeapReport train_leap(M& model, Leap<typename M::scalar>& leap, const X& x, const Y& labels,
                           const H& holdout, const Z& holdout_labels,
                           const TrainLeapOptions& options = {}) {
  return train_leap(simd, model, leap, x, labels, holdout, holdout_labels, options);
}

PARE_ABI_END
}  // namespace pare::feature

#include <pare/core/macros_on.hpp>
