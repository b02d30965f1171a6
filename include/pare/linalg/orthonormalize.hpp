// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Orthonormal columns for tall matrices, by Cholesky decomposition of their Gram matrix.
///
/// ```cpp
/// RowMatrix<float> y = ...;                        // [rows x cols], rows >= cols
/// orthonormalize(pare::simd.threads(4), y, 7);     // y^T y = I
/// ```
///
/// The Gram matrix is summed in double, and its columns are first scaled to unit length. The
/// decomposition so holds up to condition numbers of about 1e6 of float data; in float it would
/// fail at 4e3. Beyond that, columns are first turned to their principal directions, and those that
/// are only rounding are replaced by random ones.

#include <pare/core/macros_off.hpp>

#include <pare/core/backend.hpp>
#include <pare/core/matrix.hpp>
#include <pare/linalg/gaussian.hpp>
#include <pare/linalg/multiply.hpp>
#include <pare/linalg/symmetric_eigen.hpp>

#include <Eigen/Cholesky>
#include <Eigen/Core>

#include <cmath>
#include <cstdint>
#include <limits>

namespace pare::linalg {
PARE_ABI_BEGIN

/// A^T B, or only A^T A when both are one matrix, summed in double.
template <class B, class T>
RowMatrix<double> inner_products(const B& backend, const RowMatrix<T>& a, const RowMatrix<T>& b) {
  RowMatrix<double> out(a.cols(), b.cols());
  multiply(backend, transpose(const_view(a)), const_view(b), to_view(out), {.half = Half::Lower});
  mirror_lower(backend, to_view(out));
  return out;
}

/// y <- y R for an upper triangular R, whose zeros are skipped block by block.
template <class B, class T>
void multiply_upper(const B& backend, RowMatrix<T>& y, const Eigen::MatrixXd& upper,
                    RowMatrix<T>& scratch) {
  constexpr Index block = 256;
  const RowMatrix<T> factor = row_matrix<T>(as_const(to_view(upper)));
  scratch.resize(y.rows(), upper.cols());
  for (Index begin = 0; begin < upper.cols(); begin += block) {
    const Index count = std::min(block, upper.cols() - begin);
    const Index depth = std::min(begin + count, upper.rows());
    multiply(backend, columns_of(const_view(y), 0, depth),
             columns_of(rows_of(const_view(factor), 0, depth), begin, count),
             columns_of(to_view(scratch), begin, count));
  }
  y.swap(scratch);
}

/// 1 over the length of each column whose Gram matrix this is; 0 for a column of zeros.
template <class = void>
Eigen::VectorXd reciprocal_lengths(const RowMatrix<double>& gram) {
  Eigen::VectorXd scale(gram.rows());
  for (Index i = 0; i < scale.size(); ++i)
    scale[i] = gram(i, i) > 0.0 ? 1.0 / std::sqrt(gram(i, i)) : 0.0;
  return scale;
}

/// The Gram matrix of columns times `scale`.
template <class = void>
Eigen::MatrixXd scaled_gram(const RowMatrix<double>& gram, const Eigen::VectorXd& scale) {
  Eigen::MatrixXd scaled(gram.rows(), gram.cols());
  for (Index j = 0; j < gram.cols(); ++j)
    for (Index i = 0; i < gram.rows(); ++i) scaled(i, j) = scale[i] * gram(i, j) * scale[j];
  return scaled;
}

/// The upper triangular R of orthonormal columns Y R, from the Gram matrix of Y; empty if some
/// column depends on others as far as double can tell.
template <class = void>
Eigen::MatrixXd inverse_cholesky_factor(const RowMatrix<double>& gram) {
  const Index size = gram.rows();
  const Eigen::VectorXd scale = reciprocal_lengths(gram);
  for (const double factor : scale)
    if (!(factor > 0.0)) return {};
  const Eigen::LLT<Eigen::MatrixXd> cholesky(scaled_gram(gram, scale));
  if (cholesky.info() != Eigen::Success) return {};
  for (Index i = 0; i < size; ++i)
    if (!(cholesky.matrixLLT()(i, i) > 1e-6)) return {};
  Eigen::MatrixXd inverse = Eigen::MatrixXd::Zero(size, size);
  for (Index i = 0; i < size; ++i) inverse(i, i) = 1;
  cholesky.matrixU().solveInPlace(inverse);
  for (Index j = 0; j < size; ++j)
    for (Index i = 0; i < size; ++i) inverse(i, j) = scale[i] * inverse(i, j);
  return inverse;
}

/// The number of columns of y that hold more than the rounding of combinations of `size` unit
/// vectors; the first `kept` are known to.
template <class T>
Index columns_beyond_rounding(const RowMatrix<T>& y, Index kept, Index size) {
  const double least = 8 * std::numeric_limits<T>::epsilon() * std::sqrt(static_cast<double>(size));
  while (kept < size && y.col(kept).template cast<double>().norm() > least) ++kept;
  return kept;
}

/// Columns that turn others to the principal directions of their Gram matrix, each times what makes
/// it a unit vector.
struct PrincipalDirections {
  Eigen::MatrixXd turn;
  Index kept = 0;  ///< columns that are more than rounding, the first
};

template <class B>
PrincipalDirections principal_directions(const B& backend, const RowMatrix<double>& gram) {
  const Index size = gram.rows();
  const Eigen::VectorXd scale = reciprocal_lengths(gram);
  const SymmetricEigen eigen = symmetric_eigen(backend, scaled_gram(gram, scale));
  const double largest = eigen.values[size - 1];
  PrincipalDirections directions{Eigen::MatrixXd(size, size)};
  Index& kept = directions.kept;
  while (kept < size && eigen.values[size - 1 - kept] > 1e-11 * largest) ++kept;
  for (Index j = 0; j < size; ++j) {
    const Index from = size - 1 - j;
    for (Index i = 0; i < size; ++i) {
      const double turn = eigen.vectors(i, from) * scale[i];
      directions.turn(i, j) = j < kept ? turn / std::sqrt(eigen.values[from]) : turn;
    }
  }
  return directions;
}

/// Columns of Y turned to the eigenvectors of their Gram matrix, which separates small directions
/// from the large ones that hide them; those that are rounding become random ones.
template <class B, class T>
void replace_dependent_columns(const B& backend, RowMatrix<T>& y, const RowMatrix<double>& gram,
                               std::uint64_t seed, RowMatrix<T>& scratch) {
  const PrincipalDirections directions = principal_directions(backend, gram);
  const RowMatrix<T> factor = row_matrix<T>(as_const(to_view(directions.turn)));
  scratch.resize(y.rows(), factor.cols());
  multiply(backend, const_view(y), const_view(factor), to_view(scratch));
  y.swap(scratch);
  fill_normal(backend.executor, seed, columns_beyond_rounding(y, directions.kept, y.cols()), y);
}

/// Makes the columns of y [rows x cols], rows >= cols, orthonormal. The error is the unit roundoff
/// of T times the condition number of y, and that of double times its square (Yamamoto et al. 2015,
/// Roundoff error analysis of the CholeskyQR2 algorithm). Columns that depend on others are
/// replaced by random ones of `seed`. The bits are the same for any number of threads.
///
/// \param scratch of any size and content; both change
///
/// Cost: 3 rows cols^2 FLOPs, a third of them in double. Memory: `scratch` becomes as large as y,
/// and cols^2 doubles.
template <class B, class T>
void orthonormalize(const B& backend, RowMatrix<T>& y, std::uint64_t seed, RowMatrix<T>& scratch) {
  constexpr int attempts = 4;
  for (int attempt = 0; attempt < attempts; ++attempt) {
    const RowMatrix<double> gram = inner_products(backend, y, y);
    const Eigen::MatrixXd inverse = inverse_cholesky_factor(gram);
    if (inverse.rows() == y.cols()) return multiply_upper(backend, y, inverse, scratch);
    replace_dependent_columns(backend, y, gram, seed + static_cast<std::uint64_t>(attempt) + 1,
                              scratch);
  }
}

/// The same with scratch from the backend's workspace.
template <class B, class T>
void orthonormalize(const B& backend, RowMatrix<T>& y, std::uint64_t seed) {
  const auto scratch = leased<RowMatrix<T>>(backend);
  orthonormalize(backend, y, seed, *scratch);
}

PARE_ABI_END
}  // namespace pare::linalg

#include <pare/core/macros_on.hpp>
