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

#include <pare/core/ceil_div.hpp>
#include <pare/core/check.hpp>
#include <pare/core/scalar.hpp>
#include <pare/factor/structured/dense_sparse_weight.hpp>
#include <pare/kernel/combine_atoms.hpp>

#include <algorithm>
#include <cmath>
#include <optional>
#include <vector>

namespace pare::factor {

/// Options of dense_sparse. The default of 64 atoms is refused for a weight with fewer inputs or
/// outputs: options_of_share gives numbers that suit a weight.
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

/// Options whose weight in 16 bits takes at most a share of the bytes of a dense one in 16 bits:
/// all outputs in one block, 0.6 of the share for atoms, and at most half as many nonzeros as
/// atoms.
///
/// Ours: of 0.3, 0.5 and 0.7 for atoms, and of one and two blocks, 0.5 or 0.7 and one block left
/// least of two weights of SmolLM2-135M (at a share of 0.5 0.43 and 0.46 of the norm, where low
/// rank leaves 0.51 and 0.58). At least one atom and one nonzero, even if they take more.
/// \throws std::invalid_argument if an extent is below 1, the dense bytes are beyond 63 bits, or
///         share is not in (0, 1]
inline DenseSparseOptions options_of_share(Index outputs, Index inputs, double share) {
  constexpr const char* function = "factor::options_of_share";
  check(outputs >= 1, function, "outputs", outputs, "at least 1");
  check(inputs >= 1, function, "inputs", inputs, "at least 1");
  check(share > 0 && share <= 1, function, "share", share, "a share in (0, 1]");
  checked_count(function, "inputs", checked_product(function, "inputs", outputs, inputs), 2);
  const Index padded = ceil_div(outputs, kernel::code_group) * kernel::code_group;
  const auto m = static_cast<double>(padded), n = static_cast<double>(inputs);
  const double bytes = share * 2 * static_cast<double>(outputs) * n;
  const auto whole = [](double x, Index most) {
    return std::clamp(static_cast<Index>(x), Index{1}, most);
  };
  const Index most = std::min({outputs, inputs, most_atoms});
  Index atoms = whole(0.6 * bytes / (2 * n), most);
  const auto entry = [](Index of) { return of <= small_place_atoms ? 3.0 : 4.0; };
  const auto left_for = [&](Index of) {
    return (bytes - 2 * n * static_cast<double>(of)) / (entry(of) * m);
  };
  if (2 * left_for(atoms) > static_cast<double>(atoms)) {
    atoms = whole(bytes / (2 * n + 2 * m), most);
    if (atoms <= small_place_atoms)
      atoms = whole(bytes / (2 * n + 1.5 * m), std::min(most, small_place_atoms));
  }
  return {.atoms = atoms, .nonzeros = whole(left_for(atoms), atoms)};
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
