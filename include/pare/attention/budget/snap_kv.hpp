// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// SnapKV: a token is worth the attention that the last queries of its chunk pay to it and to its
/// neighbours.
///
/// ```cpp
/// score_tokens(q, k, scores, SnapKV{});             // q [batch, heads, queries, dim]: at least 32
/// score_tokens(q, k, scores, SnapKV{.window = 64, .pool = 5});
/// ```
///
/// Of query i of the window and key t, with the query heads h of a kv head:
/// l_it = max_h scale <q_hi, k_t>, w_t = mean_i softmax_t(l_it), score_t = max_{|u - t| <= pool/2}
/// w_u. Nothing is masked: the last queries see keys behind them too, as in the source.
///
/// A product that is NaN counts as -infinity: such a key weighs 0. A product of +infinity makes all
/// scores of its head NaN.
///
/// Source: Li et al., "SnapKV: LLM Knows What You are Looking for Before Generation", arXiv
/// 2404.14469, as Tangram (arXiv 2606.06302, compression/snapkv.py) has it; the defaults are
/// Tangram's. Ours: what NaN does.

#include <pare/core/macros_off.hpp>

#include <pare/attention/budget/eviction_score.hpp>
#include <pare/attention/detail/reference_row.hpp>
#include <pare/core/backend.hpp>
#include <pare/core/check.hpp>
#include <pare/core/scratch.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/kernel/mean_rows.hpp>
#include <pare/kernel/softmax_rows.hpp>
#include <pare/linalg/score_rows.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <span>
#include <vector>

namespace pare::attention {

PARE_ABI_BEGIN

/// An EvictionScore.
struct SnapKV {
  static constexpr bool reads_queries = true;

  Index window = 32;         ///< last queries that are asked, at least 1
  Index short_window = 16;   ///< of a chunk of fewer than short_chunk tokens, at least 1
  Index short_chunk = 1000;  ///< tokens, at least 0
  Index pool = 7;            ///< tokens of which the largest weight counts, odd, at least 1

  /// Queries that are asked of a chunk.
  Index window_of(Index tokens) const {
    return std::min(tokens, tokens >= short_chunk ? window : short_window);
  }

  /// \throws std::invalid_argument if a member is out of its range, or there are fewer queries than
  ///         the window wants
  void validate(const char* function, const EvictionCall& call) const;

