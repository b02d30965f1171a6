// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// What a sample says of a mean.

#include <cmath>
#include <span>

namespace models {

/// A mean and its standard error, of values taken as independent.
struct Mean {
  double value = 0, error = 0;
};

inline Mean mean_of(std::span<const double> values) {
  const auto n = static_cast<double>(values.size());
  double sum = 0, squares = 0;
  for (const double value : values) sum += value;
  for (const double value : values) squares += (value - sum / n) * (value - sum / n);
  return {sum / n, n > 1 ? std::sqrt(squares / (n - 1) / n) : 0};
}

}  // namespace models
