// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// The definition of block scores from maxima instead of means, an option of the PBS-Attn code.

#include <pare/attention/detail/reference_permuted.hpp>
#include <pare/attention/detail/reference_row.hpp>
#include <pare/core/tensor_view.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace pare::attention::detail {
PARE_ABI_BEGIN

/// The largest scalar of each column of each block of x read in an order, [blocks, dim], a NaN if
/// there is one; with zero padding a shorter last block holds a 0 too.
template <StorageScalar T>
std::vector<double> reference_max_pool(TensorView<const T, 2> x,
                                       std::span<const std::uint32_t> order, Index block,
                                       ReferenceBlockMean padding) {
  std::vector<double> pooled;
  for (Index first = 0; first < x.rows(); first += block) {
    const bool zero = padding == ReferenceBlockMean::ZeroPadded && first + block > x.rows();
    for (Index c = 0; c < x.cols(); ++c) {
      double largest = zero ? 0 : reference_hidden;
      for (Index slot = first; slot < std::min(first + block, x.rows()); ++slot) {
        const double value = reference_value(
            x(order.empty() ? slot : Index{order[static_cast<std::size_t>(slot)]}, c));
        largest = value > largest || reference_is_nan(value) ? value : largest;
      }
      pooled.push_back(largest);
    }
  }
  return pooled;
}

/// a_mn = softmax over the candidates n of scale max(q of m).max(k of n), [row blocks, column
/// blocks]; 0 for other blocks.
template <StorageScalar T>
std::vector<double> reference_max_pool_scores(TensorView<const T, 2> q, TensorView<const T, 2> k,
                                              std::span<const std::uint32_t> order,
                                              const ReferenceBlocks& blocks, double scale,
                                              ReferenceCandidates which,
                                              ReferenceBlockMean padding) {
  const Index dim = q.cols();
  const std::vector<double> queries = reference_max_pool(q, {}, blocks.shape.row_block, padding);
  const std::vector<double> keys = reference_max_pool(k, order, blocks.shape.column_block, padding);
  std::vector<double> scores;
  for (Index m = 0; m < blocks.shape.row_blocks(); ++m) {
    std::vector<double> row(static_cast<std::size_t>(blocks.shape.column_blocks()),
                            reference_hidden);
    for (Index n = 0; n < blocks.candidates(m, which); ++n)
      row[static_cast<std::size_t>(n)] =
          scale * reference_dot(queries.data() + m * dim, keys.data() + n * dim, dim);
    row = reference_softmax(row);
    scores.insert(scores.end(), row.begin(), row.end());
  }
  return scores;
}

PARE_ABI_END
}  // namespace pare::attention::detail
