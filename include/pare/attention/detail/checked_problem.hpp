// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// The checks of a call of attention, all of them before anything is written.

#include <pare/attention/detail/check_modifier.hpp>
#include <pare/attention/detail/problem.hpp>
#include <pare/attention/key_value.hpp>
#include <pare/attention/options.hpp>
#include <pare/core/check.hpp>
#include <pare/core/tensor_view.hpp>

#include <array>
#include <cmath>
#include <cstddef>
#include <limits>
#include <optional>
#include <span>
#include <type_traits>

namespace pare::attention::detail {
PARE_ABI_BEGIN

/// T is what the call computes in: the factor must be a normal number there, and times log2 e too.
template <class T>
double checked_scale(const char* function, const AttendOptions& options, Index key_dim) {
  if (!options.scale) return 1.0 / std::sqrt(static_cast<double>(key_dim));
  constexpr double least = std::numeric_limits<T>::min();
  constexpr double most = std::numeric_limits<T>::max() * 0.69314;
  check(is_finite(*options.scale) && *options.scale >= least && *options.scale <= most, function,
        "scale", *options.scale,
        std::is_same_v<T, float> ? "a factor from 1.2e-38 to 2.35e38, for scores in float"
                                 : "a factor from 2.3e-308 to 1.24e308");
  return *options.scale;
}

/// A source whose keys are wider than the trained heads has no default.
template <class Source>
void check_scale_given(const char* function, const std::optional<double>& scale) {
  if constexpr (needs_scale<Source>)
    check(scale.has_value(), function, "scale", "none",
          "that of the trained heads, which the wider keys of this source do not tell");
}

inline void check_query_offsets(const char* function, std::span<const Index> offsets,
                                Index sequences, Index tokens) {
  check(static_cast<Index>(offsets.size()) == sequences + 1, function, "query_offsets",
        offsets.size(), sequences + 1);
  check_offsets(function, "query_offsets", offsets, tokens);
}

inline void check_order(const char* function, const KeyOrder& order, const Problem& p, Index keys) {
  const KeyOrder::Shape& s = order.shape();
  check(s.batch == 1 || s.batch == p.sequences, function, "order", s.batch,
        "a batch of 1 or that of the call");
  check(s.heads == 1 || s.heads == p.kv_heads || s.heads == p.heads, function, "order", s.heads,
        "1 head, the key/value heads or the query heads");
  check(s.keys == keys, function, "order", s.keys, keys);
}

inline void check_mask(const char* function, const BlockMask& mask, const Problem& p, Index queries,
                       Index keys) {
  const BlockMask::Shape& s = mask.shape();
  check(s.batch == 1 || s.batch == p.sequences, function, "mask", s.batch,
        "a batch of 1 or that of the call");
  check(s.heads == 1 || s.heads == p.heads, function, "mask", s.heads, "1 head or the query heads");
  check_extents<2>(function, "mask", {s.queries, s.keys}, {queries, keys});
}

template <class T>
TensorView<const T, 1> list_view(const std::optional<std::span<const T>>& list) {
  if (!list) return {};
  return {list->data(), {static_cast<Index>(list->size())}, {1}};
}

/// Refuses an output that shares memory with an input of the call. A source that says nothing of
/// its memory vouches for it.
template <class O, std::size_t R, class S, class Source, class M>
void check_apart_from_inputs(const char* function, const char* output, const TensorView<O, R>& out,
                             const TensorView<const S, 4>& q, const Source& source,
                             const M& modifier, const AttendOptions& options) {
  check_no_overlap(function, output, out, "q", q);
  if constexpr (requires { source.check_apart(function, output, out); })
    source.check_apart(function, output, out);
  check_apart(function, output, out, modifier, q.extent[1]);
  check_no_overlap(function, output, out, "key_lengths", list_view(options.key_lengths));
  check_no_overlap(function, output, out, "query_offsets", list_view(options.query_offsets));
  check_no_overlap(function, output, out, "key_offsets", list_view(options.key_offsets));
  check_no_overlap(function, output, out, "sink_logits", list_view(options.sink_logits));
}

/// A window of more than that many tokens is none, however large.
inline bool has_window(const AttendOptions& o) {
  return (o.window && *o.window <= most_tokens) || o.window_left || o.window_right;
}

/// What each query sees, as far as the options alone say it.
inline void set_visibility(const char* function, const AttendOptions& o, Problem& p) {
  const Index window = o.window.value_or(most_tokens + 1);
  check(window >= 1, function, "window", window, "at least 1 token; left out for none");
  check(!o.window || (!o.window_left && !o.window_right), function, "window", window,
        "none beside window_left and window_right");
  const auto check_side = [&](const char* name, const std::optional<Index>& side) {
    check(!side || *side >= 0, function, name, side.value_or(0),
          "a number of keys; left out for no limit");
  };
  check_side("window_left", o.window_left);
  check_side("window_right", o.window_right);
  check(o.sinks >= 0 && o.sinks <= most_tokens, function, "sinks", o.sinks,
        "0 or a number of tokens");
  const Index offset = o.query_offset.value_or(0);
  check(offset >= -most_tokens && offset <= most_tokens, function, "query_offset", offset,
        "a position from -2^30 to 2^30");
  check(!o.query_offset || o.mask == nullptr, function, "query_offset", offset,
        "none with a mask, whose blocks are aligned at the bottom right");
  const auto limit = [](const std::optional<Index>& side) {
    return side && *side <= most_tokens ? *side : no_limit;
  };
  p.causal = o.causal.value_or(false);
  p.left = limit(o.window_left);
  p.right = limit(o.window_right);
  if (window <= most_tokens) p.left = p.right = window - 1;
  p.sinks = has_window(o) ? o.sinks : 0;
  p.query_offset = o.query_offset;
}

/// The options of methods that choose keys, which are causal unless told otherwise.
inline AttendOptions causal_unless_told(AttendOptions options) {
  options.causal = options.causal.value_or(true);
  return options;
}

/// For methods that choose keys by place: no window, and the last query beside the last key.
inline void check_plain_visibility(const char* function, const AttendOptions& o,
                                   const char* wanted) {
  check(!has_window(o), function, "window", o.window.value_or(0), wanted);
  check(!o.query_offset, function, "query_offset", o.query_offset.value_or(0), wanted);
}

/// A learned logit for each head; NaN and what leaves the range of scores are refused.
inline void check_sink_logits(const char* function, std::span<const float> logits, Index heads) {
  check(static_cast<Index>(logits.size()) == heads, function, "sink_logits", logits.size(), heads);
  for (const float x : logits)
    check(x <= 2e38f && (x >= -2e38f || x == -std::numeric_limits<float>::infinity()), function,
          "sink_logits", x, "numbers within +-2e38, or -infinity");
}

/// Checks everything but the key/value source, which checks itself, and the memory of the outputs.
template <class S, class O, class Source, class M>
Problem checked_problem(const char* function, TensorView<const S, 4> q, const Source& source,
                        TensorView<O, 4> out, const M& modifier, const AttendOptions& options,
                        Index key_slots) {
  Problem p;
  p.sequences = source.sequences();
  p.heads = q.extent[1];
  p.kv_heads = source.kv_heads();
  p.key_dim = source.key_dim();
  p.value_dim = source.value_dim();
  p.order = options.order;
  p.mask = options.mask;
  p.sink_logits = options.sink_logits;
  check_view(function, "q", q);
  check_view(function, "out", out);
  const bool packed = options.query_offsets.has_value();
  if (packed) {
    check(q.extent[0] == 1, function, "q", q.extent, "a batch of 1 for packed sequences");
    check_query_offsets(function, *options.query_offsets, p.sequences, q.extent[2]);
    check(p.order == nullptr && p.mask == nullptr, function, "order, mask", "an order or a mask",
          "neither with packed sequences");
  } else {
    check(q.extent[0] == p.sequences, function, "q", q.extent,
          Worded{"the batch of the keys, ", p.sequences});
  }
  check(p.kv_heads >= 1 || p.heads == 0, function, "k", p.kv_heads, "at least 1 key/value head");
  check(p.kv_heads < 1 || p.heads % p.kv_heads == 0, function, "q", q.extent,
        Worded{"a multiple of the ", p.kv_heads, " key/value heads as heads"});
  check(q.extent[3] == p.key_dim, function, "q", q.extent,
        Worded{"the last dimension of the keys, ", p.key_dim});
  check(q.stride[3] == 1 || q.extent[3] == 1, function, "q",
        "a stride in the last dimension other than 1", "contiguous rows");
  check_extents<4>(function, "out", out.extent,
                   {q.extent[0], q.extent[1], q.extent[2], p.value_dim});
  check(out.stride[3] == 1 || out.extent[3] == 1, function, "out",
        "a stride in the last dimension other than 1", "contiguous rows");
  check(q.extent[2] <= most_tokens && key_slots <= most_tokens, function, "tokens",
        std::array<Index, 2>{q.extent[2], key_slots}, "fewer than 2^30 of them");
  set_visibility(function, options, p);
  if (p.sink_logits) check_sink_logits(function, *p.sink_logits, p.heads);
  check_scale_given<Source>(function, options.scale);
  p.scale = checked_scale<compute_t<S>>(function, options, p.key_dim);
  if (p.order != nullptr) check_order(function, *p.order, p, key_slots);
  if (p.mask != nullptr) check_mask(function, *p.mask, p, q.extent[2], key_slots);
  check_modifier(function, modifier, p, q.extent[2], key_slots);
  return p;
}

template <class T>
void check_lse(const char* function, const LogSumExp& lse, const std::array<Index, 4>& q) {
  if (!lse.wanted()) return;
  check(lse.in_double() == std::is_same_v<T, double>, function, "lse",
        lse.in_double() ? "double" : "float", "the scalar that the call computes in");
  const auto view = lse.view<T>();
  check_extents<3>(function, "lse", view.extent, {q[0], q[1], q[2]});
  check_writable(function, "lse", view);
}

/// Checks the memory of what is written: sound, and apart from all inputs and from each other.
template <class S, class O, class Source, class M>
void check_outputs(const char* function, const TensorView<const S, 4>& q, const Source& source,
                   const TensorView<O, 4>& out, const M& modifier, const AttendOptions& options) {
  using T = compute_t<S>;
  check_writable(function, "out", out);
  check_apart_from_inputs(function, "out", out, q, source, modifier, options);
  if (!options.lse.wanted()) return;
  check_lse<T>(function, options.lse, q.extent);
  const auto lse = options.lse.template view<T>();
  check_apart_from_inputs(function, "lse", lse, q, source, modifier, options);
  check_no_overlap(function, "lse", lse, "out", out);
}

PARE_ABI_END
}  // namespace pare::attention::detail
