// SPDX-License-Identifier: Apache-2.0
// BM25 against a count by hand, the definition, and its properties.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <random>
#include <span>
#include <vector>

#include <pare/retrieval/bm25.hpp>

#include "support/properties.hpp"

namespace retrieval_bm25_test {
namespace {

using pare::Index;
using pare::retrieval::Bm25Idf;
using pare::retrieval::Bm25Index;
using pare::retrieval::Bm25Options;
using pare::retrieval::Hit;
using pare::retrieval::reference_bm25;
using pare::testing::refusal;
using Terms = std::vector<std::int32_t>;
using Offsets = std::vector<Index>;

struct Documents {
  Terms tokens;
  Offsets offsets{0};

  void add(const Terms& document) {
    tokens.insert(tokens.end(), document.begin(), document.end());
    offsets.push_back(static_cast<Index>(tokens.size()));
  }
};

Documents few() {
  Documents d;
  d.add({0, 1, 1, 3});
  d.add({});
  d.add({1, 2});
  d.add({2, 2, 2, 2, 2, 5});
  return d;
}

/// Of few(), lengths 4, 0, 2, 6, mean 3: term 1 stands twice in document 0 and once in 2.
TEST(Bm25, IsThatOfACountByHand) {
  const Documents d = few();
  const double idf = std::log(1 + (4 - 2 + .5) / (2 + .5));
  const double in_0 = idf * 2 * 2.2 / (2 + 1.2 * (.25 + .75 * 4 / 3));
  const double in_2 = idf * 1 * 2.2 / (1 + 1.2 * (.25 + .75 * 2 / 3));
  const auto scores = reference_bm25(d.tokens, d.offsets, Terms{1});
  EXPECT_NEAR(scores[0], in_0, 1e-15);
  EXPECT_NEAR(scores[2], in_2, 1e-15);
  EXPECT_EQ(scores[1] + scores[3], 0);
  const auto hits = Bm25Index(d.tokens, d.offsets).search(Terms{1, 1}, 5);
  ASSERT_EQ(hits.size(), 2U);
  EXPECT_EQ(hits[0].id, 0);
  EXPECT_NEAR(hits[0].score, 2 * in_0, 1e-6);
  EXPECT_NEAR(hits[1].score, 2 * in_2, 1e-6);
}

/// Term 2 is held by half of the documents: Robertson's idf of it is ln 1 = 0, and a document that
/// holds it is a hit all the same. Term 7 of most documents has an idf below 0.
TEST(Bm25, FormsOfIdf) {
  const Documents d = few();
  const auto score = [&](Bm25Idf idf) {
    return reference_bm25(d.tokens, d.offsets, Terms{2}, {.k1 = 0, .b = 0, .idf = idf})[2];
  };
  EXPECT_NEAR(score(Bm25Idf::Atire), std::log(2.0), 1e-15);
  EXPECT_NEAR(score(Bm25Idf::Lucene), std::log(2.0), 1e-15);
  EXPECT_EQ(score(Bm25Idf::Robertson), 0);
  const Bm25Index index(d.tokens, d.offsets, {.idf = Bm25Idf::Robertson});
  const auto hits = index.search(Terms{2}, 9);
  EXPECT_EQ(hits, (std::vector<Hit>{{2, 0}, {3, 0}}));
  Documents most;
  for (int i = 0; i < 4; ++i) most.add({7});
  most.add({1});
  const auto below = Bm25Index(most.tokens, most.offsets, {.idf = Bm25Idf::Robertson});
  ASSERT_EQ(below.search(Terms{7}, 2).size(), 2U);
  EXPECT_LT(below.search(Terms{7}, 2)[0].score, 0);
}

/// All hold the term, whose idf is below 0: the longer, the better, and those come last.
TEST(Bm25, FindsWhatIsBetterLaterWhereAllScoresAreBelowZero) {
  Documents d;
  for (std::size_t length = 0; length < 200; ++length) {
    Terms document(length + 1, 1);
    document[0] = 7;
    d.add(document);
  }
  const auto hits = Bm25Index(d.tokens, d.offsets, {.idf = Bm25Idf::Robertson}).search(Terms{7}, 2);
  ASSERT_EQ(hits.size(), 2U);
  EXPECT_EQ(hits[0].id, 199);
  EXPECT_EQ(hits[1].id, 198);
  EXPECT_LT(hits[0].score, 0);
}

/// k1 times the length of the last document overflows, and an idf below 0 makes its score -0: it is
/// a hit, of +0. Of a term of all documents, idf k1 overflows as well, and is NaN nowhere.
TEST(Bm25, OfTheLargestK1HasHitsOfZeroAndNoNaN) {
  Documents d;
  for (int i = 0; i < 4; ++i) d.add({3});
  for (int i = 0; i < 5; ++i) d.add({7, 7, 3});
  Terms longest(60, 3);
  longest[0] = 7;
  d.add(longest);
  const Bm25Options options{.k1 = 1e308, .idf = Bm25Idf::Robertson};
  const Bm25Index index(d.tokens, d.offsets, options);
  const auto hits = index.search(Terms{7}, 20);
  ASSERT_EQ(hits.size(), 6U);
  EXPECT_EQ(hits[0], (Hit{9, 0}));
  EXPECT_FALSE(std::signbit(hits[0].score));
  EXPECT_LT(hits[1].score, 0);
  EXPECT_EQ(index.search(Terms{3}, 20).size(), 10U);
  for (const double score : reference_bm25(d.tokens, d.offsets, Terms{3, 7}, options))
    EXPECT_TRUE(std::isfinite(score));
}

/// Documents of some lengths over a few hundred terms, of which low ids are frequent; more than two
/// blocks of sums.
Documents many(Index documents) {
  std::mt19937_64 random(5);
  Documents d;
  for (Index i = 0; i < documents; ++i) {
    Terms document(random() % 12);
    for (auto& t : document) t = static_cast<std::int32_t>(random() % (random() % 400 + 1));
    d.add(document);
  }
  return d;
}

/// The k best by the definition in double, from a map of counts; a score may differ by the rounding
/// of terms and sums, and documents of scores as close as that may change places.
TEST(Bm25, SearchFindsTheBestOfTheDefinition) {
  const Documents d = many(9000);
  for (const Bm25Options& o :
       {Bm25Options{}, Bm25Options{.k1 = 2, .b = .3, .idf = Bm25Idf::Robertson},
        Bm25Options{.idf = Bm25Idf::Atire}}) {
    const Bm25Index index(d.tokens, d.offsets, o);
    for (const Terms& query : {Terms{3, 350, 17}, Terms{399, 0}, Terms{1, 1, 2, 3000}}) {
      const auto wanted = reference_bm25(d.tokens, d.offsets, query, o);
      std::vector<Hit> all;
      double magnitude = 0;
      for (Index i = 0; i < 9000; ++i) {
        bool met = false;
        for (Index t = d.offsets[static_cast<std::size_t>(i)];
             t < d.offsets[static_cast<std::size_t>(i) + 1]; ++t)
          met |= std::count(query.begin(), query.end(), d.tokens[static_cast<std::size_t>(t)]) > 0;
        const double score = wanted[static_cast<std::size_t>(i)];
        magnitude = std::max(magnitude, std::abs(score));
        if (met) all.push_back({i, score});
      }
      std::sort(all.begin(), all.end(), pare::retrieval::ranks_before);
      const double bound = 6 * 0x1p-24 * 2 * magnitude;  // 4 terms, 2 roundings more; sums cancel
      for (const Index k : {1, 10, 9000}) {
        const auto hits = index.search(query, k);
        ASSERT_EQ(hits.size(), std::min(all.size(), static_cast<std::size_t>(k)));
        for (std::size_t i = 0; i < hits.size(); ++i) {
          EXPECT_NEAR(hits[i].score, wanted[static_cast<std::size_t>(hits[i].id)], bound);
          EXPECT_NEAR(hits[i].score, all[i].score, bound);
          EXPECT_TRUE(i == 0 || ranks_before(hits[i - 1], hits[i]));
        }
      }
    }
  }
}

TEST(Bm25, ManyQueriesAreThoseOneByOne) {
  const Documents d = many(500);
  const Bm25Index index(d.tokens, d.offsets);
  const Terms queries{3, 9, 9, 20, 400, 1};
  const Offsets offsets{0, 2, 2, 5, 6};
  const auto lists = index.search(pare::simd.threads(3), queries, offsets, 7);
  EXPECT_EQ(lists, index.search(pare::reference, queries, offsets, 7));
  EXPECT_TRUE(lists[1].empty());
  for (std::size_t q = 0; q < 4; ++q)
    EXPECT_EQ(
        lists[q],
        index.search(Terms(queries.begin() + offsets[q], queries.begin() + offsets[q + 1]), 7));
}

TEST(Bm25, OfNothing) {
  const Bm25Index none(Terms{}, Offsets{0}), empty(Terms{}, Offsets{0, 0, 0});
  EXPECT_EQ(none.documents(), 0);
  EXPECT_TRUE(none.search(Terms{1}, 3).empty());
  EXPECT_TRUE(empty.search(Terms{0}, 3).empty());
  const Documents d = few();
  const Bm25Index index(d.tokens, d.offsets);
  EXPECT_TRUE(index.search(Terms{}, 3).empty());
  EXPECT_TRUE(index.search(Terms{4, 1000}, 3).empty());
  EXPECT_EQ(index.frequency(2), 2);
  EXPECT_EQ(index.frequency(4) + index.frequency(9), 0);
  EXPECT_EQ(index.postings(), 7);
}

TEST(Bm25, RefusesWhatDoesNotFit) {
  const char* const f = "retrieval::Bm25Index";
  const Terms tokens{1, 2, 3};
  const auto made = [&](const Terms& t, const Offsets& o, const Bm25Options& options,
                        const char* argument) {
    refusal([&] { Bm25Index(t, o, options); }, f, argument);
    refusal([&] { reference_bm25(t, o, Terms{}, options); }, "retrieval::reference_bm25", argument);
  };
  made({1, -2, 3}, {0, 3}, {}, "tokens");
  made(tokens, {}, {}, "offsets");
  made(tokens, {1, 3}, {}, "offsets");
  made(tokens, {0, 2}, {}, "offsets");
  made(tokens, {0, 3, 2, 3}, {}, "offsets");
  for (const double bad : {-.5, std::nan(""), std::numeric_limits<double>::infinity()}) {
    made(tokens, {0, 3}, {.k1 = bad}, "k1");
    made(tokens, {0, 3}, {.b = bad}, "b");
  }
  made(tokens, {0, 3}, {.b = 1.5}, "b");
  made(tokens, {0, 3}, {.idf = static_cast<Bm25Idf>(3)}, "idf");
  // Sizes are looked at before what they say is read.
  const Index many = Index{1} << 31;
  const std::span<const std::int32_t> long_one(tokens.data(), static_cast<std::size_t>(many));
  const Offsets long_offsets{0, many};
  refusal([&] { Bm25Index(long_one, long_offsets); }, f, "offsets");
  const std::span<const Index> offsets(long_offsets.data(), static_cast<std::size_t>(many) + 1);
  refusal([&] { Bm25Index(tokens, offsets); }, f, "offsets");
  const Bm25Index index(tokens, Offsets{0, 3});
  refusal([&] { index.search(Terms{-1}, 1); }, "retrieval::Bm25Index::search", "query");
  refusal([&] { index.search(Terms{1}, 0); }, "retrieval::Bm25Index::search", "k");
  refusal([&] { index.search(pare::simd, Terms{1}, Offsets{0, 2}, 1); },
          "retrieval::Bm25Index::search", "offsets");
  refusal([&] { index.frequency(-1); }, "retrieval::Bm25Index::frequency", "term");
}

}  // namespace
}  // namespace retrieval_bm25_test
