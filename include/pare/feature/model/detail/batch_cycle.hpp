// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Batches as ranges of rows, epoch after epoch.

#include <pare/core/permutation.hpp>
#include <pare/feature/model/detail/labelled_rows.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>

namespace pare::feature::detail {
PARE_ABI_BEGIN

/// Ranges of `batch` rows, epoch after epoch: each epoch begins at another row below `batch`, so
/// that ranges differ, visits them in another order, and leaves out what is short of a range.
template <class T>
class BatchCycle {
 public:
  BatchCycle(LabelledRows<T> rows, Index batch, std::uint64_t seed, std::uint64_t stream)
      : rows_(rows), batch_(std::min(batch, rows.rows())), seed_(seed), stream_(stream) {}

  /// Batches of a whole epoch at most.
  Index batches() const { return rows_.rows() / batch_; }

  LabelledRows<T> next() {
    if (visited_ == order_.size()) begin_epoch();
    const auto place = static_cast<Index>(order_[visited_++]);
    return rows_.range(offset_ + place * batch_, batch_);
  }

  /// Whether the next batch is the first of an epoch.
  bool at_end() const { return visited_ == order_.size(); }

 private:
  void begin_epoch() {
    const std::uint64_t stream = stream_ << 32 | epoch_++;
    const Index spare = std::min(batch_ - 1, rows_.rows() - batch_);
    const PhiloxCounter words = philox({static_cast<std::uint32_t>(stream),
                                        static_cast<std::uint32_t>(stream >> 32), 0, 0x62617463u},
                                       PhiloxKey(seed_));
    offset_ = static_cast<Index>(scale_to_range(words[0], static_cast<std::uint32_t>(spare) + 1));
    order_ = Permutation::random((rows_.rows() - offset_) / batch_, seed_, stream);
    visited_ = 0;
  }

  LabelledRows<T> rows_;
  Index batch_;
  std::uint64_t seed_, stream_, epoch_ = 0;
  Index offset_ = 0;
  Permutation order_;
  Index visited_ = 0;
};

PARE_ABI_END
}  // namespace pare::feature::detail
