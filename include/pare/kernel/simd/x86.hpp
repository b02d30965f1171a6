// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Operations of the vector layer with intrinsics of x86-64 up to AVX2, where xsimd lacks them or
/// does them poorly. An overload for a tag serves all tags above it that have none of their own.

#include <pare/core/macros_off.hpp>

#include <pare/core/e4m3.hpp>
#include <pare/kernel/simd/contract.hpp>

#include <cstddef>
#include <cstdint>

namespace pare::kernel::detail {
PARE_ABI_BEGIN

#if defined(__SSE2__)

PARE_ALWAYS_INLINE float reduce_max_on(arch::sse2, vec<float, arch::sse2> v) noexcept {
  const __m128 two = _mm_max_ps(v, _mm_movehl_ps(v, v));
  return _mm_cvtss_f32(_mm_max_ss(two, _mm_shuffle_ps(two, two, 1)));
}
PARE_ALWAYS_INLINE double reduce_max_on(arch::sse2, vec<double, arch::sse2> v) noexcept {
  return _mm_cvtsd_f64(_mm_max_sd(v, _mm_unpackhi_pd(v, v)));
}

PARE_ALWAYS_INLINE vec<std::uint64_t, arch::sse2> multiply_low_words_on(
    arch::sse2, vec<std::uint64_t, arch::sse2> a, vec<std::uint64_t, arch::sse2> b) noexcept {
  return _mm_mul_epu32(a, b);
}

PARE_ALWAYS_INLINE vec<float, arch::sse2> swap_pairs_on(arch::sse2,
                                                        vec<float, arch::sse2> v) noexcept {
  return _mm_shuffle_ps(v, v, 0xb1);
}
PARE_ALWAYS_INLINE vec<double, arch::sse2> swap_pairs_on(arch::sse2,
                                                         vec<double, arch::sse2> v) noexcept {
  return _mm_shuffle_pd(v, v, 1);
}

PARE_ALWAYS_INLINE vec<std::int32_t, arch::sse2> add_word_products_on(
    arch::sse2, vec<std::int32_t, arch::sse2> sum, vec<std::int32_t, arch::sse2> a,
    vec<std::int32_t, arch::sse2> b) noexcept {
  return _mm_add_epi32(sum, _mm_madd_epi16(a, b));
}
PARE_ALWAYS_INLINE vec<std::int32_t, arch::sse2> load_byte_pairs_on(arch::sse2,
                                                                    const std::int8_t* p) noexcept {
  const __m128i bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(p));
  return _mm_srai_epi16(_mm_unpacklo_epi8(bytes, bytes), 8);
}

/// Lanes that two others of their four are larger than are lost; an equal one counts where it is
/// in front, that is in the lanes of `wrapped`.
PARE_ALWAYS_INLINE std::uint32_t two_largest_on(arch::sse2, vec<float, arch::sse2> v) noexcept {
  const auto beats = [&](__m128 other, __m128i wrapped) PARE_LAMBDA_INLINE {
    return _mm_or_ps(_mm_cmpgt_ps(other, v),
                     _mm_and_ps(_mm_castsi128_ps(wrapped), _mm_cmpeq_ps(other, v)));
  };
  const __m128 first = beats(_mm_shuffle_ps(v, v, 0x39), _mm_setr_epi32(0, 0, 0, -1));
  const __m128 second = beats(_mm_shuffle_ps(v, v, 0x4e), _mm_setr_epi32(0, 0, -1, -1));
  const __m128 third = beats(_mm_shuffle_ps(v, v, 0x93), _mm_setr_epi32(0, -1, -1, -1));
  const __m128 lost =
      _mm_or_ps(_mm_and_ps(first, second), _mm_and_ps(third, _mm_or_ps(first, second)));
  return static_cast<std::uint32_t>(_mm_movemask_ps(lost)) ^ 0xfu;
}

// Single lanes: no instruction permutes by a variable before SSSE3.
PARE_ALWAYS_INLINE vec<float, arch::sse2> take_kept_on(arch::sse2, const float* x,
                                                       unsigned places) noexcept {
  return _mm_setr_ps(x[places & 3], x[places >> 2 & 3], x[4 + (places >> 4 & 3)],
                     x[4 + (places >> 6 & 3)]);
}
PARE_ALWAYS_INLINE vec<double, arch::sse2> take_kept_on(arch::sse2, const double* x,
                                                        unsigned places) noexcept {
  return _mm_setr_pd(x[places & 3], x[places >> 2 & 3]);
}

#endif
#if defined(__AVX2__) && defined(__FMA__)

