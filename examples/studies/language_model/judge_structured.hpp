// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// The table of what structured linear layers are worth on texts, and their speed.

#include "common/progress.hpp"
#include "common/structured_forms.hpp"
#include "common/structured_loss.hpp"
#include "language_model/arguments.hpp"
#include "language_model/factored_layers.hpp"
#include "language_model/speed.hpp"
#include "language_model/text_parts.hpp"

#include <cmath>
#include <cstdio>
#include <string>
#include <utility>
#include <vector>

namespace language_model {

struct PutLayers {
  Index bytes = 0;
  std::vector<double> losses;
};

/// Makes all layers of the blocks of the weights of a file, and puts them in place.
template <class B, class Progress>
PutLayers put_layers(Llama& llama, const B& backend, const pare::io::GgufFile& file,
                     const models::StructuredForm& form, const InputProducts& inputs,
                     Progress&& progress) {
  const ModelBackend on = on_any_executor(backend);
  PutLayers sum;
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    for (const NamedLayer& named : block_layers) {
      const std::string name = named.of_block(static_cast<Index>(i)) + ".weight";
      models::StructuredLayer made =
          form.make(on, detail::read_weight(file, name), inputs[i][named.inputs]);
      llama.blocks()[i].*named.layer = std::move(made.layer);
      sum.bytes += made.bytes;
      sum.losses.push_back(made.loss);
    }
    progress(static_cast<double>(i + 1) / static_cast<double>(inputs.size()));
  }
  return sum;
}

/// Prints rows for dense layers in bf16 and for each form, behind which stands low rank of as many
/// bytes; then the losses of 2:4 forms, layer by layer.
template <class B>
void judge_structured(const Arguments& arguments, OpenModel& model, const B& backend,
                      TextParts texts) {
  const InputProducts inputs = sampled_products(arguments, model, backend);
  const double dense = 2e-6 * static_cast<double>(layer_parameters(model.llama));
  double low_rank_at = 0;
  models::LayerLosses losses;
  const BlocksRestored restored(model.llama);
  std::printf("%-28s %-15s %7s %16s %11s %18s %9s\n", "text", "layers", "MB", "nats a token",
              "perplexity", "nats over dense", "tokens/s");
  const auto judge = [&](const models::StructuredForm& form) {
    command_line::Progress progress("making " + form.name);
    PutLayers put = put_layers(model.llama, backend, model.file, form, inputs, progress);
    const double megabytes = 1e-6 * static_cast<double>(put.bytes);
    const double speed = decode_speed(model.llama, backend, arguments.kv, progress);
    progress.erase();
    texts.judge(model.llama, backend, arguments.window, arguments.kv, exact_attention, form.name,
                [&](const std::string& text, const Mean& loss, const Mean& change) {
                  std::printf("%-28s %-15s %7.1f %7.3f +- %.3f %11.2f %+8.4f +- %.4f %9.1f\n",
                              text.c_str(), form.name.c_str(), megabytes, loss.value, loss.error,
                              std::exp(loss.value), change.value, change.error, speed);
                  std::fflush(stdout);
                });
    if (put.losses.front() > 0) losses.emplace_back(form.name, std::move(put.losses));
    return megabytes / dense;
  };
  judge(models::dense_form());
  for (const models::StructuredForm& form : models::structured_forms(arguments.structured)) {
    const double share = judge(form);
    if (std::abs(share - low_rank_at) > 0.01) judge(models::low_rank_form(low_rank_at = share));
  }
  models::print_losses(losses);
}

}  // namespace language_model
