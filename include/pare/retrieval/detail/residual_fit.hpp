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
#include <span>
#include <vector>

namespace pare::retrieval::detail {
PARE_ABI_BEGIN

/// Sums of dim products of bytes, up to 255 * 127, fit 31 bits.
inline constexpr Index most_residual_dim = 65535;
inline constexpr Index most_residual_centroids = most_drawn_places;

/// Tokens to fit to or to encode, but for their numbers, which check_finite_tokens looks at last.
inline void check_residual_tokens(const char* function, TensorView<const float, 2> tokens) {
  check_view(function, "tokens", tokens);
  check(tokens.cols() >= 1 && tokens.cols() <= most_residual_dim, function, "tokens", tokens.extent,
        Worded{"a dim of 1 to ", most_residual_dim});
  check_contiguous_rows(function, "tokens", tokens);
  // All residuals of a fit, and an index or the codes of each row.
  const Index each = checked_sum(function, "tokens", tokens.cols(), 8);
  checked_count(function, "tokens", checked_product(function, "tokens", tokens.rows(), each),
                sizeof(float));
}

inline void check_finite_tokens(const char* function, TensorView<const float, 2> tokens) {
  for (Index i = 0; i < tokens.rows(); ++i)
    for (Index c = 0; c < tokens.cols(); ++c)
      check(is_finite(static_cast<double>(tokens(i, c))), function, "tokens", tokens(i, c),
            "finite numbers");
}

/// 2^floor(log2(16 sqrt(tokens))), at most the tokens and 2^30.
inline Index usual_centroids(Index tokens) {
  const Index most = std::min(tokens, most_residual_centroids);
  Index count = 1;
  while (2 * count <= most && count * count / 64 <= tokens) count *= 2;
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

/// Moves values to the means of their buckets and bounds to the middle between values, in turn,
/// which lowers the sum of squared errors each time. Numbers are sorted, and more than 2^16 of them
/// stand for those beside them.
inline void settle_buckets(std::span<const float> sorted, std::vector<float>& bounds,
                           kernel::ResidualLevels& levels) {
  constexpr std::size_t most = std::size_t{1} << 16;
  constexpr int rounds = 100;
  const std::size_t count = std::min(sorted.size(), most);
  std::vector<double> values(count), sums(count + 1, 0.0);
  for (std::size_t i = 0; i < count; ++i) {
    values[i] = static_cast<double>(sorted[(2 * i + 1) * sorted.size() / (2 * count)]);
    sums[i + 1] = sums[i] + values[i];
  }
  for (int round = 0; round < rounds; ++round) {
    for (std::size_t b = 0; b < bounds.size(); ++b)
      bounds[b] = static_cast<float>(
          (static_cast<double>(levels.values[b]) + static_cast<double>(levels.values[b + 1])) / 2);
    std::size_t begin = 0;
    for (std::size_t b = 0; b <= bounds.size(); ++b) {
      // A number at a bound is in the bucket below.
      const std::size_t end =
          b == bounds.size()
              ? count
              : static_cast<std::size_t>(
                    std::upper_bound(values.begin(), values.end(), static_cast<double>(bounds[b])) -
                    values.begin());
      if (end > begin)
        levels.values[b] =
            static_cast<float>((sums[end] - sums[begin]) / static_cast<double>(end - begin));
      begin = std::max(begin, end);
    }
  }
}

/// Bounds and values of buckets from the quantiles of all residuals, linear between two of them,
/// moved to where squared errors are least if `settle`.
inline void set_buckets(TensorView<const float, 2> tokens, const std::vector<std::uint32_t>& near,
                        const RowMatrix<float>& centroids, bool settle, std::vector<float>& bounds,
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
  if (settle) settle_buckets(all, bounds, levels);
  levels.least = levels.values[0];
  const auto least = static_cast<double>(levels.least);
  // In double, in which the range of floats is finite.
  levels.step = static_cast<float>(
      (static_cast<double>(levels.values[static_cast<std::size_t>(buckets - 1)]) - least) / 255);
  for (int i = 0; i < buckets; ++i) {
    const auto at = static_cast<std::size_t>(i);
    const double above = static_cast<double>(levels.values[at]) - least;
    levels.in_bytes[at] = static_cast<std::uint8_t>(
        levels.step > 0 ? std::clamp(above / static_cast<double>(levels.step) + 0.5, 0.0, 255.0)
                        : 0.0);
  }
}

PARE_ABI_END
}  // namespace pare::retrieval::detail
