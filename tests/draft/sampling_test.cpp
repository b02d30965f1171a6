// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <Eigen/Core>

#include <pare/core/scalar.hpp>
#include <pare/core/workspace.hpp>
#include <pare/draft/keyed_noise.hpp>
#include <pare/draft/sampling.hpp>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <numeric>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "draft/chi_square.hpp"
#include "draft/tables.hpp"
#include "support/allocations.hpp"

namespace draft_sampling_test {
namespace {

using pare::Index;
using pare::draft::Coins;
using pare::draft::draw;
using pare::draft::keyed_sample;
using pare::draft::Sampling;
using pare::draft::token_law;
using pare::testing::goodness_of_fit;
using pare::testing::refused;

constexpr double inf = std::numeric_limits<double>::infinity();
const double nan_value = std::numeric_limits<double>::quiet_NaN();

std::vector<float> random_logits(std::size_t n, unsigned seed, bool grid = false) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0, 2);
  std::vector<float> z(n);
  for (float& x : z) x = grid ? std::round(normal(random)) : normal(random);
  return z;
}

/// The steps of the header read one by one over a fully sorted list.
std::vector<double> oracle_law(const std::vector<float>& z, const Sampling& s) {
  std::vector<std::size_t> order(z.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](std::size_t a, std::size_t b) { return z[a] > z[b]; });
  if (s.temperature < 1e-5) order.resize(1);
  if (s.top_k) order.resize(std::min(order.size(), static_cast<std::size_t>(*s.top_k)));
  std::vector<double> weight;
  for (const std::size_t i : order)
    weight.push_back(s.temperature < 1e-5
                         ? 1.0
                         : std::exp((static_cast<double>(z[i]) - static_cast<double>(z[order[0]])) /
                                    s.temperature));
  const double all = std::accumulate(weight.begin(), weight.end(), 0.0);
  std::size_t kept = 0;
  for (double before = 0; kept < weight.size() && before <= s.top_p.value_or(1) * all; ++kept)
    before += weight[kept];
  if (!s.top_p || *s.top_p == 1) kept = weight.size();
  weight.resize(kept);
  while (s.min_p && weight.back() < *s.min_p) weight.pop_back();
  const double sum = std::accumulate(weight.begin(), weight.end(), 0.0);
  std::vector<double> law(z.size(), 0.0);
  for (std::size_t i = 0; i < weight.size(); ++i) law[order[i]] = weight[i] / sum;
  return law;
}

TEST(Sampling, StepsAreTakenInTheirOrder) {
  const std::vector<Sampling> cases{{},
                                    {.temperature = .7},
                                    {.temperature = 0},
                                    {.temperature = 9e-6},
                                    {.top_k = 1},
                                    {.top_k = 5},
                                    {.top_k = 1000},
                                    {.top_p = .5},
                                    {.top_p = 1},
                                    {.top_p = 1e-9},
                                    {.min_p = .1},
                                    {.min_p = 1},
                                    {.min_p = 0},
                                    {.temperature = 1.5, .top_k = 9, .top_p = .8, .min_p = .05},
                                    {.temperature = .3, .top_k = 3, .top_p = .9}};
  for (unsigned seed = 0; seed < 20; ++seed)
    for (const bool grid : {false, true})
      for (const Sampling& s : cases) {
        const auto z = random_logits(37, seed, grid);
        std::vector<double> law(37);
        token_law(z, s, law);
        const auto wanted = oracle_law(z, s);
        double sum = 0;
        for (std::size_t i = 0; i < law.size(); ++i) {
          // Sums of 37 terms: 37 u, and e^x twice as exact as that.
          EXPECT_NEAR(law[i], wanted[i], 1e-14);
          EXPECT_EQ(law[i] > 0, wanted[i] > 0);
          sum += law[i];
        }
        EXPECT_NEAR(sum, 1, 1e-14);
      }
}

