// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Bare reads of rows that lie anywhere in a table: the limit of whatever gathers them.

#include <pare/core/tensor_view.hpp>

#include <algorithm>
#include <cstdint>
#include <cstring>

namespace pare::bench {

/// Loads each line of the rows once and computes nothing but a sum of words; 32 lines are under
/// way, or four rows.
template <class S>
std::uint64_t read_rows(const S* table, Index dim, const Index* ids, Index count) {
  constexpr auto line = static_cast<Index>(64 / sizeof(S));
  const Index ahead = std::max<Index>(4, 32 / ((dim + line - 1) / line));
  std::uint64_t sum = 0;
  for (Index j = 0; j < count; ++j) {
    const S* const row = table + ids[j] * dim;
    if (j + ahead < count)
      for (Index c = 0; c < dim; c += line) __builtin_prefetch(table + ids[j + ahead] * dim + c);
    for (Index c = 0; c < dim; c += line) {
      std::uint64_t word = 0;
      std::memcpy(&word, row + c, sizeof(word));
      sum += word;
    }
  }
  return sum;
}

}  // namespace pare::bench
