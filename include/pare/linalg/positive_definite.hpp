// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Whether a symmetric matrix is positive definite, by a Cholesky decomposition (cholesky.hpp).
///
/// ```cpp
/// RowMatrix<double> c = ...;                          // its lower half is read, and changes
/// if (!is_positive_definite(pare::simd.threads(4), c)) ...
/// if (!is_positive_definite(pare::reference, c)) ...  // one block, on the calling thread
/// ```

#include <pare/core/macros_off.hpp>

#include <pare/core/backend.hpp>
#include <pare/core/matrix.hpp>
#include <pare/linalg/cholesky.hpp>

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
  return cholesky(backend, a);
}

PARE_ABI_END
}  // namespace pare::linalg

#include <pare/core/macros_on.hpp>
