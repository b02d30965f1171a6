// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Block coordinate descent of ARMOR on kernels. Blocks of A meet only their own rows of the
/// weight, blocks of B their own columns, and groups of a block of S nothing but that block: each
/// kind is fitted on threads, an item by one worker from start to end.

#include <pare/core/backend.hpp>
#include <pare/core/ceil_div.hpp>
#include <pare/core/matrix.hpp>
#include <pare/core/parallel.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/core/workspace.hpp>
#include <pare/factor/structured/detail/armor_problem.hpp>
#include <pare/kernel/sweep_two_four.hpp>
#include <pare/linalg/multiply.hpp>

#include <Eigen/Cholesky>
#include <Eigen/Core>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <type_traits>
#include <vector>

namespace pare::factor::detail {
PARE_ABI_BEGIN

/// The X next to `old` with X G = cross, for a symmetric G of which the lower half is given:
/// min tr(X G X^T) - 2 tr(cross X^T) + ridge ||X - old||^2, which is never above what it is at
/// `old`. The ridge is as small as the rounding of G.
template <class T>
RowMatrix<T> fitted_left(const RowMatrix<T>& gram, const RowMatrix<T>& cross,
                         TensorView<const T, 2> old) {
  const Index n = gram.rows();
  Eigen::MatrixXd g(n, n), x(n, cross.rows());
  double trace = 0;
  for (Index i = 0; i < n; ++i) {
    trace += static_cast<double>(gram(i, i));
    for (Index j = 0; j <= i; ++j) g(i, j) = g(j, i) = static_cast<double>(gram(i, j));
  }
  const double ridge = (std::is_same_v<T, float> ? 1e-6 : 1e-12) * trace / static_cast<double>(n);
  if (!(ridge > 0)) return row_matrix<T>(old);
  g.diagonal().array() += ridge;
  for (Index i = 0; i < n; ++i)
    for (Index r = 0; r < cross.rows(); ++r)
      x(i, r) = static_cast<double>(cross(r, i)) + ridge * static_cast<double>(old(r, i));
  const Eigen::LLT<Eigen::MatrixXd> cholesky(g);
  if (cholesky.info() != Eigen::Success) return row_matrix<T>(old);
  cholesky.solveInPlace(x);
  RowMatrix<T> fitted(cross.rows(), n);
  for (Index r = 0; r < cross.rows(); ++r)
    for (Index i = 0; i < n; ++i) fitted(r, i) = static_cast<T>(x(i, r));
  return fitted;
}

/// What a worker fits an item in.
template <class T>
struct ArmorScratch {
  Workspace workspace;
  RowMatrix<T> product, fitted, gram, cross;  ///< of a block of A or B
  RowMatrix<T> half, target, image, core;     ///< of a block of S
  std::vector<T> gains;
  std::vector<std::uint8_t> groups;
  std::vector<double> losses;
};

/// The problem and where it stands.
template <class B, class T>
class ArmorFit {
 public:
  ArmorFit(const B& backend, ArmorProblem<T>& problem)
      : backend_(backend),
        p_(problem),
        left_grams_(p_.outputs(), p_.rows),
        right_grams_(p_.inputs(), padded(p_.columns)),
        inverses_(static_cast<std::size_t>(p_.inputs() / 4 * kernel::group_inverses)),
        scratch_(static_cast<std::size_t>(
            worker_count(backend.executor, p_.row_blocks * p_.column_blocks))) {
    right_grams_.setZero();
  }

  /// Every block of A, the others given.
  void fit_left() {
    each(p_.row_blocks,
         [&](Index i, ArmorScratch<T>& m, const auto& inner) { fit_left(i, m, inner); });
  }
  /// Every block of B.
  void fit_right() {
    each(p_.column_blocks,
         [&](Index j, ArmorScratch<T>& m, const auto& inner) { fit_right(j, m, inner); });
  }
  /// Every group of S, once.
  void fit_core() {
    each(p_.row_blocks, [&](Index i, ArmorScratch<T>&, const auto& inner) {
      const auto a = p_.left_block(i);
      const auto gram = rows_of(to_view(left_grams_), i * p_.rows, p_.rows);
      linalg::multiply(inner, transpose(a), a, gram, {.half = linalg::Half::Lower});
      linalg::mirror_lower(inner, gram);
    });
    each(p_.column_blocks,
         [&](Index j, ArmorScratch<T>&, const auto& inner) { right_gram(j, inner); });
    const Index across = p_.column_blocks;
    each(p_.row_blocks * across, [&](Index item, ArmorScratch<T>& m, const auto& inner) {
      fit_core(item / across, item % across, m, inner);
    });
  }

