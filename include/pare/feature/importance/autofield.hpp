// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// AutoField: two logits per field, drop and keep, whose Gumbel-softmax multiplies the field.
///
/// ```cpp
/// Mlp<float> model(layout.dim());
/// Ranking ranking = autofield(model, layout, x, labels, x_held_out, labels_held_out);
/// auto kept = top_k(ranking, 10);
/// ```
///
/// p_j = softmax((l_j + gumbel noise) / tau)[keep], x'_bj = p_j x_bj. The model trains on training
/// batches; every `gate_every` model steps the logits take a step on a held-out batch, to first
/// order. tau starts at 1 and falls by 5e-5 per pass, to no less than 0.01. Both logits start at
/// 0.5. Fields are ranked by their keep logit. Larger weights behind a mask can undo it, but not
/// the permuted mix of LeAP; that is what the comparison is for.
///
/// Source: Wang et al., "AutoField" (WWW 2022), as the code of ERASE has it.

#include <pare/core/macros_off.hpp>

#include <pare/core/check.hpp>
#include <pare/core/refused_call.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/feature/fields/detail/field_columns.hpp>
#include <pare/feature/fields/field_layout.hpp>
#include <pare/feature/importance/detail/input_gradients.hpp>
#include <pare/feature/model/detail/batch_cycle.hpp>
#include <pare/feature/model/detail/model_on.hpp>
#include <pare/feature/model/model.hpp>
#include <pare/feature/ranking.hpp>
#include <pare/optim/adam.hpp>
#include <pare/optim/gate.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <type_traits>
#include <vector>

namespace pare::feature {

/// Options of autofield.
struct AutoFieldOptions {
  Index epochs = 10;                ///< at least 1
  Index batch = 256;                ///< rows, at least 2
  Index gate_every = 10;            ///< model steps for each step of the logits, at least 1
  double learning_rate = 1e-3;      ///< of Adam on the logits, above 0
  double temperature = 1;           ///< tau at the start, above 0
  double cooling = 5e-5;            ///< that tau loses with each pass, at least 0
  double least_temperature = 0.01;  ///< above 0
  std::uint64_t seed = 0;           ///< of noise and of the order of batches
};

namespace detail {
PARE_ABI_BEGIN

inline void validate(const char* function, const AutoFieldOptions& o) {
  const auto positive = [&](const char* name, double value) {
    check(is_finite(value) && value > 0, function, name, value, "a finite number above 0");
  };
  check(o.epochs >= 1, function, "epochs", o.epochs, "at least 1");
  check_batch_rows(function, o.batch);
  check(o.gate_every >= 1, function, "gate_every", o.gate_every, "at least 1");
  positive("learning_rate", o.learning_rate);
  positive("temperature", o.temperature);
  positive("least_temperature", o.least_temperature);
  check(is_finite(o.cooling) && o.cooling >= 0, function, "cooling", o.cooling,
        "a finite number of at least 0");
}

/// A model behind masks.
template <class M>
class MaskedModel {
 public:
  using T = typename M::scalar;

  MaskedModel(M& model, const FieldLayout& layout, const AutoFieldOptions& options)
      : model_(model),
        layout_(layout),
        options_(options),
        masks_(fields()),
        logits_(2 * fields(), 0.5),
        slopes_(2 * fields()),
        adam_(2 * layout.fields(), {.learning_rate = options.learning_rate}) {}

  void step_model(const LabelledRows<T>& batch) {
    forward(batch);
    model_.backward(gradients_);
    model_.step();
  }

  void step_masks(const LabelledRows<T>& batch) {
    const double tau = temperature();
    forward(batch);
    const TensorView<T, 2> gradient = like(batch.x, gradient_);
    model_.input_gradient(gradients_, gradient);
    for (std::size_t j = 0; j < fields(); ++j) {
      double slope = 0;
      const auto field = static_cast<Index>(j);
      for (Index b = 0; b < batch.rows(); ++b)
        slope += field_dot(field_columns(layout_, batch.x, field),
                           field_columns(layout_, as_const(gradient), field), b);
      slopes_[2 * j + 1] = slope * masks_[j] * (1 - masks_[j]) / tau;
      slopes_[2 * j] = -slopes_[2 * j + 1];
    }
    adam_.step(logits_, slopes_);
  }

  /// Those of keeping.
  std::vector<double> scores() const {
    std::vector<double> keep;
    for (std::size_t j = 0; j < fields(); ++j) keep.push_back(logits_[2 * j + 1]);
    return keep;
  }

 private:
  std::size_t fields() const { return static_cast<std::size_t>(layout_.fields()); }
  double temperature() const {
    return std::max(options_.least_temperature,
                    options_.temperature - options_.cooling * static_cast<double>(passes_));
  }

  /// The difference of two Gumbel numbers is a logistic one.
  void draw_masks() {
    const double tau = temperature();
    for (std::size_t j = 0; j < fields(); ++j) {
      const double noise = optim::gate_noise(optim::GateKind::GumbelSigmoid, options_.seed, passes_,
                                             static_cast<Index>(j));
      masks_[j] = sigmoid((logits_[2 * j + 1] - logits_[2 * j] + noise) / tau);
    }
    ++passes_;
  }

