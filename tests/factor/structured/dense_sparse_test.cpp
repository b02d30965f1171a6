// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <Eigen/Cholesky>
#include <Eigen/Core>
#include <Eigen/QR>
#include <Eigen/SVD>

#include <pare/factor/structured/dense_sparse.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "support/matrices.hpp"
#include "support/properties.hpp"

namespace factor_structured_dense_sparse_test {
namespace {

using namespace pare::factor;
using pare::Index;
using pare::RowMatrix;
using pare::testing::normal;
using pare::testing::refusal;
using Matrix = RowMatrix<double>;

Matrix normal_matrix(Index rows, Index cols, std::uint64_t seed) {
  pare::testing::Engine random(seed);
  Matrix m(rows, cols);
  for (Index i = 0; i < m.size(); ++i) m.data()[i] = normal(random);
  return m;
}

/// The codes of rows as a matrix [outputs x atoms of a block].
Matrix codes_of(const DenseSparse<double>& w) {
  Matrix codes = Matrix::Zero(w.outputs(), w.atoms());
  for (Index o = 0; o < w.outputs(); ++o)
    for (Index k = 0; k < w.nonzeros(); ++k) codes(o, w.place(o, k)) += w.value(o, k);
  return codes;
}

/// A weight of given atoms, one block, whose codes are zeros.
DenseSparse<double> of_atoms(Index outputs, const Matrix& atoms, Index nonzeros) {
  DenseSparse<double> w({outputs, atoms.cols(), outputs, atoms.rows(), nonzeros});
  for (Index a = 0; a < atoms.rows(); ++a)
    for (Index i = 0; i < atoms.cols(); ++i) w.own_dictionary()(a, i) = atoms(a, i);
  return w;
}

/// ||w - (best combination of some atoms)||^2 by Householder QR, and its values.
double left_by(const Eigen::VectorXd& w, const Matrix& atoms, const std::vector<Index>& support,
               Eigen::VectorXd* values = nullptr) {
  Eigen::MatrixXd chosen(w.size(), static_cast<Index>(support.size()));
  for (std::size_t i = 0; i < support.size(); ++i)
    chosen.col(static_cast<Index>(i)) = atoms.row(support[i]).transpose();
  const Eigen::VectorXd x = chosen.colPivHouseholderQr().solve(w);
  if (values != nullptr) *values = x;
  return (w - chosen * x).squaredNorm();
}

/// Orthogonal matching pursuit as it is defined, by residuals: a row of codes.
Eigen::RowVectorXd pursue(const Eigen::VectorXd& w, const Matrix& atoms, Index nonzeros) {
  std::vector<Index> support;
  Eigen::VectorXd values, left = w;
  for (Index k = 0; k < nonzeros; ++k) {
    Index best = 0;
    const Eigen::VectorXd sizes = (atoms * left).cwiseAbs();
    sizes.maxCoeff(&best);
    support.push_back(best);
    left_by(w, atoms, support, &values);
    left = w;
    for (std::size_t i = 0; i < support.size(); ++i)
      left -= values(static_cast<Index>(i)) * atoms.row(support[i]).transpose();
  }
  Eigen::RowVectorXd code = Eigen::RowVectorXd::Zero(atoms.rows());
  for (std::size_t i = 0; i < support.size(); ++i) code(support[i]) = values(static_cast<Index>(i));
  return code;
}

/// The least that any `nonzeros` atoms leave of w: all subsets are tried.
double least_left(const Eigen::VectorXd& w, const Matrix& atoms, Index nonzeros) {
  double least = std::numeric_limits<double>::infinity();
  std::vector<bool> in(static_cast<std::size_t>(atoms.rows()), false);
  std::fill_n(in.begin(), nonzeros, true);
  do {
    std::vector<Index> support;
    for (std::size_t a = 0; a < in.size(); ++a)
      if (in[a]) support.push_back(static_cast<Index>(a));
    least = std::min(least, left_by(w, atoms, support));
  } while (std::prev_permutation(in.begin(), in.end()));
  return least;
}

Matrix unit_rows(Matrix m) {
  m.rowwise().normalize();
  return m;
}

TEST(DenseSparse, CodesAreThoseOfThePursuitByResiduals) {
  const Matrix w = normal_matrix(20, 9, 1), atoms = unit_rows(normal_matrix(9, 9, 2));
  for (const Index nonzeros : {1, 3, 5}) {
    const auto fit = dense_sparse(w, of_atoms(20, atoms, nonzeros), {.sweeps = 0});
    const auto plain =
        dense_sparse(pare::reference, w, of_atoms(20, atoms, nonzeros), {.sweeps = 0});
    const Matrix codes = codes_of(fit.weight), by_reference = codes_of(plain.weight);
    for (Index o = 0; o < 20; ++o) {
      const Eigen::RowVectorXd wanted = pursue(w.row(o).transpose(), atoms, nonzeros);
      // Of 5 of 9 random atoms the condition is below 1e3, so that values have 12 digits.
      EXPECT_LT((codes.row(o) - wanted).norm(), 1e-10 * w.row(o).norm()) << o << ' ' << nonzeros;
      EXPECT_LT((by_reference.row(o) - wanted).norm(), 1e-10 * w.row(o).norm()) << o;
    }
  }
}

TEST(DenseSparse, NoSubsetOfAtomsLeavesLessThanOneOrOrthogonalOnes) {
  const Matrix w = normal_matrix(12, 6, 3);
  const Matrix any = unit_rows(normal_matrix(6, 6, 4));
  const Matrix orthogonal =
      Eigen::MatrixXd(any).householderQr().householderQ() * Eigen::MatrixXd::Identity(6, 6);
  for (const bool one : {true, false})
    for (const Index nonzeros : one ? std::vector<Index>{1} : std::vector<Index>{1, 2, 3}) {
      const Matrix& atoms = one ? any : orthogonal;
      const auto fit = dense_sparse(w, of_atoms(12, atoms, nonzeros), {.sweeps = 0});
      const Matrix left = w - fit.weight.dense();
      for (Index o = 0; o < 12; ++o)
        EXPECT_NEAR(left.row(o).squaredNorm(), least_left(w.row(o).transpose(), atoms, nonzeros),
                    1e-12 * w.row(o).squaredNorm());
    }
}

TEST(DenseSparse, AllAtomsOfTheRankAreExact) {
  const Matrix w = normal_matrix(24, 5, 5) * normal_matrix(5, 16, 6);
  const auto fit = dense_sparse(w, {.atoms = 5, .nonzeros = 5, .sweeps = 0});
  EXPECT_LT((w - fit.weight.dense()).norm(), 1e-11 * w.norm());
  // Losses are differences of sums of squares: rounding of 1e-16 of these is 1e-8 of the norm.
  EXPECT_LT(fit.relative_error(), 1e-7);
}

TEST(DenseSparse, LossesFallAndAreThoseOfTheResult) {
  const Matrix w = normal_matrix(48, 20, 7);
  const auto fit =
      dense_sparse(w, {.block = 24, .atoms = 12, .nonzeros = 3, .sweeps = 20, .tolerance = 0});
  ASSERT_GT(fit.losses.size(), 10U);
  for (std::size_t i = 1; i < fit.losses.size(); ++i)
    EXPECT_LE(fit.losses[i], fit.losses[i - 1]) << i;
  EXPECT_LT(fit.losses.back(), 0.9 * fit.losses.front());
  EXPECT_NEAR(fit.losses.back(), (w - fit.weight.dense()).squaredNorm(), 1e-12 * w.squaredNorm());
  EXPECT_NEAR(fit.total_energy, w.squaredNorm(), 1e-12 * w.squaredNorm());
  for (Index a = 0; a < 24; ++a) {
    double square = 0;
    for (Index i = 0; i < 20; ++i)
      square += fit.weight.dictionary()(a, i) * fit.weight.dictionary()(a, i);
    EXPECT_NEAR(square, 1, 1e-12) << a;
  }
  for (Index o = 0; o < 48; ++o)
    for (Index k = 1; k < 3; ++k) EXPECT_LT(fit.weight.place(o, k - 1), fit.weight.place(o, k));
  const auto plain = dense_sparse(
      pare::reference, w, {.block = 24, .atoms = 12, .nonzeros = 3, .sweeps = 4, .tolerance = 0});
  for (std::size_t i = 0; i < plain.losses.size(); ++i)
    EXPECT_NEAR(plain.losses[i], fit.losses[i], 1e-9 * w.squaredNorm()) << i;
}

// Atoms of unit norm and codes by least squares: no change of the atoms alone lowers the loss.
TEST(DenseSparse, AtomsAreTheLeastSquaresOfTheirCodes) {
  const Matrix w = normal_matrix(40, 10, 8);
  const auto fit = dense_sparse(w, {.atoms = 8, .nonzeros = 2, .sweeps = 400, .tolerance = 0});
  const Matrix codes = codes_of(fit.weight);
  // Where sweeps changed nothing any more, the residual is orthogonal to the codes.
  EXPECT_LT((codes.transpose() * (w - fit.weight.dense())).norm(), 1e-3 * w.norm());
}

TEST(DenseSparse, HalvesWhatLowRankLeavesOfNoiseAtEqualNumbers) {
  // 64 x 64 + 8 x 256 numbers, as rank 19 of 256 x 64 has.
  const Matrix w = normal_matrix(256, 64, 9);
  const auto fit = dense_sparse(pare::simd.threads(2), w, {.atoms = 64, .nonzeros = 8});
  const Eigen::VectorXd s = Eigen::MatrixXd(w).jacobiSvd().singularValues();
  const double thin = s.tail(64 - 19).norm() / s.norm();
  ::testing::Test::RecordProperty("dense_sparse", std::to_string(fit.relative_error()));
  ::testing::Test::RecordProperty("rank_19", std::to_string(thin));
  EXPECT_LT(fit.relative_error(), 0.5);
  EXPECT_GT(thin, 0.70);
}

Covariance covariance_of(const Matrix& x) {
  Covariance covariance(x.cols());
  covariance.add(x);
  return covariance;
}

TEST(DenseSparse, ACovarianceIsThatOfTheWhitenedWeight) {
  const Matrix w = normal_matrix(30, 8, 10);
  const Covariance covariance = covariance_of(normal_matrix(50, 8, 11) * normal_matrix(8, 8, 12));
  const Eigen::MatrixXd c = covariance.matrix();
  const Matrix root = c.llt().matrixL();
  const DenseSparseOptions options{.atoms = 6, .nonzeros = 2, .sweeps = 5, .tolerance = 0};
  const auto aware = dense_sparse(w, covariance, options);
  const auto white = dense_sparse(Matrix(w * root), options);
  const auto plain = dense_sparse(w, options);
  const auto loss_of = [&](const DenseSparse<double>& f) {
    return ((w - f.dense()) * root).squaredNorm();
  };
  ASSERT_EQ(aware.losses.size(), white.losses.size());
  for (std::size_t i = 0; i < aware.losses.size(); ++i)
    EXPECT_NEAR(aware.losses[i], white.losses[i], 1e-8 * white.total_energy) << i;
  EXPECT_NEAR(aware.losses.back(), loss_of(aware.weight), 1e-10 * aware.total_energy);
  EXPECT_LT(loss_of(aware.weight), loss_of(plain.weight));
  EXPECT_LT((codes_of(aware.weight) - codes_of(white.weight)).norm(),
            1e-6 * codes_of(white.weight).norm());
}

TEST(DenseSparse, ASingularCovarianceWillDo) {
  const Matrix w = normal_matrix(20, 8, 13);
  const auto fit =
      dense_sparse(w, covariance_of(normal_matrix(3, 8, 14)), {.atoms = 4, .nonzeros = 3});
  // Outputs over three directions are sums of three atoms.
  EXPECT_LT(fit.relative_error(), 1e-6);
  EXPECT_TRUE(fit.weight.dense().allFinite());
}

TEST(DenseSparse, AWarmStartNeverLosesAndOutputsOfZerosAreZeros) {
  Matrix w = normal_matrix(32, 12, 15);
  w.row(3).setZero();
  w.row(8) = w.row(0);  // a second atom like the first
  const DenseSparseOptions few{.atoms = 8, .nonzeros = 2, .sweeps = 2, .tolerance = 0};
  const auto fit = dense_sparse(w, few);
  for (Index k = 0; k < 2; ++k) EXPECT_EQ(fit.weight.value(3, k), 0);
  EXPECT_TRUE(fit.weight.dense().allFinite());
  const auto more = dense_sparse(w, fit.weight, few);
  EXPECT_LE(more.losses.front(), fit.losses.back() + 1e-12 * w.squaredNorm());
  EXPECT_LT(more.losses.back(), fit.losses.back());
  const Matrix zero = Matrix::Zero(8, 4);
  const auto none = dense_sparse(zero, {.atoms = 2, .nonzeros = 1});
  EXPECT_EQ(none.relative_error(), 0);
  EXPECT_EQ(none.weight.dense(), zero);
}

/// Codes of a start so large that their products are beyond double are left as they are.
TEST(DenseSparse, AStartBeyondDoubleEnds) {
  const Matrix w = normal_matrix(16, 6, 15);
  DenseSparse<double> start({.outputs = 16, .inputs = 6, .block = 16, .atoms = 3, .nonzeros = 2});
  for (Index a = 0; a < 3; ++a)
    for (Index i = 0; i < 6; ++i) start.own_dictionary()(a, i) = 1e-10 * (a == i ? 1 : 0.1);
  for (Index o = 0; o < 16; ++o)
    for (Index k = 0; k < 2; ++k) start.set(o, k, k, 1e200);
  const auto fit = dense_sparse(w, start, {.atoms = 3, .nonzeros = 2, .sweeps = 3});
  EXPECT_EQ(fit.weight.outputs(), 16);
}

TEST(DenseSparse, AtomsThatAreNearlyEqualAreNotBothChosen) {
  Matrix atoms = unit_rows(normal_matrix(4, 4, 16));
  atoms.row(2) = (atoms.row(0) + 1e-7 * atoms.row(2)).normalized();
  const Matrix w = normal_matrix(10, 4, 17);
  const auto fit = dense_sparse(w, of_atoms(10, atoms, 4), {.sweeps = 0});
  for (Index o = 0; o < 10; ++o)
    EXPECT_TRUE(codes_of(fit.weight)(o, 0) == 0 || codes_of(fit.weight)(o, 2) == 0) << o;
  EXPECT_LT(codes_of(fit.weight).norm(), 100 * w.norm());
}

TEST(DenseSparse, ThreadsAndStridesKeepTheBits) {
  const Matrix w = normal_matrix(70, 24, 18);
  const DenseSparseOptions options{.block = 35, .atoms = 16, .nonzeros = 4, .sweeps = 3};
  pare::testing::same_bits_for_any_threads(pare::simd, [&](const auto& backend) {
    return dense_sparse(backend, w, options).weight.dense();
  });
  pare::testing::any_stride_same_bits(
      w, [&](const auto& view) { return dense_sparse(view, options).weight.dense(); });
}

TEST(DenseSparse, AnyScaleIsTheSameButForPowersOfTwo) {
  const Matrix w = normal_matrix(16, 8, 19);
  const DenseSparseOptions options{.atoms = 6, .nonzeros = 2, .sweeps = 3};
  const Matrix wanted = dense_sparse(w, options).weight.dense();
  for (const int power : {-500, 500}) {
    const Matrix scaled = w * std::ldexp(1.0, power);
    const auto fit = dense_sparse(scaled, options);
    EXPECT_LT((fit.weight.dense() * std::ldexp(1.0, -power) - wanted).norm(), 1e-12 * w.norm());
  }
  for (const double scale : {1e300, 1e-300})
    refusal([&] { dense_sparse(Matrix(w * scale), options); }, "factor::dense_sparse", "w");
  const auto single = dense_sparse(RowMatrix<float>(w.cast<float>()), options);
  EXPECT_LT((single.weight.dense().cast<double>() - wanted).norm(), 1e-4 * w.norm());
}

TEST(DenseSparse, WhatDoesNotFitIsRefused) {
  const Matrix w = normal_matrix(12, 8, 20);
  const char* const function = "factor::dense_sparse";
  const auto refused = [&](const DenseSparseOptions& options, const char* argument) {
    refusal([&] { dense_sparse(w, options); }, function, argument);
    refusal([&] { dense_sparse(pare::reference, w, options); }, function, argument);
  };
  const double nan = std::numeric_limits<double>::quiet_NaN();
  refused({.block = 5, .atoms = 2, .nonzeros = 1}, "block");
  refused({.block = 0, .atoms = 2, .nonzeros = 1}, "block");
  refused({.atoms = 0, .nonzeros = 1}, "atoms");
  refused({.atoms = 9, .nonzeros = 1}, "atoms");
  refused({.block = 4, .atoms = 5, .nonzeros = 1}, "atoms");
  refused({.atoms = 4, .nonzeros = 5}, "nonzeros");
  refused({.atoms = 4, .nonzeros = 0}, "nonzeros");
  refused({.atoms = 4, .nonzeros = 2, .sweeps = -1}, "sweeps");
  refused({.atoms = 4, .nonzeros = 2, .tolerance = 1}, "tolerance");
  refused({.atoms = 4, .nonzeros = 2, .tolerance = nan}, "tolerance");
  refused({.atoms = 4, .nonzeros = 2, .ridge = -1}, "ridge");
  refused({.atoms = 4, .nonzeros = 2, .ridge = nan}, "ridge");
  const DenseSparseOptions good{.atoms = 4, .nonzeros = 2};
  Matrix bad = w;
  bad(7, 3) = nan;
  refusal([&] { dense_sparse(bad, good); }, function, "w");
  refusal([&] { dense_sparse(Matrix(0, 8), good); }, function, "w");
  refusal([&] { dense_sparse(w, covariance_of(normal_matrix(4, 7, 1)), good); }, function,
          "covariance");
  refusal([&] { dense_sparse(w, covariance_of(bad), good); }, function, "covariance");
  refusal([&] { dense_sparse(w, Covariance(8), good); }, "factor::Covariance::matrix", "count");
  auto fit = dense_sparse(w, good);
  refusal([&] { dense_sparse(Matrix(w.topRows(6)), fit.weight); }, function, "start");
  fit.weight.set(0, 0, 0, nan);
  refusal([&] { dense_sparse(w, fit.weight); }, function, "start");
}

TEST(DenseSparseOptions, OfAShareTakeThatShareOfTheBytes) {
  for (const auto& [outputs, inputs] :
       {std::pair<Index, Index>{576, 576}, {1536, 576}, {576, 1536}, {4096, 4096}, {192, 576}})
    for (const double share : {0.1, 0.25, 0.5, 0.8}) {
      const auto o = options_of_share(outputs, inputs, share);
      validate("test", o, outputs, inputs);
      const DenseSparse<pare::bf16> w({outputs, inputs, outputs, o.atoms, o.nonzeros});
      const double of_dense =
          static_cast<double>(w.bytes()) / static_cast<double>(2 * outputs * inputs);
      EXPECT_LE(of_dense, share) << outputs << ' ' << inputs;
      EXPECT_GT(of_dense, 0.93 * share) << outputs << ' ' << inputs;
    }
  EXPECT_EQ(options_of_share(2, 2, 0.01).atoms, 1);
  const char* const function = "factor::options_of_share";
  refusal([] { options_of_share(0, 4, 0.5); }, function, "outputs");
  refusal([] { options_of_share(4, 0, 0.5); }, function, "inputs");
  refusal([] { options_of_share(std::numeric_limits<Index>::max(), 1, 0.5); }, function, "inputs");
  refusal([] { options_of_share(4, 4, 0); }, function, "share");
  refusal([] { options_of_share(4, 4, 1.5); }, function, "share");
}

}  // namespace
}  // namespace factor_structured_dense_sparse_test
