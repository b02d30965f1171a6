// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Group lasso on the first layer: trains a model under a penalty that sets all weights of a field
/// to 0 at once.
///
/// ```cpp
/// Logistic<float> model(layout.dim());
/// Ranking ranking = group_lasso(model, layout, x, labels, {.strength = 0.01});
/// auto kept = above(ranking, 0);                 // fields whose weights are not all 0
/// ```
///
/// Loss + strength sum_j sqrt(width_j) |W_j|_F over the rows W_j of the first layer's weights that
/// field j meets; the score is |W_j|_F. After each step of the model's optimiser W_j shrinks by
/// max(0, 1 - rate strength sqrt(width_j) / |W_j|), the proximal step of the penalty. Columns
/// should have unit deviation.
///
/// Source: Yuan and Lin, "Model selection and estimation in regression with grouped variables"
/// (JRSS B 68, 2006). That the proximal step follows Adam's, with Adam's rate as its own, is the
/// usual practice with neural networks and does not find the minimiser: Adam scales its steps to a
/// size of 1, so that fields of noise become exactly 0 from a strength of about 1 on. Options that
/// turn Adam into plain descent (beta1 = beta2 = 0, a large epsilon) do find it; `Logistic` with
/// scalar fields is then the lasso.

#include <pare/core/macros_off.hpp>

#include <pare/core/check.hpp>
#include <pare/core/refused_call.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/feature/fields/field_layout.hpp>
#include <pare/feature/importance/detail/input_gradients.hpp>
#include <pare/feature/model/detail/batch_cycle.hpp>
#include <pare/feature/model/detail/model_on.hpp>
#include <pare/feature/model/model.hpp>
#include <pare/feature/ranking.hpp>

#include <cmath>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <type_traits>
#include <vector>

namespace pare::feature {

/// Options of group_lasso.
struct GroupLassoOptions {
  double strength = 1e-3;  ///< at least 0
  double rate = 1e-3;      ///< of the proximal step, above 0: the learning rate of the model's Adam
  Index epochs = 10;       ///< at least 1
  Index batch = 256;       ///< rows, at least 2
  std::uint64_t seed = 0;  ///< of the order of batches
};

/// A model whose first layer's weights [dim x units] can be shrunk: Logistic, Mlp.
template <class M>
concept FirstLayerModel = Model<M> && requires(M& model) {
  { model.first_weights() } -> std::same_as<TensorView<typename M::scalar, 2>>;
};

namespace detail {
PARE_ABI_BEGIN

/// |W_j|_F.
template <class T>
double group_norm(const FieldLayout& layout, TensorView<T, 2> weights, Index j) {
  double squares = 0;
  for (Index i = layout.offset(j); i < layout.offset(j + 1); ++i)
    for (Index h = 0; h < weights.cols(); ++h)
      squares += static_cast<double>(weights(i, h)) * static_cast<double>(weights(i, h));
  return std::sqrt(squares);
}

template <class T>
void shrink_groups(const FieldLayout& layout, double threshold, TensorView<T, 2> weights) {
  for (Index j = 0; j < layout.fields(); ++j) {
    const double norm = group_norm(layout, weights, j);
    const double cut = threshold * std::sqrt(static_cast<double>(layout.width(j)));
    const T factor = norm > cut ? static_cast<T>(1 - cut / norm) : T(0);
    for (Index i = layout.offset(j); i < layout.offset(j + 1); ++i)
      for (Index h = 0; h < weights.cols(); ++h) weights(i, h) *= factor;
  }
}

/// One step of the model on a batch as it is.
template <class M>
void step_model(M& model, const LabelledRows<typename M::scalar>& batch) {
  using T = typename M::scalar;
  std::vector<T> logits(batch.labels.size()), slopes(batch.labels.size());
  model.forward(batch.x, logits);
  logistic_gradient<T>(logits, batch.labels, slopes);
  model.backward(slopes);
  model.step();
}

PARE_ABI_END
}  // namespace detail
PARE_ABI_BEGIN

/// Trains the model under the penalty, and ranks the fields by |W_j|_F.
///
/// \param backend of the passes of the model (model.hpp); left out: pare::simd
/// \param model  at its start; trained here
/// \param layout the fields
/// \param x      [rows x dim] of the model's scalar, at least 2 rows, in random order, rows or
///               columns contiguous
/// \param labels [rows] 0 or 1
/// \return       scores: |W_j|_F, exactly 0 for fields that the penalty removed
/// \throws std::invalid_argument if a shape, a stride or a label does not fit, or an option is out
///         of its range
///
/// Cost: epochs passes of the rows forward and back, and one pass over the first layer's weights
/// per batch.
template <Backend B, FirstLayerModel M, RowsOf<M> X, NumberList Y>
Ranking group_lasso(const B& backend, M& model, const FieldLayout& layout, const X& x,
                    const Y& labels, const GroupLassoOptions& options = {}) {
  constexpr const char* function = "feature::group_lasso";
  using T = typename M::scalar;
  const auto y = detail::labels_of_rows<T>(function, labels, as_const(to_view(x)).rows());
  const detail::LabelledRows<T> rows{as_const(to_view(x)), y};
  detail::check_fitted(function, model, layout, rows.x, y.size());
  detail::check_batch_rows(function, options.batch);
  check(is_finite(options.strength) && options.strength >= 0, function, "strength",
        options.strength, "a finite number of at least 0");
  check(is_finite(options.rate) && options.rate > 0, function, "rate", options.rate,
        "a finite number above 0");
  check(options.epochs >= 1, function, "epochs", options.epochs, "at least 1");
  detail::ModelOn<B, M> on(backend, model);
  detail::BatchCycle<T> batches(rows, options.batch, options.seed, 0);
  for (Index epoch = 0; epoch < options.epochs; ++epoch) do {
      detail::step_model(on, batches.next());
      detail::shrink_groups(layout, options.rate * options.strength, model.first_weights());
    } while (!batches.at_end());
  std::vector<double> scores;
  for (Index j = 0; j < layout.fields(); ++j)
    scores.push_back(detail::group_norm(layout, model.first_weights(), j));
  return rank_fields(scores);
}

/// \overload
template <FirstLayerModel M, RowsOf<M> X, NumberList Y>
Ranking group_lasso(M& model, const FieldLayout& layout, const X& x, const Y& labels,
                    const GroupLassoOptions& options = {}) {
  return group_lasso(simd, model, layout, x, labels, options);
}

PARE_REFUSE_CALLS(group_lasso, "feature::group_lasso",
                  "after labels: wanted GroupLassoOptions, members spelt and ordered as declared",
                  (PLAIN, (roles::TakesScalar), "model", "a Model"),
                  (ANY, (roles::TakesAny), "layout", "a FieldLayout"),
                  (INPUT, (roles::ReadsSame<2>), "x", "[rows, layout.dim()]"),
                  (PLAIN, (roles::Takes<detail::IsNumberList>), "labels",
                   "a vector in memory of numbers, which std::vector<bool> is not"))

PARE_ABI_END
}  // namespace pare::feature

#include <pare/core/macros_on.hpp>
