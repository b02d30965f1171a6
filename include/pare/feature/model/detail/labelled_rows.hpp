// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Rows of a table with their labels, and memory for their gradients.

#include <pare/core/aligned_buffer.hpp>
#include <pare/core/tensor_view.hpp>

#include <cstddef>
#include <span>

namespace pare::feature::detail {
PARE_ABI_BEGIN

template <class T>
TensorView<T, 2> row_range(TensorView<T, 2> x, Index begin, Index count) {
  return {x.data + begin * x.stride[0], {count, x.cols()}, x.stride};
}

/// Rows in random order with their labels.
template <class T>
struct LabelledRows {
  TensorView<const T, 2> x;
  std::span<const T> labels;

  Index rows() const { return x.rows(); }
  LabelledRows range(Index begin, Index count) const {
    return {row_range(x, begin, count),
            labels.subspan(static_cast<std::size_t>(begin), static_cast<std::size_t>(count))};
  }
};

/// Memory in the storage order of x, without gaps.
template <class T>
TensorView<T, 2> like(TensorView<const T, 2> x, AlignedBuffer<T>& buffer) {
  T* data = buffer.resize(static_cast<std::size_t>(x.rows() * x.cols()));
  const bool by_rows = x.stride[1] == 1;
  return {data, x.extent, {by_rows ? x.cols() : 1, by_rows ? 1 : x.rows()}};
}

PARE_ABI_END
}  // namespace pare::feature::detail
