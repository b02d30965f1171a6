// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// The highest of scores, a share of them.

#include <pare/core/check.hpp>
#include <pare/core/scalar.hpp>
#include <pare/linalg/top_k.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <vector>

namespace pare::attention::detail {
PARE_ABI_BEGIN

/// How many of `count` a share is: rounded, at least one.
inline Index count_of_share(const char* function, double share, Index count) {
  check(share > 0 && share <= 1, function, "share", share, "a share above 0, at most 1");
  return std::clamp<Index>(static_cast<Index>(std::llround(share * static_cast<double>(count))), 1,
                           count);
}

/// The numbers of the highest scores, the highest first; of equal ones the earlier first.
inline std::vector<Index> top_share(const char* function, std::span<const double> scores,
                                    double share) {
  constexpr auto most = static_cast<std::size_t>(std::numeric_limits<std::int32_t>::max());
  check(!scores.empty() && scores.size() <= most, function, "scores", scores.size(),
        "1 to 2^31 - 1 of them");
  for (const double score : scores)
    check(!is_nan(score), function, "scores", "a NaN", "numbers, which can be ranked");
  const Index count = count_of_share(function, share, static_cast<Index>(scores.size()));
  std::vector<std::uint32_t> rank(scores.size());
  linalg::rank_scores(scores, std::span(rank));
  return {rank.begin(), rank.begin() + count};
}

PARE_ABI_END
}  // namespace pare::attention::detail
