// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// A weight whose columns, then rows, are divided by their norms, as NoWag and ARMOR prune it; and
/// the loss that they measure a result by.
///
/// ```cpp
/// const auto n = normalize_weight(w);               // n.matrix, n.input_norms, n.output_norms
/// const SecondMoments h(moments);                   // [inputs], or a Covariance
/// const double lost = proxy_loss(w, h, pruned);     // pruned [outputs, inputs], dense
/// ```
///
/// r1_j = ||column j of W|| + 1e-5, then r2_i = ||row i of W / r1|| + 1e-5; Wbar_ij = w_ij /
/// (r1_j r2_i). The proxy loss of a What in W's place is sum_ij h_j (Wbar_ij - What_ij / (r1_j
/// r2_i))^2 over the same of What = 0. Source: the code of ARMOR (Liu et al., arXiv 2510.05528).

#include <pare/core/macros_off.hpp>

#include <pare/core/backend.hpp>
#include <pare/core/check.hpp>
#include <pare/core/executor_ref.hpp>
#include <pare/core/matrix.hpp>
#include <pare/core/parallel.hpp>
#include <pare/core/refused_call.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/factor/structured/detail/weight_norms.hpp>
#include <pare/factor/structured/second_moments.hpp>

#include <cmath>
#include <cstddef>
#include <vector>

namespace pare::factor {
PARE_ABI_BEGIN

/// W_ij = output_norms_i matrix_ij input_norms_j.
template <ComputeScalar T>
struct NormalizedWeight {
  RowMatrix<T> matrix;               ///< [outputs x inputs]
  std::vector<double> input_norms;   ///< r1 [inputs]
  std::vector<double> output_norms;  ///< r2 [outputs]

  /// W, but for the rounding of the matrix.
  RowMatrix<T> restored() const {
    RowMatrix<T> w(matrix.rows(), matrix.cols());
    for (Index i = 0; i < w.rows(); ++i)
      for (Index j = 0; j < w.cols(); ++j)
        w(i, j) = static_cast<T>(static_cast<double>(matrix(i, j)) *
                                 output_norms[static_cast<std::size_t>(i)] *
                                 input_norms[static_cast<std::size_t>(j)]);
    return w;
  }
};

PARE_ABI_END
namespace detail {
PARE_ABI_BEGIN

/// r2 of a row: sums in double.
template <StorageScalar S>
double normalized_row_norm(TensorView<const S, 2> w, Index i, const std::vector<double>& r1) {
  double sum = 0;
  for (Index j = 0; j < w.cols(); ++j) {
    const double x = entry_of(w, i, j) / r1[static_cast<std::size_t>(j)];
    sum += x * x;
  }
  return std::sqrt(sum) + norm_epsilon;
}

template <Backend B, StorageScalar S>
NormalizedWeight<compute_t<S>> normalized(const char* function, const B& backend,
                                          TensorView<const S, 2> w) {
  check_view(function, "w", w);
  check(w.rows() >= 1 && w.cols() >= 1, function, "w", w.extent, "extents of at least 1");
  NormalizedWeight<compute_t<S>> n;
  n.input_norms = column_norms(function, backend, w);
  for (double& r : n.input_norms) r += norm_epsilon;
  n.output_norms.resize(static_cast<std::size_t>(w.rows()));
  n.matrix.resize(w.rows(), w.cols());
  each_row(backend, w.rows(), [&](Index i) {
    const double r2 = normalized_row_norm(w, i, n.input_norms);
    n.output_norms[static_cast<std::size_t>(i)] = r2;
    for (Index j = 0; j < w.cols(); ++j)
      n.matrix(i, j) = static_cast<compute_t<S>>(entry_of(w, i, j) /
                                                 (n.input_norms[static_cast<std::size_t>(j)] * r2));
  });
  return n;
}

template <Backend B, StorageScalar S, StorageScalar U>
double proxy_loss_of(const B& backend, TensorView<const S, 2> w, const SecondMoments& h,
                     TensorView<const U, 2> pruned) {
  constexpr const char* function = "factor::proxy_loss";
  check_view(function, "w", w);
  check(w.rows() >= 1 && w.cols() >= 1, function, "w", w.extent, "extents of at least 1");
  check_moments(function, h, w.cols());
  check_view(function, "pruned", pruned);
  check_extents<2>(function, "pruned", pruned.extent, w.extent);
  std::vector<double> r1 = column_norms(function, backend, w);
  for (double& r : r1) r += norm_epsilon;
  const std::vector<double> weights = h.relative();
  const auto rows = static_cast<std::size_t>(w.rows());
  std::vector<double> lost(rows), all(rows);
  each_row(backend, w.rows(), [&](Index i) {
    const double r2 = normalized_row_norm(w, i, r1);
    double difference = 0, energy = 0;
    for (Index j = 0; j < w.cols(); ++j) {
      const auto at = static_cast<std::size_t>(j);
      const double norm = r1[at] * r2, x = entry_of(w, i, j);
      const double d = (x - entry_of(pruned, i, j)) / norm;
      difference += weights[at] * d * d;
      energy += weights[at] * (x / norm) * (x / norm);
    }
    lost[static_cast<std::size_t>(i)] = difference;
    all[static_cast<std::size_t>(i)] = energy;
  });
  double difference = 0, energy = 0;
  for (std::size_t i = 0; i < rows; ++i) {
    difference += lost[i];
    energy += all[i];
  }
  return energy > 0 ? difference / energy : 0.0;
}

PARE_ABI_END
}  // namespace detail
PARE_ABI_BEGIN

/// Wbar, r1 and r2.
///
/// \param backend left out: pare::simd
/// \param w       [outputs, inputs] of any storage scalar and strides
/// \throws std::invalid_argument if w is empty or a number of it is not finite.
/// Cost: three passes over w. Same bits for any number of threads.
template <Backend B, In<2> W>
auto normalize_weight(const B& backend, const W& w) {
  return detail::normalized("factor::normalize_weight", on_any_executor(backend),
                            as_const(to_view(w)));
}

/// \overload
template <In<2> W>
auto normalize_weight(const W& w) {
  return normalize_weight(simd, w);
}

PARE_REFUSE_CALLS(normalize_weight, "factor::normalize_weight", "after w: wanted nothing",
                  (INPUT, (roles::Reads<2>), "w", "[outputs, inputs]"))

/// sum_ij h_j (Wbar - What)_ij^2 / sum_ij h_j Wbar_ij^2, in double; 0 of a W that is 0.
///
/// \param backend        left out: pare::simd
/// \param w              [outputs, inputs] of any storage scalar and strides
/// \param second_moments SecondMoments of the inputs
/// \param pruned         [outputs, inputs] of any storage scalar and strides: what stands in w's
///                       place, not normalised
/// \throws std::invalid_argument if extents do not fit or a number of w is not finite.
/// Cost: three passes over w and one over the other. Same bits for any number of threads.
template <Backend B, In<2> W, In<2> P>
double proxy_loss(const B& backend, const W& w, const SecondMoments& second_moments,
                  const P& pruned) {
  return detail::proxy_loss_of(on_any_executor(backend), as_const(to_view(w)), second_moments,
                               as_const(to_view(pruned)));
}

/// \overload
template <In<2> W, In<2> P>
double proxy_loss(const W& w, const SecondMoments& second_moments, const P& pruned) {
  return proxy_loss(simd, w, second_moments, pruned);
}

PARE_ABI_END
}  // namespace pare::factor

#include <pare/core/macros_on.hpp>
