// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <limits>
#include <vector>

#include <pare/feature/ranking.hpp>

#include "support/matrices.hpp"

namespace feature_ranking_test {
namespace {

using namespace pare::feature;
using pare::Index;
using pare::testing::refusal;
using Order = std::vector<Index>;

const std::vector<double> scores{0.2, 0.9, 0.9, 0.1, 0.7, 0.9};

constexpr double nan = std::numeric_limits<double>::quiet_NaN();
constexpr double infinity = std::numeric_limits<double>::infinity();

TEST(Ranking, OrdersByScoreThenTieBreakerThenIndex) {
  EXPECT_EQ(rank_fields(scores).order, (Order{1, 2, 5, 4, 0, 3}));
  const std::vector<double> thetas{0, 1, 2, 0, 0, 2};
  EXPECT_EQ(rank_fields(scores, thetas).order, (Order{2, 5, 1, 4, 0, 3}));
  EXPECT_TRUE(rank_fields({}).order.empty());
}

TEST(Ranking, InactiveFieldsScoreZeroAndComeLast) {
  const auto inactive = FieldStatus::Inactive, ok = FieldStatus::Ok,
             undetermined = FieldStatus::Undetermined;
  const std::vector<double> negative{-3, 0.9, -1, 0};
  const std::vector<FieldStatus> status{ok, inactive, undetermined, ok};
  const Ranking ranking = rank_fields(negative, {}, status);
  EXPECT_EQ(ranking.order, (Order{3, 2, 0, 1}));
  EXPECT_EQ(ranking.scores[1], 0);
  EXPECT_EQ(ranking.scores[2], -1);
  EXPECT_EQ(ranking.status, status);
  EXPECT_EQ(above(ranking, -2), Order{3}) << "an inactive field is above no threshold";
  EXPECT_EQ(undetermined_fields(ranking), Order{2}) << "and too little was seen of this one";
}

TEST(Ranking, SelectsByCountShareAndThreshold) {
  const Ranking ranking = rank_fields(scores);
  EXPECT_EQ(top_k(ranking, 0), Order{});
  EXPECT_EQ(top_k(ranking, 2), (Order{1, 2}));
  EXPECT_EQ(top_k(ranking, 6), ranking.order);
  EXPECT_EQ(top_share(ranking, 0.5), (Order{1, 2, 5}));
  EXPECT_EQ(top_share(ranking, 0.51), (Order{1, 2, 5, 4}));
  EXPECT_EQ(top_share(ranking, 0), Order{});
  EXPECT_EQ(top_share(ranking, 1), ranking.order);
  EXPECT_EQ(top_share(rank_fields(std::vector<double>(30, 1.0)), 0.1).size(), 3u);
  EXPECT_EQ(above(ranking), (Order{1, 2, 5, 4}));
  EXPECT_EQ(above(ranking, 0.9), Order{}) << "equal is not above";
}

/// What closed stays where it was, behind what is open.
TEST(Ranking, OpenFieldsComeFirstByWhatTheyAreWorth) {
  const std::vector<double> gates{0.9, 0.99, 0.2, 0.8, 0.4, 0.95};
  const std::vector<FieldStatus> status{FieldStatus::Ok,       FieldStatus::Ok,
                                        FieldStatus::Ok,       FieldStatus::Undetermined,
                                        FieldStatus::Inactive, FieldStatus::Ok};
  const Ranking by_gate = rank_fields(gates, {}, status);
  const std::vector<double> worth{3, 1, 9, 4, 9, 1};
  const Ranking ranking = open_first_by(worth, by_gate);
  EXPECT_EQ(ranking.order, (Order{3, 0, 1, 5, 2, 4}));
  EXPECT_EQ(ranking.scores, by_gate.scores);
  EXPECT_EQ(ranking.status, status);
  EXPECT_EQ(open_first_by(worth, by_gate, 0.9).order, (Order{1, 5, 0, 3, 2, 4}));
  EXPECT_EQ(open_first_by(worth, by_gate, -1).order, (Order{2, 3, 0, 1, 5, 4}))
      << "an inactive field is open at no threshold";
  EXPECT_EQ(above(ranking), (Order{0, 1, 5}));
  EXPECT_EQ(undetermined_fields(ranking), Order{3});
}

TEST(Ranking, CumulativeMassRisesToOne) {
  const Ranking ranking = rank_fields(std::vector<double>{1, 4, -2, 3});
  EXPECT_EQ(cumulative_mass(ranking), (std::vector<double>{0.5, 0.875, 1, 1}));
  EXPECT_EQ(fields_for_mass(ranking, 0.5).fields, 1);
  EXPECT_EQ(fields_for_mass(ranking, 0.6).fields, 2);
  EXPECT_EQ(fields_for_mass(ranking, 0.6).share, 0.875);
  EXPECT_EQ(fields_for_mass(ranking, 1).fields, 3);
  EXPECT_EQ(fields_for_mass(ranking, 0).fields, 0);
  const Ranking none = rank_fields(std::vector<double>{0, -1});
  EXPECT_EQ(cumulative_mass(none), (std::vector<double>{0, 0}));
  EXPECT_EQ(fields_for_mass(none, 0.9).fields, 0);
  EXPECT_TRUE(cumulative_mass(rank_fields({})).empty());
}

TEST(Ranking, BadInputIsRefused) {
  const std::string rank = "feature::rank_fields";
  const Ranking ranking = rank_fields(scores);
  refusal([&] { rank_fields(std::vector<double>{1, nan}); }, rank, "scores");
  refusal([&] { rank_fields(std::vector<double>{1, -std::numeric_limits<double>::infinity()}); },
          rank, "scores");
  refusal([&] { rank_fields(std::vector<double>{1}, std::vector<double>{nan}); }, rank,
          "tie_breakers");
  refusal([&] { rank_fields(std::vector<double>{1, 2}, std::vector<double>{1}); }, rank,
          "tie_breakers");
  refusal([&] { rank_fields(std::vector<double>{1}, {}, std::vector<FieldStatus>(2)); }, rank,
          "status");
  refusal([&] { top_k(ranking, 7); }, "feature::top_k", "k");
  refusal(
      [&] { rank_fields(scores, {}, std::vector<FieldStatus>(6, static_cast<FieldStatus>(3))); },
      "feature::rank_fields", "status");
  refusal([&] { top_k(ranking, -1); }, "feature::top_k", "k");
  refusal([&] { top_share(ranking, 1.1); }, "feature::top_share", "share");
  refusal([&] { top_share(ranking, nan); }, "feature::top_share", "share");
  refusal([&] { above(ranking, nan); }, "feature::above", "threshold");
  refusal([&] { open_first_by(std::vector<double>{1}, ranking); }, "feature::open_first_by",
          "worth");
  refusal([&] { open_first_by(std::vector<double>(6, nan), ranking); }, "feature::open_first_by",
          "worth");
  refusal([&] { open_first_by(scores, ranking, nan); }, "feature::open_first_by", "threshold");
  refusal([&] { fields_for_mass(ranking, -0.1); }, "feature::fields_for_mass", "share");
}

TEST(Ranking, SharesOfScoresThatAddUpToMoreThanADouble) {
  const Ranking ranking = rank_fields(std::vector<double>{1.5e308, 1.5e308, 1.5e308, 0, 1.5e308});
  const std::vector<double> mass = cumulative_mass(ranking);
  EXPECT_EQ(mass, (std::vector<double>{0.25, 0.5, 0.75, 1, 1}));
  EXPECT_EQ(fields_for_mass(ranking, 0.5).fields, 2);
}

/// Made by hand, or by a default constructor.
TEST(Ranking, WhatIsNoRankingIsRefused) {
  const Ranking good = rank_fields(scores);
  const auto refused = [&](const std::string& member, const auto& spoil) {
    Ranking bad = good;
    spoil(bad);
    refusal([&] { top_k(bad, 1); }, "feature::top_k", member);
    refusal([&] { top_share(bad, 0.5); }, "feature::top_k", member);
    refusal([&] { above(bad); }, "feature::above", member);
    refusal([&] { undetermined_fields(bad); }, "feature::undetermined_fields", member);
    refusal([&] { open_first_by(bad.scores, bad); }, "feature::open_first_by", member);
    refusal([&] { cumulative_mass(bad); }, "feature::cumulative_mass", member);
    refusal([&] { fields_for_mass(bad, 0.5); }, "feature::cumulative_mass", member);
  };
  refused("ranking.order", [](Ranking& r) { r.order.pop_back(); });
  refused("ranking.order", [](Ranking& r) { r.order.clear(); });
  refused("ranking.order", [](Ranking& r) { r.order[2] = 6; });
  refused("ranking.order", [](Ranking& r) { r.order[0] = -1; });
  refused("ranking.order", [](Ranking& r) { r.order[0] = r.order[1]; });
  refused("ranking.scores", [](Ranking& r) { r.scores[2] = nan; });
  refused("ranking.scores", [](Ranking& r) { r.scores[2] = infinity; });
  refused("ranking.status", [](Ranking& r) { r.status[0] = static_cast<FieldStatus>(3); });
  refused("ranking.status", [](Ranking& r) { r.status.clear(); });
  refused("ranking.order", [](Ranking& r) { r.scores.push_back(1); });
  EXPECT_TRUE(above(Ranking{}).empty());
}

}  // namespace
}  // namespace feature_ranking_test
