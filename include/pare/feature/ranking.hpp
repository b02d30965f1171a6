// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// From scores of fields to fields that are kept.
///
/// ```cpp
/// Ranking ranking = rank_fields(scores);          // [fields], higher is better
/// auto best = top_k(ranking, 10);                 // fields, best first
/// auto open = above(ranking, 0.5);
/// Index enough = fields_for_mass(ranking, 0.9).fields;
/// ```

#include <pare/core/macros_off.hpp>

#include <pare/core/check.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <numeric>
#include <span>
#include <string>
#include <vector>

namespace pare::feature {

PARE_ABI_BEGIN

/// What a score rests on.
enum class FieldStatus : unsigned char {
  Ok,            ///< enough batches said something about the field
  Undetermined,  ///< fewer than were asked for: the score may be near where it started
  Inactive,      ///< the field never moved (constant, always at its default, or left out as a copy
                 ///< of another): scored 0, last
};

/// Scores of fields and the order they give.
struct Ranking {
  std::vector<Index> order;    ///< [fields] from best to worst: by score, unless a function says
                               ///< otherwise (open_first_by)
  std::vector<double> scores;  ///< [fields] by field; higher is better
  std::vector<FieldStatus> status;  ///< [fields] by field

  Index fields() const { return static_cast<Index>(scores.size()); }
};

PARE_ABI_END

/// A share of the score that the best fields hold together.
struct CumulativeMass {
  Index fields = 0;  ///< how many of the best
  double share = 0;  ///< in [0, 1]
};

namespace detail {
PARE_ABI_BEGIN

inline void check_scores(const char* function, const char* argument,
                         std::span<const double> scores) {
  for (const double score : scores)
    check(is_finite(score), function, argument, score, "finite numbers");
}

inline void check_status(const char* function, const char* argument,
                         std::span<const FieldStatus> status) {
  for (const FieldStatus one : status)
    check_enumerator(function, argument, one, FieldStatus::Inactive);
}

/// What is made by hand may not fit together.
inline void check_ranking(const char* function, const Ranking& ranking) {
  const std::size_t fields = ranking.scores.size();
  check(ranking.order.size() == fields, function, "ranking.order", ranking.order.size(), fields);
  check(ranking.status.size() == fields, function, "ranking.status", ranking.status.size(), fields);
  check_scores(function, "ranking.scores", ranking.scores);
  std::vector<bool> seen(fields);
  for (const Index j : ranking.order) {
    check(j >= 0 && j < ranking.fields(), function, "ranking.order", j,
          "fields in [0, " + std::to_string(fields) + ")");
    check(!seen[static_cast<std::size_t>(j)], function, "ranking.order", j, "each field once");
    seen[static_cast<std::size_t>(j)] = true;
  }
  check_status(function, "ranking.status", ranking.status);
}

inline double positive_mass(const Ranking& ranking, std::size_t i) {
  return std::max(0.0, ranking.scores[static_cast<std::size_t>(ranking.order[i])]);
}

PARE_ABI_END
}  // namespace detail
PARE_ABI_BEGIN

/// Orders fields by score, ties by the larger tie breaker, then by the smaller index. Inactive
/// fields get the score 0 and come last, whatever they had.
///
/// \param scores       [fields] finite
/// \param tie_breakers [fields] finite (LeAP: theta), or empty
/// \param status       [fields], or empty: all Ok
/// \throws std::invalid_argument if sizes differ, a number is not finite, or a status is none
/// Cost: fields log fields.
inline Ranking rank_fields(std::span<const double> scores,
                           std::span<const double> tie_breakers = {},
                           std::span<const FieldStatus> status = {}) {
  constexpr const char* function = "feature::rank_fields";
  detail::check_scores(function, "scores", scores);
  detail::check_scores(function, "tie_breakers", tie_breakers);
  check(tie_breakers.empty() || tie_breakers.size() == scores.size(), function, "tie_breakers",
        tie_breakers.size(), scores.size());
  check(status.empty() || status.size() == scores.size(), function, "status", status.size(),
        scores.size());
  detail::check_status(function, "status", status);
  Ranking r;
  r.scores.assign(scores.begin(), scores.end());
  r.status.assign(status.begin(), status.end());
  r.status.resize(scores.size(), FieldStatus::Ok);
  r.order.resize(scores.size());
  std::iota(r.order.begin(), r.order.end(), Index{0});
  const auto inactive = [&](std::size_t j) { return r.status[j] == FieldStatus::Inactive; };
  for (std::size_t j = 0; j < scores.size(); ++j)
    if (inactive(j)) r.scores[j] = 0;
  std::stable_sort(r.order.begin(), r.order.end(), [&](Index a, Index b) {
    const auto i = static_cast<std::size_t>(a), j = static_cast<std::size_t>(b);
    if (inactive(i) != inactive(j)) return inactive(j);
    if (r.scores[i] != r.scores[j]) return r.scores[i] > r.scores[j];
    return !tie_breakers.empty() && tie_breakers[i] > tie_breakers[j];
  });
  return r;
}

/// The best k fields, best first.
/// \throws std::invalid_argument unless k is in [0, fields], or if the ranking is not sound: sizes
///         differ, a score is not finite, or the order is no permutation of the fields
inline std::vector<Index> top_k(const Ranking& ranking, Index k) {
  detail::check_ranking("feature::top_k", ranking);
  check(k >= 0 && k <= ranking.fields(), "feature::top_k", "k", k,
        "0 to " + std::to_string(ranking.fields()));
  return {ranking.order.begin(), ranking.order.begin() + k};
}

/// The best ceil(share * fields) fields, best first.
/// \throws std::invalid_argument unless share is in [0, 1], or if the ranking is not sound
inline std::vector<Index> top_share(const Ranking& ranking, double share) {
  check(share >= 0 && share <= 1, "feature::top_share", "share", share, "a share in [0, 1]");
  // A share such as 0.1 of 30 fields means 3, although 0.1 * 30 rounds to more than 3.
  const double count = share * static_cast<double>(ranking.fields());
  return top_k(ranking, static_cast<Index>(std::ceil(count * (1 - 1e-12))));
}

/// The fields that score above the threshold and are Ok, best first. Undetermined fields are left
/// out: their score may be high only because too little was seen of them to lower it. The caller
/// decides on those (`undetermined_fields`).
/// \throws std::invalid_argument if the threshold is not finite, or the ranking is not sound
inline std::vector<Index> above(const Ranking& ranking, double threshold = 0.5) {
  check(is_finite(threshold), "feature::above", "threshold", threshold, "a finite number");
  detail::check_ranking("feature::above", ranking);
  std::vector<Index> kept;
  for (const Index j : ranking.order) {
    const auto i = static_cast<std::size_t>(j);
    if (ranking.status[i] == FieldStatus::Ok && ranking.scores[i] > threshold) kept.push_back(j);
  }
  return kept;
}

/// The Undetermined fields, best first.
/// \throws std::invalid_argument if the ranking is not sound
inline std::vector<Index> undetermined_fields(const Ranking& ranking) {
  detail::check_ranking("feature::undetermined_fields", ranking);
  std::vector<Index> fields;
  for (const Index j : ranking.order)
    if (ranking.status[static_cast<std::size_t>(j)] == FieldStatus::Undetermined)
      fields.push_back(j);
  return fields;
}

/// The ranking with the fields above the threshold first, ordered by `worth` instead of their
/// score; the others, and ties, stay in their order, Inactive ones last. Scores and status stay.
///
/// Gates say which fields stay. Open gates are all near 1, and their order is chance. A measure of
/// what each field is worth to the trained model, such as path_importance, ranks those.
///
/// \param worth [fields] finite; higher is better
/// \throws std::invalid_argument if sizes differ, a number is not finite, or the ranking is not
///         sound
inline Ranking open_first_by(std::span<const double> worth, Ranking ranking,
                             double threshold = 0.5) {
  constexpr const char* function = "feature::open_first_by";
  detail::check_ranking(function, ranking);
  check(is_finite(threshold), function, "threshold", threshold, "a finite number");
  check(worth.size() == ranking.scores.size(), function, "worth", worth.size(),
        ranking.scores.size());
  detail::check_scores(function, "worth", worth);
  const auto open = [&](Index j) {
    const auto i = static_cast<std::size_t>(j);
    return ranking.status[i] != FieldStatus::Inactive && ranking.scores[i] > threshold;
  };
  const auto middle = std::stable_partition(ranking.order.begin(), ranking.order.end(), open);
  std::stable_sort(ranking.order.begin(), middle, [&](Index a, Index b) {
    return worth[static_cast<std::size_t>(a)] > worth[static_cast<std::size_t>(b)];
  });
  return ranking;
}

/// The share of the summed score that the best 1, 2, ... fields hold: it rises to 1. Negative
/// scores count as 0; without a positive score all shares are 0.
/// \throws std::invalid_argument if the ranking is not sound
inline std::vector<double> cumulative_mass(const Ranking& ranking) {
  detail::check_ranking("feature::cumulative_mass", ranking);
  std::vector<double> mass(ranking.order.size());
  double sum = 0;
  const auto add_up = [&](double factor) {
    sum = 0;
    for (std::size_t i = 0; i < mass.size(); ++i)
      mass[i] = sum += factor * detail::positive_mass(ranking, i);
  };
  add_up(1);
  if (!is_finite(sum)) add_up(0x1p-64);  // of fewer than 2^64 fields
  if (sum > 0)
    for (double& m : mass) m /= sum;
  return mass;
}

/// The fewest best fields that hold at least `share` of the summed score, and what they hold; none
/// where no score is positive.
/// \throws std::invalid_argument unless share is in [0, 1], or if the ranking is not sound
inline CumulativeMass fields_for_mass(const Ranking& ranking, double share) {
  check(share >= 0 && share <= 1, "feature::fields_for_mass", "share", share, "a share in [0, 1]");
  const std::vector<double> mass = cumulative_mass(ranking);
  if (share == 0 || mass.empty() || mass.back() == 0) return {};
  for (std::size_t i = 0; i < mass.size(); ++i)
    if (mass[i] >= share) return {static_cast<Index>(i) + 1, mass[i]};
  return {ranking.fields(), mass.back()};
}

PARE_ABI_END
}  // namespace pare::feature

#include <pare/core/macros_on.hpp>
