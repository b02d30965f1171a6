// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Heads of an attention layer whose rotary dimensions a conversion takes apart.
///
/// ```cpp
/// const AttentionShape shape{.heads = 32, .kv_heads = 8, .head_dim = 128,
///                            .layout = transformer::RotaryLayout::HalfSplit};
/// ```
///
/// W_Q is [heads x head_dim, d], W_K [kv_heads x head_dim, d], W_V [kv_heads x any, d], rows of
/// heads one after the other; heads / kv_heads query heads share a key head. Layers have no biases.

#include <pare/core/macros_off.hpp>

#include <pare/core/check.hpp>
#include <pare/transformer/rotary.hpp>

#include <optional>

namespace pare::latent {
PARE_ABI_BEGIN

struct AttentionShape {
  Index heads = 0;     ///< of queries, a multiple of kv_heads
  Index kv_heads = 0;  ///< of keys and values
  Index head_dim = 0;  ///< numbers of a query and of a key

  /// Numbers of a head that are rotated, the first; even, at least 2. Left out: all.
  std::optional<Index> rotary{};
  /// Which numbers are a pair: Interleaved in Meta's checkpoints of Llama and in .gguf files of the
  /// architecture "llama"; HalfSplit in those of Hugging Face (Llama, Qwen, Gemma and others), and
  /// in .gguf files of most other architectures. The wrong one converts without a complaint.
  transformer::RotaryLayout layout = transformer::RotaryLayout::Interleaved;

  /// Query heads per key head.
  Index group() const { return heads / kv_heads; }
  /// Rotated pairs of a head.
  Index pairs() const { return rotary.value_or(head_dim) / 2; }
  /// The number of a head that is the first or second of a pair.
  Index channel(Index pair, Index part) const { return pair_channel(layout, pair, part, pairs()); }

  /// The same of a row of `count` pairs.
  static Index pair_channel(transformer::RotaryLayout layout, Index pair, Index part, Index count) {
    return layout == transformer::RotaryLayout::Interleaved ? 2 * pair + part : pair + part * count;
  }

  /// \throws std::invalid_argument if a member is out of its range; `function` is named
  void validate(const char* function) const {
    check(kv_heads >= 1, function, "kv_heads", kv_heads, "at least 1");
    check(heads >= 1 && heads % kv_heads == 0, function, "heads", heads,
          Worded{"a multiple of kv_heads, ", kv_heads});
    check(head_dim >= 1, function, "head_dim", head_dim, "at least 1");
    const Index dims = rotary.value_or(head_dim);
    check(dims >= 2 && dims % 2 == 0 && dims <= head_dim, function, "rotary", dims,
          Worded{"an even number from 2 to head_dim, ", head_dim});
    checked_product(function, "heads", heads, head_dim);
    check_enumerator(function, "layout", layout, transformer::RotaryLayout::HalfSplit);
  }
};

PARE_ABI_END
}  // namespace pare::latent

#include <pare/core/macros_on.hpp>
