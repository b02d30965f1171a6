// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// What heads are for: the table of texts without some of them, and those that look up passages.

#include "common/progress.hpp"
#include "language_model/arguments.hpp"
#include "language_model/head_masks.hpp"
#include "language_model/retrieval_heads.hpp"
#include "language_model/text_parts.hpp"

#include <pare/attention/heads/head_id.hpp>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <string>
#include <utility>
#include <vector>

namespace language_model {

/// A name and the attention of the model that has it.
using NamedAttention = std::pair<std::string, Attention>;

/// Prints rows for each way of attention, the first of which is what the others are held against.
template <class B>
void judge_ways(const Arguments& arguments, const OpenModel& model, const B& backend,
                TextParts texts, const std::vector<NamedAttention>& ways) {
  std::printf("%-28s %-28s %16s %11s %18s\n", "text", "heads", "nats a token", "perplexity",
              "nats over exact");
  for (const auto& way : ways) {
    const std::string& name = way.first;
    const auto row = [&](const std::string& text, const Mean& loss, const Mean& change) {
      std::printf("%-28s %-28s %7.3f +- %.3f %11.2f %+8.4f +- %.4f\n", text.c_str(), name.c_str(),
                  loss.value, loss.error, std::exp(loss.value), change.value, change.error);
      std::fflush(stdout);
    };
    texts.judge(model.llama, backend, arguments.window, arguments.kv, way.second, name, row);
  }
}

/// Prints rows for all heads as they are and for each mask.
template <class B>
void judge_heads(const Arguments& arguments, const OpenModel& model, const B& backend,
                 TextParts texts) {
  const LlamaConfig& config = model.llama.config();
  std::vector<NamedAttention> ways = {{"exact", exact_attention}};
  for (const HeadMask& mask : arguments.heads.masks)
    ways.emplace_back(mask.name(),
                      masked_attention(read_heads(mask.file, config), mask.mode, config));
  judge_ways(arguments, model, backend, std::move(texts), ways);
}

/// Writes the heads of the highest retrieval scores, or as many others.
template <class B>
void find_heads(const Arguments& arguments, const OpenModel& model, const B& backend) {
  const LlamaConfig& config = model.llama.config();
  std::vector<RetrievalPrompt> prompts;
  for (Index i = 0; i < arguments.heads.prompts; ++i)
    prompts.push_back(retrieval_prompt(model.tokenizer, 0, static_cast<std::uint32_t>(i)));
  command_line::Progress progress("asking for passages");
  const std::vector<double> scores = retrieval_scores(model.llama, backend, prompts, progress);
  progress.erase();
  std::vector<LayerHead> heads =
      pare::attention::top_heads(scores, config.heads, arguments.heads.share);
  if (arguments.heads.random)
    heads = other_heads(heads, config.blocks, config.heads, *arguments.heads.random);
  write_heads(arguments.out.value_or("heads.txt"), heads);
  std::puts("layer head score");
  for (const auto [layer, head] : heads)
    std::printf("%5td %4td %5.3f\n", layer, head,
                scores[static_cast<std::size_t>(layer * config.heads + head)]);
}

}  // namespace language_model
