// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <Eigen/Core>
#include <Eigen/SparseCore>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include <pare/projection/materialize.hpp>
#include <pare/projection/project.hpp>

#include "support/backends.hpp"
#include "support/matrices.hpp"
#include "support/properties.hpp"

namespace projection_project_sparse_test {
namespace {

using pare::Index;
using pare::projection::project;
using pare::projection::sketch;
using pare::projection::SparseProjection;
using pare::projection::SparseSignProjection;
using pare::testing::equal_bits;
using pare::testing::ragged_sparse;
using pare::testing::RawSparse;
using pare::testing::sparse_of;
using pare::testing::Tolerance;
using pare::testing::within;

template <class T>
using Rows = Eigen::Matrix<T, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
template <class T>
using Columns = Eigen::Matrix<T, Eigen::Dynamic, Eigen::Dynamic, Eigen::ColMajor>;

template <class Case>
struct ProjectSparseTest : testing::Test {
  static auto backend() { return Case::backend::make(); }
};
TYPED_TEST_SUITE(ProjectSparseTest, pare::testing::BackendsAndScalars);

double small_integer(pare::testing::Engine& random) {
  return static_cast<double>(random() % 17) - 8;
}

template <class R>
Eigen::MatrixXd signs_of(const R& r) {
  return (pare::projection::materialize<double>(r).toDense() / r.entry_scale()).array().round();
}

/// Integers and a scale that is a power of two: every form must give the product itself.
template <class T, class Backend, class R>
void expect_exact(const Backend& backend, const R& r) {
  int exponent = 0;
  ASSERT_EQ(std::frexp(r.entry_scale(), &exponent), 0.5) << "the test wants a power of two";
  const auto expect_input = [&](const auto& x, const Eigen::MatrixXd& dense, const char* what) {
    const Columns<T> wanted =
        (r.entry_scale() * (dense * signs_of(r).transpose())).template cast<T>();
    Rows<T> to_rows = Rows<T>::Constant(dense.rows(), r.output_dim, T(9));
    Columns<T> frame = Columns<T>::Constant(dense.rows() + 2, r.output_dim + 2, T(-77));
    project(backend, x, r, to_rows);
    project(backend, x, r, frame.block(1, 1, dense.rows(), r.output_dim));
    ASSERT_EQ(Columns<T>(to_rows), wanted) << what;
    ASSERT_EQ(Columns<T>(frame.block(1, 1, dense.rows(), r.output_dim)), wanted) << what;
    ASSERT_TRUE((frame.row(0).array() == T(-77)).all() && (frame.col(0).array() == T(-77)).all());
    Columns<T> left(r.output_dim, dense.rows());
    const Eigen::MatrixXd transposed = dense.transpose();
    sketch(backend, r, sparse_of<Eigen::SparseMatrix<T, Eigen::ColMajor>>(transposed), left);
    ASSERT_EQ(left, wanted.transpose()) << what << " from the left";
    sketch(backend, r, sparse_of<Eigen::SparseMatrix<T, Eigen::RowMajor>>(transposed), left);
    ASSERT_EQ(left, wanted.transpose()) << what << " from the left, row-major";
  };
  for (const std::ptrdiff_t gap : {0, 3}) {
    const auto raw = ragged_sparse<T>(67, r.input_dim, 5, gap, small_integer);
    const auto raw64 = ragged_sparse<T, std::int64_t>(67, r.input_dim, 6, gap, small_integer);
    expect_input(raw.map(), raw.dense(), "duplicates, 32 bit");
    expect_input(raw64.map(), raw64.dense(), "duplicates, 64 bit");
    const auto by_columns = sparse_of<Eigen::SparseMatrix<T, Eigen::ColMajor>>(raw.dense());
    expect_input(by_columns, raw.dense(), "column-major");
    auto loose = sparse_of<Eigen::SparseMatrix<T, Eigen::RowMajor>>(raw.dense());
    loose.uncompress();
    loose.reserve(Eigen::VectorXi::Constant(67, 2));
    expect_input(loose, raw.dense(), "uncompressed");
    Eigen::SparseMatrix<T, Eigen::ColMajor> loose_columns = by_columns;
    loose_columns.uncompress();
    loose_columns.reserve(Eigen::VectorXi::Constant(static_cast<int>(r.input_dim), 2));
    expect_input(loose_columns, raw.dense(), "uncompressed columns");
  }
}

TYPED_TEST(ProjectSparseTest, IntegersAreExactInEveryForm) {
  using T = typename TypeParam::scalar;
  expect_exact<T>(this->backend(), SparseProjection{200, 100, 0.04, 1});
  expect_exact<T>(this->backend(), SparseProjection{75, 256, 0.25, 2});
  expect_exact<T>(this->backend(), SparseProjection{1, 1, 1.0, 3});
  expect_exact<T>(this->backend(), SparseProjection{40, 1, 0.25, 4});
  expect_exact<T>(this->backend(), SparseSignProjection{150, 67, 4, 5});
}

TYPED_TEST(ProjectSparseTest, RealNumbersStayWithinTheRoundingBound) {
  using T = typename TypeParam::scalar;
  const SparseProjection r = pare::projection::achlioptas(60, 130, 9);
  const auto x = ragged_sparse<T>(50, 60, 5, 1, pare::testing::uniform, 20);
  Rows<T> y(50, 130);
  project(this->backend(), x.map(), r, y);
  const Eigen::MatrixXd signs = signs_of(r);
  for (Index i = 0; i < 50; ++i)
    for (Index k = 0; k < 130; ++k) {
      long double sum = 0, magnitude = 0;
      const auto begin = static_cast<std::size_t>(x.outer[static_cast<std::size_t>(i)]);
      const auto length = static_cast<std::size_t>(x.lengths[static_cast<std::size_t>(i)]);
      for (std::size_t e = begin; e < begin + length; ++e) {
        const long double term = static_cast<long double>(signs(k, x.inner[e])) * x.values[e];
        sum += term;
        magnitude += std::abs(term);
      }
      const double scale = r.entry_scale();
      ASSERT_TRUE(within(static_cast<double>(y(i, k)), scale * static_cast<double>(sum),
                         Tolerance<T>::scaled_sum(static_cast<double>(length),
                                                  scale * static_cast<double>(magnitude))));
    }
}

TYPED_TEST(ProjectSparseTest, EmptyMatrices) {
  using T = typename TypeParam::scalar;
  const SparseProjection r = pare::projection::achlioptas(60, 130, 9);
  Rows<T> none(0, 130), zeros = Rows<T>::Constant(5, 130, T(4));
  project(this->backend(), Eigen::SparseMatrix<T, Eigen::RowMajor>(0, 60), r, none);
  project(this->backend(), Eigen::SparseMatrix<T, Eigen::RowMajor>(5, 60), r, zeros);
  for (Index i = 0; i < 5; ++i)
    for (Index k = 0; k < 130; ++k) ASSERT_TRUE(pare::testing::same_bits(zeros(i, k), T(0)));
  zeros.setConstant(T(4));
  project(this->backend(), Eigen::SparseMatrix<T, Eigen::ColMajor>(5, 60), r, zeros);
  EXPECT_TRUE((zeros.array() == T(0)).all());
}

TYPED_TEST(ProjectSparseTest, NanStaysInItsRow) {
  using T = typename TypeParam::scalar;
  const SparseProjection r = pare::projection::achlioptas(60, 130, 9);
  auto x = ragged_sparse<T>(50, 60, 5, 0, small_integer);
  Rows<T> wanted(50, 130), y(50, 130);
  project(this->backend(), x.map(), r, wanted);
  x.values[static_cast<std::size_t>(x.outer[5])] = std::numeric_limits<T>::quiet_NaN();
  project(this->backend(), x.map(), r, y);
  EXPECT_TRUE(y.row(5).array().isNaN().any());
  for (Index i = 0; i < 50; ++i) EXPECT_TRUE(i == 5 || y.row(i) == wanted.row(i)) << i;
}

// Above 8000 columns of 1025 nonzeros do not fit the buffer: 20000 take three steps.
TEST(ProjectSparse, AnOperatorThatDoesNotFitTheBuffer) {
  const SparseProjection r{.input_dim = 20000, .output_dim = 1025, .density = 1.0, .seed = 1};
  const auto x = ragged_sparse<float>(10, 20000, 3, 0, small_integer);
  Eigen::MatrixXd sums = Eigen::MatrixXd::Zero(10, 1025);
  for (std::size_t u = 0; u < 10; ++u)
    for (auto e = static_cast<std::size_t>(x.outer[u]);
         e < static_cast<std::size_t>(x.outer[u + 1]); ++e) {
      const auto column =
          pare::projection::materialize_block<double>(r, 0, 1025, x.inner[e], 1).toDense();
      sums.row(static_cast<Index>(u)) +=
          static_cast<double>(x.values[e]) *
          Eigen::MatrixXd((column / r.entry_scale()).array().round()).transpose();
    }
  for (const int threads : {1, 3}) {
    Rows<float> y(10, 1025);
    project(pare::simd.threads(threads), x.map(), r, y);
    for (Index i = 0; i < 10; ++i)
      for (Index k = 0; k < 1025; ++k) {
        const double wanted = r.entry_scale() * sums(i, k);
        ASSERT_TRUE(within(static_cast<double>(y(i, k)), wanted,
                           Tolerance<float>::scaled_sum(0, std::abs(wanted))))
            << i << ' ' << k;
      }
  }
}

TEST(ProjectSparse, SameBitsForEveryExecutorAndArch) {
  const SparseProjection r = pare::projection::achlioptas(300, 130, 9);
  const auto x = ragged_sparse<float>(200, 300, 5, 0, pare::testing::uniform, 40);
  Rows<float> wanted(200, 130), y(200, 130);
  project(x.map(), r, wanted);
  pare::testing::same_bits_for_any_threads(pare::simd, [&](const auto& backend) {
    Rows<float> out(200, 130);
    project(backend, x.map(), r, out);
    return out;
  });
  project(pare::simd_for<pare::arch::scalar>{}, x.map(), r, y);
  EXPECT_TRUE(equal_bits(y, wanted));
}

TEST(ProjectSparse, EqualsTheDenseFormOnIntegers) {
  const SparseProjection r = pare::projection::achlioptas(300, 130, 9);
  const auto x = ragged_sparse<float>(50, 300, 5, 0, small_integer);
  Rows<float> from_sparse(50, 130), from_dense(50, 130);
  project(x.map(), r, from_sparse);
  project(Rows<float>(x.dense().cast<float>()), r, from_dense);
  EXPECT_TRUE(equal_bits(from_sparse, from_dense));
}

// The magnitude of an entry leaves float's range where there is none: all is zero, not 0 * inf.
TYPED_TEST(ProjectSparseTest, ADensityWithoutEntriesGivesZeros) {
  using T = typename TypeParam::scalar;
  for (const double density : {1e-19, 1e-30, 1e-79, 1e-200, 5e-324}) {
    const SparseProjection r{.input_dim = 60, .output_dim = 8, .density = density, .seed = 3};
    const auto x = ragged_sparse<T>(20, 60, 5, 0, small_integer);
    Rows<T> y = Rows<T>::Constant(20, 8, T(7));
    project(this->backend(), x.map(), r, y);
    EXPECT_TRUE((y.array() == T(0)).all()) << density;
    y.setConstant(T(7));
    project(this->backend(), Rows<T>(x.dense().template cast<T>()), r, y);
    EXPECT_TRUE((y.array() == T(0)).all()) << density;
    EXPECT_EQ(pare::projection::materialize<T>(r).nonZeros(), 0) << density;
  }
}

// More entries than columns: R is stored, here whole and in parts of some columns. Rows that ascend
// keep their bits then, and so do those that do not, which draw their columns one by one.
TEST(ProjectSparse, SameBitsWhicheverPartOfTheOperatorIsStored) {
  const SparseProjection r{.input_dim = 3000, .output_dim = 70, .density = 0.1, .seed = 4};
  const auto sampler = pare::projection::detail::make_sampler(r);
  for (const bool ascends : {true, false}) {
    auto x = ragged_sparse<float>(300, 3000, 5, 0, pare::testing::uniform, 40);
    if (ascends)
      for (std::size_t u = 0; u < 300; ++u)
        std::sort(x.inner.begin() + x.outer[u], x.inner.begin() + x.outer[u + 1]);
    ASSERT_GT(x.values.size(), std::size_t{3000});
    Rows<float> wanted(300, 70), y(300, 70);
    for (Index u = 0; u < 300; ++u) {  // a row alone has fewer entries than R columns
      const auto begin = x.outer[static_cast<std::size_t>(u)],
                 end = x.outer[static_cast<std::size_t>(u) + 1];
      const std::vector<int> outer{0, end - begin};
      const Eigen::Map<const Eigen::SparseMatrix<float, Eigen::RowMajor>> row(
          1, 3000, end - begin, outer.data(), x.inner.data() + begin, x.values.data() + begin);
      project(row, r, wanted.row(u));
    }
    project(x.map(), r, y);
    EXPECT_TRUE(equal_bits(y, wanted));
    for (const double bytes : {1.0, 5e3, 30e3})
      for (const int threads : {1, 3}) {
        y.setConstant(7);
        pare::projection::detail::project_sparse_in<std::uint16_t>(
            pare::simd.threads(threads), pare::to_compressed(x.map()), sampler,
            r.expected_column_nonzeros(), r.entry_scale(), pare::to_view(y), bytes);
        EXPECT_TRUE(equal_bits(y, wanted)) << bytes << " bytes, ascends: " << ascends;
      }
  }
}

// The outputs of a long row are shared out; the bits are those of the row among short ones.
TEST(ProjectSparse, ALongRowAloneOrAmongOthers) {
  const auto expect = [](const auto& r, const auto& x) {
    const Index rows = x.rows, k = r.output_dim;
    RawSparse<float> more = x;  // nine more rows, which are empty
    more.rows = rows + 9;
    more.outer.insert(more.outer.end(), 9, more.outer.back());
    Rows<float> wanted(rows + 9, k), y(rows, k);
    project(pare::simd, more.map(), r, wanted);
    for (const int threads : {1, 2, 5}) {
      y.setConstant(7);
      project(pare::simd.threads(threads), x.map(), r, y);
      EXPECT_TRUE(equal_bits(y, Rows<float>(wanted.topRows(rows)))) << threads << " threads";
      Columns<float> by_columns = Columns<float>::Constant(rows, k, 7);
      project(pare::simd.threads(threads), x.map(), r, by_columns);
      EXPECT_TRUE(equal_bits(Rows<float>(by_columns), y));
    }
    EXPECT_GT(wanted.topRows(1).norm(), 0);
  };
  const auto rows_of = [](Index columns, std::initializer_list<int> lengths) {
    pare::testing::Engine random(5);
    RawSparse<float> x;
    x.rows = static_cast<Index>(lengths.size());
    x.cols = columns;
    for (const int length : lengths) {
      for (int e = 0; e < length; ++e) {
        x.inner.push_back(static_cast<int>(random() % static_cast<std::uint64_t>(columns)));
        x.values.push_back(static_cast<float>(pare::testing::uniform(random)));
      }
      x.outer.push_back(static_cast<int>(x.inner.size()));
    }
    return x;
  };
  const auto x = rows_of(9000, {1500, 0, 700});
  expect(SparseProjection{9000, 150, 0.05, 4}, x);
  expect(SparseProjection{9000, 1500, 0.02, 4}, x);
  expect(SparseSignProjection{9000, 200, 12, 4}, x);
  expect(SparseProjection{800, 150, 0.05, 4}, rows_of(800, {3000}));  // more entries than columns
}

TEST(ProjectSparse, WhatIsStored) {
  using pare::projection::detail::columns_to_store;
  auto x = ragged_sparse<float>(20, 100, 5, 0, small_integer, 20);
  const auto stores = [&](Index columns, double bytes) {
    x.cols = columns;
    return columns_to_store<std::uint16_t>(pare::to_compressed(x.map()), 2.0, bytes);
  };
  const auto entries = static_cast<Index>(x.values.size());
  ASSERT_EQ(entries, 190);
  EXPECT_EQ(stores(entries + 1, 1e9), 0);    // more columns than entries
  EXPECT_EQ(stores(entries, 1e9), entries);  // 8 bytes a column
  EXPECT_EQ(stores(entries, 8.0 * 190), entries);
  EXPECT_EQ(stores(entries, 8.0 * 189), 0);  // not in order
  for (std::size_t u = 0; u < 20; ++u)
    std::sort(x.inner.begin() + x.outer[u], x.inner.begin() + x.outer[u + 1]);
  EXPECT_EQ(stores(entries, 8.0 * 189), 189);
  EXPECT_EQ(stores(entries, 8.0 * 22), 22);  // nine parts, nine entries a row
  EXPECT_EQ(stores(entries, 8.0 * 21), 0);   // ten parts
}

// Above 32768 outputs entries take 32 bits.
TEST(ProjectSparse, ManyOutputs) {
  const SparseSignProjection r{.input_dim = 5, .output_dim = 40000, .nonzeros = 16, .seed = 1};
  const auto x = ragged_sparse<float>(6, 5, 3, 0, small_integer);
  Rows<float> y(6, 40000);
  project(x.map(), r, y);
  EXPECT_EQ(y, Rows<float>((x.dense() * signs_of(r).transpose() * r.entry_scale()).cast<float>()));
}

// Hashed features: the width is that of the hash, the cost that of the entries.
TYPED_TEST(ProjectSparseTest, TheWidthCostsNothing) {
  using T = typename TypeParam::scalar;
  constexpr auto widest = std::numeric_limits<std::int64_t>::max();
  const SparseProjection r{.input_dim = widest, .output_dim = 64, .density = 0.25, .seed = 9};
  RawSparse<T, std::int64_t> x;
  x.rows = 2;
  x.cols = widest;
  x.outer = {0, 3, 5};
  x.inner = {widest - 1, 0, std::int64_t{1} << 40, 5, std::int64_t{1} << 62};
  x.values = {1, 2, 4, 8, 16};
  Eigen::MatrixXd wanted = Eigen::MatrixXd::Zero(2, 64);
  for (std::size_t e = 0; e < 5; ++e)
    wanted.row(e < 3 ? 0 : 1) +=
        static_cast<double>(x.values[e]) *
        pare::projection::materialize_block<double>(r, 0, 64, x.inner[e], 1).toDense().transpose();
  Rows<T> y = Rows<T>::Constant(2, 64, T(7));
  project(this->backend(), x.map(), r, y);
  EXPECT_EQ(y.template cast<double>(), wanted);  // the scale is 1/4
}

}  // namespace
}  // namespace projection_project_sparse_test
