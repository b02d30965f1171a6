// SPDX-License-Identifier: Apache-2.0
// Factorization in the metric of a covariance of the inputs, on every backend.
#include <gtest/gtest.h>

#include <Eigen/Core>
#include <Eigen/QR>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <span>
#include <stdexcept>
#include <utility>
#include <vector>

#include <pare/factor/covariance_svd.hpp>

#include "factor/data.hpp"
#include "support/backends.hpp"

namespace factor_covariance_svd_test {
namespace {

using namespace pare::factor;
using namespace pare::testing;
using Eigen::MatrixXd;
using Eigen::VectorXd;
using pare::Index;

constexpr Route routes[] = {Route::Auto, Route::Exact, Route::Gram, Route::Randomized};
constexpr double standard_excess = 0.003, high_excess = 1e-4;

/// A weight, the inputs it sees, and the singular values of its outputs.
struct Layer {
  MatrixXd w, x;
  VectorXd values;

  Layer(Index out, Index in, Index tokens)
      : w(values_of(
            stored_in<float>(with_spectrum(out, in, power_spectrum(std::min(out, in), 0.5), 1)))),
        x(correlated_inputs(tokens, in, 2)),
        values(jacobi_values(outputs())) {}

  MatrixXd c() const { return x.transpose() * x; }
  MatrixXd outputs() const { return w * x.transpose(); }
  double tail(Index k) const { return values.tail(std::max<Index>(values.size() - k, 0)).norm(); }
  double objective(const MatrixXd& product) const { return output_objective(w, product, x); }
  /// What ||W|| and ||X|| make of errors that are relative to them.
  double size() const { return w.norm() * x.norm(); }
};

const std::vector<Layer>& large_layers() {
  static const std::vector<Layer> list{Layer(140, 150, 200), Layer(150, 70, 100)};
  return list;
}

/// All is computed in double; then the factors are rounded to T, which the metric sees as an error
/// of their product.
template <class T>
double rounding(const Layer& layer, const LowRank<T>& r) {
  const double product = rounding_bound(r) * layer.x.norm();
  const Index sum = layer.w.rows() + layer.w.cols() + layer.x.rows();
  return product * product + captured_bound<double>(8 * sum, r.rank(), layer.size());
}

template <class T>
void expect_same_result(const LowRank<T>& a, const LowRank<T>& b) {
  EXPECT_TRUE(equal_bits(a.left, b.left));
  EXPECT_TRUE(equal_bits(a.right, b.right));
  EXPECT_TRUE(equal_bits(a.singular_values, b.singular_values));
  EXPECT_TRUE(same_bits(a.captured_energy, b.captured_energy));
  EXPECT_TRUE(same_bits(a.total_energy, b.total_energy));
  EXPECT_TRUE(same_bits(a.error_bound, b.error_bound));
}

/// Output weights beside a covariance, which no named metric has.
struct WeightedOutputs : InputCovariance<double> {
  WeightedOutputs(const MatrixXd& c, VectorXd w)
      : InputCovariance<double>(c), weights(std::move(w)) {}
  std::span<const double> output_weights() const {
    return {weights.data(), static_cast<std::size_t>(weights.size())};
  }
  VectorXd weights;
};

template <class Case>
class CovarianceSvd : public ::testing::Test {
 public:
  static void SetUpTestSuite() { use_one_thread_for_oracles(); }
  using Scalar = typename Case::scalar;
  static auto backend() { return Case::backend::make(); }
  template <class M>
  static LowRank<Scalar> solve(const MatrixXd& w, const M& metric, const SvdOptions& options) {
    return factorize(backend(), stored_in<Scalar>(w), metric, options);
  }
  static LowRank<Scalar> solve(const Layer& layer, const SvdOptions& options) {
    const MatrixXd c = layer.c();
    return solve(layer.w, InputCovariance(c), options);
  }

