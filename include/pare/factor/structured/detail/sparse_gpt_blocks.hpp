// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// SparseGPT by blocks of columns: each prunes its own weights, and one product of matrices passes
/// its errors on to all columns behind it.

#include <pare/core/aligned_buffer.hpp>
#include <pare/core/backend.hpp>
#include <pare/core/ceil_div.hpp>
#include <pare/core/check.hpp>
#include <pare/core/executor_ref.hpp>
#include <pare/core/matrix.hpp>
#include <pare/core/parallel.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/core/workspace.hpp>
#include <pare/factor/metric.hpp>
#include <pare/factor/structured/detail/select_two_four.hpp>
#include <pare/factor/structured/detail/two_four_memory.hpp>
#include <pare/factor/structured/sparse_gpt_options.hpp>
#include <pare/factor/structured/two_four.hpp>
#include <pare/kernel/prune_two_four.hpp>
#include <pare/linalg/cholesky.hpp>
#include <pare/linalg/multiply.hpp>

#include <Eigen/Cholesky>
#include <Eigen/Core>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <type_traits>
#include <utility>
#include <vector>

namespace pare::factor::detail {
PARE_ABI_BEGIN

/// H = C + damping mean(diag C) I over that mean, so that C may be of any scale; 1 on the diagonal
/// of an input without variance.
template <class T>
RowMatrix<double> damped_moments(const CovarianceView<T>& c, double damping) {
  const double mean = diagonal_mean(c.matrix);
  RowMatrix<double> h = row_matrix<double>(c.matrix);
  for (Index i = 0; i < h.rows(); ++i) {
    for (Index j = 0; j < h.cols(); ++j) h(i, j) /= mean;
    h(i, i) = h(i, i) > 0 ? h(i, i) + damping : 1;
  }
  return h;
}

/// U with (C + damping)^-1 = U^T U, upper triangular, zeros below. With J the reversal of rows,
/// J H J = L L^T and U = J L^-1 J.
template <class B, class C>
RowMatrix<double> inverse_factor(const char* function, const B& backend, const CovarianceView<C>& c,
                                 double damping) {
  RowMatrix<double> reversed = damped_moments(c, damping).reverse();
  check(linalg::cholesky(backend, reversed), function, "covariance",
        "a matrix that is not positive definite", "one that is, after damping");
  linalg::invert_lower(backend, reversed);
  return reversed.reverse();
}

/// One call on kernels, its arguments checked.
template <class B, class T>
class SparseGptBlocks {
 public:
  SparseGptBlocks(const B& backend, RowMatrix<T> w, const RowMatrix<double>& upper, Index block,
                  TwoFour<T>& to)
      : backend_(keeping(backend, own_)),
        w_(std::move(w)),
        upper_(row_matrix<T>(const_view(upper))),
        block_(std::min(block, ceil_div(w_.cols(), Index{16}) * 16)),
        to_(to),
        errors_(w_.rows(), block_),
        corner_(static_cast<std::size_t>(block_ * block_)),
        inverse_(static_cast<std::size_t>(block_)) {}

  void run() {
    for (Index begin = 0; begin < w_.cols(); begin += block_) {
      const Index columns = std::min(block_, w_.cols() - begin);
      const Index rest = w_.cols() - begin - columns;
      prune(begin, columns);
      if (rest == 0) return;
      const auto right =
          columns_of(rows_of(const_view(upper_), begin, columns), begin + columns, rest);
      linalg::multiply(backend_, as_const(columns_of(to_view(errors_), 0, columns)), right,
                       columns_of(to_view(w_), begin + columns, rest), {.accumulate = true});
    }
  }

 private:
  static constexpr Index item_rows = 16;

  void prune(Index begin, Index columns) {
    pack_corner(begin, columns);
    const auto words = TwoFourMemory::words(to_);
    const auto values = to_.own_values();
    parallel_for(backend_.executor, ceil_div(w_.rows(), item_rows), [&](Index item, int) {
      const Index row = item * item_rows;
      kernel::PruneTwoFour<T> a;
      a.weights = &w_(row, begin);
      a.weight_stride = w_.cols();
      a.rows = std::min(item_rows, w_.rows() - row);
      a.columns = columns;
      a.upper = corner_.data();
      a.upper_stride = corner_stride_;
      a.inverse = inverse_.data();
      a.words = &words(row, begin / 16);
      a.word_stride = words.stride[0];
      a.values = &values(row, begin / 2);
      a.value_stride = values.stride[0];
      a.errors = &errors_(row, 0);
      a.error_stride = errors_.cols();
      launch(backend_, a);
    });
  }

