// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// How much of what matters a sparse method reads, beside an oracle that knows it.
///
/// Attention to values v_j = e_(j / 128) is the mass of each block of 128 keys. So that is asked of
/// exact attention, and of the sparse method with the same queries and keys; whatever the method
/// reads, whole blocks or not, e^(lse - exact lse) times its answer is what it kept of each block.
///
/// The oracle keeps, for each head and block of 128 queries, the blocks of keys that hold the most
/// mass, as many as the method's density says. The overlap is the share of the oracle's blocks that
/// the method keeps. A block that it keeps in part, as S2O and PBS-Attn do, which choose single
/// keys, counts as the share of its mass that it keeps.

#include "language_model/layer_attention.hpp"

#include <pare/attention/options.hpp>
#include <pare/core/ceil_div.hpp>
#include <pare/core/tensor_view.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <numeric>
#include <vector>

namespace language_model {

/// Sums over layers and windows.
struct Overlap {
  double oracle_blocks = 0, found = 0;  ///< blocks of the oracle, and of these the method's
  double rows = 0, kept = 0;            ///< queries of all heads, and the mass that they kept

  double share() const { return oracle_blocks > 0 ? found / oracle_blocks : 1; }
  double mass() const { return rows > 0 ? kept / rows : 1; }
  Overlap& operator+=(const Overlap& other) {
    oracle_blocks += other.oracle_blocks;
    found += other.found;
    rows += other.rows;
    kept += other.kept;
    return *this;
  }
};

/// The masses of the blocks of one layer, and what a method keeps of them.
class BlockMasses {
 public:
  /// \param q [1, heads, queries, dim]; k [1, kv heads, keys, dim]; as many queries as keys
  BlockMasses(const ModelBackend& backend, TensorView<const float, 4> q,
              TensorView<const float, 4> k, Index block = 128)
      : backend_(backend),
        q_(q),
        k_(k),
        block_(block),
        columns_(pare::ceil_div(k.extent[2], block)),
        indicators_(static_cast<std::size_t>(k.extent[2] * columns_)),
        out_(static_cast<std::size_t>(q.extent[1] * q.extent[2] * columns_)),
        lse_(static_cast<std::size_t>(q.extent[1] * q.extent[2])) {
    for (Index j = 0; j < k.extent[2]; ++j)
      indicators_[static_cast<std::size_t>(j * columns_ + j / block)] = 1;
    attend_by(exact_call());
    exact_lse_ = lse_;
    exact_ = kept_masses();
  }

  /// [heads, row blocks, column blocks], sums over the queries of a block.
  const std::vector<double>& exact() const { return exact_; }

  /// What a method keeps, in the same order.
  std::vector<double> kept_by(const LayerCall& method) {
    density_ = attend_by(method).density;
    return kept_masses();
  }

  Overlap overlap(const LayerCall& method) {
    const std::vector<double> kept = kept_by(method);
    Overlap overlap;
    overlap.rows = static_cast<double>(q_.extent[1] * q_.extent[2]);
    overlap.kept = std::accumulate(kept.begin(), kept.end(), 0.0);
    std::vector<Index> order;
    for (Index line = 0; line * columns_ < static_cast<Index>(exact_.size()); ++line) {
      const double* const exact = exact_.data() + line * columns_;
      order.resize(static_cast<std::size_t>(line % row_blocks() + 1));
      std::iota(order.begin(), order.end(), Index{0});
      std::ranges::stable_sort(order, [&](Index a, Index b) { return exact[a] > exact[b]; });
      const auto seen = static_cast<double>(order.size());
      order.resize(static_cast<std::size_t>(std::max(1.0, std::round(density_ * seen))));
      overlap.oracle_blocks += static_cast<double>(order.size());
      for (const Index n : order)
        if (exact[n] > 0) overlap.found += std::min(1.0, kept[at(line, n)] / exact[n]);
    }
    return overlap;
  }

 private:
  Index row_blocks() const { return pare::ceil_div(q_.extent[2], block_); }
  std::size_t at(Index line, Index column) const {
    return static_cast<std::size_t>(line * columns_ + column);
  }

  pare::attention::AttendStats attend_by(const LayerCall& method) {
    const Index heads = q_.extent[1], n = q_.extent[2], keys = k_.extent[2];
    const TensorView<const float, 4> v{
        indicators_.data(), {1, k_.extent[1], keys, columns_}, {0, 0, columns_, 1}};
    const TensorView<float, 4> out{
        out_.data(), {1, heads, n, columns_}, {0, n * columns_, columns_, 1}};
    const TensorView<float, 3> lse{lse_.data(), {1, heads, n}, {heads * n, n, 1}};
    return method(backend_, q_, k_, v, out, {.causal = true, .lse = lse});
  }

  std::vector<double> kept_masses() const {
    const Index n = q_.extent[2];
    std::vector<double> masses(static_cast<std::size_t>(q_.extent[1] * row_blocks() * columns_));
    for (Index row = 0; row < q_.extent[1] * n; ++row) {
      const auto i = static_cast<std::size_t>(row);
      const double share =
          std::exp(static_cast<double>(lse_[i]) - static_cast<double>(exact_lse_[i]));
      const Index line = row / n * row_blocks() + row % n / block_;
      for (Index column = 0; column < columns_; ++column)
        masses[at(line, column)] += share * static_cast<double>(out_[at(row, column)]);
    }
    return masses;
  }

  const ModelBackend& backend_;
  TensorView<const float, 4> q_, k_;
  Index block_, columns_;
  std::vector<float> indicators_;  ///< [keys, column blocks]
  std::vector<float> out_, lse_, exact_lse_;
  std::vector<double> exact_;
  double density_ = 1;
};

}  // namespace language_model
