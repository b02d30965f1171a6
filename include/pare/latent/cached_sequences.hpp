// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// The sequences of a cache: what every cache of this folder has from its PageTable.
///
/// ```cpp
/// LatentCache<float> cache({.latent = 512, .rope = 64, .pages = 256, .sequences = 2});
/// const Index branch = cache.fork(0);           // shares the pages of sequence 0
/// cache.truncate(branch, 100);                  // its first 100 tokens
/// cache.evict(1, {.window = 4096, .sinks = 4});
/// cache.release(branch);
/// ```
///
/// pages.hpp says what each of them does, costs and refuses, and what positions mean after an
/// eviction.

#include <pare/core/macros_off.hpp>

#include <pare/attention/key_value_source.hpp>
#include <pare/latent/pages.hpp>

#include <cstddef>
#include <optional>
#include <span>

namespace pare::latent {
PARE_ABI_BEGIN

/// Sequences over pages, to derive a cache from.
class CachedSequences {
 public:
  /// Rows are wider than the heads that were trained: attention must be given their scale.
  static constexpr bool needs_scale = true;

  /// Which page holds what.
  const PageTable& table() const { return table_; }

  /// Numbers of sequences are below this; a released one has length 0.
  Index sequences() const { return table_.sequences(); }
  /// Tokens of a sequence, evicted ones included: the position of the next one.
  Index length(Index sequence) const { return table_.length(sequence); }

  /// An empty sequence.
  Index add() { return table_.add(); }
  /// A sequence with the first `tokens` tokens of another, or all of them, in the same pages.
  Index fork(Index sequence, std::optional<Index> tokens = {}) {
    return table_.fork(sequence, tokens);
  }
  void release(Index sequence) { table_.release(sequence); }
  void truncate(Index sequence, Index length) { table_.truncate(sequence, length); }
  Index evict(Index sequence, KeptTokens kept) { return table_.evict(sequence, kept); }

  /// \throws std::invalid_argument if a token was evicted
  void validate(const char* function) const {
    validate(function, [](Index) { return attention::KeysRead{}; });
  }
  /// \throws std::invalid_argument if one of the keys read_of(sequence) was evicted
  template <class ReadOf>
  void validate(const char* function, const ReadOf& read_of) const {
    table_.check_held(function, read_of);
  }

 protected:
  /// Takes tokens [first, first + tokens) out of a sequence: copy(page) makes a page its own,
  /// move(to, from) moves the row of a position to another.
  template <class Copy, class Move>
  void discard_tokens(const char* function, Index sequence, Index first, Index tokens,
                      const Copy& copy, const Move& move) {
    table_.check_sequence(function, sequence);
    const Index n = length(sequence);
    check(first >= 0 && first <= n, function, "first", first,
          Worded{"from 0 to the ", n, " tokens of the sequence"});
    check(tokens >= 0 && tokens <= n - first, function, "tokens", tokens,
          Worded{"at most the ", n - first, " from the first on"});
    if (tokens == 0) return;
    for (const PageCopy& page : table_.unshare(sequence, first, function)) copy(page);
    for (Index to = first; to < n - tokens; ++to) move(to, to + tokens);
    table_.truncate(sequence, n - tokens);
  }

  /// Of the tokens from position `first` on keeps those `first` + kept, ascending, side by side;
  /// copy and move as above.
  template <class Copy, class Move>
  void keep_tokens(const char* function, Index sequence, Index first, std::span<const Index> kept,
                   const Copy& copy, const Move& move) {
    table_.check_sequence(function, sequence);
    const Index n = length(sequence), count = static_cast<Index>(kept.size());
    check(first >= 0 && first <= n, function, "first", first,
          Worded{"from 0 to the ", n, " tokens of the sequence"});
    Index same = 0;  // the first of them stay where they are
    for (Index i = 0, least = 0; i < count; ++i) {
      const Index t = kept[static_cast<std::size_t>(i)];
      check(t >= least && t < n - first, function, "kept", t,
            Worded{"an ascending list of tokens below ", n - first});
      same += t == i ? 1 : 0;
      least = t + 1;
    }
    if (same < count)
      for (const PageCopy& page : table_.unshare(sequence, first + same, function)) copy(page);
    for (Index i = same; i < count; ++i) move(first + i, first + kept[static_cast<std::size_t>(i)]);
    table_.truncate(sequence, first + count);
  }

  CachedSequences(const char* function, Index pages, Index page_size, Index sequences)
      : table_(pages, page_size, function) {
    check(sequences >= 0 && sequences <= attention::most_tokens, function, "sequences", sequences,
          "from 0 to below 2^30 sequences");
    for (Index i = 0; i < sequences; ++i) table_.add();
  }

  PageTable table_;
};

PARE_ABI_END
}  // namespace pare::latent

#include <pare/core/macros_on.hpp>
