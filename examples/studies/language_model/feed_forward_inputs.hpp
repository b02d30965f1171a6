// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// The weights of a model's feed-forward layers, and what a text gives them as inputs.

#include "common/progress.hpp"
#include "common/watched_linear.hpp"
#include "language_model/arguments.hpp"
#include "language_model/factored_layers.hpp"
#include "language_model/routed_feed_forward.hpp"
#include "language_model/text_parts.hpp"

#include <string>
#include <vector>

namespace language_model {

inline FeedForwardWeights read_feed_forward(const pare::io::GgufFile& file, Index block) {
  const std::string name = "blk." + std::to_string(block) + ".ffn_";
  return {detail::read_weight(file, name + "gate.weight"),
          detail::read_weight(file, name + "up.weight"),
          detail::read_weight(file, name + "down.weight")};
}

/// The rows that each block's feed-forward layer gets of the text of --sample.
template <class B>
std::vector<pare::RowMatrix<float>> feed_forward_inputs(const Arguments& arguments,
                                                        OpenModel& model, const B& backend) {
  const std::vector<Token> sample =
      tokens_of(model, arguments.sample, arguments.svd.sample_tokens.value_or(2048));
  command_line::Progress progress("inputs of feed-forward layers");
  std::vector<pare::RowMatrix<float>> inputs;
  auto& blocks = model.llama.blocks();
  const models::BlocksRestored restored(model.llama);
  inputs.resize(blocks.size());
  for (std::size_t i = 0; i < blocks.size(); ++i)
    blocks[i].gate = models::WatchedLinear(
        blocks[i].gate, [&rows = inputs[i]](const ModelBackend&, TensorView<const float, 2> x) {
          const Index before = rows.rows();
          rows.conservativeResize(before + x.rows(), x.cols());
          for (Index r = 0; r < x.rows(); ++r)
            for (Index c = 0; c < x.cols(); ++c) rows(before + r, c) = x(r, c);
        });
  run_sample(model.llama, backend, sample, arguments.window, progress);
  return inputs;
}

}  // namespace language_model
