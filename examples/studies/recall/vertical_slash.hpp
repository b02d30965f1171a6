// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// A block selector that Pare does not have: what it takes to write one's own.

#include <pare/attention/select_blocks.hpp>
#include <pare/attention/selector.hpp>
#include <pare/core/check.hpp>

#include <Eigen/Core>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <numeric>
#include <vector>

namespace recall {

using pare::Index;

/// Keeps the block columns and the block diagonals that the last queries attend to most, block 0
/// and the main diagonal always (after the vertical-slash pattern of MInference, Jiang et al.
/// 2024). For whole prompts in float or double, keys in natural order.
struct VerticalSlash {
  Index row_block = 128, column_block = 128;
  double share = 0.25;  ///< of the columns, and of the diagonals, that are kept; (0, 1]

  template <class Backend, class S>
  double select(const Backend&, const pare::attention::SelectorHead<S>& head,
                pare::attention::BlockLists& keep) const {
    using Weights = Eigen::Matrix<S, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
    using Vectors = Eigen::Map<const Weights, 0, Eigen::OuterStride<>>;
    const Index n = head.q.rows(), d = head.q.cols(), last = std::min<Index>(n, 64);
    const Vectors q(head.query(n - last), last, d, Eigen::OuterStride<>(head.q.stride[0]));
    std::vector<S> copy;
    const auto keys = head.k.matrix(copy);
    const Vectors k(keys.data, n, d, Eigen::OuterStride<>(keys.stride[0]));
    Weights weight = S(head.scale) * q * k.transpose();
    Eigen::VectorXd vertical = Eigen::VectorXd::Zero(keep.columns()), slash = vertical;
    for (Index i = 0, position = n - last; i < last; ++i, ++position) {
      auto row = weight.row(i).head(position + 1);
      row = (row.array() - row.maxCoeff()).exp();
      row /= row.sum();
      for (Index j = 0; j <= position; ++j) {
        vertical[j / column_block] += double(row[j]);
        slash[(position - j) / column_block] += double(row[j]);
      }
    }
    const std::vector<bool> columns = best(vertical), diagonals = best(slash);
    for (Index m = 0; m < keep.rows(); ++m)
      for (Index j = 0; j <= m; ++j)
        if (columns[std::size_t(j)] || diagonals[std::size_t(m - j)]) keep.add(m, j);
    return std::numeric_limits<double>::quiet_NaN();  // no estimate of the mass that is kept
  }

  static constexpr bool shares_rows = false;
  bool keeps_all(const pare::attention::SelectorCall&) const { return share >= 1; }
  void validate(const char* function, const pare::attention::SelectorCall& call) const {
    pare::check(share > 0 && share <= 1, function, "share", share, "a number in (0, 1]");
    pare::check(row_block == column_block, function, "column_block", column_block, row_block);
    pare::check(call.queries == call.keys, function, "queries", call.queries, call.keys);
  }

 private:
  /// Marks the first and the `share` of highest scores, of equal ones those that come first.
  std::vector<bool> best(const Eigen::VectorXd& score) const {
    std::vector<Index> order(std::size_t(score.size()));
    std::iota(order.begin(), order.end(), Index{0});
    std::stable_sort(order.begin(), order.end(),
                     [&](Index a, Index b) { return score[a] > score[b]; });
    order.resize(std::size_t(std::ceil(share * double(score.size()))));
    std::vector<bool> marked(std::size_t(score.size()), false);
    marked[0] = true;
    for (const Index i : order) marked[std::size_t(i)] = true;
    return marked;
  }
};

}  // namespace recall
