// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// The vector layer: one spelling of each operation for xsimd 8.1 to 14 and for one scalar lane.
///
/// Kernels are written once over `vec<T, Arch>`; with `arch::scalar` that is T itself. Whatever
/// xsimd lacks or does poorly (fused multiply-add and full-width interleave on AVX-512, 16-bit
/// floats, 32 x 32 -> 64 bit products) is done here with intrinsics and nowhere else. AVX-512
/// intrinsics take their zero-masked form with a full mask where the plain one makes g++ 12 warn of
/// an uninitialised operand; both compile to the same instruction.

#include <pare/core/macros_off.hpp>

#include <pare/core/arch.hpp>
#include <pare/core/scalar.hpp>

#include <xsimd/xsimd.hpp>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <utility>

namespace pare::kernel {

/// The xsimd architecture of a tag.
template <class Arch>
struct xsimd_arch;
template <>
struct xsimd_arch<arch::sse2> {
  using type = xsimd::sse2;
};
template <>
struct xsimd_arch<arch::avx2> {
  using type = xsimd::fma3<xsimd::avx2>;
};
template <>
struct xsimd_arch<arch::avx512> {
  using type = xsimd::avx512bw;
};
template <>
struct xsimd_arch<arch::avx512_vnni> : xsimd_arch<arch::avx512> {};
template <>
struct xsimd_arch<arch::avx512_bf16> : xsimd_arch<arch::avx512> {};
template <>
struct xsimd_arch<arch::neon> {
  using type = xsimd::neon64;
};

namespace detail {
PARE_ABI_BEGIN
template <class T, class Arch>
struct vector_type {
  using type = xsimd::batch<T, typename xsimd_arch<Arch>::type>;
  static constexpr std::ptrdiff_t lanes = static_cast<std::ptrdiff_t>(type::size);
};
template <class T>
struct vector_type<T, arch::scalar> {
  using type = T;
  static constexpr std::ptrdiff_t lanes = 1;
};

template <class V>
inline constexpr bool is_batch = !std::is_arithmetic_v<V>;

template <class V>
struct lane {
  using type = V;
};
template <class V>
requires is_batch<V>
struct lane<V> {
  using type = typename V::value_type;
};
/// What a lane of V holds.
template <class V>
using lane_t = typename lane<V>::type;

template <class Arch>
inline constexpr bool is_avx512 =
    std::is_same_v<Arch, arch::avx512> || std::is_same_v<Arch, arch::avx512_vnni> ||
    std::is_same_v<Arch, arch::avx512_bf16>;
PARE_ABI_END
}  // namespace detail
PARE_ABI_BEGIN

/// A vector of T, one register wide.
template <class T, class Arch>
using vec = typename detail::vector_type<T, Arch>::type;

/// Elements in a `vec<T, Arch>`.
template <class T, class Arch>
inline constexpr std::ptrdiff_t lanes = detail::vector_type<T, Arch>::lanes;

/// Unaligned load.
template <class Arch, class T>
PARE_ALWAYS_INLINE vec<T, Arch> load(const T* p) noexcept {
  if constexpr (detail::is_batch<vec<T, Arch>>)
    return vec<T, Arch>::load_unaligned(p);
  else
    return *p;
}

/// Unaligned store.
template <class Arch, class T>
PARE_ALWAYS_INLINE void store(T* p, vec<T, Arch> v) noexcept {
  if constexpr (detail::is_batch<vec<T, Arch>>)
    v.store_unaligned(p);
  else
    *p = v;
}

/// Stores a whole cache line past the caches where a register holds one (AVX-512), which spares
/// reading it first; plain elsewhere. p is aligned to 64 bytes, and `streaming_fence` must follow.
template <class Arch, class T>
PARE_ALWAYS_INLINE void store_streaming(T* p, vec<T, Arch> v) noexcept {
#if defined(__AVX512F__)
  if constexpr (detail::is_avx512<Arch> && std::is_same_v<T, float>) return _mm512_stream_ps(p, v);
  if constexpr (detail::is_avx512<Arch> && std::is_same_v<T, double>) return _mm512_stream_pd(p, v);
#endif
  store<Arch>(p, v);
}

/// Orders streaming stores before all that follows.
template <class Arch>
PARE_ALWAYS_INLINE void streaming_fence() noexcept {
#if defined(__AVX512F__)
  if constexpr (detail::is_avx512<Arch>) _mm_sfence();
#endif
}

/// The same value in every lane.
template <class Arch, class T>
PARE_ALWAYS_INLINE vec<T, Arch> broadcast(T value) noexcept {
  return vec<T, Arch>(value);
}

/// a * b + c, with one rounding on every arch that has the instruction.
///
/// xsimd 8.1 multiplies and adds on AVX-512, and clang does not contract that back.
template <class Arch, class V>
PARE_ALWAYS_INLINE V multiply_add(V a, V b, V c) noexcept {
  if constexpr (!detail::is_batch<V>) {
    return a * b + c;
#if defined(__AVX512F__)
  } else if constexpr (detail::is_avx512<Arch> && std::is_same_v<V, vec<float, Arch>>) {
    return V(_mm512_fmadd_ps(a, b, c));
  } else if constexpr (detail::is_avx512<Arch> && std::is_same_v<V, vec<double, Arch>>) {
    return V(_mm512_fmadd_pd(a, b, c));
#endif
  } else {
    return xsimd::fma(a, b, c);
  }
}

/// The sum of all lanes; the order of additions is fixed for an arch.
///
/// xsimd halves AVX-512 registers of doubles with an intrinsic that g++ 12 warns of.
template <class Arch, class V>
PARE_ALWAYS_INLINE auto reduce_add(V v) noexcept {
  if constexpr (!detail::is_batch<V>) {
    return v;
#if defined(__AVX512F__)
  } else if constexpr (detail::is_avx512<Arch> && std::is_same_v<V, vec<double, Arch>>) {
    const __m256d low = _mm512_maskz_extractf64x4_pd(0xf, v, 0);
    const __m256d high = _mm512_maskz_extractf64x4_pd(0xf, v, 1);
    const __m256d halves = _mm256_add_pd(low, high);
    const __m128d quarters =
        _mm_add_pd(_mm256_castpd256_pd128(halves), _mm256_extractf128_pd(halves, 1));
    return _mm_cvtsd_f64(_mm_add_sd(quarters, _mm_unpackhi_pd(quarters, quarters)));
#endif
  } else {
#if XSIMD_VERSION_MAJOR >= 9
    return xsimd::reduce_add(v);
#else
    return xsimd::hadd(v);
#endif
  }
}

/// The larger of each pair; b where either is a NaN.
template <class Arch, class V>
PARE_ALWAYS_INLINE V maximum(V a, V b) noexcept {
  if constexpr (!detail::is_batch<V>) {
    return a > b ? a : b;
#if defined(__AVX512F__)
  } else if constexpr (detail::is_avx512<Arch> && std::is_same_v<V, vec<float, Arch>>) {
    return V(_mm512_maskz_max_ps(0xffff, a, b));
  } else if constexpr (detail::is_avx512<Arch> && std::is_same_v<V, vec<double, Arch>>) {
    return V(_mm512_maskz_max_pd(0xff, a, b));
#endif
#if defined(__aarch64__)
  } else if constexpr (std::is_same_v<Arch, arch::neon>) {
    return xsimd::select(a > b, a, b);
#endif
  } else {
    return xsimd::max(a, b);
  }
}

/// The largest of all lanes; of a register that holds a NaN, any of them. Halves are compared until
/// one lane is left: xsimd 8.1 has no such reduction.
template <class Arch, class V>
PARE_ALWAYS_INLINE detail::lane_t<V> reduce_max(V v) noexcept {
  if constexpr (!detail::is_batch<V>) {
    return v;
#if defined(__AVX512F__)
  } else if constexpr (detail::is_avx512<Arch> && std::is_same_v<V, vec<float, Arch>>) {
    const __m512d bits = _mm512_castps_pd(v);
    const __m256 low = _mm256_castpd_ps(_mm512_maskz_extractf64x4_pd(0xf, bits, 0));
    const __m256 high = _mm256_castpd_ps(_mm512_maskz_extractf64x4_pd(0xf, bits, 1));
    return reduce_max<arch::avx2>(vec<float, arch::avx2>(_mm256_max_ps(low, high)));
  } else if constexpr (detail::is_avx512<Arch> && std::is_same_v<V, vec<double, Arch>>) {
    const __m256d low = _mm512_maskz_extractf64x4_pd(0xf, v, 0);
    const __m256d high = _mm512_maskz_extractf64x4_pd(0xf, v, 1);
    return reduce_max<arch::avx2>(vec<double, arch::avx2>(_mm256_max_pd(low, high)));
#endif
#if defined(__AVX2__)
  } else if constexpr (std::is_same_v<V, vec<float, arch::avx2>>) {
    const __m128 four = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    return reduce_max<arch::sse2>(vec<float, arch::sse2>(four));
  } else if constexpr (std::is_same_v<V, vec<double, arch::avx2>>) {
    const __m128d two = _mm_max_pd(_mm256_castpd256_pd128(v), _mm256_extractf128_pd(v, 1));
    return reduce_max<arch::sse2>(vec<double, arch::sse2>(two));
#endif
#if defined(__SSE2__)
  } else if constexpr (std::is_same_v<V, vec<float, arch::sse2>>) {
    const __m128 two = _mm_max_ps(v, _mm_movehl_ps(v, v));
    return _mm_cvtss_f32(_mm_max_ss(two, _mm_shuffle_ps(two, two, 1)));
  } else if constexpr (std::is_same_v<V, vec<double, arch::sse2>>) {
    return _mm_cvtsd_f64(_mm_max_sd(v, _mm_unpackhi_pd(v, v)));
#endif
#if defined(__aarch64__)
  } else if constexpr (std::is_same_v<V, vec<float, Arch>>) {
    return vmaxvq_f32(v);
  } else {
    return vmaxvq_f64(v);
#endif
  }
}

/// The correctly rounded square root of one scalar.
PARE_ALWAYS_INLINE float square_root(float x) noexcept { return __builtin_sqrtf(x); }
PARE_ALWAYS_INLINE double square_root(double x) noexcept { return __builtin_sqrt(x); }

/// The logarithm to base 2 of one scalar.
PARE_ALWAYS_INLINE float binary_logarithm(float x) noexcept { return __builtin_log2f(x); }
PARE_ALWAYS_INLINE double binary_logarithm(double x) noexcept { return __builtin_log2(x); }

/// Loads storage scalars as their compute type: float and double as they are, 16-bit ones widened.
template <class Arch, StorageScalar T>
PARE_ALWAYS_INLINE vec<compute_t<T>, Arch> load_widened(const T* p) noexcept {
  if constexpr (ComputeScalar<T>) {
    return load<Arch>(p);
  } else if constexpr (!detail::is_batch<vec<float, Arch>>) {
    return static_cast<float>(*p);
#if defined(__AVX512F__)
  } else if constexpr (detail::is_avx512<Arch>) {
    const __m256i bits = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
    if constexpr (std::is_same_v<T, bf16>)
      return vec<float, Arch>(_mm512_castsi512_ps(
          _mm512_maskz_slli_epi32(0xffff, _mm512_maskz_cvtepu16_epi32(0xffff, bits), 16)));
    else
      return vec<float, Arch>(_mm512_maskz_cvtph_ps(0xffff, bits));
#endif
#if defined(__AVX2__)
  } else if constexpr (std::is_same_v<Arch, arch::avx2> && std::is_same_v<T, bf16>) {
    const __m128i bits = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
    return vec<float, Arch>(
        _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(bits), 16)));
#endif
#if defined(__AVX2__) && defined(__F16C__)
  } else if constexpr (std::is_same_v<Arch, arch::avx2>) {
    const __m128i bits = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
    return vec<float, Arch>(_mm256_cvtph_ps(bits));
#endif
  } else {
    float widened[lanes<float, Arch>];
    for (std::ptrdiff_t i = 0; i < lanes<float, Arch>; ++i) widened[i] = static_cast<float>(p[i]);
    return load<Arch>(static_cast<const float*>(widened));
  }
}