TEST(Sampling, EveryScalarAndStride) {
  const auto z = random_logits(20, 1, true);
  std::vector<double> law(20), same(20);
  token_law(z, {.top_k = 4}, law);
  std::vector<double> twice(z.begin(), z.end());
  token_law(twice, {.top_k = 4}, same);
  EXPECT_EQ(same, law);
  std::vector<pare::bf16> narrow(z.begin(), z.end());  // small whole numbers
  token_law(narrow, {.top_k = 4}, same);
  EXPECT_EQ(same, law);
  const Eigen::Map<const Eigen::RowVectorXf> row(z.data(), 20);
  token_law(row, {.top_k = 4}, same);
  EXPECT_EQ(same, law);
  Eigen::MatrixXf strided(3, 20);
  for (Index i = 0; i < 20; ++i) strided(1, i) = z[static_cast<std::size_t>(i)];
  token_law(pare::TensorView<const float, 1>{strided.data() + 1, {20}, {3}}, {.top_k = 4}, same);
  EXPECT_EQ(same, law);
}

TEST(Sampling, HiddenLogitsHaveNoProbability) {
  std::vector<float> z = random_logits(10, 1);
  for (const std::size_t i : {0u, 4u, 9u}) z[i] = -std::numeric_limits<float>::infinity();
  std::vector<double> law(10);
  for (const Sampling& s : {Sampling{}, Sampling{.top_k = 9}, Sampling{.top_p = .999999}}) {
    token_law(z, s, law);
    for (const std::size_t i : {0u, 4u, 9u}) EXPECT_EQ(law[i], 0);
    EXPECT_NEAR(std::accumulate(law.begin(), law.end(), 0.0), 1, 1e-14);
  }
  const std::vector<float> extreme{-3e38f, 3e38f, 3e38f};
  std::vector<double> three(3);
  token_law(extreme, {.temperature = 1e-5}, three);
  EXPECT_EQ(three, (std::vector<double>{0, .5, .5}));
}

TEST(Sampling, WhatHasNoLawIsRefusedAndTheLawIsLeft) {
  const auto z = random_logits(5, 1);
  const std::vector<double> before(5, 7.0);
  std::vector<double> law = before;
  const auto refuse = [&](const char* word, std::vector<float> logits, const Sampling& s) {
    EXPECT_NE(refused([&] { token_law(logits, s, law); }).find(word), std::string::npos) << word;
    EXPECT_NE(refused([&] { keyed_sample(logits, s, {.seed = 1}, 0); }).find(word),
              std::string::npos)
        << word;
    EXPECT_EQ(law, before);
  };
  for (const double t : {-1.0, nan_value, inf}) refuse("temperature", z, {.temperature = t});
  for (const Index k : {0, -1}) refuse("top_k", z, {.top_k = k});
  for (const double p : {0.0, -.1, 1.1, nan_value}) refuse("top_p", z, {.top_p = p});
  for (const double p : {-.1, 1.1, nan_value}) refuse("min_p", z, {.min_p = p});
  constexpr float hidden = -std::numeric_limits<float>::infinity();
  refuse("logits", std::vector<float>(5, hidden), {});
  refuse("logits", {0, 1, static_cast<float>(nan_value), 2, 3}, {});
  refuse("logits", {static_cast<float>(nan_value), 1, 0, 2, 3}, {.temperature = 0});
  refuse("logits", {0, 1, -hidden, 2, 3}, {});
  EXPECT_NE(refused([&] { token_law(random_logits(6, 1), {}, law); }).find("law"),
            std::string::npos);
  const std::vector<float> none;
  EXPECT_NE(refused([&] { keyed_sample(none, {}, {.seed = 1}, 0); }).find("logits"),
            std::string::npos);
  std::vector<double> both(5, 1.0);
  EXPECT_NE(refused([&] { token_law(both, {}, both); }).find("overlaps"), std::string::npos);
}

TEST(Sampling, ADrawIsTheTokenAtWhichTheSumPassesTheCoin) {
  const std::vector<double> law{0, .25, 0, .5, .25, 0};
  for (const auto& [u, token] : std::vector<std::pair<double, std::int32_t>>{
           {0, 1}, {.249, 1}, {.25, 3}, {.7499, 3}, {.75, 4}, {1 - 0x1p-53, 4}})
    EXPECT_EQ(draw(law, u), token) << u;
  EXPECT_EQ(draw(law, 1), 4) << "also where rounding makes the sum too small";
}

