// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// A checked call of attention: what each query sees.

#include <pare/attention/options.hpp>
#include <pare/core/check.hpp>
#include <pare/kernel/attend_tile.hpp>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>

namespace pare::attention::detail {
PARE_ABI_BEGIN

/// Sizes and visibility of one call.
struct Problem {
  Index sequences = 0;
  Index heads = 0;
  Index kv_heads = 0;
  Index key_dim = 0;
  Index value_dim = 0;
  double scale = 1;
  bool causal = false;
  Index window = 0;
  Index sinks = 0;
  const KeyOrder* order = nullptr;
  const BlockMask* mask = nullptr;

  Index group() const { return heads / kv_heads; }
};

/// The tokens of one sequence.
struct Sequence {
  Index batch = 0;
  Index query_begin = 0;  ///< of the packed tensor
  Index queries = 0;
  Index keys = 0;
};

/// First and last visible position of a query; keys below the problem's sinks are visible too, up
/// to `last`.
struct Visible {
  Index first = 0;
  Index last = -1;
};

inline Visible visible(const Problem& p, const Sequence& s, Index query) {
  const Index position = query + s.keys - s.queries;
  Visible v{0, s.keys - 1};
  if (p.causal)
    v.last = std::min(v.last, position);
  else if (p.window > 0)
    v.last = std::min(v.last, std::max(position + p.window, p.sinks) - 1);
  if (p.window > 0) v.first = std::max(Index{0}, position - p.window + 1);
  return v;
}

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

/// Offsets of packed sequences: from 0 to `tokens`, never decreasing.
inline void check_offsets(const char* function, const char* name, std::span<const Index> offsets,
                          Index tokens) {
  check(offsets.front() == 0, function, name, offsets.front(), "0 as the first offset");
  for (std::size_t i = 1; i < offsets.size(); ++i)
    check(offsets[i] >= offsets[i - 1], function, name, offsets[i], "offsets that never decrease");
  check(offsets.back() == tokens, function, name, offsets.back(), "the tokens as the last offset");
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

template <class M>
void check_modifier(const char*, const M&, const Problem&, Index, Index) {}

inline void check_modifier(const char* function, const kernel::SoftCap& m, const Problem&, Index,
                           Index) {
  check(is_finite(static_cast<double>(m.cap)) && m.cap > 0, function, "cap", m.cap,
        "a finite cap above 0; leave SoftCap out for none");
}

inline void check_modifier(const char* function, const kernel::Alibi& m, const Problem& p, Index,
                           Index) {
  check(!m.heads || *m.heads == p.heads, function, "slopes", m.heads.value_or(0), p.heads);
  check(m.slopes != nullptr || p.heads == 0, function, "slopes", "a null pointer",
        "a slope for each query head");
}

template <class B>
void check_modifier(const char* function, const kernel::AddBias<B>& m, const Problem& p,
                    Index queries, Index keys) {
  const Index wanted[4] = {p.sequences, p.heads, queries, keys};
  const bool empty = p.sequences == 0 || p.heads == 0 || queries == 0 || keys == 0;
  check(m.bias != nullptr || empty, function, "bias", "a null pointer", "data");
  for (int d = 0; d < 4; ++d)
    check(m.extent[d] == 1 || m.extent[d] == wanted[d], function, "bias", m.extent[d], wanted[d]);
}

template <class First, class Second>
void check_modifier(const char* function, const kernel::Chain<First, Second>& m, const Problem& p,
                    Index queries, Index keys) {
  check_modifier(function, m.first, p, queries, keys);
  check_modifier(function, m.second, p, queries, keys);
}

/// Checks everything but the key/value source, which checks itself, and the memory of the outputs.
template <class S, class O, class Source, class M>
Problem checked_problem(const char* function, TensorView<const S, 4> q, const Source& source,
                        TensorView<O, 4> out, const M& modifier, const AttendOptions& options,
                        Index key_slots) {
  Problem p{source.sequences(), q.extent[1],        source.kv_heads(),
            source.key_dim(),   source.value_dim(), 1,
            options.causal,     options.window,     options.sinks,
            options.order,      options.mask};
  const bool packed = !options.query_offsets.empty();
  if (packed) {
    check(q.extent[0] == 1, function, "q", q.extent, "a batch of 1 for packed sequences");
    check(static_cast<Index>(options.query_offsets.size()) == p.sequences + 1, function,
          "query_offsets", options.query_offsets.size(), p.sequences + 1);
    check_offsets(function, "query_offsets", options.query_offsets, q.extent[2]);
    check(p.order == nullptr && p.mask == nullptr, function, "order, mask", "an order or a mask",
          "neither with packed sequences");
  } else {
    check(q.extent[0] == p.sequences, function, "q", q.extent, "the batch of the keys");
  }
  check(p.kv_heads >= 1 || p.heads == 0, function, "k", p.kv_heads, "at least 1 key/value head");
  check(p.kv_heads < 1 || p.heads % p.kv_heads == 0, function, "q", q.extent,
        "a number of heads that the key/value heads divide");
  check(q.extent[3] == p.key_dim, function, "q", q.extent, "the last dimension of the keys");
  check(q.stride[3] == 1 || q.extent[3] == 1, function, "q",
        "a stride in the last dimension other than 1", "contiguous rows");
  check_extents<4>(function, "out", out.extent,
                   {q.extent[0], q.extent[1], q.extent[2], p.value_dim});
  check(out.stride[3] == 1 || out.extent[3] == 1, function, "out",
        "a stride in the last dimension other than 1", "contiguous rows");
  const bool empty = q.extent[0] == 0 || q.extent[1] == 0 || q.extent[2] == 0;
  check(empty || (q.data != nullptr && out.data != nullptr), function, "q, out", "a null pointer",
        "data");
  constexpr Index most = std::numeric_limits<std::int32_t>::max() / 2;
  check(q.extent[2] <= most && key_slots <= most, function, "tokens",
        std::array<Index, 2>{q.extent[2], key_slots}, "at most 2^30 of them");
  check(options.window >= 0 && options.window <= most, function, "window", options.window,
        "0 or a number of tokens");
  check(options.sinks >= 0 && options.sinks <= most, function, "sinks", options.sinks,
        "0 or a number of tokens");
  p.scale = checked_scale<compute_t<S>>(function, options, p.key_dim);
  if (p.order != nullptr) check_order(function, *p.order, p, key_slots);
  if (p.mask != nullptr) check_mask(function, *p.mask, p, q.extent[2], key_slots);
  check_modifier(function, modifier, p, q.extent[2], key_slots);
  if (p.window == 0) p.sinks = 0;
  return p;
}

template <class T>
void check_lse(const char* function, const LogSumExp& lse, const std::array<Index, 4>& q) {
  if (!lse.wanted()) return;
  check(lse.in_double() == std::is_same_v<T, double>, function, "lse",
        lse.in_double() ? "double" : "float", "the scalar that the call computes in");
  const auto view = lse.view<T>();
  check_extents<3>(function, "lse", view.extent, {q[0], q[1], q[2]});
  const bool empty = q[0] == 0 || q[1] == 0 || q[2] == 0;
  check(empty || view.data != nullptr, function, "lse", "a null pointer", "data");
  check_writable(function, "lse", view);
}

PARE_ABI_END
}  // namespace pare::attention::detail
