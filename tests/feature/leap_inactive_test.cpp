// SPDX-License-Identifier: Apache-2.0
// Fields that say nothing to LeAP's layer: constant, without entries, not finite, or overflowing.
#include <gtest/gtest.h>

#include <Eigen/Core>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <vector>

#include <pare/feature/leap/leap.hpp>

#include "feature/batches.hpp"
#include "feature/leap_cases.hpp"
#include "support/backends.hpp"
#include "support/matrices.hpp"
#include "support/tolerance.hpp"

namespace feature_leap_inactive_test {
namespace {

using namespace pare::testing;
using namespace pare::testing::leap_cases;
using Eigen::MatrixXd;
using pare::Index;
using pare::feature::FieldStatus;
using pare::feature::Leap;
using pare::feature::LeapOptions;
using pare::feature::Penalty;
using pare::feature::SparseMix;
using pare::testing::leap_cases::nan;  // not the function

/// A batch in which field `still` is at its default in every row.
MatrixXd batch_without(Index still, std::uint64_t seed) {
  MatrixXd x = normal_batch<double>(rows, widths.dim(), seed);
  if (still >= 0) x.middleCols(widths.offset(still), widths.width(still)).setConstant(0.75);
  return x;
}

/// T13, dense.
TEST(Leap, AFieldAtItsDefaultInTheWholeBatchHasAGradientOfExactlyZero) {
  const MatrixXd upstream = normal_batch<double>(rows, widths.dim(), 2);
  for (const Penalty penalty : {Penalty::Rms, Penalty::L2, Penalty::L1, Penalty::Squared})
    for (const bool lazy : {true, false}) {
      Leap<double> leap(widths, {.penalty = penalty, .learning_rate = 0.1, .lazy = lazy});
      MatrixXd mixed(rows, widths.dim());
      const auto step = [&](const MatrixXd& x) {
        leap.forward(x, mixed);
        leap.backward_gates(upstream);
        const std::vector<double> gradients = leap.theta_gradients();
        leap.step_gates();
        return gradients;
      };
      // A momentum that would carry the gate on.
      EXPECT_NE(step(batch_without(-1, 1))[2], 0);
      for (int repeat = 0; repeat < 3; ++repeat) {
        const std::vector<double> before = as_list(leap.thetas());
        const std::vector<double> gradients = step(batch_without(2, 3));
        EXPECT_EQ(gradients[2], 0);
        EXPECT_EQ(leap.penalty_weights()[2], 0);
        EXPECT_EQ(same_bits(leap.thetas()[2], before[2]), lazy);
        for (const std::size_t j : {0u, 1u, 3u, 4u}) {
          EXPECT_NE(gradients[j], 0);
          EXPECT_NE(leap.thetas()[j], before[j]);
        }
      }
      EXPECT_EQ(leap.active_batches(2), 1);
      EXPECT_EQ(leap.active_batches(1), 4);
    }
}

/// T13, sparse: no entry at all.
TEST(Leap, AFieldWithoutEntriesHasAGradientOfExactlyZero) {
  Leap<float> leap(widths, {.learning_rate = 0.1, .lazy = true});
  SparseMix<float> mixed;
  const auto step = [&](const MatrixXd& exact) {
    const std::vector<float> defaults(static_cast<std::size_t>(widths.dim()), 0.75f);
    const auto x = to_sparse(widths, as<float>(exact), defaults);
    leap.forward(x, mixed);
    leap.backward_gates(x, mixed, mixed.fields());
    const std::vector<double> gradients = leap.theta_gradients();
    leap.step_gates();
    return gradients;
  };
  EXPECT_NE(step(batch_without(-1, 1))[3], 0);
  const double before = leap.thetas()[3];
  EXPECT_EQ(step(batch_without(3, 2))[3], 0);
  EXPECT_TRUE(same_bits(leap.thetas()[3], before));
  EXPECT_EQ(leap.active_batches(3), 1);
}

/// A floor, and penalties that look at no data, charge such a field too.
TEST(Leap, AFloorChargesFieldsThatNeverMove) {
  const MatrixXd x = batch_without(2, 1), upstream = normal_batch<double>(rows, widths.dim(), 2);
  for (const LeapOptions& options :
       {LeapOptions{.alpha_per_field = 0.2, .penalty_floor = 0.5},
        LeapOptions{.alpha_per_field = 0.2, .penalty = Penalty::Uniform}}) {
    Leap<double> leap(widths, options);
    MatrixXd mixed = x;
    leap.forward(x, mixed);
    leap.backward_gates(upstream);
    const double lambda = options.penalty == Penalty::Uniform ? 1 : 0.5;
    const double wanted = lambda / 5 * 5 * sigma(5) * (1 - sigma(5));
    EXPECT_TRUE(within(leap.theta_gradients()[2], wanted, slope_bound(sigma(5)) * wanted));
  }
}

/// T14.
TEST(Leap, AConstantColumnIsInactiveAndLast) {
  const FieldLayout layout({2, 1, 1});
  MatrixXd x = normal_batch<double>(rows, 4, 1);
  x.col(2).setConstant(3);
  const MatrixXd none = MatrixXd::Zero(rows, 4);
  Leap<double> leap(layout, {.alpha_per_field = 1.0 / 3, .learning_rate = 0.05, .min_active = 3});
  MatrixXd mixed = x;
  for (int step = 0; step < 40; ++step) {
    leap.forward(x, mixed);
    leap.backward_gates(none);
    leap.step_gates();
  }
  // It keeps a gate near 1 while all others, which cost and give nothing, close.
  EXPECT_EQ(leap.thetas()[1], 1);
  EXPECT_LT(leap.gates()[0], 0.1);
  EXPECT_LT(leap.gates()[2], 0.1);
  const auto ranking = leap.ranking();
  EXPECT_EQ(ranking.status[1], FieldStatus::Inactive);
  EXPECT_EQ(ranking.status[0], FieldStatus::Ok);
  EXPECT_EQ(ranking.status[2], FieldStatus::Ok);
  EXPECT_EQ(ranking.order.back(), 1);
  EXPECT_EQ(ranking.scores[1], 0);
  EXPECT_EQ(ranking.scores[0], leap.gates()[0]);
  EXPECT_TRUE(above(ranking).empty());
  EXPECT_EQ(leap.mean_displacement(1), 0);
}

TEST(Leap, EvidenceCountsTheStepsThatSaidSomething) {
  Leap<double> leap(widths, {.min_active = 3});
  MatrixXd mixed(rows, widths.dim());
  const MatrixXd upstream = normal_batch<double>(rows, widths.dim(), 2);
  for (Index j = 0; j < 5; ++j) EXPECT_EQ(leap.mean_displacement(j), 0);
  EXPECT_EQ(leap.ranking().status, std::vector<FieldStatus>(5, FieldStatus::Inactive));
  std::vector<double> displacement(5, 0.0);
  for (const Index still : {-1, 1, 4, 1}) {
    const MatrixXd x = batch_without(still, static_cast<std::uint64_t>(still + 8));
    leap.forward(x, mixed);
    leap.backward_gates(upstream);
    // Passes count nothing, steps do.
    leap.backward_gates(upstream);
    leap.step_gates();
    const auto q = divergences_by_formula(Penalty::Rms, x, leap.donors());
    for (std::size_t j = 0; j < 5; ++j) displacement[j] += q[j] / 4;
  }
  const std::vector<Index> active{4, 2, 4, 4, 3};
  const auto ranking = leap.ranking();
  for (Index j = 0; j < 5; ++j) {
    const auto i = static_cast<std::size_t>(j);
    EXPECT_EQ(leap.active_batches(j), active[i]);
    EXPECT_EQ(leap.nonfinite_batches(j), 0);
    EXPECT_TRUE(within(leap.mean_displacement(j), displacement[i],
                       weight_bound<double>() * displacement[i]));
    EXPECT_EQ(ranking.status[i], j == 1 ? FieldStatus::Undetermined : FieldStatus::Ok);
    EXPECT_EQ(ranking.scores[i], leap.gates()[i]) << "undetermined fields keep their score";
  }
}

/// Of x or of the upstream gradient; the penalty is shared out among the fields with numbers.
TEST(Leap, ANanInOneFieldDoesNotTouchTheOthersGates) {
  const MatrixXd x = normal_batch<double>(rows, widths.dim(), 1);
  const MatrixXd upstream = normal_batch<double>(rows, widths.dim(), 2);
  for (const double bad : {nan, infinity})
    for (const bool in_x : {true, false})
      for (const Penalty penalty : penalties) {
        MatrixXd bad_x = x, bad_upstream = upstream, mixed = x;
        (in_x ? bad_x : bad_upstream)(4, widths.offset(2) + 3) = bad;
        Leap<double> leap(widths,
                          {.alpha_per_field = 0.8, .penalty = penalty, .learning_rate = 0.1});
        leap.set_thetas(some_thetas);
        leap.forward(bad_x, mixed);
        leap.backward_gates(bad_upstream);
        const std::vector<double> got = leap.theta_gradients();
        std::vector<double> q = divergences_by_formula(penalty, x, leap.donors());
        if (in_x && penalty != Penalty::Uniform && penalty != Penalty::SqrtWidth) q[2] = nan;
        const std::vector<double> lambda = weights_by_formula(q);
        leap.step_gates();
        const MatrixXd slopes = (x - permuted(x, leap.donors())).cwiseProduct(upstream);
        for (Index j = 0; j < 5; ++j) {
          const auto i = static_cast<std::size_t>(j);
          EXPECT_EQ(leap.nonfinite_batches(j), j == 2 ? 1 : 0);
          EXPECT_EQ(leap.active_batches(j), j == 2 ? 0 : 1);
          EXPECT_TRUE(std::isfinite(leap.mean_displacement(j)));
          EXPECT_EQ(leap.thetas()[i] == some_thetas[i], j == 2);
          if (j == 2) {
            EXPECT_EQ(got[i], 0);
            continue;
          }
          const double gate = sigma(5 * some_thetas[i]);
          const auto own = slopes.middleCols(widths.offset(j), widths.width(j));
          const double sum = own.cwiseAbs().sum(), charge = 4 * lambda[i] / 5;
          const double bound = 2 * sum_bound<double>(static_cast<double>(own.size())) * sum +
                               weight_bound<double>() * charge + slope_bound(gate) * (sum + charge);
          const double slope = 5 * gate * (1 - gate);
          EXPECT_TRUE(within(got[i], slope * (own.sum() + charge), slope * bound)) << j;
          EXPECT_EQ(leap.ranking().status[i], FieldStatus::Undetermined);
        }
        EXPECT_EQ(leap.ranking().status[2], FieldStatus::Inactive);
      }
}

/// A lazy gate rests in such a batch, momentum and all.
TEST(Leap, ANanLeavesALazyGateWhereItIs) {
  MatrixXd x = normal_batch<double>(rows, widths.dim(), 1), mixed = x;
  Leap<double> leap(widths, {.learning_rate = 0.1, .lazy = true});
  leap.forward(x, mixed);
  leap.backward_gates(x);
  leap.step_gates();
  const double before = leap.thetas()[2];
  EXPECT_NE(before, 1);
  x(3, widths.offset(2)) = nan;
  leap.forward(x, mixed);
  leap.backward_gates(normal_batch<double>(rows, widths.dim(), 2));
  leap.step_gates();
  EXPECT_TRUE(same_bits(leap.thetas()[2], before));
  EXPECT_EQ(leap.nonfinite_batches(2), 1);
  EXPECT_EQ(leap.active_batches(2), 1);
}

/// Squares that overflow say nothing of a field, though the gradient of its gate is a number.
TEST(Leap, FieldsWhoseSquaresOverflowLearnNothing) {
  const FieldLayout layout = FieldLayout::scalars(2);
  Eigen::MatrixXf x = normal_batch<float>(rows, 2, 1).cast<float>(), mixed = x;
  x.col(1) *= 1e25f;
  Eigen::MatrixXf upstream = normal_batch<float>(rows, 2, 2).cast<float>();
  upstream.col(1) *= 1e-25f;
  Leap<float> leap(layout, {.learning_rate = 0.1});
  leap.forward(x, mixed);
  leap.backward_gates(upstream);
  ASSERT_TRUE(std::isfinite(leap.gradients().gates[1]));
  EXPECT_EQ(leap.theta_gradients()[1], 0);
  leap.step_gates();
  EXPECT_EQ(leap.nonfinite_batches(1), 1);
  EXPECT_EQ(leap.nonfinite_batches(0), 0);
  EXPECT_EQ(leap.thetas()[1], 1);
  EXPECT_NE(leap.thetas()[0], 1);
}

}  // namespace
}  // namespace feature_leap_inactive_test
