// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// The lower half of C += X^T X, summed in double from products in float.
///
/// ```cpp
/// ChunkedGram<decltype(pare::simd), float>(pare::simd, x, c).run();  // x [tokens x n], c [n x n]
/// mirror_lower(pare::simd, c);                                       // the upper half too
/// ```
///
/// If the float products of every 512 tokens were added to all of C in turn, C would be read and
/// written as often, which takes a third of the products' time. So each tile of C takes four such
/// chunks of tokens while it is in L2; the packed tokens wait in the last-level cache.

#include <pare/core/macros_off.hpp>

#include <pare/core/aligned_buffer.hpp>
#include <pare/core/backend.hpp>
#include <pare/core/matrix.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/kernel/add_widened.hpp>
#include <pare/kernel/product_tile.hpp>
#include <pare/linalg/multiply.hpp>
#include <pare/linalg/packed_matrix.hpp>

#include <algorithm>
#include <cstddef>

namespace pare::linalg {
namespace detail {
PARE_ABI_BEGIN

struct GramMemory {
  AlignedBuffer<float> panels;  ///< [panels x chunks x panel]
  AlignedBuffer<float> left;    ///< the rows of each worker
  AlignedBuffer<float> tiles;   ///< the tile of C of each worker
};

PARE_ABI_END
}  // namespace detail

PARE_ABI_BEGIN

/// One call: adds x^T x to c [n x n], which is row-major. x is [tokens x n], of any storage scalar
/// but double, with rows or columns contiguous. Elements of c above the diagonal hold no defined
/// value afterwards. The caller has checked shapes.
///
/// Products of `chunk` tokens are summed in float, chunks in double. The tokens are cut from the
/// first on, so that sums do not depend on the executor. Cost: tokens n^2 FLOPs, which bind.
/// Memory, kept in the backend's workspace: four chunks of at most 2048 columns, and of the rows
/// and the tile of C of each worker.
template <class B, class S>
class ChunkedGram {
  static constexpr bool pairs = has_pairs<S, S, float>;

 public:
  /// Tokens whose products are summed in float.
  static constexpr Index chunk = pairs ? 512 : 256;

  ChunkedGram(const B& backend, TensorView<const S, 2> x, TensorView<double, 2> c)
      : backend_(backend),
        x_(x),
        c_(c),
        workers_(worker_count(backend.executor, x.cols())),
        memory_(leased<detail::GramMemory>(backend)) {
    item_rows_ = rows_of_item(x.cols(), workers_, 4);
    left_size_ = item_rows_ * chunk;
    const Index panels = panels_of(std::min(columns_at_once, x.cols()));
    memory_->panels.resize(to_size(panels * chunks * panel_size));
    memory_->left.resize(to_size(workers_ * chunks * left_size_));
    memory_->tiles.resize(to_size(workers_ * item_rows_ * panel_columns));
  }

  void run() {
    for (Index token = 0; token < x_.rows(); token += chunks * chunk)
      for (Index column = 0; column < x_.cols(); column += columns_at_once) {
        const Block block{token, std::min(chunks * chunk, x_.rows() - token), column,
                          std::min(columns_at_once, x_.cols() - column)};
        pack(block);
        multiply(block);
      }
  }

 private:
  /// Chunks that a tile of C takes at a time.
  static constexpr Index chunks = 4;
  static constexpr Index columns_at_once = 2048;
  /// The widest panel of any arch.
  static constexpr Index panel_columns = 64;
  static constexpr Index panel_size = panel_columns * chunk;

  struct Block {
    Index token, tokens, column, columns;
  };

  static std::size_t to_size(Index size) { return static_cast<std::size_t>(size); }
  static Index panels_of(Index columns) { return (columns + panel_columns - 1) / panel_columns; }

  /// f(chunk's number, its first token, its tokens) for each of a block.
  template <class F>
  static void each_chunk(const Block& block, const F& f) {
    for (Index i = 0; i * chunk < block.tokens; ++i)
      f(i, block.token + i * chunk, std::min(chunk, block.tokens - i * chunk));
  }

  float* panel(Index at, Index of_chunk) const {
    return memory_->panels.data() + (at * chunks + of_chunk) * panel_size;
  }

  void pack(const Block& block) {
    parallel_for(backend_.executor, panels_of(block.columns), [&](Index at, int) {
      const Index column = at * panel_columns;
      const Index columns = std::min(panel_columns, block.columns - column);
      each_chunk(block, [&](Index i, Index token, Index tokens) {
        launch(backend_,
               kernel::PackRightLines<S, float, pairs>{
                   {&x_(token, block.column + column), x_.stride[1], x_.stride[0], columns, tokens},
                   panel(at, i)});
      });
    });
  }

  void multiply(const Block& block) {
    const Index items = (x_.cols() - block.column + item_rows_ - 1) / item_rows_;
    parallel_for(backend_.executor, items, [&](Index item, int worker) {
      // The last rows are the longest; they go first.
      const Index row = block.column + (items - 1 - item) * item_rows_;
      multiply_rows(block, row, std::min(item_rows_, x_.cols() - row), worker);
    });
  }

  void multiply_rows(const Block& block, Index row, Index rows, Index worker) {
    float* left = memory_->left.data() + worker * chunks * left_size_;
    float* tile = memory_->tiles.data() + worker * item_rows_ * panel_columns;
    each_chunk(block, [&](Index i, Index token, Index tokens) {
      launch(backend_, kernel::PackLeftLines<S, float, pairs>{
                           {&x_(token, row), x_.stride[1], x_.stride[0], rows, tokens},
                           left + i * left_size_});
    });
    const Index end = std::min(block.columns, row + rows - block.column);
    for (Index column = 0; column < end; column += panel_columns) {
      const Index columns = std::min(panel_columns, block.columns - column);
      each_chunk(block, [&](Index i, Index, Index tokens) {
        launch(backend_, kernel::MultiplyPanels<float, pairs>{
                             left + i * left_size_, panel(column / panel_columns, i), rows, columns,
                             tokens, tile, panel_columns, false});
        launch(backend_, kernel::AddWidened<float>{tile, panel_columns, rows, columns,
                                                   &c_(row, block.column + column), c_.stride[0]});
      });
    }
  }

  const B& backend_;
  TensorView<const S, 2> x_;
  TensorView<double, 2> c_;
  Index workers_;
  const Lease<detail::GramMemory> memory_;
  Index item_rows_ = 0;
  Index left_size_ = 0;
};

PARE_ABI_END
}  // namespace pare::linalg

#include <pare/core/macros_on.hpp>
