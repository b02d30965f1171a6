// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Products of each row of a batch with rows of a large table: what a memory layer asks its hits.
///
///     out_rj = <table(ids_rj), x_r>
///
/// ```cpp
/// gather_dots(pare::simd.threads(2), table, hits.ids, x, pre);   // table [slots, dim]
/// ```
///
/// The table is float, double, bf16 or f16, viewed where it lies, in a mapped file too. Ids may
/// repeat. A product has the same bits whatever else is asked and for any number of threads; a NaN
/// in a row of the table or of x reaches the products with that row alone.
///
/// Sources: the first layers of PEER's experts, arXiv 2407.04153; UltraMemV2's pre-values, arXiv
/// 2508.18756.

#include <pare/core/macros_off.hpp>

#include <pare/core/backend.hpp>
#include <pare/core/ceil_div.hpp>
#include <pare/core/executor_ref.hpp>
#include <pare/core/parallel.hpp>
#include <pare/core/refused_call.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/core/view_check.hpp>
#include <pare/kernel/dot_gathered.hpp>
#include <pare/routing/memory/detail/check_slots.hpp>

#include <algorithm>
#include <type_traits>

namespace pare::routing {
namespace detail {
PARE_ABI_BEGIN

template <class S>
void check_dots(TensorView<const S, 2> table, TensorView<const Index, 2> ids,
                TensorView<const compute_t<S>, 2> x, TensorView<compute_t<S>, 2> out) {
  constexpr const char* function = "routing::gather_dots";
  check_table(function, "table", table);
  check_view(function, "ids", ids);
  check_view(function, "x", x);
  check_extents<2>(function, "x", x.extent, {ids.rows(), table.cols()});
  check_contiguous_rows(function, "x", x);
  check_writable(function, "out", out);
  check_extents<2>(function, "out", out.extent, {ids.rows(), ids.cols()});
  check_contiguous_rows(function, "out", out);
  check_no_overlap(function, "out", out, "table", table);
  check_no_overlap(function, "out", out, "ids", ids);
  check_no_overlap(function, "out", out, "x", x);
  check_slots(function, ids, table.rows());
}

template <class B, class S>
void gather_dots(const B& backend, TensorView<const S, 2> table, TensorView<const Index, 2> ids,
                 TensorView<const compute_t<S>, 2> x, TensorView<compute_t<S>, 2> out) {
  check_dots<S>(table, ids, x, out);
  if constexpr (KernelBackend<B>) {
    constexpr Index block = 8;
    parallel_for(
        on_any_executor(backend).executor, ceil_div(out.rows(), block), [&](Index item, int) {
          for (Index r = item * block; r < std::min(out.rows(), (item + 1) * block); ++r)
            launch(backend,
                   kernel::DotGathered<S>{table.data, table.stride[0], ids.data + r * ids.stride[0],
                                          ids.cols(), x.data + r * x.stride[0], x.cols(),
                                          out.data + r * out.stride[0]});
        });
  } else {
    for (Index r = 0; r < out.rows(); ++r)
      for (Index j = 0; j < out.cols(); ++j) {
        double sum = 0;
        for (Index c = 0; c < x.cols(); ++c)
          sum += static_cast<double>(static_cast<compute_t<S>>(table(ids(r, j), c))) *
                 static_cast<double>(x(r, c));
        out(r, j) = static_cast<compute_t<S>>(sum);
      }
  }
}

PARE_ABI_END
}  // namespace detail
PARE_ABI_BEGIN

/// Multiplies rows of a table by a row of x.
///
/// \param backend left out: pare::simd
/// \param table   [slots, dim] of any storage scalar, rows contiguous
/// \param ids     [rows, hits] of Index, rows contiguous: slots, which may repeat
/// \param x       [rows, dim] of what the table is computed in, rows contiguous
/// \param out     [rows, hits], of the same, rows contiguous, written; apart from what is read
/// \throws std::invalid_argument if an extent does not fit, rows are not contiguous, an id is no
///         slot, or out overlaps what is read. Nothing is written then.
///
/// Cost: rows hits dim numbers are read from anywhere in the table, which binds. Memory: none.
/// Without rows or hits, nothing is written.
template <Backend B, In<2> V, class I, In<2> X, Out<2> O>
requires detail::IsIds<I>::value && std::is_same_v<scalar_of<X>, compute_t<scalar_of<V>>> &&
         SameScalar<X, O>
void gather_dots(const B& backend, const V& table, const I& ids, const X& x, O&& out) {
  detail::gather_dots<B, scalar_of<V>>(backend, as_const(to_view(table)), as_const(to_view(ids)),
                                       as_const(to_view(x)), to_view(out));
}

/// \overload
template <In<2> V, class I, In<2> X, Out<2> O>
requires detail::IsIds<I>::value && std::is_same_v<scalar_of<X>, compute_t<scalar_of<V>>> &&
         SameScalar<X, O>
void gather_dots(const V& table, const I& ids, const X& x, O&& out) {
  gather_dots(simd, table, ids, x, out);
}

PARE_REFUSE_CALLS(gather_dots, "routing::gather_dots", "after out: wanted nothing",
                  (INPUT, (roles::Reads<2>), "table", "[slots, dim]"),
                  (PLAIN, (roles::Takes<detail::IsIds>), "ids", "[rows, hits] of Index"),
                  (INPUT, (roles::Reads<2>), "x", "[rows, dim]"),
                  (OUTPUT, (roles::WritesComputed<2>), "out",
                   "[rows, hits] of what the table is computed in"))

PARE_ABI_END
}  // namespace pare::routing

#include <pare/core/macros_on.hpp>
