// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// The rounding errors that tests allow, one trait for each scalar.
///
/// Every bound follows from Higham, "Accuracy and Stability of Numerical Algorithms", section 3.1:
/// n rounded operations in a row give a result within a factor 1 +- gamma(n) of the exact one,
/// gamma(n) = n u / (1 - n u), u the unit roundoff. A fused multiply-add only takes roundings away,
/// and the order of a sum does not matter, so one bound holds for every backend and arch. Nothing
/// here depends on what the code under test returned.

#include <pare/core/scalar.hpp>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <type_traits>

namespace pare::testing {

template <class T>
struct Tolerance {
  /// u: half the distance from 1 to the next number.
  static constexpr double unit_roundoff = std::numeric_limits<T>::epsilon() / 2.0;

  static constexpr double gamma(double n) { return n * unit_roundoff / (1 - n * unit_roundoff); }

  /// A sum of n terms, each multiplied once by a factor that was itself rounded, of which the
  /// absolute values add up to `magnitude`: n - 1 additions, the factor, the product, and the cast
  /// of a sum that was accumulated in double.
  static constexpr double scaled_sum(double n, double magnitude) {
    return gamma(n + 3) * magnitude;
  }

  /// A dot product of n terms: n products, n - 1 additions and a cast.
  static constexpr double dot(double n, double magnitude) { return gamma(n + 1) * magnitude; }
};

/// |got - wanted| <= bound; false if any of them is NaN or infinite.
inline bool within(double got, double wanted, double bound) {
  return std::isfinite(bound) && std::abs(got - wanted) <= bound;
}

/// Equal bit for bit: -0 differs from 0, and a NaN equals itself.
template <class T>
bool same_bits(const T& a, const T& b) {
  static_assert(std::is_trivially_copyable_v<T>);
  return std::memcmp(&a, &b, sizeof(T)) == 0;
}

}  // namespace pare::testing
