// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Sums of squared gradients on kernels: of stored gradients, and of layers whose gradients are
/// never stored.
///
/// The matrix is cut into blocks by its shape alone. Each block has sums of its own, which are
/// added in the order of the blocks: the same bits come out for every executor.

#include <pare/core/aligned_buffer.hpp>
#include <pare/core/backend.hpp>
#include <pare/core/matrix.hpp>
#include <pare/core/parallel.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/core/workspace.hpp>
#include <pare/kernel/add_widened.hpp>
#include <pare/kernel/squared_sums.hpp>
#include <pare/linalg/multiply.hpp>
#include <pare/linalg/packed_matrix.hpp>

#include <algorithm>
#include <cstddef>
#include <span>
#include <type_traits>
#include <vector>

namespace pare::factor::detail {

PARE_ABI_BEGIN

/// The accumulators of FisherDiagonal: sums over examples, not means.
struct FisherSums {
  std::vector<double> outputs;   ///< [out]
  std::vector<double> inputs;    ///< [in]
  std::vector<double> elements;  ///< [out x in], or empty

  Index out() const { return static_cast<Index>(outputs.size()); }
  Index in() const { return static_cast<Index>(inputs.size()); }
  TensorView<double, 2> element_view() { return {elements.data(), {out(), in()}, {in(), 1}}; }
};

/// sums += values, of the same length.
template <class B, class T>
void add_to(const B& backend, const T* values, double* sums, Index size) {
  launch(backend, kernel::AddWidened<T>{values, size, 1, size, sums, size});
}

/// What is wanted of the squares of a matrix; null: not wanted.
template <class T>
struct SquareTargets {
  double* row_sums = nullptr;
  double* column_sums = nullptr;
  const T* row_weights = nullptr;    ///< of the column sums
  TensorView<double, 2> elements{};  ///< row-major
};

/// The squares of one matrix, block by block.
template <class B, class S>
class MatrixSquares {
  using T = compute_t<S>;

 public:
  MatrixSquares(const B& backend, TensorView<const S, 2> x, const SquareTargets<T>& targets)
      : backend_(backend), x_(x), targets_(targets) {}

  void run() {
    const Index row_blocks = blocks(x_.rows(), rows_of_block);
    const Index column_blocks = blocks(x_.cols(), columns_of_block);
    if (targets_.row_sums != nullptr) rows_.resize(to_size(column_blocks * x_.rows()));
    if (targets_.column_sums != nullptr) columns_.resize(to_size(row_blocks * x_.cols()));
    if (!is_row_major())
      packed_.resize(to_size(worker_count(backend_.executor, row_blocks * column_blocks) *
                             rows_of_block * packed_columns));
    parallel_for(backend_.executor, row_blocks * column_blocks, [&](Index item, int worker) {
      add_block(item / column_blocks, item % column_blocks, worker);
    });
    add_up(row_blocks, column_blocks);
  }

 private:
  static constexpr Index rows_of_block = 256;
  /// The sums of so many columns stay in L1 or L2.
  static constexpr Index columns_of_block = 4096;
  /// Where columns are contiguous, so many are turned at a time, into L2.
  static constexpr Index packed_columns = 128;

  static Index blocks(Index size, Index block) { return (size + block - 1) / block; }
  static std::size_t to_size(Index size) { return static_cast<std::size_t>(size); }
  bool is_row_major() const { return x_.stride[1] == 1; }

  void add_block(Index row_block, Index column_block, int worker) {
    const Index row = row_block * rows_of_block, column = column_block * columns_of_block;
    const Index rows = std::min(rows_of_block, x_.rows() - row);
    const Index columns = std::min(columns_of_block, x_.cols() - column);
    double* row_sums = nullptr;
    T* column_sums = nullptr;
    if (targets_.row_sums != nullptr) {
      row_sums = rows_.data() + column_block * x_.rows() + row;
      std::fill_n(row_sums, rows, 0.0);
    }
    if (targets_.column_sums != nullptr) {
      column_sums = columns_.data() + row_block * x_.cols() + column;
      std::fill_n(column_sums, columns, T(0));
    }
    if (is_row_major())
      return add_rows(&x_(row, column), x_.stride[0], row, rows, column, columns, row_sums,
                      column_sums);
    T* packed = packed_.data() + worker * rows_of_block * packed_columns;
    for (Index c = 0; c < columns; c += packed_columns) {
      const Index count = std::min(packed_columns, columns - c);
      launch(backend_,
             kernel::PackLeftLines<S, T, false>{
                 {&x_(row, column + c), x_.stride[0], x_.stride[1], rows, count}, packed});
      add_rows(static_cast<const T*>(packed), count, row, rows, column + c, count, row_sums,
               column_sums != nullptr ? column_sums + c : nullptr);
    }
  }

