// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Expert attention (SHRP): the heads of an attention layer are experts, of which one answers for a
/// token or a sequence, and an expander that all of them share takes the place of the output
/// projection.
///
///     pi = softmax(W_r pool(x)),   h* = argmax pi,   y_t = pi_h* E(a_t,h*)
///
/// ```cpp
/// pool_sequences(x, offsets, pooled);                    // means, [sequences, width]
/// logits = pooled * router.transpose();                  // of Eigen's, [sequences, heads]
/// const auto routes = routes_of_tokens(route(logits, TopOne{}), offsets);
/// using transformer::DenseLinear;                        // expander: dim to outputs, views
/// FeedForward<DenseLinear<float>, transformer::Gelu> expander{DenseLinear<float>(up),
///                                                             DenseLinear<float>(down)};
/// expert_attention(attended, routes, expander, y);       // attended [tokens, heads x dim]
/// ```
///
/// Heads that are not used go for good: count them with `attention::HeadUsage::add(logits)`, which
/// routes as `TopOne` does, choose with `select_heads`, and take `rows_of_heads(wq, kept, dim)` of
/// the query, key and value weights (attention/heads/). Of one head that is left the layer is
/// `expander.apply(pare::simd, const_view(attended), to_view(y))`, without a router.
///
/// Source: SHRP, arXiv 2512.20635, "Expert Attention", of which only the abstract is public:
/// heads as experts, an expander that they share, top-1 routing whose usage decides what is pruned.
/// Reconstructed: everything else, such as the mean as pool, the weight pi_h*, GELU in the
/// expander, and that it takes a single head. Ours: more than one head of a token.

#include <pare/core/macros_off.hpp>

#include <pare/core/aligned_buffer.hpp>
#include <pare/core/backend.hpp>
#include <pare/core/check.hpp>
#include <pare/core/matrix.hpp>
#include <pare/core/refused_call.hpp>
#include <pare/core/scratch.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/core/view_check.hpp>
#include <pare/routing/combine.hpp>
#include <pare/routing/gates.hpp>
#include <pare/routing/route_plan.hpp>
#include <pare/transformer/linear.hpp>

#include <cstddef>
#include <span>
#include <type_traits>

