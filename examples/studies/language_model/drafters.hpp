// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Drafters of the model's own: what the text says already, and the model's first blocks.
///
/// ```cpp
/// const Drafter repeats = prompt_drafter({.matches = 4});
/// const Drafter early = early_exit(llama, 10, model_head(llama));
/// ```

#include "language_model/draft_heads.hpp"
#include "language_model/llama.hpp"
#include "language_model/speculative.hpp"

#include <pare/attention/attend.hpp>
#include <pare/core/check.hpp>
#include <pare/draft/eagle_tree.hpp>
#include <pare/draft/head_summary.hpp>
#include <pare/draft/prompt_lookup.hpp>
#include <pare/draft/tree_attention.hpp>

#include <algorithm>
#include <bit>
#include <cstddef>
#include <memory>
#include <span>
#include <utility>
#include <vector>

namespace language_model {

/// Drafts nothing: one token a round, as decoding one by one.
inline Drafter no_drafter() {
  return [](const ModelBackend&, const DraftContext& context, DraftTree& tree) {
    tree.start(context.text.back(), 1);
  };
}

/// What followed the last tokens before: `matches` of the latest places, which share the budget.
inline Drafter prompt_drafter(Index matches) {
  return [matches](const ModelBackend&, const DraftContext& context, DraftTree& tree) {
    const Index room = context.budget - 1;
    pare::draft::prompt_lookup(context.text, tree,
                               {.tokens = pare::ceil_div(room, matches),
                                .matches = matches,
                                .latest = true,
                                .budget = context.budget});
  };
}

/// Chains of the likeliest tokens after the first blocks, the model's last norm, and a head.
///
/// The keys and values of these blocks are those of the model's cache; those of drafted tokens are
/// behind them while a chain is made, and are left there with what the blocks made: the pass that
/// judges the chain begins where it ended (Elhoushi et al., "LayerSkip", 2024).
/// \param llama must outlive it
inline Drafter early_exit(const Llama& llama, Index blocks, DraftHead head) {
  return [&llama, blocks, head = std::move(head),
          top = std::make_shared<pare::draft::HeadSummary<float>>()](
             const ModelBackend& backend, const DraftContext& context, DraftTree& tree) {
    const Index past = context.cache.length();
    const auto dim = static_cast<std::size_t>(llama.config().dim);
    std::vector<float>& states = context.drafted.states;
    Token token = context.text.back();
    tree.start(token, context.budget);
    for (Index node = 0;; node = tree.add(node, token, std::min(0.0, top->log_probability(0, 0)))) {
      const bool is_last = node + 1 == context.budget;
      states.resize(static_cast<std::size_t>(tree.size()) * dim);
      llama.states(backend, {&token, 1}, context.cache,
                   {.blocks = blocks, .made = std::span(states).last(dim)},
                   [&](const ModelBackend& on, const auto& rows) {
                     const HeadTime time(context.head_seconds);
                     if (!is_last) head(on, rows, {.k = 1}, *top);
                   });
      if (is_last) break;
      token = top->id(0, 0);
    }
    context.cache.truncate(past);
    context.drafted.blocks = blocks;
  };
}

/// The last nodes of a tree, which are the last tokens of the cache behind the others, attend to
/// the text and their paths.
inline Attention frontier_attention(const DraftTree& tree) {
  return [&tree](const ModelBackend& backend, const AttentionCall& call) {
    return in_scalar_of_cache(backend, call, [&]<class S>(TensorView<const S, 4> q, S) {
      const pare::draft::TreeRows rows{.masks = tree.mask(tree.size() - q.extent[2]).data(),
                                       .words = tree.mask_words(),
                                       .past = call.cache.length() - tree.size()};
      return pare::attention::attend(backend, q, call.cache.paged<S>(call.layer), call.out,
                                     pare::draft::TreeMask{.trees = &rows}, {.causal = true});
    });
  };
}

/// Dynamic trees (pare::draft::EagleTree) by the same: levels of at most `branch` nodes, which go
/// through the blocks together, as many levels as a binary tree of the budget has.
///
/// Most nodes of such a tree are leaves, which went through no block: the pass that judges it
/// begins with the embedding.
class EarlyExitTree {
 public:
  /// \param llama  must outlive it
  /// \param branch from 2 to 64
  EarlyExitTree(const Llama& llama, Index blocks, DraftHead head, Index branch)
      : llama_(&llama), blocks_(blocks), head_(std::move(head)), branch_(branch) {}

  void operator()(const ModelBackend& on, const DraftContext& context, DraftTree& tree) {
    const Index past = context.cache.length();
    const Index room = std::min(context.cache.capacity(), llama_->config().context) - past;
    const auto levels =
        static_cast<Index>(std::bit_width(static_cast<std::size_t>(context.budget)));
    // The first level takes one row of the cache, each other `branch` of them.
    const Index depth = std::clamp(levels - 2, Index{0}, (room - 1) / branch_);
    eagle_.start(context.text.back(), {.top_k = branch_, .depth = depth, .nodes = context.budget});
    while (!eagle_.done()) {
      pass_frontier(on, context, past);
      const TensorView<const float, 2> logs{
          logs_.data(), {eagle_.frontier(), branch_}, {branch_, 1}};
      const TensorView<const Token, 2> ids{top_.ids.data(), logs.extent, logs.stride};
      eagle_.expand(ids, logs);
    }
    context.cache.truncate(past);
    eagle_.finish(tree);
  }

 private:
  /// The best tokens behind each node of the frontier.
  void pass_frontier(const ModelBackend& on, const DraftContext& context, Index past) {
    const DraftTree& drafted = eagle_.drafted();
    tokens_.clear();
    positions_.clear();
    for (Index i = eagle_.first(); i < drafted.size(); ++i) {
      tokens_.push_back(drafted.token(i));
      positions_.push_back(drafted.position(i, past));
    }
    llama_->states(
        on, tokens_, context.cache, {.blocks = blocks_, .positions = positions_},
        [&](const ModelBackend& backend, const auto& states) {
          const HeadTime time(context.head_seconds);
          head_(backend, states, {.k = branch_}, top_);
        },
        frontier_attention(drafted));
    pare::check(top_.k == branch_, "language_model::EarlyExitTree", "branch", branch_,
                pare::Worded{"at most the tokens of the head, ", top_.k});
    logs_.clear();
    for (Index r = 0; r < eagle_.frontier(); ++r)
      for (Index rank = 0; rank < branch_; ++rank)
        logs_.push_back(std::min(0.0f, static_cast<float>(top_.log_probability(r, rank))));
  }

  const Llama* llama_;
  Index blocks_;
  DraftHead head_;
  Index branch_;
  pare::draft::EagleTree eagle_;
  pare::draft::HeadSummary<float> top_;
  std::vector<Token> tokens_;
  std::vector<Index> positions_;
  std::vector<float> logs_;
};

}  // namespace language_model
