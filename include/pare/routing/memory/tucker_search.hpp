// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Tucker-decomposed retrieval of memory slots (TDQKR of UltraMem and UltraMemV2): scores of rank r
/// for row and column keys, preselected by one direction, combined by small cores.
///
///     srow_i = K_0i^T q_1, scol_j = K_1j^T q_2                         [r] each
///     I = the k rows of largest <srow_i, u>,  J = the k columns of largest <scol_j, v>
///     hits: the k largest of sum_c srow_i^T Core_c scol_j over I x J,  slot = i n + j
///
/// ```cpp
/// // views: keys [heads, 2, n, half, r], cores [cores, r, r], u [r], v [r]
/// const TuckerKeys<float> memory{keys, cores, u, v};
/// const TuckerHits<float> hits = search_tucker_keys(queries, memory, 32);
/// ```
///
/// The preselection is the method's heuristic: hits are *not* the largest of all n^2 scores. With
/// r = 1 and scores of both signs it finds half of them, because products of two negative scores
/// are large too. u and v must be those that a model stores: they are top singular vectors of the
/// sum of its cores, but both may change their sign together, and the sign changes the candidates.
/// Product keys are the case r = 2, srow = [s, 1], scol = [1, t], Core = I, u = v = [1, 1]: of
/// those, search_product_keys is the faster form.
///
/// Source: UltraMemV2, arXiv 2508.18756, by its released code, whose queries and keys come
/// normalised. Ours: equal scores take the lower slot first.

#include <pare/core/macros_off.hpp>

#include <pare/core/backend.hpp>
#include <pare/core/check.hpp>
#include <pare/core/executor_ref.hpp>
#include <pare/core/refused_call.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/core/view_check.hpp>
#include <pare/routing/memory/detail/check_slots.hpp>
#include <pare/routing/memory/detail/half_search.hpp>
#include <pare/routing/memory/detail/tucker_run.hpp>
#include <pare/routing/memory/tucker_keys.hpp>

#include <type_traits>

