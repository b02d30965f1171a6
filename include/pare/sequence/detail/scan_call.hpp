// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// A call of scan: its arguments as views, what they must be, and the definition.

#include <pare/core/check.hpp>
#include <pare/core/scalar.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/sequence/detail/check_apart.hpp>
#include <pare/sequence/scan_options.hpp>

#include <vector>

namespace pare::sequence::detail {
PARE_ABI_BEGIN

/// S is the scalar of tokens, H that of the state.
template <class S, class H>
struct ScanCall {
  using T = compute_t<S>;
  static constexpr const char* function = "sequence::scan";

  TensorView<const S, 4> x{};  ///< [batch, tokens, heads, dim]
  TensorView<const T, 4> a{};  ///< [batch, tokens, heads, states or 1]
  TensorView<const S, 4> b{};  ///< [batch, tokens, groups, states]
  TensorView<const S, 4> c{};  ///< [batch, tokens, groups, states]
  TensorView<H, 4> state{};    ///< [batch, heads, states, dim]
  TensorView<S, 4> y{};        ///< [batch, tokens, heads, dim]
  ScanOptions options{};

  Index batch() const { return x.extent[0]; }
  Index tokens() const { return x.extent[1]; }
  Index heads() const { return x.extent[2]; }
  Index dim() const { return x.extent[3]; }
  Index states() const { return b.extent[3]; }
  Index groups() const { return b.extent[2]; }
  bool empty() const { return batch() == 0 || tokens() == 0 || heads() == 0; }
  /// Of a head.
  Index group(Index head) const { return head / (heads() / groups()); }
  /// From a state's decay to the next one's.
  Index a_step() const { return a.extent[3] == 1 ? 0 : 1; }
};

template <class T>
void check_rows(const char* function, const char* argument, const TensorView<T, 4>& v) {
  check_view(function, argument, v);
  check_contiguous_rows(function, argument, v);
}

template <class S, class H>
void check_scan_shapes(const ScanCall<S, H>& s) {
  constexpr const char* f = ScanCall<S, H>::function;
  check_rows(f, "x", s.x);
  check(s.dim() >= 1, f, "x", s.x.extent, "a dim of at least 1");
  check_rows(f, "b", s.b);
  check(s.states() >= 1, f, "b", s.b.extent, "at least 1 state");
  check_extents<4>(f, "b", s.b.extent, {s.batch(), s.tokens(), s.groups(), s.states()});
  const bool fits = s.groups() == 0 ? s.heads() == 0 : s.heads() % s.groups() == 0;
  check(fits, f, "b", s.b.extent, Worded{"groups that divide the ", s.heads(), " heads"});
  check_rows(f, "c", s.c);
  check_extents(f, "c", s.c.extent, s.b.extent);
  check_rows(f, "a", s.a);
  if (s.a.extent[3] != 1)
    check_extents<4>(f, "a", s.a.extent, {s.batch(), s.tokens(), s.heads(), s.states()});
  check_extents<4>(f, "a", s.a.extent, {s.batch(), s.tokens(), s.heads(), s.a.extent[3]});
  check_rows(f, "state", s.state);
  check_extents<4>(f, "state", s.state.extent, {s.batch(), s.heads(), s.states(), s.dim()});
  check_rows(f, "y", s.y);
  check_extents(f, "y", s.y.extent, s.x.extent);
}

template <class S, class H>
void check_scan(const ScanCall<S, H>& s) {
  constexpr const char* f = ScanCall<S, H>::function;
  check_scan_shapes(s);
  if (s.options.chunk)
    check(*s.options.chunk >= 1, f, "chunk", *s.options.chunk, "at least 1 token");
  check_writable(f, "state", s.state);
  check_writable(f, "y", s.y);
  check_apart(s);
}

/// The definition, token by token, with the state in double. Chunks make no difference to it.
template <class S, class H>
void reference_scan(const ScanCall<S, H>& s) {
  using T = compute_t<S>;
  const auto wide = [](auto v) { return static_cast<double>(static_cast<T>(v)); };
  std::vector<double> h(static_cast<std::size_t>(s.states()));
  for (Index i = 0; i < s.batch(); ++i)
    for (Index g = 0; g < s.heads(); ++g)
      for (Index p = 0; p < s.dim(); ++p) {
        for (Index n = 0; n < s.states(); ++n)
          h[static_cast<std::size_t>(n)] = wide(s.state(i, g, n, p));
        for (Index t = 0; t < s.tokens(); ++t) {
          double y = 0;
          for (Index n = 0; n < s.states(); ++n) {
            double& state = h[static_cast<std::size_t>(n)];
            state = wide(s.a(i, t, g, n * s.a_step())) * state +
                    wide(s.b(i, t, s.group(g), n)) * wide(s.x(i, t, g, p));
            y += wide(s.c(i, t, s.group(g), n)) * state;
          }
          s.y(i, t, g, p) = static_cast<S>(static_cast<T>(y));
        }
        for (Index n = 0; n < s.states(); ++n)
          s.state(i, g, n, p) = static_cast<H>(static_cast<T>(h[static_cast<std::size_t>(n)]));
      }
}

PARE_ABI_END
}  // namespace pare::sequence::detail
