// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Reducers: they take in the scores of rows against keys tile by tile, so that nobody stores all
/// scores. Maxima and their keys, sums, the k best, the softmax; your own is a struct with `add`:
///
/// ```cpp
/// struct CountAbove {                                     // how many scores of all are above 1
///   long count = 0;
///   void add(const auto&, const linalg::TileOfScores<float>& tile) {
///     for (pare::Index r = 0; r < tile.rows; ++r)
///       for (pare::Index j = 0; j < tile.visible(r); ++j) count += tile.at(r, j) > 1.0f;
///   }
/// };
/// CountAbove above;
/// linalg::score_rows(pare::simd, q, k, 0.125f, above);    // score_rows.hpp: q, k [rows x dim]
///
/// linalg::OnlineSoftmax<float> softmax(q.rows());
/// linalg::LimitRows causal(ends, softmax);                // row r sees the keys before ends[r]
/// linalg::score_rows(pare::simd, q, k, 0.125f, causal);
/// softmax.log_sum_exp(0);
/// ```

#include <pare/core/macros_off.hpp>

#include <pare/core/backend.hpp>
#include <pare/core/check.hpp>
#include <pare/kernel/score_tile.hpp>
#include <pare/linalg/top_k.hpp>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <vector>

namespace pare::linalg {

/// The most rows of a tile: their scores stay in the first-level cache.
inline constexpr Index score_tile_rows = 8 * kernel::tile_rows;

PARE_ABI_BEGIN

/// The scores of rows [row, row + rows) and keys [key, key + keys). A reducer may overwrite them.
template <ComputeScalar T>
struct TileOfScores {
  T* scores = nullptr;  ///< of row `row + r` and key `key + j` at r * tile_keys + j
  Index row = 0;
  Index rows = 0;  ///< at most score_tile_rows
  Index key = 0;
  Index keys = 0;                        ///< at most kernel::tile_keys
  const std::int32_t* limits = nullptr;  ///< [rows] keys that a row sees; null: all of them

  T& at(Index r, Index j) const { return scores[r * kernel::tile_keys + j]; }
  /// How many keys of the tile its row r sees, from the first on.
  Index visible(Index r) const { return limits != nullptr ? Index{limits[r]} : keys; }
};

/// A type that takes in tiles of scores by add(backend, tile). The tiles of a row come in the order
/// of the keys, and hold every key once. Its result for a row must depend on the scores of that row
/// alone, never on the rows or keys that share a tile.
///
/// Two more members are used if they are there:
/// - `bool sees(row, rows, key, keys)`: whether any of these rows sees any of these keys; if not,
///   the tile is left out and costs nothing;
/// - `T* room(row, key)`: where to write the scores of a tile, [rows x tile_keys], for a reducer
///   that keeps them.
template <class R, class B, class T>
concept ScoreReducer = requires(R& reducer, const B& backend, const TileOfScores<T>& tile) {
  reducer.add(backend, tile);
};

/// The largest score of each row; -infinity for a row without keys, NaN for one with a NaN.
template <ComputeScalar T>
class RowMaxima {
 public:
  explicit RowMaxima(Index rows)
      : maximum_(static_cast<std::size_t>(rows), -std::numeric_limits<T>::infinity()) {}

  template <class B>
  void add(const B&, const TileOfScores<T>& tile) {
    for (Index r = 0; r < tile.rows; ++r) {
      T& largest = maximum_[static_cast<std::size_t>(tile.row + r)];
      for (Index j = 0; j < tile.visible(r); ++j)
        if (tile.at(r, j) > largest || is_nan(tile.at(r, j))) largest = tile.at(r, j);
    }
  }
  T operator[](Index row) const { return maximum_[static_cast<std::size_t>(row)]; }

 private:
  std::vector<T> maximum_;
};

/// The key of the largest score of each row, of equal ones the first. A row that saw no score above
/// -infinity, or a NaN, has the key -1.
template <ComputeScalar T>
class RowArgmax {
 public:
  explicit RowArgmax(Index rows)
      : maximum_(static_cast<std::size_t>(rows), -std::numeric_limits<T>::infinity()),
        key_(static_cast<std::size_t>(rows), -1) {}

