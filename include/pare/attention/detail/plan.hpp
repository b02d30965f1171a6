// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// How a call of attention is cut into items of work.
///
/// The cut depends on the problem alone, never on the number of threads, so the bits of the result
/// do not either.

#include <pare/attention/detail/attend_memory.hpp>
#include <pare/attention/detail/problem.hpp>
#include <pare/core/ceil_div.hpp>
#include <pare/kernel/attend_call.hpp>
#include <pare/kernel/gemm.hpp>

#include <algorithm>
#include <array>
#include <cstdint>
#include <vector>

namespace pare::attention::detail {
PARE_ABI_BEGIN

/// Rows (heads times queries) that pass over a packed tile before the next is packed: their queries
/// and outputs, 2 * 576 rows of 512 bytes, stay in the second-level cache beside 128 KiB of tile,
/// and packing is a few percent of the work. A call too small to give many cores such blocks is cut
/// finer, into least_row_blocks of them.
inline constexpr Index block_rows = 576;
inline constexpr Index small_block_rows = 96;
inline constexpr Index least_row_blocks = 32;

/// With few queries an item has fewer rows, as keys are read once for all of them, and the keys are
/// cut instead, into parts that are merged: into a few for some cores, and into more where parts
/// are long enough that it does not matter that the first rows of each are not fetched ahead.
inline constexpr Index split_below_queries = 17;
inline constexpr Index few_queries_rows = 128;
inline constexpr Index split_keys = 2048;
inline constexpr Index least_split_keys = 256, few_items = 4;
inline constexpr Index long_split_keys = 512, enough_items = 16;
inline constexpr Index merged_rows = 16;  ///< of an item of merging

/// The heads for which an item reads a block of a mask are a set of bits.
inline constexpr Index most_heads = 64;

struct PlanSizes {
  Index heads = 1;    ///< heads of an item
  Index queries = 1;  ///< queries of an item
};

/// Query heads that share packed keys: those of one key/value head, unless each has its own order.
inline Index sharing_heads(const Problem& p) {
  const bool own_order =
      p.order != nullptr && p.order->shape().heads == p.heads && p.heads != p.kv_heads;
  return own_order ? 1 : p.group();
}

/// Rows of an item, at most.
inline Index rows_at_once(Index queries, Index total_rows) {
  const Index even = total_rows / least_row_blocks;
  return std::clamp(even, queries < split_below_queries ? few_queries_rows : small_block_rows,
                    block_rows);
}

/// Queries of each of as many items as there are of `most` queries, or of an eighth more: every
/// item packs all keys that it sees, and one of a few rows would do it for nothing.
inline Index even_queries(Index queries, Index most) {
  if (queries <= most) return most;
  const Index items = ceil_div(queries - most / 8, most);
  return ceil_div(queries, items * kernel::tile_rows) * kernel::tile_rows;
}

inline PlanSizes plan_sizes(const Problem& p, Index queries, Index total_rows) {
  const Index rows = rows_at_once(queries, total_rows) / p.maps;
  const Index sharing =
      p.mask == nullptr ? sharing_heads(p) : std::min(sharing_heads(p), most_heads);
  const Index least_queries = std::min<Index>(queries, kernel::tile_rows);
  PlanSizes sizes;
  sizes.heads = std::clamp<Index>(rows / std::max<Index>(least_queries, 1), 1, sharing);
  sizes.queries = std::max<Index>(1, rows / sizes.heads);
  // Alike many in each item of few queries.
  if (queries < split_below_queries)
    sizes.heads = ceil_div(sharing, ceil_div(sharing, sizes.heads));
  if (p.mask == nullptr) sizes.queries = even_queries(queries, sizes.queries);
  if (sizes.queries > kernel::tile_rows) sizes.queries -= sizes.queries % kernel::tile_rows;
  return sizes;
}

/// Scores that an item computes, for the order of work: largest first.
inline double item_cost(const Problem& p, const Sequence& s, const AttendItem& item) {
  const Visible last = visible(p, s, item.query_end - 1), first = visible(p, s, item.query_begin);
  double slots = static_cast<double>(std::max<Index>(0, last.last + 1 - first.first));
  if (p.mask != nullptr) {
    const Index row = item.query_begin / p.mask->shape().row_block;
    double blocks = 0;
    for (Index h = item.head_begin; h < item.head_end; ++h)
      blocks += static_cast<double>(p.mask->row(item.sequence, h, row).size());
    slots = blocks * static_cast<double>(p.mask->shape().column_block) /
            static_cast<double>(item.heads());
  }
  return slots * static_cast<double>(item.rows());
}

/// Slots of a part of a sequence, whole tiles of them; `slots` where they are not cut. Nothing but
/// the sequence itself decides: its bits are the same alone and in a batch.
inline Index part_slots(const Problem& p, Index queries, Index slots) {
  if (queries == 0 || queries >= split_below_queries) return slots;
  const Index sharing = sharing_heads(p);
  const Index items = p.heads / sharing * ceil_div(sharing * queries, few_queries_rows);
  const Index parts = std::max({ceil_div(slots, split_keys),
                                std::min(slots / least_split_keys, ceil_div(few_items, items)),
                                std::min(slots / long_split_keys, ceil_div(enough_items, items))});
  return parts < 2 ? slots : ceil_div(slots, parts * kernel::tile_keys) * kernel::tile_keys;
}

/// Appends the merges of the parts of an item, of some of its heads each.
inline void add_merges(const AttendItem& item, Index parts, AttendMemory& memory) {
  const Index heads = std::max<Index>(1, merged_rows / item.queries());
  MergeItem merge{item, parts, item.rows()};
  for (Index h = item.head_begin; h < item.head_end; h += heads) {
    merge.rows.head_begin = h;
    merge.rows.head_end = std::min(item.head_end, h + heads);
    merge.rows.part = item.part + (h - item.head_begin) * item.queries();
    memory.merges.push_back(merge);
  }
}

/// Appends the items of some heads and queries: one, or one for each part of `cut` slots.
inline Index add_items(const Problem& p, const Sequence& s, AttendItem item, Index slots, Index cut,
                       Index next_part, AttendMemory& memory) {
  item.cost = item_cost(p, s, item);
  if (cut >= slots) {
    item.slot_end = slots;
    memory.items.push_back(item);
    return next_part;
  }
  item.part = next_part;
  add_merges(item, ceil_div(slots, cut), memory);
  for (; item.slot_begin < slots; item.slot_begin = item.slot_end) {
    item.slot_end = std::min(slots, item.slot_begin + cut);
    memory.items.push_back(item);
    item.part += item.rows();
  }
  return item.part;
}

/// Moves an item to the next run of heads below `end` that have scores; false if there is none.
inline bool next_heads(const Problem& p, Index end, AttendItem& item) {
  item.head_begin = item.head_end;
  while (item.head_begin < end && !p.has_scores(item.head_begin)) ++item.head_begin;
  item.head_end = item.head_begin;
  while (item.head_end < end && p.has_scores(item.head_end)) ++item.head_end;
  return item.head_begin < end;
}

/// End of the run of queries from `begin` on that one item takes: blocks of the mask are not
/// straddled, and are cut evenly where they are larger.
inline Index item_end(const Problem& p, Index begin, Index queries, Index at_once) {
  if (p.mask == nullptr) return std::min(queries, begin + at_once);
  const Index block = p.mask->shape().row_block;
  return std::min({queries, begin + at_once, (begin / block + 1) * block});
}

/// Fills items and merges; returns how many rows of partial states they need. `sequence_of(i)`
/// gives the tokens of a sequence, `slots_of(i)` how many key slots it has.
template <class SequenceOf>
Index make_plan(const Problem& p, Index key_slots, Index total_queries,
                const SequenceOf& sequence_of, AttendMemory& memory) {
  memory.items.clear();
  memory.merges.clear();
  Index parts = 0;
  for (Index i = 0; i < p.sequences; ++i) {
    const Sequence s = sequence_of(i);
    const PlanSizes sizes = plan_sizes(p, s.queries, total_queries * p.heads);
    const Index slots = p.order != nullptr || p.mask != nullptr ? key_slots : s.keys;
    const Index sharing = sharing_heads(p);
    const Index cut = part_slots(p, s.queries, slots);
    for (Index shared = 0; shared < p.heads; shared += sharing)
      for (Index h = shared; h < shared + sharing; h += sizes.heads)
        for (Index query = 0; query < s.queries;) {
          AttendItem item;
          item.sequence = i;
          item.query_begin = query;
          item.query_end = query = item_end(p, query, s.queries, sizes.queries);
          for (item.head_end = h; next_heads(p, std::min(shared + sharing, h + sizes.heads), item);)
            parts = add_items(p, s, item, slots, cut, parts, memory);
        }
  }
  // In a total order, since std::stable_sort would allocate.
  std::sort(memory.items.begin(), memory.items.end(), [](const AttendItem& a, const AttendItem& b) {
    const auto place = [](const AttendItem& i) {
      return std::array{i.sequence, i.head_begin, i.query_begin, i.slot_begin};
    };
    return a.cost != b.cost ? a.cost > b.cost : place(a) < place(b);
  });
  return parts;
}

PARE_ABI_END
}  // namespace pare::attention::detail
