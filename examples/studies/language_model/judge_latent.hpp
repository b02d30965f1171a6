// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// The table of what a cache of latents is worth on texts.

#include "common/progress.hpp"
#include "language_model/arguments.hpp"
#include "language_model/latent_layers.hpp"
#include "language_model/mla_attention.hpp"
#include "language_model/text_parts.hpp"

#include <pare/core/check.hpp>

#include <cmath>
#include <cstdio>
#include <string>
#include <vector>

namespace language_model {

/// Prints rows for the layers as they are and for each conversion and width, as they are found.
template <class B>
void judge_latent(const Arguments& arguments, OpenModel& model, const B& backend, TextParts texts) {
  const std::vector<Token> sample = tokens_of(model, arguments.sample, arguments.svd.sample_tokens);
  const LlamaConfig& config = model.llama.config();
  const Index exact_width = 2 * config.kv_heads * config.head_dim;
  for (const Index width : arguments.latent.widths)
    pare::check(width <= exact_width, "language_model", "--latent", width,
                pare::Worded{"at most the width of keys and values, ", exact_width});
  const Index rope = 2 * config.rotary.pairs();
  for (const Conversion how : arguments.latent.conversions)
    for (const Index width : arguments.latent.widths)
      pare::check(!is_transmla(how) || width > rope, "language_model", "--latent", width,
                  pare::Worded{"more than the rotary key of transmla, ", rope});
  command_line::Progress gathering("mean products of inputs");
  const auto inputs = attention_inputs(model.llama, backend, sample, arguments.window, gathering);
  gathering.erase();
  std::printf("%-28s %-12s %6s %9s %9s %7s %7s %16s %11s %18s\n", "text", "conversion", "width",
              "B/token", "in bf16", "K off", "V off", "nats a token", "perplexity",
              "nats over exact");
  const auto judge = [&](const std::string& name, const ConvertedLayers& layers,
                         const Attention& attention = exact_attention) {
    const auto row = [&](const std::string& text, const Mean& loss, const Mean& change) {
      std::printf(
          "%-28s %-12s %6.1f %9td %9td %7.4f %7.4f %7.3f +- %.3f %11.2f %+8.4f +- %.4f\n",
          text.c_str(), name.c_str(),
          static_cast<double>(layers.cached) / static_cast<double>(model.llama.blocks().size()),
          4 * layers.cached, 2 * layers.cached, layers.key_error, layers.value_error, loss.value,
          loss.error, std::exp(loss.value), change.value, change.error);
      std::fflush(stdout);
    };
    texts.judge(model.llama, backend, arguments.window, arguments.kv, attention, name, row);
  };
  judge("exact", {.cached = config.blocks * exact_width});
  for (const Conversion how : arguments.latent.conversions)
    for (const Index width : arguments.latent.widths) {
      const BlocksRestored restored(model.llama);
      const std::string name(name_of(how));
      if (!is_transmla(how)) {
        judge(name, convert_layers(model.llama, backend, model.file, {how, width}, inputs));
        continue;
      }
      const MlaAttention mla(
          model.llama, backend, model.file, inputs,
          {.rank = width - rope, .fold = how == Conversion::TransMlaFold ? 4 : 1});
      judge(name, mla.layers(), mla.attention());
    }
}

}  // namespace language_model
