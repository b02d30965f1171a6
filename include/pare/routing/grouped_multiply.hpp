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
/// Experts that share a factor, in groups or all of them, apply it once: latent_experts.hpp.
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

#include <ranges>
#include <span>
#include <type_traits>
#include <utility>

namespace pare::routing {

/// A contiguous range of layers of T in memory: a vector, an array, a span.
template <class E, class T>
concept ExpertsOf = std::ranges::contiguous_range<E> && std::ranges::sized_range<E> &&
                    transformer::LinearOf<std::ranges::range_value_t<E>, T>;

namespace detail {
PARE_ABI_BEGIN

/// Experts of one shape.
template <class L>
void check_expert_shapes(const char* function, std::span<const L> experts, Index inputs,
                         Index outputs) {
  for (const L& expert : experts) {
    check(expert.inputs() == inputs, function, "experts", expert.inputs(),
          Worded{"layers of the inputs of x, ", inputs});
    check(expert.outputs() == outputs, function, "experts", expert.outputs(),
          Worded{"layers of one number of outputs, ", outputs});
  }
}

/// What is written is apart from what experts read.
template <class L, class T>
void check_apart_from_experts(const char* function, const char* output, const TensorView<T, 2>& out,
                              std::span<const L> experts) {
  for (const L& expert : experts)
    transformer::check_apart_from_layer(function, output, out, expert);
}

template <class B, class T, class L>
void grouped_multiply(const B& backend, TensorView<const T, 2> x, const RoutePlan& plan,
                      std::span<const L> experts, TensorView<T, 2> parts) {
  constexpr const char* function = "routing::grouped_multiply";
  check_view(function, "x", x);
  check_extents<2>(function, "x", x.extent, {plan.rows(), x.cols()});
  check_writable(function, "parts", parts);
  check_extents<2>(function, "parts", parts.extent, {plan.routed(), parts.cols()});
  check_no_overlap(function, "parts", parts, "x", x);
  check(static_cast<Index>(experts.size()) == plan.experts(), function, "experts", experts.size(),
        Worded{"the experts of the plan, ", plan.experts()});
  check_expert_shapes(function, experts, x.cols(), parts.cols());
  check_apart_from_experts(function, "parts", parts, experts);
  if (plan.routed() == 0) return;
  run_grouped(backend, x, {plan.offsets(), plan.rows_by_place()}, experts, parts);
}

template <class X>
using IsLayers = std::bool_constant<ExpertsOf<std::remove_cvref_t<X>, float> ||
                                    ExpertsOf<std::remove_cvref_t<X>, double>>;
/// LatentExperts, where latent_experts.hpp is included.
template <class X>
struct IsLatentExperts : std::false_type {};
template <class X>
using IsExperts =
    std::bool_constant<IsLayers<X>::value || IsLatentExperts<std::remove_cvref_t<X>>::value>;

PARE_ABI_END
}  // namespace detail
PARE_ABI_BEGIN

/// Applies each row's experts to it.
///
/// \param backend left out: pare::simd
/// \param x       [rows, inputs] of float or double, any strides
/// \param plan    of those rows
/// \param experts one layer for each expert of the plan, all of inputs and outputs alike
/// \param parts   [plan.routed(), outputs], any strides, written; apart from x and the experts. Row
///                p belongs to place p; `combine` adds them up
/// \throws std::invalid_argument if an extent does not fit, the experts are not those of the plan,
///         or parts overlaps what is read. Nothing is written then. No pairs: a no-op.
///
/// Cost: for each expert that has rows, that of its layer. With few rows for each, reading the
/// weights of the experts that were chosen binds: experts (1 - (1 - choices / experts)^rows) of
/// them, if choices are random. Memory, kept in the backend's workspace, once per worker: the rows
/// of x of an expert (none where all lie in the order of places), and what a layer needs. The same
/// bits for any number of threads, if the layers keep them.
template <Backend B, In<2> X, class E, Out<2> P>
requires ComputeScalar<scalar_of<X>> && SameScalar<X, P> && ExpertsOf<E, scalar_of<X>>
void grouped_multiply(const B& backend, const X& x, const RoutePlan& plan, const E& experts,
                      P&& parts) {
  using L = std::ranges::range_value_t<E>;
  detail::grouped_multiply(
      backend, as_const(to_view(x)), plan,
      std::span<const L>(std::ranges::data(experts), std::ranges::size(experts)), to_view(parts));
}

/// \overload
template <In<2> X, class E, Out<2> P>
requires ComputeScalar<scalar_of<X>> && SameScalar<X, P> && ExpertsOf<E, scalar_of<X>>
void grouped_multiply(const X& x, const RoutePlan& plan, const E& experts, P&& parts) {
  grouped_multiply(simd, x, plan, experts, parts);
}

PARE_REFUSE_CALLS(grouped_multiply, "routing::grouped_multiply", "after parts: wanted nothing",
                  (INPUT, (roles::ReadsCompute<2>), "x", "[rows, inputs]"),
                  (PLAIN, (roles::Takes<detail::IsPlan>), "plan", "a RoutePlan"),
                  (PLAIN, (roles::Takes<detail::IsExperts>), "experts",
                   "a vector, array or span of layers (LinearOf) of the scalar of x"),
                  (OUTPUT, (roles::WritesSame<2>), "parts",
                   "[plan.routed(), outputs] of the scalar of x"))

PARE_ABI_END
}  // namespace pare::routing

#include <pare/core/macros_on.hpp>
