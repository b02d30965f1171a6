// SPDX-License-Identifier: Apache-2.0
// The element-wise weighted problem on every backend.
#include <gtest/gtest.h>

#include <Eigen/Core>

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <type_traits>
#include <vector>

#include <pare/factor/elementwise.hpp>
#include <pare/factor/svd.hpp>

#include "factor/data.hpp"
#include "support/backends.hpp"

namespace factor_elementwise_test {
namespace {

using namespace pare::factor;
using namespace pare::testing;
using Eigen::MatrixXd;
using Eigen::VectorXd;
using pare::bf16;
using pare::Index;
using pare::to_view;

constexpr ElementwiseMethod methods[] = {ElementwiseMethod::Als, ElementwiseMethod::Em};

template <class S>
RowMatrix<S> stored(const MatrixXd& m) {
  RowMatrix<S> to(m.rows(), m.cols());
  for (Index i = 0; i < m.rows(); ++i)
    for (Index j = 0; j < m.cols(); ++j) to(i, j) = static_cast<S>(static_cast<float>(m(i, j)));
  return to;
}

MatrixXd wide(const auto& m) { return m.template cast<double>(); }

/// Values that float holds, so that both scalars solve the same problem.
MatrixXd rounded(const MatrixXd& m) { return m.cast<float>().cast<double>(); }

ElementwiseLowRank<double> by_reference(const MatrixXd& w, const MatrixXd& f,
                                        const ElementwiseOptions& options) {
  return detail::reference_elementwise_svd("factor::elementwise_svd", as_const(to_view(w)),
                                           as_const(to_view(f)), options);
}

/// Rounding of a loss in double, and of the start to T, which moves a product by at most that of
/// its factors: d loss <= 2 max F ||W|| d product.
template <class T>
double loss_bound(const MatrixXd& w, const MatrixXd& f) {
  const double moved = decomposition_bound(w.rows(), w.cols(), w.norm()) +
                       4 * Tolerance<T>::unit_roundoff * w.norm() * w.norm();
  return 2 * f.maxCoeff() * w.norm() * moved;
}

/// The loss of the factors as the definition has it.
template <class T>
double loss_of(const MatrixXd& w, const MatrixXd& f, const LowRank<T>& r) {
  return elementwise_objective(w, product(r), f);
}

void expect_falling(const std::vector<double>& losses, double rounding) {
  for (std::size_t i = 1; i < losses.size(); ++i) EXPECT_LE(losses[i], losses[i - 1] + rounding);
}

/// The instance of the specification, 30 x 20, with weights the squares of normal numbers; and one
/// longer than a block of the depth, with sides above a register tile.
struct Instance {
  MatrixXd w, f;
  Index rank;
};
std::vector<Instance> instances() {
  return {{rounded(normal_matrix(30, 20, 1)), rounded(normal_matrix(30, 20, 2).cwiseAbs2()), 4},
          {rounded(normal_matrix(37, 301, 3)), rounded(normal_matrix(37, 301, 4).cwiseAbs2()), 7},
          {rounded(with_spectrum(290, 90, power_spectrum(90, 0.6), 5) * 20),
           rounded(normal_matrix(290, 90, 6).cwiseAbs2()), 11}};
}
const MatrixXd w = instances()[0].w;
const MatrixXd f = instances()[0].f;

template <class Case>
class ElementwiseSvd : public ::testing::Test {
 public:
  static auto backend() { return Case::backend::make(); }
  static auto solve(const MatrixXd& weight, const MatrixXd& weights,
                    const ElementwiseOptions& options) {
    return elementwise_svd(backend(), stored_as(weight), stored_as(weights), options);
  }
  static RowMatrix<typename Case::scalar> stored_as(const MatrixXd& m) {
    return m.cast<typename Case::scalar>();
  }
};
TYPED_TEST_SUITE(ElementwiseSvd, SolverCases);

TYPED_TEST(ElementwiseSvd, LossesFallAndAreThoseOfTheFactors) {
  using T = typename TypeParam::scalar;
  for (const auto& [weight, weights, rank] : instances())
    for (const auto method : methods) {
      const ElementwiseOptions options{
          .rank = rank, .sweeps = 12, .method = method, .tolerance = 0};
      const auto r = this->solve(weight, weights, options);
      const double bound = loss_bound<T>(weight, weights);
      ASSERT_EQ(r.losses.size(), 13u);
      expect_falling(r.losses, TypeParam::backend::is_reference ? bound : 0);
      EXPECT_LT(r.losses[12], 0.9 * r.losses[0]);
      const double loss = loss_of(weight, weights, r.factors);
      EXPECT_TRUE(within(r.losses.back(), loss, bound));
      EXPECT_TRUE(within(r.factors.error() * r.factors.error(), loss, bound));
      EXPECT_TRUE(within(r.factors.error_bound * r.factors.error_bound, loss, bound));
      EXPECT_TRUE(within(r.factors.total_energy, weights.cwiseProduct(weight.cwiseAbs2()).sum(),
                         1e-12 * r.factors.total_energy));
      EXPECT_EQ(r.factors.steps, 12);
      EXPECT_EQ(r.factors.rank(), rank);
    }
}

TYPED_TEST(ElementwiseSvd, LeftCarriesTheSingularValuesAndRightIsOrthonormal) {
  using T = typename TypeParam::scalar;
  for (const auto method : methods) {
    const auto r = this->solve(w, f, {.rank = 4, .sweeps = 5, .method = method}).factors;
    const double u = 100 * Tolerance<T>::unit_roundoff;
    const MatrixXd left = wide(r.left), right = wide(r.right);
    const VectorXd values = jacobi_values(product(r)).head(4);
    EXPECT_TRUE(within((right * right.transpose() - MatrixXd::Identity(4, 4)).norm(), 0, u));
    EXPECT_TRUE(within((r.singular_values - values).norm(), 0, u * values[0]));
    const MatrixXd gram = left.transpose() * left;
    EXPECT_TRUE(within((gram - MatrixXd(r.singular_values.cwiseAbs2().asDiagonal())).norm(), 0,
                       u * values[0] * values[0]));
  }
}

// Both searches begin at one point and take the same sweeps: those of Als end their conjugate
// gradients early and have a ridge, those of Em are two subspace iterations for a decomposition.
TYPED_TEST(ElementwiseSvd, AgreesWithTheReferenceAfterTheSameSweeps) {
  for (const auto& [weight, weights, rank] : instances())
    for (const auto method : methods) {
      const ElementwiseOptions options{.rank = rank, .sweeps = 8, .method = method, .tolerance = 0};
      const auto r = this->solve(weight, weights, options);
      const auto wanted = by_reference(weight, weights, options);
      const bool em = method == ElementwiseMethod::Em;
      ASSERT_EQ(r.losses.size(), wanted.losses.size());
      for (std::size_t i = 0; i < r.losses.size(); ++i)
        EXPECT_TRUE(within(r.losses[i], wanted.losses[i], (em ? 1e-2 : 1e-5) * wanted.losses[i]))
            << "sweep " << i << " rank " << rank << " em " << em << ": "
            << r.losses[i] / wanted.losses[i] - 1;
    }
}

// A high rank for weights over nine orders of magnitude. A sweep may miss some ten times the share
// step_gain of what it gains, and the next starts from there: both go down one valley, a little
// apart.
TYPED_TEST(ElementwiseSvd, AgreesWithTheReferenceForUnevenWeights) {
  const MatrixXd margins = positive_weights(96, 8) * positive_weights(75, 9).transpose();
  const MatrixXd weights = rounded(margins.cwiseProduct(normal_matrix(96, 75, 10).cwiseAbs2()));
  const MatrixXd weight = rounded(with_spectrum(96, 75, power_spectrum(75, 0.4), 7) * 10);
  const ElementwiseOptions options{.rank = 24, .sweeps = 6, .tolerance = 0};
  const auto r = this->solve(weight, weights, options);
  const auto wanted = by_reference(weight, weights, options);
  ASSERT_EQ(r.losses.size(), wanted.losses.size());
  EXPECT_LT(wanted.losses.back(), 0.9 * wanted.losses.front());
  for (std::size_t i = 0; i < r.losses.size(); ++i)
    EXPECT_TRUE(within(r.losses[i], wanted.losses[i], 1e-3 * wanted.losses[i]))
        << "sweep " << i << ": " << r.losses[i] / wanted.losses[i] - 1;
}

TYPED_TEST(ElementwiseSvd, IsNotAboveTheRowWeightedOptimum) {
  using T = typename TypeParam::scalar;
  for (const auto& [weight, weights, rank] : instances()) {
    const VectorXd sums = weights.rowwise().sum();
    const auto start = factorize(this->backend(), this->stored_as(weight), OutputWeights(sums),
                                 {.rank = rank, .accuracy = Accuracy::High});
    const double loss = loss_of(weight, weights, start);
    for (const auto method : methods)
      for (const int sweeps : {0, 3}) {
        const auto r =
            this->solve(weight, weights, {.rank = rank, .sweeps = sweeps, .method = method});
        EXPECT_LE(r.losses.back(), loss + loss_bound<T>(weight, weights));
        if (sweeps > 0) {
          EXPECT_LT(r.losses.back(), 0.95 * loss);
        }
      }
  }
}

/// Weights of rank one, up to their rounding to float, and the least loss for them.
struct RankOne {
  VectorXd output = positive_weights(30, 3), input = positive_weights(20, 4);
  MatrixXd weights = rounded(output * input.transpose());
  double best =
      tail_energy(output.cwiseSqrt().asDiagonal() * w * input.cwiseSqrt().asDiagonal(), 3);

