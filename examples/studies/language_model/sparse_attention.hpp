// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Sparse attention of a prompt by name, its thresholds found layer by layer on another text.
///
/// ```cpp
/// const auto methods = sparse_attentions(llama, backend, sample, {{"s2o", .25}, {"window", .25}});
/// llama.forward(backend, prompt, cache, logits, attention_of(methods[0]));
/// ```
///
/// | name | policy | what is found for each layer |
/// |---|---|---|
/// | `mean_pool`, `antidiagonal` | blocks by pooled or antidiagonal scores | their mass |
/// | `pbs` | PBS-Attn: the same of keys in an order of their own | the mass |
/// | `s2o` | S2O: each row stops early | the threshold |
/// | `proxy` | ProxyAttn: groups of heads share blocks | the mass |
/// | `window` | blocks of the last tokens and the first | nothing: its length follows |
/// | `sampled` | ours: 64 x 16 blocks by the mass that an 8th of the queries gives them | nothing |
/// | `oracle` | 128 x 128 blocks, as the others', by the mass that all queries give | nothing |

#include "language_model/layer_attention.hpp"
#include "language_model/llama.hpp"

#include <pare/attention/antidiagonal.hpp>
#include <pare/attention/attend_selected.hpp>
#include <pare/attention/calibrate.hpp>
#include <pare/attention/early_stop.hpp>
#include <pare/attention/mean_pool.hpp>
#include <pare/attention/permuted.hpp>
#include <pare/attention/proxy_heads.hpp>
#include <pare/attention/sampled_mass.hpp>
#include <pare/attention/sliding_window.hpp>
#include <pare/core/check.hpp>
#include <pare/core/tensor_view.hpp>

#include <cstddef>
#include <functional>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace language_model {

/// A policy for `calibrate` whose density is counted without attending. Outputs stay as they are,
/// and with them what `calibrate` says of the error.
template <class Policy>
struct Counted {
  Policy policy{};
  float mass = 0.9f;

  Policy at_mass() const {
    Policy set = policy;
    if constexpr (requires { set.selector.mass; })
      set.selector.mass = mass;
    else
      set.mass = mass;
    return set;
  }
};

template <class B, class P>
pare::attention::AttendStats attend(const B& backend, TensorView<const float, 4> q,
                                    TensorView<const float, 4> k, TensorView<const float, 4>,
                                    TensorView<float, 4>, const Counted<P>& counted,
                                    const pare::attention::AttendOptions&) {
  using namespace pare::attention;
  const auto density = [](const auto& blocks) { return blocks.density(true); };
  if constexpr (requires { counted.policy.selector; }) {
    auto selector = counted.at_mass().selector;
    selector.segment = counted.policy.segment;
    const KeyOrder order = order_keys(backend, q, k, {.segment = counted.policy.segment});
    return {.density = density(select_blocks(backend, q, k, order, selector, {.causal = true}))};
  } else {
    return {.density = density(select_blocks(backend, q, k, counted.at_mass(), {.causal = true}))};
  }
}