  template <class U>
  void add_rows(const U* data, Index stride, Index row, Index rows, Index column, Index columns,
                double* row_sums, T* column_sums) {
    if (row_sums != nullptr || column_sums != nullptr)
      launch(backend_, kernel::SquaredSums<U>{
                           data, stride, rows, columns, row_sums, column_sums,
                           targets_.row_weights != nullptr ? targets_.row_weights + row : nullptr});
    if (targets_.elements.data != nullptr)
      launch(backend_,
             kernel::AddSquares<U>{data, stride, rows, columns, &targets_.elements(row, column),
                                   targets_.elements.stride[0]});
  }

  void add_up(Index row_blocks, Index column_blocks) {
    if (targets_.row_sums != nullptr)
      for (Index b = 0; b < column_blocks; ++b)
        add_to(backend_, rows_.data() + b * x_.rows(), targets_.row_sums, x_.rows());
    if (targets_.column_sums == nullptr) return;
    for (Index b = 0; b < row_blocks; ++b)
      add_to(backend_, columns_.data() + b * x_.cols(), targets_.column_sums, x_.cols());
  }

  const B& backend_;
  TensorView<const S, 2> x_;
  const SquareTargets<T>& targets_;
  AlignedBuffer<double> rows_;  ///< [column blocks x rows]
  AlignedBuffer<T> columns_;    ///< [row blocks x columns]
  AlignedBuffer<T> packed_;     ///< a worker's turned columns
};

/// The squares of a matrix with rows or columns contiguous.
template <class B, class S>
void add_squares(const B& backend, TensorView<const S, 2> x,
                 const SquareTargets<compute_t<S>>& targets) {
  const bool turns =
      x.stride[1] != 1 && targets.row_weights == nullptr && targets.elements.data == nullptr;
  if (turns) {
    const SquareTargets<compute_t<S>> turned{targets.column_sums, targets.row_sums};
    return MatrixSquares<B, S>(backend, transpose(x), turned).run();
  }
  MatrixSquares<B, S>(backend, x, targets).run();
}

template <class B, class S>
void add_gradient(const B& backend, TensorView<const S, 2> gradient, FisherSums& sums) {
  SquareTargets<compute_t<S>> targets{sums.outputs.data(), sums.inputs.data()};
  if (!sums.elements.empty()) targets.elements = sums.element_view();
  add_squares(backend, gradient, targets);
}

/// ||x_t||^2 of each row.
template <class T, class B, class S>
std::vector<T> squared_norms(const B& backend, TensorView<const S, 2> x) {
  std::vector<double> norms(static_cast<std::size_t>(x.rows()));
  add_squares(backend, x, SquareTargets<compute_t<S>>{norms.data()});
  return {norms.begin(), norms.end()};
}

/// elements += (delta.^2)^T (x.^2), in double.
template <class B, class S, class U>
void add_token_elements(const B& backend, TensorView<const S, 2> delta, TensorView<const U, 2> x,
                        FisherSums& sums) {
  constexpr Index at_once = linalg::product_depth;
  RowMatrix<double> left, right;
  for (Index begin = 0; begin < x.rows(); begin += at_once) {
    const Index count = std::min(at_once, x.rows() - begin);
    left.setZero(count, sums.out());
    right.setZero(count, sums.in());
    add_squares(backend, rows_of(delta, begin, count),
                SquareTargets<compute_t<S>>{.elements = to_view(left)});
    add_squares(backend, rows_of(x, begin, count),
                SquareTargets<compute_t<U>>{.elements = to_view(right)});
    linalg::multiply(backend, transpose(const_view(left)), const_view(right), sums.element_view(),
                     {.accumulate = true});
  }
}

/// Every token an example: the gradient is delta_t x_t^T, whose squares factor.
template <class B, class S, class U>
void add_tokens(const B& backend, TensorView<const S, 2> delta, TensorView<const U, 2> x,
                FisherSums& sums) {
  const auto of_inputs = squared_norms<compute_t<S>>(backend, x);
  const auto of_deltas = squared_norms<compute_t<U>>(backend, delta);
  add_squares(backend, delta,
              SquareTargets<compute_t<S>>{.column_sums = sums.outputs.data(),
                                          .row_weights = of_inputs.data()});
  add_squares(backend, x,
              SquareTargets<compute_t<U>>{.column_sums = sums.inputs.data(),
                                          .row_weights = of_deltas.data()});
  if (!sums.elements.empty()) add_token_elements(backend, delta, x, sums);
}

/// Rows [begin, end) of the tokens.
struct TokenRange {
  Index begin = 0;
  Index end = 0;
};

/// A tile of G stays in L2; the packing of its factors is a tenth of its product.
inline constexpr Index rows_of_tile = 192, columns_of_tile = 512;

/// What one worker multiplies, squares and sums a tile in.
template <class T>
struct TileScratch {
  Workspace products;
  AlignedBuffer<T> tile{static_cast<std::size_t>(rows_of_tile * columns_of_tile)};
  AlignedBuffer<T> columns{static_cast<std::size_t>(columns_of_tile)};
};

/// Examples of several tokens: a tile of Delta^T X is multiplied, squared, reduced and forgotten,
/// for one example after the other.
template <class B, class S, class U>
class SequenceSquares {
  using T = linalg::product_t<S, U>;

