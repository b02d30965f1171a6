// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// How many blocks each head needs, judged by its last queries.

#include <pare/attention/block_mask.hpp>
#include <pare/attention/detail/proxy_cells.hpp>
#include <pare/attention/detail/proxy_stats.hpp>
#include <pare/core/aligned_buffer.hpp>
#include <pare/core/backend.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/linalg/top_k.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace pare::attention::detail {
PARE_ABI_BEGIN

/// The blocks that a head needs of all, and the share of the mass that they hold.
struct HeadBudget {
  Index blocks = 0;
  double mass = 0;
};

/// The least b so that the b largest of `pooled` have the share `mass` of their sum. All of them if
/// they never do, which is so where one is NaN.
inline HeadBudget budget_of(std::span<const double> pooled, double mass) {
  double total = 0;
  for (const double a : pooled) total += a;
  HeadBudget budget;
  std::vector<std::uint32_t> rank;
  linalg::take_mass(pooled, mass, rank, [&](std::uint32_t n) {
    budget.mass += pooled[n] / total;
    ++budget.blocks;
    return pooled[n] / total;
  });
  return budget;
}

/// Budgets of all heads: the last min(row block, queries) queries of a head attend to all keys they
/// see, and each column block is given the mean weight of its keys.
///
/// One pass over the keys for some heads of a key/value head at a time. Cost: 2 row_block keys dim
/// FLOPs a head, which binds. Memory: for each worker `proxy_rows` rows of statistics.
template <class B, StorageScalar S>
class HeadBudgets {
  using T = compute_t<S>;

 public:
  HeadBudgets(const B& backend, WorkerMemory& memory, const BlockMask::Shape& shape,
              const TensorView<const S, 4>& q, const TensorView<const S, 4>& k, double scale)
      : backend_(backend),
        memory_(memory),
        shape_(shape),
        q_(q),
        k_(k),
        scale_(static_cast<T>(scale)),
        cells_(shape.keys, shape.column_block, 1),
        last_(std::min(shape.row_block, shape.queries)),
        group_(q.extent[1] / k.extent[1]),
        together_(std::clamp<Index>(proxy_rows / last_, 1, group_)) {}

  /// [batch * heads]
  std::vector<HeadBudget> reach(double mass) {
    std::vector<HeadBudget> budgets(static_cast<std::size_t>(shape_.batch * shape_.heads));
    const Index parts = (group_ - 1) / together_ + 1;
    const Index items = shape_.batch * k_.extent[1] * parts;
    parallel_for(backend_.executor, items, [&](Index item, int worker) {
      const Index kv = item / parts, first = item % parts * together_;
      const Index heads = std::min(together_, group_ - first);
      pool(kv / k_.extent[1], kv % k_.extent[1] * group_ + first, heads, mass,
           memory_[static_cast<std::size_t>(worker)], budgets);
    });
    return budgets;
  }

 private:
  /// Heads [head, head + heads) of one key/value head.
  void pool(Index batch, Index head, Index heads, double mass, AlignedBuffer<std::byte>& memory,
            std::vector<HeadBudget>& budgets) {
    const Index blocks = shape_.column_blocks();
    std::vector<double> pooled(static_cast<std::size_t>(heads * blocks), 0.0);
    const Index room = std::min(last_, std::max(proxy_rows, Index{1}));
    RowStats<B, S> stats(backend_, memory, cells_, heads * room, q_.extent[3]);
    for (Index first = 0; first < last_; first += room) {
      const Index count = std::min(room, last_ - first);
      gather(stats, batch, head, heads, first, count);
      pass(stats, batch, head / group_);
      for (Index h = 0; h < heads; ++h)
        add_mass(stats, h * count, (h + 1) * count, pooled.data() + h * blocks);
    }
    for (Index h = 0; h < heads; ++h)
      budgets[static_cast<std::size_t>(batch * shape_.heads + head + h)] =
          budget_of({pooled.data() + h * blocks, static_cast<std::size_t>(blocks)}, mass);
  }

  void gather(RowStats<B, S>& stats, Index batch, Index head, Index heads, Index first,
              Index count) {
    const auto query = [&](Index row) { return shape_.queries - last_ + first + row % count; };
    stats.begin(heads * count, [&](Index row) {
      return q_.data + batch * q_.stride[0] + (head + row / count) * q_.stride[1] +
             query(row) * q_.stride[2];
    });
    for (Index row = 0; row < heads * count; ++row)
      stats.positions()[row] = query(row) + shape_.keys - shape_.queries;
  }

  void pass(RowStats<B, S>& stats, Index batch, Index kv_head) {
    const S* keys = k_.data + batch * k_.stride[0] + kv_head * k_.stride[1];
    for (Index tile = 0; tile < cells_.tiles(); ++tile)
      stats.add_tile(
          tile, [&](Index column) { return keys + cells_.key(tile, column) * k_.stride[2]; },
          scale_);
  }

  void add_mass(RowStats<B, S>& stats, Index begin, Index end, double* pooled) {
    T* mass = stats.mass();
    stats.add_weights(begin, end, mass, stats.top());
    for (Index cell = 0; cell < cells_.cells(); ++cell) {
      const Index n = cell / cells_.per_block, first = n * shape_.column_block;
      const Index keys = std::min(shape_.column_block, shape_.keys - first);
      pooled[n] += static_cast<double>(mass[cell]) / static_cast<double>(keys);
    }
  }

  const B& backend_;
  WorkerMemory& memory_;
  BlockMask::Shape shape_;
  const TensorView<const S, 4>& q_;
  const TensorView<const S, 4>& k_;
  T scale_;
  KeyCells cells_;
  Index last_;
  Index group_;
  Index together_;
};

PARE_ABI_END
}  // namespace pare::attention::detail
