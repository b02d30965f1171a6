// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// A selector of blocks by the attention mass that some of the queries give them; by all of them it
/// is the oracle, which keeps as much mass as blocks of that size can.
///
/// ```cpp
/// attend(q, k, v, out, QuerySample{.share = 0.25});   // ours: 1 of 8 queries judges 16 keys
/// ```

#include <pare/attention/selector.hpp>
#include <pare/core/aligned_buffer.hpp>
#include <pare/core/backend.hpp>
#include <pare/core/ceil_div.hpp>
#include <pare/core/check.hpp>
#include <pare/core/scalar.hpp>
#include <pare/linalg/score_rows.hpp>

#include <Eigen/Core>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <span>
#include <utility>
#include <vector>

namespace language_model {

using pare::Index;

/// Keeps the blocks of a layer that hold the most mass of its softmax, judged by one of every
/// `stride` queries against all keys that it sees. All heads and rows of blocks compete for the
/// same budget, so that heads whose mass lies in few blocks leave theirs to others. Block 0 and the
/// diagonal are kept in every row. For causal attention in float or double, keys in their order.
struct QuerySample {
  Index row_block = 64, column_block = 16;
  Index stride = 8;     ///< 1 to row_block; 1 looks at all queries, at the cost of exact attention
  double share = 0.25;  ///< of the blocks that a layer sees, above 0

  static constexpr bool shares_rows = false;
  bool keeps_all(const pare::attention::SelectorCall&) const { return share >= 1; }
  void validate(const char* function, const pare::attention::SelectorCall& call) const {
    pare::check(share > 0, function, "share", share, "a number above 0");
    pare::check(stride >= 1 && stride <= row_block, function, "stride", stride, "1 to row_block");
    pare::check(call.causal && !call.ordered && call.queries <= call.keys, function, "call",
                "another", "causal attention, keys in their order, no more queries than keys");
  }

  template <class B, class S>
  double select_layer(const B& backend, const pare::attention::SelectorLayer<S>& layer,
                      std::span<pare::attention::BlockLists> keep) const {
    const Index heads = layer.q.extent[1];
    const B apart = pare::for_workers(backend);
    std::vector<std::vector<double>> masses(keep.size());
    pare::parallel_for(backend.executor, static_cast<Index>(keep.size()), [&](Index i, int) {
      masses[static_cast<std::size_t>(i)] = masses_of(apart, layer.of(i / heads, i % heads));
    });
    return keep_best(layer.of(0, 0), masses, keep);
  }

  /// Mean mass of the blocks over the sampled queries of their row, [row blocks, column blocks].
  template <class B, class S>
  std::vector<double> masses_of(const B& backend,
                                const pare::attention::SelectorHead<S>& head) const {
    using T = pare::compute_t<S>;
    const Index n = head.q.rows(), most = (row_block - 1) / stride + 1;
    const Index columns = pare::ceil_div(head.k.rows(), column_block);
    std::vector<double> masses(static_cast<std::size_t>(pare::ceil_div(n, row_block) * columns));
    pare::AlignedBuffer<std::byte> memory;
    pare::linalg::ScoreRows<B, S> scores(backend, memory, most, head.q.cols());
    Eigen::Matrix<T, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor> weight(most, head.k.rows());
    for (Index begin = 0; begin < n; begin += row_block) {
      const Index end = std::min(begin + row_block, n);
      const Index first = std::min(begin + stride / 2, end - 1);
      const Index count = (end - 1 - first) / stride + 1;
      scores.set_rows(count, [&](Index r) { return head.query(first + r * stride); });
      scores.over_keys(
          0, head.position(end - 1) + 1, [&](Index j) { return head.key(j); },
          static_cast<T>(head.scale),
          [&](Index from, Index keys, const T* tile) {
            for (Index r = 0; r < count; ++r)
              std::copy_n(tile + r * pare::kernel::tile_keys, keys, &weight(r, from));
          });
      double* const mass = masses.data() + begin / row_block * columns;
      for (Index r = 0; r < count; ++r)
        add_row(weight.row(r).head(head.position(first + r * stride) + 1), count, mass);
    }
    return masses;
  }

 private:
  /// Adds the shares of a softmax that fall on each block, divided by the number of rows.
  template <class Row>
  void add_row(Row&& row, Index count, double* mass) const {
    row = (row.array() - row.maxCoeff()).exp();
    const double all = static_cast<double>(row.sum()) * static_cast<double>(count);
    for (Index j = 0; j < row.size(); j += column_block)
      mass[j / column_block] +=
          static_cast<double>(row.segment(j, std::min(column_block, row.size() - j)).sum()) / all;
  }

  template <class S>
  double keep_best(const pare::attention::SelectorHead<S>& shape,
                   const std::vector<std::vector<double>>& masses,
                   std::span<pare::attention::BlockLists> keep) const {
    struct Block {
      double mass;
      std::size_t head;
      Index row, column;
    };
    std::vector<Block> others;
    double kept = 0, seen = 0, forced = 0;
    for (std::size_t h = 0; h < keep.size(); ++h)
      for (Index m = 0; m < keep[h].rows(); ++m) {
        const Index last = std::min((m + 1) * row_block, shape.q.rows()) - 1;
        const Index diagonal = shape.position(m * row_block) / column_block;
        const Index end = shape.position(last) / column_block + 1;
        seen += static_cast<double>(end);
        for (Index n = 0; n < end; ++n) {
          const double mass = masses[h][static_cast<std::size_t>(m * keep[h].columns() + n)];
          if (n > 0 && n < diagonal) {
            others.push_back({mass, h, m, n});
            continue;
          }
          keep[h].add(m, n);
          kept += mass;
          ++forced;
        }
      }
    const double budget =
        std::clamp(std::round(share * seen) - forced, 0.0, static_cast<double>(others.size()));
    // Stable: of equal masses those of earlier heads and rows come first.
    std::ranges::stable_sort(others,
                             [](const Block& a, const Block& b) { return a.mass > b.mass; });
    others.resize(static_cast<std::size_t>(budget));
    for (const Block& block : others) {
      keep[block.head].add(block.row, block.column);
      kept += block.mass;
    }
    return kept / (static_cast<double>(keep.size()) * static_cast<double>(keep[0].rows()));
  }
};

}  // namespace language_model
