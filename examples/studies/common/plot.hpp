// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// A picture of numbers as an SVG file: lines through points, axes that fit them, a legend.
///
/// ```cpp
/// plot::Plot picture{"Perplexity of a text", {"bytes", plot::Scale::Log}, {"perplexity"}, {}, {}};
/// picture.series.push_back({"plain SVD", {{1e8, 30, 2}, {2e8, 20, 1}}});  // x, y, its error
/// picture.levels.push_back({"the whole model", 18.5});                    // a dashed line
/// plot::write("picture.svg", picture);
/// ```
///
/// The text of the file is a function of the plot: equal plots make equal files. Points that are
/// not finite, or not above 0 on a logarithmic axis, have no place and are left out.

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdio>
#include <fstream>
#include <limits>
#include <optional>
#include <ostream>
#include <stdexcept>
#include <string>
#include <vector>

namespace plot {

struct Point {
  double x = 0, y = 0;
  double error = 0;  ///< a bar from y - error to y + error; 0: none
};

/// A line through its points, in their order.
struct Series {
  std::string name;
  std::vector<Point> points;
};

/// A dashed line at a height.
struct Level {
  std::string name;
  double y = 0;
};

enum class Scale { Linear, Log };

struct Axis {
  std::string label;
  Scale scale = Scale::Linear;
  std::optional<double> low{}, high{};  ///< the axis reaches at least these
};

struct Plot {
  std::string title;
  Axis x, y;
  std::vector<Series> series;
  std::vector<Level> levels;
};

namespace detail {

inline std::string number(double value, int decimals = 1) {
  std::array<char, 64> text{};
  std::snprintf(text.data(), text.size(), "%.*f", decimals, value);
  return text.data();
}

/// 1e-6, 0.25, 15, 2e8
inline std::string label(double value, int decimals) {
  std::array<char, 64> text{};
  const double size = std::abs(value);
  if (size == 0 || (size >= 1e-3 && size < 1e6)) return number(value, decimals);
  std::snprintf(text.data(), text.size(), "%.1e", value);
  std::string short_text = text.data();
  const std::size_t point = short_text.find(".0e"), e = short_text.find('e');
  const std::string exponent = std::to_string(std::stoi(short_text.substr(e + 1)));
  return short_text.substr(0, point == std::string::npos ? e : point) + "e" + exponent;
}

/// Where the numbers of an axis lie on the page, and which of them are written beside it.
struct Ruler {
  double low = 0, high = 1;    ///< numbers at its ends; of log scales their logarithm
  double first = 0, last = 1;  ///< its ends on the page
  Scale scale = Scale::Linear;
  std::vector<double> ticks{};
  int decimals = 0;

