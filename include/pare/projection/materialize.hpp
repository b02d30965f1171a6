// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Random operators as matrices. `project` and `sketch` (project.hpp) need none of them.
///
/// ```cpp
/// SparseProjection omega{.input_dim = 1000, .output_dim = 64, .seed = 7};
/// auto r = materialize<float>(omega);                            // [64 x 1000], sparse
/// auto block = materialize_block<float>(omega, 0, 64, 100, 50);  // its columns 100 to 149
/// auto inverse = pseudo_inverse<double>(omega);                  // [1000 x 64], dense
/// ```

#include <pare/core/macros_off.hpp>

#include <pare/core/backend.hpp>
#include <pare/projection/detail/sampler.hpp>
#include <pare/projection/sparse_projection.hpp>

#include <Eigen/Core>
#include <Eigen/QR>
#include <Eigen/SparseCore>

#include <array>

namespace pare::projection {
PARE_ABI_BEGIN

/// Rows [first_row, first_row + rows) and columns [first_column, first_column + columns) of R as a
/// sparse row-major matrix [rows x columns] of T, float or double, scaled.
///
/// \param r SparseProjection or SparseSignProjection
/// \throws std::invalid_argument if a member of r is out of range, the block reaches outside R, or
///         32-bit offsets cannot count its nonzeros.
///
/// Cost: one thread draws the nonzeros of the block's columns, of SparseProjection only in the
/// groups of 64 rows that the block touches. Memory: 4 + sizeof(T) bytes per nonzero, twice that
/// while the matrix is built.
template <ComputeScalar T, RandomOperator R>
Eigen::SparseMatrix<T, Eigen::RowMajor> materialize_block(const R& r, Index first_row, Index rows,
                                                          Index first_column, Index columns) {
  constexpr const char* function = "projection::materialize_block";
  validate(function, r);
  check(first_row >= 0 && rows >= 0 && rows <= r.output_dim - first_row, function, "rows",
        std::array<Index, 2>{first_row, rows},
        "a first row and a number of rows within output_dim");
  check(first_column >= 0 && columns >= 0 && columns <= r.input_dim - first_column, function,
        "columns", std::array<Index, 2>{first_column, columns},
        "a first column and a number of columns within input_dim");
  const double expected = r.expected_column_nonzeros() * static_cast<double>(columns);
  check(expected < 2.0e9 && columns < (Index{1} << 31), function, "columns", columns,
        "a block whose nonzeros 32-bit offsets can count");
  // Columns come one after the other; Eigen's change of storage order sorts them into rows.
  Eigen::SparseMatrix<T, Eigen::ColMajor> by_column(rows, columns);
  const T scale = static_cast<T>(r.entry_scale());
  Index open = -1;
  const auto open_until = [&](Index column) {
    while (open < column) by_column.startVec(++open);
  };
  detail::visit_columns(detail::make_sampler(r), simd, first_column, first_column + columns,
                        first_row, first_row + rows, [&](Index column, Index row, bool negative) {
                          open_until(column - first_column);
                          by_column.insertBack(row - first_row, column - first_column) =
                              negative ? -scale : scale;
                        });
  open_until(columns - 1);
  by_column.finalize();
  return by_column;
}

/// R as a sparse row-major matrix [output_dim x input_dim] of T, scaled: what scikit-learn calls
/// components_. Cost and memory as materialize_block.
/// \throws std::invalid_argument as materialize_block.
template <ComputeScalar T, RandomOperator R>
Eigen::SparseMatrix<T, Eigen::RowMajor> materialize(const R& r) {
  validate("projection::materialize", r);
  return materialize_block<T>(r, 0, r.output_dim, 0, r.input_dim);
}

/// The Moore-Penrose inverse of R as a dense matrix [input_dim x output_dim] of T:
/// X ~ Y * pseudo_inverse^T undoes Y = X R^T as well as a linear map can. R is made dense and
/// decomposed in double.
/// \throws std::invalid_argument as materialize.
/// Cost: about 4 input_dim * output_dim * min(input_dim, output_dim) FLOPs on one thread. Memory:
/// 24 bytes per entry of R, and the result.
template <ComputeScalar T, RandomOperator R>
Eigen::Matrix<T, Eigen::Dynamic, Eigen::Dynamic> pseudo_inverse(const R& r) {
  validate("projection::pseudo_inverse", r);
  const Eigen::MatrixXd dense = materialize<double>(r).toDense();
  return Eigen::CompleteOrthogonalDecomposition<Eigen::MatrixXd>(dense)
      .pseudoInverse()
      .template cast<T>();
}

PARE_ABI_END
}  // namespace pare::projection

#include <pare/core/macros_on.hpp>
