// SPDX-License-Identifier: Apache-2.0
// Operators that take several cells, and more memory than is kept of them at a time.
#include <gtest/gtest.h>

#include <Eigen/Core>

#include <pare/projection/materialize.hpp>
#include <pare/projection/project.hpp>

#include "support/backends.hpp"
#include "support/matrices.hpp"

namespace projection_project_cells_test {
namespace {

using pare::Index;
using pare::projection::project;
using pare::projection::SparseProjection;
using pare::projection::SparseSignProjection;
using pare::testing::Tolerance;
using pare::testing::within;
namespace detail = pare::projection::detail;

template <class T>
using Matrix = Eigen::Matrix<T, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

/// `project` by cells, which it leaves to products where many entries of R are not 0.
template <class B, class T, class R>
void project_cells(const B& backend, const Matrix<T>& x, const R& r, Matrix<T>& y) {
  detail::project_dense(pare::on_any_executor(backend), pare::as_const(pare::to_view(x)),
                        detail::make_sampler(r), r.expected_column_nonzeros(), r.entry_scale(),
                        pare::to_view(y));
}

template <class R>
Index steps_of(const R& r) {
  const detail::CellGrid grid{r.input_dim, r.output_dim};
  const Index step = grid.columns_in_memory(r.expected_column_nonzeros());
  return (grid.cell_columns + step - 1) / step;
}

/// Sums of small integers are exact, so what is left is the rounded scale and one product.
template <class T>
void expect_product(const Matrix<T>& y, const Eigen::MatrixXd& sums, double scale) {
  ASSERT_EQ(y.rows(), sums.rows());
  ASSERT_EQ(y.cols(), sums.cols());
  for (Index i = 0; i < y.rows(); ++i)
    for (Index k = 0; k < y.cols(); ++k) {
      const double wanted = scale * sums(i, k);
      ASSERT_TRUE(within(static_cast<double>(y(i, k)), wanted,
                         Tolerance<T>::scaled_sum(0, std::abs(wanted))))
          << i << ' ' << k;
    }
}

template <class R>
void expect_cells(const R& r, Index cells, Index steps, Index n) {
  const detail::CellGrid grid{r.input_dim, r.output_dim};
  ASSERT_EQ(grid.cell_rows * grid.cell_columns, cells);
  ASSERT_EQ(steps_of(r), steps);
  const Matrix<double> x = pare::testing::integer_matrix<Matrix<double>>(n, r.input_dim, 3);
  const auto operator_entries = pare::projection::materialize<double>(r);
  const Eigen::MatrixXd product = (operator_entries * x.transpose()).transpose();
  const Eigen::MatrixXd sums = (product / r.entry_scale()).array().round();
  const auto expect_backend = [&](const auto& backend, auto scalar) {
    using T = decltype(scalar);
    const Matrix<T> input = x.cast<T>();
    Matrix<T> y = Matrix<T>::Constant(n, r.output_dim, std::numeric_limits<T>::quiet_NaN());
    project_cells(backend, input, r, y);
    expect_product(y, sums, r.entry_scale());
  };
  expect_backend(pare::simd, float{});
  expect_backend(pare::simd, double{});
  expect_backend(pare::simd.threads(3), float{});
  expect_backend(pare::simd_for<pare::arch::scalar>{}, float{});
}

template <class R>
void expect_same_bits(const R& r, Index n) {
  const auto x = pare::testing::random_matrix<Matrix<float>>(n, r.input_dim, 4);
  Matrix<float> serial(n, r.output_dim), threaded(n, r.output_dim), plain(n, r.output_dim);
  project_cells(pare::simd, x, r, serial);
  project_cells(pare::simd.threads(7), x, r, threaded);
  project_cells(pare::simd_for<pare::arch::scalar>{}.threads(2), x, r, plain);
  EXPECT_TRUE(pare::testing::equal_bits(serial, threaded));
  EXPECT_TRUE(pare::testing::equal_bits(serial, plain));
}

constexpr Index width = detail::columns_per_cell;
constexpr Index height = detail::rows_per_cell;

/// The fewest nonzeros in a column with which no more than `columns` cell columns fit the buffer.
constexpr Index nonzeros_for(Index columns) {
  return static_cast<Index>(detail::operator_bytes /
                            static_cast<double>(8 * width * (columns + 1))) +
         1;
}

TEST(ProjectCells, SeveralCellColumns) {
  const SparseProjection r = pare::projection::achlioptas(2 * width + 3, 70, 1);
  expect_cells(r, 3, 1, 35);
  expect_same_bits(r, 35);
}

TEST(ProjectCells, SeveralCellRows) {
  const SparseProjection r = pare::projection::achlioptas(70, 2 * height + 4, 2);
  expect_cells(r, 3, 1, 35);
  expect_same_bits(r, 35);
}

TEST(ProjectCells, AnExactNumberOfCells) {
  expect_cells(SparseSignProjection{width, height, 3, 4}, 1, 1, 3);
  expect_cells(SparseSignProjection{2 * width, 2 * height, 3, 4}, 4, 1, 3);
}

TEST(ProjectCells, AGridOfCells) {
  const SparseSignProjection s{width + 1, height + 1, 11, 3};
  expect_cells(s, 4, 1, 33);
  expect_same_bits(s, 33);
}

// The smallest operators that do not fit the buffer are those of density 1: first one cell column
// at a time, then two and a rest.
TEST(ProjectCells, OneCellColumnAStep) {
  const Index k = nonzeros_for(1);
  const SparseProjection r{.input_dim = 2 * width + 4, .output_dim = k, .density = 1.0, .seed = 5};
  expect_cells(r, 3 * pare::ceil_div(k, height), 3, 33);
  expect_same_bits(r, 33);
}

TEST(ProjectCells, TwoCellColumnsAStep) {
  const Index k = nonzeros_for(2);
  const SparseProjection r{.input_dim = 4 * width + 4, .output_dim = k, .density = 1.0, .seed = 6};
  expect_cells(r, 5 * pare::ceil_div(k, height), 3, 5);
}

TEST(ProjectCells, NanStaysInItsRowOverSteps) {
  const SparseProjection r{
      .input_dim = width + 4, .output_dim = nonzeros_for(1), .density = 1.0, .seed = 5};
  ASSERT_EQ(steps_of(r), 2);
  auto x = pare::testing::random_matrix<Matrix<float>>(3, r.input_dim, 4);
  Matrix<float> wanted(3, r.output_dim), y(3, r.output_dim);
  project_cells(pare::simd, x, r, wanted);
  x(1, 0) = std::numeric_limits<float>::quiet_NaN();
  project_cells(pare::simd, x, r, y);
  EXPECT_TRUE(y.row(1).array().isNaN().all());
  EXPECT_EQ(y.row(0), wanted.row(0));
  EXPECT_EQ(y.row(2), wanted.row(2));
}

}  // namespace
}  // namespace projection_project_cells_test
