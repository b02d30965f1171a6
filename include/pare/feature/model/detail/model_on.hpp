// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// A model with the backend that its passes run on, as the scorers see it.

#include <pare/core/backend.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/feature/model/model.hpp>

#include <span>

namespace pare::feature::detail {
PARE_ABI_BEGIN

/// The same model. Passes that take a backend are given this one; those of a model that takes none
/// run as the model pleases.
template <Backend B, Model M>
class ModelOn {
 public:
  using scalar = typename M::scalar;
  using T = scalar;

  ModelOn(const B& backend, M& model) : backend_(backend), model_(model) {}

  Index dim() const { return model_.dim(); }

  void forward(TensorView<const T, 2> x, std::span<T> logits) {
    if constexpr (requires { model_.forward(backend_, x, logits); })
      model_.forward(backend_, x, logits);
    else
      model_.forward(x, logits);
  }

  void backward(std::span<const T> grad_logits) {
    if constexpr (requires { model_.backward(backend_, grad_logits); })
      model_.backward(backend_, grad_logits);
    else
      model_.backward(grad_logits);
  }

  void input_gradient(std::span<const T> grad_logits, TensorView<T, 2> grad_x) {
    if constexpr (requires { model_.input_gradient(backend_, grad_logits, grad_x); })
      model_.input_gradient(backend_, grad_logits, grad_x);
    else
      model_.input_gradient(grad_logits, grad_x);
  }

  void step() { model_.step(); }

  Index state_width() const
  requires IncrementalModel<M>
  {
    return model_.state_width();
  }

  void enter(TensorView<const T, 2> x, TensorView<T, 2> state)
  requires IncrementalModel<M>
  {
    if constexpr (requires { model_.enter(backend_, x, state); })
      model_.enter(backend_, x, state);
    else
      model_.enter(x, state);
  }

  void replace(Index offset, TensorView<const T, 2> before, TensorView<const T, 2> after,
               TensorView<T, 2> state) const
  requires IncrementalModel<M>
  {
    model_.replace(offset, before, after, state);
  }

  void leave(TensorView<const T, 2> state, std::span<T> logits)
  requires IncrementalModel<M>
  {
    if constexpr (requires { model_.leave(backend_, state, logits); })
      model_.leave(backend_, state, logits);
    else
      model_.leave(state, logits);
  }

 private:
  const B& backend_;
  M& model_;
};

PARE_ABI_END
}  // namespace pare::feature::detail
