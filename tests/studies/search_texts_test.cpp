// SPDX-License-Identifier: Apache-2.0

#include "search/keyword_index.hpp"
#include "search/texts.hpp"
#include "search/wordnet.hpp"

#include <gtest/gtest.h>

#include <cstdio>
#include <fstream>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

namespace studies_search_texts_test {
namespace {

using namespace search;
using Words = std::vector<std::string>;

/// Three synsets in the form of data.noun behind a line of the licence; the second is a kind of the
/// first by its hypernym, and of the third by its instance hypernym.
constexpr const char* data_noun =
    "  1 This software and database is being provided to you\n"
    "00000040 03 n 01 animal 0 001 ~ 00000080 n 0000 | a living thing; \"no animal can\"; \"two\"  "
    "\n"
    "00000080 05 n 02 dog 0 Canis_familiaris 0 003 @ 00000040 n 0000 ~ 00000120 n 0000 "
    "@i 00000120 n 0000 | a Dog's wild cousin, the dog (canis) that barks  \n"
    "00000120 05 n 01 pup 0 002 @ 00000080 n 0000 @ 00000080 v 0000 | young dog  \n";

std::vector<Synset> read(const std::string& text) {
  const std::string path = testing::TempDir() + "pare_search_" +
                           testing::UnitTest::GetInstance()->current_test_info()->name();
  std::ofstream(path, std::ios::binary) << text;
  try {
    auto synsets = read_synsets(path);
    std::remove(path.c_str());
    return synsets;
  } catch (...) {
    std::remove(path.c_str());
    throw;
  }
}

TEST(SearchTexts, SynsetsAreReadWithTheirKinds) {
  const std::vector<Synset> synsets = read(data_noun);
  ASSERT_EQ(synsets.size(), 3u);
  EXPECT_EQ(synsets[0].words, Words{"animal"});
  EXPECT_EQ(synsets[0].definition, "a living thing");
  EXPECT_EQ(synsets[0].examples, "\"no animal can\"; \"two\"");
  EXPECT_EQ(synsets[1].words, (Words{"dog", "Canis familiaris"}));
  EXPECT_EQ(synsets[1].kinds, (std::vector<Index>{0, 2}));
  EXPECT_EQ(synsets[1].examples, "");
  EXPECT_EQ(synsets[2].kinds, std::vector<Index>{1});
}

TEST(SearchTexts, WhatIsNoSynsetIsRefused) {
  const auto refused = [](const std::string& text) {
    EXPECT_THROW(read(text), std::runtime_error) << text;
  };
  refused("");
  refused("  1 only a licence\n");
  refused("00000040 03 n 01 animal 0 000\n");                           // no gloss
  refused("00000040 03 n 02 animal 0 000 | text\n");                    // fewer words
  refused("00000040 03 n 01 animal 0 001 @ 0000008x n 0000 | text\n");  // no number
  refused("00000040 03 n 01 animal 0 001 @ 00000080 n 0000 | text\n");  // points to none
  refused("00000040 03 n 01 animal 0 002 ~ 00000040 n 0000 | text\n");  // fewer pointers
  EXPECT_THROW(read_synsets(testing::TempDir() + "pare_no_such_file"), std::runtime_error);
}

TEST(SearchTexts, DocumentsOfReverseHoldNoDefinition) {
  const std::vector<Synset> synsets = read(data_noun);
  EXPECT_EQ(document_text(synsets, 0, Task::Gloss),
            "animal: a living thing; \"no animal can\"; \"two\"");
  EXPECT_EQ(document_text(synsets, 0, Task::Half), document_text(synsets, 0, Task::Gloss));
  EXPECT_EQ(document_text(synsets, 0, Task::Reverse), "animal; \"no animal can\"; \"two\"");
  EXPECT_EQ(document_text(synsets, 1, Task::Reverse), "dog, Canis familiaris; animal; pup");
}

TEST(SearchTexts, QueriesLackTheWordsOfTheirSynset) {
  const std::vector<Synset> synsets = read(data_noun);
  EXPECT_EQ(query_words(synsets[1]), (Words{"a", "s", "wild", "cousin", "the", "that", "barks"}));
}

TEST(SearchTexts, OfADefinitionHalfIsAskedInItsOrderAndTheSameForTheSameSeed) {
  const std::vector<Synset> synsets = read(data_noun);
  const std::vector<std::size_t> all{0, 1, 2};
  const auto whole = draw_queries(synsets, all, Task::Reverse, 10, 1);
  ASSERT_EQ(whole.size(), 1u);  // the others have fewer than four words
  EXPECT_EQ(whole[0].document, 1);
  const auto half = draw_queries(synsets, all, Task::Half, 10, 1);
  ASSERT_EQ(half[0].words.size(), 4u);
  auto place = whole[0].words.begin();
  for (const std::string& word : half[0].words) {
    place = std::find(place, whole[0].words.end(), word);
    ASSERT_NE(place, whole[0].words.end());
    ++place;
  }
  EXPECT_EQ(half[0].words, draw_queries(synsets, all, Task::Half, 10, 1)[0].words);
  bool differs = false;
  for (std::uint64_t seed = 2; seed < 8; ++seed)
    differs = differs || half[0].words != draw_queries(synsets, all, Task::Half, 10, seed)[0].words;
  EXPECT_TRUE(differs);
}

TEST(SearchTexts, FewerDocumentsAreEvenlySpread) {
  EXPECT_EQ(spread(10, 3), (std::vector<std::size_t>{0, 3, 6}));
  EXPECT_EQ(spread(3, 10), (std::vector<std::size_t>{0, 1, 2}));
}

TEST(SearchTexts, KeywordsAreWordsOfTwoLettersAndMore) {
  const std::vector<std::string> documents{"A red dog: a dog.", "a cat", "red, red cats"};
  const KeywordIndex index(documents);
  const auto terms = index.terms(Words{"a", "dog", "unheard", "red", "dog"});
  ASSERT_EQ(terms.size(), 4u);
  EXPECT_EQ(index.frequencies(terms), (std::vector<Index>{2, 1, 0}));  // red, dog, unheard
  const auto hits = index.search(index.terms(Words{"dog"}), 5);
  ASSERT_EQ(hits.size(), 1u);
  EXPECT_EQ(hits[0].id, 0);
}

}  // namespace
}  // namespace studies_search_texts_test
