// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// A symmetric matrix as Q T Q^T with T tridiagonal, by blocks of Householder reflections.

#include <pare/core/macros_off.hpp>

#include <pare/core/backend.hpp>
#include <pare/core/ceil_div.hpp>
#include <pare/core/matrix.hpp>
#include <pare/kernel/symmetric_product.hpp>
#include <pare/linalg/multiply.hpp>

#include <Eigen/Core>

#include <algorithm>
#include <cmath>
#include <vector>

namespace pare::linalg::detail {
PARE_ABI_BEGIN

/// What remains of A = Q T Q^T: Q is the product of I - scale_c v_c v_c^T, c ascending.
struct Tridiagonal {
  std::vector<double> diagonal;   ///< [n]
  std::vector<double> below;      ///< [n - 1]
  RowMatrix<double> reflections;  ///< [n x n - 1], column c is v_c: 0 up to row c, 1 at row c + 1
  std::vector<double> scales;     ///< [n - 1]
};

/// One reduction (Dongarra, Sorensen and Hammarling 1989, Block reduction of matrices to condensed
/// forms): columns of a panel are reduced one by one, each with a product of the matrix as it was
/// before the panel; then the rest of the matrix takes the whole panel at once.
template <class B>
class Tridiagonalization {
  static constexpr Index panel = 32, block = kernel::symmetric_block;
  /// Parts of a product of the matrix and a vector, so many for any number of threads.
  static constexpr Index most_parts = 8, part_rows = 128;

 public:
  /// `a` [n x n], whose lower half is read.
  Tridiagonalization(const B& backend, const Eigen::MatrixXd& a)
      : backend_(backend),
        n_(a.rows()),
        padded_(ceil_div(n_, block) * block),
        a_(RowMatrix<double>::Zero(padded_, padded_)),
        panel_(RowMatrix<double>::Zero(padded_, 2 * panel)),
        turned_(RowMatrix<double>::Zero(padded_, 2 * panel)),
        v_(Eigen::VectorXd::Zero(padded_)),
        sums_(RowMatrix<double>::Zero(most_parts, padded_)) {
    for (Index j = 0; j < n_; ++j)
      for (Index i = j; i < n_; ++i) a_(i, j) = a(i, j);
    result_.diagonal.resize(static_cast<std::size_t>(n_));
    result_.below.resize(static_cast<std::size_t>(n_ - 1));
    result_.scales.resize(static_cast<std::size_t>(n_ - 1));
    result_.reflections = RowMatrix<double>::Zero(n_, n_ - 1);
  }

  Tridiagonal run() {
    for (Index begin = 0; begin < n_; begin += panel) {
      mirror_blocks(begin);
      const Index end = std::min(begin + panel, n_);
      for (Index c = begin; c < end; ++c) reduce(begin, c);
      if (end < n_) take_panel(begin, end);
    }
    return std::move(result_);
  }

 private:
  /// Completes the blocks of the diagonal, which products read whole.
  void mirror_blocks(Index begin) {
    for (Index b = begin / block * block; b < padded_; b += block)
      for (Index i = b; i < b + block; ++i)
        for (Index j = b; j < i; ++j) a_(j, i) = a_(i, j);
  }

  /// Column c, brought up to date by those of the panel before it, becomes a reflection.
  void reduce(Index begin, Index c) {
    const Index before = c - begin, rest = n_ - c - 1;
    Eigen::VectorXd column = a_.col(c).segment(c, rest + 1);
    column.noalias() -= vs(c, before) * ws(c, before).row(0).transpose();
    column.noalias() -= ws(c, before) * vs(c, before).row(0).transpose();
    result_.diagonal[static_cast<std::size_t>(c)] = column[0];
    if (rest == 0) return;
    const double scale = reflect(column, c);
    v_.segment(begin, c + 1 - begin).setZero();
    v_.segment(c + 1, rest) = column.tail(rest);
    result_.reflections.col(c).tail(rest) = column.tail(rest);
    if (scale != 0) add_product(begin, c, scale, column.tail(rest));
    panel_.col(2 * before).segment(c + 1, rest) = column.tail(rest);
  }

  /// Turns column[1..] into v and returns its scale.
  double reflect(Eigen::VectorXd& column, Index c) {
    const double first = column[1];
    const double others = column.tail(column.size() - 2).norm();
    double length = first, scale = 0;
    if (others > 0) {
      length = -std::copysign(std::hypot(first, others), first);
      scale = (length - first) / length;
      column.tail(column.size() - 2) /= first - length;
    }
    column[1] = 1;
    result_.below[static_cast<std::size_t>(c)] = length;
    result_.scales[static_cast<std::size_t>(c)] = scale;
    return scale;
  }