PARE_ALWAYS_INLINE std::uint32_t two_largest_on(arch::avx2, vec<float, arch::avx2> v) noexcept {
  const auto beats = [&](__m256 other, __m256i wrapped) PARE_LAMBDA_INLINE {
    return _mm256_or_ps(
        _mm256_cmp_ps(other, v, _CMP_GT_OQ),
        _mm256_and_ps(_mm256_castsi256_ps(wrapped), _mm256_cmp_ps(other, v, _CMP_EQ_OQ)));
  };
  const __m256 first =
      beats(_mm256_permute_ps(v, 0x39), _mm256_setr_epi32(0, 0, 0, -1, 0, 0, 0, -1));
  const __m256 second =
      beats(_mm256_permute_ps(v, 0x4e), _mm256_setr_epi32(0, 0, -1, -1, 0, 0, -1, -1));
  const __m256 third =
      beats(_mm256_permute_ps(v, 0x93), _mm256_setr_epi32(0, -1, -1, -1, 0, -1, -1, -1));
  const __m256 lost =
      _mm256_or_ps(_mm256_and_ps(first, second), _mm256_and_ps(third, _mm256_or_ps(first, second)));
  return static_cast<std::uint32_t>(_mm256_movemask_ps(lost)) ^ 0xffu;
}
PARE_ALWAYS_INLINE std::uint32_t two_largest_on(arch::avx2, vec<double, arch::avx2> v) noexcept {
  const auto beats = [&](__m256d other, __m256i wrapped) PARE_LAMBDA_INLINE {
    return _mm256_or_pd(
        _mm256_cmp_pd(other, v, _CMP_GT_OQ),
        _mm256_and_pd(_mm256_castsi256_pd(wrapped), _mm256_cmp_pd(other, v, _CMP_EQ_OQ)));
  };
  const __m256d first = beats(_mm256_permute4x64_pd(v, 0x39), _mm256_setr_epi64x(0, 0, 0, -1));
  const __m256d second = beats(_mm256_permute4x64_pd(v, 0x4e), _mm256_setr_epi64x(0, 0, -1, -1));
  const __m256d third = beats(_mm256_permute4x64_pd(v, 0x93), _mm256_setr_epi64x(0, -1, -1, -1));
  const __m256d lost =
      _mm256_or_pd(_mm256_and_pd(first, second), _mm256_and_pd(third, _mm256_or_pd(first, second)));
  return static_cast<std::uint32_t>(_mm256_movemask_pd(lost)) ^ 0xfu;
}

PARE_ALWAYS_INLINE float reduce_max_on(arch::avx2, vec<float, arch::avx2> v) noexcept {
  const __m128 four = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
  return reduce_max_on(arch::sse2{}, vec<float, arch::sse2>(four));
}
PARE_ALWAYS_INLINE double reduce_max_on(arch::avx2, vec<double, arch::avx2> v) noexcept {
  const __m128d two = _mm_max_pd(_mm256_castpd256_pd128(v), _mm256_extractf128_pd(v, 1));
  return reduce_max_on(arch::sse2{}, vec<double, arch::sse2>(two));
}

PARE_ALWAYS_INLINE void widen_floats_on(arch::avx2, vec<float, arch::avx2> v,
                                        vec<double, arch::avx2>* out) noexcept {
  out[0] = _mm256_cvtps_pd(_mm256_castps256_ps128(v));
  out[1] = _mm256_cvtps_pd(_mm256_extractf128_ps(v, 1));
}
PARE_ALWAYS_INLINE vec<float, arch::avx2> narrow_doubles_on(
    arch::avx2, const vec<double, arch::avx2>* v) noexcept {
  return _mm256_set_m128(_mm256_cvtpd_ps(v[1]), _mm256_cvtpd_ps(v[0]));
}

PARE_ALWAYS_INLINE vec<float, arch::avx2> load_widened_on(arch::avx2, const bf16* p) noexcept {
  const __m128i bits = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(bits), 16));
}
#if defined(__F16C__)
PARE_ALWAYS_INLINE vec<float, arch::avx2> load_widened_on(arch::avx2, const f16* p) noexcept {
  const __m128i bits = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  return _mm256_cvtph_ps(bits);
}
PARE_ALWAYS_INLINE void store_rounded_on(arch::avx2, f16* p, vec<float, arch::avx2> v) noexcept {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm256_cvtps_ph(v, 0));
}
#endif

PARE_ALWAYS_INLINE vec<float, arch::avx2> swap_pairs_on(arch::avx2,
                                                        vec<float, arch::avx2> v) noexcept {
  return _mm256_permute_ps(v, 0xb1);
}
PARE_ALWAYS_INLINE vec<double, arch::avx2> swap_pairs_on(arch::avx2,
                                                         vec<double, arch::avx2> v) noexcept {
  return _mm256_permute_pd(v, 0x5);
}

