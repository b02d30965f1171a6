// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <Eigen/Core>

#include <limits>
#include <vector>

#include <pare/projection/project.hpp>

#include "support/backends.hpp"
#include "support/matrices.hpp"
#include "support/properties.hpp"

namespace projection_project_product_test {
namespace {

using pare::as_const;
using pare::Index;
using pare::to_view;
using pare::projection::project;
using pare::projection::SparseProjection;
using pare::projection::SparseSignProjection;
using pare::testing::equal_bits;
using pare::testing::random_matrix;
namespace detail = pare::projection::detail;

template <class T>
using Rows = Eigen::Matrix<T, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
template <class T>
using Columns = Eigen::Matrix<T, Eigen::Dynamic, Eigen::Dynamic, Eigen::ColMajor>;

template <class X, class Y, class R>
bool by_product(const X& x, const R& r, Y& y) {
  return detail::projects_by_product(as_const(to_view(x)), r.expected_column_nonzeros(),
                                     to_view(y));
}

/// What sums of signs give, which `project` leaves to products.
template <class T, class X, class R>
Rows<T> sums_of(const X& x, const R& r) {
  Rows<T> y(x.rows(), r.output_dim);
  detail::project_dense(pare::on_any_executor(pare::simd), as_const(to_view(x)),
                        detail::make_sampler(r), r.expected_column_nonzeros(), r.entry_scale(),
                        to_view(y));
  return y;
}

template <class Storage, class T, class R>
void expect_bits_of_sums(const R& r, Index n) {
  const Rows<Storage> x = random_matrix<Rows<T>>(n, r.input_dim, 5).template cast<Storage>();
  const Columns<Storage> by_columns = x;
  const Rows<T> wanted = sums_of<T>(x, r);
  Rows<T> y = Rows<T>::Constant(n, r.output_dim, std::numeric_limits<T>::quiet_NaN());
  Columns<T> to_columns = y;
  ASSERT_TRUE(by_product(x, r, y) && by_product(by_columns, r, to_columns));
  project(x, r, y);
  EXPECT_TRUE(equal_bits(y, wanted));
  project(by_columns, r, to_columns);
  EXPECT_TRUE(equal_bits(Rows<T>(to_columns), wanted));
  project(pare::simd_for<pare::arch::scalar>{}.threads(2), x, r, y);
  EXPECT_TRUE(equal_bits(y, wanted));
}

TEST(ProjectByProduct, HasTheBitsOfSumsOfSigns) {
  for (const double density : {0.28, 0.5, 1.0}) {
    expect_bits_of_sums<float, float>(SparseProjection{300, 130, density, 1}, 35);
    expect_bits_of_sums<double, double>(SparseProjection{300, 130, density, 1}, 35);
  }
  expect_bits_of_sums<Eigen::bfloat16, float>(SparseProjection{90, 67, 0.4, 2}, 33);
  expect_bits_of_sums<Eigen::half, float>(SparseProjection{90, 67, 0.4, 2}, 33);
  expect_bits_of_sums<float, float>(SparseSignProjection{90, 16, 16, 3}, 40);
  expect_bits_of_sums<float, float>(SparseProjection{1, 1, 1.0, 4}, 40);
}

// Pieces of 2048 columns and 4096 outputs (2048 of double).
TEST(ProjectByProduct, SeveralPiecesOfTheOperator) {
  expect_bits_of_sums<float, float>(SparseProjection{4100, 70, 0.3, 1}, 35);
  expect_bits_of_sums<float, float>(SparseProjection{2049, 4097, 0.3, 1}, 32);
  expect_bits_of_sums<double, double>(SparseProjection{70, 2049, 0.3, 1}, 16);
}

TEST(ProjectByProduct, SameBitsForAnyThreads) {
  const SparseProjection r{.input_dim = 2100, .output_dim = 130, .density = 0.5, .seed = 3};
  const Rows<float> x = random_matrix<Rows<float>>(300, r.input_dim, 8);
  pare::testing::same_bits_for_any_threads(pare::simd, [&](const auto& backend) {
    Rows<float> y(300, 130);
    project(backend, x, r, y);
    return y;
  });
}

TEST(ProjectByProduct, TakesDenseOperatorsManyRowsAndLines) {
  const Rows<float> x = Rows<float>::Ones(32, 50), few = Rows<float>::Ones(31, 50);
  Rows<float> y(32, 20), few_y(31, 20);
  const SparseProjection r{.input_dim = 50, .output_dim = 20, .density = 0.28, .seed = 3};
  EXPECT_TRUE(by_product(x, r, y));
  EXPECT_FALSE(by_product(few, r, few_y));
  EXPECT_FALSE(by_product(x, SparseProjection{50, 20, 0.27, 3}, y));
  using Strides = Eigen::Stride<Eigen::Dynamic, Eigen::Dynamic>;
  std::vector<float> memory(32 * 150, 1.0f);
  const Eigen::Map<Rows<float>, 0, Strides> apart(memory.data(), 32, 50, Strides(150, 3));
  EXPECT_FALSE(by_product(apart, r, y));
  project(apart, r, y);
  EXPECT_TRUE(equal_bits(y, sums_of<float>(x, r)));
}

// 0 times infinity is NaN in a product, but R's zeros take no part.
TEST(ProjectByProduct, NanAndInfinityReachWhatSumsOfSignsReach) {
  const SparseProjection r{.input_dim = 2100, .output_dim = 70, .density = 0.5, .seed = 3};
  Rows<float> x = random_matrix<Rows<float>>(40, r.input_dim, 8), y(40, 70);
  const Rows<float> clean = sums_of<float>(x, r);
  x(5, 2099) = std::numeric_limits<float>::infinity();
  x(9, 0) = std::numeric_limits<float>::quiet_NaN();
  project(x, r, y);
  EXPECT_TRUE(equal_bits(y, sums_of<float>(x, r)));
  for (const Index i : {5, 9}) {
    EXPECT_TRUE(y.row(i).array().isFinite().any());
    EXPECT_FALSE(y.row(i).array().isFinite().all());
    y.row(i) = clean.row(i);
  }
  EXPECT_TRUE(equal_bits(y, clean));
}

}  // namespace
}  // namespace projection_project_product_test
