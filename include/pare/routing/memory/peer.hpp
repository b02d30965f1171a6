// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// PEER: a mixture of very many experts of one neuron each, found by product keys.
///
///     y_r = sum over heads and hits of g(score) A(<down_i, x_r>) up_i
///
/// ```cpp
/// const PeerExperts<bf16> experts{down, up};   // views, [n^2, dim] and [n^2, outputs]
/// peer(pare::simd.with(workspace), x, queries, keys, experts, y, transformer::Gelu{}, {.k = 16});
/// ```
///
/// Queries are those of search_product_keys: a layer of the model makes them, its norm included.
/// Heads share the experts. g is the softmax over the hits of a head, or max(score, 0).
///
/// Source: He, "Mixture of a million experts", arXiv 2407.04153, by the code of
/// lucidrains/PEER-pytorch at 6cb671f. 16 hits under a softmax are the paper's, and the code's with
/// `non_competing_scores=False`; as it comes, it keeps one hit of each head, `{.k = 1, .weight =
/// HitWeight::Relu}`. GELU is its default. Left out: dropout, which only training uses, and a table
/// for each head (`separate_embed_per_head`).
///
/// What its checkpoints hold lies otherwise. Keys are [heads, n, 2, half]: view them with strides
/// {2 n half, half, 2 half, 1}; taken as they lie they are other keys, without an error.
/// `to_queries` has the half outermost, (2, heads, half): its rows are to be put in the order
/// (heads, 2, half).

#include <pare/core/macros_off.hpp>

#include <pare/core/aligned_buffer.hpp>
#include <pare/core/backend.hpp>
#include <pare/core/check.hpp>
#include <pare/core/executor_ref.hpp>
#include <pare/core/refused_call.hpp>
#include <pare/core/scratch.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/core/view_check.hpp>
#include <pare/routing/memory/gather_dots.hpp>
#include <pare/routing/memory/gather_values.hpp>
#include <pare/routing/memory/product_key_search.hpp>
#include <pare/transformer/gates.hpp>
#include <pare/transformer/softmax.hpp>

#include <type_traits>

