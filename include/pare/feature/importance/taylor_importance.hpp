// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// First-order permutation importance (SHARK's F-permutation): what replacing a field by its mean
/// would cost each row, to first order.
///
/// ```cpp
/// Ranking ranking = taylor_importance(model, layout, x, labels);   // of a trained model
/// auto kept = top_k(ranking, 10);
/// ```
///
/// I_j = 1/N sum_b |sum_k dL_b/dx_bk (mean_k - x_bk)| over the columns k of field j, with L_b the
/// loss of row b. It takes one pass forward and back. Without the absolute value it equals the gate
/// gradient of LeAP at a gate of 1, averaged over all permutations (derived).
///
/// Source: Zhang et al., "SHARK" (CIKM 2023), as the code of ERASE and LeAP has it.

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
#include <limits>
#include <type_traits>
#include <vector>

namespace pare::feature {

/// Options of taylor_importance.
struct TaylorOptions {
  Index batch = 512;  ///< rows that pass the model at a time, at least 2; the result is the same
};

namespace detail {
PARE_ABI_BEGIN

template <class T>
std::vector<T> column_means(TensorView<const T, 2> x) {
  std::vector<T> means;
  for (Index i = 0; i < x.cols(); ++i) {
    double sum = 0;
    for (Index b = 0; b < x.rows(); ++b) sum += static_cast<double>(x(b, i));
    means.push_back(static_cast<T>(sum / static_cast<double>(x.rows())));
  }
  return means;
}

/// |sum_k g_bk (mean_k - x_bk)| summed over the rows.
template <class T>
double taylor_sum(TensorView<const T, 2> x, TensorView<const T, 2> gradient, const T* means) {
  double sum = 0;
  for (Index b = 0; b < x.rows(); ++b) {
    double row = 0;
    for (Index k = 0; k < x.cols(); ++k)
      row += static_cast<double>(gradient(b, k)) *
             (static_cast<double>(means[k]) - static_cast<double>(x(b, k)));
    sum += std::abs(row);
  }
  return sum;
}

PARE_ABI_END
}  // namespace detail
PARE_ABI_BEGIN

/// Ranks the fields by I_j.
///
/// \param backend of the passes of the model (model.hpp); left out: pare::simd
/// \param model   fitted; its parameters are not changed
/// \param layout  the fields
/// \param x       [rows x dim] of the model's scalar, at least 2 rows, rows or columns contiguous
/// \param labels  [rows] 0 or 1
/// \return        scores: I_j, at least 0, in units of the loss
/// \throws std::invalid_argument if a shape, a stride or a label does not fit, an option is out of
///         its range, or a score is not finite
///
/// Cost: one pass of the rows forward and back to the input. Memory: the gradient of one batch.
template <Backend B, Model M, RowsOf<M> X, NumberList Y>
Ranking taylor_importance(const B& backend, M& model, const FieldLayout& layout, const X& x,
                          const Y& labels, const TaylorOptions& options = {}) {
  constexpr const char* function = "feature::taylor_importance";
  using T = typename M::scalar;
  const TensorView<const T, 2> rows = as_const(to_view(x));
  const auto y = detail::labels_of_rows<T>(function, labels, rows.rows());
  detail::check_fitted(function, model, layout, rows, y.size());
  detail::check_batch_rows(function, options.batch);
  const std::vector<T> means = detail::column_means(rows);
  std::vector<double> scores(static_cast<std::size_t>(layout.fields()));
  const auto add = [&](const detail::LabelledRows<T>& part, TensorView<const T, 2> gradient) {
    // The gradient is of the mean over the part; N times the mean over all rows is wanted.
    const double weight = static_cast<double>(part.rows()) / static_cast<double>(rows.rows());
    for (Index j = 0; j < layout.fields(); ++j)
      scores[static_cast<std::size_t>(j)] +=
          weight * detail::taylor_sum(detail::field_columns(layout, part.x, j),
                                      detail::field_columns(layout, gradient, j),
                                      means.data() + layout.offset(j));
  };
  detail::ModelOn<B, M> on(backend, model);
  detail::for_each_input_gradient(on, {rows, y}, options.batch, std::numeric_limits<Index>::max(),
                                  add);
  return rank_fields(scores);
}

/// \overload
template <Model M, RowsOf<M> X, NumberList Y>
Ranking taylor_importance(M& model, const FieldLayout& layout, const X& x, const Y& labels,
                          const TaylorOptions& options = {}) {
  return taylor_importance(simd, model, layout, x, labels, options);
}

PARE_REFUSE_CALLS(taylor_importance, "feature::taylor_importance",
                  "after labels: wanted TaylorOptions, members spelt and ordered as declared",
                  (PLAIN, (roles::TakesScalar), "model", "a Model"),
                  (ANY, (roles::TakesAny), "layout", "a FieldLayout"),
                  (INPUT, (roles::ReadsSame<2>), "x", "[rows, layout.dim()]"),
                  (PLAIN, (roles::Takes<detail::IsNumberList>), "labels",
                   "a vector in memory of numbers, which std::vector<bool> is not"))

PARE_ABI_END
}  // namespace pare::feature

#include <pare/core/macros_on.hpp>
