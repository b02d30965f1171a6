// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Rows of the cache and queries, made of hidden states: projections, norms, rotation.

#include <pare/core/macros_off.hpp>

#include <pare/core/aligned_buffer.hpp>
#include <pare/core/backend.hpp>
#include <pare/core/matrix.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/latent/config.hpp>
#include <pare/latent/detail/expanded_keys.hpp>
#include <pare/transformer/norms.hpp>
#include <pare/transformer/rotary.hpp>

#include <algorithm>
#include <optional>
#include <vector>

namespace pare::latent::detail {
PARE_ABI_BEGIN

/// Numbers [from, from + dim) of each head of rows [tokens, heads x row], as attention wants them:
/// [1, heads, tokens, dim].
template <class T>
TensorView<T, 4> of_heads(TensorView<T, 2> rows, Index heads, Index from, Index dim) {
  return {
      rows.data + from, {1, heads, rows.rows(), dim}, {0, rows.cols() / heads, rows.stride[0], 1}};
}

/// The same as [tokens, heads, dim].
template <class T>
TensorView<T, 3> tokens_of(TensorView<T, 2> rows, Index heads, Index from, Index dim) {
  return {rows.data + from, {rows.rows(), heads, dim}, {rows.stride[0], rows.cols() / heads, 1}};
}

template <class B, class T>
void norm_in_place(const B& backend, TensorView<T, 2> x, const std::optional<std::vector<T>>& gain,
                   double epsilon) {
  if (gain) transformer::rms_norm(backend, x, *gain, x, {.epsilon = epsilon});
}

/// rows = [RMSNorm(latent) | rotary key, not rotated] of hidden states.
template <class B, class Layer, class T>
void make_rows(const B& backend, const Layer& layer, TensorView<const T, 2> hidden,
               TensorView<T, 2> rows) {
  layer.weights().latent_down.apply(backend, hidden, rows);
  norm_in_place(backend, columns_of(rows, 0, layer.config().latent), layer.weights().latent_norm,
                layer.config().norm_epsilon);
}

/// Queries of all heads, not rotated.
template <class B, class Layer, class T>
void make_queries(const B& backend, const Layer& layer, TensorView<const T, 2> hidden,
                  AlignedBuffer<T>& latents, TensorView<T, 2> queries) {
  const auto& weights = layer.weights();
  if (!weights.query_down) return weights.query.apply(backend, hidden, queries);
  const auto rows = matrix_in(latents, hidden.rows(), layer.config().query_inputs());
  weights.query_down->apply(backend, hidden, rows);
  norm_in_place(backend, rows, weights.query_norm, layer.config().norm_epsilon);
  weights.query.apply(backend, as_const(rows), queries);
}

/// Rotates the numbers from `from` on of each head, by the positions of the tokens.
template <class B, class Layer, class T>
void rotate_heads(const B& backend, const Layer& layer, TensorView<T, 2> rows, Index heads,
                  Index from, const std::vector<Index>& positions) {
  const Index rope = layer.config().rope;
  if (rope == 0) return;
  transformer::rotate(backend, of_heads(rows, heads, from, rope), *layer.table(),
                      {.layout = layer.layout(), .positions = positions});
}

/// absorbed = [W_UK,h^T q | q'] of queries [q | q'] of each head.
template <class B, class Layer, class T>
void absorb_queries(const B& backend, const Layer& layer, TensorView<const T, 2> queries,
                    TensorView<T, 2> absorbed) {
  const LatentConfig& c = layer.config();
  layer.weights().up.absorb(backend, tokens_of(queries, c.heads, 0, c.nope),
                            tokens_of(absorbed, c.heads, 0, c.latent));
  const auto from = tokens_of(queries, c.heads, c.nope, c.rope);
  const auto to = tokens_of(absorbed, c.heads, c.latent, c.rope);
  if (c.rope == 0) return;
  for_row_blocks(backend, queries.rows(), c.heads * c.rope, [&](Index begin, Index end) {
    for (Index t = begin; t < end; ++t)
      for (Index h = 0; h < c.heads; ++h) std::copy_n(&from(t, h, 0), c.rope, &to(t, h, 0));
  });
}

PARE_ABI_END
}  // namespace pare::latent::detail

#include <pare/core/macros_on.hpp>
