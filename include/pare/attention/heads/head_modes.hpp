// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Heads as switches: attention of which each head runs as it is, weighs all keys alike, or is off.
///
/// ```cpp
/// const std::vector<HeadMode> modes{HeadMode::Normal, HeadMode::Uniform, HeadMode::Zero,
///                                   HeadMode::Normal};                       // [query heads]
/// attend(q, k, v, out, HeadModes{modes}, {.causal = true});
/// attend(pare::simd.threads(4), q, cache, out, HeadModes{modes});            // a KeyValueSource
/// ```
///
/// | mode | row o_i of the head | its log-sum-exp |
/// |---|---|---|
/// | `Normal` | softmax_j(scale q_i.k_j) v_j, as `attend` | of the scores |
/// | `Uniform` | the mean of the values v_j of the keys that query i sees | log of their number |
/// | `Zero` | 0 | -infinity |
///
/// AttentionInfluence masks retrieval heads by `Uniform`: it is the same as scores of 0, by a
/// running sum of values that needs no scores, O(n d) for O(n^2 d). Windows, sinks of tokens,
/// lengths, packed sequences and pages are seen as by `attend`. A learned sink logit s counts as
/// e^s more keys whose value is 0, as it would with scores of 0. A row that sees no key is 0. A key
/// order changes nothing. If all heads are Normal the call has the bits of `attend`.
///
/// Sums are kept in double: behind a window, what leaves it is subtracted, and they begin anew
/// after 4096 rows; without one, floats are added in float for eight rows before they join, which
/// leaves a mean off by at most 12 units in the last place of the mean of |values|. A NaN or
/// infinity in v reaches the rows that see it and no other, at the cost of one window of sums for
/// each such row.
///
/// Source: arXiv 2505.07293 (AttentionInfluence), appendix C. Their weights are 1 / L for every
/// token; a causal model would then look ahead, so row i has 1 / (number of keys that it sees):
/// ours. A public re-implementation zeroes the projections of a head instead, which is `Zero`.

#include <pare/core/macros_off.hpp>

#include <pare/attention/attend.hpp>
#include <pare/attention/detail/reference_head_modes.hpp>
#include <pare/attention/detail/uniform_heads.hpp>
#include <pare/attention/heads/head_mode.hpp>
#include <pare/attention/options.hpp>
#include <pare/core/backend.hpp>
#include <pare/core/check.hpp>
#include <pare/core/executor_ref.hpp>
#include <pare/core/tensor_view.hpp>

#include <algorithm>
#include <concepts>
#include <cstddef>
#include <limits>
#include <span>

