// SPDX-License-Identifier: Apache-2.0
// Mean and variance of ||Rx||^2 and <Rx, Rz> over fixed seeds against their exact values, which
// follow from the first four moments of the entries.
#include <gtest/gtest.h>

#include <Eigen/Core>

#include <cmath>
#include <functional>
#include <vector>

#include <pare/projection/project.hpp>

#include "support/matrices.hpp"

namespace projection_moments_test {
namespace {

using pare::Index;
using pare::projection::SparseProjection;
using pare::projection::SparseSignProjection;

constexpr Index input_dim = 40;
constexpr Index output_dim = 70;
constexpr int seeds = 8000;

struct Sample {
  std::vector<double> values;

  double mean() const {
    double sum = 0;
    for (const double v : values) sum += v;
    return sum / static_cast<double>(values.size());
  }
  double central(int power) const {
    const double m = mean();
    double sum = 0;
    for (const double v : values) sum += std::pow(v - m, power);
    return sum / static_cast<double>(values.size());
  }

  /// Mean within 5 sqrt(variance / n); sample variance within 5 of its own standard errors,
  /// sqrt((m4 - variance^2) / n).
  void expect(double wanted_mean, double wanted_variance, const char* what) const {
    const auto n = static_cast<double>(values.size());
    EXPECT_NEAR(mean(), wanted_mean, 5 * std::sqrt(wanted_variance / n)) << what;
    const double spread = std::sqrt((central(4) - central(2) * central(2)) / n);
    EXPECT_NEAR(central(2), wanted_variance, 5 * spread) << what;
    // The test has power: an error of a fifth in the variance would be seen.
    EXPECT_LT(5 * spread, wanted_variance / 5) << what;
  }
};

Eigen::Matrix<double, 2, input_dim> two_vectors() {
  return pare::testing::random_matrix<Eigen::Matrix<double, 2, input_dim>>(2, input_dim, 99);
}

/// R of each seed applied to x and z.
template <class Make>
void expect_moments(const Make& make, double norm_variance, double dot_variance) {
  const auto xz = two_vectors();
  Sample norm, dot;
  Eigen::Matrix<double, 2, Eigen::Dynamic> y(2, output_dim);
  pare::Workspace workspace;
  for (int seed = 0; seed < seeds; ++seed) {
    project(pare::simd.with(workspace), xz, make(static_cast<std::uint64_t>(seed)), y);
    norm.values.push_back(y.row(0).squaredNorm());
    dot.values.push_back(y.row(0).dot(y.row(1)));
  }
  norm.expect(xz.row(0).squaredNorm(), norm_variance, "||Rx||^2");
  dot.expect(xz.row(0).dot(xz.row(1)), dot_variance, "<Rx, Rz>");
}

void expect_bernoulli_moments(double density) {
  const auto xz = two_vectors();
  const Eigen::ArrayXd x2 = xz.row(0).array().square(), z2 = xz.row(1).array().square();
  const double excess = 1 / density - 3, dot = xz.row(0).dot(xz.row(1));
  expect_moments(
      [&](std::uint64_t seed) { return SparseProjection{input_dim, output_dim, density, seed}; },
      (2 * x2.sum() * x2.sum() + excess * (x2 * x2).sum()) / output_dim,
      (x2.sum() * z2.sum() + dot * dot + excess * (x2 * z2).sum()) / output_dim);
}

TEST(Moments, Achlioptas) { expect_bernoulli_moments(1.0 / 3); }
TEST(Moments, VerySparse) { expect_bernoulli_moments(1 / std::sqrt(double(input_dim))); }
TEST(Moments, Rademacher) { expect_bernoulli_moments(1); }
TEST(Moments, SparserThanUsual) { expect_bernoulli_moments(0.05); }

TEST(Moments, SparseSign) {
  const auto xz = two_vectors();
  const Eigen::ArrayXd x2 = xz.row(0).array().square(), z2 = xz.row(1).array().square();
  const double dot = xz.row(0).dot(xz.row(1));
  for (const Index nonzeros : {1, 7, 14})
    expect_moments(
        [&](std::uint64_t seed) {
          return SparseSignProjection{input_dim, output_dim, nonzeros, seed};
        },
        2 * (x2.sum() * x2.sum() - (x2 * x2).sum()) / output_dim,
        (x2.sum() * z2.sum() + dot * dot - 2 * (x2 * z2).sum()) / output_dim);
}

// One-hot vectors keep their norm exactly: c squares of fl(1/sqrt(c)) sum to 1 within the roundings
// of the scale (twice in the square), the square, and the sum.
TEST(Moments, SparseSignKeepsTheNormOfOneHotVectors) {
  const Eigen::MatrixXd x = Eigen::MatrixXd::Identity(input_dim, input_dim);
  for (const Index nonzeros : {1, 3, 4, 16, 70}) {
    Eigen::MatrixXd y(input_dim, output_dim);
    project(x, SparseSignProjection{input_dim, output_dim, nonzeros, 6}, y);
    for (Index j = 0; j < input_dim; ++j) {
      long double squares = 0;
      Index entries = 0;
      for (Index i = 0; i < output_dim; ++i) {
        squares += static_cast<long double>(y(j, i)) * y(j, i);
        entries += y(j, i) != 0 ? 1 : 0;
      }
      EXPECT_EQ(entries, nonzeros);
      // One ulp of 1 covers the two roundings of the scale: the squares add up in long double.
      EXPECT_LE(std::abs(squares - 1), 0x1p-52L * 1.5L) << nonzeros;
    }
  }
}

}  // namespace
}  // namespace projection_moments_test
