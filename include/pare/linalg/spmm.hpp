// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Sparse matrix times dense matrix, the product that graph embeddings and propagation run on.
///
/// ```cpp
/// Eigen::SparseMatrix<float, Eigen::RowMajor> a(m, n);
/// spmm(a, b, c);                          // b [n x k] and c [m x k] with contiguous rows
/// spmm(pare::simd.threads(4), a, b, c);   // the same bits
/// ```

#include <pare/core/macros_off.hpp>

#include <pare/core/backend.hpp>
#include <pare/core/ceil_div.hpp>
#include <pare/core/refused_call.hpp>
#include <pare/core/sparse_view.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/kernel/spmm.hpp>
#include <pare/linalg/reference.hpp>

#include <algorithm>
#include <type_traits>

namespace pare::linalg {
PARE_ABI_BEGIN

/// Rows of a sparse product that one worker computes before it asks for more.
inline constexpr Index rows_per_spmm_item = 64;

/// Rows [first, last) of diag(row_scale) A B into `out`, whose rows start with row `first`.
template <class T, class I>
kernel::SpmmRows<T, I> spmm_rows(const CompressedView<T, I>& a, const T* row_scale,
                                 TensorView<const T, 2> b, T* out, Index out_stride, Index first,
                                 Index last) {
  return {a.outer, a.line_nonzeros, a.inner,  a.values, row_scale, b.data, b.stride[0],
          out,     out_stride,      b.cols(), first,    last};
}

PARE_ABI_END

namespace detail {
PARE_ABI_BEGIN

template <class T, class I>
void check_spmm(const char* function, const CompressedView<T, I>& a, TensorView<const T, 2> b,
                TensorView<T, 2> c) {
  check_view(function, "b", b);
  check_extents<2>(function, "b", b.extent, {a.inner_size, b.cols()});
  check_extents<2>(function, "c", c.extent, {a.outer_size, b.cols()});
  check(b.stride[1] == 1 || b.cols() <= 1, function, "b", "a column stride other than 1",
        "contiguous rows");
  check(c.stride[1] == 1 || c.cols() <= 1, function, "c", "a column stride other than 1",
        "contiguous rows");
  check_writable(function, "c", c);
  check_no_overlap(function, "c", c, "b", b);
  check_compressed(function, "a", a);
  check_no_overlap(function, "c", c, "a", a);
}

PARE_ABI_END
}  // namespace detail

PARE_ABI_BEGIN

/// C = A B for sparse A stored by rows and dense B with contiguous rows: c_uk = sum_v a_uv b_vk.
///
/// \param backend left out: pare::simd
/// \param a       [m x n] row-major Eigen sparse matrix of float or double; entries of a row may
///                come in any order, equal indices add up
/// \param b       [n x k], contiguous rows, the scalar of a
/// \param c       [m x k], contiguous rows, the scalar of a, written; must not overlap a or b
/// \throws std::invalid_argument if a shape or stride does not fit, an offset of a decreases, an
///         index is outside, or c overlaps a or b. Nothing is written then.
///
/// One worker sums each row in stored order: the same bits for any number of threads. Cost:
/// 2 nnz(A) k FLOPs and nnz(A) k scalars gathered, which binds. Memory: none beside c. The
/// reference sums in double.
template <Backend B, SparseRowsIn S, In<2> X, Out<2> Y>
requires SameScalarAsSparse<S, X, Y>
void spmm(const B& backend, const S& a, const X& b, Y&& c) {
  const auto lines = to_compressed(a);
  const auto from = as_const(to_view(b));
  const auto to = to_view(c);
  detail::check_spmm("linalg::spmm", lines, from, to);
  if constexpr (KernelBackend<B>) {
    constexpr Index step = rows_per_spmm_item;
    parallel_for(backend.executor, ceil_div(lines.outer_size, step), [&](Index item, int) {
      const Index last = std::min(lines.outer_size, (item + 1) * step);
      launch(backend,
             spmm_rows(lines, static_cast<const scalar_of<X>*>(nullptr), from,
                       to.data + item * step * to.stride[0], to.stride[0], item * step, last));
    });
  } else {
    detail::reference_spmm(lines, from, to);
  }
}

/// \overload
template <SparseRowsIn S, In<2> X, Out<2> Y>
requires SameScalarAsSparse<S, X, Y>
void spmm(const S& a, const X& b, Y&& c) {
  spmm(simd, a, b, c);
}

PARE_REFUSE_CALLS(spmm, "linalg::spmm", "after c: wanted nothing",
                  (SPARSE, (roles::ReadsSparse<true>), "a", "a matrix"),
                  (INPUT, (roles::ReadsSame<2>), "b", "[columns of a, k]"),
                  (OUTPUT, (roles::WritesComputed<2>), "c", "[rows of a, k]"))

PARE_ABI_END
}  // namespace pare::linalg

#include <pare/core/macros_on.hpp>
