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

PARE_ALWAYS_INLINE vec<std::int32_t, arch::neon> add_word_products_on(
    arch::neon, vec<std::int32_t, arch::neon> sum, vec<std::int32_t, arch::neon> a,
    vec<std::int32_t, arch::neon> b) noexcept {
  const int16x8_t x = vreinterpretq_s16_s32(a), y = vreinterpretq_s16_s32(b);
  const int32x4_t low = vmull_s16(vget_low_s16(x), vget_low_s16(y)), high = vmull_high_s16(x, y);
  return vaddq_s32(sum, vpaddq_s32(low, high));
}
PARE_ALWAYS_INLINE vec<std::int32_t, arch::neon> load_byte_pairs_on(arch::neon,
                                                                    const std::int8_t* p) noexcept {
  return vreinterpretq_s32_s16(vmovl_s8(vld1_s8(p)));
}

// The bytes of the lanes that are taken: lane l of two groups, 4 l and the three behind it.
PARE_ALWAYS_INLINE uint8x16x2_t load_groups_on(arch::neon, const float* x) noexcept {
  return {{vreinterpretq_u8_f32(vld1q_f32(x)), vreinterpretq_u8_f32(vld1q_f32(x + 4))}};
}
PARE_ALWAYS_INLINE uint8x16_t kept_places_on(arch::neon, const float*,
                                             const std::uint8_t* indices) noexcept {
  constexpr std::int32_t down[] = {0, -2, -4, -6};
  constexpr std::uint32_t first[] = {0x03020100u, 0x03020100u, 0x13121110u, 0x13121110u};
  const uint32x4_t index =
      vandq_u32(vshlq_u32(vdupq_n_u32(*indices), vld1q_s32(down)), vdupq_n_u32(3));
  return vreinterpretq_u8_u32(vmlaq_n_u32(vld1q_u32(first), index, 0x04040404u));
}
PARE_ALWAYS_INLINE vec<float, arch::neon> take_kept_on(arch::neon, const uint8x16x2_t& groups,
                                                       uint8x16_t places) noexcept {
  return vreinterpretq_f32_u8(vqtbl2q_u8(groups, places));
}

#endif

PARE_ABI_END
}  // namespace pare::kernel::detail

#include <pare/core/macros_on.hpp>