namespace detail {

/// Makes the call of a layer from what exact attention makes of a sample there.
using Finder = std::function<LayerCall(const ModelBackend&, TensorView<const float, 4> q,
                                       TensorView<const float, 4> k)>;

/// The policy that a threshold gives the density; what values are does not matter to that.
template <class Policy>
Policy calibrated(const ModelBackend& backend, TensorView<const float, 4> q,
                  TensorView<const float, 4> k, const Policy& policy, double density) {
  static constexpr float one = 1;
  const TensorView<const float, 4> v{
      &one, {k.extent[0], k.extent[1], k.extent[2], 1}, {0, 0, 0, 1}};
  return pare::attention::calibrate(backend, q, k, v, policy, {.density = density},
                                    {.causal = true})
      .policy;
}

/// The longest window of whole blocks, with the first block, that is not above the density; at
/// least one block.
inline pare::attention::SlidingWindow window_of(double density, Index tokens) {
  pare::attention::SlidingWindow window;
  const Index rows = pare::ceil_div(tokens, window.row_block);
  const Index visible = rows * (rows + 1) / 2;
  const double most = density * static_cast<double>(visible);
  const auto kept = [&](Index blocks) {
    Index sum = 0;
    for (Index m = 0; m < rows; ++m) sum += std::min(m + 1, blocks + 1);
    return static_cast<double>(sum);
  };
  Index blocks = 1;
  while (blocks < rows && kept(blocks + 1) <= most) ++blocks;
  window.window = (blocks - 1) * window.column_block + 1;
  return window;
}

inline Finder finder(const SparseName& wanted, const LlamaConfig& config) {
  using namespace pare::attention;
  const double density = wanted.density;
  const auto counted = [density](const auto& policy) -> Finder {
    return [policy, density](const ModelBackend& backend, auto q, auto k) {
      return call_of(
          calibrated(backend, q, k, Counted<std::decay_t<decltype(policy)>>{policy}, density)
              .at_mass());
    };
  };
  if (wanted.name == "mean_pool") return counted(MeanPool{});
  if (wanted.name == "antidiagonal") return counted(Antidiagonal{});
  if (wanted.name == "pbs")
    return counted(
        Permuted<MeanPool>{.dense_below = 0, .dense_below_queries = 0, .dense_above = 1});
  // The paper's least budget of 2048 keys would be most of such prompts.
  if (wanted.name == "proxy")
    return counted(ProxyHeads{.groups = config.kv_heads, .min_budget = 0});
  if (wanted.name == "s2o")
    return [density](const ModelBackend& backend, auto q, auto k) {
      return call_of(calibrated(backend, q, k, EarlyStop{}, density));
    };
  if (wanted.name == "window")
    return [density](const ModelBackend&, auto, auto k) {
      return call_of(window_of(density, k.extent[2]));
    };
  pare::check(wanted.name == "oracle" || wanted.name == "sampled",
              "language_model::sparse_attentions", "name", wanted.name,
              "mean_pool, antidiagonal, pbs, s2o, proxy, window, sampled or oracle");
  SampledMass sample{.share = density};
  if (wanted.name == "oracle")
    sample = {.row_block = 128, .column_block = 128, .stride = 1, .share = density};
  return [sample](const ModelBackend&, auto, auto) { return call_of(sample); };
}

}  // namespace detail

/// Finds the thresholds of all methods in one pass over a sample; layers see what exact attention
/// makes of it.
///
/// \param sample   tokens to find thresholds on, as many as prompts have; not what is judged
/// \param progress is given the share that is done
/// \throws std::invalid_argument if there is no such name, or as `calibrate` and Llama::forward
template <class B, class Progress>
std::vector<SparseAttention> sparse_attentions(const Llama& llama, const B& backend,
                                               std::span<const Token> sample,
                                               const std::vector<SparseName>& wanted,
                                               Progress&& progress) {
  std::vector<SparseAttention> methods;
  std::vector<detail::Finder> finders;
  for (const SparseName& name : wanted) {
    methods.push_back({name, {}});
    finders.push_back(detail::finder(name, llama.config()));
  }
  const auto find = [&](const ModelBackend& on, const AttentionCall& call) {
    for (std::size_t i = 0; i < finders.size(); ++i)
      methods[i].layers.push_back(finders[i](on, call.q, call.cache.keys<float>(call.layer)));
    progress(static_cast<double>(call.layer + 1) / static_cast<double>(llama.config().blocks));
    return exact_attention(on, call);
  };
  KvCache cache(llama.config().kv_shape(), static_cast<Index>(sample.size()));
  std::vector<float> logits(static_cast<std::size_t>(llama.config().vocabulary));
  llama.forward(backend, sample, cache, logits, find);
  return methods;
}

}  // namespace language_model
