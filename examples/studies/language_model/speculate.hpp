// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// The table of what speculative decoding is worth on texts.
///
/// Its last column is that of winning_size.hpp.

#include "common/progress.hpp"
#include "language_model/open_drafter.hpp"
#include "language_model/speculative.hpp"
#include "language_model/text_parts.hpp"
#include "language_model/winning_size.hpp"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdio>
#include <stdexcept>
#include <string>
#include <vector>

namespace language_model {

/// The prompts of the files: `count` of each, of as many tokens each, evenly spaced.
inline std::vector<std::vector<Token>> draft_prompts(const Arguments& arguments,
                                                     const OpenModel& model) {
  std::vector<std::vector<Token>> prompts;
  const auto size = static_cast<std::size_t>(arguments.prompt);
  const auto count = static_cast<std::size_t>(arguments.draft.prompts);
  for (const std::string& path : arguments.words) {
    const std::vector<Token> text = tokens_of(model, path, Index{1} << 20);
    if (text.size() < size + count)
      throw std::runtime_error(path + ": has " + std::to_string(text.size()) +
                               " tokens, too few for the prompts");
    for (std::size_t i = 0; i < count; ++i) {
      const auto begin = text.begin() + static_cast<Index>(i * (text.size() - size) / count);
      prompts.emplace_back(begin, begin + arguments.prompt);
    }
  }
  return prompts;
}

/// The texts behind prompts, and what they took.
struct DraftedTexts {
  std::vector<std::vector<Token>> texts;
  SpeculativeCounts counts;

  double per_round(double sum) const { return sum / static_cast<double>(counts.rounds); }
  double tokens_per_round() const { return per_round(static_cast<double>(counts.tokens)); }
  double tokens_per_second() const { return static_cast<double>(counts.tokens) / counts.seconds; }
};

/// `tokens` behind each prompt, none of which ends a text.
inline DraftedTexts drafted_texts(const Arguments& arguments, const OpenModel& model,
                                  const ModelBackend& on,
                                  const std::vector<std::vector<Token>>& prompts,
                                  const Drafter& drafter, Index budget, const std::string& name) {
  DraftedTexts drafted;
  const Index most = arguments.tokens.value_or(64);
  command_line::Progress progress(name);
  for (const std::vector<Token>& prompt : prompts) {
    KvCache cache(model.llama.config().kv_shape(),
                  speculative_room(model.llama, prompt, most, budget), arguments.kv);
    std::vector<Token>& text = drafted.texts.emplace_back();
    drafted.counts += speculate(model.llama, on, cache, prompt, most, arguments.sampling, drafter,
                                budget, [&](Token token) {
                                  text.push_back(token);
                                  return true;
                                });
    progress(static_cast<double>(drafted.texts.size()) / static_cast<double>(prompts.size()));
  }
  return drafted;
}

inline void print_drafted(const DraftName& drafter, const std::string& head, Index budget,
                          const DraftedTexts& plain, const DraftedTexts& drafted) {
  const SpeculativeCounts& c = drafted.counts;
  std::size_t same = 0;
  for (std::size_t i = 0; i < plain.texts.size(); ++i) same += plain.texts[i] == drafted.texts[i];
  const double from =
      winning_size(drafted.tokens_per_round(), plain.per_round(plain.counts.model_seconds),
                   drafted.per_round(c.draft_seconds), drafted.per_round(c.model_seconds),
                   draft_power(drafter.name));
  std::printf("%-10s %-12s %6td %6.2f %9.2f %9.2f %6.1f%% %9.1f %7.2f %5zu/%zu ",
              drafter.text().c_str(), head.c_str(), budget, drafted.tokens_per_round(),
              1e3 * drafted.per_round(c.draft_seconds), 1e3 * drafted.per_round(c.model_seconds),
              100 * c.head_seconds / c.seconds, drafted.tokens_per_second(),
              drafted.tokens_per_second() / plain.tokens_per_second(), same, plain.texts.size());
  std::isfinite(from) ? std::printf("%9.1f\n", from) : std::printf("%9s\n", "never");
  std::fflush(stdout);
}

/// Prints a row for plain decoding and for each drafter, head and budget.
template <class B>
void judge_drafters(const Arguments& arguments, const OpenModel& model, const B& backend) {
  const ModelBackend on = on_any_executor(backend);
  const auto prompts = draft_prompts(arguments, model);
  DrafterMaker make(arguments, model, on);
  std::printf("%-10s %-12s %6s %6s %9s %9s %7s %9s %7s %7s %11s\n", "drafter", "head", "budget",
              "tokens", "draft ms", "model ms", "heads", "tokens/s", "x plain", "same",
              "wins from x");
  const DraftedTexts plain =
      drafted_texts(arguments, model, on, prompts, no_drafter(), 1, "plain decoding");
  print_drafted({"none"}, "", 1, plain, plain);
  for (const DraftName& drafter : arguments.draft.drafters)
    for (const DraftName& head : arguments.draft.heads) {
      const bool has_head = drafter.name != "prompt";
      if (!has_head && head != arguments.draft.heads.front()) continue;
      const Drafter drafts = make(drafter, head);
      for (const Index budget : arguments.draft.budgets)
        print_drafted(drafter, has_head ? head.text() : "", budget, plain,
                      drafted_texts(arguments, model, on, prompts, drafts, budget,
                                    drafter.text() + " " + head.text()));
    }
}

}  // namespace language_model
