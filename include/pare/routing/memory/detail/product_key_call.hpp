// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// The arguments of a search of product keys.

#include <pare/core/check.hpp>
#include <pare/core/tensor_view.hpp>

namespace pare::routing::detail {
PARE_ABI_BEGIN

template <class T>
struct ProductKeyCall {
  TensorView<const T, 3> queries;  ///< [rows, heads, 2 half]
  TensorView<const T, 4> keys;     ///< [heads, 2, n, half]
  Index k = 0;

  Index rows() const { return queries.extent[0]; }
  Index heads() const { return keys.extent[0]; }
  Index n() const { return keys.extent[2]; }
  Index half() const { return keys.extent[3]; }
};

PARE_ABI_END
}  // namespace pare::routing::detail
