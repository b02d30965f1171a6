// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <pare/core/check.hpp>
#include <pare/core/sparse_view.hpp>

namespace pare::graph::detail {
PARE_ABI_BEGIN

/// Refuses lines that are no compressed matrix, and weights that are negative or not finite.
template <class T, class I>
void check_graph(const char* function, const CompressedView<T, I>& a) {
  check_compressed(function, "adjacency", a);
  const auto is_weight = [](double w) { return is_finite(w) && w >= 0; };
  for (Index u = 0; u < a.outer_size; ++u) {
    bool all = true;
    for (Index e = a.begin(u); e < a.end(u); ++e)
      all &= is_weight(static_cast<double>(a.values[e]));
    for (Index e = a.begin(u); !all && e < a.end(u); ++e) {
      const auto w = static_cast<double>(a.values[e]);
      check(is_weight(w), function, "adjacency", w, "finite weights of at least 0");
    }
  }
}

PARE_ABI_END
}  // namespace pare::graph::detail
