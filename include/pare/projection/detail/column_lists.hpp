// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <pare/core/aligned_buffer.hpp>
#include <pare/core/backend.hpp>
#include <pare/core/ceil_div.hpp>
#include <pare/kernel/signed_columns.hpp>
#include <pare/projection/detail/sampler.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace pare::projection::detail {
PARE_ABI_BEGIN

/// The most rows of R whose entries fit 16 bits.
inline constexpr Index short_entry_rows = Index{1} << 15;

/// The nonzeros of up to kernel::columns_per_list columns of R, in the form of kernel::SignedLists.
template <class Entry>
struct ColumnLists {
  std::vector<std::uint32_t> start;
  std::vector<Entry> entry;
  Index each = 0;  ///< nonzeros of each column; 0 if they differ

  /// Draws columns [first, last).
  template <class Sampler, KernelBackend B>
  void draw(const Sampler& sampler, const B& backend, Index first, Index last, Index output_dim) {
    constexpr int sign_bit = 8 * static_cast<int>(sizeof(Entry)) - 1;
    start.assign(static_cast<std::size_t>(last - first) + 1, 0);
    entry.clear();
    visit_columns(
        sampler, backend, first, last, 0, output_dim, [&](Index column, Index row, bool negative) {
          entry.push_back(static_cast<Entry>(static_cast<Entry>(row) | static_cast<Entry>(negative)
                                                                           << sign_bit));
          start[static_cast<std::size_t>(column - first) + 1] =
              static_cast<std::uint32_t>(entry.size());
        });
    entry.insert(entry.end(), 2, Entry{0});  // what the kernel may read behind the last list
    for (std::size_t j = 1; j < start.size(); ++j) start[j] = std::max(start[j], start[j - 1]);
    each = start.size() > 1 ? Index{start[1]} : 0;
    for (std::size_t j = 1; j < start.size(); ++j)
      if (start[j] - start[j - 1] != each) each = 0;
  }
  void shrink() {
    start.shrink_to_fit();
    entry.shrink_to_fit();
  }
};

/// Columns [first, last) of R in memory.
template <class Entry>
class StoredColumns {
 public:
  /// Bytes that columns take, each of so many nonzeros on average.
  static double bytes(double columns, double column_nonzeros) {
    return columns * (sizeof(std::uint32_t) + sizeof(Entry) * column_nonzeros);
  }

  Index first() const { return first_; }
  Index last() const { return last_; }
  bool holds(Index column) const { return column >= first_ && column < last_; }
  const kernel::SignedLists<Entry>* lists() const { return views_.data(); }
  /// How many nonzeros each column has; 0 if they differ.
  Index nonzeros_of_each() const { return each_; }

  /// Draws columns [first, last) instead of those it held.
  template <class Sampler, KernelBackend B>
  void draw(const Sampler& sampler, const B& backend, Index first, Index last, Index output_dim) {
    first_ = last_ = first;
    const Index items = ceil_div(last - first, kernel::columns_per_list);
    if (lists_.size() < static_cast<std::size_t>(items)) {
      lists_.resize(static_cast<std::size_t>(items));
      views_.resize(lists_.size());
    }
    parallel_for(backend.executor, items, [&](Index item, int) {
      const Index begin = first + item * kernel::columns_per_list;
      const Index end = begin + std::min(kernel::columns_per_list, last - begin);
      list(item).draw(sampler, backend, begin, end, output_dim);
    });
    each_ = items > 0 ? list(0).each : 0;
    for (Index item = 0; item < items; ++item) {
      if (list(item).each != each_) each_ = 0;
      show(item);
    }
    last_ = last;
  }

  /// Draws columns from 0 on, for as long as no more than `most` bytes are allocated for them.
  template <class Sampler, KernelBackend B>
  void draw_within(double most, const Sampler& sampler, const B& backend, Index columns,
                   double column_nonzeros, Index output_dim) {
    const double fit = most / bytes(1, column_nonzeros);
    if (fit < static_cast<double>(columns))
      columns = static_cast<Index>(fit) / kernel::columns_per_list * kernel::columns_per_list;
    draw(sampler, backend, 0, columns, output_dim);
    parallel_for(backend.executor, static_cast<Index>(lists_.size()),
                 [&](Index item, int) { list(item).shrink(); });
    while (static_cast<double>(allocated()) > most && !lists_.empty()) {
      last_ = (static_cast<Index>(lists_.size()) - 1) * kernel::columns_per_list;
      lists_.pop_back();
    }
    lists_.shrink_to_fit();
    views_ = AlignedBuffer<kernel::SignedLists<Entry>>(lists_.size());
    for (Index item = 0; item < static_cast<Index>(lists_.size()); ++item) show(item);
  }

  /// Bytes that it has allocated.
  Index allocated() const {
    std::size_t total = lists_.size() * (sizeof(lists_[0]) + sizeof(kernel::SignedLists<Entry>));
    for (const auto& lists : lists_)
      total +=
          lists.start.capacity() * sizeof(std::uint32_t) + lists.entry.capacity() * sizeof(Entry);
    return static_cast<Index>(total);
  }

 private:
  ColumnLists<Entry>& list(Index item) { return lists_[static_cast<std::size_t>(item)]; }
  void show(Index item) {
    views_.data()[item] = {list(item).start.data(), list(item).entry.data()};
  }

  Index first_ = 0, last_ = 0, each_ = 0;
  std::vector<ColumnLists<Entry>> lists_;
  /// No std::vector: its code would be of one name for every instruction set.
  AlignedBuffer<kernel::SignedLists<Entry>> views_;
};

PARE_ABI_END
}  // namespace pare::projection::detail
