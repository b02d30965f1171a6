// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// The best tree of a fixed shape (Sequoia): how many children each node has, where all that is
/// known is how often the r-th child of a node is accepted.
///
///     F(tree) = sum over its nodes of the product of P_rank over the path   (the root counts 1)
///
/// ```cpp
/// const StaticTree shape = static_tree(acceptance, {.nodes = 64, .depth = 10});
/// fill_static(shape, last_token, shared_lists(tokens, log_probabilities), tree);
/// const StaticTree best = choose_static_tree(acceptance, {.nodes = 64, .depth = 10},
///                                            draft_seconds, [](Index n) { return seconds(n); });
/// ```
///
/// F is the expected number of tokens of a round. Of all trees with so many nodes and so deep at
/// most, whose node has its children in the order of ranks, static_tree finds one of greatest F,
/// by dynamic programming over (nodes, depth, children of the root):
///
///     T[m][l][b] = max over y of T[m - y][l][b - 1] + P_b max over c of T[y][l - 1][c]
///
/// A shape is made once, for a model and a kind of text. Trees by the draft's own probabilities
/// (best_first.hpp) are better where these are at hand.
///
/// Source: Chen et al., "Sequoia", 2024, section 4.1, and its code (tree_search.py).

#include <pare/core/macros_off.hpp>

#include <pare/core/backend.hpp>
#include <pare/core/check.hpp>
#include <pare/draft/transition_table.hpp>
#include <pare/draft/tree.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace pare::draft {

/// Options of static_tree.
struct StaticTreeOptions {
  Index nodes = 64;  ///< the root among them, from 1 to 512; Sequoia's demonstration: 128
  Index depth = 10;  ///< no node is deeper; from 0 to 64; 10 is Sequoia's
};

/// A shape.
struct StaticTree {
  std::vector<Index> parents{};  ///< of each node; -1 of the root, which is the first
  std::vector<Index> ranks{};    ///< of each node among its siblings, from 0; the root's is 0
  double expected_tokens = 0;    ///< F

  Index size() const { return static_cast<Index>(parents.size()); }
};

namespace detail {
PARE_ABI_BEGIN

/// Where a node of a shape went: in the draft tree, and its children's list; -1: it was left out,
/// there is none.
struct StaticPlace {
  Index node = -1;
  Index row = -1;
};

/// T, and the y by which each is reached.
class StaticSearch {
 public:
  StaticSearch(std::span<const double> acceptance, const StaticTreeOptions& options)
      : p_(acceptance),
        nodes_(options.nodes),
        levels_(options.depth + 1),
        children_(static_cast<Index>(acceptance.size())),
        value_(static_cast<std::size_t>((nodes_ + 1) * levels_ * (children_ + 1)), none),
        last_(value_.size(), 0) {
    for (Index l = 0; l < levels_; ++l) {
      value(1, l, 0) = 1;
      for (Index m = 2; l > 0 && m <= nodes_; ++m)
        for (Index b = 1; b <= std::min(children_, m - 1); ++b) fill(m, l, b);
      for (Index m = 0; m <= nodes_; ++m) best_.push_back(value(m, l, best_children(m, l)));
    }
  }

  /// The greatest F of exactly m nodes and at most l levels below the root; below 0: there is none.
  double best(Index m, Index l) const {
    return best_[static_cast<std::size_t>(l * (nodes_ + 1) + m)];
  }

  StaticTree tree(Index m, Index l) {
    StaticTree shape;
    shape.expected_tokens = best(m, l);
    add(m, l, -1, 0, shape);
    return shape;
  }

 private:
  static constexpr double none = -1;

  std::size_t at(Index m, Index l, Index b) const {
    return static_cast<std::size_t>((m * levels_ + l) * (children_ + 1) + b);
  }
  double& value(Index m, Index l, Index b) { return value_[at(m, l, b)]; }

