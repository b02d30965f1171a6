// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// One head of a model, and the heads of the highest scores.
///
/// ```cpp
/// const std::vector<HeadId> best = top_heads(scores, 9, 0.05);  // scores [layers x 9]: of each 20
/// ```

#include <pare/core/macros_off.hpp>

#include <pare/attention/heads/detail/top_share.hpp>
#include <pare/core/check.hpp>

#include <compare>
#include <span>
#include <vector>

namespace pare::attention {
PARE_ABI_BEGIN

/// Head `head` of layer `layer`, both from 0. Ordered by layer, then by head.
struct HeadId {
  Index layer = 0;
  Index head = 0;

  friend bool operator==(const HeadId&, const HeadId&) = default;
  friend std::strong_ordering operator<=>(const HeadId& a, const HeadId& b) {
    return a.layer != b.layer ? a.layer <=> b.layer : a.head <=> b.head;
  }
};

/// The heads of the highest scores, the highest first; of equal ones that of the lower layer, then
/// the lower head.
///
/// \param scores [layers x heads], layer by layer
/// \param heads  of a layer
/// \param share  of all heads, in (0, 1]: their number is rounded, and at least one
/// \throws std::invalid_argument if there are no scores, they are no whole layers, one is NaN, or
///         the share is out of its range
///
/// Cost: n log n comparisons.
inline std::vector<HeadId> top_heads(std::span<const double> scores, Index heads, double share) {
  constexpr const char* function = "attention::top_heads";
  check(heads >= 1, function, "heads", heads, "at least 1");
  check(static_cast<Index>(scores.size()) % heads == 0, function, "scores", scores.size(),
        Worded{"a multiple of the ", heads, " heads of a layer"});
  std::vector<HeadId> best;
  for (const Index at : detail::top_share(function, scores, share))
    best.push_back({at / heads, at % heads});
  return best;
}

PARE_ABI_END
}  // namespace pare::attention

#include <pare/core/macros_on.hpp>