  /// w of the panel's column: scale (A v - V W^T v - W V^T v), less its half along v.
  void add_product(Index begin, Index c, double scale, const Eigen::VectorXd& v) {
    const Index before = c - begin, rest = v.size();
    Eigen::VectorXd w = times_matrix(c);
    const Eigen::VectorXd along_w = ws(c + 1, before).transpose() * v;
    const Eigen::VectorXd along_v = vs(c + 1, before).transpose() * v;
    w.noalias() -= vs(c + 1, before) * along_w;
    w.noalias() -= ws(c + 1, before) * along_v;
    w *= scale;
    w -= scale / 2 * w.dot(v) * v;
    panel_.col(2 * before + 1).segment(c + 1, rest) = w;
  }

  /// A v_ from row c + 1 on, A as it was before the panel.
  Eigen::VectorXd times_matrix(Index c) {
    const Index first = (c + 1) / block * block, rows = padded_ - first;
    const Index parts = std::clamp<Index>(rows / part_rows, 1, most_parts);
    // Row i has i elements: parts of as many elements end at square roots.
    const auto end_of = [&](Index part) {
      const double share = static_cast<double>(part) / static_cast<double>(parts);
      const auto row = static_cast<Index>(std::sqrt(share) * static_cast<double>(rows));
      return part == parts ? padded_ : first + row / block * block;
    };
    parallel_for(backend_.executor, parts, [&](Index part, int) {
      double* sums = sums_.data() + part * padded_;
      const Index end = end_of(part + 1);
      std::fill(sums + first, sums + padded_, 0.0);
      launch(backend_, kernel::SymmetricProduct<double>{a_.data(), padded_, first, end_of(part),
                                                        end, v_.data(), sums});
    });
    Eigen::VectorXd product = sums_.row(0).segment(c + 1, n_ - c - 1).transpose();
    for (Index part = 1; part < parts; ++part)
      product += sums_.row(part).segment(c + 1, n_ - c - 1).transpose();
    return product;
  }

  /// A -= V W^T + W V^T below and right of the panel.
  void take_panel(Index begin, Index end) {
    const Index columns = 2 * (end - begin), rest = n_ - end;
    for (Index i = end; i < n_; ++i)
      for (Index j = 0; j < columns; j += 2) {
        turned_(i, j) = -panel_(i, j + 1);
        turned_(i, j + 1) = -panel_(i, j);
      }
    const auto part = [&](const RowMatrix<double>& m) {
      return rows_of(columns_of(const_view(m), 0, columns), end, rest);
    };
    multiply(backend_, part(panel_), transpose(part(turned_)),
             rows_of(columns_of(to_view(a_), end, rest), end, rest),
             {.accumulate = true, .half = Half::Lower});
    panel_.setZero();
  }

  using Strided = Eigen::Map<const RowMatrix<double>, 0, Eigen::Stride<Eigen::Dynamic, 2>>;
  Strided vs(Index row, Index count) const { return of_panel(0, row, count); }
  Strided ws(Index row, Index count) const { return of_panel(1, row, count); }
  Strided of_panel(Index which, Index row, Index count) const {
    return {panel_.data() + row * panel_.cols() + which, n_ - row, count, {panel_.cols(), 2}};
  }

  const B& backend_;
  Index n_, padded_;
  RowMatrix<double> a_;
  RowMatrix<double> panel_;   ///< v and w of the panel's columns in turn
  RowMatrix<double> turned_;  ///< the same with each pair exchanged, negative
  Eigen::VectorXd v_;
  RowMatrix<double> sums_;
  Tridiagonal result_;
};

/// vectors <- Q vectors, for columns of n rows.
///
/// Reflections are taken in blocks, I - V T V^T (Schreiber and Van Loan 1989, A storage-efficient
/// WY representation). Cost: 2 n^2 FMAs a vector.
template <class B>
void apply_reflections(const B& backend, const Tridiagonal& a, TensorView<double, 2> vectors) {
  constexpr Index most = 128;
  const Index n = vectors.rows(), count = n - 1;
  RowMatrix<double> triangle, along, turned;
  for (Index begin = (count - 1) / most * most; begin >= 0; begin -= most) {
    const Index size = std::min(most, count - begin), rest = n - begin - 1;
    const auto v = rows_of(columns_of(const_view(a.reflections), begin, size), begin + 1, rest);
    RowMatrix<double> gram(size, size);
    multiply(backend, transpose(v), v, to_view(gram));
    triangle.setZero(size, size);
    for (Index i = 0; i < size; ++i) {
      const double scale = a.scales[static_cast<std::size_t>(begin + i)];
      for (Index r = 0; r < i; ++r) {
        double sum = 0;
        for (Index k = r; k < i; ++k) sum += triangle(r, k) * gram(k, i);
        triangle(r, i) = -scale * sum;
      }
      // Negative, like the sums, so that the block is added.
      triangle(i, i) = -scale;
    }
    along.resize(size, vectors.cols());
    turned.resize(size, vectors.cols());
    const auto part = rows_of(vectors, begin + 1, rest);
    multiply(backend, transpose(v), as_const(part), to_view(along));
    multiply(backend, const_view(triangle), const_view(along), to_view(turned));
    multiply(backend, v, const_view(turned), part, {.accumulate = true});
  }
}

PARE_ABI_END
}  // namespace pare::linalg::detail

#include <pare/core/macros_on.hpp>
