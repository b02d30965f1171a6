// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// The table of what factored linear layers are worth on texts.

#include "common/progress.hpp"
#include "language_model/arguments.hpp"
#include "language_model/factored_layers.hpp"
#include "language_model/text_parts.hpp"

#include <chrono>
#include <cmath>
#include <cstdio>
#include <string>
#include <vector>

namespace language_model {

/// Prints rows for the layers as they are and for each metric and share, as they are found.
template <class B>
void judge_factored(const Arguments& arguments, OpenModel& model, const B& backend,
                    TextParts texts) {
  const SvdArguments& svd = arguments.svd;
  InputProducts inputs;
  if (svd.needs_sample()) {
    const std::vector<Token> sample = tokens_of(model, arguments.sample, svd.sample_tokens);
    command_line::Progress progress("mean products of inputs");
    inputs = input_products(model.llama, backend, sample, arguments.window, progress);
  }
  std::printf("%-28s %-11s %5s %7s %7s %7s %16s %11s %18s %8s\n", "text", "metric", "share",
              "params", "MB f32", "MB bf16", "nats a token", "perplexity", "nats over exact",
              "seconds");
  const auto judge = [&](const char* metric, double share, Index parameters, double seconds) {
    const auto row = [&](const std::string& text, const Mean& loss, const Mean& change) {
      const double millions = static_cast<double>(parameters) * 1e-6;
      std::printf(
          "%-28s %-11s %5.2f %6.1fM %7.1f %7.1f %7.3f +- %.3f %11.2f %+8.4f +- %.4f %8.1f\n",
          text.c_str(), metric, share, millions, 4 * millions, 2 * millions, loss.value, loss.error,
          std::exp(loss.value), change.value, change.error, seconds);
      std::fflush(stdout);
    };
    texts.judge(model.llama, backend, arguments.window, arguments.kv, exact_attention, metric, row);
  };
  judge("exact", 1, layer_parameters(model.llama), 0);
  const BlocksRestored restored(model.llama);
  for (const SvdMetric metric : svd.metrics)
    for (const double share : svd.shares) {
      const std::string name(name_of(metric));
      command_line::Progress progress("factoring by " + name);
      const auto start = std::chrono::steady_clock::now();
      const Factoring how{metric, share, svd.bf16, svd.gradients};
      const Index parameters =
          factor_layers(model.llama, backend, model.file, how, inputs, progress);
      const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
      progress.erase();
      judge(name.c_str(), share, parameters, seconds.count());
    }
}

}  // namespace language_model
