// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// A cache of latents of all blocks of a model, with which the model generates.
///
/// ```cpp
/// const LatentBlocks blocks = latent_blocks(model, backend, file, {Conversion::Care, 192}, seen);
/// LatentKv<float> cache(model.config().kv_shape(), blocks, 2048);
/// model.forward(backend, prompt, cache, logits);     // as with a KvCache
/// cache.bytes_per_token();                           // of all blocks, exactly what is kept
/// ```
///
/// Each block has a `latent::LatentCache` of its own, of pages of 64 tokens: ranks may differ from
/// block to block.

#include "language_model/kv_cache.hpp"
#include "language_model/latent_blocks.hpp"

#include <pare/core/ceil_div.hpp>
#include <pare/core/check.hpp>
#include <pare/core/scalar.hpp>
#include <pare/latent/cache.hpp>

#include <algorithm>
#include <cstddef>
#include <variant>
#include <vector>

namespace language_model {

/// An AttendingCache whose latents are kept in S: float or bf16.
template <pare::StorageScalar S>
class LatentKv {
 public:
  /// \param shape    of the model that is served
  /// \param blocks   must outlive the cache
  /// \param capacity tokens, at most; their memory is taken now
  /// \throws std::invalid_argument if there are not as many blocks as layers, or as KvCache
  LatentKv(const KvShape& shape, const LatentBlocks& blocks, Index capacity)
      : shape_(shape), blocks_(&blocks), capacity_(capacity) {
    constexpr const char* function = "language_model::LatentKv";
    pare::check(static_cast<Index>(blocks.attention.size()) == shape.layers, function, "blocks",
                blocks.attention.size(), shape.layers);
    pare::check(capacity >= 1 && capacity <= pare::attention::most_tokens - KvCache::page, function,
                "capacity", capacity, "1 to 2^30 - 65 tokens");
    for (const BlockAttention& block : blocks.attention)
      caches_.emplace_back(pare::latent::LatentCacheOptions{
          .latent = std::visit([](const auto& of) { return of.latent(); }, block),
          .rope = std::visit([](const auto& of) { return of.rope(); }, block),
          .pages = pare::ceil_div(capacity, KvCache::page),
          .page_size = KvCache::page});
  }

  const KvShape& shape() const { return shape_; }
  Index capacity() const { return capacity_; }
  Index length() const { return length_; }
  Index bytes_per_token() const {
    Index sum = 0;
    for (const auto& cache : caches_) sum += cache.bytes_per_token();
    return sum;
  }

  /// As of KvCache: room for tokens, whose rows `attend` writes block by block.
  /// \throws std::invalid_argument if there is no room
  void append(Index tokens) {
    pare::check(tokens >= 0 && tokens <= capacity_ - length_, "language_model::LatentKv::append",
                "tokens", tokens, pare::Worded{"at most ", capacity_ - length_, ", the room left"});
    length_ += tokens;
  }
  /// Forgets all but the first tokens.
  /// \throws std::invalid_argument if there are fewer
  void truncate(Index tokens) {
    pare::check(tokens >= 0 && tokens <= length_, "language_model::LatentKv::truncate", "tokens",
                tokens, pare::Worded{"at most ", length_, ", the tokens there are"});
    length_ = tokens;
    for (auto& cache : caches_) cache.truncate(0, std::min(tokens, cache.length(0)));
  }
  void reset() { truncate(0); }

  /// Attention of a block: h [tokens, dim], its norm's rows of the next tokens, to
  /// out [tokens, heads x head dim].
  void attend(const ModelBackend& backend, Index layer, TensorView<const float, 2> h,
              TensorView<float, 2> out) {
    auto& cache = caches_[static_cast<std::size_t>(layer)];
    std::visit([&](const auto& block) { block.attend(backend, h, cache, out); },
               blocks_->attention[static_cast<std::size_t>(layer)]);
  }

 private:
  KvShape shape_;
  const LatentBlocks* blocks_;
  Index capacity_ = 0, length_ = 0;
  std::vector<pare::latent::LatentCache<S>> caches_;
};

}  // namespace language_model
