// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// The weights of a layer of latent attention, in the layout of the public checkpoints.
///
/// ```cpp
/// using transformer::DenseLinear;
/// LatentWeights<bf16> weights{.query_down = DenseLinear<bf16>(wq_a),  // views or owners
///                             .query_norm = q_norm,
///                             .query = DenseLinear<bf16>(wq_b),
///                             .latent_down = DenseLinear<bf16>(wkv_a),
///                             .latent_norm = kv_norm,
///                             .up = {config, DenseLinear<bf16>(wkv_b)},
///                             .output = DenseLinear<bf16>(wo)};
/// ```
///
/// | member | checkpoint of DeepSeek | shape |
/// |---|---|---|
/// | `query_down` | `wq_a`, `q_a_proj` | [d_q, d]; none if queries are made of hidden states |
/// | `query_norm` | `q_norm`, `q_a_layernorm` | [d_q] |
/// | `query` | `wq_b` or `wq`, `q_b_proj` or `q_proj` | [H (d_n + d_r), d_q or d] |
/// | `latent_down` | `wkv_a`, `kv_a_proj_with_mqa` | [d_c + d_r, d] |
/// | `latent_norm` | `kv_norm`, `kv_a_layernorm` | [d_c], of the latent, not of the rotary key |
/// | `up` | `wkv_b`, `kv_b_proj` | [H (d_n + d_v), d_c] |
/// | `output` | `wo`, `o_proj` | [d, H d_v] |
///
/// Rows of a head are its d_n numbers without position, then its d_r rotary ones; of `up` its keys,
/// then its values. What is converted from grouped heads has no norms: they are optional.

#include <pare/core/macros_off.hpp>

#include <pare/core/check.hpp>
#include <pare/core/scalar.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/latent/config.hpp>
#include <pare/latent/up_weights.hpp>
#include <pare/transformer/dense_linear.hpp>
#include <pare/transformer/linear.hpp>

#include <array>
#include <optional>
#include <type_traits>
#include <vector>

namespace pare::latent {

using transformer::LinearOf;

PARE_ABI_BEGIN

/// Weights in S. Their projections are layers L, such as `QuantizedLinear<Q4_1>` (of S float, bf16
/// or f16), W_UK and W_UV are S. It can be moved, not copied.
template <StorageScalar S, LinearOf<compute_t<S>> L = transformer::DenseLinear<S>>
struct LatentWeights {
  using scalar = compute_t<S>;

  std::optional<L> query_down{};
  std::optional<std::vector<scalar>> query_norm{};  ///< left out: the latent is taken as it is
  L query;
  L latent_down;
  std::optional<std::vector<scalar>> latent_norm{};  ///< likewise
  UpWeights<S> up;
  L output;

  /// \throws std::invalid_argument if the config is not valid or a weight does not have its shape;
  ///         `function` is named
  void validate(const char* function, const LatentConfig& config) const {
    config.validate(function);
    check(query_down.has_value() == config.query_latent.has_value(), function, "query_down",
          query_down ? "a weight" : "none",
          config.query_latent ? "a weight for queries of a latent" : "none without query_latent");
    check(query_down || !query_norm, function, "query_norm", "a norm",
          "none without query_down, of which it is the norm");
    const Index inputs = config.query_inputs();
    if (query_down) shape(function, "query_down", *query_down, inputs, config.width);
    if (query_norm) length(function, "query_norm", *query_norm, inputs);
    shape(function, "query", query, config.heads * config.head_dim(), inputs);
    shape(function, "latent_down", latent_down, config.row_dim(), config.width);
    if (latent_norm) length(function, "latent_norm", *latent_norm, config.latent);
    check(up.heads() == config.heads && up.nope() == config.nope && up.value() == config.value,
          function, "up", std::array<Index, 3>{up.heads(), up.nope(), up.value()},
          "the heads, nope and value of the config");
    check(up.latent() == config.latent, function, "up", up.latent(), config.latent);
    shape(function, "output", output, config.width, config.heads * config.value);
  }

 private:
  static void shape(const char* function, const char* name, const L& layer, Index outputs,
                    Index inputs) {
    check_extents<2>(function, name, {layer.outputs(), layer.inputs()}, {outputs, inputs});
  }
  static void length(const char* function, const char* name, const std::vector<scalar>& gain,
                     Index wanted) {
    check(static_cast<Index>(gain.size()) == wanted, function, name, gain.size(), wanted);
  }
};

PARE_ABI_END
}  // namespace pare::latent

#include <pare/core/macros_on.hpp>
