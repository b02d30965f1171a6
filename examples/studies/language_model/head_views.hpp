// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Rows of memory as matrices and as heads.
///
/// ```cpp
/// const auto q = matrix(memory, tokens, heads * dim);
/// transformer::rotate(backend, heads_of(q, heads), table);
/// ```

#include <pare/core/tensor_view.hpp>

namespace language_model {

using pare::Index;
using pare::TensorView;

template <class T>
TensorView<T, 2> matrix(T* data, Index rows, Index columns) {
  return {data, {rows, columns}, {columns, 1}};
}

/// [rows, heads x dim] as [1, heads, rows, dim].
template <class T>
TensorView<T, 4> heads_of(TensorView<T, 2> m, Index heads) {
  const Index dim = m.cols() / heads;
  return {m.data, {1, heads, m.rows(), dim}, {0, dim, m.stride[0], 1}};
}

}  // namespace language_model
