// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// What a call asks of a modifier before scores are: its data, of the extents of the call, and
/// apart from what is written.

#include <pare/attention/detail/problem.hpp>
#include <pare/attention/score_modifier.hpp>
#include <pare/core/check.hpp>
#include <pare/core/tensor_view.hpp>

#include <algorithm>
#include <array>
#include <cstddef>

namespace pare::attention::detail {
PARE_ABI_BEGIN

template <class M>
void check_modifier(const char*, const M&, const Problem&, Index, Index) {}

inline void check_modifier(const char* function, const kernel::SoftCap& m, const Problem&, Index,
                           Index) {
  check(is_finite(static_cast<double>(m.cap)) && m.cap > 0, function, "cap", m.cap,
        "a finite cap above 0; leave SoftCap out for none");
}

inline void check_modifier(const char* function, const kernel::ClampScores& m, const Problem&,
                           Index, Index) {
  check(is_finite(m.least) && is_finite(m.most) && m.least <= m.most, function, "least, most",
        m.least, "finite bounds, least not above most");
}

inline void check_modifier(const char* function, const kernel::Alibi& m, const Problem& p, Index,
                           Index) {
  check(!m.heads || *m.heads == p.heads, function, "slopes", m.heads.value_or(0), p.heads);
  check(m.slopes != nullptr || p.heads == 0, function, "slopes", "a null pointer",
        "a slope for each query head");
}

/// Refuses a view whose extents are neither those of the call nor 1.
template <class T>
void check_broadcast(const char* function, const char* argument, const TensorView<T, 4>& x,
                     const std::array<Index, 4>& wanted) {
  for (std::size_t d = 0; d < 4; ++d)
    check(x.extent[d] == 1 || x.extent[d] == wanted[d], function, argument, x.extent[d], wanted[d]);
  check_view(function, argument, x);
}

template <class B>
TensorView<const B, 4> view_of_bias(const kernel::AddBias<B>& m) {
  TensorView<const B, 4> view{m.bias, {}, {}};
  std::copy_n(m.extent, 4, view.extent.begin());
  std::copy_n(m.stride, 4, view.stride.begin());
  return view;
}

template <class B>
void check_modifier(const char* function, const kernel::AddBias<B>& m, const Problem& p,
                    Index queries, Index keys) {
  const auto view = view_of_bias(m);
  check_broadcast(function, "bias", view, {p.sequences, p.heads, queries, keys});
  for (std::size_t d = 0; d < 4; ++d)
    check(view.extent[d] != 1 || view.stride[d] == 0, function, "bias", view.stride[d],
          "a stride of 0 along an extent of 1");
}

inline void check_modifier(const char* function, const KeyMask& m, const Problem& p, Index queries,
                           Index keys) {
  check_broadcast(function, "seen", m.seen, {p.sequences, p.heads, queries, keys});
}

template <class First, class Second>
void check_modifier(const char* function, const kernel::Chain<First, Second>& m, const Problem& p,
                    Index queries, Index keys) {
  check_modifier(function, m.first, p, queries, keys);
  check_modifier(function, m.second, p, queries, keys);
}

/// Of what a modifier reads, nothing may be written. Modifiers of users vouch for themselves.
template <class M, class O, std::size_t R>
void check_apart(const char*, const char*, const TensorView<O, R>&, const M&, Index) {}

template <class O, std::size_t R>
void check_apart(const char* function, const char* output, const TensorView<O, R>& out,
                 const kernel::Alibi& m, Index heads) {
  check_no_overlap(function, output, out, "slopes",
                   TensorView<const float, 1>{m.slopes, {heads}, {1}});
}

template <class B, class O, std::size_t R>
void check_apart(const char* function, const char* output, const TensorView<O, R>& out,
                 const kernel::AddBias<B>& m, Index) {
  check_no_overlap(function, output, out, "bias", view_of_bias(m));
}

template <class O, std::size_t R>
void check_apart(const char* function, const char* output, const TensorView<O, R>& out,
                 const KeyMask& m, Index) {
  check_no_overlap(function, output, out, "seen", m.seen);
}

template <class First, class Second, class O, std::size_t R>
void check_apart(const char* function, const char* output, const TensorView<O, R>& out,
                 const kernel::Chain<First, Second>& m, Index heads) {
  check_apart(function, output, out, m.first, heads);
  check_apart(function, output, out, m.second, heads);
}

PARE_ABI_END
}  // namespace pare::attention::detail
