// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// What the best router could reach: routes by the error of each expert against the dense layer,
/// and a linear router fitted to them.
///
/// ```cpp
/// RowMatrix<float> errors(rows, 8);
/// expert_errors(x, experts, dense, 2, errors);           // prior-approximate errors (FactorLLM)
/// const auto best = oracle_routes(errors, TopHalf{.k = 2});
/// const auto curve = budget_curve(x, experts, dense);    // relative error for k = 1 .. experts
/// const auto router = fit_ridge_router(x, best.ids, 8, {.ridge = 1});   // [experts, inputs]
/// const RowMatrix<float> logits = x * router.transpose();   // of Eigen's; or by a DenseLinear
/// const auto routes = route(logits, TopHalf{.k = 2});
/// ```
///
/// The prior-approximate error judges each expert alone, scaled as it would be:
///
///     err_re = mean_c ((experts / k) expert_e(x_r)_c - dense(x_r)_c)^2, the factor rounded down
///
/// Sources: FactorLLM, arXiv 2408.11855, by its code, which divides the dense layer by the factor
/// instead: all errors are then smaller by its square, and their order is the same. Ours: the
/// budget curve and the ridge router; FactorLLM trains its router by gradients.

#include <pare/core/macros_off.hpp>

#include <pare/core/backend.hpp>
#include <pare/core/check.hpp>
#include <pare/core/matrix.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/core/view_check.hpp>
#include <pare/linalg/multiply.hpp>
#include <pare/routing/gates.hpp>
#include <pare/routing/grouped_multiply.hpp>
#include <pare/routing/mixture.hpp>
#include <pare/transformer/linear.hpp>

#include <Eigen/Cholesky>
#include <Eigen/Core>

#include <algorithm>
#include <array>
#include <cstddef>
#include <span>
#include <vector>

