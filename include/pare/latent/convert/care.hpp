// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// CARE: keys and values from latents that change them least over the inputs that the layer sees,
/// and the rank that each layer's latents get.
///
/// ```cpp
/// factor::Covariance inputs(d);
/// for (...) inputs.add(x);                                    // what W_K and W_V are given
/// auto uniform = care_latents(w_k, w_v, inputs, {.key_rank = 96, .value_rank = 96});  // CARE-U
/// auto ranks = adjusted_ranks(key_spectra, {.budget = 30 * 96});                      // CARE-E
/// ```
///
/// With C the second moment of the inputs, E = tr((W - U D) C (W - U D)^T) is minimal for U the
/// first eigenvectors of W C W^T and D = U^T W: a PCA of the layer's outputs. The paper has
/// sqrt(C) W^T = P S V^T and D^T = sqrt(C)^-1 P_r S_r, U = V_r, which is the same product, but asks
/// for an inverse; `reference_care` does it that way. Both latents are uncorrelated, with variances
/// S_r^2. The paper and its code define damping in four ways; here C + damping mean(diag C) I.
///
/// K and V have latents of their own. With rank = kv heads x head dim ("KV parity") nothing is
/// lost where the layer has at least as many inputs.
///
/// Source: CARE, arXiv 2603.17946, 3 and 4, and its code. The form without a root: Swift-SVD, arXiv
/// 2604.01609. Ours: energy as the default score of adjusted ranks (factor/allocate_ranks.hpp).

#include <pare/core/macros_off.hpp>

#include <pare/core/backend.hpp>
#include <pare/core/check.hpp>
#include <pare/core/matrix.hpp>
#include <pare/core/refused_call.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/factor/allocate_ranks.hpp>
#include <pare/factor/covariance.hpp>
#include <pare/factor/low_rank.hpp>
#include <pare/factor/metric.hpp>
#include <pare/latent/convert/kv_latents.hpp>
#include <pare/latent/detail/care_root.hpp>

#include <Eigen/Core>

#include <algorithm>
#include <cstddef>
#include <limits>
#include <optional>
#include <ranges>
#include <type_traits>
#include <vector>

