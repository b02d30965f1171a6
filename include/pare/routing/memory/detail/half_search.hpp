// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// The k best keys of one half of product keys, for a block of rows.

#include <pare/core/backend.hpp>
#include <pare/core/scalar.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/linalg/score_reducers.hpp>
#include <pare/linalg/score_rows.hpp>

#include <cstdint>
#include <limits>

namespace pare::routing::detail {
PARE_ABI_BEGIN

/// Rows of an item: their scores with a tile of keys stay in the second-level cache.
inline constexpr Index half_search_rows = 64;
inline constexpr Index most_half_keys = std::numeric_limits<std::int32_t>::max();

/// A slot and its score; the larger score comes first, then the lower slot, NaN last.
struct PairHit {
  double score = 0;
  Index id = 0;

  friend bool operator<(const PairHit& a, const PairHit& b) {
    if (a.score > b.score || b.score > a.score) return a.score > b.score;
    const bool a_last = is_nan(a.score), b_last = is_nan(b.score);
    return a_last == b_last ? a.id < b.id : b_last;
  }
};

/// The k best keys of each row.
template <class B, class T>
linalg::RowTopK<T> search_half(const B& backend, TensorView<const T, 2> rows,
                               TensorView<const T, 2> keys, Index k) {
  linalg::RowTopK<T> best(rows.rows(), k);
  linalg::score_rows(backend, rows, keys, T(1), best);
  return best;
}

PARE_ABI_END
}  // namespace pare::routing::detail
