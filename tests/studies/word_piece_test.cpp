// SPDX-License-Identifier: Apache-2.0

#include "common/word_piece.hpp"

#include "io/temporary_folder.hpp"

#include <gtest/gtest.h>

#include <cstdint>
#include <ios>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

namespace studies_word_piece_test {
namespace {

using namespace encoder;
using namespace std::string_view_literals;
using Tokens = std::vector<Token>;
using Words = std::vector<std::string>;

Words words(std::string_view text) {
  Words all;
  for_each_word(text, [&](std::string_view word) { all.emplace_back(word); });
  return all;
}

struct Golden {
  std::string_view text;
  Words words;
};

const Golden goldens[] = {
    {"Hello world! It's 2024, isn't it?\n\n  x = 3.14"sv,
     {"hello", "world", "!", "it", "'", "s", "2024", ",", "isn", "'", "t", "it", "?", "x", "=", "3",
      ".", "14"}},
    {"\u00dcn\u00efc\u00f6d\u00e9 \u00c0\u00c9\u00ce\u00d5\u00dc \u00f1 \u00e7 \u00df \u1e9e Stra\u00dfe"sv,
     {"unicode", "aeiou", "n", "c", "\u00df", "\u00df", "stra\u00dfe"}},
    {"\u0130stanbul ISPARTA \u0131I"sv, {"istanbul", "isparta", "\u0131i"}},
    {"\u03a3\u038a\u03a3\u03a5\u03a6\u039f\u03a3 \u039f\u03b4\u03c5\u03c3\u03c3\u03b5\u03cd\u03c2"sv,
     {"\u03c3\u03b9\u03c3\u03c5\u03c6\u03bf\u03c3",
      "\u03bf\u03b4\u03c5\u03c3\u03c3\u03b5\u03c5\u03c2"}},
    {"\ufb01 \ufb02 \ufb00 \u01c4 \u01c5 \u01c6"sv,
     {"\ufb01", "\ufb02", "\ufb00", "\u01c6", "\u01c6", "\u01c6"}},
    {"\u6211\u4eec\u7684\u8bed\u8a00\u6a21\u578b\u3002 \u65e5\u672c\u8a9e\u30c6\u30ad\u30b9\u30c8\u3001 \ud55c\uad6d\uc5b4 \ubb38\uc7a5"sv,
     {"\u6211", "\u4eec", "\u7684", "\u8bed", "\u8a00", "\u6a21", "\u578b", "\u3002", "\u65e5",
      "\u672c", "\u8a9e", "\u30c6\u30ad\u30b9\u30c8", "\u3001",
      "\u1112\u1161\u11ab\u1100\u116e\u11a8\u110b\u1165", "\u1106\u116e\u11ab\u110c\u1161\u11bc"}},
    {"e\u0301 n\u0303 \u0915\u094d\u0937\u093f \u0928\u092e\u0938\u094d\u0924\u0947 \u0e20\u0e32\u0e29\u0e32\u0e44\u0e17\u0e22"sv,
     {"e", "n", "\u0915\u0937\u093f", "\u0928\u092e\u0938\u0924",
      "\u0e20\u0e32\u0e29\u0e32\u0e44\u0e17\u0e22"}},
    {"\U0001f469\u200d\U0001f469\u200d\U0001f467\u200d\U0001f466 \U0001f1e9\U0001f1ea \U0001f3f3\ufe0f\u200d\U0001f308 \U0001f44d\U0001f3fd! \u2603 \u2122\u00a9\u00ae"sv,
     {"\U0001f469\U0001f469\U0001f467\U0001f466", "\U0001f1e9\U0001f1ea", "\U0001f3f3\U0001f308",
      "\U0001f44d\U0001f3fd", "!", "\u2603", "\u2122\u00a9\u00ae"}},
    {"\000\001\004\006\037\177 end\u200b\u00adsoft \u202eRTL"sv, {"endsoft", "rtl"}},
    {"a\tb\nc\rd\013e\014f\302\205g\u00a0h\u3000i\u2028j"sv,
     {"a", "b", "c", "defg", "h", "i", "j"}},
    {"don't 'll 's'd're \u2019s \u201cquoted\u201d \u2014 dash\u2026"sv,
     {"don", "'", "t", "'", "ll", "'", "s", "'", "d", "'", "re", "\u2019", "s", "\u201c", "quoted",
      "\u201d", "\u2014", "dash", "\u2026"}},
    {"unaffable antidisestablishmentarianism floccinaucinihilipilification supercalifragilisticexpialidocious"sv,
     {"unaffable", "antidisestablishmentarianism", "floccinaucinihilipilification",
      "supercalifragilisticexpialidocious"}},
    {"http://example.com/a_b?c=d&e=%20#f user@mail.org"sv,
     {"http", ":", "/", "/", "example", ".",  "com", "/", "a",    "_", "b",    "?", "c",  "=",
      "d",    "&", "e", "=", "%",       "20", "#",   "f", "user", "@", "mail", ".", "org"}},
    {"3.14e-10 0x1F 1,000,000 \u00bd \u00b2 \u2167 \u0663 \uff11\uff12\uff13"sv,
     {"3", ".", "14e", "-", "10", "0x1f", "1", ",", "000", ",", "000", "\u00bd", "\u00b2", "\u2177",
      "\u0663", "\uff11\uff12\uff13"}},
    {"\u05e9\u05dc\u05d5\u05dd \u0645\u0631\u062d\u0628\u0627 \u041f\u0440\u0438\u0432\u0435\u0442 \u0401\u043b\u043a\u0430 \u0439 \u0419 \u045e"sv,
     {"\u05e9\u05dc\u05d5\u05dd", "\u0645\u0631\u062d\u0628\u0627",
      "\u043f\u0440\u0438\u0432\u0435\u0442", "\u0435\u043b\u043a\u0430", "\u0438", "\u0438",
      "\u0443"}},
    {"\uf900\ufa0e\U00020000\U0002f800 \u8c48"sv,
     {"\u8c48", "\ufa0e", "\U00020000", "\u4e3d", "\u8c48"}},
    {"\u2260 \u2264 \u2211 \u221e \u212a \u212b \u2126 \u037e \u0387 \u1fef \u226e"sv,
     {"=", "\u2264", "\u2211", "\u221e", "k", "a", "\u03c9", ";", "\u00b7", "`", "<"}},
    {"\U0001d518\U0001d52b\U0001d526\U0001d520\U0001d52c\U0001d521\U0001d522 \U0001d400\U0001d401 \u24b6 \u2177"sv,
     {"\U0001d518\U0001d52b\U0001d526\U0001d520\U0001d52c\U0001d521\U0001d522",
      "\U0001d400\U0001d401", "\u24d0", "\u2177"}},
    {""sv, {}},
    {"   "sv, {}},
    {"\u0d15\u0d4d\u0d37 \u0bca \u09cb \uac00\uac01\ud7a3 \u1100\u1161"sv,
     {"\u0d15\u0d37", "\u0bc6\u0bbe", "\u09c7\u09be",
      "\u1100\u1161\u1100\u1161\u11a8\u1112\u1175\u11c2", "\u1100\u1161"}},
    {"<s> </s> ## ##ing #hash [unused0] {x}|~^_`"sv,
     {"<",    "s", ">",       "<", "/", "s", ">", "#", "#", "#", "#", "ing", "#",
      "hash", "[", "unused0", "]", "{", "x", "}", "|", "~", "^", "_", "`"}},
    {"\u00c5\u00c5\u00c5 \u00c5\u0327 q\u0323\u0307 \u01d6 \u1ec7"sv, {"aaa", "a", "q", "u", "e"}},
};

TEST(Words, AreThoseOfHuggingFacesTokenizers) {
  for (const Golden& golden : goldens) EXPECT_EQ(words(golden.text), golden.words) << golden.text;
}

TEST(Words, BytesThatAreNoTextAreDropped) {
  for (const std::string_view bad : {"\xc3"sv, "\xe2\x82"sv, "\xc0\xaf"sv, "\xed\xa0\x80"sv,
                                     "\xf4\x90\x80\x80"sv, "\xff\xfe"sv, "\x80"sv, "\ufffd"sv})
    EXPECT_EQ(words("a" + std::string(bad) + "b"), Words{"ab"});
  EXPECT_EQ(words("\xc3"), Words{});
}

TEST(Words, OfAsciiAreInLowerCaseAndSignsStandAlone) {
  for (int code = 0x21; code < 0x7f; ++code) {
    const auto c = static_cast<char>(code);
    const bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
    const std::string lower(1, c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c);
    EXPECT_EQ(words("x" + std::string(1, c) + "y"),
              letter ? Words{"x" + lower + "y"} : (Words{"x", lower, "y"}));
  }
}

TEST(Words, ChineseCharactersStandAlone) {
  const auto count = [](char32_t code) {
    std::string text = "a";
    unicode::append_utf8(text, code);
    return words(text + "b").size();
  };
  for (const char32_t code :
       {0x3400u, 0x4dbfu, 0x4e00u, 0x9fffu, 0xf900u, 0xfaffu, 0x20000u, 0x2a6dfu, 0x2a700u,
        0x2b73fu, 0x2b740u, 0x2b81fu, 0x2b820u, 0x2ceafu, 0x2f800u, 0x2fa1fu})
    EXPECT_EQ(count(code), 3u) << std::hex << static_cast<std::uint32_t>(code);
  for (const char32_t code : {0x33ffu, 0x4dc0u, 0x4dffu, 0xa000u, 0xfb00u, 0x2a6e0u, 0x2a6ffu,
                              0x2ceb0u, 0x2f7ffu, 0x2fa20u, 0x3042u, 0xac00u})
    EXPECT_EQ(count(code), 1u) << std::hex << static_cast<std::uint32_t>(code);
}

/// Numbers from 0 on.
const std::vector<std::string> pieces = {
    "[PAD]", "[UNK]", "[CLS]", "[SEP]", "un", "##aff",  "##able", "##a",      "a",
    "##f",   "e",     "##e",   "ae",    "!",  "\u6211", "\u00df", "##\u00df", "##\u00df\u00df"};

TEST(WordPiece, TakesTheLongestPieceFromTheLeft) {
  const WordPiece tokenizer(pieces);
  EXPECT_EQ(tokenizer.size(), pieces.size());
  EXPECT_EQ(tokenizer.encode("Unaffable!"), (Tokens{2, 4, 5, 6, 13, 3}));
  EXPECT_EQ(tokenizer.encode("\u00c4\u00c9 un \u6211ae"), (Tokens{2, 12, 4, 14, 12, 3}));
  EXPECT_EQ(tokenizer.encode("aaffe"), (Tokens{2, 8, 5, 11, 3}));
  EXPECT_EQ(tokenizer.encode("\u00df\u00df\u00df a\u00df\u00df\u00df"),
            (Tokens{2, 15, 17, 8, 17, 16, 3}))
      << "pieces end between code points";
  EXPECT_EQ(tokenizer.encode(""), (Tokens{2, 3}));
  EXPECT_EQ(tokenizer.encode(" \n\t"), (Tokens{2, 3}));
}

TEST(WordPiece, AWordThatIsNotCutToItsEndIsUnknownWhole) {
  const WordPiece tokenizer(pieces);
  EXPECT_EQ(tokenizer.encode("unaffx un x"), (Tokens{2, 1, 4, 1, 3}));
  EXPECT_EQ(tokenizer.encode("able"), (Tokens{2, 1, 3})) << "only a continuation";
  EXPECT_EQ(tokenizer.encode("[CLS]"), (Tokens{2, 1, 1, 1, 3})) << "text is not a special token";
  EXPECT_EQ(tokenizer.encode("a\u00e0\u4e00"), (Tokens{2, 8, 7, 1, 3}));
}

TEST(WordPiece, AWordOfMoreThanAHundredCharactersIsUnknown) {
  const WordPiece tokenizer(pieces);
  std::string word = "a";
  for (int i = 1; i < 100; ++i) word += "\u00e0";
  Tokens wanted(102, 7);
  wanted[0] = 2;
  wanted[1] = 8;
  wanted[101] = 3;
  EXPECT_EQ(tokenizer.encode(word), wanted);
  EXPECT_EQ(tokenizer.encode(word + "a"), (Tokens{2, 1, 3}));
  std::string eszetts;
  for (int i = 0; i < 100; ++i) eszetts += "\u00df";  // 200 bytes
  EXPECT_EQ(tokenizer.encode(eszetts).size(), 2u + 1 + 50);
}

TEST(WordPiece, KeepsItsEndWhenCut) {
  const WordPiece tokenizer(pieces);
  EXPECT_EQ(tokenizer.encode("unaffable", 5), (Tokens{2, 4, 5, 6, 3}));
  EXPECT_EQ(tokenizer.encode("unaffable", 4), (Tokens{2, 4, 5, 3}));
  EXPECT_EQ(tokenizer.encode("unaffable", 2), (Tokens{2, 3}));
  EXPECT_EQ(refusal([&] { tokenizer.encode("un", 1); }),
            "pare::encoder::WordPiece::encode: most: got 1, wanted at least 2");
}

TEST(WordPiece, RefusesVocabulariesThatAreNone) {
  const std::string prefix = "pare::encoder::WordPiece: pieces: got ";
  EXPECT_EQ(refusal([] { WordPiece({"[UNK]", "[CLS]", "a"}); }),
            prefix + "no [SEP], wanted [UNK], [CLS] and [SEP] among them");
  EXPECT_EQ(refusal([] { WordPiece({"[UNK]", "[CLS]", "[SEP]", "a", "a"}); }),
            prefix + "a, wanted each of them once");
  EXPECT_THROW(WordPiece({}), std::invalid_argument);
}

using PiecesFile = TemporaryFolder;

TEST_F(PiecesFile, IsLinesWithEitherEnd) {
  put(folder_ / "vocab.txt", "[PAD]\n##a\r\n\u6211\n\nlast");
  EXPECT_EQ(read_pieces(folder_ / "vocab.txt"),
            (std::vector<std::string>{"[PAD]", "##a", "\u6211", "", "last"}));
  EXPECT_THROW(read_pieces(folder_ / "none.txt"), std::invalid_argument);
  EXPECT_THROW(read_pieces(folder_), std::invalid_argument);
}

}  // namespace
}  // namespace studies_word_piece_test
