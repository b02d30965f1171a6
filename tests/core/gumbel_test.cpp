// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <set>
#include <vector>

#include <pare/core/gumbel.hpp>

#include "draft/chi_square.hpp"

namespace core_gumbel_test {
namespace {

using pare::GumbelNoise;
using pare::Index;
using pare::testing::goodness_of_fit;

// By an implementation of Philox in Python, which has Random123's known answers, and logarithms of
// 60 digits.
TEST(Gumbel, KnownAnswers) {
  struct Answer {
    std::uint64_t seed;
    Index position;
    std::uint32_t item;
    double noise;
  };
  for (const Answer& a :
       {Answer{0, 0, 0, -0.53879191132655602}, Answer{0, 0, 1, 0.68285257301127944},
        Answer{7, 0, 2, 0.91163500421467658}, Answer{7, 1, 2, 0.37846226025931745},
        Answer{7, -1, 3, -0.31454814066792847},
        Answer{7, Index{1} << 40, 128255, -0.33621261179696388},
        Answer{(std::uint64_t{1} << 63) + 5, 3, 0x7fffffff, 0.057025921449585515},
        Answer{1, Index{1} << 62, 0xffffffff, 0.47046328666622367}})
    // Two logarithms, each within an ulp of what is of size 1.
    EXPECT_NEAR(GumbelNoise{a.seed}.at(a.position, a.item), a.noise,
                8 * std::numeric_limits<double>::epsilon());
}

TEST(Gumbel, WordsRiseFromEndToEnd) {
  constexpr std::uint32_t ones = 0xffffffff;
  EXPECT_NEAR(GumbelNoise::of_words(0, 0), -std::log(53 * std::log(2.0)), 1e-15);
  EXPECT_NEAR(GumbelNoise::of_words(ones, ones), 53 * std::log(2.0), 1e-14);
  EXPECT_LT(GumbelNoise::of_words(ones, ones), 37);  // as keyed_sample and heads rely on
  double before = -4;
  for (std::uint64_t high = 0; high <= ones; high += 0xffffff) {
    const double noise = GumbelNoise::of_words(static_cast<std::uint32_t>(high), 0);
    EXPECT_GT(noise, before);
    before = noise;
  }
  // The lower 12 bits are not read, the 13th is.
  EXPECT_EQ(GumbelNoise::of_words(9, 0xfff), GumbelNoise::of_words(9, 0));
  EXPECT_LT(GumbelNoise::of_words(9, 0), GumbelNoise::of_words(9, 0x1000));
}

TEST(Gumbel, EachSeedPositionAndItemHasItsOwn) {
  std::set<double> seen;
  std::size_t asked = 0;
  for (const std::uint64_t seed : {std::uint64_t{0}, std::uint64_t{1}, std::uint64_t{1} << 32})
    for (const Index position : {Index{0}, Index{1}, Index{-1}, Index{1} << 32})
      for (const std::uint32_t item : {0u, 1u, 2u, 3u, 1u << 31, 0xffffffffu}) {
        seen.insert(GumbelNoise{seed}.at(position, item));
        ++asked;
      }
  EXPECT_EQ(seen.size(), asked);
}

// e^-e^-G is uniform; in 8 x 8 cells with that of the next item, and of the next position.
TEST(Gumbel, HasItsLawAndNeighboursAreIndependent) {
  const GumbelNoise noise{3};
  const auto cell = [](double g) { return static_cast<std::size_t>(8 * std::exp(-std::exp(-g))); };
  std::vector<std::int64_t> items(64), positions(64);
  const std::vector<double> law(64, 1.0 / 64);
  for (std::uint32_t i = 0; i < 200'000; ++i) {
    const std::size_t one = cell(noise.at(5, i));
    ++items[8 * one + cell(noise.at(5, i + 1))];
    ++positions[8 * one + cell(noise.at(6, i))];
  }
  EXPECT_GE(goodness_of_fit(positions, law), 1e-4);
  EXPECT_GE(goodness_of_fit(items, law), 1e-4);
}

// The largest of s_i + G_i is i with probability e^s_i / sum.
TEST(Gumbel, TheLargestSumHasTheSoftmaxLaw) {
  const GumbelNoise noise{4};
  const std::vector<double> scores{0, 1, -1, 2, .5};
  double sum = 0;
  for (const double s : scores) sum += std::exp(s);
  std::vector<double> law;
  for (const double s : scores) law.push_back(std::exp(s) / sum);
  std::vector<std::int64_t> counts(5);
  for (Index p = 0; p < 200'000; ++p) {
    std::size_t best = 0;
    double most = -100;
    for (std::size_t i = 0; i < 5; ++i) {
      const double score = scores[i] + noise.at(p, static_cast<std::uint32_t>(i));
      if (score > most) most = score, best = i;
    }
    ++counts[best];
  }
  EXPECT_GE(goodness_of_fit(counts, law), 1e-4);
}

}  // namespace
}  // namespace core_gumbel_test
