// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Choosing blocks by the mass that sampled queries give them: which queries those are, which
/// blocks a row may choose, and the choice over all heads.

#include <pare/attention/detail/keep_mass.hpp>
#include <pare/attention/selector.hpp>
#include <pare/core/check.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <functional>
#include <limits>
#include <span>
#include <utility>
#include <vector>

namespace pare::attention::detail {
PARE_ABI_BEGIN

/// The rows of blocks of one head. Row m sees the column blocks [0, seen(m)). It may choose those
/// of free(m), [first, last); the others are kept.
struct SampledRows {
  BlockGrid grid{};
  Index stride = 1;
  bool force_first = true;

  /// The sampled queries of row m: one of every `stride`, from the middle of the first stride on,
  /// or the last query of a row that is too short for that.
  Index first_query(Index m) const {
    const Index begin = m * grid.row_block;
    return begin + std::min(stride / 2, row_size(m) - 1);
  }
  Index samples(Index m) const {
    return (m * grid.row_block + row_size(m) - 1 - first_query(m)) / stride + 1;
  }

  Index seen(Index m) const { return grid.candidates(m); }
  std::pair<Index, Index> free(Index m) const {
    const Index diagonal = grid.own(m).first;
    return {std::min<Index>(force_first ? 1 : 0, diagonal), diagonal};
  }

  /// free_before[m]: how many blocks the rows before row m may choose; [rows + 1].
  std::vector<Index> free_before() const {
    std::vector<Index> before{0};
    for (Index m = 0; m < grid.rows(); ++m)
      before.push_back(before.back() + free(m).second - free(m).first);
    return before;
  }

 private:
  Index row_size(Index m) const {
    return std::min(grid.row_block, grid.queries - m * grid.row_block);
  }
};

/// The mass of the blocks of a layer's heads, mean over the sampled queries of a row. A row of
/// which a query met a NaN has a forced mass of NaN, and its other masses mean nothing.
template <ComputeScalar T>
struct SampledMasses {
  SampledMasses(const SampledRows& of, Index heads)
      : rows(of),
        free_before(of.free_before()),
        free(static_cast<std::size_t>(heads * free_before.back())),
        forced(static_cast<std::size_t>(heads * of.grid.rows())) {}

  /// Of the blocks that row m of a head may choose, in their order.
  std::span<T> free_of(Index head, Index m) {
    const auto at = static_cast<std::size_t>(m);
    return std::span(free).subspan(
        static_cast<std::size_t>(head * free_before.back() + free_before[at]),
        static_cast<std::size_t>(free_before[at + 1] - free_before[at]));
  }
  /// Of the blocks that it keeps in any case, together.
  double& forced_of(Index head, Index m) {
    return forced[static_cast<std::size_t>(head * rows.grid.rows() + m)];
  }

  /// Takes in the mass of the blocks of a row, mass(n) for n < seen(m), in which a NaN is in all.
  template <class F>
  void set(Index head, Index m, const F& mass) {
    const std::pair<Index, Index> choice = rows.free(m);
    const std::span<T> chosen_from = free_of(head, m);
    double& kept = forced_of(head, m) = 0;
    for (Index n = 0; n < choice.first; ++n) kept += mass(n);
    for (Index n = choice.first; n < choice.second; ++n)
      chosen_from[static_cast<std::size_t>(n - choice.first)] = static_cast<T>(mass(n));
    for (Index n = choice.second; n < rows.seen(m); ++n) kept += mass(n);
  }

  const SampledRows& rows;
  std::vector<Index> free_before;
  std::vector<T> free;         ///< [heads x free blocks]
  std::vector<double> forced;  ///< [heads x rows]
};

/// The blocks above a mass, and the first few that have just this mass.
template <ComputeScalar T>
struct MassCut {
  T mass = std::numeric_limits<T>::infinity();
  std::size_t equal = 0;

  bool takes(T x) {
    if (x != mass || equal == 0) return x > mass;
    --equal;
    return true;
  }
};

/// The cut that the `count` largest masses pass. Rearranges them.
template <ComputeScalar T>
MassCut<T> cut_largest(std::vector<T>& masses, std::size_t count) {
  if (count == 0) return {};
  const auto last = masses.begin() + static_cast<std::ptrdiff_t>(count) - 1;
  std::ranges::nth_element(masses, last, std::greater<>());
  return {*last, static_cast<std::size_t>(std::count(masses.begin(), last + 1, *last))};
}

/// How many of `free` blocks to choose beside those that are kept in any case, for a share of all
/// blocks seen.
inline std::size_t sampled_budget(double share, double seen, std::size_t free) {
  const double forced = seen - static_cast<double>(free);
  return static_cast<std::size_t>(
      std::clamp(std::round(share * seen) - forced, 0.0, static_cast<double>(free)));
}

/// Keeps the blocks of the heads of one batch entry; returns the sum over rows of the mass kept.
/// A row that met a NaN keeps all, and the others choose as if it were not there.
template <ComputeScalar T>
double keep_sampled(SampledMasses<T>& masses, double share, std::span<BlockLists> keep) {
  const SampledRows& rows = masses.rows;
  const auto heads = static_cast<Index>(keep.size());
  std::vector<T> free;
  double seen = 0, kept = 0;
  const auto each_row = [&](const auto& f) {
    for (Index h = 0; h < heads; ++h)
      for (Index m = 0; m < rows.grid.rows(); ++m) f(h, m, is_nan(masses.forced_of(h, m)));
  };
  each_row([&](Index h, Index m, bool unknown) {
    if (unknown) return;
    seen += static_cast<double>(rows.seen(m));
    const std::span<const T> own = masses.free_of(h, m);
    free.insert(free.end(), own.begin(), own.end());
  });
  MassCut<T> cut = cut_largest(free, sampled_budget(share, seen, free.size()));
  each_row([&](Index h, Index m, bool unknown) {
    BlockLists& blocks = keep[static_cast<std::size_t>(h)];
    const std::pair<Index, Index> choice = rows.free(m);
    const std::span<const T> own = masses.free_of(h, m);
    kept += masses.forced_of(h, m);
    for (Index n = 0; n < rows.seen(m); ++n) {
      if (!unknown && n >= choice.first && n < choice.second) {
        const T mass = own[static_cast<std::size_t>(n - choice.first)];
        if (!cut.takes(mass)) continue;
        kept += static_cast<double>(mass);
      }
      blocks.add(m, n);
    }
  });
  return kept;
}

PARE_ABI_END
}  // namespace pare::attention::detail
