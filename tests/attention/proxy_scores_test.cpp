// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <numeric>
#include <vector>

#include <pare/attention/proxy_heads.hpp>

#include "attention/proxy_data.hpp"
#include "support/backends.hpp"
#include "support/tolerance.hpp"

namespace attention_proxy_scores_test {
namespace {

using namespace pare::attention::detail;
using pare::bf16;
using pare::f16;
using pare::Index;
using pare::attention::BlockMask;
using pare::testing::BackendAndScalar;
using pare::testing::BestBackend;
using pare::testing::largest_weights;
using pare::testing::last_block_masses;
using pare::testing::mean_head;
using pare::testing::ProxyInput;
using pare::testing::ScalarBackend;
using pare::testing::ThreadedBackend;
using pare::testing::within;

constexpr double scale = 0.4;

template <class Case>
struct ProxyScoresTest : testing::Test {
  using Scalar = typename Case::scalar;
  using Backend = decltype(Case::backend::make());

  /// The largest weights of one group.
  static std::vector<double> scores(const ProxyInput<Scalar>& x, const BlockMask::Shape& shape,
                                    Index query_stride, Index key_stride, Index batch, Index first,
                                    Index count, Index kv_first, Index kv_count) {
    const auto backend = Case::backend::make();
    WorkerMemory memory(static_cast<std::size_t>(backend.executor.concurrency()));
    ProxyScores<Backend, Scalar> proxy(backend, memory, shape, query_stride, key_stride,
                                       x.q.extent[3], scale);
    std::vector<double> weights = proxy.of(heads_of(x.q.view(), batch, first, count),
                                           heads_of(x.k.view(), batch, kv_first, kv_count));
    for (double& w : weights) w = std::exp(w);
    return weights;
  }
  static std::vector<HeadBudget> budgets(const ProxyInput<Scalar>& x, const BlockMask::Shape& shape,
                                         double mass) {
    const auto backend = Case::backend::make();
    WorkerMemory memory(static_cast<std::size_t>(backend.executor.concurrency()));
    const pare::TensorView<const Scalar, 4> q = x.q.view(), k = x.k.view();
    return HeadBudgets<Backend, Scalar>(backend, memory, shape, q, k, scale).reach(mass);
  }
};

using Cases =
    testing::Types<BackendAndScalar<ScalarBackend, float>, BackendAndScalar<BestBackend, float>,
                   BackendAndScalar<ThreadedBackend, float>, BackendAndScalar<BestBackend, double>,
                   BackendAndScalar<BestBackend, bf16>, BackendAndScalar<BestBackend, f16>>;
TYPED_TEST_SUITE(ProxyScoresTest, Cases);

struct Sizes {
  Index queries, keys, row_block, column_block, query_stride, key_stride;
};

// Blocks below, at and above a tile of 128 keys and a pass of 288 rows; blocks that no register
// divides; tails; strides that do not divide a block.
constexpr Sizes sizes[] = {
    {1, 1, 128, 128, 4, 1},     {130, 130, 16, 16, 1, 1},   {130, 130, 16, 16, 4, 1},
    {131, 131, 16, 16, 4, 4},   {97, 97, 7, 5, 3, 2},       {150, 150, 128, 3, 4, 1},
    {300, 300, 64, 128, 4, 1},  {290, 290, 128, 200, 4, 1}, {290, 290, 128, 200, 4, 3},
    {400, 400, 350, 130, 1, 1}, {70, 333, 32, 64, 4, 1},    {5, 300, 128, 256, 128, 1},
    {130, 130, 1, 1, 1, 1},     {129, 129, 64, 112, 2, 1},  {260, 260, 32, 120, 32, 120}};

TYPED_TEST(ProxyScoresTest, AreTheLargestWeightsByBruteForce) {
  using S = typename TypeParam::scalar;
  for (const Sizes& s : sizes) {
    ProxyInput<S> x(1, 3, 1, s.queries, s.keys, 19);
    x.sharpen_late_queries();
    const BlockMask::Shape shape = x.shape(s.row_block, s.column_block);
    const double relative = x.relative_bound(scale);
    const auto got = this->scores(x, shape, s.query_stride, s.key_stride, 0, 0, 3, 0, 1);
    const auto wanted = largest_weights(mean_head(x.q, 0, 0, 3), mean_head(x.k, 0, 0, 1), shape,
                                        scale, s.query_stride, s.key_stride);
    ASSERT_EQ(got.size(), wanted.size());
    for (std::size_t b = 0; b < got.size(); ++b)
      ASSERT_TRUE(within(got[b], wanted[b], relative * wanted[b]))
          << s.queries << ' ' << s.row_block << ' ' << s.column_block << ": " << b << ' ' << got[b]
          << ' ' << wanted[b];
  }
}

TYPED_TEST(ProxyScoresTest, OfEqualHeadsAreThoseOfEachHead) {
  using S = typename TypeParam::scalar;
  const ProxyInput<S> x(1, 4, 2, 140, 140, 16, 0.0);
  const BlockMask::Shape shape = x.shape(16, 16);
  const double relative = x.relative_bound(scale);
  const auto shared = this->scores(x, shape, 1, 1, 0, 0, 4, 0, 2);
  for (const Index h : {0, 3}) {
    const auto own =
        largest_weights(mean_head(x.q, 0, h, 1), mean_head(x.k, 0, h / 2, 1), shape, scale, 1, 1);
    for (std::size_t b = 0; b < own.size(); ++b)
      ASSERT_TRUE(within(shared[b], own[b], relative * own[b])) << h << ' ' << b;
  }
}

TYPED_TEST(ProxyScoresTest, EachGroupHasTheMeanOfItsOwnHeads) {
  using S = typename TypeParam::scalar;
  const ProxyInput<S> x(2, 4, 4, 100, 120, 8, 1.0);
  const BlockMask::Shape shape = x.shape(16, 32);
  const double relative = x.relative_bound(scale);
  for (const Index count : {1, 2, 4})
    for (Index first = 0; first < 4; first += count) {
      const auto got = this->scores(x, shape, 4, 1, 1, first, count, first, count);
      const auto wanted = largest_weights(mean_head(x.q, 1, first, count),
                                          mean_head(x.k, 1, first, count), shape, scale, 4, 1);
      for (std::size_t b = 0; b < got.size(); ++b)
        ASSERT_TRUE(within(got[b], wanted[b], relative * wanted[b])) << count << ' ' << first;
    }
}

TYPED_TEST(ProxyScoresTest, BudgetIsTheLeastNumberOfBlocksWithTheMass) {
  using S = typename TypeParam::scalar;
  for (const Sizes& s : sizes) {
    const ProxyInput<S> x(2, 2, 1, s.queries, s.keys, 11);
    const BlockMask::Shape shape = x.shape(s.row_block, s.column_block);
    const double slack = x.relative_bound(scale);
    for (Index i = 0; i < 4; ++i) {
      auto wanted = last_block_masses(x.q.head(i / 2, i % 2), x.k.head(i / 2, 0), shape, scale);
      std::sort(wanted.rbegin(), wanted.rend());
      Index before = 1;
      for (const double mass : {0.01, 0.4, 0.8, 0.95, 0.999}) {
        const auto budgets = this->budgets(x, shape, mass);
        ASSERT_EQ(budgets.size(), 4u);
        const HeadBudget got = budgets[static_cast<std::size_t>(i)];
        ASSERT_GE(got.blocks, before);
        ASSERT_LE(got.blocks, shape.column_blocks());
        const double kept = std::accumulate(wanted.begin(), wanted.begin() + got.blocks, 0.0);
        EXPECT_TRUE(within(got.mass, kept, slack));
        EXPECT_GE(kept, mass - slack);
        EXPECT_LT(kept - wanted[static_cast<std::size_t>(got.blocks - 1)], mass + slack);
        before = got.blocks;
      }
    }
  }
}

TYPED_TEST(ProxyScoresTest, AQueryWithANaNCountsForNothingButInItsOwnRow) {
  using S = typename TypeParam::scalar;
  using T = pare::compute_t<S>;
  ProxyInput<S> x(1, 2, 1, 130, 130, 8);
  const BlockMask::Shape shape = x.shape(16, 16);
  const auto clean = this->scores(x, shape, 4, 1, 0, 0, 2, 0, 1);
  const double relative = x.relative_bound(scale);
  x.q.at(0, 1, 40, 5) = static_cast<S>(std::numeric_limits<T>::quiet_NaN());
  const auto spoiled = this->scores(x, shape, 4, 1, 0, 0, 2, 0, 1);
  const auto wanted =
      largest_weights(mean_head(x.q, 0, 0, 2), mean_head(x.k, 0, 0, 1), shape, scale, 4, 1);
  for (std::size_t b = 0; b < clean.size(); ++b)
    EXPECT_TRUE(b / 9 == 2 ? within(spoiled[b], wanted[b], relative * wanted[b])
                           : spoiled[b] == clean[b])
        << b;
}

TYPED_TEST(ProxyScoresTest, AHeadWhoseLastQueriesMeetANaNNeedsEveryBlock) {
  using S = typename TypeParam::scalar;
  using T = pare::compute_t<S>;
  ProxyInput<S> x(1, 4, 2, 130, 130, 8);
  const BlockMask::Shape shape = x.shape(16, 16);
  const auto clean = this->budgets(x, shape, 0.5);
  x.q.at(0, 1, 120, 0) = static_cast<S>(std::numeric_limits<T>::quiet_NaN());
  x.k.at(0, 1, 7, 3) = static_cast<S>(std::numeric_limits<T>::quiet_NaN());
  const auto spoiled = this->budgets(x, shape, 0.5);
  EXPECT_EQ(spoiled[0].blocks, clean[0].blocks);
  EXPECT_LT(clean[0].blocks, 9);
  for (const std::size_t h : {1u, 2u, 3u}) {
    EXPECT_EQ(spoiled[h].blocks, 9);
    EXPECT_TRUE(std::isnan(spoiled[h].mass));
  }
}

TEST(KeyCells, HoldEveryKeyOfABlockOnce) {
  for (const Sizes& s : sizes) {
    const KeyCells cells(s.keys, s.column_block, s.key_stride);
    std::vector<int> seen(static_cast<std::size_t>(s.keys), 0);
    for (Index t = 0; t < cells.tiles(); ++t) {
      ASSERT_LE(cells.tile_columns(t), pare::kernel::tile_keys);
      for (Index cell = cells.tile_begin(t); cell < cells.tile_end(t); ++cell)
        for (Index j = 0; j < cells.count(cell); ++j) {
          const Index key = cells.key(t, (cell - cells.tile_begin(t)) * cells.size + j);
          ++seen[static_cast<std::size_t>(key)];
          ASSERT_EQ(key / s.column_block, cell / cells.per_block);
          ASSERT_EQ(cells.visible(cell, key), j + 1);
          ASSERT_EQ(cells.visible(cell, key - 1), j);
        }
      for (Index j = 0; j < cells.tile_columns(t); ++j) ASSERT_LT(cells.key(t, j), s.keys);
    }
    for (Index j = 0; j < s.keys; ++j)
      ASSERT_EQ(seen[static_cast<std::size_t>(j)], j % s.column_block % s.key_stride == 0 ? 1 : 0);
  }
}

}  // namespace
}  // namespace attention_proxy_scores_test
