// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Y = (X right^T) left^T on kernels, the product in the middle kept in cache.

#include <pare/core/aligned_buffer.hpp>
#include <pare/core/backend.hpp>
#include <pare/core/matrix.hpp>
#include <pare/core/parallel.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/core/workspace.hpp>
#include <pare/factor/detail/reference_matrix.hpp>
#include <pare/linalg/multiply.hpp>
#include <pare/linalg/packed_matrix.hpp>
#include <pare/linalg/weight_rows.hpp>

#include <algorithm>
#include <cstddef>
#include <type_traits>

namespace pare::factor {

/// Y holds what products of X with factors of U are summed in.
template <class X, class U, class Y>
concept ProductOf = std::is_same_v<scalar_of<Y>, linalg::product_t<scalar_of<X>, U>>;

namespace detail {
PARE_ABI_BEGIN

/// Both factors once, and for each worker a block of at most 192 rows of the rank; for few rows, or
/// columns of y contiguous, (rank + out) tokens scalars instead. Where factors are read in place:
/// (rank, in, out) tokens scalars.
struct LowRankMemory {
  AlignedBuffer<std::byte> right;
  AlignedBuffer<std::byte> left;
  AlignedBuffer<std::byte> workers;
};

/// Fewer tokens than these leave workers without a block, and are two panels at most: the rows of
/// the factors are shared out then, and read where they lie (linalg::unpacked_columns).
inline constexpr Index few_tokens = linalg::unpacked_columns + 1;

/// One call, its arguments checked; no extent is 0.
template <class B, class S, class U>
class LowRankProduct {
  using T = linalg::product_t<S, U>;
  static constexpr bool pairs = linalg::has_pairs<S, U, T>;

 public:
  LowRankProduct(const B& backend, TensorView<const U, 2> left, TensorView<const U, 2> right,
                 TensorView<const S, 2> x, TensorView<T, 2> y)
      : backend_(backend),
        left_(left),
        right_(right),
        x_(x),
        y_(y),
        memory_(leased<LowRankMemory>(backend)) {}

  /// finish(begin, rows) for blocks of rows of y, each once it is written, by many workers.
  template <class Finish>
  void run(const Finish& finish) {
    if (y_.stride[1] != 1)
      multiply_transposed(transpose(y_), finish);
    else if (x_.rows() < few_tokens)
      multiply_few(finish);
    else
      multiply_blocks(finish);
  }

 private:
  Index rank() const { return right_.rows(); }

  template <class Finish>
  void multiply_blocks(const Finish& finish) {
    const linalg::PackedMatrix<pairs, T> first(backend_, transpose(right_), memory_->right);
    const linalg::PackedMatrix<false, T> second(backend_, transpose(left_), memory_->left);
    const Index workers = worker_count(backend_.executor, x_.rows());
    const Index block = linalg::rows_of_item(x_.rows(), workers),
                middle_size = whole_lines(block * rank());
    const Index size =
        middle_size + std::max(first.left_size(block, x_.cols()), second.left_size(block, rank()));
    T* memory = make_room<T>(memory_->workers, workers * size);
    each_range(block, [&](Index begin, Index rows, int worker) {
      T *own = memory + worker * size, *packed = own + middle_size;
      const TensorView<T, 2> middle{own, {rows, rank()}, {rank(), 1}};
      first.multiply(backend_, rows_of(x_, begin, rows), middle, packed);
      second.multiply(backend_, as_const(middle), rows_of(y_, begin, rows), packed);
      finish(begin, rows);
    });
  }

  /// y^T = left (right x^T), [out x tokens] by rows.
  template <class Finish>
  void multiply_transposed(TensorView<T, 2> y, const Finish& finish) {
    const Index tokens = x_.rows();
    const TensorView<T, 2> middle{
        make_room<T>(memory_->right, rank() * tokens), {rank(), tokens}, {tokens, 1}};
    linalg::multiply(backend_, right_, transpose(x_), middle);
    linalg::multiply(backend_, left_, as_const(middle), y);
    each_range(linalg::product_rows, [&](Index begin, Index rows, int) { finish(begin, rows); });
  }

  template <class Finish>
  void multiply_few(const Finish& finish) {
    const Index tokens = x_.rows(), out = left_.rows();
    const TensorView<T, 2> y{make_room<T>(memory_->left, out * tokens), {out, tokens}, {tokens, 1}};
    multiply_transposed(y, [](Index, Index) {});
    // Lines along y's rows: packing them transposes.
    each_range(16, [&](Index begin, Index rows, int) {
      if (y_.stride[0] == out) {
        launch(backend_,
               kernel::PackLeftLines<T, T, false>{
                   {&y(0, begin), 1, tokens, rows, out, nullptr, nullptr}, &y_(begin, 0)});
      } else {
        for (Index token = begin; token < begin + rows; ++token)
          for (Index i = 0; i < out; ++i) y_(token, i) = y(i, token);
      }
      finish(begin, rows);
    });
  }

  /// body(begin, rows, worker) for ranges of at most `length` rows of y.
  template <class Body>
  void each_range(Index length, const Body& body) const {
    const Index tokens = x_.rows();
    parallel_for(backend_.executor, (tokens + length - 1) / length, [&](Index item, int worker) {
      body(item * length, std::min(length, tokens - item * length), worker);
    });
  }

