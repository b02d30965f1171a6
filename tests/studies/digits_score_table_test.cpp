// SPDX-License-Identifier: Apache-2.0

#include "digits/score_table.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <sstream>
#include <string>
#include <vector>

namespace studies_digits_score_table_test {
namespace {

using digits::Compressed;
using digits::Index;
using digits::ScoreTable;

Compressed compressed(double accuracy, double loss, double error) {
  return {{accuracy, loss}, error, 0.25};
}

/// Two seeds of "SVD" and of a method that is better at rank 4, worse at rank 8 and, but for noise,
/// as good at rank 16.
ScoreTable worked_example(const std::string& method) {
  ScoreTable table;
  for (const double seed : {0.0, 0.01}) {
    table.add(4, "SVD", compressed(0.5 + seed, 2, 0.3));
    table.add(4, method, compressed(0.6 + seed, 1, 0.4));
    table.add(8, "SVD", compressed(0.9 + seed, 1, 0.2));
    table.add(8, method, compressed(0.8 + seed, 3, 0.3));
    table.add(16, "SVD", compressed(0.95, 0.1, 0.1));
    table.add(16, method, compressed(0.944 + seed, 0.1, 0.2));
  }
  return table;
}

TEST(DigitsScoreTable, SpreadIsMeanAndStandardDeviation) {
  const digits::Spread s = digits::spread({1, 2, 3, 6});
  EXPECT_DOUBLE_EQ(s.mean, 3);
  EXPECT_DOUBLE_EQ(s.deviation, std::sqrt(14.0 / 3));
}

int sign(const std::vector<double>& a, const std::vector<double>& b) {
  return digits::difference(a, b).sign();
}

TEST(DigitsScoreTable, DifferencesAreThoseOfPairs) {
  const digits::Difference d = digits::difference({2, 5, 6, 11}, {1, 3, 3, 5});
  EXPECT_DOUBLE_EQ(d.mean, 3);
  EXPECT_DOUBLE_EQ(d.error, std::sqrt(14.0 / 3) / 2);
}

TEST(DigitsScoreTable, DifferencesCountBeyondThreeStandardErrors) {
  EXPECT_EQ(sign({1, 2, 3}, {1, 2, 3}), 0);
  // Pairs that differ by the same, however much they vary.
  EXPECT_EQ(sign({1.5, 20.5}, {1, 20}), 1);
  EXPECT_EQ(sign({1, 20}, {1.5, 20.5}), -1);
  // Differences 1 and d have mean (1 + d) / 2 and standard error (1 - d) / 2: the mean exceeds
  // three of them where d exceeds 1/2.
  EXPECT_EQ(sign({1, 0.51}, {0, 0}), 1);
  EXPECT_EQ(sign({1, 0.49}, {0, 0}), 0);
  EXPECT_EQ(sign({0, 0}, {1, 0.51}), -1);
}

std::string findings(const ScoreTable& table) {
  std::ostringstream text;
  table.print_findings(text);
  return text.str();
}

TEST(DigitsScoreTable, FindingsFollowFromTheNumbers) {
  EXPECT_EQ(
      findings(worked_example("FWSVD input, true Fisher")),
      "against SVD, by more than three standard errors:\n"
      "  FWSVD input, true Fisher: accuracy higher at rank 4, lower at rank 8; loss lower at "
      "rank 4, higher at rank 8\n"
      "the claim for FWSVD, no smaller error of W and yet a better network (ranks left out: "
      "cannot be told):\n"
      "  FWSVD input, true Fisher: by accuracy it holds at rank 4, fails at rank 8; by loss it "
      "holds at rank 4, fails at rank 8\n");
}

TEST(DigitsScoreTable, AccuracyAndLossAreJudgedApart) {
  ScoreTable table;
  for (int seed = 0; seed < 2; ++seed)
    for (const Index rank : {4, 8}) {
      table.add(rank, "SVD", compressed(0.5, 2, 0.3));
      table.add(rank, "FWSVD", compressed(0.6, 3, 0.3));
      table.add(rank, "covariance", compressed(0.5, 2, 0.4));
    }
  EXPECT_NE(findings(table).find("\n  FWSVD: by accuracy it holds at ranks 4 8, fails at no rank; "
                                 "by loss it holds at no rank, fails at ranks 4 8\n"),
            std::string::npos)
      << findings(table);
  EXPECT_NE(findings(table).find("covariance: accuracy higher at no rank, lower at no rank; loss "
                                 "lower at no rank, higher at no rank\n"),
            std::string::npos)
      << findings(table);
  EXPECT_EQ(findings(table).find("covariance: by accuracy"), std::string::npos);
}

TEST(DigitsScoreTable, ASmallerErrorIsNotTheClaim) {
  ScoreTable table;
  for (int seed = 0; seed < 2; ++seed) {
    table.add(4, "SVD", compressed(0.5, 2, 0.3));
    table.add(4, "FWSVD input", compressed(0.6, 1, 0.2));
  }
  EXPECT_NE(
      findings(table).find("by accuracy it holds at no rank, fails at rank 4; by loss it holds "
                           "at no rank, fails at rank 4"),
      std::string::npos)
      << findings(table);
}

std::string printed(const ScoreTable& table) {
  std::ostringstream text;
  table.print(text);
  return text.str();
}

TEST(DigitsScoreTable, PrintsMeansOverSeeds) {
  ScoreTable table = worked_example("other");
  table.add_whole({0.9, 1});
  table.add_whole({0.92, 2});
  const std::string text = printed(table);
  for (const std::string line :
       {"   -     100.0 %  not compressed                   0.9100  0.0141    1.5000  0.7071      "
        "0.0000\n",
        "   4      25.0 %  SVD                              0.5050  0.0071    2.0000  0.0000      "
        "0.3000\n",
        "   4      25.0 %  other                            0.6050  0.0071    1.0000  0.0000      "
        "0.4000  +0.1000 +- 0.0000\n",
        "  16      25.0 %  other                            0.9490  0.0071    0.1000  0.0000      "
        "0.2000  -0.0010 +- 0.0050\n"})
    EXPECT_NE(text.find("\n" + line), std::string::npos) << line << text;
}

TEST(DigitsScoreTable, AppendedSeedsCountAsAdded) {
  ScoreTable parts, at_once;
  for (const double seed : {0.0, 0.1, 0.3}) {
    ScoreTable one;
    for (ScoreTable* table : {&one, &at_once}) {
      table->add_whole({0.5 + seed, seed});
      table->add(8, "SVD", compressed(0.4 + seed, 2 - seed, seed));
      table->add(8, "other", compressed(0.5 - seed, 2, 0.1));
      table->add(4, "SVD", compressed(0.3, 3 - seed, 0.2));
      table->add(4, "other", compressed(0.2, 3, 0.1));
    }
    parts.append(one);
  }
  EXPECT_EQ(printed(parts), printed(at_once));
}

TEST(DigitsScoreTable, CsvHasALineForEverySeed) {
  ScoreTable table;
  table.add(4, "a, b", compressed(0.5, 2, 0.25));
  table.add(4, "a, b", compressed(0.75, 1, 0.5));
  std::ostringstream text;
  table.write_csv(text, 0.5);
  EXPECT_EQ(text.str(), "0.5,0,4,\"a, b\",0.5,2,0.25,0.25\n0.5,1,4,\"a, b\",0.75,1,0.5,0.25\n");
}

TEST(DigitsScoreTable, ACsvFileThatCannotBeWrittenIsRefused) {
  EXPECT_THROW(digits::CsvFile("/nonexistent/scores.csv"), digits::InputError);
  EXPECT_NO_THROW(digits::CsvFile(""));
}

}  // namespace
}  // namespace studies_digits_score_table_test
