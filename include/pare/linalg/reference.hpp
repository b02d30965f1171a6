// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// The definitions of this folder, in plain loops that accumulate in double on one thread.
///
/// ```cpp
/// spmm(pare::reference, a, b, c);  // the backend that runs them
/// multiply(pare::reference, a, b, c);
/// ```

#include <pare/core/macros_off.hpp>

#include <pare/core/sparse_view.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/linalg/product_options.hpp>

#include <algorithm>

namespace pare::linalg::detail {
PARE_ABI_BEGIN

/// c_ij = epilogue(sum_k r_i a_ik d_k b_kj s_j), with r, d and s the scales of the options.
template <class SA, class SB, class T, class E>
void reference_multiply(TensorView<const SA, 2> a, TensorView<const SB, 2> b, TensorView<T, 2> c,
                        const ProductOptions<T>& options, const E& epilogue) {
  const auto at = [](const T* scale, Index i) {
    return scale != nullptr ? static_cast<double>(scale[i]) : 1.0;
  };
  const auto widened = [](auto x) {
    return static_cast<double>(static_cast<compute_t<decltype(x)>>(x));
  };
  for (Index i = 0; i < c.rows(); ++i)
    for (Index j = 0; j < (options.half == Half::Lower ? std::min(i + 1, c.cols()) : c.cols());
         ++j) {
      double sum = options.accumulate ? static_cast<double>(c(i, j)) : 0.0;
      for (Index k = 0; k < a.cols(); ++k)
        sum += at(options.row_scale, i) * widened(a(i, k)) * at(options.depth_scale, k) *
               widened(b(k, j)) * at(options.column_scale, j);
      c(i, j) = static_cast<T>(epilogue(i, j, static_cast<T>(sum)));
    }
}

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
