// SPDX-License-Identifier: Apache-2.0
// Fusion of rankings: the goldens, sums of fractions by hand, and vstash's rules.
#include <gtest/gtest.h>

#include <cmath>
#include <cstddef>
#include <limits>
#include <vector>

#include <pare/retrieval/rank_fusion.hpp>

#include "support/matrices.hpp"

namespace retrieval_rank_fusion_test {
namespace {

using pare::Index;
using pare::retrieval::adaptive_weights;
using pare::retrieval::AdaptiveFusionOptions;
using pare::retrieval::fuse_adaptive;
using pare::retrieval::fuse_ranks;
using pare::retrieval::fusion_pool;
using pare::retrieval::FusionWeights;
using pare::retrieval::Hit;
using pare::retrieval::RankedIds;
using pare::retrieval::weights_of_mean_idf;
using pare::testing::refusal;
using Ids = std::vector<Index>;
using Hits = std::vector<Hit>;

TEST(FuseRanks, AddsFractionsByRankAndBreaksTiesById) {
  const Ids a{4, 9, 2}, b{2, 4};
  const auto hits = fuse_ranks({{a}, {b}}, 10);
  ASSERT_EQ(hits.size(), 3U);
  EXPECT_EQ(hits[0], (Hit{4, 1.0 / 61 + 1.0 / 62}));
  EXPECT_EQ(hits[1], (Hit{2, 1.0 / 63 + 1.0 / 61}));
  EXPECT_EQ(hits[2], (Hit{9, 1.0 / 62}));
  const auto equal = fuse_ranks({{Ids{7, 3}}, {Ids{3, 7}}}, 1);
  ASSERT_EQ(equal.size(), 1U);
  EXPECT_EQ(equal[0].id, 3);
}

/// 1 + 2^-53 is rounded to 1, and 2^-52 is not lost.
TEST(FuseRanks, AddsInTheOrderOfTheLists) {
  const Ids ids{7};
  const double small = 0x1p-53;
  const auto score = [&](double a, double b, double c) {
    return fuse_ranks({{ids, a}, {ids, b}, {ids, c}}, 1, {.k = 0})[0].score;
  };
  EXPECT_EQ(score(1, small, small), 1);
  EXPECT_EQ(score(small, small, 1), 1 + 0x1p-52);
  EXPECT_EQ(score(small, 1, small), 1);
}

TEST(FuseRanks, OfTheGoldenWeights) {
  const Ids first{5}, third{1, 2, 5};
  const std::vector<RankedIds> lists{{first, .5995}, {third, .4005}};
  const auto hits = fuse_ranks(lists, 1, {.first_rank = 0});
  EXPECT_EQ(hits[0].id, 5);
  EXPECT_NEAR(hits[0].score, .0164513, 5e-8);
}

TEST(FuseRanks, OfNothingIsNothing) {
  EXPECT_TRUE(fuse_ranks({}, 3).empty());
  EXPECT_TRUE(fuse_ranks({{Ids{}}, {Ids{}}}, 3).empty());
  EXPECT_EQ(fuse_ranks({{Ids{2}, 0}}, 3), (Hits{{2, 0}}));
}

TEST(AdaptiveWeights, AreTheGoldenOnes) {
  EXPECT_EQ(weights_of_mean_idf(0, 1000).keyword, .1);
  EXPECT_EQ(weights_of_mean_idf(std::log(1000.0) / 2, 1000).keyword, .35);
  EXPECT_EQ(weights_of_mean_idf(std::log(1000.0), 1000).keyword, .6);
  EXPECT_EQ(weights_of_mean_idf(std::log(1000.0), 1000).vector, .4);
}

/// Both weights are the doubles nearest to thousandths.
TEST(AdaptiveWeights, AreThousandths) {
  for (double mean = 0; mean < 7; mean += .01) {
    const FusionWeights w = weights_of_mean_idf(mean, 1000);
    const double thousandths = std::round(1000 * w.keyword);
    EXPECT_EQ(w.keyword, thousandths / 1000);
    EXPECT_EQ(w.vector, (1000 - thousandths) / 1000);
  }
}

/// Two terms, one of no document: idf ln 1000, the other of 99: ln 10. sigma written as the page's
/// second form, 1 / (1 + N e^(-2 mean)).
TEST(AdaptiveWeights, FollowTheMeanIdf) {
  const double mean = (std::log(1000.0) + std::log(10.0)) / 2;
  const double sigma = 1 / (1 + 1000 * std::exp(-2 * mean));
  const auto w = adaptive_weights(Ids{0, 99}, 1000);
  EXPECT_NEAR(w.keyword, .1 + .5 * sigma, 5.1e-4);
  EXPECT_EQ(std::round(w.keyword * 1000) / 1000, w.keyword);
  EXPECT_NEAR(w.keyword + w.vector, 1, 1e-15);
  double last = 0;
  for (const Index df : {1000, 500, 100, 30, 9, 1, 0}) {
    const auto rarer = adaptive_weights(Ids{df}, 1000);
    EXPECT_GE(rarer.keyword, last);
    last = rarer.keyword;
  }
  EXPECT_GT(last, .599);
}

TEST(AdaptiveWeights, OfLongQueriesAndOfNone) {
  const FusionWeights fixed;
  EXPECT_EQ(adaptive_weights(Ids{}, 1000), fixed);
  EXPECT_EQ(adaptive_weights(Ids{1}, 1), fixed);
  const FusionWeights of_long{.vector = .9, .keyword = .1, .cutoff = 25};
  EXPECT_EQ(adaptive_weights(Ids(51, 3), 1000), of_long);
  EXPECT_EQ(adaptive_weights(Ids{3}, 1000, 51), of_long);
  EXPECT_EQ(adaptive_weights(Ids{3}, 1000, 50), adaptive_weights(Ids{3}, 1000));
}

TEST(FusionPool, IsVstashs) {
  EXPECT_EQ(fusion_pool(10, 1000), 100);
  EXPECT_EQ(fusion_pool(10, 150), 50);
  EXPECT_EQ(fusion_pool(10, 3), 30);
  const Index most = std::numeric_limits<Index>::max();
  EXPECT_EQ(fusion_pool(most / 10, 1), most / 10 * 3);
  refusal([&] { fusion_pool(most / 2, 5); }, "retrieval::fusion_pool", "count");
}

/// The vector at 1.33 is beyond the cutoff; keyword 8, of rank 4, is not among the vectors and not
/// below 2 count = 4; 3, of rank 5, is among the vectors.
TEST(FuseAdaptive, DropsFarVectorsAndLateKeywords) {
  const Hits nearest{{1, 1.0}, {3, 1.3}, {2, 1.33}};
  const Ids keyword{5, 2, 6, 7, 8, 3};
  const auto hits = fuse_adaptive(nearest, keyword, 2);
  EXPECT_EQ(hits, (Hits{{3, .6 / 61 + .4 / 65}, {1, .6 / 60}}));
  const auto more = fuse_adaptive(nearest, keyword, 3);
  EXPECT_EQ(more[2], (Hit{5, .4 / 60}));
  const auto far = fuse_adaptive(nearest, keyword, 2, {.cutoff = 2});
  EXPECT_EQ(far[0].id, 2);
  // Of the cutoff itself a vector stays.
  EXPECT_EQ(fuse_adaptive(Hits{{4, 2}, {9, 3}, {5, 3}}, {}, 5, {.cutoff = 1.5}).size(), 3U);
  EXPECT_EQ(fuse_adaptive(Hits{{4, 0}, {9, 0}, {5, 1}}, {}, 5).size(), 2U);
}

TEST(FuseAdaptive, YoungDocumentsGainByTheBoost) {
  const Hits nearest{{0, 1.0}, {1, 1.1}};
  const std::vector<double> ages{20, 0};
  const auto hits = fuse_adaptive(nearest, {}, 2, {}, {.age_days = ages, .boost = .5});
  EXPECT_EQ(hits[0].id, 1);
  EXPECT_NEAR(hits[0].score, .6 / 61 * 1.5, 1e-17);
  EXPECT_NEAR(hits[1].score, .6 / 60 * (1 + .5 * std::exp(-1.0)), 1e-17);
}

/// Of keywords alone, those of ranks 0 and 1 are below 2 count = 2: only there can age show it,
/// since each of them is better than all that are left out.
TEST(FuseAdaptive, LateKeywordsStayOutHoweverYoung) {
  std::vector<double> ages(4, 1000);
  const AdaptiveFusionOptions options{.age_days = ages, .boost = 9};
  ages[1] = ages[2] = 0;
  EXPECT_EQ(fuse_adaptive({}, Ids{0, 1, 2, 3}, 1, {}, options)[0].id, 1);
  ages[1] = 1000;
  EXPECT_EQ(fuse_adaptive({}, Ids{0, 1, 2, 3}, 1, {}, options)[0].id, 0);
}

TEST(RankFusion, RefusesWhatDoesNotFit) {
  const double nan = std::nan(""), infinity = std::numeric_limits<double>::infinity();
  const Ids ids{1, 2};
  const char* f = "retrieval::fuse_ranks";
  refusal([&] { fuse_ranks({{ids}}, 0); }, f, "count");
  refusal([&] { fuse_ranks({{Ids{1, 1}}}, 1); }, f, "ids");
  refusal([&] { fuse_ranks({{Ids{-1}}}, 1); }, f, "ids");
  refusal([&] { fuse_ranks({{ids, 1}, {ids, -1}}, 1); }, f, "weight");
  for (const double bad : {-1.0, nan, infinity})
    refusal([&] { fuse_ranks({{ids}}, 1, {.k = bad}); }, f, "k");
  refusal([&] { fuse_ranks({{ids}}, 1, {.k = 0, .first_rank = 0}); }, f, "k");
  refusal([&] { fuse_ranks({{ids}}, 1, {.first_rank = 2}); }, f, "first_rank");
  f = "retrieval::adaptive_weights";
  refusal([&] { adaptive_weights(ids, 0); }, f, "documents");
  refusal([&] { adaptive_weights(Ids{3}, 2); }, f, "frequencies");
  refusal([&] { adaptive_weights(Ids{-1}, 2); }, f, "frequencies");
  refusal([&] { adaptive_weights(ids, 5, -1); }, f, "words");
  refusal([&] { weights_of_mean_idf(nan, 5); }, "retrieval::weights_of_mean_idf", "mean_idf");
  refusal([&] { weights_of_mean_idf(1, 1); }, "retrieval::weights_of_mean_idf", "documents");
  refusal([&] { fusion_pool(0, 1); }, "retrieval::fusion_pool", "count");
  refusal([&] { fusion_pool(1, 0); }, "retrieval::fusion_pool", "documents");
  f = "retrieval::fuse_adaptive";
  const Hits near{{1, .5}};
  refusal([&] { fuse_adaptive(near, ids, 0); }, f, "count");
  refusal([&] { fuse_adaptive(Hits{{1, 2}, {3, 1}}, ids, 1); }, f, "nearest");
  refusal([&] { fuse_adaptive(Hits{{1, -1}}, ids, 1); }, f, "nearest");
  refusal([&] { fuse_adaptive(Hits{{1, nan}}, ids, 1); }, f, "nearest");
  refusal([&] { fuse_adaptive(Hits{{1, 1}, {1, 2}}, ids, 1); }, f, "nearest");
  refusal([&] { fuse_adaptive(near, Ids{2, 2}, 1); }, f, "keyword");
  refusal([&] { fuse_adaptive(near, ids, 1, {.vector = -1}); }, f, "vector");
  refusal([&] { fuse_adaptive(near, ids, 1, {.keyword = nan}); }, f, "keyword");
  refusal([&] { fuse_adaptive(near, ids, 1, {.cutoff = .5}); }, f, "cutoff");
  refusal([&] { fuse_adaptive(near, ids, 1, {}, {.k = 0}); }, f, "k");
  refusal([&] { fuse_adaptive(near, ids, 1, {}, {.boost = -1}); }, f, "boost");
  const std::vector<double> short_ages{1, 2}, bad_ages{1, 2, -1};
  refusal([&] { fuse_adaptive(near, ids, 1, {}, {.age_days = short_ages}); }, f, "age_days");
  refusal([&] { fuse_adaptive(near, ids, 1, {}, {.age_days = bad_ages}); }, f, "age_days");
}

}  // namespace
}  // namespace retrieval_rank_fusion_test
