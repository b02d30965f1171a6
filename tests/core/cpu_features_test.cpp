// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <string>

#include <pare/core/cpu_features.hpp>

namespace core_cpu_features_test {
namespace {

namespace arch = pare::arch;

TEST(CpuFeatures, WhatRunsThisTestIsSupported) {
  EXPECT_TRUE(pare::cpu_supports(arch::scalar{}));
  EXPECT_TRUE(pare::cpu_supports(arch::best{}));
}

TEST(CpuFeatures, EachLevelHoldsTheOneBelow) {
  const auto implies = [](bool a, bool b) { return !a || b; };
  EXPECT_TRUE(implies(pare::cpu_supports(arch::avx2{}), pare::cpu_supports(arch::sse2{})));
  EXPECT_TRUE(implies(pare::cpu_supports(arch::avx512{}), pare::cpu_supports(arch::avx2{})));
  EXPECT_TRUE(implies(pare::cpu_supports(arch::avx512_vnni{}), pare::cpu_supports(arch::avx512{})));
  EXPECT_TRUE(
      implies(pare::cpu_supports(arch::avx512_bf16{}), pare::cpu_supports(arch::avx512_vnni{})));
}

TEST(CpuFeatures, FastProductsOfPairsAreAProcessorsThatHasThem) {
  EXPECT_TRUE(!pare::cpu_has_fast_bf16_dot() || pare::cpu_supports(arch::avx512_bf16{}));
#if defined(__x86_64__)
  __builtin_cpu_init();
  const bool amd = __builtin_cpu_is("amd") != 0;
  EXPECT_EQ(pare::cpu_has_fast_bf16_dot(), amd && pare::cpu_supports(arch::avx512_bf16{}));
#endif
}

#if defined(__x86_64__)
TEST(CpuFeatures, AgreeWithTheCompilersOwnCheck) {
  __builtin_cpu_init();
  const auto has = [](int answer) { return answer != 0; };
  EXPECT_EQ(pare::cpu_supports(arch::sse2{}), has(__builtin_cpu_supports("sse2")));

  // The compiler also asks the operating system for the registers. Not every compiler knows the
  // names of F16C, LZCNT and MOVBE, which our level asks for as well; no AVX2 machine lacks them.
  const bool v3 = has(__builtin_cpu_supports("avx2")) && has(__builtin_cpu_supports("fma")) &&
                  has(__builtin_cpu_supports("bmi")) && has(__builtin_cpu_supports("bmi2"));
  EXPECT_EQ(pare::cpu_supports(arch::avx2{}), v3);

  const bool v4 =
      v3 && has(__builtin_cpu_supports("avx512f")) && has(__builtin_cpu_supports("avx512bw")) &&
      has(__builtin_cpu_supports("avx512cd")) && has(__builtin_cpu_supports("avx512dq")) &&
      has(__builtin_cpu_supports("avx512vl"));
  EXPECT_EQ(pare::cpu_supports(arch::avx512{}), v4);
  const bool vnni = v4 && has(__builtin_cpu_supports("avx512vnni"));
  EXPECT_EQ(pare::cpu_supports(arch::avx512_vnni{}), vnni);
  EXPECT_EQ(pare::cpu_supports(arch::avx512_bf16{}),
            vnni && has(__builtin_cpu_supports("avx512bf16")));
  EXPECT_FALSE(pare::cpu_supports(arch::neon{}));
}
#elif defined(__aarch64__)
TEST(CpuFeatures, NeonIsPartOfAArch64) {
  EXPECT_TRUE(pare::cpu_supports(arch::neon{}));
  EXPECT_FALSE(pare::cpu_supports(arch::sse2{}));
  EXPECT_FALSE(pare::cpu_supports(arch::avx2{}));
}
#endif

TEST(CpuFeatures, TagsSayWhatTheyAre) {
  EXPECT_EQ(std::string(arch::avx512_bf16::name), "avx512_bf16");
  EXPECT_EQ(std::string(arch::sse2::name), "sse2");
  static_assert(arch::avx512_bf16::has_bf16_dot && arch::avx512_bf16::has_int8_dot);
  static_assert(!arch::avx512_vnni::has_bf16_dot && arch::avx512_vnni::has_int8_dot);
  static_assert(!arch::avx512::has_int8_dot && !arch::avx2::has_bf16_dot);
}

}  // namespace
}  // namespace core_cpu_features_test
