// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <Eigen/Cholesky>
#include <Eigen/Core>

#include <cmath>
#include <limits>

#include <pare/core/backend.hpp>
#include <pare/linalg/cholesky.hpp>

#include "factor/data.hpp"
#include "support/properties.hpp"
#include "support/tolerance.hpp"

namespace linalg_cholesky_test {
namespace {

using namespace pare::testing;
using Eigen::MatrixXd;
using pare::Index;
using pare::RowMatrix;
using pare::linalg::cholesky;
using pare::linalg::invert_lower;

/// A random mixture and noise: symmetric, of a condition below 1000.
RowMatrix<double> definite(Index n) {
  const MatrixXd mix = normal_matrix(n, (n + 1) / 2, 4);
  return mix * mix.transpose() / static_cast<double>(n) + 0.02 * MatrixXd::Identity(n, n);
}

/// L L^T = A and L^-1 L = 1 at sizes with several blocks and a short last one.
TEST(Cholesky, DecomposesAndInverts) {
  for (const Index n : {1, 7, 128, 300, 700}) {
    const RowMatrix<double> a = definite(n);
    for (const bool on_kernels : {true, false}) {
      RowMatrix<double> l = a;
      ASSERT_TRUE(on_kernels ? cholesky(pare::simd.threads(2), l) : cholesky(pare::reference, l));
      const MatrixXd lower = l.triangularView<Eigen::Lower>();
      EXPECT_LE((lower * lower.transpose() - MatrixXd(a)).norm(),
                decomposition_bound(n, n, a.norm()));
      on_kernels ? invert_lower(pare::simd, l) : invert_lower(pare::reference, l);
      EXPECT_LE((MatrixXd(l) * lower - MatrixXd::Identity(n, n)).norm(),
                decomposition_bound(n, n, l.norm() * lower.norm()));
    }
  }
  same_bits_for_any_threads(pare::simd, [](const auto& backend) {
    RowMatrix<double> l = definite(300);
    cholesky(backend, l);
    invert_lower(backend, l);
    return l;
  });
}

// Five blocks and the rest of a sixth, of two wide groups. The factors of A + E and A differ by
// |A^-1| |E| |L| / sqrt(2) (Sun 1991), of either decomposition; |A^-1| is at most 1 / 0.02.
TEST(Cholesky, OfManyBlocksIsEigens) {
  constexpr Index n = 701;
  const RowMatrix<double> a = definite(n);
  const Eigen::LLT<MatrixXd> wanted{MatrixXd(a)};
  const MatrixXd factor = wanted.matrixL();
  RowMatrix<double> l = a;
  ASSERT_TRUE(cholesky(pare::simd.threads(2), l));
  const MatrixXd lower = l.triangularView<Eigen::Lower>();
  EXPECT_LE((lower - factor).norm(),
            std::sqrt(2.0) * 50 * decomposition_bound(n, n, a.norm()) * factor.norm());
}

TEST(Cholesky, FindsWhatHasNone) {
  RowMatrix<double> indefinite = -RowMatrix<double>::Identity(3, 3);
  EXPECT_FALSE(cholesky(pare::simd, indefinite));
  for (const Index at : {0, 200}) {
    RowMatrix<double> nan = definite(300);
    nan(at + 5, at) = std::numeric_limits<double>::quiet_NaN();
    EXPECT_FALSE(cholesky(pare::simd, nan)) << at;
  }
  for (const Index at : {0, 299})
    for (const bool on_kernels : {true, false}) {
      RowMatrix<double> infinite = definite(300);
      infinite(at, at) = std::numeric_limits<double>::infinity();
      EXPECT_FALSE(on_kernels ? cholesky(pare::simd, infinite)
                              : cholesky(pare::reference, infinite))
          << at;
    }
  RowMatrix<double> wide(3, 4), tall(4, 3);
  refusal([&] { cholesky(pare::simd, wide); }, "linalg::cholesky", "a");
  refusal([&] { invert_lower(pare::simd, tall); }, "linalg::invert_lower", "a");
}

}  // namespace
}  // namespace linalg_cholesky_test
