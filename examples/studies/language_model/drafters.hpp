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

#include <pare/draft/head_summary.hpp>
#include <pare/draft/prompt_lookup.hpp>

#include <algorithm>
#include <memory>
#include <utility>

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

/// A chain of the likeliest tokens after the first blocks, the model's last norm, and a head.
///
/// The keys and values of these blocks are those of the model's cache; those of drafted tokens are
/// behind them while a chain is made.
/// \param llama must outlive it
inline Drafter early_exit(const Llama& llama, Index blocks, DraftHead head) {
  return [&llama, blocks, head = std::move(head),
          top = std::make_shared<pare::draft::HeadSummary<float>>()](
             const ModelBackend& backend, const DraftContext& context, DraftTree& tree) {
    const Index past = context.cache.length();
    Token token = context.text.back();
    tree.start(token, context.budget);
    for (Index node = 0; node + 1 < context.budget;) {
      llama.states(backend, {&token, 1}, context.cache, {.blocks = blocks},
                   [&](const ModelBackend& on, const auto& states) {
                     const HeadTime time(context.head_seconds);
                     head(on, states, {.k = 1}, *top);
                   });
      token = top->id(0, 0);
      node = tree.add(node, token, std::min(0.0, top->log_probability(0, 0)));
    }
    context.cache.truncate(past);
  };
}

}  // namespace language_model
