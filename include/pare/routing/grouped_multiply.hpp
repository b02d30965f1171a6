// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Each row through the layers of its experts: the rows of an expert together, at the speed of one
/// product.
///
///     parts_p = experts[e(p)](x_r(p)) for each place p of a RoutePlan
///
/// ```cpp
/// std::vector<DenseLinear<bf16>> experts = ...;            // or any Linear, all of one shape
/// const RoutePlan plan(route(logits, TopOne{}).ids, 96);
/// RowMatrix<float> parts(plan.routed(), outputs);
/// grouped_multiply(pare::simd.threads(2), x, plan, experts, parts);
/// ```
///
/// An expert is a `LinearOf` (transformer/linear.hpp): dense, quantised, of low rank, a whole
/// gated feed-forward layer (feed_forward.hpp), or your own. Empty experts are never looked at.
/// Experts that share work are one object that does it once (`ExpertSetOf`): latent_experts.hpp has
/// those that share a factor, and a set of yours needs no more than its concept asks.
///
/// Work is shared out by experts; those that have more than half a thread's part are run by all
/// threads, one after the other. A row has the bits that its expert gives it: those of a loop over
/// experts.

#include <pare/core/macros_off.hpp>

#include <pare/core/backend.hpp>
#include <pare/core/check.hpp>
#include <pare/core/refused_call.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/core/view_check.hpp>
#include <pare/routing/detail/grouped_run.hpp>
#include <pare/routing/route_plan.hpp>
#include <pare/transformer/linear.hpp>

#include <concepts>
#include <ranges>
#include <span>
#include <type_traits>
#include <utility>

namespace pare::routing {

/// A contiguous range of layers of T in memory: a vector, an array, a span.
template <class E, class T>
concept ExpertsOf = std::ranges::contiguous_range<E> && std::ranges::sized_range<E> &&
                    transformer::LinearOf<std::ranges::range_value_t<E>, T>;

/// Experts as one object: `apply(backend, x, plan, parts)` of views writes row p of
/// parts [plan.routed(), outputs] for each place p of a plan of the rows of x [rows, inputs], on
/// `pare::simd`, on `pare::reference` and on whatever backend it supports. Called by
/// `grouped_multiply` or `mixture` it is given at least one place, experts as many as its own, and
/// extents that fit; parts lie apart from x and from what the set shows as layers do
/// (`transformer::check_apart_from_layer`).
template <class E, class T>
concept ExpertSetOf = ComputeScalar<T> && requires(const E& e, TensorView<const T, 2> x,
                                                   const RoutePlan& plan, TensorView<T, 2> parts) {
  { e.inputs() } -> std::same_as<Index>;
  { e.outputs() } -> std::same_as<Index>;
  { e.experts() } -> std::same_as<Index>;
  e.apply(simd, x, plan, parts);
  e.apply(reference, x, plan, parts);
};

/// What rows of T can be routed to.
template <class E, class T>
concept RoutableTo = ExpertsOf<E, T> || ExpertSetOf<E, T>;

namespace detail {
PARE_ABI_BEGIN

/// Layers as a set.
template <class L>
class LayerSet {
 public:
  explicit LayerSet(std::span<const L> layers) : layers_(layers) {}

  Index experts() const { return static_cast<Index>(layers_.size()); }
  /// Of the first; there is one.
  Index inputs() const { return layers_.front().inputs(); }
  Index outputs() const { return layers_.front().outputs(); }
  std::span<const L> layers() const { return layers_; }
  template <class Visit>
  void each_layer(const Visit& visit) const {
    for (const L& layer : layers_) visit(layer);
  }

  template <class B, class T>
  void apply(const B& backend, TensorView<const T, 2> x, const RoutePlan& plan,
             TensorView<T, 2> parts) const {
    run_grouped(backend, x, {plan.offsets(), plan.rows_by_place()}, layers_, parts);
  }

