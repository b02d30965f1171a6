// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// What numbers say of a claim: paired differences with their spread, never a word written down
/// beforehand.
///
/// ```cpp
/// const models::Mean gain = paired(adaptive, fixed);  // NDCG of each query, by two methods
/// word_of(is_better(gain));                           // "confirmed", "refuted" or "undecided"
/// ```
///
/// Differences are judged by twice their standard error, some 95 % of a normal distribution,
/// queries taken as independent.

#include "common/mean.hpp"

#include <cstddef>
#include <string>
#include <vector>

namespace search {

enum class Outcome { Confirmed, Refuted, Undecided, NoCase };

inline const char* word_of(Outcome outcome) {
  switch (outcome) {
    case Outcome::Confirmed:
      return "confirmed";
    case Outcome::Refuted:
      return "refuted";
    case Outcome::NoCase:
      return "no case";
    default:
      return "undecided";
  }
}

struct Claim {
  std::string text, numbers;
  Outcome outcome;
};

/// "Without loss": one of a hundredth would have been seen.
inline constexpr double loss_margin = 0.01;

/// The mean of what each query gains by `ours` over `theirs`, and its standard error.
inline models::Mean paired(const std::vector<double>& ours, const std::vector<double>& theirs) {
  std::vector<double> differences(ours.size());
  for (std::size_t i = 0; i < ours.size(); ++i) differences[i] = ours[i] - theirs[i];
  return models::mean_of(differences);
}

/// "It is better": refuted only where it is worse; a difference that is not seen decides nothing.
inline Outcome is_better(const models::Mean& gain) {
  if (gain.value > 2 * gain.error) return Outcome::Confirmed;
  return gain.value < -2 * gain.error ? Outcome::Refuted : Outcome::Undecided;
}

/// "It loses nothing": refuted where a loss is seen, confirmed where one of `margin` would have
/// been.
inline Outcome loses_nothing(const models::Mean& gain, double margin) {
  if (gain.value < -2 * gain.error) return Outcome::Refuted;
  return gain.value - 2 * gain.error >= -margin ? Outcome::Confirmed : Outcome::Undecided;
}

/// "It reaches": of a mean.
inline Outcome reaches(const models::Mean& mean, double bar) {
  if (mean.value - 2 * mean.error >= bar) return Outcome::Confirmed;
  return mean.value + 2 * mean.error < bar ? Outcome::Refuted : Outcome::Undecided;
}

/// Both of two: refuted if one is.
inline Outcome both(Outcome a, Outcome b) {
  if (a == Outcome::Refuted || b == Outcome::Refuted) return Outcome::Refuted;
  return a == b ? a : Outcome::Undecided;
}

/// One of several ways is enough: refuted if all are.
inline Outcome any_of(const std::vector<Outcome>& ways) {
  bool all_refuted = true;
  for (const Outcome way : ways) {
    if (way == Outcome::Confirmed) return way;
    all_refuted = all_refuted && way == Outcome::Refuted;
  }
  return all_refuted ? Outcome::Refuted : Outcome::Undecided;
}

/// What is left of an outcome that presupposes another: nothing unless that is confirmed.
inline Outcome given(Outcome premise, Outcome outcome) {
  return premise == Outcome::Confirmed ? outcome : Outcome::NoCase;
}

}  // namespace search
