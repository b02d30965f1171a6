// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Steps of the online softmax of attention: a row's maximum, in units of log2, moves on from tile
/// to tile, and its state is scaled along. Scores far from 0 keep their differences.

#include <pare/core/macros_off.hpp>

#include <pare/kernel/gemm.hpp>
#include <pare/kernel/math.hpp>

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

/// The maximum of a row after the tile, in units of log2: a NaN among the scores may make it NaN.
template <class Arch, class T>
PARE_TILE_INLINE T advance_maximum(const T* scores, std::ptrdiff_t padded, T factor,
                                   T so_far) noexcept {
  constexpr std::ptrdiff_t n = lanes<T, Arch>;
  vec<T, Arch> largest = load<Arch>(scores);
  for (std::ptrdiff_t j = n; j < padded; j += n)
    largest = maximum<Arch>(largest, load<Arch>(scores + j));
  const T tile_maximum = in_log2(reduce_max<Arch>(largest), factor);
  return !(tile_maximum <= so_far) ? tile_maximum : so_far;
}

/// Of the weights as they are multiplied by values, and as they were before they were rounded.
template <class T>
struct WeightSums {
  T rounded;
  T exact;
};

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
