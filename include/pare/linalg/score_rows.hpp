// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Scores of a few rows against many keys, tile by tile: what selectors are built on.
///
/// ```cpp
/// ScoreRows<B, float> scores(backend, memory, rows, dim);
/// scores.set_rows(rows, [&](pare::Index r) { return &q(r, 0); });
/// scores.over_keys(0, keys, [&](pare::Index j) { return &k(j, 0); }, scale,
///                  [&](pare::Index first, pare::Index count, float* tile) {
///                    for (pare::Index j = 0; j < count; ++j)
///                      largest = std::max(largest, tile[j]);  // row 0; row r at r * tile_keys
///                  });
/// ```

#include <pare/core/macros_off.hpp>

#include <pare/core/aligned_buffer.hpp>
#include <pare/core/backend.hpp>
#include <pare/core/scratch.hpp>
#include <pare/kernel/pack.hpp>
#include <pare/kernel/score_tile.hpp>

#include <algorithm>
#include <cstddef>

namespace pare::linalg {
PARE_ABI_BEGIN

/// Keeps rows packed and computes their scores against tiles of keys, which it packs one by one.
/// Rows and keys are `depth` contiguous scalars each, wherever they lie; sums are kept in
/// compute_t. For one thread: workers have an object and a memory of their own. Nothing is checked.
///
/// Cost: 2 rows depth FLOPs per key, which bind from about eight rows on; below, packing the keys.
/// Memory: rows * (depth + tile_keys) scalars, and a tile of keys.
template <class B, StorageScalar S>
class ScoreRows {
 public:
  using T = compute_t<S>;

  /// Room for `rows` rows of `depth` scalars in `memory`, which must outlive this.
  ScoreRows(const B& backend, AlignedBuffer<std::byte>& memory, Index rows, Index depth)
      : backend_(backend), depth_(depth) {
    carve_from(memory, [&](Carver& take) { carve(take, rows); });
  }

  /// Packs rows row(0) ... row(count - 1), given as pointers to their scalars.
  template <class Row>
  void set_rows(Index count, const Row& row) {
    rows_ = count;
    for (Index i = 0; i < count; ++i) row_pointers_[i] = row(i);
    launch(backend_, kernel::PackLeft<S>{row_pointers_, count, depth_, queries_});
  }

  /// Calls tile(first, count, scores) for keys [begin, end) in ascending tiles of at most
  /// tile_keys, which start at multiples of tile_keys after begin: scores[r * tile_keys + j] is
  /// scale times the product of row r and key(first + j). `tile` may overwrite the scores.
  template <class Key, class F>
  void over_keys(Index begin, Index end, const Key& key, T scale, const F& tile) {
    for (Index first = begin; first < end; first += kernel::tile_keys) {
      const Index count = std::min(kernel::tile_keys, end - first);
      score(first, count, key, scale, false);
      tile(first, count, scores_);
    }
  }

  /// One tile: scores = (or, to `add`, +=) scale times the products with key(first + j), j < count.
  template <class Key>
  T* score(Index first, Index count, const Key& key, T scale, bool add) {
    score_into(scores_, first, count, key, scale, add);
    return scores_;
  }

  /// The same into the caller's [rows x tile_keys].
  template <class Key>
  void score_into(T* scores, Index first, Index count, const Key& key, T scale, bool add = false) {
    for (Index j = 0; j < count; ++j) key_pointers_[j] = key(first + j);
    launch(backend_, kernel::PackTransposed<S>{key_pointers_, count, depth_, keys_});
    launch(backend_,
           kernel::ScoreTile<S>{queries_, keys_, rows_, count, depth_, scale, add, scores});
  }

 private:
  void carve(Carver& take, Index rows) {
    take(queries_, rows * depth_);
    take(keys_, depth_ * kernel::tile_keys);
    take(scores_, rows * kernel::tile_keys);
    take(row_pointers_, rows);
    take(key_pointers_, kernel::tile_keys);
  }

  const B& backend_;
  Index depth_;
  Index rows_ = 0;
  T* queries_ = nullptr;
  T* keys_ = nullptr;
  T* scores_ = nullptr;
  const S** row_pointers_ = nullptr;
  const S** key_pointers_ = nullptr;
};

PARE_ABI_END
}  // namespace pare::linalg

#include <pare/core/macros_on.hpp>
