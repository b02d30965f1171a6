// SPDX-License-Identifier: Apache-2.0
// Latent attention (MLA): a prompt, then tokens one by one over a paged cache of latents, with
// random weights of a small layer in bf16.
// Prints the bytes of a cached token, those of its keys and values, and the largest difference
// between tokens decoded one by one and the same tokens in one prompt: below 1e-5.

#include <pare/core/matrix.hpp>
#include <pare/latent/attention_layer.hpp>
#include <pare/latent/cache.hpp>
#include <pare/transformer/dense_linear.hpp>
#include <pare/transformer/rotary_table.hpp>

#include <cmath>
#include <cstdio>
#include <utility>
#include <vector>

using namespace pare::latent;
using pare::bf16;
using pare::transformer::DenseLinear;
using Rows = pare::RowMatrix<float>;

/// A weight of its own, rounded; a model's would be read from its file, or viewed there.
DenseLinear<bf16> random_linear(pare::Index outputs, pare::Index inputs) {
  const Rows values = Rows::Random(outputs, inputs) * std::sqrt(3.0f / static_cast<float>(inputs));
  return DenseLinear<bf16>::copy_of(values);
}

int main() {
  const LatentConfig config{.width = 256,
                            .heads = 8,
                            .nope = 32,
                            .rope = 16,
                            .value = 32,
                            .latent = 64,
                            .softmax_scale = latent_softmax_scale(32, 16)};
  LatentWeights<bf16> weights{.query = random_linear(8 * 48, 256),
                              .latent_down = random_linear(64 + 16, 256),
                              .latent_norm = std::vector<float>(64, 1.0f),
                              .up = {config, random_linear(8 * 64, 64)},
                              .output = random_linear(256, 8 * 32)};
  const pare::transformer::RotaryTable<float> table(pare::transformer::rotary_frequencies(16), 256);
  const LatentAttention<bf16> layer(config, std::move(weights), table);

  constexpr pare::Index tokens = 120, prompt = 100;
  const Rows hidden = Rows::Random(tokens, config.width);
  pare::Workspace workspace;
  const auto backend = pare::simd.threads(2).with(workspace);

  // The whole text at once: keys and values are made of the latents.
  LatentCache<float> whole_cache({.latent = 64, .rope = 16, .pages = 8, .page_size = 16});
  Rows whole(tokens, config.width);
  layer.forward(backend, hidden, whole_cache, whole);

  // A prompt, and then tokens whose queries absorb W_UK and attend to the latents as they lie.
  LatentCache<float> cache({.latent = 64, .rope = 16, .pages = 8, .page_size = 16});
  Rows out(tokens, config.width);
  layer.forward(backend, hidden.topRows(prompt), cache, out.topRows(prompt));
  for (pare::Index t = prompt; t < tokens; ++t)
    layer.forward(backend, hidden.middleRows(t, 1), cache, out.middleRows(t, 1));

  const LatentSizes sizes = latent_sizes(config);
  const float difference = (out - whole).cwiseAbs().maxCoeff();
  std::printf("%td bytes of a token instead of %td, largest difference %.1e\n",
              sizes.cache_bytes(1, 1, 4), sizes.expanded_bytes(1, 1, 4), double(difference));
  return difference < 1e-5f ? 0 : 1;
}
