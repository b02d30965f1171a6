// SPDX-License-Identifier: Apache-2.0

#include "recall_text/text.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

namespace studies_recall_text_test {
namespace {

using recall::Index;
using recall::InputError;
using recall::Text;
using recall::Words;

const std::filesystem::path& data_file() {
  static const auto path =
      std::filesystem::path(PARE_EXAMPLES_DATA) / "wordnet_glosses" / "glosses.txt";
  return path;
}

/// The sentences of tokens [begin, end), each as one string.
std::vector<std::string> sentences(const Text& text, Index begin, Index end) {
  std::vector<std::string> all(1);
  for (Index i = begin; i < end; ++i) {
    const std::string& word = text.vocabulary[static_cast<std::size_t>(text.word(i))];
    all.back() += word + ' ';
    if (word == recall::full_stop) all.emplace_back();
  }
  EXPECT_TRUE(all.back().empty()) << "the text does not end with a full stop";
  all.pop_back();
  return all;
}

template <class F>
std::string refusal(const F& call) {
  try {
    call();
  } catch (const InputError& error) {
    return error.what();
  }
  return "not refused";
}

std::vector<Words> read(const std::string& content) {
  const std::string path = testing::TempDir() + "pare_recall_glosses.txt";
  std::ofstream(path, std::ios::binary) << content;
  std::vector<Words> glosses;
  try {
    glosses = recall::read_glosses(path);
  } catch (...) {
    std::remove(path.c_str());
    throw;
  }
  std::remove(path.c_str());
  return glosses;
}

TEST(RecallText, WordsAreLowerCaseRunsOfLettersAndDigits) {
  EXPECT_EQ(recall::split_words("A well-known (3rd) Thing; it's one's own"),
            (Words{"a", "well", "known", "3rd", "thing", "it's", "one's", "own"}));
  EXPECT_EQ(recall::split_words("'quoted' dogs' '' a''b z"),
            (Words{"quoted", "dogs", "a", "b", "z"}));
  EXPECT_EQ(recall::split_words(""), Words{});
  EXPECT_EQ(recall::split_words(" ,;-- "), Words{});
  EXPECT_EQ(recall::split_words("end'"), Words{"end"});
}

TEST(RecallText, EveryLineIsAGlossThatEndsWithAFullStop) {
  EXPECT_EQ(read("# a comment\nAn entity\r\n\n --- \nthat, which\n"),
            (std::vector<Words>{{"an", "entity", "."}, {"that", "which", "."}}));
  EXPECT_EQ(read("no newline"), (std::vector<Words>{{"no", "newline", "."}}));
}

TEST(RecallText, AFileThatCannotBeUsedIsRefused) {
  EXPECT_EQ(refusal([] { recall::read_glosses("/nonexistent/glosses.txt"); }),
            "/nonexistent/glosses.txt: cannot be opened for reading");
  EXPECT_THROW(recall::read_glosses(testing::TempDir()), InputError);
  EXPECT_THROW(read("# only\n;;\n"), InputError);
}

TEST(RecallText, TheSecondHalfIsThePermutedFirst) {
  const std::vector<Words> glosses = recall::read_glosses(data_file());
  for (const Index tokens : {4, 6, 100, 4096, 65536}) {
    const Text text = recall::recall_text(glosses, tokens, 1);
    ASSERT_EQ(text.size(), tokens);
    auto first = sentences(text, 0, tokens / 2), second = sentences(text, tokens / 2, tokens);
    if (tokens >= 4096) {
      EXPECT_NE(first, second);
    }
    std::sort(first.begin(), first.end());
    std::sort(second.begin(), second.end());
    EXPECT_EQ(first, second) << tokens;
  }
}

TEST(RecallText, TheFirstHalfIsTheGlossesInOrderTheLastOneCut) {
  const std::vector<Words> glosses = {{"a", "b", "."}, {"c", "."}, {"d", "e", "f", "."}};
  const Text text = recall::recall_text(glosses, 14, 5);
  EXPECT_EQ(sentences(text, 0, 7), (std::vector<std::string>{"a b . ", "c . ", "d . "}));
  EXPECT_EQ(text.vocabulary, (Words{"a", "b", ".", "c", "d"}));
  EXPECT_EQ(recall::count_words(text), (std::vector<Index>{2, 2, 6, 2, 2}));
}

TEST(RecallText, TheOrderIsAFunctionOfTheSeed) {
  const std::vector<Words> glosses = recall::read_glosses(data_file());
  const Text text = recall::recall_text(glosses, 2048, 1);
  EXPECT_EQ(text.words, recall::recall_text(glosses, 2048, 1).words);
  EXPECT_NE(text.words, recall::recall_text(glosses, 2048, 2).words);
}

TEST(RecallText, LengthsThatCannotBeAreRefused) {
  const std::vector<Words> glosses = {{"a", "b", "."}, {"c", "."}};
  EXPECT_EQ(recall::recall_text(glosses, 10, 0).size(), 10);
  EXPECT_EQ(refusal([&] { recall::recall_text(glosses, 12, 0); }),
            "there are not glosses enough for a text of 12 tokens, only for 10");
  for (const Index tokens : {-2, 0, 2, 5})
    EXPECT_THROW(recall::recall_text(glosses, tokens, 0), InputError) << tokens;
}

/// The figures that the README beside the data states.
TEST(WordNetGlosses, HoldWhatTheyAreSaidToHold) {
  const std::vector<Words> glosses = recall::read_glosses(data_file());
  std::size_t words = 0;
  for (const Words& gloss : glosses) words += gloss.size();
  EXPECT_EQ(glosses.size(), 2799u);
  EXPECT_EQ(words, 32769u);
}

}  // namespace
}  // namespace studies_recall_text_test
