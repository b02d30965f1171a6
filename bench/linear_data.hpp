// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Linear layers with random weights, and copies of a layer that calls go round.

#include "random_data.hpp"
#include "timing.hpp"

#include <pare/core/backend.hpp>
#include <pare/core/check.hpp>
#include <pare/core/workspace.hpp>
#include <pare/transformer/dense_linear.hpp>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

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

/// Up to so many rows a layer is read from memory; more rows take longer than that.
inline constexpr Index most_streamed_rows = 16;

/// Copies of a layer that lie behind each other, as the layers of a model do, and rows for them: of
/// few rows so many copies that no cache keeps them until their next turn.
template <class L>
struct Copies {
  std::vector<L> layers;
  RowMatrix x, y;
  std::size_t next = 0;
  Workspace workspace;

  /// \param bytes of a layer
  template <class Make>
  Copies(Index rows, double bytes, const Make& make) {
    const double together = rows > most_streamed_rows ? 1 : double{1 << 27};
    do layers.push_back(make());
    while (static_cast<double>(layers.size()) * bytes < together);
    x = uniform_matrix(rows, layers[0].inputs(), 2);
    y = RowMatrix::Zero(rows, layers[0].outputs());
  }

  template <class B>
  void run(const B& backend) {
    layers[next++ % layers.size()].apply(backend, as_const(pare::to_view(x)), pare::to_view(y));
  }

  /// Whether the first copy computes what pare::reference does, on so many threads.
  bool is_right(int threads) {
    next = 0;
    run(reference);
    const RowMatrix wanted = y;
    next = 0;
    run(simd.threads(threads).with(workspace));
    return (y - wanted).norm() <= 1e-4f * wanted.norm();
  }
};

/// Seconds of a call of data of which each call reads another copy.
template <class D>
double seconds_per_call(D& data, int threads, int calls) {
  std::vector<double> times;
  for (int run = 0; run < 5; ++run)
    times.push_back(seconds([&] {
      for (int i = 0; i < calls; ++i) data.run(simd.threads(threads).with(data.workspace));
    }));
  return median(std::move(times)) / calls;
}

}  // namespace pare::bench
