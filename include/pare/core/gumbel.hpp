// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Gumbel noise by key: a number for each (seed, position, item), without a state. The item whose
/// score s_i + G_i is largest is drawn with probability e^s_i / sum_j e^s_j.
///
/// ```cpp
/// const pare::GumbelNoise noise{.seed = 7};
/// const double g = noise.at(position, token);  // the same wherever and whenever it is asked for
/// ```
///
/// A program that draws the token of a position in this way draws the same one whether it decodes
/// token by token or verifies a draft of many, as long as the scores are the same.
///
/// G = -log(-log u), u the middle of one of 2^52 steps by two words of Philox4x32-10 at the counter
/// (item / 2, position, "GUMB"): from -3.6 to 36.8. Source of the trick: Gumbel, 1954; with a
/// counter: ours.

#include <pare/core/macros_off.hpp>

#include <pare/core/check.hpp>
#include <pare/core/random.hpp>

#include <cstddef>
#include <cstdint>

namespace pare {

/// A seed of Gumbel noise.
struct GumbelNoise {
  std::uint64_t seed = 0;

  /// The counter whose words are those of items 2 pair and 2 pair + 1 at a position.
  PARE_ALWAYS_INLINE static constexpr PhiloxCounter counter(Index position,
                                                            std::uint32_t pair) noexcept {
    const auto p = static_cast<std::uint64_t>(position);
    return {pair, static_cast<std::uint32_t>(p), static_cast<std::uint32_t>(p >> 32), 0x47554d42u};
  }

  /// The noise that two random words stand for.
  PARE_ALWAYS_INLINE static double of_words(std::uint32_t high, std::uint32_t low) noexcept {
    const std::uint64_t step = ((std::uint64_t{high} << 32) | low) >> 12;
    return -__builtin_log(-__builtin_log((static_cast<double>(step) + 0.5) * 0x1p-52));
  }

  /// The noise of an item at a position. Cost: a Philox block and two logarithms.
  PARE_ALWAYS_INLINE double at(Index position, std::uint32_t item) const noexcept {
    const PhiloxCounter w = philox(counter(position, item / 2), PhiloxKey(seed));
    return item % 2 == 0 ? of_words(w[0], w[1]) : of_words(w[2], w[3]);
  }
};

}  // namespace pare

#include <pare/core/macros_on.hpp>
