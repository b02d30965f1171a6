// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// A trie of the token ids of items: which tokens may follow, and which items a path ends at.
///
/// ```cpp
/// const IdTrie trie(fit.ids, 256);                  // semantic_ids.hpp
/// trie.tokens(IdTrie::root);                        // first tokens, ascending
/// const auto leaf = trie.find(fit.ids.of(7));       // a node, or nothing
/// trie.items(*leaf);                                // {7}, and who shares its tokens
/// ```
///
/// Nodes are numbers, level by level and by their tokens: the children of a node follow one
/// another, sorted by token, and so do the leaves below it. Node 0 is the root. All paths have one
/// length. The trie does not change, and may be read by several threads.
///
/// Compressed rows: per node a token, where its children begin and which leaf is its first, 12
/// bytes, and 8 bytes per item and per leaf. Source: OneRec, arXiv 2502.18965, and generative
/// retrieval at large; the layout is ours.

#include <pare/core/macros_off.hpp>

#include <pare/core/check.hpp>
#include <pare/retrieval/semantic/detail/token_order.hpp>
#include <pare/retrieval/semantic/token_ids.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <optional>
#include <span>
#include <vector>

namespace pare::retrieval {
PARE_ABI_BEGIN

/// The trie of items whose ids have one length.
class IdTrie {
 public:
  using Node = std::int32_t;
  static constexpr Node root = 0;

  /// \param tokens     [items x levels] token ids, item after item; at least one item
  /// \param levels     tokens of an item, at least 1
  /// \param vocabulary tokens of each level: ids are 0 to below it
  /// \throws std::invalid_argument if there is no item, tokens are no rows of levels, one is not in
  ///         the vocabulary, or there may be 2^31 nodes
  ///
  /// Cost: a sort of the items.
  IdTrie(std::span<const std::int32_t> tokens, int levels, Index vocabulary) {
    constexpr const char* function = "retrieval::IdTrie";
    detail::check_tokens(function, tokens, levels);
    check(!tokens.empty(), function, "tokens", "no item", "at least one");
    check(vocabulary >= 1, function, "vocabulary", vocabulary, "at least 1");
    for (const std::int32_t token : tokens)
      check(token < vocabulary, function, "tokens", token,
            Worded{"tokens of the vocabulary, below ", vocabulary});
    check(static_cast<Index>(tokens.size()) < std::numeric_limits<Node>::max(), function, "tokens",
          tokens.size(), "fewer than 2^31 - 1 tokens");
    levels_ = levels;
    vocabulary_ = vocabulary;
    items_ = detail::order_of_tokens(tokens, levels);
    build(tokens);
  }

  /// The same of ids.
  IdTrie(const SemanticIds& ids, Index vocabulary) : IdTrie(ids.tokens, ids.levels, vocabulary) {}

  int levels() const { return levels_; }
  Index vocabulary() const { return vocabulary_; }
  Index nodes() const { return static_cast<Index>(tokens_.size()); }
  /// Paths: nodes of the last level.
  Index leaves() const { return static_cast<Index>(item_begin_.size()) - 1; }

  /// The nodes behind a node, of the same order as `tokens`: [first, first + count).
  struct Children {
    Node first = 0;
    Index count = 0;
  };
  /// \throws std::invalid_argument if the node is none of the trie, here and below
  Children children(Node node) const {
    check_node("retrieval::IdTrie::children", node);
    const auto at = static_cast<std::size_t>(node);
    return {begin_[at], Index{begin_[at + 1]} - begin_[at]};
  }
  /// The tokens of a node's children, ascending; none of a leaf.
  std::span<const std::int32_t> tokens(Node node) const {
    const Children behind = children(node);
    return std::span(tokens_).subspan(static_cast<std::size_t>(behind.first),
                                      static_cast<std::size_t>(behind.count));
  }
  /// The token that leads to a node; -1 for the root.
  std::int32_t token(Node node) const {
    check_node("retrieval::IdTrie::token", node);
    return tokens_[static_cast<std::size_t>(node)];
  }
  /// Where a token leads from a node, if it may follow. Cost: a binary search.
  std::optional<Node> child(Node node, std::int32_t token) const {
    const std::span<const std::int32_t> may = tokens(node);
    const auto* const found = std::lower_bound(may.data(), may.data() + may.size(), token);
    if (found == may.data() + may.size() || *found != token) return std::nullopt;
    return static_cast<Node>(found - tokens_.data());
  }
  /// The node at the end of a path from the root, if there is one; an empty path is the root.
  std::optional<Node> find(std::span<const std::int32_t> path) const {
    std::optional<Node> node = root;
    for (std::size_t i = 0; i < path.size() && node; ++i) node = child(*node, path[i]);
    return node;
  }

