// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// C = A B for matrices of any size.
///
/// ```cpp
/// multiply(pare::simd, a, b, c);                                   // c = a b
/// multiply(pare::reference, a, b, c);                              // the definition
/// multiply(pare::simd.with(workspace), a, b, c);                   // memory kept for the next
/// multiply(pare::simd, a, b, c, {}, AddBias<float>{bias.data()});  // epilogue.hpp
/// ```
///
/// The depth, the dimension that is summed over, is cut into blocks. Their products are added in
/// ascending order, and one worker at a time sums an element of C: the bits are the same for every
/// executor. Files that compile kernels for runtime dispatch need kernel/product_tile.hpp only.

#include <pare/core/macros_off.hpp>

#include <pare/core/aligned_buffer.hpp>
#include <pare/core/backend.hpp>
#include <pare/core/ceil_div.hpp>
#include <pare/core/check.hpp>
#include <pare/core/executor_ref.hpp>
#include <pare/core/scratch.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/kernel/product_tile.hpp>
#include <pare/linalg/detail/packed_factor.hpp>
#include <pare/linalg/epilogue.hpp>
#include <pare/linalg/product_options.hpp>
#include <pare/linalg/reference.hpp>

#include <algorithm>
#include <cstddef>
#include <type_traits>

namespace pare::linalg {
PARE_ABI_BEGIN

/// Elements of the depth in a block: as many as keep six rows of A in L1 and a panel of B in L2.
inline constexpr Index product_depth = 512;
/// Columns of B that are packed at a time, for all workers together: they fit the last-level cache.
inline constexpr Index product_columns = 2048;
/// The most rows of C that a worker takes at once: A's block stays in L2 beside a panel of B.
inline constexpr Index product_rows = 192;
/// Up to this many bytes a block of the depth of all rows of A stays in L2. A worker then packs a
/// panel of B when it multiplies by it, so that panels are not carried from one core to another.
inline constexpr Index product_left_bytes = Index{5} << 18;

/// Rows of an item, which a worker takes at once: at most product_rows, and so many that the items
/// are alike and every worker has as many of them, `each` or more. No element depends on it.
inline Index rows_of_item(Index rows, Index workers, Index each = 2) {
  const Index least = std::max(ceil_div(rows, product_rows), workers > 1 ? each * workers : 1);
  const Index items = ceil_div(least, workers) * workers;
  const Index groups = ceil_div(ceil_div(rows, items), Index{kernel::tile_rows});
  return std::min<Index>(std::max<Index>(groups, 4) * kernel::tile_rows, product_rows);
}

/// Up to this many columns of C, rows of A that can be are multiplied by as they lie: they are read
/// once or twice, and a copy would be written and read again. Of more, rows a power of two apart
/// would drive each other out of L2.
inline constexpr Index unpacked_columns = 128;

/// Elements of the depth in a block of a product where blocks have `most`: a rest of up to a
/// quarter of a block is no block of its own, for which C would be read and written again.
constexpr Index depth_of_block(Index depth, Index most) {
  return depth <= most + most / 4 ? depth : most;
}

/// Whether pairs of bf16 may be multiplied as they are.
template <class SA, class SB, class T>
inline constexpr bool has_pairs =
    std::is_same_v<SA, bf16> && std::is_same_v<SB, bf16> && std::is_same_v<T, float>;

/// Fills a matrix with zeros: what a product without depth is.
template <class T>
void fill_zeros(TensorView<T, 2> c) {
  for (Index i = 0; i < c.rows(); ++i)
    for (Index j = 0; j < c.cols(); ++j) c(i, j) = T(0);
}

PARE_ABI_END
namespace detail {
PARE_ABI_BEGIN

struct ProductMemory {
  AlignedBuffer<std::byte> panels;  ///< of B
  AlignedBuffer<std::byte> left;    ///< a block of A for each worker
};

/// One product [rows x depth] [depth x columns] with row-major C.
template <bool pairs, class B, class T, class E>
class Product {
  // Two storage scalars an element where products are of pairs; a block's worth of both elsewhere.
  static constexpr Index most_depth = pairs ? 2 * product_depth : product_depth;

 public:
  using Factor = PackedFactor<B, T>;