namespace pare::routing {
namespace detail {
PARE_ABI_BEGIN

template <class T>
void check_tucker_keys(const char* function, const TuckerKeys<T>& m) {
  const auto& e = m.keys.extent;
  check_view(function, "keys", m.keys);
  check(e[0] >= 1 && e[2] >= 1 && e[3] >= 1 && e[4] >= 1, function, "keys", e,
        "[heads, 2, n, half, r] of at least one each");
  check_extents<5>(function, "keys", e, {e[0], 2, e[2], e[3], e[4]});
  check_view(function, "cores", m.cores);
  check(m.cores.extent[0] >= 1, function, "cores", m.cores.extent, "at least one core");
  check_extents<3>(function, "cores", m.cores.extent, {m.cores.extent[0], e[4], e[4]});
  check_view(function, "u", m.u);
  check_extents<1>(function, "u", m.u.extent, {e[4]});
  check_view(function, "v", m.v);
  check_extents<1>(function, "v", m.v.extent, {e[4]});
}

/// Throws unless k is in range, and slots, what a search keeps and its hits have sizes that fit.
template <class T>
void check_tucker_sizes(const char* function, const TuckerKeys<T>& m, Index rows, Index k) {
  const Index heads = m.keys.extent[0], n = m.keys.extent[2], rank = m.keys.extent[4];
  check(k >= 1 && k <= n, function, "k", k, Worded{"1 to the keys of a half, ", n});
  checked_product(function, "keys", n, n);
  checked_count(function, "k", checked_product(function, "k", k, k), sizeof(PairHit));
  checked_count(function, "keys", n, sizeof(PairHit));
  const Index of_row =
      checked_product(function, "keys", 2, checked_product(function, "keys", n, rank));
  checked_count(function, "keys", checked_product(function, "keys", of_row, tucker_block_rows),
                sizeof(T));
  const Index scores =
      checked_product(function, "k", checked_product(function, "k", heads, k), m.cores.extent[0]);
  checked_count(function, "k", checked_product(function, "k", rows, scores), sizeof(Index));
}

template <class T>
void check_tucker_queries(const char* function, const TensorView<const T, 3>& queries,
                          const TuckerKeys<T>& m) {
  check_view(function, "queries", queries);
  check_extents<3>(function, "queries", queries.extent,
                   {queries.extent[0], m.keys.extent[0], 2 * m.keys.extent[3]});
}

template <class B, class T>
void search_tucker_keys(const B& backend, const TensorView<const T, 3>& queries,
                        const TuckerKeys<T>& m, Index k, TuckerHits<T>& hits) {
  constexpr const char* function = "routing::search_tucker_keys";
  const Index rows = queries.extent[0], heads = m.keys.extent[0], cores = m.cores.extent[0];
  check_tucker_keys(function, m);
  check_tucker_queries(function, queries, m);
  check_tucker_sizes(function, m, rows, k);
  check_apart_from_hits(function, "queries", queries, hits);
  check_apart_from_hits(function, "keys", m.keys, hits);
  check_apart_from_hits(function, "cores", m.cores, hits);
  check_apart_from_hits(function, "u", m.u, hits);
  check_apart_from_hits(function, "v", m.v, hits);
  hits.ids.resize(rows, heads * k);
  hits.scores.resize(rows, heads * k * cores);
  if (rows > 0) TuckerRun<B, T>(backend, queries, m, k, hits).run();
}

template <class X>
struct IsTuckerKeys : std::false_type {};
template <class T>
struct IsTuckerKeys<TuckerKeys<T>> : std::true_type {};
template <class X>
using TakesTuckerKeys = IsTuckerKeys<std::remove_cvref_t<X>>;

PARE_ABI_END
}  // namespace detail
PARE_ABI_BEGIN

/// Finds the slots of each row and head.
///
/// \param backend left out, where hits are returned: pare::simd
/// \param queries [rows, heads, 2 half] of float or double, any strides
/// \param memory  the keys, of the scalar of queries, of heads, n, half and rank r
/// \param k       1 to n: candidates of each side, and hits
/// \param hits    written: ids [rows, heads k], those of a head together by falling sum over cores,
///                and their scores [rows, heads k cores]. Both matrices get these extents; their
///                memory is kept where the number of elements stays the same, and replaced where it
///                does not. No rows: no hits
/// \throws std::invalid_argument if an extent does not fit, k is out of range, a size does not fit
///         63 bits, or what is read lies in hits. Nothing is written then.
///
/// Cost: 4 rows heads n half r FLOPs, which bind, and k^2 small products for each row and head.
/// Memory, in the backend's workspace: scores of up to 256 rows, [256, n] 2 r times, and for each
/// worker n + k^2 numbers with their slots. A second call of the same sizes, with hits and a
/// workspace kept, allocates nothing. A row with a NaN has hits without a meaning, but in range.
/// The same bits for any number of threads.
template <Backend B, In<3> Q, ComputeScalar T>
requires std::is_same_v<scalar_of<Q>, T>
void search_tucker_keys(const B& backend, const Q& queries, const TuckerKeys<T>& memory, Index k,
                        TuckerHits<T>& hits) {
  detail::search_tucker_keys(on_any_executor(backend), as_const(to_view(queries)), memory, k, hits);
}

/// The same, returned.
template <Backend B, In<3> Q, ComputeScalar T>
requires std::is_same_v<scalar_of<Q>, T>
TuckerHits<T> search_tucker_keys(const B& backend, const Q& queries, const TuckerKeys<T>& memory,
                                 Index k) {
  TuckerHits<T> hits;
  search_tucker_keys(backend, queries, memory, k, hits);
  return hits;
}

/// \overload
template <In<3> Q, ComputeScalar T>
requires std::is_same_v<scalar_of<Q>, T>
TuckerHits<T> search_tucker_keys(const Q& queries, const TuckerKeys<T>& memory, Index k) {
  return search_tucker_keys(simd, queries, memory, k);
}

PARE_REFUSE_CALLS(search_tucker_keys, "routing::search_tucker_keys",
                  "after memory: wanted k, an Index, and hits if they are kept",
                  (INPUT, (roles::ReadsCompute<3>), "queries", "[rows, heads, 2 half]"),
                  (PLAIN, (roles::Takes<detail::TakesTuckerKeys>), "memory",
                   "TuckerKeys of the scalar of queries"))

PARE_ABI_END
}  // namespace pare::routing

#include <pare/core/macros_on.hpp>
