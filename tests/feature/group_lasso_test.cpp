// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <Eigen/Core>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <string>
#include <vector>

#include <pare/feature/importance/group_lasso.hpp>
#include <pare/feature/metrics.hpp>
#include <pare/feature/model/factorization_machine.hpp>
#include <pare/feature/model/logistic.hpp>
#include <pare/feature/model/mlp.hpp>

#include "feature/model_checks.hpp"

namespace feature_group_lasso_test {
namespace {

using namespace pare::testing;
using namespace pare::feature;
using pare::Index;

static_assert(FirstLayerModel<Logistic<float>>);
static_assert(FirstLayerModel<Mlp<double>>);
static_assert(!FirstLayerModel<FactorizationMachine<float>>);

/// Four fields of two informative ones, with logistic labels.
template <class T>
struct TwoOfFour {
  FieldLayout layout{{1, 3, 2, 4}};
  Rows<T> x;
  std::vector<int> labels;

  TwoOfFour(Index rows, std::uint64_t seed) : x(normal_rows<T>(rows, layout.dim(), seed)) {
    Engine random(seed + 1);
    for (Index b = 0; b < rows; ++b) {
      const double logit =
          1.5 * static_cast<double>(x(b, 0)) + static_cast<double>(x(b, 4) - x(b, 5));
      labels.push_back(uniform(random) < 2 * sigmoid(logit) - 1 ? 1 : 0);
    }
  }
  std::vector<int> truth() const { return {1, 0, 1, 0}; }
};

/// Groups of norm 5, 3 and 0.5 under a cut of 0.5 sqrt(width): 0.5, 0.5 sqrt(4) and 0.5 sqrt(2).
TEST(GroupLasso, ShrinksAGroupByItsNormAndWidth) {
  const FieldLayout layout({1, 4, 2});
  Rows<double> w = Rows<double>::Zero(7, 2);
  w.row(0) << 3, -4;
  w(1, 0) = 1, w(2, 1) = -2, w(4, 1) = 2;
  w.row(5) << 0.3, 0;
  w.row(6) << 0, -0.4;
  const Rows<double> before = w;
  pare::feature::detail::shrink_groups(layout, 0.5, pare::to_view(w));
  for (Index h = 0; h < 2; ++h) {
    EXPECT_NEAR(w(0, h), before(0, h) * (1 - 0.5 / 5), 1e-15);
    for (Index i = 1; i < 5; ++i) EXPECT_NEAR(w(i, h), before(i, h) * (1 - 1.0 / 3), 1e-15);
    for (Index i = 5; i < 7; ++i) EXPECT_EQ(std::abs(w(i, h)), 0.0);
  }
  // What is 0 stays 0 and does not become NaN.
  pare::feature::detail::shrink_groups(layout, 0.0, pare::to_view(w));
  EXPECT_TRUE(w.allFinite());
}

template <class M>
void train_full_batch(M& model, const TwoOfFour<double>& data, Index steps) {
  std::vector<double> logits(data.labels.size()), gradients(data.labels.size()), labels;
  for (const int label : data.labels) labels.push_back(label);
  for (Index step = 0; step < steps; ++step) {
    model.forward(pare::as_const(pare::to_view(data.x)), logits);
    logistic_gradient<double>(logits, labels, gradients);
    model.backward(gradients);
    model.step();
  }
}

TEST(GroupLasso, WithoutStrengthIsTrainingAlone) {
  const TwoOfFour<double> data(200, 1);
  Mlp<double> alone(10, {.hidden = {3}}), model(10, {.hidden = {3}});
  train_full_batch(alone, data, 12);
  const auto ranking = group_lasso(model, data.layout, data.x, data.labels,
                                   {.strength = 0, .epochs = 12, .batch = 200});
  for (std::size_t i = 0; i < alone.parameters().size(); ++i)
    EXPECT_EQ(model.parameters()[i], alone.parameters()[i]) << i;
  for (Index j = 0; j < 4; ++j) {
    double squares = 0;
    for (Index i = data.layout.offset(j); i < data.layout.offset(j + 1); ++i)
      for (Index h = 0; h < 4; ++h) squares += std::pow(alone.first_weights()(i, h), 2);
    EXPECT_NEAR(ranking.scores[static_cast<std::size_t>(j)], std::sqrt(squares), 1e-14);
  }
}

/// dL/dw of the mean logistic loss.
Eigen::VectorXd loss_gradient(const TwoOfFour<double>& data, const Logistic<double>& model) {
  Eigen::VectorXd gradient = Eigen::VectorXd::Zero(data.x.cols());
  const double bias = const_cast<Logistic<double>&>(model).parameters().back();
  for (Index b = 0; b < data.x.rows(); ++b) {
    double logit = bias;
    for (Index i = 0; i < data.x.cols(); ++i)
      logit += data.x(b, i) * model.weights()[static_cast<std::size_t>(i)];
    gradient += data.x.row(b).transpose() *
                (1 / (1 + std::exp(-logit)) - data.labels[static_cast<std::size_t>(b)]);
  }
  return gradient / static_cast<double>(data.x.rows());
}

/// Adam with an epsilon beyond all gradients and a rate of that many steps is plain descent, whose
/// proximal steps end at the minimiser: there a group of weights W != 0 has the gradient
/// -strength sqrt(width) W / |W|, and one that is 0 a gradient of that norm at most. Descent at a
/// rate of 1 on a loss of curvature 1/10 and more goes down by 0.9 a step.
TEST(GroupLasso, EndsWhereTheMinimiserOfThePenalisedLossIs) {
  const TwoOfFour<double> data(1000, 2);
  constexpr double huge = 1e9;
  for (const double strength : {0.01, 0.05, 0.1}) {
    Logistic<double> model(10, {.adam = {.learning_rate = huge, .beta1 = 0, .epsilon = huge}});
    const auto ranking =
        group_lasso(model, data.layout, data.x, data.labels,
                    {.strength = strength, .rate = 1, .epochs = 1500, .batch = 1000});
    const Eigen::VectorXd gradient = loss_gradient(data, model);
    Index closed = 0;
    for (Index j = 0; j < 4; ++j) {
      const Index at = data.layout.offset(j), width = data.layout.width(j);
      const double bound = strength * std::sqrt(static_cast<double>(width));
      const Eigen::Map<const Eigen::VectorXd> w(model.weights().data() + at, width);
      // The rate is off by sqrt(gradient^2) / epsilon, of which nothing is left here.
      if (ranking.scores[static_cast<std::size_t>(j)] > 0) {
        EXPECT_LE((gradient.segment(at, width) + bound * w.normalized()).norm(), 1e-8) << j;
      } else {
        ++closed;
        EXPECT_LT(gradient.segment(at, width).norm(), bound) << j;
        EXPECT_EQ(w.cwiseAbs().maxCoeff(), 0.0);
      }
    }
    EXPECT_EQ(closed, strength > 0.01 ? 2 : 0) << strength;
    EXPECT_EQ(roc_auc(data.truth(), ranking.scores), 1.0);
  }
}

/// A step of Adam under noise moves each of the 27 or 36 numbers of such a field by about 0.23
/// rates (the deviation of a mean over ten steps), together 1.4 rates at most; the cut is 1.7
/// and 2.
TEST(GroupLasso, SetsFieldsOfNoiseToZeroAtOnce) {
  const TwoOfFour<float> data(2000, 3);
  Mlp<float> model(10, {.hidden = {8}, .adam = {.learning_rate = 1e-2}});
  const auto ranking = group_lasso(model, data.layout, data.x, data.labels,
                                   {.strength = 1, .rate = 1e-2, .epochs = 30, .batch = 64});
  EXPECT_EQ(roc_auc(data.truth(), ranking.scores), 1.0);
  EXPECT_EQ(ranking.scores[1], 0.0);
  EXPECT_EQ(ranking.scores[3], 0.0);
  for (const Index j : {1, 3})
    for (Index i = data.layout.offset(j); i < data.layout.offset(j + 1); ++i)
      for (Index h = 0; h < 9; ++h) EXPECT_EQ(model.first_weights()(i, h), 0.0f);
}

/// A step of Adam moves each number by (1 - beta1) / sqrt(1 - beta2) rates at most, 3.2 with its
/// defaults, which is below a cut of 100 rates.
TEST(GroupLasso, AHugeStrengthDropsAllFields) {
  const TwoOfFour<float> data(300, 4);
  Logistic<float> model(10);
  const auto ranking =
      group_lasso(model, data.layout, data.x, data.labels, {.strength = 100, .batch = 50});
  for (const double score : ranking.scores) EXPECT_EQ(score, 0.0);
}

TEST(GroupLasso, IsAFunctionOfTheSeed) {
  const TwoOfFour<float> data(300, 5);
  const auto run = [&](std::uint64_t seed) {
    Logistic<float> model(10);
    return group_lasso(model, data.layout, data.x, data.labels, {.batch = 50, .seed = seed}).scores;
  };
  EXPECT_EQ(run(1), run(1));
  EXPECT_NE(run(1), run(2));
}

TEST(GroupLasso, RefusesBadInput) {
  const std::string name = "feature::group_lasso";
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const TwoOfFour<float> data(6, 6);
  Logistic<float> model(10), narrow(9);
  const auto& layout = data.layout;
  const std::vector<int> labels{0, 1, 0, 1, 0, 1};
  refusal([&] { group_lasso(model, FieldLayout(), data.x, labels); }, name, "layout");
  refusal([&] { group_lasso(narrow, layout, data.x, labels); }, name, "model");
  refusal([&] { group_lasso(model, layout, data.x.leftCols(9), labels); }, name, "x");
  refusal([&] { group_lasso(model, layout, data.x.topRows(1), std::vector<int>{1}); }, name, "x");
  refusal([&] { group_lasso(model, layout, data.x, std::vector<int>{0, 1}); }, name, "labels");
  refusal([&] { group_lasso(model, layout, data.x, std::vector<int>{0, 1, 0, 1, 0, 3}); }, name,
          "labels");
  const auto option = [&](const std::string& argument, const GroupLassoOptions& options) {
    refusal([&] { group_lasso(model, layout, data.x, labels, options); }, name, argument);
  };
  option("strength", {.strength = -1});
  option("strength", {.strength = nan});
  option("rate", {.rate = 0});
  option("rate", {.rate = nan});
  option("epochs", {.epochs = 0});
  option("batch", {.batch = 1});
  for (const float w : model.weights()) EXPECT_EQ(w, 0.0f);
}

}  // namespace
}  // namespace feature_group_lasso_test
