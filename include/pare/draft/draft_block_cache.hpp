// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// What a draft block keeps between rounds: the keys and values of the context in each of its
/// layers. Those of the block itself are gone after a round.
///
/// ```cpp
/// DraftBlockCache<float> cache(config, {.tokens = 4096});
/// block.forward(tapped, embeddings, cache, rows);  // cache.length(0) grows by tapped.rows()
/// cache.truncate(0, 100);                          // back to the first 100 tokens
/// DraftBlockCache<pare::bf16> half(config, {.tokens = 4096});
/// ```
///
/// The context of a round is what the target has states of: the committed tokens but the last,
/// which is the anchor of the next block. So `length` is the anchor's position.
///
/// A cache of bf16 or f16 rounds keys and values once and has half the bytes; attention reads them
/// as float. The rows of a block are then those of a float cache whose keys and values, the block's
/// own among them, are so rounded. It saves memory, not time: attention widens each row once a
/// call, with which a block of 16 rows behind 512, 4096 and 8192 tokens took 1.03, 1.3 and 1.4
/// times as long as with a float cache (bf16; f16 1.2, 1.9 and 2.2; five layers of 576 on a Zen 5).
///
/// All layers have one length, which grows when a call is done. (JetSpec's code once asked layer 0
/// for its length after that had grown, and later layers then hid nothing of a block from it.)

#include <pare/core/macros_off.hpp>

#include <pare/attention/key_value_source.hpp>
#include <pare/core/aligned_buffer.hpp>
#include <pare/core/check.hpp>
#include <pare/core/scalar.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/draft/draft_block_config.hpp>

#include <algorithm>
#include <cstddef>
#include <vector>

namespace pare::draft {
namespace detail {
PARE_ABI_BEGIN
template <class B, class Block, class S>
class DraftBlockCall;
PARE_ABI_END
}  // namespace detail

/// Options of DraftBlockCache.
struct DraftBlockCacheOptions {
  Index tokens = 0;     ///< of context, for each sequence: at least 1
  Index sequences = 1;  ///< at least 1
};

PARE_ABI_BEGIN

/// Keys and values of S [layers, sequences, tokens + block, kv heads x head dim]. It can be moved,
/// not copied.
template <StorageScalar S>
class DraftBlockCache {
 public:
  using storage = S;
  using scalar = compute_t<S>;  ///< of the blocks that it is for

  /// \throws std::invalid_argument if the config is not valid, an option is below 1, there are more
  ///         tokens than attention counts, or the bytes do not fit `Index`
  /// Memory: 2 layers sequences (tokens + block) kv_heads head_dim numbers of S.
  DraftBlockCache(const DraftBlockConfig& config, const DraftBlockCacheOptions& options)
      : config_(config), capacity_(options.tokens), sequences_(options.sequences) {
    config.validate(name);
    check(sequences_ >= 1, name, "sequences", sequences_, "at least 1");
    check(capacity_ >= 1 && capacity_ <= attention::most_tokens - config.block, name, "tokens",
          capacity_, Worded{"1 to ", attention::most_tokens - config.block});
    const Index of_layer = checked_product(
        name, "tokens",
        checked_product(name, "tokens", capacity_ + config.block, config.key_width()), sequences_);
    const Index size = checked_product(name, "tokens",
                                       checked_product(name, "tokens", of_layer, config.layers), 2);
    memory_.resize(static_cast<std::size_t>(checked_count(name, "tokens", size, sizeof(S))));
    lengths_.assign(static_cast<std::size_t>(sequences_), 0);
  }

  Index layers() const { return config_.layers; }
  Index sequences() const { return sequences_; }
  Index kv_heads() const { return config_.kv_heads; }
  Index head_dim() const { return config_.head_dim; }
  Index block() const { return config_.block; }
  /// Tokens of context that a sequence may have.
  Index capacity() const { return capacity_; }
  /// Tokens of context that it has.
  Index length(Index sequence) const { return lengths_[static_cast<std::size_t>(sequence)]; }

  /// Keeps the first `length` tokens of a sequence, after the target has taken some back.
  /// \throws std::invalid_argument if there is no such sequence or it is shorter
  void truncate(Index sequence, Index length) {
    constexpr const char* function = "draft::DraftBlockCache::truncate";
    check(sequence >= 0 && sequence < sequences_, function, "sequence", sequence,
          Worded{"from 0 to below ", sequences_});
    Index& own = lengths_[static_cast<std::size_t>(sequence)];
    check(length >= 0 && length <= own, function, "length", length,
          Worded{"0 to the tokens of the sequence, ", own});
    own = length;
  }

  /// Keys of a layer, rotated, and values, [sequences, kv heads, tokens + block, head dim]. Of a
  /// sequence the first `length` tokens are set.
  TensorView<const S, 4> keys(Index layer) const { return of_layer(0, layer); }
  TensorView<const S, 4> values(Index layer) const { return of_layer(1, layer); }

 private:
  static constexpr const char* name = "draft::DraftBlockCache";

  template <class B, class Block, class Storage>
  friend class detail::DraftBlockCall;

  TensorView<S, 4> of_layer(Index kind, Index layer) const {
    const Index row = config_.key_width(), sequence = (capacity_ + config_.block) * row;
    return {memory_.data() + (kind * config_.layers + layer) * sequences_ * sequence,
            {sequences_, config_.kv_heads, capacity_ + config_.block, config_.head_dim},
            {sequence, config_.head_dim, row, 1}};
  }

  /// Sets rows [tokens, kv heads x head dim] of a layer, each of a sequence and at a position.
  void write(Index layer, const Index* sequences, const Index* positions,
             TensorView<const scalar, 2> keys, TensorView<const scalar, 2> values) {
    const auto round = [](scalar x) { return static_cast<S>(x); };
    const auto k = of_layer(0, layer), v = of_layer(1, layer);
    for (Index r = 0; r < keys.rows(); ++r) {
      std::transform(&keys(r, 0), &keys(r, 0) + keys.cols(), &k(sequences[r], 0, positions[r], 0),
                     round);
      std::transform(&values(r, 0), &values(r, 0) + values.cols(),
                     &v(sequences[r], 0, positions[r], 0), round);
    }
  }
  void grow(Index sequence, Index tokens) {
    lengths_[static_cast<std::size_t>(sequence)] += tokens;
  }

  DraftBlockConfig config_;
  Index capacity_, sequences_;
  AlignedBuffer<S> memory_;
  std::vector<Index> lengths_;
};

PARE_ABI_END
}  // namespace pare::draft

#include <pare/core/macros_on.hpp>