PARE_ALWAYS_INLINE vec<float, arch::avx2> load_signed_bytes_on(arch::avx2,
                                                               const std::int8_t* p) noexcept {
  return _mm256_cvtepi32_ps(
      _mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p))));
}

PARE_ALWAYS_INLINE vec<std::int32_t, arch::avx2> add_word_products_on(
    arch::avx2, vec<std::int32_t, arch::avx2> sum, vec<std::int32_t, arch::avx2> a,
    vec<std::int32_t, arch::avx2> b) noexcept {
  return _mm256_add_epi32(sum, _mm256_madd_epi16(a, b));
}
PARE_ALWAYS_INLINE vec<std::int32_t, arch::avx2> load_byte_pairs_on(arch::avx2,
                                                                    const std::int8_t* p) noexcept {
  return _mm256_cvtepi8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
}

PARE_ALWAYS_INLINE void load_nibbles_on(arch::avx2, const std::uint8_t* p,
                                        vec<float, arch::avx2> scale, vec<float, arch::avx2> offset,
                                        vec<float, arch::avx2>& low,
                                        vec<float, arch::avx2>& high) noexcept {
  const __m256i bytes = _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)));
  const __m256 q = _mm256_cvtepi32_ps(_mm256_and_si256(bytes, _mm256_set1_epi32(15)));
  const __m256 r = _mm256_cvtepi32_ps(_mm256_srli_epi32(bytes, 4));
  low = _mm256_fmadd_ps(q, scale, offset);
  high = _mm256_fmadd_ps(r, scale, offset);
}

#if defined(__F16C__)
// The bits of e4m3 below a fifth bit of exponent are those of binary16, 2^-8 of the value.
PARE_ALWAYS_INLINE vec<float, arch::avx2> load_e4m3_on(arch::avx2, const e4m3* p) noexcept {
  const __m128i words = _mm_cvtepu8_epi16(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)));
  const __m128i spread = _mm_srai_epi16(_mm_slli_epi16(words, 8), 1);
  const __m256 x = _mm256_cvtph_ps(_mm_and_si128(spread, _mm_set1_epi16(-0x4001)));
  const __m256 size = _mm256_andnot_ps(_mm256_set1_ps(-0.0f), x);
  const __m256 is_nan = _mm256_cmp_ps(size, _mm256_set1_ps(480.0f / 256), _CMP_EQ_OQ);
  return _mm256_or_ps(_mm256_mul_ps(x, _mm256_set1_ps(256)), is_nan);  // all bits set is a NaN
}

PARE_ALWAYS_INLINE void widen_halves_on(arch::avx2, const void* p, std::ptrdiff_t stride,
                                        std::ptrdiff_t count, float (*out)[2]) noexcept {
  const auto* at = static_cast<const unsigned char*>(p);
  const auto pair = [](const unsigned char* from)
                        PARE_LAMBDA_INLINE { return _mm_loadu_si32(from); };
  std::ptrdiff_t i = 0;
  for (; i + 4 <= count; i += 4, at += 4 * stride) {
    const __m128i first = _mm_unpacklo_epi32(pair(at), pair(at + stride));
    const __m128i second = _mm_unpacklo_epi32(pair(at + 2 * stride), pair(at + 3 * stride));
    _mm256_storeu_ps(out[i], _mm256_cvtph_ps(_mm_unpacklo_epi64(first, second)));
  }
  for (; i < count; ++i, at += stride)
    _mm_storel_pi(reinterpret_cast<__m64*>(out[i]), _mm_cvtph_ps(pair(at)));
}
#endif

PARE_ALWAYS_INLINE vec<std::uint64_t, arch::avx2> multiply_low_words_on(
    arch::avx2, vec<std::uint64_t, arch::avx2> a, vec<std::uint64_t, arch::avx2> b) noexcept {
  return _mm256_mul_epu32(a, b);
}

