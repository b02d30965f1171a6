// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Shapes of any number of dimensions: their text, their number of elements, and a view of a rank
/// fixed at compile time.

#include <pare/core/check.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/io/detail/place.hpp>

#include <cstddef>
#include <string>
#include <vector>

namespace pare::io::detail {
PARE_ABI_BEGIN

/// As Python writes it: `(2, 3)`, `(2,)`, `()`.
inline std::string shape_text(const std::vector<Index>& shape) {
  std::string text = "(";
  for (std::size_t d = 0; d < shape.size(); ++d)
    text += (d == 0 ? "" : ", ") + std::to_string(shape[d]);
  return text + (shape.size() == 1 ? ",)" : ")");
}

/// The number of elements. The product of the extents that are not zero must fit as well, so that
/// strides of an empty array cannot overflow either.
inline Index element_count(const Place& place, const std::vector<Index>& shape) {
  Index product = 1;
  bool empty = false;
  for (const Index extent : shape) {
    if (extent < 0) place.refuse("shape " + shape_text(shape), "extents that are not negative");
    empty = empty || extent == 0;
    if (extent != 0)
      product = checked_product(place.function, place.source.c_str(), product, extent);
  }
  return empty ? 0 : product;
}

/// Row-major elements without gaps, as a view of a rank fixed at compile time; `element_count` has
/// passed the shape.
template <std::size_t Rank, class T>
TensorView<T, Rank> row_major_view(const Place& place, T* data, const std::vector<Index>& shape) {
  if (shape.size() != Rank)
    place.refuse(excerpt(shape_text(shape), 120), std::to_string(Rank) + " dimensions");
  TensorView<T, Rank> v{data, {}, {}};
  Index stride = 1;
  for (std::size_t d = Rank; d-- > 0;) {
    v.extent[d] = shape[d];
    v.stride[d] = stride;
    stride *= shape[d];
  }
  return v;
}

PARE_ABI_END
}  // namespace pare::io::detail