  Product(const B& backend, const Factor& a, const Factor& b, Index depth_of_both,
          TensorView<T, 2> c, const ProductOptions<T>& options, const E& epilogue)
      : backend_(backend),
        a_(a),
        b_(b),
        depth_(depth_of_both),
        depth_block_(depth_of_block(depth_of_both, most_depth)),
        c_(c),
        options_(options),
        epilogue_(epilogue),
        memory_(leased<ProductMemory>(backend)) {
    const Index workers = worker_count(backend.executor, c.rows());
    // Of a lower half the longest rows take twice as long as the mean.
    item_rows_ = rows_of_item(c.rows(), workers, options.half == Half::Lower ? 4 : 2);
    unpacked_left_ = a_.is_packed && options.row_scale == nullptr && c.cols() <= unpacked_columns;
    const Index depth = std::min(depth_block_, depth_);
    panel_size_ = depth * kernel_width;
    share_panels(worker_count(backend.executor, c.cols()));
    const Index panels =
        by_panels() ? panel_workers_ : ceil_div(std::min(product_columns, c.cols()), kernel_width);
    panels_ = make_room<T>(memory_->panels, panels * panel_size_);
    left_size_ = whole_lines(item_rows_ * depth);
    if (!unpacked_left_)
      left_ = make_room<T>(memory_->left, (by_panels() ? items() : workers) * left_size_);
  }

  void run() {
    if (by_panels())
      for (Index depth = 0; depth < depth_; depth += depth_block_) {
        const Block block{0, c_.cols(), depth, std::min(depth_block_, depth_ - depth)};
        pack_left(block);
        multiply_panels(block);
      }
    else
      run_by_rows();
  }

 private:
  struct Block {
    Index column, columns, depth_begin, depth;
  };

  void run_by_rows() {
    for (Index column = 0; column < c_.cols(); column += product_columns)
      for (Index depth = 0; depth < depth_; depth += depth_block_) {
        const Block block{column, std::min(product_columns, c_.cols() - column), depth,
                          std::min(depth_block_, depth_ - depth)};
        pack_panels(block);
        multiply_rows(block);
      }
  }

  // The widest panel of any arch: the driver does not know which one a dispatched backend runs.
  static constexpr Index kernel_width = 256 / static_cast<Index>(sizeof(T));

  bool by_panels() const { return panel_workers_ > 0; }
  Index items() const { return ceil_div(c_.rows(), item_rows_); }

  /// Every worker takes as many panels, and a part of the rows of each that is left over; not where
  /// panels would be packed half as often again for that, or A is large.
  void share_panels(Index workers) {
    const Index panels = ceil_div(c_.cols(), kernel_width), over = panels % workers;
    constexpr Index most = product_left_bytes / static_cast<Index>(sizeof(T));
    if (options_.half != Half::Both || c_.rows() > most / std::min(depth_block_, depth_)) return;
    if (panels < workers || 2 * over * (workers - 1) > panels) return;
    panel_workers_ = workers;
  }

  /// All rows of A, an item behind the other.
  void pack_left(const Block& block) {
    if (unpacked_left_) return;
    parallel_for(backend_.executor, items(), [&](Index item, int) {
      const Index row = item * item_rows_;
      a_.pack(backend_, a_,
              {row, std::min(item_rows_, c_.rows() - row), block.depth_begin, block.depth},
              options_, left_ + item * left_size_);
    });
  }

  void multiply_panels(const Block& block) {
    const Index panels = ceil_div(c_.cols(), kernel_width), each = panels / panel_workers_;
    const Index over = panels % panel_workers_, turns = each + over;
    parallel_for(backend_.executor, panel_workers_ * turns, [&](Index i, int worker) {
      const Index share = i / turns, turn = i % turns;
      T* const packed = panels_ + worker * panel_size_;
      if (turn < each)
        multiply_panel(block, share * each + turn, packed, 0, 1);
      else
        multiply_panel(block, panel_workers_ * each + turn - each, packed, share, panel_workers_);
    });
  }

  /// A panel of C: of its items of rows the first-th of every `step`.
  void multiply_panel(const Block& block, Index panel, T* packed, Index first, Index step) {
    const Index column = panel * kernel_width, width = std::min(kernel_width, c_.cols() - column);
    b_.pack(backend_, b_, {column, width, block.depth_begin, block.depth}, options_, packed);
    for (Index item = first; item < items(); item += step) {
      const Index row = item * item_rows_, rows = std::min(item_rows_, c_.rows() - row);
      multiply(block, left_ + item * left_size_, packed, {row, rows, column, width}, 0);
    }
  }

