// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// The k best keys of one half of product keys, for a block of rows.

#include <pare/core/backend.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/kernel/falling_list.hpp>
#include <pare/linalg/score_reducers.hpp>
#include <pare/linalg/score_rows.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <vector>

namespace pare::routing::detail {
PARE_ABI_BEGIN

inline constexpr Index most_half_keys = std::numeric_limits<std::int32_t>::max();

/// A slot and its score; the larger score comes first, then the lower slot, NaN last.
struct PairHit {
  double score = 0;
  Index id = 0;

  friend bool operator<(const PairHit& a, const PairHit& b) {
    return kernel::stands_before(a.score, a.id, b.score, b.id);
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

/// The k best sums of two falling lists, in double: of the pairs that kernel::each_pair looks at,
/// written out here since this is the definition.
template <class T, class Entry>
void best_sums(const std::vector<Entry>& first, const std::vector<Entry>& second, Index n, Index k,
               std::vector<PairHit>& pairs, Index* ids, T* scores) {
  pairs.clear();
  for (std::size_t a = 0; a < first.size(); ++a)
    for (std::size_t b = 0; b < second.size() && (a + 1) * (b + 1) <= static_cast<std::size_t>(k);
         ++b)
      pairs.push_back({static_cast<double>(first[a].score) + static_cast<double>(second[b].score),
                       first[a].key() * n + second[b].key()});
  std::partial_sort(pairs.begin(), pairs.begin() + k, pairs.end());
  for (Index i = 0; i < k; ++i) {
    ids[i] = pairs[static_cast<std::size_t>(i)].id;
    scores[i] = static_cast<T>(pairs[static_cast<std::size_t>(i)].score);
  }
}

PARE_ABI_END
}  // namespace pare::routing::detail
