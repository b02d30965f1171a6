// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <cstdint>
#include <random>
#include <vector>

#include <pare/projection/detail/binomial.hpp>

namespace projection_binomial_test {
namespace {

using pare::projection::detail::BinomialTable;

/// P(count <= v) by the recurrence of the masses, in long double.
std::vector<long double> distribution(int trials, long double p) {
  std::vector<long double> cdf;
  long double sum = 0;
  for (int v = 0; v <= trials; ++v) {
    long double mass =
        std::lgamma(trials + 1.0L) - std::lgamma(v + 1.0L) - std::lgamma(trials - v + 1.0L);
    mass = std::exp(mass + static_cast<long double>(v) * std::log(p) +
                    static_cast<long double>(trials - v) * std::log1p(-p));
    cdf.push_back(sum += mass);
  }
  return cdf;
}

/// The smallest number that is given a count above v, by bisection; 2^64 - 1 if none is.
std::uint64_t threshold(const BinomialTable& table, int v) {
  std::uint64_t low = 0, high = ~std::uint64_t{0};
  if (table.count(high) <= v) return high;
  while (low < high) {
    const std::uint64_t middle = low + (high - low) / 2;
    if (table.count(middle) > v)
      high = middle;
    else
      low = middle + 1;
  }
  return low;
}

TEST(BinomialTable, ThresholdsAreTheDistributionFunction) {
  // Each of up to 64 convolutions truncates two products at 2^-63, in each of up to 65 masses that
  // are added up: below 64 * 2 * 65 * 2^-63 < 1e-15. The oracle's logarithms (sums of up to 100 in
  // size, 2^-64 relative) cost as much again, over 65 terms that sum to 1: 1e-16 each at most.
  const long double bound = 64 * 2 * 65 * 0x1p-63L + 65e-16L * 10;
  for (const int trials : {1, 2, 7, 31, 63, 64})
    for (const double p : {1e-3, 1 / std::sqrt(40.0), 1.0 / 3, 0.5, 0.9, 0.999}) {
      const BinomialTable table(trials, p);
      const auto cdf = distribution(trials, p);
      for (int v = 0; v < trials; ++v) {
        const long double got = static_cast<long double>(threshold(table, v)) * 0x1p-64L;
        EXPECT_LE(std::abs(got - cdf[static_cast<std::size_t>(v)]), bound)
            << trials << " trials of " << p << ", count " << v;
      }
    }
}

TEST(BinomialTable, CountsNeverDecreaseAndReachBothEnds) {
  for (const int trials : {0, 1, 64})
    for (const double p : {1e-9, 0.3, 1.0}) {
      const BinomialTable table(trials, p);
      EXPECT_EQ(table.count(~std::uint64_t{0}), trials);
      EXPECT_EQ(table.count(0), p == 1.0 ? trials : 0);
      int previous = 0;
      for (std::uint64_t top = 0; top < 4096; ++top)
        for (const std::uint64_t bits : {top << 52, (top << 52) | 0xfffffffffffffu}) {
          const int count = table.count(bits);
          ASSERT_GE(count, previous);
          ASSERT_LE(count, trials);
          previous = count;
        }
    }
}

TEST(BinomialTable, ProbabilityOneAlwaysCountsAllTrials) {
  const BinomialTable table(64, 1.0);
  std::mt19937_64 random(1);
  for (int i = 0; i < 1000; ++i) ASSERT_EQ(table.count(random()), 64);
}

TEST(BinomialTable, CountsPassAChiSquareTest) {
  constexpr int draws = 200000;
  for (const double p : {0.05, 1.0 / 3, 0.8}) {
    const BinomialTable table(64, p);
    std::array<double, 65> observed{};
    std::mt19937_64 random(77);
    for (int i = 0; i < draws; ++i) ++observed[static_cast<std::size_t>(table.count(random()))];
    const auto cdf = distribution(64, p);
    double statistic = 0, cells = 0, expected = 0, seen = 0;
    for (std::size_t v = 0; v <= 64; ++v) {
      expected += draws * static_cast<double>(cdf[v] - (v > 0 ? cdf[v - 1] : 0));
      seen += observed[v];
      const double left = draws * static_cast<double>(1 - cdf[v]);
      if (expected < 10 || (v < 64 && left < 10)) continue;
      statistic += (seen - expected) * (seen - expected) / expected;
      ++cells;
      expected = seen = 0;
    }
    // Mean cells - 1, variance 2 (cells - 1).
    EXPECT_NEAR(statistic, cells - 1, 5 * std::sqrt(2 * (cells - 1))) << "p = " << p;
    EXPECT_GE(cells, 8);
  }
}

}  // namespace
}  // namespace projection_binomial_test
