// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Prompt lookup: draft tokens are those that followed the last few tokens where these stood
/// before. It needs no model, and pays where answers repeat what was read: summaries, edits of
/// code.
///
/// ```cpp
/// prompt_lookup(text, tree);                                       // a chain of up to 10 tokens
/// prompt_lookup(text, tree, {.longest_match = 4, .budget = 16, .matches = 4});   // a tree
/// ```
///
/// The longest suffix of the text, of at most longest_match tokens, is looked for that also stands
/// earlier in it; what followed there is drafted. With more than one match, the continuations are
/// merged into a tree, the one that is taken first as its first branch; q of a node is the share of
/// its parent's matches that go on with it. With none, the tree is its root alone.
///
/// Source: Saxena, "Prompt lookup decoding", 2023 (a match of 3 tokens, shorter ones if there is
/// none, 10 tokens drafted, the first match); Yang et al., "Inference with reference" (LLMA), 2023.
/// Ours: trees of several matches. Saxena's and Hugging Face's code takes the first match of the
/// text; `latest` takes the last one first.

#include <pare/core/macros_off.hpp>

#include <pare/core/check.hpp>
#include <pare/draft/tree.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

namespace pare::draft {

/// Options of prompt_lookup.
struct PromptLookupOptions {
  Index longest_match = 3;   ///< tokens, at least shortest_match; Saxena's 3
  Index shortest_match = 1;  ///< tokens, at least 1
  Index tokens = 10;         ///< of a continuation, at least 0; Saxena's 10
  Index matches = 1;         ///< that are followed, at least 1
  bool latest = false;       ///< the last matches in place of the first ones

  /// Nodes of the tree, the root among them, at least 1. Left out: room for all continuations, at
  /// most most_nodes.
  std::optional<Index> budget{};
};

namespace detail {
PARE_ABI_BEGIN

inline void check_lookup(const char* function, std::span<const std::int32_t> text,
                         const PromptLookupOptions& o) {
  check(!text.empty(), function, "text", "no token", "at least the last one");
  check(*std::min_element(text.begin(), text.end()) >= 0, function, "text", "a token below 0",
        "tokens of at least 0");
  check(o.shortest_match >= 1, function, "shortest_match", o.shortest_match, "at least 1");
  check(o.longest_match >= o.shortest_match, function, "longest_match", o.longest_match,
        Worded{"at least the shortest, ", o.shortest_match});
  check(o.tokens >= 0 && o.tokens < most_nodes, function, "tokens", o.tokens,
        Worded{"from 0 to below ", most_nodes});
  check(o.matches >= 1 && o.matches <= most_nodes, function, "matches", o.matches,
        Worded{"from 1 to ", most_nodes});
  check(!o.budget || (*o.budget >= 1 && *o.budget <= most_nodes), function, "budget",
        o.budget.value_or(1), Worded{"from 1 to ", most_nodes});
}

/// Walks over the places that follow a match of the last n tokens, in the order of the options, and
/// calls visit(place) for as many as they allow. Returns how many there were.
template <class Visit>
Index for_matches(std::span<const std::int32_t> text, Index n, const PromptLookupOptions& o,
                  const Visit& visit) {
  const auto size = static_cast<Index>(text.size());
  const auto suffix = text.end() - n;
  Index found = 0;
  for (Index i = 0; i < size - n && found < o.matches; ++i) {
    const Index at = o.latest ? size - n - 1 - i : i;
    if (!std::equal(suffix, text.end(), text.begin() + at)) continue;
    visit(at + n);
    ++found;
  }
  return found;
}

/// How many matches begin with the tokens to a node.
template <class Path>
Index count_through(std::span<const std::int32_t> text, Index n, const PromptLookupOptions& o,
                    const Path& path, Index depth) {
  Index count = 0;
  for_matches(text, n, o, [&](Index place) {
    const Index left = static_cast<Index>(text.size()) - place;
    bool same = depth <= left;
    for (Index d = 0; same && d < depth; ++d)
      same = text[static_cast<std::size_t>(place + d)] == path(d);
    count += same ? 1 : 0;
  });
  return count;
}

/// Adds the continuation at a place, as far as the budget goes.
inline void add_continuation(std::span<const std::int32_t> text, Index n,
                             const PromptLookupOptions& o, Index place, DraftTree& tree) {
  const Index count = std::min(o.tokens, static_cast<Index>(text.size()) - place);
  const auto token = [&](Index d) { return text[static_cast<std::size_t>(place + d)]; };
  Index node = 0, through = -1;
  for (Index d = 0; d < count; ++d) {
    if (const auto child = tree.child(node, token(d))) {
      node = *child;
      through = -1;
      continue;
    }
    if (tree.size() == tree.budget()) return;
    double log_probability = 0;
    if (o.matches > 1) {
      const Index before = through >= 0 ? through : count_through(text, n, o, token, d);
      through = count_through(text, n, o, token, d + 1);
      log_probability = std::log(static_cast<double>(through) / static_cast<double>(before));
    }
    node = tree.add(node, token(d), log_probability);
  }
}

PARE_ABI_END
}  // namespace detail
PARE_ABI_BEGIN

/// Drafts from what the text holds.
/// \param text [tokens] prompt and answer so far, each at least 0; the last is the root
/// \param tree written
/// \returns the length of the match; 0: there was none
/// \throws std::invalid_argument if the text is empty or an option is out of its range. The tree is
///         then as before.
/// Cost: a pass over the text for each length of match that is tried; with several matches, two
/// more for each node. Memory: that of the tree.
inline Index prompt_lookup(std::span<const std::int32_t> text, DraftTree& tree,
                           const PromptLookupOptions& options = {}) {
  detail::check_lookup("draft::prompt_lookup", text, options);
  const Index all =
      options.tokens == 0
          ? 1
          : 1 + std::min((most_nodes - 1) / options.tokens, options.matches) * options.tokens;
  tree.start(text.back(), options.budget.value_or(all));
  const auto size = static_cast<Index>(text.size());
  for (Index n = std::min(options.longest_match, size - 1); n >= options.shortest_match; --n) {
    const Index found = detail::for_matches(text, n, options, [&](Index place) {
      detail::add_continuation(text, n, options, place, tree);
    });
    if (found > 0) return n;
  }
  return 0;
}

PARE_ABI_END
}  // namespace pare::draft

#include <pare/core/macros_on.hpp>
