// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Stores past the caches: where they may go, and the fence behind them.

#include <pare/core/macros_off.hpp>

#include <pare/kernel/simd.hpp>

#include <cstddef>
#include <cstdint>
#include <cstring>

namespace pare::kernel {

/// Bytes of a result from which on no cache holds it for its reader: it is written past them, which
/// would read its lines first.
inline constexpr std::ptrdiff_t streamed_bytes = std::ptrdiff_t{8} << 20;

/// Orders what was streamed before all that follows. Kernels here do not: a fence waits for memory.
struct FinishStreaming {};

namespace detail {
PARE_ABI_BEGIN

/// Elements until p is at the start of a cache line, at most `size`; 0 where it never will be.
template <class T>
std::ptrdiff_t to_next_line(const T* p, std::ptrdiff_t size) noexcept {
  const auto past = static_cast<std::ptrdiff_t>(reinterpret_cast<std::uintptr_t>(p) % 64);
  constexpr auto bytes = static_cast<std::ptrdiff_t>(sizeof(T));
  if (past == 0 || past % bytes != 0) return 0;
  const std::ptrdiff_t count = (64 - past) / bytes;
  return count < size ? count : size;
}

/// Whether streaming stores may go to p and what follows it.
template <class T>
bool at_line(const T* p) noexcept {
  return reinterpret_cast<std::uintptr_t>(p) % 64 == 0;
}

template <class T>
void copy(const T* from, T* to, std::ptrdiff_t size) noexcept {
  if (size > 0) std::memcpy(to, from, static_cast<std::size_t>(size) * sizeof(T));
}

template <class Arch, bool Streaming, class T>
PARE_ALWAYS_INLINE void put(T* p, vec<T, Arch> v) noexcept {
  if constexpr (Streaming)
    store_streaming<Arch>(p, v);
  else
    store<Arch>(p, v);
}

PARE_ABI_END
}  // namespace detail
PARE_ABI_BEGIN

template <class Arch>
void run_kernel(Arch, const FinishStreaming&) noexcept {
  streaming_fence<Arch>();
}

PARE_ABI_END

}  // namespace pare::kernel

#include <pare/core/macros_on.hpp>
