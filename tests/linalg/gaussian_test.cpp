// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <cmath>

#include <pare/core/backend.hpp>
#include <pare/linalg/gaussian.hpp>

#include "support/matrices.hpp"

namespace linalg_gaussian_test {
namespace {

using pare::Index;
using pare::RowMatrix;
using pare::linalg::fill_normal;
using pare::testing::equal_bits;

RowMatrix<double> normal(Index rows, Index cols, std::uint64_t seed) {
  RowMatrix<double> m(rows, cols);
  fill_normal(pare::simd.executor, seed, 0, m);
  return m;
}

// Moments of n numbers have standard errors sqrt(1 / n), sqrt(2 / n), sqrt(96 / n); correlations of
// neighbours sqrt(1 / n). Five of them.
TEST(FillNormal, HasTheMomentsOfANormalDistribution) {
  const RowMatrix<double> m = normal(511, 129, 5);
  const auto n = static_cast<double>(m.size());
  EXPECT_LE(std::abs(m.mean()), 5 / std::sqrt(n));
  EXPECT_LE(std::abs(m.array().square().mean() - 1), 5 * std::sqrt(2 / n));
  EXPECT_LE(std::abs(m.array().pow(4).mean() - 3), 5 * std::sqrt(96 / n));
  EXPECT_LE(std::abs((m.leftCols(128).array() * m.rightCols(128).array()).mean()),
            5 / std::sqrt(511.0 * 128));
  EXPECT_LE(std::abs((m.topRows(510).array() * m.bottomRows(510).array()).mean()),
            5 / std::sqrt(510.0 * 129));
}

TEST(FillNormal, IsAFunctionOfSeedRowAndColumn) {
  const RowMatrix<double> large = normal(40, 17, 8), small = normal(9, 6, 8);
  EXPECT_TRUE(equal_bits(RowMatrix<double>(large.topLeftCorner(9, 6)), small));
  EXPECT_FALSE(equal_bits(small, normal(9, 6, 9)));
  RowMatrix<double> threads(40, 17);
  fill_normal(pare::simd.threads(3).executor, 8, 0, threads);
  EXPECT_TRUE(equal_bits(threads, large));
}

TEST(FillNormal, KeepsTheColumnsBeforeTheFirst) {
  for (const Index first : {0, 1, 4, 5, 7}) {
    RowMatrix<float> m = RowMatrix<float>::Constant(6, 7, 3.0f);
    fill_normal(pare::simd.executor, 8, first, m);
    EXPECT_EQ(m.leftCols(first), (RowMatrix<float>::Constant(6, first, 3.0f)));
    const RowMatrix<float> wanted = normal(6, 7, 8).cast<float>();
    EXPECT_EQ(m.rightCols(7 - first), wanted.rightCols(7 - first)) << first;
  }
}

}  // namespace
}  // namespace linalg_gaussian_test
