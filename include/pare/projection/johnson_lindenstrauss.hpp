// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// How many dimensions a random projection needs.
///
/// ```cpp
/// const Index k = johnson_lindenstrauss_dim(1'000'000, 0.1);              // 11841
/// SparseProjection omega{.input_dim = d, .output_dim = k, .seed = 7};
/// project(x, omega, y);                                                   // project.hpp
/// ```

#include <pare/core/macros_off.hpp>

#include <pare/core/check.hpp>

#include <cmath>

namespace pare::projection {
PARE_ABI_BEGIN

/// Dimensions in which all distances between `samples` points keep their squares within a factor of
/// 1 +- eps with good probability: trunc(4 ln(samples) / (eps^2/2 - eps^3/3)).
///
/// The bound knows nothing of the data or its dimension, and is loose; it may exceed both.
/// \param samples number of points, at least 1
/// \param eps     relative distortion of squared distances, in (0, 1)
/// \throws std::invalid_argument if samples < 1, eps is outside (0, 1) or NaN, or eps is so small
///         that the dimension is 2^62 or more.
///
/// Source: Dasgupta and Gupta, "An elementary proof of the Johnson-Lindenstrauss lemma" (1999), as
/// scikit-learn's johnson_lindenstrauss_min_dim, whose values it equals.
inline Index johnson_lindenstrauss_dim(Index samples, double eps) {
  constexpr const char* function = "projection::johnson_lindenstrauss_dim";
  check(samples >= 1, function, "samples", samples, "at least 1");
  check(is_finite(eps) && eps > 0 && eps < 1, function, "eps", eps, "a distortion in (0, 1)");
  const double denominator = eps * eps / 2 - eps * eps * eps / 3;
  const double dims = 4 * std::log(static_cast<double>(samples)) / denominator;
  check(dims < 0x1p62, function, "eps", eps, "a distortion whose dimension fits 62 bits");
  return static_cast<Index>(dims);
}

PARE_ABI_END
}  // namespace pare::projection

#include <pare/core/macros_on.hpp>
