// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// The definition of the closed forms: a full singular value decomposition in double.
///
/// What has no scalar to depend on is a template all the same, so that Eigen's decompositions are
/// compiled only where they are called.

#include <pare/core/check.hpp>
#include <pare/core/scalar.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/factor/detail/reference_matrix.hpp>
#include <pare/factor/low_rank.hpp>
#include <pare/factor/metric.hpp>
#include <pare/factor/options.hpp>
#include <pare/linalg/symmetric_eigen.hpp>

#include <Eigen/Core>
#include <Eigen/Jacobi>
#include <Eigen/QR>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <span>
#include <type_traits>
#include <utility>
#include <vector>

namespace pare::factor::detail {
PARE_ABI_BEGIN

/// U S V^T, thin, with singular values that do not increase.
struct ReferenceSvd {
  Eigen::MatrixXd u;
  Eigen::VectorXd s;
  Eigen::MatrixXd v;
};

/// Rotates pairs of columns of X until all are orthogonal, and the columns of V with them: X V
/// stays what it was.
///
/// One-sided Jacobi: each pair is turned by the angle that makes it orthogonal, until every
/// |x_i . x_j| <= 8 epsilon |x_i| |x_j| (Demmel and Veselic, Jacobi's method is more accurate than
/// QR, 1992). 60 sweeps are many times what any matrix needs.
template <class = void>
void make_columns_orthogonal(Eigen::MatrixXd& x, Eigen::MatrixXd& v) {
  bool rotated = true;
  for (int sweep = 0; rotated && sweep < 60; ++sweep) {
    rotated = false;
    for (Index i = 0; i < x.cols(); ++i)
      for (Index j = i + 1; j < x.cols(); ++j) {
        const double a = x.col(i).squaredNorm(), b = x.col(j).squaredNorm();
        const double c = x.col(i).dot(x.col(j));
        if (std::abs(c) <= 8 * std::numeric_limits<double>::epsilon() * std::sqrt(a) * std::sqrt(b))
          continue;
        rotated = true;
        Eigen::JacobiRotation<double> turn;
        turn.makeJacobi(a, c, b);
        x.applyOnTheRight(i, j, turn);
        v.applyOnTheRight(i, j, turn);
      }
  }
}

/// X <- Q X for the reflections of a QR decomposition, one after the other: in blocks, as
/// householderQ() applies them, they took 6 s of compilation wherever a factorization is called. A
/// copy of them has the types of the decomposition itself, so that what applies them is compiled
/// once.
template <class = void>
void apply_reflections(const Eigen::ColPivHouseholderQR<Eigen::MatrixXd>& qr, Eigen::MatrixXd& x) {
  const Index rows = x.rows();
  Eigen::MatrixXd reflections = qr.matrixQR();
  Eigen::VectorXd scratch(x.cols());
  for (Index k = qr.hCoeffs().size() - 1; k >= 0; --k)
    x.bottomRightCorner(rows - k, x.cols())
        .applyHouseholderOnTheLeft(reflections.col(k).tail(rows - k - 1), qr.hCoeffs()[k],
                                   scratch.data());
}

/// What is 1 where the row is the column plus `first`, and 0 elsewhere.
template <class = void>
Eigen::MatrixXd unit_columns(Index rows, Index cols, Index first = 0) {
  Eigen::MatrixXd m = Eigen::MatrixXd::Zero(rows, cols);
  for (Index k = 0; k < std::min(rows - first, cols); ++k) m(first + k, k) = 1;
  return m;
}

/// Turns columns of V from `rank` on, which are those of the identity, into what completes the
/// orthonormal ones before them.
template <class = void>
void complete_columns(Eigen::MatrixXd& v, Index rank) {
  const Index n = v.rows();
  if (rank == 0 || rank == n) return;
  Eigen::MatrixXd known(n, rank), rest = unit_columns(n, n - rank, rank);
  std::copy_n(v.data(), known.size(), known.data());
  apply_reflections(Eigen::ColPivHouseholderQR<Eigen::MatrixXd>(std::as_const(known)), rest);
  std::copy_n(rest.data(), rest.size(), v.data() + n * rank);
}

/// The columns in descending order of their lengths, equal ones as they stand.
template <class = void>
std::vector<Index> order_of_lengths(const Eigen::VectorXd& length) {
  std::vector<Index> order;
  for (Index k = 0; k < length.size(); ++k) {
    std::size_t at = order.size();
    order.push_back(k);
    for (; at > 0 && length[order[at - 1]] < length[k]; --at) order[at] = order[at - 1];
    order[at] = k;
  }
  return order;
}

/// C += factor A B by Eigen's kernel itself: the expression compiles six ways to multiply besides.
template <class = void>
void add_product(double factor, const Eigen::MatrixXd& a, const Eigen::MatrixXd& b,
                 Eigen::MatrixXd& c) {
#if EIGEN_VERSION_AT_LEAST(3, 4, 90)
  c.noalias() += factor * a * b;
#else
  using Product =
      Eigen::internal::general_matrix_matrix_product<Index, double, Eigen::ColMajor, false, double,
                                                     Eigen::ColMajor, false, Eigen::ColMajor, 1>;
  Eigen::internal::gemm_blocking_space<Eigen::ColMajor, double, double, Eigen::Dynamic,
                                       Eigen::Dynamic, Eigen::Dynamic>
      blocking(c.rows(), c.cols(), a.cols(), 1, true);
  Product::run(c.rows(), c.cols(), a.cols(), a.data(), a.rows(), b.data(), b.rows(), c.data(), 1,
               c.rows(), factor, blocking, nullptr);
#endif
}

/// V <- 3/2 V - 1/2 V V^T V, a step of Newton and Schulz: takes away what thousands of rotations
/// left of rounding.
template <class = void>
void orthonormalize_again(Eigen::MatrixXd& v) {
  const Index n = v.cols();
  Eigen::MatrixXd gram = Eigen::MatrixXd::Zero(n, n), next(n, n), turned(n, n);
  for (Index i = 0; i < v.size(); ++i) next.data()[i] = 1.5 * v.data()[i];
  for (Index j = 0; j < n; ++j)
    for (Index i = 0; i < n; ++i) turned(i, j) = v(j, i);
  constexpr Index small = 6;  // up to which packing would take longer than the products
  if (n > small) {
    add_product(1.0, turned, v, gram);
    add_product(-0.5, v, gram, next);
  } else {
    for (Index j = 0; j < n; ++j)
      for (Index i = 0; i < n; ++i) gram(i, j) = v.col(i).dot(v.col(j));
    for (Index j = 0; j < n; ++j)
      for (Index i = 0; i < n; ++i) {
        double sum = 0;
        for (Index k = 0; k < n; ++k) sum += v(i, k) * gram(k, j);
        next(i, j) -= 0.5 * sum;
      }
  }
  v.swap(next);
}

/// The decomposition of M [rows x cols] with rows >= cols and elements of about 1: M P = Q R, then
/// R^T V = U S by rotations, which converge the faster for being applied to R^T (Drmac and Veselic,
/// New fast and accurate Jacobi SVD algorithm, 2008). Rows of R that are rounding are 0, and take
/// any orthonormal vectors.
template <class = void>
ReferenceSvd reference_tall_svd(const Eigen::MatrixXd& m) {
  const Index n = m.cols();
  const Eigen::ColPivHouseholderQR<Eigen::MatrixXd> qr(m);
  const Eigen::MatrixXd& r = qr.matrixQR();
  Index rank = 0;
  for (Index k = 0; k < n; ++k)
    if (std::abs(r(k, k)) > std::numeric_limits<double>::epsilon() * std::abs(r(0, 0))) ++rank;
  Eigen::MatrixXd x = Eigen::MatrixXd::Zero(n, rank), v = unit_columns(rank, rank);
  for (Index k = 0; k < rank; ++k)
    for (Index j = k; j < n; ++j) x(j, k) = r(k, j);
  make_columns_orthogonal(x, v);
  orthonormalize_again(v);
  Eigen::VectorXd length(rank);
  for (Index k = 0; k < rank; ++k) length[k] = std::sqrt(x.col(k).squaredNorm());
  const std::vector<Index> order = order_of_lengths(length);
  ReferenceSvd svd{unit_columns(m.rows(), n), Eigen::VectorXd::Zero(n), Eigen::MatrixXd(n, n)};
  Eigen::MatrixXd turned = unit_columns(n, n);
  for (Index k = 0; k < rank; ++k) {
    const Index from = order[static_cast<std::size_t>(k)];
    svd.s[k] = length[from];
    for (Index i = 0; i < rank; ++i) svd.u(i, k) = v(i, from);
    for (Index i = 0; i < n; ++i) turned(i, k) = x(i, from) / length[from];
  }
  apply_reflections(qr, svd.u);
  complete_columns(turned, rank);
  for (Index i = 0; i < n; ++i)
    for (Index k = 0; k < n; ++k) svd.v(qr.colsPermutation().indices()[i], k) = turned(i, k);
  return svd;
}

/// By Jacobi's rotations written out: Eigen 3.4.0's divide and conquer loses vectors of repeated
/// singular values, or reads out of bounds.
template <class = void>
ReferenceSvd reference_svd(const Eigen::MatrixXd& m) {
  double largest = 0;
  for (Index i = 0; i < m.size(); ++i) largest = std::max(largest, std::abs(m.data()[i]));
  const int exponent = largest > 0 ? std::ilogb(largest) : 0;
  const bool tall = m.rows() >= m.cols();
  Eigen::MatrixXd scaled(std::max(m.rows(), m.cols()), std::min(m.rows(), m.cols()));
  for (Index j = 0; j < m.cols(); ++j)
    for (Index i = 0; i < m.rows(); ++i)
      (tall ? scaled(i, j) : scaled(j, i)) = std::ldexp(m(i, j), -exponent);
  ReferenceSvd svd = reference_tall_svd(scaled);
  if (!tall) svd.u.swap(svd.v);
  for (double& value : svd.s) value = std::ldexp(value, exponent);
  return svd;
}

/// The eigenvalues of C before damping, none below 0, and its ridge beside them.
struct ReferenceCovariance {
  Eigen::VectorXd values;
  Eigen::MatrixXd vectors;
  double ridge = 0;

