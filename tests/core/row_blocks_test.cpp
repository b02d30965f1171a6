// SPDX-License-Identifier: Apache-2.0
// Kernels of rows over matrices that lie in any way.
#include <gtest/gtest.h>

#include <array>
#include <cstddef>
#include <vector>

#include <pare/core/row_blocks.hpp>

#include "support/properties.hpp"

namespace core_row_blocks_test {
namespace {

using pare::Index;
using pare::RowMatrix;
using pare::TensorView;
using pare::testing::random_matrix;

/// A matrix of [rows, cols] at these strides, and gaps that must stay.
struct Placed {
  std::vector<double> memory;
  TensorView<double, 2> view;

  Placed(const RowMatrix<double>& m, std::array<Index, 2> stride)
      : memory(
            static_cast<std::size_t>((m.rows() - 1) * stride[0] + (m.cols() - 1) * stride[1] + 1),
            -7.0),
        view{memory.data(), {m.rows(), m.cols()}, stride} {
    for (Index i = 0; i < m.rows(); ++i)
      for (Index j = 0; j < m.cols(); ++j) view(i, j) = m(i, j);
  }
};

/// y = x + 2 z, row by row, where x may be y; every block is seen once and has contiguous rows.
void expect_sums(Index rows, Index cols, std::array<Index, 2> x_at, std::array<Index, 2> y_at,
                 bool in_place) {
  const auto x = random_matrix<RowMatrix<double>>(rows, cols, 1),
             z = random_matrix<RowMatrix<double>>(rows, cols, 2);
  Placed from(x, in_place ? y_at : x_at), to(x, y_at);
  if (!in_place) to.view(0, 0) = 99;
  const auto read = in_place ? pare::as_const(to.view) : pare::as_const(from.view);
  const auto run = [](const auto&, TensorView<const double, 2> a, TensorView<const double, 2> b,
                      TensorView<double, 2> c) {
    for (Index i = 0; i < c.rows(); ++i) {
      const double *p = a.data + i * a.stride[0], *q = b.data + i * b.stride[0];
      double* const out = c.data + i * c.stride[0];
      for (Index j = 0; j < c.cols(); ++j) out[j] = p[j] + 2 * q[j];
    }
  };
  pare::Workspace workspace;
  pare::over_row_blocks(pare::on_any_executor(pare::simd.threads(3).with(workspace)), run, read,
                        pare::const_view(z), to.view);
  double gaps = 0;
  for (const double value : to.memory) gaps += value == -7.0 ? 1 : 0;
  EXPECT_EQ(gaps, static_cast<double>(static_cast<Index>(to.memory.size()) - rows * cols));
  for (Index i = 0; i < rows; ++i)
    for (Index j = 0; j < cols; ++j)
      ASSERT_EQ(to.view(i, j), x(i, j) + 2 * z(i, j)) << i << ' ' << j;
}

TEST(RowBlocks, TakeMatricesThatLieInAnyWay) {
  // Blocks of 16384 / cols rows: one, and some whose last is short.
  for (const auto& [rows, cols] : {std::array<Index, 2>{5, 3}, {1201, 40}, {3, 1}}) {
    const std::array<Index, 2> by_rows{cols, 1}, with_gaps{cols + 3, 1}, by_columns{1, rows},
        steps{2 * cols + 1, 2};
    for (const auto& x : {by_rows, by_columns, steps})
      for (const auto& y : {by_rows, with_gaps, by_columns, steps})
        for (const bool in_place : {false, true}) expect_sums(rows, cols, x, y, in_place);
  }
}

TEST(RowBlocks, AreCutByColumnsAlone) {
  EXPECT_EQ(pare::rows_of_block(1), 16384);
  EXPECT_EQ(pare::rows_of_block(100), 163);
  EXPECT_EQ(pare::rows_of_block(100000), 1);
}

}  // namespace
}  // namespace core_row_blocks_test
