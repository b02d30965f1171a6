// SPDX-License-Identifier: Apache-2.0
// The truncated decomposition of sparse matrices and of what only multiplies.
#include <gtest/gtest.h>

#include <Eigen/Core>
#include <Eigen/SparseCore>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include <pare/factor/centred_svd.hpp>
#include <pare/factor/svd.hpp>

#include "factor/data.hpp"
#include "support/backends.hpp"

namespace factor_operator_svd_test {
namespace {

using namespace pare::factor;
using namespace pare::testing;
using Eigen::MatrixXd;
using Eigen::VectorXd;
using pare::Index;
using pare::TensorView;

constexpr double standard_excess = 0.003, high_excess = 1e-4;

/// About `share` of the entries, with a few heavy rows so that singular values fall.
MatrixXd sparse_values(Index rows, Index cols, double share, std::uint64_t seed) {
  Engine random(seed);
  MatrixXd m = MatrixXd::Zero(rows, cols);
  for (Index i = 0; i < rows; ++i)
    for (Index j = 0; j < cols; ++j) {
      const double value = normal(random) / std::sqrt(1.0 + static_cast<double>(i % 40));
      if (uniform(random) < 2 * share - 1) m(i, j) = static_cast<double>(static_cast<float>(value));
    }
  return m;
}

/// Singular values of a few matrices that come again and again.
const VectorXd& values_once(const MatrixXd& w) {
  static std::vector<std::pair<MatrixXd, VectorXd>> known;
  for (const auto& [matrix, values] : known)
    if (matrix.rows() == w.rows() && matrix.cols() == w.cols() && matrix == w) return values;
  known.emplace_back(w, jacobi_values(w));
  return known.back().second;
}

/// A matrix of a user that multiplies, and looks at what it is given.
template <class T, bool KnowsItsNorm>
struct UsersMatrix {
  using scalar = T;

  RowMatrix<T> w;

  Index rows() const { return w.rows(); }
  Index cols() const { return w.cols(); }
  void multiply(TensorView<const T, 2> x, TensorView<T, 2> y) const {
    check(x, cols(), y, rows());
    map(y) = w * map(x);
  }
  void multiply_transposed(TensorView<const T, 2> x, TensorView<T, 2> y) const {
    check(x, rows(), y, cols());
    map(y) = w.transpose() * map(x);
  }
  double squared_norm() const
  requires KnowsItsNorm
  {
    return values_of(w).squaredNorm();
  }

 private:
  static auto map(TensorView<const T, 2> v) {
    return Eigen::Map<const RowMatrix<T>>(v.data, v.rows(), v.cols());
  }
  static auto map(TensorView<T, 2> v) {
    return Eigen::Map<RowMatrix<T>>(v.data, v.rows(), v.cols());
  }
  static void check(TensorView<const T, 2> x, Index from, TensorView<T, 2> y, Index to) {
    EXPECT_EQ(x.rows(), from);
    EXPECT_EQ(y.rows(), to);
    EXPECT_EQ(x.cols(), y.cols());
    EXPECT_EQ(x.stride[0], x.cols());
    EXPECT_EQ(x.stride[1], 1);
    EXPECT_EQ(y.stride[0], y.cols());
    EXPECT_EQ(y.stride[1], 1);
  }
};

template <class Case>
class OperatorSvd : public ::testing::Test {
 public:
  static void SetUpTestSuite() { use_one_thread_for_oracles(); }
  using Scalar = typename Case::scalar;
  using SparseRows = Eigen::SparseMatrix<Scalar, Eigen::RowMajor>;
  using SparseColumns = Eigen::SparseMatrix<Scalar, Eigen::ColMajor>;
  static auto backend() { return Case::backend::make(); }
  template <class W>
  static LowRank<Scalar> solve(const W& w, const SvdOptions& options) {
    return truncated_svd(backend(), w, options);
  }
  template <bool KnowsItsNorm>
  static LowRank<Scalar> solve_users(const MatrixXd& w, const SvdOptions& options) {
    return solve(UsersMatrix<Scalar, KnowsItsNorm>{stored_in<Scalar>(w)}, options);
  }

