// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Ranking under a total order: falling score, of equal ones the earlier first, NaN last.

#include <pare/core/check.hpp>
#include <pare/core/scalar.hpp>

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <numeric>
#include <span>
#include <type_traits>

namespace pare::attention::detail {
PARE_ABI_BEGIN

/// Judged on the bits, so that no compiler flag can assume it away.
template <ComputeScalar T>
bool is_nan(T x) {
  if constexpr (std::is_same_v<T, double>)
    return (std::bit_cast<std::uint64_t>(x) & 0x7fffffffffffffffu) > 0x7ff0000000000000u;
  else
    return (std::bit_cast<std::uint32_t>(x) & 0x7fffffffu) > 0x7f800000u;
}

/// rank[t] = index of the t-th largest score; both of one size. Cost: n log n comparisons.
template <ComputeScalar T>
void rank_scores(std::span<const T> scores, std::span<std::uint32_t> rank) {
  std::iota(rank.begin(), rank.end(), std::uint32_t{0});
  std::sort(rank.begin(), rank.end(), [scores](std::uint32_t a, std::uint32_t b) {
    const bool a_last = is_nan(scores[a]), b_last = is_nan(scores[b]);
    if (a_last || b_last) return a_last == b_last ? a < b : b_last;
    return scores[a] > scores[b] || (scores[a] == scores[b] && a < b);
  });
}

PARE_ABI_END
}  // namespace pare::attention::detail
