// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// What a call of `attend` keeps in a workspace: its items, and the memory of its workers.

#include <pare/core/aligned_buffer.hpp>
#include <pare/core/check.hpp>

#include <cstddef>
#include <vector>

namespace pare::attention::detail {
PARE_ABI_BEGIN

/// Work that one worker does from start to end: some heads of one key/value head, some queries,
/// some key slots.
struct AttendItem {
  Index sequence = 0;
  Index head_begin = 0;
  Index head_end = 0;
  Index query_begin = 0;
  Index query_end = 0;
  Index slot_begin = 0;
  Index slot_end = 0;
  Index part = -1;  ///< where the state goes, in rows of the parts; -1: finished at once
  double cost = 0;

  Index heads() const { return head_end - head_begin; }
  Index queries() const { return query_end - query_begin; }
  Index rows() const { return heads() * queries(); }
};

/// Some rows of consecutive parts, to be merged.
struct MergeItem {
  AttendItem rows{};
  Index parts = 0;
  Index part_rows = 0;  ///< rows of a part
};

/// For each worker the packed tile, the queries and the state of a few hundred rows, about 1 MiB at
/// a head size of 128; for calls with few queries and many keys also one state for every part of
/// the keys.
struct AttendMemory {
  std::vector<AlignedBuffer<std::byte>> workers;
  AlignedBuffer<std::byte> parts;
  std::vector<AttendItem> items;
  std::vector<MergeItem> merges;
};

PARE_ABI_END
}  // namespace pare::attention::detail
