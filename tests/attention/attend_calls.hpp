// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Calls of attend on random tensors, and their comparison with the oracle.

#include <gtest/gtest.h>

#include <pare/attention/attend.hpp>
#include <pare/core/permutation.hpp>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <functional>
#include <limits>
#include <type_traits>
#include <vector>

#include "attention/data.hpp"
#include "attention/oracle.hpp"

namespace pare::testing {

struct Sizes {
  Index batch = 1, heads = 1, kv_heads = 1, queries = 1, keys = 1, key_dim = 16, value_dim = 16;
};

/// Random queries, keys and values.
template <class S>
struct Inputs {
  Sizes sizes;
  Tensor<S> q, k, v;

  explicit Inputs(const Sizes& s, std::uint64_t seed = 1, Layout layout = Layout::by_head)
      : sizes(s),
        q(normal_tensor<S>({s.batch, s.heads, s.queries, s.key_dim}, 3 * seed, layout)),
        k(normal_tensor<S>({s.batch, s.kv_heads, s.keys, s.key_dim}, 3 * seed + 1, layout)),
        v(normal_tensor<S>({s.batch, s.kv_heads, s.keys, s.value_dim}, 3 * seed + 2, layout)) {}
};

/// What a call wrote: `O` is S or compute_t<S>.
template <class S, class O = compute_t<S>>
struct Outputs {
  using T = compute_t<S>;

  Tensor<O> out;
  Tensor<T> lse;  ///< the last dimension is 1
  attention::AttendStats stats{};

  explicit Outputs(const Sizes& s, Layout layout = Layout::by_head)
      : out({s.batch, s.heads, s.queries, s.value_dim}, layout, O(std::nanf(""))),
        lse({s.batch, s.heads, s.queries, 1}, Layout::by_head,
            std::numeric_limits<T>::quiet_NaN()) {}

  TensorView<T, 3> lse_view() {
    return {lse.list.data(),
            {lse.extent[0], lse.extent[1], lse.extent[2]},
            {lse.stride[0], lse.stride[1], lse.stride[2]}};
  }
};

template <class S, class O>
bool same_outputs(const Outputs<S, O>& a, const Outputs<S, O>& b) {
  return all_same_bits(a.out.list, b.out.list) && all_same_bits(a.lse.list, b.lse.list);
}

template <class B, class S, class M = attention::Exact>
Outputs<S> attended(const B& backend, const Inputs<S>& x, attention::AttendOptions options = {},
                    const M& modifier = {}) {
  Outputs<S> y(x.sizes);
  options.lse = y.lse_view();
  y.stats = attention::attend(backend, x.q.view(), x.k.view(), x.v.view(), y.out.writable(),
                              modifier, options);
  return y;
}

/// Which keys positions let a query see; `lengths` [batch], or empty.
struct Sees {
  Index queries = 0, keys = 0;
  bool causal = false;
  Index window = 0, sinks = 0;
  std::vector<Index> lengths{};