  template <class B>
  void add(const B& backend, const TileOfScores<T>& tile) {
    if constexpr (KernelBackend<B>)
      launch(backend,
             kernel::TileMaxima<T>{tile.scores, tile.rows, tile.keys, tile.limits, tile.key,
                                   maximum_.data() + tile.row, key_.data() + tile.row});
    else
      for (Index r = 0; r < tile.rows; ++r)
        for (Index j = 0; j < tile.visible(r); ++j) take(tile.row + r, tile.at(r, j), tile.key + j);
  }

  /// Takes in the largest score of a row over keys that come after all that it saw.
  void take(Index row, T score, Index key) {
    T& largest = maximum_[static_cast<std::size_t>(row)];
    if (!is_nan(score) && !(score > largest)) return;  // nothing is above a NaN
    largest = score;
    key_[static_cast<std::size_t>(row)] = is_nan(score) ? -1 : key;
  }

  T maximum(Index row) const { return maximum_[static_cast<std::size_t>(row)]; }
  Index key(Index row) const { return key_[static_cast<std::size_t>(row)]; }

 private:
  std::vector<T> maximum_;
  std::vector<Index> key_;
};

/// The sum of the scores of each row, in double and in the order of the keys.
template <ComputeScalar T>
class RowSums {
 public:
  explicit RowSums(Index rows) : sum_(static_cast<std::size_t>(rows)) {}

  template <class B>
  void add(const B&, const TileOfScores<T>& tile) {
    for (Index r = 0; r < tile.rows; ++r)
      for (Index j = 0; j < tile.visible(r); ++j)
        sum_[static_cast<std::size_t>(tile.row + r)] += static_cast<double>(tile.at(r, j));
  }
  double operator[](Index row) const { return sum_[static_cast<std::size_t>(row)]; }

 private:
  std::vector<double> sum_;
};

/// The k largest scores of each row and their keys, in the order of top_k.hpp: falling, of equal
/// ones the earlier key first, NaN last. Keys are below 2^32. Memory: 16 to 24 bytes a score kept.
template <ComputeScalar T>
class RowTopK {
 public:
  struct Entry {
    Ranked<T> rank;
    T score = 0;
    Index key() const { return rank.index; }
    friend bool operator<(const Entry& a, const Entry& b) { return a.rank < b.rank; }
  };

  /// \throws std::invalid_argument if k < 1
  RowTopK(Index rows, Index k) : k_(k), best_(static_cast<std::size_t>(rows)) {
    check(k >= 1, "linalg::RowTopK", "k", k, "at least 1");
    for (auto& row : best_) row.reserve(static_cast<std::size_t>(k));
  }

  template <class B>
  void add(const B&, const TileOfScores<T>& tile) {
    for (Index r = 0; r < tile.rows; ++r)
      for (Index j = 0; j < tile.visible(r); ++j)
        offer(best_[static_cast<std::size_t>(tile.row + r)],
              {Ranked<T>(tile.at(r, j), tile.key + j), tile.at(r, j)});
  }

  /// The best scores of a row, the best first; fewer than k if the row saw fewer keys.
  std::vector<Entry> of(Index row) const {
    std::vector<Entry> sorted = best_[static_cast<std::size_t>(row)];
    std::sort(sorted.begin(), sorted.end());
    return sorted;
  }

 private:
  /// `heap` has the worst in front.
  void offer(std::vector<Entry>& heap, const Entry& entry) const {
    if (static_cast<Index>(heap.size()) == k_) {
      if (!(entry < heap.front())) return;
      std::pop_heap(heap.begin(), heap.end());
      heap.pop_back();
    }
    heap.push_back(entry);
    std::push_heap(heap.begin(), heap.end());
  }

  Index k_;
  std::vector<std::vector<Entry>> best_;
};

/// The maximum m and the sum l of e^(score - m) of each row. Tiles merge: (m, l) and (m', l') give
/// M = max(m, m') and l e^(m - M) + l' e^(m' - M). A row without keys is (-infinity, 0). A NaN or
/// +infinity makes the sum of its row NaN.
template <ComputeScalar T>
class OnlineSoftmax {
 public:
  explicit OnlineSoftmax(Index rows)
      : maximum_(static_cast<std::size_t>(rows), hidden), sum_(static_cast<std::size_t>(rows)) {}