  /// A part of C, of which the first `above` rows are left out.
  struct Part {
    Index row, rows, column, width;
  };
  void multiply(const Block& block, const T* left, const T* panel, const Part& c, Index above) {
    if (unpacked_left_) left = a_.template at<T>({c.row, c.rows, block.depth_begin, block.depth});
    launch(backend_, kernel::MultiplyPanels<T, pairs>{left, panel, c.rows, c.width, block.depth,
                                                      &c_(c.row, c.column), c_.stride[0],
                                                      options_.accumulate || block.depth_begin > 0,
                                                      above, unpacked_left_ ? a_.line_stride : 0});
    if constexpr (!is_empty_epilogue<E>)
      if (block.depth_begin + block.depth == depth_)
        for (Index i = c.row + above; i < c.row + c.rows; ++i)
          finish_line<kernel_width>(epilogue_, i, c.column, c.width, &c_(i, c.column));
  }

  static Index whole_panels(Index columns) {
    return columns > 0 ? (columns + kernel_width - 1) / kernel_width * kernel_width : 0;
  }

  void pack_panels(const Block& block) {
    const Index panels = (block.columns + kernel_width - 1) / kernel_width;
    parallel_for(backend_.executor, panels, [&](Index panel, int) {
      const Index begin = block.column + panel * kernel_width;
      b_.pack(backend_, b_,
              {begin, std::min(kernel_width, block.column + block.columns - begin),
               block.depth_begin, block.depth},
              options_, panels_ + panel * panel_size_);
    });
  }

  void multiply_rows(const Block& block) {
    const Index items = (c_.rows() + item_rows_ - 1) / item_rows_;
    parallel_for(backend_.executor, items, [&](Index item, int worker) {
      // The last rows of a lower half are the longest; they go first.
      const Index row = (items - 1 - item) * item_rows_;
      multiply_item(block, row, std::min(item_rows_, c_.rows() - row), left_ + worker * left_size_);
    });
  }

  void multiply_item(const Block& block, Index row, Index rows, T* left) {
    Index columns = block.columns;
    if (options_.half == Half::Lower)
      columns = std::min(columns, whole_panels(row + rows - block.column));
    if (columns <= 0) return;
    if (!unpacked_left_)
      a_.pack(backend_, a_, {row, rows, block.depth_begin, block.depth}, options_, left);
    for (Index column = 0; column < columns; column += kernel_width) {
      // Tiles wholly above the diagonal are left out.
      const Index above =
          options_.half == Half::Lower ? std::max<Index>(block.column + column - row, 0) : 0;
      multiply(block, left, panels_ + column / kernel_width * panel_size_,
               {row, rows, block.column + column, std::min(kernel_width, columns - column)},
               above / kernel::tile_rows * kernel::tile_rows);
    }
  }