  void pack_corner(Index begin, Index columns) {
    corner_stride_ = ceil_div(columns, Index{16}) * 16;
    for (Index i = 0; i < columns; ++i) {
      T* const row = corner_.data() + i * corner_stride_;
      for (Index j = 0; j < corner_stride_; ++j)
        row[j] = j < columns ? upper_(begin + i, begin + j) : T(0);
      inverse_[static_cast<std::size_t>(i)] = T(1) / row[i];
    }
  }

  Workspace own_;
  B backend_;
  RowMatrix<T> w_, upper_;
  Index block_;
  TwoFour<T>& to_;
  RowMatrix<T> errors_;
  AlignedBuffer<T> corner_;
  std::vector<T> inverse_;
  Index corner_stride_ = 0;
};

/// Column by column with the inverse of H, in double.
template <class C>
void reference_sparse_gpt(const char* function, RowMatrix<double>& w, const CovarianceView<C>& c,
                          double damping, std::vector<unsigned>& kept) {
  const RowMatrix<double> h = damped_moments(c, damping);
  const Eigen::LLT<Eigen::MatrixXd> definite{Eigen::MatrixXd(h)};
  check(definite.info() == Eigen::Success, function, "covariance",
        "a matrix that is not positive definite", "one that is, after damping");
  const Index n = h.rows();
  const Eigen::MatrixXd inverse = definite.solve(Eigen::MatrixXd::Identity(n, n));
  const Eigen::MatrixXd lower = Eigen::LLT<Eigen::MatrixXd>(inverse).matrixL();
  for (Index row = 0; row < w.rows(); ++row)
    for (Index i = 0; i < n; ++i) {
      unsigned& bits = kept[static_cast<std::size_t>((row * n + i) / 4)];
      if (i % 4 == 0)
        bits = best_two([&](int k) { return std::abs(w(row, i + k) / lower(i + k, i + k)); });
      if ((bits >> (i % 4) & 1u) != 0) continue;
      const double error = w(row, i) / lower(i, i);
      for (Index j = i; j < n; ++j) w(row, j) -= error * lower(j, i);
      w(row, i) = 0;
    }
}

template <class T>
TwoFour<T> reference_result(const RowMatrix<double>& w, const std::vector<unsigned>& kept) {
  TwoFourMask mask(w.rows(), w.cols());
  const Index groups = w.cols() / 4;
  for (Index i = 0; i < w.rows(); ++i)
    for (Index g = 0; g < groups; ++g)
      mask.set_group(i, g, kept[static_cast<std::size_t>(i * groups + g)]);
  return TwoFour<T>::from(w, std::move(mask));
}

template <Backend B, class S, class C>
TwoFour<compute_t<S>> sparse_gpt_views(const B& backend, TensorView<const S, 2> w,
                                       const CovarianceView<C>& c,
                                       const SparseGptOptions& options) {
  using T = compute_t<S>;
  constexpr const char* function = "factor::sparse_gpt";
  check_two_four_weight(function, w);
  validate(function, options);
  check_view(function, "covariance", c.matrix);
  check_covariance(function, "covariance", c, w.cols());
  for (Index i = 0; i < w.rows(); ++i) check_finite_row(function, w, i);
  RowMatrix<std::conditional_t<KernelBackend<B>, T, double>> copy(w.rows(), w.cols());
  for (Index i = 0; i < w.rows(); ++i)
    for (Index j = 0; j < w.cols(); ++j)
      copy(i, j) = c.matrix(j, j) > C(0) ? static_cast<T>(w(i, j)) : T(0);
  if constexpr (KernelBackend<B>) {
    const auto any = on_any_executor(backend);
    const RowMatrix<double> upper = inverse_factor(function, any, c, options.damping);
    TwoFour<T> to{TwoFourMask(w.rows(), w.cols())};
    SparseGptBlocks<decltype(any), T>(any, std::move(copy), upper, options.block, to).run();
    return to;
  } else {
    std::vector<unsigned> kept(static_cast<std::size_t>(w.rows() * w.cols() / 4));
    reference_sparse_gpt(function, copy, c, options.damping, kept);
    return reference_result<T>(copy, kept);
  }
}

PARE_ABI_END
}  // namespace pare::factor::detail
