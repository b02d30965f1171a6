// SPDX-License-Identifier: Apache-2.0
// What the truncated decomposition promises of its error: for spectra that fall slowly, at extreme
// norms and small tolerances.
#include <gtest/gtest.h>

#include <Eigen/Core>
#include <Eigen/SparseCore>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <type_traits>
#include <vector>

#include <pare/factor/svd.hpp>

#include "factor/data.hpp"
#include "support/backends.hpp"

namespace factor_svd_precision_test {
namespace {

using namespace pare::factor;
using namespace pare::testing;
using Eigen::MatrixXd;
using Eigen::VectorXd;
using pare::Index;
using pare::TensorView;

constexpr Route iterating[] = {Route::Gram, Route::Randomized};

/// exp(-(x_i - x_j)^2 / (2 sigma^2)) on a grid of [0, 1]: singular values that fall exponentially.
MatrixXd gaussian_kernel(Index n, double sigma) {
  MatrixXd k(n, n);
  for (Index i = 0; i < n; ++i)
    for (Index j = 0; j < n; ++j)
      k(i, j) = std::exp(-std::pow(static_cast<double>(i - j) / static_cast<double>(n - 1), 2) /
                         (2 * sigma * sigma));
  return k;
}

template <class Case>
class SvdPrecision : public ::testing::Test {
 public:
  static void SetUpTestSuite() { use_one_thread_for_oracles(); }
  using Scalar = typename Case::scalar;
  static constexpr bool is_float = std::is_same_v<Scalar, float>;
  static auto backend() { return Case::backend::make(); }
  static MatrixXd held(const MatrixXd& w) { return values_of(stored_in<Scalar>(w)); }
  static LowRank<Scalar> solve(const MatrixXd& w, const SvdOptions& options) {
    return truncated_svd(backend(), stored_in<Scalar>(w), options);
  }
};
TYPED_TEST_SUITE(SvdPrecision, SolverCases);

// Feed-forward layers of small language models fall as i^-0.3 to i^-0.1.
TYPED_TEST(SvdPrecision, SpectraThatFallSlowlyKeepThePromisedExcess) {
  if (TypeParam::backend::is_reference) return;
  const Index n = 260, k = 70;
  for (const double exponent : {0.05, 0.1, 0.3}) {
    const VectorXd s = power_spectrum(n, exponent);
    const MatrixXd w = this->held(with_spectrum(300, n, s, 31));
    const double tail = s.tail(n - k).norm();
    for (const Route route : iterating)
      for (const Accuracy accuracy : {Accuracy::Standard, Accuracy::High}) {
        const auto r = this->solve(w, {.rank = k, .accuracy = accuracy, .route = route});
        const double excess = error_of(w, r) / tail - 1;
        EXPECT_LE(excess, accuracy == Accuracy::High ? 1e-4 : 0.003)
            << exponent << " route " << static_cast<int>(route) << " steps " << r.steps;
      }
  }
}

// One value far above the others hides them in products in float: of G at 1.5e-3 of it, where
// steps cease to gain, of W at 2e-5, where energies do not tell what is left.
TYPED_TEST(SvdPrecision, OneLargeValueDoesNotSpoilThePromise) {
  if (TypeParam::backend::is_reference) return;
  const Index n = 180, k = 45;
  const auto expect_excess = [&](double others, Route route, Accuracy accuracy) {
    VectorXd s = others * power_spectrum(n, 0.05);
    s[0] = 1;
    const MatrixXd w = this->held(with_spectrum(n + 20, n, s, 31));
    const double tail = detail::reference_svd(w).s.tail(n - k).norm();
    const auto r = this->solve(w, {.rank = k, .accuracy = accuracy, .route = route});
    EXPECT_LE(error_of(w, r) / tail - 1, accuracy == Accuracy::High ? 1e-4 : 0.003) << others;
  };
  expect_excess(1.5e-3, Route::Gram, Accuracy::High);
  for (const Accuracy accuracy : {Accuracy::Standard, Accuracy::High})
    expect_excess(2e-5, Route::Randomized, accuracy);
}

TYPED_TEST(SvdPrecision, StepsThatAreGivenAreKept) {
  if (TypeParam::backend::is_reference) return;
  const MatrixXd w = this->held(with_spectrum(300, 260, power_spectrum(260, 0.1), 31));
  for (const Route route : iterating) {
    EXPECT_EQ(this->solve(w, {.rank = 70, .steps = 2, .route = route}).steps, 2);
    const int steps = this->solve(w, {.rank = 70, .route = route}).steps;
    EXPECT_GT(steps, 2);
    EXPECT_LE(steps, 10) << "what the documentation says";
    const MatrixXd steep = this->held(with_spectrum(300, 260, power_spectrum(260, 1), 31));
    EXPECT_EQ(this->solve(steep, {.rank = 70, .route = route}).steps, 2) << "are enough";
  }
  const auto small = stored_in<typename TypeParam::scalar>(w.topLeftCorner(30, 20));
  const SvdOptions options{.rank = 6, .steps = 3, .route = Route::Randomized};
  const MatrixXd c = MatrixXd::Identity(20, 20);
  EXPECT_EQ(factorize(this->backend(), small, InputCovariance(c), options).steps, 3);
}

// Tall, wide, every route: the factor that brings the norm near 1 is squared where G is formed.
TYPED_TEST(SvdPrecision, ExtremeNormsChangeNothingButTheScale) {
  using T = typename TypeParam::scalar;
  const auto scales = this->is_float ? std::vector<int>{-140, -80, 80, 122}
                                     : std::vector<int>{-480, -300, 300, 480};
  for (const auto& [out, in] : {std::pair<Index, Index>{170, 140}, {140, 170}}) {
    // Integers, so that subnormal numbers hold them too.
    const MatrixXd w = integer_matrix<MatrixXd>(out, in, 3);
    for (const Route route : {Route::Auto, Route::Gram, Route::Randomized, Route::Exact})
      for (const int exponent : scales) {
        if (TypeParam::backend::is_reference && route != Route::Auto) continue;  // has one
        const SvdOptions options{.rank = 20, .route = route, .split = Split::Both};
        const auto plain = this->solve(w, options);
        const double scale = std::exp2(exponent);
        const auto r = this->solve(scale * w, options);
        SCOPED_TRACE(testing::Message()
                     << out << " 2^" << exponent << " route " << static_cast<int>(route));
        ASSERT_TRUE(r.left.allFinite() && r.right.allFinite());
        const double bound = 0.003 * error_of(w, plain);
        EXPECT_TRUE(within((w - product(r) / scale).norm(), error_of(w, plain), bound));
        EXPECT_TRUE(within(r.relative_error(), plain.relative_error(), 0.003));
        EXPECT_TRUE(within(r.error_bound / scale, plain.error_bound, bound));
        EXPECT_TRUE(within((r.singular_values / scale - plain.singular_values).norm(), 0, bound));
      }
  }
  const auto r =
      this->solve(std::exp2(this->is_float ? -70 : -480) * integer_matrix<MatrixXd>(170, 140, 3),
                  {.rank = 20, .route = Route::Gram});
  EXPECT_LE(orthonormality(r.right.transpose()), basis_bound<T>);
}

TYPED_TEST(SvdPrecision, FactorsAndSquaresThatNoNumberHoldsAreRefused) {
  using T = typename TypeParam::scalar;
  const auto refused = [](double value, const SvdOptions& options) {
    const RowMatrix<T> w = RowMatrix<T>::Constant(300, 140, static_cast<T>(value));
    return refusal([&] { truncated_svd(TestFixture::backend(), w, options); },
                   "factor::truncated_svd", "w");
  };
  if (this->is_float) {
    // The one singular value is 205 times that, the factors of the other split its root.
    EXPECT_NE(refused(3e38, {.rank = 2}).find("range"), std::string::npos);
    const auto both =
        this->solve(MatrixXd::Constant(300, 140, 3e38), {.rank = 1, .split = Split::Both});
    EXPECT_LE(error_of(MatrixXd::Constant(300, 140, 3e38), both), 1e-5 * 205 * 3e38);
  } else {
    for (const double tiny : {1e-155, 1e-200, 1e-300})
      EXPECT_NE(refused(tiny, {.rank = 2}).find("1e-292"), std::string::npos);
  }
}

TYPED_TEST(SvdPrecision, SparseMatricesOfSubnormalNumbers) {
  using T = typename TypeParam::scalar;
  MatrixXd w = integer_matrix<MatrixXd>(60, 50, 5);
  for (Index i = 0; i < 60; ++i)
    for (Index j = 0; j < 50; ++j)
      if ((i * 7 + j) % 3 != 0) w(i, j) = 0;
  const double scale = std::exp2(this->is_float ? -140 : -480);
  using Sparse = Eigen::SparseMatrix<T, Eigen::RowMajor>;
  const SvdOptions options{.rank = 9, .split = Split::Both};
  const auto plain = truncated_svd(this->backend(), sparse_of<Sparse>(w), options);
  const auto r = truncated_svd(this->backend(), sparse_of<Sparse>(scale * w), options);
  EXPECT_TRUE(
      within((w - product(r) / scale).norm(), error_of(w, plain), 0.003 * error_of(w, plain)));
  EXPECT_TRUE(within(r.relative_error(), plain.relative_error(), 0.003));
  EXPECT_TRUE(within((r.singular_values / scale - plain.singular_values).norm(), 0,
                     0.003 * plain.singular_values[0]));
}

// Squares of 1e-160 are subnormal in double, those of 1e-200 vanish.
TYPED_TEST(SvdPrecision, SparseMatricesAndOperatorsWhoseSquaresVanishAreRefused) {
  using T = typename TypeParam::scalar;
  if (this->is_float) return;  // squares are summed in double
  using Sparse = Eigen::SparseMatrix<T, Eigen::RowMajor>;
  for (const double tiny : {1e-155, 1e-160, 1e-200}) {
    const MatrixXd w = tiny * normal_matrix(30, 20, 5);
    Sparse sparse(30, 20);
    for (Index i = 0; i < 30; ++i) sparse.insert(i, i % 20) = static_cast<T>(w(i, 0));
    refusal([&] { truncated_svd(this->backend(), sparse, {.rank = 3}); }, "factor::truncated_svd",
            "w");
    const PlainMatrix<T> users{stored_in<T>(w)};
    refusal([&] { truncated_svd(this->backend(), users, {.rank = 3}); }, "factor::truncated_svd",
            "w");
  }
}

// Products with unit vectors are finite, those with anything larger are not.
TYPED_TEST(SvdPrecision, OperatorsNearTheLargestNumber) {
  using T = typename TypeParam::scalar;
  const MatrixXd w = integer_matrix<MatrixXd>(60, 50, 5);
  const double scale = std::exp2(this->is_float ? 112 : 480);
  const PlainMatrix<T> plain{stored_in<T>(w)}, large{stored_in<T>(scale * w)};
  const auto expected = truncated_svd(this->backend(), plain, {.rank = 9});
  const auto r = truncated_svd(this->backend(), large, {.rank = 9});
  EXPECT_TRUE(within((product(r) / scale - product(expected)).norm(), 0, 1e-4 * w.norm()));
}

// The sum of energies is rounding, of either sign.
TYPED_TEST(SvdPrecision, InputsThatACovarianceDoesNotHave) {
  using T = typename TypeParam::scalar;
  for (const std::uint64_t seed : {1u, 2u, 3u, 4u, 5u}) {
    const VectorXd v = normal_matrix(20, 1, seed);
    MatrixXd w = normal_matrix(10, 20, seed + 7);
    w -= (w * v) * v.transpose() / v.squaredNorm();
    const auto r = factorize(this->backend(), stored_in<T>(w),
                             InputCovariance(MatrixXd(v * v.transpose())), {.rank = 2});
    EXPECT_LE((product(r) * v).norm(), 1e-5 * w.norm() * v.norm());
    EXPECT_LE(r.error(), 1e-5 * w.norm() * v.norm());
  }
}

TYPED_TEST(SvdPrecision, CovariancesOfAnyScale) {
  const MatrixXd w = this->held(normal_matrix(30, 20, 6));
  const MatrixXd x = correlated_inputs(60, 20, 7);
  const MatrixXd c = x.transpose() * x / 60;
  const auto stored = stored_in<typename TypeParam::scalar>(w);
  const auto plain = factorize(this->backend(), stored, InputCovariance(c, 0.1), {.rank = 6});
  for (const int exponent : {-900, 980}) {
    const MatrixXd scaled = std::exp2(exponent) * c;
    const auto r = factorize(this->backend(), stored, InputCovariance(scaled, 0.1), {.rank = 6});
    EXPECT_TRUE(within((product(r) - product(plain)).norm(), 0, 1e-5 * w.norm()));
    const double root = std::exp2(exponent / 2);
    EXPECT_TRUE(within(r.error() / root, plain.error(), 1e-5 * plain.error()));
    EXPECT_TRUE(within((r.singular_values / root - plain.singular_values).norm(), 0,
                       1e-5 * plain.singular_values[0]));
    MatrixXd indefinite = scaled;
    indefinite(0, 0) = 0;
    refusal([&] { factorize(this->backend(), stored, InputCovariance(indefinite), {.rank = 6}); },
            "factor::factorize", "input_covariance");
  }
}

// Squares of tolerances below 3e-8 are rounding of the energy.
TYPED_TEST(SvdPrecision, SmallTolerancesAreMetByTheLeastRank) {
  const MatrixXd w = this->held(gaussian_kernel(200, 0.05));
  const VectorXd s = detail::reference_svd(w).s;
  const auto least = [&](double tolerance) {
    Index k = 1;
    while (s.tail(s.size() - k).norm() > tolerance * s.norm()) ++k;
    return k;
  };
  std::vector<double> tolerances{1e-3, 1e-5};
  if (!this->is_float) tolerances = {1e-5, 1e-7, 1e-8, 1e-10, 1e-12};
  for (const double tolerance : tolerances)
    for (const Route route : {Route::Auto, Route::Gram, Route::Randomized}) {
      if (TypeParam::backend::is_reference && route != Route::Auto) continue;
      const auto r = this->solve(w, {.tolerance = tolerance, .route = route});
      SCOPED_TRACE(testing::Message() << tolerance << " route " << static_cast<int>(route));
      const double error = error_of(w, r);
      EXPECT_LE(error, tolerance * w.norm());
      EXPECT_LE(r.rank(), least(tolerance) + 1);
      EXPECT_GE(r.error_bound, error * (1 - 1e-6));
      EXPECT_LE(r.error_bound, 1.1 * tolerance * w.norm()) << "a bound that tells something";
      EXPECT_TRUE(within(r.error(), error, 0.1 * error));
    }
  const double below = this->is_float ? 1e-7 : 1e-15;
  refusal([&] { this->solve(w, {.tolerance = below}); }, "factor::truncated_svd", "tolerance");
}

// By rounds on what is left, each of which knows its values to 1e-8 of the largest.
TYPED_TEST(SvdPrecision, NearAStepOfTheErrorTheRankIsTheLeast) {
  if (this->is_float) return;
  const MatrixXd w = gaussian_kernel(136, 0.05);
  const VectorXd s = detail::reference_svd(w).s;
  const auto tail = [&](Index k) { return s.tail(136 - k).norm() / s.norm(); };
  for (const Index k : {44, 47}) {
    const double below = tail(k) * (1 - 1e-4);
    const auto r = this->solve(w, {.tolerance = below});
    EXPECT_EQ(r.rank(), k + 1);
    EXPECT_LE(error_of(w, r), below * w.norm());
    EXPECT_EQ(this->solve(w, {.tolerance = tail(k) * (1 + 1e-3)}).rank(), k);
  }
  EXPECT_EQ(this->solve(w, {.tolerance = std::sqrt(tail(51) * tail(52))}).rank(), 52);
  const auto limited = [&](Index rank) {
    return this->solve(w, {.rank = rank, .tolerance = std::sqrt(tail(46) * tail(47))});
  };
  EXPECT_EQ(limited(100).rank(), 47) << "more than there are to choose from";
  EXPECT_EQ(limited(47).rank(), 47);
  EXPECT_EQ(limited(20).rank(), 20);
  EXPECT_LE(error_of(w, limited(20)), 1.0001 * tail(20) * w.norm());
}

// The least that is taken, of every metric and shape; norms and weights far from 1.
TYPED_TEST(SvdPrecision, TheSmallestTolerancesAreMet) {
  using T = typename TypeParam::scalar;
  const MatrixXd square = std::exp2(-41) * this->held(gaussian_kernel(136, 0.05));
  for (const MatrixXd& w :
       {square, MatrixXd(square.leftCols(130)), MatrixXd(square.topRows(130))}) {
    const VectorXd outputs = std::exp2(15) * positive_weights(w.rows(), 3),
                   inputs = std::exp2(-19) * positive_weights(w.cols(), 4);
    const MatrixXd none = MatrixXd::Zero(w.rows(), w.cols());
    const auto met = [&](const auto& metric, const VectorXd& o, const VectorXd& i, double least) {
      const double tolerance = TestFixture::is_float ? 1e-6 : least;
      const auto r =
          factorize(TestFixture::backend(), stored_in<T>(w), metric, {.tolerance = tolerance});
      const double error = std::sqrt(weighted_objective(w, product(r), o, i));
      EXPECT_LE(error, tolerance * std::sqrt(weighted_objective(w, none, o, i)));
      EXPECT_LE(error, r.error_bound * (1 + 1e-6));
      EXPECT_TRUE(within(r.error(), error, 0.05 * error));
    };
    const VectorXd out = VectorXd::Ones(w.rows()), in = VectorXd::Ones(w.cols());
    SCOPED_TRACE(testing::Message() << w.rows() << " x " << w.cols());
    met(Uniform{}, out, in, 2e-14);
    met(OutputWeights(outputs), outputs, in, 2e-14);
    met(InputWeights(inputs), out, inputs, 2e-14);
    met(BothWeights(outputs, inputs), outputs, inputs, 2e-7);
  }
  if (TypeParam::backend::is_reference) return;  // has the basis on the other side
  const double tolerance = this->is_float ? 1e-6 : 1e-12;
  const auto r = this->solve(square, {.tolerance = tolerance, .split = Split::Right});
  EXPECT_LE(orthonormality(r.left), basis_bound<T>);
}

// Also where the rank is given, and where the result is nearly exact.
TYPED_TEST(SvdPrecision, TheBoundOfTheErrorIsOneAndNear) {
  const MatrixXd w = this->held(gaussian_kernel(200, 0.05));
  for (const auto& shape : {w, MatrixXd(w.leftCols(150)), MatrixXd(w.topRows(150))})
    for (const Index k : {5, 12, 20, 30, 45}) {
      const auto r = this->solve(shape, {.rank = k});
      const double error = error_of(shape, r);
      EXPECT_GE(r.error_bound, error * (1 - 1e-6)) << k;
      const double rounding = std::is_same_v<typename TypeParam::scalar, float> ? 1e-6 : 1e-12;
      EXPECT_LE(r.error_bound, 1.1 * error + rounding * shape.norm()) << k;
    }
}

/// ||(W - A B) x^T||_F to more digits than double has.
template <class T>
double exact_error(const MatrixXd& w, const LowRank<T>& r, const MatrixXd& x) {
  using Matrix = Eigen::Matrix<long double, Eigen::Dynamic, Eigen::Dynamic>;
  const Matrix rest = w.cast<long double>() -
                      r.left.template cast<long double>() * r.right.template cast<long double>();
  return static_cast<double>((rest * x.transpose().cast<long double>()).norm());
}

// What is left is rounding of the factors, or of the sum that measures it.
TYPED_TEST(SvdPrecision, TheBoundHoldsWhereNothingButRoundingIsLeft) {
  using T = typename TypeParam::scalar;
  for (std::uint64_t seed = 0; seed < 20; ++seed) {
    SCOPED_TRACE(seed);
    const MatrixXd square = this->held(normal_matrix(2, 2, seed + 100)),
                   one = MatrixXd::Identity(2, 2);
    const auto whole = this->solve(square, {.rank = 2});
    EXPECT_LE(exact_error(square, whole, one), whole.error_bound);
    // The rest is large, but not where inputs have energy.
    const MatrixXd x = normal_matrix(4, 20, seed);
    const MatrixXd w = this->held(normal_matrix(10, 20, seed + 77)), c = x.transpose() * x;
    const auto r = factorize(this->backend(), stored_in<T>(w), InputCovariance(c), {.rank = 4});
    EXPECT_LE(exact_error(w, r, x), r.error_bound);
    EXPECT_LE(r.error_bound, 1e-6 * std::sqrt(r.total_energy));
    if (TypeParam::backend::is_reference) continue;
    const MatrixXd product_of_integers =
        integer_matrix<MatrixXd>(20, 3, seed) * integer_matrix<MatrixXd>(3, 15, seed + 50);
    const auto sparse = truncated_svd(
        this->backend(), sparse_of<Eigen::SparseMatrix<T, Eigen::RowMajor>>(product_of_integers),
        {.rank = 3});
    EXPECT_LE(error_of(product_of_integers, sparse), sparse.error_bound);
  }
}

TYPED_TEST(SvdPrecision, OfEqualElementsTheFirstIsPositive) {
  for (const double first : {1.0, -1.0}) {
    MatrixXd w(1, 3);
    w << first / 2, first, -first;
    const auto r = this->solve(w, {.rank = 1, .signs = Signs::Fixed});
    EXPECT_TRUE(r.right(0, 1) > 0 && r.right(0, 2) == -r.right(0, 1)) << first;
    EXPECT_LE(error_of(w, r), 1e-6);
  }
}

TYPED_TEST(SvdPrecision, OversamplingBeyondTheSideTakesAllOfIt) {
  const MatrixXd w = this->held(normal_matrix(150, 140, 9));
  for (const Route route : iterating) {
    const auto r = this->solve(
        w, {.rank = 8, .oversample = std::numeric_limits<Index>::max(), .route = route});
    EXPECT_LE(error_of(w, r), std::sqrt(tail_energy(w, 8)) * 1.0001);
  }
}

/// A matrix of a user whose products turn NaN after a few, or whose norm is not that of them.
template <class T>
struct BrokenMatrix {
  using scalar = T;
  RowMatrix<T> w;
  int good = 1000;
  double norm = 0;
  mutable int calls = 0;

