// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Carries out a partition of attention on threads.

#include <pare/attention/budget/head_partition.hpp>
#include <pare/attention/detail/attend_memory.hpp>
#include <pare/attention/detail/call.hpp>
#include <pare/attention/detail/engine.hpp>
#include <pare/attention/detail/item_runner.hpp>
#include <pare/attention/detail/scratch.hpp>
#include <pare/core/backend.hpp>
#include <pare/core/parallel.hpp>
#include <pare/kernel/attend_finish.hpp>

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <memory>
#include <vector>

namespace pare::attention::detail {
PARE_ABI_BEGIN

/// How far the items of each thread are taken.
class ItemCursors {
 public:
  void open(Index threads) {
    if (threads > capacity_) {
      next_ = std::make_unique<std::atomic<Index>[]>(static_cast<std::size_t>(threads));
      capacity_ = threads;
    }
    for (Index t = 0; t < threads; ++t) next_[static_cast<std::size_t>(t)] = 0;
  }
  /// The number of the next item of a thread, for whoever asks.
  Index take(Index thread) {
    return next_[static_cast<std::size_t>(thread)].fetch_add(1, std::memory_order_relaxed);
  }

 private:
  std::unique_ptr<std::atomic<Index>[]> next_;
  Index capacity_ = 0;
};

/// What a call over heads keeps in a workspace.
struct HeadsMemory {
  AttendMemory attend;
  ItemCursors cursors;
  HeadPartition partition;  ///< of a call without one
  std::vector<Index> lengths;
};

/// Calls run(item, worker) for all items of a partition: a thread's own, then what is left.
template <class B, class Run>
void for_shared_items(const B& backend, const HeadPartition& partition, ItemCursors& cursors,
                      const Run& run) {
  const Index threads = partition.threads();
  cursors.open(threads);
  parallel_for(backend.executor, threads, [&](Index own, int worker) {
    for (Index i = 0; i < threads; ++i) {
      const Index thread = (own + i) % threads;
      const auto items = PartitionAccess::of(partition, static_cast<int>(thread));
      for (Index n; (n = cursors.take(thread)) < static_cast<Index>(items.size());)
        run(items[static_cast<std::size_t>(n)], worker);
    }
  });
}

/// The pieces of a partition, and then the merges of heads that were cut.
template <class B, class C>
void run_partition(const B& backend, const C& call, const HeadPartition& partition,
                   AttendMemory& memory, ItemCursors& cursors) {
  using T = typename C::T;
  const Problem& p = call.problem;
  const AttendMemory& plan = PartitionAccess::plan(partition);
  Parts<T> parts(memory.parts, PartitionAccess::part_rows(partition),
                 kernel::padded_columns<T>(p.value_dim));
  Index most_rows = 0;
  for (const AttendItem& item : plan.items) most_rows = std::max(most_rows, item.rows());
  const auto merges = static_cast<Index>(plan.merges.size());
  const auto workers =
      static_cast<std::size_t>(std::max(worker_count(backend.executor, Index{partition.threads()}),
                                        worker_count(backend.executor, merges)));
  if (memory.workers.size() < workers) memory.workers.resize(workers);
  const auto scratch_of = [&](int worker) {
    return Scratch<C>(memory.workers[static_cast<std::size_t>(worker)], most_rows, p.key_dim,
                      p.value_dim);
  };
  for_shared_items(backend, partition, cursors, [&](Index i, int worker) {
    const AttendItem& item = plan.items[static_cast<std::size_t>(i)];
    Scratch<C> scratch = scratch_of(worker);
    if (item.part >= 0) parts.state_of(item.part, scratch);
    ItemRunner<B, C>(backend, call, item, scratch).run();
    if (item.part < 0) finish_rows(backend, call, item, scratch);
  });
  parallel_for(backend.executor, merges, [&](Index i, int worker) {
    const MergeItem& merge = plan.merges[static_cast<std::size_t>(i)];
    Scratch<C> scratch = scratch_of(worker);
    parts.state_of(merge.rows.part, scratch);
    launch(backend, kernel::MergeRows<T>{scratch.maximum, scratch.sum, scratch.state, merge.parts,
                                         merge.rows.rows(), p.value_dim, nullptr, merge.part_rows});
    finish_rows(backend, call, merge.rows, scratch);
  });
}

PARE_ABI_END
}  // namespace pare::attention::detail