namespace pare::latent {
namespace detail {
template <class X>
using IsCovariance = std::bool_constant<std::is_same_v<std::remove_cvref_t<X>, factor::Covariance>>;
}  // namespace detail

PARE_ABI_BEGIN

/// separate_latents in the metric of the inputs' covariance.
///
/// \param backend left out: pare::simd
/// \param key     W_K [outputs, d], any storage scalar and order
/// \param value   W_V [outputs, d], of the same scalar
/// \param inputs  the second moment of what both are given, of d features; at least one token
/// \param options ranks of the layer
/// \param damping this share of the mean variance is added to each variance; at least 0. The
///                paper finds no difference from 0.001 to 0.1; 0 is allowed, C may be singular.
/// \throws std::invalid_argument as separate_latents, if no token was added, an input was NaN, or
///         damping is negative or not finite
///
/// Cost, memory and determinism: those of separate_latents, and a copy of C.
template <Backend B, In<2> K, In<2> V>
requires SameScalar<K, V>
auto care_latents(const B& backend, const K& key, const V& value, const factor::Covariance& inputs,
                  const SeparateOptions& options, double damping = 0.01) {
  constexpr const char* function = "latent::care_latents";
  check(inputs.count() > 0, function, "inputs", inputs.count(), "a token that was added");
  check(is_finite(damping) && damping >= 0, function, "damping", damping,
        "a finite share of at least 0");
  const auto c = inputs.matrix();
  return detail::separate_views(function, backend, as_const(to_view(key)), as_const(to_view(value)),
                                factor::InputCovariance(c, damping), options);
}

/// \overload
template <In<2> K, In<2> V>
requires SameScalar<K, V>
auto care_latents(const K& key, const V& value, const factor::Covariance& inputs,
                  const SeparateOptions& options, double damping = 0.01) {
  return care_latents(simd, key, value, inputs, options, damping);
}

/// Options of adjusted_ranks.
struct AdjustedRankOptions {
  Index budget = 0;                 ///< sum of all ranks
  std::optional<Index> min_rank{};  ///< left out: half of the mean, at least 1
  std::optional<Index> max_rank{};  ///< left out: twice the mean, or what the shortest spectrum has
  Index multiple = 1;               ///< ranks are multiples of it
  factor::RankScore score = factor::RankScore::NormalizedEnergy;
};

/// A rank for each layer, of spectra of its keys (or of its values, with a budget of their own).
///
/// \param spectra a vector of singular values for each layer, as `factorize` gives them in the
///                metric of the conversion, with full rank: `.singular_values`
/// \param options budget, bounds and score: `factor::RankScore` says what scores are. The paper's
///                (CareResidualRatio) gives ranks to the layers that need them least;
///                NormalizedEnergy minimises the sum of the layers' relative squared errors.
/// \return ranks in the order of spectra. They sum to the budget, if `multiple` divides it.
/// \throws std::invalid_argument if there is no layer; the budget is below the least ranks or above
///         the most; bounds are out of order or above the values of a layer; or as allocate_ranks
///
/// Bounds that are left out are those of the paper's code. Cost: O(N log L), N the ranks.
template <std::ranges::forward_range R>
requires factor::WeightVector<std::ranges::range_value_t<R>>
std::vector<Index> adjusted_ranks(const R& spectra, const AdjustedRankOptions& options) {
  constexpr const char* function = "latent::adjusted_ranks";
  Index layers = 0, shortest = std::numeric_limits<Index>::max();
  for (const auto& spectrum : spectra) {
    const auto size = static_cast<Index>(spectrum.size());
    check(size >= 1, function, "spectra", size, "1 singular value or more of each layer");
    shortest = std::min(shortest, size);
    ++layers;
  }
  check(layers >= 1, function, "spectra", "none", "at least one layer");
  check(options.budget >= layers, function, "budget", options.budget,
        Worded{"at least ", layers, ", a rank for each layer"});
  check(options.multiple >= 1, function, "multiple", options.multiple, "at least 1");
  const Index mean = options.budget / layers;
  const Index most =
      options.max_rank.value_or(mean < shortest ? std::min(2 * mean, shortest) : shortest);
  check(most >= 1 && most <= shortest, function, "max_rank", most,
        Worded{"1 to ", shortest, ", the values of a layer"});
  const Index least = options.min_rank.value_or(std::min(std::max<Index>(1, mean / 2), most));
  check(least >= 1 && least <= most, function, "min_rank", least, Worded{"1 to max_rank, ", most});
  check(least <= options.budget / layers, function, "budget", options.budget,
        Worded{"at least min_rank for each of ", layers, " layers"});
  check(options.budget <= checked_product(function, "max_rank", most, layers), function, "budget",
        options.budget, Worded{"at most ", most * layers, ", max_rank for each layer"});
  return factor::allocate_ranks(spectra, options.budget,
                                {.min_rank = least, .max_rank = most, .multiple = options.multiple},
                                {.score = options.score});
}

/// The paper's formula, by a root of C and its inverse, in double: what care_latents is compared
/// with. left is V_r, right is (sqrt(C)^-1 P_r S_r)^T.
///
/// \param w       [outputs, d], any storage scalar and order
/// \param c       C [d, d], float or double
/// \param rank    1 to min(outputs, d)
/// \param damping as care_latents
/// \throws std::invalid_argument if w is empty or not finite, the rank or damping is out of its
///         range, c is not [d, d], finite and symmetric, or an eigenvalue of the damped C is below
///         1e-12 of the largest: it has no inverse
///
/// Cost: two eigendecompositions of [d, d], about 18 d^3 FLOPs on one thread.
template <In<2> W, In<2> C>
factor::LowRank<double> reference_care(const W& w, const C& c, Index rank, double damping = 0.01) {
  constexpr const char* function = "latent::reference_care";
  const auto weight = as_const(to_view(w));
  const auto moment = as_const(to_view(c));
  detail::check_weight(function, "w", weight);
  detail::check_moment(function, "c", moment, weight.cols());
  detail::check_rank(function, "rank", rank, weight.rows(), weight.cols());
  check(is_finite(damping) && damping >= 0, function, "damping", damping,
        "a finite share of at least 0");
  return detail::care_by_root(function, detail::doubles_of(weight), detail::doubles_of(moment),
                              rank, damping);
}

PARE_REFUSE_CALLS(care_latents, "latent::care_latents",
                  "after inputs: wanted SeparateOptions such as {.key_rank = 64, .value_rank = "
                  "64}, members spelt and ordered as declared, and damping",
                  (INPUT, (roles::Reads<2>), "key", "[outputs, inputs]"),
                  (INPUT, (roles::ReadsSame<2>), "value", "[outputs, inputs]"),
                  (PLAIN, (roles::Takes<detail::IsCovariance>), "inputs", "a factor::Covariance"))

PARE_ABI_END
}  // namespace pare::latent

#include <pare/core/macros_on.hpp>
