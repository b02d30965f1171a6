// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Text behind a prompt, by speculative decoding.

#include "language_model/generate.hpp"
#include "language_model/open_drafter.hpp"
#include "language_model/speculative.hpp"
#include "language_model/stream_decoder.hpp"

#include <pare/core/check.hpp>

#include <cstdio>
#include <functional>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

namespace language_model {

/// Gives text to take(text) until a control token, and says on stderr what it took.
/// \throws std::runtime_error with --check, if the text is not that without drafts
template <class B>
void generate_drafted(const Arguments& arguments, const OpenModel& model, const B& backend,
                      const std::vector<Token>& prompt, Index most,
                      const std::function<void(const std::string&)>& take) {
  const DraftArguments& draft = arguments.draft;
  const std::optional<Index> budget = draft.budgets.front();
  DrafterMaker make(arguments, model, on_any_executor(backend));
  const Drafter drafter = make(draft.drafters.front(), draft.heads.front());
  const auto shape = model.llama.config().kv_shape();
  KvCache cache(shape, speculative_room(model.llama, prompt, most, budget.value_or(most_budget)),
                arguments.kv);
  StreamDecoder stream(model.tokenizer);
  std::string text;
  const auto show = [&](const std::string& part) {
    text += part;
    take(part);
  };
  const auto taken = [&](Token token) {
    if (model.tokenizer.is_control(token)) return false;
    show(stream.push(token));
    return true;
  };
  const auto behind_prompt = [&](auto&& of) {
    return speculate(model.llama, backend, cache, prompt, most, arguments.sampling, drafter, of,
                     taken);
  };
  SpeculativeCounts counts;
  if (budget) {
    counts = behind_prompt(*budget);
  } else {
    AdaptiveBudget adaptive =
        make.adaptive(draft.drafters.front(), arguments.kv, static_cast<Index>(prompt.size()));
    counts = behind_prompt(adaptive);
  }
  show(stream.finish());
  take("\n");
  std::fprintf(
      stderr, "[prompt: %zu tokens in %.2f s; then %td in %.2f s, %.1f a second; %td rounds]\n",
      prompt.size(), counts.prompt_seconds, counts.tokens, counts.seconds,
      counts.seconds > 0 ? static_cast<double>(counts.tokens) / counts.seconds : 0, counts.rounds);
  if (!draft.check) return;
  std::string plain;
  generate(model, backend, prompt, most, arguments.sampling, arguments.kv,
           [&](const std::string& part) { plain += part; });
  if (plain != text)
    throw std::runtime_error("--check: without drafts the text is another:\n" + plain);
  std::fputs("[without drafts the text is the same]\n", stderr);
}

}  // namespace language_model
