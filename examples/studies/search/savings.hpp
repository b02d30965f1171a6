// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Whether some way is as much faster as it is said to be, without loss.

#include "common/mean.hpp"
#include "search/claims.hpp"
#include "search/report.hpp"

#include <cstddef>
#include <cstdio>
#include <string>
#include <vector>

namespace search {

inline constexpr double claimed_speed = 1.8;

/// Time and NDCG of a shortcut beside those of all candidates.
struct Saving {
  const char* name;
  double second = 0, whole = 0;  ///< times as fast: the second stage, both together
  models::Mean gain;
};

/// "1.8 x faster without loss" by one of several ways, of which the best is shown.
/// \param speed which of the two times
inline Claim claim_of(const std::string& text, const std::vector<Saving>& ways,
                      double Saving::* speed) {
  std::vector<Outcome> outcomes;
  outcomes.reserve(ways.size());
  for (const Saving& way : ways)
    outcomes.push_back(both(way.*speed >= claimed_speed ? Outcome::Confirmed : Outcome::Refuted,
                            loses_nothing(way.gain, loss_margin)));
  const Outcome outcome = any_of(outcomes);
  // Of the ways with this outcome the fastest; where all fail, the one that loses least.
  std::size_t best = ways.size();
  for (std::size_t i = 0; i < ways.size(); ++i) {
    if (outcomes[i] != outcome) continue;
    const auto worth = [&](std::size_t at) {
      return outcome == Outcome::Refuted ? ways[at].gain.value : ways[at].*speed;
    };
    if (best == ways.size() || worth(i) > worth(best)) best = i;
  }
  char numbers[160];
  std::snprintf(numbers, sizeof numbers, "%s %.2f x, nDCG %s", ways[best].name, ways[best].*speed,
                shown(ways[best].gain).c_str());
  return {text, numbers, outcome};
}

}  // namespace search
