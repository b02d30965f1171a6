// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// From which size of a model on speculative decoding wins, by what it took at one size.
///
/// ```cpp
/// winning_size(2.1, 0.010, 0.004, 0.014, draft_power("linear"));  // 1: it wins already
/// ```
///
/// Of a round, a drafter takes t_d seconds and the model t_B for B nodes, where one token alone
/// takes t_1. With A tokens of a round, speculation wins if t_d + t_B < A t_1. winning_size
/// says from which multiple F of the model's parameters on that is so, if A, and t_B / t_1, stay as
/// measured: t_1 and t_B grow with F, and what a drafter costs
///
///     prompt: not at all;    early: with F;    linear: with sqrt(F)
///
/// since its head and maps are as wide as the model, and parameters of a block grow with the square
/// of the width.

#include <cmath>
#include <limits>
#include <string_view>

namespace language_model {

/// What a drafter's seconds are multiplied by if the model has F times the parameters: F^power.
inline double draft_power(std::string_view drafter) {
  return drafter == "prompt" ? 0 : drafter == "early" ? 1 : 0.5;
}

/// The least F, at least 1, with draft F^power + round F < tokens alone F; infinity: there is none.
/// \param alone, draft, round seconds of one token alone, a draft, and the model's part of a round
inline double winning_size(double tokens, double alone, double draft, double round, double power) {
  const double gain = tokens * alone - round;
  if (draft < gain) return 1;
  if (gain <= 0 || power >= 1) return std::numeric_limits<double>::infinity();
  return std::pow(draft / gain, 1 / (1 - power));
}

}  // namespace language_model
