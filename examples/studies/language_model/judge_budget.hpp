// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// The table of what a cache is worth whose heads keep part of the first half of each window.

#include "language_model/arguments.hpp"
#include "language_model/budget_ways.hpp"
#include "language_model/head_budget.hpp"
#include "language_model/open_model.hpp"
#include "language_model/prompt_bytes.hpp"
#include "language_model/prompt_losses.hpp"
#include "language_model/text_parts.hpp"

#include <cmath>
#include <cstdio>
#include <string>

namespace language_model {

/// Prints rows for the whole cache and for each way and ratio, as they are found.
template <class B>
void judge_budget(const Arguments& arguments, const OpenModel& model, const B& backend,
                  TextParts texts) {
  const KvShape shape = model.llama.config().kv_shape();
  const Index window = arguments.window;
  std::printf("%-20s %-16s %5s %6s %9s %16s %10s %17s\n", "text", "heads", "ratio", "kept", "bytes",
              "nats a token", "perplexity", "nats over all");
  const double all = static_cast<double>(shape.layers * shape.kv_heads * shape.head_dim) * 4.0 *
                     static_cast<double>(window);
  const auto judge = [&](const char* name, double ratio, const auto& attend, PromptBytes& bytes) {
    texts.judge(
        [&](const TextPart& part) {
          bytes.begin_text();
          return losses_behind_prompts(model.llama, backend, part, window, attend);
        },
        [&](const std::string& text, const Mean& loss, const Mean& change) {
          std::printf("%-20s %-16s %5.2f %6.3f %9.0f %7.3f +- %.3f %10.2f %+8.4f +- %.4f\n",
                      text.c_str(), name, ratio, bytes.mean() / all, bytes.mean(), loss.value,
                      loss.error, std::exp(loss.value), change.value, change.error);
          bytes.end_text();
          std::fflush(stdout);
        });
  };
  const auto is_last_behind_prompt = [&](const AttentionCall& call) {
    return call.layer + 1 == shape.layers && call.q.extent[2] < call.cache.length();
  };
  PromptBytes whole;
  const Attention exact = [&](const ModelBackend& on, const AttentionCall& call) {
    if (is_last_behind_prompt(call)) whole.add(all);
    return exact_attention(on, call);
  };
  judge("all tokens", 1, exact, whole);
  for (const double ratio : arguments.budget.ratios)
    for (const BudgetWay& way : budget_ways(arguments, model, backend, ratio)) {
      HeadBudget budget(shape, arguments.budget.scores(), way.groups, way.options);
      PromptBytes bytes;
      const Attention attend = [&](const ModelBackend& on, const AttentionCall& call) {
        const auto stats = budget(on, call);
        if (is_last_behind_prompt(call)) bytes.add(budget.bytes());
        return stats;
      };
      judge(way.name, ratio, attend, bytes);
    }
}

}  // namespace language_model
