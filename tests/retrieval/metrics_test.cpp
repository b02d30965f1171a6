// SPDX-License-Identifier: Apache-2.0
// Measures of rankings against their definitions, written anew, and the goldens.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <set>
#include <vector>

#include <pare/core/matrix.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/retrieval/metrics.hpp>

#include "support/properties.hpp"

namespace retrieval_metrics_test {
namespace {

using pare::Index;
using pare::RowMatrix;
using pare::retrieval::evaluate_rankings;
using pare::retrieval::ItemLists;
using pare::retrieval::MeanMetrics;
using pare::retrieval::ranking_metrics;
using pare::testing::integer_matrix;
using pare::testing::refusal;
using Ids = std::vector<Index>;

TEST(RankingMetrics, AreTheGoldenOnes) {
  const Ids ranking{5, 1, 2}, relevant{2, 5};
  EXPECT_EQ(ranking_metrics(ranking, relevant, 2).recall, .5);
  EXPECT_EQ(ranking_metrics(ranking, relevant, 3).recall, 1);
  EXPECT_NEAR(ranking_metrics(ranking, relevant, 3).ndcg, .91972079, 5e-9);
  EXPECT_EQ(ranking_metrics(ranking, relevant, 3).reciprocal_rank, 1);
  EXPECT_EQ(ranking_metrics(ranking, relevant, 1).hit, 1);
}

/// NGCF's ideal, of what was found, would be 1 here.
TEST(RankingMetrics, TheIdealIsOfAllRelevantItems) {
  const Ids ranking{7, 0, 1}, relevant{7, 8, 9};
  EXPECT_NEAR(ranking_metrics(ranking, relevant, 2).ndcg, 1 / (1 + 1 / std::log2(3.0)), 1e-15);
}

TEST(RankingMetrics, OfShortAndOfMissedRankings) {
  const auto none = ranking_metrics(Ids{}, Ids{3}, 5);
  EXPECT_EQ(none.recall + none.hit + none.reciprocal_rank + none.ndcg, 0);
  const auto third = ranking_metrics(Ids{4, 6, 3}, Ids{3}, 5);
  EXPECT_NEAR(third.reciprocal_rank, 1.0 / 3, 1e-16);
  EXPECT_EQ(third.ndcg, .5);
  EXPECT_EQ(ranking_metrics(Ids{4, 6, 3}, Ids{3}, 2).reciprocal_rank, 0);
}

TEST(RankingMetrics, RefusesWhatHasNoMeaning) {
  const char* const f = "retrieval::ranking_metrics";
  refusal([] { ranking_metrics(Ids{1}, Ids{1}, 0); }, f, "k");
  refusal([] { ranking_metrics(Ids{1}, Ids{}, 1); }, f, "relevant");
  refusal([] { ranking_metrics(Ids{1, 2, 1}, Ids{1}, 1); }, f, "ranking");
  refusal([] { ranking_metrics(Ids{-1}, Ids{1}, 1); }, f, "ranking");
  refusal([] { ranking_metrics(Ids{1}, Ids{2, 2}, 1); }, f, "relevant");
}

/// Users with lists from a few seeds; scores are small integers, so that many are equal.
struct Case {
  RowMatrix<float> scores = integer_matrix<RowMatrix<float>>(9, 40, 3);
  Ids relevant_offsets{0}, relevant, seen_offsets{0}, seen;

