// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// A matrix with square blocks on its diagonal and zeros elsewhere.
///
/// ```cpp
/// BlockDiagonal<float> a(4096, 128);                // 32 blocks [128 x 128], identities
/// a.own_block(3)(0, 0) = 2;
/// multiply_blocks(pare::simd, a, x, y);             // y = x A^T for rows x
/// a.to_dense(dense);
/// ```

#include <pare/core/macros_off.hpp>

#include <pare/core/aligned_buffer.hpp>
#include <pare/core/backend.hpp>
#include <pare/core/ceil_div.hpp>
#include <pare/core/check.hpp>
#include <pare/core/executor_ref.hpp>
#include <pare/core/matrix.hpp>
#include <pare/core/parallel.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/linalg/multiply.hpp>
#include <pare/linalg/weight_rows.hpp>

#include <cstddef>
#include <type_traits>
#include <utility>

namespace pare::factor {
PARE_ABI_BEGIN

/// A [size x size] of blocks [block x block], one behind the other in memory. It can be moved, not
/// copied; `copy` says so in words.
template <StorageScalar S>
class BlockDiagonal {
 public:
  using value_type = S;

  /// No blocks.
  BlockDiagonal() = default;
  /// What is moved from has no blocks.
  BlockDiagonal(BlockDiagonal&& other) noexcept { *this = std::move(other); }
  BlockDiagonal& operator=(BlockDiagonal&& other) noexcept {
    size_ = std::exchange(other.size_, 0);
    block_ = std::exchange(other.block_, 0);
    values_ = std::move(other.values_);
    return *this;
  }

  /// Identities.
  /// \throws std::invalid_argument if block is below 1, size no multiple of it from `block` on, or
  ///         their product too large.
  BlockDiagonal(Index size, Index block) : size_(size), block_(block) {
    constexpr const char* function = "factor::BlockDiagonal";
    check(block >= 1, function, "block", block, "at least 1");
    check(size >= block && size % block == 0, function, "size", size,
          Worded{"a multiple of the block of ", block});
    const Index count = checked_product(function, "size", size, block);
    checked_count(function, "size", count, sizeof(S));
    values_.resize(static_cast<std::size_t>(count));
    for (Index i = 0; i < size; ++i)
      for (Index j = 0; j < block; ++j)
        values_.data()[i * block + j] = S(compute_t<S>(i % block == j ? 1 : 0));
  }

  /// A copy of blocks below each other, [size x block], of any storage scalar and strides, rounded
  /// to S: nearest, ties to even.
  /// \throws std::invalid_argument as above, or if the view is not sound.
  template <In<2> Blocks>
  static BlockDiagonal from(const Blocks& blocks) {
    const auto view = as_const(to_view(blocks));
    check_view("factor::BlockDiagonal::from", "blocks", view);
    BlockDiagonal to(view.rows(), view.cols());
    for (Index i = 0; i < view.rows(); ++i)
      for (Index j = 0; j < view.cols(); ++j)
        to.own_values()(i, j) = static_cast<S>(
            static_cast<compute_t<S>>(static_cast<compute_t<scalar_of<Blocks>>>(view(i, j))));
    return to;
  }

  BlockDiagonal copy() const { return size_ == 0 ? BlockDiagonal{} : from(values()); }

  Index size() const { return size_; }
  Index block() const { return block_; }
  Index blocks() const { return block_ == 0 ? 0 : size_ / block_; }
  Index bytes() const { return size_ * block_ * Index{sizeof(S)}; }

  /// [size x block]: the blocks below each other, rows without gaps.
  TensorView<const S, 2> values() const { return {values_.data(), {size_, block_}, {block_, 1}}; }
  TensorView<S, 2> own_values() { return {values_.data(), {size_, block_}, {block_, 1}}; }

  /// Block i, which is in range.
  TensorView<const S, 2> block_at(Index i) const { return rows_of(values(), i * block_, block_); }
  TensorView<S, 2> own_block(Index i) { return rows_of(own_values(), i * block_, block_); }

  /// Writes the matrix with its zeros.
  /// \param out [size, size] of any storage scalar and strides, apart from the blocks
  /// \throws std::invalid_argument if its extents differ or it overlaps them. Nothing is written
  ///         then.
  template <Out<2> Dense>
  void to_dense(Dense&& out) const {
    constexpr const char* function = "factor::BlockDiagonal::to_dense";
    using D = scalar_of<Dense>;
    const auto view = to_view(out);
    check_writable(function, "out", view);
    check_extents<2>(function, "out", view.extent, {size_, size_});
    check_no_overlap(function, "out", view, "the blocks", values());
    for (Index i = 0; i < size_; ++i)
      for (Index j = 0; j < size_; ++j)
        view(i, j) = i / block_ == j / block_
                         ? static_cast<D>(static_cast<compute_t<D>>(
                               static_cast<compute_t<S>>(values()(i, j % block_))))
                         : D(compute_t<D>(0));
  }

 private:
  Index size_ = 0, block_ = 0;
  AlignedBuffer<S> values_;
};

/// y = x A^T for rows x: each part of a row by its block.
///
/// \param backend `pare::reference` (sums in double), or one that launches kernels
/// \param a of float, bf16 or f16
/// \param x [rows, size] of float, contiguous rows
/// \param y [rows, size] of float, contiguous rows, written; apart from x and the blocks
/// \throws std::invalid_argument if extents do not fit, rows are not contiguous or y overlaps what
///         is read. Nothing is written then.
///
/// Cost: 2 rows size block FLOPs. Up to `linalg::few_weight_rows` rows each block is read once for
/// every 16, which binds; more run as products of matrices. Same bits for any number of threads.
template <Backend B, StorageScalar S>
requires(!std::is_same_v<S, double>)
void multiply_blocks(const B& backend, const BlockDiagonal<S>& a, TensorView<const float, 2> x,
                     TensorView<float, 2> y) {
  constexpr const char* function = "factor::multiply_blocks";
  check_view(function, "x", x);
  check_extents<2>(function, "x", x.extent, {x.rows(), a.size()});
  check_contiguous_rows(function, "x", x);
  check_writable(function, "y", y);
  check_extents<2>(function, "y", y.extent, x.extent);
  check_contiguous_rows(function, "y", y);
  check_no_overlap(function, "y", y, "x", x);
  check_no_overlap(function, "y", y, "the blocks", a.values());
  const Index size = a.block();
  if (x.rows() == 0) return;
  if constexpr (!KernelBackend<B>) {
    for (Index r = 0; r < x.rows(); ++r)
      for (Index i = 0; i < a.size(); ++i) {
        double sum = 0;
        for (Index j = 0; j < size; ++j)
          sum += static_cast<double>(static_cast<float>(a.values()(i, j))) *
                 static_cast<double>(x(r, i / size * size + j));
        y(r, i) = static_cast<float>(sum);
      }
  } else if (x.rows() > linalg::few_weight_rows) {
    for (Index i = 0; i < a.blocks(); ++i)
      linalg::multiply(backend, columns_of(x, i * size, size), transpose(a.block_at(i)),
                       columns_of(y, i * size, size));
  } else {
    const auto any = on_any_executor(backend);
    parallel_for(any.executor, a.blocks(), [&](Index i, int) {
      linalg::multiply_weight_rows(any, a.block_at(i), columns_of(x, i * size, size),
                                   columns_of(y, i * size, size));
    });
  }
}

PARE_ABI_END
}  // namespace pare::factor

#include <pare/core/macros_on.hpp>
