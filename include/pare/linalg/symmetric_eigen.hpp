// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Eigenvalues and eigenvectors of a symmetric matrix, A = V diag(lambda) V^T.
///
/// ```cpp
/// const auto eigen = symmetric_eigen(a);                   // Eigen::MatrixXd, its lower half
/// eigen.values[eigen.values.size() - 1];                   // the largest
/// const auto basis = eigen.leading<float>(rank);           // [n x rank], the largest first
/// const auto few = symmetric_eigen(pare::simd.threads(2), a, rank);  // vectors of the largest
/// const auto top = leading_eigen(pare::simd, const_view(g), rank);   // g of float: in float
/// ```
///
/// The matrix is reduced to a tridiagonal one by Householder reflections. That is diagonalised by
/// implicit QR steps (Golub and Van Loan, Matrix Computations, 8.3) in the reference and for small
/// matrices, which has the bits of Eigen::SelfAdjointEigenSolver, and by divide and conquer on
/// kernels (detail/divide_and_conquer.hpp), which is 2 times as fast at 384 rows and 3.3 at 1536 on
/// one thread of a Zen 5, where g++ vectorises Eigen's (-O3), and in float twice that. With Eigen
/// 3.4 only the functions of Eigen's that run are compiled, not the blocked reflections that its
/// class compiles too, at a third of the compile time; in Eigen 5 those functions changed, and the
/// class is called.

#include <pare/core/macros_off.hpp>

#include <pare/core/aligned_buffer.hpp>
#include <pare/core/backend.hpp>
#include <pare/core/check.hpp>
#include <pare/core/executor_ref.hpp>
#include <pare/core/matrix.hpp>
#include <pare/linalg/detail/divide_and_conquer.hpp>
#include <pare/linalg/detail/tridiagonalize.hpp>

#include <Eigen/Core>
#include <Eigen/Eigenvalues>

#include <algorithm>
#include <array>
#include <cmath>
#include <optional>
#include <type_traits>
#include <utility>

namespace pare::linalg {

PARE_ABI_BEGIN

/// Eigenvalues that do not decrease, and their vectors.
struct SymmetricEigen {
  Eigen::VectorXd values;   ///< [n]
  Eigen::MatrixXd vectors;  ///< [n x vectors], the last column belongs to the last value, and so on

  /// The vectors of the `rank` largest values, the largest first; `rank` is at most their number.
  template <class T>
  RowMatrix<T> leading(Index rank) const {
    RowMatrix<T> basis(vectors.rows(), rank);
    for (Index i = 0; i < basis.rows(); ++i)
      for (Index k = 0; k < rank; ++k)
        basis(i, k) = static_cast<T>(vectors(i, vectors.cols() - 1 - k));
    return basis;
  }

