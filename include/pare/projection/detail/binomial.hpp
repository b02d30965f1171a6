// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <pare/core/config.hpp>

#include <array>
#include <cstdint>

namespace pare::projection::detail {
PARE_ABI_BEGIN

/// The binomial distribution function of up to 64 trials in integers, so that every compiler and
/// machine draws the same counts from the same bits.
class BinomialTable {
 public:
  static constexpr int most_trials = 64;

  /// `trials` in [0, 64], `probability` in (0, 1].
  BinomialTable(int trials, double probability) : trials_(trials) {
    // Probabilities are fixed-point with 63 fraction bits; one trial is convolved in at a time.
    const std::uint64_t one = std::uint64_t{1} << 63;
    const auto p = static_cast<std::uint64_t>(probability * 0x1p63);
    const std::uint64_t q = one - p;
    std::array<std::uint64_t, most_trials + 1> mass{};
    mass[0] = one;
    int highest = 0;  // count that has mass: few of them have where the probability is small
    for (int t = 1; t <= trials; ++t) {
      for (int v = highest + 1; v >= 0; --v) {
        const auto at = static_cast<std::size_t>(v);
        mass[at] = multiply(mass[at], q) + (v > 0 ? multiply(mass[at - 1], p) : 0);
      }
      if (mass[static_cast<std::size_t>(highest) + 1] != 0) ++highest;
    }
    std::uint64_t cumulative = 0;
    for (int v = 0; v < trials; ++v) {
      cumulative += mass[static_cast<std::size_t>(v)];
      below_[static_cast<std::size_t>(v)] = cumulative >= one ? ~std::uint64_t{0} : cumulative << 1;
    }
    below_[static_cast<std::size_t>(trials)] = ~std::uint64_t{0};
    fill_starts();
  }

  /// The smallest v with bits / 2^64 < P(count <= v).
  int count(std::uint64_t bits) const {
    int v = start_[bits >> 56];
    while (v < trials_ && bits >= below_[static_cast<std::size_t>(v)]) ++v;
    return v;
  }

 private:
  /// a * b / 2^63, truncated, for a, b <= 2^63.
  static std::uint64_t multiply(std::uint64_t a, std::uint64_t b) {
    const std::uint64_t a0 = a & 0xffffffffu, a1 = a >> 32, b0 = b & 0xffffffffu, b1 = b >> 32;
    const std::uint64_t low = a0 * b0;
    const std::uint64_t mid = a1 * b0 + (low >> 32);
    const std::uint64_t cross = a0 * b1 + (mid & 0xffffffffu);
    const std::uint64_t high = a1 * b1 + (mid >> 32) + (cross >> 32);
    return (high << 1) | ((cross >> 31) & 1u);
  }

  /// start_[top byte] is the count of the smallest number with that top byte.
  void fill_starts() {
    int v = 0;
    for (std::uint64_t top = 0; top < start_.size(); ++top) {
      while (v < trials_ && (top << 56) >= below_[static_cast<std::size_t>(v)]) ++v;
      start_[top] = static_cast<std::uint8_t>(v);
    }
  }

  int trials_;
  std::array<std::uint64_t, most_trials + 1> below_{};
  std::array<std::uint8_t, 256> start_{};
};

PARE_ABI_END
}  // namespace pare::projection::detail
