// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// The cache that the command line asks for: of keys and values, or of latents.
///
/// ```cpp
/// with_cache(arguments, model, backend, 2048, [&](auto& cache) {
///   model.llama.forward(backend, prompt, cache, logits);
/// });
/// ```

#include "common/progress.hpp"
#include "language_model/arguments.hpp"
#include "language_model/latent_kv.hpp"
#include "language_model/open_model.hpp"
#include "language_model/text_parts.hpp"

#include <pare/core/check.hpp>
#include <pare/core/scalar.hpp>

#include <cstdio>
#include <string>
#include <vector>

namespace language_model {

/// Bytes per token of keys and values of all blocks.
inline Index bytes_per_token(const KvShape& shape, KvScalar scalar) {
  return shape.layers * 2 * shape.kv_heads * shape.head_dim * (scalar == KvScalar::Float ? 4 : 2);
}

/// Refuses widths that a conversion cannot have.
inline void check_widths(const LatentArguments& latent, const LlamaConfig& config) {
  const Index exact = 2 * config.kv_heads * config.head_dim;
  for (const Conversion how : latent.conversions)
    for (const Index width : latent.widths) {
      pare::check(width <= exact, "language_model", "--latent", width,
                  pare::Worded{"at most the width of keys and values, ", exact});
      pare::check(
          width > rotary_width(config, how), "language_model", "--latent", width,
          pare::Worded{"more than the rotary keys of the conversion, ", rotary_width(config, how)});
    }
}

/// What conversions know of --sample.
template <class B>
LatentSample sample_of(const Arguments& arguments, OpenModel& model, const B& backend) {
  check_widths(arguments.latent, model.llama.config());
  const std::vector<Token> sample =
      tokens_of(model, arguments.sample, arguments.svd.most_sample_tokens());
  command_line::Progress gathering("mean products of inputs");
  return latent_sample(model.llama, backend, sample, arguments.window, gathering);
}

/// Calls use(cache) with an empty cache of `capacity` tokens; of latents it says on stderr how many
/// bytes a token takes, and what would be without.
template <class B, class Use>
void with_cache(const Arguments& arguments, OpenModel& model, const B& backend, Index capacity,
                const Use& use) {
  const KvShape shape = model.llama.config().kv_shape();
  if (arguments.latent.widths.empty()) {
    KvCache cache(shape, capacity, arguments.kv);
    return use(cache);
  }
  const LatentConversion to{arguments.latent.conversions.front(), arguments.latent.widths.front()};
  const LatentBlocks blocks =
      latent_blocks(model.llama, backend, model.file, to, sample_of(arguments, model, backend));
  const auto with = [&](auto cache) {
    std::fprintf(stderr, "[%s %td: %td bytes per token, %td without]\n",
                 std::string(name_of(to.how)).c_str(), to.width, cache.bytes_per_token(),
                 bytes_per_token(shape, arguments.kv));
    use(cache);
  };
  if (arguments.kv == KvScalar::Float)
    with(LatentKv<float>(shape, blocks, capacity));
  else
    with(LatentKv<pare::bf16>(shape, blocks, capacity));
}

}  // namespace language_model
