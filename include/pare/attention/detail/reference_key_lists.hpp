// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Attention over key lists by its definition, row by row, in double.

#include <pare/attention/detail/call.hpp>
#include <pare/attention/detail/reference_row.hpp>
#include <pare/attention/key_lists.hpp>
#include <pare/attention/key_value_source.hpp>
#include <pare/attention/reference.hpp>
#include <pare/kernel/score_modifier.hpp>
#include <pare/kernel/score_place.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace pare::attention::detail {
PARE_ABI_BEGIN

/// The list of a row: that of its head, or of its key/value head.
inline std::span<const std::int32_t> listed_keys(const KeyLists& lists, const Problem& p,
                                                 Index sequence, Index head, Index query) {
  const bool by_kv_head = lists.shape().heads == p.kv_heads;
  return lists.row(sequence, by_kv_head ? head / p.group() : head, query);
}

/// out = sum_j softmax_j(s_j) v_j over the keys j that query i of a head lists and sees, 0 if there
/// are none; lse = log sum_j e^(s_j). Returns how many keys those are.
template <class C>
Index reference_listed_row(const C& call, const KeyLists& lists, Index sequence, Index h, Index i) {
  using S = typename C::Scalar;
  using T = typename C::T;
  using O = typename C::Output;
  const Problem& p = call.problem;
  const Index n = call.source.length(sequence), kv_head = h / p.group();
  const Index position = i + p.query_offset.value_or(n - call.q.extent[2]);
  const ReferenceHead sees{.causal = p.causal, .sinks = p.sinks, .left = p.left, .right = p.right};
  std::vector<S> room(static_cast<std::size_t>(std::max(p.key_dim, p.value_dim)));
  std::vector<double> scores;
  std::vector<Index> keys;
  for (const std::int32_t j : listed_keys(lists, p, sequence, h, i)) {
    if (j >= n || !reference_sees(sees, position, j)) continue;
    const S* const key = key_row(call.source, sequence, kv_head, j, room.data());
    const double dot = reference_dot(&call.q(sequence, h, i, 0), key, p.key_dim);
    keys.push_back(j);
    scores.push_back(reference_bounded<T>(kernel::modified(
        call.modifier, p.scale * dot, kernel::ScorePlace{sequence, h, i, position, j})));
  }
  scores.push_back(p.sink_logits ? double{(*p.sink_logits)[static_cast<std::size_t>(h)]}
                                 : reference_hidden);
  const std::vector<double> weights = reference_softmax(scores);
  std::vector<double> sum(static_cast<std::size_t>(p.value_dim), 0.0);
  for (std::size_t e = 0; e < keys.size(); ++e) {
    if (scores[e] == reference_hidden) continue;
    const S* const value = value_row(call.source, sequence, kv_head, keys[e], room.data());
    for (std::size_t c = 0; c < sum.size(); ++c) sum[c] += weights[e] * reference_value(value[c]);
  }
  for (std::size_t c = 0; c < sum.size(); ++c)
    call.out(sequence, h, i, static_cast<Index>(c)) = reference_cast<O>(sum[c]);
  if (call.options.lse.wanted())
    call.options.lse.template view<T>()(sequence, h, i) =
        static_cast<T>(reference_log_sum_exp(scores));
  return static_cast<Index>(keys.size());
}

/// A call, row by row; the pairs that are seen.
template <class C>
double reference_listed(const C& call, const KeyLists& lists) {
  Index pairs = 0;
  for (Index i = 0; i < call.problem.sequences; ++i)
    for (Index h = 0; h < call.problem.heads; ++h)
      for (Index query = 0; query < call.q.extent[2]; ++query)
        pairs += reference_listed_row(call, lists, i, h, query);
  return static_cast<double>(pairs);
}

PARE_ABI_END
}  // namespace pare::attention::detail
