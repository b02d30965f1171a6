// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// The dynamic draft tree of EAGLE-2 and EAGLE-3: the drafter runs level by level on the k best
/// nodes of the last level, and in the end the best of all candidates make the tree.
///
/// ```cpp
/// EagleTree eagle;
/// for (eagle.start(last_token, {.top_k = 10, .depth = 7, .nodes = 60}); !eagle.done();) {
///   // the drafter's rows for nodes [eagle.first(), eagle.drafted().size()) of eagle.drafted():
///   // it attends by that tree (tree_attention.hpp)
///   lists.fill(head, rows, {.ranks = 10});                    // CandidateLists<float>
///   eagle.expand(lists.tokens(), lists.log_probabilities());  // [eagle.frontier(), k] each
/// }
/// eagle.finish(tree);
/// ```
///
/// Level 0 is the root's row; each of `depth` more levels gives k^2 candidates, of which the k best
/// are the next frontier: depth + 1 calls of the drafter. `finish` keeps the nodes - 1 best of all
/// k + depth k^2 candidates. A candidate's score is the sum of log probabilities from the root on;
/// of equal scores the earlier candidate counts as better, so that a kept node's parent is always
/// kept, which the released code does not see to.
///
/// Source: Li et al., "EAGLE-2", EMNLP 2024, section 4, and its code (cnets.py, topK_genrate);
/// defaults are those of EaModel.from_pretrained. Ours: the order of equal scores, and that
/// candidates which are not finite are skipped.

#include <pare/core/macros_off.hpp>

#include <pare/core/check.hpp>
#include <pare/core/refused_call.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/draft/transition_table.hpp>
#include <pare/draft/tree.hpp>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace pare::draft {

/// Options of EagleTree.
struct EagleOptions {
  Index top_k = 10;  ///< children of a node, and nodes of a frontier; from 1 to 64
  Index depth = 7;   ///< levels below the first; from 0 to 60
  Index nodes = 60;  ///< of the tree that finish makes, the root among them; at least 1
};

PARE_ABI_BEGIN

/// An expansion under way. Its memory is kept from round to round.
class EagleTree {
 public:
  /// Begins: the frontier is the root.
  /// \throws std::invalid_argument if the token is below 0 or an option out of its range
  void start(std::int32_t token, const EagleOptions& options = {}) {
    constexpr const char* function = "draft::EagleTree::start";
    check(options.top_k >= 1 && options.top_k <= 64, function, "top_k", options.top_k,
          "from 1 to 64");
    check(options.depth >= 0 && options.depth <= 60, function, "depth", options.depth,
          "from 0 to 60");
    check(options.nodes >= 1 && options.nodes <= most_nodes, function, "nodes", options.nodes,
          Worded{"from 1 to ", most_nodes});
    drafted_.start(token, 1 + options.depth * options.top_k);
    options_ = options;
    first_ = level_ = 0;
    candidates_.clear();
    of_node_.assign(1, -1);
  }

  /// The nodes that the drafter has run on, and those of the frontier, which are the last.
  const DraftTree& drafted() const { return drafted_; }
  /// The first node of the frontier, and how many there are: 1, then top_k or fewer.
  Index first() const { return first_; }
  Index frontier() const { return drafted_.size() - first_; }
  /// Whether all levels are drafted, or no candidate was left to go on from.
  bool done() const { return drafted_.size() == 0 || level_ > options_.depth || frontier() == 0; }

  /// Takes the drafter's lists for the frontier: row i those of node first() + i, best first.
  /// \param tokens            [frontier(), top_k]
  /// \param log_probabilities [frontier(), top_k] of float or double
  /// \throws std::invalid_argument if it is done, extents differ, or a list is none, as
  ///         TransitionTable::validate says. Nothing is changed then.
  template <TokenNumbers<2> K, In<2> P>
  requires ComputeScalar<scalar_of<P>>
  void expand(const K& tokens, const P& log_probabilities) {
    constexpr const char* function = "draft::EagleTree::expand";
    check(!done(), function, "tree", "one that is done", "a level that is left");
    const auto k = as_const(to_view(tokens));
    const auto p = as_const(to_view(log_probabilities));
    check_extents<2>(function, "tokens", k.extent, {frontier(), options_.top_k});
    check_extents<2>(function, "log_probabilities", p.extent, k.extent);
    // One list of depth 0 for each node, to be checked as such.
    for (Index i = 0; i < frontier(); ++i) list(k, p, i).validate(function);
    const auto begin = static_cast<std::ptrdiff_t>(candidates_.size());
    for (Index i = 0; i < frontier(); ++i) add_candidates(list(k, p, i), first_ + i);
    ++level_;
    first_ = drafted_.size();
    if (level_ <= options_.depth) take_frontier(begin);
  }
  PARE_REFUSE_CALLS(expand, "draft::EagleTree::expand", "wanted nothing behind log_probabilities",
                    (PLAIN, (roles::Takes<detail::AreTokens>), "tokens",
                     "[frontier, top_k] of std::int32_t"),
                    (INPUT, (roles::ReadsCompute<2>), "log_probabilities", "[frontier, top_k]"))

