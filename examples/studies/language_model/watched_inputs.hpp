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

#include "common/input_products.hpp"
#include "language_model/llama.hpp"

#include <cstddef>
#include <string>

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

inline AnyLinear& layer_of(LlamaBlock& block, const NamedLayer& named) {
  return block.*named.layer;
}

/// Shows the inputs of a block's layers, those that several share once: visitor(layer) makes what
/// sees them, where `layer` is the first that is given them.
template <class Visitor>
void watch_inputs(LlamaBlock& block, const Visitor& visitor) {
  models::watch_inputs(block, block_layers, layer_of, visitor);
}

}  // namespace language_model
