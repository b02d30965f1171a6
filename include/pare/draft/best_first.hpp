// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// The draft tree of the B most probable nodes: best-first search of a transition table, exact.
///
///     s(v) = sum over the path to v of log q,   tree = root and the B - 1 nodes of greatest s
///
/// ```cpp
/// DraftTree tree;
/// build_best_first(last_token, shared_lists(tokens, log_probabilities), tree, {.budget = 64});
/// build_best_first(pare::simd.with(workspace), last_token, table, tree, {.budget = 16});
/// tree.truncate(8);   // is what a budget of 8 builds
/// ```
///
/// A node's s is at most its parent's and at most that of the sibling before it. The search
/// therefore takes nodes in the order of s, and the tree of budget B is the first B nodes of that
/// of B + 1. Of equal s the node with the earliest parent is taken. sum e^s over the nodes is the
/// expected number of tokens of a round, as far as q is right (budget.hpp).
///
/// JetSpec's released builder adds all children of a node at once, and does not find this tree: it
/// was worse in 90 of 300 random tables.
///
/// Source: the search is TreeFlash's (arXiv 2606.03819, its code). Ours: the order of equal s, and
/// skipping of entries that are not finite.

#include <pare/core/macros_off.hpp>

#include <pare/core/backend.hpp>
#include <pare/core/check.hpp>
#include <pare/core/refused_call.hpp>
#include <pare/draft/transition_table.hpp>
#include <pare/draft/tree.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <type_traits>
#include <vector>

namespace pare::draft {

/// Options of build_best_first.
struct BestFirstOptions {
  /// Nodes, the root among them; at least 1. A table of fewer paths gives fewer. 64 is TreeFlash's;
  /// on processors without matrix units 8 to 16 are often better, see choose_budget.
  Index budget = 64;

