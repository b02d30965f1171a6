// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// A mixture of experts in one call: plan, grouped product, weighted sum.
///
///     y_r = sum_j weights_rj experts[ids_rj](x_r)
///
/// ```cpp
/// const auto routes = route(logits, TopK{.k = 2});
/// mixture(pare::simd.threads(2).with(workspace), x, routes, experts, y);
/// ```
///
/// The three steps apart are route_plan.hpp, grouped_multiply.hpp and combine.hpp: for a capacity,
/// a plan that several layers share, or parts that are wanted themselves.

#include <pare/core/macros_off.hpp>

#include <pare/core/aligned_buffer.hpp>
#include <pare/core/backend.hpp>
#include <pare/core/check.hpp>
#include <pare/core/refused_call.hpp>
#include <pare/core/scratch.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/core/view_check.hpp>
#include <pare/routing/combine.hpp>
#include <pare/routing/gates.hpp>
#include <pare/routing/grouped_multiply.hpp>
#include <pare/routing/route_plan.hpp>

#include <type_traits>

namespace pare::routing {
namespace detail {
PARE_ABI_BEGIN

template <class T>
struct MixtureMemory {
  RoutePlan plan;
  AlignedBuffer<T> parts;
};

/// All that is checked before anything is written.
template <class T, class S>
void check_mixture(const char* function, const TensorView<const T, 2>& x, const Routes<T>& routes,
                   const S& experts, const TensorView<T, 2>& y) {
  check_view(function, "x", x);
  check_extents<2>(function, "routes", {routes.ids.rows(), routes.ids.cols()},
                   {x.rows(), routes.ids.cols()});
  check_extents<2>(function, "routes", {routes.weights.rows(), routes.weights.cols()},
                   {x.rows(), routes.ids.cols()});
  check(experts.experts() >= 1, function, "experts", experts.experts(), "at least one");
  check_writable(function, "y", y);
  check_extents<2>(function, "y", y.extent, {x.rows(), experts.outputs()});
  check_no_overlap(function, "y", y, "x", x);
  check_no_overlap(function, "y", y, "routes", const_view(routes.weights));
  check_no_overlap(function, "y", y, "routes", const_view(routes.ids));
  check_expert_set(function, experts, x.cols(), "y", y);
}

template <class B, class T, class S>
void mixture(const B& backend, TensorView<const T, 2> x, const Routes<T>& routes, const S& experts,
             TensorView<T, 2> y) {
  constexpr const char* function = "routing::mixture";
  check_mixture(function, x, routes, experts, y);
  const auto memory = leased<MixtureMemory<T>>(backend);
  memory->plan.assign(const_view(routes.ids), experts.experts());
  const Index routed = memory->plan.routed();
  checked_count(function, "routes", checked_product(function, "routes", routed, y.cols()),
                sizeof(T));
  const TensorView<T, 2> parts = matrix_in(memory->parts, routed, y.cols());
  grouped_multiply(backend, x, memory->plan, experts, parts);
  combine(backend, memory->plan, as_const(parts), const_view(routes.weights), y);
}

PARE_ABI_END
}  // namespace detail
PARE_ABI_BEGIN

/// Applies the experts of each row, and adds up what they make of it by its weights.
///
/// \param backend left out: pare::simd
/// \param x       [rows, inputs] of float or double, any strides
/// \param routes  ids and weights [rows, choices], of `route` or your own: an id of -1 is no expert
/// \param experts a contiguous range of layers, all of inputs and outputs alike; or a set of
///                experts, such as LatentExperts
/// \param y       [rows, outputs], any strides, written; apart from what is read. A row without an
///                expert is 0
/// \throws std::invalid_argument if an extent does not fit, an id is out of range or stands twice
///         in a row, a weight is not finite, or y overlaps what is read. y is as it was then.
///
/// Cost: that of `grouped_multiply`; the plan and the sum are a few percent of it. Memory, kept in
/// the backend's workspace: the plan, that of `grouped_multiply`, and the parts, [rows choices,
/// outputs]. Sums run by ascending expert: a row has the same bits in any batch (as long as its
/// experts keep them) and for any number of threads.
template <Backend B, In<2> X, class E, Out<2> Y>
requires ComputeScalar<scalar_of<X>> && SameScalar<X, Y> && RoutableTo<E, scalar_of<X>>
void mixture(const B& backend, const X& x, const Routes<scalar_of<X>>& routes, const E& experts,
             Y&& y) {
  detail::mixture(backend, as_const(to_view(x)), routes, detail::expert_set<scalar_of<X>>(experts),
                  to_view(y));
}

/// \overload
template <In<2> X, class E, Out<2> Y>
requires ComputeScalar<scalar_of<X>> && SameScalar<X, Y> && RoutableTo<E, scalar_of<X>>
void mixture(const X& x, const Routes<scalar_of<X>>& routes, const E& experts, Y&& y) {
  mixture(simd, x, routes, experts, y);
}

PARE_REFUSE_CALLS(mixture, "routing::mixture", "after y: wanted nothing",
                  (INPUT, (roles::ReadsCompute<2>), "x", "[rows, inputs]"),
                  (PLAIN, (roles::Takes<detail::TakesRoutes>), "routes", "Routes"),
                  (PLAIN, (roles::Takes<detail::IsExperts>), "experts",
                   "a vector, array or span of layers (LinearOf), or a set of experts "
                   "(ExpertSetOf), of the scalar of x"),
                  (OUTPUT, (roles::WritesSame<2>), "y", "[rows, outputs] of the scalar of x"))

PARE_ABI_END
}  // namespace pare::routing

#include <pare/core/macros_on.hpp>
