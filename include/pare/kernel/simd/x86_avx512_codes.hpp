// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// What codes of few bits ask of AVX-512 (codes.hpp): bytes and e4m3 as floats, tables in
/// registers.

#include <pare/core/macros_off.hpp>

#include <pare/core/e4m3.hpp>
#include <pare/kernel/simd/contract.hpp>
#include <pare/kernel/simd/x86.hpp>
#include <pare/kernel/simd/x86_avx512.hpp>

#include <cstddef>
#include <cstdint>

namespace pare::kernel::detail {
PARE_ABI_BEGIN

#if defined(__AVX512F__) && defined(__AVX512BW__)

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

PARE_ALWAYS_INLINE vec<std::int32_t, arch::avx512> add_word_products_on(
    arch::avx512, vec<std::int32_t, arch::avx512> sum, vec<std::int32_t, arch::avx512> a,
    vec<std::int32_t, arch::avx512> b) noexcept {
  return _mm512_add_epi32(sum, _mm512_madd_epi16(a, b));
}
PARE_ALWAYS_INLINE vec<std::int32_t, arch::avx512> load_byte_pairs_on(
    arch::avx512, const std::int8_t* p) noexcept {
  return _mm512_maskz_cvtepi8_epi16(0xffffffffu,
                                    _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
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

#endif
#if defined(__AVX512VNNI__)

PARE_ALWAYS_INLINE vec<std::int32_t, arch::avx512> add_byte_products_on(
    arch::avx512_vnni, vec<std::int32_t, arch::avx512> sum, vec<std::int32_t, arch::avx512> a,
    vec<std::int32_t, arch::avx512> b) noexcept {
  return _mm512_dpbusd_epi32(sum, a, b);
}
PARE_ALWAYS_INLINE vec<std::int32_t, arch::avx512> load_first_bytes_on(
    arch::avx512_vnni, const std::int8_t* p, std::ptrdiff_t count) noexcept {
  return _mm512_maskz_loadu_epi8((std::uint64_t{1} << count) - 1u, p);
}

/// Bytes of 16 by planes of codes in them.
struct PlaneLookUp {
  __m512i table, mask;

  PARE_ALWAYS_INLINE PlaneLookUp(const std::uint8_t* values, int bits) noexcept
      : table(_mm512_maskz_broadcast_i32x4(
            0xffff, _mm_loadu_si128(reinterpret_cast<const __m128i*>(values)))),
        mask(_mm512_set1_epi8(static_cast<char>((1 << bits) - 1))) {}
  PARE_ALWAYS_INLINE __m512i operator()(__m512i codes, __m512i shifts) const noexcept {
    const __m512i places = _mm512_maskz_srlv_epi16(0xffffffffu, codes, shifts);
    return _mm512_shuffle_epi8(table, _mm512_and_si512(places, mask));
  }
};

/// Rows of 32 or 16 bytes: two or four planes in a register.
template <std::ptrdiff_t Bytes>
PARE_ALWAYS_INLINE void look_up_short_planes(const PlaneLookUp& look_up, const std::uint8_t* p,
                                             std::ptrdiff_t rows, int bits,
                                             std::uint8_t* out) noexcept {
  alignas(64) std::int16_t of_words[32];
  for (std::ptrdiff_t i = 0; i < 32; ++i)
    of_words[i] = static_cast<std::int16_t>(2 * i / Bytes * bits);
  const __m512i first = _mm512_load_si512(of_words);
  for (std::ptrdiff_t r = 0; r < rows; ++r, p += Bytes) {
    __m512i codes;
    if constexpr (Bytes == 32)
      codes = _mm512_maskz_broadcast_i64x4(0xff,
                                           _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
    else
      codes = _mm512_maskz_broadcast_i32x4(0xffff,
                                           _mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
    for (int shift = 0; shift < 8; shift += static_cast<int>(64 / Bytes) * bits, out += 64)
      _mm512_storeu_si512(
          out, look_up(codes, _mm512_add_epi16(
                                  first, _mm512_set1_epi16(static_cast<std::int16_t>(shift)))));
  }
}

PARE_ALWAYS_INLINE void look_up_planes_on(arch::avx512_vnni, const std::uint8_t* p,
                                          std::ptrdiff_t rows, std::ptrdiff_t bytes, int bits,
                                          const std::uint8_t* table, std::uint8_t* out) noexcept {
  const PlaneLookUp look_up(table, bits);
  if (bytes == 32) return look_up_short_planes<32>(look_up, p, rows, bits, out);
  if (bytes == 16 && bits < 4) return look_up_short_planes<16>(look_up, p, rows, bits, out);
  for (std::ptrdiff_t r = 0; r < rows; ++r, p += bytes)
    for (int shift = 0; shift < 8; shift += bits, out += bytes) {
      const __m512i shifts = _mm512_set1_epi16(static_cast<std::int16_t>(shift));
      std::ptrdiff_t i = 0;
      for (; i + 64 <= bytes; i += 64)
        _mm512_storeu_si512(out + i, look_up(_mm512_loadu_si512(p + i), shifts));
      if (i == bytes) continue;
      const __mmask64 there = (__mmask64{1} << (bytes - i)) - 1;
      _mm512_mask_storeu_epi8(out + i, there,
                              look_up(_mm512_maskz_loadu_epi8(there, p + i), shifts));
    }
}

#endif
#if defined(__AVX512BF16__)

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

#endif

PARE_ABI_END
}  // namespace pare::kernel::detail

#include <pare/core/macros_on.hpp>