  /// Makes the tree of the best candidates.
  /// \param tree written
  /// \throws std::invalid_argument before the first `start`
  void finish(DraftTree& tree) {
    check(drafted_.size() >= 1, "draft::EagleTree::finish", "tree", "none", "one that was started");
    const auto kept = std::min(static_cast<std::ptrdiff_t>(candidates_.size()),
                               static_cast<std::ptrdiff_t>(options_.nodes - 1));
    rank(0, kept);
    std::sort(order_.begin(), order_.begin() + kept);  // parents first
    tree.start(drafted_.token(0), options_.nodes);
    number_.assign(candidates_.size(), -1);
    for (std::ptrdiff_t i = 0; i < kept; ++i) {
      const Candidate& c = of(order_[static_cast<std::size_t>(i)]);
      const Index parent = c.parent < 0 ? 0 : number_[static_cast<std::size_t>(c.parent)];
      number_[static_cast<std::size_t>(order_[static_cast<std::size_t>(i)])] =
          tree.add(parent, c.token, c.log_probability);
    }
  }

 private:
  struct Candidate {
    std::int32_t token = 0;
    Index node = 0;     ///< its parent, of drafted_
    Index parent = -1;  ///< the same as a candidate; -1: the root
    double score = 0;
    double log_probability = 0;
  };

  const Candidate& of(Index i) const { return candidates_[static_cast<std::size_t>(i)]; }

  template <class T>
  static TransitionTable<T> list(TensorView<const std::int32_t, 2> k, TensorView<const T, 2> p,
                                 Index i) {
    const std::array<Index, 3> extent{1, 1, k.extent[1]};
    return {{k.data + i * k.stride[0], extent, {0, 0, k.stride[1]}},
            {p.data + i * p.stride[0], extent, {0, 0, p.stride[1]}},
            {&detail::first_list, extent, {0, 0, 0}}};
  }

  template <class T>
  void add_candidates(const TransitionTable<T>& list, Index node) {
    for (Index r = 0; r < list.ranks(); ++r) {
      if (list.finite_rank(0, 0, r) != r) continue;
      const double p = list.log_probability(0, 0, r);
      candidates_.push_back({list.token(0, 0, r), node, of_node_[static_cast<std::size_t>(node)],
                             drafted_.log_probability(node) + p, p});
    }
  }

  /// The `count` best candidates from `begin` on, at the front of order_, best first.
  void rank(std::ptrdiff_t begin, std::ptrdiff_t count) {
    order_.clear();
    for (std::size_t i = static_cast<std::size_t>(begin); i < candidates_.size(); ++i)
      order_.push_back(static_cast<Index>(i));
    std::partial_sort(order_.begin(), order_.begin() + count, order_.end(), [&](Index a, Index b) {
      return of(a).score > of(b).score || (of(a).score == of(b).score && a < b);
    });
  }

  void take_frontier(std::ptrdiff_t begin) {
    const auto found = static_cast<std::ptrdiff_t>(candidates_.size()) - begin;
    const auto count = std::min(found, static_cast<std::ptrdiff_t>(options_.top_k));
    rank(begin, count);
    for (std::ptrdiff_t i = 0; i < count; ++i) {
      const Index c = order_[static_cast<std::size_t>(i)];
      drafted_.add(of(c).node, of(c).token, of(c).log_probability);
      of_node_.push_back(c);
    }
  }

  EagleOptions options_{};
  DraftTree drafted_{};
  Index first_ = 0, level_ = 0;
  std::vector<Candidate> candidates_{};
  std::vector<Index> of_node_{};  ///< which candidate a node of drafted_ is
  std::vector<Index> order_{};
  std::vector<Index> number_{};  ///< of a candidate in the tree
};

PARE_ABI_END
}  // namespace pare::draft

#include <pare/core/macros_on.hpp>
