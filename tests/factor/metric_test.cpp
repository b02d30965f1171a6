// SPDX-License-Identifier: Apache-2.0
// What metrics hand to a solver, and what is refused of them.
#include <gtest/gtest.h>

#include <Eigen/Core>

#include <array>
#include <cmath>
#include <limits>
#include <span>
#include <string>
#include <type_traits>
#include <vector>

#include <pare/factor/detail/metric_checks.hpp>
#include <pare/factor/metric.hpp>

#include "factor/data.hpp"

namespace factor_metric_test {
namespace {

using namespace pare::factor;
using pare::as_const;
using pare::bf16;
using pare::Index;
using pare::to_view;
using pare::testing::refusal;

const double nan = std::numeric_limits<double>::quiet_NaN();
const double infinity = std::numeric_limits<double>::infinity();

/// A metric of a user: the first outputs count, the others do not.
struct FirstOutputs : Uniform {
  std::array<double, 4> weights{1, 1, 0, 0};
  std::span<const double> output_weights() const { return weights; }
};

struct WithoutCovariance {
  std::span<const double> output_weights() const { return {}; }
  std::span<const double> input_weights() const { return {}; }
};

struct ReturnsAVector : Uniform {
  std::vector<double> output_weights() const { return {1, 2}; }  // would dangle as a span
};

static_assert(Metric<Uniform> && Metric<OutputWeights> && Metric<InputWeights> &&
              Metric<BothWeights> && Metric<InputCovariance<float>> &&
              Metric<InputCovariance<double>> && Metric<FirstOutputs>);
static_assert(!Metric<WithoutCovariance> && !Metric<ReturnsAVector> && !Metric<int>);
static_assert(std::is_same_v<decltype(InputCovariance(Eigen::MatrixXf())), InputCovariance<float>>);
static_assert(!std::is_constructible_v<OutputWeights, Eigen::MatrixXd> &&
              !std::is_constructible_v<OutputWeights, Eigen::VectorXi>);
static_assert(!std::is_constructible_v<InputCovariance<float>, Eigen::MatrixXd>);
static_assert(!std::is_convertible_v<Eigen::VectorXd, OutputWeights>);

std::vector<double> list(std::span<const double> values) { return {values.begin(), values.end()}; }

template <class M>
void check_all(const M& metric, Index out, Index in) {
  pare::factor::detail::check_metric("factor::f", metric, out, in);
}

template <class M>
void expect_refused(const M& metric, Index out, Index in, const char* argument) {
  refusal([&] { check_all(metric, out, in); }, "factor::f", argument);
}

TEST(Metric, UniformSaysNothing) {
  EXPECT_TRUE(Uniform{}.output_weights().empty());
  EXPECT_TRUE(Uniform{}.input_weights().empty());
  EXPECT_TRUE(Uniform{}.input_covariance().empty());
  EXPECT_NO_THROW(check_all(Uniform{}, 3, 4));
}

TEST(Metric, TakesVectorsOfAnyKindAndCopiesThem) {
  const std::vector<double> wanted{1, 2, 0.5};
  Eigen::VectorXf floats(3);
  floats << 1, 2, 0.5f;
  Eigen::RowVectorXd row = floats.cast<double>().transpose();
  Eigen::MatrixXd matrix(3, 2);
  matrix.col(1) = row.transpose();
  std::vector<float> standard{1, 2, 0.5f};
  std::array<bf16, 3> halves{bf16(1.0f), bf16(2.0f), bf16(0.5f)};
  EXPECT_EQ(list(OutputWeights(floats).output_weights()), wanted);
  EXPECT_EQ(list(OutputWeights(row).output_weights()), wanted);
  EXPECT_EQ(list(OutputWeights(matrix.col(1)).output_weights()), wanted);
  EXPECT_EQ(list(OutputWeights(Eigen::MatrixXd(matrix.transpose()).row(1)).output_weights()),
            wanted);
  EXPECT_EQ(list(OutputWeights(standard).output_weights()), wanted);
  EXPECT_EQ(list(OutputWeights(halves).output_weights()), wanted);
  EXPECT_EQ(list(OutputWeights(std::span<const double>(wanted)).output_weights()), wanted);
  EXPECT_EQ(list(InputWeights(2 * matrix.col(1) / 2).input_weights()), wanted);
  EXPECT_EQ(list(InputWeights((floats.array() + 1 - 1).transpose()).input_weights()), wanted);
  EXPECT_EQ(list(InputWeights(Eigen::VectorXd::Ones(2)).input_weights()),
            (std::vector<double>{1, 1}));
  const OutputWeights kept(standard);
  standard[0] = 7;
  EXPECT_EQ(list(kept.output_weights()), wanted);
  EXPECT_TRUE(kept.input_weights().empty() && kept.input_covariance().empty());
}

TEST(Metric, BothWeightsHaveBothSides) {
  const BothWeights both(std::vector<double>{1, 2}, Eigen::Vector3f(3, 4, 5));
  EXPECT_EQ(list(both.output_weights()), (std::vector<double>{1, 2}));
  EXPECT_EQ(list(both.input_weights()), (std::vector<double>{3, 4, 5}));
  EXPECT_NO_THROW(check_all(both, 2, 3));
  expect_refused(both, 3, 2, "output_weights");
}

TEST(Metric, DampingIsAShareOfTheMeanDiagonal) {
  Eigen::Matrix2d c;
  c << 3, 1, 1, 5;
  EXPECT_EQ(InputCovariance(c).input_covariance().ridge, 0);
  EXPECT_EQ(InputCovariance(c, 0.25).input_covariance().ridge, 1);
  const InputCovariance metric(c, 0.25);
  c(0, 0) = 11;
  EXPECT_EQ(metric.input_covariance().ridge, 2) << "the matrix is the caller's";
  EXPECT_EQ(metric.input_covariance().matrix(0, 0), 11);
  c << 1e308, 0, 0, 1.5e308;
  EXPECT_DOUBLE_EQ(metric.input_covariance().ridge, 0.25 * 1.25e308)
      << "the trace is beyond double";
}

TEST(Metric, WeightsAreCheckedBySizeAndValue) {
  for (const double bad : {nan, infinity, -infinity, -1e-300}) {
    expect_refused(OutputWeights(Eigen::Vector3d(1, bad, 2)), 3, 4, "output_weights");
    expect_refused(InputWeights(Eigen::Vector3d(1, 2, bad)), 4, 3, "input_weights");
  }
  expect_refused(OutputWeights(Eigen::Vector3d::Zero()), 3, 4, "output_weights");
  expect_refused(InputWeights(Eigen::Vector3d::Zero()), 4, 3, "input_weights");
  expect_refused(OutputWeights(Eigen::Vector3d::Ones()), 4, 4, "output_weights");
  expect_refused(OutputWeights(Eigen::Vector3d::Ones()), 2, 4, "output_weights");
  expect_refused(InputWeights(Eigen::Vector3d::Ones()), 3, 4, "input_weights");
  EXPECT_NO_THROW(check_all(OutputWeights(Eigen::Vector3d(0, 5e-324, 0)), 3, 4));
  EXPECT_NO_THROW(check_all(FirstOutputs{}, 4, 9));
  expect_refused(FirstOutputs{}, 5, 9, "output_weights");
}

TEST(Metric, EmptyWeightsAreNoUniformMetric) {
  refusal([] { OutputWeights{Eigen::VectorXd()}; }, "factor::OutputWeights", "weights");
  refusal([] { OutputWeights{std::vector<float>()}; }, "factor::OutputWeights", "weights");
  refusal([] { InputWeights{Eigen::VectorXd()}; }, "factor::InputWeights", "weights");
  refusal([] { InputCovariance{Eigen::MatrixXd()}; }, "factor::InputCovariance", "matrix");
}

TEST(Metric, CovarianceIsCheckedByShapeAndValue) {
  const Eigen::MatrixXd x = pare::testing::correlated_inputs(20, 4, 5);
  const Eigen::MatrixXd good = x.transpose() * x;
  EXPECT_NO_THROW(check_all(InputCovariance(good, 0.01), 3, 4));
  EXPECT_NO_THROW(check_all(InputCovariance(Eigen::MatrixXf(good.cast<float>())), 3, 4));
  const auto refused = [&](const Eigen::MatrixXd& c, const char* argument, double damping = 0) {
    expect_refused(InputCovariance(c, damping), 3, 4, argument);
  };
  const auto changed = [&](Index i, Index j, double value) {
    Eigen::MatrixXd c = good;
    c(i, j) = value;
    return c;
  };
  refused(Eigen::MatrixXd::Identity(3, 3), "input_covariance");
  refused(Eigen::MatrixXd::Identity(4, 5), "input_covariance");
  refused(changed(1, 1, nan), "input_covariance");
  refused(changed(0, 3, infinity), "input_covariance");
  const Eigen::MatrixXd negative = changed(3, 3, -1e-9);
  EXPECT_NE(
      refusal([&] { check_all(InputCovariance(negative), 3, 4); }, "factor::f", "input_covariance")
          .find("a diagonal of at least 0"),
      std::string::npos);
  refused(changed(0, 1, good(0, 1) + 2e-5 * std::sqrt(good(0, 0) * good(1, 1))),
          "input_covariance");
  EXPECT_NO_THROW(check_all(
      InputCovariance(changed(0, 1, good(0, 1) + 5e-6 * std::sqrt(good(0, 0) * good(1, 1)))), 3,
      4));
  refused(Eigen::MatrixXd::Zero(4, 4), "input_covariance");
  for (const double bad : {-0.01, nan, infinity}) refused(good, "damping", bad);
}

TEST(Metric, ATemporaryCovarianceIsKeptAndANamedOneIsNot) {
  const auto metric = InputCovariance(Eigen::MatrixXd(2 * Eigen::MatrixXd::Identity(3, 3)));
  const auto copy = metric;
  EXPECT_EQ(copy.input_covariance().matrix.data, metric.input_covariance().matrix.data);
  EXPECT_EQ(metric.input_covariance().matrix(2, 2), 2);
  const Eigen::MatrixXd named = Eigen::MatrixXd::Identity(3, 3);
  EXPECT_EQ(InputCovariance(named).input_covariance().matrix.data, named.data());
  const Eigen::Map<const Eigen::MatrixXd> map(named.data(), 3, 3);
  EXPECT_EQ(InputCovariance(Eigen::Map<const Eigen::MatrixXd>(map)).input_covariance().matrix.data,
            named.data());
}

TEST(Metric, ViewsThatCannotBeReadAreRefused) {
  using Vector = pare::TensorView<const double, 1>;
  using Matrix = pare::TensorView<const double, 2>;
  refusal([] { OutputWeights(Vector{nullptr, {3}, {1}}); }, "factor::metric", "weights");
  const double one = 1;
  refusal([&] { InputWeights(Vector{&one, {-3}, {1}}); }, "factor::metric", "weights");
  refusal([] { InputCovariance(Matrix{nullptr, {3, 3}, {3, 1}}); }, "factor::InputCovariance",
          "matrix");
}

TEST(Metric, InputsHaveWeightsOrACovariance) {
  struct Twice : InputCovariance<double> {
    using InputCovariance<double>::InputCovariance;
    std::array<double, 2> weights{1, 1};
    std::span<const double> input_weights() const { return weights; }
  };
  static_assert(Metric<Twice>);
  const Eigen::MatrixXd c = Eigen::MatrixXd::Identity(2, 2);
  expect_refused(Twice(c), 3, 2, "input_covariance");
}

TEST(Metric, EigenvaluesDecideWhetherACovarianceIsOne) {
  using pare::factor::detail::check_semi_definite;
  EXPECT_NO_THROW(check_semi_definite("factor::f", "c", 0, 5));
  EXPECT_NO_THROW(check_semi_definite("factor::f", "c", -4e-6, 5));
  refusal([] { check_semi_definite("factor::f", "c", -6e-6, 5); }, "factor::f", "c");
  refusal([] { check_semi_definite("factor::f", "c", -1, nan); }, "factor::f", "c");
}

}  // namespace
}  // namespace factor_metric_test
