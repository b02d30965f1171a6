// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// A rerank in progress: candidates that are kept, the best so far, bounds on the rest.

#include <pare/core/check.hpp>
#include <pare/core/scalar.hpp>
#include <pare/retrieval/detail/best_hits.hpp>
#include <pare/retrieval/detail/distinct.hpp>
#include <pare/retrieval/hit.hpp>

#include <algorithm>
#include <cmath>
#include <concepts>
#include <cstddef>
#include <optional>
#include <span>
#include <vector>

namespace pare::retrieval::detail {
PARE_ABI_BEGIN

inline void check_candidates(const char* function, std::span<const Hit> candidates) {
  std::vector<Index> ids;
  for (std::size_t i = 0; i < candidates.size(); ++i) {
    const double s = candidates[i].score;
    check(!is_nan(s), function, "candidates", s, "scores that are not NaN");
    check(i == 0 || candidates[i - 1].score >= s, function, "candidates", s,
          "falling first-stage scores");
    ids.push_back(candidates[i].id);
  }
  check_distinct(function, "candidates", ids);
}

/// How many of the candidates CP keeps.
inline Index kept_candidates(std::span<const Hit> candidates, Index count,
                             std::optional<double> prune) {
  const auto n = static_cast<Index>(candidates.size());
  if (!prune || n <= count) return n;
  const double kth = candidates[static_cast<std::size_t>(count - 1)].score;
  // Of an infinite score, no share of it is below: infinity - 0 x infinity would be NaN.
  const double least = is_finite(kth) ? kth - *prune * std::abs(kth) : kth;
  Index kept = count;
  while (kept < n && candidates[static_cast<std::size_t>(kept)].score >= least) ++kept;
  return kept;
}

/// One rerank: the best hits so far, and a bound on what was left out.
template <class F>
class CandidateRun {
  static constexpr bool has_bound = requires(F& score, const Hit& hit) {
    { score.bound(hit) } -> std::convertible_to<double>;
  };

 public:
  CandidateRun(std::span<const Hit> candidates, F& score, Index count)
      : candidates_(candidates),
        score_(score),
        best_(std::min(count, std::max<Index>(static_cast<Index>(candidates.size()), 1))),
        count_(std::min(count, static_cast<Index>(candidates.size()))) {}

  /// Scores those of which it is known that all are: the first `count`, or all that are kept.
  void first(Index kept, bool may_end) {
    next_ = may_end || has_bound ? count_ : kept;
    if constexpr (requires(std::span<const Index> ids, std::span<double> scores) {
                    score_.score_all(ids, scores);
                  }) {
      std::vector<Index> ids(static_cast<std::size_t>(next_));
      std::vector<double> scores(ids.size());
      for (std::size_t i = 0; i < ids.size(); ++i) ids[i] = candidates_[i].id;
      score_.score_all(std::span<const Index>(ids), std::span<double>(scores));
      for (std::size_t i = 0; i < ids.size(); ++i) best_.offer({ids[i], scores[i]});
      scored_ = next_;
    } else {
      for (Index i = 0; i < next_; ++i) offer(at(i));
    }
  }

  void rest(Index kept, std::optional<Index> patience) {
    Index stall = 0;
    for (; next_ < kept; ++next_) {
      if (cannot_enter(at(next_))) continue;
      stall = offer(at(next_)) ? 0 : stall + 1;
      if (patience && stall >= *patience) {
        ++next_;
        break;
      }
    }
  }

  Index scored() const { return scored_; }

  /// Whether none of those that were not scored could be among the best. Those that were left out
  /// by their bounds could not when they were; the worst of the best only rises.
  bool proved() const {
    for (Index i = next_; i < static_cast<Index>(candidates_.size()); ++i)
      if (!cannot_enter(at(i))) return false;
    return true;
  }

  std::vector<Hit> take() { return best_.take(); }

 private:
  const Hit& at(Index i) const { return candidates_[static_cast<std::size_t>(i)]; }

  bool offer(const Hit& candidate) {
    ++scored_;
    const double exact = static_cast<double>(score_(candidate.id));
    return best_.offer({candidate.id, exact}) && !is_nan(exact);
  }

  bool cannot_enter(const Hit& candidate) const {
    if constexpr (has_bound) {
      const double bound = static_cast<double>(score_.bound(candidate));
      return best_.full() && !is_nan(bound) && !ranks_before({candidate.id, bound}, best_.last());
    } else {
      return false;
    }
  }

  std::span<const Hit> candidates_;
  F& score_;
  BestHits best_;
  Index count_;
  Index next_ = 0;
  Index scored_ = 0;
};

PARE_ABI_END
}  // namespace pare::retrieval::detail
