// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Rows of hidden states as heads need them: contiguous for kernels, or multiplied in double.

#include <pare/core/macros_off.hpp>

#include <pare/core/scratch.hpp>
#include <pare/core/tensor_view.hpp>

#include <algorithm>
#include <cstddef>
#include <limits>
#include <span>
#include <vector>

namespace pare::draft::detail {
PARE_ABI_BEGIN

/// Scalars that contiguous_rows needs room for.
template <class T>
Index copied_size(TensorView<const T, 2> h) {
  return h.stride[1] == 1 || h.cols() == 1 ? 0 : whole_lines(h.rows() * h.cols());
}

/// Rows that are contiguous: those given, or copies in `room`.
template <class T>
TensorView<const T, 2> contiguous_rows(TensorView<const T, 2> h, T* room) {
  if (copied_size(h) == 0) return h;
  for (Index r = 0; r < h.rows(); ++r)
    for (Index i = 0; i < h.cols(); ++i) room[r * h.cols() + i] = h(r, i);
  return {room, h.extent, {h.cols(), 1}};
}

/// z = W h in double, for one row.
template <class Tiles, class X>
void reference_product(const Tiles& tiles, const X& x, std::vector<double>& z) {
  for (Index o = 0; o < tiles.outputs; ++o) {
    double sum = 0;
    for (Index i = 0; i < tiles.inputs; ++i) sum += tiles.weight(o, i) * static_cast<double>(x(i));
    z[static_cast<std::size_t>(o)] = sum;
  }
}

/// use(row, logits) for each row, by the definition of a head.
template <class Head, class T, class Use>
void reference_rows(const Head& head, TensorView<const T, 2> h, const Use& use) {
  std::vector<double> sums(static_cast<std::size_t>(head.outputs()));
  std::vector<T> z(sums.size());
  for (Index r = 0; r < h.rows(); ++r) {
    head.reference_logits(h, r, sums);
    std::transform(sums.begin(), sums.end(), z.begin(), [](double x) { return static_cast<T>(x); });
    use(r, std::span<const T>(z));
  }
}

/// values(r, j) = the logit of row r for output wanted[r * columns + j], -infinity where that is
/// negative.
template <class Head, class T>
void reference_values(const Head& head, TensorView<const T, 2> h, std::span<const Index> wanted,
                      TensorView<T, 2> values) {
  reference_rows(head, h, [&](Index r, std::span<const T> z) {
    for (Index j = 0; j < values.cols(); ++j) {
      const Index output = wanted[static_cast<std::size_t>(r * values.cols() + j)];
      values(r, j) =
          output >= 0 ? z[static_cast<std::size_t>(output)] : -std::numeric_limits<T>::infinity();
    }
  });
}

PARE_ABI_END
}  // namespace pare::draft::detail

#include <pare/core/macros_on.hpp>
