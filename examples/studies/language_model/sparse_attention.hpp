// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Sparse attention of a prompt by name, its thresholds found layer by layer on another text.
///
/// ```cpp
/// AttentionReport report;
/// const Attention sparse = sparse_attention(llama, backend, sample, "s2o", 0.25, report);
/// ```
///
/// | name | policy | what is found for each layer |
/// |---|---|---|
/// | `mean_pool`, `antidiagonal` | blocks by pooled or antidiagonal scores | their mass |
/// | `pbs` | PBS-Attn: the same of keys in an order of their own | the mass |
/// | `s2o` | S2O: each row stops early | the threshold |
/// | `proxy` | ProxyAttn: groups of heads share blocks | the mass |
/// | `window` | the last tokens and the first 4 | nothing: its length follows from the density |

#include "language_model/cache_attention.hpp"
#include "language_model/llama.hpp"

#include <pare/attention/antidiagonal.hpp>
#include <pare/attention/attend_selected.hpp>
#include <pare/attention/calibrate.hpp>
#include <pare/attention/early_stop.hpp>
#include <pare/attention/mean_pool.hpp>
#include <pare/attention/permuted.hpp>
#include <pare/attention/proxy_heads.hpp>
#include <pare/attention/sliding_window.hpp>
#include <pare/core/check.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace language_model {

namespace detail {

/// The policy at the density that each layer has on a text; layers see what exact attention makes
/// of it.
template <class Policy>
std::vector<Policy> calibrated(const Llama& llama, const ModelBackend& backend,
                               std::span<const Token> sample, const Policy& policy,
                               double density) {
  std::vector<Policy> found(static_cast<std::size_t>(llama.config().blocks), policy);
  const auto calibrate_layer = [&](const ModelBackend& on, const AttentionCall& call) {
    found[static_cast<std::size_t>(call.layer)] =
        pare::attention::calibrate(on, call.q, call.cache.keys<float>(call.layer),
                                   call.cache.values<float>(call.layer), policy,
                                   {.density = density}, {.causal = true})
            .policy;
    return exact_attention(on, call);
  };
  KvCache cache(llama.config().kv_shape(), static_cast<Index>(sample.size()));
  std::vector<float> logits(static_cast<std::size_t>(llama.config().vocabulary));
  llama.forward(backend, sample, cache, logits, calibrate_layer);
  return found;
}

/// A policy for each layer.
template <class Policy>
Attention attention_by_layer(std::vector<Policy> policies, AttentionReport& report) {
  return [policies = std::move(policies), &report](const ModelBackend& backend,
                                                   const AttentionCall& call) {
    const auto stats = attend(backend, call.q, call.cache.keys<float>(call.layer),
                              call.cache.values<float>(call.layer), call.out,
                              policies[static_cast<std::size_t>(call.layer)], {.causal = true});
    report.add(stats);
    return stats;
  };
}

/// The window whose share of the pairs of `tokens` causal tokens is the density: with x = window /
/// tokens that share is 2 x - x^2.
inline Index window_of(double density, std::size_t tokens) {
  const double share = 1 - std::sqrt(1 - density);
  return std::max<Index>(1, std::lround(share * static_cast<double>(tokens)));
}

}  // namespace detail

/// Attention for prompts in a cache of floats. The report, which is given all later calls, must
/// outlive the result.
///
/// \param sample  tokens to find thresholds on, as many as prompts have; not what is judged
/// \param name    one of the table
/// \param density share of the (query, key) pairs or blocks, in (0, 1]
/// \throws std::invalid_argument if there is no such name, or as `calibrate` and Llama::forward
template <class B>
Attention sparse_attention(const Llama& llama, const B& backend, std::span<const Token> sample,
                           std::string_view name, double density, AttentionReport& report) {
  using namespace pare::attention;
  const ModelBackend on = on_any_executor(backend);
  const auto by = [&](const auto& policy) {
    return detail::attention_by_layer(detail::calibrated(llama, on, sample, policy, density),
                                      report);
  };
  if (name == "mean_pool") return by(MeanPool{});
  if (name == "antidiagonal") return by(Antidiagonal{});
  if (name == "pbs")
    return by(Permuted{.dense_below = 0, .dense_below_queries = 0, .dense_above = 1});  // always
  if (name == "s2o") return by(EarlyStop{});
  if (name == "proxy") return by(ProxyHeads{.groups = llama.config().kv_heads});
  pare::check(name == "window", "language_model::sparse_attention", "name", std::string(name),
              "mean_pool, antidiagonal, pbs, s2o, proxy or window");
  const SlidingWindow window{.window = detail::window_of(density, sample.size())};
  return detail::attention_by_layer(
      std::vector(static_cast<std::size_t>(llama.config().blocks), window), report);
}

}  // namespace language_model