  bool holds(double value) const {
    return std::isfinite(value) && (scale == Scale::Linear || value > 0);
  }
  double at(double value) const {
    const double number = scale == Scale::Log ? std::log10(value) : value;
    return first + (number - low) / (high - low) * (last - first);
  }
  std::string text_of(double tick) const {
    if (scale == Scale::Linear) return label(tick, decimals);
    const int digits = tick < 1 ? static_cast<int>(std::ceil(-std::log10(tick) - 1e-9)) : 0;
    const bool whole =
        std::abs(tick * std::pow(10, digits) - std::round(tick * std::pow(10, digits))) < 1e-9;
    return label(tick, whole ? digits : digits + 1);  // 1.5 is the only one between
  }
};

/// Ends and ticks at multiples of 1, 2 or 5 times a power of ten.
inline void fit_linear(Ruler& ruler, double low, double high) {
  if (!(low < high)) high = low + std::max(1.0, std::abs(low));
  const double rough = (high - low) / 6, ten = std::pow(10, std::floor(std::log10(rough)));
  double step = 10 * ten;
  for (const double times : {5.0, 2.0, 1.0})
    if (times * ten >= rough * (1 - 1e-9)) step = times * ten;
  const double from = std::floor(low / step + 1e-9), to = std::ceil(high / step - 1e-9);
  ruler.low = from * step;
  ruler.high = to * step;
  ruler.decimals = std::max(0, -static_cast<int>(std::floor(std::log10(step) + 1e-9)));
  for (double i = from; i <= to; ++i) ruler.ticks.push_back(i * step);
}

/// Ends and ticks at powers of ten and, where there are few, at numbers between.
inline void fit_log(Ruler& ruler, double low, double high) {
  const double decades = std::log10(high / low);
  std::vector<double> steps = {1, 1.5, 2, 3, 4, 6, 8};
  if (decades > 1.2) steps = {1, 2, 5};
  if (decades > 2.5) steps = {1};
  std::vector<double> grid;
  const int from = static_cast<int>(std::floor(std::log10(low))) - 1;
  const int to = static_cast<int>(std::ceil(std::log10(high))) + 1;
  for (int exponent = from; exponent <= to; ++exponent)
    for (const double step : steps) grid.push_back(step * std::pow(10, exponent));
  auto begin = std::ranges::upper_bound(grid, low * (1 + 1e-9)) - 1;
  auto end = std::ranges::lower_bound(grid, high * (1 - 1e-9));
  if (begin == end) ++end;
  ruler.ticks.assign(begin, end + 1);
  ruler.low = std::log10(ruler.ticks.front());
  ruler.high = std::log10(ruler.ticks.back());
}

/// A ruler for what is to be seen of the values, which is 0 to 1, or 1 to 10, if that is nothing.
inline Ruler fit(const Axis& axis, std::vector<double> values, double first, double last) {
  Ruler ruler{.first = first, .last = last, .scale = axis.scale};
  for (const auto& end : {axis.low, axis.high})
    if (end) values.push_back(*end);
  std::erase_if(values, [&](double value) { return !ruler.holds(value); });
  const bool log = axis.scale == Scale::Log;
  if (values.empty()) values = log ? std::vector<double>{1, 10} : std::vector<double>{0, 1};
  const auto [low, high] = std::ranges::minmax(values);
  log ? fit_log(ruler, low, high) : fit_linear(ruler, low, high);
  return ruler;
}

inline std::string escape(const std::string& text) {
  std::string escaped;
  for (const char c : text)
    escaped += c == '<' ? "&lt;" : c == '>' ? "&gt;" : c == '&' ? "&amp;" : std::string(1, c);
  return escaped;
}

/// Draws a plot on a page of 760 x 450 units.
class Drawing {
 public:
  Drawing(std::ostream& os, const Plot& plot) : os_(os), plot_(plot) {
    std::vector<double> of_x, of_y;
    for (const Series& series : plot.series)
      for (const Point& point : series.points) {
        const std::array ends = {point.y, point.y - point.error, point.y + point.error};
        of_x.push_back(point.x);
        of_y.insert(of_y.end(), ends.begin(), point.error > 0 ? ends.end() : ends.begin() + 1);
      }
    for (const Level& level : plot.levels) of_y.push_back(level.y);
    x_ = fit(plot.x, of_x, left, right);
    y_ = fit(plot.y, of_y, bottom, top);
  }

  void draw() {
    os_ << "<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 760 450' font-family='sans-serif' "
           "font-size='13'>\n<rect width='760' height='450' fill='white'/>\n";
    draw_axes();
    for (const Level& level : plot_.levels) draw_level(level);
    for (const Series& series : plot_.series) draw_series(series);
    os_ << "</svg>\n";
  }

 private:
  static constexpr double left = 70, right = 560, top = 50, bottom = 390;
  // Okabe and Ito's colours, which the colour-blind can tell apart.
  static constexpr std::array colors = {"#0072b2", "#d55e00", "#009e73", "#cc79a7",
                                        "#e69f00", "#56b4e9", "#000000"};