  Index best_children(Index m, Index l) {
    Index most = 0;
    for (Index b = 1; b <= children_; ++b)
      if (value(m, l, b) > value(m, l, most)) most = b;
    return most;
  }

  /// The last of b children has y of the m nodes.
  void fill(Index m, Index l, Index b) {
    for (Index y = 1; y < m; ++y) {
      const double rest = value(m - y, l, b - 1), below = best(y, l - 1);
      if (rest < 0 || below < 0) continue;
      const double sum = rest + p_[static_cast<std::size_t>(b - 1)] * below;
      if (sum > value(m, l, b)) {
        value(m, l, b) = sum;
        last_[at(m, l, b)] = y;
      }
    }
  }

  /// Adds a node and its m - 1 descendants, parents first.
  void add(Index m, Index l, Index parent, Index rank, StaticTree& shape) {
    const Index node = shape.size();
    shape.parents.push_back(parent);
    shape.ranks.push_back(rank);
    std::vector<Index> sizes;  // of children, the last first
    for (Index b = best_children(m, l), left = m; b > 0; --b) {
      sizes.push_back(last_[at(left, l, b)]);
      left -= sizes.back();
    }
    for (std::size_t r = 0; r < sizes.size(); ++r)
      add(sizes[sizes.size() - 1 - r], l - 1, node, static_cast<Index>(r), shape);
  }

  std::span<const double> p_;
  Index nodes_, levels_, children_;
  std::vector<double> value_;  ///< [nodes + 1, levels, children + 1]
  std::vector<Index> last_;
  std::vector<double> best_{};  ///< [levels, nodes + 1]
};

/// Throws unless parents come before their children, whose ranks rise. `ranks` is written.
inline void check_shape(const char* function, const StaticTree& shape,
                        std::vector<StaticPlace>& ranks) {
  check(shape.parents[0] == -1, function, "shape", shape.parents[0],
        "-1 as the parent of the root");
  ranks.assign(shape.parents.size(), {});
  for (Index i = 1; i < shape.size(); ++i) {
    const auto v = static_cast<std::size_t>(i);
    check(shape.parents[v] >= 0 && shape.parents[v] < i, function, "shape", shape.parents[v],
          Worded{"a parent from 0 to below ", i});
    Index& before = ranks[static_cast<std::size_t>(shape.parents[v])].node;
    check(shape.ranks[v] > before, function, "shape", shape.ranks[v],
          Worded{"ranks of siblings that rise, above ", before});
    before = shape.ranks[v];
  }
}

inline void check_static(const char* function, std::span<const double> acceptance,
                         const StaticTreeOptions& options) {
  check(!acceptance.empty() && acceptance.size() <= 64, function, "acceptance", acceptance.size(),
        "from 1 to 64 ranks");
  double sum = 0;
  for (const double p : acceptance) {
    check(is_finite(p) && p >= 0 && p <= 1, function, "acceptance", p, "from 0 to 1");
    sum += p;
  }
  check(sum <= 1 + 1e-6, function, "acceptance", sum, "at most 1 over all ranks");
  check(options.nodes >= 1 && options.nodes <= 512, function, "nodes", options.nodes,
        "from 1 to 512");
  check(options.depth >= 0 && options.depth <= 64, function, "depth", options.depth,
        "from 0 to 64");
}

PARE_ABI_END
}  // namespace detail
PARE_ABI_BEGIN

/// The best shape.
/// \param acceptance [ranks] P_r: how often the r-th child of an accepted node is accepted, from 0
///                   to 1, at most 1 together
/// \returns a tree of `nodes` nodes, or of as many as ranks and depth allow
/// \throws std::invalid_argument if a number is out of its range
/// Cost: nodes^2 depth ranks / 2 steps; made once, not in every round.
inline StaticTree static_tree(std::span<const double> acceptance,
                              const StaticTreeOptions& options = {}) {
  detail::check_static("draft::static_tree", acceptance, options);
  detail::StaticSearch search(acceptance, options);
  Index m = options.nodes;
  while (m > 1 && search.best(m, options.depth) < 0) --m;
  return search.tree(m, options.depth);
}

