// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Names of the instruction sets that kernels are written for.
///
/// ```cpp
/// std::puts(pare::arch::best::name);                           // "avx2" with -march=x86-64-v3
/// if (pare::arch::best::has_bf16_dot) std::puts("bf16 products");
/// project(pare::simd_for<pare::arch::sse2>{}, x, omega, y);    // not the best: a named one
/// ```
///
/// A tag says which registers a kernel may use and which instructions are there. It inherits from
/// the tag below, whose operations serve it where it has none of its own (`kernel/simd.hpp`), and
/// what it can do more is a member, never a list of names elsewhere. `arch::best` is the best tag
/// that the flags of this translation unit allow.

#include <pare/core/macros_off.hpp>

#include <pare/core/config.hpp>

namespace pare::arch {

/// One lane, no vector instructions: any machine, and the plain form of every kernel.
struct scalar {
  static constexpr const char* name = "scalar";
  static constexpr int registers = 16;               ///< of vectors
  static constexpr bool has_fma = false;             ///< a * b + c with one rounding
  static constexpr bool has_exponent_scale = false;  ///< x 2^n in one instruction
  static constexpr bool has_bf16_dot = false;        ///< products of bf16 pairs summed into f32
  static constexpr bool has_int8_dot = false;  ///< products of u8 x i8 quadruples summed into i32
};

/// x86-64 baseline: 16-byte registers.
struct sse2 : scalar {
  static constexpr const char* name = "sse2";
};

/// x86-64-v3: 32-byte registers and fused multiply-add.
struct avx2 : sse2 {
  static constexpr const char* name = "avx2";
  static constexpr bool has_fma = true;
};

/// x86-64-v4 (AVX-512 F, BW, CD, DQ, VL): 64-byte registers.
struct avx512 : avx2 {
  static constexpr const char* name = "avx512";
  static constexpr int registers = 32;
  static constexpr bool has_exponent_scale = true;
};

/// AVX-512 with VNNI (Ice Lake and later).
struct avx512_vnni : avx512 {
  static constexpr const char* name = "avx512_vnni";
  static constexpr bool has_int8_dot = true;
};

/// AVX-512 with VNNI and bf16 dot products (Zen 4, Cooper Lake, Sapphire Rapids).
struct avx512_bf16 : avx512_vnni {
  static constexpr const char* name = "avx512_bf16";
  static constexpr bool has_bf16_dot = true;
};

/// AArch64 Advanced SIMD: 16-byte registers and fused multiply-add.
struct neon : scalar {
  static constexpr const char* name = "neon";
  static constexpr int registers = 32;
  static constexpr bool has_fma = true;
};

PARE_ABI_BEGIN
/// The best tag this translation unit was compiled for.
#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512DQ__) && defined(__AVX512VL__)
#if defined(__AVX512BF16__) && defined(__AVX512VNNI__)
using best = avx512_bf16;
#elif defined(__AVX512VNNI__)
using best = avx512_vnni;
#else
using best = avx512;
#endif
#elif defined(__AVX2__) && defined(__FMA__)
using best = avx2;
#elif defined(__SSE2__)
using best = sse2;
#elif defined(__aarch64__)
using best = neon;
#else
using best = scalar;
#endif
PARE_ABI_END

}  // namespace pare::arch

#include <pare/core/macros_on.hpp>
