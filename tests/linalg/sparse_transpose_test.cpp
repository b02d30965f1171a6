// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <Eigen/Core>

#include <cstdint>

#include <pare/linalg/sparse_transpose.hpp>

#include "support/matrices.hpp"

namespace linalg_sparse_transpose_test {
namespace {

using pare::Index;
using pare::linalg::SparseTranspose;
using pare::testing::Engine;
using pare::testing::ragged_sparse;

template <class I>
void expect_transposed(Index rows, Index cols, Index gap) {
  const auto s = ragged_sparse<double, I>(
      rows, cols, 3, gap, [](Engine& random) { return static_cast<double>(random() % 7); });
  const auto map = s.map();
  const SparseTranspose transposed(pare::to_compressed(map));
  const auto view = transposed.view();
  ASSERT_EQ(view.outer_size, cols);
  ASSERT_EQ(view.inner_size, rows);
  Eigen::MatrixXd dense = Eigen::MatrixXd::Zero(cols, rows);
  for (Index v = 0; v < cols; ++v)
    for (Index e = view.begin(v); e < view.end(v); ++e) {
      if (e > view.begin(v)) {
        EXPECT_LE(view.inner[e - 1], view.inner[e]);
      }
      dense(v, static_cast<Index>(view.inner[e])) += view.values[e];
    }
  EXPECT_EQ(dense, s.dense().transpose());
}

TEST(SparseTranspose, IsTheTransposeWithAscendingLines) {
  for (const Index gap : {0, 2}) {
    expect_transposed<std::int32_t>(23, 11, gap);
    expect_transposed<std::int64_t>(5, 40, gap);
  }
}

TEST(SparseTranspose, OfDuplicatesKeepsTheirOrder) {
  pare::testing::RawSparse<double> s;
  s.rows = 1;
  s.cols = 2;
  s.inner = {1, 1, 0, 1};
  s.values = {1, 2, 3, 4};
  s.outer = {0, 4};
  const auto map = s.map();
  const SparseTranspose transposed(pare::to_compressed(map));
  EXPECT_EQ(transposed.values, (std::vector<double>{3, 1, 2, 4}));
}

}  // namespace
}  // namespace linalg_sparse_transpose_test
