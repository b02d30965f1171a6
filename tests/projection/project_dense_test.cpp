// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <Eigen/Core>

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include <pare/projection/materialize.hpp>
#include <pare/projection/project.hpp>

#include "support/backends.hpp"
#include "support/matrices.hpp"

namespace projection_project_dense_test {
namespace {

using pare::Index;
using pare::projection::project;
using pare::projection::sketch;
using pare::projection::SparseProjection;
using pare::projection::SparseSignProjection;
using pare::testing::equal_bits;
using pare::testing::integer_matrix;
using pare::testing::random_matrix;
using pare::testing::Tolerance;
using pare::testing::within;

template <class T>
using Rows = Eigen::Matrix<T, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
template <class T>
using Columns = Eigen::Matrix<T, Eigen::Dynamic, Eigen::Dynamic, Eigen::ColMajor>;
using Strides = Eigen::Stride<Eigen::Dynamic, Eigen::Dynamic>;

template <class Case>
struct ProjectDenseTest : testing::Test {
  static auto backend() { return Case::backend::make(); }
};
TYPED_TEST_SUITE(ProjectDenseTest, pare::testing::BackendsAndScalars);

/// The signs of R, 0 and +-1.
template <class R>
Eigen::MatrixXd signs_of(const R& r) {
  return (pare::projection::materialize<double>(r).toDense() / r.entry_scale()).array().round();
}

/// Operators whose scale is a power of two: projections of small integers are then exact.
std::vector<SparseProjection> exact_bernoulli() {
  return {{.input_dim = 200, .output_dim = 100, .density = 0.04, .seed = 1},
          {.input_dim = 75, .output_dim = 256, .density = 0.25, .seed = 2},
          {.input_dim = 33, .output_dim = 64, .density = 1.0, .seed = 3},
          {.input_dim = 90, .output_dim = 1, .density = 0.25, .seed = 4},
          {.input_dim = 1, .output_dim = 16, .density = 0.25, .seed = 5},
          {.input_dim = 1, .output_dim = 1, .density = 1.0, .seed = 6}};
}
std::vector<SparseSignProjection> exact_sign() {
  return {{.input_dim = 150, .output_dim = 67, .nonzeros = 4, .seed = 1},
          {.input_dim = 70, .output_dim = 129, .nonzeros = 1, .seed = 2},
          {.input_dim = 40, .output_dim = 64, .nonzeros = 64, .seed = 3}};
}

/// Projects integers from and to every layout; each result must be the product itself.
template <class Storage, class T, class Backend, class R>
void expect_exact(const Backend& backend, const R& r, Index n) {
  int exponent = 0;
  ASSERT_EQ(std::frexp(r.entry_scale(), &exponent), 0.5) << "the test wants a power of two";
  const Eigen::MatrixXd x = integer_matrix<Eigen::MatrixXd>(n, r.input_dim, 17);
  const Columns<T> wanted = (r.entry_scale() * (x * signs_of(r).transpose())).template cast<T>();
  const Index d = r.input_dim, k = r.output_dim;

  const Rows<Storage> rows = x.cast<Storage>();
  const Columns<Storage> columns = x.cast<Storage>();
  Columns<Storage> big(2 * n + 3, 3 * d + 2);
  big.setConstant(Storage(std::numeric_limits<float>::quiet_NaN()));
  const Eigen::Map<Columns<Storage>, 0, Strides> strided(big.data() + 1, n, d,
                                                         Strides(3 * big.outerStride(), 2));
  const_cast<Eigen::Map<Columns<Storage>, 0, Strides>&>(strided) = columns;
  Columns<Storage> framed(n + 2, d + 2);
  framed.setConstant(Storage(std::numeric_limits<float>::quiet_NaN()));
  framed.block(1, 1, n, d) = columns;

  const auto expect_outputs = [&](const auto& input, const char* what) {
    Rows<T> to_rows(n, k);
    Columns<T> to_columns(n, k);
    Columns<T> frame = Columns<T>::Constant(n + 2, k + 3, T(-77));
    Rows<T> spread = Rows<T>::Constant(2 * n + 1, 2 * k, T(-77));
    Eigen::Map<Rows<T>, 0, Strides> to_spread(spread.data() + 1, n, k,
                                              Strides(2 * spread.outerStride(), 2));
    project(backend, input, r, to_rows);
    project(backend, input, r, to_columns);
    project(backend, input, r, frame.block(1, 2, n, k));
    project(backend, input, r, to_spread);
    ASSERT_EQ(Columns<T>(to_rows), wanted) << what;
    ASSERT_EQ(to_columns, wanted) << what;
    ASSERT_EQ(Columns<T>(frame.block(1, 2, n, k)), wanted) << what;
    ASSERT_EQ(Columns<T>(to_spread), wanted) << what;
    const auto outside = [&](const auto& whole, Index inside) {
      return (whole.array() == T(-77)).count() >= whole.size() - inside;
    };
    ASSERT_TRUE(outside(frame, n * k) && outside(spread, n * k)) << what << ": wrote outside";
  };
  expect_outputs(rows, "row-major");
  expect_outputs(columns, "column-major");
  expect_outputs(strided, "strided map");
  expect_outputs(framed.block(1, 1, n, d), "block");

  // From the left: the same, transposed.
  Rows<T> left_rows(k, n);
  Columns<T> left_columns(k, n);
  sketch(backend, r, Rows<Storage>(columns.transpose()), left_rows);
  sketch(backend, r, Columns<Storage>(rows.transpose()), left_columns);
  ASSERT_EQ(Columns<T>(left_rows), wanted.transpose());
  ASSERT_EQ(left_columns, wanted.transpose());
}

TYPED_TEST(ProjectDenseTest, IntegersAreExactInEveryLayout) {
  using T = typename TypeParam::scalar;
  for (const Index n : {1, 2, 33, 65}) {
    for (const auto& r : exact_bernoulli()) expect_exact<T, T>(this->backend(), r, n);
    for (const auto& r : exact_sign()) expect_exact<T, T>(this->backend(), r, n);
  }
}

TYPED_TEST(ProjectDenseTest, IntegersOf16BitsAreExactInEveryLayout) {
  if constexpr (std::is_same_v<typename TypeParam::scalar, float>) {
    for (const Index n : {1, 32, 45}) {
      expect_exact<Eigen::bfloat16, float>(this->backend(), exact_bernoulli()[0], n);
      expect_exact<Eigen::half, float>(this->backend(), exact_bernoulli()[1], n);
      expect_exact<Eigen::bfloat16, float>(this->backend(), exact_sign()[0], n);
      expect_exact<Eigen::half, float>(this->backend(), exact_sign()[1], n);
    }
  } else {
    static_assert(!pare::projection::ProjectsTo<Columns<Eigen::half>, Columns<double>>);
  }
}

template <class T, class Backend, class R>
void expect_within_bound(const Backend& backend, const R& r) {
  const Columns<T> x = random_matrix<Columns<T>>(37, r.input_dim, 5);
  Columns<T> y(37, r.output_dim);
  project(backend, x, r, y);
  const Eigen::MatrixXd signs = signs_of(r);
  for (Index i = 0; i < x.rows(); ++i)
    for (Index k = 0; k < r.output_dim; ++k) {
      long double sum = 0, magnitude = 0;
      double terms = 0;
      for (Index j = 0; j < r.input_dim; ++j) {
        sum += static_cast<long double>(signs(k, j)) * x(i, j);
        magnitude += std::abs(static_cast<long double>(signs(k, j)) * x(i, j));
        terms += std::abs(signs(k, j));
      }
      const double scale = r.entry_scale();
      ASSERT_TRUE(within(static_cast<double>(y(i, k)), scale * static_cast<double>(sum),
                         Tolerance<T>::scaled_sum(terms, scale * static_cast<double>(magnitude))))
          << i << ' ' << k;
    }
}

TYPED_TEST(ProjectDenseTest, RealNumbersStayWithinTheRoundingBound) {
  using T = typename TypeParam::scalar;
  expect_within_bound<T>(this->backend(), pare::projection::achlioptas(300, 130, 1));
  expect_within_bound<T>(this->backend(), pare::projection::very_sparse(300, 130, 2));
  expect_within_bound<T>(this->backend(), SparseProjection{120, 65, 1.0, 3});
  expect_within_bound<T>(this->backend(), SparseSignProjection{300, 130, 9, 4});
}

// An operator so sparse that some outputs sum nothing, and some only entries of one sign.
TYPED_TEST(ProjectDenseTest, RowsOfZerosGivePositiveZeros) {
  using T = typename TypeParam::scalar;
  const SparseProjection r{.input_dim = 50, .output_dim = 70, .density = 0.02, .seed = 1};
  ASSERT_TRUE((signs_of(r).array().abs().rowwise().sum() == 0).any());
  Columns<T> x = random_matrix<Columns<T>>(40, 50, 5);
  x.row(0).setZero();
  x.row(33).setConstant(-T(0));
  Columns<T> y = Columns<T>::Constant(40, 70, T(9));
  project(this->backend(), x, r, y);
  for (Index k = 0; k < 70; ++k) {
    EXPECT_TRUE(pare::testing::same_bits(y(0, k), T(0)));
    EXPECT_TRUE(pare::testing::same_bits(y(33, k), T(0)));
  }
}

TYPED_TEST(ProjectDenseTest, NanAndInfinityStayInTheirRow) {
  using T = typename TypeParam::scalar;
  const SparseProjection r = pare::projection::achlioptas(50, 70, 1);
  const Columns<T> clean = random_matrix<Columns<T>>(40, 50, 5);
  Columns<T> x = clean, y(40, 70), wanted(40, 70);
  x(7, 3) = std::numeric_limits<T>::quiet_NaN();
  x(35, 9) = std::numeric_limits<T>::infinity();
  project(this->backend(), clean, r, wanted);
  project(this->backend(), x, r, y);
  const Eigen::MatrixXd signs = signs_of(r);
  for (Index i = 0; i < 40; ++i)
    for (Index k = 0; k < 70; ++k) {
      if (i == 7 && signs(k, 3) != 0)
        ASSERT_TRUE(std::isnan(y(i, k)));
      else if (i == 35 && signs(k, 9) != 0)
        ASSERT_EQ(y(i, k), static_cast<T>(signs(k, 9)) * x(35, 9));
      else
        ASSERT_TRUE(pare::testing::same_bits(y(i, k), wanted(i, k))) << i << ' ' << k;
    }
}

TYPED_TEST(ProjectDenseTest, NoRowsAreANoOp) {
  using T = typename TypeParam::scalar;
  const SparseProjection r = pare::projection::achlioptas(50, 70, 1);
  const Columns<T> x(0, 50);
  Columns<T> y(0, 70);
  project(this->backend(), x, r, y);
  Columns<T> z(70, 0);
  sketch(this->backend(), r, Columns<T>(50, 0), z);
  EXPECT_EQ(y.size() + z.size(), 0);
}

TYPED_TEST(ProjectDenseTest, AVectorIsAMatrixOfOneRow) {
  using T = typename TypeParam::scalar;
  const SparseProjection r{.input_dim = 75, .output_dim = 256, .density = 0.25, .seed = 2};
  const Eigen::RowVectorXd x = integer_matrix<Eigen::RowVectorXd>(1, 75, 4);
  const Eigen::RowVectorXd wanted = r.entry_scale() * (x * signs_of(r).transpose());
  Eigen::Matrix<T, 1, Eigen::Dynamic> y(256);
  project(this->backend(), Eigen::Matrix<T, 1, Eigen::Dynamic>(x.cast<T>()), r, y);
  EXPECT_EQ(y.template cast<double>(), wanted);
  Eigen::Matrix<T, Eigen::Dynamic, 1> z(256);
  sketch(this->backend(), r, Eigen::Matrix<T, Eigen::Dynamic, 1>(x.transpose().cast<T>()), z);
  EXPECT_EQ(z.template cast<double>(), wanted.transpose());
}

template <class T, class R>
void expect_one_result(const R& r, Index n) {
  const Rows<T> x = random_matrix<Rows<T>>(n, r.input_dim, 8);
  Rows<T> wanted(n, r.output_dim);
  project(x, r, wanted);
  const auto expect_same = [&](const auto& backend, const char* what, int workers) {
    Rows<T> y(n, r.output_dim);
    project(backend, x, r, y);
    ASSERT_TRUE(equal_bits(y, wanted)) << what << ' ' << workers;
  };
  for (const int threads : {1, 2, 7, 16}) {
    expect_same(pare::simd.threads(threads), "threads", threads);
    expect_same(pare::simd.on(pare::ThreadExecutor{threads}), "std threads", threads);
    expect_same(pare::simd.on(pare::testing::ReversePool{threads}), "pool", threads);
    expect_same(pare::simd_for<pare::arch::scalar>{}.threads(threads), "plain form", threads);
  }
  // A split by rows changes nothing either.
  Rows<T> y(n, r.output_dim);
  for (Index i = 0; i < n; i += 13) {
    const Index count = std::min<Index>(13, n - i);
    project(x.middleRows(i, count), r, y.middleRows(i, count));
  }
  ASSERT_TRUE(equal_bits(y, wanted)) << "split by rows";
}

TEST(ProjectDense, SameBitsForEveryExecutorArchAndSplit) {
  expect_one_result<float>(pare::projection::achlioptas(300, 130, 1), 133);
  expect_one_result<double>(pare::projection::very_sparse(300, 130, 2), 133);
  expect_one_result<float>(SparseSignProjection{300, 130, 9, 4}, 133);
}

// From 16 MiB on outputs are written past the caches; R of two passes adds to what is there.
TEST(ProjectDense, LargeOutputsAreTheRowsOfSmallOnes) {
  using namespace pare::projection::detail;
  const SparseProjection r{.input_dim = columns_per_cell + 1,
                           .output_dim = Index{1} << 16,
                           .density = 1.0 / 16,
                           .seed = 5};
  const CellGrid grid{r.input_dim, r.output_dim};
  ASSERT_LT(grid.columns_in_memory(r.expected_column_nonzeros()), grid.cell_columns);
  constexpr Index n = 65;
  ASSERT_GE(n * r.output_dim * Index{sizeof(float)}, Index{16} << 20);
  const Rows<float> x = random_matrix<Rows<float>>(n, r.input_dim, 8);
  const auto rows = [&](float* data, Index count) {
    return pare::TensorView<float, 2>{data, {count, r.output_dim}, {r.output_dim, 1}};
  };
  pare::AlignedBuffer<float> large(static_cast<std::size_t>(n * r.output_dim));
  pare::AlignedBuffer<float> small(static_cast<std::size_t>(2 * r.output_dim));
  project(x, r, rows(large.data(), n));
  project(x.bottomRows(2), r, rows(small.data(), 2));
  EXPECT_TRUE(std::equal(small.data(), small.data() + 2 * r.output_dim,
                         large.data() + (n - 2) * r.output_dim));
}

TEST(ProjectDense, SketchHasTheBitsOfTheTransposedProjection) {
  const SparseProjection r = pare::projection::achlioptas(300, 130, 1);
  const Columns<float> a = random_matrix<Columns<float>>(300, 47, 8);
  Columns<float> b(130, 47), y(47, 130);
  sketch(r, a, b);
  project(a.transpose(), r, y);
  EXPECT_TRUE(equal_bits<Columns<float>>(b, y.transpose()));
}

TEST(ProjectDense, DistinctSeedsGiveDistinctResults) {
  const Columns<float> x = random_matrix<Columns<float>>(2, 30, 8);
  Columns<float> y(2, 64), z(2, 64);
  project(x, pare::projection::achlioptas(30, 64, 1), y);
  project(x, pare::projection::achlioptas(30, 64, 2), z);
  EXPECT_NE(y, z);
}

}  // namespace
}  // namespace projection_project_dense_test
