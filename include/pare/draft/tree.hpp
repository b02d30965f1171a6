// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// A tree of draft tokens: what a drafter proposes to follow the last committed token, its root.
///
/// ```cpp
/// DraftTree tree;
/// tree.start(last_token, 64);                       // room for 64 nodes, the root among them
/// const Index a = tree.add(0, 17, std::log(0.6));   // log q(17 | context)
/// tree.add(a, 4, std::log(0.9));                    // log q(4 | context, 17)
/// tree.position(a, past);                           // past + 1: where its rotary angle is
/// tree.child(0, 17);                                // a
/// const auto given = DraftTree::from_parents(tokens, parents);  // from a drafter of your own
/// ```
///
/// Nodes are numbered as they are added, so that every parent comes before its children and the
/// first n nodes of a tree are a tree. A node has a depth (0 of the root), the logarithm of the
/// product of its probabilities from the root on, and a row of bits: bit j of row i is set if node
/// j is i or one of its ancestors. That row is what node i sees of the tree (tree_attention.hpp).
///
/// Memory: 40 bytes and ceil(budget / 64) words of 64 bits for each node. `start` keeps it, so that
/// a tree which is built anew in every round allocates in the first rounds only.
///
/// Source: the arrays are those of JetSpec (arXiv 2606.18394, its code) and FR-Spec's masks. Ours:
/// rows of any number of words, so that more than 64 nodes are allowed.

#include <pare/core/macros_off.hpp>

#include <pare/core/ceil_div.hpp>
#include <pare/core/check.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <optional>
#include <span>
#include <vector>

namespace pare::draft {

/// Nodes of a tree, at most. Their masks are 2 MiB.
inline constexpr Index most_nodes = 4096;

/// Whether two children of a node may have the same token. Only candidates that were drawn with
/// replacement need it (SpecInfer): what is drawn twice is tested twice.
enum class Siblings {
  Distinct,
  MayRepeat,
};

PARE_ABI_BEGIN

/// Draft tokens in a tree. It may be copied.
class DraftTree {
 public:
  /// Forgets all nodes and makes a root.
  /// \param token  the last committed token, at least 0
  /// \param budget nodes that there may be, the root among them, from 1 to most_nodes
  /// \throws std::invalid_argument if one is out of its range; the tree is then as before
  void start(std::int32_t token, Index budget, Siblings siblings = Siblings::Distinct) {
    constexpr const char* function = "draft::DraftTree::start";
    check(budget >= 1 && budget <= most_nodes, function, "budget", budget,
          Worded{"from 1 to ", most_nodes, " nodes"});
    check(token >= 0, function, "token", token, "at least 0");
    check_enumerator(function, "siblings", siblings, Siblings::MayRepeat);
    budget_ = budget;
    siblings_ = siblings;
    words_ = ceil_div(budget, Index{64});
    nodes_.clear();
    masks_.clear();
    nodes_.reserve(static_cast<std::size_t>(budget));
    masks_.reserve(static_cast<std::size_t>(budget * words_));
    push({.token = token}, -1);
  }

  /// Adds a child as the last of its siblings.
  /// \param parent          a node
  /// \param token           at least 0
  /// \param log_probability log q(token | context, path to the parent), finite, at most 0
  /// \returns the number of the node
  /// \throws std::invalid_argument if there is no such parent, no room, a number is out of its
  ///         range, or siblings are distinct and one has the token; the tree is then as before
  Index add(Index parent, std::int32_t token, double log_probability = 0) {
    constexpr const char* function = "draft::DraftTree::add";
    check_node(function, "parent", parent);
    check(size() < budget_, function, "tree", Worded{"", size(), " nodes"},
          Worded{"room in the budget of ", budget_, " nodes"});
    check(token >= 0, function, "token", token, "at least 0");
    check(is_finite(log_probability) && log_probability <= 0, function, "log_probability",
          log_probability, "a finite number of at most 0");
    check(siblings_ == Siblings::MayRepeat || !child(parent, token), function, "token", token,
          "a token that no child of the parent has");
    return push({.token = token,
                 .parent = static_cast<std::int32_t>(parent),
                 .depth = of(parent).depth + 1,
                 .log_probability = of(parent).log_probability + log_probability},
                parent);
  }

  /// A tree from arrays, as other drafters give it.
  /// \param tokens  [nodes], that of the root first; at least one
  /// \param parents [nodes], -1 of the root and below i of node i
  /// \param depths  [nodes], checked against the parents; left out: made from them
  /// \param log_probabilities [nodes] of each node after its parent, the root's not read; left
  ///                out: 0
  /// \throws std::invalid_argument if lengths differ, the root's parent is not -1, there is a
  ///         second root, a parent is not before its child, a depth is wrong, or `add` throws
  static DraftTree from_parents(std::span<const std::int32_t> tokens,
                                std::span<const std::int32_t> parents,
                                std::optional<std::span<const std::int32_t>> depths = {},
                                std::optional<std::span<const double>> log_probabilities = {},
                                Siblings siblings = Siblings::Distinct) {
    constexpr const char* function = "draft::DraftTree::from_parents";
    const std::size_t n = tokens.size();
    check(n >= 1, function, "tokens", "no node", "at least the root");
    check(parents.size() == n, function, "parents", parents.size(), n);
    check(!depths || depths->size() == n, function, "depths", depths ? depths->size() : 0, n);
    check(!log_probabilities || log_probabilities->size() == n, function, "log_probabilities",
          log_probabilities ? log_probabilities->size() : 0, n);
    check(parents[0] == -1, function, "parents[0]", parents[0], "-1, which the root has");
    DraftTree tree;
    tree.start(tokens[0], static_cast<Index>(n), siblings);
    for (std::size_t i = 0; i < n; ++i) {
      if (i > 0) {
        check(parents[i] >= 0 && parents[i] < static_cast<Index>(i), function, "parents",
              parents[i], Worded{"from 0 to below ", static_cast<Index>(i), ", the node itself"});
        tree.add(parents[i], tokens[i], log_probabilities ? (*log_probabilities)[i] : 0.0);
      }
      const std::int32_t depth = tree.nodes_[i].depth;
      check(!depths || (*depths)[i] == depth, function, "depths", depths ? (*depths)[i] : 0, depth);
    }
    return tree;
  }

