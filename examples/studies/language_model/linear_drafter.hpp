// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// A best-first tree from linear heads.
///
/// ```cpp
/// const Drafter drafter = linear_drafter(llama, maps, head, 4);   // maps of fit_linear_heads
/// ```
///
/// For each depth there are at most `branch` lists of `branch` tokens, below the tokens of the
/// depth before whose paths are the likeliest; all of a depth are one call of the map and one of
/// the head. With a branch of 1 the tree is a chain.

#include "language_model/linear_heads.hpp"
#include "language_model/speculative.hpp"

#include <pare/draft/best_first.hpp>
#include <pare/draft/head_summary.hpp>
#include <pare/draft/transition_table.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <limits>
#include <memory>
#include <utility>
#include <vector>

namespace language_model {

class LinearDrafter {
 public:
  /// \param llama  must outlive it
  /// \param branch tokens of a list, and lists of a depth, at least 1
  LinearDrafter(const Llama& llama, std::vector<AnyLinear> maps, DraftHead head, Index branch)
      : llama_(&llama), maps_(std::move(maps)), head_(std::move(head)), branch_(branch) {}

  void operator()(const ModelBackend& on, const DraftContext& context, DraftTree& tree) {
    const auto depths = std::min(static_cast<Index>(maps_.size()), context.budget - 1);
    const Token root = context.text.back();
    if (depths < 1) return tree.start(root, 1);
    const auto size = static_cast<std::size_t>(depths * branch_ * branch_);
    tokens_.assign(size, 0);
    next_.assign(size, -1);
    logs_.assign(size, -std::numeric_limits<float>::infinity());
    parents_ = {{root, 0}};
    for (Index depth = 0; depth < depths; ++depth) {
      fill_lists(on, context, depth);
      if (depth + 1 < depths) choose_parents(depth);
    }
    const pare::draft::TransitionTable<float> table{
        view(tokens_.data(), depths), view(logs_.data(), depths), view(next_.data(), depths)};
    build_best_first(on, root, table, tree, {.budget = context.budget});
  }

 private:
  struct Parent {
    Token token;
    double score;
  };

  template <class T>
  TensorView<const T, 3> view(const T* data, Index depths) const {
    return {data, {depths, branch_, branch_}, {branch_ * branch_, branch_, 1}};
  }
  std::size_t at(Index depth, Index list, Index rank) const {
    return static_cast<std::size_t>((depth * branch_ + list) * branch_ + rank);
  }

  /// The lists of a depth, one for each parent.
  void fill_lists(const ModelBackend& on, const DraftContext& context, Index depth) {
    const AnyLinear& map = maps_[static_cast<std::size_t>(depth)];
    const auto rows = static_cast<Index>(parents_.size());
    features_.resize(static_cast<std::size_t>(rows * map.inputs()));
    states_.resize(static_cast<std::size_t>(rows * map.outputs()));
    for (Index r = 0; r < rows; ++r)
      linear_features(*llama_, context.state, context.text.back(),
                      parents_[static_cast<std::size_t>(r)].token, depth + 1,
                      features_.data() + r * map.inputs());
    const auto states = matrix(states_.data(), rows, map.outputs());
    map.apply(on, matrix<const float>(features_.data(), rows, map.inputs()), states);
    const HeadTime time(context.head_seconds);
    head_(on, states, {.k = branch_}, top_);
    for (Index r = 0; r < rows; ++r)
      for (Index rank = 0; rank < top_.k; ++rank) {
        tokens_[at(depth, r, rank)] = top_.id(r, rank);
        logs_[at(depth, r, rank)] =
            std::min(0.0f, static_cast<float>(top_.log_probability(r, rank)));
      }
  }

  /// The tokens of a depth that have lists at the next, and says so in the table.
  void choose_parents(Index depth) {
    struct Path {
      double score;
      Index list, rank;
    };
    std::vector<Path> paths;
    for (std::size_t list = 0; list < parents_.size(); ++list)
      for (Index rank = 0; rank < top_.k; ++rank) {
        const auto i = static_cast<Index>(list);
        paths.push_back(
            {parents_[list].score + static_cast<double>(logs_[at(depth, i, rank)]), i, rank});
      }
    std::ranges::stable_sort(paths, std::greater<>(), &Path::score);
    std::vector<Parent> chosen;
    for (const Path& path : paths) {
      const Token token = tokens_[at(depth, path.list, path.rank)];
      auto found = std::ranges::find(chosen, token, &Parent::token);
      if (found == chosen.end()) {
        if (static_cast<Index>(chosen.size()) == branch_) continue;
        found = chosen.insert(chosen.end(), {token, path.score});
      }
      next_[at(depth, path.list, path.rank)] = static_cast<std::int32_t>(found - chosen.begin());
    }
    parents_ = std::move(chosen);
  }

  const Llama* llama_;
  std::vector<AnyLinear> maps_;
  DraftHead head_;
  Index branch_;
  std::vector<Parent> parents_;  ///< of the lists of a depth
  std::vector<std::int32_t> tokens_, next_;
  std::vector<float> logs_, features_, states_;
  pare::draft::HeadSummary<float> top_;
};

inline Drafter linear_drafter(const Llama& llama, std::vector<AnyLinear> maps, DraftHead head,
                              Index branch) {
  return LinearDrafter(llama, std::move(maps), std::move(head), branch);
}

}  // namespace language_model
