// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <cmath>
#include <cstddef>
#include <limits>
#include <string>
#include <vector>

#include <pare/core/backend.hpp>
#include <pare/core/executor_ref.hpp>
#include <pare/linalg/gram.hpp>

#include "support/allocations.hpp"
#include "support/gapped_matrix.hpp"
#include "support/properties.hpp"
#include "support/tolerance.hpp"

namespace linalg_gram_test {
namespace {

using pare::bf16;
using pare::f16;
using pare::Index;
using pare::TensorView;
using pare::testing::allocations;
namespace linalg = pare::linalg;

template <class S>
struct GramTest : testing::Test {};
using Storages = testing::Types<float, bf16, f16>;
TYPED_TEST_SUITE(GramTest, Storages);

/// Tokens by dimensions.
template <class S>
using Tokens = pare::testing::GappedMatrix<S>;

int integer_at(Index t, Index i) { return static_cast<int>((t * 5 + i * 3 + t * i % 7) % 11) - 5; }
double uneven(Index t, Index i) {
  return std::sin(static_cast<double>(t) * 12.9898 + static_cast<double>(i) * 78.233);
}
double start_at(Index i, Index j) { return static_cast<double>((i * 10 + j) % 29) + 0.5; }

/// C += X^T X, [dim x dim] with a stride.
template <class S>
struct Sums {
  Index dim, stride;
  std::vector<double> values;

  explicit Sums(Index n)
      : dim(n), stride(n + 2), values(static_cast<std::size_t>(n * stride), -1.0) {
    for (Index i = 0; i < n; ++i)
      for (Index j = 0; j < n; ++j) at(i, j) = start_at(i, j);
  }
  double& at(Index i, Index j) { return values[static_cast<std::size_t>(i * stride + j)]; }

  /// What is promised: the lower half.
  std::vector<double> lower() const {
    std::vector<double> list;
    for (Index i = 0; i < dim; ++i)
      list.insert(list.end(), values.begin() + i * stride, values.begin() + i * stride + i + 1);
    return list;
  }

  template <class B>
  void add(const B& backend, const Tokens<S>& x) {
    add(backend, as_const(x.view));
  }
  /// Through one type of executor, as Covariance does: compiled once.
  template <class B>
  void add(const B& backend, TensorView<const S, 2> x) {
    const auto any = on_any_executor(backend);
    linalg::ChunkedGram<pare::OnAnyExecutor<B>, S>(
        any, x, TensorView<double, 2>{values.data(), {dim, dim}, {stride, 1}})
        .run();
  }
};

template <class S>
void expect_gram(Index tokens, Index dim, bool by_rows) {
  SCOPED_TRACE(std::to_string(tokens) + " tokens, " + std::to_string(dim) +
               (by_rows ? " r" : " c"));
  const Tokens<S> x(tokens, dim, by_rows, integer_at);
  Sums<S> c(dim);
  c.add(pare::simd, x);
  for (Index i = 0; i < dim; ++i) {
    for (Index j = 0; j <= i; ++j) {
      double wanted = start_at(i, j);
      for (Index t = 0; t < tokens; ++t) wanted += x.at(t, i) * x.at(t, j);
      ASSERT_EQ(c.at(i, j), wanted) << i << ' ' << j;
    }
    for (Index j = dim; j < c.stride; ++j) ASSERT_EQ(c.at(i, j), -1) << "behind row " << i;
  }
}

TYPED_TEST(GramTest, AddsTheProductsOfAnyNumberOfTokens) {
  for (const bool by_rows : {false, true}) {
    for (const Index dim : {1, 6, 17, 64, 65, 131})
      for (const Index tokens : {0, 1, 2, 33, 255, 257})
        expect_gram<TypeParam>(tokens, dim, by_rows);
    // Across chunks, and four of them, which a tile takes at a time.
    for (const Index tokens : {513, 1025, 2049, 2500}) expect_gram<TypeParam>(tokens, 37, by_rows);
    expect_gram<TypeParam>(19, 260, by_rows);
  }
}

TEST(Gram, GoesAcrossBlocksOfColumns) { expect_gram<float>(3, 2048 + 75, true); }

TYPED_TEST(GramTest, SumsChunksInDouble) {
  // Exact in float for a chunk, not for all: 181^2 512 < 2^24, the whole sum is odd and above it.
  const Index tokens = 4097, dim = 7;
  const Tokens<TypeParam> x(tokens, dim, true, [](Index, Index) { return 181; });
  Sums<TypeParam> c(dim);
  c.add(pare::simd, x);
  for (Index i = 0; i < dim; ++i)
    for (Index j = 0; j <= i; ++j)
      ASSERT_EQ(c.at(i, j), start_at(i, j) + 181.0 * 181.0 * static_cast<double>(tokens));
}

TYPED_TEST(GramTest, RoundsAsFloatDoesWithinAChunk) {
  // A chunk is at most 512 products and their sums; native bf16 products round twice a pair.
  const Index tokens = 1500, dim = 70;
  const Tokens<TypeParam> x(tokens, dim, true, uneven);
  Sums<TypeParam> c(dim);
  c.add(pare::simd, x);
  for (Index i = 0; i < dim; ++i)
    for (Index j = 0; j <= i; ++j) {
      double wanted = start_at(i, j), size = 0;
      for (Index t = 0; t < tokens; ++t) {
        wanted += x.at(t, i) * x.at(t, j);
        size += std::abs(x.at(t, i) * x.at(t, j));
      }
      ASSERT_NEAR(c.at(i, j), wanted, pare::testing::Tolerance<float>::gamma(514) * size);
    }
}

TYPED_TEST(GramTest, IsTheSameBitsOnEveryExecutor) {
  const Tokens<TypeParam> x(1100, 211, true, uneven);
  pare::testing::same_bits_for_any_threads(pare::simd, [&](const auto& backend) {
    Sums<TypeParam> c(211);
    c.add(backend, x);
    return c.lower();
  });
}

TEST(Gram, IsTheSameBitsHoweverTokensLie) {
  const auto values = pare::testing::random_matrix<Eigen::MatrixXf>(600, 70, 5);
  pare::testing::any_stride_same_bits(values, [](const TensorView<const float, 2>& x) {
    Sums<float> c(70);
    c.add(pare::simd, x);
    return c.lower();
  });
}

TYPED_TEST(GramTest, KeepsANaNInItsRowAndColumn) {
  const Index dim = 70, bad = 41;
  const Tokens<TypeParam> x(300, dim, true, [](Index t, Index i) {
    return t == 270 && i == bad ? std::numeric_limits<double>::quiet_NaN() : uneven(t, i);
  });
  Sums<TypeParam> c(dim);
  c.add(pare::simd, x);
  for (Index i = 0; i < dim; ++i)
    for (Index j = 0; j <= i; ++j)
      ASSERT_EQ(std::isnan(c.at(i, j)), i == bad || j == bad) << i << ' ' << j;
}

TEST(Gram, AllocatesNothingInAWorkspaceThatHasServedAsMuch) {
  const Tokens<float> x(600, 70, true, uneven);
  Sums<float> c(70);
  pare::Workspace workspace;
  const auto backend = pare::simd.with(workspace);
  const long start = allocations.load();
  c.add(backend, x);
  EXPECT_GT(allocations.load(), start) << "the counter counts";
  const long before = allocations.load();
  c.add(backend, x);
  EXPECT_EQ(allocations.load(), before);
}

}  // namespace
}  // namespace linalg_gram_test
