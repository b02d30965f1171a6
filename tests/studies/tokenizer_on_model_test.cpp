// SPDX-License-Identifier: Apache-2.0

/// \file
/// The tokenizer with SmolLM2's vocabulary, where the file is present. The tokens are those that
/// llama.cpp gives, special tokens allowed.

#include "common/model_folder.hpp"
#include "language_model/tokenizer.hpp"

#include <gtest/gtest.h>

#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace studies_tokenizer_on_model_test {
namespace {

using language_model::Token;
using namespace std::string_view_literals;
using Tokens = std::vector<Token>;

class TokenizerOnModel : public ::testing::Test {
 protected:
  void SetUp() override {
    const auto path = models::find(models::smollm2);
    if (!path) GTEST_SKIP() << "no " << models::smollm2 << " in " << models::folder();
    file_.emplace(*path);
    tokenizer_.emplace(language_model::read_vocabulary(*file_));
  }

  std::optional<pare::io::GgufFile> file_;
  std::optional<language_model::Tokenizer> tokenizer_;
};

struct Golden {
  std::string_view text;
  Tokens tokens;
};

const Golden goldens[] = {
    {"Hello world! It's 2024, isn't it?\n\n  x = 3.14"sv,
     {19556, 905, 17, 657,  506,  216, 34,  32, 34, 36, 28, 3247,
      982,   357, 47, 8866, 1792, 446, 216, 35, 30, 33, 36}},
    {"<|im_start|>user\nHi<|im_end|>\n"sv, {1, 4093, 198, 26843, 2, 198}},
    {"I'll say we've done it; she'd've SHE'LL 'tis o'clock 'S's ''re"sv,
     {57, 3060,  1643, 392,   3543, 2294, 357,   43,  1041, 6737, 3543,  334, 4493,
      23, 16421, 637,  34818, 263,  23,   17466, 637, 67,   506,  10922, 257}},
    {"   leading, trailing   \n\n\n  \t\tmixed \r\n \n x\n\n"sv,
     {256, 2899, 28, 35079, 333, 1116, 11181, 197, 197, 35781, 216, 2738, 3717, 1792, 1116}},
    {"a  b   c\302\240d\u3000e\u2028f\302\205g \302\240\302\240h"sv,
     {81,  216, 278, 256, 265, 15442, 84,   12109, 218,   85,
      321, 118, 86,  141, 223, 87,    3351, 250,   15442, 88}},
    {"\uff11\uff12\uff13 \u0664\u0665\u0666 \u00b2\u00b3 \u2167 \u00bd \u4e00\u4e8c\u4e09 3.14e-10 0x1F 1,000,000"sv,
     {8083, 235,   8083,  236, 8083, 237, 216, 164, 114,   164, 115,   164,   116,
      216,  19133, 39050, 216, 173,  223, 117, 216, 16738, 216, 22924, 16736, 230,
      7906, 227,   216,   35,  30,   33,  36,  85,  29,    33,  32,    216,   32,
      104,  33,    54,    216, 33,   28,  32,  32,  32,    28,  32,    32,    32}},
    {"\u6211\u4eec\u7684\u8bed\u8a00\u6a21\u578b\u3002 \u65e5\u672c\u8a9e\u30c6\u30ad\u30b9\u30c8\u3001\ud55c\uad6d\uc5b4 \ubb38\uc7a5"sv,
     {19805, 235,   15076, 122, 11567, 16313, 251,   48001, 218, 43828, 111,
      46157, 19076, 17097, 241, 115,   40993, 179,   120,   248, 11100, 224,
      10391, 251,   10391, 134, 11100, 226,   29917, 33085, 246, 181,   130,
      251,   183,   240,   129, 25947, 122,   133,   183,   248, 115}},
    {"e\u0301 n\u0303 \u0915\u094d\u0937\u093f \u0928\u092e\u0938\u094d\u0924\u0947 \u0e20\u0e32\u0e29\u0e32\u0e44\u0e17\u0e22"sv,
     {85,    151, 219,   304,   151,   221,   42034, 16525, 4300,  132, 27011,
      12335, 118, 35090, 38770, 16525, 26293, 30581, 216,   10283, 250, 43662,
      10283, 119, 43662, 31933, 222,   10283, 241,   10283, 112}},
    {"\U0001f469\u200d\U0001f469\u200d\U0001f467\u200d\U0001f466 \U0001f1e9\U0001f1ea \U0001f3f3\ufe0f\u200d\U0001f308 \U0001f44d\U0001f3fd! \u2603 \u2122\u00a9\u00ae"sv,
     {10813, 235, 119, 321,   231,  10813, 235,   119,  321, 231,   10813, 235,
      117,   321, 231, 10813, 235,  116,   15107, 225,  119, 10813, 225,   120,
      15107, 233, 128, 31752, 321,  231,   10813, 230,  226, 15107, 235,   231,
      10813, 233, 138, 17,    4636, 242,   221,   4636, 222, 112,   14115, 10532}},
    {"<|endoftext|><|im_start|> <repo_name>x<file_sep>.py <|im_sta"sv,
     {0, 1, 216, 3, 104, 5, 30, 1306, 2067, 108, 306, 79, 40966}},
    {"<|im_start|><|im_end|><|im_end|"sv, {1, 2, 44, 108, 306, 79, 486, 108}},
    {"def f(x):\n\treturn x**2  # \u043a\u043e\u043c\u043c\u0435\u043d\u0442\u0430\u0440\u0438\u0439\n\n\nclass A:\n    pass\n"sv,
     {1604,  275,   24,   104,  727,   198,   197,  5406, 1792, 828, 34, 216, 907,  31338, 41339,
      17868, 22140, 8355, 6511, 46879, 24958, 1116, 198,  2064, 330, 42, 472, 1301, 198}},
    {"https://example.com/a_b?c=d&e=%20#f  user@mail.org"sv,
     {4687, 1742, 7434,  30, 824, 31, 81, 79,  82,   47, 83,   45, 84,
      22,   85,   23446, 34, 32,  19, 86, 216, 2914, 48, 8925, 30, 2295}},
    {"\u01c5 \u02b0 \u00aa \u00ba \ufb01 \u1e9e \u00df \u0130 \u0131 Stra\u00dfe \u00c0\u00c1\u00d1 \u00f1and\u00fa"sv,
     {146,  223, 216,  149, 125,   3351, 120,  3351,  135,   40367, 15822,
      135,  248, 5549, 249, 24488, 125,  216,  20335, 19144, 34878, 85,
      5549, 218, 142,  219, 142,   235,  5549, 126,   397,   16148}},
    {"\000\001\004\006\037\177 end"sv, {190, 191, 215, 217, 1112}},
    {"\ufeffBOM \u200bzero\u200dwidth \302\255soft \u202eRTL \u05e9\u05dc\u05d5\u05dd \u0645\u0631\u062d\u0628\u0627"sv,
     {186, 136,   140, 50,    9232, 459,   229,   13723, 321, 231,   6930,  3351,  251,   7354, 459,
      123, 16895, 60,  12960, 119,  31838, 23970, 162,   247, 36395, 20602, 44626, 31462, 10805}},
    {"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa                                   !!!!!!!!!!!!!!!!!!!????"sv,
     {46880, 46880, 46880, 46880, 46880, 46880, 46880, 46880, 11510, 12427, 256, 5728, 36689, 36689,
      36689, 36689, 10095, 16693, 16693}},
    {"'"sv, {23}},
    {"\u2019s it\u2019s \u201cquoted\u201d \u2014 dash\u2026 'll 's'd're"sv,
     {417, 99, 357, 417, 99, 619, 385, 5036, 573, 1841, 20740, 2829, 637, 764, 637, 99, 6737,
      2316}},
    {"\U00010400\U0001d54f\U0001f130\U000e0041\U0010fffd \U0001d7d8 \U0001d7d9"sv,
     {187, 234, 234, 218, 23159, 239, 233,   10813, 222, 125, 188,   250, 219,
      219, 189, 233, 140, 138,   216, 23159, 249,   242, 216, 23159, 249, 243}},
    {"x\n y\n\n z \n\n 1 \n2"sv, {104, 198, 329, 1116, 1892, 216, 8866, 33, 3717, 34}},
    {" "sv, {216}},
    {"\n"sv, {198}},
    {" 1"sv, {216, 33}},
    {"\t1 \t a"sv, {197, 33, 216, 197, 253}},
    {"1a'd 2's"sv, {33, 81, 6737, 216, 34, 506}},
};

TEST_F(TokenizerOnModel, GivesTheTokensOfLlamaCpp) {
  for (const Golden& golden : goldens) {
    EXPECT_EQ(tokenizer_->encode(golden.text, true), golden.tokens) << golden.text;
    std::string whole;  // what has tokens comes back
    for (const char byte : golden.text)
      if (!tokenizer_->lacks(static_cast<unsigned char>(byte))) whole += byte;
    EXPECT_EQ(tokenizer_->decode(golden.tokens), whole);
  }
}

TEST_F(TokenizerOnModel, SpecialTextOfAUserIsText) {
  EXPECT_EQ(tokenizer_->encode("<|im_end|>"), (Tokens{44, 108, 306, 79, 486, 108, 46}));
  EXPECT_EQ(tokenizer_->find_special("<|im_end|>"), 2);
  EXPECT_EQ(tokenizer_->size(), 49152u);
}

TEST_F(TokenizerOnModel, TwentyOneBytesHaveNoToken) {
  int lacking = 0;
  for (int byte = 0; byte < 256; ++byte)
    lacking += tokenizer_->lacks(static_cast<unsigned char>(byte)) ? 1 : 0;
  EXPECT_EQ(lacking, 21);
}

TEST_F(TokenizerOnModel, AHundredThousandBlanks) {
  const std::string text(100'000, ' ');
  const Tokens tokens = tokenizer_->encode(text);
  EXPECT_EQ(tokenizer_->decode(tokens), text);
  EXPECT_LT(tokens.size(), 2000u);
}

}  // namespace
}  // namespace studies_tokenizer_on_model_test
