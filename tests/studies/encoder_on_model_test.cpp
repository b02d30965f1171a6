// SPDX-License-Identifier: Apache-2.0

/// \file
/// The encoder study with all-MiniLM-L6-v2, where its folder is present.

#include "common/model_folder.hpp"
#include "common/open_encoder.hpp"

#include <pare/core/backend.hpp>
#include <pare/core/matrix.hpp>

#include <gtest/gtest.h>
#include <Eigen/Core>

#include <cstddef>
#include <memory>
#include <string>
#include <vector>

namespace studies_encoder_on_model_test {
namespace {

using namespace encoder;
using namespace std::string_literals;
using Matrix = pare::RowMatrix<float>;

class EncoderOnModel : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    if (const auto path = models::find(models::minilm))
      model = std::make_unique<OpenEncoder>(*path);
  }
  static void TearDownTestSuite() { model.reset(); }

  void SetUp() override {
    if (!model) GTEST_SKIP() << "no " << models::minilm << " in " << models::folder();
  }

  static inline std::unique_ptr<OpenEncoder> model;
};

struct Golden {
  std::string text;
  std::vector<Token> tokens;
};

const Golden goldens[] = {
    {"Hello world! It's 2024, isn't it?\n\n  x = 3.14"s,
     {101,  7592, 2088, 999,  2009, 1005, 1055, 16798, 2549, 1010, 3475,
      1005, 1056, 2009, 1029, 1060, 1027, 1017, 1012,  2403, 102}},
    {"\u00dcn\u00efc\u00f6d\u00e9 \u00c0\u00c9\u00ce\u00d5\u00dc \u00f1 \u00e7 \u00df \u1e9e Stra\u00dfe"s,
     {101, 27260, 29347, 3695, 2226, 1050, 1039, 1096, 1096, 2358, 27807, 102}},
    {"\u0130stanbul ISPARTA \u0131I"s, {101, 9960, 2003, 19362, 2696, 1104, 2072, 102}},
    {"\u03a3\u038a\u03a3\u03a5\u03a6\u039f\u03a3 \u039f\u03b4\u03c5\u03c3\u03c3\u03b5\u03cd\u03c2"s,
     {101, 1173, 18199, 29733, 29735, 29736, 29730, 29733, 1169, 29722, 29735, 29733, 29733, 29723,
      29735, 19579, 102}},
    {"\ufb01 \ufb02 \ufb00 \u01c4 \u01c5 \u01c6"s, {101, 1984, 1985, 100, 100, 100, 100, 102}},
    {"\u6211\u4eec\u7684\u8bed\u8a00\u6a21\u578b\u3002 \u65e5\u672c\u8a9e\u30c6\u30ad\u30b9\u30c8\u3001 \ud55c\uad6d\uc5b4 \ubb38\uc7a5"s,
     {101,   1855,  100,   1916,  100,   100,   100,   100,   1636,  1864,  1876,
      1950,  1713,  30227, 30233, 30240, 1635,  1469,  30006, 30021, 29991, 30014,
      30020, 29999, 30008, 1459,  30014, 30021, 30000, 30006, 30025, 102}},
    {"e\u0301 n\u0303 \u0915\u094d\u0937\u093f \u0928\u092e\u0938\u094d\u0924\u0947 \u0e20\u0e32\u0e29\u0e32\u0e44\u0e17\u0e22"s,
     {101, 1041, 1050, 1315, 29873, 29877, 1327, 29867, 29874, 29859, 100, 102}},
    {"\U0001f469\u200d\U0001f469\u200d\U0001f467\u200d\U0001f466 \U0001f1e9\U0001f1ea \U0001f3f3\ufe0f\u200d\U0001f308 \U0001f44d\U0001f3fd! \u2603 \u2122\u00a9\u00ae"s,
     {101, 100, 100, 100, 100, 999, 100, 1580, 29652, 29656, 102}},
    {"\000\001\004\006\037\177 end\u200b\u00adsoft \u202eRTL"s,
     {101, 4515, 15794, 19387, 2140, 102}},
    {"a\tb\nc\rd\013e\014f\302\205g\u00a0h\u3000i\u2028j"s,
     {101, 1037, 1038, 1039, 13366, 2290, 1044, 1045, 1046, 102}},
    {"don't 'll 's'd're \u2019s \u201cquoted\u201d \u2014 dash\u2026"s,
     {101,  2123, 1005, 1056, 1005, 2222, 1005, 1055,  1005, 1040, 1005,
      2128, 1521, 1055, 1523, 9339, 1524, 1517, 11454, 1529, 102}},
    {std::string(100, 'x') + " " + std::string(101, 'x'),
     {101,   22038, 20348, 20348, 20348, 20348, 20348, 20348, 20348, 20348, 20348,
      20348, 20348, 20348, 20348, 20348, 20348, 20348, 20348, 20348, 20348, 20348,
      20348, 20348, 20348, 20348, 20348, 20348, 20348, 20348, 20348, 20348, 20348,
      20348, 20348, 20348, 20348, 20348, 20348, 20348, 20348, 20348, 20348, 20348,
      20348, 20348, 20348, 20348, 20348, 20348, 20348, 100,   102}},
    {"unaffable antidisestablishmentarianism floccinaucinihilipilification supercalifragilisticexpialidocious"s,
     {101,  14477, 20961, 3468,  3424,  10521, 4355,  7875,  13602, 3672,  12199,
      2964, 13109, 10085, 28748, 14194, 5498,  19466, 11514, 18622, 10803, 3565,
      9289, 10128, 29181, 24411, 4588,  10288, 19312, 21273, 10085, 6313,  102}},
    {"http://example.com/a_b?c=d&e=%20#f user@mail.org"s,
     {101,  8299, 1024, 1013, 1013, 2742, 1012, 4012, 1013, 1037, 1035, 1038, 1029, 1039, 1027,
      1040, 1004, 1041, 1027, 1003, 2322, 1001, 1042, 5310, 1030, 5653, 1012, 8917, 102}},
    {"3.14e-10 0x1F 1,000,000 \u00bd \u00b2 \u2167 \u0663 \uff11\uff12\uff13"s,
     {101,  1017, 1012, 2403, 2063, 1011, 2184, 1014, 2595, 2487, 2546,
      1015, 1010, 2199, 1010, 2199, 1092, 1082, 100,  100,  100,  102}},
    {"\u05e9\u05dc\u05d5\u05dd \u0645\u0631\u062d\u0628\u0627 \u041f\u0440\u0438\u0432\u0435\u0442 \u0401\u043b\u043a\u0430 \u0439 \u0419 \u045e"s,
     {101,   1266,  29799, 29792, 29800, 1295,  17149, 29820, 29816, 25573, 1194, 16856,
      10325, 25529, 15290, 22919, 1185,  29436, 28598, 1188,  1188,  1198,  102}},
    {"\uf900\ufa0e\U00020000\U0002f800 \u8c48"s, {101, 100, 100, 100, 100, 100, 102}},
    {"\u2260 \u2264 \u2211 \u221e \u212a \u212b \u2126 \u037e \u0387 \u1fef \u226e"s,
     {101, 1027, 1608, 100, 1601, 1047, 1037, 1179, 1025, 1087, 1036, 1026, 102}},
    {"\U0001d518\U0001d52b\U0001d526\U0001d520\U0001d52c\U0001d521\U0001d522 \U0001d400\U0001d401 \u24b6 \u2177"s,
     {101, 100, 100, 100, 100, 102}},
    {""s, {101, 102}},
    {"   "s, {101, 102}},
    {"\u0d15\u0d4d\u0d37 \u0bca \u09cb \uac00\uac01\ud7a3 \u1100\u1161"s,
     {101, 100, 100, 1381, 29914, 100, 1455, 30006, 102}},
    {"<s> </s> ## ##ing #hash [unused0] {x}|~^_`"s,
     {101,   1026, 1055,  1028, 1026, 1013, 1055, 1028, 1001, 1001, 1001, 1001, 13749, 1001,
      23325, 1031, 15171, 2692, 1033, 1063, 1060, 1065, 1064, 1066, 1034, 1035, 1036,  102}},
    {"\u00c5\u00c5\u00c5 \u00c5\u0327 q\u0323\u0307 \u01d6 \u1ec7"s,
     {101, 13360, 1037, 1053, 1057, 1041, 102}},
};

