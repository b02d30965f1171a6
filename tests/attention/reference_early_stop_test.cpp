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

namespace attention_reference_early_stop_test {
namespace {

using namespace pare::attention::detail;
using pare::Index;
using pare::TensorView;
using pare::testing::causal_visibility;
using pare::testing::dense_attention;
using pare::testing::normal_rows;
using pare::testing::Oracle;
using pare::testing::PlainRows;
using pare::testing::within;

constexpr double infinity = std::numeric_limits<double>::infinity();
constexpr double nan_value = std::numeric_limits<double>::quiet_NaN();
constexpr double bound = 1e-11;  // as in reference_test.cpp

/// `heads` query heads, one below the other, over one key/value head.
struct Group {
  Index heads, queries;
  PlainRows<double> q, k, v;
  PlainRows<double> out{};
  ReferenceEarlyStopResult result{};

  Group(Index head_count, Index query_count, Index keys, std::uint64_t seed = 1)
      : heads(head_count),
        queries(query_count),
        q(normal_rows<double>(head_count * query_count, 6, seed)),
        k(normal_rows<double>(keys, 6, seed + 1)),
        v(normal_rows<double>(keys, 3, seed + 2)) {}

  void attend(const ReferenceEarlyStop& o) {
    out = PlainRows<double>(heads * queries, 3, nan_value);
    result = reference_early_stop(view(), o, out.writable_heads(heads));
  }

  ReferenceGroup<double> view() const { return {q.heads(heads), k.view(), v.view()}; }

  Oracle oracle(Index head, double scale) const {
    return dense_attention(view().head(head), k.view(), v.view(), scale,
                           causal_visibility(queries, k.rows));
  }

