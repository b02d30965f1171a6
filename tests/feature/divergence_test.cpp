// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <numeric>
#include <vector>

#include <Eigen/Core>

#include <pare/core/permutation.hpp>
#include <pare/feature/fields/donors.hpp>
#include <pare/feature/leap/divergence.hpp>

#include "support/matrices.hpp"

namespace feature_divergence_test {
namespace {

using pare::Index;
using pare::feature::Divergences;
using pare::feature::DonorPolicy;
using pare::feature::Donors;
using pare::feature::FieldLayout;
using pare::feature::Penalty;
using pare::testing::refusal;

const FieldLayout layout({1, 4, 9});
const Divergences means{{4, 0, 25}, {1, 0, 7}, {1.5, 0, 3}};

TEST(Divergence, EachPenaltyTakesItsMean) {
  using List = std::vector<double>;
  EXPECT_EQ(penalty_divergence(Penalty::Uniform, layout, means), (List{1, 1, 1}));
  EXPECT_EQ(penalty_divergence(Penalty::SqrtWidth, layout, means), (List{1, 2, 3}));
  EXPECT_EQ(penalty_divergence(Penalty::Rms, layout, means), (List{2, 0, 5}));
  EXPECT_EQ(penalty_divergence(Penalty::Squared, layout, means), (List{4, 0, 25}));
  EXPECT_EQ(penalty_divergence(Penalty::L1, layout, means), (List{1, 0, 7}));
  EXPECT_EQ(penalty_divergence(Penalty::L2, layout, means), (List{1.5, 0, 3}));
  EXPECT_TRUE(needs_norms(Penalty::L2));
  EXPECT_FALSE(needs_norms(Penalty::Rms));
}

TEST(Divergence, WeightsAverageToOne) {
  for (const Penalty penalty : {Penalty::Uniform, Penalty::SqrtWidth, Penalty::Rms, Penalty::L2,
                                Penalty::L1, Penalty::Squared}) {
    const auto weights = pare::feature::penalty_weights(penalty_divergence(penalty, layout, means));
    EXPECT_NEAR(std::accumulate(weights.begin(), weights.end(), 0.0), 3, 1e-12);
  }
  const auto weights = pare::feature::penalty_weights(std::vector<double>{1, 0, 3, 4});
  EXPECT_EQ(weights, (std::vector<double>{0.5, 0, 1.5, 2}));
}

TEST(Divergence, WeightsOfABatchThatSaysNothingAreZero) {
  const std::vector<double> none(3, 0.0);
  EXPECT_EQ(pare::feature::penalty_weights(none), none);
  EXPECT_EQ(pare::feature::penalty_weights({}), std::vector<double>{});
}

TEST(Divergence, WeightsHaveAFloorAndLeaveOutWhatIsNoNumber) {
  EXPECT_EQ(pare::feature::penalty_weights(std::vector<double>{1, 0, 3, 4}, 0.75),
            (std::vector<double>{0.75, 0.75, 1.5, 2}));
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const double infinity = std::numeric_limits<double>::infinity();
  EXPECT_EQ(pare::feature::penalty_weights(std::vector<double>{nan, 1, infinity, 3}),
            (std::vector<double>{0, 0.5, 0, 1.5}));
}

/// The mean over many draws is what the closed form says, for each policy: with 7 rows, donors that
/// are never the row itself move a field by 7/6 of what uniform ones do.
TEST(Divergence, TheClosedFormIsTheMeanOverTheDonorsOfAPolicy) {
  constexpr Index rows = 7;
  Eigen::MatrixXd x(rows, 14);
  for (Index b = 0; b < rows; ++b)
    for (Index i = 0; i < 14; ++i) x(b, i) = std::sin(static_cast<double>(3 * b * b + 5 * i));
  std::vector<double> uniform;
  for (const DonorPolicy policy : {DonorPolicy::Uniform, DonorPolicy::Shift, DonorPolicy::BaseShift,
                                   DonorPolicy::Derangement}) {
    SCOPED_TRACE(static_cast<int>(policy));
    const std::vector<double> closed = divergence_closed(layout, x, policy);
    if (policy == DonorPolicy::Uniform) uniform = closed;
    constexpr std::uint64_t draws = 4000;
    std::vector<double> mean(3);
    for (std::uint64_t step = 0; step < draws; ++step) {
      const Donors donors(policy, 1, step, rows, layout);
      for (Index j = 0; j < 3; ++j) {
        const pare::Permutation donor = donors.permutation(j);
        double sum = 0;
        for (Index b = 0; b < rows; ++b)
          sum += (x.row(b) - x.row(static_cast<Index>(donor[b])))
                     .segment(layout.offset(j), layout.width(j))
                     .squaredNorm();
        mean[static_cast<std::size_t>(j)] += sum / rows / draws;
      }
    }
    for (std::size_t j = 0; j < 3; ++j) {
      // Of 4,000 draws a mean is off by less than 4 deviations of at most 0.6 of it.
      EXPECT_NEAR(mean[j], closed[j], 0.04 * closed[j]) << j;
      EXPECT_NEAR(closed[j], (policy == DonorPolicy::Uniform ? 1 : 7.0 / 6) * uniform[j],
                  1e-12 * closed[j]);
    }
  }
}

TEST(Divergence, BadInputIsRefused) {
  refusal([] { penalty_divergence(static_cast<Penalty>(6), layout, means); },
          "feature::penalty_divergence", "penalty");
  refusal(
      [] {
        divergence_closed(layout, Eigen::MatrixXf(Eigen::MatrixXf::Zero(5, 14)),
                          static_cast<DonorPolicy>(-1));
      },
      "feature::divergence_closed", "policy");
  const Divergences two{{1, 2}, {1, 2}, {}};
  for (const Penalty penalty : {Penalty::Rms, Penalty::L1, Penalty::L2})
    refusal([&] { penalty_divergence(penalty, layout, two); }, "feature::penalty_divergence",
            "divergences");
  const Eigen::MatrixXf one(1, 14), narrow(5, 13);
  refusal([&] { divergence_closed(layout, one, DonorPolicy::Shift); }, "feature::divergence_closed",
          "x");
  refusal([&] { divergence_closed(layout, narrow, DonorPolicy::Shift); },
          "feature::divergence_closed", "x");
}

}  // namespace
}  // namespace feature_divergence_test
