// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// The memory of one item of attention over key lists: how wide its windows are, whether rows are
/// gathered from the tensors as they lie, and the arrays of a worker.

#include <pare/attention/detail/call.hpp>
#include <pare/attention/detail/list_groups.hpp>
#include <pare/attention/detail/list_items.hpp>
#include <pare/attention/key_value.hpp>
#include <pare/core/aligned_buffer.hpp>
#include <pare/core/scratch.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/kernel/listed_window.hpp>
#include <pare/kernel/pack.hpp>
#include <pare/kernel/weigh_listed.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <type_traits>

namespace pare::attention::detail {
PARE_ABI_BEGIN

/// A window of keys or values, and how many of its keys a row lists at least, on average, up to a
/// window that is half of L2: then most groups are whole. Lists of 1024 of 8192 keys of 64 floats
/// took 33, 26 and 26 ms with windows of 32, 64 and 128 KiB; what a group reads of one is half of
/// it.
inline constexpr Index list_window_bytes = 65536, most_list_window_bytes = 262144, list_run = 24;

/// Keys of a block, 2 to this: a window has those of a group at least.
inline int list_block_shift(const ListItem& item, Index row_bytes) {
  const Index keys = item.key_end - item.key_begin;
  int shift = 4;
  while ((row_bytes << (shift + 1)) <= list_window_bytes) ++shift;
  while ((row_bytes << (shift + 1)) <= most_list_window_bytes &&
         (item.listed << shift) < list_run * item.rows * keys)
    ++shift;
  return shift - list_window_shift;
}

/// Keys that places of 16 bits tell apart.
inline constexpr Index list_place_keys = 65536;

/// Whether rows lie as a window's do: `stride` scalars of T apart and aligned.
template <class T, class S>
bool lies_as_window(const TensorView<const S, 4>& rows, Index stride) {
  return std::is_same_v<S, T> && rows.extent[3] == stride && rows.stride[2] == stride &&
         reinterpret_cast<std::uintptr_t>(rows.data) % 64 == 0 &&
         (rows.stride[0] * static_cast<Index>(sizeof(S))) % 64 == 0 &&
         (rows.stride[1] * static_cast<Index>(sizeof(S))) % 64 == 0;
}

/// Whether rows gather from the tensors, which need not be copied then.
template <class C>
bool gathers_in_place(const C& call, const ListItem& item) {
  using T = typename C::T;
  using S = typename C::Scalar;
  if constexpr (std::is_same_v<typename C::Keys, DenseKeyValue<S>>)
    return item.key_end <= list_place_keys &&
           lies_as_window<T>(call.source.keys, kernel::padded_columns<T>(call.problem.key_dim)) &&
           lies_as_window<T>(call.source.values, kernel::padded_columns<T>(call.problem.value_dim));
  else
    return false;
}

/// The arrays of one worker.
template <class C>
struct ListScratch {
  using S = typename C::Scalar;
  using T = typename C::T;

  kernel::ListedRow<T>* rows = nullptr;
  T* queries = nullptr;
  T* scores = nullptr;
  T* state = nullptr;
  T* maximum = nullptr;
  T* sum = nullptr;
  T* window = nullptr;
  std::uint16_t* places = nullptr;
  ListGroups groups{};
  const S** block_rows = nullptr;  ///< of two blocks
  const S** query_rows = nullptr;
  S* loaded = nullptr;
  typename C::Output** out_rows = nullptr;
  T** lse_rows = nullptr;

  ListScratch(AlignedBuffer<std::byte>& memory, const Problem& p, const ListItem& item,
              bool in_place) {
    const Index key_columns = kernel::padded_columns<T>(p.key_dim);
    const Index value_columns = kernel::padded_columns<T>(p.value_dim);
    const Index columns = std::max(key_columns, value_columns);
    shift = list_block_shift(item, columns * static_cast<Index>(sizeof(T)));
    groups.shift = shift;
    groups.blocks = ((item.key_end - 1) >> shift) + 1;
    const Index block = Index{1} << shift;
    const Index cuts = most_groups(item.listed, item.rows, groups.blocks);
    carve_from(memory, [&](Carver& take) {
      take(rows, item.rows);
      take(queries, item.rows * key_columns);
      take(scores, item.scores);
      take(state, item.rows * value_columns);
      take(maximum, item.rows);
      take(sum, item.rows);
      take(window, in_place ? 0 : (block << list_window_shift) * columns);
      take(places, item.scores);
      take(groups.cuts, cuts);
      take(groups.row_begin, item.rows + 1);
      take(groups.row_entry, item.rows);
      take(groups.groups, cuts);
      take(groups.begin, groups.blocks + 1);
      take(groups.last, groups.blocks);
      take(block_rows, 2 * block);
      take(query_rows, item.rows);
      take(loaded, std::max(p.key_dim, p.value_dim));
      take(out_rows, item.rows);
      take(lse_rows, item.rows);
    });
  }

  int shift = 0;  ///< of the keys of a block
};

PARE_ABI_END
}  // namespace pare::attention::detail
