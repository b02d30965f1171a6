// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Block scores of a proxy head, the mean of a group of heads.

#include <pare/attention/block_mask.hpp>
#include <pare/attention/detail/proxy_cells.hpp>
#include <pare/attention/detail/proxy_stats.hpp>
#include <pare/core/aligned_buffer.hpp>
#include <pare/core/backend.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/kernel/mean_rows.hpp>
#include <pare/kernel/pack.hpp>

#include <algorithm>
#include <cstddef>
#include <limits>
#include <vector>

namespace pare::attention::detail {
PARE_ABI_BEGIN

/// The heads [first, first + count) of a batch entry, as [count, tokens, dim].
template <class T>
TensorView<T, 3> heads_of(const TensorView<T, 4>& x, Index batch, Index first, Index count) {
  return {x.data + batch * x.stride[0] + first * x.stride[1],
          {count, x.extent[2], x.extent[3]},
          {x.stride[1], x.stride[2], x.stride[3]}};
}

/// The sampled queries of a run of row blocks: the first of every `stride` of each block.
struct QuerySamples {
  Index queries = 0;
  Index block = 1;
  Index stride = 1;

  /// Of a whole block.
  Index per_block() const { return (std::min(block, queries) - 1) / stride + 1; }
  /// Of the row blocks [begin, end).
  Index count(Index begin, Index end) const {
    const Index last = (end - 1) * block, left = std::min(block, queries - last);
    return (end - 1 - begin) * per_block() + (left - 1) / stride + 1;
  }
  Index token(Index begin, Index sample) const {
    return (begin + sample / per_block()) * block + sample % per_block() * stride;
  }
};

/// Computes A_mn of one group of heads after the other: the logarithm of the largest weight
/// softmax_j(scale q_i.k_j) among the sampled queries i of row block m and keys j of column block
/// n, causal, where q and k are the means over the heads of the group.
///
/// A_mn = max_i (max_j s_ij - lse_i), so that one pass over the products does. Cost: 2 dim FLOPs
/// for each visible pair of samples, which binds, and one read of the queries sampled and of all
/// keys. Memory: the packed mean keys, [keys, dim], and for each worker `proxy_rows` rows of
/// statistics.
template <class B, StorageScalar S>
class ProxyScores {
  using T = compute_t<S>;

 public:
  ProxyScores(const B& backend, WorkerMemory& memory, const BlockMask::Shape& shape,
              Index query_stride, Index key_stride, Index dim, double scale)
      : backend_(backend),
        memory_(memory),
        shape_(shape),
        samples_{shape.queries, shape.row_block, query_stride},
        cells_(shape.keys, shape.column_block, key_stride),
        dim_(dim),
        scale_(static_cast<T>(scale)) {
    packed_.resize(static_cast<std::size_t>(cells_.tiles() * tile_size()));
  }

  /// [row blocks, column blocks]; -infinity where no sampled query sees a sampled key. A query
  /// whose scores hold a NaN counts for nothing.
  const std::vector<double>& of(const TensorView<const S, 3>& q, const TensorView<const S, 3>& k) {
    parallel_for(backend_.executor, cells_.tiles(), [&](Index tile, int worker) {
      pack_mean_keys(k, tile, memory_[static_cast<std::size_t>(worker)]);
    });
    scores_.assign(static_cast<std::size_t>(shape_.row_blocks() * shape_.column_blocks()),
                   -std::numeric_limits<double>::infinity());
    const Index blocks = std::max<Index>(1, proxy_rows / samples_.per_block());
    const Index runs = (shape_.row_blocks() - 1) / blocks + 1;
    parallel_for(backend_.executor, runs, [&](Index i, int worker) {
      const Index run = runs - 1 - i;  // the longest first
      score_run(q, run * blocks, std::min(shape_.row_blocks(), (run + 1) * blocks),
                memory_[static_cast<std::size_t>(worker)]);
    });
    return scores_;
  }

 private:
  Index tile_size() const { return dim_ * kernel::tile_keys; }

  void pack_mean_keys(const TensorView<const S, 3>& k, Index tile,
                      AlignedBuffer<std::byte>& memory) {
    T* mean = nullptr;
    const S** keys = nullptr;
    const T** means = nullptr;
    const auto carve = [&](Carver take) {
      take(mean, tile_size());
      take(keys, kernel::tile_keys);
      take(means, kernel::tile_keys);
      return take.used();
    };
    carve(Carver(memory.resize(carve(Carver(nullptr)))));
    const Index columns = cells_.tile_columns(tile);
    for (Index j = 0; j < columns; ++j) {
      keys[j] = k.data + cells_.key(tile, j) * k.stride[1];
      means[j] = mean + j * dim_;
    }
    launch(backend_, kernel::MeanRows<S>{keys, columns, k.extent[0], k.stride[0], dim_, mean});
    launch(backend_,
           kernel::PackTransposed<T>{means, columns, dim_, packed_.data() + tile * tile_size()});
  }

  /// The row blocks [begin, end), as many rows at a time as there is room for.
  void score_run(const TensorView<const S, 3>& q, Index begin, Index end,
                 AlignedBuffer<std::byte>& memory) {
    const Index total = samples_.count(begin, end);
    const Index room = std::min(proxy_rows, total);
    RowStats<B, T> stats(backend_, memory, cells_, room, dim_);
    std::vector<const S*> rows(static_cast<std::size_t>(room));
    for (Index first = 0; first < total; first += room) {
      const Index count = std::min(room, total - first);
      T* const queries = stats.begin(count);
      for (Index r = 0; r < count; ++r) {
        const Index token = samples_.token(begin, first + r);
        rows[static_cast<std::size_t>(r)] = q.data + token * q.stride[1];
        stats.positions()[r] = token + shape_.keys - shape_.queries;
      }
      launch(backend_,
             kernel::MeanRows<S>{rows.data(), count, q.extent[0], q.stride[0], dim_, queries});
      for (Index tile = 0; tile < cells_.tiles(); ++tile)
        stats.add_packed_tile(tile, packed_.data() + tile * tile_size(), scale_);
      for (Index m = begin; m < end; ++m) {
        const Index row = (m - begin) * samples_.per_block() - first;
        keep_largest(stats, m, std::max<Index>(0, row),
                     std::min(count, row + samples_.per_block()));
      }
    }
  }

  void keep_largest(RowStats<B, T>& stats, Index block, Index begin, Index end) {
    T* top = stats.top();
    stats.add_weights(begin, end, stats.mass(), top);
    double* scores = scores_.data() + block * shape_.column_blocks();
    for (Index cell = 0; cell < cells_.cells(); ++cell)
      scores[cell / cells_.per_block] =
          std::max(scores[cell / cells_.per_block], static_cast<double>(top[cell]));
  }

  const B& backend_;
  WorkerMemory& memory_;
  BlockMask::Shape shape_;
  QuerySamples samples_;
  KeyCells cells_;
  Index dim_;
  T scale_;
  AlignedBuffer<T> packed_;
  std::vector<double> scores_;
};

PARE_ABI_END
}  // namespace pare::attention::detail
