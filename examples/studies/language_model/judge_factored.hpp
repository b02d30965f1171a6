// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// The table of what factored linear layers are worth on texts.

#include "common/plot.hpp"
#include "common/progress.hpp"
#include "language_model/arguments.hpp"
#include "language_model/factored_layers.hpp"
#include "language_model/sampled_products.hpp"
#include "language_model/text_parts.hpp"

#include <chrono>
#include <cmath>
#include <cstdio>
#include <string>
#include <vector>

namespace language_model {

/// Prints rows and draws a picture for the layers as they are and for each metric and share, as
/// they are found.
template <class B>
void judge_factored(const Arguments& arguments, OpenModel& model, const B& backend,
                    TextParts texts) {
  const SvdArguments& svd = arguments.svd;
  InputProducts inputs;
  if (svd.needs_sample()) inputs = sampled_products(arguments, model, backend);
  std::printf("%-28s %-11s %5s %7s %7s %7s %16s %11s %18s %8s\n", "text", "metric", "share",
              "params", "MB f32", "MB bf16", "nats a token", "perplexity", "nats over exact",
              "seconds");
  const double bytes = svd.bf16 ? 2e-6 : 4e-6;
  plot::Plot picture{"Perplexity with factored layers",
                     {.label = svd.bf16 ? "MB of factors in bf16" : "MB of factors in float"},
                     {.label = "perplexity", .scale = plot::Scale::Log},
                     {},
                     {}};
  const auto judge = [&](const char* metric, double share, Index parameters, double seconds) {
    plot::Point point{bytes * static_cast<double>(parameters)};
    const auto row = [&](const std::string& text, const Mean& loss, const Mean& change) {
      const double millions = static_cast<double>(parameters) * 1e-6;
      std::printf(
          "%-28s %-11s %5.2f %6.1fM %7.1f %7.1f %7.3f +- %.3f %11.2f %+8.4f +- %.4f %8.1f\n",
          text.c_str(), metric, share, millions, 4 * millions, 2 * millions, loss.value, loss.error,
          std::exp(loss.value), change.value, change.error, seconds);
      std::fflush(stdout);
      point.y = std::exp(loss.value);  // of the last row, which is of all texts
      point.error = point.y * change.error;
    };
    texts.judge(model.llama, backend, arguments.window, arguments.kv, exact_attention, metric, row);
    return point;
  };
  picture.levels.push_back({"exact", judge("exact", 1, layer_parameters(model.llama), 0).y});
  const BlocksRestored restored(model.llama);
  for (const SvdMetric metric : svd.metrics) {
    const std::string name(name_of(metric));
    picture.series.push_back({name, {}});
    for (const double share : svd.shares) {
      command_line::Progress progress("factoring by " + name);
      const auto start = std::chrono::steady_clock::now();
      const Factoring how{metric, share, svd.bf16, svd.gradients};
      const Index parameters =
          factor_layers(model.llama, backend, model.file, how, inputs, progress);
      const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
      progress.erase();
      picture.series.back().points.push_back(
          judge(name.c_str(), share, parameters, seconds.count()));
    }
  }
  if (!arguments.plot.empty()) plot::write(arguments.plot, picture);
}

}  // namespace language_model
