// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Linear layers with random weights.

#include "random_data.hpp"

#include <pare/core/check.hpp>
#include <pare/transformer/dense_linear.hpp>

#include <cmath>
#include <cstdint>

namespace pare::bench {

/// A weight of its own, uniform numbers of variance 1 / inputs, so that rows keep their size.
template <class S>
transformer::DenseLinear<S> random_linear(Index outputs, Index inputs, std::uint64_t seed) {
  transformer::DenseLinear<S> layer(outputs, inputs);
  const auto weights = layer.own_weights();
  const float size = std::sqrt(3 / static_cast<float>(inputs));
  SplitMix64 random(seed);
  for (Index i = 0; i < outputs * inputs; ++i)
    weights.data[i] = static_cast<S>(size * static_cast<float>(2 * random.unit() - 1));
  return layer;
}

}  // namespace pare::bench
