// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// A symmetric matrix as Q T Q^T with T tridiagonal, by blocks of Householder reflections.

#include <pare/core/macros_off.hpp>

#include <pare/core/aligned_buffer.hpp>
#include <pare/core/backend.hpp>
#include <pare/core/ceil_div.hpp>
#include <pare/core/matrix.hpp>
#include <pare/core/scratch.hpp>
#include <pare/kernel/symmetric_product.hpp>
#include <pare/linalg/multiply.hpp>

#include <Eigen/Core>

#include <algorithm>
#include <cmath>
#include <vector>

namespace pare::linalg::detail {
PARE_ABI_BEGIN

template <class T>
struct TridiagonalMemory {
  AlignedBuffer<T> matrix;       ///< free again when the reduction is done
  AlignedBuffer<T> panel;        ///< V and W of a panel, what is subtracted, its columns, sums
  AlignedBuffer<T> reflections;  ///< [n - 1 x n]
};

/// What remains of A = Q T Q^T: Q is the product of I - scale_c v_c v_c^T, c ascending.
template <class T>
struct Tridiagonal {
  std::vector<double> diagonal;    ///< [n]
  std::vector<double> below;       ///< [n - 1]
  TensorView<T, 2> reflections{};  ///< [n - 1 x n], row c is v_c: 0 up to column c, then 1
  std::vector<T> scales;           ///< [n - 1]
};

/// One reduction (Dongarra, Sorensen and Hammarling 1989, Block reduction of matrices to condensed
/// forms): columns of a panel are reduced one by one, each with a product of the matrix as it was
/// before the panel; then the rest of the matrix takes the whole panel at once.
template <class B, class T>
class Tridiagonalization {
  static constexpr Index panel = 32, block = kernel::symmetric_block;
  /// Parts of a product of the matrix and a vector, so many for any number of threads; smaller ones
  /// take less time than a second thread's start.
  static constexpr Index most_parts = 8, part_rows = 1024 / static_cast<Index>(sizeof(T));

  using Vector = Eigen::Matrix<T, Eigen::Dynamic, 1>;
  using Line = Eigen::Map<Vector>;

 public:
  /// `a` [n x n], whose lower half is read, over `scale`.
  Tridiagonalization(const B& backend, TensorView<const T, 2> a, T scale,
                     TridiagonalMemory<T>& memory)
      : backend_(backend),
        n_(a.rows()),
        padded_(ceil_div(n_, block) * block),
        // Rows that lie a power of two apart would share few sets of a cache.
        a_(matrix_in(memory.matrix, padded_, padded_ + block)),
        panel_(matrix_in(memory.panel, 5 * panel + most_parts + 1, padded_ + block)) {
    copy_lower(a, scale);
    result_.reflections = matrix_in(memory.reflections, n_ - 1, n_);
    result_.diagonal.resize(static_cast<std::size_t>(n_));
    result_.below.resize(static_cast<std::size_t>(n_ - 1));
    result_.scales.resize(static_cast<std::size_t>(n_ - 1));
    std::fill_n(v(), padded_, T(0));
  }

  Tridiagonal<T> run() {
    for (Index begin = 0; begin < n_; begin += panel) {
      mirror_blocks(begin);
      const Index end = std::min(begin + panel, n_);
      copy_columns(begin, end);
      for (Index c = begin; c < end; ++c) reduce(begin, c);
      if (end < n_) take_panel(end);
    }
    return std::move(result_);
  }

 private:
  /// In strips, of which the lines stay in L1 whichever way `a` is stored.
  void copy_lower(TensorView<const T, 2> a, T scale) {
    for (Index strip = 0; strip < n_; strip += block)
      for (Index j = 0; j < std::min(strip + block, n_); ++j)
        for (Index i = std::max(strip, j); i < std::min(strip + block, n_); ++i)
          a_(i, j) = a(i, j) / scale;
    for (Index i = n_; i < padded_; ++i) std::fill_n(&a_(i, 0), padded_, T(0));
  }

