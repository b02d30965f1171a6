// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// The same with intrinsics of AVX-512 and of its products of bf16 (x86.hpp); what 2:4 weights and
/// codes ask for stands in x86_avx512_two_four.hpp and x86_avx512_codes.hpp.
///
/// They take their zero-masked form with a full mask where the plain one makes g++ 12 warn of an
/// uninitialised operand; both compile to the same instruction.

#include <pare/core/macros_off.hpp>

#include <pare/kernel/simd/contract.hpp>
#include <pare/kernel/simd/x86.hpp>

#include <cstddef>
#include <cstdint>

namespace pare::kernel::detail {
PARE_ABI_BEGIN

#if defined(__AVX512F__) && defined(__AVX512BW__)

using Floats16 = vec<float, arch::avx512>;
using Doubles8 = vec<double, arch::avx512>;
using Words8 = vec<std::uint64_t, arch::avx512>;
// Keys that are sorted.
using Keys16 = vec<std::int32_t, arch::avx512>;
using Keys8 = vec<std::int64_t, arch::avx512>;

PARE_ALWAYS_INLINE void store_streaming_on(arch::avx512, float* p, Floats16 v) noexcept {
  _mm512_stream_ps(p, v);
}
PARE_ALWAYS_INLINE void store_streaming_on(arch::avx512, double* p, Doubles8 v) noexcept {
  _mm512_stream_pd(p, v);
}
PARE_ALWAYS_INLINE void streaming_fence_on(arch::avx512) noexcept { _mm_sfence(); }
/// Compressed in a register and stored whole: the form that stores what is compressed is slow.
PARE_ALWAYS_INLINE std::int32_t* list_bits_on(arch::avx512, std::uint64_t bits, std::int32_t first,
                                              std::int32_t* out) noexcept {
  __m512i number =
      _mm512_add_epi32(_mm512_set1_epi32(first),
                       _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15));
  for (int part = 0; part < 4; ++part) {
    const auto some = static_cast<__mmask16>(bits >> (16 * part));
    _mm512_storeu_si512(out, _mm512_maskz_compress_epi32(some, number));
    out += __builtin_popcount(some);
    number = _mm512_add_epi32(number, _mm512_set1_epi32(16));
  }
  return out;
}

// xsimd 8.1 multiplies and adds, and clang does not contract that back.
PARE_ALWAYS_INLINE Floats16 multiply_add_on(arch::avx512, Floats16 a, Floats16 b,
                                            Floats16 c) noexcept {
  return _mm512_fmadd_ps(a, b, c);
}
PARE_ALWAYS_INLINE Doubles8 multiply_add_on(arch::avx512, Doubles8 a, Doubles8 b,
                                            Doubles8 c) noexcept {
  return _mm512_fmadd_pd(a, b, c);
}

// xsimd halves registers of doubles with an intrinsic that g++ 12 warns of.
PARE_ALWAYS_INLINE double reduce_add_on(arch::avx512, Doubles8 v) noexcept {
  const __m256d low = _mm512_maskz_extractf64x4_pd(0xf, v, 0);
  const __m256d high = _mm512_maskz_extractf64x4_pd(0xf, v, 1);
  const __m256d halves = _mm256_add_pd(low, high);
  const __m128d quarters =
      _mm_add_pd(_mm256_castpd256_pd128(halves), _mm256_extractf128_pd(halves, 1));
  return _mm_cvtsd_f64(_mm_add_sd(quarters, _mm_unpackhi_pd(quarters, quarters)));
}

PARE_ALWAYS_INLINE Floats16 maximum_on(arch::avx512, Floats16 a, Floats16 b) noexcept {
  return _mm512_maskz_max_ps(0xffff, a, b);
}
PARE_ALWAYS_INLINE Doubles8 maximum_on(arch::avx512, Doubles8 a, Doubles8 b) noexcept {
  return _mm512_maskz_max_pd(0xff, a, b);
}

// xsimd's own make g++ 12 warn.
PARE_ALWAYS_INLINE Keys16 maximum_on(arch::avx512, Keys16 a, Keys16 b) noexcept {
  return _mm512_maskz_max_epi32(0xffff, a, b);
}
PARE_ALWAYS_INLINE Keys8 maximum_on(arch::avx512, Keys8 a, Keys8 b) noexcept {
  return _mm512_maskz_max_epi64(0xff, a, b);
}
PARE_ALWAYS_INLINE Keys16 minimum_on(arch::avx512, Keys16 a, Keys16 b) noexcept {
  return _mm512_maskz_min_epi32(0xffff, a, b);
}
PARE_ALWAYS_INLINE Keys8 minimum_on(arch::avx512, Keys8 a, Keys8 b) noexcept {
  return _mm512_maskz_min_epi64(0xff, a, b);
}

