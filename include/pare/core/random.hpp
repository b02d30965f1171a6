// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Counter-based random numbers: a pure function from (seed, counter) to 128 random bits.
///
/// ```cpp
/// const pare::PhiloxKey key(seed);  // 64 bits
/// const pare::PhiloxCounter words = pare::philox({row, column, 0, 0}, key);
/// const double u = pare::to_unit_double(words[0], words[1]);         // in [0, 1)
/// const std::uint32_t die = 1 + pare::scale_to_range(words[2], 6u);  // 1 to 6
/// ```
///
/// Philox4x32-10 of Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as 1, 2, 3"
/// (SC'11). There is no state to carry or to share between threads: number 10^12 costs as much as
/// number 0, and every backend gets the same bits. `kernel/philox.hpp` computes many at once.

#include <pare/core/macros_off.hpp>

#include <pare/core/config.hpp>

#include <array>
#include <cstdint>

namespace pare {

/// The constants of Philox4x32-10.
struct PhiloxConstants {
  static constexpr std::uint32_t multiplier0 = 0xD2511F53u;
  static constexpr std::uint32_t multiplier1 = 0xCD9E8D57u;
  static constexpr std::uint32_t weyl0 = 0x9E3779B9u;
  static constexpr std::uint32_t weyl1 = 0xBB67AE85u;
  static constexpr int rounds = 10;
};

/// Which number of the sequence: 128 bits, lowest word first. Also what `philox` returns.
using PhiloxCounter = std::array<std::uint32_t, 4>;

/// The key that a 64-bit seed stands for: low word, high word.
struct PhiloxKey {
  std::uint32_t k0 = 0;
  std::uint32_t k1 = 0;

  constexpr PhiloxKey() noexcept = default;
  constexpr PhiloxKey(std::uint32_t low, std::uint32_t high) noexcept : k0(low), k1(high) {}
  constexpr explicit PhiloxKey(std::uint64_t seed) noexcept
      : k0(static_cast<std::uint32_t>(seed)), k1(static_cast<std::uint32_t>(seed >> 32)) {}
};

PARE_ABI_BEGIN

/// Philox4x32-10: the four random words of counter `c` under the key. Cost: 20 multiplications.
constexpr PhiloxCounter philox(PhiloxCounter c, PhiloxKey key) noexcept {
  using P = PhiloxConstants;
  for (int round = 0; round < P::rounds; ++round) {
    const std::uint64_t p0 = std::uint64_t{P::multiplier0} * c[0];
    const std::uint64_t p1 = std::uint64_t{P::multiplier1} * c[2];
    c = {static_cast<std::uint32_t>(p1 >> 32) ^ c[1] ^ key.k0, static_cast<std::uint32_t>(p1),
         static_cast<std::uint32_t>(p0 >> 32) ^ c[3] ^ key.k1, static_cast<std::uint32_t>(p0)};
    key.k0 += P::weyl0;
    key.k1 += P::weyl1;
  }
  return c;
}

/// A number in [0, n) from a random word: floor(word n / 2^32), and 0 for n = 0. The probability of
/// each number is within 2^-32 of 1 / n.
constexpr std::uint32_t scale_to_range(std::uint32_t word, std::uint32_t n) noexcept {
  return static_cast<std::uint32_t>((std::uint64_t{word} * n) >> 32);
}

/// A double in [0, 1) on the grid of 2^-53, from the upper 53 bits of two random words.
constexpr double to_unit_double(std::uint32_t high, std::uint32_t low) noexcept {
  const std::uint64_t bits = ((std::uint64_t{high} << 32) | low) >> 11;
  return static_cast<double>(bits) * 0x1p-53;
}

PARE_ABI_END

}  // namespace pare

#include <pare/core/macros_on.hpp>
