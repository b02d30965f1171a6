// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// What the definitions of this folder read: a matrix in double.

#include <pare/core/scalar.hpp>
#include <pare/core/tensor_view.hpp>

#include <Eigen/Core>

namespace pare::factor::detail {
PARE_ABI_BEGIN

template <StorageScalar S>
Eigen::MatrixXd reference_matrix(TensorView<const S, 2> x) {
  Eigen::MatrixXd m(x.rows(), x.cols());
  for (Index i = 0; i < m.rows(); ++i)
    for (Index j = 0; j < m.cols(); ++j)
      m(i, j) = static_cast<double>(static_cast<compute_t<S>>(x(i, j)));
  return m;
}

PARE_ABI_END
}  // namespace pare::factor::detail
