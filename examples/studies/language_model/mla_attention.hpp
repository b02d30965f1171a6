// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Attention of a block over a cache of latents whose rotary keys lie apart, in the absorbed form.
///
/// ```cpp
/// const MlaAttention attention(config, mla, table);     // of to_mla, or of to_partial_rope
/// LatentCache<float> cache({.latent = attention.latent(), .rope = attention.rope(), .pages = 32});
/// attention.attend(backend, h, cache, out);             // the next tokens
/// ```
///
///     row   = [c | rotated k'] = D h                           cached
///     score = [W_UK,h^T q_h | rotated q'_h] . row / sqrt(head_dim)
///     out_h = W_UV,h sum_t p_t c_t
///
/// No key and no value is ever made. TransMLA has one rotary key that all heads share. MHA2MLA has
/// one for each key head: they lie side by side in the row, and a query is 0 beside its own, which
/// costs the zeros' products and no copy. Its pairs are put side by side, each with the frequency
/// that it had in its head.

#include "common/factored_linear.hpp"
#include "language_model/cache_attention.hpp"
#include "language_model/head_views.hpp"
#include "language_model/llama_source.hpp"

#include <pare/attention/attend.hpp>
#include <pare/core/aligned_buffer.hpp>
#include <pare/core/matrix.hpp>
#include <pare/core/scratch.hpp>
#include <pare/core/workspace.hpp>
#include <pare/latent/cache.hpp>
#include <pare/latent/config.hpp>
#include <pare/latent/convert/mha2mla.hpp>
#include <pare/latent/convert/transmla.hpp>
#include <pare/latent/up_weights.hpp>
#include <pare/transformer/dense_linear.hpp>
#include <pare/transformer/rotary.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <memory>
#include <type_traits>
#include <utility>

namespace language_model {

using RotaryTable = pare::transformer::RotaryTable<float>;

/// The model's heads, as conversions are told of them.
inline pare::latent::AttentionShape attention_shape(const LlamaConfig& config) {
  return {.heads = config.heads,
          .kv_heads = config.kv_heads,
          .head_dim = config.head_dim,
          .rotary = 2 * config.rotary.pairs(),
          .layout = config.layout};
}

class MlaAttention {
 public:
  /// \param table of rope_frequencies of the same weights
  MlaAttention(const LlamaConfig& config, const pare::latent::MlaWeights<float>& weights,
               std::shared_ptr<const RotaryTable> table)
      : heads_(config.heads),
        rope_heads_(1),
        layout_(config.layout),
        scale_(1 / std::sqrt(static_cast<double>(config.head_dim))),
        query_(models::dense_layer<float>(weights.query)),
        down_(models::dense_layer<float>(weights.down)),
        up_(latent_config(config, config.head_dim, weights.rank()),
            models::dense_layer<float>(weights.up)),
        table_(std::move(table)) {}

  /// \param table of frequencies_of the same weights
  /// \throws std::invalid_argument if all pairs stay rotary: the latent then has no part of keys
  MlaAttention(const LlamaConfig& config, const pare::latent::PartialRopeWeights<float>& weights,
               std::shared_ptr<const RotaryTable> table)
      : heads_(config.heads),
        rope_heads_(config.kv_heads),
        layout_(pare::transformer::RotaryLayout::Interleaved),
        scale_(1 / std::sqrt(static_cast<double>(config.head_dim))),
        query_(models::dense_layer<float>(neighbouring(
            config, weights.query, weights.key_up.rows() / config.kv_heads, config.heads))),
        down_(models::dense_layer<float>(rows_of_cache(config, weights))),
        up_(latent_config(config, weights.key_up.rows() / config.kv_heads, weights.rank()),
            models::dense_layer<float>(ups_of_heads(config, weights))),
        table_(std::move(table)) {}

  /// Of the row's rotary keys, head after head.
  static pare::transformer::RotaryFrequencies frequencies_of(
      const pare::latent::PartialRopeWeights<float>& weights,
      const pare::transformer::RotaryFrequencies& of_layer) {
    pare::transformer::RotaryFrequencies kept{.frequencies = {}, .scale = of_layer.scale};
    for (const auto& of_head : weights.pairs)
      for (const Index pair : of_head)
        kept.frequencies.push_back(of_layer.frequencies[static_cast<std::size_t>(pair)]);
    return kept;
  }

  Index latent() const { return up_.latent(); }
  Index rope() const { return down_.outputs() - latent(); }

