// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// The definition of a head that weighs all keys it sees alike: the mean of their values, in
/// double.

#include <pare/attention/detail/call.hpp>
#include <pare/attention/detail/run_reference.hpp>
#include <pare/attention/reference.hpp>

#include <cmath>
#include <cstddef>
#include <vector>

namespace pare::attention::detail {
PARE_ABI_BEGIN

/// out_i = sum_j v_j / (n + e^sink) over the n keys j that query i sees, and lse_i = log(n +
/// e^sink).
template <class C>
void reference_uniform_head(const C& call, Index sequence, Index head) {
  using S = typename C::Scalar;
  using T = typename C::T;
  const Problem& p = call.problem;
  const Sequence s = call.sequence(sequence);
  const ReferenceHead h = reference_head(p, sequence, head);
  std::vector<S> loaded(static_cast<std::size_t>(p.value_dim));
  for (Index i = 0; i < s.queries; ++i) {
    std::vector<double> scores{h.sink_logit}, sum(loaded.size(), 0.0);
    for (Index j = 0; j < s.keys; ++j) {
      if (!reference_sees(h, i + s.offset(p), j)) continue;
      scores.push_back(0);
      const S* v = value_row(call.source, sequence, head / p.group(), j, loaded.data());
      for (std::size_t c = 0; c < sum.size(); ++c) sum[c] += reference_value(v[c]);
    }
    const double lse = reference_log_sum_exp(scores);
    for (std::size_t c = 0; c < sum.size(); ++c)
      call.out(s.batch, head, s.query_begin + i, static_cast<Index>(c)) =
          reference_cast<typename C::Output>(scores.size() > 1 ? sum[c] * std::exp(-lse) : 0.0);
    if (call.options.lse.wanted())
      call.options.lse.template view<T>()(s.batch, head, s.query_begin + i) = static_cast<T>(lse);
  }
}

template <class C>
void reference_uniform_heads(const C& call) {
  for (Index i = 0; i < call.problem.sequences; ++i)
    for (Index h = 0; h < call.problem.heads; ++h)
      if (call.problem.modes[static_cast<std::size_t>(h)] == HeadMode::Uniform)
        reference_uniform_head(call, i, h);
}

PARE_ABI_END
}  // namespace pare::attention::detail
