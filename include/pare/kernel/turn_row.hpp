// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// A rotary key turned from one position to another.

#include <pare/core/macros_off.hpp>

#include <pare/kernel/simd.hpp>

#include <cstddef>

namespace pare::kernel {

/// y = x, each pair turned by the difference of two angles, which cosines and sines stand for:
/// with size = c_0^2 + s_0^2, by cos = (c_1 c_0 + s_1 s_0) / size, sin = (s_1 c_0 - c_1 s_0) /
/// size. Pairs are as those of RotateRows. All in double, rounded to what S is computed in and to
/// S.
///
/// Cost: a division for each pair, in registers of 8 on AVX-512, binds.
template <StorageScalar S, bool Interleaved>
struct TurnRow {
  using T = compute_t<S>;

  const S* x = nullptr;     ///< [2 pairs]; y itself, or apart
  S* y = nullptr;           ///< [2 pairs]
  const T* from = nullptr;  ///< [2 x pairs], cosines, then sines
  const T* to = nullptr;    ///< likewise
  std::ptrdiff_t pairs = 0;
};

namespace detail {
PARE_ABI_BEGIN

/// Pairs that are turned at a time: a length known beforehand is what compilers vectorise at -O2.
inline constexpr std::ptrdiff_t turned_pairs = 16;

/// One pair, whose angles' numbers stand `pairs` apart.
template <class T>
PARE_ALWAYS_INLINE void turn_pair(T& first, T& second, const T* from, const T* to,
                                  std::ptrdiff_t pairs) noexcept {
  const auto c0 = static_cast<double>(from[0]), s0 = static_cast<double>(from[pairs]);
  const auto c1 = static_cast<double>(to[0]), s1 = static_cast<double>(to[pairs]);
  const double size = c0 * c0 + s0 * s0;
  const double cosine = (c1 * c0 + s1 * s0) / size, sine = (s1 * c0 - c1 * s0) / size;
  const auto a = static_cast<double>(first), b = static_cast<double>(second);
  first = static_cast<T>(a * cosine - b * sine);
  second = static_cast<T>(b * cosine + a * sine);
}

/// to_i = from_i for `size` numbers, whole registers.
template <class Arch, class To, class From>
PARE_ALWAYS_INLINE void convert_run(const From* from, To* to, std::ptrdiff_t size) noexcept {
  for (std::ptrdiff_t i = 0; i < size; i += lanes<compute_t<From>, Arch>)
    store_narrowed<Arch>(to + i, load_widened<Arch>(from + i));
}

/// Pairs [begin, begin + turned_pairs) of a row.
template <class Arch, class S, bool Interleaved>
PARE_ALWAYS_INLINE void turn_run(const TurnRow<S, Interleaved>& a, std::ptrdiff_t begin) noexcept {
  using T = compute_t<S>;
  constexpr std::ptrdiff_t run = turned_pairs;
  constexpr std::ptrdiff_t step = Interleaved ? 2 : 1, apart = Interleaved ? 1 : run;
  T both[2 * run];
  if constexpr (Interleaved) {
    convert_run<Arch>(a.x + 2 * begin, both, 2 * run);
  } else {
    convert_run<Arch>(a.x + begin, both, run);
    convert_run<Arch>(a.x + a.pairs + begin, both + run, run);
  }
  for (std::ptrdiff_t i = 0; i < run; ++i)
    turn_pair(both[step * i], both[step * i + apart], a.from + begin + i, a.to + begin + i,
              a.pairs);
  const T* const turned = both;
  if constexpr (Interleaved) {
    convert_run<Arch>(turned, a.y + 2 * begin, 2 * run);
  } else {
    convert_run<Arch>(turned, a.y + begin, run);
    convert_run<Arch>(turned + run, a.y + a.pairs + begin, run);
  }
}

PARE_ABI_END
}  // namespace detail
PARE_ABI_BEGIN

template <class Arch, class S, bool Interleaved>
void run_kernel(Arch, const TurnRow<S, Interleaved>& a) noexcept {
  using T = compute_t<S>;
  std::ptrdiff_t i = 0;
  for (; i + detail::turned_pairs <= a.pairs; i += detail::turned_pairs)
    detail::turn_run<Arch>(a, i);
  for (; i < a.pairs; ++i) {
    const std::ptrdiff_t first = Interleaved ? 2 * i : i,
                         second = Interleaved ? first + 1 : i + a.pairs;
    auto x = static_cast<T>(a.x[first]), y = static_cast<T>(a.x[second]);
    detail::turn_pair(x, y, a.from + i, a.to + i, a.pairs);
    a.y[first] = static_cast<S>(x);
    a.y[second] = static_cast<S>(y);
  }
}

PARE_ABI_END

}  // namespace pare::kernel

#include <pare/core/macros_on.hpp>
