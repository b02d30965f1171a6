// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// The definition of block selection by the mass that sampled queries give blocks. Ours.

#include <pare/attention/detail/reference_row.hpp>
#include <pare/attention/detail/sampled_rows.hpp>
#include <pare/attention/selector.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <span>
#include <vector>

namespace pare::attention::detail {
PARE_ABI_BEGIN

/// A_mn = mean over the sampled queries i of row m of sum over keys j of column block n of
/// softmax_j(scale q_i.k_j), causal: the row of all n. NaN is in all of a row or in none.
template <StorageScalar S>
std::vector<double> reference_sampled_masses(const SelectorHead<S>& head, const SampledRows& rows,
                                             Index m) {
  std::vector<double> masses(static_cast<std::size_t>(rows.grid.columns()), 0.0);
  for (Index s = 0; s < rows.samples(m); ++s) {
    const Index i = rows.first_query(m) + s * rows.stride;
    std::vector<double> scores;
    for (Index j = 0; j <= head.position(i); ++j)
      scores.push_back(head.scale * reference_dot(head.query(i), head.key(j), head.q.cols()));
    const std::vector<double> p = reference_softmax(scores);
    for (std::size_t j = 0; j < p.size(); ++j) {
      masses[j / static_cast<std::size_t>(rows.grid.column_block)] +=
          p[j] / static_cast<double>(rows.samples(m));
      if (reference_is_nan(p[j])) std::ranges::fill(masses, p[j]);
    }
  }
  return masses;
}

/// A block that a row of a head may keep.
struct ReferenceSampledBlock {
  double mass = 0;
  std::size_t head = 0;
  Index row = 0;
  Index column = 0;
};

/// Keeps the blocks of the heads of one batch entry, and returns the sum over rows of the mass
/// kept. With N blocks seen and F of them kept in any case, the round(share N) - F others with the
/// most mass are chosen; of equal ones those of earlier heads, then rows, then columns.
inline double reference_keep_sampled(
    const std::vector<std::vector<std::vector<double>>>& masses,  // [heads][rows][columns]
    const SampledRows& rows, double share, std::span<BlockLists> keep) {
  std::vector<ReferenceSampledBlock> others;
  double seen = 0, forced = 0, kept = 0;
  for (std::size_t h = 0; h < keep.size(); ++h)
    for (Index m = 0; m < rows.grid.rows(); ++m) {
      const std::vector<double>& row = masses[h][static_cast<std::size_t>(m)];
      const bool unknown = reference_is_nan(row.front());
      for (Index n = 0; n < rows.seen(m); ++n) {
        const double mass = row[static_cast<std::size_t>(n)];
        const bool first = rows.force_first && n == 0;
        const bool diagonal = n >= rows.grid.first_position(m) / rows.grid.column_block;
        seen += unknown ? 0 : 1;
        if (!unknown && !first && !diagonal) {
          others.push_back({mass, h, m, n});
          continue;
        }
        forced += unknown ? 0 : 1;
        keep[h].add(m, n);
        kept += mass;
      }
    }
  std::ranges::stable_sort(others, [](const auto& a, const auto& b) { return a.mass > b.mass; });
  const double budget = std::round(share * seen) - forced;
  for (std::size_t i = 0; i < others.size() && static_cast<double>(i) < budget; ++i) {
    keep[others[i].head].add(others[i].row, others[i].column);
    kept += others[i].mass;
  }
  return kept;
}

PARE_ABI_END
}  // namespace pare::attention::detail