  /// Completes the blocks of the diagonal, which products read whole.
  void mirror_blocks(Index begin) {
    for (Index b = begin / block * block; b < padded_; b += block)
      for (Index i = b; i < b + block; ++i)
        for (Index j = b; j < i; ++j) a_(j, i) = a_(i, j);
  }

  /// The columns of a panel as lines.
  void copy_columns(Index begin, Index end) {
    for (Index i = begin; i < n_; ++i)
      for (Index c = begin; c < std::min(end, i + 1); ++c) column(c - begin)[i] = a_(i, c);
  }

  /// Column c, brought up to date by those of the panel before it, becomes a reflection.
  void reduce(Index begin, Index c) {
    const Index before = c - begin, rest = n_ - c - 1;
    Line updated(column(before) + c, rest + 1);
    updated.noalias() -= vs(c, before) * at_row(w_line, c, before);
    updated.noalias() -= ws(c, before) * at_row(v_line, c, before);
    result_.diagonal[static_cast<std::size_t>(c)] = static_cast<double>(updated[0]);
    if (rest == 0) return;
    const T scale = reflect(updated, c);
    std::fill(v() + begin, v() + c + 1, T(0));
    std::copy_n(updated.data() + 1, rest, v() + c + 1);
    T* const reflection = &result_.reflections(c, 0);
    std::fill_n(reflection, c + 1, T(0));
    std::copy_n(updated.data() + 1, rest, reflection + c + 1);
    std::copy_n(updated.data() + 1, rest, line(v_line, before) + c + 1);
    add_product(begin, c, scale);
    const T* const w = line(w_line, before);
    for (Index i = c + 1; i < n_; ++i) {
      line(taken_line, before)[i] = -w[i];
      line(taken_line + panel, before)[i] = -v()[i];
    }
  }

  /// Turns column[1..] into v and returns its scale.
  T reflect(Line& column, Index c) {
    const T first = column[1];
    const T others = column.tail(column.size() - 2).norm();
    T length = first, scale = 0;
    if (others > 0) {
      length = -std::copysign(std::hypot(first, others), first);
      scale = (length - first) / length;
      column.tail(column.size() - 2) /= first - length;
    }
    column[1] = 1;
    result_.below[static_cast<std::size_t>(c)] = static_cast<double>(length);
    result_.scales[static_cast<std::size_t>(c)] = scale;
    return scale;
  }

  /// w of the panel's column: scale (A v - V W^T v - W V^T v), less its half along v.
  void add_product(Index begin, Index c, T scale) {
    const Index before = c - begin, rest = n_ - c - 1;
    const Line x(v() + c + 1, rest);
    Line w(line(w_line, before) + c + 1, rest);
    if (scale == 0) {
      std::fill_n(w.data(), rest, T(0));
      return;
    }
    times_matrix(c, w.data());
    const Vector along_w = ws(c + 1, before).transpose() * x;
    const Vector along_v = vs(c + 1, before).transpose() * x;
    w.noalias() -= vs(c + 1, before) * along_w;
    w.noalias() -= ws(c + 1, before) * along_v;
    w *= scale;
    const T half = scale / 2 * w.dot(x);
    w -= half * x;
  }

  /// A v from row c + 1 on, A as it was before the panel.
  void times_matrix(Index c, T* product) {
    const Index first = (c + 1) / block * block, rows = padded_ - first;
    const Index parts = std::clamp<Index>(rows / part_rows, 1, most_parts);
    // Row i has i elements: parts of as many elements end at square roots.
    const auto end_of = [&](Index part) {
      const double share = static_cast<double>(part) / static_cast<double>(parts);
      const auto row = static_cast<Index>(std::sqrt(share) * static_cast<double>(rows));
      return part == parts ? padded_ : first + row / block * block;
    };
    parallel_for(backend_.executor, parts, [&](Index part, int) {
      const Index end = end_of(part + 1);
      std::fill(sums(part) + first, sums(part) + padded_, T(0));
      launch(backend_, kernel::SymmetricProduct<T>{a_.data, a_.stride[0], first, end_of(part), end,
                                                   v(), sums(part)});
    });
    const Index rest = n_ - c - 1;
    std::copy_n(sums(0) + c + 1, rest, product);
    for (Index part = 1; part < parts; ++part)
      Line(product, rest) += Line(sums(part) + c + 1, rest);
  }