/// c + a0 * b0 + a1 * b1 in each lane, for pairs of bf16 held as 32 bits. Rounds as the instruction
/// does (subnormals count as 0); only where the arch has_bf16_dot.
template <class Arch>
PARE_ALWAYS_INLINE vec<float, Arch> multiply_add_pairs(vec<float, Arch> a, vec<float, Arch> b,
                                                       vec<float, Arch> c) noexcept {
  static_assert(Arch::has_bf16_dot, "pare: this arch has no bf16 products");
#if defined(__AVX512BF16__)
  return vec<float, Arch>(
      _mm512_dpbf16_ps(c, (__m512bh)_mm512_castps_si512(a), (__m512bh)_mm512_castps_si512(b)));
#else
  return a + b + c;
#endif
}

/// Rounds to bf16, nearest, ties to even, stores that, and returns what was stored. Where the arch
/// has_bf16_dot, subnormals become 0.
template <class Arch>
PARE_ALWAYS_INLINE vec<float, Arch> store_rounded(bf16* p, vec<float, Arch> v) noexcept {
#if defined(__AVX512BF16__)
  if constexpr (Arch::has_bf16_dot) {
    const __m256i bits = (__m256i)_mm512_cvtneps_pbh(v);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), bits);
    return vec<float, Arch>(_mm512_castsi512_ps(
        _mm512_maskz_slli_epi32(0xffff, _mm512_maskz_cvtepu16_epi32(0xffff, bits), 16)));
  }