  void forward(const LabelledRows<T>& batch) {
    draw_masks();
    const TensorView<T, 2> masked = like(batch.x, masked_);
    for (std::size_t j = 0; j < fields(); ++j) {
      const auto from = field_columns(layout_, batch.x, static_cast<Index>(j));
      const auto to = field_columns(layout_, masked, static_cast<Index>(j));
      for (Index b = 0; b < to.rows(); ++b)
        for (Index k = 0; k < to.cols(); ++k) to(b, k) = static_cast<T>(masks_[j]) * from(b, k);
    }
    outputs_.resize(batch.labels.size());
    gradients_.resize(batch.labels.size());
    model_.forward(as_const(masked), outputs_);
    logistic_gradient<T>(outputs_, batch.labels, gradients_);
  }

  M& model_;
  const FieldLayout& layout_;
  AutoFieldOptions options_;
  std::vector<double> masks_, logits_, slopes_;
  optim::Adam<double> adam_;
  std::uint64_t passes_ = 0;
  std::vector<T> outputs_, gradients_;
  AlignedBuffer<T> masked_, gradient_;
};

PARE_ABI_END
}  // namespace detail
PARE_ABI_BEGIN

/// Trains the model and the logits of its fields in turn, and ranks the fields by their keep logit.
///
/// \param backend        of the passes of the model (model.hpp); left out: pare::simd
/// \param model          at its start; trained here
/// \param layout         the fields
/// \param x              [rows x dim] of the model's scalar, at least 2 rows, in random order, rows
///                       or columns contiguous
/// \param labels         [rows] 0 or 1
/// \param holdout        [rows x dim] that the logits learn from, otherwise as x
/// \param holdout_labels [rows] 0 or 1
/// \return               scores: the keep logits at the end
/// \throws std::invalid_argument if a shape, a stride or a label does not fit, or an option is out
///         of its range
///
/// Cost: epochs passes of the rows forward and back, and a 1 / gate_every share of that for the
/// logits. Memory: two batches and the labels.
template <Backend B, Model M, RowsOf<M> X, NumberList Y, RowsOf<M> H, NumberList Z>
Ranking autofield(const B& backend, M& model, const FieldLayout& layout, const X& x,
                  const Y& labels, const H& holdout, const Z& holdout_labels,
                  const AutoFieldOptions& options = {}) {
  constexpr const char* function = "feature::autofield";
  using T = typename M::scalar;
  detail::validate(function, options);
  const auto y = detail::labels_of_rows<T>(function, labels, to_view(x).rows());
  const auto z = detail::labels_of_rows<T>(function, holdout_labels, to_view(holdout).rows(),
                                           "holdout_labels");
  const detail::LabelledRows<T> training{as_const(to_view(x)), y};
  const detail::LabelledRows<T> held_out{as_const(to_view(holdout)), z};
  detail::check_fitted(function, model, layout, training.x, y.size());
  detail::check_labelled(function, "holdout", "holdout_labels", held_out.x, z.size(), layout.dim());
  detail::BatchCycle<T> batches(training, options.batch, options.seed, 0);
  detail::BatchCycle<T> held_out_batches(held_out, options.batch, options.seed, 1);
  detail::ModelOn<B, M> on(backend, model);
  detail::MaskedModel<detail::ModelOn<B, M>> masked(on, layout, options);
  Index steps = 0;
  for (Index epoch = 0; epoch < options.epochs; ++epoch) do {
      masked.step_model(batches.next());
      if (++steps % options.gate_every == 0) masked.step_masks(held_out_batches.next());
    } while (!batches.at_end());
  return rank_fields(masked.scores());
}

/// \overload
template <Model M, RowsOf<M> X, NumberList Y, RowsOf<M> H, NumberList Z>
Ranking autofield(M& model, const FieldLayout& layout, const X& x, const Y& labels,
                  const H& holdout, const Z& holdout_labels, const AutoFieldOptions& options = {}) {
  return autofield(simd, model, layout, x, labels, holdout, holdout_labels, options);
}

PARE_REFUSE_CALLS(
    autofield, "feature::autofield",
    "after holdout_labels: wanted AutoFieldOptions, members spelt and ordered as declared",
    (PLAIN, (roles::TakesScalar), "model", "a Model"),
    (ANY, (roles::TakesAny), "layout", "a FieldLayout"),
    (INPUT, (roles::ReadsSame<2>), "x", "[rows, layout.dim()]"),
    (PLAIN, (roles::Takes<detail::IsNumberList>), "labels",
     "a vector in memory of numbers, which std::vector<bool> is not"),
    (INPUT, (roles::ReadsSame<2>), "holdout", "[rows, layout.dim()]"),
    (PLAIN, (roles::Takes<detail::IsNumberList>), "holdout_labels",
     "a vector in memory of numbers, which std::vector<bool> is not"))

PARE_ABI_END
}  // namespace pare::feature

#include <pare/core/macros_on.hpp>
