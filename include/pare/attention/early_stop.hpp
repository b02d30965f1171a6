// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Causal attention that stops early, after S2O, "Early Stopping for Sparse Attention via Online
/// Permutation" (arXiv 2602.22575).
///
/// ```cpp
/// const AttendStats stats = attend(q, k, v, out, EarlyStop{.threshold = 1e-3});
/// attend(pare::simd.threads(4), q, k, v, out, EarlyStop{.segment = 512}, {.causal = true});
/// ```
///
/// The sequence is cut into segments. For each segment and each head:
///
/// 1. The queries of the segment are ranked by their product with a guide vector. Neighbours in
///    this ranking form tiles of `row_tile` queries, and the queries of a tile stop together.
/// 2. The keys before the segment, its history, are ranked by their product with the mean query of
///    the segment.
/// 3. Every query sees the keys of its own segment, as causality allows.
/// 4. The history follows in the order of its rank, in tiles of `key_tile` keys. If l is the mass
///    of a query so far, and a tile adds d = sum_j e^(score_j - max), the gain is d / (l + d). Once
///    the gains of a tile of queries, taken together by `aggregate`, are below the threshold, these
///    queries stop. The tile of keys that failed is still counted in.
///
/// No key is moved: keys are gathered tile by tile from where they lie. A tile is packed once for
/// all queries of the segment that have not stopped, and the history is ranked only as far as some
/// query reads it.
///
/// If e is the share of a row's mass that was dropped, its output is wrong by at most 2 e max|v|.
/// The threshold does not bound e: keys are ranked for the mean query, and a query that differs
/// from it may stop before its own important keys come.

#include <pare/core/macros_off.hpp>

#include <pare/attention/attend.hpp>
#include <pare/attention/detail/early_stop_engine.hpp>
#include <pare/attention/detail/reference_early_stop.hpp>
#include <pare/attention/early_stop_options.hpp>
#include <pare/core/executor_ref.hpp>

#include <algorithm>
#include <concepts>