  const B& backend_;
  TensorView<const U, 2> left_, right_;
  TensorView<const S, 2> x_;
  TensorView<T, 2> y_;
  const Lease<LowRankMemory> memory_;
};

/// Whether a product is one of two weights that are read where they lie.
template <class S, class U>
bool reads_factors(const TensorView<const U, 2>& left, const TensorView<const U, 2>& right,
                   const TensorView<const S, 2>& x) {
  return std::is_same_v<linalg::product_t<S, U>, float> && x.rows() <= linalg::few_weight_rows &&
         left.stride[1] == 1 && right.stride[1] == 1;
}

/// middle = x right^T by pairs of bf16 as they are, where both are bf16 and that is fast; rows of x
/// are copied where they are not contiguous, an odd number of elements apart, or many.
template <class B, class S, class U>
bool multiply_pairs_in_place([[maybe_unused]] const B& backend,
                             [[maybe_unused]] TensorView<const U, 2> right,
                             [[maybe_unused]] TensorView<const S, 2> x,
                             [[maybe_unused]] TensorView<float, 2> middle,
                             [[maybe_unused]] AlignedBuffer<std::byte>& buffer) {
  if constexpr (linalg::has_pairs<S, U, float> && linalg::PairBackend<B>) {
    if (!linalg::multiplies_weight_pairs(backend, right)) return false;
    if (x.stride[1] != 1 || x.stride[0] % 2 != 0 || x.rows() > linalg::any_stride_rows) {
      const Index stride = linalg::weight_pairs_stride(x.cols());
      const TensorView<bf16, 2> rows{
          make_room<bf16>(buffer, x.rows() * stride), x.extent, {stride, 1}};
      for (Index r = 0; r < x.rows(); ++r)
        if (x.stride[1] == 1)
          std::copy_n(&x(r, 0), x.cols(), &rows(r, 0));
        else
          for (Index i = 0; i < x.cols(); ++i) rows(r, i) = x(r, i);
      x = as_const(rows);
    }
    linalg::multiply_weight_pairs(backend, right, x, middle);
    return true;
  }
  return false;
}

/// The product of such, no extent 0. Rows of x that are not contiguous floats are copied, and so
/// are those of y: bits do not depend on that.
template <class B, class S, class U>
void multiply_in_place(const B& backend, TensorView<const U, 2> left, TensorView<const U, 2> right,
                       TensorView<const S, 2> x, TensorView<float, 2> y) {
  const Index tokens = x.rows(), in = x.cols(), rank = right.rows(), out = left.rows();
  const auto memory = leased<LowRankMemory>(backend);
  const auto rows_in = [&](AlignedBuffer<std::byte>& buffer, Index width) {
    return TensorView<float, 2>{
        make_room<float>(buffer, tokens * width), {tokens, width}, {width, 1}};
  };
  const auto copy = [](const auto& from, const auto& to) {
    for (Index r = 0; r < from.rows(); ++r)
      for (Index i = 0; i < from.cols(); ++i) to(r, i) = static_cast<float>(from(r, i));
  };
  const auto middle = rows_in(memory->right, rank);
  if (multiply_pairs_in_place(backend, right, x, middle, memory->left)) {
  } else if (std::is_same_v<S, float> && x.stride[1] == 1) {
    if constexpr (std::is_same_v<S, float>) linalg::multiply_weight_rows(backend, right, x, middle);
  } else {
    const auto floats = rows_in(memory->left, in);
    copy(x, floats);
    linalg::multiply_weight_rows(backend, right, as_const(floats), middle);
  }
  if (y.stride[1] == 1) return linalg::multiply_weight_rows(backend, left, as_const(middle), y);
  const auto rows = rows_in(memory->workers, out);
  linalg::multiply_weight_rows(backend, left, as_const(middle), rows);
  copy(as_const(rows), y);
}

/// Y = (X right^T) left^T, no extent 0, by whichever way costs less; then finish(begin, rows) for
/// ranges of rows of y that are done.
template <class B, class S, class U, class T, class Finish>
void multiply_low_rank(const B& backend, TensorView<const U, 2> left, TensorView<const U, 2> right,
                       TensorView<const S, 2> x, TensorView<T, 2> y, const Finish& finish) {
  if constexpr (std::is_same_v<T, float>)
    if (reads_factors(left, right, x)) {
      multiply_in_place(backend, left, right, x, y);
      return finish(0, y.rows());
    }
  LowRankProduct<B, S, U>(backend, left, right, x, y).run(finish);
}

/// Y = (X right^T) left^T in double, as it is written.
template <class S, class U, class T>
void reference_low_rank_product(TensorView<const U, 2> left, TensorView<const U, 2> right,
                                TensorView<const S, 2> x, TensorView<T, 2> y) {
  const Eigen::MatrixXd wanted = (reference_matrix(x) * reference_matrix(right).transpose()) *
                                 reference_matrix(left).transpose();
  for (Index i = 0; i < y.rows(); ++i)
    for (Index j = 0; j < y.cols(); ++j) y(i, j) = static_cast<T>(wanted(i, j));
}

PARE_ABI_END
}  // namespace detail
}  // namespace pare::factor
