// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Different rows, drawn at random: what k-means begins with.

#include <pare/core/check.hpp>
#include <pare/core/random_words.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <numeric>
#include <utility>
#include <vector>

namespace pare::retrieval::detail {
PARE_ABI_BEGIN

inline constexpr Index most_drawn_places = (Index{1} << 31) - 1;

/// `count` different numbers below `size`, as a function of the seed: the first of a permutation by
/// Philox. count is at most size.
inline std::vector<Index> drawn_places(Index size, Index count, std::uint64_t seed) {
  std::vector<Index> order(static_cast<std::size_t>(size));
  std::iota(order.begin(), order.end(), Index{0});
  WordStream words(step_key(seed, 0, 0, RandomPurpose::Permutation));
  for (Index k = 0; k < count; ++k) {
    const auto left = static_cast<std::uint32_t>(std::min<Index>(size - k, most_drawn_places));
    const auto at = static_cast<std::size_t>(k);
    std::swap(order[at], order[at + words.below(left)]);
  }
  order.resize(static_cast<std::size_t>(count));
  return order;
}

PARE_ABI_END
}  // namespace pare::retrieval::detail