TEST(KeyedNoise, IsAFunctionOfSeedPositionAndToken) {
  const auto z = random_logits(50, 3);
  const std::int32_t a = keyed_sample(z, {}, {.seed = 4}, 100);
  EXPECT_EQ(keyed_sample(pare::reference, z, {}, {.seed = 4}, 100), a);
  EXPECT_NE(pare::GumbelNoise{4}.at(1, 6), pare::GumbelNoise{4}.at(1, 7));
  EXPECT_NE(pare::GumbelNoise{4}.at(1, 6), pare::GumbelNoise{4}.at(2, 6));
  EXPECT_NE(pare::GumbelNoise{4}.at(1, 6), pare::GumbelNoise{5}.at(1, 6));
  EXPECT_NE(pare::GumbelNoise{4}.at(Index{1} << 32, 6), pare::GumbelNoise{4}.at(0, 6));
  // The definition: the largest of all sums, no token left out.
  for (Index position = 0; position < 500; ++position) {
    double most = -inf;
    std::int32_t best = -1;
    for (std::int32_t i = 0; i < 50; ++i) {
      const double sum = static_cast<double>(z[static_cast<std::size_t>(i)]) / .8 +
                         pare::GumbelNoise{9}.at(position, static_cast<std::uint32_t>(i));
      if (sum > most) {
        most = sum;
        best = i;
      }
    }
    EXPECT_EQ(keyed_sample(z, {.temperature = .8}, {.seed = 9}, position), best);
  }
}

TEST(KeyedNoise, TokensHaveTheLawOfSampling) {
  for (const Sampling& s : {Sampling{}, Sampling{.temperature = 1.6, .top_k = 12, .top_p = .9}}) {
    const auto z = random_logits(24, 5);
    std::vector<double> law(24);
    token_law(z, s, law);
    std::vector<std::int64_t> counts(24);
    for (Index i = 0; i < 300'000; ++i)
      ++counts[static_cast<std::size_t>(keyed_sample(z, s, {.seed = 6}, i))];
    EXPECT_GE(goodness_of_fit(counts, law), 1e-4);
    EXPECT_LT(goodness_of_fit(counts, std::vector<double>(24, 1.0 / 24)), 1e-12);
  }
}

// E G = 0.5772 (Euler's constant), Var G = pi^2 / 6; six standard errors of 200,000.
TEST(KeyedNoise, IsGumbelDistributed) {
  constexpr int n = 200'000;
  double sum = 0, squares = 0;
  for (int i = 0; i < n; ++i) {
    const double g = pare::GumbelNoise{8}.at(i / 7, static_cast<std::uint32_t>(i % 7));
    ASSERT_TRUE(std::isfinite(g));
    sum += g;
    squares += g * g;
  }
  const double mean = sum / n, variance = squares / n - mean * mean;
  EXPECT_NEAR(mean, .57721566, 6 * 1.2825 / std::sqrt(double(n)));
  EXPECT_NEAR(variance, 1.6449341, 6 * std::sqrt((5.4 - 1) * 1.6449 * 1.6449 / n));
  EXPECT_TRUE(std::isfinite(pare::GumbelNoise::of_words(0, 0)));
  EXPECT_TRUE(std::isfinite(pare::GumbelNoise::of_words(~0u, ~0u)));
  EXPECT_LT(pare::GumbelNoise::of_words(~0u, ~0u), 36.8);
}

TEST(KeyedNoise, CoinsAreUniformAndEachItsOwn) {
  std::vector<std::int64_t> counts(16);
  Coins coins({.seed = 2}, 5), same({.seed = 2}, 5), other({.seed = 2}, 6);
  int equal = 0;
  for (int i = 0; i < 100'000; ++i) {
    const double u = coins();
    ASSERT_TRUE(u >= 0 && u < 1);
    EXPECT_EQ(u, same());
    equal += u == other() ? 1 : 0;
    ++counts[static_cast<std::size_t>(u * 16)];
  }
  EXPECT_EQ(equal, 0);
  EXPECT_GE(goodness_of_fit(counts, std::vector<double>(16, 1.0 / 16)), 1e-4);
}

TEST(KeyedNoise, TheSecondCallAllocatesNothing) {
  const auto z = random_logits(500, 1);
  std::vector<double> law(500);
  pare::Workspace workspace;
  const Sampling s{.top_k = 40, .top_p = .9, .min_p = .01};
  const auto call = [&] {
    token_law(pare::simd.with(workspace), z, s, law);
    keyed_sample(pare::simd.with(workspace), z, s, {.seed = 1}, 3);
  };
  call();
  const long before = pare::testing::allocations.load();
  call();
  EXPECT_EQ(pare::testing::allocations.load(), before);
}

}  // namespace
}  // namespace draft_sampling_test
