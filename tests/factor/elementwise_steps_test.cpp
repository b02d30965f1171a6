// SPDX-License-Identifier: Apache-2.0
// Conjugate gradients for the lines of the element-wise weighted problem.
#include <gtest/gtest.h>

#include <Eigen/Cholesky>
#include <Eigen/Core>

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

#include <pare/factor/detail/elementwise_als.hpp>
#include <pare/factor/detail/elementwise_steps.hpp>

#include "factor/data.hpp"
#include "support/backends.hpp"

namespace factor_elementwise_steps_test {
namespace {

using namespace pare::factor;
using namespace pare::testing;
using Eigen::MatrixXd;
using Eigen::VectorXd;
using pare::Index;

/// Lines with weights in [0, 1], most small, V of orthonormal rows and right sides.
struct Lines {
  MatrixXd v, weights, right;
  std::vector<double> worth;

  Lines(Index lines, Index n, Index k, int power, std::uint64_t seed)
      : v(orthonormal(n, k, seed).transpose()),
        weights(normal_matrix(lines, n, seed + 2).cwiseAbs().array().pow(power)),
        right(normal_matrix(lines, k, seed + 3)),
        worth(static_cast<std::size_t>(lines), 1.0) {
    for (Index i = 0; i < lines; ++i) weights.row(i) /= weights.row(i).maxCoeff();
  }

  MatrixXd system(Index i) const { return v * weights.row(i).asDiagonal() * v.transpose(); }
  /// How much step d lowers the quadratic of line i.
  double gain(Index i, const VectorXd& d) const {
    return 2 * right.row(i).dot(d) - d.dot(system(i) * d);
  }
  VectorXd best(Index i) const { return system(i).ldlt().solve(right.row(i).transpose()); }

  template <class T, class B>
  MatrixXd solve(const B& backend) const {
    const RowMatrix<T> held = v.cast<T>(), shares = weights.cast<T>();
    detail::LineSteps<B, T> steps(backend, pare::const_view(held), pare::const_view(shares),
                                  RowMatrix<T>(right.cast<T>()), worth);
    return steps.solve().template cast<double>();
  }
};

/// Kernels in either scalar: the reference has decompositions in the place of steps.
using Cases = ::testing::Types<BackendAndScalar<BestBackend, float>,
                               BackendAndScalar<ThreadedBackend, double>>;

template <class Case>
class ElementwiseSteps : public ::testing::Test {};
TYPED_TEST_SUITE(ElementwiseSteps, Cases);

// All together may miss the last share that an iteration gains, and those behind it, which fall
// geometrically: ten such shares.
TYPED_TEST(ElementwiseSteps, GainNearlyAllThatCanBeGained) {
  using T = typename TypeParam::scalar;
  const auto backend = TypeParam::backend::make();
  for (const auto& [lines, n, k, power] : {std::array{37, 301, 40, 2}, std::array{5, 64, 48, 1},
                                           std::array{70, 33, 7, 4}, std::array{1, 9, 1, 2}}) {
    const Lines all(lines, n, k, power, 5);
    const MatrixXd steps = all.template solve<T>(backend);
    double most = 0, got = 0;
    for (Index i = 0; i < lines; ++i) {
      most += all.gain(i, all.best(i));
      got += all.gain(i, steps.row(i).transpose());
    }
    EXPECT_TRUE(within(got, most, 10 * detail::step_gain * most)) << lines << ' ' << n << ' ' << k;
  }
}

// Few iterations suffice: with equal weights the first is exact, with one other weight the second.
TYPED_TEST(ElementwiseSteps, EqualWeightsTakeOneIteration) {
  using T = typename TypeParam::scalar;
  Lines all(6, 50, 12, 1, 9);
  all.weights.setOnes();
  const MatrixXd steps = all.template solve<T>(TypeParam::backend::make());
  EXPECT_TRUE(within((steps - all.right).norm(), 0, 1e-5 * all.right.norm()));
}

TYPED_TEST(ElementwiseSteps, LinesWithoutWeightOrRightSideStay) {
  using T = typename TypeParam::scalar;
  Lines all(4, 50, 12, 2, 11);
  all.right.row(1).setZero();
  all.weights.row(2).setZero();
  all.right.row(2).setZero();  // as it is where no weight is
  const MatrixXd steps = all.template solve<T>(TypeParam::backend::make());
  EXPECT_EQ(steps.row(1).norm(), 0);
  EXPECT_EQ(steps.row(2).norm(), 0);
  EXPECT_GT(steps.row(0).norm(), 0);
  EXPECT_GT(steps.row(3).norm(), 0);
}

// A line is what it is alone, but for where the gain of all ends the iterations.
TYPED_TEST(ElementwiseSteps, LinesDoNotMix) {
  using T = typename TypeParam::scalar;
  const auto backend = TypeParam::backend::make();
  const Lines all(9, 50, 12, 2, 13);
  const MatrixXd together = all.template solve<T>(backend);
  for (const Index i : {0, 4, 8}) {
    Lines one = all;
    one.weights = all.weights.row(i);
    one.right = all.right.row(i);
    one.worth.resize(1);
    const VectorXd alone = one.template solve<T>(backend).row(0).transpose();
    const double best = all.gain(i, all.best(i));
    EXPECT_TRUE(within(all.gain(i, together.row(i).transpose()), best, 1e-2 * best));
    EXPECT_TRUE(within(all.gain(i, alone), best, 10 * detail::step_gain * best));
  }
}

/// W [lines x n], weights of rank one over some three orders of magnitude on either side, and the
/// loss of factors.
template <class T>
struct Fit {
  RowMatrix<T> w = normal_matrix(37, 60, 21).cast<T>();
  RowMatrix<T> f = (positive_weights(37, 22) * positive_weights(60, 23).transpose()).cast<T>();
  RowMatrix<double> x = normal_matrix(24, 37, 24), v = normal_matrix(24, 60, 25);