namespace pare::attention {

namespace detail {
PARE_ABI_BEGIN

/// What stopping early does not combine with.
template <class C>
void check_stop_call(const C& call) {
  const AttendOptions& o = call.options;
  check(o.causal.value_or(true), attend_name, "causal", "false",
        "true: only causal attention stops early");
  check_plain_visibility(attend_name, o, "none with EarlyStop");
  check(!o.sink_logits, attend_name, "sink_logits", "logits", "none with EarlyStop");
  check(o.order == nullptr, attend_name, "order", "a key order", "none with EarlyStop");
  check(o.mask == nullptr, attend_name, "mask", "a mask", "none with EarlyStop");
  for (Index i = 0; i < call.problem.sequences; ++i) {
    const Sequence s = call.sequence(i);
    check(s.queries <= s.keys, attend_name, "q", s.queries, "no more queries than keys");
  }
}

inline ReferenceEarlyStop reference_rule(const EarlyStop& o, double scale, Index longest) {
  ReferenceEarlyStop r;
  r.scale = scale;
  r.segment = std::min(o.segment, longest);
  r.row_tile = std::min(o.row_tile, longest);
  r.key_tile = std::min(o.key_tile, longest);
  r.threshold = o.threshold;
  r.mean_gain = o.aggregate == EarlyStop::Aggregate::Mean;
  r.guide = o.guide == EarlyStop::Guide::MeanKey         ? ReferenceGuide::MeanKey
            : o.guide == EarlyStop::Guide::MeanPrefixKey ? ReferenceGuide::MeanPrefixKey
                                                         : ReferenceGuide::FirstKey;
  r.permute_queries = o.permute_queries;
  r.share_gqa = o.share_kv_heads;
  return r;
}

/// The tokens of a sequence and the query heads of a key/value head, of q, out or lse.
template <class X, std::size_t Rank>
TensorView<X, Rank - 1> group_of(const TensorView<X, Rank>& x, const Sequence& s, Index kv_head,
                                 Index group) {
  TensorView<X, Rank - 1> part;
  part.data =
      x.data + s.batch * x.stride[0] + kv_head * group * x.stride[1] + s.query_begin * x.stride[2];
  std::copy(x.extent.begin() + 1, x.extent.end(), part.extent.begin());
  std::copy(x.stride.begin() + 1, x.stride.end(), part.stride.begin());
  part.extent[0] = group;
  part.extent[1] = s.queries;
  return part;
}

template <class C>
AttendStats run_reference_early_stop(const C& call, const EarlyStop& rule, Index longest) {
  using S = typename C::Scalar;
  using T = typename C::T;
  const Problem& p = call.problem;
  const ReferenceEarlyStop o = reference_rule(rule, p.scale, longest);
  double computed = 0, visible = 0;
  for (Index i = 0; i < p.sequences; ++i)
    for (Index kv_head = 0; kv_head < p.kv_heads; ++kv_head) {
      const Sequence s = call.sequence(i);
      if (s.queries == 0) continue;
      const auto& keys = call.source.keys;
      const auto& values = call.source.values;
      const ReferenceGroup<S> group{
          group_of(call.q, s, kv_head, p.group()),
          {call.source.key(i, kv_head, 0), {s.keys, p.key_dim}, {keys.stride[2], 1}},
          {call.source.value(i, kv_head, 0), {s.keys, p.value_dim}, {values.stride[2], 1}}};
      TensorView<T, 2> lse;
      if (call.options.lse.wanted())
        lse = group_of(call.options.lse.template view<T>(), s, kv_head, p.group());
      const double density =
          reference_early_stop(group, o, group_of(call.out, s, kv_head, p.group()), lse).density;
      const double pairs = static_cast<double>(s.queries) *
                           (static_cast<double>(s.keys) - (static_cast<double>(s.queries) - 1) / 2);
      computed += density * pairs;
      visible += pairs;
    }
  return {.density = visible > 0 ? computed / visible : 1};
}

template <class B, class S, class O>
AttendStats attend_early(const B& backend, TensorView<const S, 4> q, TensorView<const S, 4> k,
                         TensorView<const S, 4> v, TensorView<O, 4> out, const EarlyStop& rule,
                         const AttendOptions& given) {
  const AttendOptions options = causal_unless_told(given);
  check_early_stop(attend_name, rule);
  const DenseKeyValue<S> source = checked_source(k, v, options);
  const Exact exact;
  const Problem problem = checked_problem(attend_name, q, source, out, exact, options, k.extent[2]);
  check_outputs(attend_name, q, source, out, exact, options);
  const Call<S, O, DenseKeyValue<S>, Exact> call{problem, q, source, out, exact, options};
  check_stop_call(call);
  if (q.extent[0] == 0 || q.extent[1] == 0 || q.extent[2] == 0) return {};
  Index longest = 0;
  for (Index i = 0; i < problem.sequences; ++i) longest = std::max(longest, source.length(i));
  if constexpr (KernelBackend<B>) {
    if (rule.threshold == 0 || rule.segment >= longest)
      return attend_checked(backend, q, source, k.extent[2], out, exact, options);
    return run_early_stop(on_any_executor(backend), call, rule);
  } else {
    return run_reference_early_stop(call, rule, longest);
  }
}

PARE_ABI_END
}  // namespace detail

PARE_ABI_BEGIN

/// Causal attention over the keys that each segment ranks highest, until they add too little.
///
/// \param backend where and how; left out: pare::simd
/// \param q       [batch, heads, queries, key dim], no more queries than keys in any sequence
/// \param k       [batch, kv heads, keys, key dim]
/// \param v       [batch, kv heads, keys, value dim]
/// \param out     [batch, heads, queries, value dim], written; must not overlap an input
/// \param policy  an EarlyStop: when to stop
/// \param options `causal` must be true, as it is if left out; lengths, packed
///                sequences, scale and lse as for exact attention; neither window,
///                query_offset, sink_logits, order nor mask
/// \returns the density and the seconds of ranking, as below
/// \throws std::invalid_argument if a shape, stride or option does not fit, the threshold is
///         negative or NaN, or a size is below 1. Nothing is written then. No queries: a no-op.
///
/// `density` counts (query, key) pairs over all heads: those that were computed, divided by those
/// that causality allows. A query counts the keys of its own segment up to itself, and all keys of
/// the history tiles that it read. This equals the density of selected blocks over T (T + 1) / 2
/// with blocks of one token, and is 1 for exact attention. `selected_mass` is not known.
/// `select_seconds` is the time of ranking, summed over threads and divided by their number; the
/// reference does not measure it.
///
/// A threshold of 0 is exact, and so are sequences no longer than a segment; both run as exact
/// attention. NaN scores rank last, and a row that is NaN does not keep its tile of queries going.
///
/// Cost: that of exact attention times the density. Ranking adds one pass over the keys for every 8
/// segments, and the products of each segment's mean query with its history, which are 1 / segment
/// of exact attention's. Memory per thread: about 50 bytes for each key of the longest sequence,
/// and the states of a segment's queries. The bits are the same for any number of threads. Mean
/// queries and guides are rounded to the scalar of the tensors.
template <Backend B, In<4> Q, In<4> K, In<4> V, Out<4> O, std::derived_from<EarlyStop> P>
requires AttendScalars<Q, K, V, O>
AttendStats attend(const B& backend, const Q& q, const K& k, const V& v, O&& out, const P& policy,
                   const AttendOptions& options = {}) {
  return detail::attend_early(backend, as_const(to_view(q)), as_const(to_view(k)),
                              as_const(to_view(v)), to_view(out), policy, options);
}

PARE_ABI_END
}  // namespace pare::attention

#include <pare/core/macros_on.hpp>