TEST_F(EncoderOnModel, TokensAreThoseOfHuggingFacesTokenizers) {
  EXPECT_EQ(model->tokenizer.size(), 30522u);
  for (const Golden& golden : goldens)
    EXPECT_EQ(model->tokenizer.encode(golden.text), golden.tokens) << golden.text;
}

/// Empty, of many characters, and cut off.
const std::vector<std::string> sentences = {
    "The cat sat on the mat.",
    "A feline rested on the rug.",
    "Stock markets fell sharply today.",
    "Shares plunged on Wall Street.",
    "",
    "\u00dcn\u00efc\u00f6d\u00e9: \u6211\u4eec\u7684\u8bed\u8a00\u6a21\u578b, \u0130stanbul, "
    "\u00bd cup & 3.14!",
    [] {
      std::string text;
      for (int i = 0; i < 300; ++i) text += "the ";
      return text;
    }(),
};

/// By numpy in double on the weights of the file and the tokens of Hugging Face's tokenizers: the
/// cosines, the first numbers of sentence vectors, and those of the vectors of [SEP].
const double cosines[7][7] = {
    {1.000000, 0.555976, 0.042492, 0.072326, 0.030634, 0.047007, 0.118224},
    {0.555976, 1.000000, 0.010370, 0.046832, 0.032817, 0.013024, 0.058984},
    {0.042492, 0.010370, 1.000000, 0.565220, -0.009967, 0.062631, -0.063191},
    {0.072326, 0.046832, 0.565220, 1.000000, 0.076572, 0.037292, -0.022698},
    {0.030634, 0.032817, -0.009967, 0.076572, 1.000000, 0.188331, -0.014753},
    {0.047007, 0.013024, 0.062631, 0.037292, 0.188331, 1.000000, 0.027736},
    {0.118224, 0.058984, -0.063191, -0.022698, -0.014753, 0.027736, 1.000000},
};
const double firsts[7][4] = {
    {0.130237, -0.015773, -0.036717, 0.057986},  {0.075307, 0.044500, 0.051650, 0.135490},
    {0.040052, -0.026062, 0.082353, 0.056358},   {0.081738, -0.029066, 0.074939, 0.098567},
    {-0.118838, 0.048299, -0.002548, -0.011011}, {0.010076, 0.060680, 0.066493, 0.065237},
    {0.012467, 0.065482, -0.019948, -0.012290},
};
const double last_tokens[7][3] = {
    {0.695281, -0.063365, -0.117276}, {0.742071, 0.176745, 0.421645},
    {0.583996, -0.699127, 0.529692},  {0.553260, -0.463276, 0.509213},
    {-1.519030, 0.587224, -0.063983}, {0.094365, 0.782216, 0.689894},
    {0.002652, -0.063825, -0.034154},
};

