// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Paged memory of a cache: which row of which page holds a token of a sequence. Pages have any
/// size from one token on; sequences share them and give them back.
///
/// ```cpp
/// PageTable table(1024, 64);                     // 1024 pages of 64 tokens, one store of rows
/// const Index a = table.add();                   // an empty sequence
/// table.append(a, 100);                          // takes two pages
/// const Index b = table.fork(a);                 // shares both
/// const Appended more = table.append(b, 1);      // b gets a page of its own, see more.copy
/// table.evict(a, {.window = 32, .sinks = 4});    // gives back pages that no window reaches
/// table.release(b);
/// ```
///
/// A PageTable holds no rows, only names of pages from 0 to below `pages()`: `LatentCache` and
/// `E4m3Cache` keep their rows by it, and a store of your own can. Token t of a sequence lies in
/// row t % page_size of page `page(sequence, t / page_size)`.
///
/// Positions never change their meaning. `length` counts every token that was appended and not
/// truncated, those that were evicted included, so that the next token has position `length`, its
/// rotary angle is that of this position, and a window or a causal mask of `attention::attend` cuts
/// where it would without eviction. An evicted token has no row: its page is -1, and it must not be
/// read any more.
///
/// Every function checks first and changes nothing if it throws, also where pages run out. Cost: a
/// few nanoseconds per page that is taken, shared or given back. Memory: 8 bytes per page and 4 per
/// page of a sequence. Calls that change a table must not run at the same time as others.
///
/// Sources: Kwon et al., "Efficient Memory Management for Large Language Model Serving with
/// PagedAttention", SOSP 2023, section 4 (pages, sharing, copies on write); Xiao et al., "Efficient
/// Streaming Language Models with Attention Sinks", ICLR 2024 (sinks and a window). Ours: the
/// meaning of positions after an eviction (StreamingLLM counts anew), and eviction by whole pages.

#include <pare/core/macros_off.hpp>

#include <pare/attention/key_value_source.hpp>
#include <pare/core/ceil_div.hpp>
#include <pare/core/check.hpp>
#include <pare/latent/detail/shared_pages.hpp>
#include <pare/latent/page_types.hpp>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <utility>
#include <vector>

namespace pare::latent {

PARE_ABI_BEGIN

/// Sequences of tokens over pages that they may share. It may be copied.
class PageTable {
 public:
  /// \param pages     at least 1, below 2^31
  /// \param page_size tokens of a page, at least 1, at most `attention::most_tokens`
  /// \throws std::invalid_argument if one is out of its range
  PageTable(Index pages, Index page_size, const char* function = "latent::PageTable")
      : pages_(detail::checked_pages(function, pages, page_size)), page_size_(page_size) {}

  Index pages() const { return pages_.size(); }
  Index page_size() const { return page_size_; }
  Index free_pages() const { return pages_.free(); }

  /// Every sequence has a number below this; the last is in use, some before it may be released.
  Index sequences() const { return static_cast<Index>(sequences_.size()); }
  /// Whether there is such a sequence that is not released.
  bool has(Index sequence) const {
    return sequence >= 0 && sequence < sequences() && of(sequence).used;
  }
  /// Tokens of a sequence below `sequences()`, evicted ones included; 0 of a released one.
  Index length(Index sequence) const { return of(sequence).length; }
  /// The page of tokens [i page_size, (i + 1) page_size), -1 if it was evicted. i is below
  /// ceil(length / page_size); not checked.
  Index page(Index sequence, Index i) const {
    return of(sequence).pages[static_cast<std::size_t>(i)];
  }
  /// Where a token lies; its position is below the length, which is not checked.
  PARE_ALWAYS_INLINE PageRow row(Index sequence, Index position) const {
    return {page(sequence, position / page_size_), position % page_size_};
  }
  /// Whether there is such a token and it was not evicted.
  bool holds(Index sequence, Index position) const {
    return has(sequence) && position >= 0 && position < length(sequence) &&
           row(sequence, position).page >= 0;
  }
  /// How many sequences share a page; 0 of a free one.
  Index sharers(Index page) const { return pages_.sharers(page); }

  /// An empty sequence: the lowest number that is released, which is looked for, or a new one.
  Index add() {
    const bool is_new = released_ == 0;
    Index number = is_new ? sequences() : 0;
    if (is_new) sequences_.emplace_back();
    while (of(number).used) ++number;
    released_ -= is_new ? 0 : 1;
    of(number).used = true;
    return number;
  }

