// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// In which of several forms each layer has the least loss that NoWag and ARMOR lower
/// (factor::proxy_loss).

#include <cstddef>
#include <cstdio>
#include <string>
#include <utility>
#include <vector>

namespace models {

/// Losses of all layers, in one order, by the name of a form.
using LayerLosses = std::vector<std::pair<std::string, std::vector<double>>>;

/// Says of how many layers each form loses no more than the one before it, and the mean loss.
inline void print_losses(const LayerLosses& forms) {
  for (std::size_t f = 0; f < forms.size(); ++f) {
    const auto& [name, losses] = forms[f];
    double sum = 0;
    std::size_t held = 0;
    for (std::size_t i = 0; i < losses.size(); ++i) {
      sum += losses[i];
      // What is exact in theory is compared after some rounding in float.
      if (f > 0 && losses[i] <= (1 + 1e-5) * forms[f - 1].second[i]) ++held;
    }
    std::printf("loss of %-12s %.5f of the weight", name.c_str(),
                sum / static_cast<double>(losses.size()));
    if (f > 0)
      std::printf(", at most that of %s on %zu of %zu layers", forms[f - 1].first.c_str(), held,
                  losses.size());
    std::printf("\n");
  }
}

}  // namespace models
