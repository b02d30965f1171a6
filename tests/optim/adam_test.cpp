// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

#include <pare/optim/adam.hpp>

#include "support/matrices.hpp"
#include "support/tolerance.hpp"

namespace optim_adam_test {
namespace {

using pare::optim::Adam;
using pare::optim::AdamOptions;
using pare::testing::refusal;
using pare::testing::Tolerance;

template <class T>
struct AdamTest : testing::Test {};
using Scalars = testing::Types<float, double>;
TYPED_TEST_SUITE(AdamTest, Scalars);

template <class T>
void step(Adam<T>& adam, std::vector<T>& x, const std::vector<T>& g) {
  adam.step(std::span<T>(x), std::span<const T>(g));
}

/// The algorithm's own lines, in double.
TYPED_TEST(AdamTest, StepsAreThoseOfThePaper) {
  using T = TypeParam;
  const AdamOptions options{.learning_rate = 0.01, .beta1 = 0.8, .beta2 = 0.95, .epsilon = 1e-6};
  Adam<T> adam(37, options);
  std::vector<T> x(37);
  std::vector<double> wanted(37), m(37, 0.0), v(37, 0.0);
  pare::testing::Engine random(1);
  for (std::size_t i = 0; i < 37; ++i) wanted[i] = static_cast<double>(x[i] = T(i) / T(8));
  constexpr int steps = 50;
  for (int t = 1; t <= steps; ++t) {
    std::vector<T> g(37);
    for (std::size_t i = 0; i < 37; ++i) {
      g[i] = static_cast<T>(pare::testing::normal(random));
      const auto exact = static_cast<double>(g[i]);
      m[i] = 0.8 * m[i] + 0.2 * exact;
      v[i] = 0.95 * v[i] + 0.05 * exact * exact;
      const double mean = m[i] / (1 - std::pow(0.8, t)), square = v[i] / (1 - std::pow(0.95, t));
      wanted[i] -= 0.01 * mean / (std::sqrt(square) + 1e-6);
    }
    step(adam, x, g);
  }
  EXPECT_EQ(adam.steps(), steps);
  // Each step rounds a parameter below 5 once, and its update of at most 0.05 a few dozen times.
  const double bound = steps * (Tolerance<T>::gamma(1) * 5 + Tolerance<T>::gamma(60) * 0.05);
  for (std::size_t i = 0; i < 37; ++i) EXPECT_NEAR(static_cast<double>(x[i]), wanted[i], bound);
}

TYPED_TEST(AdamTest, TheFirstStepIsTheRateWhateverTheGradient) {
  using T = TypeParam;
  Adam<T> adam(3);
  std::vector<T> x{1, 1, 1};
  step(adam, x, {T(1e-3), T(-1e3), T(0)});
  EXPECT_NEAR(static_cast<double>(x[0]), 1 - 1e-3, 1e-6);
  EXPECT_NEAR(static_cast<double>(x[1]), 1 + 1e-3, 1e-6);
  EXPECT_EQ(x[2], T(1));
}

/// A parameter left out goes on later as if the step had not been.
TYPED_TEST(AdamTest, InactiveParametersAreFrozenToTheBit) {
  using T = TypeParam;
  Adam<T> lazy(2), alone(1);
  std::vector<T> x{2, 2}, single{2};
  pare::testing::Engine random(2);
  for (int t = 0; t < 40; ++t) {
    const std::vector<T> g{static_cast<T>(pare::testing::normal(random)),
                           static_cast<T>(pare::testing::normal(random))};
    const std::vector<unsigned char> active{1, static_cast<unsigned char>(t % 3 == 1)};
    const T before = x[1];
    lazy.step(std::span<T>(x), std::span<const T>(g), active);
    if (active[1] == 0) {
      EXPECT_EQ(x[1], before);
    } else {
      step(alone, single, {g[1]});
      EXPECT_EQ(x[1], single[0]) << t;
    }
  }
  const T before = x[1];
  step(lazy, x, {T(0), T(0)});
  EXPECT_NE(x[1], before) << "momentum moves it where it is not left out";
}

TYPED_TEST(AdamTest, FindsTheMinimum) {
  using T = TypeParam;
  Adam<T> adam(1, {.learning_rate = 0.05});
  std::vector<T> x{5};
  for (int t = 0; t < 2000; ++t) step(adam, x, {2 * (x[0] - T(1.5))});
  EXPECT_NEAR(static_cast<double>(x[0]), 1.5, 1e-3);
}

TYPED_TEST(AdamTest, BadInputIsRefusedAndChangesNothing) {
  using T = TypeParam;
  const std::string name = "optim::Adam", call = name + "::step";
  refusal([] { Adam<T>(-1); }, name, "size");
  const double nan = std::numeric_limits<double>::quiet_NaN();
  for (const double bad : {0.0, -1.0, nan}) {
    refusal([&] { Adam<T>(1, {.learning_rate = bad}); }, name, "learning_rate");
    refusal([&] { Adam<T>(1, {.epsilon = bad}); }, name, "epsilon");
  }
  for (const double bad : {1.0, -0.1, nan}) {
    refusal([&] { Adam<T>(1, {.beta1 = bad}); }, name, "beta1");
    refusal([&] { Adam<T>(1, {.beta2 = bad}); }, name, "beta2");
  }
  Adam<T> adam(2), fresh(2);
  std::vector<T> x{1, 2}, y = x, one{1};
  refusal([&] { step(adam, x, one); }, call, "gradients");
  refusal([&] { step(adam, one, x); }, call, "parameters");
  const std::vector<unsigned char> active{1};
  refusal([&] { adam.step(std::span<T>(x), std::span<const T>(y), active); }, call, "active");
  refusal([&] { adam.set_learning_rate(0); }, name + "::set_learning_rate", "learning_rate");
  EXPECT_EQ(x, y);
  EXPECT_EQ(adam.steps(), 0);
  adam.set_learning_rate(0.5);
  EXPECT_EQ(adam.options().learning_rate, 0.5);
}

}  // namespace
}  // namespace optim_adam_test
