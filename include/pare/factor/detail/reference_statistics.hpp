// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// The definitions of the sums that weigh a factorization: Fisher information and covariance.

#include <pare/core/scalar.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/factor/detail/reference_matrix.hpp>
#include <pare/factor/options.hpp>

#include <Eigen/Core>

#include <cstddef>
#include <span>

namespace pare::factor::detail {
PARE_ABI_BEGIN

/// squares += G.*G for the gradient G [out x in] of one example: the diagonal of the Fisher
/// information is the mean of squares over examples, not the square of a mean over a batch.
template <StorageScalar S>
void reference_add_gradient(TensorView<const S, 2> gradient, Eigen::MatrixXd& squares) {
  squares += reference_matrix(gradient).cwiseAbs2();
}

/// The same for examples e of a layer y = W x whose tokens are [offsets[e], offsets[e + 1]):
/// G = sum over them of delta_t x_t^T, with delta [tokens x out] the gradients of y and x
/// [tokens x in].
template <StorageScalar S, StorageScalar U>
void reference_add_layer(TensorView<const S, 2> delta, TensorView<const U, 2> x,
                         std::span<const Index> offsets, Eigen::MatrixXd& squares) {
  const Eigen::MatrixXd gradients = reference_matrix(delta), inputs = reference_matrix(x);
  for (std::size_t e = 0; e + 1 < offsets.size(); ++e) {
    const Index tokens = offsets[e + 1] - offsets[e];
    squares += (gradients.middleRows(offsets[e], tokens).transpose() *
                inputs.middleRows(offsets[e], tokens))
                   .cwiseAbs2();
  }
}

/// Mean over examples of the sums of squares along an axis: one number for each output or input.
template <class = void>
Eigen::VectorXd reference_fisher_sums(const Eigen::MatrixXd& squares, Index examples, Axis axis) {
  const auto count = static_cast<double>(examples);
  if (axis == Axis::Output) return squares.rowwise().sum() / count;
  return squares.colwise().sum().transpose() / count;
}

/// sum += X^T X for inputs x [tokens x in]: the uncentred second moment.
template <StorageScalar S>
void reference_add_covariance(TensorView<const S, 2> x, Eigen::MatrixXd& sum) {
  const Eigen::MatrixXd inputs = reference_matrix(x);
  sum += inputs.transpose() * inputs;
}

PARE_ABI_END
}  // namespace pare::factor::detail
