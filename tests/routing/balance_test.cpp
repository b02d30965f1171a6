// SPDX-License-Identifier: Apache-2.0
// Balance measures against their formulas, finite differences, and a failure that is known.
#include <gtest/gtest.h>

#include <cmath>
#include <cstddef>
#include <limits>
#include <vector>

#include <pare/routing/balance.hpp>
#include <pare/routing/gates.hpp>

#include "support/properties.hpp"

namespace routing_balance_test {
namespace {

using pare::Index;
using pare::RowMatrix;
using pare::routing::load_balance;
using pare::routing::load_balance_gradient;
using pare::routing::route;
using pare::routing::RoutePlan;
using pare::routing::top_one_balance;
using pare::routing::top_one_balance_gradient;
using pare::routing::TopK;
using pare::testing::random_matrix;
using pare::testing::refusal;
using pare::testing::refuses_and_leaves_alone;

RoutePlan plan_of(const RowMatrix<double>& logits, Index k) {
  return RoutePlan(route(logits, TopK{.k = k}).ids, logits.cols());
}

TEST(LoadBalance, OfEvenLoadsIsOne) {
  RowMatrix<double> logits = RowMatrix<double>::Zero(12, 4);
  for (Index r = 0; r < 12; ++r) logits(r, r % 4) = 2;
  const auto b = load_balance(logits, plan_of(logits, 1));
  EXPECT_NEAR(b.loss, 1, 1e-14);
  EXPECT_EQ(b.max_over_mean, 1);
  EXPECT_EQ(b.variation, 0);
  EXPECT_NEAR(b.entropy, 1, 1e-14);
  for (Index e = 0; e < 4; ++e) EXPECT_NEAR(b.softmax[static_cast<std::size_t>(e)], .25, 1e-14);
}

// All rows go to expert 0 of two, whose share of the softmax is 1 / (1 + e^-3).
TEST(LoadBalance, OfOneExpertIsTwiceItsShare) {
  RowMatrix<double> logits = RowMatrix<double>::Zero(5, 2);
  logits.col(0).setConstant(3);
  const auto b = load_balance(logits, plan_of(logits, 1));
  EXPECT_NEAR(b.loss, 2 / (1 + std::exp(-3.0)), 1e-14);
  EXPECT_EQ(b.max_over_mean, 2);
  EXPECT_EQ(b.variation, 1);
  EXPECT_EQ(b.entropy, 0);
  EXPECT_EQ(b.load, (std::vector<double>{1, 0}));
}

TEST(LoadBalance, OfNothingRoutedAndOfOneExpert) {
  const RowMatrix<double> logits = RowMatrix<double>::Zero(4, 3);
  const RowMatrix<Index> no_ids = RowMatrix<Index>::Constant(4, 1, -1);
  const auto none = load_balance(logits, RoutePlan(no_ids, 3));
  EXPECT_EQ(none.loss, 0);
  EXPECT_EQ(none.variation, 0);
  EXPECT_EQ(none.entropy, 0);
  const RowMatrix<double> single = logits.leftCols(1);
  EXPECT_EQ(load_balance(single, plan_of(single, 1)).entropy, 1);
}

/// Smaller logits leave the loads as they are, and bring the loss to 1; the top-1 loss does not
/// fall for it.
TEST(LoadBalance, SmallLogitsHideAnImbalance) {
  RowMatrix<double> logits = random_matrix<RowMatrix<double>>(2000, 16, 5);
  logits.col(3).array() += 1.0;
  const auto loss = [&](double scale) {
    const RowMatrix<double> scaled = scale * logits;
    return load_balance(scaled, plan_of(scaled, 1));
  };
  const auto whole = loss(1), small = loss(.01);
  EXPECT_GT(whole.loss, 1.3);
  EXPECT_LT(small.loss, 1.02);
  EXPECT_EQ(whole.max_over_mean, small.max_over_mean);
  EXPECT_GT(small.max_over_mean, 5);
  const RowMatrix<double> scaled = .01 * logits;
  EXPECT_GT(top_one_balance(scaled), top_one_balance(logits));
}

TEST(TopOneBalance, IsOneIfRowsAreSureAndLoadsEven) {
  RowMatrix<double> logits = RowMatrix<double>::Zero(12, 4);
  for (Index r = 0; r < 12; ++r) logits(r, r % 4) = 800;
  EXPECT_NEAR(top_one_balance(logits), 1, 1e-14);
  // Uniform rows: fhat = pbar = 1 / E.
  EXPECT_NEAR(top_one_balance(RowMatrix<double>::Zero(3, 4).eval()), 4, 1e-13);
  EXPECT_NEAR(top_one_balance(logits, {.temperature = 1e6}), 4, 1e-2);
}

/// Central differences with h = 1e-5: off by about h^2 and 1e-16 / h.
template <class Loss>
void expect_gradient(RowMatrix<double> logits, const RowMatrix<double>& gradient,
                     const Loss& loss) {
  for (Index r = 0; r < logits.rows(); ++r)
    for (Index e = 0; e < logits.cols(); ++e) {
      const double at = logits(r, e), h = 1e-5;
      logits(r, e) = at + h;
      const double above = loss(logits);
      logits(r, e) = at - h;
      const double below = loss(logits);
      logits(r, e) = at;
      EXPECT_NEAR(gradient(r, e), (above - below) / (2 * h), 1e-9) << r << ' ' << e;
    }
}

TEST(Gradients, AreThoseOfFiniteDifferences) {
  const RowMatrix<double> logits = random_matrix<RowMatrix<double>>(7, 5, 2);
  const RoutePlan plan = plan_of(logits, 2);
  RowMatrix<double> gradient(7, 5);
  load_balance_gradient(logits, plan, gradient);
  expect_gradient(logits, gradient,
                  [&](const RowMatrix<double>& z) { return load_balance(z, plan).loss; });
  for (const double t : {1.0, .3}) {
    top_one_balance_gradient(logits, gradient, {.temperature = t});
    expect_gradient(logits, gradient, [&](const RowMatrix<double>& z) {
      return top_one_balance(z, {.temperature = t});
    });
  }
}

TEST(LoadBalance, RefusesWhatDoesNotFit) {
  RowMatrix<double> logits = random_matrix<RowMatrix<double>>(7, 5, 2), gradient(7, 5), other(6, 5);
  const RoutePlan plan = plan_of(logits, 2), fewer = plan_of(logits.topRows(6), 2);
  gradient.setZero();
  const auto refused = [&](const auto& z, const RoutePlan& by, const char* argument) {
    refusal([&] { load_balance(z, by); }, "routing::load_balance", argument);
    refuses_and_leaves_alone([&] { load_balance_gradient(z, by, gradient); },
                             "routing::load_balance_gradient", argument, gradient);
  };
  refused(logits, fewer, "plan");
  refused(RowMatrix<double>(7, 0), plan, "logits");
  refusal([&] { load_balance_gradient(logits, plan, other); }, "routing::load_balance_gradient",
          "gradient");
  refusal([&] { load_balance_gradient(logits, plan, logits); }, "routing::load_balance_gradient",
          "gradient");
  refusal([&] { top_one_balance_gradient(logits, logits); }, "routing::top_one_balance_gradient",
          "gradient");
  for (const double t : {0.0, -1.0, std::nan(""), std::numeric_limits<double>::infinity()}) {
    refusal([&] { top_one_balance(logits, {.temperature = t}); }, "routing::top_one_balance",
            "temperature");
    refuses_and_leaves_alone(
        [&] { top_one_balance_gradient(logits, gradient, {.temperature = t}); },
        "routing::top_one_balance_gradient", "temperature", gradient);
  }
  logits.row(2).setConstant(-std::numeric_limits<double>::infinity());
  refused(logits, plan, "logits");
  logits(2, 1) = std::nan("");
  refused(logits, plan, "logits");
}

}  // namespace
}  // namespace routing_balance_test
