// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// How well a model foretells a text behind prompts.

#include "common/progress.hpp"
#include "language_model/kv_cache.hpp"
#include "language_model/llama.hpp"
#include "language_model/perplexity.hpp"
#include "language_model/text_parts.hpp"

#include <pare/core/check.hpp>

#include <cstddef>
#include <span>
#include <vector>

namespace language_model {

/// The losses of the second half of each window, behind a prompt of the first, by an attention that
/// is asked anew for each window.
template <class B, class Attend>
std::vector<double> losses_behind_prompts(const Llama& llama, const B& backend,
                                          const TextPart& part, Index window,
                                          const Attend& attend) {
  pare::check(window >= 4 && static_cast<Index>(part.tokens.size()) >= window / 2 + 2,
              "language_model", "--window", window,
              "at least 4, and texts of 2 tokens more than half of it");
  command_line::Progress progress(part.path);
  KvCache cache(llama.config().kv_shape(), window);
  const auto run = [&](std::span<const Token> tokens, const auto& visit) {
    const auto half = static_cast<std::size_t>(window / 2);
    if (tokens.size() < half + 2) return;
    cache.reset();
    llama.forward(backend, tokens.first(half), cache, [](Index, auto) {}, attend);
    llama.forward(
        backend, tokens.subspan(half), cache,
        [&](Index first, auto logits) { visit(static_cast<Index>(half) + first, logits); }, attend);
  };
  return token_losses(backend, part.tokens, window, run, progress);
}

}  // namespace language_model
