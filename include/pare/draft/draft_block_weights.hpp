// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// The weights of a draft block, in the layout of the public checkpoints.
///
/// ```cpp
/// using transformer::DenseLinear;
/// using Layer = DenseLinear<bf16>;                       // a view, or `copy_of` a matrix
/// DraftBlockWeights<Layer> weights{
///     .context = Layer(fc), .context_norm = hidden_norm, .final_norm = norm};
/// weights.layers.push_back({.input_norm = input_layernorm, .query = Layer(q_proj), ...});
/// ```
///
/// | member | checkpoint of JetSpec | shape |
/// |---|---|---|
/// | `context` | `fc` | [d, tapped width] |
/// | `context_norm` | `hidden_norm` | [d] |
/// | `final_norm` | `norm` | [d] |
/// | `input_norm`, `mlp_norm` | `input_layernorm`, `post_attention_layernorm` | [d] |
/// | `query` | `self_attn.q_proj` | [heads x head dim, d] |
/// | `key`, `value` | `self_attn.k_proj`, `self_attn.v_proj` | [kv heads x head dim, d] |
/// | `query_norm`, `key_norm` | `self_attn.q_norm`, `self_attn.k_norm` | [head dim] |
/// | `output` | `self_attn.o_proj` | [d, heads x head dim] |
/// | `gate`, `up` | `mlp.gate_proj`, `mlp.up_proj` | [hidden, d] |
/// | `down` | `mlp.down_proj` | [d, hidden] |
///
/// The embedding and the head are the target's, and not among them. No layer has a bias.

#include <pare/core/macros_off.hpp>

#include <pare/core/check.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/draft/draft_block_config.hpp>
#include <pare/transformer/linear.hpp>

#include <array>
#include <cstddef>
#include <string>
#include <vector>

namespace pare::draft {
PARE_ABI_BEGIN

/// Weights of a layer of a block. L: as DraftBlockWeights has it.
template <class L>
requires transformer::LinearOf<L, transformer::linear_scalar<L>>
struct DraftLayerWeights {
  using scalar = transformer::linear_scalar<L>;

  std::vector<scalar> input_norm;
  L query, key, value;
  std::vector<scalar> query_norm, key_norm;
  L output;
  std::vector<scalar> mlp_norm;
  L gate, up, down;
};

/// Weights whose projections are layers L: `DenseLinear` of float, bf16, f16 or double,
/// `QuantizedLinear`, or any other layer. Rows are of float, or of double where L takes those.
template <class L>
requires transformer::LinearOf<L, transformer::linear_scalar<L>>
struct DraftBlockWeights {
  using scalar = transformer::linear_scalar<L>;

  L context;
  std::vector<scalar> context_norm;
  std::vector<DraftLayerWeights<L>> layers{};
  std::vector<scalar> final_norm;

  /// \throws std::invalid_argument if the config is not valid or a weight does not have its shape;
  ///         `function` is named
  void validate(const char* function, const DraftBlockConfig& c) const {
    c.validate(function);
    shape(function, {}, "context", context, c.width, c.tapped_width);
    length(function, {}, "context_norm", context_norm, c.width);
    length(function, {}, "final_norm", final_norm, c.width);
    check(static_cast<Index>(layers.size()) == c.layers, function, "layers", layers.size(),
          c.layers);
    for (std::size_t i = 0; i < layers.size(); ++i) validate_layer(function, i, c);
  }

  /// use(layer) for each projection.
  template <class Use>
  void for_each_linear(const Use& use) const {
    use(context);
    for (const DraftLayerWeights<L>& w : layers)
      for (const L* l : {&w.query, &w.key, &w.value, &w.output, &w.gate, &w.up, &w.down}) use(*l);
  }

 private:
  void validate_layer(const char* function, std::size_t i, const DraftBlockConfig& c) const {
    const DraftLayerWeights<L>& w = layers[i];
    const std::string in = "layers[" + std::to_string(i) + "].";
    length(function, in, "input_norm", w.input_norm, c.width);
    shape(function, in, "query", w.query, c.query_width(), c.width);
    shape(function, in, "key", w.key, c.key_width(), c.width);
    shape(function, in, "value", w.value, c.key_width(), c.width);
    length(function, in, "query_norm", w.query_norm, c.head_dim);
    length(function, in, "key_norm", w.key_norm, c.head_dim);
    shape(function, in, "output", w.output, c.width, c.query_width());
    length(function, in, "mlp_norm", w.mlp_norm, c.width);
    shape(function, in, "gate", w.gate, c.hidden, c.width);
    shape(function, in, "up", w.up, c.hidden, c.width);
    shape(function, in, "down", w.down, c.width, c.hidden);
  }

  static void shape(const char* function, const std::string& in, const char* name, const L& layer,
                    Index outputs, Index inputs) {
    check_extents<2>(function, (in + name).c_str(), {layer.outputs(), layer.inputs()},
                     {outputs, inputs});
  }
  static void length(const char* function, const std::string& in, const char* name,
                     const std::vector<scalar>& gain, Index wanted) {
    check(static_cast<Index>(gain.size()) == wanted, function, (in + name).c_str(), gain.size(),
          wanted);
  }
};

PARE_ABI_END
}  // namespace pare::draft

#include <pare/core/macros_on.hpp>
