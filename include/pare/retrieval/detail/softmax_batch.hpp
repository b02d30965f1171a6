// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// A batch of sampled softmax: which rows meet, which of them are no negatives, and corrections.

#include <pare/core/tensor_view.hpp>
#include <pare/retrieval/detail/unit_rows.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <span>
#include <vector>

namespace pare::retrieval::detail {
PARE_ABI_BEGIN

/// Checked inputs. In a batch of its own negatives, those of row i are the positives of the others.
template <class S>
struct SoftmaxBatch {
  TensorView<const S, 2> users;          ///< [rows, dim]
  TensorView<const S, 2> items;          ///< [items, dim]
  std::span<const Index> positives;      ///< [rows] rows of items
  std::span<const Index> negatives;      ///< [count] rows of items
  std::span<const double> log_proposal;  ///< [items], or empty
  std::span<const Index> names;          ///< [items], or empty: an item's name is its row
  double inverse_temperature = 1;
  bool in_batch = false;
  bool remove_hits = true;
  bool correct_positive = false;

  Index rows() const { return users.rows(); }
  Index dim() const { return users.cols(); }
  double user(Index row, Index c) const { return widened(users(row, c)); }
  double item(Index row, Index c) const { return widened(items(row, c)); }
  Index count() const { return static_cast<Index>(negatives.size()); }

  Index name_of(Index item) const {
    return names.empty() ? item : names[static_cast<std::size_t>(item)];
  }
  Index positive(Index row) const { return positives[static_cast<std::size_t>(row)]; }
  Index negative(Index j) const { return negatives[static_cast<std::size_t>(j)]; }

  /// Whether negative j is none of that row.
  bool is_hit(Index row, Index j) const {
    if (in_batch && row == j) return true;
    return remove_hits && name_of(negative(j)) == name_of(positive(row));
  }

  /// What is taken off the logit of an item: ln of the times that it is expected to be drawn.
  double correction(Index item) const {
    if (log_proposal.empty()) return 0;
    return std::log(static_cast<double>(in_batch ? count() - 1 : count())) +
           log_proposal[static_cast<std::size_t>(item)];
  }
};

/// Finds the hits of a row among many negatives.
class Hits {
 public:
  template <class S>
  void prepare(const SoftmaxBatch<S>& batch) {
    order_.clear();
    if (!batch.remove_hits) return;
    for (Index j = 0; j < batch.count(); ++j)
      order_.push_back({batch.name_of(batch.negative(j)), j});
    std::sort(order_.begin(), order_.end(), [](const Named& a, const Named& b) {
      return a.name < b.name || (a.name == b.name && a.place < b.place);
    });
  }

  /// Calls hide(j) for each hit of a row.
  template <class S, class Hide>
  void each(const SoftmaxBatch<S>& batch, Index row, const Hide& hide) const {
    if (batch.in_batch) hide(row);
    if (!batch.remove_hits) return;
    const Index name = batch.name_of(batch.positive(row));
    auto at = std::lower_bound(order_.begin(), order_.end(), name,
                               [](const Named& a, Index wanted) { return a.name < wanted; });
    for (; at != order_.end() && at->name == name; ++at) hide(at->place);
  }

 private:
  struct Named {
    Index name, place;
  };
  std::vector<Named> order_;
};

PARE_ABI_END
}  // namespace pare::retrieval::detail
