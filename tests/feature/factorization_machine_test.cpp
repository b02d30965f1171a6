// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <type_traits>
#include <vector>

#include <pare/feature/model/factorization_machine.hpp>

#include "feature/model_checks.hpp"
#include "support/backends.hpp"

namespace feature_factorization_machine_test {
namespace {

using namespace pare::testing;
using pare::Index;
using pare::feature::FactorizationMachine;
using pare::feature::FactorizationMachineOptions;

template <class Case>
struct FactorizationMachineTest : testing::Test {
  using T = typename Case::scalar;
  static auto make(Index dim, const FactorizationMachineOptions& options) {
    const auto backend = Case::backend::make();
    return OnBackend<FactorizationMachine<T>, std::remove_const_t<decltype(backend)>>(backend, dim,
                                                                                      options);
  }
};
TYPED_TEST_SUITE(FactorizationMachineTest, BackendsAndScalars);

static_assert(pare::feature::IncrementalModel<FactorizationMachine<float>>);

TYPED_TEST(FactorizationMachineTest, GradientsAreThoseOfDifferences) {
  for (const Index factors : {1, 4}) {
    auto model = this->make(6, {.factors = factors});
    expect_gradients(model, 5, 3);
  }
}

TYPED_TEST(FactorizationMachineTest, StepsStorageAndIncrements) {
  auto model = this->make(10, {.factors = 3});
  expect_adam_step(model, 1e-3, 4);
  expect_storage_does_not_matter(model, 5);
  expect_increments(model, 6);
}

TEST(FactorizationMachine, ForwardIsItsFormula) {
  FactorizationMachine<double> model(5, {.factors = 3});
  scatter_parameters(model, 1);
  const Rows<double> x = normal_rows<double>(7, 5, 2);
  const auto w = model.weights();
  std::vector<double> logits(7);
  model.forward(pare::as_const(pare::to_view(x)), logits);
  for (Index b = 0; b < 7; ++b) {
    double wanted = model.parameters().back();
    for (Index i = 0; i < 5; ++i) {
      wanted += w(i, 0) * x(b, i);
      for (Index j = 0; j < i; ++j)
        for (Index f = 1; f < 4; ++f) wanted += w(i, f) * w(j, f) * x(b, i) * x(b, j);
    }
    EXPECT_NEAR(logits[static_cast<std::size_t>(b)], wanted, 1e-13);
  }
}

TEST(FactorizationMachine, StartsAsDocumented) {
  FactorizationMachine<double> model(300, {.factors = 20, .seed = 3});
  double squares = 0;
  for (Index i = 0; i < 300; ++i) {
    EXPECT_EQ(model.weights()(i, 0), 0.0);
    for (Index f = 1; f < 21; ++f) squares += model.weights()(i, f) * model.weights()(i, f);
  }
  EXPECT_NEAR(squares, 1, 5 * std::sqrt(2.0 / 6000));
}

TEST(FactorizationMachine, BitsDoNotDependOnTheExecutor) {
  FactorizationMachine<float> alone(70);
  auto threads = pare::simd.threads(3);
  OnBackend<FactorizationMachine<float>, decltype(threads)> threaded(threads, 70);
  expect_same_bits_after_steps(alone, threaded, 7);
}

TEST(FactorizationMachine, RefusesBadInput) {
  const std::string name = "feature::FactorizationMachine";
  refusal([] { FactorizationMachine<float>(0); }, name, "dim");
  refusal([] { FactorizationMachine<float>(3, {.factors = 0}); }, name, "factors");
  for (const double bad : {-1.0, 0.0})
    refusal([&] { FactorizationMachine<float>(3, {.initial_deviation = bad}); }, name,
            "initial_deviation");
  for (const Index factors : {std::numeric_limits<Index>::max(),
                              std::numeric_limits<Index>::max() / 3 - 1, Index{1} << 60})
    refusal([&] { FactorizationMachine<float>(3, {.factors = factors}); }, name, "factors");
  FactorizationMachine<float> model(5);
  expect_refusals(model, name);
  expect_increment_refusals(model, name);
}

}  // namespace
}  // namespace feature_factorization_machine_test
