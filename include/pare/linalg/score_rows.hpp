// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Scores of a few rows against many keys, handed to a reducer tile by tile. Selectors are built on
/// this.
///
/// ```cpp
/// linalg::RowTopK<float> best(q.rows(), 8);                // score_reducers.hpp has more
/// linalg::score_rows(pare::simd, q, k, 0.125f, best);      // q [rows x dim], k [keys x dim]
/// best.of(0).front().key();                                // the key that row 0 likes best
///
/// ScoreRows<B, float> scores(backend, memory, rows, dim);  // the engine, for repeated calls
/// scores.set_rows(rows, [&](pare::Index r) { return &q(r, 0); });
/// scores.reduce(0, keys, [&](pare::Index j) { return &k(j, 0); }, 0.125f, best);
/// ```

#include <pare/core/macros_off.hpp>

#include <pare/core/aligned_buffer.hpp>
#include <pare/core/backend.hpp>
#include <pare/core/scratch.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/kernel/pack.hpp>
#include <pare/kernel/score_tile.hpp>
#include <pare/linalg/detail/reference_score_rows.hpp>
#include <pare/linalg/score_reducers.hpp>

#include <algorithm>
#include <cstddef>
#include <type_traits>

namespace pare::linalg {
PARE_ABI_BEGIN

/// Keeps rows packed and computes their scores against tiles of keys, which it packs one by one.
/// Each row and each key is `depth` contiguous scalars, which may lie anywhere. Sums are kept in
/// compute_t. An object serves one thread: each worker has an object and a memory of its own.
/// Nothing is checked.
///
/// Cost: 2 rows depth FLOPs per key, which bind from about eight rows on; with fewer, packing the
/// keys does. Memory: rows * (depth + tile_keys) scalars, and a tile of keys.
template <class B, StorageScalar S>
class ScoreRows {
 public:
  using T = compute_t<S>;

  /// Room for `rows` rows of `depth` scalars in `memory`, which must outlive this.
  ScoreRows(const B& backend, AlignedBuffer<std::byte>& memory, Index rows, Index depth)
      : backend_(backend), depth_(depth) {
    carve_from(memory, [&](Carver& take) { carve(take, rows, rows); });
  }

  /// The same without memory, for `carve`.
  ScoreRows(const B& backend, Index depth) : backend_(backend), depth_(depth) {}

  /// Takes room for `rows` rows from memory that is shared with others, and for the scores of
  /// `scored` rows: reducers need score_tile_rows of them, over_keys and score all.
  void carve(Carver& take, Index rows, Index scored) {
    take(queries_, rows * depth_);
    take(keys_, depth_ * kernel::tile_keys);
    take(scores_, std::min(rows, scored) * kernel::tile_keys);
    take(row_pointers_, rows);
    take(key_pointers_, kernel::tile_keys);
  }

  /// Packs rows row(0) ... row(count - 1), given as pointers to their scalars, which must stay as
  /// they are while they are used: those of a compute scalar that follow one another in memory are
  /// used where they lie.
  template <class Row>
  void set_rows(Index count, const Row& row) {
    rows_ = count;
    for (Index i = 0; i < count; ++i) row_pointers_[i] = row(i);
    if constexpr (std::is_same_v<S, T>)
      if (follow_one_another()) {
        packed_ = row_pointers_[0];
        return;
      }
    packed_ = queries_;
    each_group([&](Index r, Index rows) {
      launch(backend_, kernel::PackLeft<S>{row_pointers_ + r, rows, depth_, queries_ + r * depth_});
    });
  }

  /// Room for `count` rows, [count x depth], that the caller fills in: packed rows of a compute
  /// scalar are the rows.
  T* set_rows(Index count)
  requires std::is_same_v<S, T>
  {
    rows_ = count;
    packed_ = queries_;
    return queries_;
  }

  /// Gives a reducer the scores of keys [begin, end): scale times the product of row r and key(j),
  /// in tiles of at most tile_keys keys, which start at multiples of tile_keys after begin.
  template <class Key, ScoreReducer<B, T> R>
  void reduce(Index begin, Index end, const Key& key, T scale, R& reducer) {
    for (Index first = begin; first < end; first += kernel::tile_keys)
      reduce_tile(first, std::min(kernel::tile_keys, end - first), key, scale, reducer);
  }

  /// One tile: `count` keys, at most tile_keys, from `first` on.
  template <class Key, ScoreReducer<B, T> R>
  void reduce_tile(Index first, Index count, const Key& key, T scale, R& reducer) {
    pack_keys(first, count, key);
    reduce_packed(keys_, first, count, scale, reducer);
  }

