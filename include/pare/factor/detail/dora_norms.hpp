// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Norms of the rows of W + scale B A on kernels, without B A and without W A^T.
///
/// A^T and A A^T are packed once. A worker then takes a block of rows of W: while a part of it is
/// in cache, its squares are summed and it is multiplied by A^T; the block of W A^T meets its rows
/// of B before it leaves the cache.

#include <pare/core/aligned_buffer.hpp>
#include <pare/core/backend.hpp>
#include <pare/core/check.hpp>
#include <pare/core/matrix.hpp>
#include <pare/core/parallel.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/core/workspace.hpp>
#include <pare/kernel/row_dots.hpp>
#include <pare/linalg/packed_matrix.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <type_traits>
#include <vector>

namespace pare::factor::detail {
PARE_ABI_BEGIN

/// rank (in + rank) scalars, and for each worker a block of 192 rows of a few times the rank.
struct DoraMemory {
  AlignedBuffer<std::byte> adapter;
  AlignedBuffer<std::byte> gram;
  AlignedBuffer<std::byte> packed_gram;
  AlignedBuffer<std::byte> workers;
  std::vector<double> adapter_squares;
};

/// ||w + scale b A||^2 of one row in double, element by element: what the three sums cannot give.
template <class S, class U>
double dense_row_square(TensorView<const S, 2> w, TensorView<const U, 2> a,
                        TensorView<const U, 2> b, double scale, Index row) {
  constexpr Index width = 256;
  double total = 0;
  for (Index begin = 0; begin < w.cols(); begin += width) {
    const Index columns = std::min(width, w.cols() - begin);
    double x[width];
    for (Index j = 0; j < columns; ++j)
      x[j] = static_cast<double>(static_cast<compute_t<S>>(w(row, begin + j)));
    for (Index q = 0; q < a.rows(); ++q) {
      const double factor = scale * static_cast<double>(static_cast<compute_t<U>>(b(row, q)));
      for (Index j = 0; j < columns; ++j)
        x[j] += factor * static_cast<double>(static_cast<compute_t<U>>(a(q, begin + j)));
    }
    for (Index j = 0; j < columns; ++j) total += x[j] * x[j];
  }
  return total;
}

/// Where products in T leave its range or lose too much.
template <class T>
struct NormLimits {
  static constexpr bool wide = std::is_same_v<T, double>;
  /// Rows of A whose norms lie in [1 / largest, largest] give products that neither overflow nor
  /// become subnormal where they matter.
  static constexpr double largest = wide ? 0x1p400 : 0x1p40;
  /// Squared norms below this come from such products.
  static constexpr double least_square = wide ? 0x1p-800 : 0x1p-80;
  /// Below this share of what they add up from, the three sums have cancelled.
  static constexpr double cancelled = 1e-3;
};

/// The three sums of a row and the squared norm of its row of B.
struct RowSums {
  double base, cross, gram, b;
};

/// One call, its arguments checked.
template <class B, class S, class U>
class DoraNorms {
  using T = linalg::product_t<S, U>;
  static constexpr bool pairs = linalg::has_pairs<S, U, T>;
  using Adapter = linalg::PackedMatrix<pairs, T>;
  using Gram = linalg::PackedMatrix<false, T>;

 public:
  DoraNorms(const B& backend, TensorView<const S, 2> w, TensorView<const U, 2> a,
            TensorView<const U, 2> b, double scale, const double* base)
      : backend_(backend),
        w_(w),
        a_(a),
        b_(b),
        scale_(scale),
        base_(base),
        rank_(a.rows()),
        memory_(leased<DoraMemory>(backend)),
        adapter_(backend, transpose(a), memory_->adapter),
        gram_{make_room<T>(memory_->gram, rank_ * rank_), {rank_, rank_}, {rank_, 1}} {}

  /// norm(row, value) for every row, by many workers.
  template <class Norm>
  void run(const Norm& norm) {
    multiply_adapter();
    fold_gram();
    const Gram gram(backend_, as_const(gram_), memory_->packed_gram);
    each_block(w_.rows(), [&](Index begin, Index rows, const Scratch& scratch) {
      sum_block(gram, begin, rows, scratch);
      for (Index i = 0; i < rows; ++i)
        norm(begin + i, row_norm(begin + i, {scratch.base[i], scratch.cross[i], scratch.gram[i],
                                             scratch.b[i]}));
    });
  }

 private:
  struct Scratch {
    T *left, *u, *v, *adapter_rows;
    double *base, *cross, *gram, *b;
  };

  /// body(begin, rows, scratch) for blocks of `rows` rows.
  template <class Body>
  void each_block(Index rows, const Body& body) {
    const Index workers = worker_count(backend_.executor, rows);
    const Index block = linalg::rows_of_item(rows, workers), line = whole_lines(block * rank_);
    const Index left =
        std::max(Adapter::left_size(block, w_.cols()), Gram::left_size(block, rank_));
    constexpr auto widths = static_cast<Index>(sizeof(double) / sizeof(T));
    const Index sums = whole_lines(4 * block), size = left + 3 * line + widths * sums;
    T* memory = make_room<T>(memory_->workers, workers * size);
    parallel_for(backend_.executor, (rows + block - 1) / block, [&](Index item, int worker) {
      T* own = memory + worker * size;
      auto* d = reinterpret_cast<double*>(own + left + 3 * line);
      const Index count = std::min(block, rows - item * block);
      std::fill(d, d + sums, 0.0);
      body(item * block, count,
           Scratch{own, own + left, own + left + line, own + left + 2 * line, d, d + block,
                   d + 2 * block, d + 3 * block});
    });
  }

