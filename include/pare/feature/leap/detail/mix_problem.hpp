// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// What a pass of the permuted mix reads, writes and works in.

#include <pare/core/aligned_buffer.hpp>
#include <pare/feature/fields/donors.hpp>
#include <pare/feature/fields/field_batch.hpp>
#include <pare/feature/leap/detail/mix_plan.hpp>

#include <cstdint>
#include <span>
#include <vector>

namespace pare::feature::detail {

PARE_ABI_BEGIN

/// What one worker writes while it runs an item.
template <class T>
struct MixScratch {
  AlignedBuffer<T> x_rows, donor_rows, grad_rows, source_rows, out_rows;  ///< [run of rows]
  AlignedBuffer<T> x_tile, grad_tile, out_tile;                           ///< [columns x rows]
  AlignedBuffer<T> column;                                                ///< [rows]
  AlignedBuffer<std::uint32_t> donors, sources;                           ///< [rows]
  AlignedBuffer<double> distances;                                        ///< [rows]
};

/// Memory of mix_forward and mix_backward.
template <class T>
struct MixMemory {
  MixPlan plan;
  std::vector<PieceSums> pieces;
  std::vector<MixScratch<T>> scratch;
};

/// Everything a pass reads and writes.
template <class T>
struct MixProblem {
  FieldBatch<const T> x;
  FieldBatch<const T> grad_mixed;  ///< no data: forward
  FieldBatch<T> out;               ///< mixed, or the gradient by x; no data: not wanted
  std::span<const double> gates;   ///< [fields]
  const Donors* donors = nullptr;
  bool live = false;   ///< backward: donors pass gradients on
  bool norms = false;  ///< backward: the lengths of the displacements too
};

/// Whether the gradient by x takes the place of the one by the mix.
template <class T>
bool is_in_place(const MixProblem<T>& p) {
  return p.out.data != nullptr && p.out.data == p.grad_mixed.data &&
         p.out.storage == p.grad_mixed.storage && p.out.stride == p.grad_mixed.stride;
}

/// One field, or one column of one, with rows of `width` contiguous scalars.
template <class T>
struct MixLines {
  const T* x = nullptr;
  Index x_stride = 0;
  const T* grad_mixed = nullptr;
  Index grad_stride = 0;
  T* out = nullptr;
  Index out_stride = 0;
  Index width = 1;
  T gate = 1, rest = 0;
  bool in_tile = false;  ///< out is in a tile, which is read again
};

PARE_ABI_END
}  // namespace pare::feature::detail
