// SPDX-License-Identifier: Apache-2.0
// TransMLA: an attention layer with grouped heads becomes latent attention (MLA), which a
// LatentAttention runs token by token over a cache of latents; with random weights.
// Prints how far its outputs are from those of the layer, relatively: below 1e-5 with the rotation
// of all key heads, where nothing is lost but digits, and some tenths with that of one.

#include <pare/attention/attend.hpp>
#include <pare/attention/heads_first.hpp>
#include <pare/core/matrix.hpp>
#include <pare/factor/covariance.hpp>
#include <pare/latent/attention_layer.hpp>
#include <pare/latent/cache.hpp>
#include <pare/latent/convert/transmla.hpp>
#include <pare/transformer/dense_linear.hpp>
#include <pare/transformer/rotary.hpp>

#include <cstdio>
#include <utility>

using namespace pare::latent;
using pare::Index;
using pare::transformer::DenseLinear;
using Rows = pare::RowMatrix<float>;

const auto layer_frequencies = pare::transformer::rotary_frequencies(16);
constexpr Index layer_width = 96, token_count = 40;

/// [tokens, heads x 16] as [1, tokens, heads, 16].
pare::TensorView<float, 4> heads_of(Rows& rows) {
  return {rows.data(), {1, token_count, rows.cols() / 16, 16}, {0, rows.cols(), 16, 1}};
}

/// The layer as it was.
Rows grouped(const Rows& x, const Rows& w_q, const Rows& w_k, const Rows& w_v, const Rows& w_o) {
  Rows q = x * w_q.transpose(), k = x * w_k.transpose(), v = x * w_v.transpose(), out = q;
  const pare::transformer::RotaryTable<float> table(layer_frequencies, token_count);
  const auto heads = [](Rows& rows) { return pare::attention::heads_first(heads_of(rows)); };
  pare::transformer::rotate(heads(q), table);
  pare::transformer::rotate(heads(k), table);
  pare::attention::attend(heads(q), heads(k), heads(v), heads(out), {.causal = true});
  return out * w_o.transpose();
}

/// The same by latents; `rope_heads` of the key heads keep their rotation.
Rows latent(const Rows& x, const MlaWeights<float>& mla, const Rows& w_o) {
  const LatentConfig config = mla.config();  // whose scale is that of the layer
  LatentWeights<float> weights{.query = DenseLinear<float>(mla.query),
                               .latent_down = DenseLinear<float>(mla.down),
                               .up = {config, DenseLinear<float>(mla.up)},
                               .output = DenseLinear<float>(w_o)};
  const pare::transformer::RotaryTable<float> table(mla.rope_frequencies(layer_frequencies),
                                                    token_count);
  const LatentAttention<float> layer(config, std::move(weights), table, mla.shape.layout);
  LatentCache<float> cache(
      {.latent = config.latent, .rope = config.rope, .pages = 5, .page_size = 8});
  Rows out(token_count, layer_width);
  for (Index t = 0; t < token_count; ++t)
    layer.forward(x.middleRows(t, 1), cache, out.middleRows(t, 1));
  return out;
}

int main() {
  // 6 query heads share 2 key heads of 16. Weights of Hugging Face have RotaryLayout::HalfSplit.
  const AttentionShape shape{.heads = 6, .kv_heads = 2, .head_dim = 16};
  const Rows w_q = Rows::Random(96, layer_width), w_k = Rows::Random(32, layer_width),
             w_v = Rows::Random(32, layer_width), w_o = Rows::Random(layer_width, 96);
  const Rows x = 0.2f * Rows::Random(token_count, layer_width);
  pare::factor::Covariance inputs(layer_width);
  inputs.add(x);  // as often as batches of the layer's inputs come
  const auto error_of = [&](Index rank, Index rope_heads) {
    const auto mla = to_mla(w_q, w_k, w_v, inputs, shape, {.rank = rank, .rope_heads = rope_heads});
    const Rows wanted = grouped(x, w_q, w_k, w_v, w_o);
    return double((latent(x, mla, w_o) - wanted).norm() / wanted.norm());
  };
  const double all = error_of(32, 2), one = error_of(24, 1);
  std::printf("off by %.1e with all rotations, by %.2f with one and 40 numbers of 64\n", all, one);
  return all < 1e-5 && one < 0.8 ? 0 : 1;
}