namespace pare::routing {
namespace detail {
PARE_ABI_BEGIN

template <class T>
void pool_sequences(TensorView<const T, 2> x, std::span<const Index> offsets,
                    TensorView<T, 2> pooled) {
  constexpr const char* function = "routing::pool_sequences";
  check_view(function, "x", x);
  check_offsets(function, "offsets", offsets, x.rows());
  check_writable(function, "pooled", pooled);
  check_extents<2>(function, "pooled", pooled.extent,
                   {static_cast<Index>(offsets.size()) - 1, x.cols()});
  check_no_overlap(function, "pooled", pooled, "x", x);
  const TensorView<const Index, 1> list{offsets.data(), {static_cast<Index>(offsets.size())}, {1}};
  check_no_overlap(function, "pooled", pooled, "offsets", list);
  for (Index s = 0; s < pooled.rows(); ++s) {
    const Index first = offsets[static_cast<std::size_t>(s)],
                end = offsets[static_cast<std::size_t>(s) + 1];
    for (Index c = 0; c < x.cols(); ++c) {
      double sum = 0;
      for (Index t = first; t < end; ++t) sum += static_cast<double>(x(t, c));
      pooled(s, c) = end == first ? T{} : static_cast<T>(sum / static_cast<double>(end - first));
    }
  }
}

template <class T>
struct HeadMemory {
  RoutePlan plan;
  AlignedBuffer<T> heads;  ///< [places, dim] what they attend to
  AlignedBuffer<T> parts;  ///< [places, outputs]
};

template <class T, class L>
void check_expert_attention(const char* function, const TensorView<const T, 2>& attended,
                            const Routes<T>& routes, const L& expander, const TensorView<T, 2>& y) {
  check(expander.inputs() >= 1, function, "expander", expander.inputs(), "at least one input");
  check_view(function, "attended", attended);
  check(attended.cols() >= 1 && attended.cols() % expander.inputs() == 0, function, "attended",
        attended.extent,
        Worded{"heads of as many columns as the expander has inputs, ", expander.inputs()});
  check_extents<2>(function, "routes", {routes.ids.rows(), routes.ids.cols()},
                   {attended.rows(), routes.ids.cols()});
  check_extents<2>(function, "routes", {routes.weights.rows(), routes.weights.cols()},
                   {attended.rows(), routes.ids.cols()});
  check_writable(function, "y", y);
  check_extents<2>(function, "y", y.extent, {attended.rows(), expander.outputs()});
  check_no_overlap(function, "y", y, "attended", attended);
  check_no_overlap(function, "y", y, "routes", const_view(routes.weights));
  check_no_overlap(function, "y", y, "routes", const_view(routes.ids));
  transformer::check_apart_from_layer(function, "y", y, expander);
}

template <class B, class T, class L>
void expert_attention(const B& backend, TensorView<const T, 2> attended, const Routes<T>& routes,
                      const L& expander, TensorView<T, 2> y) {
  constexpr const char* function = "routing::expert_attention";
  check_expert_attention(function, attended, routes, expander, y);
  const Index dim = expander.inputs();
  const auto memory = leased<HeadMemory<T>>(backend);
  memory->plan.assign(const_view(routes.ids), attended.cols() / dim);
  const RoutePlan& plan = memory->plan;
  for (const Index width : {dim, y.cols()})
    checked_count(function, "routes", checked_product(function, "routes", plan.routed(), width),
                  sizeof(T));
  const TensorView<T, 2> heads = matrix_in(memory->heads, plan.routed(), dim),
                         parts = matrix_in(memory->parts, plan.routed(), y.cols());
  for (Index h = 0; h < plan.experts(); ++h) {
    Index place = plan.offsets()[static_cast<std::size_t>(h)];
    for (const Index row : plan.rows_of(h)) {
      for (Index c = 0; c < dim; ++c) heads(place, c) = attended(row, h * dim + c);
      ++place;
    }
  }
  if (plan.routed() > 0) expander.apply(backend, as_const(heads), parts);
  combine(backend, plan, as_const(parts), const_view(routes.weights), y);
}

template <class X>
using IsExpander = std::bool_constant<transformer::LinearOf<std::remove_cvref_t<X>, float> ||
                                      transformer::LinearOf<std::remove_cvref_t<X>, double>>;

PARE_ABI_END
}  // namespace detail
PARE_ABI_BEGIN

/// The mean row of each sequence.
///
/// \param x       [tokens, width] of float or double, sequences behind each other
/// \param offsets [sequences + 1] where each begins: from 0 to the tokens, never falling
/// \param pooled  [sequences, width], written; apart from x. Of a sequence without tokens 0
/// \throws std::invalid_argument if offsets or an extent do not fit, or pooled overlaps x or the
///         offsets. Nothing is written then.
///
/// Cost: one read of x, on the calling thread; sums are double. A NaN stays in its sequence and
/// column.
template <In<2> X, Out<2> P>
requires ComputeScalar<scalar_of<X>> && SameScalar<X, P>
void pool_sequences(const X& x, std::span<const Index> offsets, P&& pooled) {
  detail::pool_sequences(as_const(to_view(x)), offsets, to_view(pooled));
}

/// The routes of sequences for each of their tokens.
///
/// \param routes  [sequences, choices]
/// \param offsets [sequences + 1] as of pool_sequences
/// \returns [tokens, choices]
/// \throws std::invalid_argument if the offsets do not fit the sequences, or ids and weights each
///         other
template <ComputeScalar T>
Routes<T> routes_of_tokens(const Routes<T>& routes, std::span<const Index> offsets) {
  constexpr const char* function = "routing::routes_of_tokens";
  check(!offsets.empty() && static_cast<Index>(offsets.size()) == routes.ids.rows() + 1, function,
        "offsets", offsets.size(),
        Worded{"one more than the sequences of routes, ", routes.ids.rows()});
  check_offsets(function, "offsets", offsets, offsets.back());
  check_extents<2>(function, "routes", {routes.weights.rows(), routes.weights.cols()},
                   {routes.ids.rows(), routes.ids.cols()});
  checked_count(function, "offsets",
                checked_product(function, "offsets", offsets.back(), routes.ids.cols()),
                sizeof(Index));
  Routes<T> tokens;
  tokens.ids.resize(offsets.back(), routes.ids.cols());
  tokens.weights.resize(offsets.back(), routes.ids.cols());
  for (Index s = 0; s < routes.ids.rows(); ++s)
    for (Index t = offsets[static_cast<std::size_t>(s)];
         t < offsets[static_cast<std::size_t>(s) + 1]; ++t) {
      tokens.ids.row(t) = routes.ids.row(s);
      tokens.weights.row(t) = routes.weights.row(s);
    }
  return tokens;
}

/// What the chosen heads of each token attend to, through the expander that they share, added up by
/// their weights.
///
/// \param backend  left out: pare::simd
/// \param attended [tokens, heads x dim] of float or double, any strides: head by head, before any
///                 output projection
/// \param routes   of `route` over heads, ids and weights [tokens, choices]; an id of -1 is no head
/// \param expander a layer of dim inputs, at least one, such as FeedForward with Gelu
/// \param y        [tokens, outputs], any strides, written; apart from what is read. 0 for a token
///                 that has no head
/// \throws std::invalid_argument if there is no head, an extent does not fit, an id is no head or
///         stands twice for a token, a weight is not finite, or y overlaps what is read. y is as it
///         was then.
///
/// A NaN of a head stays in the tokens that chose it, if the expander keeps rows apart; one that no
/// token chose is not read. Without pairs of a token and a head the expander is not called.
///
/// Cost: that of the expander for each pair of a token and a head, all in one call of it; that of
/// one head instead of all is saved where only its attention is computed. Memory, kept in the
/// backend's workspace: a plan, and [pairs, dim] and [pairs, outputs]. The same bits for any number
/// of threads, if the expander keeps them.
template <Backend B, In<2> A, class L, Out<2> Y>
requires ComputeScalar<scalar_of<A>> && SameScalar<A, Y> && transformer::LinearOf<L, scalar_of<A>>
void expert_attention(const B& backend, const A& attended, const Routes<scalar_of<A>>& routes,
                      const L& expander, Y&& y) {
  detail::expert_attention(backend, as_const(to_view(attended)), routes, expander, to_view(y));
}

/// \overload
template <In<2> A, class L, Out<2> Y>
requires ComputeScalar<scalar_of<A>> && SameScalar<A, Y> && transformer::LinearOf<L, scalar_of<A>>
void expert_attention(const A& attended, const Routes<scalar_of<A>>& routes, const L& expander,
                      Y&& y) {
  expert_attention(simd, attended, routes, expander, y);
}

PARE_REFUSE_CALLS(expert_attention, "routing::expert_attention", "after y: wanted nothing",
                  (INPUT, (roles::ReadsCompute<2>), "attended", "[tokens, heads x dim]"),
                  (PLAIN, (roles::Takes<detail::TakesRoutes>), "routes", "Routes"),
                  (PLAIN, (roles::Takes<detail::IsExpander>), "expander",
                   "a layer (LinearOf) of the scalar of attended"),
                  (OUTPUT, (roles::WritesSame<2>), "y", "[tokens, outputs] of the same scalar"))

PARE_ABI_END
}  // namespace pare::routing

#include <pare/core/macros_on.hpp>
