// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// What rows must be before they are clustered.

#include <pare/core/check.hpp>
#include <pare/core/matrix.hpp>
#include <pare/core/tensor_view.hpp>

#include <cstddef>
#include <limits>
#include <type_traits>
#include <utility>

namespace pare::retrieval::detail {
PARE_ABI_BEGIN

inline constexpr Index most_cluster_rows = (Index{1} << 31) - 1;

/// Throws unless rows are contiguous and finite, and no product of two of them overflows: |x|^2 of
/// each is at most a sixteenth of the largest number. (A residual has at most twice the length.)
template <class S>
void check_cluster_rows(const char* function, const char* argument, TensorView<const S, 2> rows) {
  using T = compute_t<S>;
  check_view(function, argument, rows);
  check(rows.cols() >= 1, function, argument, rows.extent, "a dim of at least 1");
  check(rows.rows() <= most_cluster_rows, function, argument, rows.extent, "fewer than 2^31 rows");
  check_contiguous_rows(function, argument, rows);
  constexpr double most = static_cast<double>(std::numeric_limits<T>::max()) / 16;
  for (Index i = 0; i < rows.rows(); ++i) {
    double square = 0;
    for (Index c = 0; c < rows.cols(); ++c) {
      const auto x = static_cast<double>(static_cast<T>(rows(i, c)));
      square += x * x;
    }
    check(is_finite(square) && square <= most, function, argument, Worded{"row ", i},
          "rows of finite numbers whose squares do not overflow");
  }
}

/// What a run takes for each row is counted with room to spare.
template <class T>
void check_balanced_memory(const char* function, Index rows, Index dim) {
  checked_count(function, "rows",
                checked_product(function, "rows", checked_sum(function, "rows", rows, 64),
                                checked_sum(function, "rows", dim, 1024)),
                4 * sizeof(T));
}

/// f(rows) in the scalar that is computed in: 16-bit rows are copied.
template <class S, class F>
auto with_compute_rows(TensorView<const S, 2> rows, const F& f) {
  if constexpr (std::is_same_v<S, compute_t<S>>)
    return f(rows);
  else
    return f(const_view(row_matrix<compute_t<S>>(rows)));
}

PARE_ABI_END
}  // namespace pare::retrieval::detail
