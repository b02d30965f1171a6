// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <limits>
#include <stdexcept>
#include <string>
#include <vector>

#include <pare/attention/calibrate.hpp>
#include <pare/attention/early_stop.hpp>
#include <pare/attention/permuted.hpp>

#include "attention/early_stop_data.hpp"
#include "support/tolerance.hpp"

namespace user {

/// A policy outside the library: keeps the last keys, `mass` of them all.
struct LastKeys {
  float mass = 1;
  int* calls = nullptr;
};

template <class B, class Q, class K, class V, class O>
pare::attention::AttendStats attend(const B& backend, const Q& q, const K& k, const V& v, O&& out,
                                    const LastKeys& policy,
                                    const pare::attention::AttendOptions& options) {
  pare::attention::AttendOptions windowed = options;
  const auto keys = static_cast<float>(pare::to_view(k).extent[2]);
  if (policy.calls != nullptr) ++*policy.calls;
  windowed.window = std::max<pare::Index>(1, std::lround(policy.mass * keys));
  pare::attention::attend(backend, q, k, v, out, pare::attention::Exact{}, windowed);
  return {.density = static_cast<double>(policy.mass)};
}

}  // namespace user

namespace attention_calibrate_test {
namespace {

using pare::Index;
using pare::attention::AttendOptions;
using pare::attention::calibrate;
using pare::attention::Calibration;
using pare::attention::CalibrationGoal;
using pare::attention::EarlyStop;
using pare::testing::run_early;
using pare::testing::Sample;
using pare::testing::within;

constexpr EarlyStop rule{.segment = 16, .row_tile = 4, .key_tile = 4};

Sample<float> sample() {
  return Sample<float>({.heads = 2, .queries = 200, .keys = 200, .value_dim = 8}, 1, 2);
}

/// sum |out - exact|^2 / sum |exact|^2
double relative_error(Sample<float>& x, const EarlyStop& policy) {
  const auto got = run_early(pare::simd, x, policy);
  EarlyStop exact = policy;
  exact.threshold = 0;
  const auto wanted = run_early(pare::simd, x, exact);
  double error = 0, square = 0;
  for (std::size_t i = 0; i < got.out.size(); ++i) {
    error += std::pow(double{got.out[i]} - double{wanted.out[i]}, 2);
    square += std::pow(double{wanted.out[i]}, 2);
  }
  return error / square;
}

template <class P>
void expect_measured(Sample<float>& x, const Calibration<P>& found) {
  EXPECT_EQ(found.policy.threshold, found.threshold);
  EXPECT_EQ(run_early(pare::simd, x, found.policy).stats.density, found.density);
  const double error = relative_error(x, found.policy);
  EXPECT_TRUE(within(found.error, error, 1e-12 + 1e-9 * error));
}

TEST(Calibrate, FindsADensity) {
  Sample<float> x = sample();
  for (const double density : {0.25, 0.4, 0.6, 0.8, 0.95}) {
    const auto found = calibrate(x.q(), x.k(), x.v(), rule, {.density = density});
    EXPECT_LE(found.density, density);
    EXPECT_GE(found.density, 0.98 * density);
    EXPECT_EQ(found.policy.segment, 16);
    expect_measured(x, found);
  }
}

TEST(Calibrate, FindsAnError) {
  Sample<float> x = sample();
  double density = 1;
  for (const double error : {1e-3, 1e-2, 0.1, 0.3}) {
    const auto found = calibrate(pare::simd.threads(2), x.q(), x.k(), x.v(), rule,
                                 {.error = error, .tolerance = 0.1});
    EXPECT_LE(found.error, error);
    // The error moves in steps: either it is close, or the next threshold errs too much.
    EarlyStop next = found.policy;
    next.threshold *= 1.001;
    EXPECT_TRUE(found.error >= 0.9 * error || relative_error(x, next) > error) << error;
    EXPECT_LT(found.density, density);
    density = found.density;
    expect_measured(x, found);
  }
}

TEST(Calibrate, GivesTheNearestToWhatCannotBeReached) {
  Sample<float> x = sample();
  const auto sparsest = calibrate(x.q(), x.k(), x.v(), rule, {.density = 1e-3});
  EarlyStop one_tile = rule;
  one_tile.threshold = std::numeric_limits<double>::infinity();
  EXPECT_EQ(sparsest.density, run_early(pare::simd, x, one_tile).stats.density);
  expect_measured(x, sparsest);
  EXPECT_EQ(calibrate(x.q(), x.k(), x.v(), rule, {.error = 1e6}).density, sparsest.density);
  // No setting but the exact one errs as little as this.
  const auto exact = calibrate(x.q(), x.k(), x.v(), rule, {.error = 1e-30, .most_calls = 4});
  EXPECT_EQ(exact.threshold, 0);
  EXPECT_EQ(exact.density, 1);
  EXPECT_EQ(exact.error, 0);
}

TEST(Calibrate, TakesAnyPolicyWithAMass) {
  Sample<float> x = sample();
  for (const double density : {0.1, 0.5, 0.9}) {
    const Calibration<user::LastKeys> found =
        calibrate(x.q(), x.k(), x.v(), user::LastKeys{}, {.density = density});
    EXPECT_LE(found.density, density);
    EXPECT_GE(found.density, 0.98 * density);
    EXPECT_EQ(static_cast<double>(found.policy.mass), found.threshold);
  }
  const pare::attention::MeanPool selector{.row_block = 8, .column_block = 8};
  const auto blocks = calibrate(x.q(), x.k(), x.v(), selector, {.density = 0.5});
  EXPECT_LE(blocks.density, 0.5);
  EXPECT_GT(blocks.density, 0.25);
  EXPECT_EQ(static_cast<double>(blocks.policy.mass), blocks.threshold);
  const auto found = calibrate(x.q(), x.k(), x.v(), user::LastKeys{}, {.error = 0.05});
  EXPECT_LE(found.error, 0.05);
  EXPECT_LT(found.policy.mass, 1);
}

TEST(Calibrate, RefusesToWriteALogSumExp) {
  Sample<float> x = sample();
  std::vector<float> lse(400, -77.0f);
  const pare::TensorView<float, 3> view{lse.data(), {1, 2, 200}, {400, 200, 1}};
  EXPECT_THROW(
      calibrate(x.q(), x.k(), x.v(), rule, {.density = 0.5}, {.causal = true, .lse = view}),
      std::invalid_argument);
  for (const float value : lse) EXPECT_EQ(value, -77.0f);
}

TEST(Calibrate, AgreesWithItselfOnTheReference) {
  Sample<float> x({.queries = 60, .keys = 60}, 1, 2);
  const auto fast = calibrate(x.q(), x.k(), x.v(), rule, {.density = 0.7});
  const auto plain = calibrate(pare::reference, x.q(), x.k(), x.v(), rule, {.density = 0.7});
  EXPECT_DOUBLE_EQ(fast.density, plain.density);
  EXPECT_TRUE(within(fast.error, plain.error, 1e-5));
}

// Between two neighbouring numbers there is nothing left to try.
TEST(Calibrate, EndsWhereNoSettingLiesBetween) {
  Sample<float> x({.heads = 1, .queries = 100, .keys = 100, .value_dim = 4}, 1, 2);
  for (const CalibrationGoal& goal :
       {CalibrationGoal{.density = 1 / 3.0, .tolerance = 0, .most_calls = 5000},
        CalibrationGoal{.error = 0.1, .tolerance = 0, .most_calls = 5000}}) {
    int calls = 0;
    const auto found = calibrate(x.q(), x.k(), x.v(), user::LastKeys{1, &calls}, goal);
    EXPECT_LE(calls, 40);
    EXPECT_TRUE(goal.density ? found.density <= 1 / 3.0 : found.error <= 0.1);
    const auto stop = calibrate(x.q(), x.k(), x.v(), rule, goal);
    EXPECT_TRUE(goal.density ? stop.density <= 1 / 3.0 : stop.error <= 0.1);
  }
}

template <class Policy>
void expect_refused(Sample<float>& x, const Policy& policy, const CalibrationGoal& goal,
                    const std::string& argument) {
  try {
    calibrate(x.q(), x.k(), x.v(), policy, goal);
    ADD_FAILURE() << "accepted a bad " << argument;
  } catch (const std::invalid_argument& e) {
    const std::string message = e.what();
    EXPECT_EQ(message.rfind("pare::attention::calibrate: " + argument + ": got ", 0), 0u)
        << message;
  }
}

void expect_refused(const CalibrationGoal& goal, const std::string& argument) {
  Sample<float> x({.queries = 20, .keys = 20});
  expect_refused(x, rule, goal, argument);
}

// Masses that are set for each head take the place of the one that is turned.
TEST(Calibrate, RefusesAPolicyThatDoesNotLookAtItsMass) {
  Sample<float> x({.heads = 2, .queries = 64, .keys = 64, .value_dim = 4}, 1, 2);
  pare::attention::Permuted<> policy{
      .segment = 16, .dense_below = 0, .dense_below_queries = 0, .dense_above = 1};
  policy.selector.row_block = policy.selector.column_block = 8;
  EXPECT_LE(calibrate(x.q(), x.k(), x.v(), policy, {.density = 0.8}).density, 0.8);
  policy.selector.head_masses = {0.9f, 0.9f};
  expect_refused(x, policy, {.density = 0.8}, "policy");
  expect_refused(x, policy, {.error = 0.1}, "policy");
}

TEST(Calibrate, RefusesASampleThatTellsNothing) {
  const float nan_value = std::numeric_limits<float>::quiet_NaN();
  for (const float bad : {nan_value, HUGE_VALF}) {
    Sample<float> x({.heads = 1, .queries = 40, .keys = 40, .value_dim = 4}, 1, 2);
    x.v()(0, 0, 39, 1) = bad;
    for (const CalibrationGoal& goal :
         {CalibrationGoal{.density = 0.5}, CalibrationGoal{.error = 0.1}})
      expect_refused(x, rule, goal, "q, k, v");
  }
  // One segment is exact, and so is a prompt that Permuted finds too short.
  Sample<float> x({.heads = 1, .queries = 16, .keys = 16, .value_dim = 4}, 1, 2);
  expect_refused(x, rule, {.error = 0.1}, "q, k, v");
  expect_refused(x, rule, {.density = 0.5}, "q, k, v");
  expect_refused(x, pare::attention::Permuted{}, {.error = 0.1}, "q, k, v");
}

TEST(Calibrate, RefusesViewsThatCannotBeRead) {
  Sample<float> x({.queries = 40, .keys = 40});
  const pare::TensorView<float, 4> good[] = {x.q(), x.k(), x.v()};
  constexpr Index huge = std::numeric_limits<Index>::max();
  for (int which = 0; which < 3; ++which)
    for (int fault = 0; fault < 3; ++fault) {
      pare::TensorView<float, 4> views[] = {good[0], good[1], good[2]};
      if (fault == 0) views[which].data = nullptr;
      if (fault == 1) views[which].extent[2] = -1;
      if (fault == 2) views[which].extent[3] = huge;
      EXPECT_THROW(calibrate(views[0], views[1], views[2], rule, {.density = 0.5}),
                   std::invalid_argument)
          << which << ' ' << fault;
    }
}

TEST(Calibrate, RefusesGoalsThatMakeNoSense) {
  const double nan_value = std::numeric_limits<double>::quiet_NaN();
  expect_refused({}, "density, error");
  expect_refused({.density = 0.5, .error = 0.1}, "density, error");
  for (const double bad : {0.0, -0.1, 1.01, nan_value}) expect_refused({.density = bad}, "density");
  for (const double bad : {0.0, -0.1, HUGE_VAL, nan_value}) expect_refused({.error = bad}, "error");
  for (const double bad : {-0.1, HUGE_VAL, nan_value})
    expect_refused({.density = 0.5, .tolerance = bad}, "tolerance");
  for (const int bad : {0, -3}) expect_refused({.density = 0.5, .most_calls = bad}, "most_calls");
  Sample<float> x({.queries = 20, .keys = 20});
  EXPECT_THROW(
      calibrate(x.q(), x.k(), x.v(), rule, {.density = 0.5}, AttendOptions{.causal = false}),
      std::invalid_argument);
}

}  // namespace
}  // namespace attention_calibrate_test