  /// The leaves at or below a node, counted from 0: [first, end). Of a leaf itself alone.
  struct Leaves {
    Index first = 0;
    Index end = 0;
  };
  Leaves leaves_of(Node node) const {
    check_node("retrieval::IdTrie::leaves_of", node);
    const auto at = static_cast<std::size_t>(node);
    // The last node of a level has the root of the next one behind it, whose first leaf is 0.
    const Index end = first_leaf_[at + 1];
    return {first_leaf_[at], end > first_leaf_[at] ? end : leaves()};
  }
  /// Whether a node ends a path.
  bool is_leaf(Node node) const {
    check_node("retrieval::IdTrie::is_leaf", node);
    return node >= nodes() - leaves();
  }
  /// The items at or below a node: those of a leaf ascend.
  std::span<const Index> items(Node node) const {
    const Leaves below = leaves_of(node);
    const Index begin = item_begin_[static_cast<std::size_t>(below.first)];
    const Index end = item_begin_[static_cast<std::size_t>(below.end)];
    return std::span(items_).subspan(static_cast<std::size_t>(begin),
                                     static_cast<std::size_t>(end - begin));
  }

 private:
  void check_node(const char* function, Node node) const {
    check(node >= 0 && node < nodes(), function, "node", node,
          Worded{"a node, 0 to below ", nodes()});
  }

  /// Level by level: a node is a run of items, in their order, that share its path.
  void build(std::span<const std::int32_t> tokens) {
    const auto count = static_cast<Index>(items_.size());
    const auto at = [&](Index place, Index level) {
      return tokens[static_cast<std::size_t>(items_[static_cast<std::size_t>(place)] * levels_ +
                                             level)];
    };
    std::vector<Index> runs{0, count}, next;  // where nodes of the level above begin, and the end
    tokens_ = {-1};
    for (Index level = 0; level < levels_; ++level) {
      next.clear();
      for (std::size_t run = 0; run + 1 < runs.size(); ++run) {
        begin_.push_back(static_cast<Node>(tokens_.size()));
        for (Index place = runs[run]; place < runs[run + 1]; ++place) {
          if (place > runs[run] && at(place, level) == at(place - 1, level)) continue;
          tokens_.push_back(at(place, level));
          next.push_back(place);
        }
      }
      next.push_back(count);
      runs.swap(next);
    }
    item_begin_ = runs;
    begin_.resize(tokens_.size() + 1, static_cast<Node>(tokens_.size()));
    count_leaves();
  }

  /// The first leaf of a node is that of its first child.
  void count_leaves() {
    first_leaf_.assign(tokens_.size() + 1, 0);
    const Index first = nodes() - leaves();
    for (Index node = nodes() - 1; node >= 0; --node) {
      const auto at = static_cast<std::size_t>(node);
      first_leaf_[at] = node >= first ? static_cast<Node>(node - first)
                                      : first_leaf_[static_cast<std::size_t>(begin_[at])];
    }
  }

  int levels_ = 0;
  Index vocabulary_ = 0;
  std::vector<std::int32_t> tokens_;  ///< [nodes]
  std::vector<Node> begin_;           ///< [nodes + 1] of children
  std::vector<Node> first_leaf_;      ///< [nodes + 1], 0 at the end
  std::vector<Index> item_begin_;     ///< [leaves + 1] in items
  std::vector<Index> items_;          ///< by path, then by number
};

PARE_ABI_END
}  // namespace pare::retrieval

#include <pare/core/macros_on.hpp>