  Case() {
    scores(2, 7) = std::numeric_limits<float>::quiet_NaN();
    for (Index u = 0; u < 9; ++u) {
      for (Index i = u % 3; i < 40; i += 5 + u) seen.push_back(i);
      for (Index i = u % 3 + 1; u != 4 && i < 40; i += 7)
        if (!std::count(seen.begin() + seen_offsets.back(), seen.end(), i)) relevant.push_back(i);
      seen_offsets.push_back(static_cast<Index>(seen.size()));
      relevant_offsets.push_back(static_cast<Index>(relevant.size()));
    }
  }
  ItemLists wanted() const { return {relevant_offsets, relevant}; }
  ItemLists masked() const { return {seen_offsets, seen}; }
};

/// The ranking by repeated search for the largest score: no sort, no heap.
Ids ranked(const Case& c, Index user) {
  const auto seen = c.masked().of(user);
  std::set<Index> left;
  for (Index i = 0; i < c.scores.cols(); ++i)
    if (std::find(seen.begin(), seen.end(), i) == seen.end()) left.insert(i);
  Ids ids;
  while (!left.empty()) {
    Index best = -1;
    for (const Index i : left)
      if (!std::isnan(c.scores(user, i)) && (best < 0 || c.scores(user, i) > c.scores(user, best)))
        best = i;
    if (best < 0) best = *left.begin();
    ids.push_back(best);
    left.erase(best);
  }
  return ids;
}

TEST(EvaluateRankings, IsTheMeanOfFullRankingsWithSeenItemsMasked) {
  const Case c;
  for (const Index k : {1, 5, 20, 64}) {
    double recall = 0, hit = 0, reciprocal = 0, ndcg = 0;
    for (Index u = 0; u < 9; ++u) {
      if (u == 4) continue;
      const Ids ids = ranked(c, u);
      const auto relevant = c.wanted().of(u);
      double found = 0, gain = 0, ideal = 0, first = 0;
      for (Index r = 0; r < k; ++r) {
        const double g = 1 / std::log2(static_cast<double>(r + 2));
        if (r < static_cast<Index>(relevant.size())) ideal += g;
        if (r >= static_cast<Index>(ids.size())) continue;
        if (std::count(relevant.begin(), relevant.end(), ids[static_cast<std::size_t>(r)]) == 0)
          continue;
        if (found == 0) first = 1 / static_cast<double>(r + 1);
        found += 1;
        gain += g;
      }
      recall += found / static_cast<double>(relevant.size()) / 8;
      hit += (found > 0 ? 1.0 : 0.0) / 8;
      reciprocal += first / 8;
      ndcg += gain / ideal / 8;
    }
    const auto expect = [&](const MeanMetrics& got) {
      EXPECT_EQ(got.judged, 8);
      EXPECT_NEAR(got.metrics.recall, recall, 1e-14);
      EXPECT_NEAR(got.metrics.hit, hit, 1e-14);
      EXPECT_NEAR(got.metrics.reciprocal_rank, reciprocal, 1e-14);
      EXPECT_NEAR(got.metrics.ndcg, ndcg, 1e-14);
    };
    expect(evaluate_rankings(pare::reference, c.scores, c.wanted(), c.masked(), k));
    expect(evaluate_rankings(c.scores, c.wanted(), c.masked(), k));
    const RowMatrix<double> wide = c.scores.cast<double>();
    expect(evaluate_rankings(wide, c.wanted(), c.masked(), k));
  }
}

TEST(EvaluateRankings, SameBitsForAnyThreadsAndStride) {
  const Case c;
  const auto ndcg = [&](const auto& backend) {
    return evaluate_rankings(backend, c.scores, c.wanted(), c.masked(), 7).metrics.ndcg;
  };
  pare::testing::same_bits_for_any_threads(pare::simd, ndcg);
  pare::testing::any_stride_same_bits(c.scores, [&](const auto& scores) {
    return evaluate_rankings(scores, c.wanted(), c.masked(), 7).metrics.recall;
  });
}

TEST(EvaluateRankings, OfNobodyIsZero) {
  const RowMatrix<float> scores(0, 5), row = RowMatrix<float>::Zero(1, 5);
  const Ids none{0}, empty{0, 0};
  const MeanMetrics a = evaluate_rankings(scores, {none, {}}, {none, {}}, 3);
  const MeanMetrics b = evaluate_rankings(row, {empty, {}}, {empty, {}}, 3);
  EXPECT_EQ(a.judged + b.judged, 0);
  EXPECT_EQ(a.metrics.ndcg + b.metrics.recall, 0);
}

TEST(EvaluateRankings, RefusesListsThatDoNotFit) {
  const char* const f = "retrieval::evaluate_rankings";
  const RowMatrix<float> two = RowMatrix<float>::Zero(2, 4);
  const Ids offsets{0, 1, 2}, items{1, 3}, outside{1, 4}, below{-1, 3}, falling{0, 2, 1}, one{0, 2};
  const Ids first{0, 2, 2}, twice{3, 3};
  const ItemLists right{offsets, items};
  const Ids no{0, 0, 0};
  const ItemLists nothing{no, {}};
  refusal([&] { evaluate_rankings(two, right, nothing, 0); }, f, "k");
  refusal([&] { evaluate_rankings(two, {offsets, outside}, nothing, 1); }, f, "relevant");
  refusal([&] { evaluate_rankings(two, {offsets, below}, nothing, 1); }, f, "relevant");
  refusal([&] { evaluate_rankings(two, {falling, items}, nothing, 1); }, f, "relevant");
  refusal([&] { evaluate_rankings(two, {one, items}, nothing, 1); }, f, "relevant");
  refusal([&] { evaluate_rankings(two, {first, twice}, nothing, 1); }, f, "relevant");
  refusal([&] { evaluate_rankings(two, right, right, 1); }, f, "relevant");
  refusal([&] { evaluate_rankings(two, nothing, {offsets, outside}, 1); }, f, "seen");
  refusal([&] { evaluate_rankings(two, nothing, {{}, {}}, 1); }, f, "seen");
}

/// What is kept of each item would not fit any memory.
TEST(EvaluateRankings, RefusesMoreItemsThanMemoryHas) {
  const char* const f = "retrieval::evaluate_rankings";
  const float score = 1;
  const Ids three{0, 0, 0}, one{0};
  for (const Index users : {2, 0}) {
    const pare::TensorView<const float, 2> scores{&score, {users, Index{1} << 60}, {0, 0}};
    const ItemLists none{users == 0 ? one : three, {}};
    refusal([&] { evaluate_rankings(scores, none, none, 3); }, f, "scores");
    refusal([&] { evaluate_rankings(pare::reference, scores, none, none, 3); }, f, "scores");
  }
  // Nobody asks for memory of them.
  const pare::TensorView<const float, 2> many{&score, {0, Index{1} << 59}, {0, 0}};
  EXPECT_EQ(evaluate_rankings(many, {one, {}}, {one, {}}, 3).judged, 0);
}

}  // namespace
}  // namespace retrieval_metrics_test
