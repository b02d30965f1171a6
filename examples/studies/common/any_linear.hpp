// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// A linear layer of any kind behind one type, so that to compress a layer is to assign an object.
///
/// ```cpp
/// llama.blocks()[3].down = LowRankLinear(...);   // the others stay as they are
/// ```

#include <pare/core/backend.hpp>
#include <pare/core/executor_ref.hpp>
#include <pare/core/tensor_view.hpp>

#include <concepts>
#include <memory>
#include <type_traits>
#include <utility>

namespace models {

using pare::Index;
using pare::TensorView;

/// What models run on: pare::simd on any executor, so that they are compiled once.
using ModelBackend = pare::OnAnyExecutor<std::remove_cvref_t<decltype(pare::simd)>>;

/// y = x W^T for x [rows, inputs] and y [rows, outputs], rows contiguous.
template <class L>
concept LinearLayer = requires(const L& l, const ModelBackend& backend,
                               TensorView<const float, 2> x, TensorView<float, 2> y) {
  { l.inputs() } -> std::convertible_to<Index>;
  { l.outputs() } -> std::convertible_to<Index>;
  l.apply(backend, x, y);
};

/// Holds any LinearLayer. Copies share it. An empty one has no inputs and no outputs.
class AnyLinear {
 public:
  AnyLinear() = default;
  template <class L>
  requires(!std::same_as<std::remove_cvref_t<L>, AnyLinear> && LinearLayer<std::remove_cvref_t<L>>)
  AnyLinear(L&& layer)  // NOLINT(google-explicit-constructor): stands for the layer itself
      : inputs_(static_cast<Index>(layer.inputs())),
        outputs_(static_cast<Index>(layer.outputs())),
        layer_(std::make_shared<Holder<std::remove_cvref_t<L>>>(std::forward<L>(layer))) {}

  Index inputs() const { return inputs_; }
  Index outputs() const { return outputs_; }
  void apply(const ModelBackend& backend, TensorView<const float, 2> x,
             TensorView<float, 2> y) const {
    layer_->apply(backend, x, y);
  }

 private:
  struct Layer {
    Layer() = default;
    Layer(const Layer&) = delete;
    Layer& operator=(const Layer&) = delete;
    virtual ~Layer() = default;
    virtual void apply(const ModelBackend&, TensorView<const float, 2>,
                       TensorView<float, 2>) const = 0;
  };
  template <class L>
  struct Holder final : Layer {
    explicit Holder(L l) : layer(std::move(l)) {}
    void apply(const ModelBackend& backend, TensorView<const float, 2> x,
               TensorView<float, 2> y) const override {
      layer.apply(backend, x, y);
    }
    L layer;
  };

  Index inputs_ = 0, outputs_ = 0;
  std::shared_ptr<const Layer> layer_;
};

}  // namespace models
