// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// A layer of two factors that it owns, and the rank that a share of its parameters buys.
///
/// ```cpp
/// const Index rank = rank_of_share(0.5, layer.outputs(), layer.inputs());
/// layer = low_rank_layer<pare::bf16>(pare::factor::truncated_svd(weight, {.rank = rank}));
/// ```

#include "common/any_linear.hpp"

#include <pare/core/matrix.hpp>
#include <pare/core/scalar.hpp>
#include <pare/factor/low_rank.hpp>
#include <pare/transformer/dense_linear.hpp>
#include <pare/transformer/low_rank_linear.hpp>

#include <algorithm>

namespace models {

/// floor(share m n / (m + n)) of a layer [m, n], 1 to min(m, n): factors of that rank have at most
/// that share of its parameters, unless the rank is 1.
inline Index rank_of_share(double share, Index outputs, Index inputs) {
  const double whole = static_cast<double>(outputs) * static_cast<double>(inputs);
  const auto rank = static_cast<Index>(share * whole / static_cast<double>(outputs + inputs));
  return std::clamp<Index>(rank, 1, std::min(outputs, inputs));
}

/// A layer of a copy of a weight, rounded to S.
template <pare::StorageScalar S>
pare::transformer::DenseLinear<S> dense_layer(const pare::RowMatrix<float>& weight) {
  pare::transformer::DenseLinear<S> layer(weight.rows(), weight.cols());
  std::transform(weight.data(), weight.data() + weight.size(), layer.own_weights().data,
                 [](float value) { return static_cast<S>(value); });
  return layer;
}

/// A copy of the factors, rounded to S.
template <pare::StorageScalar S>
pare::transformer::LowRankLinear<S> low_rank_layer(const pare::factor::LowRank<float>& factors) {
  return {dense_layer<S>(factors.left), dense_layer<S>(factors.right)};
}

}  // namespace models
