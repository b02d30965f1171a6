// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Whether the processor at hand, and its operating system, can run an arch tag's kernels.
///
/// ```cpp
/// if (!pare::cpu_supports(pare::arch::best{})) {  // what this program is compiled for
///   std::fprintf(stderr, "this program needs %s\n", pare::arch::best::name);
///   return 1;
/// }
/// ```

#include <pare/core/macros_off.hpp>

#include <pare/core/arch.hpp>

#if defined(__x86_64__) || defined(__i386__)
#include <cpuid.h>
#endif

#include <cstdint>
#include <initializer_list>

namespace pare {

namespace detail {
PARE_ABI_BEGIN

/// What CPUID and XGETBV say, read once.
struct CpuFeatures {
  bool sse2 = false;
  bool avx2 = false;         ///< x86-64-v3, with the OS saving the upper halves
  bool avx512 = false;       ///< F, BW, CD, DQ, VL, with the OS saving zmm and mask registers
  bool avx512_vnni = false;  ///< avx512 and VNNI
  bool avx512_bf16 = false;  ///< avx512 and BF16
  bool is_amd = false;       ///< of AMD, or Hygon after AMD
};

#if defined(__x86_64__) || defined(__i386__)
/// The register states that the operating system saves on a context switch (XCR0); 0 without XSAVE.
inline std::uint64_t enabled_register_states(std::uint32_t leaf1_ecx) {
  constexpr std::uint32_t osxsave = 1u << 27;
  if ((leaf1_ecx & osxsave) == 0) return 0;
  std::uint32_t low = 0, high = 0;
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return (std::uint64_t{high} << 32) | low;
}

inline CpuFeatures read_cpu_features() {
  CpuFeatures f;
  std::uint32_t a = 0, b = 0, c1 = 0, d1 = 0;
  // "AuthenticAMD", "HygonGenuine"
  if (__get_cpuid(0, &a, &b, &c1, &d1) != 0) f.is_amd = b == 0x68747541u || b == 0x6f677948u;
  if (__get_cpuid(1, &a, &b, &c1, &d1) == 0) return f;
  f.sse2 = (d1 >> 26) & 1u;

  const std::uint64_t saved = enabled_register_states(c1);
  const bool os_saves_ymm = (saved & 0x6) == 0x6;
  const bool os_saves_zmm = (saved & 0xe6) == 0xe6;
  std::uint32_t b81 = 0, c81 = 0, d81 = 0;
  if (__get_cpuid(0x80000001u, &a, &b81, &c81, &d81) == 0) return f;
  std::uint32_t b7 = 0, c7 = 0, d7 = 0;
  if (__get_cpuid_count(7, 0, &a, &b7, &c7, &d7) == 0) return f;
  const std::uint32_t subleaves = a;

  const auto all = [](std::uint32_t word, std::initializer_list<int> bits) {
    for (const int bit : bits)
      if (((word >> bit) & 1u) == 0) return false;
    return true;
  };
  // SSE3, SSSE3, FMA, SSE4.1, SSE4.2, MOVBE, POPCNT, AVX, F16C; BMI1, AVX2, BMI2; LZCNT. Compilers
  // use all of them where they may use AVX2, and a hypervisor may hide any one.
  f.avx2 = os_saves_ymm && all(c1, {0, 9, 12, 19, 20, 22, 23, 28, 29}) && all(b7, {3, 5, 8}) &&
           all(c81, {5});
  f.avx512 = f.avx2 && os_saves_zmm && all(b7, {16, 17, 28, 30, 31});
  f.avx512_vnni = f.avx512 && all(c7, {11});
  std::uint32_t a71 = 0, b71 = 0, c71 = 0, d71 = 0;
  if (subleaves >= 1 && __get_cpuid_count(7, 1, &a71, &b71, &c71, &d71) != 0)
    f.avx512_bf16 = f.avx512_vnni && all(a71, {5});
  return f;
}
#else
inline CpuFeatures read_cpu_features() { return {}; }
#endif

inline const CpuFeatures& cpu_features() {
  static const CpuFeatures features = read_cpu_features();
  return features;
}

PARE_ABI_END
}  // namespace detail
PARE_ABI_BEGIN

/// True if this processor and its operating system can run kernels compiled for the tag. A tag
/// without an answer of its own does not compile. The processor is asked once per program.
template <class Arch>
bool cpu_supports(Arch) = delete;
inline bool cpu_supports(arch::scalar) { return true; }
inline bool cpu_supports(arch::sse2) { return detail::cpu_features().sse2; }
inline bool cpu_supports(arch::avx2) { return detail::cpu_features().avx2; }
inline bool cpu_supports(arch::avx512) { return detail::cpu_features().avx512; }
inline bool cpu_supports(arch::avx512_vnni) { return detail::cpu_features().avx512_vnni; }
inline bool cpu_supports(arch::avx512_bf16) { return detail::cpu_features().avx512_bf16; }
inline bool cpu_supports(arch::neon) {
#if defined(__aarch64__)
  return true;
#else
  return false;
#endif
}

/// Whether an instruction that multiplies pairs of bf16 takes no longer than one that multiplies
/// floats, so that pairs are twice as fast. On AMD's processors it does not; on Intel's it takes
/// at least twice as long (measured on Zen 4, Zen 5 and Sapphire Rapids).
inline bool cpu_has_fast_bf16_dot() {
  return cpu_supports(arch::avx512_bf16{}) && detail::cpu_features().is_amd;
}
PARE_ABI_END

}  // namespace pare

#include <pare/core/macros_on.hpp>
