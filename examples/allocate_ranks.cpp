// SPDX-License-Identifier: Apache-2.0
// Ranks for three layers from one budget: the layer whose spectrum falls slowest gets most.
// Prints the share of the budget that is used: at most 1, and short of it by less than one rank.

#include <pare/factor/allocate_ranks.hpp>

#include <Eigen/Core>

#include <cmath>
#include <cstdio>
#include <vector>

int main() {
  std::vector<pare::factor::LayerSpectrum> layers;
  for (const double decay : {0.2, 0.6, 1.2}) {
    Eigen::VectorXd values(64);  // of a factorization: lowrank.singular_values
    for (Eigen::Index i = 0; i < 64; ++i) values(i) = std::pow(double(i + 1), -decay);
    layers.push_back(
        {.out = 96, .in = 64, .singular_values = values, .total_energy = values.squaredNorm()});
  }
  constexpr pare::Index budget = 3 * 96 * 64 / 3;  // a third of the parameters

  const auto ranks = pare::factor::allocate_ranks(layers, budget);

  pare::Index used = 0;
  for (std::size_t i = 0; i < layers.size(); ++i) {
    const pare::Index rank = ranks[i];
    used += rank == 0 ? 96 * 64 : rank * (96 + 64);
    std::printf("layer %zu: rank %td%s\n", i, rank, rank == 0 ? " (stays dense)" : "");
  }
  const double share = double(used) / double(budget);
  std::printf("share of the budget that is used: %.3f\n", share);
  return share <= 1 && share > 0.97 ? 0 : 1;
}
