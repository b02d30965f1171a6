// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Weights of all pairs of unit rows, their sum and its gradient, block by block on threads.

#include <pare/core/aligned_buffer.hpp>
#include <pare/core/backend.hpp>
#include <pare/core/ceil_div.hpp>
#include <pare/core/check.hpp>
#include <pare/core/parallel.hpp>
#include <pare/core/scratch.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/kernel/pack.hpp>
#include <pare/kernel/pair_weights.hpp>
#include <pare/kernel/product_tile.hpp>
#include <pare/retrieval/detail/unit_rows.hpp>

#include <algorithm>
#include <cstddef>
#include <vector>

namespace pare::retrieval::detail {
PARE_ABI_BEGIN

struct PairMemory {
  std::vector<double> inverse;       ///< [rows] of norms
  std::vector<double> sums;          ///< [items]
  AlignedBuffer<std::byte> scratch;  ///< of each worker
};

/// Weights of all pairs of rows, block by block. A block of unit rows is multiplied by tiles of
/// unit columns, which are made for it anew: with 384 rows that takes 3 % of the time, and no copy
/// of all rows is kept. Blocks and tiles are cut by the rows' number alone, and so are sums.
template <class B, class S>
class UniformPairs {
  using T = compute_t<S>;
  static constexpr Index most_rows = 384;  ///< of a block: at most 256 KiB of it, in L2
  static constexpr Index tile = kernel::tile_keys;
  static constexpr Index lanes = kernel::PairWeights<T>::sum_lanes;
  static constexpr Index widest = 64 / static_cast<Index>(sizeof(T));

 public:
  UniformPairs(const B& backend, PairMemory& memory, TensorView<const S, 2> x, double t)
      : backend_(backend), memory_(memory), x_(x), t_(t), rows_(rows_of_block(x)) {
    memory_.sums.assign(static_cast<std::size_t>(items()), 0.0);
  }

  /// The sum of the weights of all pairs. Each row meets those before it.
  double total() {
    each_block(false, [&](Index row, Index rows, const Room& room) {
      for (Index column = 0; column < row + rows; column += tile) {
        const Index count = std::min(tile, row + rows - column);
        make_columns(column, count, room);
        weigh(row, rows, column, count, true, nullptr, room);
      }
    });
    return sum();
  }

  /// The same, and the gradient of `weight` times its logarithm. Each row meets all others, so that
  /// every block is on its own: that takes a third more products than sharing weights would, and
  /// needs no order between blocks.
  double gradient(TensorView<T, 2> out, double weight) {
    each_block(true, [&](Index row, Index rows, const Room& room) {
      for (Index column = 0; column < x_.rows(); column += tile) {
        const Index count = std::min(tile, x_.rows() - column);
        make_columns(column, count, room);
        weigh(row, rows, column, count, false, room.weights, room);
        move(rows, column, count, room);
      }
      for (Index r = 0; r < rows; ++r)
        project(row + r, room.rows + r * dim(), room.moved + r * dim(), out);
    });
    const double total = sum() / 2;
    const double factor = 2 * t_ * weight / total;
    parallel_for(backend_.executor, items(), [&](Index item, int) {
      for (Index r = item * rows_; r < std::min(x_.rows(), (item + 1) * rows_); ++r)
        for (Index c = 0; c < dim(); ++c)
          out(r, c) = static_cast<T>(static_cast<double>(out(r, c)) * factor);
    });
    return total;
  }

 private:
  /// A worker's memory.
  struct Room {
    T* rows = nullptr;             ///< [block x dim] unit rows
    T* columns = nullptr;          ///< [tile x dim] unit columns
    T* packed = nullptr;           ///< the same, for products along dim
    T* sums = nullptr;             ///< [block x lanes]
    const T** pointers = nullptr;  ///< [tile]
    T* weights = nullptr;          ///< [block x tile]
    T* right = nullptr;            ///< unit columns, for products with weights
    T* moved = nullptr;            ///< [block x dim] their sums
  };

  Index dim() const { return x_.cols(); }
  Index items() const { return ceil_div(x_.rows(), rows_); }

