// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Exact attention whose finished rows a hook changes, in one call.
///
/// ```cpp
/// attend(q, k, v, out, SoftIdentity{shares}, {.causal = true});
/// attend(pare::simd.threads(4), q, cache, out, SoftIdentity{shares});          // a KeyValueSource
/// attend(q, k, v, out, WithFinish{SoftCap{50}, SoftIdentity{shares}});
/// attend(q, k, v, out, MyFinish{});                                           // row_finish.hpp
/// ```

#include <pare/core/macros_off.hpp>

#include <pare/attention/attend.hpp>
#include <pare/attention/options.hpp>
#include <pare/attention/row_finish.hpp>
#include <pare/attention/score_modifier.hpp>
#include <pare/core/backend.hpp>
#include <pare/core/tensor_view.hpp>

namespace pare::attention {

namespace detail {
PARE_ABI_BEGIN

/// The two halves of a policy.
template <RowFinish F>
Exact modifier_of(const F&) {
  return {};
}
template <class M, class F>
const M& modifier_of(const WithFinish<M, F>& policy) {
  return policy.modifier;
}
template <RowFinish F>
const F& finish_of(const F& finish) {
  return finish;
}
template <class M, class F>
const F& finish_of(const WithFinish<M, F>& policy) {
  return policy.finish;
}

PARE_ABI_END
}  // namespace detail
PARE_ABI_BEGIN

/// Attention as `attend` computes it, each row of which `policy` changes once it is complete: o_i
/// <- finish(o_i). The policy is a RowFinish, or WithFinish{modifier, finish}.
///
/// q [batch, heads, queries, key dim], k [batch, kv heads, keys, key dim], v [batch, kv heads,
/// keys, value dim], out [batch, heads, queries, value dim], backend and options are as for exact
/// attention; the log-sum-exp is that of the attention before the change.
///
/// \throws std::invalid_argument as exact attention, or as the hook's `validate` and `check_apart`
///         do. Nothing is written then. No queries: a no-op.
///
/// Cost: that of exact attention, and the hook once per row. Memory: that of exact attention. The
/// same bits for any number of threads, if the hook gives the same.
template <Backend B, In<4> Q, In<4> K, In<4> V, Out<4> O, FinishPolicy P>
requires AttendScalars<Q, K, V, O>
AttendStats attend(const B& backend, const Q& q, const K& k, const V& v, O&& out, const P& policy,
                   const AttendOptions& options = {}) {
  return detail::attend_dense(backend, as_const(to_view(q)), as_const(to_view(k)),
                              as_const(to_view(v)), to_view(out), detail::modifier_of(policy),
                              options, detail::finish_of(policy));
}

/// \overload
/// Keys and values come from a KeyValueSource.
template <Backend B, In<4> Q, KeyValueSource Source, Out<4> O, FinishPolicy P>
requires SourceScalars<Q, Source, O>
AttendStats attend(const B& backend, const Q& q, const Source& source, O&& out, const P& policy,
                   const AttendOptions& options = {}) {
  return detail::attend_source(backend, as_const(to_view(q)), source, to_view(out),
                               detail::modifier_of(policy), options, detail::finish_of(policy));
}

/// \overload
template <In<4> Q, KeyValueSource Source, Out<4> O, FinishPolicy P>
requires SourceScalars<Q, Source, O>
AttendStats attend(const Q& q, const Source& source, O&& out, const P& policy,
                   const AttendOptions& options = {}) {
  return attend(simd, q, source, out, policy, options);
}

PARE_ABI_END
}  // namespace pare::attention

#include <pare/core/macros_on.hpp>
