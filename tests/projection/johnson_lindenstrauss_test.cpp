// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <Eigen/Core>

#include <cmath>
#include <limits>

#include <pare/projection/johnson_lindenstrauss.hpp>
#include <pare/projection/project.hpp>

#include "support/matrices.hpp"

namespace projection_johnson_lindenstrauss_test {
namespace {

using pare::Index;
using pare::projection::johnson_lindenstrauss_dim;
using pare::testing::refusal;

// Values of scikit-learn's documentation.
TEST(JohnsonLindenstrauss, GoldenDimensions) {
  EXPECT_EQ(johnson_lindenstrauss_dim(10'000, 0.1), 7894);
  EXPECT_EQ(johnson_lindenstrauss_dim(100'000, 0.1), 9868);
  EXPECT_EQ(johnson_lindenstrauss_dim(1'000'000, 0.1), 11841);
  EXPECT_EQ(johnson_lindenstrauss_dim(1'000'000, 0.5), 663);
  EXPECT_EQ(johnson_lindenstrauss_dim(1'000'000, 0.01), 1'112'658);
  EXPECT_EQ(johnson_lindenstrauss_dim(1000, 0.3), 767);
  EXPECT_EQ(johnson_lindenstrauss_dim(1, 0.5), 0);
}

TEST(JohnsonLindenstrauss, RefusesWhatHasNoDimension) {
  const std::string function = "projection::johnson_lindenstrauss_dim";
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const double inf = std::numeric_limits<double>::infinity();
  for (const double eps : {0.0, 1.0, -0.1, 1.5, nan, inf, -inf, 1e-200})
    refusal([&] { johnson_lindenstrauss_dim(100, eps); }, function, "eps");
  for (const Index samples : {Index{0}, Index{-1}, std::numeric_limits<Index>::min()})
    refusal([&] { johnson_lindenstrauss_dim(samples, 0.5); }, function, "samples");
}

// An operator of no size has no entries, whose number and magnitude are 0.
TEST(Operators, WithoutASizeHaveNoEntries) {
  const pare::projection::SparseProjection none, no_input{.output_dim = 8},
      no_output{.input_dim = 9};
  for (const auto& r : {none, no_input, no_output}) {
    EXPECT_EQ(r.entry_scale(), 0.0);
    EXPECT_EQ(r.expected_column_nonzeros(), 0.0);
  }
  EXPECT_EQ(none.effective_density(), 0.0);
  EXPECT_EQ(no_output.effective_density(), 1.0 / 3.0);
  EXPECT_EQ(pare::projection::SparseSignProjection{.nonzeros = 0}.entry_scale(), 0.0);
}

// The page's test asks for 1000 points. 300 keep 44850 of the 499500 pairs at the same dimension
// (767, that of 1000 points), so each pair is as likely to be off; what is lost is only pairs.
template <class R>
void expect_distances_kept(const R& r, double eps) {
  constexpr Index points = 300;
  pare::testing::Engine random(21);
  Eigen::MatrixXd x(points, r.input_dim), y(points, r.output_dim);
  for (Index i = 0; i < points; ++i)
    for (Index j = 0; j < r.input_dim; ++j) x(i, j) = pare::testing::normal(random);
  project(x, r, y);
  Index outside = 0;
  double mean = 0;
  for (Index i = 0; i < points; ++i)
    for (Index j = 0; j < i; ++j) {
      const double ratio =
          (y.row(i) - y.row(j)).squaredNorm() / (x.row(i) - x.row(j)).squaredNorm();
      outside += ratio > 1 - eps && ratio < 1 + eps ? 0 : 1;
      mean += ratio / (points * (points - 1) / 2);
    }
  EXPECT_EQ(outside, 0);
  // Each ratio has a standard deviation of sqrt(2 / k) = 0.05, and points share pairs.
  EXPECT_NEAR(mean, 1, 0.05);
}

TEST(JohnsonLindenstrauss, AllDistancesStayWithinTheDistortion) {
  const Index k = johnson_lindenstrauss_dim(1000, 0.3);
  expect_distances_kept(pare::projection::achlioptas(900, k, 1), 0.3);
  expect_distances_kept(pare::projection::very_sparse(900, k, 2), 0.3);
  expect_distances_kept(pare::projection::SparseSignProjection{900, k, 8, 3}, 0.3);
}

}  // namespace
}  // namespace projection_johnson_lindenstrauss_test
