// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// A matrix that lies as a user's may: by rows or by columns, with a gap of NaN behind each of
/// them.

#include <pare/core/tensor_view.hpp>

#include <array>
#include <cstddef>
#include <limits>
#include <vector>

namespace pare::testing {

/// Element (i, j) is value_at(i, j), rounded to S.
template <class S>
struct GappedMatrix {
  std::vector<S> memory;
  TensorView<S, 2> view;

  template <class F>
  GappedMatrix(Index rows, Index columns, bool by_rows, const F& value_at) {
    const Index gap = 3;
    view.extent = {rows, columns};
    view.stride =
        by_rows ? std::array<Index, 2>{columns + gap, 1} : std::array<Index, 2>{1, rows + gap};
    memory.assign(static_cast<std::size_t>((rows + gap) * (columns + gap)),
                  S(std::numeric_limits<float>::quiet_NaN()));
    view.data = memory.data();
    for (Index i = 0; i < rows; ++i)
      for (Index j = 0; j < columns; ++j) view(i, j) = S(static_cast<float>(value_at(i, j)));
  }
  double at(Index i, Index j) const {
    return static_cast<double>(static_cast<compute_t<S>>(view(i, j)));
  }
};

}  // namespace pare::testing
