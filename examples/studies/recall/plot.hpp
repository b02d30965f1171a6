// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// A plot of error against density as an SVG file, one line a method.

#include "recall_text/text.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdio>
#include <fstream>
#include <ostream>
#include <string>
#include <vector>

namespace recall {

/// The scores of one method over its settings.
struct Curve {
  struct Point {
    double density = 0;
    double error = 0;
  };
  std::string name;
  std::vector<Point> points;
};

namespace detail {

/// Where densities (0 to 1) and errors (powers of ten) lie on the page, in its units.
struct Axes {
  static constexpr double left = 70, right = 560, top = 50, bottom = 390;
  int lowest = -4, highest = 0;  ///< exponents of ten at the bottom and at the top

  double x(double density) const { return left + density * (right - left); }
  double y(double exponent) const {
    return bottom - (exponent - lowest) / double(highest - lowest) * (bottom - top);
  }
};

/// An error of exactly zero has no place on a logarithmic axis.
inline bool can_be_drawn(const Curve::Point& point) {
  return point.error > 0 && std::isfinite(point.error);
}

inline Axes fit_axes(const std::vector<Curve>& curves) {
  Axes axes{0, -1};
  double low = 1, high = 0;
  for (const Curve& curve : curves)
    for (const Curve::Point& point : curve.points) {
      if (!can_be_drawn(point)) continue;
      low = std::min(low, point.error);
      high = std::max(high, point.error);
    }
  // Errors below a millionth are rounding and would flatten all that is of interest.
  axes.lowest = static_cast<int>(std::floor(std::log10(std::max(low, 1e-6))));
  axes.highest = std::max(axes.lowest + 1, static_cast<int>(std::ceil(std::log10(high))));
  return axes;
}

inline std::string number(double value) {
  char text[32];
  std::snprintf(text, sizeof text, "%.1f", value);
  return text;
}

inline std::string escape(const std::string& text) {
  std::string escaped;
  for (const char c : text)
    escaped += c == '<' ? "&lt;" : c == '>' ? "&gt;" : c == '&' ? "&amp;" : std::string(1, c);
  return escaped;
}

inline void draw_text(std::ostream& os, double x, double y, const char* anchor,
                      const std::string& text) {
  os << "<text x='" << number(x) << "' y='" << number(y) << "' text-anchor='" << anchor << "'>"
     << escape(text) << "</text>\n";
}

inline void draw_line(std::ostream& os, double x1, double y1, double x2, double y2) {
  os << "<line x1='" << number(x1) << "' y1='" << number(y1) << "' x2='" << number(x2) << "' y2='"
     << number(y2) << "' stroke='#dddddd'/>\n";
}

inline void draw_axes(std::ostream& os, const Axes& axes, const std::string& title) {
  for (int tenth = 0; tenth <= 10; tenth += 2) {
    const double x = axes.x(tenth / 10.0);
    draw_line(os, x, Axes::top, x, Axes::bottom);
    draw_text(os, x, Axes::bottom + 20, "middle", number(tenth / 10.0));
  }
  for (int exponent = axes.lowest; exponent <= axes.highest; ++exponent) {
    draw_line(os, Axes::left, axes.y(exponent), Axes::right, axes.y(exponent));
    draw_text(os, Axes::left - 8, axes.y(exponent) + 4, "end", "1e" + std::to_string(exponent));
  }
  draw_text(os, (Axes::left + Axes::right) / 2, Axes::bottom + 44, "middle",
            "density: share of the causal blocks computed");
  draw_text(os, Axes::left - 50, Axes::top - 14, "start", "relative mean squared error");
  draw_text(os, Axes::left - 50, 18, "start", title);
}

inline void draw_curve(std::ostream& os, const Axes& axes, const Curve& curve,
                       const std::string& color, double legend_y) {
  std::string path, dots;
  for (const Curve::Point& point : curve.points) {
    if (!can_be_drawn(point)) continue;
    const std::string x = number(axes.x(point.density));
    const std::string y = number(axes.y(std::log10(std::max(point.error, 1e-6))));
    path.append(path.empty() ? "" : " ").append(x).append(",").append(y);
    dots.append("<circle cx='").append(x).append("' cy='").append(y).append("' r='3' fill='");
    dots.append(color).append("'/>\n");
  }
  const std::string stroke = "fill='none' stroke='" + color + "' stroke-width='2'/>\n";
  os << "<polyline points='" << path << "' " << stroke << dots;
  os << "<line x1='575' x2='595' y1='" << number(legend_y) << "' y2='" << number(legend_y) << "' "
     << stroke;
  draw_text(os, 600, legend_y + 4, "start", curve.name);
}

}  // namespace detail

/// Writes the plot. Points without an error above zero are left out.
inline void draw_plot(std::ostream& os, const std::string& title,
                      const std::vector<Curve>& curves) {
  // Okabe and Ito's colours, which the colour-blind can tell apart.
  constexpr std::array colors = {"#0072b2", "#d55e00", "#009e73", "#cc79a7",
                                 "#e69f00", "#56b4e9", "#000000"};
  const detail::Axes axes = detail::fit_axes(curves);
  os << "<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 760 450' font-family='sans-serif' "
        "font-size='13'>\n<rect width='760' height='450' fill='white'/>\n";
  detail::draw_axes(os, axes, title);
  for (std::size_t i = 0; i < curves.size(); ++i)
    detail::draw_curve(os, axes, curves[i], colors[i % colors.size()],
                       detail::Axes::top + 10 + 22 * double(i));
  os << "</svg>\n";
}

/// Writes the plot to a file. Throws InputError if that cannot be written.
inline void write_plot(const std::string& path, const std::string& title,
                       const std::vector<Curve>& curves) {
  std::ofstream file(path, std::ios::binary);
  draw_plot(file, title, curves);
  if (!file.flush()) throw InputError(path + ": cannot be written");
}

}  // namespace recall
