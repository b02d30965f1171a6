// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// A random operator whose columns stay in memory between calls: for a server that projects single
/// rows, where drawing R takes most of the time.
///
/// ```cpp
/// SparseProjection omega{.input_dim = 1 << 20, .output_dim = 256, .seed = 7};
/// const PreparedProjection prepared(omega, {.bytes = 64 << 20});
/// project(x, prepared, y);                     // y = x omega^T, as project(x, omega, y)
/// project(pare::simd.with(workspace), x, prepared, y);     // allocates nothing from then on
/// prepared.columns(), prepared.bytes();        // what is kept
/// ```
///
/// The bits are those of `project` with the operator itself, however many columns are kept.

#include <pare/core/macros_off.hpp>

#include <pare/core/backend.hpp>
#include <pare/core/executor_ref.hpp>
#include <pare/core/sparse_view.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/linalg/sparse_transpose.hpp>
#include <pare/projection/detail/column_lists.hpp>
#include <pare/projection/detail/project_sparse.hpp>
#include <pare/projection/detail/sampler.hpp>
#include <pare/projection/project.hpp>
#include <pare/projection/sparse_projection.hpp>

#include <cstdint>
#include <utility>

namespace pare::projection {

/// What a PreparedProjection may keep.
struct PrepareOptions {
  Index bytes = Index{64} << 20;  ///< the most that its columns take; at least 0
};

PARE_ABI_BEGIN

/// R, with its first columns in memory: as many as `bytes` holds. A column takes 4 bytes and 2 for
/// each nonzero (4 above 32768 outputs), and columns are kept by 1024. Columns behind them are
/// drawn when a call touches them, so that hashed features of any width work; order frequent
/// features first, as vocabularies are.
///
/// Calls do not change it: several threads may project with one at once, each with a workspace of
/// its own if with any.
template <RandomOperator R>
class PreparedProjection {
 public:
  using prepared_operator = R;

  /// Draws and keeps the columns, on the threads of `backend`. `pare::reference` keeps none.
  /// \throws std::invalid_argument if a member of r is out of range, or options.bytes < 0.
  /// Cost: the nonzeros of the columns that are kept, about 4 ns each on a thread.
  template <Backend B>
  PreparedProjection(const B& backend, const R& r, const PrepareOptions& options = {})
      : operator_((validate(name, r), r)), sampler_(detail::make_sampler(r)) {
    check(options.bytes >= 0, name, "bytes", options.bytes, "at least 0");
    if constexpr (KernelBackend<B>) {
      const auto draw = [&](auto& stored) {
        stored.draw_within(static_cast<double>(options.bytes), sampler_,
                           for_workers(on_any_executor(backend)), r.input_dim,
                           r.expected_column_nonzeros(), r.output_dim);
      };
      has_short_entries() ? draw(short_) : draw(long_);
    }
  }

  /// The same on the calling thread.
  explicit PreparedProjection(const R& r, const PrepareOptions& options = {})
      : PreparedProjection(simd, r, options) {}

  /// What was prepared.
  const R& random_operator() const { return operator_; }
  /// Columns in memory, from column 0 on.
  Index columns() const { return has_short_entries() ? short_.last() : long_.last(); }
  /// Bytes that they take; at most the option's.
  Index bytes() const { return short_.allocated() + long_.allocated(); }

  /// visit(sampler, columns in memory): for `project`.
  template <class Visit>
  void visit(const Visit& visit) const {
    has_short_entries() ? visit(sampler_, short_) : visit(sampler_, long_);
  }

 private:
  static constexpr const char* name = "projection::PreparedProjection";

  bool has_short_entries() const { return operator_.output_dim <= detail::short_entry_rows; }

  R operator_;
  decltype(detail::make_sampler(std::declval<const R&>())) sampler_;
  detail::StoredColumns<std::uint16_t> short_;
  detail::StoredColumns<std::uint32_t> long_;
};

PARE_ABI_END

namespace detail {
PARE_ABI_BEGIN

template <class B, RandomOperator R, class T, class I>
void project_prepared_rows(const B& backend, const CompressedView<T, I>& x,
                           const PreparedProjection<R>& r, TensorView<T, 2> y) {
  if (x.outer_size == 0) return;
  if constexpr (KernelBackend<B>)
    r.visit([&](const auto& sampler, const auto& stored) {
      project_sparse_stored(on_any_executor(backend), x, sampler, stored,
                            r.random_operator().entry_scale(), y);
    });
  else
    reference_project(x, r.random_operator(), y);
}

PARE_ABI_END
}  // namespace detail

PARE_ABI_BEGIN

/// Y = X R^T for sparse X, row- or column-major: as `project` with r.random_operator(), whose
/// shapes, errors and bits it has, but columns that r keeps are not drawn.
///
/// Cost: nnz(X) * (nonzeros of a column of R) additions, and drawing an entry's column where r does
/// not keep it. Memory, kept in the backend's workspace: a row of sums per worker; a column-major X
/// is first copied to rows.
template <Backend B, SparseIn S, RandomOperator R, Out<2> Y>
requires SameScalarAsSparse<S, Y>
void project(const B& backend, const S& x, const PreparedProjection<R>& r, Y&& y) {
  const auto lines = to_compressed(x);
  const auto to = to_view(y);
  detail::check_project_sparse("projection::project", lines, bool(S::IsRowMajor),
                               r.random_operator(), to);
  if constexpr (bool(S::IsRowMajor))
    detail::project_prepared_rows(backend, lines, r, to);
  else
    detail::project_prepared_rows(backend, linalg::SparseTranspose(lines).view(), r, to);
}

/// \overload
template <SparseIn S, RandomOperator R, Out<2> Y>
requires SameScalarAsSparse<S, Y>
void project(const S& x, const PreparedProjection<R>& r, Y&& y) {
  project(simd, x, r, y);
}

/// Y = X R^T for dense X [n x input_dim]: as `project` with r.random_operator(), whose shapes,
/// errors and bits it has.
///
/// Up to 16 rows are summed from the columns that r keeps, row by row: n * nnz(R) additions, and
/// drawing the columns that it does not keep, once a row. Memory: a row of sums and 12 KiB per
/// worker. More rows are a call of `project` with the operator, which draws it once for all of
/// them.
template <Backend B, In<2> X, RandomOperator R, Out<2> Y>
requires ProjectsTo<X, Y>
void project(const B& backend, const X& x, const PreparedProjection<R>& r, Y&& y) {
  const auto from = as_const(to_view(x));
  const auto to = to_view(y);
  const R& omega = r.random_operator();
  detail::check_project("projection::project", "x", "y", from, omega, to);
  constexpr Index few_rows = 16;
  if constexpr (KernelBackend<B>) {
    if (from.rows() <= few_rows) {
      if (from.rows() == 0) return;
      r.visit([&](const auto& sampler, const auto& stored) {
        detail::project_dense_stored(on_any_executor(backend), from, sampler, stored,
                                     omega.entry_scale(), to);
      });
      return;
    }
  }
  detail::project_views(backend, from, omega, omega.entry_scale(), to);
}

/// \overload
template <In<2> X, RandomOperator R, Out<2> Y>
requires ProjectsTo<X, Y>
void project(const X& x, const PreparedProjection<R>& r, Y&& y) {
  project(simd, x, r, y);
}

PARE_ABI_END
}  // namespace pare::projection

#include <pare/core/macros_on.hpp>
