// SPDX-License-Identifier: Apache-2.0
// SparseGPT: weights that stay are the least squares solution given those in front.
#include <gtest/gtest.h>

#include <Eigen/Cholesky>
#include <Eigen/Core>
#include <Eigen/Eigenvalues>
#include <Eigen/LU>

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <vector>

#include <pare/factor/structured/select_two_four.hpp>
#include <pare/factor/structured/sparse_gpt.hpp>

#include "factor/data.hpp"
#include "support/backends.hpp"
#include "support/matrices.hpp"
#include "support/properties.hpp"

namespace factor_structured_sparse_gpt_test {
namespace {

using namespace pare::factor;
using namespace pare::testing;
using Eigen::MatrixXd;
using Eigen::VectorXd;
using pare::Index;
using pare::RowMatrix;

/// The second moment of inputs that are correlated: a random mixture of half as many, and noise.
RowMatrix<double> correlated(Index n, std::uint64_t seed) {
  const auto mix = random_matrix<MatrixXd>(n, n / 2, seed);
  const VectorXd noise = positive_weights(n, seed + 1);
  return mix * mix.transpose() / static_cast<double>(n) + MatrixXd((0.02 * noise).asDiagonal());
}

template <class T>
MatrixXd dense_of(const TwoFour<T>& core) {
  RowMatrix<double> dense(core.outputs(), core.inputs());
  core.to_dense(dense);
  return dense;
}

/// tr(D H D^T) for D = W - What.
double lost(const MatrixXd& w, const MatrixXd& pruned, const MatrixXd& h) {
  const MatrixXd d = w - pruned;
  return (d * h).cwiseProduct(d).sum();
}

/// H with the damping that the call adds.
MatrixXd damped(const MatrixXd& c, double damping) {
  MatrixXd h = c;
  h.diagonal().array() += damping * c.diagonal().mean();
  return h;
}

/// One row, as it is defined: what stays free is the minimum of d^T H d given all d that are fixed,
/// by a dense solver anew for each column; the mask of a group is chosen when its first column
/// comes, by w_i^2 over the (i, i) element of the inverse of what is still free.
VectorXd least_squares_row(const VectorXd& row, const MatrixXd& h) {
  const Index n = row.size();
  VectorXd w = row, d = VectorXd::Zero(n);
  std::vector<bool> goes(static_cast<std::size_t>(n));
  for (Index i = 0; i < n; ++i) {
    if (i % 4 == 0) {
      std::vector<double> score;
      for (Index k = i; k < i + 4; ++k) {
        // The inverse over columns k, k + 1, ...: its first element is u_kk^2.
        const MatrixXd inverse = h.bottomRightCorner(n - k, n - k).inverse();
        score.push_back(w[k] * w[k] / inverse(0, 0));
      }
      for (Index k = 0; k < 4; ++k) {
        Index larger = 0;
        for (Index l = 0; l < 4; ++l)
          larger += score[static_cast<std::size_t>(l)] > score[static_cast<std::size_t>(k)] ? 1 : 0;
        goes[static_cast<std::size_t>(i + k)] = larger >= 2;
      }
    }
    d[i] = goes[static_cast<std::size_t>(i)] ? -row[i] : w[i] - row[i];
    const Index rest = n - i - 1;
    if (rest == 0) break;
    // argmin over the rest: H_rr d_r = -H_rf d_f.
    const VectorXd free = -h.bottomRightCorner(rest, rest)
                               .ldlt()
                               .solve(h.bottomLeftCorner(rest, i + 1) * d.head(i + 1));
    for (Index j = 0; j < rest; ++j) w[i + 1 + j] = row[i + 1 + j] + free[j];
  }
  return row + d;
}

template <class Case>
struct SparseGpt : ::testing::Test {
  static void SetUpTestSuite() { use_one_thread_for_oracles(); }
  static auto backend() { return Case::backend::make(); }
  using Scalar = typename Case::scalar;
};
TYPED_TEST_SUITE(SparseGpt, BackendsAndScalars);

TYPED_TEST(SparseGpt, IsLeastSquaresGivenTheColumnsInFront) {
  using S = typename TestFixture::Scalar;
  const Index in = 44;
  const MatrixXd c = correlated(in, 1), h = damped(c, 0.01);
  const auto w = random_matrix<RowMatrix<S>>(19, in, 2);
  const MatrixXd wide = values_of(w);
  MatrixXd wanted(19, in);
  for (Index i = 0; i < 19; ++i) wanted.row(i) = least_squares_row(wide.row(i), h).transpose();
  const Eigen::SelfAdjointEigenSolver<MatrixXd> eigen(h);
  const double condition = eigen.eigenvalues()[in - 1] / eigen.eigenvalues()[0];
  // Each of at most `in` updates is exact but for rounding, which H spreads by its condition.
  const double bound = 8 * static_cast<double>(in) * std::sqrt(condition) *
                       Tolerance<S>::unit_roundoff * wide.cwiseAbs().maxCoeff();
  for (const Index block : {16, 32, 128}) {
    const auto core = sparse_gpt(TestFixture::backend(), w, c, {.block = block});
    EXPECT_LE((dense_of(core) - wanted).cwiseAbs().maxCoeff(), bound) << block;
  }
}

TYPED_TEST(SparseGpt, LosesLessThanWanda) {
  using S = typename TestFixture::Scalar;
  const Index in = 160;
  const MatrixXd c = correlated(in, 3);
  const auto w = random_matrix<RowMatrix<S>>(40, in, 4);
  const VectorXd h = c.diagonal();
  const double wanda = lost(values_of(w), dense_of(two_four(w, h)), c);
  const double gpt = lost(values_of(w), dense_of(sparse_gpt(TestFixture::backend(), w, c)), c);
  EXPECT_LT(gpt, 0.8 * wanda);
}

/// Updates of weights near the largest number overflow: each group has two weights still.
TYPED_TEST(SparseGpt, OfWeightsThatOverflowKeepsTwo) {
  using S = typename TestFixture::Scalar;
  const RowMatrix<S> w = std::numeric_limits<S>::max() / 2 * random_matrix<RowMatrix<S>>(5, 36, 5);
  const MatrixXd c = MatrixXd::Ones(36, 36) + 1e-3 * MatrixXd::Identity(36, 36);
  const auto core = sparse_gpt(TestFixture::backend(), w, c, {.damping = 1e-6});
  for (Index o = 0; o < 5; ++o)
    for (Index g = 0; g < 9; ++g) EXPECT_EQ(std::popcount(core.mask().group_bits(o, g)), 2);
}

TYPED_TEST(SparseGpt, KeepsAWeightThatIsPrunedAlready) {
  using S = typename TestFixture::Scalar;
  const auto full = random_matrix<RowMatrix<S>>(9, 36, 5);
  RowMatrix<S> w(9, 36);
  two_four(full, Magnitude{}).to_dense(w);
  const auto core = sparse_gpt(TestFixture::backend(), w, correlated(36, 6));
  EXPECT_TRUE(dense_of(core) == values_of(w));
}

/// With a covariance without correlation nothing is made up for: Wanda's choice, values as they
/// are.
TYPED_TEST(SparseGpt, OfIndependentInputsIsWanda) {
  using S = typename TestFixture::Scalar;
  const auto w = random_matrix<RowMatrix<S>>(9, 36, 5);
  const VectorXd h = positive_weights(36, 7);
  const MatrixXd c = h.asDiagonal();
  const auto core = sparse_gpt(TestFixture::backend(), w, c, {.damping = 0});
  EXPECT_TRUE(dense_of(core) == dense_of(two_four(w, h)));
}

TEST(SparseGptOnThreads, GivesTheSameBits) {
  const auto w = random_matrix<RowMatrix<float>>(70, 144, 4);
  const RowMatrix<double> c = correlated(144, 3);
  same_bits_for_any_threads(pare::simd, [&](const auto& backend) {
    RowMatrix<float> dense(70, 144);
    sparse_gpt(backend, w, c, {.block = 32}).to_dense(dense);
    return dense;
  });
}

TEST(SparseGptInputs, WithoutVarianceLoseTheirWeights) {
  MatrixXd c = correlated(16, 8);
  c.row(5).setZero();
  c.col(5).setZero();
  const auto w = random_matrix<RowMatrix<float>>(6, 16, 9);
  for (const double damping : {0.01, 0.0}) {
    const MatrixXd pruned = dense_of(sparse_gpt(w, c, {.damping = damping}));
    EXPECT_TRUE((pruned.col(5).array() == 0).all());
    EXPECT_TRUE(pruned.allFinite());
  }
}

TEST(SparseGptCovariance, CountsUpToItsScale) {
  Covariance covariance(32);
  const auto x = random_matrix<RowMatrix<float>>(100, 32, 9);
  covariance.add(x);
  const auto w = random_matrix<RowMatrix<float>>(6, 32, 9);
  const RowMatrix<double> c = covariance.matrix();
  const MatrixXd wanted = dense_of(sparse_gpt(w, c));
  EXPECT_TRUE(dense_of(sparse_gpt(w, covariance)) == wanted);
  for (const double scale : {0x1p-300, 0x1p300})
    EXPECT_TRUE(dense_of(sparse_gpt(w, RowMatrix<double>(scale * c))) == wanted) << scale;
}

/// Whether C with a direction without energy, spread over all inputs, is refused as it is, and not
/// with damping.
template <class B, class C>
void expect_singular(const B& backend, const C& c) {
  const auto w = random_matrix<RowMatrix<float>>(6, 40, 8);
  refusal([&] { sparse_gpt(backend, w, c, {.damping = 0}); }, "factor::sparse_gpt", "covariance");
  EXPECT_NO_THROW(sparse_gpt(backend, w, c));
}

TEST(SparseGptRefuses, ACovarianceOfTooFewInputsWithoutDamping) {
  const RowMatrix<double> x = random_matrix<MatrixXd>(39, 40, 3) * orthonormal(40, 40, 4);
  const RowMatrix<double> c = x.transpose() * x;
  Covariance rounded(40);
  rounded.add(RowMatrix<float>(x.cast<float>()));
  const auto on = [&](const auto& backend) {
    expect_singular(backend, c);
    expect_singular(backend, RowMatrix<float>(c.cast<float>()));
    expect_singular(backend, rounded);
  };
  on(pare::reference);
  on(pare::simd);
  // 1e-7 of the largest is known of a matrix in double only.
  const MatrixXd q = orthonormal(40, 40, 5);
  const VectorXd values =
      VectorXd::LinSpaced(40, 1, 0.5)
          .cwiseProduct(VectorXd::Ones(40) - (1 - 1e-7) * VectorXd::Unit(40, 39));
  const MatrixXd turned = q * values.asDiagonal() * q.transpose();
  const RowMatrix<double> known = (turned + turned.transpose()) / 2;
  const auto w = random_matrix<RowMatrix<float>>(6, 40, 8);
  EXPECT_NO_THROW(sparse_gpt(w, known, {.damping = 0}));
  expect_singular(pare::simd, RowMatrix<float>(known.cast<float>()));
  // Damping is exact, however little: of the largest eigenvalue it is 2.5e-8 here.
  EXPECT_NO_THROW(
      sparse_gpt(w, RowMatrix<float>(RowMatrix<float>::Ones(40, 40)), {.damping = 1e-6}));
}

TEST(SparseGptRefuses, WhatDoesNotFit) {
  const auto w = random_matrix<RowMatrix<float>>(6, 8, 8);
  const RowMatrix<double> c = correlated(8, 1);
  const char* const name = "factor::sparse_gpt";
  const auto refused = [&](const auto& weight, const auto& cov, const SparseGptOptions& o,
                           const char* argument) {
    refusal([&] { sparse_gpt(weight, cov, o); }, name, argument);
  };
  refused(random_matrix<RowMatrix<float>>(6, 10, 8), c, {}, "w");
  refused(w, RowMatrix<double>(correlated(12, 1)), {}, "covariance");
  refused(w, c, {.damping = -1}, "damping");
  refused(w, c, {.damping = std::numeric_limits<double>::quiet_NaN()}, "damping");
  for (const Index block : {0, 8, 24, 272}) refused(w, c, {.block = block}, "block");
  RowMatrix<double> wrong = c;
  wrong(2, 3) += 1;
  refused(w, wrong, {}, "covariance");
  wrong = -c;
  refused(w, wrong, {}, "covariance");
  refused(w, RowMatrix<double>(RowMatrix<double>::Zero(8, 8)), {}, "covariance");
  // Of rank 1, which only damping makes definite.
  const RowMatrix<double> thin = RowMatrix<double>::Ones(8, 8);
  refused(w, thin, {.damping = 0}, "covariance");
  EXPECT_NO_THROW(sparse_gpt(w, thin));
  RowMatrix<float> nan = w;
  nan(3, 2) = std::numeric_limits<float>::quiet_NaN();
  refused(nan, c, {}, "w");
  nan = w;
  nan(5, 7) = std::numeric_limits<float>::infinity();
  refused(nan, c, {}, "w");
}

}  // namespace
}  // namespace factor_structured_sparse_gpt_test
