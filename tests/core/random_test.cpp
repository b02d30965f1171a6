// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <array>
#include <bit>
#include <cstdint>
#include <set>

#include <pare/core/random.hpp>

namespace core_random_test {
namespace {

using pare::philox;
using pare::PhiloxCounter;
using pare::PhiloxKey;

// Known answers of the Random123 distribution, which Salmon et al. published with the paper.
TEST(Philox, KnownAnswerZero) {
  EXPECT_EQ(philox({0, 0, 0, 0}, {0, 0}),
            (PhiloxCounter{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
}

TEST(Philox, KnownAnswerAllOnes) {
  constexpr std::uint32_t ones = 0xffffffff;
  EXPECT_EQ(philox({ones, ones, ones, ones}, {ones, ones}),
            (PhiloxCounter{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
}

TEST(Philox, KnownAnswerDigitsOfPi) {
  EXPECT_EQ(philox({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}),
            (PhiloxCounter{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

TEST(Philox, IsConstexpr) {
  constexpr PhiloxCounter block = philox({0, 0, 0, 0}, PhiloxKey{});
  constexpr std::uint32_t scaled = pare::scale_to_range(0x80000000u, 10);
  constexpr double unit = pare::to_unit_double(0x80000000u, 0);
  EXPECT_EQ(block[0], 0x6627e8d5u);
  EXPECT_EQ(scaled, 5u);
  EXPECT_EQ(unit, 0.5);
}

TEST(Philox, SeedIsLowWordThenHighWord) {
  constexpr PhiloxKey key(std::uint64_t{0x299f31d0a4093822});
  EXPECT_EQ(key.k0, 0xa4093822u);
  EXPECT_EQ(key.k1, 0x299f31d0u);
}

TEST(Philox, DifferentCountersGiveDifferentBlocks) {
  // A bijection of the counter: equal blocks of one key would be a fault, not bad luck.
  std::set<PhiloxCounter> seen;
  for (std::uint32_t word = 0; word < 4; ++word)
    for (std::uint32_t i = 1; i <= 5000; ++i) {
      PhiloxCounter c{};
      c[word] = i;
      ASSERT_TRUE(seen.insert(philox(c, PhiloxKey{7})).second) << word << ' ' << i;
    }
}

TEST(Philox, FlippingAnyInputBitFlipsHalfTheOutput) {
  // Of 128 bits averaged over 200 blocks: mean 64, standard deviation sqrt(32 / 200) = 0.4.
  for (std::uint32_t bit = 0; bit < 192; ++bit) {
    int flipped = 0;
    for (std::uint32_t i = 0; i < 200; ++i) {
      PhiloxCounter c{i, 1, 2, 3};
      PhiloxKey key{i, 5};
      const PhiloxCounter before = philox(c, key);
      const std::uint32_t mask = 1u << (bit % 32);
      if (bit < 128)
        c[bit / 32] ^= mask;
      else
        (bit < 160 ? key.k0 : key.k1) ^= mask;
      const PhiloxCounter after = philox(c, key);
      for (std::size_t w = 0; w < 4; ++w) flipped += std::popcount(before[w] ^ after[w]);
    }
    EXPECT_NEAR(flipped / 200.0, 64.0, 5 * 0.4) << "input bit " << bit;
  }
}

/// The smallest word that scale_to_range should map to v: ceil(v * 2^32 / n).
std::uint64_t first_word(std::uint64_t v, std::uint64_t n) { return ((v << 32) + n - 1) / n; }

TEST(ScaleToRange, EveryValueHasItsIntervalOfWords) {
  // An interval has floor(2^32 / n) or one more words: the stated bias, and the bounds, for all
  // words.
  for (const std::uint32_t n : {1u, 2u, 3u, 7u, 64u, 1000u, 65537u})
    for (std::uint32_t v = 0; v < n; ++v) {
      const std::uint64_t low = first_word(v, n), high = first_word(std::uint64_t{v} + 1, n);
      ASSERT_EQ(pare::scale_to_range(static_cast<std::uint32_t>(low), n), v) << n;
      ASSERT_EQ(pare::scale_to_range(static_cast<std::uint32_t>(high - 1), n), v) << n;
      const std::uint64_t words = high - low, fair = (std::uint64_t{1} << 32) / n;
      ASSERT_TRUE(words == fair || words == fair + 1) << n << ' ' << v;
    }
}

TEST(ScaleToRange, HoldsAtTheEndsOfTheRange) {
  constexpr std::uint32_t ones = 0xffffffff;
  for (const std::uint32_t n : {1u, 2u, 3u, 0x7fffffffu, 0x80000000u, 0xfffffffeu, ones}) {
    EXPECT_EQ(pare::scale_to_range(0, n), 0u);
    EXPECT_EQ(pare::scale_to_range(ones, n), n - 1);
  }
}

TEST(ScaleToRange, IsUniformOnPhilox) {
  constexpr std::uint32_t n = 7, blocks = 17500;  // 70000 words
  std::array<int, n> count{};
  for (std::uint32_t i = 0; i < blocks; ++i)
    for (const std::uint32_t word : philox({i, 0, 0, 0}, PhiloxKey{42}))
      ++count[pare::scale_to_range(word, n)];
  double chi2 = 0;
  for (const int c : count) chi2 += (c - 10000.0) * (c - 10000.0) / 10000.0;
  EXPECT_LT(chi2, 22.46);  // 99.9% quantile, 6 degrees of freedom
  EXPECT_GT(chi2, 0.38);   // 0.1% quantile: counts that even are not random
}

TEST(ToUnitDouble, StaysBelowOneOnTheGrid) {
  constexpr std::uint32_t ones = 0xffffffff;
  EXPECT_EQ(pare::to_unit_double(0, 0), 0.0);
  EXPECT_EQ(pare::to_unit_double(ones, ones), 1.0 - 0x1p-53);
  EXPECT_EQ(pare::to_unit_double(0, 1u << 11), 0x1p-53);
  EXPECT_EQ(pare::to_unit_double(0, (1u << 11) - 1), 0.0);
  EXPECT_EQ(pare::to_unit_double(1, 0), 0x1p-32);
}

TEST(ToUnitDouble, HasTheMomentsOfTheUniformLaw) {
  constexpr int draws = 100000;
  double sum = 0, squares = 0;
  for (std::uint32_t i = 0; i < draws; ++i) {
    const PhiloxCounter w = philox({i, 0, 0, 0}, PhiloxKey{3});
    const double u = pare::to_unit_double(w[0], w[1]);
    ASSERT_TRUE(u >= 0 && u < 1);
    sum += u;
    squares += u * u;
  }
  // Standard deviations of the means: sqrt(1/12 / draws), sqrt(4/45 / draws).
  EXPECT_NEAR(sum / draws, 1.0 / 2, 4 * 0.000913);
  EXPECT_NEAR(squares / draws, 1.0 / 3, 4 * 0.000943);
}

}  // namespace
}  // namespace core_random_test
