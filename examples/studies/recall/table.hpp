// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// The table of scores, printed line by line as they come.

#include "recall/scores.hpp"

#include <cmath>
#include <cstdio>
#include <ostream>
#include <string>

namespace recall {

/// Prints what is measured and the names of the columns.
inline void print_title(std::ostream& os, const std::string& title) {
  char line[160];
  std::snprintf(line, sizeof line, "%-20s %-16s %8s %8s %10s %9s %9s %9s %8s\n", "", "", "density",
                "mass", "rel. MSE", "next word", "select s", "total s", "speed-up");
  os << '\n' << title << '\n' << line << std::flush;
}

/// Prints one line; `exact_seconds` is the time of the exact engine.
inline void print_score(std::ostream& os, const Score& score, double exact_seconds) {
  char accuracy[16] = "-";
  if (!std::isnan(score.accuracy)) std::snprintf(accuracy, sizeof accuracy, "%.3f", score.accuracy);
  char line[200];
  std::snprintf(line, sizeof line, "%-20.20s %-16.16s %8.3f %8.4f %10.2e %9s %9.3f %9.3f %8.2f\n",
                score.method.c_str(), score.setting.c_str(), score.density, score.mass, score.error,
                accuracy, score.select_seconds, score.seconds, exact_seconds / score.seconds);
  os << line << std::flush;
}

}  // namespace recall
