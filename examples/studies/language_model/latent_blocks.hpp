// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Makes of each block of a model an attention over a cache of latents, by any conversion.
///
/// ```cpp
/// const LatentSample seen = latent_sample(model, backend, sample, 2048, progress);
/// const LatentBlocks blocks = latent_blocks(model, backend, file, {Conversion::Care, 192}, seen);
/// blocks.layers.cached;                               // numbers per token
/// ```

#include "common/watched_linear.hpp"
#include "language_model/latent_layers.hpp"
#include "language_model/made_keys_attention.hpp"
#include "language_model/mla_attention.hpp"

#include <pare/core/check.hpp>
#include <pare/core/matrix.hpp>
#include <pare/factor/covariance.hpp>
#include <pare/factor/metric.hpp>
#include <pare/io/gguf.hpp>
#include <pare/latent/convert/mha2mla.hpp>
#include <pare/latent/convert/rotary_pairs.hpp>
#include <pare/latent/convert/transmla.hpp>

#include <algorithm>
#include <cstddef>
#include <memory>
#include <span>
#include <variant>
#include <vector>

namespace language_model {

using BlockAttention = std::variant<MadeKeysAttention, MlaAttention>;

struct LatentBlocks {
  std::vector<BlockAttention> attention;  ///< of each block
  ConvertedLayers layers;
};

/// What conversions know of a text.
struct LatentSample {
  std::vector<pare::factor::Covariance> inputs;      ///< of attention_inputs
  std::vector<pare::RowMatrix<double>> pair_scores;  ///< of each block [kv heads, pairs]
};

/// Tokens that pairs are scored on, at most.
inline constexpr Index scored_tokens = 512;

/// How much each rotary pair of the key heads says (MHA2MLA's 2-norm), over the first tokens of a
/// text.
template <class B>
std::vector<pare::RowMatrix<double>> pair_scores(Llama& llama, const B& backend,
                                                 std::span<const Token> sample) {
  const BlocksRestored restored(llama);
  const auto shape = attention_shape(llama.config());
  std::vector<pare::RowMatrix<double>> scores(llama.blocks().size());
  for (std::size_t i = 0; i < scores.size(); ++i) {
    LlamaBlock& block = llama.blocks()[i];
    block.key = models::WatchedLinear(
        block.key, [&to = scores[i], query = block.query, key = block.key, shape](
                       const ModelBackend& on, TensorView<const float, 2> x) {
          pare::RowMatrix<float> q(x.rows(), query.outputs()), k(x.rows(), key.outputs());
          query.apply(on, x, pare::to_view(q));
          key.apply(on, x, pare::to_view(k));
          to = pare::latent::pair_norm_scores(q, k, shape);
        });
  }
  const auto most = static_cast<std::size_t>(std::min(scored_tokens, llama.config().context));
  run_sample(llama, backend, sample.first(std::min(sample.size(), most)), static_cast<Index>(most),
             [](double) {});
  return scores;
}

/// \param progress is given the share that is done
/// \throws std::invalid_argument as Llama::forward
template <class B, class Progress>
LatentSample latent_sample(Llama& llama, const B& backend, std::span<const Token> sample,
                           Index window, Progress&& progress) {
  return {attention_inputs(llama, backend, sample, window, progress),
          pair_scores(llama, backend, sample)};
}

/// Numbers of a row of the cache that are not of the latent: TransMLA's rotary key is as wide as a
/// head, MHA2MLA keeps a quarter of each key head.
inline Index rotary_width(const LlamaConfig& config, Conversion how) {
  const Index pairs = config.rotary.pairs();
  if (is_transmla(how)) return 2 * pairs;
  return is_mha2mla(how) ? config.kv_heads * 2 * std::max<Index>(1, pairs / 4) : 0;
}

namespace detail {

/// The attention of one block with rotary keys apart, whose errors it adds.
template <class Weights>
MlaAttention mla_block(const LlamaConfig& config, const Weights& weights,
                       const pare::transformer::RotaryFrequencies& frequencies, std::size_t blocks,
                       ConvertedLayers& layers) {
  layers.add(weights, blocks);
  return {config, weights, std::make_shared<RotaryTable>(frequencies, config.context)};
}

inline LatentBlocks mla_blocks(const LlamaConfig& config, const ModelBackend& on,
                               const pare::io::GgufFile& file, const LatentConversion& to,
                               const LatentSample& sample) {
  const Index rotary = rotary_width(config, to.how), rank = to.width - rotary;
  const auto shape = attention_shape(config);
  LatentBlocks made;
  for (std::size_t i = 0; i < sample.inputs.size(); ++i) {
    const auto weight = [&](const char* of) { return read_weight(file, attention_weight(i, of)); };
    const auto q = weight("q"), k = weight("k"), v = weight("v");
    const auto add = [&](const auto& weights, const auto& frequencies) {
      made.attention.emplace_back(
          mla_block(config, weights, frequencies, sample.inputs.size(), made.layers));
    };
    if (is_transmla(to.how)) {
      const auto mla =
          pare::latent::to_mla(on, q, k, v, sample.inputs[i], shape,
                               {.rank = rank, .fold = to.how == Conversion::TransMlaFold ? 4 : 1});
      add(mla, mla.rope_frequencies(config.rotary));
      continue;
    }
    const auto pairs =
        pare::latent::strongest_pairs(sample.pair_scores[i], rotary / config.kv_heads / 2);
    const auto c = sample.inputs[i].matrix();
    const auto by_metric = [&](const auto& metric) {
      const auto mla = pare::latent::to_partial_rope(on, q, k, v, metric, shape, pairs,
                                                     {.rank = rank, .inputs = pare::const_view(c)});
      add(mla, MlaAttention::frequencies_of(mla, config.rotary));
    };
    if (reads_inputs(to.how))
      by_metric(pare::factor::InputCovariance(c, care_damping));
    else
      by_metric(pare::factor::Uniform{});
  }
  return made;
}

}  // namespace detail

/// The attention of all blocks by a conversion. The model stays as it is, and gives its query
/// layers where keys are made of latents.
///
/// \param file   of the model, whose weights are converted
/// \param sample of latent_sample
/// \throws std::invalid_argument as the conversions do, or if the width has no room for a latent
template <class B>
LatentBlocks latent_blocks(Llama& llama, const B& backend, const pare::io::GgufFile& file,
                           const LatentConversion& to, const LatentSample& sample) {
  const LlamaConfig& config = llama.config();
  const ModelBackend on = on_any_executor(backend);
  const Index rotary = rotary_width(config, to.how);
  pare::check(to.width > rotary, "language_model::latent_blocks", "width", to.width,
              pare::Worded{"more than the ", rotary, " numbers of rotary keys"});
  if (is_mla(to.how)) return detail::mla_blocks(config, on, file, to, sample);
  LatentBlocks made;
  const auto table = std::make_shared<const RotaryTable>(config.rotary, config.context);
  detail::for_latents(on, file, to, sample.inputs, [&](std::size_t i, const auto& latents) {
    made.attention.emplace_back(MadeKeysAttention(config, llama.blocks()[i].query, latents, table));
    made.layers.add(latents, sample.inputs.size());
  });
  return made;
}

}  // namespace language_model
