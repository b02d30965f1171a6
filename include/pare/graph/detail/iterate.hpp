// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// The steps of FastRP as they lie in memory: dense rows, or mixed ones as long as most of them
/// have few nonzeros. With a density of 1 / sqrt(nodes) the start has a quarter of a nonzero a row
/// of 256, and each step as many times more as a node has edges: two steps of four gather little.

#include <pare/core/aligned_buffer.hpp>
#include <pare/core/backend.hpp>
#include <pare/core/ceil_div.hpp>
#include <pare/core/parallel.hpp>
#include <pare/core/sparse_view.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/kernel/mixed_rows.hpp>
#include <pare/linalg/spmm.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>

namespace pare::graph::detail {
PARE_ABI_BEGIN

/// N_i: one of the two.
template <class T>
struct Iterate {
  TensorView<const T, 2> dense;
  kernel::MixedRows<T> mixed;

  bool is_mixed() const { return mixed.start != nullptr; }
};

/// Mixed rows that are written. They take a quarter of what dense rows do, or are not used.
template <class T>
class MixedBuffer {
 public:
  /// Calls nonzeros(first, last, counts) for all rows, which sets counts[u - first] to no fewer
  /// than row u will have. False if the rows would take more room; nothing is kept then.
  template <Executor E, class Count>
  bool place(const E& executor, Index rows, Index columns, const Count& nonzeros) {
    columns_ = columns;
    std::int64_t* start = start_.resize(static_cast<std::size_t>(rows) + 1);
    parallel_for(executor, ceil_div(rows, rows_per_item), [&](Index item, int) {
      const Index first = item * rows_per_item, last = std::min(rows, first + rows_per_item);
      nonzeros(first, last, start + first + 1);
    });
    start[0] = 0;
    const std::int64_t most = rows * columns / 4;
    for (Index u = 0; u < rows; ++u) {
      start[u + 1] = start[u] + kernel::mixed_row_words(start[u + 1], columns);
      if (start[u + 1] > most) return false;
    }
    words_.resize(static_cast<std::size_t>(start[rows]));
    return true;
  }

  kernel::MixedRows<T> view() const { return {start_.data(), words_.data(), columns_}; }
  T* row(Index u) const { return words_.data() + start_.data()[u]; }
  Index words_of(Index u) const { return start_.data()[u + 1] - start_.data()[u]; }

  /// Writes rows [first, last).
  template <KernelBackend B>
  void pack(const B& backend, const T* rows, Index stride, Index first, Index last) const {
    launch(backend, kernel::PackMixedRows<T>{rows, stride, last - first, columns_,
                                             start_.data() + first, words_.data()});
  }

  static constexpr Index rows_per_item = 256;

 private:
  AlignedBuffer<std::int64_t> start_;
  AlignedBuffer<T> words_;
  Index columns_ = 0;
};

/// Whether the step behind rows of so many words has few nonzeros too, as far as means tell. Where
/// an eighth of a row is filled, to add its nonzeros one by one takes longer than to gather it:
/// measured at 21 of 256, in lists 570 ms a pair of steps, in whole rows 410.
template <class T, class I>
bool stays_sparse(const CompressedView<T, I>& graph, const kernel::MixedRows<T>& current) {
  const Index nodes = graph.outer_size;
  const auto entries = static_cast<double>(graph.entries());
  const double words = static_cast<double>(current.start[nodes]) / static_cast<double>(nodes);
  return words * entries / static_cast<double>(nodes) <= static_cast<double>(current.columns) / 8;
}

/// Room for the step behind `current`, which is mixed; false if that is to be dense.
template <class T, class I, KernelBackend B>
bool place_next(const B& backend, const CompressedView<T, I>& graph,
                const kernel::MixedRows<T>& current, MixedBuffer<T>& next) {
  if (!stays_sparse(graph, current)) return false;
  const auto nonzeros = [&](Index u) {
    std::int64_t most = 0;
    for (Index e = graph.begin(u); e < graph.end(u) && most < current.columns; ++e) {
      const std::int64_t* place = current.start + graph.inner[e];
      most += kernel::mixed_row_nonzeros(place[1] - place[0], current.columns);
    }
    return std::min<std::int64_t>(most, current.columns);
  };
  return next.place(backend.executor, graph.outer_size, current.columns,
                    [&](Index first, Index last, std::int64_t* counts) {
                      for (Index u = first; u < last; ++u) counts[u - first] = nonzeros(u);
                    });
}

/// Rows of diag(row_scale) A N for rows [first, last) of A; null row_scale: 1.
template <class T, class I, KernelBackend B>
void multiply_rows(const B& backend, const CompressedView<T, I>& a, const T* row_scale,
                   const Iterate<T>& n, T* out, Index stride, Index first, Index last) {
  if (n.is_mixed())
    launch(backend, kernel::SpmmMixedRows<T, I>{a.outer, a.line_nonzeros, a.inner, a.values,
                                                row_scale, n.mixed, out, stride, first, last});
  else
    launch(backend, linalg::spmm_rows(a, row_scale, n.dense, out, stride, first, last));
}

/// Rows of a matrix.
template <class T>
struct RowRange {
  const T* data;
  Index stride;
};

/// Rows [first, last) of N, at most linalg::rows_per_spmm_item; mixed ones are written to scratch.
template <class T, KernelBackend B>
RowRange<T> dense_rows(const B& backend, const Iterate<T>& n, Index first, Index last, T* scratch) {
  if (!n.is_mixed()) return {n.dense.data + first * n.dense.stride[0], n.dense.stride[0]};
  constexpr auto most = static_cast<std::size_t>(linalg::rows_per_spmm_item);
  long long offsets[most + 1] = {}, row[most];
  for (Index u = first; u < last; ++u) {
    row[u - first] = u;
    offsets[u - first + 1] = u - first + 1;
  }
  const CompressedView<T, long long> chosen{last - first, 0, offsets, nullptr, row, nullptr};
  multiply_rows(backend, chosen, static_cast<const T*>(nullptr), n, scratch, n.mixed.columns, 0,
                last - first);
  return {scratch, n.mixed.columns};
}

PARE_ABI_END
}  // namespace pare::graph::detail
