// SPDX-License-Identifier: Apache-2.0

#include "language_model/sampler.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <map>
#include <numeric>
#include <random>
#include <set>
#include <stdexcept>
#include <string>
#include <vector>

namespace studies_sampler_test {
namespace {

using language_model::Candidate;
using language_model::Sampler;
using language_model::SamplerOptions;
using language_model::Token;
using Logits = std::vector<float>;

constexpr float infinity = std::numeric_limits<float>::infinity();

/// The definition: probabilities by token, one step after the other, on the whole sorted list.
std::map<Token, double> kept(const Logits& logits, const SamplerOptions& options) {
  std::vector<Token> order(logits.size());
  std::iota(order.begin(), order.end(), 0);
  const auto logit = [&](Token id) { return logits[static_cast<std::size_t>(id)]; };
  std::stable_sort(order.begin(), order.end(),
                   [&](Token a, Token b) { return logit(a) > logit(b); });
  const auto weight = [&](Token id) {
    return std::exp((double(logit(id)) - double(logit(order[0]))) / options.temperature);
  };
  std::erase_if(order, [&](Token id) { return weight(id) == 0; });
  const auto sum = [&] {
    return std::accumulate(order.begin(), order.end(), 0.0,
                           [&](double total, Token id) { return total + weight(id); });
  };
  order.resize(std::min(order.size(), static_cast<std::size_t>(options.top_k.value_or(1 << 30))));
  if (options.top_p < 1) {
    const double total = sum();
    std::size_t count = 0;
    for (double mass = 0; mass < options.top_p * total && count < order.size(); ++count)
      mass += weight(order[count]);
    order.resize(count);
  }
  std::erase_if(order, [&](Token id) { return weight(id) < options.min_p; });
  std::map<Token, double> result;
  const double total = sum();
  for (const Token id : order) result[id] = weight(id) / total;
  return result;
}

Logits random_logits(std::size_t size, std::mt19937& random) {
  Logits logits(size);
  for (float& x : logits) x = static_cast<float>(random() % 64) / 8;  // with ties
  return logits;
}

/// The least of chi-square that `df` degrees of freedom pass once in 10^6 draws, or more: a bound
/// by Laurent and Massart, df + 2 sqrt(df t) + 2 t with e^-t = 10^-6.
double bound_of_chi_square(double df) {
  const double t = std::log(1e6);
  return df + 2 * std::sqrt(df * t) + 2 * t;
}

TEST(Sampler, FiltersKeepTheSetsOfTheDefinition) {
  std::mt19937 random(3);
  const SamplerOptions all[] = {
      {},
      {.temperature = 0.5},
      {.temperature = 1e-300},
      {.temperature = 1e300},
      {.top_k = 1},
      {.top_k = 7},
      {.top_k = 1000},
      {.top_p = 0.5},
      {.top_p = 1e-12},
      {.top_p = 0.97},
      {.min_p = 0.1},
      {.min_p = 1},
      {.temperature = 0.7, .top_k = 20, .top_p = 0.8, .min_p = 0.05},
      {.temperature = 2, .top_k = 5, .top_p = 0.9, .min_p = 0.3},
  };
  for (const SamplerOptions& options : all) {
    Sampler sampler(options);
    for (int run = 0; run < 20; ++run) {
      Logits logits = random_logits(1 + random() % 200, random);
      if (run % 4 == 0) logits.push_back(-infinity);
      const std::map<Token, double> wanted = kept(logits, options);
      const auto got = sampler.candidates(logits);
      ASSERT_EQ(got.size(), wanted.size());
      double total = 0;
      for (const Candidate& candidate : got) {
        ASSERT_TRUE(wanted.contains(candidate.id));
        // Sums of n terms of one sign err by at most n eps, here and there.
        ASSERT_NEAR(candidate.probability, wanted.at(candidate.id),
                    2.2e-16 * 2 * (static_cast<double>(logits.size()) + 4));
        total += candidate.probability;
      }
      ASSERT_NEAR(total, 1, 2.2e-16 * 2 * (static_cast<double>(logits.size()) + 4));
    }
  }
}

TEST(Sampler, EqualLogitsArePartedByTheirNumbers) {
  const Logits logits = {0, 2, 1, 2, 2, 1};
  const auto ids = [&](const SamplerOptions& options) {
    std::vector<Token> all;
    Sampler sampler(options);
    for (const Candidate& candidate : sampler.candidates(logits)) all.push_back(candidate.id);
    std::ranges::sort(all);
    return all;
  };
  EXPECT_EQ(ids({.top_k = 2}), (std::vector<Token>{1, 3}));
  EXPECT_EQ(ids({.top_k = 4}), (std::vector<Token>{1, 2, 3, 4}));
  EXPECT_EQ(ids({.top_k = 5}), (std::vector<Token>{1, 2, 3, 4, 5}));  // all but one
  EXPECT_EQ(ids({.top_p = 0.3}), (std::vector<Token>{1, 3}));
  EXPECT_EQ(ids({.min_p = 1}), (std::vector<Token>{1, 3, 4}));
  EXPECT_EQ(ids({.temperature = 0}), std::vector<Token>{1});
  Sampler half({.top_p = 0.5});  // which the first has, no more
  EXPECT_EQ(half.candidates(Logits{3, 3}).size(), 1u);
}

TEST(Sampler, DrawsWithTheProbabilitiesThatAreLeft) {
  std::mt19937 random(17);
  const Logits logits = random_logits(24, random);
  const SamplerOptions all[] = {{.temperature = 3, .seed = 1},
                                {.temperature = 2, .top_k = 9, .seed = 2},
                                {.temperature = 4, .top_p = 0.7, .min_p = 0.2, .seed = 3}};
  for (const SamplerOptions& options : all) {
    Sampler sampler(options);
    const std::map<Token, double> wanted = kept(logits, options);
    std::map<Token, double> drawn;
    constexpr int draws = 20000;
    for (int position = 0; position < draws; ++position)
      ++drawn[sampler.sample(logits, static_cast<std::uint64_t>(position))];
    double chi_square = 0;
    for (const auto& [id, probability] : wanted) {
      const double expected = draws * probability;
      ASSERT_GT(expected, 5);
      chi_square += (drawn[id] - expected) * (drawn[id] - expected) / expected;
    }
    EXPECT_EQ(drawn.size(), wanted.size()) << "nothing else is drawn";
    EXPECT_LT(chi_square, bound_of_chi_square(static_cast<double>(wanted.size()) - 1));
  }
}

TEST(Sampler, PositionsAndSeedsAreIndependent) {
  const Logits logits = {0, 0, 0, 0};
  constexpr int draws = 16000;
  for (const bool by_seed : {false, true}) {
    double counts[4][4] = {};
    for (std::uint64_t i = 0; i < draws; ++i) {
      const std::uint64_t far = i << 31;  // both halves of the counter count
      Sampler one({.seed = by_seed ? i : 9}), other({.seed = by_seed ? i + 1 : 9});
      ++counts[one.sample(logits, by_seed ? 5 : far)][other.sample(logits, by_seed ? 5 : far + 1)];
    }
    double chi_square = 0;
    for (const auto& row : counts)
      for (const double count : row) {
        const double expected = draws / 16.0;
        chi_square += (count - expected) * (count - expected) / expected;
      }
    EXPECT_LT(chi_square, bound_of_chi_square(15));
  }
}

TEST(Sampler, TheSameSeedAndPositionGiveTheSameToken) {
  std::mt19937 random(29);
  const Logits logits = random_logits(300, random);
  Sampler forwards({.seed = 4}), backwards({.seed = 4});
  std::vector<Token> first, second;
  for (std::uint64_t position = 0; position < 50; ++position)
    first.push_back(forwards.sample(logits, position));
  for (std::uint64_t position = 50; position-- > 0;)
    second.insert(second.begin(), backwards.sample(logits, position));
  EXPECT_EQ(first, second);
  EXPECT_GT(std::set<Token>(first.begin(), first.end()).size(), 5u);
  Sampler other({.seed = 4 + (std::uint64_t{1} << 32)});  // both halves of the seed count
  for (std::uint64_t position = 0; position < 50; ++position)
    second[position] = other.sample(logits, position);
  EXPECT_NE(first, second);
}

TEST(Sampler, AFilterThatKeepsTheTokenChangesNothing) {
  std::mt19937 random(31);
  const SamplerOptions filters[] = {
      {.top_k = 30, .seed = 6}, {.top_p = 0.6, .seed = 6}, {.min_p = 0.2, .seed = 6}};
  int kept_ones = 0;
  for (std::uint64_t position = 0; position < 200; ++position) {
    const Logits logits = random_logits(100, random);
    const Token token = Sampler({.seed = 6}).sample(logits, position);
    for (const SamplerOptions& options : filters) {
      if (!kept(logits, options).contains(token)) continue;
      EXPECT_EQ(Sampler(options).sample(logits, position), token);
      ++kept_ones;
    }
  }
  EXPECT_GT(kept_ones, 200);
}

TEST(Sampler, WithoutTemperatureTheMostLikelyIsDrawnAndOfEqualsTheFirst) {
  Sampler sampler({.temperature = 0, .top_k = 3, .top_p = 0.1, .min_p = 0.9});
  EXPECT_EQ(sampler.sample(Logits{1, 3, 3, -infinity}, 0), 1);
  EXPECT_EQ(sampler.sample(Logits{-infinity, -5, -4}, 9), 2);
  EXPECT_EQ(sampler.sample(Logits{7}, 1), 0);
}

TEST(Sampler, WhatIsMinusInfiniteIsNeverDrawn) {
  Sampler sampler({.temperature = 1e300});
  for (std::uint64_t position = 0; position < 100; ++position)
    EXPECT_EQ(sampler.sample(Logits{-infinity, 0, -infinity}, position), 1);
}

/// The message of the refusal, or "(accepted)".
template <class Call>
std::string refusal(const Call& call) {
  try {
    call();
  } catch (const std::invalid_argument& error) {
    return error.what();
  }
  return "(accepted)";
}

TEST(Sampler, RefusesOptionsOutOfTheirRange) {
  const double nan = std::nan("");
  const std::string prefix = "pare::language_model::Sampler: ";
  EXPECT_EQ(refusal([] { Sampler({.temperature = -1}); }),
            prefix + "temperature: got -1, wanted a number of at least 0");
  EXPECT_EQ(refusal([] { Sampler({.top_k = 0}); }), prefix + "top_k: got 0, wanted at least 1");
  EXPECT_EQ(refusal([] { Sampler({.top_p = 0}); }),
            prefix + "top_p: got 0, wanted above 0, at most 1");
  EXPECT_EQ(refusal([] { Sampler({.min_p = 2}); }), prefix + "min_p: got 2, wanted from 0 to 1");
  for (const double bad : {nan, -0.5, double(infinity)}) {
    EXPECT_THROW(Sampler({.temperature = bad}), std::invalid_argument);
    EXPECT_THROW(Sampler({.top_p = bad}), std::invalid_argument);
    EXPECT_THROW(Sampler({.min_p = bad}), std::invalid_argument);
  }
  EXPECT_THROW(Sampler({.top_k = -3}), std::invalid_argument);
  EXPECT_THROW(Sampler({.top_p = 1.5}), std::invalid_argument);
}

TEST(Sampler, RefusesLogitsOfWhichNothingCanBeDrawn) {
  for (const double temperature : {0.0, 1.0}) {
    Sampler sampler({.temperature = temperature});
    for (const Logits& bad : {Logits{}, Logits{0, std::nanf("")}, Logits{std::nanf("")},
                              Logits{infinity, 0}, Logits{-infinity, -infinity}})
      EXPECT_THROW(sampler.sample(bad, 0), std::invalid_argument);
  }
}

}  // namespace
}  // namespace studies_sampler_test