PARE_ALWAYS_INLINE float reduce_max_on(arch::avx512, Floats16 v) noexcept {
  const __m512d bits = _mm512_castps_pd(v);
  const __m256 low = _mm256_castpd_ps(_mm512_maskz_extractf64x4_pd(0xf, bits, 0));
  const __m256 high = _mm256_castpd_ps(_mm512_maskz_extractf64x4_pd(0xf, bits, 1));
  return reduce_max_on(arch::avx2{}, vec<float, arch::avx2>(_mm256_max_ps(low, high)));
}
PARE_ALWAYS_INLINE double reduce_max_on(arch::avx512, Doubles8 v) noexcept {
  const __m256d low = _mm512_maskz_extractf64x4_pd(0xf, v, 0);
  const __m256d high = _mm512_maskz_extractf64x4_pd(0xf, v, 1);
  return reduce_max_on(arch::avx2{}, vec<double, arch::avx2>(_mm256_max_pd(low, high)));
}

PARE_ALWAYS_INLINE void widen_floats_on(arch::avx512, Floats16 v, Doubles8* out) noexcept {
  const __m512d halves = _mm512_castps_pd(v);
  const __m256d low = _mm512_maskz_extractf64x4_pd(0xf, halves, 0);
  const __m256d high = _mm512_maskz_extractf64x4_pd(0xf, halves, 1);
  out[0] = _mm512_maskz_cvtps_pd(0xff, _mm256_castpd_ps(low));
  out[1] = _mm512_maskz_cvtps_pd(0xff, _mm256_castpd_ps(high));
}
PARE_ALWAYS_INLINE Floats16 narrow_doubles_on(arch::avx512, const Doubles8* v) noexcept {
  const __m256d low = _mm256_castps_pd(_mm512_maskz_cvtpd_ps(0xff, v[0]));
  const __m256d high = _mm256_castps_pd(_mm512_maskz_cvtpd_ps(0xff, v[1]));
  return _mm512_castpd_ps(_mm512_maskz_insertf64x4(0xff, _mm512_castpd256_pd512(low), high, 1));
}
PARE_ALWAYS_INLINE std::uint32_t nonzero_lanes_on(arch::avx512, Floats16 v) noexcept {
  return _mm512_cmp_ps_mask(v, _mm512_setzero_ps(), _CMP_NEQ_UQ);
}
PARE_ALWAYS_INLINE std::uint32_t nonzero_lanes_on(arch::avx512, Doubles8 v) noexcept {
  return _mm512_cmp_pd_mask(v, _mm512_setzero_pd(), _CMP_NEQ_UQ);
}

PARE_ALWAYS_INLINE Floats16 to_floats_on(arch::avx512, Keys16 v) noexcept {
  return _mm512_maskz_cvtepi32_ps(0xffff, v);
}

