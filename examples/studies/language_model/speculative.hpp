// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Speculative decoding: a drafter proposes a tree of tokens, one pass of the model judges it.
///
/// ```cpp
/// KvCache cache(llama.config().kv_shape(), speculative_room(llama, prompt, 256, 16));
/// const Drafter drafter = prompt_drafter({.longest_match = 3});
/// const auto counts = speculate(llama, backend, cache, prompt, 256, {.temperature = 0}, drafter,
///                               16, [&](Token token) { return shows(token); });
/// ```
///
/// A round: the drafter makes a tree behind the last token; all nodes go through the model
/// together, each at the position that its depth says, and attend to what was committed and to
/// their own path; what the sampler takes after each node of the path is committed; keys and values
/// of the other nodes are taken out of the cache. The tokens are those of decoding one by one, by
/// the same sampler, whatever is drafted: as far as logits of rows together and alone are the same.

#include "language_model/adaptive_budget.hpp"
#include "language_model/cache_attention.hpp"
#include "language_model/llama.hpp"
#include "language_model/sampler.hpp"

#include <pare/draft/tree.hpp>
#include <pare/draft/tree_attention.hpp>
#include <pare/draft/verify.hpp>

#include <algorithm>
#include <chrono>
#include <concepts>
#include <cstddef>
#include <functional>
#include <optional>
#include <span>
#include <vector>

namespace language_model {

using pare::draft::DraftTree;

/// What a drafter has done of the model's own pass: the first blocks, for all nodes.
struct DraftedBlocks {
  Index blocks = 0;           ///< none: the pass is to begin with the embedding
  std::vector<float> states;  ///< [nodes, dim] what they make of each node
};

/// What a drafter knows.
struct DraftContext {
  std::span<const Token> text;   ///< prompt and answer so far; the last is the root
  std::span<const float> state;  ///< [dim] what the head made the law of the root from
  KvCache& cache;                ///< of all of the text but the root; its length is to be left
  Index budget;                  ///< nodes, the root among them, that there is room for
  double& head_seconds;          ///< the time of heads is added to it
  /// Written by a drafter that leaves keys and values of its blocks behind the text, a row for each
  /// node.
  DraftedBlocks& drafted;
};

/// Makes a tree of at most `budget` nodes.
using Drafter = std::function<void(const ModelBackend&, const DraftContext&, DraftTree&)>;

/// What a text took.
struct SpeculativeCounts {
  Index rounds = 0, nodes = 0, tokens = 0;                        ///< tokens that rounds committed
  double prompt_seconds = 0, seconds = 0;                         ///< of the prompt, of all rounds
  double draft_seconds = 0, head_seconds = 0, model_seconds = 0;  ///< heads are part of drafts
  double foretold = 0;  ///< tokens that an AdaptiveBudget expected of the rounds

  SpeculativeCounts& operator+=(const SpeculativeCounts& o) {
    rounds += o.rounds, nodes += o.nodes, tokens += o.tokens;
    prompt_seconds += o.prompt_seconds, seconds += o.seconds;
    draft_seconds += o.draft_seconds, head_seconds += o.head_seconds;
    model_seconds += o.model_seconds, foretold += o.foretold;
    return *this;
  }
};

/// The nodes of a tree, which are the last tokens of the cache, attend to the text and their path.
inline Attention tree_attention(const DraftTree& tree) {
  return [&tree](const ModelBackend& backend, const AttentionCall& call) {
    return in_scalar_of_cache(backend, call, [&]<class S>(TensorView<const S, 4> q, S) {
      return pare::draft::attend_tree(backend, q, call.cache.paged<S>(call.layer), call.out, tree);
    });
  };
}

/// Room for a prompt, `most` tokens behind it, and a tree.
/// \throws std::invalid_argument if the prompt is empty or the context too short for both
inline Index speculative_room(const Llama& llama, std::span<const Token> prompt, Index most,
                              Index budget) {
  const auto given = static_cast<Index>(prompt.size());
  const Index room = llama.config().context - given;
  pare::check(given >= 1, "language_model::speculate", "prompt", "no tokens", "at least one");
  pare::check(most <= room, "language_model::speculate", "tokens", most,
              pare::Worded{"at most ", room, ", which the context has behind the prompt"});
  return std::min(llama.config().context, given + most + budget);
}

/// One text and what is kept from round to round.
class Speculation {
 public:
  /// \param cache empty, of speculative_room
  Speculation(const Llama& llama, const ModelBackend& backend, KvCache& cache,
              const SamplerOptions& sampling)
      : llama_(llama), on_(backend), cache_(cache), sampling_(sampling), sampler_(sampling) {}

  /// The token behind the prompt.
  Token start(std::span<const Token> prompt) {
    text_.assign(prompt.begin(), prompt.end());
    logits_.resize(static_cast<std::size_t>(llama_.config().vocabulary));
    llama_.states(on_, prompt, cache_, {}, [&](const ModelBackend& on, const auto& states) {
      keep_state(states, states.rows() - 1);
      llama_.head().apply(on, rows_of(states, states.rows() - 1, 1), logits(1));
    });
    const Token first = sampler_.sample(logits_, prompt.size());
    text_.push_back(first);
    return first;
  }

  /// The tokens of a round, of at most `budget` nodes.
  std::span<const Token> round(const Drafter& drafter, Index budget) {
    draft(drafter, budget);
    return judge();
  }

