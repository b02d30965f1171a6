// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include <pare/optim/gate.hpp>

#include "support/matrices.hpp"

namespace optim_gate_test {
namespace {

using pare::Index;
using pare::optim::Gate;
using pare::optim::GateKind;
using pare::optim::GateOptions;
using pare::optim::TemperatureSchedule;
using pare::testing::refusal;

constexpr GateKind kinds[] = {GateKind::Sigmoid, GateKind::GumbelSigmoid, GateKind::HardConcrete,
                              GateKind::Stg, GateKind::StraightThrough};

TEST(Gate, StartsWhereTheSourceDoes) {
  const GateOptions options;
  EXPECT_EQ(options.initial_theta(), 1);
  const Gate gate = sampled_gate(options, options.temperature.at(0), 1, 0);
  EXPECT_NEAR(gate.value, 0.99331, 5e-6);
  EXPECT_NEAR(gate.slope, 5 * gate.value * (1 - gate.value), 1e-15);
  EXPECT_EQ(GateOptions{.kind = GateKind::Stg}.initial_theta(), 0);
  EXPECT_EQ((GateOptions{.kind = GateKind::Stg, .theta0 = 0.25}.initial_theta()), 0.25);
}

/// Away from where a gate is cut off or jumps.
TEST(Gate, SlopesAreDerivatives) {
  for (const GateKind kind : kinds) {
    const GateOptions options{.kind = kind};
    int smooth = 0;
    for (const double noise : {-1.3, -0.2, 0.0, 0.4, 1.1}) {
      for (double theta = -2; theta <= 2; theta += 0.3125) {
        const auto at = [&](double t) { return sampled_gate(options, 3.0, t, noise); };
        const auto expected = [&](double t) { return expected_gate(options, 3.0, t); };
        const double h = 1e-5;
        const double rise = (expected(theta + h).value - expected(theta - h).value) / (2 * h);
        EXPECT_NEAR(expected(theta).slope, rise, 1e-8) << static_cast<int>(kind);
        const Gate gate = at(theta);
        EXPECT_GE(gate.value, 0);
        EXPECT_LE(gate.value, 1);
        if (kind == GateKind::StraightThrough) {
          const GateOptions soft;
          EXPECT_EQ(gate.value, theta > 0 ? 1 : 0);
          EXPECT_EQ(gate.slope, sampled_gate(soft, 3.0, theta, 0).slope);
          ++smooth;
        } else if (at(theta - h).slope != 0 && at(theta + h).slope != 0) {
          EXPECT_NEAR(gate.slope, (at(theta + h).value - at(theta - h).value) / (2 * h), 1e-8);
          ++smooth;
        } else if (gate.value == 0 || gate.value == 1) {
          EXPECT_EQ(gate.slope, 0) << "flat where it is cut off";
        }
      }
    }
    EXPECT_GT(smooth, 10) << static_cast<int>(kind);
  }
}

TEST(Gate, SaturatedGatesKeepASlope) {
  const GateOptions options;
  const Gate open = sampled_gate(options, 5, 1e300, 0),
             closed = sampled_gate(options, 5, -1e300, 0);
  EXPECT_EQ(open.value, sampled_gate(options, 5, 6, 0).value) << "5 * 6 is where it saturates";
  EXPECT_LT(open.value, 1);
  EXPECT_GT(open.slope, 0);
  EXPECT_GT(closed.value, 0);
  EXPECT_LT(closed.value, 1e-13);
  EXPECT_GT(closed.slope, 0);
}

TEST(Gate, ScoresRiseWithThetaAndAreHalfWhereTheFieldIsOnTheEdge) {
  for (const GateKind kind : kinds) {
    const GateOptions options{.kind = kind};
    EXPECT_NEAR(gate_score(options, 5, 0), 0.5, 1e-12) << static_cast<int>(kind);
    double before = -1;
    for (double theta = -4; theta <= 4; theta += 0.25) {
      const double score = gate_score(options, 5, theta);
      EXPECT_GE(score, before);
      EXPECT_GE(score, 0);
      EXPECT_LE(score, 1);
      before = score;
    }
    EXPECT_GT(gate_score(options, 5, 0.1), gate_score(options, 5, -0.1));
  }
}

/// The mean of a gate is what its penalty takes it for, where that is a probability.
TEST(Gate, OpenProbabilitiesAreThoseOfTheNoise) {
  for (const GateKind kind : {GateKind::HardConcrete, GateKind::Stg})
    for (const double theta : {-0.6, 0.0, 0.5}) {
      const GateOptions options{.kind = kind};
      constexpr int draws = 20000;
      int open = 0;
      for (int i = 0; i < draws; ++i)
        open +=
            sampled_gate(options, 5, theta, gate_noise(kind, 3, static_cast<std::uint64_t>(i), 7))
                .value > 0;
      const double p = expected_gate(options, 5, theta).value;
      const double deviation = std::sqrt(p * (1 - p) / draws);
      EXPECT_NEAR(static_cast<double>(open) / draws, p, 4 * deviation);
    }
}

TEST(Gate, NoiseIsAFunctionOfSeedStepAndField) {
  for (const GateKind kind : kinds) {
    const double noise = gate_noise(kind, 1, 2, 3);
    EXPECT_EQ(noise, gate_noise(kind, 1, 2, 3));
    const bool noisy = kind != GateKind::Sigmoid && kind != GateKind::StraightThrough;
    EXPECT_EQ(noise != 0, noisy);
    EXPECT_EQ(noise != gate_noise(kind, 2, 2, 3), noisy);
    EXPECT_EQ(noise != gate_noise(kind, 1, 3, 3), noisy);
    EXPECT_EQ(noise != gate_noise(kind, 1, 2, 4), noisy);
    double sum = 0, squares = 0;
    constexpr int draws = 20000;
    for (int i = 0; i < draws; ++i) {
      const double e = gate_noise(kind, 5, static_cast<std::uint64_t>(i), 0);
      ASSERT_TRUE(std::isfinite(e));
      sum += e;
      squares += e * e;
    }
    // Variance: pi^2 / 3 logistic, 1 normal.
    const double variance = !noisy ? 0 : kind == GateKind::Stg ? 1 : 3.28987;
    EXPECT_NEAR(sum / draws, 0, 4 * std::sqrt(variance / draws));
    EXPECT_NEAR(squares / draws, variance, 0.05 * variance);
  }
}

TEST(Gate, TemperaturesAreConstantOrGrowByTheSameFactor) {
  EXPECT_EQ(TemperatureSchedule{}.at(0), 5);
  EXPECT_EQ(TemperatureSchedule{}.at(1000000), 5);
  const TemperatureSchedule grows{.start = 5, .end = 500, .steps = 10};
  EXPECT_EQ(grows.at(0), 5);
  EXPECT_NEAR(grows.at(5), 50, 1e-9);
  EXPECT_NEAR(grows.at(10), 500, 1e-9);
  EXPECT_NEAR(grows.at(99), 500, 1e-9);
  EXPECT_NEAR(grows.at(4) / grows.at(3), grows.at(8) / grows.at(7), 1e-12);
}

TEST(Gate, BadOptionsAreRefused) {
  const auto bad = [](const char* argument, auto change) {
    GateOptions options;
    change(options);
    refusal([&] { validate("feature::f", options); }, "feature::f", argument);
  };
  for (const double value : {0.0, -1.0, std::nan(""), std::numeric_limits<double>::infinity()}) {
    bad("gate.temperature.start", [&](GateOptions& o) { o.temperature.start = value; });
    bad("gate.temperature.end", [&](GateOptions& o) { o.temperature.end = value; });
    bad("gate.relaxation", [&](GateOptions& o) { o.relaxation = value; });
    bad("gate.deviation", [&](GateOptions& o) { o.deviation = value; });
  }
  bad("gate.relaxation", [](GateOptions& o) { o.relaxation = 1e-320; });
  bad("gate.temperature.end", [](GateOptions& o) { o.temperature = {1e-300, 1e300, 5}; });
  bad("gate.temperature.steps", [](GateOptions& o) { o.temperature.steps = -1; });
  bad("gate.theta0", [](GateOptions& o) { o.theta0 = std::nan(""); });
  bad("gate.low", [](GateOptions& o) { o.low = 0; });
  bad("gate.high", [](GateOptions& o) { o.high = 1; });
  EXPECT_NO_THROW(validate("feature::f", GateOptions{}));
}

}  // namespace
}  // namespace optim_gate_test
