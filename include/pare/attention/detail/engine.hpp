// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// The tiled driver of attention: it cuts a call into items, feeds the visible keys of each to a
/// TileFeed, which packs a tile once for all rows, and lets the tile kernel advance their softmax.

#include <pare/attention/detail/attend_memory.hpp>
#include <pare/attention/detail/call.hpp>
#include <pare/attention/detail/item_runner.hpp>
#include <pare/attention/detail/plan.hpp>
#include <pare/attention/detail/scratch.hpp>
#include <pare/attention/row_finish.hpp>
#include <pare/core/backend.hpp>
#include <pare/core/parallel.hpp>
#include <pare/core/workspace.hpp>
#include <pare/kernel/attend_finish.hpp>
#include <pare/kernel/narrow_rows.hpp>

#include <algorithm>
#include <cstddef>
#include <type_traits>

namespace pare::attention::detail {
PARE_ABI_BEGIN

/// Hands each row of an item to the call's hook: in the output, or in the state of a worker where
/// the output is narrower, from which it is then rounded.
template <class B, class C>
void run_finish_hook(const B& backend, const C& call, const AttendItem& item,
                     const Scratch<C>& scratch) {
  using T = typename C::T;
  using O = typename C::Output;
  using Row = FinishedRow<B, T, typename C::Keys>;
  const Sequence s = call.sequence(item.sequence);
  const Index columns = call.problem.value_dim;
  const Index kv_head = item.head_begin / call.problem.group();
  const Index stride = kernel::padded_columns<T>(columns), first = item.query_begin;
  Index row = 0;
  for (Index head = item.head_begin; head < item.head_end; ++head)
    for (Index query = first; query < item.query_end; ++query, ++row) {
      T* to = scratch.state + row * stride;
      if constexpr (std::is_same_v<O, T>) to = scratch.out_rows[row];
      const Row finished(backend, call.source,
                         {item.sequence, head, kv_head, query, query + s.offset(call.problem)}, to,
                         scratch.loaded_values);
      call.finish.finish(finished);
      if constexpr (!std::is_same_v<O, T>)
        launch(backend,
               kernel::NarrowRows<O>{to, columns, scratch.out_rows[row], columns, 1, columns});
    }
}

/// Divides the rows of an item in a worker's state, where they are to be changed before they are
/// rounded.
template <class B, class C>
void finish_in_state(const B& backend, const C& call, const AttendItem& item,
                     const Scratch<C>& scratch, bool lse_wanted) {
  using T = typename C::T;
  const Index stride = kernel::padded_columns<T>(call.problem.value_dim);
  for (Index row = 0; row < item.rows(); ++row) {
    T* const state = scratch.state + row * stride;
    launch(backend, kernel::FinishRows<T, T>{scratch.maximum + row, scratch.sum + row, state, 1,
                                             call.problem.value_dim, &state,
                                             lse_wanted ? scratch.lse_rows + row : nullptr,
                                             call.keeps_mass() ? scratch.mass + row : nullptr});
  }
}

/// Writes the rows of an item whose states are complete.
template <class B, class C>
void finish_rows(const B& backend, const C& call, const AttendItem& item,
                 const Scratch<C>& scratch) {
  using T = typename C::T;
  using O = typename C::Output;
  const Sequence s = call.sequence(item.sequence);
  const bool lse_wanted = call.options.lse.wanted();
  const auto lse = call.options.lse.template view<T>();
  for (Index h = 0; h < item.heads(); ++h)
    for (Index query = 0; query < item.queries(); ++query) {
      const Index row = h * item.queries() + query, head = item.head_begin + h;
      const Index token = s.query_begin + item.query_begin + query;
      scratch.out_rows[row] = call.out.data + s.batch * call.out.stride[0] +
                              head * call.out.stride[1] + token * call.out.stride[2];
      if (lse_wanted) scratch.lse_rows[row] = &lse(s.batch, head, token);
    }
  if constexpr (C::finishes && !std::is_same_v<O, T>) {
    finish_in_state(backend, call, item, scratch, lse_wanted);
    return run_finish_hook(backend, call, item, scratch);
  }
  launch(backend, kernel::FinishRows<T, O>{scratch.maximum, scratch.sum, scratch.state, item.rows(),
                                           call.problem.value_dim, scratch.out_rows,
                                           lse_wanted ? scratch.lse_rows : nullptr,
                                           call.keeps_mass() ? scratch.mass : nullptr});
  if constexpr (C::finishes) run_finish_hook(backend, call, item, scratch);
}

/// Runs a call on a backend that launches kernels.
template <class B, class C>
void run_call(const B& backend, const C& call, Index key_slots) {
  using T = typename C::T;
  const Problem& p = call.problem;
  const auto memory = leased<AttendMemory>(backend);
  const Index part_rows = make_plan(
      p, key_slots, call.q.extent[0] * call.q.extent[2],
      [&call](Index i) { return call.sequence(i); }, *memory);
  Parts<T> parts(memory->parts, part_rows, kernel::padded_columns<T>(p.value_dim));
  const auto items = static_cast<Index>(memory->items.size());
  Index most_rows = 0;
  for (const AttendItem& item : memory->items) most_rows = std::max(most_rows, item.rows());
  const auto workers = static_cast<std::size_t>(worker_count(backend.executor, items));
  if (memory->workers.size() < workers) memory->workers.resize(workers);
  parallel_for(backend.executor, items, [&](Index i, int worker) {
    const AttendItem& item = memory->items[static_cast<std::size_t>(i)];
    Scratch<C> scratch(memory->workers[static_cast<std::size_t>(worker)], most_rows, p.key_dim,
                       p.value_dim);
    if (item.part >= 0) parts.state_of(item.part, scratch);
    ItemRunner<B, C>(backend, call, item, scratch).run();
    if (item.part < 0) finish_rows(backend, call, item, scratch);
  });
  parallel_for(
      backend.executor, static_cast<Index>(memory->merges.size()), [&](Index i, int worker) {
        const MergeItem& merge = memory->merges[static_cast<std::size_t>(i)];
        Scratch<C> scratch(memory->workers[static_cast<std::size_t>(worker)], most_rows, p.key_dim,
                           p.value_dim);
        parts.state_of(merge.rows.part, scratch);
        launch(backend,
               kernel::MergeRows<T>{scratch.maximum, scratch.sum, scratch.state, merge.parts,
                                    merge.rows.rows(), p.value_dim,
                                    call.keeps_mass() ? scratch.mass : nullptr, merge.part_rows});
        finish_rows(backend, call, merge.rows, scratch);
      });
}

PARE_ABI_END
}  // namespace pare::attention::detail
