// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Memory that attention works in.
///
/// ```cpp
/// Workspace workspace;
/// for (int layer = 0; layer < layers; ++layer)
///   attend(q[layer], k[layer], v[layer], out, {.causal = true, .workspace = &workspace});
/// ```
///
/// Exact attention, with or without order and mask, allocates nothing in later calls of the same
/// sizes; an executor that starts threads may. Permuted and ProxyHeads also allocate the order and
/// the blocks that they choose.

#include <pare/core/macros_off.hpp>

#include <pare/core/aligned_buffer.hpp>
#include <pare/core/check.hpp>

#include <cstddef>
#include <vector>

namespace pare::attention {

namespace detail {

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
  Index part =
      -1;  ///< where the state goes, in rows of the workspace's parts; -1: finished at once
  double cost = 0;

  Index heads() const { return head_end - head_begin; }
  Index queries() const { return query_end - query_begin; }
  Index rows() const { return heads() * queries(); }
};

/// Consecutive parts of the same rows, to be merged.
struct MergeItem {
  AttendItem rows{};
  Index parts = 0;
};

}  // namespace detail

/// Scratch of `attend`: for each worker the packed tile, the queries and the state of a few hundred
/// rows, about 1 MiB at a head size of 128; for calls with few queries and many keys also one state
/// for every 2048 keys. Two calls must not use one object at the same time.
struct Workspace {
  std::vector<AlignedBuffer<std::byte>> workers;
  AlignedBuffer<std::byte> parts;
  std::vector<detail::AttendItem> items;
  std::vector<detail::MergeItem> merges;
};

}  // namespace pare::attention

#include <pare/core/macros_on.hpp>
