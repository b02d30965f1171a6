// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Which rotary pairs of each key head keep their rotation.
///
/// ```cpp
/// high_pairs(shape, 16);                 // the fastest turning
/// uniform_pairs(shape, 16, 1);           // every fourth of 64, from pair 1
/// strongest_pairs(pair_norm_scores(q, k, shape), 16);
/// RotaryPairs mine(shape.kv_heads, {0, 1, 5});
/// ```
///
/// Source: MHA2MLA, arXiv 2502.14837, and its code (whose 2-norm branch hands its selector the
/// wrong argument; here it is the formula).

#include <pare/core/macros_off.hpp>

#include <pare/core/check.hpp>
#include <pare/core/matrix.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/latent/convert/attention_shape.hpp>
#include <pare/latent/detail/conversion_checks.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <numeric>
#include <utility>
#include <vector>

namespace pare::latent {
PARE_ABI_BEGIN

/// Of each key head its pairs, numbered from the fastest turning, 0.
using RotaryPairs = std::vector<std::vector<Index>>;

PARE_ABI_END
namespace detail {
PARE_ABI_BEGIN

inline void check_pair_count(const char* function, Index count, Index pairs) {
  check(count >= 1 && count <= pairs, function, "count", count,
        Worded{"1 to the pairs of a head, ", pairs});
}

inline void check_pairs(const char* function, const AttentionShape& shape,
                        const RotaryPairs& pairs) {
  const auto heads = static_cast<Index>(pairs.size());
  check(heads == shape.kv_heads, function, "pairs", heads,
        Worded{"a list for each of kv_heads, ", shape.kv_heads});
  for (const auto& of_head : pairs) {
    const auto count = static_cast<Index>(of_head.size());
    check(count >= 1 && of_head.size() == pairs.front().size(), function, "pairs", count,
          "as many for each head, at least one");
    for (std::size_t i = 0; i < of_head.size(); ++i) {
      check(of_head[i] >= 0 && of_head[i] < shape.pairs(), function, "pairs", of_head[i],
            Worded{"pairs from 0 to below ", shape.pairs()});
      check(std::find(of_head.begin(), of_head.begin() + static_cast<Index>(i), of_head[i]) ==
                of_head.begin() + static_cast<Index>(i),
            function, "pairs", of_head[i], "each pair once");
    }
  }
}

/// Mean over rows of the norms of a pair of a head.
template <StorageScalar S>
double mean_norm(TensorView<const S, 2> rows, Index head, Index pair, const AttentionShape& shape) {
  double sum = 0;
  for (Index t = 0; t < rows.rows(); ++t)
    sum += std::hypot(widened(rows(t, head * shape.head_dim + shape.channel(pair, 0))),
                      widened(rows(t, head * shape.head_dim + shape.channel(pair, 1))));
  return sum / static_cast<double>(rows.rows());
}

PARE_ABI_END
}  // namespace detail
PARE_ABI_BEGIN

/// Of all heads first, first + step, ... : `count` pairs.
/// \throws std::invalid_argument if the shape, count or first is out of its range, or the last is
///         no pair of a head
inline RotaryPairs stepped_pairs(const AttentionShape& shape, Index count, Index first,
                                 Index step) {
  constexpr const char* function = "latent::stepped_pairs";
  shape.validate(function);
  detail::check_pair_count(function, count, shape.pairs());
  check(step >= 1 && step <= shape.pairs(), function, "step", step,
        Worded{"1 to the pairs of a head, ", shape.pairs()});
  check(first >= 0 && first < shape.pairs() && count - 1 <= (shape.pairs() - 1 - first) / step,
        function, "first", first, Worded{"a last pair below ", shape.pairs()});
  std::vector<Index> pairs;
  for (Index i = 0; i < count; ++i) pairs.push_back(first + i * step);
  return RotaryPairs(static_cast<std::size_t>(shape.kv_heads), pairs);
}

/// The `count` pairs of the highest frequencies. \throws as stepped_pairs
inline RotaryPairs high_pairs(const AttentionShape& shape, Index count) {
  return stepped_pairs(shape, count, 0, 1);
}

/// The `count` pairs of the lowest frequencies. \throws as stepped_pairs
inline RotaryPairs low_pairs(const AttentionShape& shape, Index count) {
  return stepped_pairs(shape, count, shape.pairs() - count, 1);
}

/// Every (pairs / count)-th pair, from `first` on. \throws as stepped_pairs
inline RotaryPairs uniform_pairs(const AttentionShape& shape, Index count, Index first = 0) {
  return stepped_pairs(shape, count, first,
                       std::max<Index>(1, shape.pairs() / std::max<Index>(1, count)));
}

/// How much each pair of a key head says, [kv_heads, pairs]: the mean norm of the pair in keys
/// times that in queries, summed over the queries' heads that share the key.
///
/// \param q [tokens, heads head_dim], before rotation (which changes no norm); any storage scalar
/// \param k [tokens, kv_heads head_dim], the same
/// \throws std::invalid_argument if the shape is out of its range, an extent does not fit, there is
///         no token, or an element is not finite
template <In<2> Q, In<2> K>
requires SameScalar<Q, K>
RowMatrix<double> pair_norm_scores(const Q& q, const K& k, const AttentionShape& shape) {
  constexpr const char* function = "latent::pair_norm_scores";
  const auto queries = as_const(to_view(q)), keys = as_const(to_view(k));
  shape.validate(function);
  detail::check_weight(function, "q", queries);
  detail::check_weight(function, "k", keys);
  check_extents<2>(function, "q", queries.extent, {queries.rows(), shape.heads * shape.head_dim});
  check_extents<2>(function, "k", keys.extent, {queries.rows(), shape.kv_heads * shape.head_dim});
  RowMatrix<double> scores(shape.kv_heads, shape.pairs());
  for (Index g = 0; g < shape.kv_heads; ++g)
    for (Index i = 0; i < shape.pairs(); ++i) {
      double of_queries = 0;
      for (Index h = g * shape.group(); h < (g + 1) * shape.group(); ++h)
        of_queries += detail::mean_norm(queries, h, i, shape);
      scores(g, i) = of_queries * detail::mean_norm(keys, g, i, shape);
    }
  return scores;
}

/// The `count` pairs of each key head that score the most, in ascending order; of equal ones the
/// first.
/// \param scores [kv_heads, pairs], as pair_norm_scores gives them, or any others
/// \throws std::invalid_argument if there are none, one is not finite, or count is not 1 to pairs
template <In<2> C>
RotaryPairs strongest_pairs(const C& scores, Index count) {
  constexpr const char* function = "latent::strongest_pairs";
  const auto of_heads = as_const(to_view(scores));
  detail::check_weight(function, "scores", of_heads);
  detail::check_pair_count(function, count, of_heads.cols());
  RotaryPairs pairs;
  for (Index g = 0; g < of_heads.rows(); ++g) {
    std::vector<Index> order(static_cast<std::size_t>(of_heads.cols()));
    std::iota(order.begin(), order.end(), Index{0});
    std::stable_sort(order.begin(), order.end(), [&](Index a, Index b) {
      return detail::widened(of_heads(g, a)) > detail::widened(of_heads(g, b));
    });
    order.resize(static_cast<std::size_t>(count));
    std::sort(order.begin(), order.end());
    pairs.push_back(std::move(order));
  }
  return pairs;
}

PARE_ABI_END
}  // namespace pare::latent

#include <pare/core/macros_on.hpp>
