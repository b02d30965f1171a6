// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Steps of the online softmax of attention: a row's maximum, in units of log2, moves on from tile
/// to tile, and its state is scaled along. Scores far from 0 keep their differences.

#include <pare/core/macros_off.hpp>

#include <pare/kernel/direct_product.hpp>
#include <pare/kernel/gemm.hpp>
#include <pare/kernel/math.hpp>
#include <pare/kernel/partial_register.hpp>

#include <cstddef>
#include <limits>

namespace pare::kernel::detail {
PARE_ABI_BEGIN

inline constexpr double log2_e = 1.4426950408889634074;

/// Rows of a group, rounded up to whole registers of any arch.
inline constexpr std::ptrdiff_t group_room = 16;

/// From this maximum on its rounding, by up to half a unit in the last place, would move every
/// weight of a tile by more than a factor of 2, and soon past what T holds.
template <class T>
inline constexpr T far_maximum = T(2) / std::numeric_limits<T>::epsilon();

template <class T>
bool is_far(T maximum) noexcept {
  return maximum >= far_maximum<T> ||
         (maximum <= -far_maximum<T> && maximum >= std::numeric_limits<T>::lowest());
}

/// A score in units of log2; a finite one stays finite, at the largest number if need be.
template <class T>
T in_log2(T score, T factor) noexcept {
  constexpr T most = std::numeric_limits<T>::max();
  const T product = score * factor;
  if (!(score >= -most && score <= most)) return product;
  return product > most ? most : product < -most ? -most : product;
}

/// Turns scores into exponents below a far maximum. The product is rounded as it was for the
/// maximum, so that the largest score has the exponent 0 to the bit.
template <class T>
PARE_NOINLINE void far_exponents(T* scores, std::ptrdiff_t count, T factor, T maximum) noexcept {
  for (std::ptrdiff_t j = 0; j < count; ++j) scores[j] = in_log2(scores[j], factor) - maximum;
}

/// Scores [end, padded) become -infinity; padded is a multiple of a register's lanes.
template <class Arch, class T>
PARE_TILE_INLINE void hide_from(T* scores, std::ptrdiff_t end, std::ptrdiff_t padded) noexcept {
  constexpr std::ptrdiff_t n = lanes<T, Arch>;
  constexpr T hidden = -std::numeric_limits<T>::infinity();
  alignas(64) static constexpr T lane[] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
  for (std::ptrdiff_t j = end / n * n; j < padded; j += n) {
    const vec<T, Arch> score = load<Arch>(static_cast<const T*>(scores) + j);
    const vec<T, Arch> place = load<Arch>(static_cast<const T*>(lane));
    const vec<T, Arch> first = broadcast<Arch>(static_cast<T>(end - j));
    if constexpr (is_batch<vec<T, Arch>>)
      store<Arch>(scores + j, xsimd::select(place < first, score, broadcast<Arch>(hidden)));
    else
      store<Arch>(scores + j, place < first ? score : hidden);
  }
}

/// Rows that a register each is kept of: those of a group, rounded up to a power of 2.
inline constexpr std::ptrdiff_t folded_rows = 8;

/// out[r] = the lanes of register r of `registers`, folded by f: of many rows at once, since one
/// alone would keep a core waiting at each of its halves.
template <class Arch, class T, class F>
PARE_TILE_INLINE void fold_rows(const T* registers, std::ptrdiff_t rows, T* out,
                                const F& f) noexcept {
  constexpr std::ptrdiff_t n = lanes<T, Arch>, at_once = n < folded_rows ? n : folded_rows;
  for (std::ptrdiff_t r = 0; r < rows; r += at_once) {
    vec<T, Arch> part[static_cast<std::size_t>(at_once)];
    for (std::ptrdiff_t i = 0; i < at_once; ++i)
      part[i] = load<Arch>(registers + (r + i < rows ? r + i : rows - 1) * n);
    alignas(64) T folded[static_cast<std::size_t>(n)];
    store<Arch>(static_cast<T*>(folded), fold_lanes_of_each<Arch>(part, f));
    for (std::ptrdiff_t i = 0; i < at_once && r + i < rows; ++i)
      out[r + i] = folded[i * (n / at_once)];
  }
}

/// The largest of each lane's scores: a NaN among them may make it NaN.
template <class Arch, class T>
PARE_TILE_INLINE vec<T, Arch> largest_of_lanes(const T* scores, std::ptrdiff_t padded) noexcept {
  constexpr std::ptrdiff_t n = lanes<T, Arch>;
  vec<T, Arch> largest = load<Arch>(scores);
  for_row<n>(
      padded,
      [&](std::ptrdiff_t j)
          PARE_LAMBDA_INLINE { largest = maximum<Arch>(largest, load<Arch>(scores + j)); },
      [](std::ptrdiff_t, std::ptrdiff_t) {});
  return largest;
}

/// What the state of each row is multiplied by when its maximum moves: 2^(before - now), 1 where
/// both are -infinity.
template <class Arch, class T>
PARE_TILE_INLINE void rescale_factors(const T* before, const T* now, T* rescale) noexcept {
  constexpr std::ptrdiff_t n = lanes<T, Arch>;
  for (std::ptrdiff_t r = 0; r < group_room; r += n)
    store<Arch>(rescale + r, exp2<Arch>(load<Arch>(before + r) - load<Arch>(now + r)));
  for (std::ptrdiff_t r = 0; r < tile_rows; ++r)
    if (now[r] == -std::numeric_limits<T>::infinity()) rescale[r] = T(1);
}

PARE_ABI_END
}  // namespace pare::kernel::detail

#include <pare/core/macros_on.hpp>
