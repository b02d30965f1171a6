// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// A matrix of independent standard normal numbers, each a function of (seed, row, column).
///
/// ```cpp
/// RowMatrix<float> omega(n, k);
/// fill_normal(pare::simd.threads(4).executor, 7, 0, omega);  // the same bits on one thread
/// ```

#include <pare/core/macros_off.hpp>

#include <pare/core/backend.hpp>
#include <pare/core/matrix.hpp>
#include <pare/core/random.hpp>

#include <cmath>
#include <cstdint>
#include <numbers>

namespace pare::linalg {
PARE_ABI_BEGIN

/// Fills columns [first_column, cols) of `out` by Box and Muller's transform: columns 2 i and
/// 2 i + 1 of a row share four random words, a radius and an angle.
///
/// \param executor     runs the workers that share the rows; the numbers do not depend on it
/// \param first_column from 0 to the columns of `out`; columns before it keep what they hold
///
/// Cost: one Philox block, logarithm, root and sine or cosine per number, in double, which bind.
/// Memory: none. Source: Box and Muller, "A note on the generation of random normal deviates",
/// 1958.
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
