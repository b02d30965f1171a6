// SPDX-License-Identifier: Apache-2.0

#include "recall/error_plot.hpp"
#include "recall/scores.hpp"
#include "recall/table.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <sstream>
#include <string>
#include <vector>

namespace studies_recall_scores_test {
namespace {

using recall::Index;
using recall::Matrix;
using recall::RowTensor;
using recall::Tensor;
using recall::Text;

TEST(RecallScores, TheErrorIsRelativeToEachHead) {
  Tensor exact(1, 2, 1, 2), approximate(1, 2, 1, 2);
  exact.setValues({{{{3, 4}}, {{10, 0}}}});
  approximate.setValues({{{{3, 5}}, {{0, 0}}}});
  EXPECT_DOUBLE_EQ(recall::relative_error(approximate, exact), (1.0 / 25 + 1) / 2);
  EXPECT_EQ(recall::relative_error(exact, exact), 0);
}

TEST(RecallScores, TheErrorCountsEveryBatchEntry) {
  Tensor exact(2, 1, 1, 1), approximate(2, 1, 1, 1);
  exact.setValues({{{{2}}}, {{{4}}}});
  approximate.setValues({{{{1}}}, {{{4}}}});
  EXPECT_DOUBLE_EQ(recall::relative_error(approximate, exact), 0.125);
}

TEST(RecallScores, CoveredMassIsTheRatioOfTheSums) {
  constexpr float none = -std::numeric_limits<float>::infinity();
  RowTensor exact(1, 1, 4), sparse(1, 1, 4);
  exact.setValues({{{0, std::log(8.f), 2, none}}});
  sparse.setValues({{{std::log(.5f), std::log(2.f), none, none}}});
  EXPECT_NEAR(recall::covered_mass(sparse, exact), (.5 + .25 + 0 + 1) / 4, 1e-7);
}

TEST(RecallScores, AWordIsForetoldByTheNearestCode) {
  Text text{{0, 1, 2, 1, 0, 2, 1, 0}, {"x", "y", "z"}};
  Matrix codes(3, 2);
  codes << 1, 0, 0, 1, -1, -1;
  Tensor out(1, 2, 8, 2);
  out.setZero();
  const auto answer = [&](Index token, int word) {
    out(0, 1, token, 0) = codes(word, 0);
    out(0, 1, token, 1) = codes(word, 1);
  };
  // Tokens 4 to 6 are asked for those at 5 to 7: 2, 1, 0. The first half does not count.
  answer(4, 2);
  answer(5, 1);
  answer(6, 2);
  for (Index i = 0; i < 4; ++i) answer(i, text.word(i + 1));
  EXPECT_DOUBLE_EQ(recall::next_word_accuracy(out, 1, text, codes), 2.0 / 3);
  answer(6, 0);
  EXPECT_DOUBLE_EQ(recall::next_word_accuracy(out, 1, text, codes), 1);
}

TEST(RecallScores, AccuracyReachesOverBatchesOfRows) {
  Text text;
  text.vocabulary = {"x", "y"};
  for (int i = 0; i < 1202; ++i) text.words.push_back(i % 3 == 0 ? 1 : 0);
  Matrix codes(2, 1);
  codes << 1, -1;
  Tensor out(1, 1, 1202, 1);
  for (Index i = 0; i < 1202; ++i) out(0, 0, i, 0) = i + 1 < 1202 && text.word(i + 1) == 0 ? 1 : -1;
  EXPECT_DOUBLE_EQ(recall::next_word_accuracy(out, 0, text, codes), 1);
  for (Index i = 1000; i < 1030; ++i) out(0, 0, i, 0) *= -1;
  EXPECT_DOUBLE_EQ(recall::next_word_accuracy(out, 0, text, codes), 570.0 / 600);
}

TEST(RecallTable, ALineHoldsTheScoreAndTheSpeedUp) {
  std::ostringstream os;
  recall::print_title(os, "16384 tokens");
  recall::print_score(os,
                      {.method = "PBS",
                       .setting = "mass 0.90",
                       .density = 0.25,
                       .mass = 0.9125,
                       .error = 0.00123,
                       .accuracy = 0.8,
                       .seconds = 0.5,
                       .select_seconds = 0.125},
                      2);
  recall::print_score(os, {.method = "exact", .setting = "", .seconds = 2}, 2);
  std::istringstream lines(os.str());
  std::string line;
  std::getline(lines, line);
  std::getline(lines, line);
  EXPECT_EQ(line, "16384 tokens");
  std::getline(lines, line);
  const std::size_t width = line.size();
  std::getline(lines, line);
  EXPECT_EQ(
      line,
      "PBS                  mass 0.90           0.250   0.9125   1.23e-03     0.800     0.125 "
      "    0.500     4.00");
  EXPECT_EQ(line.size(), width);
  std::getline(lines, line);
  EXPECT_EQ(line.size(), width);
  EXPECT_NE(line.find(" - "), std::string::npos) << "no accuracy where nothing is foretold";
}

TEST(RecallPlot, ErrorsBelowAMillionthAreDrawnAsThat) {
  const plot::Plot picture =
      recall::error_plot("title", {{"S2O", {{0, 0.001}, {1, 1e-9}, {1, 0}}}});
  ASSERT_EQ(picture.series.size(), 1u);
  EXPECT_EQ(picture.series[0].points[0].y, 0.001);
  EXPECT_EQ(picture.series[0].points[1].y, 1e-6);
  EXPECT_EQ(picture.series[0].points[2].y, 0);
  EXPECT_EQ(picture.y.scale, plot::Scale::Log);
}

}  // namespace
}  // namespace studies_recall_scores_test
