// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Attention over the blocks that a selector picks, in one call.
///
/// ```cpp
/// const auto stats = attend(q, k, v, out, MeanPool{.mass = 0.95f});    // causal
/// attend(q, k, v, out, SlidingWindow{.window = 512}, {.causal = false});
/// attend(pare::simd.threads(4), q, k, v, out, ProxyHeads{}, {.causal = true, .lse = lse});
/// attend(q, cache, out, MeanPool{});                                   // a KeyValueSource
/// ```
///
/// Two calls do the same and take a key order too: `select_blocks`, then `attend` with the mask.

#include <pare/core/macros_off.hpp>

#include <pare/attention/attend.hpp>
#include <pare/attention/key_value.hpp>
#include <pare/attention/select_blocks.hpp>
#include <pare/attention/selector.hpp>
#include <pare/core/backend.hpp>
#include <pare/core/tensor_view.hpp>

#include <concepts>
#include <type_traits>

namespace pare::attention {

namespace detail {
PARE_ABI_BEGIN

/// Options that change what a row sees, or that come in place of the selection.
inline void check_selected_options(const AttendOptions& o) {
  check(o.mask == nullptr && o.order == nullptr, attend_name, "mask, order", "a mask or an order",
        "neither where the call selects blocks");
  check_plain_visibility(attend_name, o, "none where the call selects blocks");
  check(!o.key_lengths && !o.key_offsets && !o.query_offsets, attend_name,
        "key_lengths, query_offsets, key_offsets", "lengths or offsets",
        "none where the call selects blocks");
}

/// A call of exact attention that waits for its options.
template <class F>
concept AttendsExactly = requires(const F& attends, const AttendOptions& options) {
  { attends(options) } -> std::same_as<AttendStats>;
};

/// Exact attention in place of a selection that would leave out nothing, or too little.
template <AttendsExactly F>
AttendStats attend_whole(const F& attends, const AttendOptions& options, double seconds) {
  AttendStats stats = attends(options);
  stats.selected_mass = 1;
  stats.select_seconds = seconds;
  return stats;
}

/// Attention under a mask that was selected, and what the selection told.
template <AttendsExactly F>
AttendStats attend_masked(const F& attends, const SelectedBlocks& blocks, AttendOptions options,
                          double seconds) {
  options.mask = &blocks;
  AttendStats stats = attends(options);
  stats.selected_mass = blocks.mass;
  stats.select_seconds = seconds;
  return stats;
}

template <class B, class S, class K, BlockSelector P, AttendsExactly F>
AttendStats attend_selected(const B& backend, TensorView<const S, 4> q, const K& k,
                            const P& selector, const AttendOptions& given, const F& attends) {
  const AttendOptions options = causal_unless_told(given);
  check_selected_options(options);
  const SelectorLayer<S> layer =
      checked_layer(attend_name, q, k, nullptr, {*options.causal, options.scale});
  check_selector(attend_name, selector, layer.call());
  if (keeps_all(selector, layer.call())) return attend_whole(attends, options, 0);
  const SelectedBlocks blocks = select_layer(backend, layer, selector);
  return attend_masked(attends, blocks, options, blocks.seconds);
}

PARE_ABI_END
}  // namespace detail
PARE_ABI_BEGIN

/// Attention over the blocks that a selector picks.
///
/// q [batch, heads, queries, key dim], k [batch, kv heads, keys, key dim], v [batch, kv heads,
/// keys, value dim] and out [batch, heads, queries, value dim] are as for exact attention, and so
/// is the backend. `selector` is a BlockSelector: MeanPool, Antidiagonal, SlidingWindow,
/// ProxyHeads, SampledMass or your own. Of the options, causality (true if left out), scale,
/// sink_logits and lse are as for exact attention; neither mask, order, window, query_offset,
/// lengths nor offsets may be given.
///
/// \returns the density of the selection, the mass that the selector believes it kept, and the
///          seconds of selecting; where the selector keeps all, attention is exact, and these are
///          1, 1 and 0
/// \throws std::invalid_argument if the options are not as above, or as the selector's `validate`
///         and exact attention do. Nothing is written then. No queries: a no-op.
///
/// Cost: that of `select_blocks`, and of exact attention times the density. Memory: that of both.
/// The same bits for any number of threads, if the selector gives the same blocks.
template <Backend B, In<4> Q, In<4> K, In<4> V, Out<4> O, BlockSelector P>
requires AttendScalars<Q, K, V, O>
AttendStats attend(const B& backend, const Q& q, const K& k, const V& v, O&& out, const P& selector,
                   const AttendOptions& options = {}) {
  return detail::attend_selected(
      backend, as_const(to_view(q)), as_const(to_view(k)), selector, options,
      [&](const AttendOptions& o) { return attend(backend, q, k, v, out, Exact{}, o); });
}

/// \overload
/// Keys and values come from a KeyValueSource, whose sequences all have one length.
template <Backend B, In<4> Q, KeyValueSource Source, Out<4> O, BlockSelector P>
requires SourceScalars<Q, Source, O>
AttendStats attend(const B& backend, const Q& q, const Source& source, O&& out, const P& selector,
                   const AttendOptions& options = {}) {
  return detail::attend_selected(
      backend, as_const(to_view(q)), source, selector, options,
      [&](const AttendOptions& o) { return attend(backend, q, source, out, Exact{}, o); });
}

/// \overload
template <In<4> Q, KeyValueSource Source, Out<4> O, BlockSelector P>
requires SourceScalars<Q, Source, O>
AttendStats attend(const Q& q, const Source& source, O&& out, const P& selector,
                   const AttendOptions& options = {}) {
  return attend(simd, q, source, out, selector, options);
}

PARE_ABI_END
}  // namespace pare::attention

#include <pare/core/macros_on.hpp>
