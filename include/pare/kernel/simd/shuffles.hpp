// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Shuffles of the vector layer: lanes that change places in a register or between two.
///
/// ```cpp
/// vec<T, Arch> block[n];                                        // n = lanes<T, Arch>
/// transpose_block<Arch>(block);                                 // block[i]: lane i of each
/// ```

#include <pare/core/macros_off.hpp>

#include <pare/kernel/simd/archs.hpp>

#include <cstddef>
#include <utility>

namespace pare::kernel {
PARE_ABI_BEGIN

/// Interleaves the lower halves of a and b over the full register: a0 b0 a1 b1 ...
template <class Arch, class V>
PARE_ALWAYS_INLINE V interleave_low(V a, V b) noexcept {
  if constexpr (requires { detail::interleave_low_on(Arch{}, a, b); })
    return detail::interleave_low_on(Arch{}, a, b);
  else
    return xsimd::zip_lo(a, b);
}

/// Interleaves the upper halves of a and b over the full register.
template <class Arch, class V>
PARE_ALWAYS_INLINE V interleave_high(V a, V b) noexcept {
  if constexpr (requires { detail::interleave_high_on(Arch{}, a, b); })
    return detail::interleave_high_on(Arch{}, a, b);
  else
    return xsimd::zip_hi(a, b);
}

/// Whether lanes of two registers trade places faster than they interleave.
template <class Arch, class V>
inline constexpr bool trades_lanes = requires(V a) { detail::trade_lanes_on<1>(Arch{}, a, a); };

/// Those lanes of a whose number has no bit `Distance`, a power of 2, and those of b that have it.
template <class Arch, int Distance, class V>
requires trades_lanes<Arch, V>
PARE_ALWAYS_INLINE V keep_lanes(V a, V b) noexcept {
  return detail::keep_lanes_on<Distance>(Arch{}, a, b);
}

/// The other lanes of both, `Distance` from where they were: in a lane that keep_lanes takes from a
/// or b, the one of the same register.
template <class Arch, int Distance, class V>
requires trades_lanes<Arch, V>
PARE_ALWAYS_INLINE V trade_lanes(V a, V b) noexcept {
  return detail::trade_lanes_on<Distance>(Arch{}, a, b);
}

/// Lanes 2 i and 2 i + 1 exchanged; of a single lane the lane itself.
template <class Arch, class V>
PARE_ALWAYS_INLINE V swap_pairs(V v) noexcept {
  if constexpr (requires { detail::swap_pairs_on(Arch{}, v); })
    return detail::swap_pairs_on(Arch{}, v);
  else
    return detail::generic_swap_pairs<Arch>(v);
}

/// Lane I of v, which was loaded from p, in all lanes: of the register where lanes spread by a
/// shuffle, since a load takes the place of an operand's; else of memory.
template <class Arch, std::size_t I, class T>
PARE_ALWAYS_INLINE vec<T, Arch> spread_lane([[maybe_unused]] vec<T, Arch> v,
                                            [[maybe_unused]] const T* p) noexcept {
  if constexpr (requires { detail::spread_lane_on<I>(Arch{}, v); })
    return detail::spread_lane_on<I>(Arch{}, v);
  else
    return broadcast<Arch>(p[I]);
}

/// Transposes a square block held in `lanes` registers: afterwards v[i] holds lane i of each.
///
/// Each of the log2(lanes) stages shuffles the register file once like a deck of cards. Unrolled by
/// hand: g++ -O2 would keep the registers in memory.
template <class Arch, class V, std::size_t N>
PARE_ALWAYS_INLINE void transpose_block(V (&v)[N]) noexcept {
  const auto shuffle = [&v]<std::size_t... I>(std::index_sequence<I...>) PARE_LAMBDA_INLINE {
    constexpr std::size_t half = N / 2;
    const V low[] = {interleave_low<Arch>(v[I], v[I + half])...};
    const V high[] = {interleave_high<Arch>(v[I], v[I + half])...};
    ((v[2 * I] = low[I], v[2 * I + 1] = high[I]), ...);
  };
  if constexpr (N > 1) shuffle(std::make_index_sequence<N / 2>{});
  if constexpr (N > 2) shuffle(std::make_index_sequence<N / 2>{});
  if constexpr (N > 4) shuffle(std::make_index_sequence<N / 2>{});
  if constexpr (N > 8) shuffle(std::make_index_sequence<N / 2>{});
  static_assert(N <= 16);
}

PARE_ABI_END
}  // namespace pare::kernel

#include <pare/core/macros_on.hpp>
