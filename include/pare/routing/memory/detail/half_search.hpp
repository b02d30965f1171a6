// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// The k best keys of one half of product keys, for a block of rows.

#include <pare/core/backend.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/linalg/score_rows.hpp>

#include <cstddef>
#include <cstdint>
#include <limits>
#include <vector>

namespace pare::routing::detail {
PARE_ABI_BEGIN

/// Rows of an item: their scores with a tile of keys stay in the second-level cache.
inline constexpr Index half_search_rows = 64;
inline constexpr Index most_half_keys = std::numeric_limits<std::int32_t>::max();

template <class T>
struct HalfHit {
  T score = 0;
  Index key = 0;
};
/// By row, falling, of equal scores the lower key first.
template <class T>
using HalfHits = std::vector<std::vector<HalfHit<T>>>;

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

template <class B, class T>
void search_half(const B& backend, TensorView<const T, 2> rows, TensorView<const T, 2> keys,
                 Index k, HalfHits<T>& to) {
  linalg::RowTopK<T> best(rows.rows(), k);
  linalg::score_rows(backend, rows, keys, T(1), best);
  to.resize(static_cast<std::size_t>(rows.rows()));
  for (Index r = 0; r < rows.rows(); ++r) {
    auto& hits = to[static_cast<std::size_t>(r)];
    hits.clear();
    for (const auto& entry : best.of(r)) hits.push_back({entry.score, entry.key()});
  }
}

PARE_ABI_END
}  // namespace pare::routing::detail
