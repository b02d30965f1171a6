// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Attention over key lists: softmax(scale Q K^T) V of the keys that each query lists.
///
/// ```cpp
/// attend(q, k, v, out, lists);                             // KeyLists, key_lists.hpp
/// attend(q, k, v, out, lists, {.causal = true, .lse = lse});
/// attend(q, k, v, out, lists, SoftCap{.cap = 50}, {.causal = true});
/// attend(pare::simd.threads(4), q, cache, out, lists);     // a KeyValueSource, also of latents
/// ```
///
/// Per row: scores of the listed keys (a sampled dense-dense product), their softmax, and the sum
/// of the listed values (a sparse-dense product), fused for up to 256 rows at a time, so that no
/// score outlives its rows. All that the dense engine takes is as there: any strides, grouped
/// queries, 16-bit storage, sources, modifiers, scale, sink logits, windows and lengths. A key is
/// attended to if its row lists it and the options let the row see it.
///
/// A row that lists no key, or sees none of those it lists, is 0 with a log-sum-exp of -infinity,
/// as in the dense engine; PyTorch's masked softmax gives NaN there, and FlashInfer 0. A NaN in a
/// query or in a listed key makes the rows that list it NaN, as does a score of +infinity. A NaN or
/// infinity in a value reaches the rows that list it, also where an option or a modifier hides it,
/// and no other.
///
/// Scores are summed in float (in double for double tensors), as 16-bit storage is widened:
/// products of bf16 pairs are not used, and weights are not rounded. The softmax is taken over the
/// whole list, not online.

#include <pare/core/macros_off.hpp>

#include <pare/attention/attend.hpp>
#include <pare/attention/detail/list_runner.hpp>
#include <pare/attention/detail/reference_key_lists.hpp>
#include <pare/attention/key_lists.hpp>
#include <pare/core/backend.hpp>
#include <pare/core/check.hpp>
#include <pare/core/executor_ref.hpp>
#include <pare/core/tensor_view.hpp>

#include <algorithm>
#include <concepts>
#include <cstddef>

