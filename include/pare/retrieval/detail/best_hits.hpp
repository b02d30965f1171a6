// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// The best of hits that are offered one after the other.

#include <pare/retrieval/hit.hpp>

#include <algorithm>
#include <cstddef>
#include <utility>
#include <vector>

namespace pare::retrieval::detail {
PARE_ABI_BEGIN

/// The `count` hits that rank first of all that were offered: a heap with the last of them in
/// front. Cost: one comparison for a hit that is not kept, log count for one that is.
class BestHits {
 public:
  explicit BestHits(Index count) : count_(static_cast<std::size_t>(count)) {}

  bool full() const { return hits_.size() >= count_; }
  /// The last of those kept; there must be one.
  const Hit& last() const { return hits_.front(); }
  Index size() const { return static_cast<Index>(hits_.size()); }

  /// Whether the hit is kept.
  bool offer(const Hit& hit) {
    if (full()) {
      if (!ranks_before(hit, last())) return false;
      std::pop_heap(hits_.begin(), hits_.end(), ranks_before);
      hits_.back() = hit;
    } else {
      hits_.push_back(hit);
    }
    std::push_heap(hits_.begin(), hits_.end(), ranks_before);
    return true;
  }

  /// The hits, the best first; none is left here.
  std::vector<Hit> take() {
    std::sort_heap(hits_.begin(), hits_.end(), ranks_before);
    return std::move(hits_);
  }

 private:
  std::size_t count_;
  std::vector<Hit> hits_;
};

PARE_ABI_END
}  // namespace pare::retrieval::detail
