// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Sums of panel columns with signs: the product of a panel and a matrix of 0, +1 and -1.

#include <pare/core/macros_off.hpp>

#include <pare/kernel/panel.hpp>
#include <pare/kernel/rows_ahead.hpp>

#include <cstddef>
#include <cstdint>

namespace pare::kernel {

/// Marks an entry of SignedSum that is subtracted; the bits below it are the column.
inline constexpr std::uint16_t negative_entry = 0x8000;

/// sums[target] += or -= the panel columns of each list, for all rows of the panel at once.
///
/// List i takes the next `lengths[i]` entries, in order, and adds their columns to the panel column
/// `targets[i]` of `sums`, or subtracts those that are marked negative. Lists are best sorted by
/// length, so that the inner loop's end is predicted.
///
/// Cost: 128 bytes loaded and as many FMAs an entry, 128 bytes loaded and stored a list. With the
/// panel in L2 (it is sized for that) the L2 read bandwidth binds, at 128 bytes an entry, and
/// leaves memory idle: what the next panel is made of can come into L2 meanwhile.
template <ComputeScalar T>
struct SignedSum {
  const T* panel = nullptr;
  T* sums = nullptr;
  const std::uint32_t* targets = nullptr;  ///< [lists]
  const std::uint32_t* lengths = nullptr;  ///< [lists]
  const std::uint16_t* entries = nullptr;  ///< [sum of lengths]
  std::ptrdiff_t lists = 0;
  RowsAhead ahead{};  ///< what the next panel is packed from
};

namespace detail {
PARE_ABI_BEGIN

/// One list. Registers: 128 bytes of accumulators (2 of AVX-512's 32, 4 of AVX2's 16, 8 of SSE2's
/// 16) and the sign; columns are memory operands. Multiplying by +-1 is exact, and the FMA then
/// rounds as the addition would.
template <class Arch, class T>
PARE_ALWAYS_INLINE void add_list(const T* panel, T* target, const std::uint16_t* entry,
                                 const std::uint16_t* end) noexcept {
  constexpr T signs[2] = {T(1), T(-1)};
  constexpr std::ptrdiff_t n = lanes<T, Arch>;
  constexpr std::ptrdiff_t registers = panel_rows<T> / n;
  vec<T, Arch> sum[static_cast<std::size_t>(registers)];
  for (std::ptrdiff_t i = 0; i < registers; ++i)
    sum[i] = load<Arch>(static_cast<const T*>(target) + i * n);
  for (; entry != end; ++entry) {
    const vec<T, Arch> sign = broadcast<Arch>(signs[*entry >> 15]);
    const T* column = panel + (*entry & (negative_entry - 1)) * panel_rows<T>;
    for (std::ptrdiff_t i = 0; i < registers; ++i)
      sum[i] = multiply_add<Arch>(sign, load<Arch>(column + i * n), sum[i]);
  }
  for (std::ptrdiff_t i = 0; i < registers; ++i) store<Arch>(target + i * n, sum[i]);
}

PARE_ABI_END
}  // namespace detail

PARE_ABI_BEGIN
template <class Arch, class T>
void run_kernel(Arch, const SignedSum<T>& a) noexcept {
  const std::uint16_t* entry = a.entries;
  FetchAhead next(a.ahead, a.lists);
  for (std::ptrdiff_t i = 0; i < a.lists; ++i) {
    detail::add_list<Arch>(a.panel, a.sums + a.targets[i] * panel_rows<T>, entry,
                           entry + a.lengths[i]);
    entry += a.lengths[i];
    next.turn();
  }
}
PARE_ABI_END

}  // namespace pare::kernel

#include <pare/core/macros_on.hpp>
