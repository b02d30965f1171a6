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

/// Sets all to 0.
template <class T>
void clear_rows(TensorView<T, 2> rows) {
  for (Index i = 0; i < rows.rows(); ++i) {
    T* const first = rows.data + i * rows.stride[0];
    if (rows.stride[1] == 1)
      std::fill_n(first, rows.cols(), T(0));
    else
      for (Index c = 0; c < rows.cols(); ++c) first[c * rows.stride[1]] = T(0);
  }
}

/// Finds the hits of a row among many negatives: in their order by name or, of few rows, by a look
/// at each, which takes less than sorting.
class Hits {
  static constexpr Index few_rows = 8;

 public:
  template <class S>
  void prepare(const SoftmaxBatch<S>& batch) {
    names_.clear();
    order_.clear();
    if (!batch.remove_hits) return;
    for (const Index item : batch.negatives) names_.push_back(batch.name_of(item));
    if (batch.rows() <= few_rows) return;
    for (Index j = 0; j < batch.count(); ++j) order_.push_back(j);
    std::sort(order_.begin(), order_.end(), [this](Index a, Index b) {
      return name(a) < name(b) || (name(a) == name(b) && a < b);
    });
  }

  /// Calls hide(j) for each hit of a row.
  template <class S, class Hide>
  void each(const SoftmaxBatch<S>& batch, Index row, const Hide& hide) const {
    if (batch.in_batch) hide(row);
    if (!batch.remove_hits) return;
    const Index own = batch.name_of(batch.positive(row));
    if (order_.empty()) {
      for (Index j = 0; j < batch.count(); ++j)
        if (name(j) == own) hide(j);
      return;
    }
    auto at = std::lower_bound(order_.begin(), order_.end(), own,
                               [this](Index j, Index wanted) { return name(j) < wanted; });
    for (; at != order_.end() && name(*at) == own; ++at) hide(*at);
  }

 private:
  Index name(Index j) const { return names_[static_cast<std::size_t>(j)]; }

  std::vector<Index> names_, order_;
};

PARE_ABI_END
}  // namespace pare::retrieval::detail
