// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <Eigen/Core>

#include <new>

#include <pare/projection/project.hpp>

#include "support/allocations.hpp"
#include "support/backends.hpp"
#include "support/matrices.hpp"

namespace projection_workspace_test {
namespace {

using pare::Index;
using pare::Workspace;
using pare::projection::project;
using pare::projection::sketch;
using pare::projection::SparseProjection;
using pare::projection::SparseSignProjection;
using pare::testing::allocations;
using pare::testing::equal_bits;
using pare::testing::random_matrix;

template <class T>
using Rows = Eigen::Matrix<T, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

TEST(Workspace, TheCounterCounts) {
  const long before = allocations.load();
  ::operator delete(::operator new(8));  // unlike a new-expression, no compiler may leave it out
  EXPECT_EQ(allocations.load(), before + 1);
}

template <class Backend, class R>
void expect_second_call_allocates_nothing(const Backend& executes, const R& r, Index rows = 70) {
  const Rows<float> x = random_matrix<Rows<float>>(rows, r.input_dim, 1);
  Rows<float> first(rows, r.output_dim), second(rows, r.output_dim);
  Rows<float> left(r.output_dim, rows);
  const Rows<float> a = x.transpose();
  Workspace workspace;
  const auto backend = executes.with(workspace);
  project(backend, x, r, first);
  sketch(backend, r, a, left);
  const long before = allocations.load();
  project(backend, x, r, second);
  sketch(backend, r, a, left);
  EXPECT_EQ(allocations.load(), before);
  EXPECT_TRUE(equal_bits(first, second));
  EXPECT_TRUE(equal_bits<Rows<float>>(first.transpose(), left));
}

TEST(Workspace, TheSecondCallAllocatesNothing) {
  expect_second_call_allocates_nothing(pare::simd, pare::projection::achlioptas(300, 130, 1));
  expect_second_call_allocates_nothing(pare::simd, pare::projection::achlioptas(2500, 70, 1));
  expect_second_call_allocates_nothing(pare::simd, SparseProjection{300, 130, 0.2, 1});
  expect_second_call_allocates_nothing(pare::simd, SparseProjection{2500, 70, 0.2, 1});
  expect_second_call_allocates_nothing(pare::simd, SparseSignProjection{300, 130, 5, 1});
  expect_second_call_allocates_nothing(pare::simd.on(pare::testing::ReversePool{3}),
                                       pare::projection::achlioptas(2500, 70, 1));
}

// Several steps take turns in the same cells.
TEST(Workspace, TheSecondCallAllocatesNothingOverSteps) {
  using namespace pare::projection::detail;
  const SparseProjection r{
      .input_dim = columns_per_cell + 60,
      .output_dim = static_cast<Index>(operator_bytes / (16.0 * columns_per_cell)) + 1,
      .density = 1.0,
      .seed = 1};
  const CellGrid grid{r.input_dim, r.output_dim};
  ASSERT_LT(grid.columns_in_memory(r.expected_column_nonzeros()), grid.cell_columns);
  expect_second_call_allocates_nothing(pare::simd, r, 20);  // more rows would be a product
}

TEST(Workspace, AnyUseInBetweenLeavesTheResult) {
  const SparseProjection r = pare::projection::achlioptas(300, 130, 1);
  const Rows<float> x = random_matrix<Rows<float>>(70, 300, 1);
  Rows<float> wanted(70, 130), y(70, 130);
  project(pare::simd, x, r, wanted);
  Workspace workspace;
  const auto use = [&](const auto& backend, auto scalar, const auto& other, Index n) {
    using T = decltype(scalar);
    const Rows<T> in = random_matrix<Rows<T>>(n, other.input_dim, 2);
    Rows<T> out(n, other.output_dim), fresh(n, other.output_dim);
    project(backend.with(workspace), in, other, out);
    project(backend, in, other, fresh);
    EXPECT_TRUE(equal_bits(out, fresh));
    project(pare::simd.with(workspace), x, r, y);
    EXPECT_TRUE(equal_bits(y, wanted));
  };
  use(pare::simd, double{}, pare::projection::achlioptas(2500, 2100, 3), 5);
  use(pare::simd.threads(3), float{}, SparseSignProjection{40, 7, 7, 3}, 200);
  use(pare::simd, double{}, SparseProjection{1, 1, 1.0, 3}, 1);
  use(pare::simd_for<pare::arch::scalar>{}, float{}, pare::projection::very_sparse(90, 64, 3), 9);
}

}  // namespace
}  // namespace projection_workspace_test
