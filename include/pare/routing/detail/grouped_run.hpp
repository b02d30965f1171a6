// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// How `grouped_multiply` runs: large experts take all threads, small ones one each. An expert's
/// rows are copied together just before it is applied, so that it finds them in L2.

#include <pare/core/aligned_buffer.hpp>
#include <pare/core/backend.hpp>
#include <pare/core/ceil_div.hpp>
#include <pare/core/executor_ref.hpp>
#include <pare/core/matrix.hpp>
#include <pare/core/parallel.hpp>
#include <pare/core/scratch.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/core/workspace.hpp>

#include <algorithm>
#include <cstddef>
#include <span>
#include <vector>

namespace pare::routing::detail {
PARE_ABI_BEGIN

/// Rows whose products take as long as reading the weight: with fewer, an expert costs the same.
inline constexpr Index rows_of_one_reading = 6;

/// A workspace in a list, whose code then has a name for every instruction set.
struct WorkerMemory {
  Workspace workspace;
};

struct GroupedMemory {
  std::vector<Index> experts;         ///< those with rows, large ones first
  std::vector<WorkerMemory> workers;  ///< one each
};

/// The rows of x of one expert.
template <class T>
struct ExpertRows {
  AlignedBuffer<T> rows;
};

/// Places that lie by expert, and the rows of x that they take.
struct Places {
  std::span<const Index> offsets;  ///< [experts + 1], as RoutePlan::offsets
  std::span<const Index> rows;     ///< [places] the row of x of each
};

/// One call. `L` is a layer of rows of T.
template <class B, class T, class L>
class GroupedRun {
 public:
  GroupedRun(const B& backend, TensorView<const T, 2> x, const Places& places,
             std::span<const L> experts, TensorView<T, 2> parts)
      : backend_(backend),
        x_(x),
        places_(places),
        experts_(experts),
        parts_(parts),
        is_sorted_(x.rows() == static_cast<Index>(places.rows.size())),
        memory_(leased<GroupedMemory>(backend)) {
    for (std::size_t p = 0; is_sorted_ && p < places.rows.size(); ++p)
      is_sorted_ = places.rows[p] == static_cast<Index>(p);
  }

  void run() {
    const Index large = list_experts();
    auto& list = memory_->experts;
    for (Index i = 0; i < large; ++i) apply(backend_, list[static_cast<std::size_t>(i)]);
    const Index small = static_cast<Index>(list.size()) - large;
    memory_->workers.resize(std::max(
        memory_->workers.size(), static_cast<std::size_t>(worker_count(backend_.executor, small))));
    parallel_for(backend_.executor, small, [&](Index item, int worker) {
      apply(backend_.with(memory_->workers[static_cast<std::size_t>(worker)].workspace),
            list[static_cast<std::size_t>(large + item)]);
    });
  }

 private:
  Index offset(Index expert) const { return places_.offsets[static_cast<std::size_t>(expert)]; }
  Index rows(Index expert) const { return offset(expert + 1) - offset(expert); }

  void copy_row(Index row, T* to) const {
    const T* const from = x_.data + row * x_.stride[0];
    if (x_.stride[1] == 1)
      std::copy_n(from, x_.cols(), to);
    else
      for (Index i = 0; i < x_.cols(); ++i) to[i] = from[i * x_.stride[1]];
  }

  /// Lists the experts that have rows; returns how many of them all threads should share.
  Index list_experts() {
    auto& list = memory_->experts;
    list.clear();
    Index work = 0;
    for (Index e = 0; e < static_cast<Index>(experts_.size()); ++e)
      if (rows(e) > 0) {
        list.push_back(e);
        work += cost(e);
      }
    const Index workers = worker_count(backend_.executor, work);
    if (workers == 1) return 0;
    const auto shared = [&](Index e) { return cost(e) > work / (2 * workers); };
    return std::stable_partition(list.begin(), list.end(), shared) - list.begin();
  }
  Index cost(Index expert) const { return std::max(rows(expert), rows_of_one_reading); }

  template <class On>
  void apply(const On& on, Index expert) const {
    const Index first = offset(expert), count = rows(expert);
    const L& layer = experts_[static_cast<std::size_t>(expert)];
    const auto parts = rows_of(parts_, first, count);
    if (is_sorted_) return layer.apply(on, rows_of(x_, first, count), parts);
    const auto memory = leased<ExpertRows<T>>(on);
    const auto together = matrix_in(memory->rows, count, x_.cols());
    constexpr Index block = 32;
    parallel_for(on.executor, ceil_div(count, block), [&](Index item, int) {
      for (Index r = item * block; r < std::min(count, (item + 1) * block); ++r)
        copy_row(places_.rows[static_cast<std::size_t>(first + r)], &together(r, 0));
    });
    layer.apply(on, as_const(together), parts);
  }

  const B& backend_;
  TensorView<const T, 2> x_;
  Places places_;
  std::span<const L> experts_;
  TensorView<T, 2> parts_;
  bool is_sorted_;  ///< rows of x lie in the order of places
  Lease<GroupedMemory> memory_;
};

/// A loop over experts.
template <class T, class L>
void reference_grouped(TensorView<const T, 2> x, const Places& places, std::span<const L> experts,
                       TensorView<T, 2> parts) {
  RowMatrix<T> row(1, x.cols());
  for (std::size_t e = 0; e < experts.size(); ++e)
    for (Index p = places.offsets[e]; p < places.offsets[e + 1]; ++p) {
      for (Index c = 0; c < x.cols(); ++c)
        row(0, c) = x(places.rows[static_cast<std::size_t>(p)], c);
      experts[e].apply(reference, const_view(row), rows_of(parts, p, 1));
    }
}

/// Layers on their rows; nothing is checked.
template <class B, class T, class L>
void run_grouped(const B& backend, TensorView<const T, 2> x, const Places& places,
                 std::span<const L> experts, TensorView<T, 2> parts) {
  if constexpr (KernelBackend<B>)
    GroupedRun<OnAnyExecutor<B>, T, L>(on_any_executor(backend), x, places, experts, parts).run();
  else
    reference_grouped<T, L>(x, places, experts, parts);
}

PARE_ABI_END
}  // namespace pare::routing::detail
