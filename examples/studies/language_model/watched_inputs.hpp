// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Looks at what linear layers of a block are given while the model runs.
///
/// ```cpp
/// watch_inputs(model.blocks()[3], [&](const NamedLayer& layer) {
///   return [&](const ModelBackend& backend, TensorView<const float, 2> x) { sum.add(backend, x);
///   };
/// });
/// ```

#include "language_model/any_linear.hpp"
#include "language_model/llama.hpp"

#include <cstddef>
#include <functional>
#include <string>
#include <utility>

namespace language_model {

/// A linear layer of a block, by its name in GGUF files. Layers of the same `inputs` are given the
/// same rows.
struct NamedLayer {
  const char* name;
  AnyLinear LlamaBlock::* layer;
  std::size_t inputs;

  std::string of_block(Index block) const { return "blk." + std::to_string(block) + "." + name; }
};

/// All of a block.
inline constexpr NamedLayer block_layers[] = {
    {"attn_q", &LlamaBlock::query, 0},  {"attn_k", &LlamaBlock::key, 0},
    {"attn_v", &LlamaBlock::value, 0},  {"attn_output", &LlamaBlock::output, 1},
    {"ffn_gate", &LlamaBlock::gate, 2}, {"ffn_up", &LlamaBlock::up, 2},
    {"ffn_down", &LlamaBlock::down, 3},
};
inline constexpr std::size_t block_inputs = 4;

/// A layer that shows its inputs to a visitor before it is applied to them.
class WatchedLinear {
 public:
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

/// Shows the inputs of a block's layers, those that several share once: visitor(layer) makes what
/// sees them, where `layer` is the first that is given them.
template <class Visitor>
void watch_inputs(LlamaBlock& block, const Visitor& visitor) {
  std::size_t next = 0;
  for (const NamedLayer& named : block_layers) {
    if (named.inputs != next) continue;
    AnyLinear& layer = block.*named.layer;
    layer = WatchedLinear(layer, visitor(named));
    ++next;
  }
}

}  // namespace language_model
