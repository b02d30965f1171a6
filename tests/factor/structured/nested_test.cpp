// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <Eigen/Core>
#include <Eigen/Eigenvalues>
#include <Eigen/QR>
#include <Eigen/SVD>

#include <pare/factor/structured/nested.hpp>
#include <pare/factor/structured/nested_gradients.hpp>
#include <pare/factor/structured/nested_training.hpp>
#include <pare/factor/structured/ordered_dropout.hpp>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <vector>

#include "support/matrices.hpp"
#include "support/properties.hpp"

namespace factor_structured_nested_test {
namespace {

using namespace pare::factor;
using pare::Index;
using pare::RowMatrix;
using pare::testing::random_matrix;
using pare::testing::refusal;
using Matrix = RowMatrix<double>;

/// A matrix with singular values 1, ratio, ratio^2, ...
Matrix of_spectrum(Index rows, Index cols, double ratio, std::uint64_t seed) {
  const Index rank = std::min(rows, cols);
  const auto basis = [&](Index n, std::uint64_t s) {
    return Eigen::MatrixXd(
        Eigen::MatrixXd(random_matrix<Matrix>(n, rank, s)).householderQr().householderQ() *
        Eigen::MatrixXd::Identity(n, rank));
  };
  Eigen::VectorXd values(rank);
  for (Index i = 0; i < rank; ++i) values(i) = std::pow(ratio, static_cast<double>(i));
  return basis(rows, seed) * values.asDiagonal() * basis(cols, seed + 1).transpose();
}

/// The sine of the largest angle between the spans of the columns of a and of orthonormal b.
double sine_between(const Eigen::MatrixXd& a, const Eigen::MatrixXd& b) {
  const Eigen::MatrixXd q =
      a.householderQr().householderQ() * Eigen::MatrixXd::Identity(a.rows(), a.cols());
  return (q - b * (b.transpose() * q)).jacobiSvd().singularValues()(0);
}

/// The root of 16 roundings of double: to what share of ||W|| roots of eigenvalues are known.
const double known = 4 * 0x1p-26;

TEST(Nested, EachPrefixIsTheBestOfItsRank) {
  const Matrix w = random_matrix<Matrix>(14, 9, 1);
  const auto f = nested(w);
  ASSERT_EQ(f.rank(), 9);
  const Eigen::VectorXd s = Eigen::MatrixXd(w).jacobiSvd().singularValues();
  for (Index b = 0; b <= 9; ++b) {
    const auto part = prefix_of(f, b);
    const Matrix left = w - Matrix(part.left * part.right);
    EXPECT_NEAR(left.norm(), s.tail(9 - b).norm(), 1e-12 * w.norm()) << b;
    EXPECT_LE(left.norm(), part.error_bound) << b;
    // Squares of values are known to 16 roundings of the sum: but for the last, whose none leaves.
    EXPECT_LE(part.error_bound, s.tail(9 - b).norm() + f.error_bound + known * w.norm()) << b;
  }
  for (Index b = 0; b < 9; ++b) {
    EXPECT_NEAR(f.left.col(b).norm(), std::sqrt(s(b)), 1e-10) << b;
    EXPECT_NEAR(f.right.row(b).norm(), std::sqrt(s(b)), 1e-10) << b;
  }
  EXPECT_EQ(nested(w, {.rank = 4}).rank(), 4);
}

/// Units along axes: left^T = right = sqrt(values), so that errors are known.
LowRank<double> of_values(const std::vector<double>& values) {
  const auto n = static_cast<Index>(values.size());
  LowRank<double> f;
  f.left = f.right = Matrix::Zero(n, n);
  f.singular_values.resize(n);
  for (Index u = 0; u < n; ++u) {
    f.singular_values(u) = values[static_cast<std::size_t>(u)];
    f.left(u, u) = f.right(u, u) = std::sqrt(f.singular_values(u));
  }
  f.total_energy = f.captured_energy = f.singular_values.squaredNorm();
  return f;
}

TEST(Nested, BoundsWhatLeavesWhereItIsSmall) {
  const auto expect_bound = [](const LowRank<double>& part, double left, double norm) {
    EXPECT_NEAR(part.error(), left, 8 * 0x1p-53 * left);  // of squares, sums and a root
    EXPECT_GE(part.error_bound, left);
    EXPECT_LE(part.error_bound, left + 1.01 * known * norm);
  };
  const auto f = of_values({1, 1e-9, 1e-10});
  expect_bound(prefix_of(f, 1), std::hypot(1e-9, 1e-10), 1);
  expect_bound(prefix_of(f, 2), 1e-10, 1);
  expect_bound(shrink(f, 5e-10), 1e-10, 1);
  EXPECT_EQ(prefix_of(f, 3).error_bound, 0);
  expect_bound(prefix_of(of_values({1, 1e-200}), 1), 1e-200, 1);
  expect_bound(prefix_of(of_values({1e150, 1e100}), 1), 1e100, 1e150);
  auto without = f;
  without.singular_values.resize(0);
  EXPECT_EQ(prefix_of(without, 1).error_bound, std::numeric_limits<double>::infinity());
  EXPECT_EQ(prefix_of(without, 1).error(), std::numeric_limits<double>::infinity());
}

/// Errors of the first units of a W whose other singular values are `rest` and less of the first.
template <class T>
void expect_small_errors(double rest) {
  const Matrix basis = of_spectrum(14, 9, 1, 31), other = of_spectrum(9, 9, 1, 33);
  Eigen::VectorXd values(9);
  values << 1, 0.5, 0.25, rest * Eigen::VectorXd::LinSpaced(6, 1, 0.5);
  const RowMatrix<T> w = (basis * values.asDiagonal() * other).template cast<T>();
  const auto f = nested(w);
  const double norm = w.template cast<double>().norm(),
               rounding = f.error_bound + double{std::numeric_limits<T>::epsilon()} * norm;
  for (Index b = 3; b <= 9; ++b) {
    const auto part = prefix_of(f, b);
    const double left = (w.template cast<double>() -
                         part.left.template cast<double>() * part.right.template cast<double>())
                            .norm();
    EXPECT_LE(left, part.error_bound) << b << ' ' << rest;
    EXPECT_LE(part.error_bound, left + rounding + known * norm) << b << ' ' << rest;
    EXPECT_NEAR(part.error(), left, rounding + known * norm) << b << ' ' << rest;
  }
}

TEST(Nested, BoundsTheErrorOfNearlyExactPrefixes) {
  for (const double rest : {1e-3, 1e-6, 1e-8}) {
    expect_small_errors<float>(rest);
    expect_small_errors<double>(rest);
  }
}

TEST(Nested, WithACovarianceEachPrefixLeavesLeastOfTheOutputs) {
  const Matrix w = random_matrix<Matrix>(10, 7, 2);
  const Matrix x = random_matrix<Matrix>(40, 7, 3) * random_matrix<Matrix>(7, 7, 4);
  Covariance covariance(7);
  covariance.add(x);
  const auto f = nested(w, covariance);
  const Eigen::MatrixXd outputs = w * x.transpose() / std::sqrt(40.0);
  const Eigen::VectorXd s = outputs.jacobiSvd().singularValues();
  for (Index b = 1; b <= 7; ++b) {
    const auto part = prefix_of(f, b);
    const Eigen::MatrixXd left =
        (w - Matrix(part.left * part.right)) * x.transpose() / std::sqrt(40.0);
    EXPECT_NEAR(left.norm(), s.segment(b, 7 - b).norm(), 1e-7 * outputs.norm()) << b;
  }
}

TEST(Nested, ImportanceFallsAndIsThatOfLoops) {
  const auto f = nested(of_spectrum(12, 8, 0.7, 5));
  const Eigen::VectorXd own = importance_of_units(f);
  const Eigen::VectorXd suffix = importance_of_units(f, UnitImportance::Suffix);
  for (Index b = 0; b < 8; ++b) {
    if (b > 0) {
      EXPECT_LE(own(b), own(b - 1) * (1 + 1e-12));
      EXPECT_LE(suffix(b), suffix(b - 1));
    }
    EXPECT_NEAR(own(b), std::pow(0.7, static_cast<double>(b)), 1e-12);
    double left = 0, right = 0;
    for (Index j = b; j < 8; ++j) {
      for (Index o = 0; o < 12; ++o) left += f.left(o, j) * f.left(o, j);
      for (Index i = 0; i < 8; ++i) right += f.right(j, i) * f.right(j, i);
    }
    EXPECT_NEAR(suffix(b), std::sqrt(left) * std::sqrt(right), 1e-12) << b;
  }
}

TEST(Nested, UnitsWithoutImportanceLeaveTheProductAsItIs) {
  LowRank<float> f;
  f.left = random_matrix<RowMatrix<float>>(6, 5, 6);
  f.right = random_matrix<RowMatrix<float>>(5, 5, 7);
  f.left.col(1).setZero();
  f.right.row(3).setZero();
  const auto thin = shrink(f, 1e-6);
  ASSERT_EQ(thin.rank(), 3);
  const std::array<Index, 3> kept{0, 2, 4};
  for (Index u = 0; u < 3; ++u) {
    EXPECT_EQ(thin.left.col(u), f.left.col(kept[static_cast<std::size_t>(u)]));
    EXPECT_EQ(thin.right.row(u), f.right.row(kept[static_cast<std::size_t>(u)]));
  }
  // Sums in the order of units: what is dropped adds zeros.
  for (Index o = 0; o < 6; ++o)
    for (Index i = 0; i < 5; ++i) {
      float all = 0, some = 0;
      for (Index u = 0; u < 5; ++u) all += f.left(o, u) * f.right(u, i);
      for (Index u = 0; u < 3; ++u) some += thin.left(o, u) * thin.right(u, i);
      EXPECT_EQ(all, some);
    }
  EXPECT_EQ(shrink(f, 0).rank(), 5);
  EXPECT_EQ(prefix_of(f, 0).parameters(), 0);
  EXPECT_EQ(shrink(f, 1e9).rank(), 0);
}

TEST(Nested, WidthsAndTheDenseRule) {
  EXPECT_EQ(units_of_width(10, 1.0), 10);
  EXPECT_EQ(units_of_width(10, 0.01), 1);
  EXPECT_EQ(units_of_width(10, 0.31), 4);
  EXPECT_EQ(units_of_width(10, 0.5), 5);
  constexpr Index most = std::numeric_limits<Index>::max();
  EXPECT_EQ(units_of_width(most, 1.0), most);
  EXPECT_FALSE(keeps_dense(8, 8, 4));
  EXPECT_TRUE(keeps_dense(8, 8, 5));
}

/// The mean over prefixes as it is written.
double mean_loss(const Matrix& w, const Matrix& c, const Matrix& left, const Matrix& right) {
  double sum = 0;
  for (Index b = 1; b <= left.cols(); ++b) {
    const Matrix error = w - Matrix(left.leftCols(b) * right.topRows(b));
    sum += (error * c * error.transpose()).trace();
  }
  return sum / static_cast<double>(left.cols());
}

double lasso_value(const Matrix& left, const Matrix& right) {
  double sum = 0;
  for (Index b = 0; b < left.cols(); ++b)
    sum += left.rightCols(left.cols() - b).norm() + right.bottomRows(left.cols() - b).norm();
  return sum;
}

/// Central differences of f at each element of m, which f reads.
template <class F>
void expect_slopes(Matrix& m, const Matrix& gradient, const F& f) {
  for (Index i = 0; i < m.size(); ++i) {
    const double at = m.data()[i], step = 1e-5;
    m.data()[i] = at + step;
    const double above = f();
    m.data()[i] = at - step;
    const double below = f();
    m.data()[i] = at;
    EXPECT_NEAR(gradient.data()[i], (above - below) / (2 * step), 1e-7) << i;
  }
}

TEST(NestedGradients, AreTheSlopesOfTheMeanOverPrefixes) {
  const Matrix w = random_matrix<Matrix>(5, 4, 7), root = random_matrix<Matrix>(4, 4, 8);
  const Matrix c = root * root.transpose(), one = Matrix::Identity(4, 4);
  Matrix left = random_matrix<Matrix>(5, 3, 9), right = random_matrix<Matrix>(3, 4, 10);
  const auto g = nested_gradients(pare::simd, w, left, right, c);
  EXPECT_NEAR(g.loss, mean_loss(w, c, left, right), 1e-12);
  expect_slopes(left, g.left, [&] { return mean_loss(w, c, left, right); });
  expect_slopes(right, g.right, [&] { return mean_loss(w, c, left, right); });
  const auto plain = nested_gradients(pare::reference, w, left, right);
  EXPECT_NEAR(plain.loss, mean_loss(w, one, left, right), 1e-12);
  expect_slopes(left, plain.left, [&] { return mean_loss(w, one, left, right); });
  auto lasso = plain;
  lasso.left.setZero();
  lasso.right.setZero();
  EXPECT_NEAR(hierarchical_lasso(left, right, 0.5, lasso), 0.5 * lasso_value(left, right), 1e-12);
  expect_slopes(left, lasso.left, [&] { return 0.5 * lasso_value(left, right); });
  expect_slopes(right, lasso.right, [&] { return 0.5 * lasso_value(left, right); });
  Matrix zeros = Matrix::Zero(5, 3);
  hierarchical_lasso(zeros, right, 0.5, lasso);
  EXPECT_TRUE(lasso.left.allFinite());
}

TEST(NestedGradients, OfAModelsLossReachTheFirstUnitsOnly) {
  Matrix left = random_matrix<Matrix>(5, 3, 11), right = random_matrix<Matrix>(3, 4, 12);
  const Matrix x = random_matrix<Matrix>(6, 4, 13), upstream = random_matrix<Matrix>(6, 5, 14);
  for (const Index units : {0, 2, 3}) {
    const auto loss = [&] {
      const Matrix product = left.leftCols(units) * right.topRows(units);
      return Matrix(x * product.transpose()).cwiseProduct(upstream).sum();
    };
    const auto g = nested_gradients(pare::simd, left, right, x, upstream, units);
    expect_slopes(left, g.left, loss);
    expect_slopes(right, g.right, loss);
    EXPECT_EQ(g.left.rightCols(3 - units), Matrix::Zero(5, 3 - units));
    EXPECT_EQ(g.right.bottomRows(3 - units), Matrix::Zero(3 - units, 4));
  }
}

/// Factors at random, trained by the exact mean with falling rates.
template <class... C>
LowRank<double> trained(const Matrix& w, Index rank, const C&... covariance) {
  LowRank<double> start;
  start.left = random_matrix<Matrix>(w.rows(), rank, 15);
  start.right = random_matrix<Matrix>(rank, w.cols(), 16);
  NestedTraining<double> training(start, {.adam = {.learning_rate = 0.03}});
  for (int part = 0; part < 6; ++part) {
    training.set_learning_rate(0.03 * std::pow(0.3, part));
    for (int step = 0; step < 1500; ++step) training.step(pare::simd, w, covariance...);
  }
  return training.factors();
}

TEST(NestedTraining, FindsTheSingularSubspacesFromRandomFactors) {
  const Matrix w = of_spectrum(8, 6, 0.6, 17);
  const auto f = trained(w, 4);
  const Eigen::JacobiSVD<Eigen::MatrixXd> svd(w, Eigen::ComputeThinU | Eigen::ComputeThinV);
  for (Index b = 1; b <= 4; ++b) {
    EXPECT_LT(sine_between(f.left.leftCols(b), svd.matrixU().leftCols(b)), 1e-3) << b;
    EXPECT_LT(sine_between(f.right.topRows(b).transpose(), svd.matrixV().leftCols(b)), 1e-3) << b;
  }
}

TEST(NestedTraining, FindsPrincipalComponentsWhereTargetsAreTheInputs) {
  const Matrix root = of_spectrum(6, 6, 0.7, 19), c = root * root.transpose();
  const auto f = trained(Matrix::Identity(6, 6), 3, c);
  const Eigen::SelfAdjointEigenSolver<Eigen::MatrixXd> eigen(c);
  for (Index b = 1; b <= 3; ++b)
    EXPECT_LT(sine_between(f.left.leftCols(b), eigen.eigenvectors().rightCols(b)), 1e-3) << b;
}

TEST(NestedTraining, KeepsNothingThatItsStartSaidOfErrors) {
  const Matrix w = of_spectrum(8, 6, 0.6, 17);
  NestedTraining<double> training(nested(w));
  EXPECT_EQ(training.factors().singular_values.size(), 6);
  training.step(pare::simd, w);
  const auto part = prefix_of(training.factors(), 3);
  for (const auto& f : {training.factors(), part}) {
    EXPECT_EQ(f.singular_values.size(), 0);
    EXPECT_EQ(f.error(), std::numeric_limits<double>::infinity());
    EXPECT_EQ(f.error_bound, std::numeric_limits<double>::infinity());
  }
}

TEST(NestedTraining, TheLassoDrawsLateUnitsToZero) {
  const Matrix w = of_spectrum(8, 6, 0.3, 21);
  NestedTraining<double> plain(nested(w)), drawn(nested(w), {.lasso = 0.02});
  for (int step = 0; step < 3000; ++step) {
    plain.step(pare::simd, w);
    drawn.step(pare::simd, w);
  }
  EXPECT_LT(shrink(drawn.factors(), 1e-3).rank(), shrink(plain.factors(), 1e-3).rank());
  EXPECT_GT(importance_of_units(drawn.factors())(0), 0.5);
}

TEST(NestedTraining, SampledWidthsLowerTheMeanLoss) {
  const Matrix w = of_spectrum(8, 6, 0.6, 23), x = random_matrix<Matrix>(64, 6, 24);
  LowRank<double> start;
  start.left = random_matrix<Matrix>(8, 4, 25) * 0.3;
  start.right = random_matrix<Matrix>(4, 6, 26) * 0.3;
  NestedTraining<double> training(start, {.adam = {.learning_rate = 0.01}});
  const OrderedDropout dropout{.ranks = {4}, .seed = 3};
  const auto loss = [&] {
    return nested_gradients(pare::simd, w, training.factors().left, training.factors().right).loss;
  };
  const double before = loss();
  for (Index step = 0; step < 2000; ++step) {
    const Index b = dropout.widths(step)[0];
    const Matrix y =
        x * Matrix(training.factors().left.leftCols(b) * training.factors().right.topRows(b))
                .transpose();
    training.step(pare::simd, x, Matrix((y - x * w.transpose()) / 64), b);
  }
  const auto best = nested(w, {.rank = 4});
  const double least = nested_gradients(pare::simd, w, best.left, best.right).loss;
  EXPECT_LT(loss() - least, 0.05 * (before - least));
}

TEST(OrderedDropout, CutsOneLayerOrEachUniformly) {
  const OrderedDropout single{.ranks = {3, 5}, .seed = 11};
  std::array<std::array<int, 6>, 2> counts{};
  int cut_first = 0;
  for (Index step = 0; step < 6000; ++step) {
    const auto widths = single.widths(step);
    EXPECT_TRUE(widths[0] == 3 || widths[1] == 5);
    cut_first += widths[0] < 3 ? 1 : 0;
    EXPECT_EQ(widths, single.widths(step));
  }
  // Half of the steps cut the first layer, two thirds of them below its rank: 4.5 deviations.
  EXPECT_NEAR(cut_first, 2000, 4.5 * std::sqrt(6000.0 * 2 / 9));
  const OrderedDropout each{.ranks = {3, 5}, .seed = 11, .layers = DroppedLayers::Each};
  for (Index step = 0; step < 6000; ++step)
    for (std::size_t layer = 0; layer < 2; ++layer)
      ++counts[layer][static_cast<std::size_t>(each.widths(step)[layer])];
  for (std::size_t layer = 0; layer < 2; ++layer) {
    const double rank = layer == 0 ? 3 : 5, mean = 6000 / rank;
    EXPECT_EQ(counts[layer][0], 0);
    for (std::size_t b = 1; b <= static_cast<std::size_t>(rank); ++b)
      EXPECT_NEAR(counts[layer][b], mean, 4.5 * std::sqrt(mean * (1 - 1 / rank))) << b;
  }
  EXPECT_NE(single.widths(Index{1} << 40), single.widths(0));
  // Layers of one rank are drawn apart from each other.
  const OrderedDropout alike{.ranks = {100000, 100000}, .seed = 3, .layers = DroppedLayers::Each};
  EXPECT_NE(alike.widths(5)[0], alike.widths(5)[1]);
}

TEST(Nested, WhatDoesNotFitIsRefused) {
  const Matrix w = random_matrix<Matrix>(6, 5, 27);
  const auto f = nested(w);
  const double nan = std::numeric_limits<double>::quiet_NaN();
  refusal([&] { nested(w, {.rank = 6}); }, "factor::truncated_svd", "rank");
  refusal([&] { nested(Matrix(0, 4)); }, "factor::truncated_svd", "w");
  refusal([&] { prefix_of(f, 6); }, "factor::prefix_of", "units");
  refusal([&] { prefix_of(f, -1); }, "factor::prefix_of", "units");
  refusal([&] { shrink(f, -1); }, "factor::shrink", "threshold");
  refusal([&] { shrink(f, nan); }, "factor::shrink", "threshold");
  refusal([&] { importance_of_units(f, static_cast<UnitImportance>(2)); },
          "factor::importance_of_units", "kind");
  for (const double p : {0.0, -1.0, 1.01, nan})
    refusal([&] { units_of_width(4, p); }, "factor::units_of_width", "p");
  refusal([&] { units_of_width(0, 0.5); }, "factor::units_of_width", "rank");
  refusal([&] { keeps_dense(0, 4, 1); }, "factor::keeps_dense", "out");
  refusal([&] { keeps_dense(4, 0, 1); }, "factor::keeps_dense", "in");
  refusal([&] { keeps_dense(4, 4, -1); }, "factor::keeps_dense", "rank");
  const char* const gradients = "factor::nested_gradients";
  const auto refused = [&](const Matrix& of, const Matrix& left, const Matrix& right,
                           const char* argument) {
    refusal([&] { nested_gradients(pare::simd, of, left, right); }, gradients, argument);
  };
  Matrix bad = w;
  bad(0, 0) = nan;
  refused(bad, f.left, f.right, "w");
  refused(Matrix(w.topRows(4)), f.left, f.right, "w");
  refused(w, Matrix(6, 0), Matrix(0, 5), "left");
  refused(w, f.left, Matrix(f.right.topRows(3)), "right");
  refusal([&] { nested_gradients(pare::simd, w, f.left, f.right, w); }, gradients, "covariance");
  refusal([&] { nested_gradients(pare::simd, f.left, f.right, w, w, 2); }, gradients, "upstream");
  refusal([&] { nested_gradients(pare::simd, f.left, f.right, w, Matrix(w * w.transpose()), 6); },
          gradients, "units");
  NestedGradients g;
  refusal([&] { hierarchical_lasso(f.left, f.right, 1, g); }, "factor::hierarchical_lasso",
          "gradients");
  refusal([&] { hierarchical_lasso(f.left, f.right, -1, g); }, "factor::hierarchical_lasso",
          "lambda");
  const pare::TensorView<const double, 2> nothing{nullptr, {4, 3}, {3, 1}};
  refusal([&] { hierarchical_lasso(nothing, f.right, 1, g); }, "factor::hierarchical_lasso",
          "left");
  refusal([&] { hierarchical_lasso(f.left, nothing, 1, g); }, "factor::hierarchical_lasso",
          "right");
  using Training = NestedTraining<double>;
  refusal([&] { Training(f, {.lasso = -1}); }, "factor::NestedTraining", "lasso");
  refusal([&] { Training(f, {.adam = {.beta1 = 1}}); }, "factor::NestedTraining", "beta1");
  refusal([&] { Training(prefix_of(f, 0)); }, "factor::NestedTraining", "left");
  // A gradient that is beyond float changes nothing.
  const auto start = nested(RowMatrix<float>(w.cast<float>()));
  NestedTraining<float> training(start);
  const RowMatrix<float> x = RowMatrix<float>::Constant(2, w.cols(), 1e30f),
                         upstream = RowMatrix<float>::Constant(2, w.rows(), 1e30f);
  refusal([&] { training.step(pare::simd, x, upstream, start.rank()); },
          "factor::NestedTraining::step", "gradient");
  EXPECT_TRUE(training.factors().left == start.left);
  EXPECT_TRUE(training.factors().right == start.right);
  const char* const widths = "factor::OrderedDropout::widths";
  refusal([&] { OrderedDropout{}.widths(0); }, widths, "ranks");
  refusal([&] { OrderedDropout{.ranks = {0}}.widths(0); }, widths, "ranks");
  refusal([&] { OrderedDropout{.ranks = {2}}.widths(-1); }, widths, "step");
}

}  // namespace
}  // namespace factor_structured_nested_test
