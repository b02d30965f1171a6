// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <pare/kernel/signed_sum.hpp>
#include <pare/projection/detail/sampler.hpp>

#include <cstdint>
#include <utility>
#include <vector>

namespace pare::projection::detail {
PARE_ABI_BEGIN

/// Columns of R handled at once: their panel of 1536 x 128 bytes leaves room in a small L2 for the
/// sums and for what comes next.
inline constexpr Index columns_per_cell = 1536;
static_assert(columns_per_cell <= kernel::negative_entry);
/// Rows of R handled at once: their panel of sums takes 2048 x 128 bytes.
inline constexpr Index rows_per_cell = 2048;

/// The nonzeros of one [rows_per_cell x columns_per_cell] piece of R, in the form that
/// kernel::SignedSum reads: a list of entries for each row, columns ascending, sorted by length.
struct Cell {
  std::vector<std::uint32_t> targets;
  std::vector<std::uint32_t> lengths;
  std::vector<std::uint16_t> entries;
};

/// Buffers in which a Cell is put together.
struct CellScratch {
  std::vector<std::uint32_t> rows;     ///< row of each nonzero
  std::vector<std::uint16_t> entries;  ///< column and sign of each nonzero
  std::vector<std::uint32_t> sizes;    ///< nonzeros of each row, then the place of its next one
  std::vector<std::uint32_t> starts;   ///< place of the next list of each length
};

/// Sets targets and lengths: the rows that are not empty, by length and then by row (a counting
/// sort).
inline void order_lists(CellScratch& s, Cell& cell) {
  s.starts.clear();
  for (const std::uint32_t size : s.sizes) {
    if (size >= s.starts.size()) s.starts.resize(std::size_t{size} + 1, 0);
    ++s.starts[size];
  }
  std::uint32_t lists = 0;
  for (std::size_t length = 1; length < s.starts.size(); ++length)
    lists += std::exchange(s.starts[length], lists);
  cell.targets.resize(lists);
  cell.lengths.resize(lists);
  for (std::uint32_t row = 0; row < s.sizes.size(); ++row) {
    if (s.sizes[row] == 0) continue;
    const std::uint32_t place = s.starts[s.sizes[row]]++;
    cell.targets[place] = row;
    cell.lengths[place] = s.sizes[row];
  }
}

/// Sets entries: each row's in the order of `rows`.
inline void fill_lists(CellScratch& s, Cell& cell) {
  std::uint32_t start = 0;
  for (std::size_t i = 0; i < cell.targets.size(); ++i)
    s.sizes[cell.targets[i]] = std::exchange(start, start + cell.lengths[i]);
  cell.entries.resize(s.entries.size());
  for (std::size_t i = 0; i < s.entries.size(); ++i)
    cell.entries[s.sizes[s.rows[i]]++] = s.entries[i];
}

/// Samples columns [first, last) and rows [first_row, last_row) of R into a Cell.
template <class Sampler, KernelBackend B>
void build_cell(const Sampler& sampler, const B& backend, Index first, Index last, Index first_row,
                Index last_row, CellScratch& scratch, Cell& cell) {
  scratch.rows.clear();
  scratch.entries.clear();
  scratch.sizes.assign(static_cast<std::size_t>(last_row - first_row), 0);
  visit_columns(sampler, backend, first, last, first_row, last_row,
                [&](Index column, Index row, bool negative) {
                  const auto at = static_cast<std::uint32_t>(row - first_row);
                  scratch.rows.push_back(at);
                  scratch.entries.push_back(static_cast<std::uint16_t>(
                      (column - first) | (negative ? kernel::negative_entry : 0)));
                  ++scratch.sizes[at];
                });
  order_lists(scratch, cell);
  fill_lists(scratch, cell);
}

PARE_ABI_END
}  // namespace pare::projection::detail