  void draw_text(double x, double y, const char* anchor, const std::string& text,
                 const char* more = "") {
    os_ << "<text x='" << number(x) << "' y='" << number(y) << "' text-anchor='" << anchor << "'"
        << more << ">" << escape(text) << "</text>\n";
  }

  void draw_line(double x1, double y1, double x2, double y2, const std::string& stroke) {
    os_ << "<line x1='" << number(x1) << "' y1='" << number(y1) << "' x2='" << number(x2)
        << "' y2='" << number(y2) << "' stroke=" << stroke << "/>\n";
  }

  void draw_axes() {
    for (const double tick : x_.ticks) {
      draw_line(x_.at(tick), top, x_.at(tick), bottom, "'#dddddd'");
      draw_text(x_.at(tick), bottom + 20, "middle", x_.text_of(tick));
    }
    for (const double tick : y_.ticks) {
      draw_line(left, y_.at(tick), right, y_.at(tick), "'#dddddd'");
      draw_text(left - 8, y_.at(tick) + 4, "end", y_.text_of(tick));
    }
    draw_line(left, bottom, right, bottom, "'#666666'");
    draw_line(left, top, left, bottom, "'#666666'");
    draw_text((left + right) / 2, bottom + 44, "middle", plot_.x.label);
    draw_text(left - 50, top - 12, "start", plot_.y.label);
    draw_text(left - 50, 20, "start", plot_.title, " font-size='15' font-weight='bold'");
  }

  void draw_name(const std::string& name, const std::string& stroke) {
    const double height = top + 10 + 22 * static_cast<double>(names_++);
    draw_line(575, height, 595, height, stroke);
    draw_text(600, height + 4, "start", name);
  }

  void draw_level(const Level& level) {
    const std::string stroke = "'#666666' stroke-width='1.5' stroke-dasharray='5 4'";
    if (y_.holds(level.y)) draw_line(left, y_.at(level.y), right, y_.at(level.y), stroke);
    draw_name(level.name, stroke);
  }

  void draw_series(const Series& series) {
    const std::string color = std::string("'") + colors[drawn_ % colors.size()] + "'";
    const std::string stroke =
        color +
        (drawn_ < colors.size() ? " stroke-width='2'" : " stroke-width='2' stroke-dasharray='2 2'");
    ++drawn_;
    std::string path, dots;
    for (const Point& point : series.points) {
      if (!x_.holds(point.x) || !y_.holds(point.y)) continue;
      const std::string x = number(x_.at(point.x)), y = number(y_.at(point.y));
      path.append(path.empty() ? "" : " ").append(x).append(",").append(y);
      dots.append("<circle cx='").append(x).append("' cy='").append(y).append("' r='3.5' fill=");
      dots.append(color).append("/>\n");
      if (point.error > 0) draw_error(point, color);
    }
    os_ << "<polyline points='" << path << "' fill='none' stroke=" << stroke << "/>\n" << dots;
    draw_name(series.name, stroke);
  }

  /// From y - error, or from the foot of a logarithmic axis that has no such number, to y + error.
  void draw_error(const Point& point, const std::string& color) {
    const double below = point.y - point.error, x = x_.at(point.x);
    const double foot = y_.holds(below) ? y_.at(below) : bottom,
                 head = y_.at(point.y + point.error);
    draw_line(x, foot, x, head, color);
    for (const double end : {foot, head}) draw_line(x - 4, end, x + 4, end, color);
  }

  std::ostream& os_;
  const Plot& plot_;
  Ruler x_, y_;
  std::size_t names_ = 0, drawn_ = 0;
};

}  // namespace detail

inline void draw(std::ostream& os, const Plot& plot) { detail::Drawing(os, plot).draw(); }

/// Throws std::runtime_error if the file cannot be written.
inline void write(const std::string& path, const Plot& plot) {
  std::ofstream file(path, std::ios::binary);
  draw(file, plot);
  if (!file.flush()) throw std::runtime_error(path + ": cannot be written");
}

}  // namespace plot