namespace pare::routing {

/// What a hit weighs.
enum class HitWeight : unsigned char {
  Softmax,  ///< over the hits of its head
  Relu,     ///< max(score, 0)
};

struct PeerOptions {
  Index k = 16;  ///< hits of a head, 1 to the keys of a half; that of the paper
  HitWeight weight = HitWeight::Softmax;
};

PARE_ABI_BEGIN

/// The experts, viewed where they lie, in a mapped file too: rows contiguous.
template <StorageScalar S>
struct PeerExperts {
  TensorView<const S, 2> down;  ///< [n^2, dim]: what a neuron reads
  TensorView<const S, 2> up;    ///< [n^2, outputs]: what it writes
};

PARE_ABI_END
namespace detail {
PARE_ABI_BEGIN

template <class T>
struct PeerMemory {
  MemoryHits<T> hits;
  AlignedBuffer<T> hidden;
};

template <class S>
void check_peer(TensorView<const compute_t<S>, 2> x, TensorView<const compute_t<S>, 3> queries,
                TensorView<const compute_t<S>, 4> keys, const PeerExperts<S>& experts,
                TensorView<compute_t<S>, 2> y, const PeerOptions& options) {
  constexpr const char* function = "routing::peer";
  check_enumerator(function, "options.weight", options.weight, HitWeight::Relu);
  check_product_keys(function, ProductKeyCall<compute_t<S>>{queries, keys, options.k});
  const Index slots = checked_product(function, "keys", keys.extent[2], keys.extent[2]);
  check_view(function, "x", x);
  check_extents<2>(function, "x", x.extent, {queries.extent[0], experts.down.cols()});
  check_contiguous_rows(function, "x", x);
  check_table(function, "experts.down", experts.down);
  check_extents<2>(function, "experts.down", experts.down.extent, {slots, x.cols()});
  check_table(function, "experts.up", experts.up);
  check_extents<2>(function, "experts.up", experts.up.extent, {slots, experts.up.cols()});
  check_writable(function, "y", y);
  check_extents<2>(function, "y", y.extent, {x.rows(), experts.up.cols()});
  check_contiguous_rows(function, "y", y);
  check_no_overlap(function, "y", y, "x", x);
  check_no_overlap(function, "y", y, "queries", queries);
  check_no_overlap(function, "y", y, "keys", keys);
  check_no_overlap(function, "y", y, "experts.down", experts.down);
  check_no_overlap(function, "y", y, "experts.up", experts.up);
}

/// Scores [rows, heads k] become weights, a head at a time.
template <class B, class T>
void weigh_hits(const B& backend, TensorView<T, 2> scores, Index k, HitWeight weight) {
  const TensorView<T, 2> by_head{scores.data, {scores.rows() * (scores.cols() / k), k}, {k, 1}};
  if (weight == HitWeight::Softmax)
    transformer::softmax(backend, as_const(by_head), by_head);
  else
    transformer::activate(backend, as_const(by_head), by_head, transformer::Relu{});
}

template <class B, class S, class A>
void peer(const B& backend, TensorView<const compute_t<S>, 2> x,
          TensorView<const compute_t<S>, 3> queries, TensorView<const compute_t<S>, 4> keys,
          const PeerExperts<S>& experts, TensorView<compute_t<S>, 2> y, const A& activation,
          const PeerOptions& options) {
  using T = compute_t<S>;
  check_peer<S>(x, queries, keys, experts, y, options);
  if (x.rows() == 0) return;
  const auto memory = leased<PeerMemory<T>>(backend);
  MemoryHits<T>& hits = memory->hits;
  routing::search_product_keys(backend, queries, keys, options.k, hits);
  const TensorView<T, 2> weights = to_view(hits.scores);
  weigh_hits(backend, weights, options.k, options.weight);
  const auto hidden = matrix_in(memory->hidden, x.rows(), hits.ids.cols());
  routing::gather_dots(backend, experts.down, hits.ids, x, hidden);  // checks ids
  transformer::activate_gated(backend, as_const(hidden), as_const(weights), hidden, activation);
  add_gathered<B, S>(backend, experts.up, as_const(to_view(hits.ids)), as_const(hidden), y);
}

template <class X>
struct IsPeerExperts : std::false_type {};
template <class S>
struct IsPeerExperts<PeerExperts<S>> : std::true_type {};
template <class X>
using TakesPeerExperts = IsPeerExperts<std::remove_cvref_t<X>>;

PARE_ABI_END
}  // namespace detail
PARE_ABI_BEGIN

/// Runs the layer.
///
/// \param backend    left out: pare::simd
/// \param x          [rows, dim] of what experts are computed in, rows contiguous
/// \param queries    [rows, heads, 2 half], of the same, contiguous along the last dimension
/// \param keys       [heads, 2, n, half], of the same, likewise
/// \param experts    [n^2, dim] and [n^2, outputs] of any storage scalar
/// \param y          [rows, outputs], rows contiguous, written; apart from what is read
/// \param activation of transformer/gates.hpp, or one of yours
/// \throws std::invalid_argument if an extent does not fit, rows are not contiguous, k is out of
///         range, or y overlaps what is read. Nothing is written then.
///
/// Cost: rows heads k (dim + outputs) numbers read from anywhere in both tables, which binds where
/// they are larger than the caches, beside the search of the keys. Memory, in the backend's
/// workspace: hits and one number for each of them, and that of the search. A NaN in a row of x or
/// queries reaches that row of y alone. The same bits for any number of threads.
template <Backend B, In<2> X, In<3> Q, In<4> K, StorageScalar S, Out<2> Y,
          transformer::Activation A = transformer::Gelu>
requires std::is_same_v<scalar_of<X>, compute_t<S>> && SameScalar<X, Q, K> && SameScalar<X, Y>
void peer(const B& backend, const X& x, const Q& queries, const K& keys,
          const PeerExperts<S>& experts, Y&& y, const A& activation = {},
          const PeerOptions& options = {}) {
  detail::peer<OnAnyExecutor<B>, S>(on_any_executor(backend), as_const(to_view(x)),
                                    as_const(to_view(queries)), as_const(to_view(keys)), experts,
                                    to_view(y), activation, options);
}

/// \overload
template <In<2> X, In<3> Q, In<4> K, StorageScalar S, Out<2> Y,
          transformer::Activation A = transformer::Gelu>
requires std::is_same_v<scalar_of<X>, compute_t<S>> && SameScalar<X, Q, K> && SameScalar<X, Y>
void peer(const X& x, const Q& queries, const K& keys, const PeerExperts<S>& experts, Y&& y,
          const A& activation = {}, const PeerOptions& options = {}) {
  peer(simd, x, queries, keys, experts, y, activation, options);
}

PARE_REFUSE_CALLS(peer, "routing::peer", "after y: wanted an activation and PeerOptions",
                  (INPUT, (roles::ReadsCompute<2>), "x", "[rows, dim]"),
                  (INPUT, (roles::ReadsSame<3>), "queries", "[rows, heads, 2 half]"),
                  (INPUT, (roles::ReadsSame<4>), "keys", "[heads, 2, n, half]"),
                  (PLAIN, (roles::Takes<detail::TakesPeerExperts>), "experts",
                   "PeerExperts of a scalar that is computed in that of x"),
                  (OUTPUT, (roles::WritesSame<2>), "y", "[rows, outputs] of the scalar of x"))

PARE_ABI_END
}  // namespace pare::routing

#include <pare/core/macros_on.hpp>
