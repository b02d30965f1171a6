// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <gtest/gtest.h>

#include <pare/attention/block_mask.hpp>
#include <pare/attention/proxy_heads.hpp>
#include <pare/core/backend.hpp>
#include <pare/core/scalar.hpp>
#include <pare/core/tensor_view.hpp>

#include "attention/data.hpp"
#include "attention/oracle.hpp"
#include "support/tolerance.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace pare::testing {

/// A tensor [batch, heads, tokens, dim] with room between tokens.
template <class S>
struct Tokens {
  std::array<Index, 4> extent{};
  std::vector<S> list{};

  Tokens(Index batch, Index heads, Index tokens, Index dim)
      : extent{batch, heads, tokens, dim},
        list(static_cast<std::size_t>(batch * heads * tokens * (dim + gap))) {}

  S& at(Index b, Index h, Index i, Index c) { return view()(b, h, i, c); }
  TensorView<S, 4> view() { return {list.data(), extent, stride()}; }
  TensorView<const S, 4> view() const { return {list.data(), extent, stride()}; }
  TensorView<const S, 2> head(Index b, Index h) const {
    return {&view()(b, h, 0, 0), {extent[2], extent[3]}, {extent[3] + gap, 1}};
  }
  double largest_norm() const {
    double largest = 0;
    for (Index b = 0; b < extent[0]; ++b)
      for (Index h = 0; h < extent[1]; ++h)
        for (Index i = 0; i < extent[2]; ++i) {
          double square = 0;
          for (Index c = 0; c < extent[3]; ++c) {
            const auto value = static_cast<double>(static_cast<compute_t<S>>(view()(b, h, i, c)));
            square += value * value;
          }
          largest = std::max(largest, square);
        }
    return std::sqrt(largest);
  }

 private:
  static constexpr Index gap = 3;
  std::array<Index, 4> stride() const {
    const Index row = extent[3] + gap;
    return {extent[1] * extent[2] * row, extent[2] * row, row, 1};
  }
};

/// Heads that resemble each other: what all have in common, and noise of their own.
template <class S>
Tokens<S> alike_heads(Index batch, Index heads, Index tokens, Index dim, double noise,
                      std::uint64_t seed) {
  Tokens<S> x(batch, heads, tokens, dim);
  const auto common = normal_rows<double>(batch * tokens, dim, seed);
  const auto own = normal_rows<double>(batch * heads * tokens, dim, seed + 1000);
  for (Index b = 0; b < batch; ++b)
    for (Index h = 0; h < heads; ++h)
      for (Index i = 0; i < tokens; ++i)
        for (Index c = 0; c < dim; ++c)
          x.at(b, h, i, c) = static_cast<S>(static_cast<compute_t<S>>(
              common(b * tokens + i, c) + noise * own((b * heads + h) * tokens + i, c)));
  return x;
}

/// Queries and keys of heads that resemble each other.
template <class S>
struct ProxyInput {
  Tokens<S> q, k;

  ProxyInput(Index batch, Index heads, Index kv_heads, Index queries, Index keys, Index dim,
             double noise = 0.5, std::uint64_t seed = 1)
      : q(alike_heads<S>(batch, heads, queries, dim, noise, seed)),
        k(alike_heads<S>(batch, kv_heads, keys, dim, noise, seed + 1)) {}

  /// The later a query, the sharper: the largest weights of a block then lie in its last rows too.
  void sharpen_late_queries() {
    for (Index b = 0; b < q.extent[0]; ++b)
      for (Index h = 0; h < q.extent[1]; ++h)
        for (Index i = 0; i < q.extent[2]; ++i)
          for (Index c = 0; c < q.extent[3]; ++c) {
            const auto factor = static_cast<double>(q.extent[2] + 3 * i);
            const auto old = static_cast<double>(static_cast<compute_t<S>>(q.at(b, h, i, c)));
            q.at(b, h, i, c) = static_cast<S>(
                static_cast<compute_t<S>>(old * factor / static_cast<double>(q.extent[2])));
          }
  }

