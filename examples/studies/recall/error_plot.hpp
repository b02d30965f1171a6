// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// What a plot of error against density looks like.

#include "common/plot.hpp"

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

namespace recall {

/// The plot of error against density. Errors of exactly zero have no place on a logarithmic axis.
inline plot::Plot error_plot(const std::string& title, std::vector<plot::Series> curves) {
  for (plot::Series& curve : curves)
    for (plot::Point& point : curve.points)  // below a millionth is rounding
      if (point.y > 0) point.y = std::max(point.y, 1e-6);
  return {title,
          {.label = "density: share of the causal blocks computed", .low = 0, .high = 1},
          {.label = "relative mean squared error", .scale = plot::Scale::Log},
          std::move(curves),
          {}};
}

}  // namespace recall
