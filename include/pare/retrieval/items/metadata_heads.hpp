// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// What M2TRec asks of a session's vector s: the scores of items by their rows, and a sum of
/// cross-entropies of the next item and of its attributes.
///
///     score(i) = <W s, e_i>                        e_i the row of item i (embedding_bag.hpp)
///     L = sum over heads h of w_h * mean over sessions of -ln softmax(C_h W_h s)_target
///
/// ```cpp
/// score_items(pare::simd.threads(2), sessions, map, items, scores);  // [sessions, items]
/// top_k_dot(items, to_query, 20);        // or the best alone, of to_query = sessions * map^T
/// const std::vector<ClassHead<float>> heads{
///     {.classes = items, .map = map, .targets = next},       // views, such as const_view(matrix)
///     {.classes = categories, .targets = next_category},     // logits <c, s>, without a map
///     {.classes = sub_categories, .targets = next_sub, .weight = .5}};
/// std::vector<double> losses(3);
/// double loss = multi_task_loss(sessions, heads, losses);
/// loss = multi_task_gradient(sessions, heads, by_sessions, by_heads, losses);
/// ```
///
/// The next item is a head like the others, whose classes are the rows of all items: no item has a
/// vector of its own, so that one that training never saw is scored by what it is known by. Equal
/// rows get equal scores, bit for bit.
///
/// Source: Shalaby et al., M2TRec, arXiv 2209.11824: heads for the next item, its category and
/// sub-category, losses summed with equal weights (a figure's caption). Reconstructed: W, and that
/// the item head scores by metadata rows; a classifier would need a vector for each item. Ours:
/// weights, and means over sessions.

#include <pare/core/macros_off.hpp>

#include <pare/core/backend.hpp>
#include <pare/core/executor_ref.hpp>
#include <pare/core/refused_call.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/retrieval/items/detail/head_run.hpp>

#include <span>
#include <type_traits>