  template <class T>
  double bound() const {
    return 2e-7 * best + loss_bound<T>(w, weights);
  }
};

TYPED_TEST(ElementwiseSvd, RankOneWeightsAreSolvedByTheStart) {
  using T = typename TypeParam::scalar;
  const RankOne one;
  const auto r = this->solve(w, one.weights, {.rank = 3, .sweeps = 0});
  EXPECT_TRUE(within(r.losses.front(), one.best, one.bound<T>()));
}

TYPED_TEST(ElementwiseSvd, RankOneWeightsReachTheClosedForm) {
  using T = typename TypeParam::scalar;
  const RankOne one;
  const auto start = factorize(this->backend(), this->stored_as(w),
                               OutputWeights(VectorXd(one.weights.rowwise().sum())), {.rank = 3});
  const auto r =
      elementwise_svd(this->backend(), this->stored_as(w), this->stored_as(one.weights), start.left,
                      start.right, {.rank = 3, .sweeps = 500, .tolerance = 1e-13});
  EXPECT_GT(r.losses.front(), 1.01 * one.best) << "the start alone would do";
  EXPECT_TRUE(within(r.losses.back(), one.best, one.bound<T>()));
}

// Margins tell of some weights nothing: then the row sums alone lead to the lower loss.
TYPED_TEST(ElementwiseSvd, StartsFromTheLowerOfTwoClosedForms) {
  using T = typename TypeParam::scalar;
  int of_rows = 0, of_both = 0;
  for (std::uint64_t seed = 0; seed < 12; ++seed) {
    const MatrixXd weight = rounded(normal_matrix(24, 16, 200 + seed));
    const MatrixXd weights = rounded(normal_matrix(24, 16, 300 + seed).array().pow(4));
    const VectorXd rows = weights.rowwise().sum(), columns = weights.colwise().sum().transpose();
    const auto loss = [&](const auto& metric) {
      return elementwise_objective(
          weight,
          product(factorize(pare::reference, RowMatrix<double>(weight), metric, {.rank = 3})),
          weights);
    };
    const double first = loss(OutputWeights(rows)), both = loss(BothWeights(rows, columns));
    const auto r = this->solve(weight, weights, {.rank = 3, .sweeps = 0});
    EXPECT_TRUE(within(r.losses.front(), std::min(first, both),
                       1e-6 * first + loss_bound<T>(weight, weights)));
    of_rows += first < 0.99 * both;
    of_both += both < 0.99 * first;
  }
  EXPECT_GT(of_rows, 0);
  EXPECT_GT(of_both, 0);
}

// Where products of margins would lead out of double, the row sums alone do.
TYPED_TEST(ElementwiseSvd, SmallSquaresStartFromTheRowSums) {
  if (std::is_same_v<typename TypeParam::scalar, float>)
    return;  // whose squares are never so small
  const double size = 0x1p-450;
  const auto r = this->solve(w, f, {.rank = 3, .sweeps = 2});
  const auto s = this->solve(size * w, f, {.rank = 3, .sweeps = 2});
  const auto rows = factorize(pare::reference, RowMatrix<double>(w),
                              OutputWeights(VectorXd(f.rowwise().sum())), {.rank = 3});
  EXPECT_TRUE(within(s.losses.front() / size / size, loss_of(w, f, rows), 1e-9));
  EXPECT_LT(s.losses.back() / size / size, 1.2 * r.losses.back());
}

TYPED_TEST(ElementwiseSvd, EqualWeightsGiveThePlainDecomposition) {
  using T = typename TypeParam::scalar;
  for (const double weight : {1.0, 0.37}) {
    const MatrixXd weights = rounded(MatrixXd::Constant(30, 20, weight));
    const double best = weights(0, 0) * tail_energy(w, 5);
    const auto plain = truncated_svd(this->backend(), this->stored_as(w), {.rank = 5});
    for (const auto method : methods) {
      const auto r = this->solve(w, weights, {.rank = 5, .method = method});
      EXPECT_EQ(r.losses.size(), 2u) << "one sweep to see that nothing is gained";
      EXPECT_TRUE(within(r.losses.back(), best, loss_bound<T>(w, weights)));
      // The optimum is flat: the product is off by the root of what the loss is.
      EXPECT_TRUE(within((product(r.factors) - product(plain)).norm(), 0,
                         1000 * std::sqrt(20.0) * Tolerance<T>::unit_roundoff * w.norm()));
    }
  }
}

TYPED_TEST(ElementwiseSvd, RowsAndColumnsWithoutWeightStayFinite) {
  using T = typename TypeParam::scalar;
  MatrixXd weights = f;
  weights.row(4).setZero();
  weights.col(9).setZero();
  weights.row(7).tail(18).setZero();  // two weights, for rank 4
  for (const auto method : methods) {
    const auto r =
        this->solve(w, weights, {.rank = 4, .sweeps = 30, .method = method, .tolerance = 0});
    EXPECT_TRUE(r.factors.left.allFinite() && r.factors.right.allFinite());
    expect_falling(r.losses, loss_bound<T>(w, weights));
    EXPECT_LT(r.losses.back(), 0.95 * r.losses.front()) << "sweeps are not undone";
    // Not thrown away: it stays in the subspace of the start, and does not run off.
    const double row = product(r.factors).row(4).norm(), column = product(r.factors).col(9).norm();
    EXPECT_GT(row, 0.01 * w.row(4).norm());
    EXPECT_LT(row, 10 * w.row(4).norm());
    EXPECT_LT(column, 10 * w.col(9).norm());
  }
}

TYPED_TEST(ElementwiseSvd, OneWeightAlone) {
  MatrixXd weights = MatrixXd::Zero(30, 20);
  weights(11, 3) = 2;
  for (const auto method : methods) {
    const auto r = this->solve(w, weights, {.rank = 1, .sweeps = 5, .method = method});
    EXPECT_TRUE(within(r.losses.back(), 0, 1e-9));
    EXPECT_TRUE(within(product(r.factors)(11, 3), w(11, 3), 1e-5));
  }
}

// One weight in a hundred is of size 1, the others are 1e-12 of it: rows have fewer weights than
// ranks, and what is left of their systems is 1e-12 of the trace.
TYPED_TEST(ElementwiseSvd, WeightsThatAreAlmostAllZeroDoNotRunOff) {
  if (TypeParam::backend::is_reference) return;  // its rows are exact minima, which may run off
  const Index out = 120, in = 200, rank = 16;
  const MatrixXd weight = rounded(with_spectrum(out, in, power_spectrum(out, 0.5), 7) * 10);
  Engine random(8);
  MatrixXd weights(out, in);
  for (double& x : weights.reshaped())
    x = (random() % 100 == 0 ? 1.0 : 1e-12) * (1.5 + uniform(random));
  weights = rounded(weights);
  for (const auto method : methods) {
    const auto start = this->solve(weight, weights, {.rank = rank, .sweeps = 0, .method = method});
    const auto r = this->solve(weight, weights,
                               {.rank = rank, .sweeps = 50, .method = method, .tolerance = 0});
    expect_falling(r.losses, 0);
    EXPECT_LT(r.losses.back(), 0.5 * start.losses.back());
    ASSERT_TRUE(r.factors.left.allFinite() && r.factors.right.allFinite());
    EXPECT_LT(r.factors.singular_values[0], 3 * start.factors.singular_values[0]);
  }
}

TYPED_TEST(ElementwiseSvd, MissingEntriesAreFilledFromALowRank) {
  const MatrixXd low = normal_matrix(30, 2, 6) * normal_matrix(2, 20, 7);
  MatrixXd mask(30, 20);
  for (Index i = 0; i < 30; ++i)
    for (Index j = 0; j < 20; ++j) mask(i, j) = (i * 7 + j * 3) % 5 == 0 ? 0 : 1;
  const auto r = this->solve(low, mask, {.rank = 2, .sweeps = 2000, .tolerance = 1e-10});
  EXPECT_TRUE(within((product(r.factors) - low).norm(), 0, 1e-4 * low.norm()));
}

TYPED_TEST(ElementwiseSvd, FewerDirectionsThanTheRank) {
  const MatrixXd low = rounded(normal_matrix(30, 1, 6)) * rounded(normal_matrix(1, 20, 7));
  for (const auto method : methods)
    for (const MatrixXd& weight : {rounded(low), MatrixXd(MatrixXd::Zero(30, 20))}) {
      const auto r = this->solve(weight, f, {.rank = 4, .sweeps = 5, .method = method});
      ASSERT_TRUE(r.factors.left.allFinite() && r.factors.right.allFinite());
      EXPECT_TRUE(within((product(r.factors) - weight).norm(), 0, 1e-5 * low.norm()));
    }
}

TYPED_TEST(ElementwiseSvd, ScalingTheWeightsScalesTheLosses) {
  for (const auto method : methods) {
    const ElementwiseOptions options{.rank = 3, .sweeps = 6, .method = method};
    const auto r = this->solve(w, f, options);
    for (const double factor : {0x1p-100, 0x1p90}) {
      const auto s = this->solve(w, factor * f, options);
      ASSERT_EQ(r.losses.size(), s.losses.size());
      EXPECT_TRUE(within((product(r.factors) - product(s.factors)).norm(), 0, 1e-6));
      for (std::size_t i = 0; i < r.losses.size(); ++i)
        EXPECT_TRUE(within(s.losses[i], factor * r.losses[i], 1e-6 * s.losses[i]));
    }
  }
}

TYPED_TEST(ElementwiseSvd, StopsBySweepsAndTolerance) {
  EXPECT_EQ(this->solve(w, f, {.rank = 2, .sweeps = 0}).losses.size(), 1u);
  EXPECT_EQ(this->solve(w, f, {.rank = 2, .sweeps = 3, .tolerance = 0}).losses.size(), 4u);
  EXPECT_EQ(this->solve(w, f, {.rank = 2, .sweeps = 50, .tolerance = 1}).losses.size(), 2u);
  const auto r = this->solve(w, f, {.rank = 2, .sweeps = 500, .tolerance = 1e-3});
  ASSERT_GE(r.losses.size(), 3u);
  ASSERT_LT(r.losses.size(), 501u);
  for (std::size_t i = 1; i < r.losses.size(); ++i) {
    const bool last = i + 1 == r.losses.size();
    EXPECT_EQ(r.losses[i - 1] - r.losses[i] <= 1e-3 * r.losses[i - 1], last);
  }
}

TYPED_TEST(ElementwiseSvd, LossOfAnyFactors) {
  using T = typename TypeParam::scalar;
  const MatrixXd left = rounded(normal_matrix(37, 5, 8)), right = rounded(normal_matrix(5, 301, 9));
  const auto [weight, weights, rank] = instances()[1];
  const double wanted = elementwise_objective(weight, left * right, weights);
  const Eigen::Matrix<T, -1, -1> columns = weight.cast<T>();
  const double got = elementwise_loss(this->backend(), columns, this->stored_as(weights),
                                      this->stored_as(left), this->stored_as(right));
  EXPECT_TRUE(within(got, wanted, 1e-12 * wanted));
}

TYPED_TEST(ElementwiseSvd, ContinuesFromFactorsThatAreGiven) {
  const auto first = this->solve(w, f, {.rank = 3, .sweeps = 2, .tolerance = 0});
  using T = typename TypeParam::scalar;
  const RowMatrix<T> weight = this->stored_as(w), weights = this->stored_as(f);
  const auto more = elementwise_svd(this->backend(), weight, weights, first.factors.left,
                                    first.factors.right, {.rank = 3, .sweeps = 3});
  const double bound = 1e-5 * first.losses.front();
  EXPECT_TRUE(within(more.losses.front(), first.losses.back(), bound));
  EXPECT_LE(more.losses.back(), more.losses.front());
  const auto refused = [&](const MatrixXd& left, const MatrixXd& right, const char* argument) {
    refusal([&] { elementwise_svd(this->backend(), weight, weights, left, right, {.rank = 3}); },
            "factor::elementwise_svd", argument);
  };
  const MatrixXd left = MatrixXd::Ones(30, 3), right = MatrixXd::Ones(3, 20);
  refused(left.leftCols(2), right, "left");
  refused(left, right.topRows(2), "right");
  refused(left / 0.0, right, "left");
}

// Of random starts the best one is kept: never above the first alone, and below it somewhere.
TYPED_TEST(ElementwiseSvd, RestartsKeepTheBest) {
  bool better = false, better_than_few = false;
  for (std::uint64_t seed = 0; seed < 4; ++seed) {
    const MatrixXd small = normal_matrix(8, 6, 70 + seed);
    const MatrixXd weights = normal_matrix(8, 6, 90 + seed).array().pow(4);
    ElementwiseOptions options{.rank = 2, .sweeps = 60, .tolerance = 1e-6};
    const auto one = this->solve(small, weights, options);
    options.restarts = 1;
    const auto few = this->solve(small, weights, options);
    options.restarts = 6;
    const auto best = this->solve(small, weights, options);
    EXPECT_LE(few.losses.back(), one.losses.back());
    EXPECT_LE(best.losses.back(), few.losses.back());
    better_than_few = better_than_few || best.losses.back() < 0.999 * few.losses.back();
    better = better || best.losses.back() < 0.999 * one.losses.back();
    const double loss = elementwise_objective(small, product(best.factors), weights);
    EXPECT_TRUE(within(best.losses.back(), loss, 1e-4 * one.losses.front()));
    options.method = ElementwiseMethod::Em;
    const auto by_em = this->solve(small, weights, options);
    const auto scaled = this->solve(0x1p20 * small, weights, options);
    EXPECT_EQ(scaled.losses.back(), 0x1p40 * by_em.losses.back()) << "starts are as large as W";
  }
  EXPECT_TRUE(better);
  EXPECT_TRUE(better_than_few) << "starts differ";
}

TEST(ElementwiseStart, RandomFactorsAreAsLargeAsAsked) {
  const auto start = detail::random_start(60, 50, {.rank = 4}, 0, 3.0);
  const double size = (start.left * start.right).norm() / std::sqrt(3000.0);
  EXPECT_TRUE(within(size, 3.0, 0.6));
  EXPECT_NE(start.left(0, 0) * std::sqrt(4.0) / 3, start.right(0, 0)) << "of two streams";
}

TYPED_TEST(ElementwiseSvd, EitherStorageOrderIsTheSame) {
  using T = typename TypeParam::scalar;
  const Eigen::Matrix<T, -1, -1> w_columns = w.cast<T>(), f_columns = f.cast<T>();
  const ElementwiseOptions options{.rank = 3, .sweeps = 4};
  const auto r = this->solve(w, f, options).factors;
  const auto s = elementwise_svd(this->backend(), w_columns, f_columns, options).factors;
  EXPECT_TRUE(equal_bits(r.left, s.left) && equal_bits(r.right, s.right));
}

TYPED_TEST(ElementwiseSvd, RefusesBadInput) {
  const auto refused = [](const MatrixXd& weight, const MatrixXd& weights,
                          const ElementwiseOptions& options, const char* argument) {
    refusal([&] { TestFixture::solve(weight, weights, options); }, "factor::elementwise_svd",
            argument);
  };
  const double nan = std::numeric_limits<double>::quiet_NaN();
  for (const double bad : {-1e-9, nan, std::numeric_limits<double>::infinity()}) {
    MatrixXd broken = f;
    broken(29, 19) = bad;
    refused(w, broken, {.rank = 2}, "f");
  }
  refused(w, MatrixXd::Zero(30, 20), {.rank = 2}, "f");
  refused(w, f.transpose(), {.rank = 2}, "f");
  refused(w, f.topRows(29), {.rank = 2}, "f");
  refused(w, f, {.rank = 0}, "rank");
  refused(w, f, {.rank = 21}, "rank");
  refused(w, f, {.rank = 2, .sweeps = -1}, "sweeps");
  refused(w, f, {.rank = 2, .restarts = -1}, "restarts");
  refused(w, f, {.rank = 2, .tolerance = nan}, "tolerance");
  refused(MatrixXd(0, 20), MatrixXd(0, 20), {.rank = 1}, "w");
  MatrixXd broken = w;
  broken(0, 0) = nan;
  refused(broken, f, {.rank = 2}, "w");
  for (const int none : {-1, 2})
    refused(w, f, {.rank = 2, .method = ElementwiseMethod(none)}, "method");
}

// Losses that vanish or overflow would tell nothing, factors beyond their scalar are none.
TYPED_TEST(ElementwiseSvd, RefusesSquaresThatNoNumberHolds) {
  using T = typename TypeParam::scalar;
  const MatrixXd left = normal_matrix(30, 2, 1), right = normal_matrix(2, 20, 2);
  const MatrixXd large = 1e200 * left;
  const auto refused = [&](const MatrixXd& weight, const MatrixXd& start, const char* argument) {
    const RowMatrix<T> held = TestFixture::stored_as(weight), weights = TestFixture::stored_as(f);
    return refusal(
        [&] { elementwise_svd(this->backend(), held, weights, start, right, {.rank = 2}); },
        "factor::elementwise_svd", argument);
  };
  EXPECT_NE(refused(w, large, "left").find("finite"), std::string::npos);
  refusal([&] { elementwise_loss(this->backend(), w, f, large, right); },
          "factor::elementwise_loss", "left");
  if (std::is_same_v<T, float>) {
    const RowMatrix<T> ones = RowMatrix<T>::Ones(30, 20);
    refusal(
        [&] { elementwise_svd(this->backend(), RowMatrix<T>(3e38F * ones), ones, {.rank = 1}); },
        "factor::elementwise_svd", "w");
  } else {
    EXPECT_NE(refused(1e-170 * w, left, "w").find("1e-292"), std::string::npos);
    refused(1e170 * w, left, "w");
  }
  const RowMatrix<T> zero = RowMatrix<T>::Zero(30, 20);
  EXPECT_EQ(elementwise_svd(this->backend(), zero, TestFixture::stored_as(f), {.rank = 2})
                .factors.total_energy,
            0);
}

TYPED_TEST(ElementwiseSvd, LossRefusesBadInput) {
  const MatrixXd left = normal_matrix(30, 2, 1), right = normal_matrix(2, 20, 2);
  const auto refused = [](const MatrixXd& weight, const MatrixXd& weights, const MatrixXd& a,
                          const MatrixXd& b, const char* argument) {
    refusal([&] { elementwise_loss(TestFixture::backend(), weight, weights, a, b); },
            "factor::elementwise_loss", argument);
  };
  refused(w, -f, left, right, "f");
  refused(w, f.transpose(), left, right, "f");
  refused(w, f, left.topRows(29), right, "left");
  refused(w, f, left, right.topRows(1), "right");
  refused(w, f, left, right.leftCols(19), "right");
  refused(w, f, left, right / 0.0, "right");
}

TEST(ElementwiseStorages, BfloatsAreTheirValues) {
  const auto weight = stored<bf16>(w);
  const auto weights = stored<bf16>(f);
  MatrixXd w_wide(30, 20), f_wide(30, 20);
  for (Index i = 0; i < 30; ++i)
    for (Index j = 0; j < 20; ++j) {
      w_wide(i, j) = static_cast<double>(static_cast<float>(weight(i, j)));
      f_wide(i, j) = static_cast<double>(static_cast<float>(weights(i, j)));
    }
  for (const auto method : methods) {
    const ElementwiseOptions options{.rank = 4, .sweeps = 6, .method = method};
    const auto r = elementwise_svd(weight, weights, options);
    const RowMatrix<float> w_float = w_wide.cast<float>(), f_float = f_wide.cast<float>();
    const auto s = elementwise_svd(w_float, f_float, options);
    EXPECT_TRUE(equal_bits(r.factors.left, s.factors.left));
    EXPECT_TRUE(equal_bits(r.factors.right, s.factors.right));
    EXPECT_TRUE(within(elementwise_loss(weight, weights, r.factors.left, r.factors.right),
                       r.losses.back(), loss_bound<float>(w_wide, f_wide)));
  }
}

// Scalars of W and F may differ.
TEST(ElementwiseStorages, DoubleWeightsOfFloats) {
  const RowMatrix<float> weight = w.cast<float>(), narrow = f.cast<float>();
  const RowMatrix<double> weights = f;
  const auto r = elementwise_svd(weight, weights, {.rank = 4, .sweeps = 6});
  const auto s = elementwise_svd(weight, narrow, {.rank = 4, .sweeps = 6});
  EXPECT_TRUE(equal_bits(r.factors.left, s.factors.left));
}

TEST(ElementwiseThreads, TheSameBitsForEveryNumber) {
  const Index out = 230, in = 300, rank = 70;
  const RowMatrix<float> weight = normal_matrix(out, in, 11).cast<float>();
  const RowMatrix<float> weights = normal_matrix(out, in, 12).cwiseAbs2().cast<float>();
  for (const auto method : methods) {
    const ElementwiseOptions options{.rank = rank, .sweeps = 2, .method = method};
    const auto one = elementwise_svd(pare::simd, weight, weights, options);
    const auto expect_same = [&](const auto& backend) {
      const auto r = elementwise_svd(backend, weight, weights, options);
      EXPECT_TRUE(equal_bits(one.factors.left, r.factors.left));
      EXPECT_TRUE(equal_bits(one.factors.right, r.factors.right));
      EXPECT_EQ(one.losses, r.losses);
      EXPECT_EQ(one.losses.back(),
                one.losses.back() -
                    elementwise_loss(backend, weight, weights, r.factors.left, r.factors.right) +
                    elementwise_loss(weight, weights, r.factors.left, r.factors.right));
    };
    for (int threads = 1; threads <= 4; ++threads) expect_same(pare::simd.threads(threads));
    expect_same(pare::simd.on(ReversePool{3}));
  }
}

}  // namespace
}  // namespace factor_elementwise_test
