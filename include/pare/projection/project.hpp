// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Applying a random operator R [output_dim x input_dim] from either side, R never stored.
///
/// ```cpp
/// SparseProjection omega{.input_dim = d, .output_dim = k, .seed = 7};
/// project(x, omega, y);          // Y = X R^T: rows of X [n x d] are vectors; y is [n x k]
/// sketch(omega, a, b);           // B = R A: columns of A [d x m] are vectors; b is [k x m]
/// project(pare::simd.threads(4).with(workspace), x, omega, y);  // allocates once
/// ```
///
/// x may be any dense Eigen matrix (row- or column-major, strided, a block) of float, double, bf16
/// or f16, or an Eigen::SparseMatrix of float or double. The output is dense, of float (double for
/// double input). A NaN or infinity in a row of x reaches the outputs of that row and no others.
///
/// The bits are the same for every executor and number of threads. For dense float input they are
/// the same on every arch as well: columns are added or subtracted in ascending order, and then the
/// sum is multiplied by the scale.

#include <pare/core/macros_off.hpp>

#include <pare/core/backend.hpp>
#include <pare/core/executor_ref.hpp>
#include <pare/core/refused_call.hpp>
#include <pare/core/sparse_view.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/linalg/sparse_transpose.hpp>
#include <pare/projection/detail/project_dense.hpp>
#include <pare/projection/detail/project_product.hpp>
#include <pare/projection/detail/project_sparse.hpp>
#include <pare/projection/reference.hpp>
#include <pare/projection/sparse_projection.hpp>

#include <type_traits>

