// SPDX-License-Identifier: Apache-2.0

#include "common/plot.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

namespace studies_plot_test {
namespace {

using plot::Plot;
using plot::Scale;

std::string drawn(const Plot& picture) {
  std::ostringstream os;
  plot::draw(os, picture);
  return os.str();
}

std::size_t occurrences(const std::string& text, const std::string& what) {
  std::size_t count = 0;
  for (std::size_t at = text.find(what); at != std::string::npos; at = text.find(what, at + 1))
    ++count;
  return count;
}

/// Whether each tag is closed in its turn, quotes end, and no bare < or & stands in the text.
bool well_formed(const std::string& svg) {
  std::vector<std::string> open;
  for (std::size_t at = 0; at < svg.size(); ++at) {
    if (svg[at] == '&' && svg.compare(at, 4, "&lt;") != 0 && svg.compare(at, 4, "&gt;") != 0 &&
        svg.compare(at, 5, "&amp;") != 0)
      return false;
    if (svg[at] != '<') continue;
    const std::size_t end = svg.find('>', at);
    if (end == std::string::npos) return false;
    const std::string tag = svg.substr(at + 1, end - at - 1);
    if (tag.find('<') != std::string::npos || occurrences(tag, "'") % 2 != 0) return false;
    if (tag.front() == '/') {
      if (open.empty() || open.back() != tag.substr(1)) return false;
      open.pop_back();
    } else if (tag.back() != '/') {
      open.push_back(tag.substr(0, tag.find(' ')));
    }
    at = end;
  }
  return open.empty();
}

Plot errors_by_density() {
  return {"a <title> & more",
          {.label = "density", .low = 0, .high = 1},
          {.label = "error", .scale = Scale::Log},
          {{"PBS", {{0.25, 0.1}, {0.5, 0.01}, {1, 0}}},
           {"S2O", {{0, 0.001}, {1, 1e-6}, {0.5, std::nan("")}}}},
          {}};
}

TEST(Plot, EverySeriesIsALineThroughThePointsThatHaveAPlace) {
  const std::string svg = drawn(errors_by_density());
  EXPECT_EQ(svg.substr(0, 5), "<svg ");
  EXPECT_EQ(svg.substr(svg.size() - 7), "</svg>\n");
  EXPECT_TRUE(well_formed(svg)) << svg;
  EXPECT_NE(svg.find("a &lt;title&gt; &amp; more"), std::string::npos);
  // Errors from 1e-6 to 1e-1 lie on heights from 390 to 50.
  EXPECT_NE(svg.find("<polyline points='192.5,50.0 315.0,118.0'"), std::string::npos) << svg;
  EXPECT_NE(svg.find("<polyline points='70.0,186.0 560.0,390.0'"), std::string::npos) << svg;
  EXPECT_NE(svg.find(">1e-6<"), std::string::npos);
  EXPECT_EQ(occurrences(svg, "<circle"), 4u);
  EXPECT_EQ(occurrences(svg, "<polyline"), 2u);
  EXPECT_EQ(occurrences(svg, "nan") + occurrences(svg, "inf"), 0u);
  EXPECT_EQ(svg, drawn(errors_by_density()));
}

TEST(Plot, WithoutAnyPointOnlyTheAxesAreDrawn) {
  for (const Scale scale : {Scale::Linear, Scale::Log}) {
    const std::string svg =
        drawn({"nothing", {"x", scale}, {"y", Scale::Log}, {{"exact", {{1, 0}}}}, {}});
    EXPECT_TRUE(well_formed(svg));
    EXPECT_EQ(occurrences(svg, "<circle"), 0u);
    EXPECT_EQ(occurrences(svg, "nan") + occurrences(svg, "inf"), 0u);
  }
}

TEST(Plot, ErrorsAreBarsThatTheAxisHasRoomFor) {
  const std::string svg = drawn({"", {"x"}, {"y"}, {{"s", {{0, 2, 2}, {1, 8, 2}}}}, {}});
  // Numbers from 0 to 10 on heights from 390 to 50: the bars reach both ends.
  EXPECT_NE(svg.find("<line x1='70.0' y1='390.0' x2='70.0' y2='254.0' stroke='#0072b2'/>"),
            std::string::npos)
      << svg;
  EXPECT_NE(svg.find("<line x1='560.0' y1='186.0' x2='560.0' y2='50.0' stroke='#0072b2'/>"),
            std::string::npos);
  EXPECT_TRUE(well_formed(svg));
  // On a logarithmic axis a bar to 0 or less ends at its foot.
  const std::string log = drawn({"", {"x"}, {"y", Scale::Log}, {{"s", {{0, 5, 5}}}}, {}});
  EXPECT_NE(log.find("y1='390.0'"), std::string::npos);
  EXPECT_EQ(occurrences(log, "nan") + occurrences(log, "inf"), 0u);
}

TEST(Plot, LevelsAreDashedAndNamed) {
  const std::string svg = drawn({"", {"x"}, {"y"}, {{"s", {{0, 1}}}}, {{"exact", 6}}});
  EXPECT_EQ(occurrences(svg, "stroke-dasharray"), 2u);  // in the plot and in its legend
  EXPECT_NE(svg.find(">exact</text>"), std::string::npos);
}

TEST(Plot, AFileThatCannotBeWrittenIsReported) {
  EXPECT_THROW(plot::write("/nonexistent/plot.svg", {}), std::runtime_error);
}

std::vector<std::string> labels_of(const plot::detail::Ruler& ruler) {
  std::vector<std::string> labels;
  for (const double tick : ruler.ticks) labels.push_back(ruler.text_of(tick));
  return labels;
}

TEST(PlotRuler, EndsLieAtTheEndsOfThePage) {
  for (const Scale scale : {Scale::Linear, Scale::Log})
    for (const double high : {3.0, 7.1, 40.0, 999.0, 1e9}) {
      const auto ruler = plot::detail::fit({.label = {}, .scale = scale}, {2, high}, 390, 50);
      ASSERT_GE(ruler.ticks.size(), 2u);
      EXPECT_NEAR(ruler.at(ruler.ticks.front()), 390, 1e-9) << high;
      EXPECT_NEAR(ruler.at(ruler.ticks.back()), 50, 1e-9) << high;
      EXPECT_LE(ruler.ticks.front(), 2 * (1 + 1e-9));
      EXPECT_GE(ruler.ticks.back(), high * (1 - 1e-9));
      EXPECT_LE(ruler.ticks.size(), 12u);
    }
}

TEST(PlotRuler, TicksAreRoundNumbers) {
  using Labels = std::vector<std::string>;
  const auto labels = [](Scale scale, double low, double high) {
    return labels_of(plot::detail::fit({.label = {}, .scale = scale}, {low, high}, 0, 1));
  };
  EXPECT_EQ(labels(Scale::Linear, 0, 1), (Labels{"0.0", "0.2", "0.4", "0.6", "0.8", "1.0"}));
  EXPECT_EQ(labels(Scale::Linear, 17, 99), (Labels{"0", "20", "40", "60", "80", "100"}));
  EXPECT_EQ(labels(Scale::Linear, 3, 3), (Labels{"3.0", "3.5", "4.0", "4.5", "5.0", "5.5", "6.0"}));
  EXPECT_EQ(labels(Scale::Log, 14, 31), (Labels{"10", "15", "20", "30", "40"}));
  EXPECT_EQ(labels(Scale::Log, 0.15, 0.25), (Labels{"0.15", "0.2", "0.3"}));
  EXPECT_EQ(labels(Scale::Log, 3e6, 1.2e8),
            (Labels{"2e6", "5e6", "1e7", "2e7", "5e7", "1e8", "2e8"}));
  EXPECT_EQ(labels(Scale::Log, 1e-4, 1), (Labels{"1e-4", "0.001", "0.01", "0.1", "1"}));
}

}  // namespace
}  // namespace studies_plot_test
