// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numeric>
#include <set>
#include <span>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include <pare/feature/fields/donors.hpp>

#include "support/matrices.hpp"

namespace feature_donors_test {
namespace {

using pare::Index;
using pare::Permutation;
using pare::feature::DonorPolicy;
using pare::feature::Donors;
using pare::feature::FieldLayout;
using pare::testing::refusal;

constexpr DonorPolicy policies[] = {DonorPolicy::Shift, DonorPolicy::BaseShift,
                                    DonorPolicy::Uniform, DonorPolicy::Derangement};

std::vector<std::uint32_t> donors_of(const Donors& donors, Index j) {
  const Permutation p = donors.permutation(j);
  return {p.indices().begin(), p.indices().end()};
}

TEST(Donors, AreABijectionWhoseInverseSourceOfIs) {
  const FieldLayout layout({1, 3, 1, 8, 1});
  for (const DonorPolicy policy : policies)
    for (const Index rows : {2, 3, 7, 64, 1000}) {
      const Donors donors(policy, 5, 11, rows, layout);
      std::vector<std::uint32_t> filled(static_cast<std::size_t>(rows)), sources(filled);
      for (Index j = 0; j < layout.fields(); ++j) {
        // Permutation's constructor refuses anything else than a bijection.
        const Permutation p = donors.permutation(j);
        donors.fill(j, filled, sources);
        for (Index b = 0; b < rows; b += rows > 100 ? 97 : 1) {
          const Index donor = donors.donor(j, b);
          ASSERT_EQ(donor, static_cast<Index>(p[b]));
          ASSERT_EQ(donor, static_cast<Index>(filled[static_cast<std::size_t>(b)]));
          ASSERT_EQ(donors.source_of(j, donor), b);
          ASSERT_EQ(static_cast<Index>(sources[static_cast<std::size_t>(donor)]), b);
        }
        for (std::size_t b = 0; b < filled.size(); ++b) ASSERT_EQ(sources[filled[b]], b);
      }
    }
}

TEST(Donors, AreTheSameOnKernels) {
  const FieldLayout layout({1, 3, 1, 8, 1}, {0, 1, 1, 3, 4});
  for (const DonorPolicy policy : policies)
    for (const Index rows : {2, 3, 7, 64, 513, 1000}) {
      const Donors donors(policy, 5, 11, rows, layout);
      std::vector<std::uint32_t> expected(static_cast<std::size_t>(rows)), of_sources(expected),
          filled(expected), alone(expected), sources(expected);
      for (Index j = 0; j < layout.fields(); ++j) {
        donors.fill(j, expected, of_sources);
        donors.fill(pare::simd, j, filled, sources);
        donors.fill(pare::simd, j, alone);
        EXPECT_EQ(filled, expected);
        EXPECT_EQ(alone, expected);
        EXPECT_EQ(sources, of_sources);
      }
    }
}

TEST(Donors, NoRowIsItsOwnDonorUnlessUniform) {
  const FieldLayout layout = FieldLayout::scalars(20);
  Index own = 0;
  for (const DonorPolicy policy : policies)
    for (const Index rows : {2, 3, 10, 50})
      for (std::uint64_t step = 0; step < 20; ++step) {
        const Donors donors(policy, 3, step, rows, layout);
        for (Index j = 0; j < layout.fields(); ++j) {
          const auto p = donors_of(donors, j);
          for (Index b = 0; b < rows; ++b) {
            const bool fixed = static_cast<Index>(p[static_cast<std::size_t>(b)]) == b;
            if (policy == DonorPolicy::Uniform)
              own += fixed;
            else
              ASSERT_FALSE(fixed) << static_cast<int>(policy) << ' ' << rows;
          }
        }
      }
  // One fixed point is to be expected in each of 4 * 20 * 20 permutations.
  EXPECT_NEAR(static_cast<double>(own), 1600.0, 5 * 40.0);
}

TEST(Donors, AreAFunctionOfSeedStepAndGroup) {
  const FieldLayout layout = FieldLayout::scalars(6);
  const FieldLayout grouped({1, 1, 1, 1, 1, 1}, {0, 1, 1, 3, 4, 3});
  for (const DonorPolicy policy : policies) {
    const Donors a(policy, 7, 3, 101, layout), b(policy, 7, 3, 101, layout);
    const Donors step(policy, 7, 4, 101, layout), seed(policy, 8, 3, 101, layout);
    const Donors high_step(policy, 7, 3 + (std::uint64_t{1} << 40), 101, layout);
    Donors again(policy, 7, 99, 101, layout);
    again.draw(3);
    const Donors groups(policy, 7, 3, 101, grouped);
    Index other_steps = 0, other_seeds = 0, other_fields = 0, other_high = 0;
    for (Index j = 0; j < 6; ++j) {
      EXPECT_EQ(donors_of(a, j), donors_of(b, j));
      EXPECT_EQ(donors_of(a, j), donors_of(again, j)) << "drawn in place";
      EXPECT_EQ(donors_of(groups, j), donors_of(a, grouped.group(j)));
      other_steps += donors_of(a, j) != donors_of(step, j);
      other_seeds += donors_of(a, j) != donors_of(seed, j);
      other_high += donors_of(a, j) != donors_of(high_step, j);
      other_fields += donors_of(a, j) != donors_of(a, (j + 1) % 6);
    }
    EXPECT_EQ(other_fields, 6) << "fields of other groups have donors of their own";
    EXPECT_GE(other_steps, 5);
    EXPECT_GE(other_seeds, 5);
    EXPECT_GE(other_high, 5);
  }
}

TEST(Donors, AreTheSameWhicheverThreadAsks) {
  const FieldLayout layout = FieldLayout::scalars(8);
  for (const DonorPolicy policy : policies) {
    const Donors donors(policy, 1, 2, 257, layout);
    std::vector<std::vector<std::uint32_t>> alone, together(8);
    for (Index j = 0; j < 8; ++j) alone.push_back(donors_of(donors, j));
    std::vector<std::thread> threads;
    for (std::size_t t = 0; t < 4; ++t)
      threads.emplace_back([&, t] {
        for (std::size_t j = t; j < 8; j += 4)
          together[j] = donors_of(donors, static_cast<Index>(j));
      });
    for (std::thread& thread : threads) thread.join();
    EXPECT_EQ(alone, together);
  }
}

TEST(Donors, ShiftsAreAllDifferentWhileTheyLast) {
  for (const DonorPolicy policy : {DonorPolicy::Shift, DonorPolicy::BaseShift}) {
    const Donors donors(policy, 1, 1, 33, FieldLayout::scalars(80));
    for (Index run = 0; run < 80; run += 32) {
      std::set<Index> seen;
      for (Index j = run; j < std::min<Index>(80, run + 32); ++j) {
        EXPECT_GE(donors.shift(j), 1);
        EXPECT_LE(donors.shift(j), 32);
        EXPECT_TRUE(seen.insert(donors.shift(j)).second) << j;
      }
    }
  }
}

/// chi^2 of counts that should be equal.
double chi_square(const std::vector<Index>& counts) {
  const auto total = static_cast<double>(std::accumulate(counts.begin(), counts.end(), Index{0}));
  const double wanted = total / static_cast<double>(counts.size());
  double sum = 0;
  for (const Index count : counts) {
    const double difference = static_cast<double>(count) - wanted;
    sum += difference * difference / wanted;
  }
  return sum;
}

TEST(Donors, EveryRowIsEquallyOftenTheDonorOfARow) {
  constexpr Index rows = 12;
  const FieldLayout layout = FieldLayout::scalars(3);
  for (const DonorPolicy policy : policies) {
    std::vector<Index> counts(rows, 0);
    for (std::uint64_t step = 0; step < 12000; ++step)
      ++counts[static_cast<std::size_t>(Donors(policy, 9, step, rows, layout).donor(1, 5))];
    if (policy != DonorPolicy::Uniform) {
      EXPECT_EQ(counts[5], 0);
      counts.erase(counts.begin() + 5);
    }
    // Beyond 31.3 with 11 degrees of freedom once in a thousand.
    EXPECT_LT(chi_square(counts), 31.3) << static_cast<int>(policy);
  }
}

TEST(Donors, AllPermutationsOfThreeRowsAreEquallyLikely) {
  std::vector<Index> uniform(27, 0), cycles(27, 0);
  const auto code = [](const std::vector<std::uint32_t>& p) { return 9 * p[0] + 3 * p[1] + p[2]; };
  const FieldLayout layout({1});
  for (std::uint64_t step = 0; step < 6000; ++step) {
    ++uniform[code(donors_of(Donors(DonorPolicy::Uniform, 4, step, 3, layout), 0))];
    ++cycles[code(donors_of(Donors(DonorPolicy::Derangement, 4, step, 3, layout), 0))];
  }
  std::erase(uniform, 0);
  std::erase(cycles, 0);
  ASSERT_EQ(uniform.size(), 6u);
  ASSERT_EQ(cycles.size(), 2u) << "the two cycles through all three rows";
  EXPECT_LT(chi_square(uniform), 20.5) << "once in a thousand with 5 degrees of freedom";
  EXPECT_LT(chi_square(cycles), 10.8) << "once in a thousand with 1 degree of freedom";
}

TEST(Donors, ShiftsOfTheCallersOwn) {
  const FieldLayout layout({1, 2, 3}, {0, 1, 1});
  const Donors donors = Donors::from_shifts(5, layout, std::vector<Index>{0, 4, 4});
  EXPECT_TRUE(donors.cyclic());
  EXPECT_EQ(donors_of(donors, 0), (std::vector<std::uint32_t>{0, 1, 2, 3, 4}));
  EXPECT_EQ(donors_of(donors, 2), (std::vector<std::uint32_t>{4, 0, 1, 2, 3}));
  EXPECT_EQ(donors.source_of(2, 0), 1);
}

TEST(Donors, WhatIsNoFieldRowOrPolicyIsRefused) {
  const FieldLayout layout({1, 3});
  for (const DonorPolicy policy : {DonorPolicy::Shift, DonorPolicy::BaseShift, DonorPolicy::Uniform,
                                   DonorPolicy::Derangement}) {
    const Donors donors(policy, 1, 2, 5, layout);
    for (const Index b : {-1, 5}) {
      refusal([&] { donors.donor(0, b); }, "feature::Donors::donor", "b");
      refusal([&] { donors.source_of(0, b); }, "feature::Donors::source_of", "b");
    }
    for (const Index j : {-1, 2}) EXPECT_THROW(donors.donor(j, 0), std::invalid_argument);
    std::vector<std::uint32_t> right(5), wrong(4);
    refusal([&] { donors.fill(0, wrong); }, "feature::Donors::fill", "donors");
    refusal([&] { donors.fill(0, right, wrong); }, "feature::Donors::fill", "sources");
    refusal([&] { donors.fill(pare::simd, 0, {}); }, "feature::Donors::fill", "donors");
    const bool shifts = policy == DonorPolicy::Shift || policy == DonorPolicy::BaseShift;
    if (!shifts) refusal([&] { donors.shift(0); }, "feature::Donors::shift", "policy");
    EXPECT_THROW(donors.shift(2), std::invalid_argument);
  }
  refusal([&] { Donors(static_cast<DonorPolicy>(4), 1, 2, 5, layout); }, "feature::Donors",
          "policy");
}

TEST(Donors, BadInputIsRefused) {
  const FieldLayout layout({1, 2});
  const std::string name = "feature::Donors", shifts = name + "::from_shifts";
  for (const DonorPolicy policy : policies)
    for (const Index rows : {Index{-1}, Index{0}, Index{1}, Index{1} << 32})
      refusal([&] { Donors(policy, 0, 0, rows, layout); }, name, "rows");
  refusal([] { Donors(DonorPolicy::Shift, 0, 0, 4, FieldLayout()); }, name, "layout");
  const auto from = [&](Index rows, std::vector<Index> list) {
    return [&layout, rows, list] { Donors::from_shifts(rows, layout, list); };
  };
  refusal(from(1, {0, 0}), shifts, "rows");
  refusal(from(4, {1}), shifts, "shifts");
  refusal(from(4, {1, 4}), shifts, "shifts");
  refusal(from(4, {-1, 1}), shifts, "shifts");
  const FieldLayout group({1, 2}, {1, 1});
  refusal([&] { Donors::from_shifts(4, group, std::vector<Index>{1, 2}); }, shifts, "shifts");
}

}  // namespace
}  // namespace feature_donors_test