namespace pare::projection {

/// The scalar of Y is the one that X is computed in: double for double, else float.
template <class X, class Y>
concept ProjectsTo = std::is_same_v<compute_t<scalar_of<X>>, scalar_of<Y>>;

namespace detail {

/// PreparedProjection too, whose overloads stand in prepared_projection.hpp.
template <class R>
concept OperatorOrPrepared = RandomOperator<R> || requires { typename R::prepared_operator; };
template <class R>
using IsOperator = std::bool_constant<OperatorOrPrepared<std::remove_cvref_t<R>>>;

PARE_ABI_BEGIN

template <RandomOperator R, class X, class T>
void check_project(const char* function, const char* in, const char* out, TensorView<const X, 2> x,
                   const R& r, TensorView<T, 2> y) {
  validate(function, r);
  check_view(function, in, x);
  check_extents<2>(function, in, x.extent, {x.rows(), r.input_dim});
  check_extents<2>(function, out, y.extent, {x.rows(), r.output_dim});
  check_writable(function, out, y);
  check_no_overlap(function, out, y, in, x);
}

template <class B, RandomOperator R, class X, class T>
void project_views(const B& backend, TensorView<const X, 2> x, const R& r, double scale,
                   TensorView<T, 2> y) {
  if (x.rows() == 0) return;
  if constexpr (!KernelBackend<B>)
    reference_project(x, r, scale, y);
  else if (const double nonzeros = r.expected_column_nonzeros();
           projects_by_product(x, nonzeros, y))
    project_by_product(on_any_executor(backend), x, make_sampler(r), nonzeros, scale, y);
  else
    project_dense(on_any_executor(backend), x, make_sampler(r), nonzeros, scale, y);
}

/// Lines of x are the vectors to project (`along_lines`) or their coordinates.
template <RandomOperator R, class T, class I>
void check_project_sparse(const char* function, const CompressedView<T, I>& x, bool along_lines,
                          const R& r, TensorView<T, 2> y) {
  validate(function, r);
  const Index vectors = along_lines ? x.outer_size : x.inner_size;
  const Index coordinates = along_lines ? x.inner_size : x.outer_size;
  check_extents<2>(function, "x", {vectors, coordinates}, {vectors, r.input_dim});
  check_compressed(function, "x", x);
  check_extents<2>(function, "y", y.extent, {vectors, r.output_dim});
  check_writable(function, "y", y);
  check_no_overlap(function, "y", y, "x", x);
}

template <class B, RandomOperator R, class T, class I>
void project_rows(const B& backend, const CompressedView<T, I>& x, const R& r, TensorView<T, 2> y) {
  if (x.outer_size == 0) return;
  if constexpr (KernelBackend<B>)
    project_sparse(on_any_executor(backend), x, make_sampler(r), r.expected_column_nonzeros(),
                   r.entry_scale(), y);
  else
    reference_project(x, r, y);
}

template <class B, SparseIn S, RandomOperator R, class T>
void project_sparse_matrix(const char* function, const B& backend, const S& x, bool along_lines,
                           const R& r, TensorView<T, 2> y) {
  const auto lines = to_compressed(x);
  check_project_sparse(function, lines, along_lines, r, y);
  if (along_lines)
    project_rows(backend, lines, r, y);
  else
    project_rows(backend, linalg::SparseTranspose(lines).view(), r, y);
}

PARE_ABI_END
}  // namespace detail

PARE_ABI_BEGIN

/// Y = X R^T for dense X: y_ik = sum_j r_kj x_ij.
///
/// \param backend where and how; left out: pare::simd
/// \param x       [n x input_dim], each row a vector
/// \param r       SparseProjection or SparseSignProjection
/// \param y       [n x output_dim], written; must not overlap x
/// \throws std::invalid_argument if a member of r is out of range, a shape does not fit, elements
///         of y share memory, or y overlaps x. Nothing is written then. n = 0 is a no-op.
///
/// Cost: n * nnz(R) additions. X is read once and Y is written once (Y again for every 32 MiB of
/// R's nonzeros, X again for every 2048 outputs). Where .28 or more of R are not 0 and X has 32
/// rows (16 of double) or more, matrix products with dense pieces of R take their place, with the
/// same bits: 2 n input_dim output_dim FLOPs. Memory, kept in the backend's workspace: half a MiB
/// per worker, and the part of R in use, which is at most about 32 MiB however large R is.
template <Backend B, In<2> X, RandomOperator R = SparseProjection, Out<2> Y>
requires ProjectsTo<X, Y>
void project(const B& backend, const X& x, const R& r, Y&& y) {
  const auto from = as_const(to_view(x));
  const auto to = to_view(y);
  detail::check_project("projection::project", "x", "y", from, r, to);
  detail::project_views(backend, from, r, r.entry_scale(), to);
}

/// \overload
template <In<2> X, RandomOperator R = SparseProjection, Out<2> Y>
requires ProjectsTo<X, Y>
void project(const X& x, const R& r, Y&& y) {
  project(simd, x, r, y);
}

/// Y = scale X sign(R)^T for dense X: as `project`, but each nonzero of R has the size `scale`,
/// which the caller chooses, instead of entry_scale(). Shapes, errors, cost and memory are those of
/// `project`.
template <Backend B, In<2> X, RandomOperator R = SparseProjection, Out<2> Y>
requires ProjectsTo<X, Y>
void project_signs(const B& backend, const X& x, const R& r, double scale, Y&& y) {
  const auto from = as_const(to_view(x));
  const auto to = to_view(y);
  detail::check_project("projection::project_signs", "x", "y", from, r, to);
  detail::project_views(backend, from, r, scale, to);
}

/// \overload
template <In<2> X, RandomOperator R = SparseProjection, Out<2> Y>
requires ProjectsTo<X, Y>
void project_signs(const X& x, const R& r, double scale, Y&& y) {
  project_signs(simd, x, r, scale, y);
}

/// Y = X R^T for sparse X [n x input_dim] of float or double; y [n x output_dim] is dense.
/// \throws std::invalid_argument as for dense X, and if an offset decreases or an index is outside.
///
/// Cost: nnz(X) * (nonzeros of a column of R) additions, and the columns of R that X touches, drawn
/// once an entry, or all of them once where X has more entries than R columns: the width of X costs
/// nothing. Rows are shared out, of a few long ones the outputs; a row sums its entries in stored
/// order, so that its bits do not depend on the other rows. Memory: the part of R in use, at most
/// about 32 MiB (4 bytes per column and 2 per nonzero, or 4 above 32768 outputs); a column-major X
/// is first copied to rows. A server that projects single rows can keep R between calls
/// (prepared_projection.hpp).
template <Backend B, SparseIn S, RandomOperator R = SparseProjection, Out<2> Y>
requires SameScalarAsSparse<S, Y>
void project(const B& backend, const S& x, const R& r, Y&& y) {
  detail::project_sparse_matrix("projection::project", backend, x, bool(S::IsRowMajor), r,
                                to_view(y));
}

/// \overload
template <SparseIn S, RandomOperator R = SparseProjection, Out<2> Y>
requires SameScalarAsSparse<S, Y>
void project(const S& x, const R& r, Y&& y) {
  project(simd, x, r, y);
}

/// B = R A for dense A: b_ki = sum_j r_kj a_ji. The same work and the same bits as projecting the
/// rows of A^T.
///
/// \param backend where and how; left out: pare::simd
/// \param r       SparseProjection or SparseSignProjection
/// \param a       [input_dim x m], each column a vector
/// \param out     [output_dim x m], written; must not overlap a
/// \throws std::invalid_argument as project.
template <Backend B, RandomOperator R = SparseProjection, In<2> A, Out<2> Y>
requires ProjectsTo<A, Y>
void sketch(const B& backend, const R& r, const A& a, Y&& out) {
  const auto from = transpose(as_const(to_view(a)));
  const auto to = transpose(to_view(out));
  detail::check_project("projection::sketch", "a (transposed)", "out (transposed)", from, r, to);
  detail::project_views(backend, from, r, r.entry_scale(), to);
}

/// \overload
template <RandomOperator R = SparseProjection, In<2> A, Out<2> Y>
requires ProjectsTo<A, Y>
void sketch(const R& r, const A& a, Y&& out) {
  sketch(simd, r, a, out);
}

/// B = R A for sparse A [input_dim x m]; out [output_dim x m] is dense. Cost as projecting a sparse
/// X; a row-major A is first copied to columns.
/// \throws std::invalid_argument as project.
template <Backend B, RandomOperator R = SparseProjection, SparseIn S, Out<2> Y>
requires SameScalarAsSparse<S, Y>
void sketch(const B& backend, const R& r, const S& a, Y&& out) {
  detail::project_sparse_matrix("projection::sketch", backend, a, !bool(S::IsRowMajor), r,
                                transpose(to_view(out)));
}

/// \overload
template <RandomOperator R = SparseProjection, SparseIn S, Out<2> Y>
requires SameScalarAsSparse<S, Y>
void sketch(const R& r, const S& a, Y&& out) {
  sketch(simd, r, a, out);
}

PARE_REFUSE_CALLS(project, "projection::project", "after y: wanted nothing",
                  (INPUT, (roles::ReadsMatrix), "x", "[n, input_dim]"),
                  (PLAIN, (roles::Takes<detail::IsOperator>), "r",
                   "a RandomOperator such as SparseProjection"),
                  (OUTPUT, (roles::WritesComputed<2>), "y", "[n, output_dim]"))
PARE_REFUSE_CALLS(sketch, "projection::sketch", "after out: wanted nothing",
                  (PLAIN, (roles::Takes<detail::IsOperator>), "r",
                   "a RandomOperator such as SparseProjection"),
                  (INPUT, (roles::ReadsMatrix), "a", "[input_dim, m]"),
                  (OUTPUT, (roles::WritesComputed<2>), "out", "[output_dim, m]"))

PARE_ABI_END
}  // namespace pare::projection

#include <pare/core/macros_on.hpp>
