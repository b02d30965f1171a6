// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Sessions of films in the order of time, cut in two: films that only the second part has are
/// cold.

#include "common/movie_lens.hpp"

#include <pare/core/check.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <tuple>
#include <vector>

namespace metadata_items {

using pare::Index;

/// A film to be found, and what its user saw before.
struct Step {
  std::size_t user = 0;
  std::size_t place = 0;  ///< of the film among the user's
};

struct Sessions {
  std::vector<std::vector<Index>> films;  ///< of each user, the first seen first
  std::vector<Step> train, test;          ///< each has at least one film before it
  std::vector<Index> seen;                ///< [films] ratings before the cut
  Index cold_films = 0;                   ///< to be found by tests and never seen before the cut

  Index target(const Step& step) const { return films[step.user][step.place]; }
  bool cold(const Step& step) const { return seen[static_cast<std::size_t>(target(step))] == 0; }
  /// The last films before the target, at most `longest`.
  std::span<const Index> history(const Step& step, Index longest) const {
    const std::size_t count = std::min(step.place, static_cast<std::size_t>(longest));
    return std::span<const Index>(films[step.user]).subspan(step.place - count, count);
  }
};

/// The first ratings in time train, the others test. Ratings of one second count in the order of
/// films.
inline Sessions make_sessions(const movie_lens::Data& data, double train) {
  std::vector<movie_lens::Rating> ratings = data.ratings;
  std::sort(ratings.begin(), ratings.end(), [](const auto& a, const auto& b) {
    return std::tie(a.time, a.user, a.item) < std::tie(b.time, b.user, b.item);
  });
  Sessions s;
  s.films.resize(data.user_ids.size());
  s.seen.assign(data.movies.size(), 0);
  const auto cut = static_cast<std::size_t>(train * static_cast<double>(ratings.size()));
  std::vector<char> found(data.movies.size(), 0);
  for (std::size_t r = 0; r < ratings.size(); ++r) {
    std::vector<Index>& films = s.films[ratings[r].user];
    films.push_back(static_cast<Index>(ratings[r].item));
    if (r < cut) ++s.seen[ratings[r].item];
    if (films.size() < 2) continue;
    const Step step{ratings[r].user, films.size() - 1};
    (r < cut ? s.train : s.test).push_back(step);
    if (r >= cut && s.cold(step)) found[ratings[r].item] = 1;
  }
  s.cold_films = std::count(found.begin(), found.end(), 1);
  return s;
}

}  // namespace metadata_items
