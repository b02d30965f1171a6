// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Items in the order of their tokens, and what lists of tokens must be.

#include <pare/core/check.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <numeric>
#include <span>
#include <vector>

namespace pare::retrieval::detail {
PARE_ABI_BEGIN

/// Throws unless tokens are rows of as many as levels, fewer than 2^31 and of tokens of at least 0.
inline void check_tokens(const char* function, std::span<const std::int32_t> tokens, int levels) {
  check(levels >= 1, function, "levels", levels, "at least 1");
  const auto size = static_cast<Index>(tokens.size());
  check(size % levels == 0, function, "tokens", size, Worded{"rows of ", levels, " tokens"});
  check(size / levels < std::numeric_limits<std::int32_t>::max(), function, "tokens", size / levels,
        "fewer than 2^31 - 1 items");
  for (const std::int32_t token : tokens)
    check(token >= 0, function, "tokens", token, "tokens of at least 0");
}

/// Items by their tokens, first level first; those of equal tokens ascend.
inline std::vector<Index> order_of_tokens(std::span<const std::int32_t> tokens, int levels) {
  std::vector<Index> order(tokens.size() / static_cast<std::size_t>(levels));
  std::iota(order.begin(), order.end(), Index{0});
  std::sort(order.begin(), order.end(), [&](Index a, Index b) {
    const std::int32_t* const x = tokens.data() + a * levels;
    const std::int32_t* const y = tokens.data() + b * levels;
    for (int level = 0; level < levels; ++level)
      if (x[level] != y[level]) return x[level] < y[level];
    return a < b;
  });
  return order;
}

PARE_ABI_END
}  // namespace pare::retrieval::detail
