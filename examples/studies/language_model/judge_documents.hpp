// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// AttentionInfluence's scores of documents: texts, what repeats itself, and what has no order.

#include "language_model/arguments.hpp"
#include "language_model/document_forms.hpp"
#include "language_model/head_masks.hpp"
#include "language_model/text_parts.hpp"

#include <pare/attention/heads/loss_difference.hpp>

#include <cstdio>
#include <vector>

namespace language_model {

/// Prints the score of each text in each form, by the heads of a file.
template <class B>
void judge_documents(const Arguments& arguments, const OpenModel& model, const B& backend,
                     const std::vector<TextPart>& texts) {
  const LlamaConfig& config = model.llama.config();
  const Attention masked = masked_attention(read_heads(arguments.heads.score_documents, config),
                                            HeadMode::Uniform, config);
  std::printf("%-28s %-18s %7s %10s %10s %8s\n", "text", "form", "tokens", "loss", "masked",
              "score");
  for (const TextPart& text : texts)
    for (const auto& [form, tokens] : document_forms(text.tokens)) {
      const auto losses = [&, &document = tokens](const Attention& attention) {
        return token_losses(model.llama, backend, document, arguments.window, arguments.kv,
                            attention, [](double) {});
      };
      const std::vector<double> base = losses(exact_attention), without = losses(masked);
      std::printf("%-28s %-18s %7zu %10.4f %10.4f %+8.4f\n", text.path.c_str(), form.c_str(),
                  tokens.size(), mean_of(base).value, mean_of(without).value,
                  pare::attention::document_score(base, without));
      std::fflush(stdout);
    }
}

}  // namespace language_model
