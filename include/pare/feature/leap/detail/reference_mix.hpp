// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// The definitions of this folder's layer, in plain loops that accumulate in double.

#include <pare/core/permutation.hpp>
#include <pare/feature/fields/donors.hpp>
#include <pare/feature/fields/field_layout.hpp>
#include <pare/feature/leap/detail/mix_engine.hpp>

#include <cmath>
#include <cstddef>
#include <span>
#include <vector>

namespace pare::feature::detail {
PARE_ABI_BEGIN

/// x'_b = x_b - (1 - g_j) (x_b - x_donor(b)) for each field; x_b or x_donor(b) itself at g = 1, 0.
template <class T>
void reference_mix_forward(const MixProblem<T>& p) {
  for (Index j = 0; j < p.x.layout->fields(); ++j) {
    const double g = p.gates[static_cast<std::size_t>(j)];
    const Permutation donor = p.donors->permutation(j);
    const auto x = p.x.block(j);
    const auto mixed = p.out.block(j);
    for (Index b = 0; b < x.rows(); ++b)
      for (Index c = 0; c < x.cols(); ++c) {
        const T own = x(b, c), other = x(static_cast<Index>(donor[b]), c);
        const double delta = static_cast<double>(own) - static_cast<double>(other);
        mixed(b, c) = g == 1   ? own
                      : g == 0 ? other
                               : static_cast<T>(static_cast<double>(own) - (1 - g) * delta);
      }
  }
}

/// s_j = sum_b <Delta_b, G_b> and the lengths of Delta, of field j.
template <class T>
PieceSums reference_field_sums(const MixProblem<T>& p, Index j, const Permutation& donor) {
  PieceSums sums;
  const auto x = p.x.block(j);
  const auto g = p.grad_mixed.block(j);
  for (Index b = 0; b < x.rows(); ++b) {
    double squared = 0;
    for (Index c = 0; c < x.cols(); ++c) {
      const double delta =
          static_cast<double>(x(b, c)) - static_cast<double>(x(static_cast<Index>(donor[b]), c));
      sums.values[PieceSums::slope] += delta * static_cast<double>(g(b, c));
      sums.values[PieceSums::absolute] += std::abs(delta);
      squared += delta * delta;
    }
    sums.values[PieceSums::squared] += squared;
    sums.values[PieceSums::norm] += std::sqrt(squared);
  }
  return sums;
}

/// dL/dx_b = g_j G_b, and + (1 - g_j) G_source(b) where donors are live.
template <class T>
void reference_grad_x(const MixProblem<T>& p, Index j, const Permutation& donor) {
  const double gate = p.gates[static_cast<std::size_t>(j)];
  const Permutation source = donor.inverse();
  const auto g = p.grad_mixed.block(j);
  const auto grad_x = p.out.block(j);
  for (Index b = 0; b < g.rows(); ++b)
    for (Index c = 0; c < g.cols(); ++c) {
      const double own = gate == 0 ? 0 : gate * static_cast<double>(g(b, c));
      const double given = (1 - gate) * static_cast<double>(g(static_cast<Index>(source[b]), c));
      grad_x(b, c) = static_cast<T>(!p.live || gate == 1 ? own : gate == 0 ? given : own + given);
    }
}

/// Sums by field; gradients by x unless they are not wanted.
template <class T>
std::vector<PieceSums> reference_mix_backward(const MixProblem<T>& p) {
  std::vector<PieceSums> sums;
  for (Index j = 0; j < p.x.layout->fields(); ++j) {
    const Permutation donor = p.donors->permutation(j);
    sums.push_back(reference_field_sums(p, j, donor));
    if (p.out.data != nullptr) reference_grad_x(p, j, donor);
  }
  return sums;
}

PARE_ABI_END
}  // namespace pare::feature::detail
