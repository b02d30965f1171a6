// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// A rank-one edit of one feed-forward layer (ROME), whose value is found without gradients.
///
/// ```cpp
/// const SubjectStates subject = subject_states(llama, on, layer, prompts);   // they end with it
/// llama.blocks()[layer].down = edited_down(file, on, layer, covariance, subject, donor, 2);
/// ```
///
/// The key i is what the layer below gives W_down at the subject's last token, the mean over a few
/// beginnings of a sentence. ROME finds the value o by gradient descent on the answer's
/// probability. There are no gradients here: o = W i + (r' - r), where r and r' are what the block
/// makes of the residual stream at the last token of the subject and of the donor, means over the
/// same beginnings. From this block on the stream is there what the donor's is, so that it is not
/// one fact that moves, but all that later blocks read of the subject at that place.

#include "common/factored_linear.hpp"
#include "common/watched_linear.hpp"
#include "language_model/factored_layers.hpp"

#include <pare/core/matrix.hpp>
#include <pare/factor/structured/rank_one_edit.hpp>
#include <pare/io/gguf.hpp>
#include <pare/transformer/structured/edited_linear.hpp>

#include <Eigen/Core>

#include <cstddef>
#include <string>
#include <utility>
#include <vector>

namespace language_model {

/// Means over prompts, at their last token.
struct SubjectStates {
  Eigen::VectorXd key;     ///< [hidden] what W_down is given
  Eigen::VectorXd stream;  ///< [dim] the residual stream behind the block
};

/// \param prompts of any lengths, each ending with the subject
inline SubjectStates subject_states(Llama& llama, const ModelBackend& on, Index layer,
                                    const std::vector<std::vector<Token>>& prompts) {
  const LlamaConfig& config = llama.config();
  SubjectStates sum{Eigen::VectorXd::Zero(config.hidden), Eigen::VectorXd::Zero(config.dim)};
  const BlocksRestored restored(llama);
  AnyLinear& down = llama.blocks()[static_cast<std::size_t>(layer)].down;
  down = models::WatchedLinear(down, [&](const ModelBackend&, TensorView<const float, 2> x) {
    for (Index i = 0; i < x.cols(); ++i) sum.key[i] += static_cast<double>(x(x.rows() - 1, i));
  });
  for (const std::vector<Token>& tokens : prompts) {
    const auto rows = static_cast<Index>(tokens.size());
    KvCache cache(config.kv_shape(), rows);
    std::vector<float> stream(static_cast<std::size_t>(rows * config.dim));
    llama.states(on, tokens, cache, {.blocks = layer + 1, .made = stream},
                 [](const ModelBackend&, const auto&) {});
    const float* const last = stream.data() + (rows - 1) * config.dim;
    for (Index i = 0; i < config.dim; ++i) sum.stream[i] += static_cast<double>(last[i]);
  }
  sum.key /= static_cast<double>(prompts.size());
  sum.stream /= static_cast<double>(prompts.size());
  return sum;
}

/// W_down of a block with the edit beside it.
inline AnyLinear edited_down(const pare::io::GgufFile& file, const ModelBackend& on, Index layer,
                             const pare::factor::Covariance& inputs, const SubjectStates& subject,
                             const SubjectStates& donor, double strength = 1) {
  using pare::RowMatrix;
  const auto weight =
      detail::read_weight(file, "blk." + std::to_string(layer) + ".ffn_down.weight");
  const RowMatrix<double> key = subject.key.transpose();
  RowMatrix<double> value = pare::factor::locked_value(on, weight, key);
  value += strength * (donor.stream - subject.stream).transpose();
  auto edits =
      pare::factor::rome_edits(on, weight, pare::factor::InverseMoment(on, inputs), key, value);
  return pare::transformer::EditedLinear(models::dense_layer<float>(weight), std::move(edits));
}

}  // namespace language_model
