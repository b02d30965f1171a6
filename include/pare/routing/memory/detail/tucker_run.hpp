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

template <class B, class T>
class TuckerRun {
 public:
  TuckerRun(const B& backend, const TensorView<const T, 3>& queries, const TuckerKeys<T>& memory,
            Index k, TuckerHits<T>& hits)
      : backend_(backend), queries_(queries), m_(memory), k_(k), hits_(hits) {}

  void run() {
    const Index rows = queries_.extent[0];
    scores_.resize(static_cast<std::size_t>(2 * rank() * std::min(rows, block_rows) * n()));
    for (Index head = 0; head < m_.keys.extent[0]; ++head)
      for (Index begin = 0; begin < rows; begin += block_rows) {
        const Index count = std::min(block_rows, rows - begin);
        score(head, begin, count);
        const auto find = [&](Index r, int) { find_hits(head, begin + r, r, count); };
        if constexpr (KernelBackend<B>)
          parallel_for(backend_.executor, count, find);
        else
          for (Index r = 0; r < count; ++r) find(r, 0);
      }
  }

 private:
  static constexpr Index block_rows = 256;

  Index n() const { return m_.keys.extent[2]; }
  Index half() const { return m_.keys.extent[3]; }
  Index rank() const { return m_.keys.extent[4]; }
  Index cores() const { return m_.cores.extent[0]; }

  /// Scores of a side and a rank, [count, n].
  TensorView<T, 2> scores(Index side, Index rank_at, Index count) {
    return {scores_.data() + (side * rank() + rank_at) * count * n(), {count, n()}, {n(), 1}};
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
  std::vector<Index> preselect(Index side, const TensorView<const T, 1>& direction, Index r,
                               Index count) {
    std::vector<PairHit> all(static_cast<std::size_t>(n()));
    for (Index i = 0; i < n(); ++i) all[static_cast<std::size_t>(i)].id = i;
    for (Index p = 0; p < rank(); ++p) {
      const auto of_rank = scores(side, p, count);
      for (Index i = 0; i < n(); ++i)
        all[static_cast<std::size_t>(i)].score +=
            static_cast<double>(direction(p)) * static_cast<double>(of_rank(r, i));
    }
    std::partial_sort(all.begin(), all.begin() + k_, all.end());
    std::vector<Index> kept;
    for (Index i = 0; i < k_; ++i) kept.push_back(all[static_cast<std::size_t>(i)].id);
    return kept;
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

  void find_hits(Index head, Index row, Index r, Index count) {
    const std::vector<Index> rows = preselect(0, m_.u, r, count);
    const std::vector<Index> columns = preselect(1, m_.v, r, count);
    std::vector<PairHit> pairs;
    pairs.reserve(rows.size() * columns.size());
    for (const Index i : rows)
      for (const Index j : columns) {
        double sum = 0;
        for (Index c = 0; c < cores(); ++c) sum += core_score(c, i, j, r, count);
        pairs.push_back({sum, i * n() + j});
      }
    std::partial_sort(pairs.begin(), pairs.begin() + k_, pairs.end());
    for (Index h = 0; h < k_; ++h) {
      const Index id = pairs[static_cast<std::size_t>(h)].id;
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
  AlignedBuffer<T> scores_;  ///< [2 sides, r, rows of a block, n]
};

PARE_ABI_END
}  // namespace pare::routing::detail
