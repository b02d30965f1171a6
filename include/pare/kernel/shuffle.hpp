// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Random permutations, whose random words are computed in registers.

#include <pare/core/macros_off.hpp>

#include <pare/core/random.hpp>
#include <pare/kernel/philox.hpp>
#include <pare/kernel/simd.hpp>

#include <cstddef>
#include <cstdint>

namespace pare::kernel {

/// out = a random permutation of [0, size) by the inside-out shuffle: element i = 1, 2, ... changes
/// places with element floor(word_i n_i / 2^32), word_i being word (i - 1) mod 4 of the Philox
/// block (i - 1) / 4 under the key. n_i is i + 1, or with `cycle` i, which makes the permutation
/// one cycle (Sattolo).
///
/// Cost: size / 4 blocks of Philox; the shuffle itself is bound by two loads and two stores an
/// element that follow the words.
struct Shuffle {
  std::uint32_t* out = nullptr;  ///< [size]
  std::ptrdiff_t size = 0;
  std::uint32_t key0 = 0;
  std::uint32_t key1 = 0;
  bool cycle = false;
};

namespace detail {
PARE_ABI_BEGIN

/// Blocks that are computed before they are used: 4 KiB of places.
inline constexpr std::ptrdiff_t shuffle_blocks = 128;

/// places[k][b] = where element 4 (first + b) + k + 1 changes places, for `shuffle_blocks` blocks.
template <class Arch>
void shuffle_places(PhiloxKey key, std::uint64_t first, std::uint64_t begin,
                    std::uint64_t (&places)[4][shuffle_blocks]) noexcept {
  using V = vec<std::uint64_t, Arch>;
  constexpr std::ptrdiff_t n = lanes<std::uint64_t, Arch>;
  std::uint64_t counts[n];
  for (std::ptrdiff_t l = 0; l < n; ++l) counts[l] = first + static_cast<std::uint64_t>(l);
  V count = load<Arch>(static_cast<const std::uint64_t*>(counts));
  for (std::ptrdiff_t b = 0; b < shuffle_blocks; b += n) {
    V words[4] = {count, broadcast<Arch>(std::uint64_t{0}), broadcast<Arch>(std::uint64_t{0}),
                  broadcast<Arch>(std::uint64_t{0})};
    philox_rounds<Arch>(words[0], words[1], words[2], words[3], key);
    V range = count + count;
    range = range + range + broadcast<Arch>(begin);
    for (int k = 0; k < 4; ++k) {
      store<Arch>(places[k] + b, high_words<Arch>(multiply_low_words<Arch>(words[k], range)));
      range = range + broadcast<Arch>(std::uint64_t{1});
    }
    count = count + broadcast<Arch>(static_cast<std::uint64_t>(n));
  }
}

PARE_ABI_END
}  // namespace detail
PARE_ABI_BEGIN

template <class Arch>
void run_kernel(Arch, const Shuffle& a) noexcept {
  if (a.size < 1) return;
  std::uint64_t places[4][detail::shuffle_blocks];
  std::uint32_t* const out = a.out;
  out[0] = 0;
  const auto change = [out](std::ptrdiff_t i, std::uint64_t place) PARE_LAMBDA_INLINE {
    out[i] = out[place];
    out[place] = static_cast<std::uint32_t>(i);
  };
  for (std::ptrdiff_t i = 1; i < a.size; i += 4 * detail::shuffle_blocks) {
    detail::shuffle_places<Arch>(PhiloxKey(a.key0, a.key1), static_cast<std::uint64_t>(i - 1) / 4,
                                 a.cycle ? 1 : 2, places);
    const std::ptrdiff_t left = a.size - i;
    const std::ptrdiff_t whole =
        left / 4 < detail::shuffle_blocks ? left / 4 : detail::shuffle_blocks;
    for (std::ptrdiff_t b = 0; b < whole; ++b)
      for (std::ptrdiff_t k = 0; k < 4; ++k) change(i + 4 * b + k, places[k][b]);
    if (whole < detail::shuffle_blocks)
      for (std::ptrdiff_t k = 0; k < left % 4; ++k) change(i + 4 * whole + k, places[k][whole]);
  }
}

PARE_ABI_END

}  // namespace pare::kernel

#include <pare/core/macros_on.hpp>
