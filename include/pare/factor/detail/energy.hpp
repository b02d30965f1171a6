// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// The squared Frobenius norm of a weighted matrix.

#include <pare/core/backend.hpp>
#include <pare/core/parallel.hpp>
#include <pare/core/tensor_view.hpp>

#include <Eigen/Core>

#include <cstddef>
#include <vector>

namespace pare::factor::detail {
PARE_ABI_BEGIN

/// sum_j row_j^2 weight_j over a line, in eight sums so that the additions overlap.
template <class S, class T>
double line_energy(const S* line, Index stride, Index size, const T* weights) {
  constexpr Index lanes = 8;
  double sums[lanes] = {};
  const auto square = [&](Index j) {
    const auto x = static_cast<double>(static_cast<compute_t<S>>(line[j * stride]));
    return x * x * (weights != nullptr ? static_cast<double>(weights[j]) : 1.0);
  };
  Index j = 0;
  for (; j + lanes <= size; j += lanes)
    for (Index i = 0; i < lanes; ++i) sums[i] += square(j + i);
  for (; j < size; ++j) sums[0] += square(j);
  double total = 0;
  for (double sum : sums) total += sum;
  return total;
}

/// sum_j line_j x_j, in eight sums likewise.
template <class S>
double line_dot(const S* line, Index stride, const Eigen::VectorXd& x) {
  constexpr Index lanes = 8;
  double sums[lanes] = {};
  Index j = 0;
  for (; j + lanes <= x.size(); j += lanes)
    for (Index i = 0; i < lanes; ++i)
      sums[i] += static_cast<double>(line[(j + i) * stride]) * x[j + i];
  for (; j < x.size(); ++j) sums[0] += static_cast<double>(line[j * stride]) * x[j];
  double total = 0;
  for (double sum : sums) total += sum;
  return total;
}

/// sum_ij row_weights_i w_ij^2 column_weights_j; null weights are ones. The order of the sum is
/// fixed.
template <class B, class S, class T>
double energy(const B& backend, TensorView<const S, 2> w, const T* row_weights,
              const T* column_weights) {
  if (w.stride[1] != 1 && w.stride[0] == 1)
    return energy(backend, transpose(w), column_weights, row_weights);
  std::vector<double> lines(static_cast<std::size_t>(w.rows()));
  parallel_for(backend.executor, w.rows(), [&](Index i, int) {
    const double sum = line_energy(&w(i, 0), w.stride[1], w.cols(), column_weights);
    lines[static_cast<std::size_t>(i)] =
        row_weights != nullptr ? sum * static_cast<double>(row_weights[i]) : sum;
  });
  double total = 0;
  for (double line : lines) total += line;
  return total;
}

PARE_ABI_END
}  // namespace pare::factor::detail
