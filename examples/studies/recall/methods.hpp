// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// The methods that the attention example compares, each with the settings that it sweeps.

#include "recall/arguments.hpp"
#include "recall/method.hpp"
#include "recall/product_keys.hpp"
#include "recall/vertical_slash.hpp"

#include <pare/attention/antidiagonal.hpp>
#include <pare/attention/attend.hpp>
#include <pare/attention/early_stop.hpp>
#include <pare/attention/mean_pool.hpp>
#include <pare/attention/permuted.hpp>
#include <pare/attention/proxy_heads.hpp>
#include <pare/attention/select_blocks.hpp>

#include <algorithm>
#include <string>
#include <vector>

namespace recall {

/// Attention over the blocks that a selector picks, keys in natural order.
template <class Selector>
pare::attention::AttendStats attend_selected(const Call& call, const Selector& selector) {
  const Heads& h = call.heads;
  const auto blocks =
      pare::attention::select_blocks(call.backend, h.q, h.k, selector, {.causal = true});
  auto stats = pare::attention::attend(call.backend, h.q, h.k, h.v, call.out,
                                       {.causal = true, .mask = &blocks, .lse = call.lse});
  stats.select_seconds = blocks.seconds;
  return stats;
}

/// ProxyAttn with `groups` representative heads; 0: the default number.
inline Method proxy_method(const std::string& title, Index groups) {
  return {"proxy",
          title,
          "mass",
          0.95,
          {0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99},
          [groups](const Call& call, double mass) {
            pare::attention::ProxyHeads policy{.mass = static_cast<float>(mass)};
            if (groups > 0) policy.groups = groups;
            return recall::attend(call, policy);
          }};
}

/// The methods for any heads.
inline std::vector<Method> all_methods() {
  using namespace pare::attention;
  const std::vector<double> masses = {0.1, 0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 0.98};
  return {
      {"mean-pool", "mean pooling", "mass", 0.9, masses,
       [](const Call& call, double mass) {
         return attend_selected(call, MeanPool{.mass = static_cast<float>(mass)});
       }},
      {"antidiagonal", "antidiagonal", "mass", 0.9, masses,
       [](const Call& call, double mass) {
         return attend_selected(call, Antidiagonal{.mass = static_cast<float>(mass)});
       }},
      {"pbs", "PBS-Attn", "mass", 0.9, masses,
       [](const Call& call, double mass) {
         return recall::attend(call, Permuted{MeanPool{.mass = static_cast<float>(mass)}});
       }},
      {"s2o",
       "S2O",
       "threshold",
       0.01,
       {0.3, 0.1, 0.03, 0.01, 3e-3, 1e-3, 3e-4, 1e-4},
       [](const Call& call, double threshold) {
         return recall::attend(call, EarlyStop{.threshold = threshold});
       }},
      proxy_method("ProxyAttn", 0),
      {"own",
       "own: vertical-slash",
       "share",
       0.25,
       {0.05, 0.1, 0.15, 0.2, 0.25, 0.35, 0.5, 0.7},
       [](const Call& call, double share) {
         return attend_selected(call, VerticalSlash{.share = share});
       }},
  };
}

/// The methods for heads that resemble each other: what sharing one selection among them costs.
inline std::vector<Method> methods_for_groups(Index heads, Index groups) {
  std::vector<Method> methods = all_methods();
  std::erase_if(methods, [](const Method& m) { return m.key != "mean-pool" && m.key != "pbs"; });
  methods.push_back(proxy_method("ProxyAttn, each head", heads));
  methods.push_back(proxy_method("ProxyAttn, shared", groups));
  return methods;
}

/// Those of the methods that are named, or of lists; all but lists if none is, which would take
/// gigabytes on the longest text. Throws UsageError for a name that no method has.
inline std::vector<Method> choose(std::vector<Method> methods,
                                  const std::vector<std::string>& names) {
  if (names.empty()) return methods;
  std::vector<Method> known = all_methods();
  for (const Method& method : list_methods()) {
    known.push_back(method);
    methods.push_back(method);
  }
  for (const std::string& name : names)
    if (std::ranges::none_of(known, [&](const Method& m) { return m.key == name; }))
      throw UsageError("--methods: there is none called '" + name + "'");
  std::erase_if(methods, [&](const Method& method) {
    return std::find(names.begin(), names.end(), method.key) == names.end();
  });
  return methods;
}

}  // namespace recall
