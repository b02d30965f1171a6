// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <numeric>
#include <span>
#include <vector>

#include <pare/attention/key_order.hpp>
#include <pare/attention/reference.hpp>
#include <pare/attention/score_modifier.hpp>

#include "attention/data.hpp"
#include "attention/oracle.hpp"
#include "support/tolerance.hpp"

namespace attention_reference_permuted_test {
namespace {

using namespace pare::attention::detail;
using pare::Index;
using pare::attention::BlockMask;
using pare::attention::KeyOrder;
using pare::testing::causal_visibility;
using pare::testing::dense_attention;
using pare::testing::normal_rows;
using pare::testing::Oracle;
using pare::testing::PlainRows;
using pare::testing::within;

using Order = std::vector<std::uint32_t>;
using Lists = std::vector<std::vector<std::int32_t>>;

constexpr double nan_value = std::numeric_limits<double>::quiet_NaN();
constexpr auto earlier = ReferenceCandidates::EarlierSegments;
constexpr auto causal = ReferenceCandidates::Causal;

ReferenceBlocks blocks_of(Index queries, Index keys, Index block, Index segment) {
  return {{1, 1, queries, keys, block, block}, segment};
}

Lists lists_of(const std::vector<double>& scores, const Order& order, const ReferenceBlocks& blocks,
               const ReferenceSelection& selection) {
  return reference_select_blocks(scores, order, blocks, selection);
}

bool contains(const std::vector<std::int32_t>& list, Index n) {
  return std::binary_search(list.begin(), list.end(), static_cast<std::int32_t>(n));
}

// The importance of keys.

TEST(ReferenceImportance, IsTheMeanWeightOfTheLastQueries) {
  const Index n = 29, block = 6;
  const auto q = normal_rows<double>(n, 5, 1), k = normal_rows<double>(n, 5, 2);
  const auto got =
      reference_key_importance(q.view(), k.view(), block, 8, 0.4, ReferenceImportance::Causal);
  const Oracle all = dense_attention(q.view(), k.view(), k.view(), 0.4, causal_visibility(n, n));
  const auto whole = reference_key_importance(q.view(), k.view(), block, 8, 0.4,
                                              ReferenceImportance::CompleteSegments);
  const Oracle part =
      dense_attention(q.view(), k.view(), k.view(), 0.4, [](Index, Index j) { return j < 24; });
  for (Index j = 0; j < n; ++j) {
    double mean = 0, code = 0;
    for (Index i = n - block; i < n; ++i) {
      mean += all.p(i, j) / block;
      code += part.p(i, j) / block;
    }
    EXPECT_TRUE(within(got[static_cast<std::size_t>(j)], mean, 1e-13)) << j;
    EXPECT_TRUE(within(whole[static_cast<std::size_t>(j)], code, 1e-13)) << j;
  }
}

TEST(ReferenceImportance, AddsUpToOneForAnyNumberOfQueries) {
  for (const Index queries : {1, 3, 6, 7, 20})
    for (const auto which : {ReferenceImportance::Causal, ReferenceImportance::CompleteSegments}) {
      const auto q = normal_rows<double>(queries, 4, 3), k = normal_rows<double>(20, 4, 4);
      const auto s = reference_key_importance(q.view(), k.view(), 6, 8, 1.0, which);
      EXPECT_TRUE(within(std::accumulate(s.begin(), s.end(), 0.0), 1, 1e-13));
    }
}

// The order of keys.

TEST(ReferenceOrder, SortsWithinSegmentsAndLeavesTheTail) {
  for (const Index n : {1, 7, 8, 9, 16, 19, 40}) {
    const auto s = normal_rows<double>(1, n, 5).list;
    const Order order = reference_order_segments(s, 8);
    EXPECT_NO_THROW((KeyOrder({.keys = n}, order))) << "a bijection";
    for (std::size_t t = 0; t < order.size(); ++t) {
      EXPECT_EQ(order[t] / 8, t / 8);
      const bool moved = n > 8 && static_cast<Index>(t / 8 + 1) * 8 <= n;
      if (!moved) {
        EXPECT_EQ(order[t], t);
      } else if (t % 8 != 0) {
        EXPECT_GE(s[order[t - 1]], s[order[t]]);
      }
    }
  }
}

TEST(ReferenceOrder, EqualKeysStayAndNanComesLast) {
  const std::vector<double> equal(24, 0.25);
  Order identity(24);
  std::iota(identity.begin(), identity.end(), 0u);
  EXPECT_EQ(reference_order_segments(equal, 8), identity);
  const std::vector<double> mixed{1, nan_value, 2, nan_value, 2, -1, -nan_value, 3, 0, 0, 0, 0};
  EXPECT_EQ(reference_order_segments(mixed, 8), (Order{7, 2, 4, 0, 5, 1, 3, 6, 8, 9, 10, 11}));
}

TEST(ReferenceOrder, AHeavyKeyOfEachSegmentComesFirst) {
  const Index n = 64, segment = 16;
  auto k = normal_rows<double>(n, 6, 7);
  PlainRows<double> q(n, 6, 1.0);
  for (Index g = 0; g < 4; ++g)
    for (Index c = 0; c < 6; ++c) k(g * segment + 3 * g + 2, c) = 4;
  const auto s = reference_key_importance(q.view(), k.view(), 8, segment, 0.4,
                                          ReferenceImportance::CompleteSegments);
  const Order order = reference_order_segments(s, segment);
  for (Index g = 0; g < 4; ++g)
    EXPECT_EQ(Index{order[static_cast<std::size_t>(g * segment)]}, g * segment + 3 * g + 2);
}

// The scores of blocks.

TEST(ReferenceMeanPool, DividesByTheTokensOrByTheBlock) {
  PlainRows<double> x(5, 2);
  for (Index i = 0; i < 5; ++i) x(i, 0) = static_cast<double>(i + 1), x(i, 1) = 1;
  const auto view = x.view();
  EXPECT_EQ(reference_mean_pool(view, {}, 2, ReferenceBlockMean::TrueCount),
            (std::vector<double>{1.5, 1, 3.5, 1, 5, 1}));
  EXPECT_EQ(reference_mean_pool(view, {}, 2, ReferenceBlockMean::ZeroPadded),
            (std::vector<double>{1.5, 1, 3.5, 1, 2.5, 0.5}));
  const Order back{4, 3, 2, 1, 0};
  EXPECT_EQ(reference_mean_pool(view, back, 3, ReferenceBlockMean::TrueCount),
            (std::vector<double>{4, 1, 1.5, 1}));
}

TEST(ReferenceMeanPool, ScoresAreASoftmaxOverTheCandidates) {
  const Index n = 37;
  const ReferenceBlocks blocks = blocks_of(n, n, 4, 8);
  const auto q = normal_rows<double>(n, 5, 1), k = normal_rows<double>(n, 5, 2);
  for (const auto which : {earlier, causal}) {
    const auto scores = reference_mean_pool_scores(q.view(), k.view(), {}, blocks, 0.4, which,
                                                   ReferenceBlockMean::TrueCount);
    for (Index m = 0; m < 10; ++m) {
      double sum = 0;
      for (Index c = 0; c < 10; ++c) {
        const double a = scores[static_cast<std::size_t>(m * 10 + c)];
        const bool candidate = which == causal ? c <= m : c / 2 < m / 2;
        EXPECT_EQ(a > 0, candidate) << m << ' ' << c;
        sum += a;
      }
      EXPECT_TRUE(within(sum, which == earlier && m < 2 ? 0 : 1, 1e-13)) << m;
    }
    // Row 9 is one query; its logits are those of block means.
    const auto logit = [&](Index c) {
      double s = 0;
      for (Index j = 4 * c; j < 4 * c + 4; ++j)
        for (Index d = 0; d < 5; ++d) s += q(36, d) * k(j, d) / 4;
      return 0.4 * s;
    };
    EXPECT_TRUE(within(std::log(scores[92] / scores[95]), logit(2) - logit(5), 1e-12));
  }
}

TEST(ReferenceAntidiagonal, IsTheSumOverAntidiagonals) {
  const Index n = 32, stride = 4;
  const auto q = normal_rows<double>(n, 5, 1), k = normal_rows<double>(n, 5, 2);
  Order order(32);
  std::iota(order.rbegin(), order.rend(), 0u);
  for (Index t = 0; t < 8; ++t)
    for (Index u = 0; u < 8; ++u) {
      double sum = 0;
      for (Index i = 0; i < n; ++i)
        for (Index slot = 0; slot < n; ++slot)
          if (i / stride == t && slot / stride == u && i % stride + slot % stride == stride - 1)
            for (Index c = 0; c < 5; ++c) sum += q(i, c) * k(n - 1 - slot, c);
      EXPECT_TRUE(
          within(reference_antidiagonal(q.view(), k.view(), order, stride, t, u), sum, 1e-12));
    }
}

TEST(ReferenceAntidiagonal, StrideOneIsTheMeanWeightOfABlock) {
  const Index n = 22;
  const auto q = normal_rows<double>(n, 5, 1), k = normal_rows<double>(n, 5, 2);
  const ReferenceBlocks blocks = blocks_of(n, n, 4, 4);
  const auto scores = reference_antidiagonal_scores(q.view(), k.view(), {}, blocks, 1, 0.4, causal);
  const Oracle o = dense_attention(q.view(), k.view(), k.view(), 0.4, causal_visibility(n, n));
  for (Index m = 0; m < 6; ++m)
    for (Index c = 0; c < 6; ++c) {
      const Index last = std::min(4 * m + 4, n);
      double mean = 0;
      for (Index i = 4 * m; i < last; ++i)
        for (Index j = 4 * c; j < std::min(4 * c + 4, n); ++j)
          mean += o.p(i, j) / static_cast<double>(last - 4 * m);
      EXPECT_TRUE(within(scores[static_cast<std::size_t>(m * 6 + c)], mean, 1e-13))
          << m << ' ' << c;
    }
}

TEST(ReferenceAntidiagonal, ScoresAddUpToOneOverTheCandidates) {
  const auto q = normal_rows<double>(37, 5, 1), k = normal_rows<double>(45, 5, 2);
  const ReferenceBlocks blocks = blocks_of(37, 45, 8, 16);
  for (const auto which : {earlier, causal}) {
    const auto scores =
        reference_antidiagonal_scores(q.view(), k.view(), {}, blocks, 4, 0.4, which);
    for (Index m = 0; m < 5; ++m) {
      double sum = 0;
      for (Index n = 0; n < 6; ++n) {
        const double a = scores[static_cast<std::size_t>(m * 6 + n)];
        EXPECT_EQ(a > 0, n < blocks.candidates(m, which)) << m << ' ' << n;
        sum += a;
      }
      EXPECT_TRUE(within(sum, blocks.candidates(m, which) > 0 ? 1 : 0, 1e-13)) << m;
    }
  }
}

// Selection.

TEST(ReferenceSelectMass, KeepsTheShortestPrefixThatReachesTheMass) {
  const std::vector<double> scores{0.125, 0.5, 0.25, 0.125};
  const auto kept = [&](double mass) { return reference_select_mass(scores, mass, {0, 0, 0, 0}); };
  using Bits = std::vector<bool>;
  EXPECT_EQ(kept(0.1), (Bits{0, 1, 0, 0}));
  EXPECT_EQ(kept(0.5), (Bits{0, 1, 0, 0}));
  EXPECT_EQ(kept(0.51), (Bits{0, 1, 1, 0}));
  EXPECT_EQ(kept(0.75), (Bits{0, 1, 1, 0}));
  EXPECT_EQ(kept(0.8), (Bits{1, 1, 1, 0})) << "of equal scores the earlier";
  EXPECT_EQ(kept(0.9), (Bits{1, 1, 1, 1}));
  EXPECT_EQ(kept(1), (Bits{1, 1, 1, 1}));
  EXPECT_EQ(reference_select_mass(scores, 0.5, {1, 0, 0, 1}), (Bits{1, 1, 0, 1}));
  EXPECT_EQ(reference_select_mass(scores, 0.2, {1, 0, 0, 1}), (Bits{1, 0, 0, 1}));
  // The authors' code keeps nothing where a rounded sum never reaches the mass.
  EXPECT_EQ(reference_select_mass(std::vector{0.3, 0.3, 0.3}, 0.99, {0, 0, 0}), (Bits{1, 1, 1}));
  EXPECT_EQ(reference_select_mass(std::vector{nan_value, nan_value}, 0.5, {0, 0}), (Bits{1, 1}));
  EXPECT_EQ(reference_select_mass(std::vector{1.0, 0.0}, 1, {0, 0}), (Bits{1, 1}));
  EXPECT_TRUE(reference_select_mass({}, 0.5, {}).empty());
}

struct Case {
  Index queries, keys, block, segment;
};

class ReferenceSelect : public testing::TestWithParam<Case> {
 protected:
  Case c = GetParam();
  ReferenceBlocks blocks = blocks_of(c.queries, c.keys, c.block, c.segment);
  PlainRows<double> q = normal_rows<double>(c.queries, 5, 11),
                    k = normal_rows<double>(c.keys, 5, 12);
  Order order =
      reference_order_segments(reference_key_importance(q.view(), k.view(), c.block, c.segment, 0.7,
                                                        ReferenceImportance::CompleteSegments),
                               c.segment);
  std::vector<double> scores = reference_mean_pool_scores(q.view(), k.view(), order, blocks, 0.7,
                                                          earlier, ReferenceBlockMean::TrueCount);
};

TEST_P(ReferenceSelect, OwnSegmentAndFirstTokenAreInAndNothingLaterIs) {
  const Index first_slot = std::find(order.begin(), order.end(), 0u) - order.begin();
  const Lists lists = lists_of(scores, order, blocks, {.mass = 0.3});
  ASSERT_EQ(static_cast<Index>(lists.size()), blocks.shape.row_blocks());
  EXPECT_NO_THROW(BlockMask::from_lists(blocks.shape, lists));
  for (Index m = 0; m < blocks.shape.row_blocks(); ++m) {
    const auto& row = lists[static_cast<std::size_t>(m)];
    EXPECT_TRUE(contains(row, first_slot / c.block));
    for (Index i = m * c.block; i < std::min((m + 1) * c.block, c.queries); ++i) {
      const Index segment = (i + c.keys - c.queries) / c.segment;
      for (Index slot = segment * c.segment; slot < std::min((segment + 1) * c.segment, c.keys);
           ++slot)
        EXPECT_TRUE(contains(row, slot / c.block)) << m << ' ' << slot;
    }
    const Index last = std::min((m + 1) * c.block, c.queries) - 1 + c.keys - c.queries;
    for (const std::int32_t n : row) EXPECT_LE(Index{n} * c.block / c.segment, last / c.segment);
  }
}

TEST_P(ReferenceSelect, GrowsWithTheMass) {
  Lists before;
  for (const double mass : {0.01, 0.2, 0.5, 0.7, 0.9, 0.99, 1.0}) {
    const Lists lists = lists_of(scores, order, blocks, {.mass = mass});
    for (std::size_t m = 0; m < before.size(); ++m)
      EXPECT_TRUE(
          std::includes(lists[m].begin(), lists[m].end(), before[m].begin(), before[m].end()));
    before = lists;
  }
  for (Index m = 0; m < blocks.shape.row_blocks(); ++m)
    for (Index n = 0; n < blocks.own(m).second; ++n)
      EXPECT_TRUE(contains(before[static_cast<std::size_t>(m)], n)) << "mass 1 keeps everything";
}

TEST_P(ReferenceSelect, MassOneIsExactAttention) {
  const Lists lists = lists_of(scores, order, blocks, {.mass = 1});
  const BlockMask mask = BlockMask::from_lists(blocks.shape, lists);
  EXPECT_EQ(mask.density(true), 1.0);
  PlainRows<double> out(c.queries, 5);
  reference_attend(
      {.scale = 0.7, .causal = true, .order = order, .mask = &mask}, q.view(), c.keys,
      [&](Index j) { return k.list.data() + j * 5; },
      [&](Index j) { return k.list.data() + j * 5; }, pare::attention::Exact{}, out.writable(),
      pare::TensorView<double, 1>{});
  const auto keys = k.view();
  const Oracle wanted =
      dense_attention(q.view(), keys, keys, 0.7, causal_visibility(c.queries, c.keys));
  for (Index i = 0; i < c.queries; ++i)
    for (Index d = 0; d < 5; ++d) EXPECT_TRUE(within(out(i, d), wanted.out(i, d), 1e-11));
}

INSTANTIATE_TEST_SUITE_P(Shapes, ReferenceSelect,
                         testing::Values(Case{64, 64, 4, 8}, Case{1, 1, 4, 8}, Case{3, 3, 4, 8},
                                         Case{5, 5, 4, 8}, Case{8, 8, 4, 8}, Case{9, 9, 4, 8},
                                         Case{19, 19, 4, 8}, Case{30, 30, 4, 4}, Case{40, 64, 4, 8},
                                         Case{17, 70, 4, 12}, Case{1, 33, 4, 8}));

TEST(ReferenceSelectMeanPool, ForcesTheFirstAndTheCurrentBlock) {
  const Index n = 40;
  const auto q = normal_rows<double>(n, 5, 1), k = normal_rows<double>(n, 5, 2);
  const ReferenceBlocks blocks = blocks_of(n, n, 4, 4);
  const auto scores = reference_mean_pool_scores(q.view(), k.view(), {}, blocks, 0.4, causal,
                                                 ReferenceBlockMean::TrueCount);
  const Lists lists = lists_of(scores, {}, blocks, {.mass = 1e-9, .candidates = causal});
  for (Index m = 0; m < 10; ++m) {
    const auto& row = lists[static_cast<std::size_t>(m)];
    EXPECT_TRUE(contains(row, 0) && contains(row, m)) << m;
    EXPECT_LE(row.size(), 3u) << "those and the largest score";
    EXPECT_LE(row.back(), m);
  }
  const Lists bare =
      lists_of(scores, {}, blocks, {.mass = 1e-9, .candidates = causal, .first_token = false});
  EXPECT_LE(bare[9].size(), 2u);
}

TEST(ReferenceSelectAntidiagonal, CountsTheMassOfForcedBlocks) {
  const ReferenceBlocks blocks = blocks_of(16, 16, 4, 4);
  std::vector<double> scores(16, 0.0);
  const double last_row[] = {0.25, 0.125, 0.375, 0.25};
  std::copy(std::begin(last_row), std::end(last_row), scores.begin() + 12);
  using Row = std::vector<std::int32_t>;
  const auto last = [&](double mass, bool counted) {
    return lists_of(scores, {}, blocks,
                    {.mass = mass, .candidates = causal, .count_forced = counted})[3];
  };
  EXPECT_EQ(last(0.5, true), (Row{0, 3}));
  EXPECT_EQ(last(0.6, true), (Row{0, 2, 3}));
  EXPECT_EQ(last(0.9, true), (Row{0, 1, 2, 3}));
  EXPECT_EQ(last(0.3, false), (Row{0, 2, 3}));
}

/// Keys of which a few, scattered, weigh much for every query.
struct HeavyHitters {
  PlainRows<double> q, k;
  explicit HeavyHitters(Index n)
      : q(normal_rows<double>(n, 16, 21)), k(normal_rows<double>(n, 16, 22)) {
    std::vector<Index> heavy;
    for (Index j = 5; j < n; j += 29) heavy.push_back(j + j % 7);
    for (Index i = 0; i < n; ++i) q(i, 0) += 3;
    for (const Index j : heavy)
      if (j < n) k(j, 0) += 6;
  }
};

TEST(ReferenceSelectBlocks, AnOrderLowersTheDensityOnHeavyHitters) {
  const Index n = 768, block = 16, segment = 96;
  const HeavyHitters x(n);
  const ReferenceBlocks blocks = blocks_of(n, n, block, segment);
  const Order order = reference_order_segments(
      reference_key_importance(x.q.view(), x.k.view(), block, segment, 0.25,
                               ReferenceImportance::CompleteSegments),
      segment);
  const auto density = [&](const Order& by) {
    const auto scores = reference_mean_pool_scores(x.q.view(), x.k.view(), by, blocks, 0.25,
                                                   earlier, ReferenceBlockMean::TrueCount);
    return BlockMask::from_lists(blocks.shape, lists_of(scores, by, blocks, {.mass = 0.9}))
        .density(true);
  };
  // What the paper claims for such heads; no theorem, so the data are fixed.
  EXPECT_LT(density(order), 0.9 * density({}));
}

}  // namespace
}  // namespace attention_reference_permuted_test
