// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Which route a truncated decomposition takes: by FLOPs, memory and accuracy.

#include <pare/factor/detail/subspace.hpp>
#include <pare/factor/options.hpp>

#include <algorithm>

namespace pare::factor::detail {
PARE_ABI_BEGIN

/// What the routes iterate on.
struct SubspacePlan {
  Route route = Route::Exact;
  Index width = 0;  ///< columns of the sample
  int steps = 0;
  int most_steps = 0;
  double excess = 0;

  Convergence until() const { return {steps, most_steps, excess}; }
};

/// Up to this many rows of G all of its eigenvectors are computed.
inline constexpr Index exact_dimension = 128;

/// What Accuracy promises.
inline constexpr double standard_excess = 0.003, high_excess = 1e-4;

/// What a route iterates on where the options leave it open.
///
/// A sample of G is worth half a step more than one of M, so Gram does with a narrower sample: for
/// singular values i^-0.6 the excess over the best possible error is 0.0023 (6e-5 for high
/// accuracy) for both; it is less where they fall faster, and steps are added where they fall more
/// slowly. Our choice, by measurement: widths and steps that cost least at that excess. 100 steps
/// are more than i^-0.05 needs.
inline SubspacePlan plan_route(const SvdOptions& options, Route route, Index rank,
                               Index dimension) {
  const bool high = options.accuracy == Accuracy::High;
  const bool narrow = route == Route::Gram && !high;
  const Index extra = options.oversample.value_or(narrow ? rank * 5 / 16 + 16 : rank / 2 + 32);
  const int steps = options.steps.value_or(!high ? 2 : (route == Route::Gram ? 4 : 5));
  return {route, rank + std::min(extra, dimension - rank), steps, options.steps ? steps : 100,
          high ? high_excess : standard_excess};
}

/// FLOPs in float, those in double counted twice, of iterating on M [dimension x other] itself.
inline double randomized_cost(const SubspacePlan& plan, double dimension, double other) {
  const auto l = static_cast<double>(plan.width), steps = static_cast<double>(plan.steps);
  return 4 * dimension * other * l * (steps + 1) + 3 * (dimension + other) * l * l * (steps + 1);
}

/// The same of forming G and iterating on it.
inline double gram_cost(const SubspacePlan& plan, double dimension, double other) {
  const auto l = static_cast<double>(plan.width), steps = static_cast<double>(plan.steps);
  return dimension * dimension * other + 2 * dimension * dimension * l * (steps + 1) +
         2 * dimension * other * l + 3 * dimension * l * l * (steps + 2);
}

/// The plan for rank k of M [dimension x other], dimension the smaller side as a rule: the cheaper
/// route, but G is stored only if it is no larger than four times the sample and its image.
inline SubspacePlan plan_subspace(const SvdOptions& options, Index rank, Index dimension,
                                  Index other) {
  const SubspacePlan exact{Route::Exact, dimension};
  if (options.route == Route::Exact) return exact;
  if (options.route != Route::Auto) return plan_route(options, options.route, rank, dimension);
  const SubspacePlan gram = plan_route(options, Route::Gram, rank, dimension),
                     randomized = plan_route(options, Route::Randomized, rank, dimension);
  if (dimension <= exact_dimension || gram.width == dimension) return exact;
  const auto d = static_cast<double>(dimension), n = static_cast<double>(other);
  const bool fits = d * d <= 4 * (d + n) * static_cast<double>(gram.width);
  return fits && gram_cost(gram, d, n) < randomized_cost(randomized, d, n) ? gram : randomized;
}

PARE_ABI_END
}  // namespace pare::factor::detail
