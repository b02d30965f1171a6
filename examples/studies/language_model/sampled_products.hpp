// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// The mean products of the inputs of a model's layers over the text that --sample names.

#include "common/progress.hpp"
#include "language_model/arguments.hpp"
#include "language_model/factored_layers.hpp"
#include "language_model/text_parts.hpp"

#include <vector>

namespace language_model {

/// \throws std::runtime_error if the text cannot be read
template <class B>
InputProducts sampled_products(const Arguments& arguments, OpenModel& model, const B& backend) {
  const std::vector<Token> sample =
      tokens_of(model, arguments.sample, arguments.svd.most_sample_tokens());
  command_line::Progress progress("mean products of inputs");
  return input_products(model.llama, backend, sample, arguments.window, progress);
}

}  // namespace language_model