  /// What weights of the mean or of single heads may be off by, relatively. A score of magnitude M
  /// is off by 2 (dim + heads + 2) u M, from the means, the products and the factor, and the
  /// exponent by 4 u M on top; a log-sum-exp by as much, and by one rounding for each key.
  double relative_bound(double scale) const {
    const double magnitude = scale * q.largest_norm() * k.largest_norm();
    const auto terms = static_cast<double>(q.extent[3] + q.extent[1] + 4);
    const double u = Tolerance<compute_t<S>>::unit_roundoff;
    return u * (4 * terms * magnitude + static_cast<double>(k.extent[2]) + 20);
  }

  attention::BlockMask::Shape shape(Index row_block, Index column_block) const {
    return {q.extent[0], q.extent[1], q.extent[2], k.extent[2], row_block, column_block};
  }
};

/// The mean of heads [first, first + count) of a batch entry, in double.
template <class S>
PlainRows<double> mean_head(const Tokens<S>& x, Index batch, Index first, Index count) {
  PlainRows<double> mean(x.extent[2], x.extent[3]);
  for (Index i = 0; i < mean.rows; ++i)
    for (Index c = 0; c < mean.cols; ++c) {
      for (Index h = first; h < first + count; ++h)
        mean(i, c) += static_cast<double>(static_cast<compute_t<S>>(x.view()(batch, h, i, c)));
      mean(i, c) /= static_cast<double>(count);
    }
  return mean;
}

/// The largest weight of each block by brute force, among the first of every so many queries and
/// keys of a block: [row blocks, column blocks].
inline std::vector<double> largest_weights(const PlainRows<double>& q, const PlainRows<double>& k,
                                           const attention::BlockMask::Shape& shape, double scale,
                                           Index query_stride, Index key_stride) {
  const Oracle o = dense_attention(q.view(), k.view(), k.view(), scale, [&](Index i, Index j) {
    return j <= i + k.rows - q.rows && j % shape.column_block % key_stride == 0;
  });
  const Index columns = shape.column_blocks();
  std::vector<double> largest(static_cast<std::size_t>(shape.row_blocks() * columns), 0.0);
  for (Index i = 0; i < q.rows; ++i)
    for (Index j = 0; j < k.rows && i % shape.row_block % query_stride == 0; ++j) {
      double& block =
          largest[static_cast<std::size_t>(i / shape.row_block * columns + j / shape.column_block)];
      block = std::max(block, o.p(i, j));
    }
  return largest;
}

/// What each column block gets from the last queries of a head, by brute force: mean weight of its
/// keys, of sum 1.
template <class S>
std::vector<double> last_block_masses(TensorView<const S, 2> q, TensorView<const S, 2> k,
                                      const attention::BlockMask::Shape& shape, double scale) {
  const Oracle o = dense_attention(q, k, k, scale, causal_visibility(shape.queries, shape.keys));
  std::vector<double> mass(static_cast<std::size_t>(shape.column_blocks()), 0.0);
  double total = 0;
  for (Index j = 0; j < shape.keys; ++j) {
    const Index n = j / shape.column_block;
    const Index keys = std::min(shape.column_block, shape.keys - n * shape.column_block);
    for (Index i = std::max<Index>(0, shape.queries - shape.row_block); i < shape.queries; ++i) {
      mass[static_cast<std::size_t>(n)] += o.p(i, j) / static_cast<double>(keys);
      total += o.p(i, j) / static_cast<double>(keys);
    }
  }
  for (double& m : mass) m /= total;
  return mass;
}

/// Blocks of one head, row by row.
inline std::vector<std::vector<std::int32_t>> rows_of(const attention::BlockMask& mask, Index batch,
                                                      Index head) {
  std::vector<std::vector<std::int32_t>> rows;
  for (Index m = 0; m < mask.row_blocks(); ++m) {
    const auto row = mask.row(batch, head, m);
    rows.emplace_back(row.begin(), row.end());
  }
  return rows;
}

}  // namespace pare::testing
