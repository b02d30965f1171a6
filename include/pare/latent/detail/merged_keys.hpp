// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// RoRoPE: the key heads of a layer as one row, turned so that its first heads hold the energy.

#include <pare/core/matrix.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/latent/convert/attention_shape.hpp>
#include <pare/linalg/symmetric_eigen.hpp>

#include <Eigen/Core>

#include <algorithm>
#include <cstddef>
#include <utility>
#include <vector>

namespace pare::latent::detail {
PARE_ABI_BEGIN

/// What of the turned row keeps its rotary embedding.
struct KeptRotation {
  Index heads = 1;     ///< of the merged ones, the first
  Index fold = 1;      ///< frequencies that are taken for one
  Index collapse = 1;  ///< of so many frequencies one is kept
};

/// An orthogonal map of the merged key row [kv_heads x head_dim]: first what keeps its rotation, in
/// the layer's layout, then the rest.
struct TurnedKeys {
  RowMatrix<double> turn;         ///< [kv_heads x head_dim, the same]
  std::vector<Index> rope_pairs;  ///< the frequency of each pair that is kept
};

/// Writes rows of a TurnedKeys.
class KeyTurner {
 public:
  /// \param moment E[k k^T] of the merged row [kv_heads x head_dim]^2
  KeyTurner(const AttentionShape& shape, const KeptRotation& kept, const RowMatrix<double>& moment,
            double damping)
      : shape_(shape),
        kept_(kept),
        moment_(moment),
        damping_(damping),
        per_group_(kept.fold / kept.collapse),
        pairs_(kept.heads * shape.pairs() / kept.collapse) {
    const Index size = shape.kv_heads * shape.head_dim;
    keys_.turn = RowMatrix<double>::Zero(size, size);
    keys_.rope_pairs.resize(static_cast<std::size_t>(pairs_));
    next_ = 2 * pairs_;
  }

  TurnedKeys run() {
    for (Index first = 0; first < shape_.pairs(); first += kept_.fold) turn_group(first);
    for (Index g = 0; g < shape_.kv_heads; ++g)
      for (Index c = 2 * shape_.pairs(); c < shape_.head_dim; ++c)
        keys_.turn(next_++, g * shape_.head_dim + c) = 1;
    return std::move(keys_);
  }

 private:
  /// The place in the merged row of a part of component i: of frequency first + i / kv_heads.
  Index place(Index first, Index i, Index part) const {
    return i % shape_.kv_heads * shape_.head_dim +
           shape_.channel(first + i / shape_.kv_heads, part);
  }

  /// Principal components of the frequencies first, first + 1, ... of all heads, the same for both
  /// parts of a pair.
  void turn_group(Index first) {
    const Index size = kept_.fold * shape_.kv_heads;
    Eigen::MatrixXd pooled = Eigen::MatrixXd::Zero(size, size);
    for (Index part = 0; part < 2; ++part)
      for (Index i = 0; i < size; ++i)
        for (Index j = 0; j < size; ++j)
          pooled(i, j) += moment_(place(first, i, part), place(first, j, part));
    pooled.diagonal().array() += damping_ * pooled.diagonal().mean();
    const auto basis = linalg::symmetric_eigen(reference, pooled).leading<double>(size);
    for (Index component = 0; component < size; ++component) {
      const bool is_kept = component < kept_.heads * per_group_;
      const Index head = component / per_group_, at = component % per_group_;
      const Index pair = head * (shape_.pairs() / kept_.collapse) + first / kept_.collapse + at;
      if (is_kept) keys_.rope_pairs[static_cast<std::size_t>(pair)] = first + at * kept_.collapse;
      for (Index part = 0; part < 2; ++part) {
        const Index row =
            is_kept ? AttentionShape::pair_channel(shape_.layout, pair, part, pairs_) : next_++;
        for (Index i = 0; i < size; ++i)
          keys_.turn(row, place(first, i, part)) = basis(i, component);
      }
    }
  }

  const AttentionShape& shape_;
  const KeptRotation& kept_;
  const RowMatrix<double>& moment_;
  double damping_;
  Index per_group_;  ///< components of a group that a kept head has
  Index pairs_;      ///< that are kept
  Index next_ = 0;   ///< row of what is not
  TurnedKeys keys_;
};

PARE_ABI_END
}  // namespace pare::latent::detail
