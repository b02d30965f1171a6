// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Random inputs that do not depend on the library they are there to measure.

#include <Eigen/Core>

#include <cmath>
#include <cstdint>
#include <numbers>

namespace pare::bench {

using RowMatrix = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

/// SplitMix64 of Steele, Lea and Flood (OOPSLA 2014).
class SplitMix64 {
 public:
  explicit SplitMix64(std::uint64_t seed) : state_(seed) {}

  std::uint64_t next() {
    state_ += 0x9E3779B97F4A7C15u;
    std::uint64_t z = state_;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
  }

  /// A double in [0, 1).
  double unit() { return static_cast<double>(next() >> 11) * 0x1p-53; }

  /// A standard normal number: Box and Muller.
  double normal() {
    const double radius = std::sqrt(-2 * std::log(1 - unit()));
    return radius * std::cos(2 * std::numbers::pi * unit());
  }

 private:
  std::uint64_t state_;
};

/// A matrix of numbers uniform in [-1, 1), the same for the same arguments.
inline RowMatrix uniform_matrix(Eigen::Index rows, Eigen::Index cols, std::uint64_t seed) {
  SplitMix64 random(seed);
  RowMatrix m(rows, cols);
  for (Eigen::Index i = 0; i < m.size(); ++i)
    m.data()[i] = static_cast<float>(static_cast<std::int64_t>(random.next()) >> 40) * 0x1p-23f;
  return m;
}

}  // namespace pare::bench
