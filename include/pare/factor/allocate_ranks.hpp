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
#include <pare/factor/detail/allocate_steps.hpp>
#include <pare/factor/metric.hpp>

#include <Eigen/Core>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <limits>
#include <optional>
#include <ranges>
#include <span>
#include <string>
#include <vector>

namespace pare::factor {

/// The score of a step of a layer from rank k to k'. With s its singular values and E its total
/// energy, tail(k) is E minus the squares of the first k, gain the squares that the step captures,
/// cost that of the step, and w the layer's importance.
///
/// A lower sum of errors need not be a better model: try UniformShare first. On all-MiniLM-L6-v2,
/// in the covariance metric at half of the parameters, the mean cosine between embeddings by the
/// factored and by the whole model is .843 for UniformShare, .780 for EnergyShare, .781 for
/// NormalizedEnergy and .703 for AbsoluteEnergy (bench/minilm_compress).
enum class RankScore {
  /// w gain / E / cost: minimises the sum of w tail / E, the layers' relative squared errors. The
  /// minimum is exact if steps cost the same and no layer becomes dense; with Never and Foreseen
  /// also for other costs, up to the last steps that do not fit.
  NormalizedEnergy,

  /// w gain / cost: minimises the sum of w tail in the same way. For spectra in one metric, whose
  /// squared errors can be added up.
  AbsoluteEnergy,

  /// w tail(k) / E: gives the step to the layer that has lost the most. All layers then capture the
  /// same share of their energy, as large as fits (with importance: the same w tail / E).
  EnergyShare,

  /// Minus (the layer's cost after the step) / (out in): every layer keeps the same share of its
  /// parameters. Reads no spectra.
  UniformShare,

  /// w gain / tail(k) / cost: eq. 1 of the paper. It does not see the scale of the tail, and so
  /// favours the layers whose spectra fall fastest until they are full: for s_m = q^m the score is
  /// the same at each rank. In the paper's own tables it is often worse than uniform ranks.
  CareResidualRatio,

  /// What the paper's code does: w gain / E / cost, divided by max(tail(k) / E, 1e-12) and by
  /// sqrt(k / least rank), times sqrt((L - l) / ((L + 1) / 2)) for layer l = 0, 1, ... of L. The
  /// paper's code bounds ranks to half and twice their mean; here RankBounds does.
  CareCode,
};

/// When a layer stays dense.
enum class DenseLayers {
  /// A layer never stays dense: ranks go up to max_rank, also where factors are larger than W.
  Never,

  /// A layer becomes dense when its rank would pass the largest at which factors are smaller than
  /// W. That step is the last, and scores what the rest of W does. The sum of errors is not minimal
  /// where spectra fall slowly. Measured on the 36 linear layers of all-MiniLM-L6-v2, in the
  /// covariance metric at half of the parameters: 7 % (NormalizedEnergy) and 13 % (AbsoluteEnergy)
  /// above a lower bound, that of the Lagrangian, where Foreseen is .1 % above it
  /// (bench/minilm_compress).
  AtBreakEven,

  /// A layer may become dense from any lower rank too, if that step scores more than the next rank
  /// does: the objective includes the break at the dense matrix. Of layers whose spectra fall
  /// slowly some are then dense and others low. The sum of errors is close to its minimum, which
  /// need not be the best model (RankScore). For EnergyShare and UniformShare, whose steps have no
  /// such order, this is the same as AtBreakEven.
  Foreseen,
};

/// Ranks that a layer may have.
struct RankBounds {
  Index min_rank = 1;               ///< at least 1
  std::optional<Index> max_rank{};  ///< at least min_rank; left out: the most there are
  Index multiple = 1;               ///< ranks are multiples of it, which kernels like
};

PARE_ABI_BEGIN

/// A weight W [out x in] to allocate a rank to.
struct LayerSpectrum {
  Index out = 0, in = 0;

  /// Not increasing, in the metric of the factorization. The smallest may be left out: no rank
  /// passes their number. Not read by UniformShare, nor where bounds leave only the dense matrix.
  Eigen::VectorXd singular_values{};

  /// Squared norm of W in the metric; left out: that of the singular values.
  std::optional<double> total_energy{};

  double importance = 1;     ///< of its error beside that of others, at least 0
  Index parameter_cost = 1;  ///< of one number in units of the budget: 1 counts numbers, 2 bytes of
                             ///< bf16, 4 bits of 4-bit storage
  RankBounds bounds{};