  /// The losses of all blocks.
  void measure() {
    const Index across = p_.column_blocks;
    each(p_.row_blocks * across, [&](Index item, ArmorScratch<T>& m, const auto& inner) {
      const Index i = item / across, j = item % across;
      p_.losses(i, j) = loss_of_core(i, j, m, inner);
    });
  }

 private:
  static Index padded(Index n) { return ceil_div(n, Index{16}) * 16; }

  /// body(item, scratch, backend) for items on workers; where there are fewer items than workers,
  /// one after the other, so that products have them all. The bits are the same.
  template <class Body>
  void each(Index items, const Body& body) {
    const auto run = [&](Index item, int worker) {
      ArmorScratch<T>& m = scratch_[static_cast<std::size_t>(worker)];
      body(item, m, backend_.with(m.workspace));
    };
    if (items < static_cast<Index>(scratch_.size()))
      for (Index item = 0; item < items; ++item) run(item, 0);
    else
      parallel_for(backend_.executor, items, run);
  }

  double loss(Index i, Index j, const RowMatrix<T>& fitted) const {
    const auto w = p_.weight_block(i, j);
    double sum = 0;
    launch(backend_, kernel::AddWeighedSquares<T>{w.data, w.stride[0], fitted.data(), p_.columns,
                                                  p_.moments_at(j), p_.rows, p_.columns, &sum});
    return sum;
  }
  template <class I>
  double loss_of_core(Index i, Index j, ArmorScratch<T>& m, const I& inner) const {
    m.half.resize(p_.rows, p_.columns);
    m.fitted.resize(p_.rows, p_.columns);
    linalg::multiply(inner, as_const(p_.core_block(i, j)), p_.right_block(j), to_view(m.half));
    linalg::multiply(inner, p_.left_block(i), const_view(m.half), to_view(m.fitted));
    return loss(i, j, m.fitted);
  }

  /// Takes a block of A or B for which the losses, own(k) of k = 0, 1, ..., fall.
  template <class Losses, class Own>
  static bool falls(Losses&& losses, std::vector<double>& now, const Own& own) {
    double before = 0, after = 0;
    now.resize(static_cast<std::size_t>(losses.size()));
    for (Index k = 0; k < losses.size(); ++k) {
      now[static_cast<std::size_t>(k)] = own(k);
      before += losses[k];
      after += now[static_cast<std::size_t>(k)];
    }
    if (!(after < before)) return false;
    for (Index k = 0; k < losses.size(); ++k) losses[k] = now[static_cast<std::size_t>(k)];
    return true;
  }

  template <class I>
  void fit_left(Index i, ArmorScratch<T>& m, const I& inner) {
    m.product.resize(p_.column_blocks * p_.rows, p_.columns);
    m.gram.resize(p_.rows, p_.rows);
    m.cross.resize(p_.rows, p_.rows);
    const auto image = [&](Index j) { return rows_of(to_view(m.product), j * p_.rows, p_.rows); };
    for (Index j = 0; j < p_.column_blocks; ++j) {
      linalg::multiply(inner, as_const(p_.core_block(i, j)), p_.right_block(j), image(j));
      linalg::ProductOptions<T> weighed{.accumulate = j > 0, .depth_scale = p_.moments_at(j)};
      linalg::multiply(inner, p_.weight_block(i, j), transpose(as_const(image(j))),
                       to_view(m.cross), weighed);
      weighed.half = linalg::Half::Lower;
      linalg::multiply(inner, as_const(image(j)), transpose(as_const(image(j))), to_view(m.gram),
                       weighed);
    }
    const RowMatrix<T> a = fitted_left(m.gram, m.cross, p_.left_block(i));
    m.fitted.resize(p_.rows, p_.columns);
    if (falls(p_.losses.row(i), m.losses, [&](Index j) {
          linalg::multiply(inner, const_view(a), as_const(image(j)), to_view(m.fitted));
          return loss(i, j, m.fitted);
        }))
      p_.left.middleRows(i * p_.rows, p_.rows) = a;
  }