  /// The `rank` largest values, the largest first, none below 0.
  Eigen::VectorXd leading_values(Index rank) const {
    Eigen::VectorXd leading(rank);
    for (Index k = 0; k < rank; ++k) leading[k] = std::max(values[values.size() - 1 - k], 0.0);
    return leading;
  }
};

PARE_ABI_END

namespace detail {
PARE_ABI_BEGIN

#if EIGEN_VERSION_AT_LEAST(3, 4, 90)
/// The eigenvalues of the matrix `v`, whose eigenvectors take its place.
template <class = void>
void diagonalize(Eigen::VectorXd& values, Eigen::MatrixXd& v) {
  const Eigen::SelfAdjointEigenSolver<Eigen::MatrixXd> eigen(v);
  values = eigen.eigenvalues();
  v = eigen.eigenvectors();
}
#else
/// Turns the reflections that reduced a matrix to a tridiagonal one into their product.
template <class = void>
void accumulate_reflections(Eigen::MatrixXd& v, const Eigen::VectorXd& coefficients) {
  const Index n = v.rows();
  Eigen::VectorXd scratch(n);
  for (Index j = 0; j < n; ++j) {
    v(j, j) = 1;
    for (Index i = 0; i < j; ++i) v(i, j) = 0;
  }
  for (Index k = n - 2; k >= 0; --k) {
    const Index size = n - 1 - k;
    v.bottomRightCorner(size, size)
        .applyHouseholderOnTheLeft(v.col(k).tail(size - 1), coefficients[k], scratch.data());
    for (Index i = k + 1; i < n; ++i) v(i, k) = 0;
  }
}

/// The eigenvalues of the matrix `v`, of at least two rows, whose eigenvectors take its place.
template <class = void>
void diagonalize(Eigen::VectorXd& values, Eigen::MatrixXd& v) {
  const Index n = v.rows();
  double largest = 0;
  for (Index j = 0; j < n; ++j)
    for (Index i = j; i < n; ++i) largest = std::max(largest, std::abs(v(i, j)));
  const double scale = largest == 0 ? 1.0 : largest;
  for (Index j = 0; j < n; ++j)
    for (Index i = j; i < n; ++i) v(i, j) /= scale;
  Eigen::VectorXd coefficients(n - 1), below(n - 1);
  Eigen::internal::tridiagonalization_inplace(v, coefficients);
  for (Index i = 0; i < n; ++i) values[i] = v(i, i);
  for (Index i = 0; i + 1 < n; ++i) below[i] = v(i + 1, i);
  accumulate_reflections(v, coefficients);
  constexpr Index steps_per_value = 30;
  Eigen::internal::computeFromTridiagonal_impl(values, below, steps_per_value, true, v);
  for (double& value : values) value *= scale;
}
#endif

/// On the calling thread. Cost: about 9 n^3 FLOPs. Memory: the result.
template <class = void>
SymmetricEigen plain_eigen(Eigen::MatrixXd a) {
  SymmetricEigen result{Eigen::VectorXd(a.rows()), std::move(a)};
  if (result.values.size() > 1) {
    detail::diagonalize(result.values, result.vectors);
  } else {
    result.values[0] = result.vectors(0, 0);
    result.vectors(0, 0) = 1;
  }
  return result;
}

/// Up to so many rows the reference is as fast.
inline constexpr Index blocked_eigen_rows = 64;

template <class T>
struct EigenMemory {
  TridiagonalMemory<T> reduction;
  ConquerMemory<T> conquer;
  ReflectionMemory<T> reflections;
};

/// The largest element of the lower half, in size; 1 for a matrix of zeros.
template <class T>
T scale_of_lower(TensorView<const T, 2> a) {
  const bool by_rows = a.stride[1] == 1;
  T largest = 0;
  for (Index i = 0; i < a.rows(); ++i)
    for (Index j = by_rows ? 0 : i; j < (by_rows ? i + 1 : a.rows()); ++j)
      largest = std::max(largest, std::abs(by_rows ? a(i, j) : a(j, i)));
  return largest == 0 ? T(1) : largest;
}

PARE_ABI_END
}  // namespace detail

PARE_ABI_BEGIN

/// Eigenvalues that do not increase, and the vectors of the first.
template <ComputeScalar T>
struct LeadingEigen {
  Eigen::VectorXd values;  ///< [n]
  RowMatrix<T> vectors;    ///< [n x vectors]
};

/// How many vectors are wanted, given all n values, which do not increase: a number in [1, n].
using WantedVectors = detail::WantedVectors;

PARE_ABI_END
namespace detail {
PARE_ABI_BEGIN

/// What a caller wants of these values.
inline Index checked_wanted(const WantedVectors& wanted, const Eigen::VectorXd& values) {
  const Index vectors = wanted(values);
  check(vectors >= 1 && vectors <= values.size(), "linalg::leading_eigen", "wanted", vectors,
        Worded{"a number in [1, ", values.size(), "]"});
  return vectors;
}

template <class B, class T>
LeadingEigen<T> blocked_eigen(const B& backend, TensorView<const T, 2> a,
                              const WantedVectors& wanted) {
  const auto memory = leased<EigenMemory<T>>(backend);
  const T scale = scale_of_lower(a);
  const auto t = Tridiagonalization<B, T>(backend, a, scale, memory->reduction).run();
  const WantedVectors of_scaled = [&](const Eigen::VectorXd& values) {
    return checked_wanted(wanted, values * double{scale});
  };
  LeadingEigen<T> result;
  DivideAndConquer<B, T>(backend, t, of_scaled, memory->reduction.matrix, memory->conquer)
      .run(result.values, result.vectors);
  apply_reflections(backend, t, to_view(result.vectors), memory->reflections);
  for (double& value : result.values) value *= double{scale};
  return result;
}

/// By the reference, in double.
template <class T>
LeadingEigen<T> reference_leading(TensorView<const T, 2> a, const WantedVectors& wanted) {
  Eigen::MatrixXd lower(a.rows(), a.rows());
  for (Index j = 0; j < a.rows(); ++j)
    for (Index i = j; i < a.rows(); ++i) lower(i, j) = double{a(i, j)};
  const SymmetricEigen eigen = plain_eigen(std::move(lower));
  LeadingEigen<T> result{eigen.values.reverse(), {}};
  result.vectors = eigen.template leading<T>(checked_wanted(wanted, result.values));
  return result;
}

PARE_ABI_END
}  // namespace detail
PARE_ABI_BEGIN

/// The vectors of the largest values of a symmetric matrix of float or double, computed in its
/// scalar, on a backend.
///
/// \param a      [n x n], finite, rows or columns contiguous; what lies above the diagonal is not
///               read
/// \param wanted how many vectors: a function of all values, or a number in [1, n]
/// \return n values, and vectors that are orthogonal to a few roundings of T; values are off by a
///         few roundings of the largest
/// \throws std::invalid_argument if a is empty or not square, or a number is out of range
///
/// Cost, with v vectors: 4/3 n^3 FLOPs for the reduction, half of which read a matrix beyond L2 for
/// every 4 FLOPs of an element and bind; at most 4/3 n^3 to diagonalise, less where values are near
/// each other or v is small; 2 n^2 v to turn the vectors back. Memory, kept in the backend's
/// workspace: four and a half matrices of n^2 elements of T, and one in double. The bits are the
/// same for any number of threads. The reference, and up to 64 rows, computes in double.
template <Backend B, ComputeScalar T>
LeadingEigen<T> leading_eigen(const B& backend, TensorView<const T, 2> a,
                              const WantedVectors& wanted) {
  check(a.rows() > 0 && a.cols() == a.rows(), "linalg::leading_eigen", "a", a.extent,
        "a square matrix of at least one row");
  if constexpr (KernelBackend<B>)
    if (a.rows() > detail::blocked_eigen_rows)
      return detail::blocked_eigen(on_any_executor(backend), a, wanted);
  return detail::reference_leading(a, wanted);
}

/// \overload
template <Backend B, ComputeScalar T>
LeadingEigen<T> leading_eigen(const B& backend, TensorView<const T, 2> a, Index vectors) {
  check(vectors >= 1 && vectors <= a.rows(), "linalg::leading_eigen", "vectors", vectors,
        Worded{"a number in [1, ", a.rows(), "]"});
  return leading_eigen(backend, a, [=](const Eigen::VectorXd&) { return vectors; });
}

/// The decomposition of a symmetric matrix of finite numbers, with the vectors of the largest
/// values alone where fewer are asked for.
///
/// \param backend left out: pare::simd
/// \param a       [n x n], n at least 1; what lies above the diagonal is not read
/// \param vectors how many, in [1, n]; all if not given
/// \return n values, each off by a few roundings of the largest, and vectors that are orthogonal to
///         a few roundings
/// \throws std::invalid_argument if a is empty or not square, or `vectors` is out of range
///
/// Cost and memory: those of leading_eigen in double, and the result.
template <Backend B>
SymmetricEigen symmetric_eigen(const B& backend, Eigen::MatrixXd a,
                               std::optional<Index> vectors = std::nullopt) {
  const Index n = a.rows(), count = vectors.value_or(n);
  check(n > 0 && a.cols() == n, "linalg::symmetric_eigen", "a", std::array<Index, 2>{n, a.cols()},
        "a square matrix of at least one row");
  check(count >= 1 && count <= n, "linalg::symmetric_eigen", "vectors", count,
        Worded{"a number in [1, ", n, "]"});
  if (!KernelBackend<B> || n <= detail::blocked_eigen_rows) {
    SymmetricEigen result = detail::plain_eigen(std::move(a));
    if (count < n) result.vectors = result.vectors.rightCols(count).eval();
    return result;
  }
  const LeadingEigen<double> leading = leading_eigen(backend, as_const(to_view(a)), count);
  SymmetricEigen result{Eigen::VectorXd(n), std::move(a)};
  for (Index i = 0; i < n; ++i) result.values[i] = leading.values[n - 1 - i];
  result.vectors.resize(n, count);
  constexpr Index strip = 16;
  for (Index begin = 0; begin < n; begin += strip)
    for (Index j = 0; j < count; ++j)
      for (Index i = begin; i < std::min(begin + strip, n); ++i)
        result.vectors(i, j) = leading.vectors(i, count - 1 - j);
  return result;
}
/// \overload
template <class = void>
SymmetricEigen symmetric_eigen(Eigen::MatrixXd a, std::optional<Index> vectors = std::nullopt) {
  return symmetric_eigen(simd, std::move(a), vectors);
}

PARE_ABI_END
}  // namespace pare::linalg

#include <pare/core/macros_on.hpp>