  void expect_exact(double scale) const {
    for (Index h = 0; h < heads; ++h) {
      const Oracle wanted = oracle(h, scale);
      for (Index i = 0; i < queries; ++i)
        for (Index c = 0; c < 3; ++c)
          EXPECT_TRUE(within(out(h * queries + i, c), wanted.out(i, c), bound)) << h << ' ' << i;
    }
    EXPECT_EQ(result.density, 1.0);
  }
};

TEST(ReferenceEarlyStop, ThresholdZeroIsExact) {
  for (const Index keys : {1, 7, 8, 9, 16, 19, 40})
    for (const Index queries : {Index{1}, keys / 2, keys})
      for (const auto guide :
           {ReferenceGuide::MeanKey, ReferenceGuide::MeanPrefixKey, ReferenceGuide::FirstKey})
        for (const bool permute : {true, false}) {
          Group g(2, queries, keys);
          g.attend({.scale = 0.4,
                    .segment = 8,
                    .row_tile = 3,
                    .key_tile = 5,
                    .guide = guide,
                    .permute_queries = permute});
          if (queries > 0) g.expect_exact(0.4);
        }
}

TEST(ReferenceEarlyStop, OneSegmentIsExactForAnyThreshold) {
  for (const Index segment : {30, 31, 4096}) {
    Group g(1, 30, 30);
    g.attend({.scale = 0.4, .segment = segment, .row_tile = 7, .threshold = infinity});
    g.expect_exact(0.4);
    for (const Index blocks : g.result.blocks) EXPECT_EQ(blocks, 0);
  }
}

TEST(ReferenceEarlyStop, InfiniteThresholdTakesOneBlockOfHistory) {
  Group g(1, 32, 32);
  g.attend({.segment = 8, .row_tile = 4, .key_tile = 3, .threshold = infinity});
  EXPECT_EQ(g.result.blocks, (std::vector<Index>{0, 0, 1, 1, 1, 1, 1, 1}));
  double computed = 0;
  for (Index i = 0; i < 32; ++i) computed += static_cast<double>(i % 8 + 1 + (i >= 8 ? 3 : 0));
  EXPECT_DOUBLE_EQ(g.result.density, computed / (32 * 33 / 2));
}

TEST(ReferenceEarlyStop, StopsNoLaterForAHigherThreshold) {
  for (const bool mean_gain : {false, true})
    for (const bool share : {false, true}) {
      Group g(3, 50, 70);
      std::vector<Index> before;
      double density = 2;
      for (const double threshold : {0.0, 1e-3, 0.01, 0.05, 0.1, 0.2, 0.5, 1.0}) {
        g.attend({.scale = 0.7,
                  .segment = 16,
                  .row_tile = 5,
                  .key_tile = 4,
                  .threshold = threshold,
                  .mean_gain = mean_gain,
                  .share_gqa = share});
        for (std::size_t t = 0; t < before.size(); ++t) EXPECT_LE(g.result.blocks[t], before[t]);
        EXPECT_LE(g.result.density, density);
        before = g.result.blocks;
        density = g.result.density;
      }
      EXPECT_LT(density, 0.7) << "the thresholds do stop something";
    }
}

/// Whether query i takes key j, as values that are unit vectors of the keys show.
PlainRows<double> taken(const Group& like, const ReferenceEarlyStop& o) {
  PlainRows<double> unit(like.k.rows, like.k.rows), out(like.heads * like.queries, like.k.rows);
  for (Index j = 0; j < unit.rows; ++j) unit(j, j) = 1;
  reference_early_stop<double, double>({like.q.heads(like.heads), like.k.view(), unit.view()}, o,
                                       out.writable_heads(like.heads));
  return out;
}

TEST(ReferenceEarlyStop, HistoryIsTakenBySimilarityToTheMeanQuery) {
  // With shared ranking the mean goes over the heads too.
  for (const bool share : {false, true}) {
    const Group g(2, 24, 24);
    const auto weights = taken(
        g, {.segment = 8, .row_tile = 8, .key_tile = 3, .threshold = infinity, .share_gqa = share});
    for (Index h = 0; h < 2; ++h)
      for (const Index start : {8, 16}) {
        std::vector<double> score(static_cast<std::size_t>(start), 0.0);
        for (Index other = 0; other < 2; ++other)
          for (Index i = start; i < start + 8; ++i)
            for (Index j = 0; j < start && (share || other == h); ++j)
              for (Index c = 0; c < 6; ++c)
                score[static_cast<std::size_t>(j)] += g.q(other * 24 + i, c) * g.k(j, c);
        for (Index j = 0; j < start; ++j) {
          const double own = score[static_cast<std::size_t>(j)];
          const auto better =
              std::count_if(score.begin(), score.end(), [own](double s) { return s > own; });
          for (Index i = start; i < start + 8; ++i)
            EXPECT_EQ(weights(h * 24 + i, j) > 0, better < 3) << h << ' ' << i << ' ' << j;
        }
      }
  }
}

TEST(ReferenceEarlyStop, ErrorIsAtMostTwiceTheDroppedMassTimesTheLargestValue) {
  Group g(2, 60, 60);
  const ReferenceEarlyStop o{
      .scale = 0.8, .segment = 12, .row_tile = 5, .key_tile = 4, .threshold = 0.1};
  g.attend(o);
  const auto weights = taken(g, o);
  double largest = 0, worst = 0;
  for (const double x : g.v.list) largest = std::max(largest, std::abs(x));
  for (Index h = 0; h < 2; ++h) {
    const Oracle exact = g.oracle(h, 0.8);
    for (Index i = 0; i < 60; ++i) {
      double dropped = 0;
      for (Index j = 0; j <= i; ++j)
        if (weights(h * 60 + i, j) == 0) dropped += exact.p(i, j);
      worst = std::max(worst, dropped);
      for (Index c = 0; c < 3; ++c)
        EXPECT_LE(std::abs(g.out(h * 60 + i, c) - exact.out(i, c)), 2 * dropped * largest + bound);
    }
  }
  EXPECT_GT(worst, 0.01) << "something is dropped";
}

TEST(ReferenceEarlyStop, StopsAfterTheFirstBlockThatAddsLessThanTheThreshold) {
  // One query after a history of 8 keys with weights e^3, e^2, 1, ..., and 1 for itself.
  const double scores[] = {3, 2, 0, 0, 0, 0, 0, 0, 0};
  Group g(1, 1, 9);
  g.q = PlainRows<double>(1, 6);
  g.k = PlainRows<double>(9, 6);
  g.q(0, 0) = 1;
  for (Index j = 0; j < 9; ++j) g.k(j, 0) = scores[j];
  const auto blocks = [&](double threshold) {
    g.attend({.segment = 8, .row_tile = 1, .key_tile = 1, .threshold = threshold});
    return g.result.blocks.at(0);
  };
  const double first = std::exp(3.0), second = std::exp(2.0);
  const double gains[] = {first / (1 + first), second / (1 + first + second),
                          1 / (2 + first + second)};
  EXPECT_EQ(blocks(gains[0] + 1e-9), 1);
  EXPECT_EQ(blocks(gains[0] - 1e-9), 2);
  EXPECT_EQ(blocks(gains[1] + 1e-9), 2);
  EXPECT_EQ(blocks(gains[1] - 1e-9), 3);
  EXPECT_EQ(blocks(gains[2] + 1e-9), 3);
  EXPECT_EQ(blocks(gains[2] - 1e-9), 4);
  EXPECT_EQ(blocks(1e-9), 8);
}

TEST(ReferenceEarlyStop, TheTileGoesOnForItsLargestGainOrForTheMean) {
  // Two queries; history scores of 0 for one, and of -40 for the other.
  Group g(1, 2, 10);
  g.q = PlainRows<double>(2, 6);
  g.k = PlainRows<double>(10, 6, 1.0);
  g.q(0, 0) = 0;
  g.q(1, 0) = 40;
  for (Index j = 0; j < 8; ++j) g.k(j, 0) = -1;
  // The first query gains 1/2, 1/3, ... 1/9; the second nothing.
  const auto blocks = [&](double threshold, bool mean_gain) {
    g.attend({.segment = 8,
              .row_tile = 2,
              .key_tile = 1,
              .threshold = threshold,
              .mean_gain = mean_gain});
    return g.result.blocks.at(0);
  };
  EXPECT_EQ(blocks(0.3, false), 3);
  EXPECT_EQ(blocks(0.15, true), 3);
  EXPECT_EQ(blocks(0.3, true), 1);
}

TEST(ReferenceEarlyStop, ARowOfNanDoesNotDecide) {
  for (const bool mean_gain : {false, true}) {
    Group g(1, 2, 10);
    g.q = PlainRows<double>(2, 6);
    g.k = PlainRows<double>(10, 6);
    g.q(1, 0) = nan_value;
    // All scores are 0: the first query gains 1/2, 1/3, 1/4.
    g.attend(
        {.segment = 8, .row_tile = 2, .key_tile = 1, .threshold = 0.3, .mean_gain = mean_gain});
    EXPECT_EQ(g.result.blocks.at(0), 3);
  }
}

TEST(ReferenceEarlyStop, QueriesLikeTheGuideShareATile) {
  // Even queries look like the mean key and gain from history; odd ones do not. One tile of two
  // holds the even pair if queries are permuted.
  Group g(1, 4, 12);
  g.q = PlainRows<double>(4, 6);
  g.k = PlainRows<double>(12, 6);
  for (Index j = 0; j < 12; ++j) g.k(j, 0) = j < 8 ? 1 : 0;
  for (Index i = 0; i < 4; ++i) g.q(i, 0) = i % 2 == 0 ? 3 : -30;
  const auto blocks = [&](bool permute) {
    g.attend(
        {.segment = 4, .row_tile = 2, .key_tile = 2, .threshold = 0.1, .permute_queries = permute});
    return g.result.blocks;
  };
  EXPECT_EQ(blocks(true), (std::vector<Index>{4, 1}));
  EXPECT_EQ(blocks(false), (std::vector<Index>{4, 4}));
}

TEST(ReferenceEarlyStop, ConstantValuesComeOutForAnyThreshold) {
  Group g(1, 40, 40);
  std::fill(g.v.list.begin(), g.v.list.end(), 1.75);
  for (const double threshold : {0.0, 0.01, 0.3, infinity}) {
    g.attend({.segment = 8, .row_tile = 4, .key_tile = 4, .threshold = threshold});
    for (const double x : g.out.list) EXPECT_TRUE(within(x, 1.75, bound));
  }
}

TEST(ReferenceEarlyStop, PlantedKeysAreInTheFirstBlocksAndTheRestIsSkipped) {
  const Index keys = 96, planted = 6;
  Group g(1, keys, keys);
  for (double& x : g.q.list) x *= 0.05;
  for (double& x : g.k.list) x *= 0.05;
  for (Index i = 0; i < keys; ++i) g.q(i, 0) = 4;
  for (Index j = 0; j < planted; ++j) g.k(10 * j + 3, 0) = 4;
  // The last segment: 64 keys of history, all six planted ones among them.
  const ReferenceEarlyStop o{.segment = 32, .row_tile = 32, .key_tile = 4, .threshold = 0.01};
  g.attend(o);
  EXPECT_EQ(g.result.blocks, (std::vector<Index>{0, 2, 3}));
  const auto weights = taken(g, o);
  for (Index j = 0; j < planted; ++j) EXPECT_GT(weights(95, 10 * j + 3), 0.1);
}

TEST(ReferenceEarlyStop, NanStaysInItsRow) {
  for (const bool mean_gain : {false, true}) {
    Group g(1, 24, 24);
    g.q(21, 2) = nan_value;
    g.attend(
        {.segment = 8, .row_tile = 4, .key_tile = 3, .threshold = 0.05, .mean_gain = mean_gain});
    for (Index i = 0; i < 24; ++i) EXPECT_EQ(std::isnan(g.out(i, 0)), i == 21) << i;
  }
}

}  // namespace
}  // namespace attention_reference_early_stop_test
