// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Parts of matrices as views.

#include <pare/core/tensor_view.hpp>
#include <pare/factor/low_rank.hpp>

namespace pare::factor::detail {
PARE_ABI_BEGIN

/// Columns [begin, begin + count).
template <class T>
TensorView<T, 2> columns_of(TensorView<T, 2> m, Index begin, Index count) {
  return {m.data + begin * m.stride[1], {m.extent[0], count}, m.stride};
}

/// Rows [begin, begin + count).
template <class T>
TensorView<T, 2> rows_of(TensorView<T, 2> m, Index begin, Index count) {
  return {m.data + begin * m.stride[0], {count, m.extent[1]}, m.stride};
}

/// A matrix that is read.
template <class T>
TensorView<const T, 2> read(const RowMatrix<T>& m) {
  return as_const(to_view(m));
}

PARE_ABI_END
}  // namespace pare::factor::detail
