// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Principal components: the truncated decomposition of X [samples x features] less the mean of
/// each feature, X - 1 mean^T ~ left right.
///
/// ```cpp
/// auto pca = centred_svd(x, {.rank = 16, .split = Split::Left, .signs = Signs::Fixed});
/// pca.factors.left;    // [samples x 16] scores
/// pca.factors.right;   // [16 x features] orthonormal components
/// pca.mean;            // [features]
/// ```
///
/// A sparse X stays sparse: the mean is taken from each product instead of the elements. The
/// variance that component i explains is singular_values[i]^2 / (samples - 1), of total_energy /
/// (samples - 1).

#include <pare/core/macros_off.hpp>

#include <pare/core/backend.hpp>
#include <pare/core/check.hpp>
#include <pare/core/executor_ref.hpp>
#include <pare/core/matrix.hpp>
#include <pare/core/sparse_view.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/factor/detail/metric_checks.hpp>
#include <pare/factor/low_rank.hpp>
#include <pare/factor/svd.hpp>
#include <pare/linalg/sparse_transpose.hpp>

#include <Eigen/Core>

#include <array>
#include <cmath>
#include <cstddef>
#include <limits>
#include <utility>
#include <vector>

namespace pare::factor {

PARE_ABI_BEGIN

/// X ~ left right + 1 mean^T.
template <ComputeScalar T>
struct CentredLowRank {
  LowRank<T> factors;    ///< energies and errors are those of X - 1 mean^T
  Eigen::VectorXd mean;  ///< [features]
};

PARE_ABI_END

namespace detail {
PARE_ABI_BEGIN

/// X - 1 mean^T for an X that multiplies.
template <LinearOperator W>
class CentredOperator {
 public:
  using scalar = typename W::scalar;

  CentredOperator(const W& w, const Eigen::VectorXd& mean, double squared_norm)
      : w_(w), mean_(mean), squared_norm_(squared_norm) {}

  Index rows() const { return w_.rows(); }
  Index cols() const { return w_.cols(); }

  /// y = X x - 1 (mean^T x).
  void multiply(TensorView<const scalar, 2> x, TensorView<scalar, 2> y) const {
    w_.multiply(x, y);
    for (Index k = 0; k < x.cols(); ++k) {
      double shift = 0;
      for (Index j = 0; j < x.rows(); ++j) shift += mean_[j] * double{x(j, k)};
      for (Index i = 0; i < y.rows(); ++i) y(i, k) = static_cast<scalar>(double{y(i, k)} - shift);
    }
  }

  /// y = X^T x - mean (1^T x).
  void multiply_transposed(TensorView<const scalar, 2> x, TensorView<scalar, 2> y) const {
    w_.multiply_transposed(x, y);
    for (Index k = 0; k < x.cols(); ++k) {
      double sum = 0;
      for (Index i = 0; i < x.rows(); ++i) sum += double{x(i, k)};
      for (Index j = 0; j < y.rows(); ++j)
        y(j, k) = static_cast<scalar>(double{y(j, k)} - mean_[j] * sum);
    }
  }

  double squared_norm() const { return squared_norm_; }

