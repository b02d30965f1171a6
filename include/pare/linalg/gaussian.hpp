// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// A matrix of independent standard normal numbers, each a function of (seed, row, column).

#include <pare/core/macros_off.hpp>

#include <pare/core/backend.hpp>
#include <pare/core/matrix.hpp>
#include <pare/core/random.hpp>

#include <cmath>
#include <cstdint>
#include <numbers>

namespace pare::linalg {
PARE_ABI_BEGIN

/// Fills columns [first_column, cols) by Box and Muller's transform: two numbers from four random
/// words.
template <class E, class T>
void fill_normal(const E& executor, std::uint64_t seed, Index first_column, RowMatrix<T>& out) {
  const PhiloxKey key(seed);
  parallel_for(executor, out.rows(), [&](Index row, int) {
    for (Index column = first_column; column < out.cols(); ++column) {
      const Index pair = column / 2;
      const PhiloxCounter words =
          philox({static_cast<std::uint32_t>(row), static_cast<std::uint32_t>(row >> 32),
                  static_cast<std::uint32_t>(pair), 0x6e6f726du},
                 key);
      const double radius = std::sqrt(-2.0 * std::log(1.0 - to_unit_double(words[0], words[1])));
      const double angle = 2.0 * std::numbers::pi * to_unit_double(words[2], words[3]);
      out(row, column) =
          static_cast<T>(radius * (column % 2 == 0 ? std::cos(angle) : std::sin(angle)));
    }
  });
}

PARE_ABI_END
}  // namespace pare::linalg

#include <pare/core/macros_on.hpp>
