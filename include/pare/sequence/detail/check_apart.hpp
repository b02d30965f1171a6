// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// What a scan writes lies apart from what it reads.

#include <pare/core/check.hpp>
#include <pare/core/tensor_view.hpp>

namespace pare::sequence::detail {
PARE_ABI_BEGIN

/// Throws if the state or y overlaps one of the others, or one of x, a, b and c.
template <class Call>
void check_apart(const Call& s) {
  constexpr const char* f = Call::function;
  check_no_overlap(f, "y", s.y, "state", s.state);
  const auto check_input = [&](const char* name, const auto& in) {
    check_no_overlap(f, "state", s.state, name, in);
    check_no_overlap(f, "y", s.y, name, in);
  };
  check_input("x", s.x);
  check_input("a", s.a);
  check_input("b", s.b);
  check_input("c", s.c);
}

PARE_ABI_END
}  // namespace pare::sequence::detail
