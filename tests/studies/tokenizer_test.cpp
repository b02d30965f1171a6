// SPDX-License-Identifier: Apache-2.0

#include "language_model/tokenizer.hpp"

#include "io/gguf_writer.hpp"
#include "language_model/stream_decoder.hpp"
#include "studies/small_vocabulary.hpp"

#include <gtest/gtest.h>

#include <random>
#include <regex>
#include <set>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace studies_tokenizer_test {
namespace {

using namespace language_model;
using namespace std::string_view_literals;
using language_model::testing::VocabularyMaker;
using Tokens = std::vector<Token>;

std::vector<std::string> pieces(std::string_view text) {
  std::vector<std::string> all;
  for_each_piece(text, [&](std::string_view piece) { all.emplace_back(piece); });
  return all;
}

/// The message of the refusal, or "(accepted)".
template <class Call>
std::string refusal(const Call& call) {
  try {
    call();
  } catch (const std::invalid_argument& error) {
    return error.what();
  }
  return "(accepted)";
}

std::string random_text(std::string_view alphabet, std::size_t size, std::mt19937& random) {
  std::string text;
  for (std::size_t i = 0; i < size; ++i) text += alphabet[random() % alphabet.size()];
  return text;
}

TEST(Pieces, EveryNumberStandsAloneAndTheBlankBeforeItToo) {
  using V = std::vector<std::string>;
  EXPECT_EQ(pieces("in 2024, x=3"), (V{"in", " ", "2", "0", "2", "4", ",", " x", "=", "3"}));
  EXPECT_EQ(pieces("²½Ⅷ٣"), (V{"²", "½", "Ⅷ", "٣"}));
  EXPECT_EQ(pieces("  5"), (V{"  ", "5"}));
}

TEST(Pieces, WordsTakeTheBlankBeforeThemAndSpacesKeepTheRest) {
  using V = std::vector<std::string>;
  EXPECT_EQ(pieces("a  b\n c\n\nd\ne \n"),
            (V{"a", " ", " b", "\n", " c", "\n", "\n", "d", "\n", "e", " \n"}));
  EXPECT_EQ(pieces("it's I'LL we'll!'s"),
            (V{"it", "'s", " I", "'", "LL", " we", "'ll", "!'", "s"}));
  EXPECT_EQ(pieces("naïve 日本\u3000e\u0301"), (V{"naïve", " 日本", "\u3000", "e", "\u0301"}));
}

TEST(Pieces, AreThoseOfThePatternOnAscii) {
  const std::regex pattern(
      "'s|'t|'re|'ve|'m|'ll|'d| ?[A-Za-z]+| ?[^\\sA-Za-z0-9]+|\\s+(?!\\S)|\\s");
  std::mt19937 random(5);
  for (int run = 0; run < 2000; ++run) {
    const std::string text = random_text("ab stremvld'!- \n\t 12", 1 + random() % 24, random);
    std::vector<std::string> wanted;
    for (std::size_t begin = 0; begin < text.size();) {
      const std::size_t end = std::min(text.find_first_of("0123456789", begin), text.size());
      const std::string between = text.substr(begin, end - begin);
      for (std::sregex_iterator at(between.begin(), between.end(), pattern), none; at != none; ++at)
        wanted.push_back(at->str());
      if (end < text.size()) wanted.emplace_back(1, text[end]);
      begin = end + 1;
    }
    ASSERT_EQ(pieces(text), wanted) << text;
  }
}

TEST(Pieces, ClassesAreThoseOfUnicode) {
  using enum CharacterClass;
  const std::pair<char32_t, CharacterClass> known[] = {
      {U'a', Letter},    {U'0', Number},   {U' ', Space},     {U'_', Sign},      {0x1c, Sign},
      {0x85, Space},     {0xa0, Space},    {0xaa, Letter},    {0xb2, Number},    {0x301, Sign},
      {0x3b1, Letter},   {0x200b, Sign},   {0x2028, Space},   {0x2160, Number},  {0x3000, Space},
      {0x4e00, Letter},  {0xac00, Letter}, {0xd7a3, Letter},  {0xd7a4, Sign},    {0xfffd, Sign},
      {0x1d7d8, Number}, {0x1f600, Sign},  {0x20000, Letter}, {0x2a6df, Letter}, {0x2a6e0, Sign},
      {0x10ffff, Sign},  {0x3007, Number}, {0xe0041, Sign},
  };
  for (const auto& [code, type] : known) EXPECT_EQ(class_of(code), type) << std::uint32_t(code);
}

TEST(Pieces, OfBytesThatAreNoTextAreSignsAndNoneIsLost) {
  // Cut, overlong, a surrogate, beyond the last code point, stray bytes.
  for (const std::string_view bad :
       {"\xc3"sv, "\xe2\x82"sv, "\xc0\xaf"sv, "\xe0\x80\x80"sv, "\xed\xa0\x80"sv,
        "\xf4\x90\x80\x80"sv, "\xff\xfe"sv, "\x80"sv, "\0"sv})
    EXPECT_EQ(pieces("a " + std::string(bad) + "b"),
              (std::vector<std::string>{"a", " " + std::string(bad), "b"}));
}

/// Some words. There is no token of byte 255, so that bytes are their own tokens.
struct Words : VocabularyMaker {
  Words() : VocabularyMaker(255) {}

