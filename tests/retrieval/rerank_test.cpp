// SPDX-License-Identifier: Apache-2.0
// Reranking against a sort of all exact scores, and against the rules of pruning and early exit by
// hand.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <optional>
#include <random>
#include <set>
#include <span>
#include <vector>

#include <pare/retrieval/rerank.hpp>

#include "support/matrices.hpp"

namespace retrieval_rerank_test {
namespace {

using pare::Index;
using pare::retrieval::Hit;
using pare::retrieval::rerank;
using pare::retrieval::Reranked;
using pare::retrieval::RerankOptions;
using pare::testing::refusal;
using Hits = std::vector<Hit>;

/// Candidates of falling first-stage scores, and exact ones that go with them but for a noise.
/// Scores are of few values, so that many are equal.
struct Stage {
  Hits candidates;
  std::vector<double> exact;

  explicit Stage(std::uint64_t seed, Index n = 60) {
    std::mt19937_64 random(seed);
    for (Index i = 0; i < n; ++i) {
      const auto first = static_cast<double>(random() % 40);
      candidates.push_back({(i * 7) % n, first});
      exact.push_back(0);
    }
    std::sort(candidates.begin(), candidates.end(), pare::retrieval::ranks_before);
    for (const Hit& hit : candidates)
      exact[static_cast<std::size_t>(hit.id)] = hit.score - static_cast<double>(random() % 12);
  }
  double operator()(Index id) const { return exact[static_cast<std::size_t>(id)]; }
  Hits best(std::size_t count) const {
    Hits all;
    for (const Hit& hit : candidates) all.push_back({hit.id, (*this)(hit.id)});
    std::sort(all.begin(), all.end(), [](const Hit& a, const Hit& b) {
      return a.score > b.score || (a.score == b.score && a.id < b.id);
    });
    all.resize(std::min(count, all.size()));
    return all;
  }
};

/// Notes what is scored.
struct Noting {
  const Stage& stage;
  std::set<Index> ids{};
  double operator()(Index id) {
    ids.insert(id);
    return stage(id);
  }
};

/// First-stage scores are never below the exact ones of Stage.
struct Bounded : Noting {
  explicit Bounded(const Stage& s) : Noting{s} {}
  double bound(const Hit& hit) const { return hit.score; }
};

TEST(Rerank, WithoutShortcutsSortsByExactScores) {
  const Stage stage(1);
  for (const Index count : {1, 10, 60, 100}) {
    const Reranked full = rerank(stage.candidates, stage, {.count = count});
    EXPECT_EQ(full.hits, stage.best(static_cast<std::size_t>(count)));
    EXPECT_EQ(full.scored, 60);
    EXPECT_TRUE(full.proved);
  }
}

/// s_2 = 9: pruning by .1 keeps what is at least 8.1. Of 8.5, 8.2 and 8.1 the first is a gain, the
/// others are not: with a patience of 1 the last is never scored.
TEST(Rerank, PrunesAndEndsAsTheRulesSay) {
  const Hits candidates{{0, 10}, {1, 9}, {2, 8.5}, {3, 8.2}, {4, 8.1}, {5, 8}, {6, 7}};
  const std::vector<double> exact{5, 4, 6, 1, 9, 9, 9};
  std::vector<Index> scored;
  const auto score = [&](Index id) {
    scored.push_back(id);
    return exact[static_cast<std::size_t>(id)];
  };
  const Reranked pruned = rerank(candidates, score, {.count = 2, .prune = .1});
  EXPECT_EQ(pruned.kept, 5);
  EXPECT_EQ(pruned.hits, (Hits{{4, 9}, {2, 6}}));
  EXPECT_FALSE(pruned.proved);
  scored.clear();
  const Reranked ended = rerank(candidates, score, {.count = 2, .prune = .1, .patience = 1});
  EXPECT_EQ(scored, (std::vector<Index>{0, 1, 2, 3}));
  EXPECT_EQ(ended.scored, 4);
  EXPECT_EQ(ended.hits, (Hits{{2, 6}, {0, 5}}));
  EXPECT_FALSE(ended.proved);
  scored.clear();
  EXPECT_EQ(rerank(candidates, score, {.count = 2, .patience = 2}).scored, 7);
}

/// Gains at 2 and 4 start the count of scores without one anew.
TEST(Rerank, AGainRestoresPatience) {
  Hits candidates;
  for (Index id = 0; id < 8; ++id) candidates.push_back({id, -static_cast<double>(id)});
  const std::vector<double> exact{5, 1, 6, 1, 7, 1, 1, 9};
  const auto score = [&](Index id) { return exact[static_cast<std::size_t>(id)]; };
  const Reranked r = rerank(candidates, score, {.count = 1, .patience = 2});
  EXPECT_EQ(r.scored, 7);
  EXPECT_EQ(r.hits, (Hits{{4, 7}}));
}

/// Below 0, s_k (1 - prune) would lie above s_k and drop the k-th itself.
TEST(Rerank, OfScoresBelowZeroKeepsTheFirstK) {
  const Hits candidates{{0, -1}, {1, -2}, {2, -2.1}, {3, -4}};
  const auto score = [](Index id) { return static_cast<double>(id); };
  const Reranked r = rerank(candidates, score, {.count = 2, .prune = .1});
  EXPECT_EQ(r.kept, 3);
  EXPECT_EQ(r.hits, (Hits{{2, 2}, {1, 1}}));
  const double low = -std::numeric_limits<double>::infinity();
  EXPECT_EQ(rerank(Hits{{0, low}, {1, low}}, score, {.count = 1, .prune = 0.0}).kept, 2);
}

/// s_k - prune s_k is 6 exactly; of an infinite s_k only its equals stay.
TEST(Rerank, KeepsTheLeastScoreItselfAndThoseOfAnInfiniteOne) {
  const auto score = [](Index id) { return static_cast<double>(id); };
  const auto kept = [&](const Hits& candidates, Index count, double prune) {
    return rerank(candidates, score, {.count = count, .prune = prune}).kept;
  };
  EXPECT_EQ(kept({{0, 9}, {1, 8}, {2, 6}, {3, 5.5}}, 2, .25), 3);
  EXPECT_EQ(kept({{0, -7}, {1, -8}, {2, -10}, {3, -10.5}}, 2, .25), 3);
  const double infinity = std::numeric_limits<double>::infinity();
  EXPECT_EQ(kept({{0, infinity}, {1, infinity}, {2, 9}}, 1, .25), 2);
  EXPECT_EQ(kept({{0, 9}, {1, -infinity}, {2, -infinity}}, 2, .25), 3);
}

TEST(Rerank, LargerOptionsScoreASuperset) {
  for (std::uint64_t seed = 2; seed < 6; ++seed) {
    const Stage stage(seed);
    const auto ids = [&](std::optional<double> prune, std::optional<Index> patience) {
      Noting noting{stage};
      const Reranked r =
          rerank(stage.candidates, noting, {.count = 5, .prune = prune, .patience = patience});
      EXPECT_EQ(r.scored, static_cast<Index>(noting.ids.size()));
      return noting.ids;
    };
    const auto within = [](const std::set<Index>& a, const std::set<Index>& b) {
      return std::includes(b.begin(), b.end(), a.begin(), a.end());
    };
    EXPECT_TRUE(within(ids(.05, 3), ids(.2, 3)));
    EXPECT_TRUE(within(ids(.2, 3), ids(.2, 6)));
    EXPECT_TRUE(within(ids(.2, 6), ids(.2, {})));
    EXPECT_EQ(ids(1.0, {}).size(), 60U);  // all scores are at least 0
  }
}

TEST(Rerank, WithBoundsIsTheFullRerankOfFewerScores) {
  for (std::uint64_t seed = 1; seed < 9; ++seed) {
    const Stage stage(seed);
    Bounded bounded(stage);
    const Reranked r = rerank(stage.candidates, bounded, {.count = 5});
    EXPECT_EQ(r.hits, stage.best(5));
    EXPECT_TRUE(r.proved);
    EXPECT_LT(r.scored, 60);
    EXPECT_EQ(r.scored, static_cast<Index>(bounded.ids.size()));
  }
}

/// Whatever says that it is proved is the full rerank; over these seeds some are, and some are not.
TEST(Rerank, ProvedShortcutsAreTheFullRerank) {
  int proved = 0, not_proved = 0;
  for (std::uint64_t seed = 1; seed < 60; ++seed) {
    const Stage stage(seed);
    for (const Index patience : {1, 3, 9}) {
      Bounded bounded(stage);
      const Reranked r =
          rerank(stage.candidates, bounded, {.count = 4, .prune = .3, .patience = patience});
      EXPECT_TRUE(!r.proved || r.hits == stage.best(4)) << seed;
      (r.proved ? proved : not_proved) += 1;
    }
  }
  EXPECT_GT(proved, 5);
  EXPECT_GT(not_proved, 5);
}

/// Exact scores and bounds by id, and which ids were scored.
struct Table {
  std::vector<double> exact, bounds;
  std::vector<Index> scored{};
  double operator()(Index id) {
    scored.push_back(id);
    return exact[static_cast<std::size_t>(id)];
  }
  double bound(const Hit& hit) const { return bounds[static_cast<std::size_t>(hit.id)]; }
};

Hits falling(Index count) {
  Hits candidates;
  for (Index id = 0; id < count; ++id) candidates.push_back({id, static_cast<double>(-id)});
  return candidates;
}

/// 2, 3 and 4 cannot come in: of three scores without gain 1 and 5 are behind when 6 gains.
TEST(Rerank, WhatItsBoundLeavesOutDoesNotCountForPatience) {
  Table table{{5, 1, 1, 1, 1, 1, 8, 1}, {9, 9, 2, 2, 2, 9, 9, 2}};
  const Reranked r = rerank(falling(8), table, {.count = 1, .patience = 3});
  EXPECT_EQ(table.scored, (std::vector<Index>{0, 1, 5, 6}));
  EXPECT_EQ(r.hits, (Hits{{6, 8}}));
  EXPECT_TRUE(r.proved);
}

/// 1 was scored last, without gain: what its bound had promised does not count.
TEST(Rerank, TheLastOneScoredNeedsNoProof) {
  Table table{{5, 4, 3}, {9, 9, 3}};
  EXPECT_TRUE(rerank(falling(3), table, {.count = 1, .patience = 1}).proved);
  EXPECT_EQ(table.scored, (std::vector<Index>{0, 1}));
  table.bounds[2] = 6;
  EXPECT_FALSE(rerank(falling(3), table, {.count = 1, .patience = 1}).proved);
}

/// A bound of the worst of the best leaves a higher id out, but not a lower one; one that is NaN
/// says nothing, and a best score that is NaN is behind all.
TEST(Rerank, BoundsThatAreEqualOrNaN) {
  const double nan = std::nan("");
  Table table{{9, 5, 5, 9}, {9, 5, 5, nan}};
  const Reranked r = rerank(Hits{{1, 9}, {2, 8}, {0, 7}, {3, 6}}, table, {.count = 1});
  EXPECT_EQ(table.scored, (std::vector<Index>{1, 0, 3}));
  EXPECT_EQ(r.hits, (Hits{{0, 9}}));
  EXPECT_TRUE(r.proved);
  Table first{{nan, 1, nan}, {9, 1, 1}};
  EXPECT_EQ(rerank(falling(3), first, {.count = 1}).hits, (Hits{{1, 1}}));
  Table last{{5, 4, 9}, {9, 9, nan}};
  EXPECT_FALSE(rerank(falling(3), last, {.count = 1, .patience = 1}).proved);
}

/// Of scores that are all NaN the lower id ranks first, and yet none is a gain.
TEST(Rerank, NaNIsNoGain) {
  const auto score = [](Index) { return std::nan(""); };
  const Hits candidates{{5, 9}, {4, 8}, {3, 7}, {2, 6}, {1, 5}};
  const Reranked r = rerank(candidates, score, {.count = 1, .patience = 2});
  EXPECT_EQ(r.scored, 3);
  EXPECT_EQ(r.hits[0].id, 3);
  EXPECT_FALSE(r.proved);
}

/// A scorer of several at once gets all of those that are sure to be scored.
TEST(Rerank, ScoresSeveralAtOnceWhereItCan) {
  struct Many {
    const Stage& stage;
    std::vector<std::size_t> sizes{};
    double operator()(Index id) { return stage(id); }
    void score_all(std::span<const Index> ids, std::span<double> scores) {
      sizes.push_back(ids.size());
      for (std::size_t i = 0; i < ids.size(); ++i) scores[i] = stage(ids[i]);
    }
  };
  const Stage stage(4);
  Many many{stage};
  EXPECT_EQ(rerank(stage.candidates, many, {.count = 5}).hits, stage.best(5));
  const Reranked ended = rerank(stage.candidates, many, {.count = 5, .patience = 2});
  EXPECT_EQ(ended.hits, rerank(stage.candidates, stage, {.count = 5, .patience = 2}).hits);
  EXPECT_EQ(many.sizes, (std::vector<std::size_t>{60, 5}));
}

TEST(Rerank, RanksNaNLastAndTakesFewCandidates) {
  const Hits candidates{{0, 3}, {1, 2}, {2, 1}};
  const auto score = [](Index id) { return id == 0 ? std::nan("") : static_cast<double>(id); };
  const Reranked r = rerank(candidates, score, {.count = 2});
  EXPECT_EQ(r.hits, (Hits{{2, 2}, {1, 1}}));
  const Reranked all = rerank(candidates, score, {.count = 9, .prune = .0, .patience = 1});
  ASSERT_EQ(all.hits.size(), 3U);
  EXPECT_EQ(all.hits[2].id, 0);
  EXPECT_TRUE(all.proved);
  EXPECT_TRUE(rerank(Hits{}, score, {.count = 2}).hits.empty());
}

TEST(Rerank, RefusesWhatDoesNotFit) {
  const char* const f = "retrieval::rerank";
  const double nan = std::nan(""), infinity = std::numeric_limits<double>::infinity();
  const auto never = [](Index) -> double {
    ADD_FAILURE() << "scored before it was refused";
    return 0;
  };
  const auto refused = [&](const Hits& candidates, const RerankOptions& o, const char* argument) {
    refusal([&] { rerank(candidates, never, o); }, f, argument);
  };
  refused({{0, 1}, {1, 2}}, {}, "candidates");
  refused({{0, 1}, {0, 1}}, {}, "candidates");
  refused({{-1, 1}}, {}, "candidates");
  refused({{0, nan}}, {}, "candidates");
  refused({{0, 1}}, {.count = 0}, "count");
  for (const double bad : {-.1, nan, infinity}) refused({{0, 1}}, {.prune = bad}, "prune");
  refused({{0, 1}}, {.patience = 0}, "patience");
}

}  // namespace
}  // namespace retrieval_rerank_test
