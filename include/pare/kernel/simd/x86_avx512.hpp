// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// The same with intrinsics of AVX-512 and of its products of bf16 (x86.hpp).
///
/// They take their zero-masked form with a full mask where the plain one makes g++ 12 warn of an
/// uninitialised operand; both compile to the same instruction.

#include <pare/core/macros_off.hpp>

#include <pare/core/e4m3.hpp>
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

PARE_ALWAYS_INLINE std::uint32_t two_largest_on(arch::avx512, Floats16 v) noexcept {
  const auto beats = [&](__m512 other, __mmask16 wrapped) PARE_LAMBDA_INLINE {
    return static_cast<std::uint32_t>(_mm512_cmp_ps_mask(other, v, _CMP_GT_OQ)) |
           static_cast<std::uint32_t>(_mm512_mask_cmp_ps_mask(wrapped, other, v, _CMP_EQ_OQ));
  };
  const std::uint32_t first = beats(_mm512_maskz_permute_ps(0xffff, v, 0x39), 0x8888);
  const std::uint32_t second = beats(_mm512_maskz_permute_ps(0xffff, v, 0x4e), 0xcccc);
  const std::uint32_t third = beats(_mm512_maskz_permute_ps(0xffff, v, 0x93), 0xeeee);
  return ~((first & second) | (third & (first | second))) & 0xffffu;
}
PARE_ALWAYS_INLINE std::uint32_t two_largest_on(arch::avx512, Doubles8 v) noexcept {
  const auto beats = [&](__m512d other, __mmask8 wrapped) PARE_LAMBDA_INLINE {
    return static_cast<std::uint32_t>(_mm512_cmp_pd_mask(other, v, _CMP_GT_OQ)) |
           static_cast<std::uint32_t>(_mm512_mask_cmp_pd_mask(wrapped, other, v, _CMP_EQ_OQ));
  };
  const std::uint32_t first = beats(_mm512_maskz_permutex_pd(0xff, v, 0x39), 0x88);
  const std::uint32_t second = beats(_mm512_maskz_permutex_pd(0xff, v, 0x4e), 0xcc);
  const std::uint32_t third = beats(_mm512_maskz_permutex_pd(0xff, v, 0x93), 0xee);
  return ~((first & second) | (third & (first | second))) & 0xffu;
}

/// Compressed in a register, as above.
PARE_ALWAYS_INLINE void compress_eight_on(arch::avx512, const float* p, std::uint32_t bits,
                                          float* out) noexcept {
  const __m512 kept = _mm512_maskz_compress_ps(static_cast<__mmask16>(bits), _mm512_loadu_ps(p));
  _mm256_storeu_ps(out, _mm512_castps512_ps256(kept));
}
PARE_ALWAYS_INLINE void compress_eight_on(arch::avx512, const double* p, std::uint32_t bits,
                                          double* out) noexcept {
  const auto low = static_cast<__mmask8>(bits & 0xffu), high = static_cast<__mmask8>(bits >> 8);
  const __m512d first = _mm512_maskz_compress_pd(low, _mm512_loadu_pd(p));
  const __m512d second = _mm512_maskz_compress_pd(high, _mm512_loadu_pd(p + 8));
  // Two groups each: four numbers.
  _mm256_storeu_pd(out, _mm512_castpd512_pd256(first));
  _mm256_storeu_pd(out + 4, _mm512_castpd512_pd256(second));
}
template <class S>
requires(sizeof(S) == 2)
PARE_ALWAYS_INLINE void compress_eight_on(arch::avx512, const S* p, std::uint32_t bits,
                                          S* out) noexcept {
  const __m512i wide =
      _mm512_maskz_cvtepu16_epi32(0xffff, _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
  const __m512i kept = _mm512_maskz_compress_epi32(static_cast<__mmask16>(bits), wide);
  _mm_storeu_si128(reinterpret_cast<__m128i*>(out),
                   _mm256_castsi256_si128(_mm512_maskz_cvtepi32_epi16(0xffff, kept)));
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

PARE_ALWAYS_INLINE Floats16 load_signed_bytes_on(arch::avx512, const std::int8_t* p) noexcept {
  const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  return _mm512_maskz_cvtepi32_ps(0xffff, _mm512_maskz_cvtepi8_epi32(0xffff, bytes));
}

PARE_ALWAYS_INLINE Floats16 load_e4m3_on(arch::avx512, const e4m3* p) noexcept {
  const __m128i codes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  const __m256i words = _mm256_cvtepu8_epi16(codes);
  const __m256i spread = _mm256_srai_epi16(_mm256_slli_epi16(words, 8), 1);
  const __m256i halves = _mm256_and_si256(spread, _mm256_set1_epi16(-0x4001));
  const __m512 x = _mm512_mul_ps(_mm512_maskz_cvtph_ps(0xffff, halves), _mm512_set1_ps(256));
  const __m128i all = _mm_set1_epi8(0x7f);
  const __mmask16 is_nan = _mm_cmpeq_epi8_mask(_mm_and_si128(codes, all), all);
  return _mm512_mask_mov_ps(x, is_nan, _mm512_set1_ps(__builtin_nanf("")));
}

/// Numbers of bf16 for the 128 magnitudes of e4m3 codes, in registers.
struct E4m3Words {
  __m512i part[4];
};

PARE_ALWAYS_INLINE void look_up_words(const E4m3Words& table, const e4m3* p, std::ptrdiff_t count,
                                      bf16* out) noexcept {
  for (std::ptrdiff_t i = 0; i < count; i += 32) {
    const __m256i codes = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p + i));
    const __m512i words = _mm512_cvtepu8_epi16(codes);
    // Of an index a permutation takes the lower 6 bits.
    const __m512i small = _mm512_permutex2var_epi16(table.part[0], words, table.part[1]);
    const __m512i large = _mm512_permutex2var_epi16(table.part[2], words, table.part[3]);
    const __mmask32 is_large = _mm512_test_epi16_mask(words, _mm512_set1_epi16(0x40));
    const __m512i sign = _mm512_and_si512(_mm512_slli_epi16(words, 8), _mm512_set1_epi16(-0x8000));
    _mm512_storeu_si512(out + i,
                        _mm512_xor_si512(_mm512_mask_mov_epi16(small, is_large, large), sign));
  }
}

