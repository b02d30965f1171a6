// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <pare/core/aligned_buffer.hpp>
#include <pare/core/backend.hpp>
#include <pare/core/ceil_div.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/kernel/panel.hpp>
#include <pare/kernel/signed_sum.hpp>
#include <pare/projection/detail/cell.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <vector>

namespace pare::projection::detail {
PARE_ABI_BEGIN

/// Bytes of nonzeros that are kept at a time, each 2 in its cell and 6 while that is put together.
inline constexpr double operator_bytes = 32.0 * 1024 * 1024;

/// The magnitude of an entry of R in T. One beyond T's range belongs to a density that draws no
/// entry (below 2^-63), and an infinite one would turn sums of 0 to NaN.
template <class T>
T entry_factor(double scale) {
  return static_cast<T>(std::min(scale, static_cast<double>(std::numeric_limits<T>::max())));
}

/// Half a MiB for each worker, and the part of R in use, at most about 32 MiB however large R is.
struct DenseMemory {
  struct Worker {
    AlignedBuffer<std::byte> panel;
    AlignedBuffer<std::byte> sums;
    CellScratch scratch;
  };

  std::vector<Worker> workers;
  std::vector<Cell> cells;
};

/// How R is cut: a grid of cells, `cell_rows` high, of which a few columns are in memory at a time.
struct CellGrid {
  Index input_dim, output_dim;
  Index cell_rows = ceil_div(output_dim, rows_per_cell);
  Index cell_columns = ceil_div(input_dim, columns_per_cell);

  Index first_column(Index c) const { return c * columns_per_cell; }
  Index last_column(Index c) const { return std::min(input_dim, (c + 1) * columns_per_cell); }
  Index first_row(Index r) const { return r * rows_per_cell; }
  Index last_row(Index r) const { return std::min(output_dim, (r + 1) * rows_per_cell); }

  /// Cell columns whose nonzeros fit the buffer; at least one.
  Index columns_in_memory(double nonzeros_per_column) const {
    const double bytes = nonzeros_per_column * static_cast<double>(columns_per_cell) * 8;
    const double most = std::max(1.0, operator_bytes / std::max(bytes, 1.0));
    return most < static_cast<double>(cell_columns) ? static_cast<Index>(most) : cell_columns;
  }
};

/// All rows of X against the cells of columns [first, last) of the grid.
template <class X, class T>
struct DensePass {
  static constexpr Index width = kernel::panel_rows<T>;

  TensorView<const X, 2> x;
  TensorView<T, 2> y;
  const CellGrid& grid;
  const std::vector<Cell>& cells;
  Index first, last;
  double scale;

  /// True if Y is larger than most caches, so that reading it into them before it is overwritten
  /// only costs bandwidth, and is laid out for it.
  bool streams() const {
    constexpr Index line = 64, size = sizeof(T), large = Index{16} << 20;
    return y.stride[1] == 1 && reinterpret_cast<std::uintptr_t>(y.data) % line == 0 &&
           y.stride[0] * size % line == 0 && y.rows() * y.cols() >= large / size;
  }

  /// The panel at `row`.
  template <KernelBackend B>
  void run(const B& backend, Index row, DenseMemory::Worker& worker) const {
    const Index rows = std::min(width, x.rows() - row);
    T* panel = reinterpret_cast<T*>(worker.panel.data());
    T* sums = reinterpret_cast<T*>(worker.sums.data());
    for (Index r = 0; r < grid.cell_rows; ++r) {
      const Index outputs = grid.last_row(r) - grid.first_row(r);
      if (first == 0)
        std::fill_n(sums, outputs * width, T(0));
      else  // one sum in ascending order, as if all cells had fit
        launch(backend, kernel::PackPanel<T, T>{&y(row, grid.first_row(r)), y.stride[0],
                                                y.stride[1], rows, outputs, sums});
      for (Index c = first; c < last; ++c) {
        const Index column = grid.first_column(c);
        launch(backend, kernel::PackPanel<X, T>{&x(row, column), x.stride[0], x.stride[1], rows,
                                                grid.last_column(c) - column, panel});
        const Cell& cell = cells[static_cast<std::size_t>((c - first) * grid.cell_rows + r)];
        kernel::SignedSum<T> sum{panel,
                                 sums,
                                 cell.targets.data(),
                                 cell.lengths.data(),
                                 cell.entries.data(),
                                 static_cast<Index>(cell.targets.size())};
        fetch_next(row, r, c, sum);
        launch(backend, sum);
      }
      const T factor = last == grid.cell_columns ? entry_factor<T>(scale) : T(1);
      launch(backend, kernel::UnpackPanel<T>{sums, rows, outputs, &y(row, grid.first_row(r)),
                                             y.stride[0], y.stride[1], factor, false, streams()});
    }
  }

