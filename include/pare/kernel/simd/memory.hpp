// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Memory in the vector layer, beside the loads and stores of contract.hpp: stores past the caches,
/// what is fetched ahead, pairs, and lists of bits.
///
/// ```cpp
/// prefetch(p, 2048);
/// store_streaming<Arch>(line, sum);
/// streaming_fence<Arch>();
/// ```

#include <pare/core/macros_off.hpp>

#include <pare/kernel/simd/archs.hpp>

#include <cstddef>
#include <cstdint>

namespace pare::kernel {
PARE_ABI_BEGIN

/// Stores a whole cache line past the caches where a register holds one (AVX-512), which spares
/// reading it first; plain elsewhere. p is aligned to 64 bytes, and `streaming_fence` must follow.
template <class Arch, class T>
PARE_ALWAYS_INLINE void store_streaming(T* p, vec<T, Arch> v) noexcept {
  if constexpr (requires { detail::store_streaming_on(Arch{}, p, v); })
    detail::store_streaming_on(Arch{}, p, v);
  else
    store<Arch>(p, v);
}

/// Orders streaming stores before all that follows.
template <class Arch>
PARE_ALWAYS_INLINE void streaming_fence() noexcept {
  if constexpr (requires { detail::streaming_fence_on(Arch{}); })
    detail::streaming_fence_on(Arch{});
}

/// Asks for the cache line `ahead` bytes behind p, to be read soon; never faults, wherever that is.
/// Locality 3 is all caches, 2 is L2.
template <int Locality = 3>
PARE_ALWAYS_INLINE void prefetch(const void* p, std::ptrdiff_t ahead = 0) noexcept {
  // Integers, since the sum may point nowhere.
  const auto address = reinterpret_cast<std::uintptr_t>(p) + static_cast<std::uintptr_t>(ahead);
  // NOLINTNEXTLINE(performance-no-int-to-ptr): nothing is read through it
  __builtin_prefetch(reinterpret_cast<const void*>(address), 0, Locality);
}

/// The same register, of which the compiler does not know that memory has it too: g++ would load it
/// again for each use where it believes registers to be short.
template <class V>
PARE_ALWAYS_INLINE V held(V v) noexcept {
#if defined(__GNUC__) && defined(__x86_64__)
  if constexpr (detail::is_batch<V>) __asm__("" : "+v"(v.data));
#endif
  return v;
}

/// first = p[0] and second = p[1] in every lane, by one load where an arch can.
template <class Arch, ComputeScalar T>
PARE_ALWAYS_INLINE void broadcast_pair(const T* p, vec<T, Arch>& first,
                                       vec<T, Arch>& second) noexcept {
  if constexpr (requires { detail::broadcast_pair_on(Arch{}, p, first, second); }) {
    detail::broadcast_pair_on(Arch{}, p, first, second);
  } else {
    first = broadcast<Arch>(p[0]);
    second = broadcast<Arch>(p[1]);
  }
}

/// Writes first + i for each bit i of `bits`, ascending, and returns the place behind the last. Up
/// to 16 places more may be written.
template <class Arch>
PARE_ALWAYS_INLINE std::int32_t* list_bits(std::uint64_t bits, std::int32_t first,
                                           std::int32_t* out) noexcept {
  if constexpr (requires { detail::list_bits_on(Arch{}, bits, first, out); })
    return detail::list_bits_on(Arch{}, bits, first, out);
  else
    return detail::generic_list_bits(bits, first, out);
}

PARE_ABI_END
}  // namespace pare::kernel

#include <pare/core/macros_on.hpp>