  Index rows() const { return w.rows(); }
  Index cols() const { return w.cols(); }
  void multiply(TensorView<const T, 2> x, TensorView<T, 2> y) const { product(w, x, y); }
  void multiply_transposed(TensorView<const T, 2> x, TensorView<T, 2> y) const {
    product(w.transpose(), x, y);
  }
  double squared_norm() const { return norm; }

 private:
  template <class M>
  void product(const M& m, TensorView<const T, 2> x, TensorView<T, 2> y) const {
    Eigen::Map<RowMatrix<T>> to(y.data, y.rows(), y.cols());
    to = m * Eigen::Map<const RowMatrix<T>>(x.data, x.rows(), x.cols());
    if (++calls > good) to(0, 0) = std::numeric_limits<T>::quiet_NaN();
  }
};

TYPED_TEST(SvdPrecision, OperatorsThatBreakTheirPromisesAreRefused) {
  using T = typename TypeParam::scalar;
  if (TypeParam::backend::is_reference) return;  // makes one product, and asks for no norm
  const RowMatrix<T> w = stored_in<T>(normal_matrix(40, 30, 8));
  const double norm = values_of(w).squaredNorm();
  const auto refused = [](const BrokenMatrix<T>& m) {
    return refusal([&] { truncated_svd(TestFixture::backend(), m, {.rank = 3}); },
                   "factor::truncated_svd", "w");
  };
  const BrokenMatrix<T> whole{w, 1000, norm};
  const auto r = truncated_svd(this->backend(), whole, {.rank = 3});
  EXPECT_LE(error_of(values_of(w), r), 1.003 * std::sqrt(tail_energy(values_of(w), 3)));
  for (int good = 0; good < whole.calls; ++good)
    EXPECT_NE(refused({w, good, norm}).find("finite elements"), std::string::npos) << good;
  for (const double wrong : {-1.0, 0.0, 1e-3, std::numeric_limits<double>::quiet_NaN()})
    refused({w, 1000, wrong});
  refusal([&] { truncated_svd(this->backend(), whole, {.tolerance = 1e-9}); },
          "factor::truncated_svd", "tolerance");
}

}  // namespace
}  // namespace factor_svd_precision_test
