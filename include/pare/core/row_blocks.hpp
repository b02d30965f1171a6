// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Kernels of rows over matrices that lie in any way: rows are cut into blocks by the problem
/// alone, and where rows are not contiguous, blocks are copied.
///
/// ```cpp
/// const auto run = [](const auto& on, TensorView<const float, 2> from, TensorView<float, 2> to) {
///   launch(on, kernel::ActivateRows<float, kernel::Silu, false>{...});  // contiguous rows
/// };
/// over_row_blocks(backend, run, x, y);  // x [rows, columns] is read, y is written
/// ```

#include <pare/core/macros_off.hpp>

#include <pare/core/aligned_buffer.hpp>
#include <pare/core/backend.hpp>
#include <pare/core/ceil_div.hpp>
#include <pare/core/executor_ref.hpp>
#include <pare/core/matrix.hpp>
#include <pare/core/parallel.hpp>
#include <pare/core/scratch.hpp>
#include <pare/core/tensor_view.hpp>

#include <algorithm>
#include <array>
#include <cstddef>
#include <tuple>
#include <type_traits>
#include <utility>

namespace pare {
PARE_ABI_BEGIN

/// Rows of a block: about 64 KiB of float, which leaves room for as much of the others in L2.
inline Index rows_of_block(Index columns) { return std::max<Index>(1, (Index{1} << 14) / columns); }

/// Whether the elements of a row lie side by side.
template <class T>
bool has_contiguous_rows(const TensorView<T, 2>& m) {
  return m.stride[1] == 1 || m.cols() == 1;
}

/// A block of an operand, copied to memory with contiguous rows if its own are not, and back if it
/// is written.
template <class T>
class StagedRows {
 public:
  using Element = std::remove_const_t<T>;

  StagedRows(TensorView<T, 2> block, Element* memory) : block_(block), rows_(block) {
    if (has_contiguous_rows(block)) return;
    rows_ = {memory, block.extent, {block.cols(), 1}};
    if constexpr (std::is_const_v<T>)
      copy(block_, TensorView<Element, 2>{memory, rows_.extent, rows_.stride});
  }
  TensorView<T, 2> rows() const { return rows_; }
  void finish() const {
    if constexpr (!std::is_const_v<T>)
      if (rows_.data != block_.data) copy(as_const(rows_), block_);
  }

 private:
  /// Down the columns, which are the lines of a matrix that is stored by columns.
  static void copy(TensorView<const Element, 2> from, TensorView<Element, 2> to) {
    for (Index j = 0; j < from.cols(); ++j)
      for (Index i = 0; i < from.rows(); ++i) to(i, j) = from(i, j);
  }

  TensorView<T, 2> block_, rows_;
};

PARE_ABI_END
namespace detail {
PARE_ABI_BEGIN

/// Runs one block: run(backend, views with contiguous rows...). `memory` has a place for each
/// operand, null where none is needed.
template <class B, class Run, class... T, std::size_t... I>
void run_block(const B& backend, const Run& run, std::array<std::byte*, sizeof...(T)> memory,
               std::index_sequence<I...>, TensorView<T, 2>... block) {
  const std::tuple<StagedRows<T>...> staged{
      StagedRows<T>(block, reinterpret_cast<std::remove_const_t<T>*>(memory[I]))...};
  run(backend, std::get<I>(staged).rows()...);
  (std::get<I>(staged).finish(), ...);
}

PARE_ABI_END
}  // namespace detail
PARE_ABI_BEGIN

/// Calls run(backend, blocks...) for blocks of the rows of all operands, which have one extent, on
/// the backend's executor. Operands of const elements are read, the others written; one that is
/// both is given twice.
///
/// Blocks have contiguous rows: those of an operand itself, or copies in memory of the backend's
/// workspace, once per worker. Nothing is checked.
template <class B, class Run, class... T>
void over_row_blocks(const B& backend, const Run& run, TensorView<T, 2>... m) {
  const std::array<Index, 2> extent = std::get<0>(std::tuple{m...}).extent;
  const Index rows = extent[0], block = rows_of_block(extent[1]);
  const bool direct = (has_contiguous_rows(m) && ...);
  if (direct && rows <= block) return run(backend, m...);
  // An operand's own place in the memory of a worker.
  constexpr std::size_t operands = sizeof...(T);
  std::array<Index, operands + 1> offset{};
  Index at = 0;
  std::size_t i = 0;
  ((offset[i++] = at, at += has_contiguous_rows(m) ? 0
                                                   : whole_lines(std::min(rows, block) * extent[1] *
                                                                 static_cast<Index>(sizeof(T)))),
   ...);
  const Index items = ceil_div(rows, block);
  const auto memory = leased<AlignedBuffer<std::byte>>(backend);
  std::byte* const base =
      at == 0 ? nullptr
              : memory->resize(static_cast<std::size_t>(
                    at * static_cast<Index>(worker_count(backend.executor, items))));
  parallel_for(backend.executor, items, [&](Index item, int worker) {
    std::array<std::byte*, operands> place{};
    for (std::size_t k = 0; k < operands; ++k)
      if (base != nullptr) place[k] = base + worker * at + offset[k];
    const Index begin = item * block, end = std::min(rows, begin + block);
    detail::run_block(backend, run, place, std::index_sequence_for<T...>{},
                      rows_of(m, begin, end - begin)...);
  });
}

PARE_ABI_END
}  // namespace pare

#include <pare/core/macros_on.hpp>
