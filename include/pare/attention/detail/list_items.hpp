// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// How a call over key lists is cut into items, and what a row sees of its list.

#include <pare/attention/detail/call.hpp>
#include <pare/attention/detail/reference_key_lists.hpp>
#include <pare/attention/key_lists.hpp>
#include <pare/core/scratch.hpp>
#include <pare/kernel/listed_window.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <vector>

namespace pare::attention::detail {
PARE_ABI_BEGIN

/// The part of a row's list that its sequence has and its place lets it see: entries [0, count),
/// without those of [hide_begin, hide_end).
struct SeenList {
  std::span<const std::int32_t> keys{};
  Index hide_begin = 0;
  Index hide_end = 0;

  Index seen() const { return static_cast<Index>(keys.size()) - (hide_end - hide_begin); }
};

inline SeenList seen_list(const Problem& p, const Sequence& s, std::span<const std::int32_t> keys,
                          Index query) {
  const Visible v = visible(p, s, query);
  const auto before = [&keys](Index position) {
    return std::lower_bound(keys.begin(), keys.end(), position) - keys.begin();
  };
  if (!keys.empty() && keys.back() > v.last)
    keys = keys.first(static_cast<std::size_t>(before(v.last + 1)));
  SeenList list{keys};
  if (keys.empty() || keys.front() >= v.first) return list;
  list.hide_begin = before(p.sinks);
  list.hide_end = std::max(list.hide_begin, before(v.first));
  return list;
}

/// Queries of the heads of one key/value head, of one sequence: what a worker does from start to
/// end.
struct ListItem {
  Index sequence = 0;
  Index kv_head = 0;
  Index query_begin = 0;
  Index query_end = 0;
  Index rows = 0;
  Index scores = 0;     ///< room for those of all rows
  Index key_begin = 0;  ///< of all lists
  Index key_end = 0;
  Index listed = 0;  ///< keys, over all rows
  double pairs = 0;  ///< of them seen
};

/// Rows of an item, and the scores that they keep, 1 MiB of floats: with 8192 keys of 64 floats and
/// lists of 1024, 128 rows take 28 ms and 256 take 26; copying a head costs as much as 8192 pairs.
/// The query that reaches either limit is the last of its item, whose scores may then be more.
inline constexpr Index list_rows = 256, list_scores = 262144;

/// Cuts a call into items, by lists alone; returns the pairs that are seen.
template <class C>
double make_list_items(const C& call, const KeyLists& lists, std::vector<ListItem>& items) {
  const Problem& p = call.problem;
  items.clear();
  double pairs = 0;
  for (Index i = 0; i < p.sequences; ++i)
    for (Index kv = 0; kv < p.kv_heads; ++kv) {
      const Sequence s = call.sequence(i);
      ListItem item{i, kv};
      const auto finish = [&](Index next) {
        if (item.listed == 0) item.key_begin = 0;
        if (item.rows > 0) items.push_back(item);
        item = {i, kv, next, next};
      };
      for (Index query = 0; query < s.queries; ++query) {
        ListItem more = item;
        more.query_end = query + 1;
        if (more.rows == 0) more.key_begin = std::numeric_limits<Index>::max();
        for (Index h = kv * p.group(); h < (kv + 1) * p.group(); ++h) {
          const SeenList list = seen_list(p, s, listed_keys(lists, p, i, h, query), query);
          const auto count = static_cast<Index>(list.keys.size());
          ++more.rows;
          more.listed += count;
          more.scores += whole_lines(count + kernel::listed_group);
          pairs += static_cast<double>(list.seen());
          if (count == 0) continue;
          more.key_begin = std::min<Index>(more.key_begin, list.keys.front());
          more.key_end = std::max<Index>(more.key_end, list.keys.back() + 1);
        }
        item = more;
        if (item.rows + p.group() > list_rows || item.scores >= list_scores) finish(query + 1);
      }
      finish(s.queries);
    }
  return pairs;
}

PARE_ABI_END
}  // namespace pare::attention::detail
