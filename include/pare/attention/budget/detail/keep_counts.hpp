// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// How many tokens each group of heads keeps between sinks and window.

#include <pare/attention/budget/head_groups.hpp>
#include <pare/attention/budget/keep_options.hpp>
#include <pare/core/ceil_div.hpp>
#include <pare/core/tensor_view.hpp>

#include <algorithm>
#include <cstddef>
#include <functional>
#include <limits>
#include <span>
#include <vector>

namespace pare::attention::detail {
PARE_ABI_BEGIN

/// Tokens [begin, end) are judged; those before and behind stay.
struct KeptRegion {
  Index begin = 0;
  Index end = 0;
};

inline KeptRegion kept_region(const KeepOptions& options, Index tokens) {
  const Index sinks = std::min(options.sinks, tokens);
  return {sinks, tokens - std::min(options.window, tokens - sinks)};
}

/// What a score counts as: NaN is the lowest.
template <class T>
T counted(T score) {
  return score >= -std::numeric_limits<T>::infinity() ? score : -std::numeric_limits<T>::infinity();
}

/// The (m + 1)-th largest of some scores, which are put in another order.
template <class T>
T threshold_of(std::span<T> scores, double ratio) {
  const auto share = static_cast<std::size_t>(static_cast<double>(scores.size()) * ratio);
  const auto m = static_cast<std::ptrdiff_t>(share > 0 ? share - 1 : 0);
  std::nth_element(scores.begin(), scores.begin() + m, scores.end(), std::greater<>());
  return scores[static_cast<std::size_t>(m)];
}

/// Of rows of n scores, of which `competing` rows in turn share a threshold, how many of each are
/// above it.
template <class T>
std::vector<Index> counts_above(const std::vector<T>& rows, Index n, Index competing,
                                double ratio) {
  std::vector<Index> counts;
  std::vector<T> sorted;
  for (Index first = 0, size = static_cast<Index>(rows.size()); first < size;
       first += competing * n) {
    sorted.assign(rows.begin() + first, rows.begin() + first + competing * n);
    const T threshold = threshold_of(std::span(sorted), ratio);
    for (Index r = 0; r < competing; ++r) {
      const auto row = rows.begin() + first + r * n;
      counts.push_back(std::count_if(row, row + n, [&](T x) { return x > threshold; }));
    }
  }
  return counts;
}

/// Scores of the region, as they count: of each cell, or the largest of each group's cells.
template <class T>
std::vector<T> judged_scores(const TensorView<const T, 3>& scores, const HeadGroups& groups,
                             const KeptRegion& region, bool by_group) {
  const Index n = region.end - region.begin, heads = groups.kv_heads();
  const Index rows = by_group ? groups.groups() : groups.layers() * heads;
  std::vector<T> all(static_cast<std::size_t>(rows * n), -std::numeric_limits<T>::infinity());
  for (Index l = 0; l < groups.layers(); ++l)
    for (Index h = 0; h < heads; ++h) {
      const T* const from =
          scores.data + l * scores.stride[0] + h * scores.stride[1] + region.begin;
      T* const to = all.data() + (by_group ? groups.group_of(l, h) : l * heads + h) * n;
      for (Index t = 0; t < n; ++t) to[t] = std::max(to[t], counted(from[t]));
    }
  return all;
}

/// Tokens of the region that each group keeps.
template <class T>
std::vector<Index> keep_counts(const TensorView<const T, 3>& scores, const HeadGroups& groups,
                               const KeepOptions& options, const KeptRegion& region) {
  const Index n = region.end - region.begin;
  const double ratio = adjusted_ratio(options, scores.extent[2]);
  std::vector<Index> counts(static_cast<std::size_t>(groups.groups()));
  if (n == 0 || ratio <= 0) return counts;
  if (ratio >= 1) {
    std::fill(counts.begin(), counts.end(), n);
    return counts;
  }
  if (options.count == BudgetCount::Uniform) {
    std::fill(counts.begin(), counts.end(), static_cast<Index>(ratio * static_cast<double>(n)));
  } else {
    const bool by_group = options.count == BudgetCount::Group;
    const std::vector<T> rows = judged_scores(scores, groups, region, by_group);
    const Index all = by_group ? groups.groups() : groups.layers() * groups.kv_heads();
    const Index competing = options.scope == BudgetScope::CrossLayer ? all : all / groups.layers();
    const std::vector<Index> of_rows = counts_above(rows, n, competing, ratio);
    for (Index g = 0; g < groups.groups(); ++g)
      for (const Index cell : groups.members(g)) {
        Index& count = counts[static_cast<std::size_t>(g)];
        count = std::max(count, of_rows[static_cast<std::size_t>(by_group ? g : cell)]);
      }
  }
  for (Index& count : counts) {
    const Index rest = n - count;  // no sum that overflows
    count += std::min(
        rest, count % options.multiple == 0 ? 0 : options.multiple - count % options.multiple);
  }
  return counts;
}

PARE_ABI_END
}  // namespace pare::attention::detail
