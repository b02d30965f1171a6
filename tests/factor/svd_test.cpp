// SPDX-License-Identifier: Apache-2.0
// The plain truncated singular value decomposition on every backend and by every route.
#include <gtest/gtest.h>

#include <Eigen/Core>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <iterator>
#include <limits>
#include <type_traits>
#include <vector>

#include <pare/factor/svd.hpp>

#include "factor/data.hpp"
#include "support/backends.hpp"

namespace factor_svd_test {
namespace {

using namespace pare::factor;
using namespace pare::testing;
using Eigen::MatrixXd;
using Eigen::VectorXd;
using pare::Index;

constexpr Route all_routes[] = {Route::Auto, Route::Exact, Route::Gram, Route::Randomized};
constexpr Sketch sketches[] = {Sketch::Gaussian, Sketch::Sparse};

/// The excess that accuracies promise where singular values fall slowly.
constexpr double standard_excess = 0.003, high_excess = 1e-4;

struct Shape {
  Index out, in;
  Index least() const { return std::min(out, in); }
  Index sum() const { return out + in; }
};
const Shape shapes[] = {{1, 1}, {1, 7}, {9, 1}, {13, 8}, {24, 57}, {67, 40}, {150, 141}};

/// A matrix that T holds, of a shape, with its singular values, which fall as i^-0.6: the slow
/// decay of trained weights.
struct Instance {
  MatrixXd w;
  VectorXd values;
  Shape shape;
};
template <class T>
const std::vector<Instance>& instances() {
  static const std::vector<Instance> all = [] {
    std::vector<Instance> list;
    for (const Shape& shape : shapes) {
      const MatrixXd w = with_spectrum(shape.out, shape.in, power_spectrum(shape.least(), 0.6), 2);
      list.push_back({values_of(stored_in<T>(w)), {}, shape});
      list.back().values = jacobi_values(list.back().w);
    }
    return list;
  }();
  return all;
}

template <class T, class F>
void for_each_case(F f) {
  for (const Instance& instance : instances<T>())
    for (const Index k : {Index{1}, (instance.shape.least() + 2) / 3, instance.shape.least()}) {
      SCOPED_TRACE(testing::Message()
                   << instance.shape.out << " x " << instance.shape.in << " rank " << k);
      f(instance, k);
    }
}

/// One in the size of layers, in values that float holds.
const MatrixXd& slow_matrix() {
  static const MatrixXd w =
      values_of(stored_in<float>(with_spectrum(400, 600, power_spectrum(400, 0.6), 1)));
  return w;
}
constexpr Index slow_rank = 50;
double slow_tail() { return power_spectrum(400, 0.6).tail(400 - slow_rank).norm(); }

/// A spectrum that float products do not tell apart: one value 1e4 times the others, or values over
/// `orders` orders of magnitude.
VectorXd spiked_spectrum(Index n) {
  VectorXd s = power_spectrum(n, 0.6);
  s[0] = 1e4;
  return s;
}
VectorXd falling_spectrum(Index n, double orders) {
  return (Eigen::ArrayXd::LinSpaced(n, 0, -orders) * std::log(10.0)).exp();
}

template <class T>
void expect_same_result(const LowRank<T>& a, const LowRank<T>& b) {
  EXPECT_TRUE(equal_bits(a.left, b.left));
  EXPECT_TRUE(equal_bits(a.right, b.right));
  EXPECT_TRUE(equal_bits(a.singular_values, b.singular_values));
  EXPECT_TRUE(same_bits(a.captured_energy, b.captured_energy));
  EXPECT_TRUE(same_bits(a.total_energy, b.total_energy));
  EXPECT_TRUE(same_bits(a.error_bound, b.error_bound));
  EXPECT_EQ(a.route, b.route);
  EXPECT_EQ(a.steps, b.steps);
}

template <class Case>
class TruncatedSvd : public ::testing::Test {
 public:
  static void SetUpTestSuite() { use_one_thread_for_oracles(); }
  using Scalar = typename Case::scalar;
  static auto backend() { return Case::backend::make(); }
  static LowRank<Scalar> solve(const MatrixXd& w, const SvdOptions& options) {
    return truncated_svd(backend(), stored_in<Scalar>(w), options);
  }
  /// The reference has one.
  static std::vector<Route> routes() {
    if (Case::backend::is_reference) return {Route::Auto};
    return {std::begin(all_routes), std::end(all_routes)};
  }
  /// The basis that W is projected on: the factor of the smaller side (of the inputs in the
  /// reference), without the singular values that Split::Natural leaves there.
  static MatrixXd basis_of(const LowRank<Scalar>& r) {
    if (Case::backend::is_reference || r.left.rows() > r.right.cols())
      return values_of(r.right).transpose();
    return values_of(r.left) * r.singular_values.cwiseInverse().asDiagonal();
  }
  /// The nearest matrix that T holds.
  static MatrixXd held(const MatrixXd& w) { return values_of(stored_in<Scalar>(w)); }

