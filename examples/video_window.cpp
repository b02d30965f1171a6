// SPDX-License-Identifier: Apache-2.0
// VideoMLA's window: frames of a video are made in chunks of three, each over the first frame and
// the last ones, whose rotary keys turn as the window moves on; with random weights.
// Prints how many frames of the video the window has, which they are, and the bytes of its tokens
// over those of keys and values: 7 frames, 0 and 9 to 14, and 0.107.

#include <pare/core/matrix.hpp>
#include <pare/latent/attention_layer.hpp>
#include <pare/latent/video_window.hpp>
#include <pare/transformer/dense_linear.hpp>
#include <pare/transformer/rotary_table.hpp>

#include <cstdio>
#include <utility>

using namespace pare::latent;
using pare::Index;
using pare::transformer::DenseLinear;
using Rows = pare::RowMatrix<float>;

DenseLinear<float> random_linear(Index outputs, Index inputs) {
  return DenseLinear<float>::copy_of(Rows(0.1f * Rows::Random(outputs, inputs)));
}

int main() {
  VideoWindow<pare::bf16> window({.latent = 64, .height = 6, .width = 10});  // 60 tokens a frame
  const Index rope = 2 * window.grid().pairs();
  const pare::transformer::RotaryTable<float> table(window.grid(), window.most_tokens());
  const LatentConfig config{.width = 128,
                            .heads = 8,
                            .nope = 24,
                            .rope = rope,
                            .value = 56,
                            .latent = 64,
                            .softmax_scale = latent_softmax_scale(24, rope)};
  LatentWeights<float> weights{.query = random_linear(8 * (24 + rope), 128),
                               .latent_down = random_linear(64 + rope, 128),
                               .up = {config, random_linear(8 * (24 + 56), 64)},
                               .output = random_linear(128, 8 * 56)};
  const LatentAttention<float> layer(config, std::move(weights), table);

  Rows frames(3 * window.grid().frame(), 128), out = frames;
  for (int chunk = 0; chunk < 5; ++chunk) {
    frames.setRandom();
    for (int step = 0; step < 4; ++step) {  // of denoising: each try takes the place of the last
      layer.forward(frames, window, out, {.positions = window.positions(3), .causal = false});
      frames = 0.5f * (frames + out);
    }
    window.keep();
  }

  const Index last = window.frames() - 1;
  const double bytes = double(window.bytes_per_token()) / double(2 * latent_sizes(config).expanded);
  std::printf("%td frames, %td and %td to %td; %.3f of the bytes\n", window.frames(),
              window.frame(0), window.frame(1), window.frame(last), bytes);
  return window.frame(0) == 0 && window.frame(1) == 9 && window.frame(last) == 14 ? 0 : 1;
}
