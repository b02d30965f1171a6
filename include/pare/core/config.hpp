// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Every macro that changes what Pare compiles to, and the inline namespace that names them.
///
/// | macro | set by | meaning |
/// |---|---|---|
/// | `PARE_NO_OPENMP` | user | do not use OpenMP although the compiler has it switched on |
/// | `PARE_NO_EXCEPTIONS` | user, or `-fno-exceptions` | a failed check prints and aborts |
/// | `PARE_ALLOW_FINITE_MATH` | user | accept `-ffinite-math-only`; infinities are then undefined |
///
/// ```cpp
/// #define PARE_NO_OPENMP  // before the first header of Pare, or -DPARE_NO_OPENMP
/// #include <pare/pare.hpp>
/// static_assert(PARE_HAS_OPENMP == 0);
/// ```
///
/// Two objects of one program may be compiled with different flags, and the linker merges what has
/// one name in both. All code and every type that has code of its own (a destructor, say) therefore
/// lives between `PARE_ABI_BEGIN` and `PARE_ABI_END`, in an inline namespace whose name carries
/// version, instruction set and those macros. To hand such a type from one object to the other is
/// an error of the linker. Scalars, views, options, score modifiers and argument structs of kernels
/// stay outside, have the same layout everywhere, and may be handed on.

#include <pare/core/macros_off.hpp>

#include <pare/core/version.hpp>

#if defined(__FINITE_MATH_ONLY__) && __FINITE_MATH_ONLY__ && !defined(PARE_ALLOW_FINITE_MATH)
#error \
    "pare needs infinities and NaN: build without -ffinite-math-only (-ffast-math, -Ofast), \
or define PARE_ALLOW_FINITE_MATH to take the risk"
#endif

#if !defined(PARE_NO_EXCEPTIONS) && !defined(__cpp_exceptions)
#define PARE_NO_EXCEPTIONS
#endif

#if defined(_OPENMP) && !defined(PARE_NO_OPENMP)
#define PARE_HAS_OPENMP 1
#else
#define PARE_HAS_OPENMP 0
#endif

// Finer than the arch tags: an AVX build without AVX2, say, uses the SSE2 kernels, but encodes them
// differently, and must not share their bodies.
#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512DQ__) && defined(__AVX512VL__)
#if defined(__AVX512BF16__) && defined(__AVX512VNNI__)
#define PARE_ABI_ISA avx512_bf16
#elif defined(__AVX512VNNI__)
#define PARE_ABI_ISA avx512_vnni
#else
#define PARE_ABI_ISA avx512
#endif
#elif defined(__AVX512F__)
#define PARE_ABI_ISA avx512f
#elif defined(__AVX2__) && defined(__FMA__)
#define PARE_ABI_ISA avx2
#elif defined(__AVX2__)
#define PARE_ABI_ISA avx2_nofma
#elif defined(__AVX__)
#define PARE_ABI_ISA avx
#elif defined(__SSE4_2__)
#define PARE_ABI_ISA sse4_2
#elif defined(__SSE4_1__)
#define PARE_ABI_ISA sse4_1
#elif defined(__SSSE3__)
#define PARE_ABI_ISA ssse3
#elif defined(__SSE3__)
#define PARE_ABI_ISA sse3
#elif defined(__SSE2__)
#define PARE_ABI_ISA sse2
#elif defined(__aarch64__)
#define PARE_ABI_ISA neon
#else
#define PARE_ABI_ISA scalar
#endif

#if PARE_HAS_OPENMP
#define PARE_ABI_OPENMP omp
#else
#define PARE_ABI_OPENMP noomp
#endif

#if defined(PARE_NO_EXCEPTIONS)
#define PARE_ABI_EXCEPTIONS noexc
#else
#define PARE_ABI_EXCEPTIONS exc
#endif

#if defined(PARE_ALLOW_FINITE_MATH)
#define PARE_ABI_MATH finite
#else
#define PARE_ABI_MATH ieee
#endif

#define PARE_ABI_JOIN_EXPANDED(a, b, c, d, e, f) v##a##_##b##_##c##_##d##_##e##_##f
#define PARE_ABI_JOIN(a, b, c, d, e, f) PARE_ABI_JOIN_EXPANDED(a, b, c, d, e, f)
#define PARE_ABI_NAMESPACE                                                             \
  PARE_ABI_JOIN(PARE_VERSION_MAJOR, PARE_VERSION_MINOR, PARE_ABI_ISA, PARE_ABI_OPENMP, \
                PARE_ABI_EXCEPTIONS, PARE_ABI_MATH)

#define PARE_ABI_BEGIN inline namespace PARE_ABI_NAMESPACE {
#define PARE_ABI_END }

// AddressSanitizer and ThreadSanitizer check every access, and keep an unrolled tile of registers
// in memory: inlined into its callers it became 4 MB of code in one call of attention, which took
// g++ 12 70 to 90 seconds to compile. Under them loops over a tile stay loops, in functions of
// their own; the bits are the same.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define PARE_SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer) || \
    __has_feature(memory_sanitizer)
#define PARE_SANITIZED 1
#endif
#endif
#if !defined(PARE_SANITIZED)
#define PARE_SANITIZED 0
#endif

#if defined(__GNUC__)
#define PARE_ALWAYS_INLINE [[gnu::always_inline]] inline
#define PARE_NOINLINE [[gnu::noinline]]
#else
#define PARE_ALWAYS_INLINE inline
#define PARE_NOINLINE
#endif

/// For parts of a tile, inside the ABI's namespace; PARE_LAMBDA_INLINE goes behind the parameters
/// of a lambda.
#if PARE_SANITIZED && defined(__GNUC__)
#define PARE_TILE_INLINE [[gnu::noinline]] inline
#define PARE_LAMBDA_INLINE __attribute__((noinline))
#elif defined(__GNUC__)
#define PARE_TILE_INLINE PARE_ALWAYS_INLINE
#define PARE_LAMBDA_INLINE __attribute__((always_inline))
#else
#define PARE_TILE_INLINE inline
#define PARE_LAMBDA_INLINE
#endif

#include <pare/core/macros_on.hpp>
