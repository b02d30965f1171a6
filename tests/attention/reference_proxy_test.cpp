// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <numeric>
#include <vector>

#include <pare/attention/reference.hpp>

#include "attention/data.hpp"
#include "attention/oracle.hpp"
#include "support/tolerance.hpp"

namespace attention_reference_proxy_test {
namespace {

using namespace pare::attention::detail;
using pare::Index;
using pare::attention::BlockMask;
using pare::testing::causal_visibility;
using pare::testing::dense_attention;
using pare::testing::normal_rows;
using pare::testing::Oracle;
using pare::testing::PlainRows;
using pare::testing::within;

using Lists = std::vector<std::vector<std::int32_t>>;

constexpr double scale = 0.6;

struct Head {
  BlockMask::Shape shape;
  PlainRows<double> q, k;

  Head(Index queries, Index keys, Index row_block, Index column_block)
      : shape{1, 1, queries, keys, row_block, column_block},
        q(normal_rows<double>(queries, 5, 1)),
        k(normal_rows<double>(keys, 5, 2)) {}

  Oracle oracle() const {
    return dense_attention(q.view(), k.view(), k.view(), scale,
                           causal_visibility(shape.queries, shape.keys));
  }
  std::vector<double> scores(Index query_stride, Index key_stride = 1) const {
    return reference_proxy_scores(
        q.view(), k.view(), shape,
        {.scale = scale, .query_stride = query_stride, .key_stride = key_stride});
  }
  Index budget(double mass) const {
    return reference_head_budget(q.view(), k.view(), shape, mass, scale);
  }
};

const Head heads[] = {{32, 32, 4, 4}, {30, 30, 4, 4}, {1, 1, 4, 4},  {3, 3, 4, 4},
                      {29, 29, 8, 3}, {17, 40, 4, 4}, {33, 33, 6, 5}};

TEST(ReferenceMeanHeads, IsTheMeanOverHeads) {
  const auto x = normal_rows<double>(12, 5, 3);
  const auto mean = reference_mean_heads(x.heads(3));
  ASSERT_EQ(mean.size(), 20u);
  for (Index i = 0; i < 4; ++i)
    for (Index c = 0; c < 5; ++c)
      EXPECT_TRUE(within(mean[static_cast<std::size_t>(i * 5 + c)],
                         (x(i, c) + x(4 + i, c) + x(8 + i, c)) / 3, 1e-15));
  EXPECT_EQ(reference_mean_heads(x.heads(1)), x.list);
}

TEST(ReferenceProxyScores, StrideOneIsTheLargestWeightOfEachBlock) {
  for (const Head& head : heads) {
    const auto scores = head.scores(1);
    const Oracle o = head.oracle();
    const Index columns = head.shape.column_blocks();
    std::vector<double> wanted(scores.size(), 0.0);
    for (Index i = 0; i < o.queries; ++i)
      for (Index j = 0; j < o.keys; ++j) {
        double& block = wanted[static_cast<std::size_t>(i / head.shape.row_block * columns +
                                                        j / head.shape.column_block)];
        block = std::max(block, o.p(i, j));
      }
    for (std::size_t b = 0; b < wanted.size(); ++b)
      EXPECT_TRUE(within(scores[b], wanted[b], 1e-13));
  }
}

TEST(ReferenceProxyScores, OnePassOverTheScoresGivesTheSame) {
  // A_mn = max_i exp(largest score of i in n - lse_i), without a softmax over keys.
  for (const Head& head : heads)
    for (const Index stride : {1, 2, 4}) {
      const auto scores = head.scores(stride);
      const Oracle o = head.oracle();
      const Index columns = head.shape.column_blocks(), rows = head.shape.row_blocks();
      for (Index m = 0; m < rows; ++m)
        for (Index n = 0; n < columns; ++n) {
          double wanted = 0;
          const Index end = std::min((m + 1) * head.shape.row_block, o.queries);
          for (Index i = m * head.shape.row_block; i < end; i += stride) {
            double largest = -std::numeric_limits<double>::infinity();
            const Index last = std::min((n + 1) * head.shape.column_block, o.keys);
            for (Index j = n * head.shape.column_block; j < last && j <= i + o.keys - o.queries;
                 ++j) {
              double s = 0;
              for (Index c = 0; c < 5; ++c) s += scale * head.q(i, c) * head.k(j, c);
              largest = std::max(largest, s);
            }
            wanted = std::max(wanted, std::exp(largest - o.log_sum_exp(i)));
          }
          EXPECT_TRUE(within(scores[static_cast<std::size_t>(m * columns + n)], wanted, 1e-12));
        }
    }
}

TEST(ReferenceProxyScores, EveryRowKeepsASampleUnderAnyStride) {
  for (const Head& head : heads)
    for (const Index stride : {2, 4, 100}) {
      const Index columns = head.shape.column_blocks();
      for (const auto& scores : {head.scores(stride), head.scores(stride, stride)})
        for (Index m = 0; m < head.shape.row_blocks(); ++m) {
          EXPECT_GT(scores[static_cast<std::size_t>(m * columns)], 0) << stride << ' ' << m;
          for (Index n = head.shape.causal_columns(m); n < columns; ++n)
            EXPECT_EQ(scores[static_cast<std::size_t>(m * columns + n)], 0);
        }
    }
}

TEST(ReferenceProxyScores, KeyStrideLooksAtEveryOtherKey) {
  const Head head(8, 8, 4, 4);
  const auto scores = head.scores(1, 2);
  const Oracle o = dense_attention(head.q.view(), head.k.view(), head.k.view(), scale,
                                   [](Index i, Index j) { return j <= i && j % 2 == 0; });
  double wanted = 0;
  for (Index i = 4; i < 8; ++i) wanted = std::max({wanted, o.p(i, 0), o.p(i, 2)});
  EXPECT_TRUE(within(scores[2], wanted, 1e-13));
}

TEST(ReferenceProxyScores, EqualHeadsHaveTheirOwnScores) {
  const Head head(24, 24, 4, 4);
  PlainRows<double> q(72, 5), k(48, 5);
  for (Index i = 0; i < 72; ++i)
    for (Index c = 0; c < 5; ++c) q(i, c) = head.q(i % 24, c);
  for (Index i = 0; i < 48; ++i)
    for (Index c = 0; c < 5; ++c) k(i, c) = head.k(i % 24, c);
  const auto mean_q = reference_mean_heads(q.heads(3)), mean_k = reference_mean_heads(k.heads(2));
  const auto proxy =
      reference_proxy_scores(reference_matrix(mean_q, 5), reference_matrix(mean_k, 5), head.shape,
                             {.scale = scale, .query_stride = 1});
  const auto own = head.scores(1);
  for (std::size_t b = 0; b < own.size(); ++b) EXPECT_TRUE(within(proxy[b], own[b], 1e-13));
}

TEST(ReferenceHeadBudget, IsTheLeastNumberOfBlocksWithTheMass) {
  for (const Head& head : heads) {
    const Oracle o = head.oracle();
    const Index columns = head.shape.column_blocks();
    std::vector<double> pooled(static_cast<std::size_t>(columns), 0.0);
    for (Index i = std::max<Index>(o.queries - head.shape.row_block, 0); i < o.queries; ++i)
      for (Index j = 0; j < o.keys; ++j) {
        const Index n = j / head.shape.column_block;
        pooled[static_cast<std::size_t>(n)] +=
            o.p(i, j) / static_cast<double>(std::min(head.shape.column_block,
                                                     o.keys - n * head.shape.column_block));
      }
    std::sort(pooled.rbegin(), pooled.rend());
    const double total = std::accumulate(pooled.begin(), pooled.end(), 0.0);
    Index before = 1;
    for (const double mass : {0.01, 0.3, 0.5, 0.8, 0.9, 0.95, 0.999}) {
      const Index b = head.budget(mass);
      ASSERT_GE(b, before);
      ASSERT_LE(b, columns);
      const double kept = std::accumulate(pooled.begin(), pooled.begin() + b, 0.0) / total;
      EXPECT_GE(kept, mass - 1e-12);
      EXPECT_LT(kept - pooled[static_cast<std::size_t>(b - 1)] / total, mass + 1e-12);
      before = b;
    }
    EXPECT_EQ(head.budget(1), columns);
  }
  Head peaked(20, 20, 4, 4);  // one key takes all the weight, to the last bit
  for (Index i = 0; i < 20; ++i) peaked.q(i, 0) = 1e4;
  peaked.k(3, 0) = 10;
  EXPECT_EQ(peaked.budget(0.999), 1);
  EXPECT_EQ(peaked.budget(1), 5);
}

TEST(ReferenceRowBudget, SharesTheVisibleBlocksOrAll) {
  const BlockMask::Shape shape{1, 1, 80, 80, 8, 8};
  const auto row = [&](Index m, Index budget, ReferenceBudget which, Index least) {
    return reference_row_budget(shape, m, budget, {.budget = which, .min_budget = least});
  };
  for (Index m = 0; m < 10; ++m) {
    EXPECT_EQ(row(m, 3, ReferenceBudget::Visible, 0),
              static_cast<Index>(std::ceil(0.3 * static_cast<double>(m + 1) - 1e-9)));
    EXPECT_EQ(row(m, 3, ReferenceBudget::All, 0), std::min<Index>(3, m + 1));
    EXPECT_EQ(row(m, 10, ReferenceBudget::Visible, 0), m + 1);
    EXPECT_EQ(row(m, 1, ReferenceBudget::Visible, 33), std::min<Index>(5, m + 1));
    EXPECT_EQ(row(m, 1, ReferenceBudget::All, 80), m + 1);
  }
}

TEST(ReferenceProxySelect, KeepsTheHighestScoresAndWhatIsForced) {
  const BlockMask::Shape shape{1, 1, 16, 16, 4, 4};
  std::vector<double> scores(16, 0.0);
  const double last[] = {0.1, 0.7, 0.7, 0.3};
  std::copy(std::begin(last), std::end(last), scores.begin() + 12);
  using Row = std::vector<std::int32_t>;
  const auto kept = [&](Index budget, bool forced) {
    return reference_proxy_select(scores, shape, budget,
                                  {.min_budget = 0, .diagonal = forced, .first = forced})[3];
  };
  EXPECT_EQ(kept(1, false), (Row{1})) << "of equal scores the earlier";
  EXPECT_EQ(kept(2, false), (Row{1, 2}));
  EXPECT_EQ(kept(3, false), (Row{1, 2, 3}));
  EXPECT_EQ(kept(1, true), (Row{0, 1, 3}));
  EXPECT_EQ(kept(4, true), (Row{0, 1, 2, 3}));
}

TEST(ReferenceProxySelect, GrowsWithTheMassUpToEveryVisibleBlock) {
  for (const Head& head : heads)
    for (const auto which : {ReferenceBudget::Visible, ReferenceBudget::All}) {
      const auto scores = head.scores(4);
      Lists before;
      for (const double mass : {0.1, 0.5, 0.9, 0.95, 1.0}) {
        const Lists lists = reference_proxy_select(scores, head.shape, head.budget(mass),
                                                   {.budget = which, .min_budget = 0});
        for (std::size_t m = 0; m < before.size(); ++m)
          EXPECT_TRUE(
              std::includes(lists[m].begin(), lists[m].end(), before[m].begin(), before[m].end()));
        before = lists;
        const BlockMask mask = BlockMask::from_lists(head.shape, lists);
        for (Index m = 0; m < mask.row_blocks(); ++m) {
          const auto row = mask.row(0, 0, m);
          const Index first_position =
              m * head.shape.row_block + head.shape.keys - head.shape.queries;
          EXPECT_EQ(row.front(), 0);
          for (Index n = first_position / head.shape.column_block; n < head.shape.causal_columns(m);
               ++n)
            EXPECT_TRUE(std::binary_search(row.begin(), row.end(), n));
        }
      }
      EXPECT_EQ(BlockMask::from_lists(head.shape, before), BlockMask::causal(head.shape));
    }
}

TEST(ReferenceProxySelect, RespectsTheLeastBudget) {
  const Head head(64, 64, 4, 4);
  const Lists lists = reference_proxy_select(head.scores(4), head.shape, 1,
                                             {.min_budget = 22, .diagonal = false, .first = false});
  for (std::size_t m = 0; m < lists.size(); ++m)
    EXPECT_EQ(lists[m].size(), std::min<std::size_t>(6, m + 1));
}

}  // namespace
}  // namespace attention_reference_proxy_test
