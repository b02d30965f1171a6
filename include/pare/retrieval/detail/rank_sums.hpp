// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Parts of rank fusion: sums by document, and what lists, weights and ages must be.

#include <pare/core/check.hpp>
#include <pare/retrieval/detail/best_hits.hpp>
#include <pare/retrieval/detail/distinct.hpp>
#include <pare/retrieval/hit.hpp>

#include <algorithm>
#include <cstddef>
#include <span>
#include <utility>
#include <vector>

namespace pare::retrieval::detail {
PARE_ABI_BEGIN

/// Sums of weight / (base + rank) for each document, in the order in which they are added.
class RankSums {
 public:
  explicit RankSums(double base) : base_(base) {}

  void add(Index id, std::size_t rank, double weight) {
    hits_.push_back({id, weight / (base_ + static_cast<double>(rank))});
  }

  /// Each document once.
  std::vector<Hit> take() {
    std::stable_sort(hits_.begin(), hits_.end(),
                     [](const Hit& a, const Hit& b) { return a.id < b.id; });
    std::size_t last = 0;
    for (std::size_t i = 1; i < hits_.size(); ++i)
      if (hits_[i].id == hits_[last].id)
        hits_[last].score += hits_[i].score;
      else
        hits_[++last] = hits_[i];
    if (!hits_.empty()) hits_.resize(last + 1);
    return std::move(hits_);
  }

 private:
  double base_;
  std::vector<Hit> hits_;
};

inline std::vector<Hit> first_hits(std::vector<Hit> hits, Index count) {
  std::sort(hits.begin(), hits.end(), ranks_before);
  if (static_cast<Index>(hits.size()) > count) hits.resize(static_cast<std::size_t>(count));
  return hits;
}

inline void check_weight(const char* function, const char* argument, double weight) {
  check(weight >= 0 && is_finite(weight), function, argument, weight,
        "a finite number of at least 0");
}

inline void check_rank_constant(const char* function, double k, Index first_rank) {
  check(k >= 0 && is_finite(k), function, "k", k, "a finite number of at least 0");
  check(first_rank == 0 || first_rank == 1, function, "first_rank", first_rank, "0 or 1");
  check(k + static_cast<double>(first_rank) > 0, function, "k", k,
        "above 0 where ranks count from 0");
}

/// The ids of hits whose squared distances are in order.
inline std::vector<Index> checked_nearest(const char* function, std::span<const Hit> nearest) {
  std::vector<Index> ids;
  double last = 0;
  for (const Hit& hit : nearest) {
    check(hit.score >= last && is_finite(hit.score), function, "nearest", hit.score,
          "squared distances that are finite, at least 0, and do not fall");
    last = hit.score;
    ids.push_back(hit.id);
  }
  check_distinct(function, "nearest", ids);
  return ids;
}

inline void check_ages(const char* function, std::span<const double> ages,
                       std::span<const Index> vector, std::span<const Index> keyword) {
  if (ages.empty()) return;
  for (const double age : ages)
    check(age >= 0 && is_finite(age), function, "age_days", age, "finite numbers of at least 0");
  for (const std::span<const Index> ids : {vector, keyword})
    for (const Index id : ids)
      check(id < static_cast<Index>(ages.size()), function, "age_days", ages.size(),
            Worded{"an age of document ", id});
}

PARE_ABI_END
}  // namespace pare::retrieval::detail