/// The bits of bf16 as floats.
PARE_ALWAYS_INLINE Floats16 widen_words(__m256i bits) noexcept {
  return _mm512_castsi512_ps(
      _mm512_maskz_slli_epi32(0xffff, _mm512_maskz_cvtepu16_epi32(0xffff, bits), 16));
}
PARE_ALWAYS_INLINE Floats16 load_widened_on(arch::avx512, const bf16* p) noexcept {
  return widen_words(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
}
PARE_ALWAYS_INLINE Floats16 load_widened_on(arch::avx512, const f16* p) noexcept {
  return _mm512_maskz_cvtph_ps(0xffff, _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
}

PARE_ALWAYS_INLINE Floats16 load_first_on(arch::avx512, const float* p, std::ptrdiff_t count,
                                          Floats16 fill) noexcept {
  return _mm512_mask_loadu_ps(fill, static_cast<__mmask16>((1u << count) - 1u), p);
}
PARE_ALWAYS_INLINE Doubles8 load_first_on(arch::avx512, const double* p, std::ptrdiff_t count,
                                          Doubles8 fill) noexcept {
  return _mm512_mask_loadu_pd(fill, static_cast<__mmask8>((1u << count) - 1u), p);
}

PARE_ALWAYS_INLINE void store_rounded_on(arch::avx512, f16* p, Floats16 v) noexcept {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_maskz_cvtps_ph(0xffff, v, 0));
}

PARE_ALWAYS_INLINE Floats16 swap_pairs_on(arch::avx512, Floats16 v) noexcept {
  return _mm512_maskz_permute_ps(0xffff, v, 0xb1);
}
PARE_ALWAYS_INLINE Doubles8 swap_pairs_on(arch::avx512, Doubles8 v) noexcept {
  return _mm512_maskz_permute_pd(0xff, v, 0x55);
}

PARE_ALWAYS_INLINE void broadcast_pair_on(arch::avx512, const float* p, Floats16& first,
                                          Floats16& second) noexcept {
  double bits;
  __builtin_memcpy(&bits, p, sizeof bits);
  const __m512 pair = _mm512_castpd_ps(_mm512_set1_pd(bits));
  first = _mm512_maskz_moveldup_ps(0xffff, pair);
  second = _mm512_maskz_movehdup_ps(0xffff, pair);
}
PARE_ALWAYS_INLINE void broadcast_pair_on(arch::avx512, const double* p, Doubles8& first,
                                          Doubles8& second) noexcept {
  const __m512d pair = _mm512_maskz_broadcast_f64x2(0xff, _mm_loadu_pd(p));
  first = _mm512_maskz_movedup_pd(0xff, pair);
  second = _mm512_maskz_permute_pd(0xff, pair, 0xff);
}

PARE_ALWAYS_INLINE Words8 multiply_low_words_on(arch::avx512, Words8 a, Words8 b) noexcept {
  return _mm512_maskz_mul_epu32(0xff, a, b);
}
PARE_ALWAYS_INLINE Words8 high_words_on(arch::avx512, Words8 a) noexcept {
  return _mm512_maskz_srli_epi64(0xff, a, 32);
}

// xsimd 8.1 has none over the full register.
PARE_ALWAYS_INLINE Floats16 interleave_low_on(arch::avx512, Floats16 a, Floats16 b) noexcept {
  return _mm512_permutex2var_ps(
      a, _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23), b);
}
PARE_ALWAYS_INLINE Doubles8 interleave_low_on(arch::avx512, Doubles8 a, Doubles8 b) noexcept {
  return _mm512_permutex2var_pd(a, _mm512_setr_epi64(0, 8, 1, 9, 2, 10, 3, 11), b);
}
PARE_ALWAYS_INLINE Floats16 interleave_high_on(arch::avx512, Floats16 a, Floats16 b) noexcept {
  return _mm512_permutex2var_ps(
      a, _mm512_setr_epi32(8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31), b);
}
PARE_ALWAYS_INLINE Doubles8 interleave_high_on(arch::avx512, Doubles8 a, Doubles8 b) noexcept {
  return _mm512_permutex2var_pd(a, _mm512_setr_epi64(4, 12, 5, 13, 6, 14, 7, 15), b);
}

/// Of a quarter, which four lanes share, the lane.
template <std::size_t I>
PARE_ALWAYS_INLINE Floats16 spread_lane_on(arch::avx512, Floats16 v) noexcept {
  constexpr int quarter = static_cast<int>(I / 4) * 0x55, lane = static_cast<int>(I % 4) * 0x55;
  return _mm512_maskz_permute_ps(0xffff, _mm512_maskz_shuffle_f32x4(0xffff, v, v, quarter), lane);
}

// A shuffle of 512 bits takes a cycle of one pipe, a permutation by indices 1.4, and a blend goes
// to any pipe.
template <int Distance>
PARE_ALWAYS_INLINE Floats16 trade_lanes_on(arch::avx512, Floats16 a, Floats16 b) noexcept {
  if constexpr (Distance == 8)
    return _mm512_maskz_shuffle_f32x4(0xffff, a, b, 0x4e);
  else if constexpr (Distance == 4) {
    const __m512 both = _mm512_mask_blend_ps(0xf0f0, b, a);
    return _mm512_maskz_shuffle_f32x4(0xffff, both, both, 0xb1);
  } else if constexpr (Distance == 2) {
    return _mm512_shuffle_ps(a, b, 0x4e);
  } else {
    const __m512 both = _mm512_mask_blend_ps(0xaaaa, b, a);
    return _mm512_shuffle_ps(both, both, 0xb1);
  }
}
template <int Distance>
PARE_ALWAYS_INLINE Floats16 keep_lanes_on(arch::avx512, Floats16 a, Floats16 b) noexcept {
  constexpr __mmask16 second = Distance == 8   ? 0xff00
                               : Distance == 4 ? 0xf0f0
                               : Distance == 2 ? 0xcccc
                                               : 0xaaaa;
  return _mm512_mask_blend_ps(second, a, b);
}

