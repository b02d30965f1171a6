// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// The table of what structured linear layers leave of an encoder's vectors.

#include "common/mean.hpp"
#include "common/open_encoder.hpp"
#include "common/structured_forms.hpp"
#include "common/structured_loss.hpp"
#include "encoder/factored_layers.hpp"

#include <pare/core/backend.hpp>
#include <pare/io/safetensors.hpp>

#include <cmath>
#include <cstddef>
#include <cstdio>
#include <utility>
#include <vector>

namespace encoder {

/// Makes all layers of the blocks of the weights of a file, and puts them in place. Returns their
/// bytes beside those of bf16, and adds their losses.
template <class B>
double put_layers(OpenEncoder& model, const B& backend, const models::StructuredForm& form,
                  const InputProducts& inputs, std::vector<double>& losses) {
  const ModelBackend on = on_any_executor(backend);
  Index kept = 0, whole = 0;
  for (std::size_t i = 0; i < inputs.size(); ++i)
    for (const BlockLayer& part : block_layers) {
      BiasedLinear& layer = model.bert.blocks()[i].*part.layer;
      const auto weight = model.file.read_matrix<float>(layer.weight);
      models::StructuredLayer made = form.make(on, weight, inputs[i][part.inputs]);
      layer.linear = std::move(made.layer);
      kept += made.bytes;
      whole += 2 * weight.size();
      losses.push_back(made.loss);
    }
  return static_cast<double>(kept) / static_cast<double>(whole);
}

/// Prints the mean cosine to the vectors of the whole model for each form, behind which stands low
/// rank of as many bytes; then the losses of 2:4 forms, layer by layer.
template <class B>
void judge_structured(OpenEncoder& model, const B& backend,
                      const models::StructuredArguments& arguments, const InputProducts& inputs,
                      const std::vector<std::vector<Token>>& sentences) {
  const auto nothing = [](auto&&...) {};
  const auto exact = sentence_vectors(model.bert, backend, sentences, nothing);
  std::printf("%zu sentences\n%-15s %6s %22s\n", sentences.size(), "layers", "bytes",
              "mean cosine");
  double low_rank_at = 0;
  models::LayerLosses losses;
  const auto judge = [&](const models::StructuredForm& form) {
    const BlocksRestored restored(model.bert);
    std::vector<double> lost;
    const double share = put_layers(model, backend, form, inputs, lost);
    const models::Mean mean = models::mean_of(
        cosines_of(sentence_vectors(model.bert, backend, sentences, nothing), exact));
    std::printf("%-15s %6.3f %12.4f +- %.4f\n", form.name.c_str(), share, mean.value, mean.error);
    std::fflush(stdout);
    if (lost.front() > 0) losses.emplace_back(form.name, std::move(lost));
    return share;
  };
  judge(models::dense_form());
  for (const models::StructuredForm& form : models::structured_forms(arguments)) {
    const double share = judge(form);
    if (std::abs(share - low_rank_at) > 0.01) judge(models::low_rank_form(low_rank_at = share));
  }
  models::print_losses(losses);
}

}  // namespace encoder
