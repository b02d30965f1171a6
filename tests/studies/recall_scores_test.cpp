// SPDX-License-Identifier: Apache-2.0

#include "recall/plot.hpp"
#include "recall/scores.hpp"
#include "recall/table.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <sstream>
#include <string>
#include <vector>

namespace {

using recall::Curve;
using recall::Index;
using recall::Matrix;
using recall::RowTensor;
using recall::Tensor;
using recall::Text;

std::size_t occurrences(const std::string& text, const std::string& what) {
  std::size_t count = 0;
  for (std::size_t at = text.find(what); at != std::string::npos; at = text.find(what, at + 1))
    ++count;
  return count;
}

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

TEST(RecallPlot, EveryMethodIsALineOnLogarithmicAxes) {
  std::ostringstream os;
  recall::draw_plot(os, "a <title> & more",
                    {{"PBS", {{0.25, 0.1}, {0.5, 0.01}, {1, 0}}},
                     {"S2O", {{0, 0.001}, {1, 1e-9}, {0.5, std::nan("")}}}});
  const std::string svg = os.str();
  EXPECT_EQ(svg.substr(0, 5), "<svg ");
  EXPECT_EQ(svg.substr(svg.size() - 7), "</svg>\n");
  EXPECT_NE(svg.find("a &lt;title&gt; &amp; more"), std::string::npos);
  // Errors from 1e-6, below which nothing is drawn, to 1e-1 lie on heights from 390 to 50.
  EXPECT_NE(svg.find("<polyline points='192.5,50.0 315.0,118.0'"), std::string::npos) << svg;
  EXPECT_NE(svg.find("<polyline points='70.0,186.0 560.0,390.0'"), std::string::npos) << svg;
  EXPECT_EQ(occurrences(svg, "<circle"), 4u);
  EXPECT_EQ(occurrences(svg, "<polyline"), 2u);
  EXPECT_EQ(occurrences(svg, "nan"), 0u);
}

TEST(RecallPlot, WithoutAnyErrorOnlyTheAxesAreDrawn) {
  std::ostringstream os;
  recall::draw_plot(os, "nothing", {{"exact", {{1, 0}}}});
  EXPECT_EQ(occurrences(os.str(), "<circle"), 0u);
  EXPECT_EQ(occurrences(os.str(), "nan") + occurrences(os.str(), "inf"), 0u);
}

TEST(RecallPlot, AFileThatCannotBeWrittenIsReported) {
  EXPECT_THROW(recall::write_plot("/nonexistent/plot.svg", "", {}), recall::InputError);
}

}  // namespace
