// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Path importance: shares the cost of permuting all fields at once among them, in K passes.
///
/// ```cpp
/// Ranking worth = path_importance(model, layout, x, labels, {.nodes = 8});   // of a trained model
/// Ranking ranking = open_first_by(worth.scores, leap.ranking());             // ranking.hpp
/// ```
///
/// Hold a permutation of each field fixed, and let L(g) be the loss with all gates at g. Then I_j =
/// -integral_0^1 dL/dg_j(g) dg, and sum_j I_j = L(0) - L(1): the loss with every field permuted,
/// less that of the rows as they are. The integral is a Gauss-Legendre sum of K nodes. For one
/// field alone, I_j is exactly its permutation importance; along the diagonal, fields that act
/// together share what they add together.
///
/// DERIVED, an extension of LeAP that its authors do not have; the idea is that of integrated
/// gradients (Sundararajan et al., ICML 2017) along a path of permuted mixes.

#include <pare/core/macros_off.hpp>

#include <pare/core/backend.hpp>
#include <pare/core/check.hpp>
#include <pare/core/refused_call.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/feature/fields/donors.hpp>
#include <pare/feature/fields/field_layout.hpp>
#include <pare/feature/importance/detail/gauss_legendre.hpp>
#include <pare/feature/importance/detail/input_gradients.hpp>
#include <pare/feature/leap/mix.hpp>
#include <pare/feature/model/detail/model_on.hpp>
#include <pare/feature/model/model.hpp>
#include <pare/feature/ranking.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <type_traits>
#include <vector>

namespace pare::feature {

/// Options of path_importance.
struct PathOptions {
  Index nodes = 8;     ///< K, 1 to 64; the sum is exact to 1e-3 with 8 where the model is smooth,
                       ///< and a few percent off where it has kinks (relu)
  Index batch = 4096;  ///< rows among which fields are permuted, at least 2
  DonorPolicy donors = DonorPolicy::BaseShift;
  std::uint64_t seed = 0;
};

namespace detail {
PARE_ABI_BEGIN

/// The integrals of a batch, weighted into `scores`.
template <class B, class M>
class PathIntegral {
 public:
  using T = typename M::scalar;

  PathIntegral(const B& backend, M& model, const FieldLayout& layout, const PathOptions& options)
      : backend_(backend),
        model_(model),
        layout_(layout),
        options_(options),
        quadrature_(gauss_legendre(options.nodes)) {}

  void add(const LabelledRows<T>& batch, std::uint64_t step, double weight,
           std::vector<double>& scores) {
    const Donors donors(options_.donors, options_.seed, step, batch.rows(), layout_);
    const TensorView<T, 2> mixed = like(batch.x, mixed_), gradient = like(batch.x, gradient_);
    std::vector<T> logits(batch.labels.size()), slopes(batch.labels.size());
    for (std::size_t k = 0; k < quadrature_.nodes.size(); ++k) {
      const std::vector<double> gates(scores.size(), quadrature_.nodes[k]);
      mix_forward(backend_, batch.x, gates, donors, mixed);
      model_.forward(as_const(mixed), logits);
      logistic_gradient<T>(logits, batch.labels, slopes);
      model_.input_gradient(slopes, gradient);
      mix_backward_gates(backend_, batch.x, gates, donors, gradient, gradients_);
      for (std::size_t j = 0; j < scores.size(); ++j)
        scores[j] -= weight * quadrature_.weights[k] * gradients_.gates[j];
    }
  }

 private:
  const B& backend_;
  M& model_;
  const FieldLayout& layout_;
  PathOptions options_;
  Quadrature quadrature_;
  AlignedBuffer<T> mixed_, gradient_;
  MixGradients gradients_;
};

PARE_ABI_END
}  // namespace detail
PARE_ABI_BEGIN

/// Ranks the fields by I_j.
///
/// \param backend of the mix and of the model's passes (model.hpp); left out: pare::simd
/// \param model   fitted; its parameters are not changed
/// \param layout  the fields
/// \param x       [rows x dim] of the model's scalar, at least 2 rows, rows or columns contiguous
/// \param labels  [rows] 0 or 1
/// \return        scores: I_j in units of the loss; negative where permuting lowers the loss
/// \throws std::invalid_argument if a shape, a stride or a label does not fit, an option is out of
///         its range, or a score is not finite
///
/// A last batch of one row is left out. Cost: K passes of the rows forward and back to the input,
/// whatever the number of fields. Memory: two batches and what the mix keeps.
template <Backend B, Model M, RowsOf<M> X, NumberList Y>
Ranking path_importance(const B& backend, M& model, const FieldLayout& layout, const X& x,
                        const Y& labels, const PathOptions& options = {}) {
  constexpr const char* function = "feature::path_importance";
  using T = typename M::scalar;
  const auto y = detail::labels_of_rows<T>(function, labels, as_const(to_view(x)).rows());
  const detail::LabelledRows<T> rows{as_const(to_view(x)), y};
  detail::check_fitted(function, model, layout, rows.x, y.size());
  detail::check_batch_rows(function, options.batch);
  check(options.nodes >= 1 && options.nodes <= 64, function, "nodes", options.nodes, "1 to 64");
  std::vector<double> scores(static_cast<std::size_t>(layout.fields()));
  Workspace own;
  const B kept = keeping(backend, own);
  detail::ModelOn<B, M> on(kept, model);
  detail::PathIntegral<B, detail::ModelOn<B, M>> integral(kept, on, layout, options);
  const Index used = rows.rows() % options.batch == 1 ? rows.rows() - 1 : rows.rows();
  for (Index begin = 0; begin < used; begin += options.batch) {
    const Index count = std::min(options.batch, used - begin);
    integral.add(rows.range(begin, count), static_cast<std::uint64_t>(begin / options.batch),
                 static_cast<double>(count) / static_cast<double>(used), scores);
  }
  return rank_fields(scores);
}

/// \overload
template <Model M, RowsOf<M> X, NumberList Y>
Ranking path_importance(M& model, const FieldLayout& layout, const X& x, const Y& labels,
                        const PathOptions& options = {}) {
  return path_importance(simd, model, layout, x, labels, options);
}

PARE_REFUSE_CALLS(path_importance, "feature::path_importance",
                  "after labels: wanted PathOptions, members spelt and ordered as declared",
                  (PLAIN, (roles::TakesScalar), "model", "a Model"),
                  (ANY, (roles::TakesAny), "layout", "a FieldLayout"),
                  (INPUT, (roles::ReadsSame<2>), "x", "[rows, layout.dim()]"),
                  (PLAIN, (roles::Takes<detail::IsNumberList>), "labels",
                   "a vector in memory of numbers, which std::vector<bool> is not"))

PARE_ABI_END
}  // namespace pare::feature

#include <pare/core/macros_on.hpp>
