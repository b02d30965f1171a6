// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Which of some sessions a model should prefer to which (OneRec's iterative preference alignment):
/// the one of the largest reward, and the one of the least.
///
/// ```cpp
/// const Sessions tried = beam_search(trie, next, {.width = 128, .items = 5});
/// if (const auto pair = choose_preference(rewards)) {  // [sessions], of a reward model
///   winner.push_back(tried.scores[pair->winner]);      // ln p; objectives/pairwise.hpp: dpo
///   loser.push_back(tried.scores[pair->loser]);
/// }
/// ```
///
/// Source: OneRec, arXiv 2502.18965, by a summary: of 128 sessions, for 1 % of the samples. Ours:
/// of equal rewards the first, and no pair where all are equal: it would have nothing to teach.

#include <pare/core/macros_off.hpp>

#include <pare/core/check.hpp>

#include <cstddef>
#include <optional>
#include <span>

namespace pare::retrieval {

/// Two sessions by their numbers.
struct Preference {
  std::size_t winner = 0;
  std::size_t loser = 0;
};

PARE_ABI_BEGIN

/// The best and the worst of rewards, of equal ones the first; nothing if all are equal.
///
/// \param rewards finite, at least one
/// \throws std::invalid_argument if there is none, or one is not finite
inline std::optional<Preference> choose_preference(std::span<const double> rewards) {
  constexpr const char* function = "retrieval::choose_preference";
  check(!rewards.empty(), function, "rewards", "none", "at least one");
  for (const double reward : rewards)
    check(is_finite(reward), function, "rewards", reward, "finite numbers");
  Preference pair;
  for (std::size_t i = 1; i < rewards.size(); ++i) {
    if (rewards[i] > rewards[pair.winner]) pair.winner = i;
    if (rewards[i] < rewards[pair.loser]) pair.loser = i;
  }
  if (rewards[pair.winner] == rewards[pair.loser]) return std::nullopt;
  return pair;
}

PARE_ABI_END
}  // namespace pare::retrieval

#include <pare/core/macros_on.hpp>
