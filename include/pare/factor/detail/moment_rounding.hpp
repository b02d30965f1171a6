// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// What eigenvalues of a second moment may be rounding.

#include <pare/core/tensor_view.hpp>

#include <cmath>
#include <type_traits>

namespace pare::factor::detail {
PARE_ABI_BEGIN

/// What share of the largest eigenvalue of C [n x n] of T rounding may be. Of numbers in float, or
/// of sums in float, it is a matrix whose entries are as good as independent: its norm grows with
/// sqrt(n). Of double, the bound n u.
template <class T>
double moment_rounding(Index n, bool has_float_sums = false) {
  const auto size = static_cast<double>(n);
  return has_float_sums || std::is_same_v<T, float> ? std::sqrt(size) * 0x1p-24 : size * 0x1p-53;
}

PARE_ABI_END
}  // namespace pare::factor::detail
