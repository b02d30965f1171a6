// SPDX-License-Identifier: Apache-2.0

#include "search/claims.hpp"

#include "search/arguments.hpp"
#include "search/rankings.hpp"
#include "search/savings.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <vector>

namespace studies_search_claims_test {
namespace {

using namespace search;
using models::Mean;

TEST(SearchClaims, DifferencesArePaired) {
  // 1, 1, 4: mean 2, squares about it 6, error sqrt(6 / 2 / 3) = 1.
  const Mean gain = paired({2, 3, 9}, {1, 2, 5});
  EXPECT_DOUBLE_EQ(gain.value, 2);
  EXPECT_DOUBLE_EQ(gain.error, 1);
}

TEST(SearchClaims, TwoStandardErrorsDecide) {
  EXPECT_EQ(is_better({.value = 2.1, .error = 1}), Outcome::Confirmed);
  EXPECT_EQ(is_better({.value = 1.9, .error = 1}), Outcome::Undecided);
  EXPECT_EQ(is_better({.value = -1.9, .error = 1}), Outcome::Undecided);
  EXPECT_EQ(is_better({.value = -2.1, .error = 1}), Outcome::Refuted);
  EXPECT_EQ(is_better({.value = 0, .error = 0}), Outcome::Undecided);

  EXPECT_EQ(loses_nothing({.value = -.021, .error = .01}, .1), Outcome::Refuted);
  EXPECT_EQ(loses_nothing({.value = -.019, .error = .01}, .1), Outcome::Confirmed);
  EXPECT_EQ(loses_nothing({.value = -.019, .error = .01}, .03), Outcome::Undecided);
  EXPECT_EQ(loses_nothing({.value = .5, .error = .01}, 0), Outcome::Confirmed);
  EXPECT_EQ(loses_nothing({.value = 0, .error = 0}, 0), Outcome::Confirmed);

  EXPECT_EQ(reaches({.value = .99, .error = .004}, .98), Outcome::Confirmed);
  EXPECT_EQ(reaches({.value = .98, .error = .004}, .98), Outcome::Undecided);
  EXPECT_EQ(reaches({.value = .97, .error = .004}, .98), Outcome::Refuted);
}

TEST(SearchClaims, OutcomesAreJoined) {
  constexpr Outcome yes = Outcome::Confirmed, no = Outcome::Refuted, open = Outcome::Undecided;
  EXPECT_EQ(both(yes, yes), yes);
  EXPECT_EQ(both(yes, open), open);
  EXPECT_EQ(both(open, yes), open);
  EXPECT_EQ(both(open, no), no);
  EXPECT_EQ(any_of({no, yes}), yes);
  EXPECT_EQ(any_of({no, open}), open);
  EXPECT_EQ(any_of({no, no}), no);
  EXPECT_EQ(given(yes, no), no);
  EXPECT_EQ(given(no, yes), Outcome::NoCase);
  EXPECT_EQ(given(open, yes), Outcome::NoCase);
  EXPECT_STREQ(word_of(Outcome::NoCase), "no case");
  EXPECT_STREQ(word_of(yes), "confirmed");
  EXPECT_STREQ(word_of(no), "refuted");
  EXPECT_STREQ(word_of(open), "undecided");
}

TEST(SearchClaims, TheBestOfTheWaysThatDecideIsShown) {
  const Saving slow{"slow", 1.5, 1.4, {.value = 0, .error = .001}},
      lossy{"lossy", 3, 2.8, {.value = -.1, .error = .001}},
      fine{"fine", 2, 1.7, {.value = .01, .error = .001}},
      finest{"finest", 2.5, 1.6, {.value = 0, .error = .001}},
      blurred{"blurred", 4, 4, {.value = 0, .error = .1}};
  const auto starts = [](const Claim& claim, const std::string& words) {
    return claim.numbers.starts_with(words);
  };
  const Claim good = claim_of("", {slow, lossy, fine, finest, blurred}, &Saving::second);
  EXPECT_EQ(good.outcome, Outcome::Confirmed);
  EXPECT_TRUE(starts(good, "finest 2.50 x, nDCG +0.0000")) << good.numbers;
  const Claim open = claim_of("", {slow, lossy, fine, blurred}, &Saving::whole);
  EXPECT_EQ(open.outcome, Outcome::Undecided);
  EXPECT_TRUE(starts(open, "blurred 4.00 x")) << open.numbers;
  const Claim bad = claim_of("", {lossy, slow}, &Saving::second);
  EXPECT_EQ(bad.outcome, Outcome::Refuted);
  EXPECT_TRUE(starts(bad, "slow 1.50 x")) << bad.numbers;
}

TEST(SearchRankings, OneRelevantDocumentIsJudgedByItsRank) {
  const Ranked ranked{"", {{{7, 3.0}, {5, 2.0}}, {{5, 1.0}}, {}}, 0, 0};
  const std::vector<double> ndcg = ndcg_of(ranked, [](Index) { return Index{5}; });
  ASSERT_EQ(ndcg.size(), 3u);
  EXPECT_NEAR(ndcg[0], 1 / std::log2(3.0), 1e-15);
  EXPECT_EQ(ndcg[1], 1);
  EXPECT_EQ(ndcg[2], 0);
}

TEST(SearchRankings, OverlapIsTheShareOfTheExactHits) {
  const Ranked exact{"", {{{1, 3.0}, {2, 2.0}, {3, 2.0}, {4, 1.0}}}, 0, 0};
  const Ranked other{"", {{{4, 9.0}, {8, 8.0}, {2, 7.0}, {9, 0.0}}}, 0, 0};
  EXPECT_EQ(overlaps(other, exact), std::vector<double>{.5});
  EXPECT_EQ(overlaps(exact, exact), std::vector<double>{1});
}

TEST(SearchRankings, TheBestOfScoresFallAndEqualOnesRise) {
  const Hits best = best_of({1, 5, 3, 5, std::nanf("")}, 3);
  EXPECT_EQ(best, (Hits{{1, 5.0}, {3, 5.0}, {2, 3.0}}));
  EXPECT_EQ(best_of({1}, 3).size(), 1u);
  EXPECT_EQ(first_of(best, 2), (Hits{{1, 5.0}, {3, 5.0}}));
}

Arguments parse(std::vector<const char*> words) {
  words.insert(words.begin(), "search");
  return parse_arguments(static_cast<int>(words.size()), words.data());
}

TEST(SearchArguments, AreRead) {
  const Arguments a = parse({"--task=half", "--documents", "2000", "--queries", "50", "--seed", "3",
                             "--sample", "1024", "--centroids=64", "--threads", "2", "--wordnet",
                             "w", "--model", "m", "--cache", "c"});
  EXPECT_EQ(a.task, Task::Half);
  EXPECT_EQ(a.documents, 2000u);
  EXPECT_EQ(a.queries, 50u);
  EXPECT_EQ(a.seed, 3u);
  EXPECT_EQ(a.sample, 1024);
  EXPECT_EQ(a.centroids, 64);
  EXPECT_EQ(a.threads, 2);
  EXPECT_EQ(a.wordnet, "w");
  EXPECT_EQ(a.model, "m");
  EXPECT_EQ(a.cache, "c");
  EXPECT_EQ(parse({}).task, Task::Reverse);
  EXPECT_TRUE(parse({"-h"}).help);
}

TEST(SearchArguments, WhatMakesNoSenseIsRefused) {
  for (const auto& words : std::vector<std::vector<const char*>>{{"--task", "whole"},
                                                                 {"--documents", "99"},
                                                                 {"--queries", "1"},
                                                                 {"--sample", "15"},
                                                                 {"--centroids", "0"},
                                                                 {"--threads", "0"},
                                                                 {"--cache", ""},
                                                                 {"--seed"},
                                                                 {"word"}})
    EXPECT_THROW(parse(words), command_line::UsageError) << words.front();
}

}  // namespace
}  // namespace studies_search_claims_test
