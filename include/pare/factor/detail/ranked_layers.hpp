// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Layers as allocation sees them, from what the caller says of them, and what their steps score.

#include <pare/core/check.hpp>
#include <pare/core/scalar.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/factor/allocation_options.hpp>
#include <pare/factor/detail/allocate_steps.hpp>
#include <pare/factor/detail/metric_checks.hpp>
#include <pare/factor/metric.hpp>

#include <Eigen/Core>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <limits>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace pare::factor::detail {
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
}  // namespace pare::factor::detail
