// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// HeadHunter's rounds on a language model: heads that cost least when they attend to all keys
/// alike.

#include "language_model/arguments.hpp"
#include "language_model/judge_heads.hpp"

#include <pare/attention/heads/hunt_heads.hpp>

#include <cstdio>
#include <map>
#include <span>
#include <string>
#include <vector>

namespace language_model {

/// Hunts on --sample, with minus the mean loss as the objective, round by round and all at once,
/// and prints rows for both sets, of as many heads.
template <class B>
void judge_hunt(const Arguments& arguments, const OpenModel& model, const B& backend,
                TextParts texts) {
  const LlamaConfig& config = model.llama.config();
  const HeadArguments& of = arguments.heads;
  const std::vector<LayerHead> pool = read_heads(of.pool, config);
  const std::vector<Token> sample = tokens_of(model, arguments.sample, of.most_hunt_tokens());
  std::map<std::vector<LayerHead>, double> known;  // the first round of both is the same
  const auto objective = [&](std::span<const LayerHead> heads) {
    const std::vector<LayerHead> set(heads.begin(), heads.end());
    const auto [at, is_new] = known.try_emplace(set);
    if (is_new)
      at->second =
          -mean_of(token_losses(model.llama, backend, sample, arguments.window, arguments.kv,
                                masked_attention(set, HeadMode::Uniform, config), [](double) {}))
               .value;
    return at->second;
  };
  const auto rounds = pare::attention::hunt_heads(pool, objective, {.rounds = of.hunt_rounds()});
  const auto once = pare::attention::hunt_heads(pool, objective, {.per_round = of.hunt_rounds()});
  std::printf("%zu heads, %zu tokens of %s: loss %.4f\n", pool.size(), sample.size(),
              arguments.sample.c_str(), -objective({}));
  std::puts("round layer head  loss of the set | at once: layer head  loss alone");
  for (std::size_t i = 0; i < rounds.heads.size(); ++i)
    std::printf("%5zu %5td %4td %16.4f | %14td %4td %11.4f\n", i + 1, rounds.heads[i].layer,
                rounds.heads[i].head, -rounds.round_scores[i], once.heads[i].layer,
                once.heads[i].head, -once.scores[i]);
  std::printf("all of those found at once: loss %.4f\n", -once.round_scores.front());
  const auto masked = [&](const auto& hunt) {
    return masked_attention(hunt.heads, HeadMode::Uniform, config);
  };
  judge_ways(arguments, model, backend, std::move(texts),
             {{"exact", exact_attention},
              {"uniform: round by round", masked(rounds)},
              {"uniform: at once", masked(once)},
              {"uniform: the pool", masked_attention(pool, HeadMode::Uniform, config)}});
}

}  // namespace language_model
