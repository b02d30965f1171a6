// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Entries of a sparse field that change places with rows at the default.

#include <pare/feature/fields/donors.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

namespace pare::feature::detail {

PARE_ABI_BEGIN

/// Entry entries[k] goes to row rows[k], which was at the default, as the entry's own row is then.
struct PresenceExchange {
  std::vector<std::uint32_t> entries;  ///< in random order
  std::vector<std::uint32_t> rows;     ///< rising
  std::vector<char> taken;             ///< scratch; all 0 between draws
};

/// `count` of [0, size), all subsets being equally likely, rising (Floyd's algorithm).
/// Cost: count, and its logarithm times that.
inline void choose(WordStream& words, std::uint32_t count, std::uint32_t size,
                   std::vector<char>& taken, std::vector<std::uint32_t>& chosen) {
  taken.resize(std::max(taken.size(), static_cast<std::size_t>(size)), 0);
  chosen.clear();
  for (std::uint32_t last = size - count; last < size; ++last) {
    const std::uint32_t drawn = words.below(last + 1);
    chosen.push_back(taken[drawn] != 0 ? last : drawn);
    taken[chosen.back()] = 1;
  }
  for (const std::uint32_t i : chosen) taken[i] = 0;
  std::sort(chosen.begin(), chosen.end());
}

/// Turns ranks among the rows that are not active, rising, into the rows.
inline void rows_of_ranks(std::span<const std::uint32_t> active,
                          std::vector<std::uint32_t>& ranks) {
  std::uint32_t before = 0;  // active rows before the one sought
  for (std::uint32_t& rank : ranks) {
    while (before < active.size() && active[before] <= rank + before) ++before;
    rank += before;
  }
}

/// min(active rows, other rows) entries, and where they go. Cost: active rows.
inline void draw_presence(const Donors& donors, Index j, std::span<const std::uint32_t> active,
                          PresenceExchange& out) {
  WordStream words = donors.words(j, RandomPurpose::Presence);
  const auto entries = static_cast<std::uint32_t>(active.size());
  const std::uint32_t others = static_cast<std::uint32_t>(donors.rows()) - entries;
  const std::uint32_t count = std::min(entries, others);
  choose(words, count, others, out.taken, out.rows);
  rows_of_ranks(active, out.rows);
  choose(words, count, entries, out.taken, out.entries);
  for (std::uint32_t i = count; i > 1; --i)
    std::swap(out.entries[i - 1], out.entries[words.below(i)]);
}

PARE_ABI_END
}  // namespace pare::feature::detail
