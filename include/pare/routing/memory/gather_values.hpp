// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// What a memory layer reads: a weighted sum of rows of a large table, for each row of a batch.
///
///     out_r = sum_j weights_rj values(ids_rj)
///
/// ```cpp
/// // values [slots, dim], out [rows, dim]
/// gather_values(pare::simd.threads(2), values, hits.ids, hits.scores, out);
/// ```
///
/// The table is float, double, bf16 or f16, viewed where it lies, in a mapped file too. Ids may
/// repeat. Sums run in the order of ids: the same bits for any number of threads. A NaN or infinity
/// in a row of the table, or in a weight, reaches the columns of the rows of out that add it up, a
/// row with weight 0 too (0 NaN = NaN), and no others.
///
/// Sources: product-key memories, arXiv 1907.05242; UltraMemV2, arXiv 2508.18756.

#include <pare/core/macros_off.hpp>

#include <pare/core/backend.hpp>
#include <pare/core/ceil_div.hpp>
#include <pare/core/check.hpp>
#include <pare/core/executor_ref.hpp>
#include <pare/core/parallel.hpp>
#include <pare/core/refused_call.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/core/view_check.hpp>
#include <pare/kernel/sum_gathered.hpp>
#include <pare/routing/memory/detail/check_slots.hpp>

#include <algorithm>
#include <type_traits>

namespace pare::routing {
namespace detail {
PARE_ABI_BEGIN

template <class S>
void check_gather(TensorView<const S, 2> values, TensorView<const Index, 2> ids,
                  TensorView<const compute_t<S>, 2> weights, TensorView<compute_t<S>, 2> out) {
  constexpr const char* function = "routing::gather_values";
  check_table(function, "values", values);
  check_view(function, "ids", ids);
  check_view(function, "weights", weights);
  check_extents<2>(function, "weights", weights.extent, {ids.rows(), ids.cols()});
  check_contiguous_rows(function, "weights", weights);
  check_writable(function, "out", out);
  check_extents<2>(function, "out", out.extent, {ids.rows(), values.cols()});
  check_contiguous_rows(function, "out", out);
  check_no_overlap(function, "out", out, "values", values);
  check_no_overlap(function, "out", out, "ids", ids);
  check_no_overlap(function, "out", out, "weights", weights);
  check_slots(function, ids, values.rows());
}

/// What gather_values does behind its checks, for ids that have been checked.
template <class B, class S>
void add_gathered(const B& backend, TensorView<const S, 2> values, TensorView<const Index, 2> ids,
                  TensorView<const compute_t<S>, 2> weights, TensorView<compute_t<S>, 2> out) {
  if constexpr (KernelBackend<B>) {
    constexpr Index block = 8;
    parallel_for(
        on_any_executor(backend).executor, ceil_div(out.rows(), block), [&](Index item, int) {
          for (Index r = item * block; r < std::min(out.rows(), (item + 1) * block); ++r)
            launch(backend, kernel::SumGathered<S>{values.data, values.stride[0],
                                                   ids.data + r * ids.stride[0],
                                                   weights.data + r * weights.stride[0], ids.cols(),
                                                   out.data + r * out.stride[0], out.cols()});
        });
  } else {
    for (Index r = 0; r < out.rows(); ++r)
      for (Index c = 0; c < out.cols(); ++c) {
        double sum = 0;
        for (Index j = 0; j < ids.cols(); ++j)
          sum += static_cast<double>(weights(r, j)) *
                 static_cast<double>(static_cast<compute_t<S>>(values(ids(r, j), c)));
        out(r, c) = static_cast<compute_t<S>>(sum);
      }
  }
}

template <class B, class S>
void gather_values(const B& backend, TensorView<const S, 2> values, TensorView<const Index, 2> ids,
                   TensorView<const compute_t<S>, 2> weights, TensorView<compute_t<S>, 2> out) {
  check_gather<S>(values, ids, weights, out);
  add_gathered<B, S>(backend, values, ids, weights, out);
}

PARE_ABI_END
}  // namespace detail
PARE_ABI_BEGIN

/// Adds up rows of a table.
///
/// \param backend left out: pare::simd
/// \param values  [slots, dim] of any storage scalar, rows contiguous
/// \param ids     [rows, hits] of Index, rows contiguous: slots, which may repeat
/// \param weights [rows, hits] of what values are computed in, rows contiguous. NaN reaches its row
/// \param out     [rows, dim], of the same, rows contiguous, written; apart from what is read
/// \throws std::invalid_argument if an extent does not fit, rows are not contiguous, an id is no
///         slot, or out overlaps what is read. Nothing is written then.
///
/// Cost: rows hits dim numbers are read from anywhere in the table, which binds: the lines of four
/// rows are under way at once. Memory: none. Without hits, out is 0; without rows, nothing is
/// written.
template <Backend B, In<2> V, class I, In<2> W, Out<2> O>
requires detail::IsIds<I>::value && std::is_same_v<scalar_of<W>, compute_t<scalar_of<V>>> &&
         SameScalar<W, O>
void gather_values(const B& backend, const V& values, const I& ids, const W& weights, O&& out) {
  detail::gather_values<B, scalar_of<V>>(backend, as_const(to_view(values)), as_const(to_view(ids)),
                                         as_const(to_view(weights)), to_view(out));
}

/// \overload
template <In<2> V, class I, In<2> W, Out<2> O>
requires detail::IsIds<I>::value && std::is_same_v<scalar_of<W>, compute_t<scalar_of<V>>> &&
         SameScalar<W, O>
void gather_values(const V& values, const I& ids, const W& weights, O&& out) {
  gather_values(simd, values, ids, weights, out);
}

PARE_REFUSE_CALLS(gather_values, "routing::gather_values", "after out: wanted nothing",
                  (INPUT, (roles::Reads<2>), "values", "[slots, dim]"),
                  (PLAIN, (roles::Takes<detail::IsIds>), "ids", "[rows, hits] of Index"),
                  (INPUT, (roles::Reads<2>), "weights", "[rows, hits]"),
                  (OUTPUT, (roles::WritesComputed<2>), "out",
                   "[rows, dim] of what values are computed in"))

PARE_ABI_END
}  // namespace pare::routing

#include <pare/core/macros_on.hpp>
