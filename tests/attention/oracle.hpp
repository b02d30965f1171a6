// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Attention by brute force: the whole matrix of scores, in long double. Shares no code with the
/// library's own definition.

#include <pare/core/scalar.hpp>
#include <pare/core/tensor_view.hpp>

#include <cmath>
#include <cstddef>
#include <limits>
#include <vector>

namespace pare::testing {

/// Output, log-sum-exp and probabilities of one head.
struct Oracle {
  Index queries = 0, keys = 0, value_dim = 0;
  std::vector<long double> weight;  ///< [queries, keys] probabilities
  std::vector<long double> output;  ///< [queries, value dim]
  std::vector<long double> lse;     ///< [queries]

  double p(Index i, Index j) const {
    return static_cast<double>(weight[static_cast<std::size_t>(i * keys + j)]);
  }
  double out(Index i, Index c) const {
    return static_cast<double>(output[static_cast<std::size_t>(i * value_dim + c)]);
  }
  double log_sum_exp(Index i) const {
    return static_cast<double>(lse[static_cast<std::size_t>(i)]);
  }
};

/// softmax(score) V over the keys with visible(i, j), where score = rescored(i, j, scale q_i.k_j).
/// A query that sees no key has output 0 and log-sum-exp -inf.
template <class T, class Visible, class Rescored>
Oracle dense_attention(TensorView<const T, 2> q, TensorView<const T, 2> k, TensorView<const T, 2> v,
                       double scale, const Visible& visible, const Rescored& rescored) {
  const auto wide = [](T x) { return static_cast<long double>(static_cast<compute_t<T>>(x)); };
  const long double none = -std::numeric_limits<long double>::infinity();
  Oracle o{q.extent[0], k.extent[0], v.extent[1], {}, {}, {}};
  o.weight.assign(static_cast<std::size_t>(o.queries * o.keys), none);
  o.output.assign(static_cast<std::size_t>(o.queries * o.value_dim), 0.0L);
  o.lse.assign(static_cast<std::size_t>(o.queries), none);
  for (Index i = 0; i < o.queries; ++i) {
    long double* row = o.weight.data() + i * o.keys;
    long double top = none, total = 0;
    for (Index j = 0; j < o.keys; ++j) {
      if (!visible(i, j)) continue;
      long double dot = 0;
      for (Index c = 0; c < q.extent[1]; ++c) dot += wide(q(i, c)) * wide(k(j, c));
      row[j] = rescored(i, j, static_cast<long double>(scale) * dot);
      if (row[j] > top) top = row[j];
    }
    for (Index j = 0; j < o.keys; ++j) {
      row[j] = row[j] == none ? 0.0L : std::exp(row[j] - top);
      total += row[j];
    }
    if (total == 0.0L) continue;
    o.lse[static_cast<std::size_t>(i)] = top + std::log(total);
    for (Index j = 0; j < o.keys; ++j) {
      row[j] /= total;
      for (Index c = 0; c < o.value_dim && row[j] != 0.0L; ++c)
        o.output[static_cast<std::size_t>(i * o.value_dim + c)] += row[j] * wide(v(j, c));
    }
  }
  return o;
}

template <class T, class Visible>
Oracle dense_attention(TensorView<const T, 2> q, TensorView<const T, 2> k, TensorView<const T, 2> v,
                       double scale, const Visible& visible) {
  return dense_attention(q, k, v, scale, visible,
                         [](Index, Index, long double score) { return score; });
}

/// Query i of `queries` stands at i + keys - queries and sees what is at or before it.
inline auto causal_visibility(Index queries, Index keys) {
  return [offset = keys - queries](Index i, Index j) { return j <= i + offset; };
}

}  // namespace pare::testing