  /// The error and what is told of it. `lost`: the share of energy that float products lose.
  static void expect_near_best(const MatrixXd& w, const LowRank<Scalar>& r, Index k,
                               double excess) {
    ASSERT_EQ(r.rank(), k);
    ASSERT_EQ(r.left.rows(), w.rows());
    ASSERT_EQ(r.right.cols(), w.cols());
    const VectorXd s = values_once(w);
    const double tail = s.tail(s.size() - k).norm(), error = error_of(w, r);
    const Index sum = w.rows() + w.cols();
    const double inside = projection_bound<Scalar>(sum, k, w.norm());
    const double lost = captured_bound<double>(8 * sum, k, w.norm());
    EXPECT_GE(error, tail - decomposition_bound(w.rows(), w.cols(), w.norm()));
    EXPECT_LE(error * error, std::pow((1 + excess) * tail, 2) + inside * inside + lost);
    EXPECT_GE(r.error_bound * r.error_bound, error * error - inside * inside - lost);
    EXPECT_TRUE(within(r.total_energy, w.squaredNorm(), 1e-12 * w.squaredNorm()));
    EXPECT_TRUE(within(r.total_energy - r.captured_energy, error * error,
                       2 * captured_bound<Scalar>(sum, k, w.norm()) + inside * inside));
    EXPECT_NE(r.route, Route::Auto);
  }
};
TYPED_TEST_SUITE(OperatorSvd, SolverCases);

TYPED_TEST(OperatorSvd, SparseMatricesOfEitherOrder) {
  const Index shapes[][2] = {{1, 1}, {1, 9}, {30, 44}, {44, 30}, {160, 90}};
  for (const auto& [rows, cols] : shapes) {
    const MatrixXd w =
        rows == 1 ? MatrixXd(MatrixXd::Ones(rows, cols)) : sparse_values(rows, cols, 0.2, 1);
    for (const Index k : {Index{1}, (std::min(rows, cols) + 1) / 2, std::min(rows, cols)}) {
      SCOPED_TRACE(testing::Message() << rows << " x " << cols << " rank " << k);
      const auto by_rows = this->solve(sparse_of<typename TestFixture::SparseRows>(w), {.rank = k});
      const auto by_columns =
          this->solve(sparse_of<typename TestFixture::SparseColumns>(w), {.rank = k});
      this->expect_near_best(w, by_rows, k, standard_excess);
      this->expect_near_best(w, by_columns, k, standard_excess);
      EXPECT_TRUE(equal_bits(by_rows.left, by_columns.left));
      EXPECT_TRUE(equal_bits(by_rows.right, by_columns.right));
      if (!TypeParam::backend::is_reference) {
        EXPECT_EQ(by_rows.route, Route::Randomized);
      }
    }
  }
}

TYPED_TEST(OperatorSvd, HighAccuracyOfASparseMatrix) {
  const MatrixXd w = sparse_values(160, 130, 0.15, 2);
  this->expect_near_best(w,
                         this->solve(sparse_of<typename TestFixture::SparseRows>(w),
                                     {.rank = 20, .accuracy = Accuracy::High}),
                         20, high_excess);
}

// Rows in any order, indices that come twice and add up, places that are not in use.
TYPED_TEST(OperatorSvd, UnsortedAndRepeatedIndicesAddUp) {
  using T = typename TypeParam::scalar;
  for (const Index gap : {0, 2}) {
    const auto raw = ragged_sparse<T>(50, 37, 3, gap, [](Engine& random) {
      return static_cast<double>(static_cast<int>(random() % 9)) - 4;
    });
    const MatrixXd w = raw.dense();
    this->expect_near_best(w, this->solve(raw.map(), {.rank = 12}), 12, standard_excess);
    const Eigen::Map<const typename TestFixture::SparseColumns> transposed(
        37, 50, static_cast<Index>(raw.values.size()), raw.outer.data(), raw.inner.data(),
        raw.values.data(), raw.lengths.empty() ? nullptr : raw.lengths.data());
    this->expect_near_best(w.transpose(), this->solve(transposed, {.rank = 12}), 12,
                           standard_excess);
  }
}

TYPED_TEST(OperatorSvd, AUsersOperator) {
  for (const auto& [rows, cols] : {std::pair<Index, Index>{60, 80}, {150, 70}}) {
    const MatrixXd w = values_of(stored_in<typename TypeParam::scalar>(
        with_spectrum(rows, cols, power_spectrum(std::min(rows, cols), 0.6), 4)));
    for (const Index k : {1, 12, 60}) {
      SCOPED_TRACE(testing::Message() << rows << " rank " << k);
      this->expect_near_best(w, this->template solve_users<true>(w, {.rank = k}), k,
                             standard_excess);
    }
  }
}

TYPED_TEST(OperatorSvd, EnergyIsEstimatedWhereItIsNotKnown) {
  const MatrixXd w = values_of(
      stored_in<typename TypeParam::scalar>(with_spectrum(90, 110, power_spectrum(90, 0.6), 5)));
  for (const std::uint64_t seed : {0u, 1u, 2u}) {
    const auto known = this->template solve_users<true>(w, {.rank = 9, .seed = seed});
    const auto estimated = this->template solve_users<false>(w, {.rank = 9, .seed = seed});
    EXPECT_TRUE(equal_bits(known.left, estimated.left)) << "the factors do not depend on it";
    EXPECT_TRUE(equal_bits(known.right, estimated.right));
    // Four of the deviations that the sample has at worst: 32 columns.
    EXPECT_TRUE(
        within(estimated.total_energy, w.squaredNorm(), 4 * std::sqrt(2.0 / 32) * w.squaredNorm()));
    // Of rank 1 every second sample tells too little.
    const MatrixXd line = w.leftCols(1) * w.topRows(1);
    const auto one = this->template solve_users<false>(line, {.rank = 1, .seed = seed});
    EXPECT_GE(one.total_energy, one.captured_energy * (1 - 1e-12));
  }
}

// Sums of energies are rounded to more than lies between a tolerance and the next below.
TYPED_TEST(OperatorSvd, ToleranceNearTheLeastIsMet) {
  if (std::is_same_v<typename TypeParam::scalar, float>) return;
  const VectorXd s = (-Eigen::ArrayXd::LinSpaced(40, 0, 39) * std::log(2.0)).exp();
  const double tolerance = s.tail(40 - 23).norm() / s.norm() * (1 - 1e-3);
  for (std::uint64_t seed = 0; seed < 10; ++seed) {
    const MatrixXd w = with_spectrum(40, 45, s, 20 + seed);
    const auto r = this->template solve_users<true>(w, {.tolerance = tolerance});
    EXPECT_LE(error_of(w, r), tolerance * w.norm()) << seed;
    EXPECT_LE(r.rank(), 25);
  }
}

TYPED_TEST(OperatorSvd, ToleranceGrowsTheRank) {
  const VectorXd s = power_spectrum(90, 0.8);
  const MatrixXd w = values_of(stored_in<typename TypeParam::scalar>(with_spectrum(120, 90, s, 6)));
  for (const double tolerance : {0.9, 0.4, 0.1, 0.03}) {
    const auto r = this->template solve_users<true>(w, {.tolerance = tolerance});
    EXPECT_LE(error_of(w, r), tolerance * w.norm());
    const Index k = r.rank();
    if (k > 1) {
      EXPECT_GT((1 + standard_excess) * s.tail(91 - k).norm(), tolerance * w.norm());
    }
    EXPECT_EQ(this->template solve_users<true>(w, {.rank = 2, .tolerance = tolerance}).rank(),
              std::min<Index>(2, k));
  }
}

TYPED_TEST(OperatorSvd, ZeroAndExactRank) {
  using T = typename TypeParam::scalar;
  for (const Split split : {Split::Natural, Split::Left, Split::Both, Split::Right}) {
    const SvdOptions options{.rank = 5, .split = split};
    const typename TestFixture::SparseRows none(40, 30);
    const auto zero = this->solve(none, options);
    EXPECT_EQ(product(zero).norm(), 0);
    EXPECT_EQ(zero.rank(), 5);
    EXPECT_EQ(zero.error_bound, 0);
    EXPECT_EQ(product(this->template solve_users<false>(MatrixXd::Zero(30, 40), options)).norm(),
              0);
    for (const Index rank : {1, 4, 5}) {
      const MatrixXd w =
          integer_matrix<MatrixXd>(70, rank, 7) * integer_matrix<MatrixXd>(rank, 61, 8);
      const auto r = this->template solve_users<true>(w, options);
      ASSERT_TRUE(r.left.allFinite() && r.right.allFinite());
      EXPECT_LE(error_of(w, r), projection_bound<T>(131, 5, w.norm())) << rank;
    }
  }
}

TYPED_TEST(OperatorSvd, SplitsMoveTheSingularValuesAndKeepTheProduct) {
  using T = typename TypeParam::scalar;
  for (const auto& [rows, cols] : {std::pair<Index, Index>{60, 50}, {50, 60}}) {
    const VectorXd s = power_spectrum(50, 1);
    const MatrixXd w = values_of(stored_in<T>(with_spectrum(rows, cols, s, 9)));
    const auto natural = this->template solve_users<true>(w, {.rank = 8});
    const double inside = projection_bound<T>(110, 8, w.norm());
    for (const auto& [split, power] :
         {std::pair<Split, double>{Split::Left, 1}, {Split::Both, 0.5}, {Split::Right, 0}}) {
      const auto r = this->template solve_users<true>(w, {.rank = 8, .split = split});
      EXPECT_TRUE(within((product(r) - product(natural)).norm(), 0, 2 * inside));
      for (Index i = 0; i < 8; ++i) {
        const double value = r.singular_values[i], left = std::pow(value, power);
        EXPECT_TRUE(within(values_of(r.left).col(i).norm(), left, inside / value * left));
        EXPECT_TRUE(within(values_of(r.right).row(i).norm(), value / left, inside / left));
      }
    }
    EXPECT_TRUE(equal_bits(
        natural.left, this->template solve_users<true>(w, {.rank = 8, .split = Split::Left}).left));
  }
}

TYPED_TEST(OperatorSvd, CentredMatricesLoseTheMeanOfEachFeatureAlone) {
  using T = typename TypeParam::scalar;
  for (const auto& [rows, cols] : {std::pair<Index, Index>{90, 50}, {50, 90}}) {
    MatrixXd x = sparse_values(rows, cols, 0.3, 12);
    x.col(3).array() += 40;  // a feature far from 0
    x = values_of(stored_in<T>(x));
    const VectorXd mean = x.colwise().mean().transpose();
    const MatrixXd centred = x.rowwise() - mean.transpose();
    const double least = std::sqrt(tail_energy(centred, 6));
    const SvdOptions options{.rank = 6, .split = Split::Left, .signs = Signs::Fixed};
    const auto check = [&](const auto& r) {
      EXPECT_LE(error_of(centred, r.factors), 1.003 * least + 1e-5 * x.norm());
      EXPECT_TRUE(within((r.mean - mean).norm(), 0, 1e-12 * mean.norm()));
      EXPECT_TRUE(within(r.factors.total_energy, centred.squaredNorm(), 1e-6 * x.squaredNorm()));
      EXPECT_LE(orthonormality(r.factors.right.transpose()), 1e-4);
      for (Index k = 0; k < 6; ++k)
        EXPECT_EQ(r.factors.right.row(k).maxCoeff(), r.factors.right.row(k).cwiseAbs().maxCoeff());
    };
    check(centred_svd(this->backend(), stored_in<T>(x), options));
    check(centred_svd(this->backend(), sparse_of<typename TestFixture::SparseRows>(x), options));
    check(centred_svd(this->backend(), sparse_of<typename TestFixture::SparseColumns>(x), options));
  }
  const MatrixXd same = MatrixXd::Constant(20, 10, 3.7);
  const auto constant =
      centred_svd(this->backend(), sparse_of<typename TestFixture::SparseRows>(same), {.rank = 2});
  EXPECT_LE(product(constant.factors).norm(), 1e-5 * same.norm());
  if (!TypeParam::backend::is_reference) {
    EXPECT_EQ(product(constant.factors).norm(), 0) << "what is left of it is rounding";
  }
  const auto raw = ragged_sparse<T>(50, 37, 3, 0, [](Engine& random) {
    return static_cast<double>(static_cast<int>(random() % 9)) - 4;
  });
  const MatrixXd x = raw.dense();
  const MatrixXd centred = x.rowwise() - x.colwise().mean();
  const auto repeated = centred_svd(this->backend(), raw.map(), {.rank = 12}).factors;
  EXPECT_TRUE(within(repeated.total_energy, centred.squaredNorm(), 1e-6 * x.squaredNorm()));
  EXPECT_LE(error_of(centred, repeated), 1.003 * std::sqrt(tail_energy(centred, 12)));
}

// Sums of equal elements are rounded, or overflow: their mean is what they are.
TYPED_TEST(OperatorSvd, CentredDenseConstantsLeaveNothing) {
  using T = typename TypeParam::scalar;
  constexpr bool is_float = std::is_same_v<T, float>;
  const MatrixXd x = values_of(stored_in<T>(normal_matrix(21, 7, 15)));
  for (const double large : {0.1, 1e-30, is_float ? 3e38 : 1.7e308}) {
    const auto value = static_cast<T>(large);
    const RowMatrix<T> same = RowMatrix<T>::Constant(21, 7, value);
    const auto constant = centred_svd(this->backend(), same, {.rank = 2});
    EXPECT_EQ(constant.factors.total_energy, 0) << large;
    EXPECT_EQ(product(constant.factors).norm(), 0) << large;
    EXPECT_TRUE((constant.mean.array() == double{value}).all()) << large;
    RowMatrix<T> mixed = stored_in<T>(x);
    mixed.col(4).setConstant(value);
    MatrixXd centred = x.rowwise() - x.colwise().mean();
    centred.col(4).setZero();
    const auto r = centred_svd(this->backend(), mixed, {.rank = 6});
    EXPECT_LE(error_of(centred, r.factors), 1e-5) << large;
    EXPECT_EQ(r.mean[4], double{value});
  }
  const auto refused = [&](RowMatrix<T> broken, double value, const char* wanted) {
    broken(3, 4) = static_cast<T>(value);
    const std::string message = refusal([&] { centred_svd(this->backend(), broken, {.rank = 2}); },
                                        "factor::centred_svd", "x");
    EXPECT_NE(message.find(wanted), std::string::npos) << message;
  };
  const double most = std::numeric_limits<T>::max();
  refused(RowMatrix<T>::Constant(21, 7, static_cast<T>(most)), -most, "differences from the mean");
  using Sparse = typename TestFixture::SparseRows;
  for (const auto& [rows, cols] : {std::pair<Index, Index>{0, 4}, {4, 0}}) {
    refusal([&] { centred_svd(this->backend(), RowMatrix<T>(rows, cols), {.rank = 1}); },
            "factor::centred_svd", "x");
    refusal([&] { centred_svd(this->backend(), Sparse(rows, cols), {.rank = 1}); },
            "factor::centred_svd", "x");
  }
  for (const double none : {std::nan(""), std::numeric_limits<double>::infinity()})
    refused(stored_in<T>(x), none, "finite elements");
}

// Far means: a difference of squared norms would be rounding. Large and small elements: as of
// truncated_svd.
TYPED_TEST(OperatorSvd, CentredMatricesOfAnyMeanAndScale) {
  using T = typename TypeParam::scalar;
  using Sparse = typename TestFixture::SparseRows;
  constexpr bool is_float = std::is_same_v<T, float>;
  MatrixXd x = normal_matrix(60, 40, 13);
  x.col(3).array() += is_float ? 1e5 : 1e9;
  x.col(7).head(30).setZero();
  x = values_of(stored_in<T>(x));
  const auto far = centred_svd(this->backend(), sparse_of<Sparse>(x), {.rank = 6});
  const MatrixXd centred = x.rowwise() - x.colwise().mean();
  EXPECT_TRUE(
      within(far.factors.total_energy, centred.squaredNorm(), 1e-5 * centred.squaredNorm()));
  EXPECT_LE(error_of(centred, far.factors), 1.003 * std::sqrt(tail_energy(centred, 6)));

  const MatrixXd integers = integer_matrix<MatrixXd>(60, 40, 14);
  const auto plain = centred_svd(this->backend(), sparse_of<Sparse>(integers), {.rank = 6});
  for (const int exponent : is_float ? std::vector<int>{-140, 118} : std::vector<int>{-470, 490}) {
    const double scale = std::exp2(exponent);
    const auto r = centred_svd(this->backend(), sparse_of<Sparse>(scale * integers), {.rank = 6});
    EXPECT_TRUE(within((r.mean / scale - plain.mean).norm(), 0, 1e-12));
    EXPECT_TRUE(within((product(r.factors) / scale - product(plain.factors)).norm(), 0,
                       1e-4 * integers.norm()))
        << exponent;
    EXPECT_TRUE(within(r.factors.relative_error(), plain.factors.relative_error(), 1e-4));
  }
}

TYPED_TEST(OperatorSvd, ScalesDoNotMatter) {
  using T = typename TypeParam::scalar;
  const MatrixXd w = sparse_values(70, 60, 0.3, 10);
  const auto plain = this->solve(sparse_of<typename TestFixture::SparseRows>(w), {.rank = 9});
  const int most = std::is_same_v<T, float> ? 60 : 400;
  for (const int exponent : {-most, most}) {
    const double scale = std::exp2(exponent);
    const auto r = this->solve(sparse_of<typename TestFixture::SparseRows>(scale * w), {.rank = 9});
    EXPECT_TRUE(
        within((w - product(r) / scale).norm(), error_of(w, plain), standard_excess * w.norm()));
    EXPECT_TRUE(within(r.relative_error(), plain.relative_error(), standard_excess));
    const auto users = this->template solve_users<true>(scale * w, {.rank = 9});
    EXPECT_TRUE(within(users.relative_error(), plain.relative_error(), standard_excess));
  }
}

template <class T>
class OperatorSvdThreads : public ::testing::Test {
 public:
  static void SetUpTestSuite() { use_one_thread_for_oracles(); }
};
using Scalars = ::testing::Types<float, double>;
TYPED_TEST_SUITE(OperatorSvdThreads, Scalars);

TYPED_TEST(OperatorSvdThreads, TheSameBitsForEveryNumberAndSeed) {
  using T = TypeParam;
  const MatrixXd values = sparse_values(230, 190, 0.1, 11);
  const auto sparse = sparse_of<Eigen::SparseMatrix<T, Eigen::RowMajor>>(values);
  const UsersMatrix<T, false> users{stored_in<T>(values)};
  const auto expect_same = [](const auto& w) {
    const SvdOptions options{.rank = 21, .seed = 3};
    const auto one = truncated_svd(w, options);
    const auto check = [&](const auto& backend) {
      const auto r = truncated_svd(backend, w, options);
      EXPECT_TRUE(equal_bits(one.left, r.left));
      EXPECT_TRUE(equal_bits(one.right, r.right));
      EXPECT_TRUE(equal_bits(one.singular_values, r.singular_values));
      EXPECT_TRUE(same_bits(one.total_energy, r.total_energy));
      EXPECT_TRUE(same_bits(one.error_bound, r.error_bound));
    };
    for (const int threads : {1, 2, 4}) check(pare::simd.threads(threads));
    check(pare::simd.on(ReversePool{3}));
    const auto other = truncated_svd(w, {.rank = 21, .seed = 4});
    EXPECT_FALSE(equal_bits(one.left, other.left)) << "the seed is used";
  };
  expect_same(sparse);
  expect_same(users);
}

}  // namespace
}  // namespace factor_operator_svd_test
