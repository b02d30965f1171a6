// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// What the solvers of the element-wise weighted problem start from: sums of the weights for a
/// closed form, random factors, or those of a user.

#include <pare/core/backend.hpp>
#include <pare/core/check.hpp>
#include <pare/core/matrix.hpp>
#include <pare/core/scalar.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/factor/detail/metric_checks.hpp>
#include <pare/factor/metric.hpp>
#include <pare/factor/options.hpp>
#include <pare/linalg/gaussian.hpp>

#include <Eigen/Core>

#include <cmath>
#include <cstdint>

namespace pare::factor::detail {
PARE_ABI_BEGIN

/// Factors of W [out x in].
struct ElementwiseStart {
  RowMatrix<double> left;   ///< [out x k]
  RowMatrix<double> right;  ///< [k x in]

  bool empty() const { return left.size() == 0; }
};

/// The sums of the weights F of each row and column: the margins a_i and b_j of the F a b^T / sum
/// nearest to it of rank one.
struct ElementwiseMargins {
  Eigen::VectorXd rows;     ///< [out]
  Eigen::VectorXd columns;  ///< [in]

  template <ComputeScalar T>
  explicit ElementwiseMargins(TensorView<const T, 2> f)
      : rows(Eigen::VectorXd::Zero(f.rows())), columns(Eigen::VectorXd::Zero(f.cols())) {
    for (Index i = 0; i < f.rows(); ++i)
      for (Index j = 0; j < f.cols(); ++j) {
        rows(i) += static_cast<double>(f(i, j));
        columns(j) += static_cast<double>(f(i, j));
      }
  }

  /// Weights a_i b_j, none below 1e-12 of the greatest of its side.
  BothWeights both() const {
    const auto raised = [](const Eigen::VectorXd& sums) {
      return Eigen::VectorXd((sums / sums.maxCoeff()).cwiseMax(1e-12));
    };
    return {raised(rows), raised(columns)};
  }
};

/// Whether products of two margins leave the squares of W within double, where its squares weighted
/// by F are these.
inline bool takes_both_margins(double squares) { return squares > 1e-200 && squares < 1e200; }

/// Normal factors whose product is about as large as W: its elements have the root mean square
/// `size`. Start 0 is the first.
inline ElementwiseStart random_start(Index out, Index in, const ElementwiseOptions& options,
                                     int start, double size) {
  const std::uint64_t seed = options.seed + 2 * static_cast<std::uint64_t>(start);
  ElementwiseStart factors{RowMatrix<double>(out, options.rank),
                           RowMatrix<double>(options.rank, in)};
  linalg::fill_normal(simd.executor, seed, 0, factors.left);
  linalg::fill_normal(simd.executor, seed + 1, 0, factors.right);
  factors.left *= size / std::sqrt(static_cast<double>(options.rank));
  return factors;
}

/// The factors of a user.
template <StorageScalar U, StorageScalar V>
ElementwiseStart checked_start(const char* function, TensorView<const U, 2> left,
                               TensorView<const V, 2> right, Index out, Index in,
                               const ElementwiseOptions& options) {
  check_view(function, "left", left);
  check_view(function, "right", right);
  check_extents<2>(function, "left", left.extent, {out, options.rank});
  check_extents<2>(function, "right", right.extent, {options.rank, in});
  check_finite(function, "left", left);
  check_finite(function, "right", right);
  ElementwiseStart start{RowMatrix<double>(out, options.rank), RowMatrix<double>(options.rank, in)};
  for (Index i = 0; i < out; ++i)
    for (Index k = 0; k < options.rank; ++k)
      start.left(i, k) = static_cast<double>(static_cast<compute_t<U>>(left(i, k)));
  for (Index k = 0; k < options.rank; ++k)
    for (Index j = 0; j < in; ++j)
      start.right(k, j) = static_cast<double>(static_cast<compute_t<V>>(right(k, j)));
  return start;
}

PARE_ABI_END
}  // namespace pare::factor::detail
