// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// How rows that lie anywhere in memory are fetched ahead of their turn, which other kernels
/// inline.

#include <pare/core/macros_off.hpp>

#include <pare/kernel/simd.hpp>

#include <cstddef>

namespace pare::kernel {
PARE_ABI_BEGIN

/// Rows whose loads are under way: a core has 10 to 16 misses of the first level in flight, and a
/// row of 192 numbers of bf16 is 6 lines.
inline constexpr std::ptrdiff_t gathered_rows_ahead = 4;

/// Asks for all lines of a row.
template <class S>
PARE_ALWAYS_INLINE void fetch_gathered(const S* row, std::ptrdiff_t columns) noexcept {
  const auto bytes = columns * static_cast<std::ptrdiff_t>(sizeof(S));
  for (std::ptrdiff_t byte = 0; byte < bytes; byte += 64) prefetch(row, byte);
}

PARE_ABI_END
}  // namespace pare::kernel

#include <pare/core/macros_on.hpp>
