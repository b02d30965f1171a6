// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// What a scorer asks of a model, and the loss it is trained with.
///
/// ```cpp
/// struct Mine {
///   using scalar = float;
///   Index dim() const;
///   void forward(TensorView<const float, 2> x, std::span<float> logits);
///   void backward(std::span<const float> grad_logits);
///   void input_gradient(std::span<const float> grad_logits, TensorView<float, 2> grad_x);
///   void step();
/// };  // Model<Mine>: train_leap, taylor_importance and the other scorers take it
/// ```
///
/// A model maps x [rows x dim] to one logit per row. It owns its parameters, the sums of their
/// gradients and its optimiser; the scorers own the data. `Logistic`, `FactorizationMachine` and
/// `Mlp` are such models; your own takes about thirty lines. A pass may also take a backend as its
/// first argument, as theirs do: scorers then pass their own backend to it.

#include <pare/core/macros_off.hpp>

#include <pare/core/check.hpp>
#include <pare/core/scalar.hpp>
#include <pare/core/tensor_view.hpp>

#include <algorithm>
#include <cmath>
#include <concepts>
#include <cstddef>
#include <span>
#include <type_traits>

namespace pare::feature {

/// A differentiable model of one logit per row.
///
/// - `dim()`: columns of its input;
/// - `forward(x, logits)`: writes the logits [rows] of x [rows x dim], whose rows or columns are
///   contiguous; x lives until the next forward;
/// - `backward(grad_logits)`: adds dL/d(parameters) of the last forward to its sums;
/// - `input_gradient(grad_logits, grad_x)`: writes dL/dx of the last forward, leaves the sums as
///   they are;
/// - `step()`: one step of its optimiser with the sums, which start at 0 again.
///
/// If a pass can be called with a backend first, as in `forward(backend, x, logits)`, scorers call
/// it so.
template <class M>
concept Model =
    ComputeScalar<typename M::scalar> &&
    requires(M& model, const M& constant, TensorView<const typename M::scalar, 2> x,
             std::span<typename M::scalar> logits, std::span<const typename M::scalar> grad_logits,
             TensorView<typename M::scalar, 2> grad_x) {
      { constant.dim() } -> std::convertible_to<Index>;
      model.forward(x, logits);
      model.backward(grad_logits);
      model.input_gradient(grad_logits, grad_x);
      model.step();
    };

/// A model that first reduces a row to a small state. The effect of changed columns on the logits
/// then costs as much as the state, not as the input.
///
/// - `state_width()`: numbers per row;
/// - `enter(x, state)`: writes the state [rows x state_width] of x;
/// - `replace(offset, before, after, state)`: makes it that of x with columns
///   [offset, offset + before.cols()) changed from `before` to `after`;
/// - `leave(state, logits)`: the logits.
template <class M>
concept IncrementalModel =
    Model<M> &&
    requires(M& model, const M& constant, TensorView<const typename M::scalar, 2> x,
             TensorView<typename M::scalar, 2> state, std::span<typename M::scalar> logits) {
      { constant.state_width() } -> std::convertible_to<Index>;
      model.enter(x, state);
      constant.replace(Index{0}, x, x, state);
      model.leave(as_const(state), logits);
    };

/// Rows of a table: a matrix of float or double.
template <class X>
concept RowsIn = In<X, 2> && ComputeScalar<scalar_of<X>>;

/// Rows of the scalar of a model.
template <class X, class M>
concept RowsOf = In<X, 2> && std::is_same_v<scalar_of<X>, typename M::scalar>;

PARE_ABI_BEGIN

/// 1 / (1 + exp(-z)), without overflow.
template <ComputeScalar T>
T sigmoid(T z) {
  const T e = std::exp(-std::abs(z));
  return (z >= T(0) ? T(1) : e) / (T(1) + e);
}

/// The gradient of the mean logistic loss: grad_b = (sigmoid(z_b) - y_b) / rows.
///
/// \param logits [rows]
/// \param labels [rows] in {0, 1}
/// \param grad   [rows] written
/// \return the mean loss, summed in double
/// The caller has checked sizes.
template <ComputeScalar T>
double logistic_gradient(std::span<const T> logits, std::span<const T> labels, std::span<T> grad) {
  const T rows = static_cast<T>(logits.size());
  double sum = 0;
  for (std::size_t b = 0; b < logits.size(); ++b) {
    const auto z = static_cast<double>(logits[b]);
    sum +=
        std::max(z, 0.0) - z * static_cast<double>(labels[b]) + std::log1p(std::exp(-std::abs(z)));
    grad[b] = (sigmoid(logits[b]) - labels[b]) / rows;
  }
  return sum / static_cast<double>(logits.size());
}

PARE_ABI_END
}  // namespace pare::feature

#include <pare/core/macros_on.hpp>
