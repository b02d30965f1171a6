// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// The state of ARMOR: the normalised weight, what stands in its place, and the loss of each block.

#include <pare/core/matrix.hpp>
#include <pare/core/tensor_view.hpp>

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace pare::factor::detail {
PARE_ABI_BEGIN

/// min sum_ij h_j (Wbar - A S B)_ij^2 with blocks [rows x rows] of A and [columns x columns] of B.
template <class T>
struct ArmorProblem {
  Index rows = 0, columns = 0;  ///< of a block of W and S
  Index row_blocks = 0, column_blocks = 0;
  RowMatrix<T> weight;               ///< Wbar, blocks below each other: [tiles rows x columns]
  std::vector<T> moments;            ///< h [inputs], the largest 1
  RowMatrix<T> left;                 ///< blocks of A below each other, [outputs x rows]
  RowMatrix<T> core;                 ///< S with its zeros, likewise
  std::vector<std::uint8_t> groups;  ///< of S, four bits each, two of them set; likewise
  RowMatrix<T> right;                ///< blocks of B, [inputs x columns]
  RowMatrix<double> losses;          ///< of each block, [row_blocks x column_blocks]
  double energy = 0;                 ///< the loss of S = 0

  Index outputs() const { return rows * row_blocks; }
  Index inputs() const { return columns * column_blocks; }

  /// The first row of block (i, j) where blocks of W and S lie, those of i one behind the other: a
  /// block in one piece stays in L2, where rows a power of two apart drive each other out.
  Index tile(Index i, Index j) const { return (i * column_blocks + j) * rows; }
  /// The row and column of an element there.
  std::array<Index, 2> place(Index output, Index input) const {
    return {tile(output / rows, input / columns) + output % rows, input % columns};
  }
  std::uint8_t& group_at(Index output, Index input) {
    const auto [row, column] = place(output, input);
    return groups[static_cast<std::size_t>(row * (columns / 4) + column / 4)];
  }

  TensorView<const T, 2> left_block(Index i) const {
    return rows_of(const_view(left), i * rows, rows);
  }
  TensorView<const T, 2> right_block(Index j) const {
    return rows_of(const_view(right), j * columns, columns);
  }
  TensorView<const T, 2> weight_block(Index i, Index j) const {
    return rows_of(const_view(weight), tile(i, j), rows);
  }
  TensorView<T, 2> core_block(Index i, Index j) { return rows_of(to_view(core), tile(i, j), rows); }
  const T* moments_at(Index j) const { return moments.data() + j * columns; }

  /// The loss over that of S = 0, block by block in one order; 0 of a weight that is 0.
  double relative_loss() const {
    double sum = 0;
    for (Index i = 0; i < losses.rows(); ++i)
      for (Index j = 0; j < losses.cols(); ++j) sum += losses(i, j);
    return energy > 0 ? sum / energy : 0.0;
  }
};

PARE_ABI_END
}  // namespace pare::factor::detail
