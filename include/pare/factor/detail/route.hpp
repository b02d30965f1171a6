// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Which route a truncated decomposition takes: by FLOPs, memory and accuracy.

#include <pare/factor/options.hpp>

#include <algorithm>

namespace pare::factor::detail {
PARE_ABI_BEGIN

/// What the routes iterate on.
struct SubspacePlan {
  Route route = Route::Exact;
  Index width = 0;  ///< columns of the sample
  int steps = 0;
};

/// Up to this many rows of G all of its eigenvectors are computed.
inline constexpr Index exact_dimension = 128;

/// The plan for rank k of M [dimension x other], dimension the smaller side as a rule.
///
/// The sample is k/2 + 32 columns wider than the rank, and takes 2 steps (5 for high accuracy):
/// for singular values i^-0.6, the slow decay of trained weights, the excess is then 0.002
/// (5e-5); it is less where they fall faster. Gram: dimension^2 other FLOPs for G, and
/// 2 dimension^2 width a step; Randomized: 4 dimension other width a step. G is stored only if it
/// is no larger than four times the sample and its image.
inline SubspacePlan plan_subspace(const SvdOptions& options, Index rank, Index dimension,
                                  Index other) {
  const Index extra = options.oversample >= 0 ? options.oversample : rank / 2 + 32;
  const Index width = std::min(rank + extra, dimension);
  const int steps =
      options.steps >= 0 ? options.steps : (options.accuracy == Accuracy::High ? 5 : 2);
  if (options.route == Route::Exact ||
      (options.route == Route::Auto && (dimension <= exact_dimension || width == dimension)))
    return {Route::Exact, dimension, 0};
  if (options.route != Route::Auto) return {options.route, width, steps};
  const auto d = static_cast<double>(dimension), n = static_cast<double>(other),
             l = static_cast<double>(width);
  const double gram = d * d * n + 2 * d * d * l * (steps + 1) + 2 * d * n * l;
  const double randomized = 4 * d * n * l * steps + 4 * d * n * l;
  const bool fits = d * d <= 4 * (d + n) * l;
  return {fits && gram < randomized ? Route::Gram : Route::Randomized, width, steps};
}

PARE_ABI_END
}  // namespace pare::factor::detail
