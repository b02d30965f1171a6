// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <Eigen/Core>
#include <Eigen/LU>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <numeric>
#include <span>
#include <string>
#include <vector>

#include <pare/feature/importance/permutation_importance.hpp>
#include <pare/feature/leap/leap.hpp>
#include <pare/feature/leap/linear_exact.hpp>

#include "feature/model_checks.hpp"

namespace feature_linear_exact_test {
namespace {

using namespace pare::testing;
using namespace pare::feature;
using namespace pare::optim;
using pare::Index;
using pare::TensorView;

/// Centred rows of correlated columns with a target that is linear in most of them.
struct LinearData {
  Rows<double> x;
  Eigen::VectorXd y;

  LinearData(Index rows, Index dim, std::uint64_t seed)
      : x(normal_rows<double>(rows, dim, seed)), y(rows) {
    for (Index i = 1; i < dim; ++i) x.col(i) += 0.5 * x.col(i - 1);
    y = normal_rows<double>(rows, 1, seed + 1) * 0.5;
    for (Index i = 0; i < dim; ++i)
      y += x.col(i) * (i % 3 == 2 ? 0.0 : 0.6 / (1.0 + 0.3 * static_cast<double>(i)));
    x.rowwise() -= x.colwise().mean().eval();
    y.array() -= y.mean();
  }

