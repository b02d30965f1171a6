// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// The definitions of this folder, in plain loops that accumulate in double on one thread.
///
/// ```cpp
/// spmm(pare::reference, a, b, c);  // the backend that runs them
/// ```

#include <pare/core/macros_off.hpp>

#include <pare/core/sparse_view.hpp>
#include <pare/core/tensor_view.hpp>

namespace pare::linalg::detail {
PARE_ABI_BEGIN

/// C = A B with the rows of a sparse A.
template <class T, class I>
void reference_spmm(const CompressedView<T, I>& a, TensorView<const T, 2> b, TensorView<T, 2> c) {
  for (Index u = 0; u < a.outer_size; ++u)
    for (Index k = 0; k < b.cols(); ++k) {
      double sum = 0;
      for (Index e = a.begin(u); e < a.end(u); ++e)
        sum += static_cast<double>(a.values[e]) *
               static_cast<double>(b(static_cast<Index>(a.inner[e]), k));
      c(u, k) = static_cast<T>(sum);
    }
}

PARE_ABI_END
}  // namespace pare::linalg::detail

#include <pare/core/macros_on.hpp>
