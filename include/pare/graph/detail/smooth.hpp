// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <pare/core/aligned_buffer.hpp>
#include <pare/core/backend.hpp>
#include <pare/core/ceil_div.hpp>
#include <pare/core/parallel.hpp>
#include <pare/core/sparse_view.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/kernel/spmm.hpp>
#include <pare/linalg/spmm.hpp>

#include <algorithm>
#include <cstddef>
#include <vector>

namespace pare::graph::detail {
PARE_ABI_BEGIN

template <class T>
struct SmoothingMemory {
  AlignedBuffer<T> step;  ///< every other step, [nodes x dim]
};

/// One call of light_gcn, checked: out = sum_k weights[k] A^k start.
template <class T, class I>
struct Smoothing {
  CompressedView<T, I> graph;
  TensorView<const T, 2> start;
  TensorView<T, 2> out;
  const std::vector<double>& weights;

  /// Step by step, as the paper has it.
  void define() const {
    const Index rows = start.rows(), columns = start.cols();
    std::vector<double> current(static_cast<std::size_t>(rows * columns)), sum = current;
    const auto at = [columns](Index u, Index c) {
      return static_cast<std::size_t>(u * columns + c);
    };
    for (Index u = 0; u < rows; ++u)
      for (Index c = 0; c < columns; ++c) {
        current[at(u, c)] = static_cast<double>(start(u, c));
        sum[at(u, c)] = weights[0] * current[at(u, c)];
      }
    for (std::size_t k = 1; k <= steps(); ++k) {
      std::vector<double> next(current.size(), 0.0);
      for (Index u = 0; u < rows; ++u)
        for (Index e = graph.begin(u); e < graph.end(u); ++e)
          for (Index c = 0; c < columns; ++c)
            next[at(u, c)] += static_cast<double>(graph.values[e]) * current[at(graph.inner[e], c)];
      current = next;
      for (std::size_t i = 0; i < sum.size(); ++i) sum[i] += weights[k] * current[i];
    }
    for (Index u = 0; u < rows; ++u)
      for (Index c = 0; c < columns; ++c) out(u, c) = static_cast<T>(sum[at(u, c)]);
  }

  template <KernelBackend B>
  void run(const B& backend) const {
    const auto memory = leased<SmoothingMemory<T>>(backend);
    const Index rows = start.rows(), columns = start.cols();
    const auto last = static_cast<Index>(steps());
    TensorView<T, 2> side = out;
    if (last > 1)
      side = {memory->step.resize(static_cast<std::size_t>(rows * columns)),
              {rows, columns},
              {columns, 1}};
    if (last == 0) return add_start(backend, 0, rows, out, weights[0], true);
    TensorView<const T, 2> from = start;
    for (Index k = last - 1; k >= 0; --k) {
      const TensorView<T, 2> to = k % 2 == 0 ? out : side;
      const double scale = k == last - 1 ? weights[static_cast<std::size_t>(last)] : 1.0;
      step(backend, from, scale, weights[static_cast<std::size_t>(k)], to);
      from = as_const(to);
    }
  }

 private:
  /// The last step whose weight is not 0.
  std::size_t steps() const {
    std::size_t last = weights.size() - 1;
    while (last > 0 && weights[last] == 0) --last;
    return last;
  }

  /// to = scale A from + weight start, in items of rows that stay in the caches.
  template <KernelBackend B>
  void step(const B& backend, TensorView<const T, 2> from, double scale, double weight,
            TensorView<T, 2> to) const {
    constexpr Index item_rows = linalg::rows_per_spmm_item;
    T scales[static_cast<std::size_t>(item_rows)];
    std::fill_n(scales, item_rows, static_cast<T>(scale));
    parallel_for(backend.executor, ceil_div(start.rows(), item_rows), [&](Index item, int) {
      const Index first = item * item_rows, last = std::min(start.rows(), first + item_rows);
      launch(backend, linalg::spmm_rows(graph, static_cast<const T*>(scales), from,
                                        to.data + first * to.stride[0], to.stride[0], first, last));
      if (weight != 0) add_start(backend, first, last, to, weight, false);
    });
  }

  template <KernelBackend B>
  void add_start(const B& backend, Index first, Index last, TensorView<T, 2> to, double weight,
                 bool assign) const {
    launch(backend, kernel::AddRows<T>{start.data + first * start.stride[0], start.stride[0],
                                       to.data + first * to.stride[0], to.stride[0], last - first,
                                       start.cols(), static_cast<T>(weight), false, assign});
  }
};

PARE_ABI_END
}  // namespace pare::graph::detail