  template <class B>
  void run(const B& backend, Index most) {
    const VectorXd sums = f.template cast<double>().colwise().sum().transpose();
    detail::fit_lines(backend, pare::const_view(w), pare::const_view(f),
                      detail::line_weights<T>(backend, f, sums), x, v, most);
  }
  MatrixXd gradient() const {
    const MatrixXd residual = w.template cast<double>() - x.transpose() * v;
    return f.template cast<double>().cwiseProduct(residual) * v.transpose();
  }
  double loss() const {
    const MatrixXd residual = w.template cast<double>() - x.transpose() * v;
    return f.template cast<double>().cwiseProduct(residual.cwiseAbs2()).sum();
  }
};

// In the metric of the columns' sums each system is a multiple of the identity, so that the first
// iteration leaves rounding. Without it the gain of all ends them at a hundredth of the gradient.
TYPED_TEST(ElementwiseSteps, WeightsOfRankOneAreFittedExactly) {
  using T = typename TypeParam::scalar;
  Fit<T> fit;
  fit.run(TypeParam::backend::make(), 100);
  Fit<T> before;
  before.v = fit.v;
  before.x.setZero();
  EXPECT_LT(fit.gradient().norm(), 3e-5 * before.gradient().norm());
}

TYPED_TEST(ElementwiseSteps, BlocksOfLinesAreThoseLines) {
  using T = typename TypeParam::scalar;
  Fit<T> uneven;
  uneven.f = uneven.f.cwiseProduct(normal_matrix(37, 60, 26).cwiseAbs2().template cast<T>());
  const double start = uneven.loss();
  Fit<T> blocks = uneven;
  uneven.run(TypeParam::backend::make(), 37);
  blocks.run(TypeParam::backend::make(), 5);
  EXPECT_LT(uneven.loss(), 0.5 * start);
  EXPECT_TRUE(within(blocks.loss(), uneven.loss(), 20 * detail::step_gain * start));
}

}  // namespace
}  // namespace factor_elementwise_steps_test
