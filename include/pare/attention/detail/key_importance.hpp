// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// How much weight the last queries of a prompt put on each key.

#include <pare/core/aligned_buffer.hpp>
#include <pare/core/backend.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/kernel/score_tile.hpp>
#include <pare/linalg/score_rows.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <vector>

namespace pare::attention::detail {
PARE_ABI_BEGIN

/// Sizes of an ordering. An order serves one query head, or all of a key/value head.
struct ImportanceSizes {
  Index batch = 0;
  Index orders = 0;   ///< of one batch entry
  Index sharing = 1;  ///< query heads that an order averages over
  Index group = 1;    ///< query heads of a key/value head
  Index rows = 0;     ///< last queries
  Index keys = 0;     ///< keys that are scored
  bool causal = false;
};

/// importance[j] = sum over the last rows of softmax_j(scale q.k_j), for every order.
///
/// Orders are taken some at a time, their rows `rows_at_once` at a time. The scores of these are
/// kept while the log-sum-exp of each row is found, and then turned into weights: to score twice
/// would cost more than to read them back. Ranges of keys have a fixed length, and a column is
/// added up row by row: neither threads nor the cut change a bit.
template <class B, StorageScalar S>
class KeyImportance {
  using T = compute_t<S>;

 public:
  KeyImportance(const B& backend, TensorView<const S, 4> q, TensorView<const S, 4> k, double scale,
                const ImportanceSizes& sizes)
      : backend_(backend),
        q_(q),
        k_(k),
        scale_(static_cast<T>(scale)),
        sizes_(sizes),
        rows_(std::min(rows_at_once, sizes.rows)) {
    average_queries();
    importance_.resize(static_cast<std::size_t>(orders() * sizes_.keys));
    run();
  }

  /// Of the keys [begin, begin + count) under order `order` of all.
  std::span<const T> of(Index order, Index begin, Index count) const {
    return {importance_.data() + order * sizes_.keys + begin, static_cast<std::size_t>(count)};
  }

 private:
  static constexpr Index rows_at_once = 128;
  static constexpr Index range_tiles = 16;

  /// Some orders, and some of their rows: those behind `first_row` of the voting queries.
  struct Part {
    Index first_order = 0;
    Index orders = 0;
    Index first_row = 0;
    Index rows = 0;
  };

  Index orders() const { return sizes_.batch * sizes_.orders; }
  Index tiles() const { return (sizes_.keys + kernel::tile_keys - 1) / kernel::tile_keys; }
  Index ranges() const { return (tiles() + range_tiles - 1) / range_tiles; }

  /// How many keys row i spreads its weight over.
  Index seen(Index i) const {
    return sizes_.causal ? k_.extent[2] - sizes_.rows + i + 1 : sizes_.keys;
  }

  const S* query(Index order, Index head, Index row) const {
    return q_.data + order / sizes_.orders * q_.stride[0] + head * q_.stride[1] +
           (q_.extent[2] - sizes_.rows + row) * q_.stride[2];
  }

  const S* key(Index order, Index j) const {
    const Index head = order % sizes_.orders * sizes_.sharing / sizes_.group;
    return k_.data + order / sizes_.orders * k_.stride[0] + head * k_.stride[1] + j * k_.stride[2];
  }

  const S* row(Index order, Index i) const {
    if (sizes_.sharing == 1) return query(order, order % sizes_.orders, i);
    return averaged_.data() + (order * sizes_.rows + i) * q_.extent[3];
  }

  /// The mean over heads that share an order, in compute_t<S>, kept as S.
  void average_queries() {
    if (sizes_.sharing == 1) return;
    const Index dim = q_.extent[3];
    averaged_.resize(static_cast<std::size_t>(orders() * sizes_.rows * dim));
    for (Index order = 0; order < orders(); ++order)
      for (Index i = 0; i < sizes_.rows; ++i)
        for (Index c = 0; c < dim; ++c) {
          T sum = 0;
          for (Index h = 0; h < sizes_.sharing; ++h)
            sum += static_cast<T>(query(order, order % sizes_.orders * sizes_.sharing + h, i)[c]);
          averaged_.data()[(order * sizes_.rows + i) * dim + c] =
              static_cast<S>(sum / static_cast<T>(sizes_.sharing));
        }
  }

  /// Places in what is kept of tile `tile` of order `order` of a part.
  Index stats_at(Index order, Index tile) const { return (order * tiles() + tile) * rows_; }
  T* scores_at(Index order, Index tile) {
    return scores_.data() + stats_at(order, tile) * kernel::tile_keys;
  }

  /// Calls f(tile, first key, keys, limits) for the tiles of a range; limits are null where every
  /// row sees all.
  template <class F>
  void for_tiles(const Part& part, Index range, const F& f) const {
    std::vector<std::int32_t> limits(static_cast<std::size_t>(sizes_.causal ? part.rows : 0));
    for (Index t = range * range_tiles; t < std::min((range + 1) * range_tiles, tiles()); ++t) {
      const Index first = t * kernel::tile_keys;
      const Index count = std::min(kernel::tile_keys, sizes_.keys - first);
      for (std::size_t i = 0; i < limits.size(); ++i)
        limits[i] = static_cast<std::int32_t>(
            std::clamp<Index>(seen(part.first_row + static_cast<Index>(i)) - first, 0, count));
      f(t, first, count, sizes_.causal ? limits.data() : nullptr);
    }
  }

