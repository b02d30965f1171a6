// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// The definition of DoRA's norms, in double.

#include <pare/core/tensor_view.hpp>
#include <pare/factor/detail/reference_matrix.hpp>

#include <Eigen/Core>

namespace pare::factor::detail {
PARE_ABI_BEGIN

/// The norm of each row of W + scale B A, with W [out x in], A [r x in] and B [out x r].
template <StorageScalar S, StorageScalar U>
Eigen::VectorXd reference_dora_norms(TensorView<const S, 2> w, TensorView<const U, 2> a,
                                     TensorView<const U, 2> b, double scale) {
  const Eigen::MatrixXd adapted =
      reference_matrix(w) + scale * reference_matrix(b) * reference_matrix(a);
  return adapted.rowwise().norm();
}

PARE_ABI_END
}  // namespace pare::factor::detail
