// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Cholesky decomposition A = L L^T in blocks, and the inverse of L, in double.
///
/// ```cpp
/// RowMatrix<double> a = ...;                         // its lower half is read
/// const bool definite = cholesky(pare::simd.threads(4), a);  // L stands in the lower half
/// invert_lower(pare::simd.threads(4), a);                    // if so: L^-1 stands there
/// ```

#include <pare/core/macros_off.hpp>

#include <pare/core/backend.hpp>
#include <pare/core/check.hpp>
#include <pare/core/matrix.hpp>
#include <pare/core/parallel.hpp>
#include <pare/core/workspace.hpp>
#include <pare/linalg/multiply.hpp>

#include <Eigen/Cholesky>
#include <Eigen/Core>

#include <algorithm>
#include <array>
#include <cstddef>
#include <vector>

namespace pare::linalg {
namespace detail {
PARE_ABI_BEGIN

inline void check_square(const char* function, const RowMatrix<double>& a) {
  check(a.rows() == a.cols(), function, "a", std::array<Index, 2>{a.rows(), a.cols()},
        "as many rows as columns");
}

/// Rows of a block: one holds all where there are no kernels.
template <Backend B>
Index cholesky_block(Index n) {
  return KernelBackend<B> ? 128 : std::max<Index>(n, 1);
}

/// The lower half of the block at `begin`, zeros above.
inline Eigen::MatrixXd lower_corner(const RowMatrix<double>& a, Index begin, Index size) {
  Eigen::MatrixXd corner = Eigen::MatrixXd::Zero(size, size);
  for (Index j = 0; j < size; ++j)
    for (Index i = j; i < size; ++i) corner(i, j) = a(begin + i, begin + j);
  return corner;
}

/// Columns [begin, begin + size), from which all in front is subtracted already: L of the corner,
/// and what is below times its inverse. False if the corner has no L.
template <Backend B>
bool finish_columns(const B& backend, RowMatrix<double>& a, Index begin, Index size,
                    RowMatrix<double>& panel) {
  const Index rest = a.rows() - begin - size;
  const Eigen::LLT<Eigen::MatrixXd> corner(lower_corner(a, begin, size));
  if (corner.info() != Eigen::Success) return false;
  // Eigen goes on past NaN and infinity.
  for (Index i = 0; i < size; ++i)
    if (!is_finite(corner.matrixLLT()(i, i))) return false;
  for (Index i = 0; i < size; ++i)
    for (Index j = 0; j <= i; ++j) a(begin + i, begin + j) = corner.matrixLLT()(i, j);
  if (rest == 0) return true;
  RowMatrix<double> inverse = RowMatrix<double>::Identity(size, size);
  corner.matrixL().solveInPlace(inverse);
  const auto under = columns_of(rows_of(to_view(a), begin + size, rest), begin, size);
  const auto below = columns_of(rows_of(to_view(panel), 0, rest), 0, size);
  multiply(backend, as_const(under), transpose(const_view(inverse)), below);
  // Others have one block, and no rest.
  if constexpr (KernelBackend<B>)
    parallel_for(backend.executor, rest,
                 [&](Index i, int) { std::copy_n(&below(i, 0), size, &under(i, 0)); });
  return true;
}

/// a -= L L^T in columns [begin, end) of the rows from `begin` on, where it is lower, for L in
/// columns [first, begin).
template <Backend B>
void subtract_square(const B& backend, RowMatrix<double>& a, Index first, Index begin, Index end,
                     const std::vector<double>& minus) {
  if (first == begin || begin == end) return;
  const auto rows = rows_of(to_view(a), begin, a.rows() - begin);
  const auto l = as_const(columns_of(rows, first, begin - first));
  multiply(backend, l, transpose(rows_of(l, 0, end - begin)), columns_of(rows, begin, end - begin),
           {.accumulate = true, .half = Half::Lower, .depth_scale = minus.data()});
}

PARE_ABI_END
}  // namespace detail
PARE_ABI_BEGIN

/// a = L L^T for a real L with a positive diagonal, as far as rounding tells: a matrix whose
/// smallest eigenvalue is below -n u of the largest is found not to have one.
///
/// \param backend `pare::reference` (one block, on the calling thread), or one that has kernels
/// \param a       [n x n], row-major, of which the lower half is read; L takes its place. What
///                stands above the diagonal is scratch
/// \return        whether there is an L; if not, a is scratch. NaN and infinity have none
/// \throws std::invalid_argument if a is not square
///
/// Cost: n^3 / 3 FLOPs, nearly all in products of matrices. Memory: n rows of 128, and that of
/// products. Same bits for any number of threads.
template <Backend B>
bool cholesky(const B& backend, RowMatrix<double>& a) {
  detail::check_square("linalg::cholesky", a);
  const Index n = a.rows(), block = detail::cholesky_block<B>(n);
  Workspace own;
  const B kept = keeping(backend, own);
  // Room for all rows, taken once.
  RowMatrix<double> panel;
  if (n > block) panel.resize(n - block, block);
  // All that is behind is read and written once for every `wide` columns: 4 to 6 % less time than
  // for every 128, for 4096 of them on a Zen 5.
  const Index wide = 4 * block;
  const std::vector<double> minus(static_cast<std::size_t>(wide), -1.0);
  for (Index first = 0; first < n; first += wide) {
    const Index end = std::min(first + wide, n);
    for (Index begin = first; begin < end; begin += block) {
      const Index size = std::min(block, end - begin);
      detail::subtract_square(kept, a, first, begin, begin + size, minus);
      if (!detail::finish_columns(kept, a, begin, size, panel)) return false;
    }
    detail::subtract_square(kept, a, first, end, n, minus);
  }
  return true;
}

/// L^-1 in the place of L.
///
/// \param a [n x n], row-major: L in the lower half, no 0 on its diagonal. Above stand zeros after
/// \throws std::invalid_argument if a is not square
///
/// Cost: about n^3 / 3 FLOPs, nearly all in products. Memory: 128 rows of n, and that of products.
/// Same bits for any number of threads.
template <Backend B>
void invert_lower(const B& backend, RowMatrix<double>& a) {
  detail::check_square("linalg::invert_lower", a);
  const Index n = a.rows(), block = detail::cholesky_block<B>(n), wide = 4 * block;
  Workspace own;
  const B kept = keeping(backend, own);
  RowMatrix<double> room(std::min(block, n), n), inverse;
  for (Index begin = 0; begin < n; begin += block) {
    const Index size = std::min(block, n - begin);
    inverse = RowMatrix<double>::Identity(size, size);
    detail::lower_corner(a, begin, size).triangularView<Eigen::Lower>().solveInPlace(inverse);
    const auto rows = rows_of(to_view(a), begin, size);
    // X_i: = (-L_ii^-1) sum_k L_ik X_k:, where X_k: has nothing behind column k.
    const auto sums = columns_of(rows_of(to_view(room), 0, size), 0, begin);
    for (Index column = 0; column < begin; column += wide) {
      const Index columns = std::min(wide, begin - column);
      const auto above = rows_of(to_view(a), column, begin - column);
      multiply(kept, as_const(columns_of(rows, column, begin - column)),
               as_const(columns_of(above, column, columns)), columns_of(sums, column, columns));
    }
    const RowMatrix<double> negative = -inverse;
    if (begin > 0) multiply(kept, const_view(negative), as_const(sums), columns_of(rows, 0, begin));
    for (Index i = 0; i < size; ++i) {
      for (Index j = 0; j <= i; ++j) a(begin + i, begin + j) = inverse(i, j);
      for (Index j = begin + i + 1; j < n; ++j) a(begin + i, j) = 0;
    }
  }
}

PARE_ABI_END
}  // namespace pare::linalg

#include <pare/core/macros_on.hpp>
