// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Gaussian and uniform numbers as functions of (seed, stream, row, column).

#include <pare/core/check.hpp>
#include <pare/core/random.hpp>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <numbers>

namespace recall {

using pare::Index;

/// A matrix of random numbers that is not stored: each row is a function of (seed, stream, row).
class RandomRows {
 public:
  /// `purpose` tells tables apart, `owner` those of one head from those of another.
  RandomRows(std::uint64_t seed, std::uint32_t purpose, std::uint32_t owner = 0)
      : key_(seed), purpose_(purpose), owner_(owner) {}

  /// Adds `columns` Gaussian numbers of standard deviation `deviation` to `out` (Box and Muller).
  void add_gaussian(Index row, Index columns, float deviation, float* out) const {
    for (Index first = 0; first < columns; first += 4) {
      const pare::PhiloxCounter words = draw(row, first / 4);
      std::array<float, 4> four{};
      for (std::size_t pair = 0; pair < 4; pair += 2) {
        const float radius = std::sqrt(-2 * std::log(unit(words[pair])));
        const float angle = 2 * std::numbers::pi_v<float> * unit(words[pair + 1]);
        four[pair] = radius * std::cos(angle);
        four[pair + 1] = radius * std::sin(angle);
      }
      const Index end = std::min<Index>(4, columns - first);
      for (Index c = 0; c < end; ++c)
        out[first + c] += deviation * four[static_cast<std::size_t>(c)];
    }
  }

  /// One Gaussian number of variance 1.
  float gaussian(Index row) const {
    float value = 0;
    add_gaussian(row, 1, 1, &value);
    return value;
  }

  /// One number in (low, high].
  float uniform(Index row, float low, float high) const {
    return low + (high - low) * unit(draw(row, 0)[0]);
  }

 private:
  pare::PhiloxCounter draw(Index row, Index block) const {
    return pare::philox(
        {static_cast<std::uint32_t>(row), static_cast<std::uint32_t>(block), owner_, purpose_},
        key_);
  }

  /// A number in (0, 1] on the grid of 2^-24.
  static float unit(std::uint32_t word) { return static_cast<float>((word >> 8) + 1) * 0x1p-24f; }

  pare::PhiloxKey key_;
  std::uint32_t purpose_;
  std::uint32_t owner_;
};

}  // namespace recall
