// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// The table of what factored linear layers are worth on texts.

#include "language_model/arguments.hpp"
#include "language_model/factored_layers.hpp"
#include "language_model/judged_text.hpp"

#include <chrono>
#include <cmath>
#include <cstddef>
#include <cstdio>
#include <string>
#include <string_view>
#include <vector>

namespace language_model {

namespace detail {

/// What a row says of the layers.
struct FactoredRow {
  std::string_view metric = "exact";
  double share = 1;
  Index parameters = 0;
  double seconds = 0;  ///< to factor
};

inline void print_factored_heading() {
  std::printf("%-28s %-11s %5s %7s %7s %7s %16s %9s %18s %8s\n", "text", "metric", "share",
              "params", "MB f32", "MB bf16", "nats a token", "perplex.", "nats over exact",
              "seconds");
}

inline void print_factored_row(const std::string& text, const FactoredRow& row,
                               const std::vector<double>& losses,
                               const std::vector<double>& exact) {
  const Mean loss = mean_of(losses), change = mean_change(losses, exact);
  const double millions = static_cast<double>(row.parameters) * 1e-6;
  std::printf("%-28s %-11s %5.2f %6.1fM %7.1f %7.1f %7.3f +- %.3f %9.2f %+8.4f +- %.4f %8.1f\n",
              text.c_str(), row.metric.data(), row.share, millions, 4 * millions, 2 * millions,
              loss.value, loss.error, std::exp(loss.value), change.value, change.error,
              row.seconds);
  std::fflush(stdout);
}

/// Judges the texts one after the other, and all together if there are several. Losses of exact
/// layers, one vector a text, are found by the first call.
template <class B>
void judge_texts(const Arguments& arguments, const OpenModel& model, const B& backend,
                 const std::vector<JudgedText>& texts, const FactoredRow& row,
                 std::vector<std::vector<double>>& exact) {
  const std::string name(row.metric);
  std::vector<double> all, all_exact;
  for (std::size_t i = 0; i < texts.size(); ++i) {
    const std::vector<double> losses = judged_losses(
        model.llama, backend, texts[i], arguments.window, arguments.kv, exact_attention, name);
    if (exact.size() == i) exact.push_back(losses);
    print_factored_row(texts[i].path, row, losses, exact[i]);
    all.insert(all.end(), losses.begin(), losses.end());
    all_exact.insert(all_exact.end(), exact[i].begin(), exact[i].end());
  }
  if (texts.size() > 1) print_factored_row("all", row, all, all_exact);
}

}  // namespace detail

/// Prints rows for the layers as they are and for each metric and share, as they are found.
template <class B>
void judge_factored(const Arguments& arguments, OpenModel& model, const B& backend,
                    const std::vector<JudgedText>& texts) {
  const SvdArguments& svd = arguments.svd;
  InputProducts inputs;
  if (svd.needs_sample()) {
    const std::vector<Token> sample = tokens_of(model, arguments.sample, svd.sample_tokens);
    command_line::Progress progress("mean products of inputs");
    inputs = input_products(model.llama, backend, sample, arguments.window, progress);
  }
  detail::print_factored_heading();
  std::vector<std::vector<double>> exact;
  const detail::FactoredRow whole{.parameters = layer_parameters(model.llama)};
  detail::judge_texts(arguments, model, backend, texts, whole, exact);
  const BlocksRestored restored(model.llama);
  for (const SvdMetric metric : svd.metrics)
    for (const double share : svd.shares) {
      detail::FactoredRow row{name_of(metric), share};
      command_line::Progress progress("factoring by " + std::string(row.metric));
      const auto start = std::chrono::steady_clock::now();
      const Factoring how{metric, share, svd.bf16, svd.gradients};
      row.parameters = factor_layers(model.llama, backend, model.file, how, inputs, progress);
      row.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
      progress.erase();
      detail::judge_texts(arguments, model, backend, texts, row, exact);
    }
}

}  // namespace language_model
