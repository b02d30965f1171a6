// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <pare/core/backend.hpp>
#include <pare/core/ceil_div.hpp>
#include <pare/core/sparse_view.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/projection/detail/project_dense.hpp>

#include <algorithm>
#include <cstdint>
#include <vector>

namespace pare::projection::detail {
PARE_ABI_BEGIN

/// The nonzeros of some columns of R, by column: row << 1 | negative.
struct ColumnLists {
  std::vector<Index> start;  ///< [columns + 1]
  std::vector<std::uint32_t> entry;
};

template <class T>
struct SparseMemory {
  std::vector<AlignedBuffer<T>> sums;  ///< a row of Y for each worker
  std::vector<std::uint8_t> used;
  std::vector<Index> batch;
  ColumnLists lists;
};

/// Marks the columns in [first, last) that some row of X touches.
template <class T, class I>
void mark_columns(const CompressedView<T, I>& x, Index first, Index last,
                  std::vector<std::uint8_t>& used) {
  used.assign(static_cast<std::size_t>(last - first), 0);
  for (Index u = 0; u < x.outer_size; ++u)
    for (Index e = x.begin(u); e < x.end(u); ++e) {
      const auto j = static_cast<Index>(x.inner[e]);
      if (j >= first && j < last) used[static_cast<std::size_t>(j - first)] = 1;
    }
}

/// The lowest column from `from` on that some row of X touches, else their number.
template <class T, class I>
Index next_column(const CompressedView<T, I>& x, Index from) {
  Index lowest = x.inner_size;
  for (Index u = 0; u < x.outer_size; ++u)
    for (Index e = x.begin(u); e < x.end(u); ++e) {
      const auto j = static_cast<Index>(x.inner[e]);
      if (j >= from && j < lowest) lowest = j;
    }
  return lowest;
}

/// Samples the columns of [first, last) that are marked; the others stay empty.
template <class Sampler, KernelBackend B>
void sample_used(const Sampler& sampler, const B& backend, Index first, Index output_dim,
                 const std::vector<std::uint8_t>& used, std::vector<Index>& batch,
                 ColumnLists& lists) {
  const auto columns = static_cast<Index>(used.size());
  lists.start.assign(used.size() + 1, 0);
  lists.entry.clear();
  batch.clear();
  const auto flush = [&] {
    sampler.sample(backend, batch.data(), static_cast<Index>(batch.size()), 0, output_dim,
                   [&](Index position, Index row, std::uint64_t mask, std::uint64_t signs) {
                     const Index column = batch[static_cast<std::size_t>(position)] - first;
                     for (; mask != 0; mask &= mask - 1) {
                       const int r = std::countr_zero(mask);
                       lists.entry.push_back(static_cast<std::uint32_t>(row + r) << 1 |
                                             static_cast<std::uint32_t>((signs >> r) & 1u));
                     }
                     lists.start[static_cast<std::size_t>(column) + 1] =
                         static_cast<Index>(lists.entry.size());
                   });
    batch.clear();
  };
  for (Index j = 0; j < columns; ++j) {
    if (used[static_cast<std::size_t>(j)] != 0) batch.push_back(first + j);
    if (batch.size() == 64) flush();
  }
  flush();
  for (std::size_t j = 1; j < lists.start.size(); ++j)
    lists.start[j] = std::max(lists.start[j], lists.start[j - 1]);
}

/// Adds the part of one row of X that lies in the sampled columns to its sums.
template <class T, class I>
void add_sparse_row(const CompressedView<T, I>& x, Index u, const ColumnLists& lists, Index first,
                    T* sums) {
  const Index last = first + (static_cast<Index>(lists.start.size()) - 1);
  for (Index e = x.begin(u); e < x.end(u); ++e) {
    const auto j = static_cast<Index>(x.inner[e]);
    if (j < first || j >= last) continue;
    const T signed_value[2] = {x.values[e], -x.values[e]};
    const auto at = static_cast<std::size_t>(j - first);
    for (Index i = lists.start[at]; i < lists.start[at + 1]; ++i) {
      const std::uint32_t entry = lists.entry[static_cast<std::size_t>(i)];
      sums[entry >> 1] += signed_value[entry & 1u];
    }
  }
}

/// Y = scale * X * (signs of R)^T for sparse rows. Only columns that X touches are sampled; each
/// row sums its entries in stored order, pass by pass of `step` columns; a pass that X does not
/// touch is left out, so that the width of X costs nothing.
template <class Sampler, class T, class I, KernelBackend B>
void project_sparse(const B& backend, const CompressedView<T, I>& x, const Sampler& sampler,
                    double column_nonzeros, double scale, TensorView<T, 2> y) {
  constexpr Index rows_per_item = 32;
  const Index outputs = y.cols();
  const double columns_that_fit = operator_bytes / (8 + 4 * column_nonzeros);
  const Index step =
      std::clamp(static_cast<Index>(columns_that_fit), Index{1}, std::max(Index{1}, x.inner_size));
  const Index items = ceil_div(x.outer_size, rows_per_item);
  const auto memory = leased<SparseMemory<T>>(backend);
  const auto workers = static_cast<std::size_t>(worker_count(backend.executor, items));
  if (memory->sums.size() < workers) memory->sums.resize(workers);
  for (auto& buffer : memory->sums) buffer.resize(static_cast<std::size_t>(outputs));
  bool begun = false;
  Index next = next_column(x, 0);
  do {
    const Index first = next / step * step;
    const Index last = first + std::min(step, x.inner_size - first);
    next = next_column(x, last);
    mark_columns(x, first, last, memory->used);
    sample_used(sampler, backend, first, outputs, memory->used, memory->batch, memory->lists);
    const T factor = next == x.inner_size ? entry_factor<T>(scale) : T(1);
    parallel_for(backend.executor, items, [&](Index item, int worker) {
      T* sum = memory->sums[static_cast<std::size_t>(worker)].data();
      const Index end = std::min(x.outer_size, (item + 1) * rows_per_item);
      for (Index u = item * rows_per_item; u < end; ++u) {
        for (Index r = 0; r < outputs; ++r) sum[r] = begun ? y(u, r) : T(0);
        add_sparse_row(x, u, memory->lists, first, sum);
        for (Index r = 0; r < outputs; ++r) y(u, r) = factor * sum[r];
      }
    });
    begun = true;
  } while (next < x.inner_size);
}

PARE_ABI_END
}  // namespace pare::projection::detail
