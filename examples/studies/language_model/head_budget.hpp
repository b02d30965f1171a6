// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Attention of a model to a prompt, whose tokens are scored meanwhile, and then to what its heads
/// keep of it.

#include "language_model/budget_arguments.hpp"
#include "language_model/cache_attention.hpp"
#include "language_model/kept_cache.hpp"
#include "language_model/prompt_scores.hpp"

#include <pare/attention/budget/keep_tokens.hpp>

#include <optional>

namespace language_model {

class HeadBudget {
 public:
  HeadBudget(const KvShape& shape, Evict evict, const pare::attention::HeadGroups& groups,
             const pare::attention::KeepOptions& options)
      : scores_(shape, evict), groups_(groups), options_(options) {}

  /// What heads keep of the prompt that was attended to.
  pare::attention::KeptTokens kept() const {
    return keep_tokens(scores_.view(), groups_, options_);
  }
  /// Bytes of the pages that hold the prompt, once what follows was attended to.
  double bytes() const { return bytes_; }

  pare::attention::AttendStats operator()(const ModelBackend& backend, const AttentionCall& call) {
    if (call.q.extent[2] == call.cache.length()) {
      scores_.add(backend, call);
      return exact_attention(backend, call);
    }
    if (call.layer == 0) {
      cache_.emplace(call.cache, scores_.tokens(), groups_, kept());
      bytes_ = cache_->bytes();
      cache_->grow(call.q.extent[2]);
    }
    cache_->attend(backend, call);
    return {};
  }

 private:
  PromptScores scores_;
  pare::attention::HeadGroups groups_;
  pare::attention::KeepOptions options_;
  double bytes_ = 0;
  std::optional<KeptCache> cache_;
};

}  // namespace language_model