namespace pare::attention {

/// A mode for each query head. The caller keeps the list alive.
struct HeadModes {
  std::span<const HeadMode> modes{};  ///< [query heads]
};

namespace detail {
PARE_ABI_BEGIN

/// Whether some head has the mode.
inline bool any_head(std::span<const HeadMode> modes, HeadMode mode) {
  return std::find(modes.begin(), modes.end(), mode) != modes.end();
}

/// T is the scalar of the log-sum-exp.
template <class T, class O>
void check_modes(std::span<const HeadMode> modes, const Problem& p, const TensorView<O, 4>& out,
                 const LogSumExp& lse) {
  check(static_cast<Index>(modes.size()) == p.heads, attend_name, "modes", modes.size(),
        Worded{"one for each of the query heads, ", p.heads});
  for (const HeadMode mode : modes) check_enumerator(attend_name, "modes", mode, HeadMode::Zero);
  check(p.mask == nullptr || !any_head(modes, HeadMode::Uniform), attend_name, "mask", "a mask",
        "none where a head is uniform");
  const TensorView<const HeadMode, 1> read{modes.data(), {p.heads}, {1}};
  check_no_overlap(attend_name, "out", out, "modes", read);
  if (lse.wanted()) check_no_overlap(attend_name, "lse", lse.template view<T>(), "modes", read);
}

/// Rows of heads that are off become 0, with a log-sum-exp of -infinity.
template <class C>
void write_zero_heads(const C& call) {
  using T = typename C::T;
  const Problem& p = call.problem;
  for (Index h = 0; h < p.heads; ++h) {
    if (p.modes[static_cast<std::size_t>(h)] != HeadMode::Zero) continue;
    for (Index b = 0; b < call.out.extent[0]; ++b)
      for (Index i = 0; i < call.out.extent[2]; ++i) {
        std::fill_n(&call.out(b, h, i, 0), p.value_dim, typename C::Output{});
        if (call.options.lse.wanted())
          call.options.lse.template view<T>()(b, h, i) = -std::numeric_limits<T>::infinity();
      }
  }
}

template <class B, class C>
void run_modes(const B& backend, const C& call, Index key_slots) {
  const auto modes = call.problem.modes;
  if constexpr (KernelBackend<B>) {
    if (any_head(modes, HeadMode::Normal)) run_call(backend, call, key_slots);
    if (any_head(modes, HeadMode::Uniform)) run_means(backend, call);
  } else {
    run_reference(call);
    reference_uniform_heads(call);
  }
  write_zero_heads(call);
}

template <class B, class S, class Source, class O>
AttendStats attend_modes(const B& backend, TensorView<const S, 4> q, const Source& source,
                         Index key_slots, TensorView<O, 4> out, std::span<const HeadMode> modes,
                         const AttendOptions& options) {
  const Exact exact;
  Problem problem = checked_problem(attend_name, q, source, out, exact, options, key_slots);
  check_outputs(attend_name, q, source, out, exact, options);
  check_modes<compute_t<S>>(modes, problem, out, options.lse);
  if (std::all_of(modes.begin(), modes.end(), [](HeadMode m) { return m == HeadMode::Normal; }))
    return attend_checked(backend, q, source, key_slots, out, exact, options);
  problem.modes = modes;
  AttendStats stats;
  if (options.mask != nullptr)
    stats.density = options.mask->density(options.causal.value_or(false));
  if (q.extent[0] == 0 || q.extent[2] == 0) return stats;
  const Call<S, O, Source, Exact> call{problem, q, source, out, exact, options};
  if constexpr (KernelBackend<B>)
    run_modes(on_any_executor(backend), call, key_slots);
  else
    run_modes(backend, call, key_slots);
  return stats;
}

PARE_ABI_END
}  // namespace detail
PARE_ABI_BEGIN

/// Attention of which each head runs by its mode.
///
/// q [batch, heads, queries, key dim], k [batch, kv heads, keys, key dim], v [batch, kv heads,
/// keys, value dim], out [batch, heads, queries, value dim], backend and options are as for exact
/// attention. `policy.modes` has a mode for each query head.
///
/// \throws std::invalid_argument as exact attention, if there is not one mode for each query head,
///         a mode is no enumerator, out or lse overlaps the modes, or a mask is given and a head is
///         uniform. Nothing is written then. No queries: a no-op.
///
/// Cost: that of exact attention for the normal heads. The values of a key/value head with uniform
/// heads are read once (twice behind a window), and their rows written; memory binds. Memory: that
/// of exact attention. The same bits for any number of threads.
template <Backend B, In<4> Q, In<4> K, In<4> V, Out<4> O, std::same_as<HeadModes> P>
requires AttendScalars<Q, K, V, O>
AttendStats attend(const B& backend, const Q& q, const K& k, const V& v, O&& out, const P& policy,
                   const AttendOptions& options = {}) {
  const auto keys = as_const(to_view(k));
  const auto source = detail::checked_source(keys, as_const(to_view(v)), options);
  return detail::attend_modes(backend, as_const(to_view(q)), source, keys.extent[2], to_view(out),
                              policy.modes, options);
}

/// \overload
/// Keys and values come from a KeyValueSource.
template <Backend B, In<4> Q, KeyValueSource Source, Out<4> O, std::same_as<HeadModes> P>
requires SourceScalars<Q, Source, O>
AttendStats attend(const B& backend, const Q& q, const Source& source, O&& out, const P& policy,
                   const AttendOptions& options = {}) {
  const auto queries = as_const(to_view(q));
  check_view(detail::attend_name, "q", queries);
  detail::check_source(source, queries.extent[2], options);
  return detail::attend_modes(backend, queries, source, detail::checked_slots(source, options),
                              to_view(out), policy.modes, options);
}

/// \overload
template <In<4> Q, KeyValueSource Source, Out<4> O, std::same_as<HeadModes> P>
requires SourceScalars<Q, Source, O>
AttendStats attend(const Q& q, const Source& source, O&& out, const P& policy,
                   const AttendOptions& options = {}) {
  return attend(simd, q, source, out, policy, options);
}

PARE_ABI_END
}  // namespace pare::attention

#include <pare/core/macros_on.hpp>
