// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// What a projection loses when two thin factors take its place: of its weights, and of its outputs
/// over the inputs that it sees.
///
/// ```cpp
/// const auto error = conversion_error(w, up, down, covariance.matrix());
/// error.weight;       // ||W - up down|| / ||W||
/// *error.activation;  // ||(W - up down) X^T|| / ||W X^T||
/// ```
///
/// The second is what counts: a model sees outputs. It is measured without damping.

#include <pare/core/macros_off.hpp>

#include <pare/core/backend.hpp>
#include <pare/core/check.hpp>
#include <pare/core/matrix.hpp>
#include <pare/core/refused_call.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/latent/detail/conversion_checks.hpp>
#include <pare/linalg/multiply.hpp>

#include <algorithm>
#include <cmath>
#include <optional>

namespace pare::latent {

/// Errors of W ~ up down in the Frobenius norm, each relative to W; 0 where W is 0.
struct ConversionError {
  double weight = 0;                   ///< ||W - up down|| / ||W||
  std::optional<double> activation{};  ///< ||(W - up down) X^T|| / ||W X^T||, if X^T X is known
};

namespace detail {
PARE_ABI_BEGIN

template <StorageScalar S>
RowMatrix<double> doubles_of(TensorView<const S, 2> m) {
  RowMatrix<double> to(m.rows(), m.cols());
  for (Index i = 0; i < m.rows(); ++i)
    for (Index j = 0; j < m.cols(); ++j) to(i, j) = widened(m(i, j));
  return to;
}

/// ||M R||, R R^T = c.
template <Backend B>
double moment_norm(const B& backend, const RowMatrix<double>& m, const RowMatrix<double>& c) {
  RowMatrix<double> product(m.rows(), m.cols());
  linalg::multiply(backend, const_view(m), const_view(c), to_view(product));
  double sum = 0;
  for (Index i = 0; i < m.size(); ++i) sum += m.data()[i] * product.data()[i];
  return std::sqrt(std::max(sum, 0.0));
}

inline double ratio(double part, double whole) { return whole > 0 ? part / whole : 0.0; }

/// Arguments are checked.
template <Backend B>
ConversionError measured_error(const B& backend, const RowMatrix<double>& w,
                               const RowMatrix<double>& product,
                               const std::optional<RowMatrix<double>>& inputs) {
  RowMatrix<double> off(w.rows(), w.cols());
  for (Index i = 0; i < w.size(); ++i) off.data()[i] = w.data()[i] - product.data()[i];
  ConversionError error{ratio(off.norm(), w.norm()), std::nullopt};
  if (inputs)
    error.activation = ratio(moment_norm(backend, off, *inputs), moment_norm(backend, w, *inputs));
  return error;
}

template <Backend B, StorageScalar S, ComputeScalar T>
ConversionError error_of_factors(const B& backend, TensorView<const S, 2> w,
                                 TensorView<const T, 2> up, TensorView<const T, 2> down,
                                 const std::optional<RowMatrix<double>>& inputs) {
  const RowMatrix<double> left = doubles_of(up), right = doubles_of(down);
  RowMatrix<double> product(w.rows(), w.cols());
  linalg::multiply(backend, const_view(left), const_view(right), to_view(product));
  return measured_error(backend, doubles_of(w), product, inputs);
}

PARE_ABI_END
}  // namespace detail
PARE_ABI_BEGIN

/// The errors of W ~ up down.
///
/// \param backend left out: pare::simd
/// \param w       [outputs, inputs], any storage scalar and order
/// \param up      [outputs, rank], float or double
/// \param down    [rank, inputs], the same
/// \param inputs  X^T X [inputs, inputs] of any scale, as `factor::Covariance` gives it, in double
/// \throws std::invalid_argument if an extent does not fit, w is empty or not finite, or inputs is
///         not finite and symmetric with a diagonal of at least 0 that is not all 0
///
/// Cost: 4 outputs inputs^2 FLOPs, in double, which bind. Memory: six matrices of the size of w,
/// and a copy of inputs.
template <Backend B, In<2> W, In<2> U, In<2> D, In<2> C>
ConversionError conversion_error(const B& backend, const W& w, const U& up, const D& down,
                                 const C& inputs) {
  constexpr const char* function = "latent::conversion_error";
  const auto weight = as_const(to_view(w));
  const auto left = as_const(to_view(up)), right = as_const(to_view(down));
  const auto moment = as_const(to_view(inputs));
  detail::check_weight(function, "w", weight);
  check_view(function, "up", left);
  check_view(function, "down", right);
  check_extents<2>(function, "up", left.extent, {weight.rows(), left.cols()});
  check_extents<2>(function, "down", right.extent, {left.cols(), weight.cols()});
  detail::check_moment(function, "inputs", moment, weight.cols());
  return detail::error_of_factors(backend, weight, left, right,
                                  std::optional(detail::doubles_of(moment)));
}

/// \overload
template <In<2> W, In<2> U, In<2> D, In<2> C>
ConversionError conversion_error(const W& w, const U& up, const D& down, const C& inputs) {
  return conversion_error(simd, w, up, down, inputs);
}

PARE_REFUSE_CALLS(conversion_error, "latent::conversion_error", "after inputs: wanted nothing",
                  (INPUT, (roles::Reads<2>), "w", "[outputs, inputs]"),
                  (INPUT, (roles::ReadsCompute<2>), "up", "[outputs, rank]"),
                  (INPUT, (roles::ReadsCompute<2>), "down", "[rank, inputs]"),
                  (INPUT, (roles::ReadsCompute<2>), "inputs", "[inputs, inputs], X^T X"))

PARE_ABI_END
}  // namespace pare::latent

#include <pare/core/macros_on.hpp>