  Token he = merge("h", "e");
  Token ll = merge("l", "l");
  Token hell = merge("he", "ll");
  Token hello = merge("hell", "o");
  Token blank_hello = merge(" ", "hello");
  Token e_acute = merge("\xc3", "\xa9");
  Token end = add("<|end|>", TokenType::Control);
  Token end_end = add("<|end|><|end|>", TokenType::Control);
  Token tag = add("<tag >", TokenType::User);
  Token unused = add("", TokenType::Unused);
};

TEST(Tokenizer, MergesByRankAndGivesTheTextBack) {
  const Words words;
  const Tokenizer tokenizer(words.vocabulary());
  EXPECT_EQ(tokenizer.size(), 265u);
  EXPECT_EQ(tokenizer.encode("hello"), Tokens{words.hello});
  EXPECT_EQ(tokenizer.encode("hell hello"), (Tokens{words.hell, words.blank_hello}));
  EXPECT_EQ(tokenizer.encode("hel lo"), (Tokens{words.he, 'l', ' ', 'l', 'o'}));
  EXPECT_EQ(tokenizer.encode("lllh"), (Tokens{words.ll, 'l', 'h'}));  // the leftmost first
  EXPECT_EQ(tokenizer.encode(""), Tokens{});
  EXPECT_EQ(tokenizer.decode(Tokens{}), "");
  EXPECT_EQ(tokenizer.decode(Tokens{words.hello, words.e_acute, words.tag, words.end}),
            "hello\xc3\xa9<tag ><|end|>");
}

TEST(Tokenizer, ControlTokensAreCutOutOnlyWhereAllowedTheLongestFirst) {
  const Words words;
  const Tokenizer tokenizer(words.vocabulary());
  const std::string_view text = "he<|end|><|end|><|end|><tag >";
  EXPECT_EQ(tokenizer.encode(text, true), (Tokens{words.he, words.end_end, words.end, words.tag}));
  const Tokens plain = tokenizer.encode(text);
  EXPECT_EQ(plain.back(), words.tag);
  EXPECT_EQ(plain.size(), 2 + 3 * 7u);
  EXPECT_EQ(tokenizer.decode(plain), text);
  EXPECT_EQ(tokenizer.encode("<|end|"), (Tokens{'<', '|', 'e', 'n', 'd', '|'}));
  EXPECT_EQ(tokenizer.find_special("<|end|>"), words.end);
  EXPECT_EQ(tokenizer.find_special("<tag >"), words.tag);
  EXPECT_EQ(tokenizer.find_special("he"), std::nullopt);
  EXPECT_TRUE(tokenizer.is_control(words.end));
  EXPECT_FALSE(tokenizer.is_control(words.tag));
  EXPECT_FALSE(tokenizer.is_control(words.he));
}

TEST(Tokenizer, AByteWithoutATokenIsLeftOutAndKeepsItsNeighboursApart) {
  const Words words;
  const Tokenizer tokenizer(words.vocabulary());
  for (int byte = 0; byte < 256; ++byte)
    EXPECT_EQ(tokenizer.lacks(static_cast<unsigned char>(byte)), byte == 255);
  EXPECT_EQ(tokenizer.encode("h\xff"
                             "e"),
            (Tokens{'h', 'e'}));
  EXPECT_EQ(tokenizer.encode("\xff"), Tokens{});
}

TEST(Tokenizer, TakesBytesThatAreNoTextAndZeros) {
  const Words words;
  const Tokenizer tokenizer(words.vocabulary());
  const std::string_view bytes =
      "he\0\0 \xc3\xa9\xc3\xe2\x82 \xf4\x90\x80\x80\xc0\xaf\xed\xa0\x80"sv;
  const Tokens tokens = tokenizer.encode(bytes, true);
  EXPECT_EQ(tokenizer.decode(tokens), bytes);
  EXPECT_EQ(Tokens(tokens.begin(), tokens.begin() + 5),
            (Tokens{words.he, 0, 0, ' ', words.e_acute}));
}

TEST(Tokenizer, MergesOfRandomVocabulariesAreThoseOfTheDefinition) {
  std::mt19937 random(11);
  for (int vocabulary = 0; vocabulary < 8; ++vocabulary) {
    VocabularyMaker maker;
    std::vector<std::string> texts = {"a", "b", "c", "\xc3", "\xa9"};
    std::set<std::string> known(texts.begin(), texts.end());
    while (texts.size() < 60) {
      const std::string left = texts[random() % texts.size()],
                        right = texts[random() % texts.size()];
      if (left.size() + right.size() > 9 || !known.insert(left + right).second) continue;
      maker.merge(left, right);
      texts.push_back(left + right);
    }
    const Tokenizer tokenizer(maker.vocabulary());
    for (int run = 0; run < 60; ++run) {
      std::string text = random_text("aaabbc", random() % 40, random);
      if (run % 3 == 0)
        text +=
            "\xc3\xa9"
            "ab\xc3\xa9\xc3\xa9";
      std::vector<std::string> parts;
      for (const Token id : tokenizer.encode(text)) parts.push_back(tokenizer.decode(Tokens{id}));
      ASSERT_EQ(parts, maker.merged(text)) << text;
    }
  }
}

TEST(Tokenizer, ALongPieceTakesNoMoreTimePerByteThanItsLogarithm) {
  VocabularyMaker maker;
  std::string blanks = " ";
  for (int doubling = 0; doubling < 5; ++doubling, blanks += blanks) maker.merge(blanks, blanks);
  const Tokenizer tokenizer(maker.vocabulary());
  const std::string text(100'000, ' ');  // a quadratic merge would take minutes
  const Tokens tokens = tokenizer.encode(text);
  EXPECT_EQ(tokens.size(), 100'000 / 32);
  EXPECT_EQ(tokenizer.decode(tokens), text);
}

TEST(Tokenizer, RefusesTokensThatAreNot) {
  const Words words;
  const Tokenizer tokenizer(words.vocabulary());
  EXPECT_EQ(
      refusal([&] { tokenizer.decode(Tokens{'h', 265}); }),
      "pare::language_model::Tokenizer::decode: id: got 265, wanted at least 0 and below 265");
  std::string text = "as before";
  EXPECT_THROW(tokenizer.append_decoded(-1, text), std::invalid_argument);
  EXPECT_EQ(text, "as before");
  EXPECT_THROW(static_cast<void>(tokenizer.is_control(265)), std::invalid_argument);
}

/// What the tokenizer of a vocabulary that was changed is refused with.
template <class Change>
std::string refused(const Change& change) {
  Words words;
  change(static_cast<VocabularyMaker&>(words));
  return refusal([&] { Tokenizer(words.vocabulary()); });
}

TEST(Tokenizer, RefusesVocabulariesThatAreNone) {
  EXPECT_EQ(refused([](VocabularyMaker&) {}), "(accepted)");
  const std::string prefix = "pare::language_model::Tokenizer: ";
  EXPECT_EQ(
      refused([](VocabularyMaker& v) { v.add("he"); }),
      prefix + "tokens: got number 265 of the same text as another, wanted texts that differ");
  for (const char* const text : {"", "a b", "\xff", "\xe4\xb8\x80", "\xc3"})
    EXPECT_EQ(refused([&](VocabularyMaker& v) { v.add(text); }),
              prefix + "tokens: got number 265, wanted code points that stand for bytes");
  for (const char* const text : {"", "he", "h  e", "he zz", "h o", " h"})
    EXPECT_EQ(refused([&](VocabularyMaker& v) { v.add_merge(text); }),
              prefix + "merges: got " + text +
                  ", wanted two tokens with a blank between, whose whole is a token");
  EXPECT_EQ(refused([](VocabularyMaker& v) { v.add("x", static_cast<TokenType>(6)); }),
            prefix + "types: got 6, wanted 1 (normal), 3 (control), 4 (of the user) or 5 (unused)");
  EXPECT_EQ(refused([](VocabularyMaker& v) { v.add("", TokenType::Control); }),
            prefix + "tokens: got a special token without text, wanted texts that are not empty");
  Vocabulary none;
  EXPECT_THROW(Tokenizer{none}, std::invalid_argument);
  Words words;
  Vocabulary fewer = words.vocabulary();
  fewer.types.pop_back();
  EXPECT_EQ(refusal([&] { Tokenizer{fewer}; }),
            prefix + "types: got 264, wanted 265, as many as tokens");
}

TEST(Tokenizer, ReadsTheVocabularyOfAFileAndRefusesOtherKinds) {
  const auto file_of = [](const std::string& model, const std::string& pattern) {
    pare::testing::GgufWriter writer;
    writer.add("tokenizer.ggml.model", model);
    writer.add("tokenizer.ggml.pre", pattern);
    writer.add("tokenizer.ggml.tokens", std::vector<std::string>{"a", "b", "ab", "<e>"});
    writer.add("tokenizer.ggml.token_type", std::vector<std::int32_t>{1, 1, 1, 3});
    writer.add("tokenizer.ggml.merges", std::vector<std::string>{"a b"});
    return writer.file();
  };
  const auto read = [](const std::string& bytes) {
    const pare::io::GgufFile file(std::as_bytes(std::span(bytes.data(), bytes.size())));
    return Tokenizer(read_vocabulary(file)).encode("abba<e>", true);
  };
  EXPECT_EQ(read(file_of("gpt2", "smollm")), (Tokens{2, 1, 0, 3}));
  EXPECT_EQ(refusal([&] { read(file_of("llama", "smollm")); }),
            "pare::language_model::read_vocabulary: tokenizer.ggml.model: got llama, wanted gpt2");
  EXPECT_EQ(refusal([&] { read(file_of("gpt2", "llama3")); }),
            "pare::language_model::read_vocabulary: tokenizer.ggml.pre: got llama3, wanted smollm");
}

TEST(StreamDecoder, GivesWholeCharactersOnly) {
  const Words words;
  const Tokenizer tokenizer(words.vocabulary());
  StreamDecoder stream(tokenizer);
  EXPECT_EQ(stream.push(words.he), "he");
  EXPECT_EQ(stream.push(0xf0), "");
  EXPECT_EQ(stream.push(0x9f), "");
  EXPECT_EQ(stream.push(0x98), "");
  EXPECT_THROW(stream.push(265), std::invalid_argument);
  EXPECT_EQ(stream.push(0x80), "\U0001f600");
  EXPECT_EQ(stream.push(words.e_acute), "\u00e9");
  EXPECT_EQ(stream.finish(), "");
}

TEST(StreamDecoder, WhatIsNoCharacterBecomesOneReplacementForEachBeginning) {
  const Words words;
  const Tokenizer tokenizer(words.vocabulary());
  // As the Unicode standard's table 3-11 has it, and at the end.
  const std::pair<std::string_view, std::string_view> known[] = {
      {"a\xf1\x80\x80\xe1\x80\xc2"
       "b",
       "a\ufffd\ufffd\ufffdb"},
      {"\x80"
       "c\x80\xbf"
       "d",
       "\ufffdc\ufffd\ufffdd"},
      {"\xe0\x80\x80", "\ufffd\ufffd\ufffd"},
      {"\xed\xa0\x80", "\ufffd\ufffd\ufffd"},
      {"\xf4\x91\x92\x93", "\ufffd\ufffd\ufffd\ufffd"},
      {"x\xe2\x82", "x\ufffd"},
  };
  for (const auto& [bytes, wanted] : known) {
    StreamDecoder stream(tokenizer);
    std::string text;
    for (const char byte : bytes) text += stream.push(static_cast<unsigned char>(byte));
    EXPECT_EQ(text + stream.finish(), wanted);
    EXPECT_EQ(stream.push('a'), "a") << "as new after its end";
  }
}

}  // namespace
}  // namespace studies_tokenizer_test
