// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <Eigen/Core>
#include <bit>
#include <cstdint>
#include <cstring>
#include <string>
#include <type_traits>

#include <pare/core/scalar.hpp>

namespace core_scalar_test {
namespace {

using pare::bf16;
using pare::f16;

constexpr std::uint32_t bits_of(float x) { return std::bit_cast<std::uint32_t>(x); }
constexpr float float_of(std::uint32_t bits) { return std::bit_cast<float>(bits); }
constexpr bool is_nan(std::uint32_t bits) { return (bits & 0x7fffffffu) > 0x7f800000u; }

/// What both 16-bit types are, as Eigen has it: a name, its NaN test and its conversions.
struct Bf16 {
  using Ours = bf16;
  using Eigens = Eigen::bfloat16;
  static constexpr std::uint16_t infinity = 0x7f80, quiet = 0x0040;
  static constexpr int dropped_bits = 16;
};
struct F16 {
  using Ours = f16;
  using Eigens = Eigen::half;
  static constexpr std::uint16_t infinity = 0x7c00, quiet = 0x0200;
  static constexpr int dropped_bits = 13;
};

template <class Kind>
std::uint16_t ours(float x) {
  return typename Kind::Ours(x).bits;
}

template <class Kind>
std::uint16_t eigens(float x) {
  return Eigen::numext::bit_cast<std::uint16_t>(typename Kind::Eigens(x));
}

/// Ours equals Eigen's bit for bit; of a NaN only the sign and that it is quiet, because Eigen
/// keeps or drops the rest depending on the instructions it has.
template <class Kind>
bool converts_alike(std::uint32_t bits) {
  const std::uint16_t got = ours<Kind>(float_of(bits));
  if (!is_nan(bits)) return got == eigens<Kind>(float_of(bits));
  return (got & 0x7fffu) > Kind::infinity && (got & Kind::quiet) != 0 &&
         (got >> 15) == (bits >> 31);
}

template <class Kind>
class Scalar16 : public testing::Test {};
struct KindName {
  template <class Kind>
  static std::string GetName(int) {
    return std::is_same_v<Kind, Bf16> ? "bf16" : "f16";
  }
};
using Kinds = testing::Types<Bf16, F16>;
TYPED_TEST_SUITE(Scalar16, Kinds, KindName);

TYPED_TEST(Scalar16, EveryPatternWidensAsEigenDoes) {
  using Ours = typename TypeParam::Ours;
  using Eigens = typename TypeParam::Eigens;
  for (std::uint32_t b = 0; b <= 0xffffu; ++b) {
    const auto pattern = static_cast<std::uint16_t>(b);
    const float got = static_cast<float>(Ours::from_bits(pattern));
    const float wanted = static_cast<float>(Eigen::numext::bit_cast<Eigens>(pattern));
    if ((pattern & 0x7fffu) > TypeParam::infinity) {
      ASSERT_TRUE(is_nan(bits_of(got))) << b;
      ASSERT_EQ(bits_of(got) >> 31, b >> 15) << b;
    } else {
      ASSERT_EQ(bits_of(got), bits_of(wanted)) << b;
    }
  }
}

TYPED_TEST(Scalar16, ConvertsToAndFromEigensScalarBitForBit) {
  using Ours = typename TypeParam::Ours;
  using Eigens = typename TypeParam::Eigens;
  for (std::uint32_t bits = 0; bits <= 0xffff; ++bits) {
    const auto pattern = static_cast<std::uint16_t>(bits);
    const bool nan = (pattern & 0x7fffu) > TypeParam::infinity;
    const auto quieted = static_cast<std::uint16_t>(nan ? pattern | TypeParam::quiet : pattern);
    const auto theirs = static_cast<Eigens>(Ours::from_bits(pattern));
    if (nan)  // Eigen keeps or drops the payload depending on the instructions it has.
      ASSERT_GT(std::bit_cast<std::uint16_t>(theirs) & 0x7fffu, TypeParam::infinity);
    else
      ASSERT_EQ(std::bit_cast<std::uint16_t>(theirs), pattern);
    ASSERT_EQ(static_cast<Ours>(std::bit_cast<Eigens>(pattern)).bits, quieted);
  }
}

TYPED_TEST(Scalar16, EveryPatternSurvivesTheWayThroughFloat) {
  using Ours = typename TypeParam::Ours;
  for (std::uint32_t b = 0; b <= 0xffffu; ++b) {
    const auto pattern = static_cast<std::uint16_t>(b);
    const bool nan = (pattern & 0x7fffu) > TypeParam::infinity;
    const std::uint32_t wanted = nan ? b | TypeParam::quiet : b;
    ASSERT_EQ(ours<TypeParam>(static_cast<float>(Ours::from_bits(pattern))), wanted) << b;
  }
}

TYPED_TEST(Scalar16, EveryExponentRoundsTiesAndTheirNeighboursAsEigenDoes) {
  constexpr std::uint32_t last = 1u << TypeParam::dropped_bits, half = last / 2;
  for (std::uint32_t head = 0; head < 0x200; ++head) {  // sign and exponent
    for (std::uint32_t kept = 0; kept < (1u << 23); kept += last)
      for (const std::uint32_t tail : {0u, 1u, half - 1, half, half + 1, last - 1})
        ASSERT_TRUE(converts_alike<TypeParam>((head << 23) | kept | tail))
            << std::hex << ((head << 23) | kept | tail);
  }
}

TYPED_TEST(Scalar16, SubnormalTiesRoundAsEigenDoes) {
  // Between two neighbours of the 16-bit grid lies one tie; half subnormals drop more than 13 bits.
  for (std::uint16_t b = 0; b < TypeParam::infinity; ++b) {
    using Ours = typename TypeParam::Ours;
    const double low = static_cast<float>(Ours::from_bits(b));
    const double high = b + 1 == TypeParam::infinity
                            ? 2 * low - static_cast<float>(Ours::from_bits(std::uint16_t(b - 1)))
                            : static_cast<float>(Ours::from_bits(std::uint16_t(b + 1)));
    const std::uint32_t tie = bits_of(static_cast<float>((low + high) / 2));
    for (const std::uint32_t at : {tie - 1, tie, tie + 1})
      for (const std::uint32_t sign : {0u, 0x80000000u})
        ASSERT_TRUE(converts_alike<TypeParam>(at | sign)) << std::hex << (at | sign);
    ASSERT_EQ(ours<TypeParam>(float_of(tie)), b + (b & 1)) << "a tie goes to the even side";
    ASSERT_EQ(ours<TypeParam>(float_of(tie - 1)), b);
    ASSERT_EQ(ours<TypeParam>(float_of(tie + 1)), b + 1);
  }
}

TYPED_TEST(Scalar16, StridedSweepOfAllFloatsConvertsAsEigenDoes) {
  constexpr std::uint64_t stride = 211;  // a prime: every low-bit pattern meets every exponent
  for (std::uint64_t b = 0; b <= 0xffffffffu; b += stride)
    ASSERT_TRUE(converts_alike<TypeParam>(static_cast<std::uint32_t>(b))) << std::hex << b;
}

TYPED_TEST(Scalar16, NanKeepsItsUpperPayloadAndBecomesQuiet) {
  for (const std::uint32_t sign : {0u, 0x80000000u})
    for (std::uint32_t payload = 1; payload < (1u << 23); payload = payload * 3 + 1) {
      const std::uint16_t got = ours<TypeParam>(float_of(sign | 0x7f800000u | payload));
      const std::uint32_t upper = payload >> TypeParam::dropped_bits;
      ASSERT_EQ(got, (sign >> 16) | TypeParam::infinity | TypeParam::quiet | upper) << payload;
    }
}

TYPED_TEST(Scalar16, IsTwoPlainBytesThatEigenShares) {
  using Ours = typename TypeParam::Ours;
  static_assert(sizeof(Ours) == 2 && alignof(Ours) == alignof(typename TypeParam::Eigens));
  static_assert(std::is_trivially_copyable_v<Ours> && std::is_standard_layout_v<Ours>);
  static_assert(!std::is_convertible_v<float, Ours> && !std::is_convertible_v<Ours, float>);
  static_assert(Ours{}.bits == 0 && Ours(1.0f).bits == Ours(1.0f).bits);
  const typename TypeParam::Eigens theirs(-1.5f);
  Ours copied;
  std::memcpy(static_cast<void*>(&copied), &theirs, sizeof(copied));
  EXPECT_EQ(static_cast<float>(copied), -1.5f);
}

/// Eigen's object and Pare's view of it meet in one optimised function: the write through one must
/// be seen through the other.
template <class Kind>
[[gnu::noinline]] float write_both_ways(typename Kind::Eigens* theirs, void* same) {
  auto* const view = static_cast<typename Kind::Ours*>(same);
  *theirs = typename Kind::Eigens(1.0f);
  *view = typename Kind::Ours(3.0f);
  return static_cast<float>(*theirs);
}

TYPED_TEST(Scalar16, MayAliasEigensScalar) {
  typename TypeParam::Eigens x(0.0f);
  EXPECT_EQ(write_both_ways<TypeParam>(&x, &x), 3.0f);
}

TEST(Scalar, ConversionsAreConstexprAndExactOnKnownValues) {
  static_assert(bf16(1.0f).bits == 0x3f80 && static_cast<float>(bf16::from_bits(0xc000)) == -2.0f);
  static_assert(f16(1.0f).bits == 0x3c00 && static_cast<float>(f16::from_bits(0xc000)) == -2.0f);
  static_assert(f16(65504.0f).bits == 0x7bff && f16(65519.996f).bits == 0x7bff);
  static_assert(f16(65520.0f).bits == 0x7c00 && f16(-65536.0f).bits == 0xfc00);
  static_assert(f16(0x1p-24f).bits == 1 && f16(0x1p-25f).bits == 0 && f16(0x1.8p-25f).bits == 1);
  static_assert(f16(-0.0f).bits == 0x8000 && bf16(-0.0f).bits == 0x8000);
  static_assert(bf16(0x1.fep127f).bits == 0x7f7f && bf16(0x1.ffp127f).bits == 0x7f80);
}

TEST(Scalar, ConceptsAndComputeTypes) {
  static_assert(pare::ComputeScalar<float> && pare::ComputeScalar<double>);
  static_assert(!pare::ComputeScalar<bf16> && !pare::ComputeScalar<int>);
  static_assert(!pare::ComputeScalar<long double> && !pare::ComputeScalar<const float>);
  static_assert(pare::StorageScalar<bf16> && pare::StorageScalar<f16>);
  static_assert(!pare::StorageScalar<std::uint16_t> && !pare::StorageScalar<Eigen::half>);
  static_assert(std::is_same_v<pare::compute_t<float>, float> &&
                std::is_same_v<pare::compute_t<bf16>, float> &&
                std::is_same_v<pare::compute_t<f16>, float> &&
                std::is_same_v<pare::compute_t<double>, double>);
}

}  // namespace
}  // namespace core_scalar_test
