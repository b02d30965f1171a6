// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// SparseGPT by blocks of columns: one product of matrices makes up for all that was changed in
/// front of a block, which then prunes its own weights.

#include <pare/core/aligned_buffer.hpp>
#include <pare/core/backend.hpp>
#include <pare/core/ceil_div.hpp>
#include <pare/core/check.hpp>
#include <pare/core/executor_ref.hpp>
#include <pare/core/matrix.hpp>
#include <pare/core/parallel.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/core/workspace.hpp>
#include <pare/factor/detail/metric_checks.hpp>
#include <pare/factor/detail/moment_rounding.hpp>
#include <pare/factor/metric.hpp>
#include <pare/factor/structured/detail/moment_rank.hpp>
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

/// A matrix that is not written yet, of huge pages where it is worth them: a page of 4 KiB takes as
/// long to be given as its elements to be multiplied a hundred times.
template <class T>
RowMatrix<T> large_matrix(Index rows, Index cols) {
  RowMatrix<T> m(rows, cols);
  advise_huge_pages(m.data(), static_cast<std::size_t>(m.size()) * sizeof(T));
  return m;
}

/// H = C + damping mean(diag C) I over that mean, so that C may be of any scale; 1 on the diagonal
/// of an input without variance.
template <class T>
class DampedMoments {
 public:
  DampedMoments(const CovarianceView<T>& c, double damping)
      : c_(c.matrix), mean_(diagonal_mean(c.matrix)), damping_(damping) {}

  Index size() const { return c_.rows(); }
  double at(Index i, Index j) const {
    const double h = static_cast<double>(c_(i, j)) / mean_;
    if (i != j) return h;
    return h > 0 ? h + damping_ : 1;
  }

 private:
  TensorView<const T, 2> c_;
  double mean_, damping_;
};

/// What eigenvalues of H count for, as a share of the largest: with damping what the decomposition
/// in double rounds, without any what C is known to. Damping is exact, however C was summed.
template <class C>
double definite_share(const CovarianceView<C>& c, bool has_float_sums, double damping) {
  const Index n = c.matrix.rows();
  return damping > 0 ? moment_rounding<double>(n) : moment_rounding<C>(n, has_float_sums);
}

/// Refuses a covariance by H = L L^T, lower half, if there is such an L.
inline void check_definite(const char* function, bool has_root, const RowMatrix<double>& lower,
                           double share) {
  check(has_root && !is_singular(lower, share), function, "covariance",
        "a matrix that is not positive definite", "one that is, after damping");
}

/// L with J H J = L L^T in the lower half, J the reversal of rows. Then H = R R^T with the upper
/// triangular R = J L J, and R^-1 = U: U^T U is the inverse of H.
template <class B, class C>
RowMatrix<double> reversed_factor(const char* function, const B& backend,
                                  const CovarianceView<C>& c, double share, double damping) {
  const DampedMoments<C> h(c, damping);
  const Index n = h.size();
  RowMatrix<double> reversed = large_matrix<double>(n, n);
  each_row(backend, n, [&](Index i) {
    for (Index j = 0; j <= i; ++j) reversed(i, j) = h.at(n - 1 - i, n - 1 - j);
  });
  check_definite(function, linalg::cholesky(backend, reversed), reversed, share);
  return reversed;
}

/// One call on kernels, its arguments checked.
///
/// tr(D H D^T) = || D R ||^2 for D = W - What, and column i of D R is s_i + d_i r_ii, where s_i is
/// what columns in front of i add: a weight that makes it 0 makes up for them. So s of a block is
/// one product, D_front R_front, and U is not needed but in groups of four, whose weights are
/// compared before any of them goes.
template <class B, class T>
class SparseGptBlocks {
 public:
  /// \param w     W; D takes its place
  /// \param lower as reversed_factor returns it
  SparseGptBlocks(const B& backend, RowMatrix<T>& w, const RowMatrix<double>& lower, Index block,
                  TwoFour<T>& to)
      : backend_(keeping(backend, own_)),
        w_(w),
        lower_(lower),
        block_(std::min(block, w_.cols())),
        to_(to),
        sums_(RowMatrix<T>::Zero(w_.rows(), block_)),
        upper_(w_.cols(), block_),
        inverses_(static_cast<std::size_t>(4 * block_)) {}

  void run() {
    for (Index begin = 0; begin < w_.cols(); begin += block_) {
      const Index columns = std::min(block_, w_.cols() - begin);
      round_factor(begin, columns);
      if (begin > 0)
        linalg::multiply(backend_, columns_of(const_view(w_), 0, begin),
                         columns_of(rows_of(const_view(upper_), 0, begin), 0, columns),
                         columns_of(to_view(sums_), 0, columns));
      prune(begin, columns);
    }
  }

 private:
  // Whole registers of rows, whose part of a block of columns of W and of s stays in L2.
  static constexpr Index item_rows = 64;

  double factor_at(Index i, Index j) const { return lower_(w_.cols() - 1 - i, w_.cols() - 1 - j); }

