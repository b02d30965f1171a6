// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Parts of fitting a residual codec: centroids by k-means, and buckets by quantiles.

#include <pare/core/backend.hpp>
#include <pare/core/ceil_div.hpp>
#include <pare/core/check.hpp>
#include <pare/core/matrix.hpp>
#include <pare/core/parallel.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/core/view_check.hpp>
#include <pare/kernel/residual_dots.hpp>
#include <pare/linalg/score_rows.hpp>
#include <pare/retrieval/detail/drawn_places.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace pare::retrieval::detail {
PARE_ABI_BEGIN

/// Sums of dim products of bytes, up to 255 * 127, fit 31 bits.
inline constexpr Index most_residual_dim = 65535;
inline constexpr Index most_residual_centroids = most_drawn_places;

/// 2^floor(log2(16 sqrt(tokens))), at most the tokens.
inline Index usual_centroids(Index tokens) {
  Index count = 1;
  while (4 * count * count <= 256 * tokens && 2 * count <= tokens) count *= 2;
  return count;
}

/// to = from with length 1, unless from is 0; then to is left as it is.
template <class T>
void write_unit(const T* from, Index dim, float* to) {
  double square = 0;
  for (Index c = 0; c < dim; ++c)
    square += static_cast<double>(from[c]) * static_cast<double>(from[c]);
  if (!(square > 0)) return;
  const double norm = std::sqrt(square);
  for (Index c = 0; c < dim; ++c) to[c] = static_cast<float>(static_cast<double>(from[c]) / norm);
}

/// `count` different tokens, of length 1.
inline RowMatrix<float> drawn_centroids(TensorView<const float, 2> tokens, Index count,
                                        std::uint64_t seed) {
  const std::vector<Index> drawn = drawn_places(tokens.rows(), count, seed);
  RowMatrix<float> centroids(count, tokens.cols());
  for (Index k = 0; k < count; ++k) {
    const Index row = drawn[static_cast<std::size_t>(k)];
    for (Index c = 0; c < tokens.cols(); ++c) centroids(k, c) = tokens(row, c);
    write_unit(&centroids(k, 0), tokens.cols(), &centroids(k, 0));
  }
  return centroids;
}

/// The centroid of the largest product for each token, of equal ones the first.
template <class B>
void nearest_centroids(const B& backend, TensorView<const float, 2> tokens,
                       const RowMatrix<float>& centroids, std::vector<std::uint32_t>& near) {
  constexpr Index block = 240;
  near.resize(static_cast<std::size_t>(tokens.rows()));
  const auto own = for_workers(backend);
  const auto find = [&](Index item, int) {
    const Index begin = item * block, count = std::min(block, tokens.rows() - begin);
    linalg::RowArgmax<float> best(count);
    linalg::score_rows(own, rows_of(tokens, begin, count), const_view(centroids), 1.0f, best);
    // Products that overflow have no order.
    for (Index r = 0; r < count; ++r)
      near[static_cast<std::size_t>(begin + r)] =
          static_cast<std::uint32_t>(std::max<Index>(best.key(r), 0));
  };
  const Index items = ceil_div(tokens.rows(), block);
  if constexpr (KernelBackend<B>)
    parallel_for(backend.executor, items, find);
  else
    for (Index item = 0; item < items; ++item) find(item, 0);
}

/// Each centroid goes to the mean of its tokens, then to length 1.
inline void move_centroids(TensorView<const float, 2> tokens,
                           const std::vector<std::uint32_t>& near, RowMatrix<float>& centroids) {
  RowMatrix<double> sums = RowMatrix<double>::Zero(centroids.rows(), centroids.cols());
  for (Index i = 0; i < tokens.rows(); ++i)
    for (Index c = 0; c < tokens.cols(); ++c)
      sums(static_cast<Index>(near[static_cast<std::size_t>(i)]), c) +=
          static_cast<double>(tokens(i, c));
  for (Index k = 0; k < centroids.rows(); ++k)
    write_unit(&sums(k, 0), sums.cols(), &centroids(k, 0));
}

/// The bucket of a residual: how many bounds are below it.
inline int bucket_of(const std::vector<float>& bounds, float residual) {
  int below = 0;
  for (const float bound : bounds) below += bound < residual ? 1 : 0;
  return below;
}

/// Bounds and values of buckets from the quantiles of all residuals, linear between two of them.
inline void set_buckets(TensorView<const float, 2> tokens, const std::vector<std::uint32_t>& near,
                        const RowMatrix<float>& centroids, std::vector<float>& bounds,
                        kernel::ResidualLevels& levels) {
  std::vector<float> all;
  all.reserve(static_cast<std::size_t>(tokens.rows() * tokens.cols()));
  for (Index i = 0; i < tokens.rows(); ++i)
    for (Index c = 0; c < tokens.cols(); ++c)
      all.push_back(tokens(i, c) -
                    centroids(static_cast<Index>(near[static_cast<std::size_t>(i)]), c));
  std::sort(all.begin(), all.end(), [](float a, float b) { return a < b; });
  const auto quantile = [&all](double share) {
    const double at = share * static_cast<double>(all.size() - 1);
    const auto below = static_cast<std::size_t>(at);
    const std::size_t above = std::min(below + 1, all.size() - 1);
    const double low = static_cast<double>(all[below]), high = static_cast<double>(all[above]);
    return static_cast<float>(low + (high - low) * (at - static_cast<double>(below)));
  };
  const int buckets = 1 << levels.bits;
  bounds.clear();
  for (int i = 1; i < buckets; ++i) bounds.push_back(quantile(static_cast<double>(i) / buckets));
  for (int i = 0; i < buckets; ++i)
    levels.values[static_cast<std::size_t>(i)] = quantile((i + 0.5) / buckets);
  levels.least = levels.values[0];
  levels.step = (levels.values[static_cast<std::size_t>(buckets - 1)] - levels.least) / 255;
  for (int i = 0; i < buckets; ++i) {
    const auto at = static_cast<std::size_t>(i);
    const float above = levels.values[at] - levels.least;
    levels.in_bytes[at] = static_cast<std::uint8_t>(
        levels.step > 0 ? std::clamp(above / levels.step + 0.5f, 0.0f, 255.0f) : 0.0f);
  }
}

PARE_ABI_END
}  // namespace pare::retrieval::detail
