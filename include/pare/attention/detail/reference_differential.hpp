// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Differential attention by its definition: both maps of a head, their difference, the norm.

#include <pare/attention/detail/run_reference.hpp>
#include <pare/attention/reference.hpp>

#include <cmath>
#include <cstddef>
#include <vector>

namespace pare::attention::detail {
PARE_ABI_BEGIN

/// softmax(scale q k^T) v of one head, [queries, value dim] in double.
template <class C>
std::vector<double> reference_map(const C& call, Index sequence, Index head) {
  using S = typename C::Scalar;
  const Problem& p = call.problem;
  const Sequence s = call.sequence(sequence);
  const Index kv_head = head / p.group();
  std::vector<double> out(static_cast<std::size_t>(s.queries * p.value_dim));
  const auto& q = call.q;
  const S* const first =
      q.data + s.batch * q.stride[0] + head * q.stride[1] + s.query_begin * q.stride[2];
  reference_attend<S>(
      reference_head(p, sequence, head),
      TensorView<const S, 2>{first, {s.queries, p.key_dim}, {q.stride[2], 1}}, s.keys,
      [&](Index j) { return call.source.key(sequence, kv_head, j); },
      [&](Index j) { return call.source.value(sequence, kv_head, j); }, call.modifier,
      TensorView<double, 2>{out.data(), {s.queries, p.value_dim}, {p.value_dim, 1}},
      TensorView<double, 1>{});
  return out;
}

/// `gain` [value dim], or empty for no norm.
template <class C>
void reference_differential(const C& first, const C& second, double lambda, double epsilon,
                            const std::vector<double>& gain) {
  const Problem& p = first.problem;
  for (Index i = 0; i < p.sequences; ++i)
    for (Index h = 0; h < p.heads; ++h) {
      std::vector<double> o = reference_map(first, i, h);
      const std::vector<double> other = reference_map(second, i, h);
      for (std::size_t c = 0; c < o.size(); ++c) o[c] -= lambda * other[c];
      const Sequence s = first.sequence(i);
      for (Index row = 0; row < s.queries; ++row) {
        double* const x = o.data() + row * p.value_dim;
        double squares = 0;
        for (Index c = 0; c < p.value_dim; ++c) squares += x[c] * x[c];
        const double root = std::sqrt(squares / static_cast<double>(p.value_dim) + epsilon);
        for (Index c = 0; c < p.value_dim; ++c)
          first.out(s.batch, h, s.query_begin + row, c) = reference_cast<typename C::Output>(
              gain.empty() ? x[c] : x[c] / root * gain[static_cast<std::size_t>(c)]);
      }
    }
}

PARE_ABI_END
}  // namespace pare::attention::detail
