// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Cosines and sines of rotary embedding, computed once for a range of positions.
///
/// ```cpp
/// const RotaryTable<float> table(rotary_frequencies(64), 8192);  // 64 of a head's numbers
/// RotaryFrequencies scaled = rotary_frequencies(64, 500000);     // any frequencies, by hand
/// for (double& f : scaled.frequencies) f /= 4;
/// const RotaryTable<float> longer(scaled, 32768);
/// ```
///
/// Pair i of a row at position p is turned by an angle, p base^(-2i / dims) for
/// `rotary_frequencies`. What gives the angles is a policy, a type that models `RotaryAngles`, so
/// that frequencies that are stretched, or positions of more than one dimension, are types of their
/// own:
///
/// ```cpp
/// struct Grid {  // token (y, x) of a picture: a pair in two turns by y, the other by x
///   Index width;
///   Index pairs() const { return 16; }
///   double angle(Index token, Index pair) const {
///     const double place = double(pair % 2 == 0 ? token / width : token % width);
///     return place * std::pow(100.0, -double(pair / 2) / 8);
///   }
/// };
/// const RotaryTable<float> grid(Grid{width}, width * height);
/// ```
///
/// Angles, cosines and sines are computed in double; a float cosine is that rounded, at any
/// position. Source: Su et al., "RoFormer", 2021, section 3.2.

#include <pare/core/macros_off.hpp>

#include <pare/core/check.hpp>
#include <pare/core/scalar.hpp>

#include <cmath>
#include <concepts>
#include <cstddef>
#include <vector>

namespace pare::transformer {

/// What gives the angle of pair i, 0 <= i < pairs(), at a position of at least 0. If there is a
/// `magnitude()`, cosines and sines are multiplied by it, as YaRN's are.
template <class A>
concept RotaryAngles = requires(const A& a, Index position, Index pair) {
  { a.pairs() } -> std::convertible_to<Index>;
  { a.angle(position, pair) } -> std::convertible_to<double>;
};

PARE_ABI_BEGIN

/// Angles in proportion to the position.
struct RotaryFrequencies {
  std::vector<double> frequencies;  ///< [pairs], radians per position, finite
  double scale = 1;                 ///< of cosines and sines, above 0

  Index pairs() const { return static_cast<Index>(frequencies.size()); }
  double angle(Index position, Index pair) const {
    return static_cast<double>(position) * frequencies[static_cast<std::size_t>(pair)];
  }
  double magnitude() const { return scale; }
};

/// base^(-2i / dims) for i < dims / 2.
///
/// \param dims numbers of a row that are turned, even and at least 2
/// \param base above 0 and finite: 10000 in RoFormer and Llama 2, 500000 in Llama 3
/// \throws std::invalid_argument if one is out of its range
inline RotaryFrequencies rotary_frequencies(Index dims, double base = 10000) {
  constexpr const char* function = "transformer::rotary_frequencies";
  check(dims >= 2 && dims % 2 == 0, function, "dims", dims, "an even number of at least 2");
  check(is_finite(base) && base > 0, function, "base", base, "a number above 0");
  RotaryFrequencies result;
  result.frequencies.reserve(static_cast<std::size_t>(dims / 2));
  for (Index i = 0; i < dims; i += 2)
    result.frequencies.push_back(
        std::pow(base, -static_cast<double>(i) / static_cast<double>(dims)));
  return result;
}

/// The table, for positions [first, first + count). T is what rows are computed in: float, or
/// double for double. Memory: 2 pairs count numbers of T.
template <ComputeScalar T>
class RotaryTable {
 public:
  using scalar = T;

  /// Cost: a sine and a cosine for each pair and position, some 50 ns.
  /// \param angles a RotaryAngles, not kept
  /// \param count  at least 0
  /// \param first  at least 0
  /// \throws std::invalid_argument if there is no pair, count or first is negative, the positions
  ///         do not fit `Index` or the table memory, or an angle or the magnitude is not finite
  template <RotaryAngles A>
  RotaryTable(const A& angles, Index count, Index first = 0)
      : pairs_(static_cast<Index>(angles.pairs())), count_(count), first_(first) {
    constexpr const char* function = "transformer::RotaryTable";
    check(pairs_ >= 1, function, "angles", pairs_, "at least one pair");
    check(count >= 0, function, "count", count, "at least 0");
    check(first >= 0, function, "first", first, "at least 0");
    checked_sum(function, "first", first, count);
    const Index row = checked_product(function, "angles", pairs_, 2);
    const Index size = checked_product(function, "count", count, row);
    checked_count(function, "count", size, sizeof(T));
    double magnitude = 1;
    if constexpr (requires { angles.magnitude(); }) magnitude = angles.magnitude();
    check(is_finite(magnitude) && magnitude > 0, function, "magnitude", magnitude,
          "a number above 0");
    values_.reserve(static_cast<std::size_t>(size));
    for (Index p = 0; p < count; ++p) {
      for (Index i = 0; i < pairs_; ++i) {
        const auto angle = static_cast<double>(angles.angle(first + p, i));
        check(is_finite(angle), function, "angles", angle, "a finite angle");
        values_.push_back(static_cast<T>(magnitude * std::cos(angle)));
      }
      for (Index i = 0; i < pairs_; ++i)
        values_.push_back(
            static_cast<T>(magnitude * std::sin(static_cast<double>(angles.angle(first + p, i)))));
    }
  }

  Index pairs() const { return pairs_; }
  /// Positions that the table has: [first(), first() + count()).
  Index first() const { return first_; }
  Index count() const { return count_; }
  bool has(Index position) const { return position >= first_ && position - first_ < count_; }

  /// Of a position that the table has, and a pair; not checked.
  T cosine(Index position, Index pair) const { return row(position)[pair]; }
  T sine(Index position, Index pair) const { return row(position)[pairs_ + pair]; }

  /// [count x 2 x pairs]: of each position the cosines, then the sines.
  const T* data() const { return values_.data(); }

 private:
  const T* row(Index position) const { return values_.data() + (position - first_) * 2 * pairs_; }

  Index pairs_, count_, first_;
  std::vector<T> values_;
};

PARE_ABI_END
}  // namespace pare::transformer

#include <pare/core/macros_on.hpp>
