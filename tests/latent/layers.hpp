// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Layers of latent attention with random weights, of any sizes and storage.

#include <pare/core/tensor_view.hpp>
#include <pare/latent/config.hpp>
#include <pare/latent/weights.hpp>
#include <pare/transformer/dense_linear.hpp>

#include <cmath>
#include <cstdint>
#include <optional>
#include <utility>

#include "transformer/rows.hpp"

namespace pare::testing {

/// A weight of its own, uniform numbers of variance 1 / inputs, so that rows keep their size.
template <class S>
transformer::DenseLinear<S> random_linear(Index outputs, Index inputs, std::uint64_t seed) {
  transformer::DenseLinear<S> layer(outputs, inputs);
  const auto view = layer.own_weights();
  Engine random(seed);
  const double size = std::sqrt(3.0 / static_cast<double>(inputs));
  for (Index o = 0; o < outputs; ++o)
    for (Index i = 0; i < inputs; ++i)
      view(o, i) = static_cast<S>(static_cast<compute_t<S>>(size * uniform(random)));
  return layer;
}

template <class S>
latent::LatentWeights<S> random_latent_weights(const latent::LatentConfig& c,
                                               std::uint64_t seed = 1) {
  using T = compute_t<S>;
  std::optional<transformer::DenseLinear<S>> down;
  std::optional<std::vector<T>> norm;
  if (c.query_latent) {
    down.emplace(random_linear<S>(*c.query_latent, c.width, seed));
    norm = random_gains<T>(*c.query_latent, seed + 1);
  }
  return {.query_down = std::move(down),
          .query_norm = std::move(norm),
          .query = random_linear<S>(c.heads * c.head_dim(), c.query_inputs(), seed + 2),
          .latent_down = random_linear<S>(c.row_dim(), c.width, seed + 3),
          .latent_norm = random_gains<T>(c.latent, seed + 4),
          .up = {c, random_linear<S>(c.heads * (c.nope + c.value), c.latent, seed + 5)},
          .output = random_linear<S>(c.width, c.heads * c.value, seed + 6)};
}

/// Sizes of which none is a multiple of a register but those that must be even.
inline latent::LatentConfig small_latent_config() {
  return {.width = 37,
          .heads = 3,
          .nope = 13,
          .rope = 6,
          .value = 11,
          .latent = 21,
          .query_latent = 17,
          .softmax_scale = latent::latent_softmax_scale(13, 6)};
}

}  // namespace pare::testing