#endif
  constexpr std::ptrdiff_t n = lanes<float, Arch>;
  float values[static_cast<std::size_t>(n)];
  store<Arch>(static_cast<float*>(values), v);
  for (std::ptrdiff_t i = 0; i < n; ++i) {
    p[i] = bf16(values[i]);
    values[i] = static_cast<float>(p[i]);
  }
  return load<Arch>(static_cast<const float*>(values));
}

/// Pairs (a_i, b_i) of two rows of bf16, held as 32 bits; only where the arch has_bf16_dot.
template <class Arch>
PARE_ALWAYS_INLINE vec<float, Arch> load_pairs(const bf16* a, const bf16* b) noexcept {
  static_assert(Arch::has_bf16_dot, "pare: this arch has no bf16 products");
#if defined(__AVX512BF16__)
  const __m512i low =
      _mm512_maskz_cvtepu16_epi32(0xffff, _mm256_loadu_si256(reinterpret_cast<const __m256i*>(a)));
  const __m512i high =
      _mm512_maskz_cvtepu16_epi32(0xffff, _mm256_loadu_si256(reinterpret_cast<const __m256i*>(b)));
  return vec<float, Arch>(
      _mm512_castsi512_ps(_mm512_or_si512(low, _mm512_maskz_slli_epi32(0xffff, high, 16))));
#else
  return broadcast<Arch>(static_cast<float>(*a) + static_cast<float>(*b));
#endif
}

