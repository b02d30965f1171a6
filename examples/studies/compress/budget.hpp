// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Which rank each layer gets.

#include "compress/factors.hpp"

#include <pare/factor/allocate_ranks.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

namespace compress {

/// A number of parameters for all layers, and what ranks they may have; a rank of 0 means that the
/// layer stays dense.
class Budget {
 public:
  /// \throws std::invalid_argument if the least ranks pass the budget.
  Budget(const std::vector<Layer>& layers, const Arguments& arguments) : arguments_(arguments) {
    double dense = 0;
    for (const Layer& layer : layers) {
      dense += static_cast<double>(layer.parameters());
      const Index ranks = std::min(layer.out(), layer.in());
      layers_.push_back({.out = layer.out(),
                         .in = layer.in(),
                         .bounds = {.min_rank = std::min(arguments.min_rank, ranks),
                                    .multiple = arguments.multiple}});
    }
    parameters_ = static_cast<Index>(std::floor(arguments.keep * dense));
    // Said before layers are factored; it does not depend on the score.
    allocate(pare::factor::RankScore::UniformShare);
  }

  bool needs_spectra() const {
    return arguments_.allocate != pare::factor::RankScore::UniformShare;
  }

  /// The largest ranks that the layers can get.
  std::vector<Index> largest_ranks() const {
    std::vector<Index> ranks;
    for (const auto& layer : layers_) {
      const Index useful = (layer.cost(0) - 1) / layer.cost(1);
      const Index largest = useful / layer.bounds.multiple * layer.bounds.multiple;
      ranks.push_back(largest < layer.bounds.min_rank ? 0 : largest);
    }
    return ranks;
  }

  /// The ranks, from the spectra where they are needed.
  std::vector<Index> choose_ranks(const std::vector<std::optional<Factors>>& factored) {
    for (std::size_t i = 0; i < layers_.size(); ++i) {
      if (!factored[i]) continue;
      layers_[i].singular_values = factored[i]->singular_values;
      layers_[i].total_energy = factored[i]->total_energy;
    }
    return allocate(arguments_.allocate);
  }

 private:
  std::vector<Index> allocate(pare::factor::RankScore score) const {
    try {
      return pare::factor::allocate_ranks(layers_, parameters_,
                                          {.score = score, .dense = arguments_.dense});
    } catch (const std::invalid_argument& error) {
      throw std::invalid_argument(std::string("no ranks meet --keep: ") + error.what());
    }
  }

  const Arguments& arguments_;
  std::vector<pare::factor::LayerSpectrum> layers_;
  Index parameters_ = 0;
};

}  // namespace compress
