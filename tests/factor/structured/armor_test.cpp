// SPDX-License-Identifier: Apache-2.0
// ARMOR: a loss that never rises, from NoWag-P's down, by exact steps (T2.1 to T2.9).
#include <gtest/gtest.h>

#include <Eigen/Core>
#include <Eigen/QR>

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>
#include <vector>

#include <pare/factor/structured/armor.hpp>

#include "factor/data.hpp"
#include "support/backends.hpp"
#include "support/matrices.hpp"
#include "support/properties.hpp"

namespace factor_structured_armor_test {
namespace {

using namespace pare::factor;
using namespace pare::testing;
using Eigen::MatrixXd;
using Eigen::VectorXd;
using pare::Index;
using pare::RowMatrix;

template <class T>
RowMatrix<T> dense_of(const TwoFour<T>& core) {
  RowMatrix<T> dense(core.outputs(), core.inputs());
  core.to_dense(dense);
  return dense;
}

template <class T>
void expect_two_of_four(const TwoFourMask& mask, const RowMatrix<T>& dense) {
  for (Index i = 0; i < dense.rows(); ++i)
    for (Index j = 0; j < dense.cols(); j += 4) {
      ASSERT_EQ(__builtin_popcount(mask.group_bits(i, j / 4)), 2) << i << ' ' << j;
      ASSERT_LE((dense.row(i).segment(j, 4).array() != 0).count(), 2) << i << ' ' << j;
    }
}

/// The proxy loss in plain double loops.
double plain_proxy_loss(const MatrixXd& w, const VectorXd& h, const MatrixXd& pruned) {
  const VectorXd r1 = (w.colwise().norm().array() + 1e-5).transpose();
  const MatrixXd by_columns = w * r1.cwiseInverse().asDiagonal();
  const VectorXd r2 = by_columns.rowwise().norm().array() + 1e-5;
  const MatrixXd n = r2.cwiseInverse().asDiagonal() * by_columns;
  const MatrixXd v = r2.cwiseInverse().asDiagonal() * pruned * r1.cwiseInverse().asDiagonal();
  return ((n - v).cwiseAbs2() * h).sum() / (n.cwiseAbs2() * h).sum();
}

struct Layer {
  Index out, in;
  ArmorOptions options;
};
/// A block for each, several, unequal ones, and of no multiple of a register.
std::vector<Layer> layers() {
  return {{32, 48, {.block = 16, .sweeps = 3}},
          {24, 40, {.block = 20, .output_block = 8, .sweeps = 2}},
          {36, 36, {.block = 36, .sweeps = 2}},
          {21, 32, {.block = 4, .output_block = 7, .sweeps = 2}}};
}

template <class Case>
struct ArmorTest : ::testing::Test {
  static void SetUpTestSuite() { use_one_thread_for_oracles(); }
  static auto backend() { return Case::backend::make(); }
  using Scalar = typename Case::scalar;
};
TYPED_TEST_SUITE(ArmorTest, BackendsAndScalars);

/// T2.1, T2.2: on every layer, against losses in plain double.
TYPED_TEST(ArmorTest, NeverRisesFromNowagDown) {
  using T = typename TestFixture::Scalar;
  for (const auto& [out, in, options] : layers()) {
    const auto w = random_matrix<RowMatrix<T>>(out, in, 1);
    const MatrixXd wide = values_of(w);
    const VectorXd h = positive_weights(in, 5);
    const auto f = armor(TestFixture::backend(), w, h, options);
    ASSERT_EQ(f.loss_history.size(), 1U + 3U * static_cast<unsigned>(options.sweeps));
    for (std::size_t i = 1; i < f.loss_history.size(); ++i)
      EXPECT_LE(f.loss_history[i], f.loss_history[i - 1]) << i;
    const auto loss_of = [&](const auto& score) {
      return plain_proxy_loss(wide, h, values_of(dense_of(two_four(w, score))));
    };
    const double nowag = loss_of(NowagP(h)), rounding = 64 * Tolerance<T>::unit_roundoff;
    EXPECT_NEAR(f.loss_history.front(), nowag, rounding);
    EXPECT_LE(nowag, loss_of(Wanda(h)) + rounding);
    EXPECT_LE(nowag, loss_of(Magnitude{}) + rounding);
    EXPECT_LT(f.loss_history.back(), 0.9 * nowag);
    // A S B itself, denormalised and rounded.
    const MatrixXd product = f.product().template cast<double>();
    EXPECT_NEAR(plain_proxy_loss(wide, h, product), f.loss_history.back(),
                1e3 * Tolerance<T>::unit_roundoff);
    EXPECT_NEAR(proxy_loss(TestFixture::backend(), w, SecondMoments(h), product),
                plain_proxy_loss(wide, h, product), 1e-6);
    expect_two_of_four(f.core.mask(), dense_of(f.core));
  }
}

/// T2.3: of a weight that is 2:4 nothing is lost, and nothing is done.
TYPED_TEST(ArmorTest, LosesNothingOfAPrunedWeight) {
  using T = typename TestFixture::Scalar;
  const auto w = dense_of(two_four(random_matrix<RowMatrix<T>>(16, 32, 2), Magnitude{}));
  const auto f = armor(TestFixture::backend(), w, std::vector<double>(32, 1.0), {.block = 8});
  EXPECT_EQ(f.loss_history.front(), 0.0);
  EXPECT_EQ(f.loss_history.back(), 0.0);
  EXPECT_LE((values_of(f.product()) - values_of(w)).cwiseAbs().maxCoeff(),
            8 * Tolerance<T>::unit_roundoff);
}

/// T2.8: moments of another scale, here a power of two, which rounds nothing.
TYPED_TEST(ArmorTest, DoesNotDependOnTheScaleOfMoments) {
  using T = typename TestFixture::Scalar;
  const auto w = random_matrix<RowMatrix<T>>(16, 24, 3);
  const VectorXd h = positive_weights(24, 5);
  const auto a = armor(TestFixture::backend(), w, h, {.block = 8, .sweeps = 2});
  const auto b = armor(TestFixture::backend(), w, VectorXd(0x1p60 * h), {.block = 8, .sweeps = 2});
  EXPECT_TRUE(equal_bits(a.product(), b.product()));
  EXPECT_TRUE(a.loss_history == b.loss_history);
}

/// Each sweep adds its three steps to the history, and what stands there is the loss of A S B as it
/// is then, which falls without the history's help.
TEST(ArmorHistory, IsTheLossOfEachSweep) {
  const auto w = random_matrix<RowMatrix<double>>(16, 24, 6);
  const VectorXd h = positive_weights(24, 5);
  const auto after = [&](int sweeps) { return armor(w, h, {.block = 8, .sweeps = sweeps}); };
  const auto all = after(4).loss_history;
  ASSERT_EQ(all.size(), 13U);
  double before = 2;
  for (int sweeps = 0; sweeps <= 4; ++sweeps) {
    const auto f = after(sweeps);
    ASSERT_EQ(f.loss_history.size(), 1U + 3U * static_cast<unsigned>(sweeps));
    EXPECT_TRUE(std::equal(f.loss_history.begin(), f.loss_history.end(), all.begin())) << sweeps;
    const double loss = plain_proxy_loss(w, h, f.product());
    EXPECT_NEAR(f.loss_history.back(), loss, 1e3 * Tolerance<double>::unit_roundoff) << sweeps;
    EXPECT_LT(loss, before) << sweeps;
    before = loss;
  }
}

/// T2.6: blocks in parallel, or one after the other, with fewer blocks than threads or more.
TEST(ArmorOnThreads, GivesTheSameBits) {
  const auto w = random_matrix<RowMatrix<float>>(48, 64, 4);
  const VectorXd h = positive_weights(64, 5);
  same_bits_for_any_threads(pare::simd, [&](const auto& backend) {
    return armor(backend, w, h, {.block = 16, .sweeps = 1}).product();
  });
}

/// T2.5, T2.2: each step on its own, in double, against solvers of dense least squares.
struct Steps : ::testing::Test {
  Steps() {
    const auto w = random_matrix<RowMatrix<double>>(16, 24, 6);
    const VectorXd h = positive_weights(24, 5);
    const ArmorOptions options{.block = 12, .output_block = 8};
    const auto n = normalize_weight(w);
    p = detail::armor_start<double>(backend, n, two_four(w, NowagP(h)).mask(), SecondMoments(h),
                                    options);
    p.left += 0.3 * random_matrix<RowMatrix<double>>(16, 8, 7);
    p.right += 0.3 * random_matrix<RowMatrix<double>>(24, 12, 8);
  }
  MatrixXd left(Index i) const { return p.left.middleRows(8 * i, 8); }
  MatrixXd right(Index j) const { return p.right.middleRows(12 * j, 12); }
  MatrixXd core(Index i, Index j) const { return p.core.middleRows(p.tile(i, j), 8); }
  MatrixXd weight(Index i, Index j) const { return p.weight.middleRows(p.tile(i, j), 8); }
  VectorXd roots(Index j) const {
    return Eigen::Map<const VectorXd>(p.moments.data() + 12 * j, 12).cwiseSqrt();
  }
  MatrixXd residual(Index i, Index j) const {
    return (weight(i, j) - left(i) * core(i, j) * right(j)) * roots(j).asDiagonal();
  }
  double loss() const {
    double sum = 0;
    for (Index i = 0; i < 2; ++i)
      for (Index j = 0; j < 2; ++j) sum += residual(i, j).squaredNorm();
    return sum;
  }

