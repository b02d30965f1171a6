// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// What a cheaper draft head is worth: tokens per second against the same drafter with its full
/// head.
///
///     relative speed = rho (1 + kappa) / (1 + nu kappa)
///
/// ```cpp
/// relative_speed({.acceptance = 0.99, .head_time = 0.21, .head_share = 0.25});  // 1.18
/// break_even_acceptance(0.21, 0.25);                                            // 0.842
/// ```
///
/// rho = accepted tokens of a round over those with the full head, nu = the head's time over the
/// full head's, kappa = the full head's time over all else of a round. All three are measured.
///
/// Source: SlimSpec, arXiv 2605.10453, eq. 4. It is a model of two digits: with kappa = 0.25 it
/// gives 1.09, 1.13, 1.18 and 1.18 where the paper's table has 1.09, 1.16, 1.19 and 1.18.

#include <pare/core/macros_off.hpp>

#include <pare/core/check.hpp>

namespace pare::draft {

/// What relative_speed is of.
struct AcceptanceCost {
  double acceptance = 1;  ///< rho, at least 0
  double head_time = 1;   ///< nu, at least 0
  double head_share = 0;  ///< kappa, at least 0
};

PARE_ABI_BEGIN

/// Tokens per second over those with the full head.
/// \throws std::invalid_argument if a number is not finite or below 0
inline double relative_speed(const AcceptanceCost& cost) {
  constexpr const char* function = "draft::relative_speed";
  check(is_finite(cost.acceptance) && cost.acceptance >= 0, function, "acceptance", cost.acceptance,
        "a finite number of at least 0");
  check(is_finite(cost.head_time) && cost.head_time >= 0, function, "head_time", cost.head_time,
        "a finite number of at least 0");
  check(is_finite(cost.head_share) && cost.head_share >= 0, function, "head_share", cost.head_share,
        "a finite number of at least 0");
  return cost.acceptance * (1 + cost.head_share) / (1 + cost.head_time * cost.head_share);
}

/// The rho above which the cheaper head pays: (1 + nu kappa) / (1 + kappa).
/// \throws std::invalid_argument as relative_speed
inline double break_even_acceptance(double head_time, double head_share) {
  return 1 / relative_speed({.acceptance = 1, .head_time = head_time, .head_share = head_share});
}

PARE_ABI_END
}  // namespace pare::draft

#include <pare/core/macros_on.hpp>
