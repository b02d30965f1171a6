// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Exact maximum inner product search: the k rows of a table with the largest products with each
/// query, as first stages and nearest neighbours ask for.
///
///     ids_i = the k rows j of largest <q_i, table_j>
///
/// ```cpp
/// const DotHits<float> hits = top_k_dot(pare::simd.threads(2), table, queries, 100);
/// hits.ids(0, 0);                                     // the row that query 0 is closest to
/// const linalg::Int8Rows bytes = linalg::quantize_rows(table);  // a quarter of the memory
/// top_k_dot(bytes, queries, 100).ids(0, 0);           // nearly always the same row
/// ```
///
/// Hits fall by their score; of equal scores the lower row comes first, NaN last. Scores are never
/// stored but for those that may still be among the k best. For nearest neighbours by distance,
/// give unit rows. No paper; the order is that of `linalg::rank_scores`.

#include <pare/core/macros_off.hpp>

#include <pare/core/backend.hpp>
#include <pare/core/executor_ref.hpp>
#include <pare/core/matrix.hpp>
#include <pare/core/refused_call.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/linalg/int8_rows.hpp>
#include <pare/retrieval/detail/argument_traits.hpp>
#include <pare/retrieval/detail/int8_top_k_run.hpp>
#include <pare/retrieval/detail/top_k_run.hpp>

#include <cstddef>
#include <cstdint>
#include <limits>
#include <type_traits>