  /// Keeps the first `nodes` nodes, and the room for as many as before.
  /// \throws std::invalid_argument if there are fewer, or nodes is below 1
  void truncate(Index nodes) {
    check(nodes >= 1 && nodes <= size(), "draft::DraftTree::truncate", "nodes", nodes,
          Worded{"from 1 to the ", size(), " nodes of the tree"});
    nodes_.resize(static_cast<std::size_t>(nodes));
    masks_.resize(static_cast<std::size_t>(nodes * words_));
    for (Node& node : nodes_) {
      // Children are in the order of their numbers: those that are gone are the last.
      if (node.first_child >= nodes) node.first_child = node.last_child = -1;
      if (node.next_sibling >= nodes) node.next_sibling = -1;
    }
    for (Index i = 1; i < nodes; ++i) of(of(i).parent).last_child = static_cast<std::int32_t>(i);
  }

  /// Nodes, the root among them; 0 before the first `start`.
  Index size() const { return static_cast<Index>(nodes_.size()); }
  /// Nodes that there may be.
  Index budget() const { return budget_; }
  Siblings siblings() const { return siblings_; }

  // Of a node, 0 <= i < size(); not checked.
  std::int32_t token(Index i) const { return of(i).token; }
  /// -1 of the root.
  Index parent(Index i) const { return of(i).parent; }
  Index depth(Index i) const { return of(i).depth; }
  /// The sum over the path from the root.
  double log_probability(Index i) const { return of(i).log_probability; }
  /// That of node i > 0 after its parent, at most 0, as far as sums tell; -infinity below a node
  /// whose sum is.
  double own_log_probability(Index i) const {
    const double own = log_probability(i) - log_probability(parent(i));
    return own <= 0 ? own : own > 0 ? 0 : -std::numeric_limits<double>::infinity();
  }
  /// The first of its children, and the next of its siblings, in the order in which they were
  /// added; -1: none.
  Index first_child(Index i) const { return of(i).first_child; }
  Index next_sibling(Index i) const { return of(i).next_sibling; }
  /// Where the node stands after `past` committed tokens that come before the root.
  Index position(Index i, Index past) const { return past + depth(i); }

  /// The first child of node i that has a token, if there is one. Cost: one look at each child.
  std::optional<Index> child(Index i, std::int32_t token) const {
    for (Index c = first_child(i); c >= 0; c = next_sibling(c))
      if (of(c).token == token) return c;
    return std::nullopt;
  }

  /// Words of 64 bits in a row of the mask.
  Index mask_words() const { return words_; }
  /// The row of node i: bit j % 64 of word j / 64 is set if j is i or one of its ancestors.
  std::span<const std::uint64_t> mask(Index i) const {
    return {masks_.data() + i * words_, static_cast<std::size_t>(words_)};
  }
  /// Whether node j is i or one of its ancestors; both are nodes, which is not checked.
  bool sees(Index i, Index j) const {
    return (mask(i)[static_cast<std::size_t>(j / 64)] >> (j % 64) & 1) != 0;
  }

  /// \throws std::invalid_argument if there is no such node
  void check_node(const char* function, const char* argument, Index i) const {
    check(i >= 0 && i < size(), function, argument, i, Worded{"a node, from 0 to below ", size()});
  }

 private:
  struct Node {
    std::int32_t token = 0;
    std::int32_t parent = -1;
    std::int32_t depth = 0;
    std::int32_t first_child = -1;
    std::int32_t last_child = -1;
    std::int32_t next_sibling = -1;
    double log_probability = 0;
  };

  Node& of(Index i) { return nodes_[static_cast<std::size_t>(i)]; }
  const Node& of(Index i) const { return nodes_[static_cast<std::size_t>(i)]; }

  Index push(const Node& node, Index parent) {
    const Index i = size();
    nodes_.push_back(node);
    masks_.resize(masks_.size() + static_cast<std::size_t>(words_), 0);
    if (parent >= 0) {
      std::copy_n(masks_.data() + parent * words_, words_, masks_.data() + i * words_);
      const auto number = static_cast<std::int32_t>(i);
      if (of(parent).last_child >= 0)
        of(of(parent).last_child).next_sibling = number;
      else
        of(parent).first_child = number;
      of(parent).last_child = number;
    }
    masks_[static_cast<std::size_t>(i * words_ + i / 64)] |= std::uint64_t{1} << (i % 64);
    return i;
  }

  Index budget_ = 0;
  Index words_ = 0;
  Siblings siblings_ = Siblings::Distinct;
  std::vector<Node> nodes_;
  std::vector<std::uint64_t> masks_;  ///< [nodes, words]
};

PARE_ABI_END
}  // namespace pare::draft

#include <pare/core/macros_on.hpp>