  LinearMoments moments() const {
    const auto rows = static_cast<double>(x.rows());
    return {x.transpose() * x / rows, x.transpose() * y / rows, y.squaredNorm() / rows};
  }
};

/// The formula as it is written, with what it divides by gates.
double ridge_loss(const FieldLayout& layout, const LinearMoments& m,
                  const std::vector<double>& gates) {
  Eigen::MatrixXd ridge = m.covariance;
  for (Index j = 0; j < layout.fields(); ++j) {
    const double g = gates[static_cast<std::size_t>(j)], r = (1 - g) / g;
    for (Index i = layout.offset(j); i < layout.offset(j + 1); ++i)
      for (Index k = layout.offset(j); k < layout.offset(j + 1); ++k)
        ridge(i, k) += r * r * m.covariance(i, k);
  }
  return m.target_variance - m.with_target.dot(ridge.inverse() * m.with_target);
}

/// The least squared error of regressing on rows that were mixed with a uniform permutation of each
/// field.
double mixed_regression_loss(const FieldLayout& layout, const LinearData& data,
                             const std::vector<double>& gates, std::uint64_t seed) {
  Engine random(seed);
  Rows<double> mixed = data.x;
  std::vector<Index> donors(static_cast<std::size_t>(data.x.rows()));
  for (Index j = 0; j < layout.fields(); ++j) {
    std::iota(donors.begin(), donors.end(), Index{0});
    std::shuffle(donors.begin(), donors.end(), random);
    const double g = gates[static_cast<std::size_t>(j)];
    for (Index b = 0; b < mixed.rows(); ++b)
      for (Index i = layout.offset(j); i < layout.offset(j + 1); ++i)
        mixed(b, i) = g * data.x(b, i) + (1 - g) * data.x(donors[static_cast<std::size_t>(b)], i);
  }
  const Eigen::VectorXd w = (mixed.transpose() * mixed).inverse() * (mixed.transpose() * data.y);
  return (data.y - mixed * w).squaredNorm() / static_cast<double>(mixed.rows());
}

/// One scalar field for each number, which explains that much of a target by itself.
LinearMoments independent_fields(const std::vector<double>& explained) {
  const auto fields = static_cast<Index>(explained.size());
  LinearMoments m{Eigen::MatrixXd::Identity(fields, fields), Eigen::VectorXd(fields), 1};
  for (Index j = 0; j < fields; ++j) {
    m.with_target(j) = std::sqrt(explained[static_cast<std::size_t>(j)]);
    m.target_variance += explained[static_cast<std::size_t>(j)];
  }
  return m;
}

/// A gate that went below 1/2 goes on towards 0 for as long as there are steps.
constexpr double closed = 0.01;

/// The root above 1/2 of -h'(g) = 2 g (1 - g) / (g^2 + (1 - g)^2)^2 = ratio, by bisection; ratio
/// is below 2.
double end_point(double ratio) {
  double low = 0.5, high = 1;
  for (int i = 0; i < 60; ++i) {
    const double g = (low + high) / 2, norm = g * g + (1 - g) * (1 - g);
    (2 * g * (1 - g) / (norm * norm) > ratio ? low : high) = g;
  }
  return low;
}

/// T7. With 400,000 rows sums over permutations are off by some 1 / sqrt(rows) = 0.16 % of the
/// products of deviations; three of that.
TEST(LinearExact, IsTheLossOfRegressingOnMixedRows) {
  const FieldLayout layout({1, 3, 1, 2});
  const LinearData data(400000, layout.dim(), 1);
  const LinearMoments moments = data.moments();
  std::uint64_t seed = 10;
  for (const std::vector<double>& gates :
       {std::vector{0.9, 0.6, 0.3, 0.8}, std::vector{0.5, 0.5, 0.5, 0.5},
        std::vector{1.0, 0.2, 0.99, 0.4}}) {
    const double wanted = mixed_regression_loss(layout, data, gates, ++seed);
    EXPECT_NEAR(linear_gate_loss(layout, moments, gates).loss, wanted, 0.005 * wanted) << seed;
  }
}

/// In double both forms solve a system whose condition is below 1e4.
TEST(LinearExact, IsAnAdaptiveRidgeRegression) {
  const FieldLayout layout({2, 1, 4, 3});
  const LinearMoments moments = LinearData(500, layout.dim(), 2).moments();
  for (const std::vector<double>& gates :
       {std::vector{0.9, 0.6, 0.3, 0.8}, std::vector{0.1, 0.2, 0.99, 0.5},
        std::vector{1.0, 1.0, 1.0, 1.0}})
    EXPECT_NEAR(linear_gate_loss(layout, moments, gates).loss, ridge_loss(layout, moments, gates),
                1e-11);
}

/// Central differences of steps h and 2 h, extrapolated: off by h^4 times a fifth derivative and by
/// u / h, about 1e-11 each.
TEST(LinearExact, GradientsAreThoseOfDifferences) {
  const FieldLayout layout({2, 1, 4, 3});
  const LinearMoments moments = LinearData(500, layout.dim(), 3).moments();
  constexpr double h = 3e-4;
  for (std::vector<double> gates :
       {std::vector{0.9, 0.6, 0.3, 0.8}, std::vector{0.2, 0.25, 0.98, 0.5}}) {
    const Eigen::VectorXd gradient = linear_gate_loss(layout, moments, gates).gradient;
    for (std::size_t j = 0; j < gates.size(); ++j) {
      const double at = gates[j];
      const auto difference_of = [&](double step) {
        gates[j] = at + step;
        const double above = ridge_loss(layout, moments, gates);
        gates[j] = at - step;
        const double below = ridge_loss(layout, moments, gates);
        gates[j] = at;
        return (above - below) / (2 * step);
      };
      const double wanted = (4 * difference_of(h) - difference_of(2 * h)) / 3;
      EXPECT_NEAR(gradient(static_cast<Index>(j)), wanted, 1e-9) << j;
      EXPECT_LT(wanted, -1e-4);
    }
  }
}

TEST(LinearExact, AClosedGateIsARegressionWithoutTheField) {
  const FieldLayout layout({2, 1, 3}), rest({2, 3});
  const LinearMoments all = LinearData(300, 6, 4).moments();
  const std::vector<Index> left{0, 1, 3, 4, 5};
  const LinearMoments without{all.covariance(left, left), all.with_target(left),
                              all.target_variance};
  const LinearGateLoss without_one = linear_gate_loss(layout, all, std::vector{0.7, 0.0, 0.4});
  EXPECT_NEAR(without_one.loss, ridge_loss(rest, without, {0.7, 0.4}), 1e-12);
  EXPECT_EQ(without_one.gradient(1), 0.0);
  EXPECT_EQ(without_one.weights(2), 0.0);
  const LinearGateLoss open = linear_gate_loss(layout, all, std::vector{1.0, 1.0, 1.0});
  EXPECT_LE((open.weights - all.covariance.inverse() * all.with_target).cwiseAbs().maxCoeff(),
            1e-11);
  EXPECT_EQ(open.gradient.cwiseAbs().maxCoeff(), 0.0);
  EXPECT_EQ(linear_gate_loss(layout, all, std::vector{0.0, 0.0, 0.0}).loss, all.target_variance);
}

/// A column that never changes leaves the solution of the others.
TEST(LinearExact, DirectionsWithoutVarianceGetNoWeight) {
  const LinearMoments two = independent_fields({0.4, 0.3});
  LinearMoments more{Eigen::MatrixXd::Zero(3, 3), Eigen::VectorXd::Zero(3), two.target_variance};
  more.covariance.bottomRightCorner(2, 2) = two.covariance;
  more.with_target.tail(2) = two.with_target;
  const auto wanted = linear_gate_loss(FieldLayout::scalars(2), two, std::vector{0.8, 0.6});
  const auto got = linear_gate_loss(FieldLayout::scalars(3), more, std::vector{0.5, 0.8, 0.6});
  EXPECT_NEAR(got.loss, wanted.loss, 1e-15);
  EXPECT_EQ(got.weights(0), 0.0);
  EXPECT_EQ(got.gradient(0), 0.0);
}

/// T8, P5: fields of one run that do not meet each other. Those that stay end where the slope of
/// what they explain is the penalty. Next to the double root at 2 a step must not leap over it,
/// and the slope of the slope goes to 0: a small rate, and fewer digits.
TEST(LinearExact, AFieldStaysWhileItsPenaltyIsBelowTwiceWhatItExplains) {
  const std::vector<double> ratios{0.5, 1.5, 1.9, 1.99, 2.01, 2.1, 3.0};
  constexpr double penalty = 0.05;
  std::vector<double> explained;
  for (const double ratio : ratios) explained.push_back(penalty / ratio);
  for (const Penalty charged : {Penalty::Rms, Penalty::Uniform, Penalty::SqrtWidth}) {
    const LinearExact result =
        leap_linear_exact(FieldLayout::scalars(7), independent_fields(explained),
                          {.alpha_per_field = penalty,
                           .penalty = charged,
                           .learning_rate = 1e-3,
                           .iterations = 10000});
    for (std::size_t j = 0; j < ratios.size(); ++j) {
      if (ratios[j] < 2)
        EXPECT_NEAR(result.gates[j], end_point(ratios[j]), ratios[j] < 1.95 ? 1e-4 : 5e-3) << j;
      else
        EXPECT_LT(result.gates[j], closed) << j;
    }
    EXPECT_NEAR(result.gates[2], 0.565, 0.005);
    EXPECT_EQ(above(result.ranking), (std::vector<Index>{0, 1, 2, 3}));
  }
  EXPECT_NEAR(end_point(0.5), 0.84063, 1e-5);
  EXPECT_NEAR(end_point(1.5), 0.65586, 1e-5);
  EXPECT_NEAR(end_point(1.9), 0.56547, 1e-5);
  EXPECT_NEAR(end_point(1.99), 0.52044, 1e-5);
}

/// What is charged by width and variance: the same field, wider by columns that say nothing.
TEST(LinearExact, PenaltiesWeighFieldsByTheirCovariance) {
  const FieldLayout layout({1, 4});
  LinearMoments moments{Eigen::MatrixXd::Identity(5, 5), Eigen::VectorXd::Zero(5), 2};
  moments.with_target(0) = moments.with_target(1) = 1;
  const auto gates_of = [&](Penalty penalty) {
    return leap_linear_exact(layout, moments, {.alpha_per_field = 0.6, .penalty = penalty}).gates;
  };
  // lambda: 1 and 1; 2/3 and 4/3; 2/5 and 8/5.
  const double p = 1.2 / 2;
  EXPECT_NEAR(gates_of(Penalty::Uniform)[1], end_point(p), 1e-4);
  EXPECT_NEAR(gates_of(Penalty::SqrtWidth)[1], end_point(p * 4 / 3), 1e-4);
  EXPECT_NEAR(gates_of(Penalty::Rms)[0], end_point(p * 2 / 3), 1e-4);
  EXPECT_NEAR(gates_of(Penalty::Squared)[0], end_point(p * 2 / 5), 1e-4);
  EXPECT_NEAR(gates_of(Penalty::Squared)[1], end_point(p * 8 / 5), 1e-4);
}

/// A sequence of +-1 of which every shift agrees with itself in as many rows, less one, as it does
/// not: what is random in a shifted permutation does not show in sums over it.
std::vector<double> shift_register_sequence(int bits, unsigned taps) {
  std::vector<double> sequence;
  unsigned state = 1;
  for (int i = 0; i < (1 << bits) - 1; ++i) {
    sequence.push_back((state & 1u) != 0 ? 1.0 : -1.0);
    state = (state & 1u) != 0 ? (state >> 1) ^ taps : state >> 1;
  }
  return sequence;
}

/// P6: with weights that do not follow, L(g) = const + 2 v (1 - g)^2, so that the gate ends at
/// 1 - p / (4 v) and nothing polarizes.
TEST(LinearExact, FrozenWeightsDoNotPolarize) {
  const std::vector<double> sequence = shift_register_sequence(6, 0x30);
  const Eigen::Map<const Eigen::VectorXd> x(sequence.data(), static_cast<Index>(sequence.size()));
  const double rows = static_cast<double>(x.size()), w = 0.8;
  const double v = w * w * (1 + 1 / rows);  // donors are never the row itself
  for (const double ratio : {0.5, 1.9, 2.1, 3.0, 5.0}) {
    Leap<double> leap(
        FieldLayout::scalars(1),
        {.alpha_per_field = ratio * v, .donors = DonorPolicy::Shift, .learning_rate = 5e-3});
    Eigen::VectorXd mixed(x.size());
    for (int step = 0; step < 4000; ++step) {
      leap.forward(x, mixed);
      const Eigen::VectorXd gradient = 2 / rows * w * w * (mixed - x);
      leap.backward_gates(gradient);
      const double g = leap.sampled_gates()[0];
      ASSERT_NEAR((w * (x - mixed)).squaredNorm() / rows, 2 * v * (1 - g) * (1 - g), 1e-12);
      ASSERT_NEAR(leap.gradients().gates[0], -4 * v * (1 - g), 1e-12);
      leap.step_gates();
    }
    const double wanted = std::max(0.0, 1 - ratio / 4);
    EXPECT_NEAR(leap.gates()[0], wanted, wanted > 0 ? 1e-6 : 1e-3) << ratio;
  }
}

/// y = x1 + noise, and a second field of that correlation with x1.
LinearMoments redundant_pair(double correlation) {
  LinearMoments m{Eigen::MatrixXd::Identity(2, 2), Eigen::VectorXd(2), 2};
  m.covariance(0, 1) = m.covariance(1, 0) = correlation;
  m.with_target << 1, correlation;
  return m;
}

/// T17, P8: the end is that of x1 by itself. With near copies a large penalty may close both before
/// they are told apart: below.
TEST(LinearExact, OfTwoRedundantFieldsExactlyTheCausalOneStays) {
  for (const double correlation : {0.0, 0.5, 0.9, 0.999})
    for (const double p : {0.05, 0.2, 0.5, 1.0, 1.5}) {
      if (correlation > 0.99 && p > 0.5) continue;
      const LinearExact result =
          leap_linear_exact(FieldLayout::scalars(2), redundant_pair(correlation),
                            {.alpha_per_field = p, .learning_rate = 1e-3, .iterations = 10000});
      EXPECT_NEAR(result.gates[0], end_point(p), 1e-4) << correlation << ' ' << p;
      EXPECT_LT(result.gates[1], closed) << correlation << ' ' << p;
    }
}

/// Copies in other units: the one that is cheaper stays. But both are charged on the way, and along
/// equal gates the loss is v (1 - g)^2 / (2 g^2 + (1 - g)^2), whose slope is 2.08 v at most: where
/// twice the penalty is more, copies that nothing tells apart close together, although p < 2 v.
TEST(LinearExact, OfIdenticalCopiesTheCheaperStaysUnlessBothCloseAtOnce) {
  const auto gates_of = [](double p, double unit) {
    LinearMoments moments = redundant_pair(1);
    moments.covariance.row(1) *= unit;
    moments.covariance.col(1) *= unit;
    moments.with_target(1) *= unit;
    return leap_linear_exact(FieldLayout::scalars(2), moments,
                             {.alpha_per_field = p, .learning_rate = 1e-3, .iterations = 10000})
        .gates;
  };
  for (const double p : {0.1, 0.3, 0.6}) {
    const std::vector<double> dearer = gates_of(p, 1.05), cheaper = gates_of(p, 1 / 1.05);
    EXPECT_NEAR(dearer[0], end_point(p * 2 / 2.05), 1e-4);
    EXPECT_LT(dearer[1], closed);
    EXPECT_LT(cheaper[0], closed);
    EXPECT_NEAR(cheaper[1], end_point(p * 2 / 2.05), 1e-4);
  }
  for (const double g : gates_of(1.5, 1)) EXPECT_LT(g, closed);
}

/// T17: permutation importance of a fitted model gives each of two near copies half of the weight
/// and so a quarter of what one by itself would get; gates keep one in full.
TEST(LinearExact, KeepsOneOfTwoCopiesWherePermutationImportanceSpreadsTheCredit) {
  constexpr Index rows = 4000;
  Rows<double> x = normal_rows<double>(rows, 2, 5);
  x.col(1) = x.col(0) + 0.01 * x.col(1);
  x.rowwise() -= x.colwise().mean().eval();
  const Eigen::VectorXd y = x.col(0) + normal_rows<double>(rows, 1, 6);
  const LinearMoments moments{x.transpose() * x / rows, x.transpose() * y / rows,
                              y.squaredNorm() / rows};
  const Eigen::MatrixXd ridge = moments.covariance + 0.1 * Eigen::MatrixXd::Identity(2, 2);
  const Eigen::VectorXd w = ridge.inverse() * moments.with_target;
  const auto importance =
      permutation_importance(FieldLayout::scalars(2), x, [&](TensorView<const double, 2> permuted) {
        double sum = 0;
        for (Index b = 0; b < rows; ++b) {
          const double error = y(b) - permuted(b, 0) * w(0) - permuted(b, 1) * w(1);
          sum -= error * error;
        }
        return sum / rows;
      });
  // 2 w^2 of each copy, w about 1/2 less the ridge; one by itself has 2.
  EXPECT_NEAR(importance.mean(0) / importance.mean(1), 1, 0.1);
  EXPECT_LT(importance.mean.sum(), 1.2);

  const LinearExact kept =
      leap_linear_exact(FieldLayout::scalars(2), moments, {.alpha_per_field = 0.5});
  const double best = std::max(kept.gates[0], kept.gates[1]);
  const double worst = std::min(kept.gates[0], kept.gates[1]);
  EXPECT_NEAR(best, end_point(0.5), 0.02);
  EXPECT_LT(worst, closed);
}

TEST(LinearExact, WithoutAPenaltyAllThatExplainsStays) {
  const LinearMoments moments = LinearData(500, 7, 7).moments();
  const LinearExact result =
      leap_linear_exact(FieldLayout({1, 3, 1, 2}), moments, {.alpha_per_field = 0});
  for (const double g : result.gates) EXPECT_GT(g, 0.99);
  EXPECT_EQ(result.ranking.order.size(), 4u);
  const LinearExact none =
      leap_linear_exact(FieldLayout({1, 3, 1, 2}), moments, {.alpha_per_field = 25});
  for (const double g : none.gates) EXPECT_LT(g, closed);
  EXPECT_NEAR(none.model.loss, moments.target_variance, 1e-3);
}

TEST(LinearExact, RefusesBadInput) {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const std::string loss = "feature::linear_gate_loss", descent = "feature::leap_linear_exact";
  const FieldLayout layout = FieldLayout::scalars(2);
  const LinearMoments good = redundant_pair(0.5);
  const std::vector<double> gates{0.5, 0.5};
  refusal([&] { linear_gate_loss(FieldLayout(), good, gates); }, loss, "layout");
  refusal([&] { linear_gate_loss(FieldLayout::scalars(3), good, gates); }, loss, "covariance");
  const auto bad = [&](const std::string& argument, auto&& change) {
    LinearMoments moments = good;
    change(moments);
    refusal([&] { linear_gate_loss(layout, moments, gates); }, loss, argument);
    refusal([&] { leap_linear_exact(layout, moments); }, descent, argument);
  };
  bad("with_target", [](LinearMoments& m) { m.with_target.conservativeResize(1); });
  bad("with_target", [&](LinearMoments& m) { m.with_target(0) = nan; });
  bad("covariance", [&](LinearMoments& m) { m.covariance(1, 0) = nan; });
  bad("covariance", [](LinearMoments& m) { m.covariance(1, 0) = 0.4; });
  bad("covariance", [](LinearMoments& m) { m.covariance(1, 1) = -1; });
  bad("target_variance", [](LinearMoments& m) { m.target_variance = -1; });
  bad("target_variance", [&](LinearMoments& m) { m.target_variance = nan; });
  for (const std::vector<double>& wrong :
       {std::vector{0.5}, std::vector{0.5, 1.1}, std::vector{-0.1, 0.5}, std::vector{nan, 0.5}})
    refusal([&] { linear_gate_loss(layout, good, wrong); }, loss, "gates");
  const auto option = [&](const std::string& argument, const LinearExactOptions& options) {
    refusal([&] { leap_linear_exact(layout, good, options); }, descent, argument);
  };
  option("alpha_per_field", {.alpha_per_field = -1});
  option("alpha_per_field", {.alpha_per_field = nan});
  option("penalty", {.penalty = Penalty::L1});
  option("penalty", {.penalty = Penalty::L2});
  option("gate.kind", {.gate = {.kind = GateKind::Stg}});
  option("gate.temperature.start", {.gate = {.temperature = {.start = 0}}});
  option("learning_rate", {.learning_rate = 0});
  option("iterations", {.iterations = 0});
}

}  // namespace
}  // namespace feature_linear_exact_test