  /// A -= V W^T + W V^T below and right of the panel.
  void take_panel(Index end) {
    const Index rest = n_ - end;
    const auto factor = [&](Index which) {
      return as_const(transpose(columns_of(rows_of(panel_, which, 2 * panel), end, rest)));
    };
    multiply(backend_, factor(v_line), transpose(factor(taken_line)),
             rows_of(columns_of(a_, end, rest), end, rest),
             {.accumulate = true, .half = Half::Lower});
  }

  // Lines of the panel's memory.
  static constexpr Index v_line = 0, w_line = panel, taken_line = 2 * panel,
                         column_line = 4 * panel, sum_line = 5 * panel;
  T* line(Index which, Index at) { return &panel_(which + at, 0); }
  T* column(Index at) { return line(column_line, at); }
  T* sums(Index part) { return line(sum_line, part); }
  T* v() { return line(sum_line, most_parts); }

  using Columns =
      Eigen::Map<const Eigen::Matrix<T, Eigen::Dynamic, Eigen::Dynamic>, 0, Eigen::OuterStride<>>;
  Columns vs(Index row, Index count) { return of_panel(v_line, row, count); }
  Columns ws(Index row, Index count) { return of_panel(w_line, row, count); }
  Columns of_panel(Index which, Index row, Index count) {
    return {line(which, 0) + row, n_ - row, count, Eigen::OuterStride<>(panel_.stride[0])};
  }
  /// Row `row` of V or W.
  Vector at_row(Index which, Index row, Index count) {
    Vector elements(count);
    for (Index j = 0; j < count; ++j) elements[j] = line(which, j)[row];
    return elements;
  }

  const B& backend_;
  Index n_, padded_;
  TensorView<T, 2> a_, panel_;
  Tridiagonal<T> result_;
};

template <class T>
struct ReflectionMemory {
  RowMatrix<T> gram, triangle, along, turned;
};

/// The T of I - V T V^T, negative, for `scales` of reflections whose Gram matrix is `gram`.
template <class T>
void reflection_triangle(const T* scales, const RowMatrix<T>& gram, RowMatrix<T>& triangle) {
  triangle.setZero(gram.rows(), gram.rows());
  for (Index i = 0; i < gram.rows(); ++i) {
    for (Index r = 0; r < i; ++r)
      triangle(r, i) =
          -scales[i] * triangle.row(r).segment(r, i - r).dot(gram.row(i).segment(r, i - r));
    // Negative, like the sums, so that the block is added.
    triangle(i, i) = -scales[i];
  }
}

/// vectors <- Q vectors, for columns of n rows.
///
/// Reflections are taken in blocks, I - V T V^T (Schreiber and Van Loan 1989, A storage-efficient
/// WY representation). Cost: 2 n^2 FMAs a vector.
template <class B, class T>
void apply_reflections(const B& backend, const Tridiagonal<T>& a, TensorView<T, 2> vectors,
                       ReflectionMemory<T>& memory) {
  const Index n = vectors.rows(), count = n - 1, most = n > 512 ? 128 : 64;
  for (Index begin = (count - 1) / most * most; begin >= 0; begin -= most) {
    const Index size = std::min(most, count - begin), rest = n - begin - 1;
    const auto v = as_const(columns_of(rows_of(a.reflections, begin, size), begin + 1, rest));
    memory.gram.resize(size, size);
    multiply(backend, v, transpose(v), to_view(memory.gram));
    reflection_triangle(a.scales.data() + begin, memory.gram, memory.triangle);
    memory.along.resize(size, vectors.cols());
    memory.turned.resize(size, vectors.cols());
    const auto part = rows_of(vectors, begin + 1, rest);
    multiply(backend, v, as_const(part), to_view(memory.along));
    multiply(backend, const_view(memory.triangle), const_view(memory.along),
             to_view(memory.turned));
    multiply(backend, transpose(v), const_view(memory.turned), part, {.accumulate = true});
  }
}

PARE_ABI_END
}  // namespace pare::linalg::detail

#include <pare/core/macros_on.hpp>
