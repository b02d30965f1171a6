// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// The definitions of this folder, in plain loops that accumulate in double. This file holds
/// attention itself; the definitions of the sparse methods are under detail/. Calls reach them by
/// the backend `pare::reference`:
///
/// ```cpp
/// attend(pare::reference, q, k, v, expected, {.causal = true});  // by this file
/// attend(q, k, v, out, {.causal = true});                        // the same up to rounding
/// attend(pare::reference, q, k, v, expected, EarlyStop{});       // by a file of detail/
/// ```

#include <pare/core/macros_off.hpp>

#include <pare/attention/block_mask.hpp>
#include <pare/attention/detail/reference_early_stop.hpp>
#include <pare/attention/detail/reference_permuted.hpp>
#include <pare/attention/detail/reference_proxy.hpp>
#include <pare/attention/detail/reference_row.hpp>
#include <pare/attention/options.hpp>
#include <pare/core/check.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/kernel/score_modifier.hpp>
#include <pare/kernel/score_place.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <optional>
#include <span>
#include <vector>

namespace pare::attention::detail {

/// One query head of one sequence, and which of its keys each query sees.
struct ReferenceHead {
  Index batch = 0;  ///< or sequence; which rows of the mask apply, and the place of each score
  Index head = 0;
  double scale = 1;
  bool causal = false;
  Index window = 0;  ///< 0: none
  Index sinks = 0;
  Index left = no_limit;                   ///< keys before a query that it sees, by a window
  Index right = no_limit;                  ///< keys after it
  std::optional<Index> query_offset{};     ///< position of query 0; left out: keys - queries
  double sink_logit = reference_hidden;    ///< shares the softmax, but has no value
  std::span<const std::uint32_t> order{};  ///< position of each key slot; empty: slot = position
  const BlockMask* mask = nullptr;
};

PARE_ABI_BEGIN

/// Whether positions alone let the query at position p see the key at position j.
inline bool reference_sees(const ReferenceHead& h, Index p, Index j) {
  if (h.causal && j > p) return false;
  if (j < h.sinks) return true;
  const bool near = h.window == 0 || (p - j < h.window && j - p < h.window);
  return near && p - j <= h.left && j - p <= h.right;
}

/// Whether the mask has the block of query i and key slot s.
inline bool reference_selected(const ReferenceHead& h, Index i, Index slot) {
  if (h.mask == nullptr) return true;
  const auto row = h.mask->row(h.batch, h.head, i / h.mask->shape().row_block);
  return std::binary_search(row.begin(), row.end(), slot / h.mask->shape().column_block);
}

/// Scores past max(T) ln 2, the last whose logarithm to base 2 is a number of T, count as that.
template <ComputeScalar T>
double reference_bounded(double score) {
  constexpr double most = std::numeric_limits<T>::max() * 0.69314718055994530942;
  return is_finite(static_cast<double>(static_cast<T>(score))) ? std::clamp(score, -most, most)
                                                               : score;
}

/// s_ij = modify(scale q_i.k_j) for the keys that query i sees, -inf for all others, by slot.
template <StorageScalar T, class KeyRow, class Modifier>
std::vector<double> reference_scores(const ReferenceHead& h, TensorView<const T, 2> q, Index i,
                                     Index keys, const KeyRow& key, const Modifier& modifier) {
  const auto slots = h.order.empty() ? static_cast<std::size_t>(keys) : h.order.size();
  const Index p = i + h.query_offset.value_or(keys - q.rows());
  std::vector<double> scores(slots, reference_hidden);
  for (std::size_t slot = 0; slot < slots; ++slot) {
    const Index j = h.order.empty() ? static_cast<Index>(slot) : Index{h.order[slot]};
    if (j >= keys || !reference_sees(h, p, j)) continue;
    if (!reference_selected(h, i, static_cast<Index>(slot))) continue;
    scores[slot] = reference_bounded<compute_t<T>>(
        kernel::modified(modifier, h.scale * reference_dot(reference_row(q, i), key(j), q.cols()),
                         kernel::ScorePlace{h.batch, h.head, i, p, j}));
  }
  return scores;
}

/// What is done to a row by a call without a hook.
struct ReferenceKeepRows {
  void operator()(Index, double*) const {}
};

/// out_i = sum_j softmax_j(s_ij) v_j and lse_i = log sum_j e^(s_ij) for the queries of one head.
///
/// q [queries, key dim]; `key(j)` and `value(j)` point to the rows of the token at position j, for
/// j in [0, keys); out [queries, value dim]; lse [queries], or a null view. A row that sees no key
/// gives 0 and -inf (the sink logit, if there is one); a NaN among the scores that it sees makes
/// the whole row NaN, as does a score of +inf; what a row does not see never reaches it.
///
/// `finish(i, row)` may change row i, [value dim] in double, before it is rounded.
template <StorageScalar T, class KeyRow, class ValueRow, class Modifier, StorageScalar U,
          ComputeScalar L, class Finish = ReferenceKeepRows>
void reference_attend(const ReferenceHead& h, TensorView<const T, 2> q, Index keys,
                      const KeyRow& key, const ValueRow& value, const Modifier& modifier,
                      TensorView<U, 2> out, TensorView<L, 1> lse, const Finish& finish = {}) {
  for (Index i = 0; i < q.rows(); ++i) {
    std::vector<double> scores = reference_scores(h, q, i, keys, key, modifier);
    scores.push_back(h.sink_logit);
    const std::vector<double> p = reference_softmax(scores);
    std::vector<double> sum(static_cast<std::size_t>(out.cols()), 0.0);
    for (std::size_t slot = 0; slot + 1 < p.size(); ++slot) {
      if (scores[slot] == reference_hidden) continue;
      const auto* v = value(h.order.empty() ? static_cast<Index>(slot) : Index{h.order[slot]});
      for (std::size_t c = 0; c < sum.size(); ++c) sum[c] += p[slot] * reference_value(v[c]);
    }
    finish(i, sum.data());
    for (Index c = 0; c < out.cols(); ++c)
      out(i, c) = reference_cast<U>(sum[static_cast<std::size_t>(c)]);
    if (lse.data != nullptr) lse(i) = static_cast<L>(reference_log_sum_exp(scores));
  }
}

PARE_ABI_END
}  // namespace pare::attention::detail

#include <pare/core/macros_on.hpp>