  static void expect_optimal(const Layer& layer, const LowRank<Scalar>& r, Index k, double excess) {
    ASSERT_EQ(r.rank(), k);
    ASSERT_TRUE(r.left.allFinite() && r.right.allFinite());
    const double tail = layer.tail(k);
    const double loss = layer.objective(product(r)), slack = rounding(layer, r);
    EXPECT_GE(loss, tail * tail - slack);
    EXPECT_LE(loss, std::pow((1 + excess) * tail, 2) + slack);
    EXPECT_GE(r.error_bound * r.error_bound, loss - slack);
    EXPECT_TRUE(within(r.total_energy, layer.outputs().squaredNorm(), slack));
    EXPECT_TRUE(within(r.total_energy - r.captured_energy, loss, 2 * slack));
    EXPECT_TRUE(
        within(r.captured_energy, r.singular_values.squaredNorm(), 1e-12 * r.captured_energy));
  }
};
TYPED_TEST_SUITE(CovarianceSvd, SolverCases);

TYPED_TEST(CovarianceSvd, ErrorIsTheTailOfTheOutputs) {
  for (const Layer& layer : {Layer(12, 20, 60), Layer(20, 12, 60), Layer(9, 9, 40)})
    for (const Index k : {1, 4, 9})
      for (const Split split : {Split::Natural, Split::Left, Split::Both, Split::Right}) {
        const auto r = this->solve(layer, {.rank = k, .split = split});
        this->expect_optimal(layer, r, k, 0);
        const auto plain = this->solve(layer.w, Uniform{}, {.rank = k});
        EXPECT_LE(layer.objective(product(r)),
                  layer.objective(product(plain)) + rounding(layer, r));
      }
}

TYPED_TEST(CovarianceSvd, LeftIsOrthonormalAndLatentsAreUncorrelated) {
  using T = typename TypeParam::scalar;
  const Layer layer(20, 14, 80);
  const auto r = this->solve(layer, {.rank = 5});
  EXPECT_LE(orthonormality(r.left), basis_bound<T>);
  const MatrixXd right = values_of(r.right), moment = right * layer.c() * right.transpose();
  const MatrixXd wanted = r.singular_values.cwiseAbs2().asDiagonal();
  EXPECT_TRUE(
      within((moment - wanted).norm(), 0,
             8 * Tolerance<T>::unit_roundoff * layer.size() * layer.size() + rounding(layer, r)));
}

TYPED_TEST(CovarianceSvd, RoutesAreNearTheOptimum) {
  if (TypeParam::backend::is_reference) return;  // has no routes, and is slow at this size
  for (const Layer& layer : large_layers())
    for (const Route route : routes) {
      const auto r = this->solve(layer, {.rank = 20, .route = route});
      this->expect_optimal(layer, r, 20, standard_excess);
      const auto high =
          this->solve(layer, {.rank = 20, .accuracy = Accuracy::High, .route = route});
      this->expect_optimal(layer, high, 20, high_excess);
    }
}

TYPED_TEST(CovarianceSvd, SingularCovarianceReachesTheOptimum) {
  for (const Index tokens : {1, 6, 10}) {
    const Layer layer(24, 40, tokens);
    for (const Index k : {1, 5, 12})
      this->expect_optimal(layer, this->solve(layer, {.rank = k}), k, 0);
  }
  // More outputs than there are inputs, and a sample wider than the rank of what is sampled.
  static const Layer tall(170, 30, 20);
  for (const Index k : {4, 20, 30})
    for (const Route route : routes)
      this->expect_optimal(tall, this->solve(tall, {.rank = k, .route = route}), k,
                           standard_excess);
}

TYPED_TEST(CovarianceSvd, IdentityIsPlainAndDiagonalIsInputWeights) {
  const Layer layer(11, 16, 1);
  const VectorXd d = positive_weights(16, 4), ones = VectorXd::Ones(16);
  for (const VectorXd& weights : {d, ones}) {
    const MatrixXd c = weights.asDiagonal(), root = weights.cwiseSqrt().asDiagonal();
    for (const Index k : {1, 5, 11}) {
      const auto r = this->solve(layer.w, InputCovariance(c), {.rank = k});
      const auto weighed = this->solve(layer.w, InputWeights(weights), {.rank = k});
      const VectorXd s = jacobi_values(layer.w * root);
      const double next = k < 11 ? s[k] : 0.0;
      const double gap = (s[k - 1] * s[k - 1] - next * next) / s.squaredNorm();
      EXPECT_TRUE(
          within((product(r) - product(weighed)).norm(), 0,
                 4 * projection_bound<typename TypeParam::scalar>(27, k, layer.w.norm()) / gap))
          << k;
      EXPECT_TRUE(within(r.total_energy, weighed.total_energy, 1e-12 * r.total_energy));
    }
  }
}

TYPED_TEST(CovarianceSvd, ScaleOfTheCovarianceIsIrrelevant) {
  const Layer layer(11, 16, 50);
  const auto r = this->solve(layer, {.rank = 4});
  for (const int exponent : {-140, -5, 140}) {
    const double scale = std::exp2(exponent);
    const MatrixXd c = scale * layer.c();
    const auto s = this->solve(layer.w, InputCovariance(c), {.rank = 4});
    EXPECT_TRUE(within((product(r) - product(s)).norm(), 0,
                       1e3 * (decomposition_bound(11, 16, layer.w.norm()) + rounding_bound(r))));
    EXPECT_TRUE(within(s.captured_energy, scale * r.captured_energy, 1e-10 * s.captured_energy));
  }
}

TYPED_TEST(CovarianceSvd, ScaleOfTheMatrixIsIrrelevant) {
  const Layer layer(20, 16, 50);
  const auto r = this->solve(layer, {.rank = 4});
  for (const int exponent : {-60, 60}) {
    const double scale = std::exp2(exponent);
    const MatrixXd c = layer.c();
    const auto s = this->solve(scale * layer.w, InputCovariance(c), {.rank = 4});
    EXPECT_TRUE(within((product(r) - product(s) / scale).norm(), 0,
                       1e3 * (decomposition_bound(20, 16, layer.w.norm()) + rounding_bound(r))));
  }
}

TYPED_TEST(CovarianceSvd, DampingIsARidgeOnTheDiagonal) {
  for (const Layer& layer : {Layer(8, 12, 5), Layer(12, 8, 5)}) {
    const MatrixXd c = layer.c();
    const Index in = c.rows();
    const MatrixXd damped = c + 0.3 * c.diagonal().mean() * MatrixXd::Identity(in, in);
    const auto r = this->solve(layer.w, InputCovariance(c, 0.3), {.rank = 3});
    const auto wanted = this->solve(layer.w, InputCovariance(damped), {.rank = 3});
    EXPECT_TRUE(within((product(r) - product(wanted)).norm(), 0,
                       1e3 * decomposition_bound(8, 12, layer.w.norm()) + 2 * rounding_bound(r)));
    EXPECT_TRUE(within(r.total_energy, wanted.total_energy, 1e-12 * r.total_energy));
    EXPECT_TRUE(within(r.captured_energy, wanted.captured_energy, 1e-12 * r.total_energy));
    EXPECT_GT(r.captured_energy, this->solve(layer, {.rank = 3}).captured_energy);
  }
}

TYPED_TEST(CovarianceSvd, OutputWeightsGoWithACovariance) {
  for (const auto& [out, tokens] : {std::pair<Index, Index>{12, 60}, {12, 6}, {30, 60}}) {
    const Layer layer(out, 20, tokens);
    VectorXd d = positive_weights(out, 5);
    d(2) = d(9) = 0;
    const MatrixXd c = layer.c(), root = d.cwiseSqrt().asDiagonal();
    for (const Index k : {1, 4, 9}) {
      const auto r = this->solve(layer.w, WeightedOutputs(c, d), {.rank = k});
      const double loss = (root * (layer.w - product(r)) * layer.x.transpose()).squaredNorm();
      const double tail = tail_energy(root * layer.outputs(), k);
      EXPECT_GE(loss, tail - d.maxCoeff() * rounding(layer, r));
      EXPECT_LE(loss, tail + d.maxCoeff() * rounding(layer, r));
    }
    // Equal weights: the form without them.
    const auto r = this->solve(layer.w, WeightedOutputs(c, VectorXd::Ones(out)), {.rank = 4});
    this->expect_optimal(layer, r, 4, 0);
  }
}

TYPED_TEST(CovarianceSvd, FullRankIsExact) {
  using T = typename TypeParam::scalar;
  for (const Layer& layer : {Layer(12, 20, 60), Layer(20, 12, 60), Layer(20, 12, 5)})
    this->expect_optimal(layer, this->solve(layer, {.rank = 12}), 12, 0);
  const Layer wide(12, 20, 60);
  EXPECT_LE((product(this->solve(wide, {.rank = 12})) - wide.w).norm(),
            projection_bound<T>(32, 12, wide.w.norm()));
}

TYPED_TEST(CovarianceSvd, ToleranceIsInTheMetric) {
  const Layer layer(30, 40, 90);
  const double total = layer.outputs().squaredNorm();
  for (const Route route : routes)
    for (const double tolerance : {0.5, 0.1, 0.01}) {
      const auto r = this->solve(layer, {.tolerance = tolerance, .route = route});
      const double allowed = tolerance * tolerance * total;
      EXPECT_LE(layer.objective(product(r)), allowed + rounding(layer, r));
      if (r.rank() > 1) {
        EXPECT_GT(std::pow((1 + standard_excess) * layer.tail(r.rank() - 1), 2), allowed);
      }
    }
}

TYPED_TEST(CovarianceSvd, ZeroOutputs) {
  // The covariance has energy only where W has none.
  MatrixXd w = normal_matrix(6, 8, 7), c = MatrixXd::Zero(8, 8);
  w.col(5).setZero();
  c(5, 5) = 2;
  const auto r = this->solve(w, InputCovariance(c), {.rank = 3});
  EXPECT_TRUE(r.left.allFinite() && r.right.allFinite());
  EXPECT_EQ(r.rank(), 3);
  EXPECT_EQ(r.total_energy, 0);
  EXPECT_EQ(r.relative_error(), 0);
  const auto zero = this->solve(MatrixXd::Zero(6, 8), InputCovariance(c), {.rank = 3});
  EXPECT_EQ(product(zero).norm(), 0);
}

TYPED_TEST(CovarianceSvd, AccumulatedInputsAndAViewOfTheirMomentAgree) {
  using T = typename TypeParam::scalar;
  const Layer layer(12, 20, 70);
  const auto w = stored_in<T>(layer.w);
  Covariance covariance(20);
  covariance.add(this->backend(), layer.x.topRows(30));
  covariance.add(this->backend(), layer.x.bottomRows(40));
  const auto c = covariance.matrix();
  const Eigen::MatrixXf narrow = c.template cast<float>();
  for (const double damping : {0.0, 0.01}) {
    const auto r = covariance_svd(this->backend(), w, covariance, {.rank = 4}, damping);
    expect_same_result(r, factorize(this->backend(), w, InputCovariance(c, damping), {.rank = 4}));
    // Of floats, which are off by u of each.
    const auto s = factorize(this->backend(), w, InputCovariance(narrow, damping), {.rank = 4});
    EXPECT_TRUE(within(s.total_energy, r.total_energy, 1e-6 * layer.size() * layer.size() / 70));
    EXPECT_TRUE(within(layer.objective(product(s)), layer.objective(product(r)),
                       1e-6 * layer.size() * layer.size()));
  }
}

// 150 values near each other, so that few power steps do not tell the largest.
TYPED_TEST(CovarianceSvd, OneNegativeValueDecidesWhetherTheCovarianceIsTaken) {
  const Index n = 150;
  VectorXd values = VectorXd::LinSpaced(n, 0.02, 1);
  const MatrixXd w = normal_matrix(6, n, 3), x = normal_matrix(n, n, 4);
  const MatrixXd q = Eigen::HouseholderQR<MatrixXd>(x).householderQ();
  for (const double least : {-0.7e-6, -2e-6}) {
    values[0] = least;
    const MatrixXd c = q * values.asDiagonal() * q.transpose();
    const auto solve = [&] { this->solve(w, InputCovariance(c), {.rank = 2}); };
    if (least > -1e-6)
      EXPECT_NO_THROW(solve());
    else
      EXPECT_THROW(solve(), std::invalid_argument);
  }
}

TYPED_TEST(CovarianceSvd, TolerancesOfLargeLayersAreMetByTheLeastRank) {
  if (TypeParam::backend::is_reference) return;  // has no routes, and is slow at this size
  for (const Layer& layer : large_layers())
    for (const Route route : routes)
      for (const double tolerance : {0.4, 0.1, 0.02}) {
        const auto r = this->solve(layer, {.tolerance = tolerance, .route = route});
        const double allowed = tolerance * tolerance * layer.values.squaredNorm();
        EXPECT_LE(layer.objective(product(r)), allowed + rounding(layer, r));
        EXPECT_GT(std::pow((1 + standard_excess) * layer.tail(r.rank() - 1), 2), allowed);
      }
}

template <class S>
class CovarianceSvdStorage : public ::testing::Test {
 public:
  static void SetUpTestSuite() { use_one_thread_for_oracles(); }
};
using Storages = ::testing::Types<float, double, pare::bf16, pare::f16>;
TYPED_TEST_SUITE(CovarianceSvdStorage, Storages);

TYPED_TEST(CovarianceSvdStorage, TheSameBitsForEveryNumberOfThreads) {
  for (const Layer& layer : large_layers()) {
    const auto w = stored_in<TypeParam>(layer.w);
    const MatrixXd c = layer.c();
    for (const Route route : {Route::Exact, Route::Randomized}) {
      const SvdOptions options{.rank = 21, .route = route, .seed = 2};
      const auto one = factorize(w, InputCovariance(c, 0.01), options);
      for (const int threads : {1, 2, 4})
        expect_same_result(
            one, factorize(pare::simd.threads(threads), w, InputCovariance(c, 0.01), options));
      expect_same_result(
          one, factorize(pare::simd.on(ReversePool{3}), w, InputCovariance(c, 0.01), options));
    }
    Layer exact = layer;
    exact.w = values_of(w);
    exact.values = jacobi_values(exact.outputs());
    CovarianceSvd<BackendAndScalar<BestBackend, pare::compute_t<TypeParam>>>::expect_optimal(
        exact, factorize(w, InputCovariance(c), {.rank = 21}), 21, standard_excess);
  }
}

}  // namespace
}  // namespace factor_covariance_svd_test
