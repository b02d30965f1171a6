// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// The table of what feed-forward layers are worth of which each token uses some groups of neurons.

#include "common/progress.hpp"
#include "language_model/arguments.hpp"
#include "language_model/factored_layers.hpp"
#include "language_model/feed_forward_inputs.hpp"
#include "language_model/fit_experts.hpp"
#include "language_model/routed_feed_forward.hpp"
#include "language_model/speed.hpp"
#include "language_model/text_parts.hpp"

#include <cmath>
#include <cstdio>
#include <string>
#include <utility>
#include <vector>

namespace language_model {

/// Puts routed layers in place of the feed-forward layers of all blocks.
template <class B, class Progress>
void route_layers(Llama& llama, const B& backend, const pare::io::GgufFile& file,
                  const ExpertArguments& how, ExpertShare share, Router by,
                  const std::vector<pare::RowMatrix<float>>& inputs, Progress&& progress) {
  const ModelBackend on = on_any_executor(backend);
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    FeedForwardWeights weights = read_feed_forward(file, static_cast<Index>(i));
    if (how.by_activity.value_or(false)) group_by_activity(on, weights, inputs[i], share.groups);
    pare::RowMatrix<float> router;
    if (by == Router::Ridge)
      router =
          ridge_router(on, RoutedFeedForward(weights, share, by, {}, how.scaled), share, inputs[i]);
    llama.blocks()[i].routed =
        RoutedFeedForward(std::move(weights), share, by, std::move(router), how.scaled);
    progress(static_cast<double>(i + 1) / static_cast<double>(inputs.size()));
  }
}

/// Prints rows for the layers as they are and for each share and router.
template <class B>
void judge_experts(const Arguments& arguments, OpenModel& model, const B& backend,
                   TextParts texts) {
  const BlocksRestored restored(model.llama);
  const auto inputs = feed_forward_inputs(arguments, model, backend);
  std::printf("%-28s %-14s %7s %16s %11s %18s %9s\n", "text", "experts", "active", "nats a token",
              "perplexity", "nats over dense", "tokens/s");
  const auto judge = [&](const std::string& name, double active) {
    command_line::Progress progress(name);
    const double speed = decode_speed(model.llama, backend, arguments.kv, progress);
    progress.erase();
    texts.judge(model.llama, backend, arguments.window, arguments.kv, exact_attention, name,
                [&](const std::string& text, const Mean& loss, const Mean& change) {
                  std::printf("%-28s %-14s %7.3f %7.3f +- %.3f %11.2f %+8.4f +- %.4f %9.1f\n",
                              text.c_str(), name.c_str(), active, loss.value, loss.error,
                              std::exp(loss.value), change.value, change.error, speed);
                  std::fflush(stdout);
                });
  };
  judge("dense", 1);
  for (const ExpertShare& share : arguments.experts.shares)
    for (const Router by : arguments.experts.chosen_routers()) {
      const std::string name = std::to_string(share.groups) + ":" + std::to_string(share.used) +
                               " " + std::string(router_names[static_cast<std::size_t>(by)]);
      command_line::Progress progress("routing " + name);
      route_layers(model.llama, backend, model.file, arguments.experts, share, by, inputs,
                   progress);
      progress.erase();
      judge(name, static_cast<double>(share.used) / static_cast<double>(share.groups));
    }
}

}  // namespace language_model