  template <class B>
  void add(const B& backend, const TileOfScores<T>& tile) {
    std::array<T, score_tile_rows> maximum, sum;
    if constexpr (KernelBackend<B>)
      launch(backend, kernel::TileStats<T>{tile.scores, tile.rows, tile.keys, tile.limits,
                                           maximum.data(), sum.data(), 1});
    else
      for (Index r = 0; r < tile.rows; ++r) reference_stats(tile, r, maximum, sum);
    for (Index r = 0; r < tile.rows; ++r)
      merge(tile.row + r, static_cast<double>(maximum[static_cast<std::size_t>(r)]),
            static_cast<double>(sum[static_cast<std::size_t>(r)]));
  }

  double maximum(Index row) const { return maximum_[static_cast<std::size_t>(row)]; }
  double sum(Index row) const { return sum_[static_cast<std::size_t>(row)]; }
  /// log sum_j e^score_j; -infinity for a row that saw nothing.
  double log_sum_exp(Index row) const {
    return maximum(row) == hidden && sum(row) == 0 ? hidden : maximum(row) + std::log(sum(row));
  }

 private:
  static constexpr double hidden = -std::numeric_limits<double>::infinity();

  static void reference_stats(const TileOfScores<T>& tile, Index r,
                              std::array<T, score_tile_rows>& maximum,
                              std::array<T, score_tile_rows>& sum) {
    T largest = static_cast<T>(hidden);
    double total = 0;
    for (Index j = 0; j < tile.visible(r); ++j) largest = std::max(largest, tile.at(r, j));
    for (Index j = 0; j < tile.visible(r); ++j)
      if (tile.at(r, j) != static_cast<T>(hidden))
        total += std::exp(static_cast<double>(tile.at(r, j)) - static_cast<double>(largest));
    maximum[static_cast<std::size_t>(r)] = largest;
    sum[static_cast<std::size_t>(r)] = static_cast<T>(total);
  }

  void merge(Index row, double maximum, double sum) {
    double &to = maximum_[static_cast<std::size_t>(row)],
           &total = sum_[static_cast<std::size_t>(row)];
    const double largest = std::max(to, maximum);
    // Where nothing was seen the sum is 0, or NaN where one of the scores is.
    const auto moved = [largest](double m, double l) {
      return m == hidden ? l : l * std::exp(m - largest);
    };
    total = moved(to, total) + moved(maximum, sum);
    to = largest;
  }

  std::vector<double> maximum_, sum_;
};

/// Shows row r only the keys before ends[r] to another reducer, and leaves out tiles that no row
/// sees. It refers to both arguments, which must outlive it. For one thread.
template <class R>
class LimitRows {
 public:
  LimitRows(std::span<const Index> ends, R& reducer) : ends_(ends), reducer_(reducer) {}

  bool sees(Index row, Index rows, Index key, Index keys) const {
    if constexpr (requires { reducer_.sees(row, rows, key, keys); })
      if (!reducer_.sees(row, rows, key, keys)) return false;
    const auto own = ends_.subspan(static_cast<std::size_t>(row), static_cast<std::size_t>(rows));
    return std::ranges::any_of(own, [key](Index end) { return end > key; });
  }

  template <class T>
  T* room(Index row, Index key)
  requires requires(R& reducer) { reducer.room(row, key); }
  {
    return reducer_.room(row, key);
  }

  template <class B, class T>
  void add(const B& backend, const TileOfScores<T>& tile) {
    TileOfScores<T> limited = tile;
    for (Index r = 0; r < tile.rows; ++r)
      limits_[static_cast<std::size_t>(r)] = static_cast<std::int32_t>(std::clamp<Index>(
          ends_[static_cast<std::size_t>(tile.row + r)] - tile.key, 0, tile.visible(r)));
    limited.limits = limits_.data();
    reducer_.add(backend, limited);
  }

 private:
  std::span<const Index> ends_;
  R& reducer_;
  std::array<std::int32_t, score_tile_rows> limits_{};
};

PARE_ABI_END
}  // namespace pare::linalg

#include <pare/core/macros_on.hpp>
