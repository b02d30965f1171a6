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
  bool whole = false;  ///< all of G is decomposed: nothing is iterated

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

/// The same of decomposing G in T, which half waits for memory: what takes as long as so many FLOPs
/// of products, by measurement from 256 to 1536 rows on one thread of a Zen 5.
inline double whole_cost(Index rank, double dimension, double other) {
  const auto k = static_cast<double>(rank);
  return dimension * dimension * other + 4.3 * dimension * dimension * dimension +
         2 * dimension * dimension * k;
}

/// What iterating on G takes as a rule: a step more than the least, and two small problems of
/// Rayleigh and Ritz in double.
inline double likely_gram_cost(SubspacePlan plan, double dimension, double other) {
  const auto l = static_cast<double>(plan.width);
  ++plan.steps;
  return gram_cost(plan, dimension, other) + 40 * l * l * l;
}

/// Below this the energy that is left is so near rounding that vectors of G are told best by
/// iterating on more than are wanted.
inline constexpr double small_tolerance = 1e-3;

/// Whether all is decomposed in double, whatever the rank.
inline bool is_exact(const SvdOptions& options, Index dimension) {
  return options.route == Route::Exact ||
         (options.route == Route::Auto && dimension <= exact_dimension);
}

/// What is iterated on for rank k of M [dimension x other], dimension the smaller side as a rule:
/// the cheaper route, but G is stored only if it is no larger than four times the sample and its
/// image.
inline SubspacePlan plan_iteration(const SvdOptions& options, Index rank, Index dimension,
                                   Index other) {
  const SubspacePlan exact{Route::Exact, dimension};
  if (is_exact(options, dimension)) return exact;
  if (options.route != Route::Auto) return plan_route(options, options.route, rank, dimension);
  const SubspacePlan gram = plan_route(options, Route::Gram, rank, dimension),
                     randomized = plan_route(options, Route::Randomized, rank, dimension);
  if (gram.width == dimension) return exact;
  const auto d = static_cast<double>(dimension), n = static_cast<double>(other);
  const bool fits = d * d <= 4 * (d + n) * static_cast<double>(gram.width);
  return fits && gram_cost(gram, d, n) < randomized_cost(randomized, d, n) ? gram : randomized;
}

/// The same, but a G that would be stored is decomposed where that is cheaper than to iterate.
inline SubspacePlan plan_subspace(const SvdOptions& options, Index rank, Index dimension,
                                  Index other) {
  const SubspacePlan plan = plan_iteration(options, rank, dimension, other);
  const bool open = options.route == Route::Auto && !options.steps && !options.oversample;
  if (!open || is_exact(options, dimension) || rank == dimension) return plan;
  if (plan.route == Route::Randomized) return plan;
  const SubspacePlan gram = plan_route(options, Route::Gram, rank, dimension);
  const auto d = static_cast<double>(dimension), n = static_cast<double>(other);
  if (whole_cost(rank, d, n) >= likely_gram_cost(gram, d, n)) return plan;
  return {Route::Gram, dimension, 0, 0, gram.excess, true};
}

PARE_ABI_END
}  // namespace pare::factor::detail