  /// No node is deeper; at least 0. With it the last positions of a model's context are not
  /// passed. Left out: the depths of the table.
  std::optional<Index> max_depth{};
};

namespace detail {
template <class X>
using IsTableArgument = IsTable<std::remove_cvref_t<X>>;

PARE_ABI_BEGIN

/// A node that may be taken next: rank `rank` of a list, below a node of the tree.
struct Candidate {
  double score = 0;
  std::int32_t parent = 0;
  std::int32_t depth = 0;
  std::int32_t row = 0;
  std::int32_t rank = 0;
};

/// Whether b is taken before a. A parent has one candidate at a time.
inline bool later(const Candidate& a, const Candidate& b) {
  return a.score < b.score || (a.score == b.score && a.parent > b.parent);
}

/// The candidate below a node from rank `rank` of a list on, if there is a finite one.
template <class T>
std::optional<Candidate> candidate(const TransitionTable<T>& table, const DraftTree& tree,
                                   Index parent, Index row, Index rank) {
  const Index depth = tree.depth(parent), finite = table.finite_rank(depth, row, rank);
  if (finite == table.ranks()) return std::nullopt;
  return Candidate{tree.log_probability(parent) + table.log_probability(depth, row, finite),
                   static_cast<std::int32_t>(parent), static_cast<std::int32_t>(depth),
                   static_cast<std::int32_t>(row), static_cast<std::int32_t>(finite)};
}

/// Adds a candidate to the tree. Returns the list that its children have, -1 if it has none.
template <class T>
Index take(const TransitionTable<T>& table, const Candidate& c, Index depths, DraftTree& tree) {
  tree.add(c.parent, table.token(c.depth, c.row, c.rank),
           table.log_probability(c.depth, c.row, c.rank));
  return c.depth + 1 < depths ? table.next_row(c.depth, c.row, c.rank) : -1;
}

template <class T>
void search(const TransitionTable<T>& table, Index budget, Index depths, DraftTree& tree,
            std::vector<Candidate>& heap) {
  const auto push = [&](Index parent, Index row, Index rank) {
    const auto c = candidate(table, tree, parent, row, rank);
    if (!c) return;
    heap.push_back(*c);
    std::push_heap(heap.begin(), heap.end(), later);
  };
  heap.clear();
  heap.reserve(static_cast<std::size_t>(2 * budget));
  if (depths > 0) push(0, 0, 0);
  while (tree.size() < budget && !heap.empty()) {
    std::pop_heap(heap.begin(), heap.end(), later);
    const Candidate c = heap.back();
    heap.pop_back();
    const Index row = take(table, c, depths, tree);
    push(c.parent, c.row, c.rank + 1);
    if (row >= 0) push(tree.size() - 1, row, 0);
  }
}

/// The definition: of every node's next child, the best is taken, again and again.
template <class T>
void reference_search(const TransitionTable<T>& table, Index budget, Index depths,
                      DraftTree& tree) {
  struct Open {
    Index row, rank;
  };
  std::vector<Open> open{{depths > 0 ? 0 : -1, 0}};  // of each node
  while (tree.size() < budget) {
    std::optional<Candidate> best;
    for (Index v = 0; v < tree.size(); ++v) {
      const Open& o = open[static_cast<std::size_t>(v)];
      if (o.row < 0) continue;
      const auto c = candidate(table, tree, v, o.row, o.rank);
      if (c && (!best || c->score > best->score)) best = c;
    }
    if (!best) return;
    open[static_cast<std::size_t>(best->parent)].rank = best->rank + 1;
    open.push_back({take(table, *best, depths, tree), 0});
  }
}

PARE_ABI_END
}  // namespace detail
PARE_ABI_BEGIN

/// Builds the tree of the most probable nodes.
///
/// \param backend left out: pare::simd; pare::reference looks at all nodes for each that it takes.
///                The search runs on one thread
/// \param root    the last committed token, at least 0
/// \param table   of float or double; scores are summed in double
/// \param tree    written; its memory is kept
/// \throws std::invalid_argument if the root, the table, the budget or the depth is out of its
///         range. The tree is then as before.
///
/// Cost: O(B log B + entries of the table); about 5 us for 64 nodes of a [15 x 16] table. Memory:
/// 24 bytes for each of 2 B candidates, kept in the backend's workspace.
template <Backend B, ComputeScalar T>
void build_best_first(const B& backend, std::int32_t root, const TransitionTable<T>& table,
                      DraftTree& tree, const BestFirstOptions& options = {}) {
  constexpr const char* function = "draft::build_best_first";
  table.validate(function);
  check(options.budget >= 1 && options.budget <= most_nodes, function, "budget", options.budget,
        Worded{"from 1 to ", most_nodes, " nodes"});
  const Index most = options.max_depth.value_or(table.depths());
  check(most >= 0, function, "max_depth", most, "at least 0");
  check(root >= 0, function, "root", root, "at least 0");
  const Index depths = std::min(most, table.depths());
  tree.start(root, options.budget);
  if constexpr (KernelBackend<B>)
    detail::search(table, options.budget, depths, tree,
                   *leased<std::vector<detail::Candidate>>(backend));
  else
    detail::reference_search(table, options.budget, depths, tree);
}

/// \overload
template <ComputeScalar T>
void build_best_first(std::int32_t root, const TransitionTable<T>& table, DraftTree& tree,
                      const BestFirstOptions& options = {}) {
  build_best_first(simd, root, table, tree, options);
}

PARE_REFUSE_CALLS(build_best_first, "draft::build_best_first",
                  "wanted the token of the root, a TransitionTable, a DraftTree to write, and "
                  "BestFirstOptions, members spelt and ordered as declared",
                  (ANY, (roles::TakesAny), "root", "a token"),
                  (PLAIN, (roles::Takes<detail::IsTableArgument>), "table",
                   "a TransitionTable: lists.table() of CandidateLists or BranchLists, or "
                   "shared_lists(tokens, log_probabilities)"),
                  (ANY, (roles::TakesAny), "tree", "a DraftTree"))

PARE_ABI_END
}  // namespace pare::draft

#include <pare/core/macros_on.hpp>
