// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Checks of a table, of the ids of its rows, and of the memory of hits.

#include <pare/core/check.hpp>
#include <pare/core/scalar.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/core/view_check.hpp>

#include <array>
#include <cstddef>
#include <type_traits>

namespace pare::routing::detail {
PARE_ABI_BEGIN

inline void check_slots(const char* function, TensorView<const Index, 2> ids, Index slots) {
  check_view(function, "ids", ids);
  check_contiguous_rows(function, "ids", ids);
  for (Index r = 0; r < ids.rows(); ++r)
    for (Index j = 0; j < ids.cols(); ++j)
      check(ids(r, j) >= 0 && ids(r, j) < slots, function, "ids",
            std::array<Index, 3>{r, j, ids(r, j)},
            Worded{"[row, hit, id] with an id from 0 to below the slots, ", slots});
}

template <class S>
void check_table(const char* function, const char* argument, TensorView<S, 2> table) {
  check_view(function, argument, table);
  check_contiguous_rows(function, argument, table);
}

/// Throws if what a search reads lies in the memory of its hits, which it writes or frees.
template <class Hits, class T, std::size_t Rank>
void check_apart_from_hits(const char* function, const char* argument,
                           const TensorView<T, Rank>& read, Hits& hits) {
  check_no_overlap(function, "hits.ids", to_view(hits.ids), argument, read);
  check_no_overlap(function, "hits.scores", to_view(hits.scores), argument, read);
}

template <class X>
using IsIds = std::bool_constant<requires {
  requires view_of<const std::remove_cvref_t<X>>::rank == 2;
  requires std::is_same_v<scalar_of<std::remove_cvref_t<X>>, Index>;
}>;

PARE_ABI_END
}  // namespace pare::routing::detail
