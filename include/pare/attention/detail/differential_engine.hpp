// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// The driver of differential attention: the items of exact attention, each with two maps of scores
/// whose states share the tiles of values, and the rows that the two states make.

#include <pare/attention/detail/attend_memory.hpp>
#include <pare/attention/detail/item_runner.hpp>
#include <pare/attention/detail/plan.hpp>
#include <pare/attention/detail/scratch.hpp>
#include <pare/core/aligned_buffer.hpp>
#include <pare/core/backend.hpp>
#include <pare/core/parallel.hpp>
#include <pare/core/scratch.hpp>
#include <pare/core/workspace.hpp>
#include <pare/kernel/attend_finish.hpp>
#include <pare/kernel/difference_rows.hpp>
#include <pare/kernel/narrow_rows.hpp>
#include <pare/kernel/norm_rows.hpp>

#include <algorithm>
#include <cstddef>
#include <type_traits>
#include <vector>

namespace pare::attention::detail {
PARE_ABI_BEGIN

/// What a call keeps: that of attention, and of the second map the tiles and states.
struct DifferentialMemory {
  AttendMemory attend;
  std::vector<AlignedBuffer<std::byte>> second;
  AlignedBuffer<std::byte> second_parts;
  AlignedBuffer<std::byte> gain;
};

/// What becomes of two rows o1 and o2: o1 - lambda o2, then RMS norm with a gain.
template <class T>
struct RowDifference {
  double lambda = 0;
  double epsilon = 0;
  const T* gain = nullptr;  ///< [value dim]; null: no norm
};

/// Writes the rows of an item from its two states.
template <class B, class C>
void finish_pair(const B& backend, const C& call, const AttendItem& item, const Scratch<C>& first,
                 const Scratch<C>& second, const RowDifference<typename C::T>& difference) {
  using T = typename C::T;
  using O = typename C::Output;
  const Index columns = call.problem.value_dim, stride = kernel::padded_columns<T>(columns);
  launch(backend,
         kernel::DifferenceRows<T>{first.sum, first.state, second.sum, second.state, item.rows(),
                                   columns, static_cast<T>(difference.lambda)});
  const Sequence s = call.sequence(item.sequence);
  for (Index h = 0; h < item.heads(); ++h) {
    T* const state = first.state + h * item.queries() * stride;
    O* const out = &call.out(s.batch, item.head_begin + h, s.query_begin + item.query_begin, 0);
    const Index out_stride = call.out.stride[2];
    kernel::RmsNormRows<T> norm{.x = state, .x_stride = stride, .gain = difference.gain};
    norm.rows = item.queries();
    norm.columns = columns;
    norm.epsilon = difference.epsilon;
    norm.out = state;
    norm.out_stride = stride;
    if constexpr (std::is_same_v<O, T>) {
      norm.out = out;
      norm.out_stride = out_stride;
      if (difference.gain == nullptr)
        for (Index i = 0; i < item.queries(); ++i)
          std::copy_n(state + i * stride, columns, out + i * out_stride);
    }
    if (difference.gain != nullptr) launch(backend, norm);
    if constexpr (!std::is_same_v<O, T>)
      launch(backend,
             kernel::NarrowRows<O>{state, stride, out, out_stride, item.queries(), columns});
  }
}

/// One call on a backend that launches kernels: two calls of attention that differ in queries and
/// keys alone.
template <class B, class C>
class DifferentialRun {
  using T = typename C::T;

 public:
  DifferentialRun(const B& backend, const C& first, const C& second, DifferentialMemory& memory,
                  const RowDifference<T>& difference)
      : backend_(backend),
        first_(first),
        second_(second),
        memory_(memory),
        difference_(difference) {}

  void run(Index key_slots) {
    const Problem& p = first_.problem;
    AttendMemory& m = memory_.attend;
    const Index part_rows = make_plan(
        p, key_slots, first_.q.extent[0] * first_.q.extent[2],
        [this](Index i) { return first_.sequence(i); }, m);
    const Index columns = kernel::padded_columns<T>(p.value_dim);
    const Parts<T> parts(m.parts, part_rows, columns);
    const Parts<T> others(memory_.second_parts, part_rows, columns);
    const auto items = static_cast<Index>(m.items.size());
    for (const AttendItem& item : m.items) most_rows_ = std::max(most_rows_, item.rows());
    const auto workers = static_cast<std::size_t>(worker_count(backend_.executor, items));
    if (m.workers.size() < workers) m.workers.resize(workers);
    if (memory_.second.size() < workers) memory_.second.resize(workers);
    parallel_for(backend_.executor, items, [&](Index i, int worker) {
      run_item(m.items[static_cast<std::size_t>(i)], worker, parts, others);
    });
    parallel_for(backend_.executor, static_cast<Index>(m.merges.size()), [&](Index i, int worker) {
      merge(m.merges[static_cast<std::size_t>(i)], worker, parts, others);
    });
  }

 private:
  Scratch<C> scratch_of(std::vector<AlignedBuffer<std::byte>>& of, int worker) const {
    const Problem& p = first_.problem;
    return {of[static_cast<std::size_t>(worker)], most_rows_, p.key_dim, p.value_dim};
  }

  void run_item(const AttendItem& item, int worker, const Parts<T>& parts,
                const Parts<T>& others) const {
    Scratch<C> a = scratch_of(memory_.attend.workers, worker);
    Scratch<C> b = scratch_of(memory_.second, worker);
    if (item.part >= 0) {
      parts.state_of(item.part, a);
      others.state_of(item.part, b);
    }
    ItemRunner<B, C> beside(backend_, second_, item, b);
    ItemRunner<B, C, ItemRunner<B, C>>(backend_, first_, item, a, &beside).run();
    if (item.part < 0) finish_pair(backend_, first_, item, a, b, difference_);
  }

  void merge(const MergeItem& merge, int worker, const Parts<T>& parts,
             const Parts<T>& others) const {
    Scratch<C> a = scratch_of(memory_.attend.workers, worker);
    Scratch<C> b = scratch_of(memory_.second, worker);
    parts.state_of(merge.rows.part, a);
    others.state_of(merge.rows.part, b);
    for (const Scratch<C>* const s : {&a, &b})
      launch(backend_,
             kernel::MergeRows<T>{s->maximum, s->sum, s->state, merge.parts, merge.rows.rows(),
                                  first_.problem.value_dim, nullptr, merge.part_rows});
    finish_pair(backend_, first_, merge.rows, a, b, difference_);
  }

  const B& backend_;
  const C& first_;
  const C& second_;
  DifferentialMemory& memory_;
  const RowDifference<T>& difference_;
  Index most_rows_ = 0;
};

PARE_ABI_END
}  // namespace pare::attention::detail
