// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Scores of the tokens of a prompt, found while a model attends to it.

#include "language_model/budget_arguments.hpp"
#include "language_model/cache_attention.hpp"

#include <pare/attention/budget/eviction_score.hpp>
#include <pare/attention/budget/key_diff.hpp>
#include <pare/attention/budget/snap_kv.hpp>

#include <cstddef>
#include <vector>

namespace language_model {

class PromptScores {
 public:
  PromptScores(const KvShape& shape, Evict evict) : shape_(shape), evict_(evict) {}

  /// Tokens of the prompt.
  Index tokens() const { return tokens_; }
  /// [layers, kv heads, tokens]
  TensorView<const float, 3> view() const {
    const Index heads = shape_.kv_heads;
    return {scores_.data(), {shape_.layers, heads, tokens_}, {heads * tokens_, tokens_, 1}};
  }

  /// Of a layer, all tokens of whose cache attend.
  void add(const ModelBackend& backend, const AttentionCall& call) {
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
  }

 private:
  KvShape shape_;
  Evict evict_;
  Index tokens_ = 0;
  std::vector<float> scores_;
};

}  // namespace language_model