  /// The block's columns of R, and U of its groups.
  void round_factor(Index begin, Index columns) {
    const Index last = w_.cols() - 1;
    each_row(backend_, begin + columns, [&, begin, columns, last](Index i) {
      const double* const from = &lower_(last - i, last - begin);
      T* const to = &upper_(i, 0);
      for (Index j = std::max<Index>(i - begin, 0); j < columns; ++j)
        to[j] = static_cast<T>(from[-j]);
    });
    for (Index g = 0; g < columns; g += 4) {
      T* const group = inverses_.data() + 4 * g;
      for (Index k = 0; k < 4; ++k) {
        // Row k of U by U R = I.
        double u[4] = {};
        for (Index l = k; l < 4; ++l) {
          double rest = l == k ? 1 : 0;
          for (Index m = k; m < l; ++m) rest -= u[m] * factor_at(begin + g + m, begin + g + l);
          u[l] = rest / factor_at(begin + g + l, begin + g + l);
        }
        for (Index l = 0; l < 4; ++l) group[4 * k + l] = static_cast<T>(u[l]);
      }
    }
  }

  void prune(Index begin, Index columns) {
    const auto words = TwoFourMemory::words(to_);
    const auto values = to_.own_values();
    parallel_for(backend_.executor, ceil_div(w_.rows(), item_rows), [&](Index item, int) {
      const Index row = item * item_rows;
      kernel::PruneTwoFour<T> a;
      a.weights = &w_(row, begin);
      a.weight_stride = w_.cols();
      a.sums = &sums_(row, 0);
      a.sum_stride = block_;
      a.rows = std::min(item_rows, w_.rows() - row);
      a.columns = columns;
      a.upper = &upper_(begin, 0);
      a.upper_stride = block_;
      a.inverses = inverses_.data();
      a.words = &words(row, begin / 16);
      a.word_stride = words.stride[0];
      a.values = &values(row, begin / 2);
      a.value_stride = values.stride[0];
      launch(backend_, a);
    });
  }

  Workspace own_;
  B backend_;
  RowMatrix<T>& w_;
  const RowMatrix<double>& lower_;
  Index block_;
  TwoFour<T>& to_;
  RowMatrix<T> sums_;        ///< D R of the columns in front, in the block
  RowMatrix<T> upper_;       ///< columns of R, rounded
  std::vector<T> inverses_;  ///< U of groups of four
};

/// Column by column with the inverse of H, in double.
template <class C>
void reference_sparse_gpt(const char* function, RowMatrix<double>& w, const CovarianceView<C>& c,
                          double share, double damping, std::vector<unsigned>& kept) {
  const DampedMoments<C> moments(c, damping);
  RowMatrix<double> h(moments.size(), moments.size());
  for (Index i = 0; i < h.rows(); ++i)
    for (Index j = 0; j < h.cols(); ++j) h(i, j) = moments.at(i, j);
  const Eigen::LLT<Eigen::MatrixXd> definite{Eigen::MatrixXd(h)};
  check_definite(function, definite.info() == Eigen::Success, definite.matrixLLT(), share);
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
                                       const CovarianceView<C>& c, bool has_float_sums,
                                       const SparseGptOptions& options) {
  using T = compute_t<S>;
  constexpr const char* function = "factor::sparse_gpt";
  check_two_four_weight(function, w);
  validate(function, options);
  check_view(function, "covariance", c.matrix);
  check_covariance(backend, function, "covariance", c, w.cols());
  if (!holds_for_all(backend, w.rows(), [&](Index i) { return is_finite_row(w, i); }))
    for (Index i = 0; i < w.rows(); ++i) check_finite_row(function, w, i);
  auto copy = large_matrix<std::conditional_t<KernelBackend<B>, T, double>>(w.rows(), w.cols());
  std::vector<char> varies(static_cast<std::size_t>(w.cols()));
  for (Index j = 0; j < w.cols(); ++j)
    varies[static_cast<std::size_t>(j)] = static_cast<char>(c.matrix(j, j) > C(0));
  each_row(backend, w.rows(), [&](Index i) {
    for (Index j = 0; j < w.cols(); ++j)
      copy(i, j) = varies[static_cast<std::size_t>(j)] != 0 ? static_cast<T>(w(i, j)) : T(0);
  });
  const double share = definite_share(c, has_float_sums, options.damping);
  if constexpr (KernelBackend<B>) {
    const auto any = on_any_executor(backend);
    const RowMatrix<double> lower = reversed_factor(function, any, c, share, options.damping);
    TwoFour<T> to{TwoFourMask(w.rows(), w.cols())};
    SparseGptBlocks<decltype(any), T>(any, copy, lower, options.block, to).run();
    return to;
  } else {
    std::vector<unsigned> kept(static_cast<std::size_t>(w.rows() * w.cols() / 4));
    reference_sparse_gpt(function, copy, c, share, options.damping, kept);
    return reference_result<T>(copy, kept);
  }
}

PARE_ABI_END
}  // namespace pare::factor::detail