/// The shape by which the time of a token is least: over all m and l up to the options, the one of
/// least (l draft_seconds + verify_seconds(m)) / F.
/// \param draft_seconds  of one level of drafting, at least 0
/// \param verify_seconds a function of the number of nodes, above 0: a call of the target
/// \throws std::invalid_argument as static_tree, or if a time is not finite and as above
template <class Seconds>
StaticTree choose_static_tree(std::span<const double> acceptance, const StaticTreeOptions& options,
                              double draft_seconds, const Seconds& verify_seconds) {
  constexpr const char* function = "draft::choose_static_tree";
  detail::check_static(function, acceptance, options);
  check(is_finite(draft_seconds) && draft_seconds >= 0, function, "draft_seconds", draft_seconds,
        "a finite number of at least 0");
  detail::StaticSearch search(acceptance, options);
  double least = -1;
  Index nodes = 1, depth = 0;
  for (Index m = 1; m <= options.nodes; ++m) {
    const double call = verify_seconds(m);
    check(is_finite(call) && call > 0, function, "verify_seconds", call, "a finite number above 0");
    for (Index l = 0; l <= options.depth; ++l) {
      const double tokens = search.best(m, l);
      if (tokens < 0) continue;
      const double seconds = (static_cast<double>(l) * draft_seconds + call) / tokens;
      if (least >= 0 && seconds >= least) continue;
      least = seconds;
      nodes = m;
      depth = l;
    }
  }
  return search.tree(nodes, depth);
}

/// A draft tree of a shape: node by node, the token of its rank in the list of its parent. A node
/// whose entry the table does not have, or is not finite, is left out with all below it.
/// \param backend left out: pare::simd
/// \param root    the last committed token, at least 0
/// \param tree    written; its memory is kept
/// \throws std::invalid_argument if the shape is empty, its root has a parent, a parent is not
///         before its child, ranks of siblings do not rise in their order, or as build_best_first.
///         The tree is then as before.
template <Backend B, ComputeScalar T>
void fill_static(const B& backend, const StaticTree& shape, std::int32_t root,
                 const TransitionTable<T>& table, DraftTree& tree) {
  constexpr const char* function = "draft::fill_static";
  table.validate(function);
  check(root >= 0, function, "root", root, "at least 0");
  check(
      shape.size() >= 1 && shape.size() <= most_nodes && shape.ranks.size() == shape.parents.size(),
      function, "shape", shape.size(), Worded{"from 1 to ", most_nodes, " nodes"});
  const auto places = leased<std::vector<detail::StaticPlace>>(backend);
  detail::check_shape(function, shape, *places);
  tree.start(root, shape.size());
  places->assign(1, {0, 0});
  for (std::size_t v = 1; v < shape.parents.size(); ++v) {
    const detail::StaticPlace parent = (*places)[static_cast<std::size_t>(shape.parents[v])];
    const Index rank = shape.ranks[v];
    places->push_back({-1, -1});
    if (parent.node < 0 || parent.row < 0 || rank >= table.ranks()) continue;
    const Index depth = tree.depth(parent.node);
    if (table.finite_rank(depth, parent.row, rank) != rank) continue;
    places->back() = {tree.add(parent.node, table.token(depth, parent.row, rank),
                               table.log_probability(depth, parent.row, rank)),
                      table.next_row(depth, parent.row, rank)};
  }
}

/// \overload
template <ComputeScalar T>
void fill_static(const StaticTree& shape, std::int32_t root, const TransitionTable<T>& table,
                 DraftTree& tree) {
  fill_static(simd, shape, root, table, tree);
}

PARE_ABI_END
}  // namespace pare::draft

#include <pare/core/macros_on.hpp>
