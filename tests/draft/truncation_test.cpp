// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <Eigen/Core>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <vector>

#include <pare/draft/dense_head.hpp>
#include <pare/draft/keyed_noise.hpp>
#include <pare/draft/truncation.hpp>

#include "draft/heads.hpp"

namespace draft_truncation_test {
namespace {

using pare::Index;
using pare::testing::HeadRows;
using pare::testing::refusal;
using namespace pare::draft;

/// The law by a sort of all logits, step after step; probability 0 of what is cut.
std::vector<double> law_of(const Eigen::RowVectorXd& z, const Sampling& cut) {
  const auto order = pare::testing::ranking_of(z);
  std::vector<double> law(order.size());
  const auto p = [&](std::size_t i) -> double& { return law[static_cast<std::size_t>(order[i])]; };
  const auto normalise = [&] {
    double sum = 0;
    for (const double x : law) sum += x;
    for (double& x : law) x /= sum;
  };
  for (std::size_t i = 0; i < order.size(); ++i)
    p(i) = std::exp((z(order[i]) - z(order[0])) / cut.temperature);
  for (std::size_t i = static_cast<std::size_t>(cut.top_k.value_or(z.size())); i < order.size();
       ++i)
    p(i) = 0;
  normalise();
  double before = 0;
  for (std::size_t i = 0; i < order.size(); ++i) {
    const double mass = p(i);
    // Of 1 all stay, whatever the sum is rounded to.
    if (i > 0 && cut.top_p && *cut.top_p < 1 && before > *cut.top_p) p(i) = 0;
    before += mass;
  }
  normalise();
  const double most = p(0);
  for (double& x : law)
    if (x < cut.min_p.value_or(0) * most) x = 0;
  normalise();
  return law;
}

struct Counts {
  int certified = 0, left = 0;
};

template <class T>
Counts expect_laws(double spread, Index k) {
  const Index tokens = 1000;
  Counts counts;
  const auto w = HeadRows<T>(pare::testing::random_matrix<HeadRows<T>>(tokens, 12, 1) * T(spread));
  const auto h = pare::testing::random_matrix<HeadRows<T>>(6, 12, 2);
  const DenseHead<T> head(w);
  HeadRows<T> z(6, tokens);
  head.logits(h, z);
  std::vector<Sampling> cuts{{}};
  for (const Index top_k : {1, 5, 40, 500, 5000}) cuts.push_back({.top_k = top_k});
  for (const double top_p : {0.01, 0.5, 0.9, 0.99999, 1.0}) {
    cuts.push_back({.top_p = top_p});
    cuts.push_back({.top_k = 40, .top_p = top_p});
    cuts.push_back({.top_k = 500, .top_p = top_p});
    cuts.push_back({.top_k = 5000, .top_p = top_p, .min_p = 0.05});
    cuts.push_back({.top_k = 500, .top_p = top_p, .min_p = 0.3});
  }
  for (const double min_p : {0.0, 0.1, 0.9, 1.0}) cuts.push_back({.min_p = min_p});
  for (const double temperature : {0.5, 2.0}) {
    const auto top = head.top_k(h, k, temperature);
    for (Sampling cut : cuts)
      for (Index r = 0; r < 6; ++r) {
        cut.temperature = temperature;
        const auto wanted = law_of(z.row(r).template cast<double>(), cut);
        const auto law = certified_law(top, r, tokens, cut);
        const auto any = truncated_law(head, h, r, cut, k);
        ++(law ? counts.certified : counts.left);
        for (const TruncatedLaw* got : {law ? &*law : &any, &any}) {
          std::size_t kept = 0;
          for (const double p : wanted) kept += p > 0 ? 1 : 0;
          EXPECT_EQ(got->ids.size(), kept);
          for (std::size_t i = 0; i < got->ids.size(); ++i)
            EXPECT_NEAR(got->probabilities[i], wanted[static_cast<std::size_t>(got->ids[i])],
                        1e-12);
        }
      }
  }
  return counts;
}

TEST(Truncation, CertifiedLawsAreThoseOfAFullSort) {
  for (const double spread : {0.5, 4.0})
    for (const Index k : {1, 64, 1000}) {
      const Counts a = expect_laws<float>(spread, k), b = expect_laws<double>(spread, k);
      // One logit decides what keeps one: top-k of 1, in 6 rows at 2 temperatures.
      EXPECT_GE(a.certified, k == 1 ? 12 : 100);
      EXPECT_GE(b.certified, k == 1 ? 12 : 100);
      if (k == 1000) {
        EXPECT_EQ(a.left + b.left, 0);
      }
    }
}

TEST(Truncation, MassesNearTheCutAreNotCertified) {
  // Four equal logits: the mass before the third is exactly 1/2, which log-sum-exp cannot tell.
  const DenseHead<float> head(HeadRows<float>(HeadRows<float>::Zero(4, 2)));
  const HeadRows<float> h = HeadRows<float>::Ones(1, 2);
  const auto top = head.top_k(h, 3);
  EXPECT_FALSE(certified_law(top, 0, 4, {.top_p = 0.5}));
  EXPECT_TRUE(certified_law(top, 0, 4, {.top_p = 0.3}));
  EXPECT_EQ(truncated_law(head, h, 0, {.top_p = 0.5}, 3).ids.size(), 3u);  // at most top_p stays
}

/// A top_p off by `near` from the mass before a token is not certified; off by `far` it is.
template <class T>
void expect_margin(double near, double far) {
  const Index tokens = 1000;
  const auto w = HeadRows<T>(pare::testing::random_matrix<HeadRows<T>>(tokens, 12, 1) * T(2));
  const auto h = pare::testing::random_matrix<HeadRows<T>>(4, 12, 2);
  const DenseHead<T> head(w);
  HeadRows<T> z(4, tokens);
  head.logits(h, z);
  const auto top = head.top_k(h, 64);
  for (Index r = 0; r < 4; ++r) {
    const auto row = z.row(r);
    const auto order = pare::testing::ranking_of(row);
    const double sum = pare::testing::log_sum_exp_of(row, 1);
    double before = 0;
    for (std::size_t i = 1; i < 30; ++i) {
      before += std::exp(static_cast<double>(row(order[i - 1])) - sum);
      for (const double sign : {1.0, -1.0}) {
        EXPECT_FALSE(certified_law(top, r, tokens, {.top_p = before + sign * near})) << i;
        const auto law = certified_law(top, r, tokens, {.top_p = before + sign * far});
        ASSERT_TRUE(law) << i;
        EXPECT_EQ(law->ids.size(), i + (sign > 0 ? 1 : 0));
      }
    }
  }
}

TEST(Truncation, TheMarginIsThatOfLogSumExp) {
  expect_margin<float>(1e-6, 1e-5);
  expect_margin<double>(1e-13, 1e-11);
}

TEST(Truncation, OfEqualSumsTheLowestTokenIsDrawn) {
  // Steps of float at 1e18 are larger than any noise.
  const DenseHead<float> head(HeadRows<float>(HeadRows<float>::Constant(300, 1, 1e18f)));
  const HeadRows<float> h = HeadRows<float>::Ones(1, 1);
  const auto law = truncated_law(head, h, 0, {.temperature = 0.9});
  EXPECT_EQ(law.ids.size(), 300u);
  for (Index p = 0; p < 20; ++p) EXPECT_EQ(law.draw({3}, p), 0);
}

TEST(Truncation, DrawsAreThoseOfTheHeadWhereNothingIsCut) {
  const auto w = pare::testing::random_matrix<HeadRows<float>>(500, 12, 1);
  const auto h = pare::testing::random_matrix<HeadRows<float>>(1, 12, 2);
  const DenseHead<float> head(w);
  const auto law = truncated_law(head, h, 0, {.temperature = 0.7});
  EXPECT_EQ(law.ids.size(), 500u);
  const auto few = truncated_law(head, h, 0, {.temperature = 0.7, .top_k = 5});
  for (Index p = 0; p < 200; ++p) {
    const std::vector<Index> position{p};
    EXPECT_EQ(law.draw({3}, p), head.sample(h, position, {3}, 0.7)[0]);
    const auto drawn = few.draw({3}, p);
    EXPECT_NE(std::find(few.ids.begin(), few.ids.end(), drawn), few.ids.end());
  }
  const auto greedy = truncated_law(head, h, 0, {.temperature = 0, .top_p = 0.9});
  EXPECT_EQ(greedy.ids, head.argmax(h));
  EXPECT_EQ(greedy.probabilities, std::vector<double>{1});
}

// One noise: a head draws what keyed_sample draws of its logits, cut or not.
TEST(Truncation, DrawsAreThoseOfKeyedSample) {
  const auto w = pare::testing::random_matrix<HeadRows<double>>(500, 12, 1);
  const auto h = pare::testing::random_matrix<HeadRows<double>>(1, 12, 2);
  const DenseHead<double> head(w);
  HeadRows<double> z(1, 500);
  head.logits(h, z);
  const std::vector<double> row(z.data(), z.data() + z.size());
  const Sampling cut{.temperature = 0.7, .top_k = 30, .top_p = 0.9};
  const auto law = truncated_law(head, h, 0, cut);
  for (Index p = 0; p < 200; ++p) {
    const std::vector<Index> position{p};
    EXPECT_EQ(head.sample(h, position, {3}, 0.7)[0],
              keyed_sample(row, {.temperature = 0.7}, {3}, p));
    EXPECT_EQ(law.draw({3}, p), keyed_sample(row, cut, {3}, p));
  }
}

TEST(Truncation, ARowWithoutALawHasNoTokens) {
  HeadRows<float> w = pare::testing::random_matrix<HeadRows<float>>(500, 12, 1);
  w(3, 3) = std::numeric_limits<float>::quiet_NaN();
  const auto h = pare::testing::random_matrix<HeadRows<float>>(1, 12, 2);
  const auto law = truncated_law(DenseHead<float>(w), h, 0, {.temperature = 0.7, .top_p = 0.5});
  EXPECT_TRUE(law.ids.empty());
  EXPECT_EQ(law.draw({1}, 0), -1);
}

TEST(Truncation, RefusesWhatIsOutOfRange) {
  const DenseHead<float> head(50, 3);
  const HeadRows<float> h = HeadRows<float>::Ones(2, 3);
  constexpr double nan = std::numeric_limits<double>::quiet_NaN();
  const auto top = head.top_k(h, 5);
  const auto both = [&](const Sampling& cut, const char* argument) {
    refusal([&] { certified_law(top, 0, 50, cut); }, "draft::certified_law", argument);
    refusal([&] { truncated_law(head, h, 0, cut); }, "draft::truncated_law", argument);
  };
  for (const Index k : {0, -1}) both({.top_k = k}, "top_k");
  for (const double p : {0.0, -1.0, 1.1, nan}) both({.top_p = p}, "top_p");
  for (const double p : {-0.1, 1.1, nan}) both({.min_p = p}, "min_p");
  for (const Index row : {-1, 2}) {
    refusal([&] { certified_law(top, row, 50, {}); }, "draft::certified_law", "row");
    refusal([&] { truncated_law(head, h, row, {}); }, "draft::truncated_law", "row");
  }
  refusal([&] { certified_law(top, 0, 4, {}); }, "draft::certified_law", "outputs");
  refusal([&] { truncated_law(head, h, 0, {}, 0); }, "draft::truncated_law", "candidates");
  for (const double t : {nan, -1.0}) both({.temperature = t}, "temperature");
  refusal([&] { certified_law(top, 0, 50, {.temperature = 0.5}); }, "draft::certified_law",
          "temperature");
}

}  // namespace
}  // namespace draft_truncation_test
