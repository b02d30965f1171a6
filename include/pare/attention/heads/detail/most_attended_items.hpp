// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// The keys that rows of attention look at most: how the work is cut, one item of it, and the
/// definition.

#include <pare/attention/detail/head_of.hpp>
#include <pare/attention/detail/reference_row.hpp>
#include <pare/core/aligned_buffer.hpp>
#include <pare/core/backend.hpp>
#include <pare/core/ceil_div.hpp>
#include <pare/core/parallel.hpp>
#include <pare/core/scalar.hpp>
#include <pare/core/scratch.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/linalg/score_reducers.hpp>
#include <pare/linalg/score_rows.hpp>

#include <algorithm>
#include <cstddef>
#include <limits>
#include <span>
#include <vector>

namespace pare::attention::detail {
PARE_ABI_BEGIN

/// Rows (query heads of a key/value head times queries) that pass over the keys together: packed,
/// 128 KiB of floats at a dim of 128, which the second-level cache holds.
inline constexpr Index most_attended_rows = 256;
/// Keys of an item, so that few heads over a long cache still make work for all threads.
inline constexpr Index most_attended_keys = 4096;

/// The key that query i of a head attends to most, by scores summed in double; -1 for a NaN.
template <StorageScalar S>
Index reference_most_attended(TensorView<const S, 2> q, TensorView<const S, 2> k, Index i) {
  Index best = -1;
  double most = -std::numeric_limits<double>::infinity();
  for (Index j = 0; j <= i + k.rows() - q.rows(); ++j) {
    const double score = reference_dot(reference_row(q, i), reference_row(k, j), q.cols());
    if (is_nan(score)) return -1;
    if (score > most) {
      most = score;
      best = j;
    }
  }
  return best;
}

/// The rows of one key/value head against the keys of one chunk.
struct MostAttendedItem {
  Index batch = 0, kv_head = 0;
  Index query = 0, queries = 0;  ///< of each query head of the group
  Index chunk = 0;
};

/// Queries that an item takes of each of `group` query heads.
inline Index most_attended_queries(Index group) {
  return std::max<Index>(most_attended_rows / std::max<Index>(group, 1), 1);
}

/// Items of which some row sees a key.
inline std::vector<MostAttendedItem> most_attended_items(Index batches, Index kv_heads, Index group,
                                                         Index queries, Index keys) {
  std::vector<MostAttendedItem> items;
  const Index step = most_attended_queries(group);
  for (Index b = 0; b < batches; ++b)
    for (Index h = 0; h < kv_heads; ++h)
      for (Index i = 0; i < queries; i += step) {
        const Index count = std::min(step, queries - i);
        const Index seen = i + count + keys - queries;
        for (Index chunk = 0; chunk * most_attended_keys < seen; ++chunk)
          items.push_back({b, h, i, count, chunk});
      }
  return items;
}

/// Finds the keys by items, whose results are merged in the order of the keys.
template <KernelBackend B, StorageScalar S>
class MostAttended {
  using T = compute_t<S>;

 public:
  MostAttended(const B& backend, TensorView<const S, 4> q, TensorView<const S, 4> k)
      : backend_(backend),
        q_(q),
        k_(k),
        group_(q.extent[1] / k.extent[1]),
        rows_(q.extent[0] * q.extent[1] * q.extent[2]),
        chunks_(ceil_div(k.extent[2], most_attended_keys)),
        maximum_(static_cast<std::size_t>(chunks_ * rows_), -std::numeric_limits<T>::infinity()),
        key_(maximum_.size(), -1) {}

  /// keys [batch x heads x queries].
  void run(std::span<Index> keys) {
    const auto items =
        most_attended_items(k_.extent[0], k_.extent[1], group_, q_.extent[2], k_.extent[2]);
    const auto count = static_cast<Index>(items.size());
    const auto memory = leased<std::vector<AlignedBuffer<std::byte>>>(backend_);
    const auto workers = static_cast<std::size_t>(worker_count(backend_.executor, count));
    if (memory->size() < workers) memory->resize(workers);
    parallel_for(backend_.executor, count, [&](Index i, int worker) {
      run_item(items[static_cast<std::size_t>(i)], (*memory)[static_cast<std::size_t>(worker)]);
    });
    linalg::RowArgmax<T> best(rows_);
    for (Index chunk = 0; chunk < chunks_; ++chunk)
      for (Index row = 0; row < rows_; ++row) {
        const auto at = static_cast<std::size_t>(chunk * rows_ + row);
        best.take(row, maximum_[at], key_[at]);
      }
    for (Index row = 0; row < rows_; ++row) keys[static_cast<std::size_t>(row)] = best.key(row);
  }

 private:
  Index head(const MostAttendedItem& item, Index row) const {
    return item.kv_head * group_ + row / item.queries;
  }

  void run_item(const MostAttendedItem& item, AlignedBuffer<std::byte>& memory) {
    const auto kernels = for_workers(backend_);
    const Index rows = group_ * item.queries, begin = item.chunk * most_attended_keys;
    const TensorView<const S, 2> k = head_of(k_, item.batch, item.kv_head);
    const Index seen = item.query + item.queries + k_.extent[2] - q_.extent[2];
    linalg::ScoreRows<B, S> scores(kernels, memory, rows, q_.extent[3]);
    scores.set_rows(rows, [&](Index r) {
      return &q_(item.batch, head(item, r), item.query + r % item.queries, 0);
    });
    std::vector<Index> ends(static_cast<std::size_t>(rows));
    for (Index r = 0; r < rows; ++r)
      ends[static_cast<std::size_t>(r)] = seen - item.queries + r % item.queries + 1;
    linalg::RowArgmax<T> best(rows);
    linalg::LimitRows causal(ends, best);
    scores.reduce(
        begin, std::min(begin + most_attended_keys, seen), [&](Index j) { return &k(j, 0); }, T(1),
        causal);
    for (Index r = 0; r < rows; ++r) {
      const auto at = static_cast<std::size_t>(
          item.chunk * rows_ + (item.batch * q_.extent[1] + head(item, r)) * q_.extent[2] +
          item.query + r % item.queries);
      maximum_[at] = best.maximum(r);
      key_[at] = best.key(r);
    }
  }

  const B& backend_;
  TensorView<const S, 4> q_, k_;
  Index group_, rows_, chunks_;
  std::vector<T> maximum_;  ///< [chunks x rows]
  std::vector<Index> key_;  ///< [chunks x rows]
};

PARE_ABI_END
}  // namespace pare::attention::detail
