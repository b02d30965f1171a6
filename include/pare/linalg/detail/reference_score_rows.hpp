// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// The definition of score_rows.

#include <pare/core/backend.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/linalg/score_reducers.hpp>

#include <algorithm>

namespace pare::linalg::detail {
PARE_ABI_BEGIN

/// Gives a reducer scale <q_r, k_j>, summed in double, for all rows r and keys j: a row and
/// tile_keys keys at a time.
template <class S, class R>
void reference_score_rows(TensorView<const S, 2> q, TensorView<const S, 2> k, compute_t<S> scale,
                          R& reducer) {
  using T = compute_t<S>;
  T scores[kernel::tile_keys];
  const auto widened = [](S x) { return static_cast<double>(static_cast<T>(x)); };
  for (Index r = 0; r < q.rows(); ++r)
    for (Index key = 0; key < k.rows(); key += kernel::tile_keys) {
      const Index keys = std::min(kernel::tile_keys, k.rows() - key);
      for (Index j = 0; j < keys; ++j) {
        double sum = 0;
        for (Index c = 0; c < q.cols(); ++c) sum += widened(q(r, c)) * widened(k(key + j, c));
        scores[j] = static_cast<T>(static_cast<double>(scale) * sum);
      }
      reducer.add(reference, TileOfScores<T>{scores, r, 1, key, keys});
    }
}

PARE_ABI_END
}  // namespace pare::linalg::detail