  /// Keeps the scores of some rows of an order, and what TileStats finds in each of their tiles.
  struct KeptStats {
    KeyImportance& all;
    Index order;
    const std::int32_t* limits;  ///< of one tile; null where every row sees all

    T* room(Index row, Index key) {
      return all.scores_at(order, key / kernel::tile_keys) + row * kernel::tile_keys;
    }
    void add(const B& backend, const linalg::TileOfScores<T>& tile) {
      const Index at = all.stats_at(order, tile.key / kernel::tile_keys) + tile.row;
      launch(backend, kernel::TileStats<T>{tile.scores, tile.rows, tile.keys,
                                           limits != nullptr ? limits + tile.row : nullptr,
                                           all.maximum_.data() + at, all.sum_.data() + at, 1});
    }
  };

  void add_stats(const Part& part, Index order, Index range, AlignedBuffer<std::byte>& memory) {
    const Index head = part.first_order + order;
    linalg::ScoreRows<B, S> scores(backend_, memory, part.rows, q_.extent[3]);
    scores.set_rows(part.rows, [&](Index i) { return row(head, part.first_row + i); });
    for_tiles(part, range, [&](Index, Index first, Index count, const std::int32_t* limits) {
      KeptStats stats{*this, order, limits};
      scores.reduce_tile(first, count, [&](Index j) { return key(head, j); }, scale_, stats);
    });
  }

  void add_weights(const Part& part, Index order, Index range) {
    for_tiles(part, range, [&](Index t, Index first, Index count, const std::int32_t* limits) {
      T* const importance = importance_.data() + (part.first_order + order) * sizes_.keys + first;
      T column[kernel::tile_keys] = {};
      std::copy_n(importance, count, column);
      launch(backend_, kernel::AddWeights<T>{scores_at(order, t), part.rows, count, limits,
                                             lse_.data() + order * rows_, column});
      std::copy_n(column, count, importance);
    });
  }

  /// The log-sum-exp of the rows of an order, from those of the tiles.
  void merge_tiles(const Part& part, Index order) {
    constexpr double nothing = -std::numeric_limits<double>::infinity();
    for (Index i = 0; i < part.rows; ++i) {
      double highest = nothing, total = 0;
      const auto at = [&](Index tile) {
        return static_cast<std::size_t>(stats_at(order, tile) + i);
      };
      for (Index t = 0; t < tiles(); ++t) highest = std::max<double>(highest, maximum_[at(t)]);
      for (Index t = 0; t < tiles(); ++t) {
        if (maximum_[at(t)] != static_cast<T>(nothing))
          total += sum_[at(t)] * std::exp(static_cast<double>(maximum_[at(t)]) - highest);
        else
          total += sum_[at(t)];  // 0 where all is hidden, NaN where one of them is
      }
      lse_[static_cast<std::size_t>(order * rows_ + i)] =
          static_cast<T>(highest == nothing && total == 0 ? nothing : highest + std::log(total));
    }
  }

  /// As many orders at a time as give every thread two ranges of keys.
  Index orders_at_once() const {
    const Index items = 2 * Index{backend_.executor.concurrency()};
    return std::clamp<Index>((items - 1) / std::max<Index>(ranges(), 1) + 1, 1, orders());
  }

  void run() {
    const Index most = orders_at_once(), states = most * tiles() * rows_;
    scores_.resize(static_cast<std::size_t>(states * kernel::tile_keys));
    maximum_.resize(static_cast<std::size_t>(states));
    sum_.resize(static_cast<std::size_t>(states));
    lse_.resize(static_cast<std::size_t>(most * rows_));
    std::vector<AlignedBuffer<std::byte>> memory(
        static_cast<std::size_t>(worker_count(backend_.executor, most * ranges())));
    for (Index order = 0; order < orders(); order += most)
      for (Index i = 0; i < sizes_.rows; i += rows_)
        run_part({order, std::min(most, orders() - order), i, std::min(rows_, sizes_.rows - i)},
                 memory);
  }

  void run_part(const Part& part, std::vector<AlignedBuffer<std::byte>>& memory) {
    const Index items = part.orders * ranges();
    parallel_for(backend_.executor, items, [&](Index item, int worker) {
      add_stats(part, item / ranges(), item % ranges(), memory[static_cast<std::size_t>(worker)]);
    });
    parallel_for(backend_.executor, part.orders,
                 [&](Index order, int) { merge_tiles(part, order); });
    parallel_for(backend_.executor, items,
                 [&](Index item, int) { add_weights(part, item / ranges(), item % ranges()); });
  }

  const B& backend_;
  TensorView<const S, 4> q_;
  TensorView<const S, 4> k_;
  T scale_;
  ImportanceSizes sizes_;
  Index rows_;                 ///< of a part at most
  AlignedBuffer<S> averaged_;  ///< [orders, rows of all, dim]
  AlignedBuffer<T> scores_;    ///< [orders of a part, tiles, rows, tile_keys]
  std::vector<T> maximum_;     ///< [orders of a part, tiles, rows]
  std::vector<T> sum_;
  std::vector<T> lse_;         ///< [orders of a part, rows]
  std::vector<T> importance_;  ///< [orders, keys]
};

PARE_ABI_END
}  // namespace pare::attention::detail
