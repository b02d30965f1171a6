// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <random>
#include <utility>
#include <vector>

#include <pare/kernel/simd.hpp>

#include "kernel/archs.hpp"
#include "kernel/guarded_array.hpp"
#include "support/tolerance.hpp"

namespace kernel_simd_test {
namespace {

using pare::testing::GuardedArray;
namespace kernel = pare::kernel;

template <class Case>
struct SimdTest : testing::Test {};
TYPED_TEST_SUITE(SimdTest, pare::testing::ArchsAndScalars);

template <class Arch>
struct SimdArchTest : testing::Test {};
TYPED_TEST_SUITE(SimdArchTest, pare::testing::Archs);

/// Registers as arrays, for a test to read.
template <class T, class Arch>
std::vector<T> lanes_of(kernel::vec<T, Arch> v) {
  std::vector<T> out(static_cast<std::size_t>(kernel::lanes<T, Arch>));
  kernel::store<Arch>(out.data(), v);
  return out;
}

template <class T, class Arch>
kernel::vec<T, Arch> counting(T first) {
  std::vector<T> values;
  for (std::ptrdiff_t i = 0; i < kernel::lanes<T, Arch>; ++i)
    values.push_back(first + static_cast<T>(i));
  return kernel::load<Arch>(static_cast<const T*>(values.data()));
}

/// All 65536 patterns, loaded at every alignment of an element: the last load ends at a page's end.
template <class Arch, class Storage>
void expect_every_pattern_widens() {
  constexpr std::ptrdiff_t n = kernel::lanes<float, Arch>;
  GuardedArray<Storage> all(65536);
  for (std::ptrdiff_t i = 0; i < all.size(); ++i)
    all[i] = Storage::from_bits(static_cast<std::uint16_t>(i));
  for (std::ptrdiff_t first = 0; first < all.size(); first += n) {
    float got[static_cast<std::size_t>(n)];
    kernel::store<Arch>(
        static_cast<float*>(got),
        kernel::load_widened<Arch>(static_cast<const Storage*>(all.data() + first)));
    for (std::ptrdiff_t i = 0; i < n; ++i) {
      const auto wanted = static_cast<float>(all[first + i]);
      // The processor makes a signalling NaN quiet, which is all that may differ.
      if (std::isnan(wanted))
        ASSERT_TRUE(std::isnan(got[i])) << "pattern " << first + i;
      else
        ASSERT_EQ(std::bit_cast<std::uint32_t>(got[i]), std::bit_cast<std::uint32_t>(wanted))
            << "pattern " << first + i;
    }
  }
}

TYPED_TEST(SimdArchTest, EveryBf16PatternWidensAsItsConversion) {
  expect_every_pattern_widens<TypeParam, pare::bf16>();
}

TYPED_TEST(SimdArchTest, EveryF16PatternWidensAsItsConversion) {
  expect_every_pattern_widens<TypeParam, pare::f16>();
}

TYPED_TEST(SimdTest, LoadsAndStoresUnalignedAndWithinTheRegister) {
  using T = typename TypeParam::scalar;
  using Arch = typename TypeParam::arch;
  constexpr std::ptrdiff_t n = kernel::lanes<T, Arch>;
  GuardedArray<T> in(n), out(n + 1);
  for (std::ptrdiff_t i = 0; i < n; ++i) in[i] = static_cast<T>(3 * i - 7);
  kernel::store<Arch>(out.data() + 1, kernel::load_widened<Arch>(static_cast<const T*>(in.data())));
  EXPECT_TRUE(out.untouched(0));
  for (std::ptrdiff_t i = 0; i < n; ++i) EXPECT_EQ(out[i + 1], in[i]);
  for (const T value : lanes_of<T, Arch>(kernel::broadcast<Arch>(T(2.5)))) EXPECT_EQ(value, T(2.5));
}

TYPED_TEST(SimdTest, MultiplyAddIsExactOnSmallIntegers) {
  using T = typename TypeParam::scalar;
  using Arch = typename TypeParam::arch;
  const auto got = lanes_of<T, Arch>(kernel::multiply_add<Arch>(
      counting<T, Arch>(T(-5)), counting<T, Arch>(T(11)), counting<T, Arch>(T(-100))));
  for (std::size_t i = 0; i < got.size(); ++i) {
    const auto t = static_cast<T>(i);
    EXPECT_EQ(got[i], (t - 5) * (t + 11) + (t - 100)) << "lane " << i;
  }
}

TYPED_TEST(SimdTest, MultiplyAddRoundsOnceWhereTheMachineHasTheInstruction) {
  using T = typename TypeParam::scalar;
  using Arch = typename TypeParam::arch;
  const T e = std::numeric_limits<T>::epsilon();
  // (1 + e)(1 - e) - 1 = -e^2 in one rounding; the product alone rounds to 1.
  const auto got = lanes_of<T, Arch>(kernel::multiply_add<Arch>(kernel::broadcast<Arch>(T(1) + e),
                                                                kernel::broadcast<Arch>(T(1) - e),
                                                                kernel::broadcast<Arch>(T(-1))));
  for (const T value : got) {
    if (Arch::has_fma)
      EXPECT_EQ(value, -e * e);
    else
      EXPECT_TRUE(value == -e * e || value == T(0)) << value;
  }
}

TYPED_TEST(SimdTest, SwapPairsExchangesNeighbours) {
  using T = typename TypeParam::scalar;
  using Arch = typename TypeParam::arch;
  const auto got = lanes_of<T, Arch>(kernel::swap_pairs<Arch>(counting<T, Arch>(T(3))));
  for (std::size_t i = 0; i < got.size(); ++i)
    EXPECT_EQ(got[i], T(3) + static_cast<T>(got.size() == 1 ? 0 : i ^ 1)) << "lane " << i;
}

TYPED_TEST(SimdTest, ABroadcastPairReadsTwoScalarsAndNoMore) {
  using T = typename TypeParam::scalar;
  using Arch = typename TypeParam::arch;
  GuardedArray<T> two(2);  // ends at the end of a page
  two[0] = T(-0.0);
  two[1] = std::numeric_limits<T>::infinity();
  kernel::vec<T, Arch> first, second;
  kernel::broadcast_pair<Arch>(static_cast<const T*>(two.data()), first, second);
  for (const T value : lanes_of<T, Arch>(first)) EXPECT_TRUE(value == T(0) && std::signbit(value));
  for (const T value : lanes_of<T, Arch>(second)) EXPECT_EQ(value, two[1]);
}

TYPED_TEST(SimdTest, FloatsWidenInTheirOrderAndDoublesNarrowToNearest) {
  using Arch = typename TypeParam::arch;
  constexpr std::ptrdiff_t n = kernel::lanes<float, Arch>, each = kernel::lanes<double, Arch>;
  std::vector<float> values;
  for (std::ptrdiff_t i = 0; i < n; ++i) values.push_back(1.1f * static_cast<float>(i) - 3);
  kernel::vec<double, Arch> wide[static_cast<std::size_t>(kernel::double_registers<Arch>)];
  kernel::widen_floats<Arch>(kernel::load<Arch>(static_cast<const float*>(values.data())),
                             static_cast<kernel::vec<double, Arch>*>(wide));
  double doubles[static_cast<std::size_t>(n)];
  for (std::ptrdiff_t i = 0; i < n; i += each)
    kernel::store<Arch>(static_cast<double*>(doubles) + i, wide[i / each]);
  for (std::size_t i = 0; i < values.size(); ++i) {
    EXPECT_EQ(doubles[i], static_cast<double>(values[i])) << "lane " << i;
    doubles[i] = doubles[i] / 3;
  }
  for (std::ptrdiff_t i = 0; i < n; i += each)
    wide[i / each] = kernel::load<Arch>(static_cast<const double*>(doubles) + i);
  float narrow[static_cast<std::size_t>(n)];
  kernel::store<Arch>(
      static_cast<float*>(narrow),
      kernel::narrow_doubles<Arch>(static_cast<const kernel::vec<double, Arch>*>(wide)));
  for (std::size_t i = 0; i < values.size(); ++i)
    EXPECT_EQ(narrow[i], static_cast<float>(doubles[i])) << "lane " << i;
}

/// Numbers halfway between two of the storage scalar, beside them, large, small, and none.
template <class Arch, class Storage>
void expect_narrows_as_its_conversion() {
  constexpr std::ptrdiff_t n = kernel::lanes<float, Arch>;
  std::vector<float> values;
  for (std::uint32_t i = 0; i < 65536; i += 7) {
    const auto exact = static_cast<float>(Storage::from_bits(static_cast<std::uint16_t>(i)));
    // What a subnormal bf16 becomes, the arch decides.
    if (std::isnan(exact) || std::abs(exact) < 0x1p-126f) continue;
    const auto bits = std::bit_cast<std::uint32_t>(exact);
    for (const std::uint32_t more : {0u, 0x0fffu, 0x1000u, 0x1001u, 0x7fffu, 0x8000u, 0x8001u})
      if (std::isfinite(std::bit_cast<float>(bits + more)))
        values.push_back(std::bit_cast<float>(bits + more));
  }
  values.resize(values.size() / static_cast<std::size_t>(n) * static_cast<std::size_t>(n));
  for (std::size_t i = 0; i < values.size(); i += static_cast<std::size_t>(n)) {
    Storage got[static_cast<std::size_t>(n)];
    kernel::store_narrowed<Arch>(static_cast<Storage*>(got),
                                 kernel::load<Arch>(static_cast<const float*>(values.data() + i)));
    for (std::size_t l = 0; l < static_cast<std::size_t>(n); ++l)
      ASSERT_EQ(got[l].bits, Storage(values[i + l]).bits) << values[i + l];
  }
}

TYPED_TEST(SimdArchTest, NarrowsToTheNearestAsTheConversionDoes) {
  expect_narrows_as_its_conversion<TypeParam, pare::bf16>();
  expect_narrows_as_its_conversion<TypeParam, pare::f16>();
}

TYPED_TEST(SimdTest, ReduceAddSumsEveryLaneOnce) {
  using T = typename TypeParam::scalar;
  using Arch = typename TypeParam::arch;
  constexpr std::ptrdiff_t n = kernel::lanes<T, Arch>;
  std::vector<T> powers;
  T sum = 0;
  for (std::ptrdiff_t i = 0; i < n; ++i) {
    powers.push_back(static_cast<T>(std::int64_t{1} << i));
    sum += powers.back();
  }
  EXPECT_EQ(kernel::reduce_add<Arch>(kernel::load<Arch>(static_cast<const T*>(powers.data()))),
            sum);
}

TYPED_TEST(SimdTest, ReduceAddKeepsToItsRoundingBound) {
  using T = typename TypeParam::scalar;
  using Arch = typename TypeParam::arch;
  constexpr std::ptrdiff_t n = kernel::lanes<T, Arch>;
  std::mt19937_64 random(3);
  std::vector<T> values(static_cast<std::size_t>(n));
  for (int repeat = 0; repeat < 100; ++repeat) {
    long double sum = 0, magnitude = 0;
    for (T& v : values) {
      v = static_cast<T>(static_cast<double>(random()) * 0x1p-63 - 1);
      sum += v;
      magnitude += std::abs(v);
    }
    const T got =
        kernel::reduce_add<Arch>(kernel::load<Arch>(static_cast<const T*>(values.data())));
    ASSERT_TRUE(pare::testing::within(static_cast<double>(got), static_cast<double>(sum),
                                      pare::testing::Tolerance<T>::gamma(static_cast<double>(n)) *
                                          static_cast<double>(magnitude)));
  }
}

TYPED_TEST(SimdTest, InterleaveWorksOverTheFullRegister) {
  using T = typename TypeParam::scalar;
  using Arch = typename TypeParam::arch;
  constexpr auto n = static_cast<std::size_t>(kernel::lanes<T, Arch>);
  if constexpr (n > 1) {
    const auto a = counting<T, Arch>(T(0)), b = counting<T, Arch>(T(100));
    const auto low = lanes_of<T, Arch>(kernel::interleave_low<Arch>(a, b));
    const auto high = lanes_of<T, Arch>(kernel::interleave_high<Arch>(a, b));
    for (std::size_t i = 0; i < n; ++i) {
      const T offset = i % 2 == 0 ? T(0) : T(100);
      EXPECT_EQ(low[i], static_cast<T>(i / 2) + offset) << "lane " << i;
      EXPECT_EQ(high[i], static_cast<T>(n / 2 + i / 2) + offset) << "lane " << i;
    }
  } else {
    EXPECT_EQ((kernel::lanes<T, Arch>), 1);
  }
}

TYPED_TEST(SimdTest, TransposeBlockExchangesRegistersAndLanes) {
  using T = typename TypeParam::scalar;
  using Arch = typename TypeParam::arch;
  constexpr auto n = static_cast<std::size_t>(kernel::lanes<T, Arch>);
  kernel::vec<T, Arch> block[n];
  for (std::size_t r = 0; r < n; ++r) block[r] = counting<T, Arch>(static_cast<T>(100 * r));
  kernel::transpose_block<Arch>(block);
  for (std::size_t r = 0; r < n; ++r) {
    const auto row = lanes_of<T, Arch>(block[r]);
    for (std::size_t c = 0; c < n; ++c)
      EXPECT_EQ(row[c], static_cast<T>(100 * c + r)) << r << ' ' << c;
  }
}

TYPED_TEST(SimdArchTest, WordProductsTakeTheLowHalvesAlone) {
  using U = std::uint64_t;
  constexpr auto n = static_cast<std::size_t>(kernel::lanes<U, TypeParam>);
  std::mt19937_64 random(5);
  for (int repeat = 0; repeat < 200; ++repeat) {
    U a[n], b[n], product[n], high[n];
    for (std::size_t i = 0; i < n; ++i) {
      a[i] = repeat == 0 ? ~U{0} : random();
      b[i] = repeat == 0 ? ~U{0} : random();
    }
    const auto va = kernel::load<TypeParam>(static_cast<const U*>(a));
    const auto vb = kernel::load<TypeParam>(static_cast<const U*>(b));
    kernel::store<TypeParam>(static_cast<U*>(product),
                             kernel::multiply_low_words<TypeParam>(va, vb));
    kernel::store<TypeParam>(static_cast<U*>(high), kernel::high_words<TypeParam>(va));
    for (std::size_t i = 0; i < n; ++i) {
      ASSERT_EQ(product[i], (a[i] % (U{1} << 32)) * (b[i] % (U{1} << 32))) << "lane " << i;
      ASSERT_EQ(high[i], a[i] / (U{1} << 32)) << "lane " << i;
    }
  }
}

TYPED_TEST(SimdTest, MaximumTakesTheLargerAndTheSecondBesideANan) {
  using T = typename TypeParam::scalar;
  using Arch = typename TypeParam::arch;
  constexpr T infinity = std::numeric_limits<T>::infinity();
  constexpr T nan = std::numeric_limits<T>::quiet_NaN();
  const T values[] = {T(-2.5), T(0), T(3), infinity, -infinity, nan};
  constexpr auto n = static_cast<std::size_t>(kernel::lanes<T, Arch>);
  for (std::size_t first = 0; first < 36; ++first) {
    T a[n], b[n];
    for (std::size_t i = 0; i < n; ++i) {
      a[i] = values[(first + i) % 36 / 6];
      b[i] = values[(first + i) % 6];
    }
    const auto got =
        lanes_of<T, Arch>(kernel::maximum<Arch>(kernel::load<Arch>(static_cast<const T*>(a)),
                                                kernel::load<Arch>(static_cast<const T*>(b))));
    for (std::size_t i = 0; i < n; ++i) {
      const bool nans = std::isnan(a[i]) || std::isnan(b[i]);
      const T wanted = nans ? b[i] : std::max(a[i], b[i]);
      if (std::isnan(wanted))
        ASSERT_TRUE(std::isnan(got[i])) << "of " << a[i] << " and " << b[i];
      else
        ASSERT_EQ(got[i], wanted) << "of " << a[i] << " and " << b[i];
    }
  }
}

template <class Arch, class I>
void expect_smaller_of_each() {
  constexpr auto n = static_cast<std::size_t>(kernel::lanes<I, Arch>);
  const I values[] = {I(-7), I(0), I(3), std::numeric_limits<I>::min(),
                      std::numeric_limits<I>::max()};
  for (std::size_t first = 0; first < 25; ++first) {
    I a[n], b[n];
    for (std::size_t i = 0; i < n; ++i) {
      a[i] = values[(first + i) % 25 / 5];
      b[i] = values[(first + i) % 5];
    }
    const auto got =
        lanes_of<I, Arch>(kernel::minimum<Arch>(kernel::load<Arch>(static_cast<const I*>(a)),
                                                kernel::load<Arch>(static_cast<const I*>(b))));
    for (std::size_t i = 0; i < n; ++i) ASSERT_EQ(got[i], std::min(a[i], b[i])) << i;
  }
}

TYPED_TEST(SimdArchTest, MinimumTakesTheSmallerOfIntegers) {
  expect_smaller_of_each<TypeParam, std::int32_t>();
  expect_smaller_of_each<TypeParam, std::int64_t>();
}

TYPED_TEST(SimdTest, SpreadLanePutsOneLaneInAll) {
  using T = typename TypeParam::scalar;
  using Arch = typename TypeParam::arch;
  constexpr auto n = static_cast<std::size_t>(kernel::lanes<T, Arch>);
  T values[n];
  for (std::size_t i = 0; i < n; ++i) values[i] = static_cast<T>(i) + T(0.5);
  const auto v = kernel::load<Arch>(static_cast<const T*>(values));
  [&]<std::size_t... I>(std::index_sequence<I...>) {
    const auto expect = [&](const std::vector<T>& got, T wanted) {
      for (const T x : got) ASSERT_EQ(x, wanted);
    };
    (expect(lanes_of<T, Arch>(kernel::spread_lane<Arch, I>(v, static_cast<const T*>(values))),
            values[I]),
     ...);
  }(std::make_index_sequence<n>{});
}

template <class Arch, int Entries, class I>
void expect_held_look_ups() {
  constexpr std::ptrdiff_t n = kernel::lanes<float, Arch>;
  std::vector<float> table;
  for (int i = 0; i < Entries; ++i) table.push_back(static_cast<float>(i * i) - 100);
  const auto held = kernel::hold_table<Arch, Entries>(table.data());
  GuardedArray<I> places(n);
  for (int first = 0; first < Entries; ++first) {
    for (std::ptrdiff_t i = 0; i < n; ++i)
      places[i] = static_cast<I>((first + 37 * static_cast<int>(i)) % Entries);
    const auto got = lanes_of<float, Arch>(
        kernel::look_up_held<Arch>(held, static_cast<const I*>(places.data())));
    for (std::ptrdiff_t i = 0; i < n; ++i)
      ASSERT_EQ(got[static_cast<std::size_t>(i)], table[static_cast<std::size_t>(places[i])])
          << Entries << ' ' << first << ' ' << i;
  }
}

TYPED_TEST(SimdArchTest, TablesInRegistersAreLookedUp) {
  if constexpr (kernel::holds_tables<TypeParam>) {
    expect_held_look_ups<TypeParam, 64, std::uint8_t>();
    expect_held_look_ups<TypeParam, 128, std::uint8_t>();
    expect_held_look_ups<TypeParam, 256, std::uint8_t>();
    expect_held_look_ups<TypeParam, 64, std::uint16_t>();
    expect_held_look_ups<TypeParam, 256, std::uint16_t>();
  }
}

/// Two of each four by plain comparisons, of weights with ties among them.
template <class Arch, bool Weighed>
void expect_two_of_each_four() {
  std::mt19937 random(3);
  for (int round = 0; round < 200; ++round) {
    float w[64], factors[64], zeros[static_cast<std::size_t>(kernel::lanes<float, Arch>)];
    alignas(64) float values[32];
    std::uint16_t words[4];
    for (int i = 0; i < 64; ++i) {
      w[i] = static_cast<float>(static_cast<int>(random() % 9) - 4) * 0.5f;
      factors[i] = static_cast<float>(1 + random() % 3);
    }
    auto sum = kernel::broadcast<Arch>(0.0f);
    kernel::keep_sixty_four<Arch, Weighed, false>(
        static_cast<const float*>(w), static_cast<const float*>(factors),
        static_cast<std::uint16_t*>(words), static_cast<float*>(values), sum);
    kernel::store<Arch>(static_cast<float*>(zeros), sum);
    for (const float zero : zeros) ASSERT_EQ(zero, 0.0f);
    for (int g = 0; g < 16; ++g) {
      unsigned bits = 0;
      int kept = 2 * g;
      for (int i = 0; i < 4; ++i) {
        const auto score = [&](int j) {
          return std::abs(w[4 * g + j]) * (Weighed ? factors[4 * g + j] : 1.0f);
        };
        int better = 0;
        for (int j = 0; j < 4; ++j)
          better += score(j) > score(i) || (score(j) == score(i) && j < i) ? 1 : 0;
        if (better >= 2) continue;
        bits |= 1u << i;
        ASSERT_EQ(values[kept++], w[4 * g + i]) << round << ' ' << g;
      }
      ASSERT_EQ(words[g / 4] >> (g % 4 * 4) & 15u, bits) << round << ' ' << g;
    }
  }
}

TYPED_TEST(SimdArchTest, OfSixtyFourTheTwoLargestOfEachFourAreKept) {
  if constexpr (kernel::has_keep_sixty_four<TypeParam, float>) {
    expect_two_of_each_four<TypeParam, false>();
    expect_two_of_each_four<TypeParam, true>();
  }
}

TYPED_TEST(SimdTest, ReduceMaxFindsTheLargestInAnyLane) {
  using T = typename TypeParam::scalar;
  using Arch = typename TypeParam::arch;
  constexpr auto n = static_cast<std::size_t>(kernel::lanes<T, Arch>);
  for (std::size_t place = 0; place < n; ++place)
    for (const T low : {T(-7), -std::numeric_limits<T>::infinity()}) {
      std::vector<T> values(n, low);
      for (std::size_t i = 0; i < n; i += 2) values[i] = T(-6) - static_cast<T>(i);
      values[place] = T(-0.5);
      EXPECT_EQ(kernel::reduce_max<Arch>(kernel::load<Arch>(static_cast<const T*>(values.data()))),
                T(-0.5))
          << "lane " << place;
    }
  constexpr T nothing = -std::numeric_limits<T>::infinity();
  EXPECT_EQ(kernel::reduce_max<Arch>(kernel::broadcast<Arch>(nothing)), nothing);
}

TYPED_TEST(SimdArchTest, StoreRoundedRoundsAsTheConversionOfBf16) {
  constexpr auto n = static_cast<std::size_t>(kernel::lanes<float, TypeParam>);
  // Around every bf16: itself, its neighbours, the tie above it and both its sides.
  std::vector<float> all;
  for (std::uint32_t upper = 0; upper < 65536; ++upper)
    for (const std::uint32_t lower : {0u, 1u, 0x7fffu, 0x8000u, 0x8001u, 0xffffu})
      all.push_back(std::bit_cast<float>((upper << 16) | lower));
  for (std::size_t first = 0; first < all.size(); first += n) {
    pare::bf16 got[n + 1];
    got[n] = pare::bf16::from_bits(0xA5A5);
    const auto returned = lanes_of<float, TypeParam>(kernel::store_rounded<TypeParam>(
        static_cast<pare::bf16*>(got),
        kernel::load<TypeParam>(static_cast<const float*>(all.data() + first))));
    for (std::size_t i = 0; i < n; ++i) {
      const float x = all[first + i];
      const auto stored = static_cast<float>(got[i]);
      pare::bf16 wanted(x);
      // The instruction takes a subnormal for 0.
      if (TypeParam::has_bf16_dot && std::fpclassify(x) == FP_SUBNORMAL)
        wanted = pare::bf16(std::copysign(0.0f, x));
      if (std::isnan(x)) {
        ASSERT_TRUE(std::isnan(stored) && std::isnan(returned[i])) << std::bit_cast<unsigned>(x);
      } else {
        ASSERT_EQ(got[i].bits, wanted.bits) << x;
        ASSERT_TRUE(pare::testing::same_bits(returned[i], stored)) << x;
      }
    }
    ASSERT_EQ(got[n].bits, 0xA5A5);
  }
}

TYPED_TEST(SimdArchTest, TwoRegistersAreRoundedAsOneEach) {
  if constexpr (TypeParam::has_bf16_dot) {
    constexpr auto n = static_cast<std::size_t>(kernel::lanes<float, TypeParam>);
    std::mt19937 random(3);
    float x[2 * n];
    for (float& value : x) value = static_cast<float>(random()) * 0x1p-31f - 1;
    pare::bf16 together[2 * n + 1], alone[2 * n];
    together[2 * n] = pare::bf16::from_bits(0xA5A5);
    const auto first = kernel::load<TypeParam>(static_cast<const float*>(x));
    const auto second = kernel::load<TypeParam>(static_cast<const float*>(x + n));
    const auto pairs = lanes_of<float, TypeParam>(
        kernel::store_rounded<TypeParam>(static_cast<pare::bf16*>(together), first, second));
    kernel::store_rounded<TypeParam>(static_cast<pare::bf16*>(alone), first);
    kernel::store_rounded<TypeParam>(static_cast<pare::bf16*>(alone + n), second);
    for (std::size_t i = 0; i < 2 * n; ++i) {
      EXPECT_EQ(together[i].bits, alone[i].bits) << i;
      const auto bits = std::bit_cast<std::uint32_t>(pairs[i / 2]);
      EXPECT_EQ(i % 2 == 0 ? bits & 0xffff : bits >> 16, alone[i].bits) << i;
    }
    EXPECT_EQ(together[2 * n].bits, 0xA5A5);
  }
}

TYPED_TEST(SimdArchTest, FirstWordsOfTwoRowsBecomePairs) {
  if constexpr (TypeParam::has_bf16_dot) {
    constexpr auto n = static_cast<std::size_t>(kernel::lanes<float, TypeParam>);
    for (std::size_t count = 0; count <= 2 * n; ++count) {
      // No more than `count` words are there: a sanitizer sees a read behind them.
      std::vector<pare::bf16> a(count), b(count);
      for (std::size_t i = 0; i < count; ++i) {
        a[i] = pare::bf16::from_bits(static_cast<std::uint16_t>(0x100 + i));
        b[i] = pare::bf16::from_bits(static_cast<std::uint16_t>(0x200 + i));
      }
      const auto words = static_cast<std::ptrdiff_t>(count);
      kernel::vec<float, TypeParam> low, high;
      kernel::pair_words<TypeParam>(kernel::load_first_words<TypeParam>(a.data(), words),
                                    kernel::load_first_words<TypeParam>(b.data(), words), low,
                                    high);
      for (std::size_t i = 0; i < 2 * n; ++i) {
        const auto pair = lanes_of<float, TypeParam>(i < n ? low : high)[i % n];
        const std::uint32_t wanted =
            i < count ? a[i].bits | std::uint32_t{b[i].bits} << 16 : std::uint32_t{0};
        EXPECT_EQ(std::bit_cast<std::uint32_t>(pair), wanted) << "column " << i << " of " << count;
      }
    }
  }
}

TYPED_TEST(SimdArchTest, PairProductsKeepToTheirRoundingBound) {
  if constexpr (TypeParam::has_bf16_dot) {
    constexpr auto n = static_cast<std::size_t>(kernel::lanes<float, TypeParam>);
    const auto pair_bits = [](float low, float high) {
      return std::uint32_t{pare::bf16(low).bits} | std::uint32_t{pare::bf16(high).bits} << 16;
    };
    std::mt19937_64 random(6);
    for (int repeat = 0; repeat < 500; ++repeat) {
      // Whole numbers first: exact whatever the order of the sum.
      const auto value = [&] {
        const double x = repeat < 100 ? static_cast<double>(static_cast<int>(random() % 255) - 127)
                                      : static_cast<double>(random()) * 0x1p-62 - 2;
        return static_cast<float>(pare::bf16(static_cast<float>(x)));
      };
      const float a0 = value(), a1 = value();
      float b0[n], b1[n], b[n], c[n];
      for (std::size_t i = 0; i < n; ++i) {
        b0[i] = value();
        b1[i] = value();
        c[i] = value();
        b[i] = std::bit_cast<float>(pair_bits(b0[i], b1[i]));
      }
      const auto got = lanes_of<float, TypeParam>(kernel::multiply_add_pairs<TypeParam>(
          kernel::broadcast<TypeParam>(std::bit_cast<float>(pair_bits(a0, a1))),
          kernel::load<TypeParam>(static_cast<const float*>(b)),
          kernel::load<TypeParam>(static_cast<const float*>(c))));
      for (std::size_t i = 0; i < n; ++i) {
        const double p0 = static_cast<double>(a0) * b0[i], p1 = static_cast<double>(a1) * b1[i];
        const double magnitude = std::abs(p0) + std::abs(p1) + std::abs(static_cast<double>(c[i]));
        // Products of 8 bits by 8 are exact; two additions.
        const double bound =
            repeat < 100 ? 0 : pare::testing::Tolerance<float>::gamma(2) * magnitude;
        ASSERT_TRUE(pare::testing::within(static_cast<double>(got[i]),
                                          p0 + p1 + static_cast<double>(c[i]), bound))
            << "lane " << i;
      }
    }
  } else {
    GTEST_SKIP() << TypeParam::name << " has no bf16 products";
  }
}

TYPED_TEST(SimdArchTest, LoadPairsPutsTheFirstRowLow) {
  if constexpr (TypeParam::has_bf16_dot) {
    constexpr auto n = static_cast<std::size_t>(kernel::lanes<float, TypeParam>);
    for (std::uint32_t first = 0; first < 65536; first += n) {
      pare::bf16 a[n], b[n];
      for (std::uint32_t i = 0; i < n; ++i) {
        a[i] = pare::bf16::from_bits(static_cast<std::uint16_t>(first + i));
        b[i] = pare::bf16::from_bits(static_cast<std::uint16_t>(3 * (first + i) + 7));
      }
      const auto got = lanes_of<float, TypeParam>(kernel::load_pairs<TypeParam>(
          static_cast<const pare::bf16*>(a), static_cast<const pare::bf16*>(b)));
      for (std::size_t i = 0; i < n; ++i)
        ASSERT_EQ(std::bit_cast<std::uint32_t>(got[i]),
                  std::uint32_t{a[i].bits} | std::uint32_t{b[i].bits} << 16)
            << "pattern " << first + i;
    }
  } else {
    GTEST_SKIP() << TypeParam::name << " has no bf16 products";
  }
}

TYPED_TEST(SimdArchTest, SignedBytesBecomeFloats) {
  using Arch = TypeParam;
  constexpr std::ptrdiff_t n = kernel::lanes<float, Arch>;
  GuardedArray<std::int8_t> bytes(256);
  for (std::ptrdiff_t i = 0; i < 256; ++i) bytes[i] = static_cast<std::int8_t>(i - 128);
  for (std::ptrdiff_t first = 0; first + n <= 256; ++first) {
    const auto got = lanes_of<float, Arch>(
        kernel::load_signed_bytes<Arch>(static_cast<const std::int8_t*>(bytes.data() + first)));
    for (std::ptrdiff_t i = 0; i < n; ++i)
      ASSERT_EQ(got[static_cast<std::size_t>(i)], static_cast<float>(first + i - 128));
  }
}

TYPED_TEST(SimdArchTest, NibblesAreScaledAndRoundedOnce) {
  using Arch = TypeParam;
  constexpr std::ptrdiff_t n = kernel::lanes<float, Arch>;
  GuardedArray<std::uint8_t> bytes(256);
  for (std::ptrdiff_t i = 0; i < 256; ++i) bytes[i] = static_cast<std::uint8_t>(i);
  const float scale = 0x1.ffcp-3f, offset = -0x1.55p+7f;
  for (std::ptrdiff_t first = 0; first + n <= 256; ++first) {
    kernel::vec<float, Arch> low, high;
    kernel::load_nibbles<Arch>(static_cast<const std::uint8_t*>(bytes.data() + first),
                               kernel::broadcast<Arch>(scale), kernel::broadcast<Arch>(offset), low,
                               high);
    const auto of_low = lanes_of<float, Arch>(low), of_high = lanes_of<float, Arch>(high);
    for (std::ptrdiff_t i = 0; i < n; ++i) {
      const auto wanted = [&](std::ptrdiff_t q) {
        return static_cast<float>(static_cast<double>(q) * static_cast<double>(scale) +
                                  static_cast<double>(offset));
      };
      ASSERT_EQ(of_low[static_cast<std::size_t>(i)], wanted((first + i) % 16)) << first + i;
      ASSERT_EQ(of_high[static_cast<std::size_t>(i)], wanted((first + i) / 16)) << first + i;
    }
  }
}

TYPED_TEST(SimdArchTest, HalvesAreWidenedInPairs) {
  using Arch = TypeParam;
  constexpr std::ptrdiff_t stride = 20, count = 21;
  GuardedArray<std::uint8_t> bytes((count - 1) * stride + 8);
  for (std::ptrdiff_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<std::uint8_t>(i * 29);
  float out[count][2];
  kernel::widen_halves<Arch>(bytes.data(), stride, count, out);
  for (std::ptrdiff_t i = 0; i < count; ++i)
    for (std::ptrdiff_t k = 0; k < 2; ++k) {
      const std::uint8_t* const at = bytes.data() + i * stride + 2 * k;
      const auto wanted =
          static_cast<float>(pare::f16::from_bits(static_cast<std::uint16_t>(at[0] | at[1] << 8)));
      if (!std::isnan(wanted)) {
        ASSERT_EQ(out[i][k], wanted) << i << ' ' << k;
      }
    }
}

TYPED_TEST(SimdTest, SquareRootIsCorrectlyRounded) {
  using T = typename TypeParam::scalar;
  for (int i = 0; i < 2000; ++i) {
    const T x = static_cast<T>(i) / 7;
    ASSERT_EQ(kernel::square_root(x), static_cast<T>(std::sqrt(static_cast<long double>(x)))) << x;
  }
}

}  // namespace
}  // namespace kernel_simd_test
