// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// How much weight the last queries of a prompt put on each key.

#include <pare/attention/detail/row_scores.hpp>
#include <pare/core/aligned_buffer.hpp>
#include <pare/core/backend.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/kernel/score_tile.hpp>

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
/// Two passes over the keys: the first finds the log-sum-exp of each row, the second adds up the
/// weights, so no more than a tile of scores is held. Both run over ranges of keys of a fixed
/// length, and a column is added up within one of them: threads do not change a bit.
template <class B, StorageScalar S>
class KeyImportance {
  using T = compute_t<S>;

 public:
  KeyImportance(const B& backend, TensorView<const S, 4> q, TensorView<const S, 4> k, double scale,
                const ImportanceSizes& sizes)
      : backend_(backend), q_(q), k_(k), scale_(static_cast<T>(scale)), sizes_(sizes) {
    average_queries();
    const Index states = orders() * tiles() * sizes_.rows;
    maximum_.resize(static_cast<std::size_t>(states));
    sum_.resize(static_cast<std::size_t>(states));
    lse_.resize(static_cast<std::size_t>(orders() * sizes_.rows));
    importance_.resize(static_cast<std::size_t>(orders() * sizes_.keys));
    run();
  }

  /// Of the keys [begin, begin + count) under order `order` of all.
  std::span<const T> of(Index order, Index begin, Index count) const {
    return {importance_.data() + order * sizes_.keys + begin, static_cast<std::size_t>(count)};
  }

 private:
  static constexpr Index range_keys = 16 * kernel::tile_keys;

  Index orders() const { return sizes_.batch * sizes_.orders; }
  Index tiles() const { return (sizes_.keys + kernel::tile_keys - 1) / kernel::tile_keys; }

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

  /// Calls tile(first, count, scores, limits) over the keys of range `item` of all orders.
  template <class F>
  void over_range(Index item, AlignedBuffer<std::byte>& memory, const F& tile) const {
    const Index ranges = (sizes_.keys + range_keys - 1) / range_keys, order = item / ranges;
    const Index begin = item % ranges * range_keys;
    RowScores<B, S> scores(backend_, memory, sizes_.rows, q_.extent[3]);
    scores.set_rows(sizes_.rows, [&](Index i) { return row(order, i); });
    std::vector<std::int32_t> limits(static_cast<std::size_t>(sizes_.causal ? sizes_.rows : 0));
    scores.over_keys(
        begin, std::min(begin + range_keys, sizes_.keys), [&](Index j) { return key(order, j); },
        scale_,
        [&](Index first, Index count, T* values) {
          for (std::size_t i = 0; i < limits.size(); ++i)
            limits[i] = static_cast<std::int32_t>(
                std::clamp<Index>(seen(static_cast<Index>(i)) - first, 0, count));
          tile(order, first, count, values, sizes_.causal ? limits.data() : nullptr);
        });
  }

  void add_stats(Index item, AlignedBuffer<std::byte>& memory) {
    over_range(item, memory,
               [&](Index order, Index first, Index count, T* scores, const std::int32_t* limits) {
                 const Index at = (order * tiles() + first / kernel::tile_keys) * sizes_.rows;
                 launch(backend_, kernel::TileStats<T>{scores, sizes_.rows, count, limits,
                                                       maximum_.data() + at, sum_.data() + at, 1});
               });
  }

  void add_weights(Index item, AlignedBuffer<std::byte>& memory) {
    over_range(item, memory,
               [&](Index order, Index first, Index count, T* scores, const std::int32_t* limits) {
                 T column[kernel::tile_keys] = {};
                 launch(backend_, kernel::AddWeights<T>{scores, sizes_.rows, count, limits,
                                                        lse_.data() + order * sizes_.rows, column});
                 std::copy_n(column, count, importance_.data() + order * sizes_.keys + first);
               });
  }

  /// The log-sum-exp of the rows of an order, from those of the tiles.
  void merge_tiles(Index order) {
    constexpr double nothing = -std::numeric_limits<double>::infinity();
    for (Index i = 0; i < sizes_.rows; ++i) {
      double highest = nothing, total = 0;
      const auto at = [&](Index tile) {
        return static_cast<std::size_t>((order * tiles() + tile) * sizes_.rows + i);
      };
      for (Index t = 0; t < tiles(); ++t) highest = std::max<double>(highest, maximum_[at(t)]);
      for (Index t = 0; t < tiles(); ++t) {
        if (maximum_[at(t)] != static_cast<T>(nothing))
          total += sum_[at(t)] * std::exp(static_cast<double>(maximum_[at(t)]) - highest);
        else if (t * kernel::tile_keys < seen(i))  // a NaN beside scores of -inf, or those alone
          total = std::numeric_limits<double>::quiet_NaN();
      }
      lse_[static_cast<std::size_t>(order * sizes_.rows + i)] =
          static_cast<T>(highest == nothing && total == 0 ? nothing : highest + std::log(total));
    }
  }

  void run() {
    const Index items = orders() * ((sizes_.keys + range_keys - 1) / range_keys);
    std::vector<AlignedBuffer<std::byte>> memory(
        static_cast<std::size_t>(worker_count(backend_.executor, items)));
    parallel_for(backend_.executor, items, [&](Index item, int worker) {
      add_stats(item, memory[static_cast<std::size_t>(worker)]);
    });
    parallel_for(backend_.executor, orders(), [&](Index order, int) { merge_tiles(order); });
    parallel_for(backend_.executor, items, [&](Index item, int worker) {
      add_weights(item, memory[static_cast<std::size_t>(worker)]);
    });
  }

  const B& backend_;
  TensorView<const S, 4> q_;
  TensorView<const S, 4> k_;
  T scale_;
  ImportanceSizes sizes_;
  AlignedBuffer<S> averaged_;  ///< [orders, rows, dim]
  std::vector<T> maximum_;     ///< [orders, tiles, rows]
  std::vector<T> sum_;
  std::vector<T> lse_;         ///< [orders, rows]
  std::vector<T> importance_;  ///< [orders, keys]
};

PARE_ABI_END
}  // namespace pare::attention::detail
