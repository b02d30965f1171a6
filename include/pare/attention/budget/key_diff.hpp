// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// KeyDiff: a token is worth the more, the less its key points where the keys of its chunk do.
///
/// ```cpp
/// score_tokens(k, scores, KeyDiff{});             // k [batch, kv heads, tokens, dim]
/// ```
///
/// score_t = -cos(k_t, a), a = mean_t k_t / |k_t|. A key of zeros points nowhere: it adds nothing
/// to a and scores 0, as all do where a is 0. A key that is not finite scores NaN and adds nothing.
///
/// Source: Park et al., "KeyDiff: Key Similarity-Based KV Cache Eviction", arXiv 2504.15364, as
/// Tangram (arXiv 2606.06302, compression/keydiff.py) has it. Ours: what zeros and NaN do.

#include <pare/core/macros_off.hpp>

#include <pare/attention/budget/eviction_score.hpp>
#include <pare/attention/detail/reference_row.hpp>
#include <pare/core/backend.hpp>
#include <pare/core/check.hpp>
#include <pare/core/scratch.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/kernel/key_directions.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <span>
#include <vector>

namespace pare::attention {

PARE_ABI_BEGIN

/// An EvictionScore that looks at keys alone.
struct KeyDiff {
  static constexpr bool reads_queries = false;

  void validate(const char* /*function*/, const EvictionCall& /*call*/) const {}

  /// Cost: the keys are read twice, which binds. Memory per worker: tokens + 2 dim scalars and dim
  /// doubles.
  template <class B, StorageScalar S>
  PARE_ALWAYS_INLINE void score(const B& backend, const EvictionHead<S>& head,
                                std::span<compute_t<S>> scores) const;
};

PARE_ABI_END

namespace detail {
PARE_ABI_BEGIN

/// x / |x| in double, whatever the size of x, element by element.
template <class S>
class Direction {
 public:
  Direction(const S* x, Index size) : x_(x) {
    for (Index c = 0; c < size; ++c) {
      finite_ = finite_ && is_finite(reference_value(x[c]));
      largest_ = std::max(largest_, std::abs(reference_value(x[c])));
    }
    if (!finite_ || largest_ == 0) return;
    double squares = 0;
    for (Index c = 0; c < size; ++c) squares += part(c) * part(c);
    length_ = std::sqrt(squares);
  }

  bool is_finite_row() const { return finite_; }
  /// 0 of a row of zeros.
  double operator()(Index c) const { return largest_ == 0 ? 0 : part(c) / length_; }

 private:
  double part(Index c) const { return reference_value(x_[c]) / largest_; }

  const S* x_;
  bool finite_ = true;
  double largest_ = 0;
  double length_ = 1;
};

template <class S>
void add_direction(const S* x, double* sums, Index size) {
  const Direction<S> d(x, size);
  if (!d.is_finite_row()) return;
  for (Index c = 0; c < size; ++c) sums[c] += d(c);
}

/// sum_c d_c y_c of the direction of a row; NaN of one that is not finite.
template <class S, class Y>
double direction_dot(const S* x, const Y* y, Index size) {
  const Direction<S> d(x, size);
  if (!d.is_finite_row()) return std::numeric_limits<double>::quiet_NaN();
  double sum = 0;
  for (Index c = 0; c < size; ++c) sum += d(c) * static_cast<double>(y[c]);
  return sum;
}

/// y = -a / |a|, or zeros.
template <class T>
void point_away(const double* a, Index size, T* y) {
  const Direction<double> d(a, size);
  for (Index c = 0; c < size; ++c) y[c] = static_cast<T>(-d(c));
}

/// Keys whose directions are summed in T before the sum goes to double.
inline constexpr Index keys_at_once = 256;

/// The scores of a head by kernels; keys that they leave are taken one by one.
template <class B, class S>
void diff_scores(const B& backend, const EvictionHead<S>& head, std::span<compute_t<S>> scores) {
  using T = compute_t<S>;
  const Index tokens = head.k.rows(), dim = head.k.cols(), stride = head.k.stride[0];
  T *inverse = nullptr, *sums = nullptr, *away = nullptr;
  double* anchor = nullptr;
  carve_from(*head.memory, [&](Carver& take) {
    take(inverse, tokens);
    take(sums, dim);
    take(away, dim);
    take(anchor, dim);
  });
  std::fill_n(anchor, dim, 0.0);
  for (Index first = 0; first < tokens; first += keys_at_once) {
    const Index rows = std::min(keys_at_once, tokens - first);
    std::fill_n(sums, dim, T(0));
    launch(backend, kernel::AddDirections<S>{head.k.data + first * stride, stride, rows, dim,
                                             inverse + first, sums});
    for (Index c = 0; c < dim; ++c) anchor[c] += static_cast<double>(sums[c]);
    for (Index t = first; t < first + rows; ++t)
      if (inverse[t] < T(0)) add_direction(head.k.data + t * stride, anchor, dim);
  }
  point_away(anchor, dim, away);
  launch(backend,
         kernel::ScaledRowDots<S>{head.k.data, stride, tokens, dim, away, inverse, scores.data()});
  for (Index t = 0; t < tokens; ++t)
    if (inverse[t] < T(0))
      scores[static_cast<std::size_t>(t)] =
          static_cast<T>(direction_dot(head.k.data + t * stride, away, dim));
}

/// The same by the definition.
template <class S>
void reference_diff_scores(const EvictionHead<S>& head, std::span<compute_t<S>> scores) {
  const Index dim = head.k.cols();
  std::vector<double> anchor(static_cast<std::size_t>(dim)), away(anchor.size());
  for (Index t = 0; t < head.k.rows(); ++t)
    add_direction(head.k.data + t * head.k.stride[0], anchor.data(), dim);
  point_away(anchor.data(), dim, away.data());
  for (Index t = 0; t < head.k.rows(); ++t)
    scores[static_cast<std::size_t>(t)] = static_cast<compute_t<S>>(
        direction_dot(head.k.data + t * head.k.stride[0], away.data(), dim));
}

PARE_ABI_END
}  // namespace detail

template <class B, StorageScalar S>
PARE_ALWAYS_INLINE void KeyDiff::score(const B& backend, const EvictionHead<S>& head,
                                       std::span<compute_t<S>> scores) const {
  if constexpr (KernelBackend<B>)
    detail::diff_scores(backend, head, scores);
  else
    detail::reference_diff_scores(head, scores);
}

}  // namespace pare::attention

#include <pare/core/macros_on.hpp>
