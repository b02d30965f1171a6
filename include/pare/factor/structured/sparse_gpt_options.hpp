// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// How SparseGPT prunes.
///
/// ```cpp
/// const auto pruned = sparse_gpt(w, covariance, {.damping = 0.05});
/// ```

#include <pare/core/macros_off.hpp>

#include <pare/core/check.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/kernel/prune_two_four.hpp>

namespace pare::factor {

/// Options of `sparse_gpt`.
struct SparseGptOptions {
  /// Share of the mean variance that is added to each; at least 0. Of 0, C must be positive
  /// definite itself, as far as its numbers tell: of fewer inputs than it has rows it is not.
  double damping = 0.01;

  /// Columns that are pruned before their errors are passed on: a multiple of 16 up to 256. It
  /// changes time and rounding, not what is computed.
  Index block = 128;
};

PARE_ABI_BEGIN

/// \throws std::invalid_argument, naming `function`, if an option is out of its range
inline void validate(const char* function, const SparseGptOptions& o) {
  check(is_finite(o.damping) && o.damping >= 0, function, "damping", o.damping,
        "a finite share of at least 0");
  check(o.block >= 16 && o.block <= kernel::most_pruned_columns && o.block % 16 == 0, function,
        "block", o.block, "a multiple of 16 from 16 to 256");
}

PARE_ABI_END
}  // namespace pare::factor

#include <pare/core/macros_on.hpp>
