// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// A search of Tucker keys: scores of a block of rows by products, then hits row by row.

#include <pare/core/aligned_buffer.hpp>
#include <pare/core/backend.hpp>
#include <pare/core/parallel.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/linalg/multiply.hpp>
#include <pare/routing/memory/detail/half_search.hpp>
#include <pare/routing/memory/tucker_keys.hpp>

#include <algorithm>
#include <cstddef>
#include <vector>

namespace pare::routing::detail {
PARE_ABI_BEGIN

/// Rows whose scores are kept at once.
inline constexpr Index tucker_block_rows = 256;

/// What a worker keeps of a row.
struct TuckerRow {
  std::vector<PairHit> keys;   ///< [n], of a side, by their scores along its direction
  std::vector<Index> rows;     ///< [k], preselected
  std::vector<Index> columns;  ///< [k]
  std::vector<PairHit> pairs;  ///< [k^2]
};

template <class T>
struct TuckerMemory {
  AlignedBuffer<T> scores;      ///< [2 sides, r, rows of a block, n]
  std::vector<TuckerRow> rows;  ///< [workers]
};

template <class B, class T>
class TuckerRun {
 public:
  TuckerRun(const B& backend, const TensorView<const T, 3>& queries, const TuckerKeys<T>& keys,
            Index k, TuckerHits<T>& hits)
      : backend_(backend),
        queries_(queries),
        m_(keys),
        k_(k),
        hits_(hits),
        memory_(leased<TuckerMemory<T>>(backend)) {}

  void run() {
    const Index rows = queries_.extent[0], most = std::min(tucker_block_rows, rows);
    memory_->scores.resize(static_cast<std::size_t>(2 * rank() * most * n()));
    reserve(static_cast<std::size_t>(workers_of(most)));
    for (Index head = 0; head < m_.keys.extent[0]; ++head)
      for (Index begin = 0; begin < rows; begin += tucker_block_rows) {
        const Index count = std::min(tucker_block_rows, rows - begin);
        score(head, begin, count);
        const auto find = [&](Index r, int worker) {
          find_hits(head, begin + r, r, count, memory_->rows[static_cast<std::size_t>(worker)]);
        };
        if constexpr (KernelBackend<B>)
          parallel_for(backend_.executor, count, find);
        else
          for (Index r = 0; r < count; ++r) find(r, 0);
      }
  }

 private:
  Index n() const { return m_.keys.extent[2]; }
  Index half() const { return m_.keys.extent[3]; }
  Index rank() const { return m_.keys.extent[4]; }
  Index cores() const { return m_.cores.extent[0]; }

  int workers_of(Index rows) const {
    if constexpr (KernelBackend<B>) return worker_count(backend_.executor, rows);
    return 1;
  }

  /// For all workers at once: which of them takes a row is left to chance.
  void reserve(std::size_t workers) {
    const auto keys = static_cast<std::size_t>(n()), kept = static_cast<std::size_t>(k_);
    if (memory_->rows.size() < workers) memory_->rows.resize(workers);
    for (std::size_t w = 0; w < workers; ++w) {
      TuckerRow& row = memory_->rows[w];
      row.keys.reserve(keys);
      row.rows.reserve(kept);
      row.columns.reserve(kept);
      row.pairs.reserve(kept * kept);
    }
  }

  /// Scores of a side and a rank, [count, n].
  TensorView<T, 2> scores(Index side, Index rank_at, Index count) {
    return {
        memory_->scores.data() + (side * rank() + rank_at) * count * n(), {count, n()}, {n(), 1}};
  }

  void score(Index head, Index begin, Index count) {
    for (Index side = 0; side < 2; ++side) {
      const TensorView<const T, 2> rows{&queries_(begin, head, side * half()),
                                        {count, half()},
                                        {queries_.stride[0], queries_.stride[2]}};
      for (Index p = 0; p < rank(); ++p) {
        const TensorView<const T, 2> keys{
            &m_.keys(head, side, 0, 0, p), {half(), n()}, {m_.keys.stride[3], m_.keys.stride[2]}};
        linalg::multiply(backend_, rows, keys, scores(side, p, count));
      }
    }
  }

  /// The k keys of a side whose scores are largest along a direction.
  void preselect(Index side, const TensorView<const T, 1>& direction, Index r, Index count,
                 std::vector<PairHit>& all, std::vector<Index>& kept) {
    all.assign(static_cast<std::size_t>(n()), PairHit{});
    for (Index i = 0; i < n(); ++i) all[static_cast<std::size_t>(i)].id = i;
    for (Index p = 0; p < rank(); ++p) {
      const auto of_rank = scores(side, p, count);
      for (Index i = 0; i < n(); ++i)
        all[static_cast<std::size_t>(i)].score +=
            static_cast<double>(direction(p)) * static_cast<double>(of_rank(r, i));
    }
    std::partial_sort(all.begin(), all.begin() + k_, all.end());
    kept.clear();
    for (Index i = 0; i < k_; ++i) kept.push_back(all[static_cast<std::size_t>(i)].id);
  }

  /// srow^T Core_c scol.
  double core_score(Index c, Index i, Index j, Index r, Index count) {
    double sum = 0;
    for (Index p = 0; p < rank(); ++p)
      for (Index s = 0; s < rank(); ++s)
        sum += static_cast<double>(scores(0, p, count)(r, i)) *
               static_cast<double>(m_.cores(c, p, s)) *
               static_cast<double>(scores(1, s, count)(r, j));
    return sum;
  }

  void find_hits(Index head, Index row, Index r, Index count, TuckerRow& at) {
    preselect(0, m_.u, r, count, at.keys, at.rows);
    preselect(1, m_.v, r, count, at.keys, at.columns);
    at.pairs.clear();
    for (const Index i : at.rows)
      for (const Index j : at.columns) {
        double sum = 0;
        for (Index c = 0; c < cores(); ++c) sum += core_score(c, i, j, r, count);
        at.pairs.push_back({sum, i * n() + j});
      }
    std::partial_sort(at.pairs.begin(), at.pairs.begin() + k_, at.pairs.end());
    for (Index h = 0; h < k_; ++h) {
      const Index id = at.pairs[static_cast<std::size_t>(h)].id;
      hits_.ids(row, head * k_ + h) = id;
      for (Index c = 0; c < cores(); ++c)
        hits_.scores(row, (head * k_ + h) * cores() + c) =
            static_cast<T>(core_score(c, id / n(), id % n(), r, count));
    }
  }

  const B& backend_;
  TensorView<const T, 3> queries_;
  const TuckerKeys<T>& m_;
  Index k_;
  TuckerHits<T>& hits_;
  Lease<TuckerMemory<T>> memory_;
};

PARE_ABI_END
}  // namespace pare::routing::detail
