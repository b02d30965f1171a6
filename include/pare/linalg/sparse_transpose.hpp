// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// A^T of a sparse matrix, stored by rows like A: what products with A^T run on.
///
/// ```cpp
/// const SparseTranspose transposed(to_compressed(a));  // a [m x n], row-major
/// const CompressedView<float, int> at = transposed.view();  // [n x m], while `transposed` lives
/// ```

#include <pare/core/macros_off.hpp>

#include <pare/core/check.hpp>
#include <pare/core/sparse_view.hpp>

#include <cstddef>
#include <vector>

namespace pare::linalg {
PARE_ABI_BEGIN

/// The same matrix stored by lines of the other direction; entries of a line keep their order, and
/// equal indices stay apart. The caller has checked the offsets and indices (`check_compressed`).
///
/// Cost: two passes over the entries, bound by scattered writes. Memory: a copy of the entries and
/// one offset per line, which this owns.
template <class T, class I>
struct SparseTranspose {
  std::vector<I> outer, inner;
  std::vector<T> values;
  Index inner_size = 0;

  explicit SparseTranspose(const CompressedView<T, I>& s)
      : outer(static_cast<std::size_t>(s.inner_size) + 1, I(0)), inner_size(s.outer_size) {
    for (Index u = 0; u < s.outer_size; ++u)
      for (Index e = s.begin(u); e < s.end(u); ++e)
        ++outer[static_cast<std::size_t>(s.inner[e]) + 1];
    for (std::size_t i = 1; i < outer.size(); ++i) outer[i] += outer[i - 1];
    inner.resize(static_cast<std::size_t>(outer.back()));
    values.resize(inner.size());
    std::vector<I> next(outer.begin(), outer.end() - 1);
    for (Index u = 0; u < s.outer_size; ++u)
      for (Index e = s.begin(u); e < s.end(u); ++e) {
        const auto at = static_cast<std::size_t>(next[static_cast<std::size_t>(s.inner[e])]++);
        inner[at] = static_cast<I>(u);
        values[at] = s.values[e];
      }
  }

  CompressedView<T, I> view() const {
    return {static_cast<Index>(outer.size()) - 1,
            inner_size,
            outer.data(),
            nullptr,
            inner.data(),
            values.data()};
  }
};

PARE_ABI_END
}  // namespace pare::linalg

#include <pare/core/macros_on.hpp>