 private:
  const W& w_;
  const Eigen::VectorXd& mean_;
  double squared_norm_;
};

/// Means of columns of a sparse X by rows.
template <class T, class I>
Eigen::VectorXd column_means(const CompressedView<T, I>& lines) {
  Eigen::VectorXd mean = Eigen::VectorXd::Zero(lines.inner_size);
  for (Index u = 0; u < lines.outer_size; ++u)
    for (Index e = lines.begin(u); e < lines.end(u); ++e)
      mean[static_cast<Index>(lines.inner[e])] += double{lines.values[e]};
  return mean / static_cast<double>(lines.outer_size);
}

/// ||X - 1 mean^T||_F^2: of elements that are not stored, then of the others, whose squares do not
/// cancel. Entries with equal indices add up.
template <class T, class I>
double centred_energy(const CompressedView<T, I>& lines, const Eigen::VectorXd& mean) {
  Eigen::VectorXd row = Eigen::VectorXd::Zero(lines.inner_size);
  Eigen::VectorXd absent =
      Eigen::VectorXd::Constant(lines.inner_size, static_cast<double>(lines.outer_size));
  std::vector<Index> last(static_cast<std::size_t>(lines.inner_size), -1);
  double total = 0;
  for (Index u = 0; u < lines.outer_size; ++u) {
    for (Index e = lines.begin(u); e < lines.end(u); ++e)
      row[static_cast<Index>(lines.inner[e])] += double{lines.values[e]};
    for (Index e = lines.begin(u); e < lines.end(u); ++e) {
      const auto j = static_cast<Index>(lines.inner[e]);
      if (std::exchange(last[static_cast<std::size_t>(j)], u) == u) continue;
      total += (row[j] - mean[j]) * (row[j] - mean[j]);
      row[j] = 0;
      absent[j] -= 1;
    }
  }
  return total + absent.dot(mean.cwiseAbs2());
}

/// Means of columns. Each is summed as differences from the column's first element: equal elements
/// have exactly themselves as mean, however many there are, and no sum leaves the range of double
/// unless the squares of its terms do.
template <StorageScalar S>
Eigen::VectorXd column_means(TensorView<const S, 2> x) {
  const auto value = [&](Index i, Index j) {
    return static_cast<double>(static_cast<compute_t<S>>(x(i, j)));
  };
  Eigen::VectorXd above = Eigen::VectorXd::Zero(x.cols());
  for (Index i = 1; i < x.rows(); ++i)
    for (Index j = 0; j < x.cols(); ++j) above[j] += value(i, j) - value(0, j);
  for (Index j = 0; j < x.cols(); ++j)
    above[j] = value(0, j) + above[j] / static_cast<double>(x.rows());
  return above;
}

/// X - 1 mean^T in its compute type.
template <StorageScalar S>
RowMatrix<compute_t<S>> centred_rows(const char* function, TensorView<const S, 2> x,
                                     const Eigen::VectorXd& mean) {
  using T = compute_t<S>;
  RowMatrix<T> centred(x.rows(), x.cols());
  for (Index i = 0; i < x.rows(); ++i)
    for (Index j = 0; j < x.cols(); ++j) {
      const double rest = static_cast<double>(static_cast<T>(x(i, j))) - mean[j];
      check(std::abs(rest) <= double{std::numeric_limits<T>::max()}, function, "x", rest,
            "differences from the mean within the range of their scalar");
      centred(i, j) = static_cast<T>(rest);
    }
  return centred;
}

template <class T>
CentredLowRank<T> constant_result(Index samples, Index features, const SvdOptions& options,
                                  Eigen::VectorXd mean) {
  return {zero_result<T>(samples, features, options), std::move(mean)};
}

/// The same for a sparse X by rows.
template <class B, class T, class I>
CentredLowRank<T> centred_sparse(const char* function, const B& backend,
                                 const CompressedView<T, I>& lines, const SvdOptions& options) {
  check_operator_options<T>(function, options, lines.outer_size, lines.inner_size);
  const double factor = sparse_factor(function, lines);
  const ScaledValues<T, I> scaled(lines, factor);
  const SparseOperator x(backend, scaled.view());
  const Eigen::VectorXd near = column_means(scaled.view());
  const CentredOperator centred(x, near, centred_energy(scaled.view(), near));
  Eigen::VectorXd mean = near / factor;
  // What is left of constant features is the rounding of their products.
  constexpr double unit = std::numeric_limits<T>::epsilon();
  if (centred.squared_norm() <= 16 * unit * unit * x.squared_norm())
    return constant_result<T>(x.rows(), x.cols(), options, std::move(mean));
  LowRank<T> factors = operator_svd(function, backend, centred, options, factor);
  return {std::move(factors), std::move(mean)};
}

PARE_ABI_END
}  // namespace detail
PARE_ABI_BEGIN

/// min over A [samples x k], B [k x features] of ||X - 1 mean^T - A B||_F.
///
/// \param backend left out: pare::simd
/// \param x       [samples x features], any dense Eigen matrix of float, double, bf16 or f16
/// \param options as of truncated_svd
/// \return the factors of X - 1 mean^T and the mean
/// \throws std::invalid_argument as truncated_svd, of X less the mean, or if a difference from the
///         mean is beyond the range of its scalar
///
/// Constant features leave exact zeros. Cost and determinism: those of truncated_svd. Memory: a
/// copy of X.
template <Backend B, In<2> X>
auto centred_svd(const B& backend, const X& x, const SvdOptions& options) {
  using T = compute_t<scalar_of<X>>;
  constexpr const char* function = "factor::centred_svd";
  const auto view = as_const(to_view(x));
  check_view(function, "x", view);
  check(view.rows() >= 1 && view.cols() >= 1, function, "x", view.extent, "extents of at least 1");
  validate(function, options, view.rows(), view.cols());
  detail::check_finite(function, "x", view);
  Eigen::VectorXd mean = detail::column_means(view);
  const RowMatrix<T> centred = detail::centred_rows(function, view, mean);
  auto factors =
      detail::factorize_views(function, backend, const_view(centred), Uniform{}, options);
  return CentredLowRank<T>{std::move(factors), std::move(mean)};
}

/// The same for a sparse matrix of float or double, which stays sparse. Products are rounded before
/// the mean is subtracted from them. If the mean is more than 1e6 deviations (1e14 in double), the
/// excess is therefore above what the accuracy promises, or X is refused; a dense X has no such
/// limit.
/// \throws std::invalid_argument as truncated_svd of a sparse matrix
template <Backend B, SparseIn X>
auto centred_svd(const B& backend, const X& x, const SvdOptions& options) {
  constexpr const char* function = "factor::centred_svd";
  const auto lines = to_compressed(x);
  check_compressed(function, "x", lines);
  check(x.rows() >= 1 && x.cols() >= 1, function, "x", std::array<Index, 2>{x.rows(), x.cols()},
        "extents of at least 1");
  if constexpr (!KernelBackend<B>) {
    RowMatrix<sparse_scalar_of<X>> dense = RowMatrix<sparse_scalar_of<X>>::Zero(x.rows(), x.cols());
    dense += x;
    return centred_svd(backend, dense, options);
  } else if constexpr (bool(X::IsRowMajor)) {
    return detail::centred_sparse(function, on_any_executor(backend), lines, options);
  } else {
    const linalg::SparseTranspose rows(lines);
    return detail::centred_sparse(function, on_any_executor(backend), rows.view(), options);
  }
}

/// \overload
template <class X>
requires In<X, 2> || SparseIn<X>
auto centred_svd(const X& x, const SvdOptions& options) {
  return centred_svd(simd, x, options);
}

PARE_ABI_END
}  // namespace pare::factor

#include <pare/core/macros_on.hpp>
