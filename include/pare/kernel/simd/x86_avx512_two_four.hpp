// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// What 2:4 weights ask of AVX-512 (two_four.hpp): which two of four stay, and kept inputs side by
/// side.

#include <pare/core/macros_off.hpp>

#include <pare/kernel/simd/contract.hpp>
#include <pare/kernel/simd/x86.hpp>
#include <pare/kernel/simd/x86_avx512.hpp>

#include <cstddef>
#include <cstdint>

namespace pare::kernel::detail {
PARE_ABI_BEGIN

#if defined(__AVX512F__) && defined(__AVX512BW__)

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

/// Compressed in a register and stored whole, as list_bits_on.
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

/// Groups of four side by side become four registers, of the first number of each group to the
/// last: lane 4 l + i is of the group that lies in part l of register i, the (4 i + l)-th.
PARE_ALWAYS_INLINE void turn_groups(__m512 (&v)[4]) noexcept {
  const __m512d a = _mm512_castps_pd(_mm512_maskz_unpacklo_ps(0xffff, v[0], v[1]));
  const __m512d b = _mm512_castps_pd(_mm512_maskz_unpackhi_ps(0xffff, v[0], v[1]));
  const __m512d c = _mm512_castps_pd(_mm512_maskz_unpacklo_ps(0xffff, v[2], v[3]));
  const __m512d d = _mm512_castps_pd(_mm512_maskz_unpackhi_ps(0xffff, v[2], v[3]));
  v[0] = _mm512_castpd_ps(_mm512_maskz_unpacklo_pd(0xff, a, c));
  v[1] = _mm512_castpd_ps(_mm512_maskz_unpackhi_pd(0xff, a, c));
  v[2] = _mm512_castpd_ps(_mm512_maskz_unpacklo_pd(0xff, b, d));
  v[3] = _mm512_castpd_ps(_mm512_maskz_unpackhi_pd(0xff, b, d));
}

/// The words of 16 turned groups, given which numbers of them stay.
PARE_ALWAYS_INLINE __m128i words_of_turned(const __mmask16 (&stays)[4]) noexcept {
  const __m512i first =
      _mm512_setr_epi32(1, 1, 1, 1, 16, 16, 16, 16, 256, 256, 256, 256, 4096, 4096, 4096, 4096);
  __m512i bits = _mm512_maskz_mov_epi32(stays[0], first);
  bits = _mm512_mask_or_epi32(bits, stays[1], bits, _mm512_maskz_slli_epi32(0xffff, first, 1));
  bits = _mm512_mask_or_epi32(bits, stays[2], bits, _mm512_maskz_slli_epi32(0xffff, first, 2));
  bits = _mm512_mask_or_epi32(bits, stays[3], bits, _mm512_maskz_slli_epi32(0xffff, first, 3));
  const __m256i half =
      _mm256_or_si256(_mm512_castsi512_si256(bits), _mm512_maskz_extracti64x4_epi64(0xf, bits, 1));
  const __m128i part =
      _mm_or_si128(_mm256_castsi256_si128(half), _mm256_extracti128_si256(half, 1));
  return _mm_packus_epi32(part, part);
}

/// Which of turned groups stay, by a comparison for each of the six pairs of a group: of a pair the
/// larger score beats the other, of equal ones the first. What fewer than two others beat stays.
PARE_ALWAYS_INLINE void rank_turned(const __m512 (&score)[4], __mmask16 (&stays)[4]) noexcept {
  const auto beats = [&](int l, int k) PARE_LAMBDA_INLINE {
    return static_cast<unsigned>(_mm512_cmp_ps_mask(score[l], score[k], _CMP_GT_OQ));
  };
  const auto fewer_than_two = [](unsigned a, unsigned b, unsigned c) PARE_LAMBDA_INLINE {
    return static_cast<__mmask16>(~((a & b) | (c & (a | b))));
  };
  const unsigned a = beats(1, 0), b = beats(2, 0), c = beats(3, 0);
  const unsigned d = beats(2, 1), e = beats(3, 1), f = beats(3, 2);
  stays[0] = fewer_than_two(a, b, c);
  stays[1] = fewer_than_two(~a, d, e);
  stays[2] = fewer_than_two(~b, ~d, f);
  stays[3] = fewer_than_two(~c, ~e, ~f);
}

/// As keep_sixty_four.
template <bool Weighed, bool Streaming>
PARE_ALWAYS_INLINE void keep_sixty_four_on(arch::avx512, const float* w, const float* factors,
                                           std::uint16_t* words, float* values,
                                           Floats16& zeros) noexcept {
  __m512 v[4], score[4], zero = zeros;
  for (int i = 0; i < 4; ++i) {
    v[i] = _mm512_loadu_ps(w + 16 * i);
    zero = _mm512_fmadd_ps(v[i], _mm512_setzero_ps(), zero);
    score[i] = _mm512_abs_ps(v[i]);
    if constexpr (Weighed) score[i] = _mm512_mul_ps(score[i], _mm512_loadu_ps(factors + 16 * i));
  }
  zeros = zero;
  turn_groups(v);
  turn_groups(score);
  __mmask16 stays[4];
  rank_turned(score, stays);
  _mm_storel_epi64(reinterpret_cast<__m128i*>(words), words_of_turned(stays));
  const __m512 lower = _mm512_mask_mov_ps(_mm512_mask_mov_ps(v[2], stays[1], v[1]), stays[0], v[0]);
  const __m512 higher =
      _mm512_mask_mov_ps(_mm512_mask_mov_ps(v[1], stays[2], v[2]), stays[3], v[3]);
  const __m512i order = _mm512_setr_epi64(0, 2, 4, 6, 1, 3, 5, 7);
  const auto put = [&](float* to, __m512 pairs) PARE_LAMBDA_INLINE {
    const __m512 x =
        _mm512_castpd_ps(_mm512_maskz_permutexvar_pd(0xff, order, _mm512_castps_pd(pairs)));
    Streaming ? _mm512_stream_ps(to, x) : _mm512_storeu_ps(to, x);
  };
  put(values, _mm512_maskz_unpacklo_ps(0xffff, lower, higher));
  put(values + 16, _mm512_maskz_unpackhi_ps(0xffff, lower, higher));
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

PARE_ABI_END
}  // namespace pare::kernel::detail

#include <pare/core/macros_on.hpp>
