// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Sparse attention with a policy of its own in each layer of a model.
///
/// ```cpp
/// const SparseAttention method{{"window", .25}, {call_of(SlidingWindow{}), exact_call()}};
/// llama.forward(backend, prompt, cache, logits, attention_of(method));   // of two layers
/// ```

#include "language_model/cache_attention.hpp"

#include <pare/attention/attend.hpp>
#include <pare/attention/options.hpp>
#include <pare/core/tensor_view.hpp>

#include <cstddef>
#include <functional>
#include <string>
#include <utility>
#include <vector>

namespace language_model {

/// Attention of one layer over keys and values in tensors.
using LayerCall = std::function<pare::attention::AttendStats(
    const ModelBackend&, TensorView<const float, 4> q, TensorView<const float, 4> k,
    TensorView<const float, 4> v, TensorView<float, 4> out, const pare::attention::AttendOptions&)>;

struct SparseName {
  std::string name;      ///< one of the table
  double density = .25;  ///< share of the (query, key) pairs or blocks, in (0, 1]
};

/// A method, and what it does in each layer.
struct SparseAttention {
  SparseName wanted;
  std::vector<LayerCall> layers;
};

inline LayerCall exact_call() {
  return [](const ModelBackend& backend, auto q, auto k, auto v, auto out, const auto& options) {
    return pare::attention::attend(backend, q, k, v, out, options);
  };
}

/// For prompts in a cache of floats.
inline Attention attention_of(SparseAttention method) {
  return [method = std::move(method)](const ModelBackend& backend, const AttentionCall& call) {
    return method.layers[static_cast<std::size_t>(call.layer)](
        backend, call.q, call.cache.keys<float>(call.layer), call.cache.values<float>(call.layer),
        call.out, {.causal = true});
  };
}

/// Attention by any policy of `attend`.
template <class Policy>
LayerCall call_of(Policy policy) {
  return [policy](const ModelBackend& backend, auto q, auto k, auto v, auto out,
                  const auto& options) { return attend(backend, q, k, v, out, policy, options); };
}

}  // namespace language_model