 private:
  std::span<const L> layers_;
};

template <class E>
auto experts_span(const E& experts) {
  using L = std::ranges::range_value_t<E>;
  return std::span<const L>(std::ranges::data(experts), std::ranges::size(experts));
}

/// A set as it is, layers as one.
template <class T, class E>
decltype(auto) expert_set(const E& experts) {
  if constexpr (ExpertSetOf<E, T>)
    return (experts);
  else
    return LayerSet(experts_span(experts));
}

/// A layer, or a set of experts of one shape.
template <class E>
void check_expert_shape(const char* function, const E& expert, Index inputs, Index outputs) {
  check(expert.inputs() == inputs, function, "experts", expert.inputs(),
        Worded{"experts of the inputs of x, ", inputs});
  check(expert.outputs() == outputs, function, "experts", expert.outputs(),
        Worded{"experts of one number of outputs, ", outputs});
}

template <class L>
void check_expert_shapes(const char* function, std::span<const L> experts, Index inputs,
                         Index outputs) {
  for (const L& expert : experts) check_expert_shape(function, expert, inputs, outputs);
}

/// Experts of one shape, and what is written apart from what they read.
template <class S, class T>
void check_expert_set(const char* function, const S& experts, Index inputs, const char* output,
                      const TensorView<T, 2>& out) {
  if constexpr (requires { experts.layers(); })
    check_expert_shapes(function, experts.layers(), inputs, out.cols());
  else
    check_expert_shape(function, experts, inputs, out.cols());
  transformer::check_apart_from_layer(function, output, out, experts);
}

/// All that is checked before anything is written.
template <class T, class S>
void check_grouped(const char* function, const TensorView<const T, 2>& x, const RoutePlan& plan,
                   const S& experts, const TensorView<T, 2>& parts) {
  check_view(function, "x", x);
  check_extents<2>(function, "x", x.extent, {plan.rows(), x.cols()});
  check_writable(function, "parts", parts);
  check_extents<2>(function, "parts", parts.extent, {plan.routed(), parts.cols()});
  check_no_overlap(function, "parts", parts, "x", x);
  check(experts.experts() == plan.experts(), function, "experts", experts.experts(),
        Worded{"the experts of the plan, ", plan.experts()});
  check_expert_set(function, experts, x.cols(), "parts", parts);
}

template <class B, class T, class S>
void grouped_multiply(const B& backend, TensorView<const T, 2> x, const RoutePlan& plan,
                      const S& experts, TensorView<T, 2> parts) {
  check_grouped("routing::grouped_multiply", x, plan, experts, parts);
  if (plan.routed() > 0) experts.apply(backend, x, plan, parts);
}

template <class X>
using IsExperts = std::bool_constant<RoutableTo<std::remove_cvref_t<X>, float> ||
                                     RoutableTo<std::remove_cvref_t<X>, double>>;

PARE_ABI_END
}  // namespace detail
PARE_ABI_BEGIN

/// Applies each row's experts to it.
///
/// \param backend left out: pare::simd
/// \param x       [rows, inputs] of float or double, any strides
/// \param plan    of those rows
/// \param experts one layer for each expert of the plan, all of inputs and outputs alike; or a set
///                of as many experts, such as LatentExperts
/// \param parts   [plan.routed(), outputs], any strides, written; apart from x and the experts. Row
///                p belongs to place p; `combine` adds them up
/// \throws std::invalid_argument if an extent does not fit, the experts are not those of the plan,
///         or parts overlaps what is read. Nothing is written then. No pairs: a no-op.
///
/// Cost: for each expert that has rows, that of its layer. With few rows for each, reading the
/// weights of the experts that were chosen binds: experts (1 - (1 - choices / experts)^rows) of
/// them, if choices are random. Memory, kept in the backend's workspace, once per worker: the rows
/// of x of an expert (none where all lie in the order of places), and what a layer needs. The same
/// bits for any number of threads, if the layers keep them. Cost, memory and bits of a set are
/// those of its `apply`.
template <Backend B, In<2> X, class E, Out<2> P>
requires ComputeScalar<scalar_of<X>> && SameScalar<X, P> && RoutableTo<E, scalar_of<X>>
void grouped_multiply(const B& backend, const X& x, const RoutePlan& plan, const E& experts,
                      P&& parts) {
  detail::grouped_multiply(backend, as_const(to_view(x)), plan,
                           detail::expert_set<scalar_of<X>>(experts), to_view(parts));
}

/// \overload
template <In<2> X, class E, Out<2> P>
requires ComputeScalar<scalar_of<X>> && SameScalar<X, P> && RoutableTo<E, scalar_of<X>>
void grouped_multiply(const X& x, const RoutePlan& plan, const E& experts, P&& parts) {
  grouped_multiply(simd, x, plan, experts, parts);
}

PARE_REFUSE_CALLS(grouped_multiply, "routing::grouped_multiply", "after parts: wanted nothing",
                  (INPUT, (roles::ReadsCompute<2>), "x", "[rows, inputs]"),
                  (PLAIN, (roles::Takes<detail::IsPlan>), "plan", "a RoutePlan"),
                  (PLAIN, (roles::Takes<detail::IsExperts>), "experts",
                   "a vector, array or span of layers (LinearOf), or a set of experts "
                   "(ExpertSetOf), of the scalar of x"),
                  (OUTPUT, (roles::WritesSame<2>), "parts",
                   "[plan.routed(), outputs] of the scalar of x"))

PARE_ABI_END
}  // namespace pare::routing

#include <pare/core/macros_on.hpp>
