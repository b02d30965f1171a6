// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Global-query attention: what a call must be, and the definition.

#include <pare/attention/detail/reference_row.hpp>
#include <pare/attention/global_query_options.hpp>
#include <pare/core/check.hpp>
#include <pare/core/scalar.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/core/view_check.hpp>

#include <cmath>
#include <cstddef>
#include <limits>
#include <vector>

namespace pare::attention::detail {
PARE_ABI_BEGIN

template <class S>
struct GlobalQueryCall {
  using T = compute_t<S>;
  static constexpr const char* function = "attention::global_query";

  TensorView<const S, 3> h{};  ///< [batch, tokens, dim]
  TensorView<const T, 2> p{};  ///< [dim, heads]
  TensorView<const T, 2> q{};  ///< [dim, heads]
  TensorView<T, 3> out{};      ///< [batch, heads, dim]
  GlobalQueryOptions<T> options{};

  Index batch() const { return h.extent[0]; }
  Index tokens() const { return h.extent[1]; }
  Index dim() const { return h.extent[2]; }
  Index heads() const { return p.extent[1]; }
  bool seen(Index i, Index t) const { return !options.seen || (*options.seen)(i, t); }
  T context(Index i, Index j) const {
    const auto& c = *options.context;
    return c(c.rows() == 1 ? 0 : i, j);
  }
};

template <class S>
void check_global_query_shapes(const GlobalQueryCall<S>& s) {
  constexpr const char* f = GlobalQueryCall<S>::function;
  check_view(f, "h", s.h);
  check(s.dim() >= 1, f, "h", s.h.extent, "a dim of at least 1");
  check_contiguous_rows(f, "h", s.h);
  check_view(f, "p", s.p);
  check(s.heads() >= 1, f, "p", s.p.extent, "at least 1 head");
  check_extents<2>(f, "p", s.p.extent, {s.dim(), s.heads()});
  check_view(f, "q", s.q);
  check_extents(f, "q", s.q.extent, s.p.extent);
  check_writable(f, "out", s.out);
  check_extents<3>(f, "out", s.out.extent, {s.batch(), s.heads(), s.dim()});
  check_contiguous_rows(f, "out", s.out);
}

template <class S>
void check_global_query(const GlobalQueryCall<S>& s) {
  constexpr const char* f = GlobalQueryCall<S>::function;
  check_global_query_shapes(s);
  const auto& o = s.options;
  using Limits = std::numeric_limits<compute_t<S>>;
  check(is_finite(o.epsilon) && o.epsilon >= static_cast<double>(Limits::min()) &&
            o.epsilon <= static_cast<double>(Limits::max()),
        f, "epsilon", o.epsilon, "a normal number of what is computed in, above 0");
  const auto apart = [&](const char* name, const auto& v) {
    check_no_overlap(f, name, v, "h", s.h);
    check_no_overlap(f, name, v, "p", s.p);
    check_no_overlap(f, name, v, "q", s.q);
    if (o.context) check_no_overlap(f, name, v, "context", *o.context);
    if (o.seen) check_no_overlap(f, name, v, "seen", *o.seen);
  };
  if (o.context) {
    check_view(f, "context", *o.context);
    const Index rows = o.context->rows() == 1 ? 1 : s.batch();
    check_extents<2>(f, "context", o.context->extent, {rows, s.dim()});
  }
  if (o.seen) {
    check_view(f, "seen", *o.seen);
    check_extents<2>(f, "seen", o.seen->extent, {s.batch(), s.tokens()});
  }
  if (o.weights) {
    check_writable(f, "weights", *o.weights);
    check_extents<3>(f, "weights", o.weights->extent, {s.batch(), s.heads(), s.tokens()});
    check_no_overlap(f, "weights", *o.weights, "out", s.out);
    apart("weights", *o.weights);
  }
  apart("out", s.out);
}

/// The definition, in double.
template <class S>
void reference_global_query(const GlobalQueryCall<S>& s) {
  using T = compute_t<S>;
  const auto heads = static_cast<std::size_t>(s.heads());
  for (Index i = 0; i < s.batch(); ++i) {
    std::vector<double> c(static_cast<std::size_t>(s.dim())), mass(heads);
    double count = 0;
    for (Index t = 0; t < s.tokens(); ++t) count += s.seen(i, t) ? 1 : 0;
    for (Index j = 0; j < s.dim(); ++j) {
      double& sum = c[static_cast<std::size_t>(j)];
      if (s.options.context) sum = reference_value(s.context(i, j));
      if (!s.options.context)
        for (Index t = 0; t < s.tokens(); ++t)
          if (s.seen(i, t)) sum += reference_value(s.h(i, t, j)) / count;
    }
    std::vector<double> w(static_cast<std::size_t>(s.tokens()) * heads);
    const auto at = [&](Index t, Index m) -> double& {
      return w[static_cast<std::size_t>(t) * heads + static_cast<std::size_t>(m)];
    };
    for (Index t = 0; t < s.tokens(); ++t) {
      if (!s.seen(i, t)) continue;
      double squares = 0;
      for (Index m = 0; m < s.heads(); ++m) {
        double left = 0, right = 0;
        for (Index j = 0; j < s.dim(); ++j) {
          left += reference_value(s.p(j, m)) * c[static_cast<std::size_t>(j)];
          right += reference_value(s.q(j, m)) * reference_value(s.h(i, t, j));
        }
        at(t, m) = std::tanh(left * right);
        squares += at(t, m) * at(t, m);
      }
      const double norm = std::sqrt(squares);
      for (Index m = 0; m < s.heads(); ++m) {
        at(t, m) = std::exp(at(t, m) / (norm < s.options.epsilon ? s.options.epsilon : norm));
        mass[static_cast<std::size_t>(m)] += at(t, m);
      }
    }
    for (Index m = 0; m < s.heads(); ++m) {
      const double all = mass[static_cast<std::size_t>(m)], share = all == 0 ? 0 : 1 / all;
      for (Index j = 0; j < s.dim(); ++j) {
        double sum = 0;
        for (Index t = 0; t < s.tokens(); ++t)
          if (s.seen(i, t)) sum += at(t, m) * share * reference_value(s.h(i, t, j));
        s.out(i, m, j) = static_cast<T>(sum);
      }
      if (s.options.weights)
        for (Index t = 0; t < s.tokens(); ++t)
          (*s.options.weights)(i, m, t) = static_cast<T>(at(t, m) * share);
    }
  }
}

PARE_ABI_END
}  // namespace pare::attention::detail
