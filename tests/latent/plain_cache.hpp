// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// The simplest cache of latents that a layer can be given: one list of rows for each sequence.

#include <pare/core/check.hpp>
#include <pare/core/scalar.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/latent/config.hpp>

#include <cstddef>
#include <vector>

namespace pare::testing {

template <class C>
class PlainCache {
 public:
  using scalar = C;

  /// Room for `tokens` tokens of each sequence, so that appending them allocates nothing.
  PlainCache(Index sequences, const latent::LatentConfig& config, Index tokens = 0)
      : latent_(config.latent), row_(config.row_dim()), rows_(static_cast<std::size_t>(sequences)) {
    for (auto& rows : rows_) rows.reserve(static_cast<std::size_t>(tokens * row_));
  }

  template <class B>
  void append(const B&, Index sequence, TensorView<const compute_t<C>, 2> rows) {
    auto& to = rows_[static_cast<std::size_t>(sequence)];
    for (Index r = 0; r < rows.rows(); ++r)
      for (Index i = 0; i < row_; ++i) to.push_back(static_cast<C>(rows(r, i)));
  }
  const std::vector<C>& rows(Index sequence) const {
    return rows_[static_cast<std::size_t>(sequence)];
  }

  Index sequences() const { return static_cast<Index>(rows_.size()); }
  Index kv_heads() const { return 1; }
  Index key_dim() const { return row_; }
  Index value_dim() const { return latent_; }
  Index length(Index sequence) const { return static_cast<Index>(rows(sequence).size()) / row_; }
  void validate(const char*) const {}
  const C* key(Index sequence, Index, Index position) const {
    return rows(sequence).data() + position * row_;
  }
  const C* value(Index sequence, Index, Index position) const { return key(sequence, 0, position); }

 private:
  Index latent_, row_;
  std::vector<std::vector<C>> rows_;
};

}  // namespace pare::testing