// xsimd 8.1's zip_lo and zip_hi work within 16-byte lanes.
PARE_ALWAYS_INLINE vec<float, arch::avx2> interleave_low_on(arch::avx2, vec<float, arch::avx2> a,
                                                            vec<float, arch::avx2> b) noexcept {
  return _mm256_permute2f128_ps(_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b), 0x20);
}
PARE_ALWAYS_INLINE vec<double, arch::avx2> interleave_low_on(arch::avx2, vec<double, arch::avx2> a,
                                                             vec<double, arch::avx2> b) noexcept {
  return _mm256_permute2f128_pd(_mm256_unpacklo_pd(a, b), _mm256_unpackhi_pd(a, b), 0x20);
}
PARE_ALWAYS_INLINE vec<float, arch::avx2> interleave_high_on(arch::avx2, vec<float, arch::avx2> a,
                                                             vec<float, arch::avx2> b) noexcept {
  return _mm256_permute2f128_ps(_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b), 0x31);
}
PARE_ALWAYS_INLINE vec<double, arch::avx2> interleave_high_on(arch::avx2, vec<double, arch::avx2> a,
                                                              vec<double, arch::avx2> b) noexcept {
  return _mm256_permute2f128_pd(_mm256_unpacklo_pd(a, b), _mm256_unpackhi_pd(a, b), 0x31);
}

PARE_ALWAYS_INLINE void index_kept_on(arch::avx2, const std::uint16_t* words, std::ptrdiff_t count,
                                      std::uint8_t* indices) noexcept {
  const __m256i table =
      _mm256_broadcastsi128_si256(_mm_setr_epi8(0, 0, 0, 4, 0, 8, 9, 0, 0, 12, 13, 0, 14, 0, 0, 0));
  const __m256i low_half = _mm256_set1_epi8(15);
  const auto index = [&](const std::uint16_t* from, std::uint8_t* to) PARE_LAMBDA_INLINE {
    const __m256i groups = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
    const __m256i low = _mm256_shuffle_epi8(table, _mm256_and_si256(groups, low_half));
    const __m256i high =
        _mm256_shuffle_epi8(table, _mm256_and_si256(_mm256_srli_epi16(groups, 4), low_half));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to),
                        _mm256_or_si256(low, _mm256_slli_epi16(high, 4)));
  };
  std::ptrdiff_t w = 0;
  for (; w + 16 <= count; w += 16) index(words + w, indices + 2 * w);
  if (w == count) return;
  std::uint16_t rest[16] = {};
  __builtin_memcpy(rest, words + w, static_cast<std::size_t>(count - w) * sizeof(std::uint16_t));
  index(rest, indices + 2 * w);
}

/// Groups 0 and 2 (of double, 0), and 1 and 3: of four lanes the first two are of one of the
/// former.
struct Groups8 {
  __m256 even, odd;
};
struct Groups4 {
  __m256d even, odd;
};
PARE_ALWAYS_INLINE Groups8 load_groups_on(arch::avx2, const float* x) noexcept {
  return {
      _mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(x)), _mm_loadu_ps(x + 8), 1),
      _mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(x + 4)), _mm_loadu_ps(x + 12), 1)};
}
PARE_ALWAYS_INLINE Groups4 load_groups_on(arch::avx2, const double* x) noexcept {
  return {_mm256_loadu_pd(x), _mm256_loadu_pd(x + 4)};
}
// Of an index a permutation takes the lower 2 bits.
PARE_ALWAYS_INLINE __m256i kept_places_on(arch::avx2, const float*,
                                          const std::uint8_t* indices) noexcept {
  return _mm256_srlv_epi32(_mm256_set1_epi32(indices[0] | indices[1] << 8),
                           _mm256_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14));
}
// Numbers of the halves of doubles.
PARE_ALWAYS_INLINE __m256i kept_places_on(arch::avx2, const double*,
                                          const std::uint8_t* indices) noexcept {
  const __m256i index = _mm256_and_si256(
      _mm256_srlv_epi32(_mm256_set1_epi32(indices[0]), _mm256_setr_epi32(0, 0, 2, 2, 4, 4, 6, 6)),
      _mm256_set1_epi32(3));
  return _mm256_add_epi32(_mm256_add_epi32(index, index),
                          _mm256_setr_epi32(0, 1, 0, 1, 0, 1, 0, 1));
}
PARE_ALWAYS_INLINE vec<float, arch::avx2> take_kept_on(arch::avx2, const Groups8& groups,
                                                       __m256i places) noexcept {
  return _mm256_blend_ps(_mm256_permutevar_ps(groups.even, places),
                         _mm256_permutevar_ps(groups.odd, places), 0xcc);
}
PARE_ALWAYS_INLINE vec<double, arch::avx2> take_kept_on(arch::avx2, const Groups4& groups,
                                                        __m256i places) noexcept {
  return _mm256_castps_pd(
      _mm256_blend_ps(_mm256_permutevar8x32_ps(_mm256_castpd_ps(groups.even), places),
                      _mm256_permutevar8x32_ps(_mm256_castpd_ps(groups.odd), places), 0xf0));
}

#endif

PARE_ABI_END
}  // namespace pare::kernel::detail

#include <pare/core/macros_on.hpp>
