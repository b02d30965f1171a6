// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// The table of what speculative decoding is worth on texts.
///
/// Each row has plain decoding beside it, prompt by prompt. `foretold` is what an AdaptiveBudget
/// expected of a round, `x dense` the speed over that with the dense head, if it stands before,
/// `eq. 4` what pare::draft::relative_speed makes of the row's tokens and times of heads, and the
/// last column that of winning_size.hpp.

#include "common/progress.hpp"
#include "language_model/open_drafter.hpp"
#include "language_model/speculative.hpp"
#include "language_model/text_parts.hpp"
#include "language_model/winning_size.hpp"

#include <pare/draft/acceptance_cost.hpp>

#include <cmath>
#include <cstddef>
#include <cstdio>
#include <map>
#include <optional>
#include <span>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace language_model {

/// The prompts of the files: `count` of each, of as many tokens each, evenly spaced.
/// \param shift of all of them, as a share of the space between two
inline std::vector<std::vector<Token>> draft_prompts(const Arguments& arguments,
                                                     const OpenModel& model, double shift = 0) {
  std::vector<std::vector<Token>> prompts;
  const auto size = static_cast<std::size_t>(arguments.prompt);
  const auto count = static_cast<std::size_t>(arguments.draft.prompts);
  for (const std::string& path : arguments.words) {
    const std::vector<Token> text = tokens_of(model, path, Index{1} << 20);
    if (text.size() < size + count)
      throw std::runtime_error(path + ": has " + std::to_string(text.size()) +
                               " tokens, too few for the prompts");
    const double space = static_cast<double>(text.size() - size) / static_cast<double>(count);
    for (std::size_t i = 0; i < count; ++i) {
      const auto begin =
          text.begin() + static_cast<Index>((static_cast<double>(i) + shift) * space);
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

/// Texts behind the same prompts without and with drafts. The two take turns, prompt by prompt, so
/// that both are as slow as what else the machine does makes them.
struct ComparedTexts {
  DraftedTexts plain, drafted;

  /// Tokens per second of the drafted texts over those of the plain ones.
  double speed() const { return drafted.tokens_per_second() / plain.tokens_per_second(); }
  std::size_t same() const {
    std::size_t count = 0;
    for (std::size_t i = 0; i < plain.texts.size(); ++i)
      count += plain.texts[i] == drafted.texts[i];
    return count;
  }
};

/// `tokens` behind each prompt, none of which ends a text.
/// \param budget as that of speculate
template <class Budget>
ComparedTexts compared_texts(const Arguments& arguments, const OpenModel& model,
                             const ModelBackend& on, const std::vector<std::vector<Token>>& prompts,
                             const Drafter& drafter, Budget&& budget, const std::string& name) {
  ComparedTexts compared;
  const Index most = arguments.tokens.value_or(64);
  command_line::Progress progress(name);
  KvCache cache(model.llama.config().kv_shape(),
                speculative_room(model.llama, prompts.front(), most, most_budget), arguments.kv);
  const auto write = [&](DraftedTexts& to, std::span<const Token> prompt, const Drafter& by,
                         auto&& nodes) {
    cache.reset();
    std::vector<Token>& text = to.texts.emplace_back();
    to.counts += speculate(model.llama, on, cache, prompt, most, arguments.sampling, by, nodes,
                           [&](Token token) {
                             text.push_back(token);
                             return true;
                           });
  };
  const Drafter none = no_drafter();
  for (const std::vector<Token>& prompt : prompts) {
    write(compared.plain, prompt, none, Index{1});
    write(compared.drafted, prompt, drafter, budget);
    progress(static_cast<double>(compared.plain.texts.size()) /
             static_cast<double>(prompts.size()));
  }
  return compared;
}

/// A drafter's row, and what a cheaper head is compared with.
struct DraftedRow {
  std::string drafter, head, budget;
  double power = 0;                         ///< of winning_size
  std::optional<ComparedTexts> dense = {};  ///< the same with the dense head
};

/// What the model of acceptance and cost says of a head, by tokens and seconds of a round.
inline double foretold_speed(const DraftedTexts& dense, const DraftedTexts& other) {
  const double full = dense.per_round(dense.counts.head_seconds);
  return pare::draft::relative_speed(
      {.acceptance = other.tokens_per_round() / dense.tokens_per_round(),
       .head_time = other.per_round(other.counts.head_seconds) / full,
       .head_share = full / (dense.per_round(dense.counts.seconds) - full)});
}

inline void print_draft_heading() {
  std::printf("%-10s %-11s %6s %5s %6s %8s %8s %8s %6s %8s %7s %7s %6s %9s %11s\n", "drafter",
              "head", "budget", "nodes", "tokens", "foretold", "draft ms", "model ms", "heads",
              "tokens/s", "x plain", "x dense", "eq. 4", "same", "wins from x");
}

inline void print_drafted(const DraftedRow& row, const ComparedTexts& of) {
  const DraftedTexts& plain = of.plain;
  const DraftedTexts& drafted = of.drafted;
  const SpeculativeCounts& c = drafted.counts;
  const auto print = [](const char* format, std::optional<double> x, int width) {
    x&& std::isfinite(*x) ? std::printf(format, width, *x)
                          : std::printf(" %*s", width, x ? "never" : "-");
  };
  std::printf("%-10s %-11s %6s %5.1f %6.2f", row.drafter.c_str(), row.head.c_str(),
              row.budget.c_str(), drafted.per_round(static_cast<double>(c.nodes)),
              drafted.tokens_per_round());
  print(" %*.2f", c.foretold > 0 ? std::optional(drafted.per_round(c.foretold)) : std::nullopt, 8);
  std::printf(" %8.2f %8.2f %5.1f%% %8.1f %7.2f", 1e3 * drafted.per_round(c.draft_seconds),
              1e3 * drafted.per_round(c.model_seconds), 100 * c.head_seconds / c.seconds,
              drafted.tokens_per_second(), of.speed());
  std::optional<double> measured, foretold;
  if (row.dense) {
    measured = of.speed() / row.dense->speed();
    foretold = foretold_speed(row.dense->drafted, drafted);
  }
  print(" %*.2f", measured, 7);
  print(" %*.2f", foretold, 6);
  std::printf(" %5zu/%-3zu", of.same(), plain.texts.size());
  print(" %*.1f",
        winning_size(drafted.tokens_per_round(), plain.per_round(plain.counts.model_seconds),
                     drafted.per_round(c.draft_seconds), drafted.per_round(c.model_seconds),
                     row.power),
        11);
  std::printf("\n");
  std::fflush(stdout);
}

/// Makes the rows of the table.
class DrafterJudge {
 public:
  DrafterJudge(const Arguments& arguments, const OpenModel& model, const ModelBackend& on)
      : arguments_(arguments),
        model_(model),
        on_(on),
        prompts_(draft_prompts(arguments, model)),
        make_(arguments, model, on) {}

  void judge(const DraftName& drafter, const DraftName& head) {
    const Drafter drafts = make_(drafter, head);
    const bool has_head = drafter.name != "prompt";
    for (const std::optional<Index> budget : arguments_.draft.budgets) {
      DraftedRow row{.drafter = drafter.text(),
                     .head = has_head ? head.text() : "",
                     .budget = budget ? std::to_string(*budget) : "auto",
                     .power = draft_power(drafter.name)};
      const auto dense = dense_.find({row.drafter, row.budget});
      if (head.name != "dense" && dense != dense_.end()) row.dense = dense->second;
      const std::string name = row.drafter + " " + row.head + " " + row.budget;
      const ComparedTexts texts =
          budget ? compared_texts(arguments_, model_, on_, prompts_, drafts, *budget, name)
                 : adaptive_texts(drafter, drafts, name);
      print_drafted(row, texts);
      texts_ += texts.plain.texts.size();
      same_ += texts.same();
      if (has_head && head.name == "dense")
        dense_.emplace(std::pair(row.drafter, row.budget), texts);
    }
  }

  /// \throws std::runtime_error with --check, if a text is not that of plain decoding
  void finish() const {
    if (!arguments_.draft.check) return;
    const std::string count = std::to_string(same_) + " of " + std::to_string(texts_);
    if (same_ < texts_)
      throw std::runtime_error("--check: texts without drafts are others: " + count + " equal");
    std::printf("%s texts are those without drafts\n", count.c_str());
  }

 private:
  /// Acceptance is learned from prompts midway between those of the table.
  ComparedTexts adaptive_texts(const DraftName& drafter, const Drafter& drafts,
                               const std::string& name) {
    AdaptiveBudget budget = make_.adaptive(drafter, arguments_.kv, arguments_.prompt);
    compared_texts(arguments_, model_, on_, draft_prompts(arguments_, model_, 0.5), drafts, budget,
                   name + ", learning");
    return compared_texts(arguments_, model_, on_, prompts_, drafts, budget, name);
  }

  const Arguments& arguments_;
  const OpenModel& model_;
  ModelBackend on_;
  std::vector<std::vector<Token>> prompts_;
  DrafterMaker make_;
  std::map<std::pair<std::string, std::string>, ComparedTexts> dense_;  ///< by drafter and budget
  std::size_t texts_ = 0, same_ = 0;
};

/// Prints a row for each drafter, head and budget.
template <class B>
void judge_drafters(const Arguments& arguments, const OpenModel& model, const B& backend) {
  DrafterJudge judge(arguments, model, on_any_executor(backend));
  print_draft_heading();
  for (const DraftName& drafter : arguments.draft.drafters)
    for (const DraftName& head : arguments.draft.heads)
      if (drafter.name != "prompt" || head == arguments.draft.heads.front())
        judge.judge(drafter, head);
  judge.finish();
}

}  // namespace language_model