  /// Cost: 2 window group dim FLOPs per token (group: query heads of a kv head), which bind. Memory
  /// per worker: (window + 1) tokens scalars, and a tile of scores.
  template <class B, StorageScalar S>
  PARE_ALWAYS_INLINE void score(const B& backend, const EvictionHead<S>& head,
                                std::span<compute_t<S>> scores) const;
};

PARE_ABI_END

namespace detail {
PARE_ABI_BEGIN

/// out_t = the largest of `pool` weights around t, those that there are.
template <class T>
void pool_weights(const T* weights, Index tokens, Index pool, T* out) {
  const Index side = pool / 2;
  for (Index t = 0; t < tokens; ++t) {
    T best = weights[t];
    const Index end = side < tokens - t ? t + side + 1 : tokens;
    for (Index u = t > side ? t - side : 0; u < end; ++u)
      best = best < weights[u] ? weights[u] : best;
    out[t] = best;
  }
}

/// l_i = max_h of a tile of scores, of which row h window + i is that of head h and query i.
template <class T>
PARE_ALWAYS_INLINE void largest_of_heads(const T* tile, Index heads, Index window, Index count,
                                         T* out, Index stride) {
  for (Index i = 0; i < window; ++i) {
    T* const row = out + i * stride;
    std::fill_n(row, count, -std::numeric_limits<T>::infinity());
    for (Index h = 0; h < heads; ++h) {
      const T* const scores = tile + (h * window + i) * kernel::tile_keys;
      for (Index j = 0; j < count; ++j) row[j] = row[j] < scores[j] ? scores[j] : row[j];
    }
  }
}

/// Weights of the tokens of a head by kernels.
template <class B, class S>
void snap_scores(const B& backend, const EvictionHead<S>& head, Index window, Index pool,
                 std::span<compute_t<S>> scores) {
  using T = compute_t<S>;
  const Index heads = head.q.extent[0], tokens = head.k.rows(), dim = head.k.cols();
  const Index first = head.q.extent[1] - window, stride = whole_lines(tokens);
  linalg::ScoreRows<B, S> products(backend, dim);
  T *logits = nullptr, *weights = nullptr;
  carve_from(*head.memory, [&](Carver& take) {
    products.carve(take, heads * window, heads * window);
    take(logits, window * stride);
    take(weights, stride);
  });
  products.set_rows(heads * window, [&](Index r) {
    return head.q.data + r / window * head.q.stride[0] + (first + r % window) * head.q.stride[1];
  });
  products.over_keys(
      0, tokens, [&](Index t) { return head.k.data + t * head.k.stride[0]; },
      static_cast<T>(head.scale),
      [&](Index begin, Index count, const T* tile) {
        largest_of_heads(tile, heads, window, count, logits + begin, stride);
      });
  launch(backend, kernel::SoftmaxRows<T, false>{logits, stride, logits, stride, window, tokens});
  const T* const rows = logits;
  launch(backend, kernel::MeanRows<T>{&rows, 1, window, stride, tokens, weights});
  pool_weights(static_cast<const T*>(weights), tokens, pool, scores.data());
}

/// The same by the definition.
template <class S>
void reference_snap_scores(const EvictionHead<S>& head, Index window, Index pool,
                           std::span<compute_t<S>> scores) {
  const Index tokens = head.k.rows(), first = head.q.extent[1] - window;
  std::vector<double> mean(static_cast<std::size_t>(tokens)), weights(mean.size());
  for (Index i = 0; i < window; ++i) {
    double largest = -std::numeric_limits<double>::infinity(), sum = 0;
    for (Index t = 0; t < tokens; ++t) {
      double& best = weights[static_cast<std::size_t>(t)];
      best = -std::numeric_limits<double>::infinity();
      for (Index h = 0; h < head.q.extent[0]; ++h) {
        double product = 0;
        for (Index c = 0; c < head.k.cols(); ++c)
          product += reference_value(head.q(h, first + i, c)) * reference_value(head.k(t, c));
        best = std::max(best, head.scale * product);  // NaN is not above
      }
      largest = std::max(largest, best);
    }
    if (largest == -std::numeric_limits<double>::infinity()) continue;
    for (double& w : weights) sum += w = std::exp(w - largest);
    for (std::size_t t = 0; t < mean.size(); ++t)
      mean[t] += weights[t] / sum / static_cast<double>(window);
  }
  pool_weights(mean.data(), tokens, pool, weights.data());
  std::transform(weights.begin(), weights.end(), scores.begin(),
                 [](double w) { return static_cast<compute_t<S>>(w); });
}

PARE_ABI_END
}  // namespace detail

inline void SnapKV::validate(const char* function, const EvictionCall& call) const {
  check(window >= 1, function, "window", window, "at least 1");
  check(short_window >= 1, function, "short_window", short_window, "at least 1");
  check(short_chunk >= 0, function, "short_chunk", short_chunk, "at least 0");
  check(pool >= 1 && pool % 2 == 1, function, "pool", pool, "an odd number, at least 1");
  check(call.queries >= window_of(call.tokens), function, "q", call.queries,
        Worded{"at least ", window_of(call.tokens), " queries, the window"});
}

template <class B, StorageScalar S>
PARE_ALWAYS_INLINE void SnapKV::score(const B& backend, const EvictionHead<S>& head,
                                      std::span<compute_t<S>> scores) const {
  const Index window_now = window_of(head.k.rows());
  if constexpr (KernelBackend<B>)
    detail::snap_scores(backend, head, window_now, pool, scores);
  else
    detail::reference_snap_scores(head, window_now, pool, scores);
}

}  // namespace pare::attention

#include <pare/core/macros_on.hpp>
