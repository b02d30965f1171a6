// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Mask-gradient importance (SFS): the gradient of the loss by a multiplicative mask on each field,
/// at a mask of 1.
///
/// ```cpp
/// Ranking ranking = mask_gradient_importance(model, layout, x, labels);   // of a trained model
/// auto kept = top_share(ranking, 0.5);
/// auto quick = mask_gradient_importance(model, layout, x, labels, {.batches = 10});
/// ```
///
/// I_j = mean over batches of |sum_b <x_bj, dL/dx_bj>|, L the mean loss of the batch, scaled so
/// that the fields add up to 1. One pass forward and back, no training of masks.
///
/// Source: SFS of Wang et al., "Single-shot feature selection for multi-task recommendations"
/// (SIGIR 2023), as the code of ERASE and LeAP has it.

#include <pare/core/macros_off.hpp>

#include <pare/core/check.hpp>
#include <pare/core/refused_call.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/feature/fields/detail/field_columns.hpp>
#include <pare/feature/fields/field_layout.hpp>
#include <pare/feature/importance/detail/input_gradients.hpp>
#include <pare/feature/model/detail/model_on.hpp>
#include <pare/feature/model/model.hpp>
#include <pare/feature/ranking.hpp>

#include <cmath>
#include <cstddef>
#include <type_traits>
#include <vector>

namespace pare::feature {

/// Options of mask_gradient_importance.
struct MaskGradientOptions {
  Index batch = 512;    ///< rows of a batch, at least 2; the sum inside the absolute value is its
  Index batches = 100;  ///< at most, at least 1
};

PARE_ABI_BEGIN

/// Ranks the fields by I_j.
///
/// \param backend of the passes of the model (model.hpp); left out: pare::simd
/// \param model   fitted, or trained for an epoch; its parameters are not changed
/// \param layout  the fields
/// \param x       [rows x dim] of the model's scalar, at least 2 rows, rows or columns contiguous
/// \param labels  [rows] 0 or 1
/// \return        scores: I_j, which add up to 1, or all 0 where no gradient reaches any field
/// \throws std::invalid_argument if a shape, a stride or a label does not fit, an option is out of
///         its range, or a score is not finite
///
/// Cost: one pass of at most batch * batches rows forward and back to the input. Memory: the
/// gradient of one batch.
template <Backend B, Model M, RowsOf<M> X, NumberList Y>
Ranking mask_gradient_importance(const B& backend, M& model, const FieldLayout& layout, const X& x,
                                 const Y& labels, const MaskGradientOptions& options = {}) {
  constexpr const char* function = "feature::mask_gradient_importance";
  using T = typename M::scalar;
  const TensorView<const T, 2> rows = as_const(to_view(x));
  const auto y = detail::labels_of_rows<T>(function, labels, rows.rows());
  detail::check_fitted(function, model, layout, rows, y.size());
  detail::check_batch_rows(function, options.batch);
  check(options.batches >= 1, function, "batches", options.batches, "at least 1");
  std::vector<double> scores(static_cast<std::size_t>(layout.fields()));
  double total = 0;
  const auto add = [&](const detail::LabelledRows<T>& part, TensorView<const T, 2> gradient) {
    for (Index j = 0; j < layout.fields(); ++j) {
      double slope = 0;
      for (Index b = 0; b < part.rows(); ++b)
        slope += detail::field_dot(detail::field_columns(layout, part.x, j),
                                   detail::field_columns(layout, gradient, j), b);
      scores[static_cast<std::size_t>(j)] += std::abs(slope);
      total += std::abs(slope);
    }
  };
  detail::ModelOn<B, M> on(backend, model);
  detail::for_each_input_gradient(on, {rows, y}, options.batch, options.batches, add);
  if (total > 0)
    for (double& score : scores) score /= total;
  return rank_fields(scores);
}

/// \overload
template <Model M, RowsOf<M> X, NumberList Y>
Ranking mask_gradient_importance(M& model, const FieldLayout& layout, const X& x, const Y& labels,
                                 const MaskGradientOptions& options = {}) {
  return mask_gradient_importance(simd, model, layout, x, labels, options);
}

PARE_REFUSE_CALLS(mask_gradient_importance, "feature::mask_gradient_importance",
                  "after labels: wanted MaskGradientOptions, members spelt and ordered as declared",
                  (PLAIN, (roles::TakesScalar), "model", "a Model"),
                  (ANY, (roles::TakesAny), "layout", "a FieldLayout"),
                  (INPUT, (roles::ReadsSame<2>), "x", "[rows, layout.dim()]"),
                  (PLAIN, (roles::Takes<detail::IsNumberList>), "labels",
                   "a vector in memory of numbers, which std::vector<bool> is not"))

PARE_ABI_END
}  // namespace pare::feature

#include <pare/core/macros_on.hpp>