/// The same for two registers of columns.
template <class Arch>
PARE_ALWAYS_INLINE void load_pairs(const bf16* a, const bf16* b, vec<float, Arch>& first,
                                   vec<float, Arch>& second) noexcept {
#if defined(__AVX512BF16__)
  const __m512i x = _mm512_loadu_si512(a), y = _mm512_loadu_si512(b);
  // Word 2 i is a's i-th, word 2 i + 1 b's; b's words are numbered from 32.
  const __m512i low = _mm512_set_epi32(0x2f000f, 0x2e000e, 0x2d000d, 0x2c000c, 0x2b000b, 0x2a000a,
                                       0x290009, 0x280008, 0x270007, 0x260006, 0x250005, 0x240004,
                                       0x230003, 0x220002, 0x210001, 0x200000);
  const __m512i high = _mm512_add_epi32(low, _mm512_set1_epi32(0x100010));
  first = vec<float, Arch>(_mm512_castsi512_ps(_mm512_permutex2var_epi16(x, low, y)));
  second = vec<float, Arch>(_mm512_castsi512_ps(_mm512_permutex2var_epi16(x, high, y)));
#else
  first = load_pairs<Arch>(a, b);
  second = load_pairs<Arch>(a + lanes<float, Arch>, b + lanes<float, Arch>);
#endif
}

/// The products of the low 32 bits of each 64-bit lane; the high halves of a and b are ignored.
template <class Arch>
PARE_ALWAYS_INLINE vec<std::uint64_t, Arch> multiply_low_words(
    vec<std::uint64_t, Arch> a, vec<std::uint64_t, Arch> b) noexcept {
  using V = vec<std::uint64_t, Arch>;
#if defined(__AVX512F__)
  if constexpr (detail::is_avx512<Arch>) return V(_mm512_maskz_mul_epu32(0xff, a, b));
#endif
#if defined(__AVX2__)
  if constexpr (std::is_same_v<Arch, arch::avx2>) return V(_mm256_mul_epu32(a, b));
#endif
#if defined(__SSE2__)
  if constexpr (std::is_same_v<Arch, arch::sse2>) return V(_mm_mul_epu32(a, b));
#endif
#if defined(__aarch64__)
  if constexpr (std::is_same_v<Arch, arch::neon>) return V(vmull_u32(vmovn_u64(a), vmovn_u64(b)));
#endif
  if constexpr (!detail::is_batch<V>) return (a & 0xffffffffu) * (b & 0xffffffffu);
}

