// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// What the heads of all layers keep of a prompt, in the pages of one cache.

#include "language_model/cache_attention.hpp"

#include <pare/attention/budget/attend_heads.hpp>
#include <pare/attention/budget/keep_tokens.hpp>
#include <pare/core/ceil_div.hpp>
#include <pare/latent/keep_budget.hpp>
#include <pare/latent/ragged_cache.hpp>
#include <pare/latent/ragged_heads.hpp>

namespace language_model {

class KeptCache {
 public:
  static constexpr Index page = 16;  ///< tokens

  /// Takes the first tokens of a cache of floats, and drops those that heads do not keep.
  KeptCache(const KvCache& from, Index tokens, const pare::attention::HeadGroups& groups,
            const pare::attention::KeptTokens& kept)
      : heads_(from.shape().kv_heads),
        cache_({.kv_heads = groups.layers() * heads_,
                .group = groups.group(),
                .key_dim = from.shape().head_dim,
                .value_dim = from.shape().head_dim,
                .pages = groups.groups() * pare::ceil_div(from.capacity(), page),
                .page_size = page,
                .order = groups.order()}) {
    cache_.grow(0, tokens);
    for (Index l = 0; l < groups.layers(); ++l) store(from, l, 0, tokens);
    pare::latent::keep_budget(cache_, 0, kept, groups);
  }

  double bytes() const {
    const auto& table = cache_.table();
    const Index heads_per_group = cache_.kv_heads() / cache_.groups();
    const Index elements = (table.pages() - table.free_pages()) * heads_per_group * page *
                           (cache_.key_dim() + cache_.value_dim());
    return static_cast<double>(elements) * sizeof(float);
  }
  void grow(Index tokens) { cache_.grow(0, tokens); }

  /// The last tokens of a layer, whose keys and values are taken from the call's cache, attend.
  void attend(const ModelBackend& backend, const AttentionCall& call) {
    const Index tokens = call.q.extent[2];
    store(call.cache, call.layer, call.cache.length() - tokens, tokens);
    const auto heads = paged_heads(cache_, call.layer * heads_, heads_, 0, 1, room_);
    attend_heads(backend, call.q, heads, call.out, {.causal = true});
  }

 private:
  void store(const KvCache& from, Index layer, Index first, Index tokens) {
    const auto rows = [&](const TensorView<const float, 4>& x) {
      return TensorView<const float, 3>{x.data + first * x.stride[2],
                                        {heads_, tokens, x.extent[3]},
                                        {x.stride[1], x.stride[2], 1}};
    };
    cache_.store(0, layer * heads_, rows(from.keys<float>(layer)), rows(from.values<float>(layer)));
  }

  Index heads_;
  pare::latent::RaggedCache<float> cache_;
  pare::latent::HeadPages room_;
};

}  // namespace language_model