PARE_ALWAYS_INLINE Floats16 round_nearest_on(arch::avx512, Floats16 v) noexcept {
  return _mm512_maskz_roundscale_ps(0xffff, v, 0);
}
PARE_ALWAYS_INLINE Doubles8 round_nearest_on(arch::avx512, Doubles8 v) noexcept {
  return _mm512_maskz_roundscale_pd(0xff, v, 0);
}
PARE_ALWAYS_INLINE Floats16 scale_exponent_on(arch::avx512, Floats16 v, Floats16 n) noexcept {
  return _mm512_maskz_scalef_ps(0xffff, v, n);
}
PARE_ALWAYS_INLINE Doubles8 scale_exponent_on(arch::avx512, Doubles8 v, Doubles8 n) noexcept {
  return _mm512_maskz_scalef_pd(0xff, v, n);
}
PARE_ALWAYS_INLINE Floats16 scale_exponent_on(arch::avx512, Floats16 v, Floats16 n, Floats16 x,
                                              Floats16 smallest) noexcept {
  return _mm512_maskz_scalef_ps(_mm512_cmp_ps_mask(x, smallest, _CMP_NLT_UQ), v, n);
}
PARE_ALWAYS_INLINE Doubles8 scale_exponent_on(arch::avx512, Doubles8 v, Doubles8 n, Doubles8 x,
                                              Doubles8 smallest) noexcept {
  return _mm512_maskz_scalef_pd(_mm512_cmp_pd_mask(x, smallest, _CMP_NLT_UQ), v, n);
}

#endif
#if defined(__AVX512BF16__)

PARE_ALWAYS_INLINE Floats16 multiply_add_pairs_on(arch::avx512_bf16, Floats16 a, Floats16 b,
                                                  Floats16 c) noexcept {
  return _mm512_dpbf16_ps(c, (__m512bh)_mm512_castps_si512(a), (__m512bh)_mm512_castps_si512(b));
}

PARE_ALWAYS_INLINE Floats16 store_rounded_on(arch::avx512_bf16, bf16* p, Floats16 v) noexcept {
  const __m256i bits = (__m256i)_mm512_cvtneps_pbh(v);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), bits);
  return widen_words(bits);
}

PARE_ALWAYS_INLINE Floats16 store_rounded_on(arch::avx512_bf16, bf16* p, Floats16 first,
                                             Floats16 second) noexcept {
  const __m512i bits = (__m512i)_mm512_cvtne2ps_pbh(second, first);
  _mm512_storeu_si512(p, bits);
  return _mm512_castsi512_ps(bits);
}

PARE_ALWAYS_INLINE Floats16 load_pairs_on(arch::avx512_bf16, const bf16* a,
                                          const bf16* b) noexcept {
  const __m512i low =
      _mm512_maskz_cvtepu16_epi32(0xffff, _mm256_loadu_si256(reinterpret_cast<const __m256i*>(a)));
  const __m512i high =
      _mm512_maskz_cvtepu16_epi32(0xffff, _mm256_loadu_si256(reinterpret_cast<const __m256i*>(b)));
  return _mm512_castsi512_ps(_mm512_or_si512(low, _mm512_maskz_slli_epi32(0xffff, high, 16)));
}
PARE_ALWAYS_INLINE void pair_words_on(arch::avx512_bf16, Floats16 a, Floats16 b, Floats16& first,
                                      Floats16& second) noexcept {
  const __m512i x = _mm512_castps_si512(a), y = _mm512_castps_si512(b);
  // Word 2 i is a's i-th, word 2 i + 1 b's; b's words are numbered from 32.
  const __m512i low = _mm512_set_epi32(0x2f000f, 0x2e000e, 0x2d000d, 0x2c000c, 0x2b000b, 0x2a000a,
                                       0x290009, 0x280008, 0x270007, 0x260006, 0x250005, 0x240004,
                                       0x230003, 0x220002, 0x210001, 0x200000);
  const __m512i high = _mm512_add_epi32(low, _mm512_set1_epi32(0x100010));
  first = Floats16(_mm512_castsi512_ps(_mm512_permutex2var_epi16(x, low, y)));
  second = Floats16(_mm512_castsi512_ps(_mm512_permutex2var_epi16(x, high, y)));
}
PARE_ALWAYS_INLINE void load_pairs_on(arch::avx512_bf16 arch, const bf16* a, const bf16* b,
                                      Floats16& first, Floats16& second) noexcept {
  pair_words_on(arch, _mm512_castsi512_ps(_mm512_loadu_si512(a)),
                _mm512_castsi512_ps(_mm512_loadu_si512(b)), first, second);
}
PARE_ALWAYS_INLINE Floats16 load_first_words_on(arch::avx512_bf16, const bf16* p,
                                                std::ptrdiff_t count) noexcept {
  const auto mask = static_cast<__mmask32>((std::uint64_t{1} << count) - 1u);
  return _mm512_castsi512_ps(_mm512_maskz_loadu_epi16(mask, p));
}

#endif

PARE_ABI_END
}  // namespace pare::kernel::detail

#include <pare/core/macros_on.hpp>