  const B& backend_;
  Factor a_, b_;
  Index depth_, depth_block_;
  TensorView<T, 2> c_;
  const ProductOptions<T>& options_;
  const E& epilogue_;
  Index item_rows_ = 0;
  Index panel_size_ = 0;
  Index left_size_ = 0;
  Index panel_workers_ = 0;     ///< who share panels; 0: rows are shared
  bool unpacked_left_ = false;  ///< whether A is multiplied by as it lies
  const Lease<ProductMemory> memory_;
  T* panels_ = nullptr;
  T* left_ = nullptr;
};

template <bool pairs, class B, class T, class E>
void run_product(const B& backend, const PackedFactor<B, T>& a, const PackedFactor<B, T>& b,
                 Index depth, TensorView<T, 2> c, const ProductOptions<T>& options,
                 const E& epilogue) {
  if (depth > 0) return Product<pairs, B, T, E>(backend, a, b, depth, c, options, epilogue).run();
  for (Index i = 0; i < c.rows(); ++i)
    for (Index j = 0; j < c.cols(); ++j)
      c(i, j) = static_cast<T>(epilogue(i, j, options.accumulate ? c(i, j) : T(0)));
}

/// A product with row-major C, which is not empty.
template <class B, class SA, class SB, class T, class E>
void multiply_rows(const B& backend, TensorView<const SA, 2> a, TensorView<const SB, 2> b,
                   TensorView<T, 2> c, const ProductOptions<T>& options, const E& epilogue) {
  if constexpr (has_pairs<SA, SB, T>)
    if (!options.scales())
      return run_product<true, B, T, E>(backend, left_factor<true, B, SA, T>(a),
                                        right_factor<true, B, SB, T>(b), a.cols(), c, options,
                                        epilogue);
  run_product<false, B, T, E>(backend, left_factor<false, B, SA, T>(a),
                              right_factor<false, B, SB, T>(b), a.cols(), c, options, epilogue);
}

PARE_ABI_END
}  // namespace detail
PARE_ABI_BEGIN

/// C = epilogue(A B), or epilogue(C + A B).
///
/// \param backend  `pare::reference` (plain loops, one thread, sums in double, no memory), or one
///                 that launches kernels
/// \param a        [m x k], any storage scalar; if neither rows nor columns are contiguous, it is
///                 read slowly
/// \param b        [k x n], the same
/// \param c        [m x n], float or double, rows or columns contiguous; does not overlap a or b
/// \param options  see ProductOptions
/// \param epilogue see Epilogue; it runs in this translation unit, also if another one has the
///                 kernels
///
/// The caller has checked shapes. Sums are kept in T. bf16 times bf16 into float uses native
/// products of pairs, which count subnormals as 0, if the arch has them and nothing is scaled.
/// Cost: 2 m n k FLOPs (half of them for a lower half), which bind; a and b are read once for every
/// 2048 columns, c is read and written once for every 512 of the depth (or once for up to 640).
/// Memory, kept in the backend's workspace: in float at most 5 MiB for panels of b and 480 KiB for
/// rows of a per worker; in double, and for pairs of bf16, twice that. Where a block of the depth
/// of all rows of a takes at most 1.25 MiB: that, and 160 KiB per worker.
/// Where c has at most 128 columns and rows of a are contiguous, unscaled and of c's scalar: none
/// for a.
/// \throws std::invalid_argument if neither rows nor columns of c are contiguous.
template <Backend B, StorageScalar SA, StorageScalar SB, ComputeScalar T,
          Epilogue<T> E = NoEpilogue>
void multiply(const B& backend, TensorView<const SA, 2> a, TensorView<const SB, 2> b,
              TensorView<T, 2> c, const ProductOptions<T>& options = {}, const E& epilogue = {}) {
  if (c.rows() == 0 || c.cols() == 0) return;
  const bool by_columns = c.stride[1] != 1 && c.cols() > 1;
  if (by_columns)
    check(c.stride[0] == 1 || c.rows() == 1, "linalg::multiply", "c", c.stride,
          "a stride of 1 along rows or columns");
  if constexpr (!KernelBackend<B>) {
    detail::reference_multiply(a, b, c, options, epilogue);
  } else if (by_columns) {
    const ProductOptions<T> transposed{options.accumulate, Half::Both, options.column_scale,
                                       options.row_scale, options.depth_scale};
    detail::multiply_rows(on_any_executor(backend), transpose(b), transpose(a), transpose(c),
                          transposed, detail::transpose_epilogue(epilogue));
  } else {
    detail::multiply_rows(on_any_executor(backend), a, b, c, options, epilogue);
  }
}

/// c_ij = c_ji for i < j: completes a product whose lower half was computed.
template <KernelBackend B, ComputeScalar T>
void mirror_lower(const B& backend, TensorView<T, 2> c) {
  // Tiles of 8 x 8: where rows lie a power of two apart, more of their lines would not stay in L1.
  constexpr Index block = 64, tile = 8;
  parallel_for(backend.executor, ceil_div(c.rows(), block), [&](Index at, int) {
    const Index begin = at * block, end = std::min(begin + block, c.rows());
    for (Index row = begin; row < end; row += tile)
      for (Index column = 0; column <= row; column += tile)
        for (Index j = column; j < std::min(column + tile, end); ++j)
          for (Index i = std::max(row, j + 1); i < std::min(row + tile, end); ++i)
            c(j, i) = c(i, j);
  });
}

PARE_ABI_END

}  // namespace pare::linalg

#include <pare/core/macros_on.hpp>
