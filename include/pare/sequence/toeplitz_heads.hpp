// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Heads of causal attention whose weights depend on the distance alone.
///
/// ```cpp
/// ToeplitzHeads<float> one{.weights = decays, .values = identity, .outputs = d, .inputs = d};
/// ```

#include <pare/core/macros_off.hpp>

#include <pare/core/matrix.hpp>

namespace pare::sequence {
PARE_ABI_BEGIN

/// y_i = sum_h V_h sum_{j<=i} w_h[i - j] x_j.
template <class T>
struct ToeplitzHeads {
  RowMatrix<T> weights{};  ///< [lags, heads]: w_h[l] at (l, h)
  RowMatrix<T> values{};   ///< [heads, outputs * inputs]: V_h by rows
  Index outputs = 0;
  Index inputs = 0;
  double residual =
      0;  ///< the Frobenius norm of what the heads leave of the lags they were made of

  Index heads() const { return values.rows(); }
  Index lags() const { return weights.rows(); }
};

PARE_ABI_END
}  // namespace pare::sequence

#include <pare/core/macros_on.hpp>
