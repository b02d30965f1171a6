// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// How many of the films to be found are among the 20 best of all that the user has not seen.

#include "metadata_items/sessions.hpp"

#include <pare/core/matrix.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <span>
#include <vector>

namespace metadata_items {

/// Recall@20, where each step has one film to be found.
struct Recall {
  double all = 0, warm = 0, cold = 0;
  double among_cold = 0;  ///< of cold films, ranked among cold films alone
};

/// The place of a film among all that the user has not seen before it, of equal scores the lower
/// film first; `only` leaves out films by their number.
template <class Only>
Index place_of(const Sessions& s, const Step& step, std::span<const float> scores,
               const Only& only) {
  const Index target = s.target(step);
  const float wanted = scores[static_cast<std::size_t>(target)];
  const auto before = [&](Index film) {
    const float score = scores[static_cast<std::size_t>(film)];
    return only(film) && film != target && (score > wanted || (score == wanted && film < target));
  };
  Index place = 0;
  for (Index film = 0; film < static_cast<Index>(scores.size()); ++film) place += before(film);
  for (std::size_t p = 0; p < step.place; ++p) place -= before(s.films[step.user][p]);
  return place;
}

/// Recall over the test steps; `score(steps, scores)` writes [steps, films].
template <class Score>
Recall recall_of(const Sessions& s, const Score& score) {
  constexpr std::size_t together = 512;
  Recall found;
  double warm = 0, cold = 0;
  pare::RowMatrix<float> scores;
  for (std::size_t begin = 0; begin < s.test.size(); begin += together) {
    const auto steps =
        std::span<const Step>(s.test).subspan(begin, std::min(together, s.test.size() - begin));
    score(steps, scores);
    for (std::size_t i = 0; i < steps.size(); ++i) {
      const std::span<const float> row(&scores(static_cast<Index>(i), 0),
                                       static_cast<std::size_t>(scores.cols()));
      const bool hit = place_of(s, steps[i], row, [](Index) { return true; }) < 20;
      const bool is_cold = s.cold(steps[i]);
      (is_cold ? cold : warm) += 1;
      (is_cold ? found.cold : found.warm) += hit;
      if (!is_cold) continue;
      found.among_cold += place_of(s, steps[i], row, [&](Index film) {
                            return s.seen[static_cast<std::size_t>(film)] == 0;
                          }) < 20;
    }
  }
  found.all = (found.warm + found.cold) / (warm + cold);
  found.warm /= warm;
  found.cold /= std::max(cold, 1.);
  found.among_cold /= std::max(cold, 1.);
  return found;
}

/// Mean and standard deviation over seeds.
struct Spread {
  double mean = 0, deviation = 0;
};
inline Spread spread_of(std::span<const Recall> runs, double Recall::* member) {
  Spread s;
  const auto n = static_cast<double>(runs.size());
  for (const Recall& run : runs) s.mean += run.*member / n;
  for (const Recall& run : runs)
    s.deviation += (run.*member - s.mean) * (run.*member - s.mean) / std::max(n - 1, 1.);
  s.deviation = std::sqrt(s.deviation);
  return s;
}

}  // namespace metadata_items
