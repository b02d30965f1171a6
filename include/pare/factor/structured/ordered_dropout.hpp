// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Ordered dropout (LoD, Maestro): how many of the first units of its factors each layer runs with
/// in a step of training.
///
/// ```cpp
/// const OrderedDropout dropout{.ranks = {64, 128}, .seed = 7};
/// const auto widths = dropout.widths(step);  // {64, 31}, say: one layer is cut
/// ```
///
/// Source: Horvath, Laskaridis, Rajput and Wang, Maestro, ICML 2024, arXiv 2308.14929, section 3.1,
/// and the authors' code for both samplers. Ours: random numbers are a function of (seed, step).

#include <pare/core/macros_off.hpp>

#include <pare/core/check.hpp>
#include <pare/core/random.hpp>

#include <cstddef>
#include <cstdint>
#include <vector>

namespace pare::factor {

/// Which layers a step cuts.
enum class DroppedLayers {
  Single,  ///< one, drawn uniformly; the others run in full
  Each,    ///< every one, each to a width of its own
};

PARE_ABI_BEGIN

/// The widths of steps: a function of (seed, step), from Philox.
struct OrderedDropout {
  std::vector<Index> ranks;  ///< of each layer, at least 1 and below 2^32
  std::uint64_t seed = 0;
  DroppedLayers layers = DroppedLayers::Single;

  /// The units of each layer in a step: of a layer that is cut uniform in [1, rank].
  /// \throws std::invalid_argument if there is no layer, a rank is out of its range, step is
  ///         negative, or `layers` is no enumerator
  std::vector<Index> widths(Index step) const {
    constexpr const char* function = "factor::OrderedDropout::widths";
    check(!ranks.empty(), function, "ranks", ranks.size(), "at least 1 layer");
    for (const Index rank : ranks)
      check(rank >= 1 && rank < (Index{1} << 32), function, "ranks", rank, "a rank in [1, 2^32)");
    check(step >= 0, function, "step", step, "at least 0");
    check_enumerator(function, "layers", layers, DroppedLayers::Each);
    std::vector<Index> units = ranks;
    const auto drawn = [&](std::size_t layer) {
      const auto words = philox(counter(step, layer + 1), PhiloxKey(seed));
      return 1 +
             static_cast<Index>(scale_to_range(words[0], static_cast<std::uint32_t>(ranks[layer])));
    };
    if (layers == DroppedLayers::Each) {
      for (std::size_t layer = 0; layer < ranks.size(); ++layer) units[layer] = drawn(layer);
    } else {
      const auto words = philox(counter(step, 0), PhiloxKey(seed));
      const std::size_t layer = scale_to_range(words[0], static_cast<std::uint32_t>(ranks.size()));
      units[layer] = drawn(layer);
    }
    return units;
  }

 private:
  static PhiloxCounter counter(Index step, std::size_t stream) {
    const auto s = static_cast<std::uint64_t>(step);
    return {static_cast<std::uint32_t>(s), static_cast<std::uint32_t>(s >> 32),
            static_cast<std::uint32_t>(stream), 0};
  }
};

PARE_ABI_END
}  // namespace pare::factor

#include <pare/core/macros_on.hpp>
