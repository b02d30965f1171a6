// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// The check that ids stand once.

#include <pare/core/check.hpp>

#include <algorithm>
#include <span>
#include <vector>

namespace pare::retrieval::detail {
PARE_ABI_BEGIN

/// Throws if an id is below 0 or there twice. Cost: sorting a copy.
inline void check_distinct(const char* function, const char* argument, std::span<const Index> ids) {
  std::vector<Index> sorted(ids.begin(), ids.end());
  std::sort(sorted.begin(), sorted.end());
  if (sorted.empty()) return;
  check(sorted.front() >= 0, function, argument, sorted.front(), "ids of at least 0");
  const auto twice = std::adjacent_find(sorted.begin(), sorted.end());
  if (twice != sorted.end())
    pare::detail::refuse(function, argument, Worded{"id ", *twice, " twice"}, "each id once");
}

PARE_ABI_END
}  // namespace pare::retrieval::detail
