// SPDX-License-Identifier: Apache-2.0
// LeAP's layer over many steps: every kind of gate and donor, bits of any threads, moves between
// passes, and what thetas come to.
#include <gtest/gtest.h>

#include <Eigen/Core>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include <pare/feature/leap/leap.hpp>

#include "feature/batches.hpp"
#include "feature/leap_cases.hpp"
#include "support/backends.hpp"
#include "support/matrices.hpp"
#include "support/tolerance.hpp"

namespace feature_leap_training_test {
namespace {

using namespace pare::testing;
using namespace pare::testing::leap_cases;
using Eigen::MatrixXd;
using pare::Index;
using pare::feature::DonorPolicy;
using pare::feature::FieldStatus;
using pare::feature::Leap;
using pare::feature::LeapOptions;
using pare::feature::Penalty;
using pare::feature::Ranking;
using pare::optim::Gate;
using pare::optim::GateKind;
using pare::optim::GateOptions;
using pare::testing::leap_cases::nan;  // not the function

TEST(Leap, BitsDoNotDependOnThreads) {
  std::vector<Index> many(300, 1);
  many.insert(many.end(), {700, 3, 64});
  const FieldLayout layout(many);
  const auto nothing = [](Leap<float>&) {};
  GateOptions noisy;
  noisy.kind = GateKind::GumbelSigmoid;
  for (const Storage storage : storages)
    for (const DonorPolicy policy : {DonorPolicy::BaseShift, DonorPolicy::Uniform}) {
      const LeapOptions options{
          .penalty = Penalty::L2, .gate = noisy, .donors = policy, .learning_rate = 0.1};
      const auto run = [&](const auto& backend) {
        return trained<float>(backend, layout, options, storage, nothing);
      };
      const std::vector<double> one = run(pare::simd);
      for (int threads = 2; threads <= 4; ++threads)
        EXPECT_EQ(run(pare::simd.threads(threads)), one);
      EXPECT_EQ(run(pare::simd.on(ReversePool{3})), one);
      LeapOptions other = options;
      other.seed = 1;
      EXPECT_NE(trained<float>(pare::simd, layout, other, storage, nothing), one);
    }
}

/// The first object is gone before the second goes on.
TEST(Leap, MayMoveBetweenItsPasses) {
  const MatrixXd x = normal_batch<double>(rows, widths.dim(), 1);
  const MatrixXd upstream = normal_batch<double>(rows, widths.dim(), 2);
  Leap<double> still(widths, {.seed = 4});
  auto first = std::make_unique<Leap<double>>(widths, LeapOptions{.seed = 4});
  MatrixXd mixed = x, grad_x = x, wanted = x;
  still.forward(x, mixed);
  first->forward(field_batch(first->layout(), x), mixed);
  Leap<double> second(std::move(*first));
  first.reset();
  second.backward(upstream, grad_x);
  still.backward(upstream, wanted);
  EXPECT_EQ(grad_x, wanted);
  EXPECT_EQ(second.gradients().gates, still.gradients().gates);
  Leap<double> third(FieldLayout({1}));
  third = std::move(second);
  third.step_gates();
  still.step_gates();
  EXPECT_EQ(as_list(third.thetas()), as_list(still.thetas()));
}

/// Every kind of gate: value and slope of its noise, and the slope of what is charged.
TEST(Leap, EveryKindOfGateTrains) {
  const MatrixXd x = normal_batch<double>(rows, widths.dim(), 1);
  const MatrixXd upstream = normal_batch<double>(rows, widths.dim(), 2);
  for (const GateKind kind : kinds) {
    GateOptions gate;
    gate.kind = kind;
    gate.theta0 = 0.2;
    Leap<double> leap(widths,
                      {.alpha_per_field = 0.6, .gate = gate, .learning_rate = 0.1, .seed = 9});
    MatrixXd mixed = x;
    for (std::uint64_t step = 0; step < 4; ++step) {
      const std::vector<double> thetas = as_list(leap.thetas());
      leap.forward(x, mixed);
      std::vector<double> gates;
      leap.backward_gates(upstream);
      const std::vector<double> got = leap.theta_gradients();
      for (std::size_t j = 0; j < 5; ++j) {
        const double noise = gate_noise(kind, 9, step, static_cast<Index>(j));
        const Gate drawn = sampled_gate(gate, 5, thetas[j], noise);
        gates.push_back(drawn.value);
        const double of_loss = drawn.slope * leap.gradients().gates[j];
        const double of_penalty =
            expected_gate(gate, 5, thetas[j]).slope * 3 / 5 * leap.penalty_weights()[j];
        EXPECT_TRUE(within(got[j], of_loss + of_penalty,
                           Tolerance<double>::gamma(8) * (std::abs(of_loss) + of_penalty)));
        EXPECT_EQ(leap.gates()[j], gate_score(gate, 5, thetas[j]));
      }
      EXPECT_EQ(as_list(leap.sampled_gates()), gates);
      const MatrixXd by_formula = mixed_by_formula(x, leap.donors(), gates);
      EXPECT_LE((mixed - by_formula).cwiseAbs().maxCoeff(),
                Tolerance<double>::gamma(8) * 3 * x.cwiseAbs().maxCoeff());
      leap.step_gates();
      for (std::size_t j = 0; j < 5; ++j) {
        EXPECT_TRUE(std::isfinite(leap.thetas()[j]));
        EXPECT_NE(leap.thetas()[j], thetas[j]);
      }
    }
  }
}

TEST(Leap, EveryDonorPolicyAndNumberOfRowsDrawsAnew) {
  for (const DonorPolicy policy : {DonorPolicy::Shift, DonorPolicy::BaseShift, DonorPolicy::Uniform,
                                   DonorPolicy::Derangement}) {
    Leap<float> leap(widths, {.donors = policy, .seed = 3});
    std::uint64_t step = 0;
    for (const Index count : {10, 10, 12, 2, 10}) {
      const auto x = as<float>(normal_batch<float>(count, widths.dim(), 1));
      auto mixed = x;
      leap.forward(x, mixed);
      EXPECT_EQ(leap.donors().rows(), count);
      EXPECT_EQ(donors_of(leap.donors()), donors_of(Donors(policy, 3, step++, count, widths)));
    }
  }
}

/// The loss wants the first field as it is and does not see the second.
TEST(Leap, AGateClosesWhereItsFieldDoesNotHelp) {
  const FieldLayout layout({1, 4});
  Leap<double> leap(layout, {.alpha_per_field = 0.1, .learning_rate = 0.02, .min_active = 100});
  for (std::uint64_t step = 0; step < 300; ++step) {
    const MatrixXd x = normal_batch<double>(64, 5, step);
    MatrixXd mixed = x, upstream = MatrixXd::Zero(64, 5);
    leap.forward(x, mixed);
    upstream.col(0) = 2.0 / 64 * (mixed.col(0) - x.col(0));
    leap.backward_gates(upstream);
    leap.step_gates();
  }
  EXPECT_GT(leap.gates()[0], 0.9);
  EXPECT_LT(leap.gates()[1], 0.1);
  EXPECT_EQ(above(leap.ranking()), std::vector<Index>{0});
  EXPECT_GT(leap.polarization(), 0.4);
}

TEST(Leap, ThetasMayBeSetAndAreChecked) {
  Leap<double> leap(widths);
  EXPECT_EQ(as_list(leap.thetas()), std::vector<double>(5, 1.0));
  leap.set_thetas(some_thetas);
  EXPECT_EQ(as_list(leap.thetas()), some_thetas);
  for (std::size_t j = 0; j < 5; ++j)
    EXPECT_NEAR(leap.gates()[j], sigma(5 * some_thetas[j]), Tolerance<double>::gamma(8));
  for (const std::vector<double>& bad :
       {std::vector<double>{}, std::vector<double>(4, 0.0), std::vector<double>(6, 0.0),
        std::vector<double>{0, 0, nan, 0, 0}, std::vector<double>{0, 0, 0, 0, -infinity}}) {
    refusal([&] { leap.set_thetas(bad); }, "feature::Leap::set_thetas", "thetas");
    EXPECT_EQ(as_list(leap.thetas()), some_thetas);
  }
}

/// Every step counts alike.
TEST(Leap, MeanThetasAreTheMeanOverTheSteps) {
  const MatrixXd x = normal_batch<double>(rows, widths.dim(), 1);
  const MatrixXd upstream = normal_batch<double>(rows, widths.dim(), 2);
  Leap<double> leap(widths, {.alpha_per_field = 1, .learning_rate = 0.1});
  EXPECT_EQ(leap.mean_thetas(), as_list(leap.thetas()));
  MatrixXd mixed = x;
  std::vector<double> sums(5);
  for (int step = 1; step <= 6; ++step) {
    leap.forward(x, mixed);
    leap.backward_gates(upstream);
    leap.step_gates();
    for (std::size_t j = 0; j < 5; ++j) {
      sums[j] += leap.thetas()[j];
      EXPECT_NEAR(leap.mean_thetas()[j], sums[j] / step, 1e-14);
    }
  }
  EXPECT_NE(leap.mean_thetas(), as_list(leap.thetas()));
}

/// The order is that of the steps behind which a gate was open, whatever theta does once it closed.
TEST(Leap, FieldsAreRankedByHowLongTheirGatesWereOpen) {
  const FieldLayout layout = FieldLayout::scalars(4);
  MatrixXd x = normal_batch<double>(rows, 4, 1);
  x.col(3).setConstant(1);  // Inactive
  Leap<double> leap(layout, {.alpha_per_field = 0, .learning_rate = 0.3});
  MatrixXd mixed(rows, 4), slopes = MatrixXd::Zero(rows, 4);
  std::vector<Index> open(4);
  // thetas behind each step; field 0 closes last, field 1 falls deeper than field 2.
  const std::vector<std::vector<double>> thetas{
      {1, 1, 1, 1}, {1, .1, .1, 1}, {1, -5, -.1, 1}, {.1, -5, -.1, 1}, {-9, -.1, -.1, 1}};
  for (const auto& theta : thetas) {
    leap.set_thetas(theta);
    leap.forward(x, mixed);
    leap.backward_gates(slopes);  // without slope or penalty theta stays
    leap.step_gates();
    for (std::size_t j = 0; j < 4; ++j) open[j] += theta[j] > 0 ? 1 : 0;
  }
  for (Index j = 0; j < 4; ++j) EXPECT_EQ(leap.open_steps(j), open[static_cast<std::size_t>(j)]);
  const Ranking ranking = leap.ranking_by_time_open();
  EXPECT_EQ(ranking.order, (std::vector<Index>{0, 2, 1, 3}));
  EXPECT_EQ(ranking.scores, leap.ranking().scores);
  EXPECT_EQ(ranking.status, leap.ranking().status);
  EXPECT_EQ(ranking.status[3], FieldStatus::Inactive);
  EXPECT_LT(leap.mean_thetas()[0], leap.mean_thetas()[2]);
}

}  // namespace
}  // namespace feature_leap_training_test
