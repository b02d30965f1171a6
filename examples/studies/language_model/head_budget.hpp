// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Attention of a model to a prompt, whose tokens are scored meanwhile, and then to what its heads
/// keep of it.

#include "language_model/budget_arguments.hpp"
#include "language_model/cache_attention.hpp"
#include "language_model/kept_cache.hpp"

#include <pare/attention/budget/eviction_score.hpp>
#include <pare/attention/budget/keep_tokens.hpp>
#include <pare/attention/budget/key_diff.hpp>
#include <pare/attention/budget/snap_kv.hpp>

#include <cstddef>
#include <optional>
#include <vector>

namespace language_model {

class HeadBudget {
 public:
  HeadBudget(const KvShape& shape, Evict evict, const pare::attention::HeadGroups& groups,
             const pare::attention::KeepOptions& options)
      : shape_(shape), evict_(evict), groups_(groups), options_(options) {}

  /// What heads keep of the prompt that was attended to.
  pare::attention::KeptTokens kept() const {
    const Index n = tokens_, heads = shape_.kv_heads;
    return keep_tokens(
        TensorView<const float, 3>{scores_.data(), {shape_.layers, heads, n}, {heads * n, n, 1}},
        groups_, options_);
  }
  /// Bytes of the pages that hold the prompt, once what follows was attended to.
  double bytes() const { return bytes_; }

  pare::attention::AttendStats operator()(const ModelBackend& backend, const AttentionCall& call) {
    if (call.q.extent[2] == call.cache.length()) return attend_prompt(backend, call);
    if (call.layer == 0) {
      cache_.emplace(call.cache, tokens_, groups_, kept());
      bytes_ = cache_->bytes();
      cache_->grow(call.q.extent[2]);
    }
    cache_->attend(backend, call);
    return {};
  }

 private:
  pare::attention::AttendStats attend_prompt(const ModelBackend& backend,
                                             const AttentionCall& call) {
    tokens_ = call.cache.length();
    const Index layer = shape_.kv_heads * tokens_;
    scores_.resize(static_cast<std::size_t>(shape_.layers * layer));
    const TensorView<float, 3> scores{
        scores_.data() + call.layer * layer, {1, shape_.kv_heads, tokens_}, {layer, tokens_, 1}};
    const auto keys = call.cache.keys<float>(call.layer);
    if (evict_ == Evict::SnapKv)
      score_tokens(backend, call.q, keys, scores, pare::attention::SnapKV{});
    else
      score_tokens(backend, keys, scores, pare::attention::KeyDiff{});
    return exact_attention(backend, call);
  }

  KvShape shape_;
  Evict evict_;
  pare::attention::HeadGroups groups_;
  pare::attention::KeepOptions options_;
  Index tokens_ = 0;
  double bytes_ = 0;
  std::vector<float> scores_;  // [layers, kv heads, tokens]
  std::optional<KeptCache> cache_;
};

}  // namespace language_model