  /// The same, of as many nodes as are worth their time.
  std::span<const Token> round(const Drafter& drafter, AdaptiveBudget& budget) {
    const double took = draft(drafter, budget.offered());
    counts.foretold += budget.cut(tree_, took);
    const auto tokens = judge();
    budget.observe(tree_, round_);
    return tokens;
  }

  /// The last round.
  const DraftTree& tree() const { return tree_; }
  const pare::draft::Verified& verified() const { return round_; }

  SpeculativeCounts counts;

 private:
  using Clock = std::chrono::steady_clock;

  static double seconds(Clock::time_point from, Clock::time_point to) {
    return std::chrono::duration<double>(to - from).count();
  }

  /// Makes the tree; of a budget of 1 that is the root. Returns the seconds that it took.
  double draft(const Drafter& drafter, Index budget) {
    const auto start = Clock::now();
    const Index room = std::min(cache_.capacity(), llama_.config().context) - cache_.length();
    drafted_.blocks = 0;
    budget = std::min(budget, room);
    if (budget > 1)
      drafter(on_, {text_, state_, cache_, budget, counts.head_seconds, drafted_}, tree_);
    else
      tree_.start(text_.back(), 1);
    const double took = seconds(start, Clock::now());
    counts.draft_seconds += took;
    return took;
  }

  /// The tokens that the model takes of the tree.
  std::span<const Token> judge() {
    const auto start = Clock::now();
    const Index past = cache_.length();
    pass(past);
    cache_.keep(past, round_.path);
    text_.insert(text_.end(), round_.tokens.begin(), round_.tokens.end());
    ++counts.rounds;
    counts.nodes += tree_.size();
    counts.model_seconds += seconds(start, Clock::now());
    return round_.tokens;
  }

  TensorView<float, 2> logits(Index rows) {
    const Index vocabulary = llama_.config().vocabulary;
    logits_.resize(static_cast<std::size_t>(rows * vocabulary));
    return matrix(logits_.data(), rows, vocabulary);
  }

  void keep_state(const TensorView<const float, 2>& states, Index row) {
    state_.assign(&states(row, 0), &states(row, 0) + states.cols());
  }

  /// All nodes through the model, and what it takes of them.
  void pass(Index past) {
    nodes_.clear();
    positions_.clear();
    for (Index i = 0; i < tree_.size(); ++i) {
      nodes_.push_back(tree_.token(i));
      positions_.push_back(tree_.position(i, past));
    }
    const auto judge = [&](const ModelBackend& on, const auto& states) {
      const auto z = logits(states.rows());
      llama_.head().apply(on, states, z);
      verify(past, as_const(z));
      keep_state(states, round_.path.back());
    };
    Pass pass{.positions = positions_, .first = drafted_.blocks};
    if (pass.first > 0)
      pass.given = std::span(drafted_.states)
                       .first(nodes_.size() * static_cast<std::size_t>(llama_.config().dim));
    llama_.states(on_, nodes_, cache_, pass, judge, tree_attention(tree_));
  }

  void verify(Index past, TensorView<const float, 2> z) {
    if (sampling_.temperature == 0) return verify_greedy(tree_, z, round_);
    next_.assign(static_cast<std::size_t>(tree_.size()), 0);  // beside the path none is read
    std::optional<Index> node = 0;
    while (node) {
      // The noise belongs to the place in the text.
      const auto place = static_cast<std::uint64_t>(tree_.position(*node, past) + 1);
      const Token token =
          sampler_.sample({&z(*node, 0), static_cast<std::size_t>(z.cols())}, place);
      next_[static_cast<std::size_t>(*node)] = token;
      node = tree_.child(*node, token);
    }
    verify_match(tree_, next_, round_);
  }

  const Llama& llama_;
  ModelBackend on_;
  KvCache& cache_;
  SamplerOptions sampling_;
  Sampler sampler_;
  DraftTree tree_;
  DraftedBlocks drafted_;
  pare::draft::Verified round_;
  std::vector<Token> text_, nodes_, next_;
  std::vector<Index> positions_;
  std::vector<float> state_, logits_;
};

/// Gives at most `most` tokens behind the prompt to take(token), until that returns false.
/// \param cache  empty, of speculative_room
/// \param budget nodes of a round, or an AdaptiveBudget, which learns from the rounds
/// \throws std::invalid_argument as Llama::forward, or as the drafter
template <class B, class Budget, class Take>
requires std::predicate<const Take&, Token>
SpeculativeCounts speculate(const Llama& llama, const B& backend, KvCache& cache,
                            std::span<const Token> prompt, Index most,
                            const SamplerOptions& sampling, const Drafter& drafter, Budget&& budget,
                            const Take& take) {
  using Clock = std::chrono::steady_clock;
  Speculation speculation(llama, on_any_executor(backend), cache, sampling);
  SpeculativeCounts& counts = speculation.counts;
  const auto begin = Clock::now();
  bool goes_on = most > 0 && take(speculation.start(prompt));
  const auto first = Clock::now();
  counts.prompt_seconds = std::chrono::duration<double>(first - begin).count();
  while (goes_on && counts.tokens + 1 < most)
    for (const Token token : speculation.round(drafter, budget)) {
      ++counts.tokens;
      goes_on = take(token) && counts.tokens + 1 < most;
      if (!goes_on) break;
    }
  counts.seconds = std::chrono::duration<double>(Clock::now() - first).count();
  return counts;
}

}  // namespace language_model