  /// What factors of the rank take of the budget; 0: what W itself does.
  Index cost(Index rank) const {
    return (rank == 0 ? out * in : rank * (out + in)) * parameter_cost;
  }
};

PARE_ABI_END

/// How ranks are allocated.
struct AllocationOptions {
  RankScore score = RankScore::NormalizedEnergy;
  DenseLayers dense = DenseLayers::AtBreakEven;
};

namespace detail {
PARE_ABI_BEGIN

/// Checks of one element of a list: messages name `list[index].member`.
class ElementCheck {
 public:
  ElementCheck(const char* list, std::size_t index) : list_(list), index_(index) {}

  template <class Got, class Wanted>
  void operator()(bool ok, const char* member, const Got& got, const Wanted& wanted) const {
    if (!ok) check(false, "factor::allocate_ranks", name(member).c_str(), got, wanted);
  }

  std::string name(const char* member) const {
    return std::string(list_) + "[" + std::to_string(index_) + "]" + member;
  }

 private:
  const char* list_;
  std::size_t index_;
};

/// Sets what is known of a layer's energies. Tails are summed from the smallest value on, so that
/// each is exact to a few units in the last place however small it is.
inline void set_energies(const ElementCheck& verify, const char* member, std::span<const double> s,
                         std::optional<double> total, RankedLayer& layer) {
  const double given = total.value_or(0);
  verify(is_finite(given) && given >= 0, ".total_energy", given, "a finite energy of at least 0");
  for (std::size_t k = 0; k < s.size(); ++k) {
    verify(is_finite(s[k]) && s[k] >= 0, member, s[k], "finite values of at least 0");
    verify(k == 0 || s[k] <= s[k - 1], member, s[k], "values that do not increase");
    layer.squares.push_back(s[k] * s[k]);
  }
  double sum = 0;
  for (std::size_t k = s.size(); k-- > 0;) sum += layer.squares[k];
  verify(is_finite(sum), member, sum, "values whose squares have a finite sum");
  verify(s.empty() || s[0] == 0 || sum >= least_energy, member, sum,
         "values of 0, or whose squares sum to at least 1e-292");
  verify(!total || given >= sum * (1 - 1e-5), ".total_energy", given,
         "at least the squares of the singular values");
  layer.tails.assign(s.size() + 1, std::max(given - sum, 0.0));
  for (std::size_t k = s.size(); k-- > 0;) layer.tails[k] = layer.tails[k + 1] + layer.squares[k];
}

/// Whether there is a multiple from min_rank to `largest`.
inline bool has_rank(const RankBounds& bounds, Index largest) {
  return (bounds.min_rank - 1) / bounds.multiple < largest / bounds.multiple;
}

/// Sets the ranks of a layer: the multiples from min_rank to `largest`.
inline void set_ranks(const ElementCheck& verify, const char* member, const RankBounds& bounds,
                      Index largest, RankedLayer& layer) {
  const bool is_factored = has_rank(bounds, largest);
  const Index step = bounds.multiple;
  verify(is_factored || layer.may_be_dense, member,
         std::array<Index, 3>{bounds.min_rank, largest, step},
         "a multiple of the third from the first to the second");
  layer.multiple = step;
  layer.least = is_factored ? ((bounds.min_rank - 1) / step + 1) * step : 0;
  layer.most = is_factored ? largest / step * step : 0;
}

/// Checks the bounds of a layer that has so many ranks, and returns the largest that they allow.
inline Index bounded(const ElementCheck& verify, const std::string& prefix,
                     const RankBounds& bounds, Index ranks) {
  const auto name = [&](const char* member) { return prefix + member; };
  verify(bounds.multiple >= 1, name("multiple").c_str(), bounds.multiple, "at least 1");
  const Index most = bounds.max_rank.value_or(ranks);
  verify(most >= 1 && most <= ranks, name("max_rank").c_str(), most,
         "1 to " + std::to_string(ranks));
  verify(bounds.min_rank >= 1 && bounds.min_rank <= most, name("min_rank").c_str(), bounds.min_rank,
         "1 to " + std::to_string(most));
  return most;
}

/// A layer whose costs are those of its shape.
inline RankedLayer ranked_layer(const ElementCheck& verify, const LayerSpectrum& given,
                                const AllocationOptions& options) {
  verify(given.out >= 1 && given.in >= 1, "", std::array<Index, 2>{given.out, given.in},
         "extents of at least 1");
  verify(given.parameter_cost >= 1, ".parameter_cost", given.parameter_cost, "at least 1");
  verify(is_finite(given.importance) && given.importance >= 0, ".importance", given.importance,
         "a finite number of at least 0");
  const Index ranks = std::min(given.out, given.in);
  const Index most = bounded(verify, ".bounds.", given.bounds, ranks);

  const std::string size = verify.name("");
  const char* const where = "factor::allocate_ranks";
  const Index elements = checked_product(where, size.c_str(), given.out, given.in);
  const Index cost = checked_product(where, size.c_str(), elements, given.parameter_cost);
  checked_product(where, size.c_str(), cost, 2);  // k (out + in) <= 2 out in
  RankedLayer layer;
  layer.weight = given.importance;
  layer.rank_cost = given.cost(1);
  layer.dense_cost = given.cost(0);
  const Index useful = (elements - 1) / (given.out + given.in);
  layer.may_be_dense = options.dense != DenseLayers::Never && most > useful;
  Index largest = layer.may_be_dense ? useful : most;
  if (options.score != RankScore::UniformShare && has_rank(given.bounds, largest)) {
    const Index known = given.singular_values.size();
    verify(known >= 1 && known <= ranks, ".singular_values", known,
           "1 to " + std::to_string(ranks) + " values");
    set_energies(verify, ".singular_values",
                 {given.singular_values.data(), static_cast<std::size_t>(known)},
                 given.total_energy, layer);
    largest = std::min(largest, known);
  }
  set_ranks(verify, ".bounds", given.bounds, largest, layer);
  return layer;
}

/// A layer whose ranks cost 1 each, and which is never dense.
inline RankedLayer ranked_layer(const ElementCheck& verify, std::span<const double> spectrum,
                                const RankBounds& bounds) {
  const auto ranks = static_cast<Index>(spectrum.size());
  verify(ranks >= 1, "", ranks, "1 singular value or more");
  const Index most = bounded(verify, ": ", bounds, ranks);
  RankedLayer layer;
  set_energies(verify, "", spectrum, std::nullopt, layer);
  set_ranks(verify, ": bounds", bounds, most, layer);
  return layer;
}

inline double share(double part, double whole) { return whole > 0 ? part / whole : 0.0; }

inline double step_score(RankScore score, const RankedLayer& layer, const RankStep& step) {
  if (score == RankScore::UniformShare)
    return -static_cast<double>(layer.cost(step.to)) / static_cast<double>(layer.dense_cost);
  const double total = layer.tails[0];
  const double tail = layer.tails[static_cast<std::size_t>(step.from)];
  if (score == RankScore::EnergyShare) return layer.weight * share(tail, total);

  const double captured = gain(layer, step);
  const double per_cost = layer.weight / static_cast<double>(step.cost);
  if (score == RankScore::AbsoluteEnergy) return per_cost * captured;
  if (score == RankScore::NormalizedEnergy) return per_cost * share(captured, total);
  if (score == RankScore::CareResidualRatio) return per_cost * share(captured, tail);
  const double growth = static_cast<double>(step.from) / static_cast<double>(layer.least);
  return per_cost * share(captured, total) / std::max(share(tail, total), 1e-12) /
         std::sqrt(growth);
}

/// What the least ranks cost.
inline Index least_cost(std::span<const RankedLayer> layers) {
  Index sum = 0;
  for (const RankedLayer& layer : layers) {
    const Index cost = layer.cost(layer.least);
    check(cost <= std::numeric_limits<Index>::max() - sum, "factor::allocate_ranks", "layers",
          "least ranks that cost more", "a sum of sizes that fits 63 bits");
    sum += cost;
  }
  return sum;
}

/// Ranks of layers that have passed their own checks.
inline std::vector<Index> allocate(std::vector<RankedLayer>& layers, Index budget,
                                   const AllocationOptions& options) {
  check_enumerator("factor::allocate_ranks", "score", options.score, RankScore::CareCode);
  const Index least = least_cost(layers);
  check(budget >= least, "factor::allocate_ranks", "budget", budget,
        std::to_string(least) + " or more, which the least ranks cost");
  const RankScore score = options.score;
  const auto count = static_cast<double>(layers.size());
  if (score == RankScore::CareCode)
    for (std::size_t l = 0; l < layers.size(); ++l)
      layers[l].weight *= std::sqrt((count - static_cast<double>(l)) / ((count + 1) / 2));
  const bool foresee = options.dense == DenseLayers::Foreseen && score != RankScore::EnergyShare &&
                       score != RankScore::UniformShare;
  const auto score_of = [score](const RankedLayer& layer, const RankStep& step) {
    const double value = step_score(score, layer, step);
    check(is_finite(value), "factor::allocate_ranks", "importance", value,
          "a product with energies, over costs, that is finite");
    return value;
  };
  return RankRaiser(layers, budget, foresee, score_of).run();
}

PARE_ABI_END
}  // namespace detail
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
