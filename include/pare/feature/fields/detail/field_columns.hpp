// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// The columns of one field of a table.

#include <pare/core/tensor_view.hpp>
#include <pare/feature/fields/field_layout.hpp>

namespace pare::feature::detail {
PARE_ABI_BEGIN

/// Columns of a field.
template <class T>
TensorView<T, 2> field_columns(const FieldLayout& layout, TensorView<T, 2> x, Index field) {
  return {x.data + layout.offset(field) * x.stride[1], {x.rows(), layout.width(field)}, x.stride};
}

PARE_ABI_END
}  // namespace pare::feature::detail
