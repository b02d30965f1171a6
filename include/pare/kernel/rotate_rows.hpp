// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Rotary embedding: pairs of numbers of each row turned by the angles of its position.

#include <pare/core/macros_off.hpp>

#include <pare/kernel/simd.hpp>

#include <cstddef>

namespace pare::kernel {

/// (a, b) = (a cos - b sin, b cos + a sin) for pair i of each row, in place. Pairs are (x_2i,
/// x_2i+1) if Interleaved, else (x_i, x_i+pairs); what lies behind 2 pairs stays.
/// Cost: each row is read and written once; that and, if Interleaved, the shuffles bind.
template <StorageScalar S, bool Interleaved>
struct RotateRows {
  using T = compute_t<S>;

  S* x = nullptr;  ///< [heads x tokens x 2 pairs and more], the last dimension contiguous
  std::ptrdiff_t head_stride = 0;
  std::ptrdiff_t token_stride = 0;
  std::ptrdiff_t heads = 0;
  std::ptrdiff_t tokens = 0;
  std::ptrdiff_t pairs = 0;
  const T* table = nullptr;                   ///< [positions x 2 x pairs], cosines, then sines
  std::ptrdiff_t origin = 0;                  ///< the position of the table's first row
  const std::ptrdiff_t* positions = nullptr;  ///< [tokens], or null:
  std::ptrdiff_t first = 0;                   ///< token t has position first + t
};

namespace detail {
PARE_ABI_BEGIN

/// Pairs [begin, pairs) in whole registers; returns where they end.
template <class Arch, class S, class T>
PARE_ALWAYS_INLINE std::ptrdiff_t rotate_interleaved(S* x, const T* cosines, const T* sines,
                                                     std::ptrdiff_t begin,
                                                     std::ptrdiff_t pairs) noexcept {
  using V = vec<T, Arch>;
  constexpr std::ptrdiff_t n = lanes<T, Arch>;
  std::ptrdiff_t i = begin;
  for (; i + n <= pairs; i += n) {
    const V c = load<Arch>(cosines + i), s = load<Arch>(sines + i);
    if constexpr (n == 1) {
      const V a = load_widened<Arch>(x + 2 * i), b = load_widened<Arch>(x + 2 * i + 1);
      store_narrowed<Arch>(x + 2 * i, a * c - b * s);
      store_narrowed<Arch>(x + 2 * i + 1, b * c + a * s);
    } else {
      const V minus = broadcast<Arch>(T(0)) - s;
      S* const p = x + 2 * i;
      const V low = load_widened<Arch>(p), high = load_widened<Arch>(p + n);
      store_narrowed<Arch>(
          p, multiply_add<Arch>(low, interleave_low<Arch>(c, c),
                                swap_pairs<Arch>(low) * interleave_low<Arch>(minus, s)));
      store_narrowed<Arch>(
          p + n, multiply_add<Arch>(high, interleave_high<Arch>(c, c),
                                    swap_pairs<Arch>(high) * interleave_high<Arch>(minus, s)));
    }
  }
  return i;
}

/// The same of pairs (x_i, x_i+pairs).
template <class Arch, class S, class T>
PARE_ALWAYS_INLINE std::ptrdiff_t rotate_halves(S* x, const T* cosines, const T* sines,
                                                std::ptrdiff_t begin,
                                                std::ptrdiff_t pairs) noexcept {
  using V = vec<T, Arch>;
  constexpr std::ptrdiff_t n = lanes<T, Arch>;
  std::ptrdiff_t i = begin;
  for (; i + n <= pairs; i += n) {
    const V c = load<Arch>(cosines + i), s = load<Arch>(sines + i);
    const V a = load_widened<Arch>(x + i), b = load_widened<Arch>(x + pairs + i);
    store_narrowed<Arch>(x + i, multiply_add<Arch>(a, c, broadcast<Arch>(T(0)) - b * s));
    store_narrowed<Arch>(x + pairs + i, multiply_add<Arch>(b, c, a * s));
  }
  return i;
}

template <class Arch, bool Interleaved, class S, class T>
PARE_ALWAYS_INLINE void rotate_row(S* x, const T* cosines, std::ptrdiff_t pairs) noexcept {
  const T* const sines = cosines + pairs;
  if constexpr (Interleaved) {
    const std::ptrdiff_t done = rotate_interleaved<Arch>(x, cosines, sines, 0, pairs);
    rotate_interleaved<arch::scalar>(x, cosines, sines, done, pairs);
  } else {
    const std::ptrdiff_t done = rotate_halves<Arch>(x, cosines, sines, 0, pairs);
    rotate_halves<arch::scalar>(x, cosines, sines, done, pairs);
  }
}

PARE_ABI_END
}  // namespace detail
PARE_ABI_BEGIN

template <class Arch, class S, bool Interleaved>
void run_kernel(Arch, const RotateRows<S, Interleaved>& a) noexcept {
  for (std::ptrdiff_t h = 0; h < a.heads; ++h)
    for (std::ptrdiff_t t = 0; t < a.tokens; ++t) {
      const std::ptrdiff_t position = a.positions != nullptr ? a.positions[t] : a.first + t;
      detail::rotate_row<Arch, Interleaved>(a.x + h * a.head_stride + t * a.token_stride,
                                            a.table + (position - a.origin) * 2 * a.pairs, a.pairs);
    }
}

PARE_ABI_END
}  // namespace pare::kernel

#include <pare/core/macros_on.hpp>