/// The high 32 bits of each 64-bit lane.
template <class Arch>
PARE_ALWAYS_INLINE vec<std::uint64_t, Arch> high_words(vec<std::uint64_t, Arch> a) noexcept {
#if defined(__AVX512F__)
  if constexpr (detail::is_avx512<Arch>)
    return vec<std::uint64_t, Arch>(_mm512_maskz_srli_epi64(0xff, a, 32));
  else
#endif
    return a >> 32;
}

/// Interleaves the lower halves of a and b over the full register: a0 b0 a1 b1 ...
///
/// xsimd 8.1's zip_lo works within 16-byte lanes on AVX2.
template <class Arch, class V>
PARE_ALWAYS_INLINE V interleave_low(V a, V b) noexcept {
#if defined(__AVX512F__)
  if constexpr (std::is_same_v<V, vec<float, arch::avx512>>)
    return V(_mm512_permutex2var_ps(
        a, _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23), b));
  if constexpr (std::is_same_v<V, vec<double, arch::avx512>>)
    return V(_mm512_permutex2var_pd(a, _mm512_setr_epi64(0, 8, 1, 9, 2, 10, 3, 11), b));
#endif
#if defined(__AVX2__)
  if constexpr (std::is_same_v<V, vec<float, arch::avx2>>)
    return V(_mm256_permute2f128_ps(_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b), 0x20));
  if constexpr (std::is_same_v<V, vec<double, arch::avx2>>)
    return V(_mm256_permute2f128_pd(_mm256_unpacklo_pd(a, b), _mm256_unpackhi_pd(a, b), 0x20));
#endif
  return xsimd::zip_lo(a, b);
}

/// Interleaves the upper halves of a and b over the full register.
template <class Arch, class V>
PARE_ALWAYS_INLINE V interleave_high(V a, V b) noexcept {
#if defined(__AVX512F__)
  if constexpr (std::is_same_v<V, vec<float, arch::avx512>>)
    return V(_mm512_permutex2var_ps(
        a, _mm512_setr_epi32(8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31), b));
  if constexpr (std::is_same_v<V, vec<double, arch::avx512>>)
    return V(_mm512_permutex2var_pd(a, _mm512_setr_epi64(4, 12, 5, 13, 6, 14, 7, 15), b));
#endif
#if defined(__AVX2__)
  if constexpr (std::is_same_v<V, vec<float, arch::avx2>>)
    return V(_mm256_permute2f128_ps(_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b), 0x31));
  if constexpr (std::is_same_v<V, vec<double, arch::avx2>>)
    return V(_mm256_permute2f128_pd(_mm256_unpacklo_pd(a, b), _mm256_unpackhi_pd(a, b), 0x31));
#endif
  return xsimd::zip_hi(a, b);
}

/// Transposes a square block held in `lanes` registers: afterwards v[i] holds lane i of each.
///
/// Each of the log2(lanes) stages shuffles the register file once like a deck of cards. Unrolled by
/// hand: g++ -O2 would keep the registers in memory.
template <class Arch, class V, std::size_t N>
PARE_ALWAYS_INLINE void transpose_block(V (&v)[N]) noexcept {
  const auto shuffle = [&v]<std::size_t... I>(std::index_sequence<I...>) PARE_LAMBDA_INLINE {
    constexpr std::size_t half = N / 2;
    const V low[] = {interleave_low<Arch>(v[I], v[I + half])...};
    const V high[] = {interleave_high<Arch>(v[I], v[I + half])...};
    ((v[2 * I] = low[I], v[2 * I + 1] = high[I]), ...);
  };
  if constexpr (N > 1) shuffle(std::make_index_sequence<N / 2>{});
  if constexpr (N > 2) shuffle(std::make_index_sequence<N / 2>{});
  if constexpr (N > 4) shuffle(std::make_index_sequence<N / 2>{});
  if constexpr (N > 8) shuffle(std::make_index_sequence<N / 2>{});
  static_assert(N <= 16);
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

PARE_ABI_END

}  // namespace pare::kernel

#include <pare/core/macros_on.hpp>