namespace pare::attention {

namespace detail {
PARE_ABI_BEGIN

inline void check_listed_options(const AttendOptions& o) {
  check(o.mask == nullptr && o.order == nullptr, attend_name, "mask, order", "a mask or an order",
        "neither with key lists");
  check(!o.query_offsets && !o.key_offsets, attend_name, "query_offsets, key_offsets", "offsets",
        "none with key lists, which are of whole batch entries");
}

inline void check_lists(const KeyLists& lists, const Problem& p, Index queries, Index keys) {
  const KeyLists::Shape& s = lists.shape();
  check(s.batch == 1 || s.batch == p.sequences, attend_name, "lists", s.batch,
        "a batch of 1 or that of the call");
  check(s.heads == 1 || s.heads == p.kv_heads || s.heads == p.heads, attend_name, "lists", s.heads,
        "1 head, the key/value heads or the query heads");
  check_extents<2>(attend_name, "lists", {s.queries, s.keys}, {queries, keys});
}

/// Refuses an output that shares memory with the lists.
template <class O, std::size_t Rank>
void check_apart_from_lists(const char* output, const TensorView<O, Rank>& out,
                            const KeyLists& lists) {
  const auto view = [](auto list) {
    return TensorView<typename decltype(list)::element_type, 1>{
        list.data(), {static_cast<Index>(list.size())}, {1}};
  };
  check_no_overlap(attend_name, output, out, "lists", view(lists.keys()));
  check_no_overlap(attend_name, output, out, "lists", view(lists.offsets()));
}

/// Pairs that the options alone let queries see.
template <class C>
double shown_pairs(const C& call) {
  const Problem& p = call.problem;
  double pairs = 0;
  for (Index i = 0; i < p.sequences; ++i) {
    const Sequence s = call.sequence(i);
    for (Index query = 0; query < s.queries; ++query) {
      const Visible v = visible(p, s, query);
      const Index first = std::min(v.first, v.last + 1);
      pairs += static_cast<double>(v.last + 1 - first + std::min(p.sinks, first));
    }
  }
  return pairs * static_cast<double>(p.heads);
}

template <class B, class S, class Source, class O, ScoreModifier M>
AttendStats attend_listed(const B& backend, TensorView<const S, 4> q, const Source& source,
                          Index key_slots, TensorView<O, 4> out, const KeyLists& lists,
                          const M& modifier, const AttendOptions& options) {
  const Problem problem =
      checked_problem(attend_name, q, source, out, modifier, options, key_slots);
  check_lists(lists, problem, q.extent[2], key_slots);
  check_outputs(attend_name, q, source, out, modifier, options);
  check_apart_from_lists("out", out, lists);
  if (options.lse.wanted())
    check_apart_from_lists("lse", options.lse.template view<compute_t<S>>(), lists);
  AttendStats stats;
  if (q.extent[0] == 0 || q.extent[1] == 0 || q.extent[2] == 0) return stats;
  const Call<S, O, Source, M> call{problem, q, source, out, modifier, options};
  double pairs = 0;
  if constexpr (KernelBackend<B>)
    pairs = run_listed(on_any_executor(backend), call, lists);
  else
    pairs = reference_listed(call, lists);
  const double all = shown_pairs(call);
  stats.density = all > 0 ? pairs / all : 1;
  return stats;
}

PARE_ABI_END
}  // namespace detail
PARE_ABI_BEGIN

/// Attention over key lists: out_i = sum_j softmax_j(modify(scale q_i.k_j)) v_j over the keys j
/// that query i lists and sees.
///
/// \param backend  where and how; left out: pare::simd
/// \param q        [batch, heads, queries, key dim]
/// \param k        [batch, kv heads, keys, key dim]
/// \param v        [batch, kv heads, keys, value dim]
/// \param out      [batch, heads, queries, value dim], written; must not overlap an input
/// \param lists    for those queries and keys; of a batch of 1 or that of q, and of 1 head, the kv
///                 heads or the heads of q
/// \param modifier what is done to scores, see score_modifier.hpp; left out: nothing
/// \param options  as for `attend` without lists, but no mask, order or packed sequences. Causality
///                 is false if left out: causal lists need no other, and it costs nothing then
/// \returns the density: pairs attended to, of those that the options alone let queries see
/// \throws std::invalid_argument if the lists are for another shape or share memory with an output,
///         or as `attend` without lists. Nothing is written then. A call without queries does
///         nothing.
///
/// Cost: 2 (key dim + value dim) FLOPs for each listed pair. Each operand is a load, which binds,
/// at .3 to .4 of the rate of the dense engine (.3 of its time for an eighth of its pairs); each
/// key/value head is copied once for every 256 rows (query heads of a group count), fewer where
/// their lists hold over 256 Ki keys together. Few rows copy no more than the keys that they list.
/// Memory: about 2 MiB per thread, and 7.5 bytes for each key of the longest list, in the backend's
/// workspace. The bits are the same for any number of threads.
template <Backend B, In<4> Q, In<4> K, In<4> V, Out<4> O, std::same_as<KeyLists> L, ScoreModifier M>
requires AttendScalars<Q, K, V, O>
AttendStats attend(const B& backend, const Q& q, const K& k, const V& v, O&& out, const L& lists,
                   const M& modifier, const AttendOptions& options = {}) {
  detail::check_listed_options(options);
  const auto keys = as_const(to_view(k));
  const auto source = detail::checked_source(keys, as_const(to_view(v)), options);
  return detail::attend_listed(backend, as_const(to_view(q)), source, keys.extent[2], to_view(out),
                               lists, modifier, options);
}

/// \overload
template <Backend B, In<4> Q, In<4> K, In<4> V, Out<4> O, std::same_as<KeyLists> L>
requires AttendScalars<Q, K, V, O>
AttendStats attend(const B& backend, const Q& q, const K& k, const V& v, O&& out, const L& lists,
                   const AttendOptions& options = {}) {
  return attend(backend, q, k, v, out, lists, Exact{}, options);
}

/// \overload
template <In<4> Q, In<4> K, In<4> V, Out<4> O, std::same_as<KeyLists> L, ScoreModifier M>
requires AttendScalars<Q, K, V, O>
AttendStats attend(const Q& q, const K& k, const V& v, O&& out, const L& lists, const M& modifier,
                   const AttendOptions& options = {}) {
  return attend(simd, q, k, v, out, lists, modifier, options);
}

/// Attention over key lists and a KeyValueSource, such as PagedKeyValue or a cache of latents: the
/// token lists of sparse latent attention, whose heads share a list.
///
/// \param source  sequence i belongs to batch entry i of q. Keys at positions beyond its length are
///                not seen
/// \param lists   of as many keys as the longest sequence has
///
/// All else is as above. Rows that the source loads are loaded once for an item of rows; where keys
/// hold their values, twice: for scores, and for values.
template <Backend B, In<4> Q, KeyValueSource Source, Out<4> O, std::same_as<KeyLists> L,
          ScoreModifier M>
requires SourceScalars<Q, Source, O>
AttendStats attend(const B& backend, const Q& q, const Source& source, O&& out, const L& lists,
                   const M& modifier, const AttendOptions& options = {}) {
  detail::check_listed_options(options);
  const auto queries = as_const(to_view(q));
  check_view(detail::attend_name, "q", queries);
  detail::check_source(source, queries.extent[2], options);
  check(!options.key_lengths, detail::attend_name, "key_lengths", "lengths",
        "none: the source has its own");
  Index slots = 0;
  for (Index i = 0; i < source.sequences(); ++i) slots = std::max<Index>(slots, source.length(i));
  return detail::attend_listed(backend, queries, source, slots, to_view(out), lists, modifier,
                               options);
}

/// \overload
template <Backend B, In<4> Q, KeyValueSource Source, Out<4> O, std::same_as<KeyLists> L>
requires SourceScalars<Q, Source, O>
AttendStats attend(const B& backend, const Q& q, const Source& source, O&& out, const L& lists,
                   const AttendOptions& options = {}) {
  return attend(backend, q, source, out, lists, Exact{}, options);
}

/// \overload
template <In<4> Q, KeyValueSource Source, Out<4> O, std::same_as<KeyLists> L, ScoreModifier M>
requires SourceScalars<Q, Source, O>
AttendStats attend(const Q& q, const Source& source, O&& out, const L& lists, const M& modifier,
                   const AttendOptions& options = {}) {
  return attend(simd, q, source, out, lists, modifier, options);
}

/// \overload
template <In<4> Q, KeyValueSource Source, Out<4> O, std::same_as<KeyLists> L>
requires SourceScalars<Q, Source, O>
AttendStats attend(const Q& q, const Source& source, O&& out, const L& lists,
                   const AttendOptions& options = {}) {
  return attend(simd, q, source, out, lists, Exact{}, options);
}

PARE_ABI_END
}  // namespace pare::attention

#include <pare/core/macros_on.hpp>
