// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// A layer that shows its inputs to a visitor, such as one that sums their products.
///
/// ```cpp
/// pare::factor::Covariance products(layer.inputs());
/// const AnyLinear before = layer;
/// layer = WatchedLinear(layer, [&](const ModelBackend& on, auto x) { products.add(on, x); });
/// model.forward(...);
/// layer = before;
/// ```

#include "common/any_linear.hpp"

#include <functional>
#include <utility>

namespace models {

class WatchedLinear {
 public:
  /// Gets the rows [rows, inputs] of each call before the layer does.
  using See = std::function<void(const ModelBackend&, TensorView<const float, 2>)>;

  WatchedLinear(AnyLinear layer, See see) : layer_(std::move(layer)), see_(std::move(see)) {}

  Index inputs() const { return layer_.inputs(); }
  Index outputs() const { return layer_.outputs(); }
  void apply(const ModelBackend& backend, TensorView<const float, 2> x,
             TensorView<float, 2> y) const {
    see_(backend, x);
    layer_.apply(backend, x, y);
  }

 private:
  AnyLinear layer_;
  See see_;
};

}  // namespace models