  /// A sequence with the first `tokens` tokens of another, or all, in the same pages. What either
  /// appends later the other does not see. Takes no page.
  /// \throws std::invalid_argument if there is no such sequence, or not as many tokens, or the
  ///         last of them was evicted with tokens behind it in its page, which `append` would need
  Index fork(Index sequence, std::optional<Index> tokens = {}) {
    constexpr const char* function = "latent::PageTable::fork";
    check_sequence(function, sequence);
    const Index n = tokens.value_or(length(sequence));
    check_length(function, "tokens", sequence, n);
    const auto from = of(sequence).pages.begin();
    std::vector<std::int32_t> shared(from, from + ceil_div(n, page_size_));
    const Index number = add();
    for (const std::int32_t p : shared)
      if (p >= 0) pages_.share(p);
    of(number) = {
        .pages = std::move(shared), .length = n, .used = true, .evicted = of(sequence).evicted};
    return number;
  }

  /// Ends a sequence and gives back the pages that no other one shares. Its number is free.
  /// \throws std::invalid_argument if there is no such sequence
  void release(Index sequence) {
    constexpr const char* function = "latent::PageTable::release";
    check_sequence(function, sequence);
    drop_pages(of(sequence), 0);
    of(sequence) = {.pages = std::move(of(sequence).pages)};
    for (++released_; !sequences_.empty() && !sequences_.back().used; --released_)
      sequences_.pop_back();
  }

  /// Free pages that an append of so many tokens would take: those of new tokens, and one more if
  /// the last page has room that other sequences share.
  Index pages_for(Index sequence, Index tokens) const {
    const Index n = length(sequence);
    if (tokens <= 0) return 0;
    const Index beyond = tokens - (ceil_div(n, page_size_) * page_size_ - n);  // the last page
    return ceil_div(std::max<Index>(beyond, 0), page_size_) + (shares_room(n, sequence) ? 1 : 0);
  }

  /// Room for `tokens` more tokens, whose rows the caller writes. If the last page is shared and
  /// not full, the sequence gets a copy of it, which the caller makes as `copy` says.
  /// \throws std::invalid_argument if there is no such sequence, tokens are negative, there are
  ///         fewer free pages than `pages_for` says, or the sequence would have 2^30 tokens
  Appended append(Index sequence, Index tokens,
                  const char* function = "latent::PageTable::append") {
    check_append(function, sequence, tokens);
    Sequence& s = of(sequence);
    Appended done{s.length, {}};
    if (tokens == 0) return done;
    const auto wanted = static_cast<std::size_t>(ceil_div(s.length + tokens, page_size_));
    if (wanted > s.pages.capacity()) s.pages.reserve(std::max(wanted, 2 * s.pages.capacity()));
    if (shares_room(s.length, sequence)) {
      std::int32_t& last = s.pages.back();
      done.copy = PageCopy{last, pages_.exchange(last), s.length % page_size_};
      last = static_cast<std::int32_t>(done.copy->to);
    }
    while (s.pages.size() < wanted) s.pages.push_back(pages_.take());
    s.length += tokens;
    return done;
  }

  /// Throws as `append` would.
  void check_append(const char* function, Index sequence, Index tokens) const {
    check_sequence(function, sequence);
    const Index n = length(sequence);
    check(tokens >= 0 && tokens <= attention::most_tokens - n, function, "tokens", tokens,
          Worded{"from 0 to ", attention::most_tokens - n, " more tokens"});
    check(pages_for(sequence, tokens) <= free_pages(), function, "tokens",
          Worded{"tokens that take ", pages_for(sequence, tokens), " pages"},
          Worded{"at most the ", free_pages(), " free pages"});
  }

  /// Forgets the tokens from position `length` on and gives back their pages.
  /// \throws std::invalid_argument as `fork`
  void truncate(Index sequence, Index length) {
    constexpr const char* function = "latent::PageTable::truncate";
    check_sequence(function, sequence);
    check_length(function, "length", sequence, length);
    drop_pages(of(sequence), ceil_div(length, page_size_));
    of(sequence).length = length;
  }

