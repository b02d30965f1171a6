// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include <pare/feature/model/mlp.hpp>

#include "feature/model_checks.hpp"
#include "support/backends.hpp"

namespace feature_mlp_test {
namespace {

using namespace pare::testing;
using pare::Index;
using pare::feature::Mlp;
using pare::feature::MlpOptions;

template <class Case>
struct MlpTest : testing::Test {
  using T = typename Case::scalar;
  static auto make(Index dim, const MlpOptions& options) {
    const auto backend = Case::backend::make();
    return OnBackend<Mlp<T>, std::remove_const_t<decltype(backend)>>(backend, dim, options);
  }
};
TYPED_TEST_SUITE(MlpTest, BackendsAndScalars);

static_assert(pare::feature::IncrementalModel<Mlp<float>>);
static_assert(pare::feature::IncrementalModel<OnBackend<Mlp<double>, pare::Reference>>);

const std::vector<MlpOptions> shapes{{.hidden = {5}},
                                     {.hidden = {7, 3}},
                                     {.hidden = {4, 3, 2}, .wide = false},
                                     {.hidden = {1}, .wide = false},
                                     {.hidden = {}}};

TYPED_TEST(MlpTest, GradientsAreThoseOfDifferences) {
  for (const MlpOptions& options : shapes) {
    SCOPED_TRACE(options.hidden.size());
    auto model = this->make(6, options);
    expect_gradients(model, 5, 3);
  }
}

TYPED_TEST(MlpTest, StepsStorageAndIncrements) {
  for (const MlpOptions& options : shapes) {
    auto model = this->make(10, options);
    expect_adam_step(model, 1e-3, 4);
    expect_storage_does_not_matter(model, 5);
    expect_increments(model, 6);
  }
}

TEST(Mlp, ForwardIsItsFormula) {
  Mlp<double> model(3, {.hidden = {2}, .seed = 1});
  scatter_parameters(model, 2);
  const auto p = model.parameters();
  ASSERT_EQ(p.size(), 3u * 3 + 2 + 2 + 1);
  const Rows<double> x = normal_rows<double>(4, 3, 3);
  std::vector<double> logits(4);
  model.forward(pare::as_const(pare::to_view(x)), logits);
  for (Index b = 0; b < 4; ++b) {
    double wanted = p[13];
    for (std::size_t h = 0; h < 3; ++h) {
      double z = 0;
      for (std::size_t i = 0; i < 3; ++i) z += x(b, static_cast<Index>(i)) * p[3 * i + h];
      wanted += h == 2 ? z : std::max(0.0, z + p[9 + h]) * p[11 + h];
    }
    EXPECT_NEAR(logits[static_cast<std::size_t>(b)], wanted, 1e-14);
  }
}

TEST(Mlp, WeightsStartAsDocumented) {
  const Mlp<double> model(400, {.hidden = {50}, .seed = 5});
  const auto weights = std::as_const(model).first_weights();
  double sum = 0, squares = 0;
  for (Index i = 0; i < 400; ++i) {
    EXPECT_EQ(weights(i, 50), 0.0);
    for (Index h = 0; h < 50; ++h) {
      sum += weights(i, h);
      squares += weights(i, h) * weights(i, h);
    }
  }
  // Five standard errors of 20000 normal numbers of variance 2 / 400.
  EXPECT_NEAR(sum / 20000, 0, 5 * std::sqrt(0.005 / 20000));
  EXPECT_NEAR(squares / 20000, 0.005, 5 * 0.005 * std::sqrt(2.0 / 20000));
}

TEST(Mlp, BitsDoNotDependOnTheExecutor) {
  const MlpOptions options{.hidden = {33, 8}};
  Mlp<float> alone(70, options);
  auto threads = pare::simd.threads(3);
  OnBackend<Mlp<float>, decltype(threads)> threaded(threads, 70, options);
  expect_same_bits_after_steps(alone, threaded, 7);
  auto pool = pare::simd.on(ReversePool{5});
  OnBackend<Mlp<float>, decltype(pool)> reversed(pool, 70, options);
  Mlp<float> again(70, options);
  expect_same_bits_after_steps(again, reversed, 7);
}

TEST(Mlp, RefusesBadInput) {
  refusal([] { Mlp<float>(0); }, "feature::Mlp", "dim");
  refusal([] { Mlp<float>(3, {.hidden = {4, 0}}); }, "feature::Mlp", "hidden");
  refusal([] { Mlp<float>(3, {.hidden = {}, .wide = false}); }, "feature::Mlp", "hidden");
  refusal([] { Mlp<float>(Index{1} << 40, {.hidden = {Index{1} << 40}}); }, "feature::Mlp", "dim");
  constexpr Index most = std::numeric_limits<Index>::max();
  for (const auto& hidden : std::vector<std::vector<Index>>{
           {most}, {8, most}, {1, most / 4, 2}, {1, most / 2, 1, most / 2, 1}, {most / 8}})
    refusal([&] { Mlp<float>(1, {.hidden = hidden}); }, "feature::Mlp", "hidden");
  refusal([] { Mlp<float>{most}; }, "feature::Mlp", "dim");
  refusal([] { Mlp<float>(most, {.hidden = {}}); }, "feature::Mlp", "hidden");
  Mlp<float> model(5);
  expect_refusals(model, "feature::Mlp");
  expect_increment_refusals(model, "feature::Mlp");
}

}  // namespace
}  // namespace feature_mlp_test
