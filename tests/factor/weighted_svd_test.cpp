// SPDX-License-Identifier: Apache-2.0
// Factorization with weights on outputs, inputs and both, on every backend.
#include <gtest/gtest.h>

#include <Eigen/Core>
#include <Eigen/QR>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <span>
#include <type_traits>
#include <utility>
#include <vector>

#include <pare/factor/weighted_svd.hpp>

#include "factor/data.hpp"
#include "support/backends.hpp"

namespace factor_weighted_svd_test {
namespace {

using namespace pare::factor;
using namespace pare::testing;
using Eigen::MatrixXd;
using Eigen::VectorXd;
using pare::Index;

constexpr Route routes[] = {Route::Auto, Route::Exact, Route::Gram, Route::Randomized};
constexpr double standard_excess = 0.003;

/// Weights of a problem, ones where a side is not weighed, and its singular values in the metric.
struct Problem {
  MatrixXd w;
  VectorXd output, input;
  bool outputs, inputs;
  VectorXd values;

  double objective(const MatrixXd& x) const { return weighted_objective(w, x, output, input); }
  MatrixXd weighted() const {
    return output.cwiseSqrt().asDiagonal() * w * input.cwiseSqrt().asDiagonal();
  }
  Problem measured() const {
    return {w, output, input, outputs, inputs, jacobi_values(weighted())};
  }
  double tail(Index k) const { return values.tail(least() - k).norm(); }
  Index least() const { return std::min(w.rows(), w.cols()); }
  Index sum() const { return w.rows() + w.cols(); }
};

/// In values that float holds.
Problem problem(bool outputs, bool inputs, Index out, Index in) {
  const MatrixXd w = with_spectrum(out, in, power_spectrum(std::min(out, in), 0.5), 1);
  Problem p{
      values_of(stored_in<float>(w)), VectorXd::Ones(out), VectorXd::Ones(in), outputs, inputs, {}};
  if (outputs) p.output = positive_weights(out, 2);
  if (inputs) p.input = positive_weights(in, 3);
  return p.measured();
}

/// Each weighed side by each shape; no side is a multiple of a tile.
std::vector<Problem> problems_of(const std::vector<std::pair<Index, Index>>& shapes) {
  std::vector<Problem> list;
  for (const auto& [outputs, inputs] :
       {std::pair<bool, bool>{true, false}, {false, true}, {true, true}})
    for (const auto& [out, in] : shapes) list.push_back(problem(outputs, inputs, out, in));
  return list;
}

/// Small ones, for which Auto is exact, and larger ones for the other routes.
const std::vector<Problem>& problems() {
  static const auto list = problems_of({{18, 25}, {25, 18}, {33, 33}});
  return list;
}
const std::vector<Problem>& large_problems() {
  static const auto list = problems_of({{135, 150}, {150, 135}, {140, 140}});
  return list;
}

/// Some weights of each weighed side are 0; in the second case fewer are positive than the rank.
const std::vector<Problem>& problems_with_zeros() {
  static const auto all = [] {
    std::vector<Problem> list;
    for (Problem p : problems()) {
      if (p.outputs) p.output(3) = p.output(7) = p.output(p.output.size() - 1) = 0;
      if (p.inputs) p.input(0) = p.input(11) = 0;
      list.push_back(p.measured());
      if (p.outputs) p.output.tail(p.output.size() - 4).setZero();
      if (p.inputs) p.input.head(p.input.size() - 4).setZero();
      list.push_back(p.measured());
    }
    return list;
  }();
  return all;
}

/// An orthonormal basis of the rows of m, by rows.
MatrixXd orthonormal_rows(const MatrixXd& m) {
  const Eigen::HouseholderQR<MatrixXd> qr(m.transpose());
  return (qr.householderQ() * MatrixXd::Identity(m.cols(), m.rows())).transpose();
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

template <class Case>
class WeightedSvd : public ::testing::Test {
 public:
  static void SetUpTestSuite() { use_one_thread_for_oracles(); }
  using Scalar = typename Case::scalar;
  static auto backend() { return Case::backend::make(); }
  template <class B>
  static LowRank<Scalar> solve_on(const B& backend, const Problem& p, const SvdOptions& options) {
    const auto w = stored_in<Scalar>(p.w);
    if (p.outputs && p.inputs) return weighted_svd(backend, w, p.output, p.input, options);
    if (p.outputs) return weighted_svd(backend, w, p.output, options, Axis::Output);
    if (p.inputs) return weighted_svd(backend, w, p.input, options);
    return truncated_svd(backend, w, options);
  }
  static LowRank<Scalar> solve(const Problem& p, const SvdOptions& options) {
    return solve_on(backend(), p, options);
  }

  /// What rounding may add to the squared error: in the space of the basis, and the energy that
  /// eigenvectors of a matrix in double may miss.
  static double rounding(const Problem& p, const LowRank<Scalar>& r) {
    const double size = p.weighted().norm();
    const double inside = 2 * projection_bound<Scalar>(p.sum(), r.rank(), size);
    return inside * inside + captured_bound<double>(8 * p.sum(), r.rank(), size);
  }

  static void expect_optimal(const Problem& p, Index k, const SvdOptions& more, double excess) {
    const double tail = p.tail(k), size = p.weighted().norm();
    SvdOptions options = more;
    options.rank = k;
    const auto r = solve(p, options);
    SCOPED_TRACE(testing::Message()
                 << p.w.rows() << " x " << p.w.cols() << " weighed " << p.outputs << p.inputs
                 << " rank " << k << " split " << static_cast<int>(options.split) << " route "
                 << static_cast<int>(options.route));
    ASSERT_TRUE(r.left.allFinite() && r.right.allFinite());
    const double loss = p.objective(product(r)), slack = rounding(p, r);
    const double most = std::pow((1 + excess) * tail, 2) + slack;
    EXPECT_GE(loss, tail * tail - 2 * size * decomposition_bound(p.w.rows(), p.w.cols(), size));
    EXPECT_LE(loss, most);
    EXPECT_GE(r.error_bound * r.error_bound, loss - slack);
    EXPECT_TRUE(within(r.total_energy, size * size, 1e-12 * size * size));
    // Factors that are the least-squares optimum for the rows of a projection may do better than
    // the projection, whose energy is told.
    const double left = r.total_energy - r.captured_energy;
    const double energies = 2 * captured_bound<Scalar>(p.sum(), k, size);
    EXPECT_GE(left, loss - slack - energies);
    EXPECT_LE(left, most + energies);
  }
};
TYPED_TEST_SUITE(WeightedSvd, SolverCases);

TYPED_TEST(WeightedSvd, ObjectiveIsTheTailInTheMetric) {
  for (const Problem& p : problems())
    for (const Index k : {Index{1}, Index{5}, p.least() - 1, p.least()})
      for (const Split split : {Split::Natural, Split::Left, Split::Both, Split::Right})
        this->expect_optimal(p, k, {.split = split}, 0);
}

TYPED_TEST(WeightedSvd, ZeroWeightsStillGiveTheOptimum) {
  for (const Problem& p : problems_with_zeros())
    for (const Index k : {Index{1}, Index{5}, p.least() - 1, p.least()})
      for (const Split split : {Split::Natural, Split::Left, Split::Both, Split::Right})
        this->expect_optimal(p, k, {.split = split}, 0);
}

TYPED_TEST(WeightedSvd, AllRoutesAreNearTheOptimum) {
  if (TypeParam::backend::is_reference) return;  // has no routes, and is slow at this size
  for (const Problem& p : large_problems())
    for (const Route route : routes)
      for (const Sketch sketch : {Sketch::Gaussian, Sketch::Sparse})
        this->expect_optimal(p, 22, {.route = route, .sketch = sketch}, standard_excess);
}

TYPED_TEST(WeightedSvd, AnOutputWithoutWeightIsProjected) {
  using T = typename TypeParam::scalar;
  for (const Index in : {30, 18}) {
    Problem p = problem(true, false, 25, in);
    p.output(7) = 0;
    const auto r = this->solve(p, {.rank = 6});
    const MatrixXd q = orthonormal_rows(values_of(r.right));
    const MatrixXd wanted = p.w.row(7) * q.transpose() * q;
    EXPECT_GT(wanted.norm(), 0.1 * p.w.row(7).norm());
    // Errors of rows of `right` are relative to ||D W||, and so those of its space to the least
    // singular value that is kept.
    EXPECT_TRUE(within((product(r).row(7) - wanted).norm(), 0,
                       projection_bound<T>(p.sum(), 6, 1) * p.weighted().norm() /
                           r.singular_values[5] * p.w.norm()));
  }
}

TYPED_TEST(WeightedSvd, NoOtherFactorsDoBetter) {
  for (const Problem& p :
       {problem(true, false, 18, 25), problem(false, true, 18, 25), problem(true, true, 18, 25)}) {
    const Index k = 4;
    const auto r = this->solve(p, {.rank = k});
    const double best = p.objective(product(r)), slack = this->rounding(p, r);
    const auto plain =
        truncated_svd(this->backend(), stored_in<typename TypeParam::scalar>(p.w), {.rank = k});
    EXPECT_LT(best, 0.99 * p.objective(product(plain)));
    const MatrixXd left = values_of(r.left), right = values_of(r.right);
    for (std::uint64_t seed = 0; seed < 300; ++seed) {
      EXPECT_LE(best, slack + p.objective((left + 1e-2 * normal_matrix(18, k, 100 + seed)) *
                                          (right + 1e-2 * normal_matrix(k, 25, 700 + seed))));
      const MatrixXd q = orthonormal(25, k, 1300 + seed);
      EXPECT_LE(best, p.objective(p.w * q * q.transpose()));
    }
  }
}

TYPED_TEST(WeightedSvd, EqualWeightsAreThePlainDecomposition) {
  using T = typename TypeParam::scalar;
  for (const auto& [out, in] : {std::pair<Index, Index>{18, 25}, {25, 18}, {150, 160}}) {
    Problem p = problem(false, false, out, in);
    const SvdOptions options{.rank = 5, .route = Route::Exact};
    const MatrixXd plain = product(this->solve(p, options));
    // The projectors move by their error over the gap of the spectrum, 1/5 - 1/6.
    const double bound = 4 * projection_bound<T>(p.sum(), 5, p.w.norm()) +
                         60 * captured_bound<double>(8 * p.sum(), 5, p.w.norm()) * p.w.norm();
    for (const double c : {1e-30, 1e-6, 1.0, 7.0, 1e9, 1e30})
      for (const auto& [outputs, inputs] :
           {std::pair<bool, bool>{true, false}, {false, true}, {true, true}}) {
        p.outputs = outputs;
        p.inputs = inputs;
        p.output.setConstant(outputs ? c : 1);
        p.input.setConstant(inputs ? c : 1);
        const auto r = this->solve(p, options);
        EXPECT_TRUE(within((product(r) - plain).norm(), 0, bound))
            << c << ' ' << out << ' ' << outputs << inputs;
        EXPECT_TRUE(within(r.total_energy, p.weighted().squaredNorm(), 1e-12 * r.total_energy));
      }
  }
}

// Powers of 4 have exact roots: nothing but the exponents changes.
TYPED_TEST(WeightedSvd, ScaleOfTheWeightsDoesNotMatter) {
  using T = typename TypeParam::scalar;
  std::vector<Problem> all = problems();
  for (const Problem& p : large_problems()) all.push_back(p);
  for (const Problem& p : all) {
    const SvdOptions options{.rank = 6, .route = Route::Exact};
    const auto r = this->solve(p, options);
    for (const int exponent : {-100, -20, 30, 100}) {
      Problem scaled = p;
      const double scale = std::exp2(exponent);
      if (p.outputs) scaled.output *= scale;
      if (p.inputs) scaled.input *= scale;
      const auto s = this->solve(scaled, options);
      EXPECT_TRUE(within((product(r) - product(s)).norm(), 0,
                         2 * projection_bound<T>(p.sum(), 6, p.w.norm())))
          << p.w.rows() << " weighed " << p.outputs << p.inputs << " times 2^" << exponent;
      EXPECT_TRUE(within(s.relative_error(), r.relative_error(), 1e-12));
    }
  }
}

TYPED_TEST(WeightedSvd, FullRankIsExact) {
  using T = typename TypeParam::scalar;
  for (const Problem& p : problems()) {
    const auto r = this->solve(p, {.rank = p.least()});
    // D and R are undone: errors grow by the ratio of the largest to the least root weight.
    const double condition = std::sqrt(p.output.maxCoeff() / p.output.minCoeff() *
                                       p.input.maxCoeff() / p.input.minCoeff());
    EXPECT_LE((product(r) - p.w).norm(),
              condition * projection_bound<T>(p.sum(), p.least(), p.w.norm()));
  }
}

TYPED_TEST(WeightedSvd, PermutingOutputsPermutesTheLeftFactor) {
  using T = typename TypeParam::scalar;
  const Problem p = problem(true, false, 18, 25);
  Eigen::PermutationMatrix<Eigen::Dynamic> order(18);
  for (int i = 0; i < 18; ++i) order.indices()(i) = (i * 5 + 2) % 18;
  Problem q = p;
  q.w = order * p.w;
  q.output = order * p.output;
  const auto r = this->solve(p, {.rank = 5}), s = this->solve(q, {.rank = 5});
  const double gap =
      (std::pow(p.values[4], 2) - std::pow(p.values[5], 2)) / std::pow(p.values[0], 2);
  EXPECT_TRUE(within((product(s) - order * product(r)).norm(), 0,
                     4 * projection_bound<T>(43, 5, p.w.norm()) / gap));
}

TYPED_TEST(WeightedSvd, SidesAreTransposesOfEachOther) {
  for (const Index in : {18, 30, 25}) {
    const Problem p = problem(true, false, 25, in);
    const Problem t{p.w.transpose(), VectorXd::Ones(in), p.output, false, true, {}};
    const auto r = this->solve(p, {.rank = 5}), s = this->solve(t, {.rank = 5});
    EXPECT_TRUE(within(p.objective(product(r)), t.objective(product(s)),
                       this->rounding(p, r) + this->rounding(t, s)));
    EXPECT_TRUE(within(r.total_energy, s.total_energy, 1e-12 * r.total_energy));
  }
}

// The form without a division by singular values keeps what float can keep.
TYPED_TEST(WeightedSvd, SmallSingularValuesDoNotSpoilTheOthers) {
  using T = typename TypeParam::scalar;
  const VectorXd s =
      Eigen::ArrayXd::LinSpaced(30, 0, -7).unaryExpr([](double x) { return std::pow(10.0, x); });
  for (const auto& [out, in] : {std::pair<Index, Index>{30, 40}, {40, 30}, {30, 30}})
    for (const auto& [outputs, inputs] :
         {std::pair<bool, bool>{true, false}, {false, true}, {true, true}})
      for (const Split split : {Split::Natural, Split::Left, Split::Both, Split::Right}) {
        Problem p{values_of(stored_in<T>(with_spectrum(out, in, s, 5))),
                  VectorXd::Ones(out),
                  VectorXd::Ones(in),
                  outputs,
                  inputs,
                  {}};
        if (outputs) p.output = positive_weights(out, 6);
        if (inputs) p.input = positive_weights(in, 7);
        const VectorXd values = jacobi_values(p.weighted());
        for (const Index k : {2, 10, 20, 30}) {
          const auto r = this->solve(p, {.rank = k, .split = split});
          ASSERT_TRUE(r.left.allFinite() && r.right.allFinite());
          // Singular values below 1e-6 (3e-8 in double) of the largest may be left out.
          double tail = 0;
          for (Index i = 0; i < 30; ++i)
            if (i >= k || values[i] < (std::is_same_v<T, float> ? 1e-6 : 3e-8) * values[0])
              tail += values[i] * values[i];
          const double inside = 2 * projection_bound<T>(p.sum(), k, values.norm());
          // Vectors of values at that cut are mixtures with those of their neighbours.
          EXPECT_LE(std::sqrt(p.objective(product(r))), 1.003 * std::sqrt(tail) + inside)
              << out << " x " << in << " weighed " << outputs << inputs << " rank " << k
              << " split " << static_cast<int>(split) << " tail " << std::sqrt(tail);
        }
      }
}

/// A metric of a user, in few lines: outputs that count twice.
struct EvenOutputsTwice : Uniform {
  explicit EvenOutputsTwice(Index out) : weights(static_cast<std::size_t>(out), 1.0) {
    for (std::size_t i = 0; i < weights.size(); i += 2) weights[i] = 2;
  }
  std::span<const double> output_weights() const { return weights; }
  std::vector<double> weights;
};

TYPED_TEST(WeightedSvd, WaysToSayTheSame) {
  using T = typename TypeParam::scalar;
  const Problem p = problem(true, true, 18, 25);
  const auto w = stored_in<T>(p.w);
  const auto backend = this->backend();
  const SvdOptions options{.rank = 4, .seed = 2};
  const auto output = weighted_svd(backend, w, p.output, options, Axis::Output);
  const auto input = weighted_svd(backend, w, p.input, options, Axis::Input);
  expect_same_result(output, factorize(backend, w, OutputWeights(p.output), options));
  expect_same_result(input, factorize(backend, w, InputWeights(p.input), options));
  expect_same_result(input, weighted_svd(backend, w, p.input, options));
  expect_same_result(weighted_svd(backend, w, p.output, p.input, options),
                     factorize(backend, w, BothWeights(p.output, p.input), options));
  const std::vector<double> list(p.output.begin(), p.output.end());
  expect_same_result(output, weighted_svd(backend, w, list, options, Axis::Output));
  const EvenOutputsTwice metric(18);
  expect_same_result(factorize(backend, w, metric, options),
                     factorize(backend, w, OutputWeights(metric.weights), options));
}

TYPED_TEST(WeightedSvd, FisherSumsAreTheWeights) {
  using T = typename TypeParam::scalar;
  const auto w = stored_in<T>(problem(false, false, 18, 25).w);
  FisherDiagonal fisher(18, 25);
  for (std::uint64_t e = 0; e < 3; ++e)
    fisher.add_gradient(this->backend(), stored_in<T>(normal_matrix(18, 25, 30 + e)));
  const auto backend = this->backend();
  const SvdOptions options{.rank = 4};
  expect_same_result(weighted_svd(backend, w, fisher, options),
                     weighted_svd(backend, w, fisher.sums(Axis::Input), options, Axis::Input));
  expect_same_result(weighted_svd(backend, w, fisher, options, Axis::Output),
                     weighted_svd(backend, w, fisher.sums(Axis::Output), options, Axis::Output));
}

TYPED_TEST(WeightedSvd, ToleranceIsInTheMetric) {
  Problem p = problem(true, false, 20, 25);
  p.output.setZero();
  p.output(4) = 1;
  const auto one = this->solve(p, {.tolerance = 1e-2});
  EXPECT_EQ(one.rank(), 1) << "one output has weight";
  EXPECT_GT((p.w - product(one)).norm(), 0.5 * p.w.norm());
  for (const Problem& q : problems())
    for (const double tolerance : {0.5, 0.1}) {
      const auto r = this->solve(q, {.tolerance = tolerance});
      const double total = q.weighted().squaredNorm(), allowed = tolerance * tolerance * total;
      EXPECT_LE(q.objective(product(r)), allowed * (1 + 1e-5));
      if (r.rank() > 1) {
        EXPECT_GT(tail_energy(q.weighted(), r.rank() - 1), allowed * (1 - 1e-5));
      }
    }
}

template <class T>
class WeightedSvdThreads : public ::testing::Test {
 public:
  static void SetUpTestSuite() { use_one_thread_for_oracles(); }
};
using Scalars = ::testing::Types<float, double>;
TYPED_TEST_SUITE(WeightedSvdThreads, Scalars);

TYPED_TEST(WeightedSvdThreads, TheSameBitsForEveryNumber) {
  using Fixture = WeightedSvd<BackendAndScalar<BestBackend, TypeParam>>;
  for (const Problem& p : large_problems())
    for (const Route route : routes) {
      const SvdOptions options{.rank = 21, .route = route, .seed = 4};
      const auto one = Fixture::solve(p, options);
      for (const int threads : {1, 2, 4})
        expect_same_result(one, Fixture::solve_on(pare::simd.threads(threads), p, options));
      expect_same_result(one, Fixture::solve_on(pare::simd.on(ReversePool{3}), p, options));
    }
}

TEST(WeightedSvdStorage, SixteenBitMatricesAreTheirValues) {
  const Problem p = problem(true, true, 140, 150);
  const auto check = [&](const auto& w) {
    Problem exact = p;
    exact.w = values_of(w);
    const double tail = exact.measured().tail(20);
    for (const Route route : routes) {
      const auto r = weighted_svd(w, p.output, p.input, {.rank = 20, .route = route});
      static_assert(std::is_same_v<decltype(r), const LowRank<float>>);
      EXPECT_LE(std::sqrt(exact.objective(product(r))), (1 + standard_excess) * tail);
    }
  };
  check(stored_in<pare::bf16>(p.w));
  check(stored_in<pare::f16>(p.w));
}

}  // namespace
}  // namespace factor_weighted_svd_test