TEST_F(EncoderOnModel, VectorsAreThoseOfAReferenceInDouble) {
  const auto tokens = tokens_of(model->tokenizer, sentences, 256);
  EXPECT_EQ(tokens.back().size(), 256u);
  const Matrix vectors = sentence_vectors(model->bert, pare::simd, tokens, [](double) {});
  const Eigen::MatrixXd all = vectors.cast<double>();
  for (Index i = 0; i < 7; ++i)
    for (Index j = 0; j < 7; ++j) EXPECT_NEAR(all.row(i).dot(all.row(j)), cosines[i][j], 1e-4);
  // Of length 1, with 384 numbers: some are .05, and float is off by 1e-6 of them.
  for (Index i = 0; i < 7; ++i)
    for (Index j = 0; j < 4; ++j) EXPECT_NEAR(all(i, j), firsts[i][j], 1e-5);
  for_each_batch(
      model->bert, pare::simd, tokens,
      [&](Index first, const Batch& batch, TensorView<const float, 2> of_tokens) {
        for (Index i = 0; i < batch.sentences(); ++i)
          for (Index j = 0; j < 3; ++j)
            EXPECT_NEAR(static_cast<double>(
                            of_tokens(batch.offsets[static_cast<std::size_t>(i) + 1] - 1, j)),
                        last_tokens[first + i][j], 1e-4);
      },
      [](double) {});
}

}  // namespace
}  // namespace studies_encoder_on_model_test