  /// Gives a sequence pages of its own in place of those that it shares, from the page of position
  /// `first` on, so that rows there may be changed. The caller makes the copies.
  /// \throws std::invalid_argument if there is no such sequence or position, a page was evicted, or
  ///         there are too few free pages
  std::vector<PageCopy> unshare(Index sequence, Index first,
                                const char* function = "latent::PageTable::unshare") {
    check_sequence(function, sequence);
    check(first >= 0 && first <= length(sequence), function, "first", first,
          Worded{"from 0 to the ", length(sequence), " tokens of the sequence"});
    std::vector<PageCopy> copies;
    Sequence& s = of(sequence);
    const auto size = static_cast<Index>(s.pages.size());
    for (Index i = first / page_size_; i < size; ++i) {
      check(page(sequence, i) >= 0, function, "first", first, "no evicted tokens behind it");
      if (sharers(page(sequence, i)) > 1) copies.push_back({page(sequence, i), i, page_size_});
    }
    check(static_cast<Index>(copies.size()) <= free_pages(), function, "pages", copies.size(),
          Worded{"at most the ", free_pages(), " free pages"});
    for (PageCopy& c : copies) {  // `to` is still the place in the sequence
      std::int32_t& shared = s.pages[static_cast<std::size_t>(c.to)];
      c.to = shared = pages_.exchange(shared);
    }
    return copies;
  }

  /// Gives back the pages none of whose tokens is kept. A page stays as a whole if one of its
  /// tokens is kept, so that up to 2 (page_size - 1) tokens more than those stay. To attend with
  /// `window` w and `sinks` s, keep as many.
  /// \returns the pages that the sequence gave back; those that others share stay theirs
  /// \throws std::invalid_argument if there is no such sequence or a count is negative
  Index evict(Index sequence, KeptTokens kept) {
    constexpr const char* function = "latent::PageTable::evict";
    check_sequence(function, sequence);
    check(kept.window >= 0, function, "window", kept.window, "at least 0");
    check(kept.sinks >= 0, function, "sinks", kept.sinks, "at least 0");
    Sequence& s = of(sequence);
    const Index end = kept.window < s.length ? (s.length - kept.window) / page_size_ : 0;
    const Index begin = kept.sinks < s.length ? ceil_div(kept.sinks, page_size_) : end;
    Index count = 0;
    for (Index i = begin; i < end; ++i) {
      std::int32_t& page = s.pages[static_cast<std::size_t>(i)];
      if (page < 0) continue;
      pages_.give_back(page);
      page = -1;
      ++count;
    }
    s.evicted = s.evicted || count > 0;
    return count;
  }

  /// \throws std::invalid_argument if there is no such sequence or it is released
  void check_sequence(const char* function, Index sequence) const {
    check(has(sequence), function, "sequence", sequence,
          Worded{"a sequence in use, below ", sequences()});
  }

  /// \throws std::invalid_argument if a call that reads the keys read_of(sequence) would read one
  ///         that was evicted. Cost: one pass over the pages of sequences with evicted tokens.
  template <class ReadOf>
  void check_held(const char* function, const ReadOf& read_of) const {
    for (Index s = 0; s < sequences(); ++s) {
      if (!of(s).evicted) continue;
      const attention::KeysRead read = read_of(s);
      for (Index i = 0; i < static_cast<Index>(of(s).pages.size()); ++i) {
        const Index first = i * page_size_, end = std::min(first + page_size_, length(s));
        check(page(s, i) >= 0 || (first >= read.sinks && end <= read.first), function, "cache",
              std::array<Index, 3>{s, first, end},
              "no [sequence, first, end) of evicted tokens that the call reads");
      }
    }
  }

 private:
  struct Sequence {
    std::vector<std::int32_t> pages{};
    Index length = 0;
    bool used = false;
    bool evicted = false;  ///< whether a page may be -1
  };

  Sequence& of(Index sequence) { return sequences_[static_cast<std::size_t>(sequence)]; }
  const Sequence& of(Index sequence) const {
    return sequences_[static_cast<std::size_t>(sequence)];
  }

  bool shares_room(Index length, Index sequence) const {
    return length % page_size_ != 0 && sharers(of(sequence).pages.back()) > 1;
  }

  void check_length(const char* function, const char* name, Index sequence, Index n) const {
    check(n >= 0 && n <= length(sequence), function, name, n,
          Worded{"from 0 to the ", length(sequence), " tokens of the sequence"});
    check(n % page_size_ == 0 || page(sequence, n / page_size_) >= 0, function, name, n,
          "a length whose last page was not evicted");
  }

  void drop_pages(Sequence& s, Index kept) {
    while (static_cast<Index>(s.pages.size()) > kept) {
      if (s.pages.back() >= 0) pages_.give_back(s.pages.back());
      s.pages.pop_back();
    }
  }

  detail::SharedPages pages_;
  Index page_size_;
  std::vector<Sequence> sequences_;
  Index released_ = 0;  ///< how many of them
};

PARE_ABI_END
}  // namespace pare::latent

#include <pare/core/macros_on.hpp>