namespace pare::routing {

/// Options of fit_ridge_router.
struct RidgeRouterOptions {
  double ridge = 1;  ///< added to the diagonal of X^T X; above 0, finite
};

namespace detail {
PARE_ABI_BEGIN

template <class T, class L>
void check_oracle(const char* function, const TensorView<const T, 2>& x, std::span<const L> experts,
                  const TensorView<const T, 2>& dense) {
  check_view(function, "x", x);
  check(!experts.empty(), function, "experts", experts.size(), "at least one");
  check_view(function, "dense", dense);
  check_extents<2>(function, "dense", dense.extent, {x.rows(), experts.front().outputs()});
  check(dense.cols() >= 1, function, "dense", dense.extent, "at least one output");
  check_expert_shapes(function, experts, x.cols(), dense.cols());
}

/// R: T, or double where errors of T could be beyond it.
template <class B, class T, class L, class R>
void expert_errors(const B& backend, TensorView<const T, 2> x, std::span<const L> experts,
                   TensorView<const T, 2> dense, Index k, TensorView<R, 2> errors) {
  constexpr const char* function = "routing::expert_errors";
  const auto count = static_cast<Index>(experts.size());
  check_oracle(function, x, experts, dense);
  check_choices(function, k, count);
  check_writable(function, "errors", errors);
  check_extents<2>(function, "errors", errors.extent, {x.rows(), count});
  check_no_overlap(function, "errors", errors, "x", x);
  check_no_overlap(function, "errors", errors, "dense", dense);
  transformer::check_apart_from_layer(function, "errors", errors, LayerSet(experts));
  const Index factor = count / k;
  const auto scale = static_cast<double>(factor);
  RowMatrix<T> out(x.rows(), dense.cols());
  for (Index e = 0; e < count; ++e) {
    experts[static_cast<std::size_t>(e)].apply(backend, x, to_view(out));
    for (Index r = 0; r < x.rows(); ++r) {
      double sum = 0;
      for (Index c = 0; c < dense.cols(); ++c) {
        const double off =
            scale * static_cast<double>(out(r, c)) - static_cast<double>(dense(r, c));
        sum += off * off;
      }
      errors(r, e) = static_cast<R>(sum / static_cast<double>(dense.cols()));
    }
  }
}

template <class B, class T, class L>
std::vector<double> budget_curve(const B& backend, TensorView<const T, 2> x,
                                 std::span<const L> experts, TensorView<const T, 2> dense) {
  check_oracle("routing::budget_curve", x, experts, dense);
  const auto count = static_cast<Index>(experts.size());
  double total = 0;
  for (Index r = 0; r < x.rows(); ++r)
    for (Index c = 0; c < dense.cols(); ++c)
      total += static_cast<double>(dense(r, c)) * static_cast<double>(dense(r, c));
  std::vector<double> curve;
  RowMatrix<double> errors(x.rows(), count);
  RowMatrix<T> y(x.rows(), dense.cols());
  for (Index k = 1; k <= count; ++k) {
    expert_errors(backend, x, experts, dense, k, to_view(errors));
    const RowMatrix<double> logits = -errors;
    const Routes<double> best = route(logits, TopHalf{.k = k});
    const Routes<T> routes{best.ids, best.weights.template cast<T>()};
    mixture(backend, x, routes, LayerSet(experts), to_view(y));
    double off = 0;
    for (Index r = 0; r < x.rows(); ++r)
      for (Index c = 0; c < dense.cols(); ++c) {
        const double d = static_cast<double>(y(r, c)) - static_cast<double>(dense(r, c));
        off += d * d;
      }
    curve.push_back(total > 0 ? std::sqrt(off / total) : 0);
  }
  return curve;
}

template <class B, class T>
RowMatrix<T> fit_ridge_router(const B& backend, TensorView<const T, 2> x,
                              const RowMatrix<Index>& ids, Index experts,
                              const RidgeRouterOptions& options) {
  constexpr const char* function = "routing::fit_ridge_router";
  check_view(function, "x", x);
  check(x.rows() >= 1 && x.cols() >= 1, function, "x", x.extent, "at least one row and input");
  check(ids.rows() == x.rows(), function, "ids", ids.rows(), Worded{"the rows of x, ", x.rows()});
  check(experts >= 1, function, "experts", experts, "at least 1");
  check(options.ridge > 0 && is_finite(options.ridge), function, "ridge", options.ridge,
        "a finite number above 0");
  checked_count(function, "experts",
                checked_product(function, "experts", std::max(x.rows(), x.cols()), experts),
                sizeof(double));
  RowMatrix<double> inputs(x.rows(), x.cols());
  for (Index r = 0; r < x.rows(); ++r)
    for (Index c = 0; c < x.cols(); ++c) {
      inputs(r, c) = static_cast<double>(x(r, c));
      check(is_finite(inputs(r, c)), function, "x", std::array<Index, 2>{r, c},
            "[row, input] with a finite number");
    }
  RowMatrix<double> labels = RowMatrix<double>::Zero(x.rows(), experts);
  for (Index r = 0; r < ids.rows(); ++r)
    for (Index j = 0; j < ids.cols(); ++j) {
      check(ids(r, j) >= 0 && ids(r, j) < experts, function, "ids",
            std::array<Index, 3>{r, j, ids(r, j)},
            Worded{"[row, choice, id] with an id from 0 to below the experts, ", experts});
      labels(r, ids(r, j)) = 1;
    }
  RowMatrix<double> gram(x.cols(), x.cols()), right(x.cols(), experts);
  linalg::multiply(backend, transpose(const_view(inputs)), const_view(inputs), to_view(gram));
  linalg::multiply(backend, transpose(const_view(inputs)), const_view(labels), to_view(right));
  gram.diagonal().array() += options.ridge;
  check(gram.allFinite(), function, "x", "products that are not finite", "those of a smaller x");
  const Eigen::LLT<Eigen::MatrixXd> factor(gram);
  check(factor.info() == Eigen::Success, function, "ridge", options.ridge,
        "one that makes X^T X positive definite");
  return factor.solve(right).transpose().template cast<T>();
}

PARE_ABI_END
}  // namespace detail
PARE_ABI_BEGIN

/// Errors of each expert alone against the dense layer.
///
/// \param backend left out: pare::simd
/// \param x       [rows, inputs] of float or double, any strides
/// \param experts a contiguous range of layers of one shape
/// \param dense   [rows, outputs]: what the dense layer makes of x
/// \param k       experts that a row will have, 1 to their number: the factor is experts / k, which
///                is 1 if k is their number, for gates that weigh by 1
/// \param errors  [rows, experts], any strides, written; apart from what is read. Those beyond
///                their scalar are infinity, and equal
/// \throws std::invalid_argument if an extent does not fit, k is out of range, or errors overlaps
///         what is read. Nothing is written then.
///
/// Cost: every expert on every row. Memory: [rows, outputs].
template <Backend B, In<2> X, class E, In<2> D, Out<2> R>
requires ComputeScalar<scalar_of<X>> && SameScalar<X, D, R> && ExpertsOf<E, scalar_of<X>>
void expert_errors(const B& backend, const X& x, const E& experts, const D& dense, Index k,
                   R&& errors) {
  detail::expert_errors(backend, as_const(to_view(x)), detail::experts_span(experts),
                        as_const(to_view(dense)), k, to_view(errors));
}

/// \overload
template <In<2> X, class E, In<2> D, Out<2> R>
requires ComputeScalar<scalar_of<X>> && SameScalar<X, D, R> && ExpertsOf<E, scalar_of<X>>
void expert_errors(const X& x, const E& experts, const D& dense, Index k, R&& errors) {
  expert_errors(simd, x, experts, dense, k, errors);
}

/// Routes to the experts of least error: `route` of the negative errors.
///
/// \param errors [rows, experts] of float or double, neither NaN nor -infinity
/// \param gate   TopHalf with the k of `expert_errors`, or any gate of the order of logits
/// \throws std::invalid_argument as route
template <In<2> R, Gate G>
requires ComputeScalar<scalar_of<R>>
Routes<scalar_of<R>> oracle_routes(const R& errors, const G& gate) {
  const auto from = as_const(to_view(errors));
  check_view("routing::oracle_routes", "errors", from);
  RowMatrix<scalar_of<R>> logits(from.rows(), from.cols());
  for (Index r = 0; r < from.rows(); ++r)
    for (Index e = 0; e < from.cols(); ++e) logits(r, e) = -from(r, e);
  return route(logits, gate);
}

/// For k = 1 to the number of experts: the error of the oracle's routes, ||y - dense|| / ||dense||
/// over all rows. No router of k experts by this rule can be expected to do better; the last is
/// rounding if the experts are the dense layer's neurons. 0 where dense is 0.
///
/// \param backend left out: pare::simd
/// \param x,experts,dense as expert_errors
/// \throws std::invalid_argument as expert_errors, or if an error is NaN, as route
///
/// Cost: every expert on every row, twice for each k. Memory: [rows, outputs] three times.
template <Backend B, In<2> X, class E, In<2> D>
requires ComputeScalar<scalar_of<X>> && SameScalar<X, D> && ExpertsOf<E, scalar_of<X>>
std::vector<double> budget_curve(const B& backend, const X& x, const E& experts, const D& dense) {
  return detail::budget_curve(backend, as_const(to_view(x)), detail::experts_span(experts),
                              as_const(to_view(dense)));
}

/// \overload
template <In<2> X, class E, In<2> D>
requires ComputeScalar<scalar_of<X>> && SameScalar<X, D> && ExpertsOf<E, scalar_of<X>>
std::vector<double> budget_curve(const X& x, const E& experts, const D& dense) {
  return budget_curve(simd, x, experts, dense);
}

/// A linear router by ridge regression: W of least ||X W^T - L||^2 + ridge ||W||^2, where L is 1
/// for a row's experts and else 0.
///
/// \param backend left out: pare::simd
/// \param x       [rows, inputs] of float or double, any strides; add a column of 1 for a bias
/// \param ids     [rows, choices], the experts of each row, of `oracle_routes`
/// \param experts their number
/// \returns W [experts, inputs]: logits are x W^T
/// \throws std::invalid_argument if an extent does not fit, a number or a product of two inputs is
///         not finite, an id is out of range, or the ridge is too small for the inputs
///
/// Cost: rows inputs^2 multiply-adds and inputs^3 / 3, in double. Memory: x in double, and
/// [inputs, inputs] twice.
template <Backend B, In<2> X>
requires ComputeScalar<scalar_of<X>>
RowMatrix<scalar_of<X>> fit_ridge_router(const B& backend, const X& x, const RowMatrix<Index>& ids,
                                         Index experts, const RidgeRouterOptions& options = {}) {
  return detail::fit_ridge_router(backend, as_const(to_view(x)), ids, experts, options);
}

/// \overload
template <In<2> X>
requires ComputeScalar<scalar_of<X>>
RowMatrix<scalar_of<X>> fit_ridge_router(const X& x, const RowMatrix<Index>& ids, Index experts,
                                         const RidgeRouterOptions& options = {}) {
  return fit_ridge_router(simd, x, ids, experts, options);
}

PARE_ABI_END
}  // namespace pare::routing

#include <pare/core/macros_on.hpp>
