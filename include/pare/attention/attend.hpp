// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Attention: softmax(scale Q K^T + mask) V, exact, or over the blocks that a mask selects.
///
/// ```cpp
/// attend(q, k, v, out);
/// attend(q, k, v, out, {.causal = true});
/// attend(q, k, v, out, SoftCap{.cap = 50}, {.causal = true, .window = 4096});
/// attend(pare::simd.threads(4), q, cache, out, {.causal = true});   // a KeyValueSource
/// attend(pare::simd.with(workspace), q, k, v, out);                 // memory kept for the next
/// attend(heads_first(q), heads_first(k), heads_first(v), heads_first(out));
/// //     tensors that lie as [batch, tokens, heads, dim], as PyTorch's and FlashAttention's do
/// ```
///
/// Tensors are [batch, heads, tokens, dim]. Strides are free, except that the last dimension must
/// be contiguous (an Eigen::Tensor must be RowMajor; only matrices may be column-major). q, k and v
/// hold one storage scalar; out holds that scalar, or the one that it is computed in. With fewer
/// key/value heads than query heads, r = heads / kv heads, query heads h r ... h r + r - 1 share
/// key/value head h, and nothing is copied for it. key dim and value dim may differ. Any size and
/// length is allowed, a head of at least 1.
///
/// Scores are summed in float (in double for double tensors). The softmax runs online over tiles of
/// 128 keys (Milakov and Gimelshein 2018; Dao et al., FlashAttention, 2022): it keeps a running
/// maximum and sum for each row, so that beyond inputs and outputs it needs memory for a few
/// hundred rows per thread. Where the arch has bf16 products, bf16 tensors are multiplied by them.
/// Weights are then rounded to bf16, and subnormal products count as 0.
///
/// A row that sees no key is 0. A NaN in a query or key makes the rows that see it NaN, and so does
/// a score of +infinity. A score of -infinity hides its key, whether a modifier made it or the
/// product q.k is infinite or overflows. A NaN or infinity in v may also reach rows that do not see
/// it, if they share its tile. Finite scores hide nothing: if all scores of a row are the lowest
/// number, the row is the mean of the values, as softmax says (and as PyTorch has it). Scores
/// beyond +-2.35e38 (+-1.24e308 in double) count as that number.

#include <pare/core/macros_off.hpp>

#include <pare/attention/detail/check_finish.hpp>
#include <pare/attention/detail/checked_problem.hpp>
#include <pare/attention/detail/engine.hpp>
#include <pare/attention/detail/run_reference.hpp>
#include <pare/attention/heads_first.hpp>
#include <pare/attention/key_value.hpp>
#include <pare/attention/options.hpp>
#include <pare/attention/row_finish.hpp>
#include <pare/attention/score_modifier.hpp>
#include <pare/core/backend.hpp>
#include <pare/core/executor_ref.hpp>
#include <pare/core/refused_call.hpp>
#include <pare/core/tensor_view.hpp>

#include <algorithm>
#include <cstddef>
#include <limits>
#include <type_traits>