namespace pare::retrieval {
PARE_ABI_BEGIN

/// The scores of all items for each session.
///
/// \param backend  left out: pare::simd
/// \param sessions [sessions, dim] of float or double, rows contiguous
/// \param map      W [width, dim], likewise
/// \param items    [items, width], likewise
/// \param scores   [sessions, items], likewise, written; apart from what is read
/// \throws std::invalid_argument if dim or width is 0 or differs, rows are not contiguous, or an
///         output overlaps what is read. Nothing is written then. Without sessions or items nothing
///         is done.
///
/// Cost: 2 sessions (items + dim) width FLOPs, which bind from a few sessions on, below it reading
/// the items. Memory, kept in the backend's workspace: [sessions, width], and that of
/// linalg::multiply. The same bits for any number of threads, and of a session whatever stands
/// beside it. A NaN of a session or item makes its scores NaN.
template <Backend B, In<2> X, In<2> W, In<2> E, Out<2> Y>
requires ComputeScalar<scalar_of<X>> && SameScalar<X, W, E, Y>
void score_items(const B& backend, const X& sessions, const W& map, const E& items, Y&& scores) {
  detail::score_items(on_any_executor(backend), as_const(to_view(sessions)), as_const(to_view(map)),
                      as_const(to_view(items)), to_view(scores));
}

/// \overload
template <In<2> X, In<2> W, In<2> E, Out<2> Y>
requires ComputeScalar<scalar_of<X>> && SameScalar<X, W, E, Y>
void score_items(const X& sessions, const W& map, const E& items, Y&& scores) {
  score_items(simd, sessions, map, items, scores);
}

/// The sum of the heads' losses.
///
/// \param backend  left out: pare::simd
/// \param sessions [sessions, dim] of float or double, rows contiguous, at least one
/// \param heads    at least one: see ClassHead
/// \param losses   [heads] written: the mean cross-entropy of each, before its weight. Or empty
/// \returns their sum by weights, of those above 0
/// \throws std::invalid_argument if there is no session or head, an extent does not fit, a target
///         is no class, a weight is negative or not finite, or losses has another size. Nothing is
///         written then.
///
/// Cost: for each head 2 sessions classes width FLOPs and a pass of exponentials; of 256 sessions
/// at a time. Memory, kept in the backend's workspace: [256, classes] of the largest head. The same
/// bits for any number of threads. A NaN of a session makes the losses NaN.
template <Backend B, In<2> X>
requires ComputeScalar<scalar_of<X>>
double multi_task_loss(const B& backend, const X& sessions, HeadList<X> heads,
                       std::span<double> losses = {}) {
  return detail::multi_task_loss("retrieval::multi_task_loss", on_any_executor(backend),
                                 as_const(to_view(sessions)), heads, losses);
}

/// \overload
template <In<2> X>
requires ComputeScalar<scalar_of<X>>
double multi_task_loss(const X& sessions, HeadList<X> heads, std::span<double> losses = {}) {
  return multi_task_loss(simd, sessions, heads, losses);
}

/// The same, and its gradients by sessions, classes and maps.
///
/// \param by_sessions [sessions, dim], rows contiguous, written
/// \param by_heads    for each head: see ClassGradient, written. Of a head whose weight is 0 they
///                    are 0, and it adds nothing to by_sessions
/// \throws std::invalid_argument as above, or if an output does not fit or overlaps what is read or
///         another. Nothing is written then.
///
/// Cost: three times that of the loss. Memory: as much again as [256, width], twice.
template <Backend B, In<2> X, Out<2> G>
requires ComputeScalar<scalar_of<X>> && SameScalar<X, G>
double multi_task_gradient(const B& backend, const X& sessions, HeadList<X> heads, G&& by_sessions,
                           HeadGradients<X> by_heads, std::span<double> losses = {}) {
  return detail::multi_task_gradient(on_any_executor(backend), as_const(to_view(sessions)), heads,
                                     to_view(by_sessions), by_heads, losses);
}

/// \overload
template <In<2> X, Out<2> G>
requires ComputeScalar<scalar_of<X>> && SameScalar<X, G>
double multi_task_gradient(const X& sessions, HeadList<X> heads, G&& by_sessions,
                           HeadGradients<X> by_heads, std::span<double> losses = {}) {
  return multi_task_gradient(simd, sessions, heads, by_sessions, by_heads, losses);
}

PARE_REFUSE_CALLS(score_items, "retrieval::score_items", "after scores: wanted nothing",
                  (INPUT, (roles::ReadsCompute<2>), "sessions", "[sessions, dim]"),
                  (INPUT, (roles::ReadsSame<2>), "map", "[width, dim]"),
                  (INPUT, (roles::ReadsSame<2>), "items", "[items, width]"),
                  (OUTPUT, (roles::WritesSame<2>), "scores",
                   "[sessions, items] of the scalar of sessions"))
PARE_REFUSE_CALLS(multi_task_loss, "retrieval::multi_task_loss",
                  "wanted heads as a list of ClassHead of the scalar of sessions, and after them "
                  "losses or nothing",
                  (INPUT, (roles::ReadsCompute<2>), "sessions", "[sessions, dim]"),
                  (ANY, (roles::TakesAny), "heads", "a list of ClassHead"))
PARE_REFUSE_CALLS(multi_task_gradient, "retrieval::multi_task_gradient",
                  "wanted heads and by_heads as lists of ClassHead and ClassGradient of the scalar "
                  "of sessions, and after them losses or nothing",
                  (INPUT, (roles::ReadsCompute<2>), "sessions", "[sessions, dim]"),
                  (ANY, (roles::TakesAny), "heads", "a list of ClassHead"),
                  (OUTPUT, (roles::WritesSame<2>), "by_sessions",
                   "[sessions, dim] of the scalar of sessions"),
                  (ANY, (roles::TakesAny), "by_heads", "a list of ClassGradient"))

PARE_ABI_END
}  // namespace pare::retrieval

#include <pare/core/macros_on.hpp>
