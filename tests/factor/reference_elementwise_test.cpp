// SPDX-License-Identifier: Apache-2.0
// The reference of the element-wise weighted problem.
#include <gtest/gtest.h>

#include <Eigen/Core>

#include <algorithm>
#include <cmath>
#include <limits>

#include <pare/factor/elementwise.hpp>
#include <pare/factor/reference.hpp>

#include "factor/data.hpp"

namespace factor_reference_elementwise_test {
namespace {

using namespace pare::factor;
using namespace pare::testing;
using Eigen::MatrixXd;
using Eigen::VectorXd;
using pare::Index;
using pare::TensorView;
using pare::to_view;

constexpr ElementwiseMethod methods[] = {ElementwiseMethod::Als, ElementwiseMethod::Em};

TensorView<const double, 2> view(const MatrixXd& m) { return as_const(to_view(m)); }

ElementwiseLowRank<double> solve(const MatrixXd& w, const MatrixXd& f,
                                 const ElementwiseOptions& options) {
  return detail::reference_elementwise_svd("factor::elementwise_svd", view(w), view(f), options);
}

LowRank<double> closed_form(const MatrixXd& w, const VectorXd& output, const VectorXd& input,
                            Index k) {
  return detail::reference_factorize("factor::factorize", view(w), BothWeights(output, input),
                                     {.rank = k});
}

/// The instance of the specification: 30 x 20, weights the squares of normal numbers.
const MatrixXd w = normal_matrix(30, 20, 1);
const MatrixXd f = normal_matrix(30, 20, 2).cwiseAbs2();

/// Rounding of a loss that is computed from a product of factors.
double loss_bound(const MatrixXd& weights) {
  return 2 * weights.maxCoeff() * w.norm() * decomposition_bound(30, 20, w.norm());
}

TEST(ReferenceElementwiseSvd, LossesFallAndAreThoseOfTheFactors) {
  for (const auto method : methods)
    for (const Index k : {1, 4, 12}) {
      const auto r = solve(w, f, {.rank = k, .sweeps = 60, .method = method, .tolerance = 0});
      ASSERT_GE(r.losses.size(), 3u);
      for (std::size_t i = 1; i < r.losses.size(); ++i)
        EXPECT_LE(r.losses[i], r.losses[i - 1] + loss_bound(f));
      const double loss = elementwise_objective(w, product(r.factors), f);
      EXPECT_TRUE(within(loss, r.losses.back(), loss_bound(f)));
      EXPECT_TRUE(within(r.factors.error() * r.factors.error(), loss, loss_bound(f)));
      EXPECT_TRUE(within(r.factors.error_bound * r.factors.error_bound, loss, loss_bound(f)));
      EXPECT_TRUE(
          within(r.factors.total_energy, f.cwiseProduct(w.cwiseAbs2()).sum(), loss_bound(f)));
      EXPECT_EQ(r.factors.steps, static_cast<int>(r.losses.size()) - 1);
      EXPECT_EQ(r.factors.rank(), k);
    }
}

TEST(ReferenceElementwiseSvd, StartsFromTheLowerClosedFormAndBeatsThem) {
  const VectorXd sums = f.rowwise().sum(), columns = f.colwise().sum().transpose();
  const auto fwsvd =
      detail::reference_factorize("factor::factorize", view(w), OutputWeights(sums), {.rank = 4});
  const auto plain =
      detail::reference_factorize("factor::factorize", view(w), Uniform{}, {.rank = 4});
  const double start =
      std::min(elementwise_objective(w, product(fwsvd), f),
               elementwise_objective(w, product(closed_form(w, sums, columns, 4)), f));
  for (const auto method : methods) {
    const auto r = solve(w, f, {.rank = 4, .sweeps = 300, .method = method, .tolerance = 1e-6});
    EXPECT_TRUE(within(r.losses.front(), start, loss_bound(f)));
    // The specification measured less than half of either.
    EXPECT_LT(r.losses.back(), 0.6 * start);
    EXPECT_LT(r.losses.back(), 0.6 * elementwise_objective(w, product(plain), f));
  }
}

TEST(ReferenceElementwiseSvd, AlsEndsWhereNoFactorCanImprove) {
  const auto r = solve(w, f, {.rank = 3, .sweeps = 500, .tolerance = 1e-14});
  const MatrixXd gradient = f.cwiseProduct(product(r.factors) - w);
  const double scale = f.cwiseProduct(w).norm();
  // d loss / d B = 0 exactly, since B was fitted last; d loss / d A by convergence.
  EXPECT_LT((r.factors.left.transpose() * gradient).norm(), 1e-10 * scale * r.factors.left.norm());
  EXPECT_LT((gradient * r.factors.right.transpose()).norm(), 1e-4 * scale);
}

TEST(ReferenceElementwiseSvd, RankOneWeightsReachTheClosedForm) {
  const VectorXd output = positive_weights(30, 3), input = positive_weights(20, 4);
  const MatrixXd weights = output * input.transpose();
  const double best = elementwise_objective(w, product(closed_form(w, output, input, 3)), weights);
  const auto r = solve(w, weights, {.rank = 3, .sweeps = 0});
  EXPECT_TRUE(within(r.losses.front(), best, 1e-8 * best + loss_bound(weights)));
  const auto rows =
      detail::reference_factorize("factor::factorize", view(w), OutputWeights(output), {.rank = 3});
  const auto s = elementwise_svd(pare::reference, w, weights, rows.left, rows.right,
                                 {.rank = 3, .sweeps = 500, .tolerance = 1e-13});
  EXPECT_GT(s.losses.front(), 1.01 * best) << "the start alone would do";
  EXPECT_TRUE(within(s.losses.back(), best, 1e-8 * best + loss_bound(weights)));
}

TEST(ReferenceElementwiseSvd, RowWeightsAreSolvedByTheStart) {
  const VectorXd output = positive_weights(30, 5);
  const MatrixXd weights = output * Eigen::RowVectorXd::Ones(20);
  const double best = tail_energy(output.cwiseSqrt().asDiagonal() * w, 5);
  for (const auto method : methods) {
    const auto r = solve(w, weights, {.rank = 5, .method = method});
    EXPECT_TRUE(within(r.losses.front(), best, loss_bound(weights)));
    EXPECT_TRUE(within(r.losses.back(), best, loss_bound(weights)));
    EXPECT_EQ(r.losses.size(), 2u) << "one sweep to see that nothing is gained";
  }
}

TEST(ReferenceElementwiseSvd, MissingEntriesAreFilledFromALowRank) {
  const MatrixXd low = normal_matrix(30, 2, 6) * normal_matrix(2, 20, 7);
  MatrixXd mask(30, 20);
  for (Index i = 0; i < 30; ++i)
    for (Index j = 0; j < 20; ++j) mask(i, j) = (i * 7 + j * 3) % 5 == 0 ? 0 : 1;
  const auto r = solve(low, mask, {.rank = 2, .sweeps = 2000, .tolerance = 1e-12});
  EXPECT_TRUE(within((product(r.factors) - low).norm(), 0, 1e-6 * low.norm()));
}

TEST(ReferenceElementwiseSvd, RowsAndColumnsWithoutWeightStayFinite) {
  MatrixXd weights = f;
  weights.row(4).setZero();
  weights.col(9).setZero();
  weights.row(7).tail(18).setZero();  // two weights, for rank 4
  for (const auto method : methods) {
    const auto r = solve(w, weights, {.rank = 4, .sweeps = 30, .method = method, .tolerance = 0});
    EXPECT_TRUE(r.factors.left.allFinite() && r.factors.right.allFinite());
    for (std::size_t i = 1; i < r.losses.size(); ++i)
      EXPECT_LE(r.losses[i], r.losses[i - 1] + loss_bound(weights));
    // Not thrown away: it stays in the subspace of the start.
    EXPECT_GT(product(r.factors).row(4).norm(), 0.01 * w.row(4).norm());
  }
}

TEST(ReferenceElementwiseSvd, OneWeightAlone) {
  MatrixXd weights = MatrixXd::Zero(30, 20);
  weights(11, 3) = 2;
  for (const auto method : methods) {
    const auto r = solve(w, weights, {.rank = 1, .sweeps = 5, .method = method});
    EXPECT_TRUE(within(r.losses.back(), 0, loss_bound(weights)));
    EXPECT_TRUE(within(product(r.factors)(11, 3), w(11, 3), 1e-7));
  }
}

TEST(ReferenceElementwiseSvd, ScalingTheWeightsScalesTheLosses) {
  for (const auto method : methods) {
    const ElementwiseOptions options{.rank = 3, .sweeps = 6, .method = method};
    const auto r = solve(w, f, options), s = solve(w, 1024 * f, options);
    ASSERT_EQ(r.losses.size(), s.losses.size());
    EXPECT_TRUE(within((product(r.factors) - product(s.factors)).norm(), 0, 1e-10));
    for (std::size_t i = 0; i < r.losses.size(); ++i)
      EXPECT_TRUE(within(s.losses[i], 1024 * r.losses[i], 1e-10 * s.losses[i]));
  }
}

TEST(ReferenceElementwiseSvd, StopsBySweepsAndTolerance) {
  EXPECT_EQ(solve(w, f, {.rank = 2, .sweeps = 0}).losses.size(), 1u);
  EXPECT_EQ(solve(w, f, {.rank = 2, .sweeps = 3, .tolerance = 0}).losses.size(), 4u);
  EXPECT_EQ(solve(w, f, {.rank = 2, .sweeps = 50, .tolerance = 1}).losses.size(), 2u);
  const auto r = solve(w, f, {.rank = 2, .sweeps = 500, .tolerance = 1e-3});
  ASSERT_GE(r.losses.size(), 3u);
  ASSERT_LT(r.losses.size(), 501u);
  for (std::size_t i = 1; i < r.losses.size(); ++i) {
    const bool last = i + 1 == r.losses.size();
    EXPECT_EQ(r.losses[i - 1] - r.losses[i] <= 1e-3 * r.losses[i - 1], last);
  }
}

TEST(ReferenceElementwiseSvd, FullRankIsExact) {
  const auto r = solve(w, f, {.rank = 20});
  EXPECT_TRUE(within((product(r.factors) - w).norm(), 0, 1e-10));
}

TEST(ReferenceElementwiseSvd, RefusesBadWeights) {
  const auto refused = [](const MatrixXd& weight, const MatrixXd& weights,
                          const ElementwiseOptions& options, const char* argument) {
    refusal([&] { solve(weight, weights, options); }, "factor::elementwise_svd", argument);
  };
  const double nan = std::numeric_limits<double>::quiet_NaN();
  for (const double bad : {-1e-9, nan, std::numeric_limits<double>::infinity()}) {
    MatrixXd broken = f;
    broken(29, 19) = bad;
    refused(w, broken, {.rank = 2}, "f");
  }
  refused(w, MatrixXd::Zero(30, 20), {.rank = 2}, "f");
  refused(w, f.transpose(), {.rank = 2}, "f");
  refused(w, f, {.rank = 0}, "rank");
  refused(w, f, {.rank = 21}, "rank");
  MatrixXd broken = w;
  broken(0, 0) = nan;
  refused(broken, f, {.rank = 2}, "w");
}

}  // namespace
}  // namespace factor_reference_elementwise_test