  template <class I>
  void fit_right(Index j, ArmorScratch<T>& m, const I& inner) {
    m.product.resize(p_.outputs(), p_.columns);
    m.gram.resize(p_.columns, p_.columns);
    m.cross.resize(p_.columns, p_.columns);
    const auto image = [&](Index i) { return rows_of(to_view(m.product), i * p_.rows, p_.rows); };
    for (Index i = 0; i < p_.row_blocks; ++i) {
      linalg::multiply(inner, p_.left_block(i), as_const(p_.core_block(i, j)), image(i));
      // B^T G = (Q^T W)^T, of which W^T Q is the right side.
      linalg::multiply(inner, transpose(p_.weight_block(i, j)), as_const(image(i)),
                       to_view(m.cross), {.accumulate = i > 0});
    }
    linalg::multiply(inner, transpose(const_view(m.product)), const_view(m.product),
                     to_view(m.gram), {.half = linalg::Half::Lower});
    const RowMatrix<T> turned = fitted_left(m.gram, m.cross, transpose(p_.right_block(j)));
    m.fitted.resize(p_.rows, p_.columns);
    if (falls(p_.losses.col(j), m.losses, [&](Index i) {
          linalg::multiply(inner, as_const(image(i)), transpose(const_view(turned)),
                           to_view(m.fitted));
          return loss(i, j, m.fitted);
        }))
      p_.right.middleRows(j * p_.columns, p_.columns) = turned.transpose();
  }

  /// B H B^T of a block and the inverses of its groups.
  template <class I>
  void right_gram(Index j, const I& inner) {
    const Index n = p_.columns;
    const auto b = p_.right_block(j);
    const auto gram = columns_of(rows_of(to_view(right_grams_), j * n, n), 0, n);
    linalg::multiply(inner, b, transpose(b), gram,
                     {.half = linalg::Half::Lower, .depth_scale = p_.moments_at(j)});
    linalg::mirror_lower(inner, gram);
    constexpr T ridge = std::is_same_v<T, float> ? T(1e-6) : T(1e-12);
    for (Index g = 0; g < n / 4; ++g)
      kernel::invert_pairs(&gram(4 * g, 4 * g), gram.stride[0], ridge,
                           inverses_.data() + (j * n / 4 + g) * kernel::group_inverses);
  }

  template <class I>
  void fit_core(Index i, Index j, ArmorScratch<T>& m, const I& inner) {
    const Index rows = p_.rows, n = p_.columns, stride = padded(n);
    const auto core = p_.core_block(i, j);
    const auto a = p_.left_block(i), b = p_.right_block(j);
    m.half.resize(rows, n);
    linalg::multiply(inner, p_.weight_block(i, j), transpose(b), to_view(m.half),
                     {.depth_scale = p_.moments_at(j)});
    m.target.setZero(rows, stride);
    linalg::multiply(inner, transpose(a), const_view(m.half), columns_of(to_view(m.target), 0, n));
    m.image.setZero(rows, stride);
    const auto gram = rows_of(const_view(right_grams_), j * n, n);
    linalg::multiply(inner, as_const(core), columns_of(gram, 0, n),
                     columns_of(to_view(m.image), 0, n));
    const auto groups = p_.groups.begin() + p_.tile(i, j) * (n / 4);
    m.core = p_.core.middleRows(p_.tile(i, j), rows);
    m.groups.assign(groups, groups + rows * (n / 4));
    m.gains.resize(static_cast<std::size_t>(stride));
    kernel::SweepTwoFour<T> sweep;
    sweep.left_gram = &left_grams_(i * rows, 0);
    sweep.left_stride = rows;
    sweep.right_gram = gram.data;
    sweep.inverses = inverses_.data() + j * n / 4 * kernel::group_inverses;
    sweep.target = m.target.data();
    sweep.product = m.image.data();
    sweep.gains = m.gains.data();
    sweep.stride = stride;
    sweep.core = core.data;
    sweep.core_stride = core.stride[0];
    sweep.groups = p_.groups.data() + p_.tile(i, j) * (n / 4);
    sweep.group_stride = n / 4;
    sweep.rows = rows;
    sweep.columns = n;
    launch(backend_, sweep);
    const double after = loss_of_core(i, j, m, inner);
    if (after < p_.losses(i, j)) {
      p_.losses(i, j) = after;
    } else {
      p_.core.middleRows(p_.tile(i, j), rows) = m.core;
      std::copy(m.groups.begin(), m.groups.end(), groups);
    }
  }

  const B& backend_;
  ArmorProblem<T>& p_;
  RowMatrix<T> left_grams_, right_grams_;
  std::vector<T> inverses_;
  std::vector<ArmorScratch<T>> scratch_;
};

PARE_ABI_END
}  // namespace pare::factor::detail
