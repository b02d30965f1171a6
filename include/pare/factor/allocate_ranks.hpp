// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// The rank that each layer of a model gets, for a budget of parameters or bytes.
///
/// ```cpp
/// std::vector<LayerSpectrum> layers;
/// for (...) layers.push_back({.out = 4096, .in = 1024, .singular_values = lowrank.singular_values,
///                             .total_energy = lowrank.total_energy});
/// auto ranks = allocate_ranks(layers, budget);             // parameters of all layers
/// auto equal = allocate_ranks(layers, budget, {.score = RankScore::UniformShare});
/// auto latent = allocate_ranks(spectra, 8 * 64, {.min_rank = 32, .max_rank = 128});  // of ranks
/// ```
///
/// Each layer starts at its least rank. Then, again and again, the layer whose next step has the
/// greatest score takes that step (the first of equal ones), as long as the step fits into the rest
/// of the budget. The budget is never exceeded; what is left of it is less than the cheapest step
/// that the bounds still allow. The same input gives the same ranks.
///
/// **Dense layers.** Factors of rank k have k (out + in) numbers. From k >= out in / (out + in) on,
/// that is no fewer than W itself has, and such a rank is never given: the layer stays dense
/// instead, costs out in, loses nothing, and has rank 0 in the result (DenseLayers).
///
/// Source of RankScore::CareResidualRatio and CareCode: CARE, arXiv 2603.17946, eq. 1 and its code.

#include <pare/core/macros_off.hpp>

#include <pare/core/check.hpp>
#include <pare/core/scalar.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/factor/allocation_options.hpp>
#include <pare/factor/detail/ranked_layers.hpp>
#include <pare/factor/metric.hpp>

#include <ranges>
#include <span>
#include <vector>

namespace pare::factor {

PARE_ABI_BEGIN

/// The rank of each layer, for a budget that counts parameters, or bytes if each layer's
/// parameter_cost is the bytes of a number.
///
/// \param layers at least one
/// \param budget of all layers together, dense ones included; at least what least ranks cost
/// \return ranks in the order of layers: multiples between the bounds, or 0: leave it dense
/// \throws std::invalid_argument if there is no layer; a size, cost or bound is out of its range,
///         or a product of them does not fit; no rank is allowed; a spectrum is empty, longer than
///         min(out, in), not finite, negative or increasing, of squares that vanish, or has more
///         energy than the layer; a score is not finite, or no enumerator; or the budget is below
///         the least ranks
///
/// Cost: O(N log L) for N steps of L layers, N at most the number of singular values.
inline std::vector<Index> allocate_ranks(std::span<const LayerSpectrum> layers, Index budget,
                                         const AllocationOptions& options = {}) {
  check(!layers.empty(), "factor::allocate_ranks", "layers", "none", "at least one");
  check_enumerator("factor::allocate_ranks", "dense", options.dense, DenseLayers::Foreseen);
  std::vector<detail::RankedLayer> ranked;
  for (const LayerSpectrum& layer : layers)
    ranked.push_back(detail::ranked_layer({"layers", ranked.size()}, layer, options));
  return detail::allocate(ranked, budget, options);
}

/// The rank of each layer if a rank costs the same in all of them, as in a latent cache or with
/// layers of one shape. The budget is the sum of ranks, and no layer stays dense.
///
/// \param spectra any range of vectors of singular values, whose squares sum to the layer's energy
/// \param bounds  of each layer; without max_rank: the number of its values
/// \param budget  sum of all ranks, at least what the least ranks sum to
/// \param options .dense is not read
/// \return ranks in the order of spectra
/// \throws std::invalid_argument as for layers
/// Cost: as for layers.
template <std::ranges::input_range R>
requires WeightVector<std::ranges::range_value_t<R>>
std::vector<Index> allocate_ranks(R&& spectra, Index budget, const RankBounds& bounds = {},
                                  const AllocationOptions& options = {}) {
  std::vector<detail::RankedLayer> ranked;
  for (auto&& spectrum : spectra) {
    const auto values = as_const(to_vector_view(spectrum));
    check_view("factor::allocate_ranks", "spectra", values);
    std::vector<double> s;
    for (Index k = 0; k < values.extent[0]; ++k)
      s.push_back(
          static_cast<double>(static_cast<compute_t<scalar_of<decltype(spectrum)>>>(values(k))));
    ranked.push_back(detail::ranked_layer({"spectra", ranked.size()}, s, bounds));
  }
  check(!ranked.empty(), "factor::allocate_ranks", "spectra", "none", "at least one");
  return detail::allocate(ranked, budget, options);
}

PARE_ABI_END
}  // namespace pare::factor

#include <pare/core/macros_on.hpp>
