// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <limits>
#include <vector>

#include <pare/feature/ranking.hpp>

#include "projection/data.hpp"

namespace {

using namespace pare::feature;
using pare::Index;
using pare::testing::refusal;
using Order = std::vector<Index>;

const std::vector<double> scores{0.2, 0.9, 0.9, 0.1, 0.7, 0.9};

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
  EXPECT_EQ(above(ranking, -2), (Order{3, 2})) << "an inactive field is above no threshold";
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
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const Ranking ranking = rank_fields(scores);
  refusal([&] { rank_fields(std::vector<double>{1, nan}); }, rank, "scores");
  refusal(
      [&] {
        rank_fields(std::vector<double>{1, -std::numeric_limits<double>::infinity()});
      },
      rank, "scores");
  refusal([&] { rank_fields(std::vector<double>{1}, std::vector<double>{nan}); }, rank,
          "tie_breakers");
  refusal(
      [&] {
        rank_fields(std::vector<double>{1, 2}, std::vector<double>{1});
      },
      rank, "tie_breakers");
  refusal([&] { rank_fields(std::vector<double>{1}, {}, std::vector<FieldStatus>(2)); }, rank,
          "status");
  refusal([&] { top_k(ranking, 7); }, "feature::top_k", "k");
  refusal([&] { top_k(ranking, -1); }, "feature::top_k", "k");
  refusal([&] { top_share(ranking, 1.1); }, "feature::top_share", "share");
  refusal([&] { top_share(ranking, nan); }, "feature::top_share", "share");
  refusal([&] { above(ranking, nan); }, "feature::above", "threshold");
  refusal([&] { fields_for_mass(ranking, -0.1); }, "feature::fields_for_mass", "share");
}

}  // namespace