/// Numbers as words of bf16, rounded to nearest, ties to even; a NaN stays one.
PARE_ALWAYS_INLINE __m256i round_to_words(__m512 x) noexcept {
  const __m512i bits = _mm512_castps_si512(x);
  const __m512i odd =
      _mm512_and_si512(_mm512_maskz_srli_epi32(0xffff, bits, 16), _mm512_set1_epi32(1));
  const __m512i up = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
  const __m512i rounded = _mm512_mask_mov_epi32(up, _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q),
                                                _mm512_set1_epi32(0x7fc00000));
  return _mm512_maskz_cvtepi32_epi16(0xffff, _mm512_maskz_srli_epi32(0xffff, rounded, 16));
}
PARE_ALWAYS_INLINE void look_up_e4m3_on(arch::avx512, const e4m3* p, std::ptrdiff_t count,
                                        const float* magnitudes, float scale, bf16* out) noexcept {
  E4m3Words table;
  for (int i = 0; i < 4; ++i) {
    const __m512 by = _mm512_set1_ps(scale);
    const __m256i low = round_to_words(_mm512_mul_ps(_mm512_loadu_ps(magnitudes + 32 * i), by));
    const __m256i high =
        round_to_words(_mm512_mul_ps(_mm512_loadu_ps(magnitudes + 32 * i + 16), by));
    table.part[i] = _mm512_maskz_inserti64x4(0xff, _mm512_castsi256_si512(low), high, 1);
  }
  look_up_words(table, p, count, out);
}

PARE_ALWAYS_INLINE void store_e4m3_on(arch::avx512, e4m3* p, Floats16 v) noexcept {
  const __m512i bits = _mm512_castps_si512(v);
  const __m512i magnitude = _mm512_and_si512(bits, _mm512_set1_epi32(0x7fffffff));
  const __m512 size = _mm512_castsi512_ps(magnitude);
  const __m512i aligned = _mm512_castps_si512(_mm512_add_ps(size, _mm512_set1_ps(0x1p14f)));
  const __m512i subnormal = _mm512_sub_epi32(aligned, _mm512_set1_epi32(0x46800000));
  const __m512i rebiased = _mm512_sub_epi32(magnitude, _mm512_set1_epi32(120 << 23));
  const __m512i odd =
      _mm512_and_si512(_mm512_maskz_srli_epi32(0xffff, rebiased, 20), _mm512_set1_epi32(1));
  const __m512i half = _mm512_add_epi32(odd, _mm512_set1_epi32(0x7ffff));
  const __m512i normal = _mm512_maskz_srli_epi32(0xffff, _mm512_add_epi32(rebiased, half), 20);
  const __mmask16 small = _mm512_cmp_ps_mask(size, _mm512_set1_ps(0x1p-6f), _CMP_LT_OQ);
  const __mmask16 large = _mm512_cmp_ps_mask(size, _mm512_set1_ps(largest_e4m3), _CMP_GE_OQ);
  const __mmask16 is_nan = _mm512_cmp_ps_mask(size, size, _CMP_UNORD_Q);
  __m512i code = _mm512_mask_mov_epi32(normal, small, subnormal);
  code = _mm512_mask_mov_epi32(code, large, _mm512_set1_epi32(0x7e));
  code = _mm512_mask_mov_epi32(code, is_nan, _mm512_set1_epi32(0x7f));
  const __m512i sign =
      _mm512_and_si512(_mm512_maskz_srli_epi32(0xffff, bits, 24), _mm512_set1_epi32(0x80));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p),
                   _mm512_maskz_cvtepi32_epi8(0xffff, _mm512_or_si512(code, sign)));
}