  /// Factors of w whose optimal error is `tail`: between it and what a subspace with the excess
  /// leaves; and the numbers that tell of it. `lost`: energy that the subspace may miss by
  /// rounding.
  static void expect_error(const MatrixXd& w, const LowRank<Scalar>& r, double tail, double excess,
                           double lost) {
    const double size = w.norm(), error = error_of(w, r);
    const Index depth = std::max(w.rows(), w.cols());
    const double inside = projection_bound<Scalar>(depth, r.rank(), size);
    const double known = decomposition_bound(w.rows(), w.cols(), size);
    EXPECT_GE(error, tail - known) << "no factors are better";
    EXPECT_LE(error, std::sqrt(std::pow((1 + excess) * (tail + known), 2) + lost + inside * inside))
        << "the least is " << tail;
    expect_bound(w, r);
    // Sums of squares of float products, each off by gamma.
    const double energies = 2 * captured_bound<Scalar>(depth + w.rows(), r.rank(), size);
    EXPECT_TRUE(within(r.total_energy, size * size, 1e-12 * size * size));
    EXPECT_TRUE(within(r.total_energy - r.captured_energy, error * error, energies + lost));
    EXPECT_TRUE(within(r.captured_energy, r.singular_values.squaredNorm(), 1e-12 * size * size));
    for (Index i = 1; i < r.rank(); ++i) EXPECT_GE(r.singular_values[i - 1], r.singular_values[i]);
  }
  /// The bound is one, up to the rounding of energies that are summed in double.
  static void expect_bound(const MatrixXd& w, const LowRank<Scalar>& r) {
    EXPECT_GE(r.error_bound * r.error_bound + lost_in_double(w, r.rank()),
              std::pow(error_of(w, r), 2));
  }
  static double lost_in_double(const MatrixXd& w, Index k) {
    return captured_bound<double>(8 * (w.rows() + w.cols()), k, w.norm());
  }
};
TYPED_TEST_SUITE(TruncatedSvd, BackendsAndScalars);

TYPED_TEST(TruncatedSvd, FullRankReconstructs) {
  using T = typename TypeParam::scalar;
  for (const Shape& shape : shapes)
    for (const Route route : this->routes()) {
      const MatrixXd w = this->held(normal_matrix(shape.out, shape.in, 1));
      const auto r = this->solve(w, {.rank = shape.least(), .route = route});
      EXPECT_LE(error_of(w, r), projection_bound<T>(shape.sum(), shape.least(), w.norm()));
      if (std::is_same_v<T, double>) {
        EXPECT_LE(error_of(w, r), 1e-12 * w.norm());
      }
    }
}

TYPED_TEST(TruncatedSvd, ExactErrorIsTheTailOfTheSpectrum) {
  for_each_case<typename TypeParam::scalar>([](const Instance& instance, Index k) {
    const VectorXd& values = instance.values;
    const auto r = TestFixture::solve(instance.w, {.rank = k, .route = Route::Exact});
    EXPECT_EQ(r.route, Route::Exact);
    ASSERT_EQ(r.rank(), k);
    const double lost = TestFixture::lost_in_double(instance.w, k);
    TestFixture::expect_error(instance.w, r, values.tail(values.size() - k).norm(), 0, lost);
    ASSERT_EQ(r.singular_values.size(), k);
    for (Index i = 0; i < k; ++i)
      EXPECT_TRUE(within(r.singular_values[i], values[i], lost / values[i]));
  });
}

// Every route, samples as wide as the side and narrower ones.
TYPED_TEST(TruncatedSvd, ErrorsOfAllRoutesAreWithinTheExcess) {
  using T = typename TypeParam::scalar;
  for_each_case<T>([](const Instance& instance, Index k) {
    const VectorXd& values = instance.values;
    for (const Route route : TestFixture::routes())
      for (const Sketch sketch : sketches) {
        const auto r =
            TestFixture::solve(instance.w, {.rank = k, .route = route, .sketch = sketch});
        SCOPED_TRACE(testing::Message() << "route " << static_cast<int>(route) << " sketch "
                                        << static_cast<int>(sketch));
        TestFixture::expect_error(instance.w, r, values.tail(values.size() - k).norm(),
                                  standard_excess,
                                  captured_bound<T>(instance.shape.sum(), k, instance.w.norm()));
      }
  });
}

TYPED_TEST(TruncatedSvd, SlowDecayKeepsThePromisedExcess) {
  if (TypeParam::backend::is_reference) return;  // has no routes, and is slow at this size
  const MatrixXd& w = slow_matrix();
  const MatrixXd t = w.transpose();
  for (const Accuracy accuracy : {Accuracy::Standard, Accuracy::High})
    for (const Route route : {Route::Auto, Route::Gram, Route::Randomized}) {
      const double promised = accuracy == Accuracy::High ? high_excess : standard_excess;
      const auto r = this->solve(route == Route::Gram ? t : w,
                                 {.rank = slow_rank, .accuracy = accuracy, .route = route});
      const double error = error_of(route == Route::Gram ? t : w, r);
      EXPECT_LE(error, (1 + promised) * slow_tail())
          << "route " << static_cast<int>(route) << " excess " << error / slow_tail() - 1;
      EXPECT_GE(error, slow_tail() * (1 - 1e-7)) << "W itself was rounded to float";
      this->expect_bound(route == Route::Gram ? t : w, r);
      EXPECT_LE(r.error_bound, 1.001 * error) << "and it is not far from it";
    }
}

TYPED_TEST(TruncatedSvd, SketchesAndSeedsKeepThePromisedExcess) {
  if (TypeParam::backend::is_reference) return;
  const Index k = 20;
  const VectorXd s = power_spectrum(160, 0.6);
  const MatrixXd w = this->held(with_spectrum(160, 190, s, 3));
  for (const Route route : {Route::Gram, Route::Randomized})
    for (const Sketch sketch : sketches) {
      std::vector<MatrixXd> products;
      for (const std::uint64_t seed : {0ull, 1ull, 7ull << 40}) {
        const SvdOptions options{.rank = k, .route = route, .sketch = sketch, .seed = seed};
        const auto r = this->solve(w, options);
        EXPECT_LE(error_of(w, r), (1 + standard_excess) * s.tail(160 - k).norm());
        expect_same_result(r, this->solve(w, options));
        for (const MatrixXd& other : products) EXPECT_FALSE(equal_bits(other, product(r)));
        products.push_back(product(r));
      }
    }
}

TYPED_TEST(TruncatedSvd, BasisIsOrthonormal) {
  using T = typename TypeParam::scalar;
  for (const Shape& shape : {Shape{190, 160}, Shape{160, 190}, Shape{57, 24}, Shape{24, 57}})
    for (const double exponent : {0.6, 3.0})
      for (const Route route : this->routes()) {
        const MatrixXd w = this->held(
            with_spectrum(shape.out, shape.in, power_spectrum(shape.least(), exponent), 4));
        const auto r = this->solve(w, {.rank = 20, .route = route});
        EXPECT_LE(orthonormality(this->basis_of(r)), basis_bound<T>)
            << shape.out << " route " << static_cast<int>(route);
      }
}

TYPED_TEST(TruncatedSvd, ExactRankLeavesNothing) {
  using T = typename TypeParam::scalar;
  for (const Shape& shape : {Shape{19, 26}, Shape{170, 150}, Shape{140, 300}})
    for (const Index rank : {1, 3, 9})
      for (const Index k : {rank, rank + 1, rank + 6})
        for (const Route route : this->routes()) {
          // Integers: exact in float, and so is their product.
          const MatrixXd w = integer_matrix<MatrixXd>(shape.out, rank, 5) *
                             integer_matrix<MatrixXd>(rank, shape.in, 6);
          const auto r = this->solve(w, {.rank = k, .route = route});
          ASSERT_TRUE(r.left.allFinite() && r.right.allFinite());
          EXPECT_LE(error_of(w, r), projection_bound<T>(shape.sum(), k, w.norm()))
              << shape.out << " rank " << rank << " of " << k << " route "
              << static_cast<int>(route);
          EXPECT_LE(r.error_bound * r.error_bound,
                    std::numeric_limits<T>::epsilon() * w.squaredNorm() +
                        captured_bound<T>(shape.sum(), k, w.norm()));
        }
}

TYPED_TEST(TruncatedSvd, CapturedEnergyGrowsWithTheRankAndTheSteps) {
  if (TypeParam::backend::is_reference) return;
  const MatrixXd w = this->held(with_spectrum(150, 170, power_spectrum(150, 0.6), 7));
  for (const Route route : {Route::Gram, Route::Randomized}) {
    double before = 0;
    for (int steps = 0; steps <= 4; ++steps) {
      const auto r = this->solve(w, {.rank = 12, .oversample = 4, .steps = steps, .route = route});
      EXPECT_EQ(r.steps, steps);
      EXPECT_EQ(r.route, route);
      EXPECT_GT(r.captured_energy, before) << steps;
      before = r.captured_energy;
    }
    before = 0;
    for (const Index k : {1, 2, 5, 30, 100, 149, 150}) {
      const auto r = this->solve(w, {.rank = k, .route = route});
      EXPECT_GT(r.captured_energy, before) << k;
      before = r.captured_energy;
    }
    double error = w.norm();
    for (const Index oversample : {0, 8, 40}) {
      const auto r =
          this->solve(w, {.rank = 12, .oversample = oversample, .steps = 1, .route = route});
      EXPECT_LT(error_of(w, r), error);
      error = error_of(w, r);
    }
  }
}

TYPED_TEST(TruncatedSvd, TransposedInputHasTheTransposedProduct) {
  using T = typename TypeParam::scalar;
  for_each_case<T>([](const Instance& instance, Index k) {
    const VectorXd& s = instance.values;
    const MatrixXd& w = instance.w;
    const auto r = TestFixture::solve(w, {.rank = k, .route = Route::Exact});
    const auto t = TestFixture::solve(w.transpose(), {.rank = k, .route = Route::Exact});
    // The projectors move by the error of the Gram matrix over the gap of its spectrum at the cut.
    const double next = k < s.size() ? s[k] : 0.0;
    const double moved = TestFixture::lost_in_double(w, k) / (s[k - 1] * s[k - 1] - next * next);
    EXPECT_TRUE(
        within((product(r) - product(t).transpose()).norm(), 0,
               2 * projection_bound<T>(instance.shape.sum(), k, w.norm()) + 4 * w.norm() * moved));
  });
}

TYPED_TEST(TruncatedSvd, RotationsAndPermutationsLeaveTheError) {
  using T = typename TypeParam::scalar;
  const VectorXd s = power_spectrum(135, 0.5);
  const MatrixXd w = this->held(with_spectrum(135, 142, s, 9));
  const MatrixXd rotated = this->held(orthonormal(135, 135, 10) * w * orthonormal(142, 142, 11));
  MatrixXd permuted(135, 142);
  for (Index i = 0; i < 135; ++i)
    for (Index j = 0; j < 142; ++j) permuted(i, j) = w((i * 4 + 3) % 135, (j * 5 + 1) % 142);
  for (const Route route : this->routes()) {
    const bool exact = route == Route::Exact || TypeParam::backend::is_reference;
    const auto r = this->solve(w, {.rank = 25, .route = route});
    const double error = error_of(w, r);
    for (const MatrixXd& other : {rotated, permuted}) {
      const auto moved = this->solve(other, {.rank = 25, .route = route});
      const double rounding = projection_bound<T>(277, 25, w.norm());
      EXPECT_TRUE(within(error_of(other, moved), error,
                         exact ? rounding : standard_excess * error + rounding));
    }
  }
}

TYPED_TEST(TruncatedSvd, RepeatedSingularValuesAtTheCut) {
  using T = typename TypeParam::scalar;
  VectorXd s = VectorXd::Ones(140);
  s.head(3) << 9, 4, 4;
  s.tail(60).setZero();
  const MatrixXd w = this->held(with_spectrum(140, 150, s, 12));
  for (const Index k : {1, 2, 3, 40, 79, 80, 100, 140})
    for (const Route route : this->routes()) {
      const auto r = this->solve(w, {.rank = k, .route = route});
      ASSERT_TRUE(r.left.allFinite() && r.right.allFinite());
      const double tail = s.tail(140 - k).norm(), error = error_of(w, r);
      // W was rounded to T, which fills its null space.
      const double rounded = 2 * Tolerance<T>::unit_roundoff * w.norm();
      EXPECT_LE(error,
                (1 + standard_excess) * tail + rounded + projection_bound<T>(290, k, w.norm()))
          << "rank " << k << " route " << static_cast<int>(route) << " tail " << tail;
    }
}

TYPED_TEST(TruncatedSvd, ZeroMatrix) {
  for (const Split split : {Split::Natural, Split::Left, Split::Both, Split::Right})
    for (const Route route : this->routes())
      for (const Shape& shape : {Shape{6, 9}, Shape{160, 150}}) {
        const auto r = this->solve(MatrixXd::Zero(shape.out, shape.in),
                                   {.rank = 3, .route = route, .split = split});
        EXPECT_EQ(r.left.rows(), shape.out);
        EXPECT_EQ(r.right.cols(), shape.in);
        EXPECT_EQ(r.rank(), 3);
        EXPECT_EQ(product(r).norm(), 0);
        EXPECT_TRUE(r.left.allFinite() && r.right.allFinite());
        EXPECT_EQ(r.singular_values.size(), 3);
        EXPECT_EQ(r.singular_values.norm(), 0);
        EXPECT_EQ(r.total_energy, 0);
        EXPECT_EQ(r.error(), 0);
        EXPECT_EQ(r.error_bound, 0);
        EXPECT_EQ(r.relative_error(), 0);
        EXPECT_NE(r.route, Route::Auto);
      }
}

TYPED_TEST(TruncatedSvd, SplitsMoveTheSingularValuesAndKeepTheProduct) {
  using T = typename TypeParam::scalar;
  struct Wanted {
    Split split;
    double left;
  };
  for (const Shape& shape : {Shape{40, 30}, Shape{30, 40}}) {
    VectorXd s = power_spectrum(30, 1);
    s.tail(20).setZero();
    const MatrixXd w = this->held(with_spectrum(shape.out, shape.in, s, 13));
    const auto natural = this->solve(w, {.rank = 12});
    const double inside = projection_bound<T>(70, 12, w.norm());
    for (const Wanted& wanted :
         {Wanted{Split::Left, 1}, Wanted{Split::Both, 0.5}, Wanted{Split::Right, 0}}) {
      const auto r = this->solve(w, {.rank = 12, .split = wanted.split});
      ASSERT_TRUE(r.left.allFinite() && r.right.allFinite());
      EXPECT_TRUE(within((product(r) - product(natural)).norm(), 0, 2 * inside));
      for (Index i = 0; i < 10; ++i) {
        // A line of the factor that is not the basis is off by `inside`, before the division.
        const double relative = inside / s[i];
        const double left = std::pow(s[i], wanted.left), right = s[i] / left;
        EXPECT_TRUE(within(values_of(r.left).col(i).norm(), left, relative * left));
        EXPECT_TRUE(within(values_of(r.right).row(i).norm(), right, relative * right));
      }
    }
    const auto left = this->solve(w, {.rank = 12, .split = Split::Left});
    EXPECT_TRUE(equal_bits(natural.left, left.left)) << "which is the natural one here";
    // So does the size of W: half of the exponent to each.
    const auto both = this->solve(0x1p41 * w, {.rank = 12, .split = Split::Both});
    const double size = std::log2(both.left.norm()) - std::log2(both.right.norm());
    EXPECT_LE(std::abs(size), 1.01);
  }
}

TYPED_TEST(TruncatedSvd, ToleranceIsReachedByTheLeastRank) {
  for (const Shape& shape : {Shape{60, 90}, Shape{150, 140}}) {
    const VectorXd s = power_spectrum(shape.least(), 0.8);
    const MatrixXd w = this->held(with_spectrum(shape.out, shape.in, s, 14));
    for (const Route route : this->routes())
      for (const double tolerance : {0.9, 0.5, 0.3, 0.1, 0.02}) {
        SCOPED_TRACE(testing::Message() << shape.out << " route " << static_cast<int>(route)
                                        << " tolerance " << tolerance);
        const auto r = this->solve(w, {.tolerance = tolerance, .route = route});
        const Index k = r.rank();
        ASSERT_EQ(r.right.rows(), k);
        ASSERT_EQ(r.singular_values.size(), k);
        EXPECT_LE(error_of(w, r), tolerance * w.norm());
        EXPECT_LE(r.relative_error(), tolerance);
        this->expect_bound(w, r);
        // Nothing smaller can reach it; what a subspace with an excess needs beyond is little.
        if (k > 1) {
          const double smaller = s.tail(shape.least() - k + 1).norm();
          EXPECT_GT((1 + standard_excess) * smaller, tolerance * w.norm());
        }
        const auto limited = this->solve(w, {.rank = 3, .tolerance = tolerance, .route = route});
        EXPECT_EQ(limited.rank(), std::min<Index>(3, k));
      }
  }
}

TYPED_TEST(TruncatedSvd, ToleranceOfExtremeMatrices) {
  for (const Route route : this->routes()) {
    EXPECT_EQ(this->solve(MatrixXd::Zero(4, 3), {.tolerance = 0.5, .route = route}).rank(), 1);
    const MatrixXd one =
        integer_matrix<MatrixXd>(150, 1, 15) * integer_matrix<MatrixXd>(1, 140, 16);
    EXPECT_EQ(this->solve(one, {.tolerance = 0.01, .route = route}).rank(), 1);
    // Singular values that do not fall: all of them are needed.
    const MatrixXd flat = MatrixXd::Identity(140, 140);
    EXPECT_EQ(this->solve(flat, {.tolerance = 0.01, .route = route}).rank(), 140);
    EXPECT_EQ(this->solve(flat, {.tolerance = 0.8, .route = route}).rank(), 51) << "1 - 0.8^2";
  }
}

// Squares of the smaller tolerances are below the rounding of products in float.
TYPED_TEST(TruncatedSvd, SmallTolerancesAreReached) {
  const VectorXd s = falling_spectrum(100, 5);
  for (const Shape& shape : {Shape{100, 110}, Shape{260, 150}}) {
    const MatrixXd w = this->held(with_spectrum(shape.out, shape.in, s, 17));
    for (const Route route : this->routes())
      for (const double tolerance : {1e-2, 1e-3, 1e-4}) {
        const auto r = this->solve(w, {.tolerance = tolerance, .route = route});
        SCOPED_TRACE(testing::Message() << shape.out << " route " << static_cast<int>(route)
                                        << " tolerance " << tolerance << " rank " << r.rank());
        // Rounding moves singular values by u ||W||.
        const double rounded = Tolerance<typename TypeParam::scalar>::unit_roundoff * w.norm();
        EXPECT_LE(error_of(w, r), tolerance * w.norm() + rounded);
        const double smaller = s.tail(100 - std::min<Index>(r.rank() - 1, 100)).norm();
        EXPECT_GT((1 + standard_excess) * (smaller + rounded), tolerance * w.norm());
      }
  }
}

TYPED_TEST(TruncatedSvd, HardSpectraKeepThePromisedExcess) {
  for (const Shape& shape : {Shape{100, 120}, Shape{200, 160}, Shape{150, 300}})
    for (const VectorXd& s : {spiked_spectrum(shape.least()), falling_spectrum(shape.least(), 5)}) {
      const MatrixXd w = this->held(with_spectrum(shape.out, shape.in, s, 18));
      for (const Index k : {shape.least() / 5, shape.least() / 2})
        for (const Route route : this->routes()) {
          const auto r = this->solve(w, {.rank = k, .route = route});
          const double tail = s.tail(shape.least() - k).norm(), error = error_of(w, r);
          // What the rounding of W to T adds to the tail.
          const double rounded = Tolerance<typename TypeParam::scalar>::unit_roundoff * w.norm();
          EXPECT_LE(error, (1 + standard_excess) * (tail + rounded))
              << shape.out << " route " << static_cast<int>(route) << " rank " << k << " excess "
              << error / tail - 1;
          this->expect_bound(w, r);
        }
    }
}

TYPED_TEST(TruncatedSvd, ScalesOfTheMatrixDoNotMatter) {
  using T = typename TypeParam::scalar;
  const int most = std::is_same_v<T, float> ? 60 : 400;  // 2^60 is 1e18, 2^400 is 1e120
  for (const Shape& shape : {Shape{150, 170}, Shape{170, 150}, Shape{20, 30}}) {
    const VectorXd s = power_spectrum(shape.least(), 0.6);
    const MatrixXd w = this->held(with_spectrum(shape.out, shape.in, s, 19));
    for (const Route route : this->routes()) {
      const auto plain = this->solve(w, {.rank = 9, .route = route});
      for (const int exponent : {-most, -10, 10, most}) {
        const double scale = std::exp2(exponent);
        const auto r = this->solve(scale * w, {.rank = 9, .route = route});
        const MatrixXd x = product(r) / scale;
        ASSERT_TRUE(x.allFinite());
        EXPECT_TRUE(within((w - x).norm(), error_of(w, plain), standard_excess * s.norm()));
        EXPECT_TRUE(within((r.singular_values / scale - plain.singular_values).norm(), 0,
                           standard_excess * s.norm()));
        EXPECT_TRUE(within(r.relative_error(), plain.relative_error(), standard_excess));
      }
    }
  }
}

TYPED_TEST(TruncatedSvd, EveryStorageOrderAndStride) {
  using T = typename TypeParam::scalar;
  using Strides = Eigen::Stride<Eigen::Dynamic, Eigen::Dynamic>;
  for (const Shape& shape : {Shape{11, 7}, Shape{143, 150}}) {
    const RowMatrix<T> rows = stored_in<T>(normal_matrix(shape.out, shape.in, 20));
    const Eigen::Matrix<T, -1, -1> columns = rows;
    RowMatrix<T> wide_rows = RowMatrix<T>::Constant(shape.out, shape.in + 5, T(7));
    wide_rows.middleCols(2, shape.in) = rows;
    Eigen::Matrix<T, -1, -1> tall_columns =
        Eigen::Matrix<T, -1, -1>::Constant(shape.out + 3, shape.in, T(7));
    tall_columns.bottomRows(shape.out) = columns;
    std::vector<T> padded(static_cast<std::size_t>(2 * shape.out * shape.in + 2 * shape.out), T(7));
    Eigen::Map<RowMatrix<T>, 0, Strides> strided(padded.data(), shape.out, shape.in,
                                                 Strides(2 * shape.in + 2, 2));
    strided = rows;
    for (const Route route : this->routes())
      for (const Sketch sketch : sketches) {
        const SvdOptions options{.rank = 4, .route = route, .sketch = sketch};
        const auto wanted = truncated_svd(this->backend(), rows, options);
        const auto expect_near = [&](const auto& w) {
          const auto r = truncated_svd(this->backend(), w, options);
          EXPECT_TRUE(within((product(r) - product(wanted)).norm(), 0, 1e-3 * rows.norm()))
              << shape.out << " route " << static_cast<int>(route);
        };
        expect_near(columns);
        expect_near(wide_rows.middleCols(2, shape.in));
        expect_near(tall_columns.bottomRows(shape.out));
        expect_near(strided);
      }
  }
}

template <class S>
class TruncatedSvdStorage : public ::testing::Test {
 public:
  static void SetUpTestSuite() { use_one_thread_for_oracles(); }
};
using Storages = ::testing::Types<float, double, pare::bf16, pare::f16>;
TYPED_TEST_SUITE(TruncatedSvdStorage, Storages);

TYPED_TEST(TruncatedSvdStorage, FactorsTheValuesThatAreStored) {
  using T = pare::compute_t<TypeParam>;
  for (const Shape& shape : {Shape{16, 12}, Shape{150, 190}}) {
    const auto w = stored_in<TypeParam>(
        10 * with_spectrum(shape.out, shape.in, power_spectrum(shape.least(), 0.6), 21));
    const MatrixXd exact = values_of(w);
    const Index k = shape.least() / 6;
    const double tail = std::sqrt(tail_energy(exact, k));
    for (const Route route : all_routes)
      for (const Sketch sketch : sketches) {
        const auto r = truncated_svd(w, {.rank = k, .route = route, .sketch = sketch});
        static_assert(std::is_same_v<decltype(r), const LowRank<T>>);
        EXPECT_LE(error_of(exact, r), (1 + standard_excess) * tail);
        using Fixture = TruncatedSvd<BackendAndScalar<BestBackend, T>>;
        EXPECT_LE(orthonormality(Fixture::basis_of(r)), basis_bound<T>);
        Fixture::expect_bound(exact, r);
      }
  }
}

TYPED_TEST(TruncatedSvdStorage, TheSameBitsForEveryNumberOfThreads) {
  for (const Shape& shape : {Shape{230, 301}, Shape{301, 230}, Shape{90, 120}}) {
    const auto w = stored_in<TypeParam>(normal_matrix(shape.out, shape.in, 22));
    for (const Route route : all_routes)
      for (const Sketch sketch : sketches) {
        const SvdOptions options{.rank = 33, .route = route, .sketch = sketch, .seed = 5};
        const auto one = truncated_svd(w, options);
        for (const int threads : {1, 2, 4})
          expect_same_result(one, truncated_svd(pare::simd.threads(threads), w, options));
        expect_same_result(one, truncated_svd(pare::simd.on(ReversePool{3}), w, options));
        expect_same_result(one, factorize(pare::simd.threads(2), w, Uniform{}, options));
      }
    const auto grown = truncated_svd(w, {.tolerance = 0.6});
    expect_same_result(grown, truncated_svd(pare::simd.threads(3), w, {.tolerance = 0.6}));
  }
}

TEST(TruncatedSvdRule, RouteFollowsSizesAndCosts) {
  const auto route = [](Index out, Index in, const SvdOptions& options) {
    const RowMatrix<float> w = random_matrix<RowMatrix<float>>(out, in, 23);
    const auto r = truncated_svd(w, options);
    const RowMatrix<float> t = w.transpose();
    EXPECT_EQ(truncated_svd(t, options).route, r.route) << "sides are treated alike";
    return r.route;
  };
  EXPECT_EQ(route(128, 700, {.rank = 2}), Route::Exact) << "a side of at most 128";
  EXPECT_NE(route(129, 700, {.rank = 2}), Route::Exact);
  EXPECT_EQ(route(160, 200, {.rank = 120}), Route::Gram) << "a sample as wide as the side";
  EXPECT_EQ(route(160, 200, {.rank = 120, .steps = 2}), Route::Exact);
  EXPECT_EQ(route(160, 200, {.rank = 160}), Route::Exact) << "all";
  EXPECT_EQ(route(300, 400, {.rank = 60}), Route::Gram);
  EXPECT_EQ(route(500, 510, {.rank = 3}), Route::Randomized) << "G would be too large";
  EXPECT_EQ(route(300, 400, {.rank = 60, .route = Route::Randomized}), Route::Randomized);
  EXPECT_EQ(route(60, 40, {.rank = 6, .route = Route::Gram}), Route::Gram);
  EXPECT_EQ(route(140, 141, {.rank = 6, .route = Route::Exact}), Route::Exact);
  EXPECT_EQ(route(60, 40, {.tolerance = 0.5}), Route::Exact);
}

TEST(TruncatedSvdRule, HighAccuracyTakesMoreSteps) {
  const RowMatrix<float> w = random_matrix<RowMatrix<float>>(150, 160, 24);
  for (const Route route : {Route::Gram, Route::Randomized}) {
    const auto standard = truncated_svd(w, {.rank = 10, .route = route});
    const auto high = truncated_svd(w, {.rank = 10, .accuracy = Accuracy::High, .route = route});
    EXPECT_GT(high.steps, standard.steps);
    EXPECT_GT(standard.steps, 0);
    EXPECT_GT(high.captured_energy, standard.captured_energy);
  }
  EXPECT_EQ(truncated_svd(w, {.rank = 10, .route = Route::Exact}).steps, 0);
}

}  // namespace
}  // namespace factor_svd_test