  detail::ArmorProblem<double> p;
  pare::Simd<pare::arch::best, pare::ExecutorRef> backend = pare::on_any_executor(pare::simd);
};

TEST_F(Steps, OfBlocksOfAAreLeastSquares) {
  detail::ArmorFit fit(backend, p);
  fit.measure();
  EXPECT_NEAR(p.losses.sum(), loss(), 1e-12 * loss());
  MatrixXd wanted[2];
  for (Index i = 0; i < 2; ++i) {
    MatrixXd images(24, 8), targets(24, 8);
    for (Index j = 0; j < 2; ++j) {
      images.middleRows(12 * j, 12) = roots(j).asDiagonal() * (core(i, j) * right(j)).transpose();
      targets.middleRows(12 * j, 12) = roots(j).asDiagonal() * weight(i, j).transpose();
    }
    wanted[i] = images.colPivHouseholderQr().solve(targets).transpose();
  }
  fit.fit_left();
  for (Index i = 0; i < 2; ++i) EXPECT_LE((left(i) - wanted[i]).cwiseAbs().maxCoeff(), 1e-8);
  EXPECT_NEAR(p.losses.sum(), loss(), 1e-12 * loss());
}

TEST_F(Steps, OfBlocksOfBAreLeastSquares) {
  detail::ArmorFit fit(backend, p);
  fit.measure();
  // Some inputs are kept nowhere: B is not unique, but Q B is.
  MatrixXd wanted[2], images[2];
  for (Index j = 0; j < 2; ++j) {
    images[j].resize(16, 12);
    MatrixXd targets(16, 12);
    for (Index i = 0; i < 2; ++i) {
      images[j].middleRows(8 * i, 8) = left(i) * core(i, j);
      targets.middleRows(8 * i, 8) = weight(i, j);
    }
    wanted[j] = images[j] * images[j].colPivHouseholderQr().solve(targets);
  }
  fit.fit_right();
  for (Index j = 0; j < 2; ++j)
    EXPECT_LE((images[j] * right(j) - wanted[j]).cwiseAbs().maxCoeff(), 1e-8);
  EXPECT_NEAR(p.losses.sum(), loss(), 1e-12 * loss());
}

/// Of the six masks of a group the best, each with its least squares, all other entries given; and
/// so group by group, in order.
TEST_F(Steps, OfGroupsAreTheBestOfSixMasks) {
  detail::ArmorFit fit(backend, p);
  fit.measure();
  auto oracle = p;
  std::swap(oracle, p);  // `p` is what the helpers read
  for (Index i = 0; i < 2; ++i)
    for (Index j = 0; j < 2; ++j)
      for (Index t = 0; t < 8; ++t)
        for (Index g = 0; g < 12; g += 4) {
          auto entries = p.core.block(p.tile(i, j) + t, g, 1, 4);
          double least = residual(i, j).squaredNorm();
          const Eigen::RowVector4d old = entries;
          Eigen::RowVector4d best = old;
          entries.setZero();
          const MatrixXd target = residual(i, j);
          for (int first = 0; first < 4; ++first)
            for (int second = first + 1; second < 4; ++second) {
              // Columns vec(a_t b_k sqrt(h)) of the two.
              MatrixXd columns(96, 2);
              for (int k = 0; k < 2; ++k) {
                const MatrixXd image = left(i).col(t) *
                                       right(j).row(g + (k == 0 ? first : second)) *
                                       roots(j).asDiagonal();
                columns.col(k) = Eigen::Map<const VectorXd>(image.data(), 96);
              }
              const Eigen::Vector2d x = columns.colPivHouseholderQr().solve(
                  Eigen::Map<const VectorXd>(target.data(), 96));
              const double lost =
                  (Eigen::Map<const VectorXd>(target.data(), 96) - columns * x).squaredNorm();
              if (lost >= least) continue;
              least = lost;
              best.setZero();
              best[first] = x[0];
              best[second] = x[1];
            }
          entries = best;
        }
  const RowMatrix<double> wanted = p.core;
  p = oracle;
  detail::ArmorFit again(backend, p);
  again.fit_core();
  EXPECT_LE((p.core - wanted).cwiseAbs().maxCoeff(), 1e-8);
  EXPECT_NEAR(p.losses.sum(), loss(), 1e-12 * loss());
}

/// T2.9, and norms of rows and columns that are 0.
TEST(NormalizedWeightTest, IsRestored) {
  auto w = random_matrix<RowMatrix<double>>(9, 12, 9);
  w.row(3).setZero();
  w.col(5).setZero();
  const auto n = normalize_weight(w);
  EXPECT_LE((n.restored() - w).cwiseAbs().maxCoeff(), 1e-15);
  EXPECT_TRUE(n.matrix.allFinite());
  const VectorXd r1 = (w.colwise().norm().array() + 1e-5).transpose();
  const VectorXd r2 = (w * r1.cwiseInverse().asDiagonal()).rowwise().norm().array() + 1e-5;
  for (Index j = 0; j < 12; ++j)
    EXPECT_NEAR(n.input_norms[static_cast<std::size_t>(j)], r1[j], 1e-14);
  for (Index i = 0; i < 9; ++i)
    EXPECT_NEAR(n.output_norms[static_cast<std::size_t>(i)], r2[i], 1e-14);
  const auto f = armor(w, std::vector<double>(12, 2.0), {.block = 4, .output_block = 3});
  EXPECT_TRUE(f.product().allFinite());
  EXPECT_LE(f.loss_history.back(), f.loss_history.front());
}

TEST(ArmorSweeps, StopWhereTooLittleIsGained) {
  const auto w = random_matrix<RowMatrix<float>>(16, 16, 4);
  const std::vector<double> h(16, 1.0);
  EXPECT_EQ(armor(w, h, {.block = 8, .sweeps = 0}).loss_history.size(), 1U);
  EXPECT_EQ(armor(w, h, {.block = 8, .sweeps = 9, .tolerance = 1e9}).loss_history.size(), 4U);
  // T2.4: one block, where no structure is left but that of S.
  const auto one = armor(w, h, {.block = 16, .sweeps = 20});
  EXPECT_LT(one.loss_history.back(), armor(w, h, {.block = 4, .sweeps = 20}).loss_history.back());
}

TEST(ArmorRefuses, WhatDoesNotFit) {
  const auto w = random_matrix<RowMatrix<float>>(12, 16, 4);
  const std::vector<double> h(16, 1.0);
  const auto refused = [&](const ArmorOptions& o, const char* argument) {
    refusal([&] { armor(w, h, o); }, "factor::armor", argument);
  };
  refused({}, "block");            // 128 divides neither
  refused({.block = 8}, "block");  // not the outputs
  refused({.block = 6}, "block");  // no multiple of 4
  refused({.block = 0}, "block");
  refused({.block = 12}, "block");  // not the inputs
  refused({.block = 4, .output_block = 5}, "output_block");
  refused({.block = 4, .output_block = 0}, "output_block");
  refused({.block = 4, .sweeps = -1}, "sweeps");
  refused({.block = 4, .tolerance = -1}, "tolerance");
  refused({.block = 4, .tolerance = std::numeric_limits<double>::infinity()}, "tolerance");
  const ArmorOptions options{.block = 4};
  refusal([&] { armor(w, std::vector<double>(12, 1.0), options); }, "factor::armor",
          "second_moments");
  refusal([&] { armor(w, std::vector<double>(16, 0.0), options); }, "factor::SecondMoments",
          "second_moments");
  refusal([&] { armor(random_matrix<RowMatrix<float>>(12, 18, 4), h, options); }, "factor::armor",
          "w");
  RowMatrix<float> nan = w;
  nan(7, 3) = std::numeric_limits<float>::quiet_NaN();
  refusal([&] { armor(nan, h, options); }, "factor::armor", "w");
  RowMatrix<float> large = w;
  large.col(5).setConstant(3e38f);  // its norm is beyond float
  refusal([&] { armor(large, h, options); }, "factor::armor", "w");
  refusal([&] { normalize_weight(nan); }, "factor::normalize_weight", "w");
  refusal([&] { proxy_loss(w, SecondMoments(h), RowMatrix<float>(12, 12)); }, "factor::proxy_loss",
          "pruned");
}

}  // namespace
}  // namespace factor_structured_armor_test
