// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// What a call asks of a hook that changes finished rows, before anything is written.

#include <pare/attention/detail/problem.hpp>
#include <pare/attention/row_finish.hpp>

#include <algorithm>
#include <array>
#include <optional>

namespace pare::attention::detail {
PARE_ABI_BEGIN

/// The first sequence that has a query without a key at its own position.
template <class C>
std::optional<std::array<Index, 3>> without_own_key(const C& call) {
  for (Index i = 0; i < call.problem.sequences; ++i) {
    const Sequence s = call.sequence(i);
    const Index first = s.offset(call.problem);
    if (s.queries > 0 && (first < 0 || first + s.queries > s.keys))
      return std::array<Index, 3>{i, s.queries, s.keys};
  }
  return std::nullopt;
}

/// Keys of the shortest sequence; 0 if there is no sequence.
template <class C>
Index fewest_keys(const C& call) {
  if (call.problem.sequences == 0) return 0;
  Index keys = call.sequence(0).keys;
  for (Index i = 1; i < call.problem.sequences; ++i) keys = std::min(keys, call.sequence(i).keys);
  return keys;
}

template <class C>
void check_finish(const char* function, const C& call) {
  if constexpr (C::finishes) {
    const Problem& p = call.problem;
    call.finish.validate(function, FinishCall{p.sequences, p.heads, p.value_dim, call.q.extent[2],
                                              call.options.query_offsets.has_value(),
                                              fewest_keys(call), without_own_key(call)});
    call.finish.check_apart(function, "out", call.out);
    if (call.options.lse.wanted())
      call.finish.check_apart(function, "lse", call.options.lse.template view<typename C::T>());
  }
}

PARE_ABI_END
}  // namespace pare::attention::detail
