// SPDX-License-Identifier: Apache-2.0
// BPR and DPO: the goldens, finite differences, extreme margins, refusals.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <span>
#include <vector>

#include <pare/retrieval/objectives/pairwise.hpp>

#include "support/properties.hpp"

namespace retrieval_pairwise_test {
namespace {

using pare::retrieval::bpr;
using pare::retrieval::dpo;
using pare::retrieval::DpoPairs;
using pare::testing::refuses_and_leaves_alone;
using List = std::vector<double>;

/// Margin 2, beta .5: ln(1 + e^-1), and -.5 sigma(-1).
TEST(Dpo, IsTheGoldenOne) {
  const List winner{-3}, loser{-4}, reference_winner{-4}, reference_loser{-3};
  List by_winner(1), by_loser(1);
  const double loss =
      dpo({winner, loser, reference_winner, reference_loser}, {.beta = .5}, by_winner, by_loser);
  EXPECT_NEAR(loss, .31326169, 5e-9);
  EXPECT_NEAR(by_winner[0], -.13447071, 5e-9);
  EXPECT_EQ(by_loser[0], -by_winner[0]);
  // Swapped: the margin and so the pull change sign.
  const double swapped = dpo({loser, winner, reference_loser, reference_winner}, {.beta = .5});
  EXPECT_NEAR(swapped - loss, 1, 1e-15);
  EXPECT_NEAR(dpo({winner, loser, winner, loser}), std::log(2.0), 1e-15);
}

TEST(Pairs, GradientsAreThoseOfFiniteDifferences) {
  List a{.3, -2, 4, 0}, b{1, -1.5, -3, 0};
  const List c{.5, 1, -1, 2}, d{-.5, 1, 2, 3};
  List by_a(4), by_b(4), by_winner(4), by_loser(4);
  bpr(a, b, by_a, by_b);
  dpo({a, b, c, d}, {.beta = .7}, by_winner, by_loser);
  const auto slope = [](double& x, const auto& loss) {
    const double at = x, h = 1e-5;
    x = at + h;
    const double above = loss();
    x = at - h;
    const double below = loss();
    x = at;
    return (above - below) / (2 * h);
  };
  for (std::size_t i = 0; i < 4; ++i) {
    const auto of_bpr = [&] { return bpr(a, b); };
    const auto of_dpo = [&] { return dpo({a, b, c, d}, {.beta = .7}); };
    EXPECT_NEAR(by_a[i], slope(a[i], of_bpr), 1e-9);
    EXPECT_NEAR(by_b[i], slope(b[i], of_bpr), 1e-9);
    EXPECT_NEAR(by_winner[i], slope(a[i], of_dpo), 1e-9);
    EXPECT_NEAR(by_loser[i], slope(b[i], of_dpo), 1e-9);
  }
}

TEST(Pairs, FarMarginsHaveTheirLossAndGradient) {
  List by_a(1), by_b(1);
  EXPECT_EQ(bpr(List{0}, List{5000}, by_a, by_b), 5000);
  EXPECT_EQ(by_a[0], -1);
  EXPECT_EQ(bpr(List{5000}, List{0}, by_a, by_b), 0);
  EXPECT_EQ(by_a[0], 0);
  EXPECT_NEAR(bpr(List{40}, List{0}) / std::exp(-40.0), 1, 1e-12);
}

/// 1e308, from which no difference of opposite signs fits a double.
TEST(Pairs, MarginsBeyondDoubleSaturate) {
  const double far = 1e308, most = std::numeric_limits<double>::max();
  List by_a(1), by_b(1);
  EXPECT_EQ(bpr(List{-far}, List{far}, by_a, by_b), most);
  EXPECT_EQ(by_a[0], -1);
  EXPECT_EQ(by_b[0], 1);
  EXPECT_EQ(bpr(List{far}, List{-far}, by_a, by_b), 0);
  EXPECT_EQ(by_a[0], 0);
  // Each of these fits, their sum does not: the mean is the exact one, and one that is beyond is
  // not.
  EXPECT_EQ(bpr(List{0, 0}, List{far, far}), far);
  EXPECT_EQ(bpr(List{-far, -far, -far}, List{far, far, far}), most);
  EXPECT_EQ(bpr(List{-far, far}, List{far, -far}), most / 2);
  const auto loss = [&](double winner, double loser, double reference_winner,
                        double reference_loser, double beta) {
    const List a{winner}, b{loser}, c{reference_winner}, d{reference_loser};
    return dpo({a, b, c, d}, {.beta = beta}, by_a, by_b);
  };
  // Both differences are beyond double, and what is between them is 0.
  EXPECT_NEAR(loss(far, far, -far, -far, .1), std::log(2.0), 1e-15);
  EXPECT_NEAR(by_a[0], -.05, 1e-17);
  EXPECT_EQ(by_b[0], -by_a[0]);
  // A margin of -4e308, of which a tenth fits.
  EXPECT_NEAR(loss(-far, far, far, -far, .1), 4e307, 4e307 * 1e-15);
  EXPECT_EQ(by_a[0], -.1);
  EXPECT_EQ(loss(-far, far, far, -far, 1), most);
  EXPECT_EQ(by_a[0], -1);
  EXPECT_EQ(loss(-most, most, most, -most, 1e308), most);
  EXPECT_EQ(by_a[0], -1e308);
  EXPECT_EQ(loss(far, -far, -far, far, 1), 0);
  EXPECT_EQ(by_a[0], 0);
}

TEST(Pairs, RefusesWhatDoesNotFit) {
  const List two{1, 2}, three{1, 2, 3}, none{};
  List out(2, 7), other(2, 7), longer(3, 7), both(3, 7);
  const auto refused = [&](const List& a, const List& b, const char* argument) {
    refuses_and_leaves_alone([&] { bpr(a, b, out, other); }, "retrieval::bpr", argument, out,
                             other);
  };
  refused(none, none, "positive");
  refused(two, three, "negative");
  for (const double bad : {std::nan(""), std::numeric_limits<double>::infinity()}) {
    refused({1, bad}, two, "positive");
    refused(two, {bad, 1}, "negative");
  }
  const auto outputs = [&](std::span<double> a, std::span<double> b, const char* argument) {
    refuses_and_leaves_alone([&] { bpr(two, two, a, b); }, "retrieval::bpr", argument, both);
  };
  outputs(out, longer, "by_negative");
  outputs({}, out, "by_positive");
  outputs(out, {}, "by_negative");
  outputs(std::span(both).first(2), std::span(both).last(2), "by_negative");
  List in{1, 2};
  refuses_and_leaves_alone([&] { bpr(in, two, in, out); }, "retrieval::bpr", "by_positive", in);
  const char* const f = "retrieval::dpo";
  const auto wrong = [&](const DpoPairs& pairs, double beta, const char* argument) {
    refuses_and_leaves_alone([&] { dpo(pairs, {.beta = beta}, out, other); }, f, argument, out,
                             other);
  };
  for (const double bad : {0.0, -1.0, std::nan("")}) wrong({two, two, two, two}, bad, "beta");
  wrong({none, two, two, two}, 1, "winner");
  wrong({two, three, two, two}, 1, "loser");
  wrong({two, two, three, two}, 1, "reference_winner");
  wrong({two, two, two, none}, 1, "reference_loser");
  refuses_and_leaves_alone([&] { dpo({two, in, two, two}, {}, in, out); }, f, "by_winner", in);
}

}  // namespace
}  // namespace retrieval_pairwise_test