  /// C^(1/2), symmetric.
  template <class = void>
  Eigen::MatrixXd root() const {
    return vectors * (values.array() + ridge).sqrt().matrix().asDiagonal() * vectors.transpose();
  }

  /// Eigenvalues that are 0 but for rounding.
  template <class = void>
  double cut() const {
    return static_cast<double>(values.size()) * std::numeric_limits<double>::epsilon() *
           (values.maxCoeff() + ridge);
  }
  template <class = void>
  Index null_directions() const {
    return (values.array() + ridge <= cut()).count();
  }

  /// C^-power on the range of C and 0 on its null space.
  template <class = void>
  Eigen::MatrixXd inverse(double power) const {
    const auto invert = [&](double value) {
      return value + ridge > cut() ? std::pow(value + ridge, -power) : 0.0;
    };
    return vectors * values.unaryExpr(invert).asDiagonal() * vectors.transpose();
  }
};

/// \throws std::invalid_argument if C is not positive semi-definite.
template <class T>
ReferenceCovariance reference_covariance(const char* function, const char* name,
                                         const CovarianceView<T>& c) {
  const Eigen::MatrixXd matrix = reference_matrix(c.matrix);
  const auto eigen = linalg::symmetric_eigen(reference, (matrix + matrix.transpose()) / 2);
  const Eigen::VectorXd& values = eigen.values;
  check_semi_definite(function, name, values.minCoeff(), values.maxCoeff());
  return {values.cwiseMax(0.0), eigen.vectors, c.ridge};
}

/// sqrt(weights) on a diagonal [n x n]; the identity without weights.
template <class = void>
Eigen::MatrixXd reference_weight_root(std::span<const double> weights, Index n) {
  Eigen::VectorXd root = Eigen::VectorXd::Ones(n);
  if (!weights.empty()) root = Eigen::Map<const Eigen::VectorXd>(weights.data(), n).cwiseSqrt();
  return root.asDiagonal();
}

/// R of the metric, [n x n].
template <Metric M>
Eigen::MatrixXd reference_input_root(const char* function, const M& metric, Index n) {
  const auto covariance = metric.input_covariance();
  if (covariance.empty()) return reference_weight_root(metric.input_weights(), n);
  return reference_covariance(function, "input_covariance", covariance).root();
}

/// The rank that the options ask for, given all singular values and the squared error that no rank
/// takes away.
template <class = void>
Index reference_rank(const Eigen::VectorXd& s, double floor, const SvdOptions& options) {
  Index rank = std::min(rank_limit(options, s.size(), s.size()), s.size());
  if (!options.tolerance) return rank;
  const double allowed =
      *options.tolerance * *options.tolerance * (s.tail(s.size()).squaredNorm() + floor);
  while (rank > 1 && s.tail(s.size() - rank + 1).squaredNorm() + floor <= allowed) --rank;
  return rank;
}

/// 1 / s, and 0 where s is 0 but for the rounding of a decomposition of [rows x cols].
template <class = void>
Eigen::VectorXd reference_reciprocal(const Eigen::VectorXd& s, Index rows, Index cols) {
  const double cut =
      static_cast<double>(std::max(rows, cols)) * std::numeric_limits<double>::epsilon() * s(0);
  return s.unaryExpr([&](double value) { return value > cut ? 1 / value : 0.0; });
}

/// Moves the singular values s from the factor that carries them to the one that shall.
template <class = void>
void reference_split(Eigen::MatrixXd& left, Eigen::MatrixXd& right, const Eigen::VectorXd& s,
                     Split from, Split to) {
  if (to == Split::Natural || to == from) return;
  Eigen::VectorXd moved = s, back = reference_reciprocal(s, left.rows(), right.cols());
  if (to == Split::Both) {
    moved = moved.cwiseSqrt().eval();
    back = back.cwiseSqrt().eval();
  }
  left = (left * (from == Split::Left ? back : moved).asDiagonal()).eval();
  right = ((from == Split::Left ? moved : back).asDiagonal() * right).eval();
}

/// Turns the signs of pairs of columns and rows to what is asked for.
template <class T>
void set_signs(LowRank<T>& result, Signs signs) {
  if (signs == Signs::AsFound) return;
  for (Index k = 0; k < result.rank(); ++k) {
    Index at = 0;
    for (Index j = 1; j < result.right.cols(); ++j)
      if (std::abs(result.right(k, j)) > std::abs(result.right(k, at))) at = j;
    if (!(result.right(k, at) < 0)) continue;
    for (Index j = 0; j < result.right.cols(); ++j) result.right(k, j) = -result.right(k, j);
    for (Index i = 0; i < result.left.rows(); ++i) result.left(i, k) = -result.left(i, k);
  }
}

/// Refuses a result whose factors left the range of T.
template <class T>
void check_factors(const char* function, const LowRank<T>& result) {
  for (const RowMatrix<T>* m : {&result.left, &result.right})
    for (Index i = 0; i < m->size(); ++i)
      check(is_finite(double{m->data()[i]}), function, "w", double{m->data()[i]},
            "factors within the range of their scalar, or a split that keeps them there");
}

/// The result with factors A B, the first k of the singular values s, and the squared error that
/// no rank takes away.
template <ComputeScalar T>
LowRank<T> reference_result(const char* function, const Eigen::MatrixXd& left,
                            const Eigen::MatrixXd& right, const Eigen::VectorXd& s, double floor) {
  const Index k = left.cols();
  LowRank<T> result;
  result.left = left.cast<T>();
  result.right = right.cast<T>();
  result.singular_values = s.head(k);
  result.captured_energy = s.head(k).squaredNorm();
  result.total_energy = s.squaredNorm() + floor;
  check_factors(function, result);
  const double rest = s.tail(s.size() - k).squaredNorm() + floor;
  if (rest <= (std::is_same_v<T, float> ? 1e-4 : 1e-10) * result.total_energy)
    result.measured_error = std::sqrt(rest);
  // Of the factors in T, and of the decomposition in double.
  const double rounding = double{std::numeric_limits<T>::epsilon()} +
                          static_cast<double>(k + 4) * std::numeric_limits<double>::epsilon();
  result.error_bound = std::sqrt(rest) + rounding * std::sqrt(result.total_energy);
  return result;
}

/// Refuses a W whose energy in the metric is beyond double on either side.
template <class = void>
void check_energy(const char* function, const Eigen::MatrixXd& m) {
  const double energy = m.squaredNorm();
  check(is_finite(energy), function, "w", energy, "a squared norm in the metric that is finite");
  check(energy >= least_energy || m.isZero(0), function, "w", energy,
        "a squared norm in the metric of 0 or at least 1e-292");
}

/// min over rank k of ||D (W - A B) R||_F with the factors of metric.hpp.
/// \throws std::invalid_argument as check_factorize, and if a covariance is indefinite.
template <StorageScalar S, Metric M>
LowRank<compute_t<S>> reference_factorize(const char* function, TensorView<const S, 2> weight,
                                          const M& metric, const SvdOptions& options) {
  check_factorize(function, weight, metric, options);
  const Eigen::MatrixXd w = reference_matrix(weight);
  const Eigen::MatrixXd d = reference_weight_root(metric.output_weights(), w.rows());
  const Eigen::MatrixXd r = reference_input_root(function, metric, w.cols());
  const Eigen::MatrixXd weighted = d * w * r;
  check_energy(function, weighted);
  const ReferenceSvd svd = reference_svd(weighted);
  const Index k = reference_rank(svd.s, 0, options);
  const auto u = svd.u.leftCols(k);
  const auto v = svd.v.leftCols(k);
  const Eigen::VectorXd s = svd.s.head(k);

  const bool outputs = !metric.output_weights().empty();
  const bool inputs = !metric.input_weights().empty() || !metric.input_covariance().empty();
  Eigen::MatrixXd left, right;
  if (!inputs) {
    left = w * v;
    right = v.transpose();
  } else if (!outputs) {
    left = u;
    right = u.transpose() * w;
  } else {
    left = w * r * v * reference_reciprocal(s, w.rows(), w.cols()).asDiagonal();
    right = u.transpose() * d * w;
  }
  reference_split(left, right, s, inputs ? Split::Right : Split::Left, options.split);
  auto result = reference_result<compute_t<S>>(function, left, right, svd.s, 0);
  set_signs(result, options.signs);
  return result;
}

PARE_ABI_END
}  // namespace pare::factor::detail