namespace pare::retrieval {

/// Rows and their scores, both [queries, k].
template <ComputeScalar T>
struct DotHits {
  RowMatrix<Index> ids;
  RowMatrix<T> scores;
};

namespace detail {
PARE_ABI_BEGIN

template <class Table>
void check_top_k_table(const char* function, const TensorView<Table, 2>& table) {
  constexpr Index most_rows = Index{std::numeric_limits<std::uint32_t>::max()};
  check_view(function, "table", table);
  check(table.cols() >= 1, function, "table", table.extent, "a dim of at least 1");
  check(table.rows() <= most_rows, function, "table", table.extent,
        Worded{"at most ", most_rows, " rows"});
  check_contiguous_rows(function, "table", table);
}

/// Checks k, and that neither list of hits has what is read in its memory.
template <class T, class Table, class S>
void check_top_k(const char* function, const TensorView<Table, 2>& table,
                 const TensorView<const S, 2>& queries, Index k, const DotHits<T>& hits) {
  check(k >= 1 && k <= table.rows(), function, "k", k,
        Worded{"1 to the rows of the table, ", table.rows()});
  const Index columns = checked_sum(function, "queries", queries.rows(), 64);
  checked_count(function, "k", checked_product(function, "k", columns, 2 * k + 1024),
                sizeof(kernel::ListedDot<T>));
  check_no_overlap(function, "hits.ids", to_view(hits.ids), "table", table);
  check_no_overlap(function, "hits.ids", to_view(hits.ids), "queries", queries);
  check_no_overlap(function, "hits.scores", to_view(hits.scores), "table", table);
  check_no_overlap(function, "hits.scores", to_view(hits.scores), "queries", queries);
}

template <class B, class S>
void top_k_dot(const B& backend, TensorView<const S, 2> table, TensorView<const S, 2> queries,
               Index k, DotHits<compute_t<S>>& hits) {
  constexpr const char* function = "retrieval::top_k_dot";
  check_top_k_table(function, table);
  check_view(function, "queries", queries);
  check(queries.cols() == table.cols(), function, "queries", queries.extent,
        Worded{"the dim of the table, ", table.cols()});
  check_contiguous_rows(function, "queries", queries);
  const Index columns = checked_sum(function, "queries", queries.rows(), 64);
  checked_count(function, "queries",
                checked_product(function, "queries", columns,
                                checked_sum(function, "queries", queries.cols(), 64)),
                sizeof(compute_t<S>));
  check_top_k(function, table, queries, k, hits);
  hits.ids.resize(queries.rows(), k);
  hits.scores.resize(queries.rows(), k);
  const ScalarTopK<S> call{table, queries, k, to_view(hits.ids), to_view(hits.scores)};
  if (queries.rows() == 0) return;
  if constexpr (KernelBackend<B>)
    TopKRun(backend, call, ScalarDots<B, S>(backend, call)).run();
  else
    reference_top_k_dot(call);
}

template <class B>
void top_k_dot(const B& backend, const linalg::Int8View& table, TensorView<const float, 2> queries,
               Index k, DotHits<float>& hits) {
  constexpr const char* function = "retrieval::top_k_dot";
  linalg::check_int8_rows(function, "table", table);
  check_top_k_table(function, table.codes);
  check_int8_queries(function, queries, table.dim());
  check_top_k(function, table.codes, queries, k, hits);
  check_no_overlap(function, "hits.ids", to_view(hits.ids), "table", to_view(table.scales));
  check_no_overlap(function, "hits.scores", to_view(hits.scores), "table", to_view(table.scales));
  hits.ids.resize(queries.rows(), k);
  hits.scores.resize(queries.rows(), k);
  const Int8TopK call{table, queries, k, to_view(hits.ids), to_view(hits.scores)};
  if (queries.rows() == 0) return;
  if constexpr (KernelBackend<B>)
    TopKRun(backend, call, Int8Dots<B>(backend, call)).run();
  else
    reference_top_k_dot(call);
}

PARE_ABI_END
}  // namespace detail
PARE_ABI_BEGIN

/// Finds the rows of the largest products.
///
/// \param backend left out: pare::simd
/// \param table   [rows, dim] of float, double, bf16 or f16, rows contiguous, fewer than 2^32
/// \param queries [queries, dim] of the same scalar, rows contiguous
/// \param k       1 to the rows
/// \param hits    made as large as needed, memory kept
/// \throws std::invalid_argument if dim is 0 or not that of both, rows are not contiguous, k is out
///         of range, or what is read lies in hits. Nothing is written then.
///
/// Cost: one read of the table, which binds with few queries, and 2 queries rows dim FLOPs, which
/// bind from about 16 on. Sums are float (double for double). Memory: per worker 2 k and some 768
/// entries a query, in the workspace. The same bits for any number of threads. Up to 4 queries
/// are summed in another order than more, bf16 among more in pairs where those are
/// native: last bits of a score may differ.
template <Backend B, In<2> X, In<2> Q>
requires SameScalar<X, Q>
void top_k_dot(const B& backend, const X& table, const Q& queries, Index k,
               DotHits<compute_t<scalar_of<X>>>& hits) {
  detail::top_k_dot(on_any_executor(backend), as_const(to_view(table)), as_const(to_view(queries)),
                    k, hits);
}

/// The same, returned.
template <Backend B, In<2> X, In<2> Q>
requires SameScalar<X, Q>
DotHits<compute_t<scalar_of<X>>> top_k_dot(const B& backend, const X& table, const Q& queries,
                                           Index k) {
  DotHits<compute_t<scalar_of<X>>> hits;
  top_k_dot(backend, table, queries, k, hits);
  return hits;
}

/// \overload
template <In<2> X, In<2> Q>
requires SameScalar<X, Q>
DotHits<compute_t<scalar_of<X>>> top_k_dot(const X& table, const Q& queries, Index k) {
  return top_k_dot(simd, table, queries, k);
}

/// Finds the rows of the largest products in a table of bytes. Queries are rounded to bytes too, a
/// scale each, and sums of products are exact integers.
///
/// \param backend left out: pare::simd
/// \param table   linalg::Int8Rows, or an Int8View: [rows, dim], fewer than 2^32, dim up to 65535
/// \param queries [queries, dim] of float, rows contiguous
/// \param k       1 to the rows
/// \param hits    made as large as needed, memory kept
/// \throws std::invalid_argument if rows are not whole, dim is not that of both, k is out of range,
///         or what is read lies in hits. Nothing is written then.
///
/// A score is (float(sum) scale of the query) scale of the row, two products rounded to float, and
/// off from that of the numbers that were rounded by at most
///
///     scale_q / 2 |row|_1 + scale_r / 2 |query|_1 + scale_q scale_r dim / 4.
///
/// Of a million random rows of 128 and 64 queries, .988 of float's ten best are among the ten best
/// here, and no more with queries of float: rounding the rows decides. A query or a row with a NaN
/// or an infinity scores NaN. Cost: one read of the table, a quarter of
/// that of float, which binds with few queries, and queries rows dim multiply-adds of bytes, 4 of
/// which take the time of one of float with AVX-512 VNNI, and 2 elsewhere. Memory: as above. The
/// same bits for any number of threads and queries, any arch and the reference.
template <Backend B, linalg::Int8RowsIn X, In<2> Q>
requires std::is_same_v<scalar_of<Q>, float>
void top_k_dot(const B& backend, const X& table, const Q& queries, Index k, DotHits<float>& hits) {
  detail::top_k_dot(on_any_executor(backend), linalg::Int8View(table), as_const(to_view(queries)),
                    k, hits);
}

/// The same, returned.
template <Backend B, linalg::Int8RowsIn X, In<2> Q>
requires std::is_same_v<scalar_of<Q>, float>
DotHits<float> top_k_dot(const B& backend, const X& table, const Q& queries, Index k) {
  DotHits<float> hits;
  top_k_dot(backend, table, queries, k, hits);
  return hits;
}

/// \overload
template <linalg::Int8RowsIn X, In<2> Q>
requires std::is_same_v<scalar_of<Q>, float>
DotHits<float> top_k_dot(const X& table, const Q& queries, Index k) {
  return top_k_dot(simd, table, queries, k);
}

PARE_REFUSE_CALLS(top_k_dot, "retrieval::top_k_dot",
                  "after queries: wanted k, an Index, and hits if they are kept",
                  (INPUT, (detail::ReadsSameOrInt8), "table", "[rows, dim]"),
                  (INPUT, (roles::ReadsSame<2>), "queries", "[queries, dim]"))

PARE_ABI_END
}  // namespace pare::retrieval

#include <pare/core/macros_on.hpp>