  /// The lower half of A A^T and what is above it, and the squares of A's rows.
  void multiply_adapter() {
    std::vector<double>& all_squares = memory_->adapter_squares;
    all_squares.assign(static_cast<std::size_t>(rank_), 0.0);
    each_block(rank_, [&](Index begin, Index rows, const Scratch& scratch) {
      const Index columns = std::min(Adapter::whole_panels(begin + rows), rank_);
      double* squares = all_squares.data() + begin;
      adapter_.multiply(
          backend_, rows_of(a_, begin, rows), {&gram_(begin, 0), {rows, columns}, gram_.stride},
          scratch.left, [&](const T* packed, Index depth) {
            launch(backend_, kernel::AddRowSquares<T, pairs>{packed, rows, depth, squares});
          });
    });
    linalg::mirror_lower(backend_, gram_);
    double largest = 0;
    for (const double square : all_squares) {
      adapter_is_finite_ = adapter_is_finite_ && is_finite(square);
      largest = std::max(largest, square);
    }
    const double norm = std::sqrt(largest), limit = NormLimits<T>::largest;
    adapter_is_ordinary_ = norm == 0 || (norm >= 1 / limit && norm <= limit);
  }

  /// Its upper half twice and nothing below the diagonal, which b A A^T b^T is as well.
  void fold_gram() {
    for (Index p = 0; p < rank_; ++p) {
      std::fill_n(&gram_(p, 0), p, T(0));
      for (Index j = p + 1; j < rank_; ++j) gram_(p, j) *= 2;
    }
  }

  void sum_block(const Gram& gram, Index begin, Index rows, const Scratch& s) const {
    const TensorView<T, 2> u{s.u, {rows, rank_}, {rank_, 1}}, v{s.v, {rows, rank_}, {rank_, 1}},
        b{s.adapter_rows, {rows, rank_}, {rank_, 1}};
    adapter_.multiply(
        backend_, rows_of(w_, begin, rows), u, s.left, [&](const T* packed, Index depth) {
          if (base_ == nullptr)
            launch(backend_, kernel::AddRowSquares<T, pairs>{packed, rows, depth, s.base});
        });
    if (base_ != nullptr) std::copy(base_ + begin, base_ + begin + rows, s.base);
    launch(backend_, kernel::PackLeftLines<U, T, false>{
                         {&b_(begin, 0), b_.stride[0], b_.stride[1], rows, rank_, nullptr, nullptr},
                         s.adapter_rows});
    gram.multiply_upper(backend_, as_const(b), v, s.left);
    const auto add = [&](const T* y, double* sums) {
      launch(backend_, kernel::AddRowDots<T>{b.data, rank_, y, rank_, rows, rank_, sums});
    };
    add(u.data, s.cross);
    add(v.data, s.gram);
    add(b.data, s.b);
  }

  double row_norm(Index row, const RowSums& sums) const {
    const double gram = scale_ * scale_ * sums.gram;
    const double square = sums.base + 2 * scale_ * sums.cross + gram;
    // Never negative: a row that cancels so far has gone the dense way.
    return std::sqrt(is_lost(sums, square, sums.base + gram)
                         ? dense_row_square(w_, a_, b_, scale_, row)
                         : square);
  }

  bool is_lost(const RowSums& sums, double square, double parts) const {
    // A NaN or infinite input is what it is in either way.
    if (!adapter_is_finite_ || !is_finite(sums.base) || !is_finite(sums.b) || sums.b == 0)
      return false;
    return !adapter_is_ordinary_ || !is_finite(square) ||
           square < NormLimits<T>::cancelled * parts || parts < NormLimits<T>::least_square;
  }

  const B& backend_;
  TensorView<const S, 2> w_;
  TensorView<const U, 2> a_, b_;
  double scale_;
  const double* base_;
  Index rank_;
  const Lease<DoraMemory> memory_;
  Adapter adapter_;
  TensorView<T, 2> gram_;
  bool adapter_is_finite_ = true;
  bool adapter_is_ordinary_ = true;
};

/// squares(row) of W alone, as `DoraNorms` sums them.
template <class B, class S>
void row_squares(const B& backend, TensorView<const S, 2> w, double* squares) {
  using T = compute_t<S>;
  using Rows = linalg::PackedMatrix<linalg::has_pairs<S, S, T>, T>;
  const Index workers = worker_count(backend.executor, w.rows());
  const Index block = linalg::rows_of_item(w.rows(), workers),
              size = Rows::left_size(block, w.cols());
  const auto buffer = leased<AlignedBuffer<std::byte>>(backend);
  T* left = make_room<T>(*buffer, workers * size);
  std::fill(squares, squares + w.rows(), 0.0);
  parallel_for(backend.executor, (w.rows() + block - 1) / block, [&](Index item, int worker) {
    const Index begin = item * block, rows = std::min(block, w.rows() - begin);
    Rows::each_left(backend, rows_of(w, begin, rows), left + worker * size,
                    [&](const T* packed, Index depth) {
                      launch(backend, kernel::AddRowSquares<T, linalg::has_pairs<S, S, T>>{
                                          packed, rows, depth, squares + begin});
                    });
  });
}

PARE_ABI_END
}  // namespace pare::factor::detail
