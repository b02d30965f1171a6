// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// How attention that stops early is cut into items, and the arrays of its workers.
///
/// As in plan.hpp the cut depends on the problem alone, never on the number of threads.

#include <pare/attention/detail/attend_memory.hpp>
#include <pare/attention/detail/problem.hpp>
#include <pare/attention/detail/scratch.hpp>
#include <pare/attention/early_stop_options.hpp>
#include <pare/linalg/top_k.hpp>

#include <algorithm>
#include <array>
#include <cstddef>
#include <vector>

namespace pare::attention::detail {
PARE_ABI_BEGIN

/// Neighbouring segments whose mean queries pass over the keys together: one pass costs about as
/// much for 8 rows as for one. Small calls take fewer, to have items for every core.
inline constexpr Index most_segments_at_once = 8;
inline constexpr Index items_wanted = 16;

/// Rows that pass over a packed tile, where heads share their ranking: past this, packing costs
/// little and the rows' states leave the second-level cache.
inline constexpr Index shared_rows = 512;

/// The queries [first, last) of one segment, whose keys begin at position `start`.
struct StopSegment {
  Index index = 0;  ///< within its item
  Index start = 0;
  Index first = 0;
  Index last = 0;

  Index queries() const { return last - first; }
};

/// Rows [first, last) of a worker that stop together.
struct StopTile {
  Index first = 0;
  Index last = 0;
};

struct StopPlan {
  EarlyStop rule{};            ///< sizes at most those of the longest sequence
  Index longest = 0;           ///< keys of the longest sequence
  Index sharing = 1;           ///< query heads with one ranking
  Index heads_at_once = 1;     ///< of those
  Index segments_at_once = 1;  ///< of an item
  Index rows() const { return heads_at_once * rule.segment; }
  Index segments() const { return (longest + rule.segment - 1) / rule.segment; }
};

/// Calls f(StopSegment) for the segments of an item, in ascending order.
template <class F>
void for_each_segment(const Sequence& s, const AttendItem& item, Index size, const F& f) {
  const Index offset = s.keys - s.queries;
  StopSegment segment;
  for (segment.first = item.query_begin; segment.first < item.query_end;) {
    segment.start = (segment.first + offset) / size * size;
    segment.last = std::min(segment.start + size - offset, item.query_end);
    f(segment);
    segment.first = segment.last;
    ++segment.index;
  }
}

/// Appends the items of one head, or of the heads that share a ranking.
inline void add_stop_items(const StopPlan& plan, const Sequence& s, AttendItem item,
                           std::vector<AttendItem>& items) {
  const Index offset = s.keys - s.queries, size = plan.rule.segment;
  for (Index query = 0; query < s.queries;) {
    const Index start = (query + offset) / size * size;
    item.query_begin = query;
    item.query_end = query = std::min(start + plan.segments_at_once * size - offset, s.queries);
    item.cost = static_cast<double>(item.rows()) * static_cast<double>(item.query_end + offset);
    items.push_back(item);
  }
}

/// Fills the items, largest first.
template <class SequenceOf>
StopPlan make_stop_plan(const Problem& p, const EarlyStop& rule, const SequenceOf& sequence_of,
                        std::vector<AttendItem>& items) {
  StopPlan plan{.rule = rule};
  for (Index i = 0; i < p.sequences; ++i)
    plan.longest = std::max(plan.longest, sequence_of(i).keys);
  for (Index* size : {&plan.rule.segment, &plan.rule.row_tile, &plan.rule.key_tile})
    *size = std::min(*size, plan.longest);
  if (rule.share_kv_heads) plan.sharing = p.group();
  plan.heads_at_once = std::clamp<Index>(shared_rows / plan.rule.segment, 1, plan.sharing);
  Index segments = 0;
  for (Index i = 0; i < p.sequences; ++i)
    segments += p.heads / plan.sharing * (sequence_of(i).queries / plan.rule.segment);
  plan.segments_at_once = std::clamp<Index>(segments / items_wanted, 1, most_segments_at_once);
  items.clear();
  for (Index i = 0; i < p.sequences; ++i)
    for (Index h = 0; h < p.heads; h += plan.sharing) {
      AttendItem item;
      item.sequence = i;
      item.head_begin = h;
      item.head_end = h + plan.sharing;
      add_stop_items(plan, sequence_of(i), item, items);
    }
  // In a total order, since std::stable_sort would allocate.
  std::sort(items.begin(), items.end(), [](const AttendItem& a, const AttendItem& b) {
    const auto place = [](const AttendItem& i) {
      return std::array{i.sequence, i.head_begin, i.query_begin};
    };
    return a.cost != b.cost ? a.cost > b.cost : place(a) < place(b);
  });
  return plan;
}

/// What a worker needs beside Scratch: O(longest + segment) entries.
template <class C>
struct StopScratch {
  using S = typename C::Scalar;
  using T = typename C::T;

  T* scores = nullptr;                   ///< [segments_at_once x longest]
  linalg::Ranked<T>* ranked = nullptr;   ///< [longest + 1]
  linalg::Ranked<T>* rest = nullptr;     ///< [longest]
  linalg::Ranked<T>* queries = nullptr;  ///< [segment]
  S* mean_queries = nullptr;             ///< [segments_at_once x key dim]
  T* sum_queries = nullptr;              ///< [key dim]
  T* maximum_before = nullptr;           ///< [rows]
  T* sum_before = nullptr;               ///< [rows]
  StopTile* live = nullptr;              ///< [rows]

  StopScratch(AlignedBuffer<std::byte>& memory, const StopPlan& plan, Index key_dim) {
    carve_from(memory, [&](Carver& take) { carve(take, plan, key_dim); });
  }

 private:
  void carve(Carver& take, const StopPlan& plan, Index key_dim) {
    take(scores, plan.segments_at_once * plan.longest);
    take(ranked, plan.longest + 1);
    take(rest, plan.longest);
    take(queries, plan.rule.segment);
    take(mean_queries, plan.segments_at_once * key_dim);
    take(sum_queries, key_dim);
    take(maximum_before, plan.rows());
    take(sum_before, plan.rows());
    take(live, plan.rows());
  }
};

/// What all workers share: the vectors that queries are ranked by, and what each item did.
template <class C>
struct StopShared {
  using S = typename C::Scalar;
  using T = typename C::T;

  Index guides_per_head = 0;
  S* guides = nullptr;         ///< [sequences x kv heads x guides_per_head x key dim]
  T* key_sums = nullptr;       ///< [sequences x kv heads x 2 x key dim]
  double* computed = nullptr;  ///< [items] (query, key) pairs
  double* seconds = nullptr;   ///< [items] spent on ranking

  StopShared(AlignedBuffer<std::byte>& memory, const Problem& p, const StopPlan& plan,
             Index items) {
    if (plan.rule.permute_queries && plan.rule.guide == EarlyStop::Guide::MeanKey)
      guides_per_head = 1;
    if (plan.rule.permute_queries && plan.rule.guide == EarlyStop::Guide::MeanPrefixKey)
      guides_per_head = plan.segments();
    carve_from(memory, [&](Carver& take) { carve(take, p, items); });
  }

 private:
  void carve(Carver& take, const Problem& p, Index items) {
    const Index heads = p.sequences * p.kv_heads;
    take(guides, heads * guides_per_head * p.key_dim);
    take(key_sums, guides_per_head > 0 ? heads * 2 * p.key_dim : 0);
    take(computed, items);
    take(seconds, items);
  }
};

PARE_ABI_END
}  // namespace pare::attention::detail
