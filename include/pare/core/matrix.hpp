// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Owning matrices that Pare returns and works in, and parts of matrices as views.
///
/// ```cpp
/// RowMatrix<float> w(rows, cols);                               // row-major, of Eigen
/// const auto right = columns_of(const_view(w), 4, 8);           // [rows x 8] of the same memory
/// const auto corner = rows_of(columns_of(to_view(w), 0, 2), 0, 2);
/// ```

#include <pare/core/macros_off.hpp>

#include <pare/core/tensor_view.hpp>

#include <Eigen/Core>

namespace pare {

/// A dense matrix, stored by rows.
template <class T>
using RowMatrix = Eigen::Matrix<T, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

PARE_ABI_BEGIN

/// Columns [begin, begin + count), which are not checked.
template <class T>
TensorView<T, 2> columns_of(TensorView<T, 2> m, Index begin, Index count) {
  return {m.data + begin * m.stride[1], {m.extent[0], count}, m.stride};
}

/// Rows [begin, begin + count), which are not checked.
template <class T>
TensorView<T, 2> rows_of(TensorView<T, 2> m, Index begin, Index count) {
  return {m.data + begin * m.stride[0], {count, m.extent[1]}, m.stride};
}

/// A matrix that is only read.
template <class T>
TensorView<const T, 2> const_view(const RowMatrix<T>& m) {
  return as_const(to_view(m));
}

/// A copy by rows whose elements are rounded to T; a loop, since each expression of Eigen's that
/// copies is compiled for itself.
template <class T, class S>
RowMatrix<T> row_matrix(TensorView<const S, 2> m) {
  RowMatrix<T> rows(m.rows(), m.cols());
  for (Index i = 0; i < m.rows(); ++i)
    for (Index j = 0; j < m.cols(); ++j) rows(i, j) = static_cast<T>(m(i, j));
  return rows;
}

PARE_ABI_END
}  // namespace pare

#include <pare/core/macros_on.hpp>
