// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// The places of those sums of two rows that are not below a threshold, where they are few.

#include <pare/core/macros_off.hpp>

#include <pare/kernel/simd.hpp>

#include <cstddef>
#include <cstdint>

namespace pare::kernel {

/// Lists first + i for each i whose value + added is not below the threshold, ascending; NaN is
/// listed.
///
/// Cost: one read of both, which binds while few registers hold a sum that is listed.
template <ComputeScalar T>
struct ListAtLeast {
  const T* values = nullptr;  ///< [count]
  const T* added = nullptr;   ///< [count]
  std::ptrdiff_t count = 0;
  T threshold = 0;
  std::int32_t first = 0;
  std::int32_t* places = nullptr;    ///< [count + 16], of which those behind the list are scratch
  std::ptrdiff_t* listed = nullptr;  ///< how many
};

namespace detail {
PARE_ABI_BEGIN

/// Bit i: number i of four registers of sums is not below the threshold.
template <class Arch, class T>
PARE_TILE_INLINE std::uint64_t at_least_bits(const T* values, const T* added,
                                             vec<T, Arch> threshold) noexcept {
  using V = vec<T, Arch>;
  constexpr std::ptrdiff_t n = lanes<T, Arch>;
  const V x[] = {load<Arch>(values) + load<Arch>(added),
                 load<Arch>(values + n) + load<Arch>(added + n),
                 load<Arch>(values + 2 * n) + load<Arch>(added + 2 * n),
                 load<Arch>(values + 3 * n) + load<Arch>(added + 3 * n)};
  const auto below =
      (x[0] < threshold) & (x[1] < threshold) & (x[2] < threshold) & (x[3] < threshold);
  if (xsimd::all(below)) return 0;
  std::uint64_t bits = 0;
  for (int r = 3; r >= 0; --r)
    bits = bits << n | nonzero_lanes<Arch>(xsimd::select(x[r] < threshold, V(T(0)), V(T(1))));
  return bits;
}

PARE_ABI_END
}  // namespace detail
PARE_ABI_BEGIN

template <class Arch, class T>
void run_kernel(Arch, const ListAtLeast<T>& a) noexcept {
  std::int32_t* to = a.places;
  std::ptrdiff_t i = 0;
  if constexpr (detail::is_batch<vec<T, Arch>>) {
    constexpr std::ptrdiff_t n = 4 * lanes<T, Arch>;
    const vec<T, Arch> threshold = broadcast<Arch>(a.threshold);
    for (; i + n <= a.count; i += n)
      if (const std::uint64_t bits =
              detail::at_least_bits<Arch>(a.values + i, a.added + i, threshold);
          bits != 0)
        to = list_bits<Arch>(bits, a.first + static_cast<std::int32_t>(i), to);
  }
  for (; i < a.count; ++i) {
    // Written in any case: no branch would foresee it.
    *to = a.first + static_cast<std::int32_t>(i);
    to += a.values[i] + a.added[i] < a.threshold ? 0 : 1;
  }
  *a.listed = to - a.places;
}

PARE_ABI_END
}  // namespace pare::kernel

#include <pare/core/macros_on.hpp>