namespace pare::attention {

/// What `attend` may write where S is read: S itself, or what it is computed in.
template <class O, class S>
concept OutputOf = std::is_same_v<O, S> || std::is_same_v<O, compute_t<S>>;

/// q, k and v hold one scalar, and O what attend may write for it.
template <class Q, class K, class V, class O>
concept AttendScalars = SameScalar<Q, K, V> && OutputOf<scalar_of<O>, scalar_of<Q>>;

/// The same of a source of keys and values.
template <class Q, class Source, class O>
concept SourceScalars =
    std::is_same_v<scalar_of<Q>, typename Source::scalar> && OutputOf<scalar_of<O>, scalar_of<Q>>;

namespace detail {
PARE_ABI_BEGIN

inline constexpr const char* attend_name = "attention::attend";

template <class B, class S, class Source, class O, ScoreModifier M, class F = KeepRows>
AttendStats attend_checked(const B& backend, TensorView<const S, 4> q, const Source& source,
                           Index key_slots, TensorView<O, 4> out, const M& modifier,
                           const AttendOptions& options, const F& finish = {}) {
  const Problem problem =
      checked_problem(attend_name, q, source, out, modifier, options, key_slots);
  check_outputs(attend_name, q, source, out, modifier, options);
  const Call<S, O, Source, M, F> call{problem, q, source, out, modifier, options, finish};
  check_finish(attend_name, call);
  AttendStats stats;
  if (options.mask != nullptr)
    stats.density = options.mask->density(options.causal.value_or(false));
  if (q.extent[0] == 0 || q.extent[1] == 0 || q.extent[2] == 0) return stats;
  if constexpr (KernelBackend<B>)
    run_call(on_any_executor(backend), call, key_slots);
  else
    run_reference(call);
  return stats;
}

/// Keys and values in tensors, checked.
template <class S>
DenseKeyValue<S> checked_source(TensorView<const S, 4> k, TensorView<const S, 4> v,
                                const AttendOptions& options) {
  check(options.key_offsets.has_value() == options.query_offsets.has_value(), attend_name,
        "query_offsets, key_offsets", "one of them", "both or neither");
  const DenseKeyValue<S> source{k, v, options.key_lengths, options.key_offsets};
  source.validate(attend_name);
  return source;
}

/// Checks a source that says which of its keys must be there with those that a call reads: none
/// before the first that query 0 sees, sinks apart.
template <class Source>
void check_source(const Source& source, Index tokens, const AttendOptions& options) {
  const auto& offsets = options.query_offsets;
  if (offsets) check_query_offsets(attend_name, *offsets, source.sequences(), tokens);
  Problem p;
  set_visibility(attend_name, options, p);
  const auto read_of = [&](Index i) -> KeysRead {
    const auto at = static_cast<std::size_t>(i);
    const Index queries = offsets ? (*offsets)[at + 1] - (*offsets)[at] : tokens;
    const Sequence s{i, 0, queries, source.length(i)};
    if (queries == 0) return {0, s.keys};
    return {p.sinks, visible(p, s, 0).first};
  };
  if constexpr (requires { source.validate(attend_name, read_of); })
    source.validate(attend_name, read_of);
  else
    source.validate(attend_name);
}

/// The key slots of a source, which are those of its longest sequence.
template <class Source>
Index checked_slots(const Source& source, const AttendOptions& options) {
  check(!options.key_lengths && !options.key_offsets, attend_name, "key_lengths, key_offsets",
        "lengths or offsets", "none: the source has its own");
  Index slots = 0, shortest = std::numeric_limits<Index>::max();
  for (Index i = 0; i < source.sequences(); ++i) {
    slots = std::max<Index>(slots, source.length(i));
    shortest = std::min<Index>(shortest, source.length(i));
  }
  check((options.order == nullptr && options.mask == nullptr) || shortest >= slots, attend_name,
        "order, mask", "an order or a mask", "neither where sequences differ in length");
  return slots;
}

template <class B, class S, class O, ScoreModifier M, class F = KeepRows>
AttendStats attend_dense(const B& backend, TensorView<const S, 4> q, TensorView<const S, 4> k,
                         TensorView<const S, 4> v, TensorView<O, 4> out, const M& modifier,
                         const AttendOptions& options, const F& finish = {}) {
  const DenseKeyValue<S> source = checked_source(k, v, options);
  return attend_checked(backend, q, source, k.extent[2], out, modifier, options, finish);
}

/// The same over a source that has its own lengths.
template <class B, class S, class Source, class O, ScoreModifier M, class F = KeepRows>
AttendStats attend_source(const B& backend, TensorView<const S, 4> q, const Source& source,
                          TensorView<O, 4> out, const M& modifier, const AttendOptions& options,
                          const F& finish = {}) {
  check_view(attend_name, "q", q);
  check_source(source, q.extent[2], options);
  const Index slots = checked_slots(source, options);
  return attend_checked(backend, q, source, slots, out, modifier, options, finish);
}

PARE_ABI_END
}  // namespace detail

PARE_ABI_BEGIN

/// Attention over key and value tensors: out_i = sum_j softmax_j(modify(scale q_i.k_j)) v_j over
/// the keys j that query i sees.
///
/// \param backend  where and how; left out: pare::simd
/// \param q        [batch, heads, queries, key dim]
/// \param k        [batch, kv heads, keys, key dim]
/// \param v        [batch, kv heads, keys, value dim]
/// \param out      [batch, heads, queries, value dim], written; must not overlap an input
/// \param modifier what is done to scores, see score_modifier.hpp; left out: nothing
/// \param options  causality, windows, scale, masks, lengths: see options.hpp
/// \returns the density of the mask, which is 1 without one; selected_mass and select_seconds are
///          not set, since nothing is selected
/// \throws std::invalid_argument if a shape, stride, option, order, mask, bias or length does not
///         fit, or if out or lse overlaps an input, the other or itself. Nothing is written then. A
///         call without queries does nothing.
///
/// Cost: 2 (key dim + value dim) FLOPs for each visible (query, key) pair of the computed blocks;
/// the multiplier binds. Each tile of keys is packed again for every few hundred rows, which adds
/// some percent. Memory: about 1 MiB per thread at a head size of 128, kept in the backend's
/// workspace. The bits are the same for any number of threads.
template <Backend B, In<4> Q, In<4> K, In<4> V, Out<4> O, ScoreModifier M>
requires AttendScalars<Q, K, V, O>
AttendStats attend(const B& backend, const Q& q, const K& k, const V& v, O&& out, const M& modifier,
                   const AttendOptions& options = {}) {
  return detail::attend_dense(backend, as_const(to_view(q)), as_const(to_view(k)),
                              as_const(to_view(v)), to_view(out), modifier, options);
}

/// \overload
template <Backend B, In<4> Q, In<4> K, In<4> V, Out<4> O>
requires AttendScalars<Q, K, V, O>
AttendStats attend(const B& backend, const Q& q, const K& k, const V& v, O&& out,
                   const AttendOptions& options = {}) {
  return attend(backend, q, k, v, out, Exact{}, options);
}

/// \overload
/// The policy is a ScoreModifier, a BlockSelector, or a method of this folder such as EarlyStop.
template <In<4> Q, In<4> K, In<4> V, Out<4> O, class P>
requires(!std::is_convertible_v<P, AttendOptions> && AttendScalars<Q, K, V, O>)
AttendStats attend(const Q& q, const K& k, const V& v, O&& out, const P& policy,
                   const AttendOptions& options) {
  return attend(simd, q, k, v, out, policy, options);
}

/// \overload
/// Options are then those that the policy has by default.
template <In<4> Q, In<4> K, In<4> V, Out<4> O, class P>
requires(!std::is_convertible_v<P, AttendOptions> && AttendScalars<Q, K, V, O>)
AttendStats attend(const Q& q, const K& k, const V& v, O&& out, const P& policy) {
  return attend(simd, q, k, v, out, policy);
}

/// \overload
template <In<4> Q, In<4> K, In<4> V, Out<4> O>
requires AttendScalars<Q, K, V, O>
AttendStats attend(const Q& q, const K& k, const V& v, O&& out, const AttendOptions& options = {}) {
  return attend(simd, q, k, v, out, Exact{}, options);
}

/// Attention over keys and values of a KeyValueSource, such as PagedKeyValue. Sequence i of the
/// source belongs to batch entry i of q.
///
/// \param source  holds the scalar of q and knows the lengths
/// \param options without key_lengths and key_offsets; if sequences differ in length, also without
///                order and mask
/// \throws std::invalid_argument as above, or as the `validate` of the source
///
/// All else is as above. A source that has no `check_apart` promises that out does not overlap it.
template <Backend B, In<4> Q, KeyValueSource Source, Out<4> O, ScoreModifier M>
requires SourceScalars<Q, Source, O>
AttendStats attend(const B& backend, const Q& q, const Source& source, O&& out, const M& modifier,
                   const AttendOptions& options = {}) {
  return detail::attend_source(backend, as_const(to_view(q)), source, to_view(out), modifier,
                               options);
}

/// \overload
template <Backend B, In<4> Q, KeyValueSource Source, Out<4> O>
requires SourceScalars<Q, Source, O>
AttendStats attend(const B& backend, const Q& q, const Source& source, O&& out,
                   const AttendOptions& options = {}) {
  return attend(backend, q, source, out, Exact{}, options);
}

/// \overload
template <In<4> Q, KeyValueSource Source, Out<4> O, ScoreModifier M>
requires SourceScalars<Q, Source, O>
AttendStats attend(const Q& q, const Source& source, O&& out, const M& modifier,
                   const AttendOptions& options = {}) {
  return attend(simd, q, source, out, modifier, options);
}

/// \overload
template <In<4> Q, KeyValueSource Source, Out<4> O>
requires SourceScalars<Q, Source, O>
AttendStats attend(const Q& q, const Source& source, O&& out, const AttendOptions& options = {}) {
  return attend(simd, q, source, out, Exact{}, options);
}

PARE_REFUSE_CALLS(attend, "attention::attend",
                  "after out: wanted AttendOptions, members spelt and ordered as declared "
                  "and of their types (lists are of pare::Index), or a "
                  "policy and AttendOptions",
                  (INPUT, (roles::Reads<4>), "q", "[batch, heads, queries, key dim]"),
                  (INPUT, (roles::Unless<roles::ReadsSame<4>, detail::IsSource, roles::other_call>),
                   "k", "[batch, kv heads, keys, key dim]"),
                  (INPUT, (roles::ReadsSame<4>), "v", "[batch, kv heads, keys, value dim]"),
                  (OUTPUT, (roles::WritesEither<4>), "out", "[batch, heads, queries, value dim]"))
PARE_REFUSE_CALLS(attend, "attention::attend",
                  "after out: wanted AttendOptions, members spelt and ordered as declared "
                  "and of their types (lists are of pare::Index), or a "
                  "ScoreModifier and AttendOptions",
                  (INPUT, (roles::Reads<4>), "q", "[batch, heads, queries, key dim]"),
                  (PLAIN, (roles::Takes<detail::IsSource, roles::other_call>), "source",
                   "a KeyValueSource"),
                  (OUTPUT, (roles::WritesEither<4>), "out", "[batch, heads, queries, value dim]"))

PARE_ABI_END
}  // namespace pare::attention

#include <pare/core/macros_on.hpp>
