// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// A checked call of attention, with its tensors.

#include <pare/attention/detail/problem.hpp>
#include <pare/attention/options.hpp>
#include <pare/attention/row_finish.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/kernel/score_modifier.hpp>

#include <cstddef>
#include <span>
#include <type_traits>

namespace pare::attention::detail {
PARE_ABI_BEGIN

/// One call: tensors, source of keys and values, what is done to scores and to rows, and the plan.
template <class S, class O, class Source, class M, class F = KeepRows>
struct Call {
  using Scalar = S;
  using Output = O;
  using Keys = Source;
  using Modifier = M;
  using Finish = F;
  using T = compute_t<S>;

  Problem problem;
  TensorView<const S, 4> q;
  const Source& source;
  TensorView<O, 4> out;
  const M& modifier;
  const AttendOptions& options;
  F finish{};

  /// Whether rows are changed once they are complete.
  static constexpr bool finishes = !std::is_same_v<F, KeepRows>;

  /// Whether weights may be rounded before they are summed, and the log-sum-exp needs sums of its
  /// own.
  bool keeps_mass() const { return std::is_same_v<S, bf16> && options.lse.wanted(); }

  Sequence sequence(Index i) const {
    if (!options.query_offsets) return {i, 0, q.extent[2], source.length(i)};
    const auto at = static_cast<std::size_t>(i);
    const std::span<const Index> offsets = *options.query_offsets;
    return {0, offsets[at], offsets[at + 1] - offsets[at], source.length(i)};
  }
};

/// Whether a modifier hides a key from every query of a sequence, so that it need not be read.
template <class M>
bool hides_key(const M& modifier, Index sequence, Index key) {
  if constexpr (requires { modifier.hides(sequence, key); })
    return modifier.hides(sequence, key);
  else
    return false;
}

template <class First, class Second>
bool hides_key(const kernel::Chain<First, Second>& chain, Index sequence, Index key) {
  return hides_key(chain.first, sequence, key) || hides_key(chain.second, sequence, key);
}

PARE_ABI_END
}  // namespace pare::attention::detail
