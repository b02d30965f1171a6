// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Options and result of dense times sparse factorization.
///
/// ```cpp
/// auto fit = dense_sparse(w, {.block = 256, .atoms = 64, .nonzeros = 8, .sweeps = 20});
/// fit.weight, fit.losses.front(), fit.losses.back(), fit.relative_error();
/// ```

#include <pare/core/macros_off.hpp>

#include <pare/core/check.hpp>
#include <pare/core/scalar.hpp>
#include <pare/factor/structured/dense_sparse_weight.hpp>

#include <algorithm>
#include <cmath>
#include <optional>
#include <vector>

namespace pare::factor {

/// Options of dense_sparse.
struct DenseSparseOptions {
  /// Outputs that share atoms, a divisor of the outputs; left out: all outputs.
  std::optional<Index> block{};
  Index atoms = 64;         ///< of a block, in [1, min(block, inputs)], at most 65536
  Index nonzeros = 8;       ///< of an output, in [1, atoms]
  int sweeps = 10;          ///< at most, at least 0: codes for the atoms of the start alone
  double tolerance = 1e-4;  ///< a block's sweeps end once one takes less of its loss; in [0, 1)
  double ridge = 1e-10;     ///< share of the mean of diag(S^T S), at least 0; ours
};

PARE_ABI_BEGIN

/// Checks the options for a weight; messages name `function`.
/// \throws std::invalid_argument if a member is out of its range
inline void validate(const char* function, const DenseSparseOptions& o, Index outputs,
                     Index inputs) {
  const Index block = o.block.value_or(outputs);
  validate(function, DenseSparseShape{outputs, inputs, block, o.atoms, o.nonzeros});
  check(
      o.atoms <= std::min(block, inputs), function, "atoms", o.atoms,
      Worded{"at most the smaller of a block's outputs and the inputs, ", std::min(block, inputs)});
  check(o.sweeps >= 0, function, "sweeps", o.sweeps, "at least 0");
  check(o.tolerance >= 0 && o.tolerance < 1, function, "tolerance", o.tolerance,
        "a share in [0, 1)");
  check(is_finite(o.ridge) && o.ridge >= 0, function, "ridge", o.ridge,
        "a finite share, at least 0");
}

/// A weight and how it was found. Losses are squared norms in the metric of the call, before the
/// result was rounded to T.
template <ComputeScalar T>
struct DenseSparseFit {
  DenseSparse<T> weight;
  /// ||W - S D||^2 with the codes of the start, and after each sweep: none above the one before.
  std::vector<double> losses;
  double total_energy = 0;  ///< ||W||^2

  /// ||W - S D|| / ||W||; 0 if W is 0 in the metric.
  double relative_error() const {
    return total_energy > 0 ? std::sqrt(losses.back() / total_energy) : 0.0;
  }
};

PARE_ABI_END

}  // namespace pare::factor

#include <pare/core/macros_on.hpp>
