// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// A whole call of attention that stops early: the guides, the items, and what they add up to.

#include <pare/attention/detail/early_stop_plan.hpp>
#include <pare/attention/detail/early_stop_ranking.hpp>
#include <pare/attention/detail/early_stop_runner.hpp>
#include <pare/attention/options.hpp>

#include <algorithm>
#include <cstddef>

namespace pare::attention::detail {
PARE_ABI_BEGIN

/// (query, key) pairs that causality allows, over all heads.
template <class C>
double visible_pairs(const C& call) {
  double pairs = 0;
  for (Index i = 0; i < call.problem.sequences; ++i) {
    const Sequence s = call.sequence(i);
    const auto queries = static_cast<double>(s.queries), keys = static_cast<double>(s.keys);
    pairs += queries * (keys - queries) + queries * (queries + 1) / 2;
  }
  return pairs * static_cast<double>(call.problem.heads);
}

/// The vectors that the queries over one key/value head are ranked by: one, or one for each
/// segment. Keys are summed segment by segment, as a plain sum of all would lose digits.
template <class C>
void make_guides(const C& call, const StopPlan& plan, const StopShared<C>& shared, Index head) {
  using S = typename C::Scalar;
  using T = typename C::T;
  const Index dim = call.problem.key_dim, size = plan.rule.segment;
  const Index sequence = head / call.problem.kv_heads, kv_head = head % call.problem.kv_heads;
  const Index keys = call.source.length(sequence);
  S* const guides = shared.guides + head * shared.guides_per_head * dim;
  T* const all = shared.key_sums + head * 2 * dim;
  T* const part = all + dim;
  std::fill_n(all, dim, T(0));
  for (Index start = 0; start < keys; start += size) {
    if (shared.guides_per_head > 1) store_mean(all, start, dim, guides + start / size * dim);
    std::fill_n(part, dim, T(0));
    for (Index j = start; j < std::min(start + size, keys); ++j)
      add_row(part, call.source.key(sequence, kv_head, j), dim);
    add_row(all, static_cast<const T*>(part), dim);
  }
  if (shared.guides_per_head == 1) store_mean(all, keys, dim, guides);
}

/// Runs a checked call with a threshold above 0 on a backend that launches kernels.
template <class B, class C>
AttendStats run_early_stop(const B& backend, const C& call, const EarlyStop& rule) {
  const Problem& p = call.problem;
  const auto kept = leased<AttendMemory>(backend);
  const StopPlan plan =
      make_stop_plan(p, rule, [&call](Index i) { return call.sequence(i); }, kept->items);
  const auto items = static_cast<Index>(kept->items.size());
  const StopShared<C> shared(kept->parts, p, plan, items);
  if (shared.guides_per_head > 0)
    parallel_for(backend.executor, p.sequences * p.kv_heads,
                 [&](Index head, int) { make_guides(call, plan, shared, head); });
  const int workers = worker_count(backend.executor, items);
  const std::size_t buffers = 3 * static_cast<std::size_t>(workers);
  if (kept->workers.size() < buffers) kept->workers.resize(buffers);
  parallel_for(backend.executor, items, [&](Index i, int worker) {
    AlignedBuffer<std::byte>* memory = &kept->workers[3 * static_cast<std::size_t>(worker)];
    const Scratch<C> scratch(memory[0], plan.rows(), p.key_dim, p.value_dim);
    const StopScratch<C> own(memory[1], plan, p.key_dim);
    StopRunner<B, C> runner(backend, call, plan, shared, kept->items[static_cast<std::size_t>(i)],
                            scratch, own, memory[2]);
    runner.run();
    shared.computed[i] = runner.computed();
    shared.seconds[i] = runner.seconds();
  });
  AttendStats stats{.density = 0};
  for (Index i = 0; i < items; ++i) {
    stats.density += shared.computed[i];
    stats.select_seconds += shared.seconds[i] / workers;
  }
  stats.density /= visible_pairs(call);
  return stats;
}

PARE_ABI_END
}  // namespace pare::attention::detail