 private:
  /// What the panel behind (row, r, c) is packed from, where rows are contiguous: the next columns,
  /// the first ones again for further outputs, or those of the rows below, which this worker
  /// usually takes next.
  void fetch_next(Index row, Index r, Index c, kernel::SignedSum<T>& sum) const {
    if (x.stride[1] != 1) return;
    const bool next_rows = c + 1 == last && r + 1 == grid.cell_rows;
    if (next_rows) row += width;
    if (row >= x.rows()) return;
    c = c + 1 < last ? c + 1 : first;
    constexpr Index size = sizeof(X);
    const Index column = grid.first_column(c);
    sum.ahead = {&x(row, column), std::min(width, x.rows() - row),
                 (grid.last_column(c) - column) * size, x.stride[0] * size};
  }
};

template <class T>
void prepare_workers(DenseMemory& memory, const CellGrid& grid, int workers) {
  if (memory.workers.size() < static_cast<std::size_t>(workers))
    memory.workers.resize(static_cast<std::size_t>(workers));
  const Index columns = std::min(grid.input_dim, columns_per_cell);
  const Index outputs = std::min(grid.output_dim, rows_per_cell);
  for (auto& worker : memory.workers) {
    worker.panel.resize(static_cast<std::size_t>(columns) * kernel::panel_rows<T> * sizeof(T));
    worker.sums.resize(static_cast<std::size_t>(outputs) * kernel::panel_rows<T> * sizeof(T));
  }
}

/// Y = scale * X * (signs of R)^T. Cells are sampled once for all rows of X; each row panel then
/// runs over them. An output sums its columns in ascending order.
template <class Sampler, class X, class T, KernelBackend B>
void project_dense(const B& backend, TensorView<const X, 2> x, const Sampler& sampler,
                   double column_nonzeros, double scale, TensorView<T, 2> y) {
  const auto memory = leased<DenseMemory>(backend);
  const CellGrid grid{x.cols(), y.cols()};
  constexpr Index width = kernel::panel_rows<T>;
  const Index panels = ceil_div(x.rows(), width);
  const Index step = grid.columns_in_memory(column_nonzeros);
  const Index most_items = std::max(panels, step * grid.cell_rows);
  prepare_workers<T>(*memory, grid, worker_count(backend.executor, most_items));
  for (Index first = 0; first < grid.cell_columns; first += step) {
    const Index last = std::min(grid.cell_columns, first + step);
    const Index cells = (last - first) * grid.cell_rows;
    if (memory->cells.size() < static_cast<std::size_t>(cells))
      memory->cells.resize(static_cast<std::size_t>(cells));
    parallel_for(backend.executor, cells, [&](Index i, int worker) {
      const Index c = first + i / grid.cell_rows, r = i % grid.cell_rows;
      build_cell(sampler, backend, grid.first_column(c), grid.last_column(c), grid.first_row(r),
                 grid.last_row(r), memory->workers[static_cast<std::size_t>(worker)].scratch,
                 memory->cells[static_cast<std::size_t>(i)]);
    });
    const DensePass<X, T> pass{x, y, grid, memory->cells, first, last, scale};
    parallel_for(backend.executor, panels, [&](Index panel, int worker) {
      pass.run(backend, panel * width, memory->workers[static_cast<std::size_t>(worker)]);
    });
  }
}

PARE_ABI_END
}  // namespace pare::projection::detail
