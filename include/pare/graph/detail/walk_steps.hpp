// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <pare/core/aligned_buffer.hpp>
#include <pare/core/backend.hpp>
#include <pare/core/ceil_div.hpp>
#include <pare/core/parallel.hpp>
#include <pare/core/sparse_view.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/linalg/spmm.hpp>

#include <algorithm>
#include <cstddef>
#include <span>
#include <vector>

namespace pare::graph {

/// What a walk does at a node without edges out.
enum class Dangling {
  Restart,  ///< goes on where walks start
  Stay,     ///< stays, as if the node had an edge to itself
  Leak      ///< is lost: scores add up to less than 1
};

}  // namespace pare::graph

namespace pare::graph::detail {
PARE_ABI_BEGIN

/// e of one column each: 1 at a source.
struct AtSources {
  std::span<const Index> sources;

  Index columns() const { return static_cast<Index>(sources.size()); }

  /// x += amount[j] e_j
  template <class T>
  void add(TensorView<T, 2> x, const double* amount) const {
    for (Index j = 0; j < columns(); ++j)
      x(sources[static_cast<std::size_t>(j)], j) += static_cast<T>(amount[j]);
  }
};

/// e of the one column: 1 / nodes everywhere.
struct AtAllNodes {
  Index nodes;

  Index columns() const { return 1; }

  template <class T>
  void add(TensorView<T, 2> x, const double* amount) const {
    const auto each = static_cast<T>(amount[0] / static_cast<double>(nodes));
    for (Index u = 0; u < nodes; ++u) x(u, 0) += each;
  }
};

template <class T>
struct WalkMemory {
  AlignedBuffer<T> side;          ///< every other step, [nodes x columns]
  AlignedBuffer<double> amounts;  ///< [columns]
  AlignedBuffer<double> parts;    ///< what dangling nodes hold, a row for each block of them
};

/// Steps x <- (1 - c) P^T x + c e from x = e, of checked arguments.
template <class T, class I, class Restart>
struct WalkSteps {
  CompressedView<T, I> transposed;
  const std::vector<Index>& dangling;
  Restart restart;
  TensorView<T, 2> scores;
  double chance;  ///< c
  Dangling rule;
  int steps;

  void define() const {
    const Index rows = scores.rows(), columns = scores.cols();
    std::vector<double> x(static_cast<std::size_t>(rows * columns), 0.0),
        amounts(static_cast<std::size_t>(columns), 1.0);
    const auto view = [&](std::vector<double>& of) {
      return TensorView<double, 2>{of.data(), {rows, columns}, {columns, 1}};
    };
    restart.add(view(x), amounts.data());
    for (int k = 0; k < steps; ++k) {
      std::vector<double> y(x.size(), 0.0);
      const auto from = view(x), to = view(y);
      for (Index v = 0; v < rows; ++v)
        for (Index e = transposed.begin(v); e < transposed.end(v); ++e)
          for (Index j = 0; j < columns; ++j)
            to(v, j) += (1 - chance) * static_cast<double>(transposed.values[e]) *
                        from(transposed.inner[e], j);
      std::fill(amounts.begin(), amounts.end(), chance);
      for (const Index u : dangling)
        for (Index j = 0; j < columns; ++j) {
          const double walks = (1 - chance) * from(u, j);
          if (rule == Dangling::Stay) to(u, j) += walks;
          if (rule == Dangling::Restart) amounts[static_cast<std::size_t>(j)] += walks;
        }
      restart.add(to, amounts.data());
      x = y;
    }
    for (Index u = 0; u < rows; ++u)
      for (Index j = 0; j < columns; ++j) scores(u, j) = static_cast<T>(view(x)(u, j));
  }

  template <KernelBackend B>
  void run(const B& backend) const {
    const auto memory = leased<WalkMemory<T>>(backend);
    const Index rows = scores.rows(), columns = scores.cols();
    TensorView<T, 2> side = scores;
    if (steps > 0)
      side = {memory->side.resize(static_cast<std::size_t>(rows * columns)),
              {rows, columns},
              {columns, 1}};
    double* amounts = memory->amounts.resize(static_cast<std::size_t>(columns));
    TensorView<T, 2> from = steps % 2 == 0 ? scores : side;
    for (Index u = 0; u < rows; ++u) std::fill_n(&from(u, 0), columns, T(0));
    std::fill_n(amounts, columns, 1.0);
    restart.add(from, amounts);
    for (int k = 0; k < steps; ++k) {
      const TensorView<T, 2> to = (steps - k) % 2 == 0 ? side : scores;
      multiply(backend, as_const(from), to);
      std::fill_n(amounts, columns, chance);
      if (rule == Dangling::Restart) add_held(backend, as_const(from), amounts, memory->parts);
      if (rule == Dangling::Stay) stay(backend, as_const(from), to);
      restart.add(to, static_cast<const double*>(amounts));
      from = to;
    }
  }

 private:
  /// Dangling nodes that one worker looks at.
  static constexpr Index nodes_per_item = 4096;

  /// to = (1 - c) P^T from
  template <KernelBackend B>
  void multiply(const B& backend, TensorView<const T, 2> from, TensorView<T, 2> to) const {
    constexpr Index item_rows = linalg::rows_per_spmm_item;
    T scales[static_cast<std::size_t>(item_rows)];
    std::fill_n(scales, item_rows, static_cast<T>(1 - chance));
    parallel_for(backend.executor, ceil_div(scores.rows(), item_rows), [&](Index item, int) {
      const Index first = item * item_rows, last = std::min(scores.rows(), first + item_rows);
      launch(backend, linalg::spmm_rows(transposed, static_cast<const T*>(scales), from,
                                        to.data + first * to.stride[0], to.stride[0], first, last));
    });
  }

  template <KernelBackend B, class Body>
  void each_dangling(const B& backend, const Body& body) const {
    const auto count = static_cast<Index>(dangling.size());
    parallel_for(backend.executor, ceil_div(count, nodes_per_item), [&](Index item, int) {
      const Index last = std::min(count, (item + 1) * nodes_per_item);
      for (Index i = item * nodes_per_item; i < last; ++i)
        body(item, dangling[static_cast<std::size_t>(i)]);
    });
  }

  /// amounts[j] += (1 - c) times what dangling nodes hold of column j, block by block.
  template <KernelBackend B>
  void add_held(const B& backend, TensorView<const T, 2> from, double* amounts,
                AlignedBuffer<double>& memory) const {
    const Index columns = from.cols();
    const Index blocks = ceil_div(static_cast<Index>(dangling.size()), nodes_per_item);
    double* parts = memory.resize(static_cast<std::size_t>(blocks * columns));
    std::fill_n(parts, blocks * columns, 0.0);
    each_dangling(backend, [&](Index block, Index u) {
      for (Index j = 0; j < columns; ++j)
        parts[block * columns + j] += static_cast<double>(from(u, j));
    });
    for (Index block = 0; block < blocks; ++block)
      for (Index j = 0; j < columns; ++j) amounts[j] += (1 - chance) * parts[block * columns + j];
  }

  template <KernelBackend B>
  void stay(const B& backend, TensorView<const T, 2> from, TensorView<T, 2> to) const {
    const auto share = static_cast<T>(1 - chance);
    each_dangling(backend, [&](Index, Index u) {
      for (Index j = 0; j < from.cols(); ++j) to(u, j) += share * from(u, j);
    });
  }
};

PARE_ABI_END
}  // namespace pare::graph::detail
