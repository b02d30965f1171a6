// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <type_traits>
#include <vector>

#include <pare/feature/metrics.hpp>
#include <pare/feature/model/logistic.hpp>

#include "feature/model_checks.hpp"
#include "support/backends.hpp"

namespace feature_logistic_test {
namespace {

using namespace pare::testing;
using pare::Index;
using pare::feature::Logistic;

template <class Case>
struct LogisticTest : testing::Test {
  using T = typename Case::scalar;
  static auto make(Index dim) {
    const auto backend = Case::backend::make();
    return OnBackend<Logistic<T>, std::remove_const_t<decltype(backend)>>(backend, dim);
  }
};
TYPED_TEST_SUITE(LogisticTest, BackendsAndScalars);

static_assert(pare::feature::IncrementalModel<Logistic<float>>);

TYPED_TEST(LogisticTest, GradientsAreThoseOfDifferences) {
  auto model = this->make(6);
  expect_gradients(model, 5, 3);
}

TYPED_TEST(LogisticTest, StepsStorageAndIncrements) {
  auto model = this->make(10);
  expect_adam_step(model, 1e-3, 4);
  expect_storage_does_not_matter(model, 5);
  expect_increments(model, 6);
}

TEST(Logistic, StartsAtHalfAndBitsDoNotDependOnTheExecutor) {
  Logistic<float> alone(70);
  auto threads = pare::simd.threads(3);
  OnBackend<Logistic<float>, decltype(threads)> threaded(threads, 70);
  const Rows<float> x = normal_rows<float>(3, 70, 1);
  std::vector<float> logits(3, 9.0f);
  alone.forward(pare::as_const(pare::to_view(x)), logits);
  for (const float z : logits) EXPECT_EQ(z, 0.0f);
  scatter_parameters(alone, 2);
  scatter_parameters(threaded, 2);
  expect_same_bits_after_steps(alone, threaded, 7);
}

TEST(Logistic, FitsTheWeightsOfSeparatedClasses) {
  constexpr Index rows = 4000;
  const Rows<double> x = normal_rows<double>(rows, 3, 8);
  Engine random(9);
  std::vector<double> labels, logits(rows), gradient(rows);
  for (Index b = 0; b < rows; ++b) {
    const double p = pare::feature::sigmoid(1 + 2 * x(b, 0) - x(b, 1));
    labels.push_back(uniform(random) < 2 * p - 1 ? 1 : 0);
  }
  Logistic<double> model(3, {.adam = {.learning_rate = 0.05}});
  double loss = 0;
  for (int step = 0; step < 600; ++step) {
    model.forward(pare::as_const(pare::to_view(x)), logits);
    loss = pare::feature::logistic_gradient<double>(logits, labels, gradient);
    EXPECT_NEAR(loss, pare::feature::logistic_loss(labels, logits), 1e-12);
    model.backward(gradient);
    model.step();
  }
  // Four standard errors of a weight, about 1 / sqrt(rows p (1 - p)) with p (1 - p) near 0.12.
  const double bound = 4 / std::sqrt(0.12 * static_cast<double>(rows));
  EXPECT_NEAR(model.weights()[0], 2, bound);
  EXPECT_NEAR(model.weights()[1], -1, bound);
  EXPECT_NEAR(model.weights()[2], 0, bound);
  EXPECT_NEAR(model.parameters()[3], 1, bound);
}

TEST(Logistic, RefusesBadInput) {
  refusal([] { Logistic<float>(0); }, "feature::Logistic", "dim");
  for (const Index dim : {std::numeric_limits<Index>::max(), Index{1} << 60})
    refusal([&] { Logistic<float>{dim}; }, "feature::Logistic", "dim");
  Logistic<float> model(5);
  expect_refusals(model, "feature::Logistic");
  expect_increment_refusals(model, "feature::Logistic");
}

}  // namespace
}  // namespace feature_logistic_test
