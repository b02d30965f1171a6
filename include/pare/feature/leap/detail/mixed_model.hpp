// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Steps of a model and of the gates in front of it.

#include <pare/core/aligned_buffer.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/feature/leap/leap.hpp>
#include <pare/feature/model/detail/labelled_rows.hpp>
#include <pare/feature/model/model.hpp>

#include <span>
#include <vector>

namespace pare::feature::detail {
PARE_ABI_BEGIN

/// A batch through the mix and the model, and back.
template <class B, class M>
class MixedModel {
 public:
  using T = typename M::scalar;

  MixedModel(const B& backend, M& model, Leap<T>& leap)
      : backend_(backend), model_(model), leap_(leap) {}

  /// One step of the model's optimiser; returns the loss before it.
  double step_model(const LabelledRows<T>& batch) {
    const double loss = forward(batch);
    model_.backward(gradients_);
    model_.step();
    return loss;
  }

  /// One step of the gates; returns the loss before it.
  double step_gates(const LabelledRows<T>& batch) {
    const double loss = forward(batch);
    const TensorView<T, 2> gradient = like(batch.x, gradient_);
    model_.input_gradient(gradients_, gradient);
    leap_.backward_gates(backend_, gradient);
    leap_.step_gates();
    return loss;
  }

  /// Logits of rows as Leap::evaluate shows them.
  void evaluate(const LabelledRows<T>& rows, std::span<T> logits) {
    const TensorView<T, 2> mixed = like(rows.x, mixed_);
    leap_.evaluate(backend_, rows.x, mixed);
    model_.forward(as_const(mixed), logits);
  }

 private:
  double forward(const LabelledRows<T>& batch) {
    const TensorView<T, 2> mixed = like(batch.x, mixed_);
    leap_.forward(backend_, batch.x, mixed);
    logits_.resize(batch.labels.size());
    gradients_.resize(batch.labels.size());
    model_.forward(as_const(mixed), logits_);
    return logistic_gradient<T>(logits_, batch.labels, gradients_);
  }

  const B& backend_;
  M& model_;
  Leap<T>& leap_;
  std::vector<T> logits_, gradients_;
  AlignedBuffer<T> mixed_, gradient_;
};

PARE_ABI_END
}  // namespace pare::feature::detail