// Of an index a permutation takes the lower 4 bits: it looks up the 16 values that there are.
PARE_ALWAYS_INLINE void load_nibbles_on(arch::avx512, const std::uint8_t* p, Floats16 scale,
                                        Floats16 offset, Floats16& low, Floats16& high) noexcept {
  const __m512 numbers = _mm512_setr_ps(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  const __m512 values = _mm512_fmadd_ps(numbers, scale, offset);
  const __m512i bytes =
      _mm512_maskz_cvtepu8_epi32(0xffff, _mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  low = _mm512_maskz_permutexvar_ps(0xffff, bytes, values);
  high = _mm512_maskz_permutexvar_ps(0xffff, _mm512_maskz_srli_epi32(0xffff, bytes, 4), values);
}

PARE_ALWAYS_INLINE __m512i widen_places(const std::uint8_t* p) noexcept {
  return _mm512_maskz_cvtepu8_epi32(0xffff, _mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
}
PARE_ALWAYS_INLINE __m512i widen_places(const std::uint16_t* p) noexcept {
  return _mm512_maskz_cvtepu16_epi32(0xffff,
                                     _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
}
template <class I>
PARE_ALWAYS_INLINE Floats16 look_up_on(arch::avx512, const float* table, const I* places) noexcept {
  return _mm512_mask_i32gather_ps(_mm512_setzero_ps(), 0xffff, widen_places(places), table, 4);
}

/// A table of floats in registers.
template <int Entries>
struct HeldFloats {
  Floats16 part[Entries / 16];
};
template <int Entries>
PARE_ALWAYS_INLINE HeldFloats<Entries> hold_table_on(arch::avx512, const float* table) noexcept {
  HeldFloats<Entries> held;
  for (int i = 0; i < Entries / 16; ++i) held.part[i] = Floats16(_mm512_loadu_ps(table + 16 * i));
  return held;
}
/// Entries of the registers from `first` on: pairs of registers by one permutation, halves of more
/// by a bit of the place.
template <int Entries, int Table>
PARE_ALWAYS_INLINE __m512 look_up_part(const HeldFloats<Table>& table, int first,
                                       __m512i places) noexcept {
  if constexpr (Entries == 32) {
    return _mm512_permutex2var_ps(table.part[first], places, table.part[first + 1]);
  } else {
    const __mmask16 high = _mm512_test_epi32_mask(places, _mm512_set1_epi32(Entries / 2));
    return _mm512_mask_mov_ps(look_up_part<Entries / 2>(table, first, places), high,
                              look_up_part<Entries / 2>(table, first + Entries / 32, places));
  }
}
template <int Entries, class I>
PARE_ALWAYS_INLINE Floats16 look_up_held_on(arch::avx512, const HeldFloats<Entries>& table,
                                            const I* places) noexcept {
  return Floats16(look_up_part<Entries>(table, 0, widen_places(places)));
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

PARE_ALWAYS_INLINE void index_kept_on(arch::avx512, const std::uint16_t* words,
                                      std::ptrdiff_t count, std::uint8_t* indices) noexcept {
  const __m512i table = _mm512_maskz_broadcast_i32x4(
      0xffff, _mm_setr_epi8(0, 0, 0, 4, 0, 8, 9, 0, 0, 12, 13, 0, 14, 0, 0, 0));
  const __m512i low_half = _mm512_set1_epi8(15);
  for (std::ptrdiff_t w = 0; w < count; w += 32) {
    const __mmask32 there = count - w < 32 ? (1u << (count - w)) - 1u : ~0u;
    const __m512i groups = _mm512_maskz_loadu_epi16(there, words + w);
    const __m512i low = _mm512_shuffle_epi8(table, _mm512_and_si512(groups, low_half));
    const __m512i high =
        _mm512_shuffle_epi8(table, _mm512_and_si512(_mm512_srli_epi16(groups, 4), low_half));
    // Whole: what a store with a mask wrote is not forwarded to the loads behind it.
    _mm512_storeu_si512(indices + 2 * w, _mm512_or_si512(low, _mm512_slli_epi16(high, 4)));
  }
}

// An expansion of values by a mask (vexpandps) takes 6 cycles on Zen 5, and vpexpandw of twice as
// many 9; a permutation of two registers takes one.
struct Groups16 {
  __m512 low, high;
};
struct DoubleGroups8 {
  __m512d low, high;
};
PARE_ALWAYS_INLINE Groups16 load_groups_on(arch::avx512, const float* x) noexcept {
  return {_mm512_loadu_ps(x), _mm512_loadu_ps(x + 16)};
}
PARE_ALWAYS_INLINE DoubleGroups8 load_groups_on(arch::avx512, const double* x) noexcept {
  return {_mm512_loadu_pd(x), _mm512_loadu_pd(x + 8)};
}
// (indices & 3) | first of the group
PARE_ALWAYS_INLINE __m512i kept_places_on(arch::avx512, const float*,
                                          const std::uint8_t* indices) noexcept {
  int bits;
  __builtin_memcpy(&bits, indices, sizeof bits);
  const __m512i index = _mm512_maskz_srlv_epi32(
      0xffff, _mm512_set1_epi32(bits),
      _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30));
  return _mm512_ternarylogic_epi32(
      index, _mm512_set1_epi32(3),
      _mm512_setr_epi32(0, 0, 4, 4, 8, 8, 12, 12, 16, 16, 20, 20, 24, 24, 28, 28), 0xea);
}
PARE_ALWAYS_INLINE __m512i kept_places_on(arch::avx512, const double*,
                                          const std::uint8_t* indices) noexcept {
  const __m512i index =
      _mm512_maskz_srlv_epi64(0xff, _mm512_set1_epi64(indices[0] | indices[1] << 8),
                              _mm512_setr_epi64(0, 2, 4, 6, 8, 10, 12, 14));
  return _mm512_ternarylogic_epi64(index, _mm512_set1_epi64(3),
                                   _mm512_setr_epi64(0, 0, 4, 4, 8, 8, 12, 12), 0xea);
}
PARE_ALWAYS_INLINE Floats16 take_kept_on(arch::avx512, const Groups16& groups,
                                         __m512i places) noexcept {
  return _mm512_permutex2var_ps(groups.low, places, groups.high);
}
PARE_ALWAYS_INLINE Doubles8 take_kept_on(arch::avx512, const DoubleGroups8& groups,
                                         __m512i places) noexcept {
  return _mm512_permutex2var_pd(groups.low, places, groups.high);
}

PARE_ALWAYS_INLINE __m256 load_eight(const float* p) noexcept { return _mm256_loadu_ps(p); }
PARE_ALWAYS_INLINE __m256 load_eight(const std::int8_t* p) noexcept {
  return load_signed_bytes_on(arch::avx2{}, p);
}
template <class S>
PARE_ALWAYS_INLINE __m256 load_eight(const S* p) noexcept {
  return load_widened_on(arch::avx2{}, p);
}
/// Value 2 g of group g, or the one behind it where the group keeps a lower input.
template <class S>
PARE_ALWAYS_INLINE void expand_kept_on(arch::avx512, const S* values, unsigned word,
                                       float* out) noexcept {
  const unsigned second = (word << 1 & 0xeeeeu) | (word << 2 & 0xccccu) | (word << 3 & 0x8888u);
  const __m512i first = _mm512_setr_epi32(0, 0, 0, 0, 2, 2, 2, 2, 4, 4, 4, 4, 6, 6, 6, 6);
  const __m512i place =
      _mm512_mask_add_epi32(first, static_cast<__mmask16>(second), first, _mm512_set1_epi32(1));
  _mm512_storeu_ps(out, _mm512_maskz_permutexvar_ps(static_cast<__mmask16>(word), place,
                                                    _mm512_castps256_ps512(load_eight(values))));
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

PARE_ALWAYS_INLINE void look_up_e4m3_on(arch::avx512_bf16, const e4m3* p, std::ptrdiff_t count,
                                        const float* magnitudes, float scale, bf16* out) noexcept {
  E4m3Words table;
  for (int i = 0; i < 4; ++i) {
    const __m512 by = _mm512_set1_ps(scale);
    table.part[i] =
        (__m512i)_mm512_cvtne2ps_pbh(_mm512_mul_ps(_mm512_loadu_ps(magnitudes + 32 * i + 16), by),
                                     _mm512_mul_ps(_mm512_loadu_ps(magnitudes + 32 * i), by));
  }
  look_up_words(table, p, count, out);
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