  bool operator()(Index b, Index, Index i, Index j) const {
    const Index n = lengths.empty() ? keys : lengths[static_cast<std::size_t>(b)];
    const Index p = i + n - queries;
    if (j >= n || (causal && j > p)) return false;
    return window == 0 || j < sinks || std::abs(p - j) < window;
  }
};

/// (batch, head, query, key): whether it is seen, and what becomes of its score.
using Visibility = std::function<bool(Index, Index, Index, Index)>;
using Rescoring = std::function<long double(Index, Index, Index, Index, long double)>;

inline long double unmodified(Index, Index, Index, Index, long double score) { return score; }

/// |got - wanted|; infinite if only one of them is infinite or NaN.
inline double distance(double got, double wanted) {
  if (got == wanted) return 0;
  const double d = std::abs(got - wanted);
  return std::isfinite(d) ? d : std::numeric_limits<double>::infinity();
}

/// Expects all heads within `bound` of softmax(rescored(scale q.k)) v over the visible keys, and
/// rows that see nothing to be exactly 0. Of a large log-sum-exp the last bits are rounded too.
template <class S, class O>
void expect_attention(const Inputs<S>& x, const Outputs<S, O>& y, double bound,
                      const Visibility& visible, const Rescoring& rescored = unmodified,
                      double scale = 0) {
  if (scale == 0) scale = 1 / std::sqrt(static_cast<double>(x.sizes.key_dim));
  const double u = std::numeric_limits<compute_t<S>>::epsilon();
  for (Index b = 0; b < x.sizes.batch; ++b)
    for (Index h = 0; h < x.sizes.heads; ++h) {
      const Index kv = h / (x.sizes.heads / x.sizes.kv_heads);
      const Oracle wanted = dense_attention(
          x.q.head(b, h), x.k.head(b, kv), x.v.head(b, kv), scale,
          [&](Index i, Index j) { return visible(b, h, i, j); },
          [&](Index i, Index j, long double score) { return rescored(b, h, i, j, score); });
      double worst = 0, worst_lse = 0;
      for (Index i = 0; i < x.sizes.queries; ++i) {
        const double lse = wanted.log_sum_exp(i);
        const double off = distance(static_cast<double>(y.lse(b, h, i, 0)), lse);
        worst_lse = std::max(worst_lse, off - (std::isfinite(lse) ? 2 * u * std::abs(lse) : 0));
        for (Index c = 0; c < x.sizes.value_dim; ++c) {
          const auto got = static_cast<double>(static_cast<compute_t<O>>(y.out(b, h, i, c)));
          const double d = distance(got, wanted.out(i, c));
          const bool empty = !std::isfinite(lse);
          worst = std::max(worst, empty && d > 0 ? std::numeric_limits<double>::infinity() : d);
        }
      }
      EXPECT_LE(worst, bound) << "batch " << b << " head " << h << " queries " << x.sizes.queries
                              << " keys " << x.sizes.keys << " dims " << x.sizes.key_dim << ' '
                              << x.sizes.value_dim;
      EXPECT_LE(worst_lse, bound) << "lse, batch " << b << " head " << h << " queries "
                                  << x.sizes.queries << " keys " << x.sizes.keys << " dims "
                                  << x.sizes.key_dim << ' ' << x.sizes.value_dim;
    }
}

/// The largest distance of two outputs, log-sum-exp included.
template <class S>
double difference(const Outputs<S>& a, const Outputs<S>& b) {
  double worst = 0;
  for (std::size_t i = 0; i < a.out.list.size(); ++i)
    worst = std::max(
        worst, distance(static_cast<double>(a.out.list[i]), static_cast<double>(b.out.list[i])));
  for (std::size_t i = 0; i < a.lse.list.size(); ++i)
    worst = std::max(
        worst, distance(static_cast<double>(a.lse.list[i]), static_cast<double>(b.lse.list[i])));
  return worst;
}

/// One head size after the other, key and value dims unequal.
template <class S, class B>
void expect_head_sizes(const B& backend, double tolerance) {
  const std::array<Index, 12> dims{1, 3, 16, 17, 32, 64, 80, 96, 127, 128, 192, 256};
  for (std::size_t d = 0; d < dims.size(); ++d) {
    const Inputs<S> x(Sizes{1, 2, 1, 19, 45, dims[d], dims[(d * 5 + 3) % dims.size()]});
    const bool causal = d % 2 == 0;
    expect_attention(x, attended(backend, x, {.causal = causal}), tolerance, Sees{19, 45, causal});
  }
}

/// As many queries as keys: lengths around those of tiles, of blocks and of registers.
template <class S, class B>
void expect_lengths(const B& backend, double tolerance) {
  for (const Index n : {1,  2,  3,  5,  6,  7,  8,  9,  13,  15,  16,  17,  31,  32,  33, 47,
                        48, 49, 63, 64, 65, 95, 96, 97, 127, 128, 129, 255, 256, 257, 288}) {
    const Inputs<S> x(Sizes{1, 1, 1, n, n, 9, 5});
    const bool causal = n % 16 != 0;
    expect_attention(x, attended(backend, x, {.causal = causal}), tolerance, Sees{n, n, causal});
  }
}

/// A coin for each block, heads with probability `percent` / 100.
struct Coins {
  std::uint64_t seed = 1;
  unsigned percent = 50;

  bool operator()(Index b, Index h, Index r, Index c) const {
    std::uint64_t x = seed;
    for (const Index i : {b, h, r, c}) {
      x = (x ^ static_cast<std::uint64_t>(i)) * 0x9e3779b97f4a7c15u;
      x ^= x >> 29;
    }
    return x % 100 < percent;
  }
};

/// A random order for each (batch, head), slot -> position, one after the other.
inline std::vector<std::uint32_t> random_orders(Index rows, Index keys, std::uint64_t seed) {
  std::vector<std::uint32_t> all;
  for (Index r = 0; r < rows; ++r) {
    const Permutation p = Permutation::random(keys, seed, static_cast<std::uint64_t>(r));
    all.insert(all.end(), p.indices().begin(), p.indices().end());
  }
  return all;
}

}  // namespace pare::testing
