// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// What the linear layers of a model's blocks are given while it runs, and the mean products of it.
///
/// ```cpp
/// const auto layer_of = [](Block& block, const BlockLayer& l) -> AnyLinear& {
///   return block.*l.layer;
/// };
/// const InputProducts products =
///     input_products(model, block_layers, layer_of, [&] { model.forward(...); });
/// ```
///
/// `layers` are all of a block, in any range. Each has a number `inputs`: those that have the same
/// are given the same rows, and the first of them is watched. Numbers are counted from 0, in order.

#include "common/any_linear.hpp"
#include "common/blocks_restored.hpp"
#include "common/watched_linear.hpp"

#include <pare/factor/covariance.hpp>

#include <cstddef>
#include <iterator>
#include <vector>

namespace models {

/// Of each block the mean products of what its layers are given. Memory: for 30 blocks of 576 and
/// 1536 inputs 805 MB.
using InputProducts = std::vector<std::vector<pare::factor::Covariance>>;

/// Shows the inputs of a block's layers, those that several share once: visitor(layer) makes what
/// sees them, where `layer` is the first that is given them.
template <class Block, class Layers, class LayerOf, class Visitor>
void watch_inputs(Block& block, const Layers& layers, const LayerOf& layer_of,
                  const Visitor& visitor) {
  std::size_t next = 0;
  for (const auto& named : layers) {
    if (named.inputs != next) continue;
    AnyLinear& layer = layer_of(block, named);
    layer = WatchedLinear(layer, visitor(named));
    ++next;
  }
}

/// The mean products E[x x^T] of the inputs x of all layers over what run() has the model do;
/// summed while it runs, so that no inputs are kept. The model is as before then.
template <class Model, class Layers, class LayerOf, class Run>
InputProducts input_products(Model& model, const Layers& layers, const LayerOf& layer_of,
                             const Run& run) {
  InputProducts products(model.blocks().size());
  const BlocksRestored restored(model);
  for (std::size_t i = 0; i < products.size(); ++i) {
    auto& block = model.blocks()[i];
    products[i].reserve(std::size(layers));  // visitors refer to its elements
    watch_inputs(block, layers, layer_of, [&](const auto& named) {
      auto& sum = products[i].emplace_back(layer_of(block, named).inputs());
      return [&sum](const ModelBackend& on, TensorView<const float, 2> x) { sum.add(on, x); };
    });
  }
  run();
  return products;
}

}  // namespace models
