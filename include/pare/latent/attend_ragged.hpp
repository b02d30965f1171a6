// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Attention over a RaggedCache, whose heads keep different numbers of tokens.
///
/// ```cpp
/// attend_ragged(pare::simd.threads(4), q, cache, out, {.causal = true});
/// ```
///
/// With `causal`, query i of n sees what a group keeps but its last n - 1 - i tokens: append the
/// tokens of the queries, attend, and let groups drop tokens (`keep`) afterwards.

#include <pare/core/macros_off.hpp>

#include <pare/attention/attend.hpp>
#include <pare/attention/budget/attend_heads.hpp>
#include <pare/core/backend.hpp>
#include <pare/core/check.hpp>
#include <pare/core/refused_call.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/latent/ragged_cache.hpp>

#include <type_traits>

namespace pare::latent {

namespace detail {

template <class X>
inline constexpr bool is_ragged_cache = false;
template <class S>
inline constexpr bool is_ragged_cache<RaggedCache<S>> = true;
template <class X>
using IsRaggedCache = std::bool_constant<is_ragged_cache<std::remove_cvref_t<X>>>;

PARE_ABI_BEGIN

inline constexpr const char* attend_ragged_name = "latent::attend_ragged";

/// Sequence s of x alone.
template <class T>
TensorView<T, 4> sequence_of(TensorView<T, 4> x, Index s) {
  if (x.data != nullptr) x.data += s * x.stride[0];
  x.extent[0] = 1;
  return x;
}

template <class S>
void check_ragged(const RaggedCache<S>& cache, const attention::AttendOptions& options) {
  const char* const function = attend_ragged_name;
  check(!options.window && !options.window_left && !options.window_right, function, "window",
        "a window", "none: groups keep tokens from anywhere");
  check(!options.order && !options.mask, function, "order, mask", "an order or a mask",
        "neither: groups differ in length");
  check(!options.query_offsets, function, "query_offsets", "packed sequences", "none");
  check(!options.lse.wanted(), function, "lse", "a log-sum-exp", "none");
  check(!options.sink_logits, function, "sink_logits", "sink logits", "none");
  check(cache.kv_heads() >= 1, function, "cache", cache.kv_heads(), "heads");
}

PARE_ABI_END
}  // namespace detail
PARE_ABI_BEGIN

/// Attention of each head over the tokens that its group keeps.
///
/// \param backend left out: pare::simd
/// \param q       [sequences, heads, queries, key dim]; heads are a multiple of the kv heads, and
///                those of kv head h are neighbours, as in attention::attend
/// \param cache   of the scalar of q
/// \param out     [sequences, heads, queries, value dim], written
/// \param options causal, scale and query_offset; nothing that counts positions or needs one length
/// \throws std::invalid_argument if a shape does not fit, an option is of the others, or out
///         overlaps an input. Nothing is written then.
///
/// Cost and memory: those of attention::attend_heads, in one call where the heads of all sequences
/// are at one stride, else in one for each sequence. The same bits for any number of threads and
/// any order of the heads in groups.
template <Backend B, In<4> Q, StorageScalar S, Out<4> O>
requires attention::SourceScalars<Q, attention::PagedKeyValue<S>, O>
void attend_ragged(const B& backend, const Q& q, const RaggedCache<S>& cache, O&& out,
                   const attention::AttendOptions& options = {}) {
  constexpr const char* function = detail::attend_ragged_name;
  const auto queries = as_const(to_view(q));
  const auto to = to_view(out);
  check_view(function, "q", queries);
  detail::check_ragged(cache, options);
  const Index heads = queries.extent[1];
  check(heads % cache.kv_heads() == 0, function, "q", queries.extent,
        Worded{"a multiple of ", cache.kv_heads(), " heads"});
  check_extents<4>(function, "q", queries.extent,
                   {cache.sequences(), heads, queries.extent[2], cache.key_dim()});
  check_extents<4>(function, "out", to.extent,
                   {cache.sequences(), heads, queries.extent[2], cache.value_dim()});
  check_writable(function, "out", to);
  check_no_overlap(function, "out", to, "q", queries);
  cache.check_apart(function, "out", to);
  const auto room = leased<HeadPages>(backend);
  const bool follow = attention::heads_follow(queries) && attention::heads_follow(to);
  const Index all = cache.sequences(), at_once = follow ? all : 1;
  for (Index s = 0; s < all; s += at_once) {
    const auto source = paged_heads(cache, 0, cache.kv_heads(), s, at_once, *room);
    attention::attend_heads(backend, follow ? queries : detail::sequence_of(queries, s), source,
                            follow ? to : detail::sequence_of(to, s), options);
  }
}

/// \overload
template <In<4> Q, StorageScalar S, Out<4> O>
requires attention::SourceScalars<Q, attention::PagedKeyValue<S>, O>
void attend_ragged(const Q& q, const RaggedCache<S>& cache, O&& out,
                   const attention::AttendOptions& options = {}) {
  attend_ragged(simd, q, cache, out, options);
}

PARE_REFUSE_CALLS(attend_ragged, "latent::attend_ragged",
                  "wanted a RaggedCache of the scalar of q, and behind out AttendOptions, members "
                  "spelt and ordered as declared",
                  (INPUT, (roles::Reads<4>), "q", "[sequences, heads, queries, key dim]"),
                  (PLAIN, (roles::Takes<detail::IsRaggedCache>), "cache", "a RaggedCache"),
                  (OUTPUT, (roles::WritesEither<4>), "out",
                   "[sequences, heads, queries, value dim]"))

PARE_ABI_END
}  // namespace pare::latent

#include <pare/core/macros_on.hpp>
