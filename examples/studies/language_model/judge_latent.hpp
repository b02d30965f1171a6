// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// The table of what a cache of latents is worth on texts.

#include "common/progress.hpp"
#include "language_model/arguments.hpp"
#include "language_model/latent_blocks.hpp"
#include "language_model/latent_kv.hpp"
#include "language_model/open_cache.hpp"
#include "language_model/text_parts.hpp"

#include <pare/core/scalar.hpp>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <span>
#include <string>
#include <vector>

namespace language_model {

/// The losses of a text where latents are cached.
template <class S, class B>
std::vector<double> latent_losses(const Llama& llama, const B& backend, const LatentBlocks& blocks,
                                  const TextPart& part, Index window, const std::string& name) {
  command_line::Progress progress(part.path + ", " + name);
  const Index most = std::min(window, static_cast<Index>(part.tokens.size()));
  LatentKv<S> cache(llama.config().kv_shape(), blocks, most);
  const auto run = [&](std::span<const Token> tokens, const auto& visit) {
    cache.reset();
    llama.forward(backend, tokens, cache, visit);
  };
  return judged_losses(token_losses(backend, part.tokens, window, run, progress), part);
}

/// Prints rows for the layers as they are and for each conversion and width, as they are found.
template <class B>
void judge_latent(const Arguments& arguments, OpenModel& model, const B& backend, TextParts texts) {
  const LatentSample sample = sample_of(arguments, model, backend);
  const LlamaConfig& config = model.llama.config();
  const Index window = arguments.window;
  std::printf("%-28s %-12s %6s %9s %9s %7s %7s %16s %11s %18s\n", "text", "conversion", "width",
              "B/token", "in bf16", "K off", "V off", "nats a token", "perplexity",
              "nats over exact");
  const auto row_of = [&](const std::string& name, const ConvertedLayers& layers) {
    return [&config, name, layers](const std::string& text, const Mean& loss, const Mean& change) {
      std::printf("%-28s %-12s %6.1f %9td %9td %7.4f %7.4f %7.3f +- %.3f %11.2f %+8.4f +- %.4f\n",
                  text.c_str(), name.c_str(),
                  static_cast<double>(layers.cached) / static_cast<double>(config.blocks),
                  4 * layers.cached, 2 * layers.cached, layers.key_error, layers.value_error,
                  loss.value, loss.error, std::exp(loss.value), change.value, change.error);
      std::fflush(stdout);
    };
  };
  const auto judge = [&](const std::string& name, const ConvertedLayers& layers) {
    texts.judge(model.llama, backend, window, arguments.kv, exact_attention, name,
                row_of(name, layers));
  };
  judge("exact", {.cached = config.blocks * 2 * config.kv_heads * config.head_dim});
  for (const Conversion how : arguments.latent.conversions)
    for (const Index width : arguments.latent.widths) {
      const std::string name(name_of(how));
      if (!is_mla(how)) {
        const BlocksRestored restored(model.llama);
        judge(name, convert_layers(model.llama, backend, model.file, {how, width}, sample.inputs));
        continue;
      }
      const LatentBlocks blocks =
          latent_blocks(model.llama, backend, model.file, {how, width}, sample);
      const auto losses_of = [&](const TextPart& part) {
        return arguments.kv == KvScalar::Float
                   ? latent_losses<float>(model.llama, backend, blocks, part, window, name)
                   : latent_losses<pare::bf16>(model.llama, backend, blocks, part, window, name);
      };
      texts.judge(losses_of, row_of(name, blocks.layers));
    }
}

}  // namespace language_model