  /// Appends the rows of h [tokens, dim] and attends from them to all that are cached.
  template <class S>
  void attend(const ModelBackend& on, TensorView<const float, 2> h,
              pare::latent::LatentCache<S>& cache, TensorView<float, 2> out) const {
    const Index n = h.rows(), first = cache.length(0), width = down_.outputs();
    float *cached, *queries, *absorbed, *sums;
    const auto memory = pare::leased<pare::AlignedBuffer<std::byte>>(on);
    pare::carve_from(*memory, [&](pare::Carver& take) {
      take(cached, n * width);
      take(queries, n * query_.outputs());
      take(absorbed, n * heads_ * width);
      take(sums, n * heads_ * latent());
    });
    const auto rows = matrix(cached, n, width), q = matrix(queries, n, query_.outputs());
    const auto wide = matrix(absorbed, n, heads_ * width);
    down_.apply(on, h, rows);
    rotate(on, rows, 1, first);
    cache.append(on, 0, as_const(rows));
    query_.apply(on, h, q);
    absorb(on, q, wide);
    rotate(on, wide, heads_, first);
    const auto u = matrix(sums, n, heads_ * latent());
    const auto attends = [&](const auto& of_heads) {
      pare::attention::attend(on, of_heads, cache, heads_of(u, heads_),
                              {.causal = true, .scale = scale_});
    };
    if constexpr (std::is_same_v<S, float>) {
      attends(as_const(heads_of(wide, heads_)));
    } else {
      const auto rounded = pare::leased<pare::AlignedBuffer<S>>(on);
      attends(narrowed(as_const(heads_of(wide, heads_)), *rounded));
    }
    up_.expand_outputs(on, as_const(by_token(u)), by_token(out));
  }

 private:
  static pare::latent::LatentConfig latent_config(const LlamaConfig& c, Index content, Index rank) {
    return {.width = c.dim,
            .heads = c.heads,
            .nope = content,
            .rope = 0,
            .value = c.head_dim,
            .latent = rank,
            .softmax_scale = 1 / std::sqrt(static_cast<double>(c.head_dim))};
  }

  /// The rotary rows of each head, which are behind `content` others, in pairs of neighbours.
  static pare::RowMatrix<float> neighbouring(const LlamaConfig& c,
                                             const pare::RowMatrix<float>& weight, Index content,
                                             Index heads) {
    pare::RowMatrix<float> to = weight;
    const Index each = weight.rows() / heads, pairs = (each - content) / 2;
    for (Index head = 0; head < heads; ++head)
      for (Index pair = 0; pair < pairs; ++pair)
        for (Index part = 0; part < 2; ++part)
          to.row(head * each + content + 2 * pair + part) =
              weight.row(head * each + content +
                         pare::latent::AttentionShape::pair_channel(c.layout, pair, part, pairs));
    return to;
  }

  static pare::RowMatrix<float> rows_of_cache(
      const LlamaConfig& c, const pare::latent::PartialRopeWeights<float>& weights) {
    pare::RowMatrix<float> down(weights.cache_width(), weights.down.cols());
    down << weights.down, neighbouring(c, weights.rope_key, 0, c.kv_heads);
    return down;
  }

  /// Of each query head its key rows and its value rows.
  static pare::RowMatrix<float> ups_of_heads(
      const LlamaConfig& c, const pare::latent::PartialRopeWeights<float>& weights) {
    const Index content = weights.key_up.rows() / c.kv_heads, each = content + c.head_dim;
    pare::RowMatrix<float> up(c.heads * each, weights.rank());
    for (Index head = 0; head < c.heads; ++head) {
      const Index group = head / (c.heads / c.kv_heads);
      up.middleRows(head * each, content) = weights.key_up.middleRows(group * content, content);
      up.middleRows(head * each + content, c.head_dim) =
          weights.value_up.middleRows(group * c.head_dim, c.head_dim);
    }
    return up;
  }

  /// [tokens, heads x each] as [tokens, heads, each].
  template <class T>
  TensorView<T, 3> by_token(TensorView<T, 2> m) const {
    const Index each = m.cols() / heads_;
    return {m.data, {m.rows(), heads_, each}, {m.stride[0], each, 1}};
  }

  /// What is behind the latent in each head of rows.
  void rotate(const ModelBackend& on, TensorView<float, 2> rows, Index heads, Index first) const {
    TensorView<float, 4> turned = heads_of(rows, heads);
    turned.data += latent();
    turned.extent[3] = rope();
    pare::transformer::rotate(on, turned, *table_, {.layout = layout_, .first_position = first});
  }

  /// [q_h W_UK,h | 0 q'_h 0] of each head of q [tokens, heads x (content + rope)].
  void absorb(const ModelBackend& on, TensorView<float, 2> q, TensorView<float, 2> wide) const {
    TensorView<float, 3> content = by_token(q), latents = by_token(wide);
    content.extent[2] = up_.nope();
    latents.extent[2] = latent();
    up_.absorb(on, as_const(content), latents);
    const Index each = q.cols() / heads_, own = each - up_.nope(), width = latent() + rope();
    for (Index t = 0; t < q.rows(); ++t)
      for (Index head = 0; head < heads_; ++head) {
        float* const to = &wide(t, head * width + latent());
        std::fill_n(to, rope(), 0.f);
        std::copy_n(&q(t, head * each + up_.nope()), own, to + head / (heads_ / rope_heads_) * own);
      }
  }

  Index heads_, rope_heads_;
  pare::transformer::RotaryLayout layout_;
  double scale_;
  pare::transformer::DenseLinear<float> query_, down_;
  pare::latent::UpWeights<float> up_;
  std::shared_ptr<const RotaryTable> table_;
};

}  // namespace language_model
