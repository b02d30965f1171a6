// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Whether a symmetric matrix is positive definite, by a Cholesky decomposition in blocks.
///
/// ```cpp
/// RowMatrix<double> c = ...;                          // its lower half is read, and changes
/// if (!is_positive_definite(pare::simd.threads(4), c)) ...
/// if (!is_positive_definite(pare::reference, c)) ...  // one block, on the calling thread
/// ```

#include <pare/core/macros_off.hpp>

#include <pare/core/backend.hpp>
#include <pare/core/matrix.hpp>
#include <pare/linalg/multiply.hpp>

#include <Eigen/Cholesky>
#include <Eigen/Core>

#include <algorithm>

namespace pare::linalg {
PARE_ABI_BEGIN

/// Whether a = L L^T for a real L with a positive diagonal, as far as rounding tells: a matrix
/// whose smallest eigenvalue is below -n u of the largest is found not to be.
///
/// \param a [n x n], row-major, of which the lower half is read; it becomes scratch
///
/// Cost: n^3 / 3 FLOPs, nearly all in products of matrices. Memory: n rows of 128. NaN is not
/// positive definite.
template <Backend B>
bool is_positive_definite(const B& backend, RowMatrix<double>& a) {
  const Index n = a.rows(), block = KernelBackend<B> ? 128 : n;
  RowMatrix<double> inverse, below, negative;
  for (Index begin = 0; begin < n; begin += block) {
    const Index size = std::min(block, n - begin), rest = n - begin - size;
    Eigen::MatrixXd corner(size, size);
    for (Index j = 0; j < size; ++j)
      for (Index i = j; i < size; ++i) corner(i, j) = a(begin + i, begin + j);
    const Eigen::LLT<Eigen::MatrixXd> cholesky(corner);
    if (cholesky.info() != Eigen::Success) return false;
    // Eigen goes on past NaN.
    for (Index i = 0; i < size; ++i)
      if (!(cholesky.matrixLLT()(i, i) > 0)) return false;
    if (rest == 0) return true;
    inverse = RowMatrix<double>::Identity(size, size);
    cholesky.matrixL().solveInPlace(inverse);
    below.resize(rest, size);
    const auto under = rows_of(to_view(a), begin + size, rest);
    multiply(backend, as_const(columns_of(under, begin, size)), transpose(const_view(inverse)),
             to_view(below));
    negative = -below;
    multiply(backend, const_view(below), transpose(const_view(negative)),
             columns_of(under, begin + size, rest), {.accumulate = true, .half = Half::Lower});
  }
  return true;
}

PARE_ABI_END
}  // namespace pare::linalg

#include <pare/core/macros_on.hpp>