  /// A 16th of all rows, so that threads share the work evenly; not so few that making columns
  /// anew takes long.
  static Index rows_of_block(TensorView<const S, 2> x) {
    constexpr Index group = kernel::tile_rows;
    constexpr Index most_bytes = Index{256} << 10;
    const Index fit = most_bytes / (x.cols() * static_cast<Index>(sizeof(T)));
    const Index rows = std::clamp<Index>(x.rows() / 16, 192, most_rows);
    return std::max<Index>(std::min(rows, fit) / group, 1) * group;
  }

  void carve(Carver& take, bool with_gradient, Room& room) const {
    take(room.rows, rows_ * dim());
    take(room.columns, tile * dim());
    take(room.packed, tile * dim());
    take(room.sums, rows_ * lanes);
    take(room.pointers, tile);
    if (!with_gradient) return;
    take(room.weights, rows_ * tile);
    take(room.right, tile * ceil_div(dim(), widest) * widest);
    take(room.moved, rows_ * dim());
  }

  template <class F>
  void each_block(bool with_gradient, const F& f) {
    const auto rooms = worker_rooms<Room>(
        memory_.scratch, worker_count(backend_.executor, items()),
        [this, with_gradient](Room& room, Carver& take) { carve(take, with_gradient, room); });
    parallel_for(backend_.executor, items(), [&](Index i, int worker) {
      const Index item = items() - 1 - i;  // those of more pairs first
      const Room room = rooms.of(worker);
      const Index row = item * rows_, rows = std::min(rows_, x_.rows() - row);
      for (Index r = 0; r < rows; ++r) make_unit(row + r, room.rows + r * dim());
      std::fill_n(room.sums, rows * lanes, T(0));
      f(row, rows, room);
      double sum = 0;
      for (Index k = 0; k < rows * lanes; ++k) sum += static_cast<double>(room.sums[k]);
      memory_.sums[static_cast<std::size_t>(item)] = sum;
    });
  }

  double sum() const {
    double total = 0;
    for (const double part : memory_.sums) total += part;
    return total;
  }

  void make_unit(Index row, T* unit) const {
    unit_row(x_, row, memory_.inverse[static_cast<std::size_t>(row)], unit);
  }

  void make_columns(Index column, Index count, const Room& room) const {
    for (Index j = 0; j < count; ++j) {
      room.pointers[j] = room.columns + j * dim();
      make_unit(column + j, room.columns + j * dim());
    }
    launch(backend_, kernel::PackTransposed<T>{room.pointers, count, dim(), room.packed});
  }

  void weigh(Index row, Index rows, Index column, Index count, bool before, T* weights,
             const Room& room) const {
    constexpr double log2_e = 1.44269504088896340736;
    launch(backend_, kernel::PairWeights<T>{room.rows, room.packed, rows, count, dim(),
                                            static_cast<T>(2 * t_ * log2_e), row - column, before,
                                            room.sums, weights});
  }

  /// moved += weights x unit columns.
  void move(Index rows, Index column, Index count, const Room& room) const {
    launch(backend_,
           kernel::PackRightLines<T, T, false>{{room.columns, 1, dim(), dim(), count}, room.right});
    launch(backend_, kernel::MultiplyPanels<T, false>{room.weights, room.right, rows, dim(), count,
                                                      room.moved, dim(), column > 0, 0, tile});
  }

  /// The part of `moved` across the row's direction, over the row's norm.
  void project(Index row, const T* unit, const T* moved, TensorView<T, 2> out) const {
    double along = 0;
    for (Index c = 0; c < dim(); ++c)
      along += static_cast<double>(unit[c]) * static_cast<double>(moved[c]);
    const double inverse = memory_.inverse[static_cast<std::size_t>(row)];
    for (Index c = 0; c < dim(); ++c)
      out(row, c) = static_cast<T>(
          (static_cast<double>(moved[c]) - static_cast<double>(unit[c]) * along) * inverse);
  }

  const B& backend_;
  PairMemory& memory_;
  TensorView<const S, 2> x_;
  double t_;
  Index rows_;
};

PARE_ABI_END
}  // namespace pare::retrieval::detail