 public:
  SequenceSquares(const B& backend, TensorView<const S, 2> delta, TensorView<const U, 2> x,
                  std::span<const TokenRange> examples, FisherSums& sums)
      : backend_(backend), delta_(delta), x_(x), examples_(examples), sums_(sums) {}

  void run() {
    const Index row_tiles = tiles(sums_.out(), rows_of_tile);
    const Index column_tiles = tiles(sums_.in(), columns_of_tile);
    rows_.assign(static_cast<std::size_t>(column_tiles * sums_.out()), 0.0);
    columns_.assign(static_cast<std::size_t>(row_tiles * sums_.in()), 0.0);
    const auto scratch = leased<std::vector<TileScratch<T>>>(backend_);
    const int workers = worker_count(backend_.executor, row_tiles * column_tiles);
    scratch->resize(std::max(scratch->size(), static_cast<std::size_t>(workers)));
    parallel_for(backend_.executor, row_tiles * column_tiles, [&](Index item, int worker) {
      add_tile(item / column_tiles, item % column_tiles,
               (*scratch)[static_cast<std::size_t>(worker)]);
    });
    for (Index t = 0; t < column_tiles; ++t)
      add_to(backend_, rows_.data() + t * sums_.out(), sums_.outputs.data(), sums_.out());
    for (Index t = 0; t < row_tiles; ++t)
      add_to(backend_, columns_.data() + t * sums_.in(), sums_.inputs.data(), sums_.in());
  }

 private:
  static Index tiles(Index size, Index tile) { return (size + tile - 1) / tile; }

  void add_tile(Index row_tile, Index column_tile, TileScratch<T>& scratch) {
    const Index row = row_tile * rows_of_tile, column = column_tile * columns_of_tile;
    const Index rows = std::min(rows_of_tile, sums_.out() - row);
    const Index columns = std::min(columns_of_tile, sums_.in() - column);
    const TensorView<T, 2> tile{scratch.tile.data(), {rows, columns}, {columns, 1}};
    double* row_sums = rows_.data() + column_tile * sums_.out() + row;
    double* column_sums = columns_.data() + row_tile * sums_.in() + column;
    for (const TokenRange& example : examples_) {
      const Index tokens = example.end - example.begin;
      const auto left = rows_of(columns_of(delta_, row, rows), example.begin, tokens);
      const auto right = rows_of(columns_of(x_, column, columns), example.begin, tokens);
      linalg::multiply(backend_.with(scratch.products), transpose(left), right, tile);
      std::fill_n(scratch.columns.data(), columns, T(0));
      launch(backend_, kernel::SquaredSums<T>{tile.data, columns, rows, columns, row_sums,
                                              scratch.columns.data()});
      add_to(backend_, static_cast<const T*>(scratch.columns.data()), column_sums, columns);
      if (!sums_.elements.empty())
        launch(backend_, kernel::AddSquares<T>{tile.data, columns, rows, columns,
                                               &sums_.element_view()(row, column), sums_.in()});
    }
  }

  const B& backend_;
  TensorView<const S, 2> delta_;
  TensorView<const U, 2> x_;
  std::span<const TokenRange> examples_;
  FisherSums& sums_;
  std::vector<double> rows_;     ///< [column tiles x out]
  std::vector<double> columns_;  ///< [row tiles x in]
};

/// Examples e of the tokens [offsets[e], offsets[e + 1]): runs of single tokens in closed form, the
/// others as sequences.
template <class B, class S, class U>
void add_layer(const B& backend, TensorView<const S, 2> delta, TensorView<const U, 2> x,
               std::span<const Index> offsets, FisherSums& sums) {
  std::vector<TokenRange> sequences;
  TokenRange singles;
  const auto flush = [&] {
    const Index count = singles.end - singles.begin;
    if (count > 0)
      add_tokens(backend, rows_of(delta, singles.begin, count), rows_of(x, singles.begin, count),
                 sums);
    singles = {};
  };
  for (std::size_t e = 0; e + 1 < offsets.size(); ++e) {
    const TokenRange example{offsets[e], offsets[e + 1]};
    if (example.end - example.begin > 1) sequences.push_back(example);
    if (example.end - example.begin != 1) continue;
    if (singles.end != example.begin) flush();
    if (singles.end == singles.begin) singles.begin = example.begin;
    singles.end = example.end;
  }
  flush();
  if (!sequences.empty()) SequenceSquares<B, S, U>(backend, delta, x, sequences, sums).run();
}

PARE_ABI_END
}  // namespace pare::factor::detail
