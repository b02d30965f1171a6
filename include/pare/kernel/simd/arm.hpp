// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Operations of the vector layer with intrinsics of AArch64, where xsimd lacks them.

#include <pare/core/macros_off.hpp>

#include <pare/kernel/simd/contract.hpp>

#include <cstdint>

namespace pare::kernel::detail {
PARE_ABI_BEGIN

#if defined(__aarch64__)

// b where either is a NaN, which the instruction does not give.
template <class T>
PARE_ALWAYS_INLINE xsimd::batch<T, xsimd::neon64> maximum_on(
    arch::neon, xsimd::batch<T, xsimd::neon64> a, xsimd::batch<T, xsimd::neon64> b) noexcept {
  return xsimd::select(a > b, a, b);
}

PARE_ALWAYS_INLINE float reduce_max_on(arch::neon, vec<float, arch::neon> v) noexcept {
  return vmaxvq_f32(v);
}
PARE_ALWAYS_INLINE double reduce_max_on(arch::neon, vec<double, arch::neon> v) noexcept {
  return vmaxvq_f64(v);
}

PARE_ALWAYS_INLINE vec<float, arch::neon> swap_pairs_on(arch::neon,
                                                        vec<float, arch::neon> v) noexcept {
  return vrev64q_f32(v);
}
PARE_ALWAYS_INLINE vec<double, arch::neon> swap_pairs_on(arch::neon,
                                                         vec<double, arch::neon> v) noexcept {
  return vextq_f64(v, v, 1);
}

PARE_ALWAYS_INLINE vec<std::uint64_t, arch::neon> multiply_low_words_on(
    arch::neon, vec<std::uint64_t, arch::neon> a, vec<std::uint64_t, arch::neon> b) noexcept {
  return vmull_u32(vmovn_u64(a), vmovn_u64(b));
}

#endif

PARE_ABI_END
}  // namespace pare::kernel::detail

#include <pare/core/macros_on.hpp>