  /// One tile of keys that the caller has packed (PackTransposed), by `score_tile_rows` rows.
  template <ScoreReducer<B, T> R>
  void reduce_packed(const T* keys, Index first, Index count, T scale, R& reducer) {
    each_group([&](Index r, Index rows) {
      if constexpr (requires { reducer.sees(r, rows, first, count); })
        if (!reducer.sees(r, rows, first, count)) return;
      T* scores = scores_;
      if constexpr (requires { reducer.room(r, first); }) scores = reducer.room(r, first);
      launch(backend_, kernel::ScoreTile<S>{packed_ + r * depth_, keys, rows, count, depth_, scale,
                                            false, scores});
      reducer.add(backend_, TileOfScores<T>{scores, r, rows, first, count});
    });
  }

  /// Calls tile(first, count, scores) for keys [begin, end) in the same tiles, with all rows at
  /// once: scores[r * tile_keys + j] is that of row r and key(first + j). `tile` may overwrite the
  /// scores.
  template <class Key, class F>
  void over_keys(Index begin, Index end, const Key& key, T scale, const F& tile) {
    for (Index first = begin; first < end; first += kernel::tile_keys) {
      const Index count = std::min(kernel::tile_keys, end - first);
      tile(first, count, score(first, count, key, scale, false));
    }
  }

  /// One tile of all rows: scores = (or, to `add`, +=) scale times the products with key(first +
  /// j), j < count.
  template <class Key>
  T* score(Index first, Index count, const Key& key, T scale, bool add) {
    pack_keys(first, count, key);
    each_group([&](Index r, Index rows) {
      launch(backend_, kernel::ScoreTile<S>{packed_ + r * depth_, keys_, rows, count, depth_, scale,
                                            add, scores_ + r * kernel::tile_keys});
    });
    return scores_;
  }

 private:
  /// Whether the rows lie in memory as packing would leave them.
  bool follow_one_another() const {
    for (Index i = 1; i < rows_; ++i)
      if (row_pointers_[i] != row_pointers_[0] + i * depth_) return false;
    return rows_ > 0;
  }

  /// f(first row, rows) for groups of at most score_tile_rows rows, each packed on its own.
  template <class F>
  void each_group(const F& f) const {
    for (Index r = 0; r < rows_; r += score_tile_rows) f(r, std::min(score_tile_rows, rows_ - r));
  }

  template <class Key>
  void pack_keys(Index first, Index count, const Key& key) {
    for (Index j = 0; j < count; ++j) key_pointers_[j] = key(first + j);
    launch(backend_, kernel::PackTransposed<S>{key_pointers_, count, depth_, keys_});
  }

  const B& backend_;
  Index depth_;
  Index rows_ = 0;
  T* queries_ = nullptr;
  const T* packed_ = nullptr;  ///< `queries_`, or rows where they lie
  T* keys_ = nullptr;
  T* scores_ = nullptr;
  const S** row_pointers_ = nullptr;
  const S** key_pointers_ = nullptr;
};

/// Gives a reducer all scores, scale <q_r, k_j> for row r and key j.
///
/// \param backend `pare::reference` (plain loops, sums in double), or one that launches kernels, on
///                the calling thread
/// \param q       [rows x dim], any storage scalar, the last dimension contiguous
/// \param k       [keys x dim], the same
/// \param scale   multiplies every product
/// \param reducer see ScoreReducer; without rows or keys it gets no tile
///
/// Cost: 2 rows keys dim FLOPs, which bind from about eight rows on; with fewer, packing the keys
/// does. Memory: that of ScoreRows, in the workspace that the backend carries. A row's scores have
/// the same bits whatever other rows come with it.
/// \throws std::invalid_argument if q and k differ in dim, it is 0, or it is not contiguous
template <Backend B, StorageScalar S, ScoreReducer<B, compute_t<S>> R>
void score_rows(const B& backend, TensorView<const S, 2> q, TensorView<const S, 2> k,
                compute_t<S> scale, R& reducer) {
  constexpr const char* function = "linalg::score_rows";
  check_view(function, "q", q);
  check_view(function, "k", k);
  check(q.cols() >= 1, function, "q", q.extent, "a dim of at least 1");
  check(k.cols() == q.cols(), function, "k", k.extent, Worded{"", q.cols(), " columns"});
  check(q.stride[1] == 1 || q.cols() == 1, function, "q", q.stride, "contiguous rows");
  check(k.stride[1] == 1 || k.cols() == 1, function, "k", k.stride, "contiguous rows");
  if (q.rows() == 0 || k.rows() == 0) return;
  if constexpr (!KernelBackend<B>) {
    detail::reference_score_rows(q, k, scale, reducer);
  } else {
    const auto memory = leased<AlignedBuffer<std::byte>>(backend);
    ScoreRows<B, S> scores(backend, *memory, q.rows(), q.cols());
    scores.set_rows(q.rows(), [&](Index r) { return &q(r, 0); });
    scores.reduce(0, k.rows(), [&](Index j) { return &k(j, 0); }, scale, reducer);
  }
}

PARE_ABI_END
}  // namespace pare::linalg

#include <pare/core/macros_on.hpp>
