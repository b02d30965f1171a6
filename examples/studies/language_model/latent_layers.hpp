// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Makes the keys and values of a model's blocks from latents: their layers become thin factors.
///
/// ```cpp
/// const auto inputs = attention_inputs(model, backend, sample, 2048, progress);
/// const BlocksRestored restored(model);
/// convert_layers(model, backend, file, {Conversion::Care, 192}, inputs);
/// ```
///
/// A cache may hold the latents, from which keys are made and rotated when they are read
/// (latent_kv.hpp); here keys and values are cached, which are the same numbers.

#include "common/factored_linear.hpp"
#include "language_model/conversions.hpp"
#include "language_model/factored_layers.hpp"

#include <pare/core/check.hpp>
#include <pare/core/matrix.hpp>
#include <pare/factor/covariance.hpp>
#include <pare/factor/metric.hpp>
#include <pare/factor/svd.hpp>
#include <pare/io/gguf.hpp>
#include <pare/latent/convert/care.hpp>
#include <pare/latent/convert/kv_latents.hpp>

#include <Eigen/Core>

#include <algorithm>
#include <cstddef>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace language_model {

/// The mean products of what the key and value layers of each block are given over a text.
template <class B, class Progress>
std::vector<pare::factor::Covariance> attention_inputs(Llama& llama, const B& backend,
                                                       std::span<const Token> sample, Index window,
                                                       Progress&& progress) {
  std::vector<pare::factor::Covariance> inputs;
  inputs.reserve(llama.blocks().size());  // layers refer to its elements
  const BlocksRestored restored(llama);
  for (LlamaBlock& block : llama.blocks()) {
    auto& sum = inputs.emplace_back(block.key.inputs());
    block.key = models::WatchedLinear(
        block.key,
        [&sum](const ModelBackend& on, TensorView<const float, 2> x) { sum.add(on, x); });
  }
  run_sample(llama, backend, sample, window, progress);
  return inputs;
}

struct LatentConversion {
  Conversion how = Conversion::Svd;
  Index width = 0;  ///< of the latents of a layer; of adjusted ranks their mean
};

struct ConvertedLayers {
  Index cached = 0;                       ///< numbers per token, of all blocks
  double key_error = 0, value_error = 0;  ///< of activations, mean of the blocks

  /// Counts in one of `blocks` conversions.
  template <class Converted>
  void add(const Converted& block, std::size_t blocks) {
    cached += block.cache_width();
    key_error += *block.key_error.activation / static_cast<double>(blocks);
    value_error += *block.value_error.activation / static_cast<double>(blocks);
  }
};

namespace detail {

inline constexpr double care_damping = 0.01;

struct KeyValueWeights {
  pare::RowMatrix<float> key, value;
};

/// The name of a weight of a block's attention.
inline std::string attention_weight(std::size_t block, const char* of) {
  return "blk." + std::to_string(block) + ".attn_" + of + ".weight";
}

inline AnyLinear latent_layer(TensorView<const float, 2> up, TensorView<const float, 2> down) {
  pare::factor::LowRank<float> factors;
  factors.left = pare::row_matrix<float>(up);
  factors.right = pare::row_matrix<float>(down);
  return models::low_rank_layer<float>(factors);
}

/// Ranks of the latents of all blocks' keys or values.
inline std::vector<Index> latent_ranks(const ModelBackend& backend,
                                       const std::vector<KeyValueWeights>& weights,
                                       pare::RowMatrix<float> KeyValueWeights::* which,
                                       const std::vector<pare::factor::Covariance>& inputs,
                                       Conversion how, Index rank) {
  if (how != Conversion::Care && how != Conversion::CarePaper)
    return std::vector<Index>(weights.size(), rank);
  std::vector<Eigen::VectorXd> spectra;
  for (std::size_t i = 0; i < weights.size(); ++i) {
    const auto& w = weights[i].*which;
    spectra.push_back(pare::factor::covariance_svd(backend, w, inputs[i],
                                                   {.rank = std::min(w.rows(), w.cols()),
                                                    .route = pare::factor::Route::Exact},
                                                   care_damping)
                          .singular_values);
  }
  using pare::factor::RankScore;
  return pare::latent::adjusted_ranks(
      spectra, {.budget = rank * static_cast<Index>(weights.size()),
                .score = how == Conversion::Care ? RankScore::NormalizedEnergy
                                                 : RankScore::CareResidualRatio});
}

/// Calls use(latents) with those of one block.
template <class Use>
void with_latents(const ModelBackend& backend, const KeyValueWeights& w, Conversion how,
                  Index key_rank, Index value_rank, const pare::factor::Covariance& inputs,
                  const Use& use) {
  using namespace pare::latent;
  const auto c = inputs.matrix();
  const auto seen = pare::const_view(c);
  const auto by_metric = [&](const auto& metric, bool is_joint) {
    if (is_joint)
      use(joint_latent(backend, w.key, w.value, metric,
                       {.rank = key_rank + value_rank, .inputs = seen}));
    else
      use(separate_latents(backend, w.key, w.value, metric,
                           {.key_rank = key_rank, .value_rank = value_rank, .inputs = seen}));
  };
  const bool is_joint = how == Conversion::SvdJoint || how == Conversion::CareJoint;
  if (reads_inputs(how))
    by_metric(pare::factor::InputCovariance(c, care_damping), is_joint);
  else
    by_metric(pare::factor::Uniform{}, is_joint);
}

/// Calls use(i, latents) with those of each block, one after the other.
template <class Use>
void for_latents(const ModelBackend& on, const pare::io::GgufFile& file, const LatentConversion& to,
                 const std::vector<pare::factor::Covariance>& inputs, const Use& use) {
  std::vector<KeyValueWeights> weights;
  for (std::size_t i = 0; i < inputs.size(); ++i)
    weights.push_back(
        {read_weight(file, attention_weight(i, "k")), read_weight(file, attention_weight(i, "v"))});
  const auto ranks_of = [&](auto which, Index rank) {
    return latent_ranks(on, weights, which, inputs, to.how, rank);
  };
  const auto keys = ranks_of(&KeyValueWeights::key, to.width / 2);
  const auto values = ranks_of(&KeyValueWeights::value, to.width - to.width / 2);
  for (std::size_t i = 0; i < inputs.size(); ++i)
    with_latents(on, weights[i], to.how, keys[i], values[i], inputs[i],
                 [&](const auto& latents) { use(i, latents); });
}

}  // namespace detail

/// Replaces the key and value layers of all blocks.
///
/// \param file   of the model: weights are read from it, not from the layers in place
/// \param to     of any conversion whose keys are made of latents, all but those of is_mla
/// \param inputs of attention_inputs
/// \throws std::invalid_argument as the conversions do; layers are as they were then
template <class B>
ConvertedLayers convert_layers(Llama& llama, const B& backend, const pare::io::GgufFile& file,
                               const LatentConversion& to,
                               const std::vector<pare::factor::Covariance>& inputs) {
  std::vector<LlamaBlock> blocks = llama.blocks();
  ConvertedLayers converted;
  detail::for_latents(
      on_any_executor(backend), file, to, inputs, [&](std::size_t i, const auto& latents) {
        blocks[i].key = detail::latent_layer(latents.key_up(), latents.key_down());
        blocks[i].value = detail::latent_layer(latents.value_up(), latents.value_down());
        converted.add(latents, blocks.size());
      });
  llama.blocks() = std::move(blocks);
  return converted;
}

}  // namespace language_model
