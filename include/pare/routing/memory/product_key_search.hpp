// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Product keys: the k largest of n^2 scores s_i + t_j, by two searches among n keys each.
///
///     s_i = <q_1, K_1i>, t_j = <q_2, K_2j>,  slot = i n + j
///
/// ```cpp
/// // keys [heads, 2, n, half], queries [rows, heads, 2 half]
/// const MemoryHits<float> hits = search_product_keys(queries, keys, 32);
/// gather_values(values, hits.ids, hits.scores, out);        // after a softmax, say
/// ```
///
/// Larger scores come first, of equal ones the lower key or slot, NaN last: so the k best keys of
/// each half are chosen, s_a and t_b, and of the sums s_a + t_b with (a + 1) (b + 1) <= k, counted
/// from 0 and taken in double, the k best. Their scores are the k best of all n^2 wherever no
/// s_a + t_b is NaN, as it is of a score that is NaN or of infinities of both signs: hits are then
/// what this rule chooses, which may leave out a slot whose sum is a number. Of sums that only
/// rounding or an infinity makes equal, it may leave out the lower slot.
///
/// Sources: Lample et al., "Large memory layers with product keys", arXiv 1907.05242; PEER, arXiv
/// 2407.04153, which keeps one expert of one neuron per slot.

#include <pare/core/macros_off.hpp>

#include <pare/core/backend.hpp>
#include <pare/core/check.hpp>
#include <pare/core/executor_ref.hpp>
#include <pare/core/refused_call.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/core/view_check.hpp>
#include <pare/routing/memory/detail/check_slots.hpp>
#include <pare/routing/memory/detail/half_search.hpp>
#include <pare/routing/memory/detail/product_key_run.hpp>
#include <pare/routing/memory/memory_hits.hpp>

#include <type_traits>

namespace pare::routing {
namespace detail {
PARE_ABI_BEGIN

template <class T>
void check_product_keys(const char* function, const ProductKeyCall<T>& c) {
  check_view(function, "keys", c.keys);
  check(c.heads() >= 1 && c.n() >= 1 && c.half() >= 1, function, "keys", c.keys.extent,
        "[heads, 2, n, half] of at least one head, key and number");
  check_extents<4>(function, "keys", c.keys.extent, {c.heads(), 2, c.n(), c.half()});
  check_contiguous_rows(function, "keys", c.keys);
  check(c.n() <= most_half_keys, function, "keys", c.keys.extent, "at most 2^31 - 1 keys a half");
  check_view(function, "queries", c.queries);
  check_extents<3>(function, "queries", c.queries.extent, {c.rows(), c.heads(), 2 * c.half()});
  check_contiguous_rows(function, "queries", c.queries);
  check(c.k >= 1 && c.k <= c.n(), function, "k", c.k, Worded{"1 to the keys of a half, ", c.n()});
  const Index hits = checked_product(function, "k", c.heads(), c.k);
  checked_count(function, "k", checked_product(function, "k", c.rows(), hits), sizeof(Index));
}

template <class B, class T>
void search_product_keys(const B& backend, const ProductKeyCall<T>& c, MemoryHits<T>& hits) {
  constexpr const char* function = "routing::search_product_keys";
  check_product_keys(function, c);
  check_apart_from_hits(function, "queries", c.queries, hits);
  check_apart_from_hits(function, "keys", c.keys, hits);
  hits.ids.resize(c.rows(), c.heads() * c.k);
  hits.scores.resize(c.rows(), c.heads() * c.k);
  if (c.rows() == 0) return;  // queries may have no address
  ProductKeyRun<B, T>(backend, c, hits).run();
}

PARE_ABI_END
}  // namespace detail
PARE_ABI_BEGIN

/// Finds the slots of the largest scores of each row and head.
///
/// \param backend left out, where hits are returned: pare::simd
/// \param queries [rows, heads, 2 half] of float or double, contiguous along the last dimension
/// \param keys    [heads, 2, n, half], the same, of the scalar of queries; n below 2^31
/// \param k       1 to n
/// \param hits    written: ids, slots from 0 to n^2 - 1, and scores, [rows, heads k] both: those of
///                a head stand together, by falling score. Both matrices get these extents; their
///                memory is kept where the number of elements stays the same, and replaced where it
///                does not. No rows: no hits
/// \throws std::invalid_argument if an extent does not fit, k is out of range, a size does not fit
///         63 bits, or what is read lies in hits. Nothing is written then.
///
/// Cost: 4 rows heads n half FLOPs, which bind, and up to k = 32 a sorting network for each half
/// and for the pairs, which takes as many rows at a time as a register has lanes. Up to 4 rows of
/// float with up to 64 hits in all are searched one after the other, in a third to all of the time.
/// With larger k each score is offered to a heap, which then binds. Memory: the result, and per
/// worker the scores of a block of 256 bytes of rows with up to 512 keys, in the workspace. A
/// second call of the same sizes, with hits and a workspace kept and k up to 32, allocates nothing.
/// All sums of a row with a NaN are NaN: its hits are in range and mean nothing. The same bits for
/// any number of threads; those of so few rows may differ in the last ones from the same rows among
/// more.
template <Backend B, In<3> Q, In<4> K>
requires ComputeScalar<scalar_of<Q>> && SameScalar<Q, K>
void search_product_keys(const B& backend, const Q& queries, const K& keys, Index k,
                         MemoryHits<scalar_of<Q>>& hits) {
  detail::search_product_keys(
      on_any_executor(backend),
      detail::ProductKeyCall<scalar_of<Q>>{as_const(to_view(queries)), as_const(to_view(keys)), k},
      hits);
}

/// The same, returned.
template <Backend B, In<3> Q, In<4> K>
requires ComputeScalar<scalar_of<Q>> && SameScalar<Q, K>
MemoryHits<scalar_of<Q>> search_product_keys(const B& backend, const Q& queries, const K& keys,
                                             Index k) {
  MemoryHits<scalar_of<Q>> hits;
  search_product_keys(backend, queries, keys, k, hits);
  return hits;
}

/// \overload
template <In<3> Q, In<4> K>
requires ComputeScalar<scalar_of<Q>> && SameScalar<Q, K>
MemoryHits<scalar_of<Q>> search_product_keys(const Q& queries, const K& keys, Index k) {
  return search_product_keys(simd, queries, keys, k);
}

PARE_REFUSE_CALLS(search_product_keys, "routing::search_product_keys",
                  "after keys: wanted k, an Index, and hits if they are kept",
                  (INPUT, (roles::ReadsCompute<3>), "queries", "[rows, heads, 2 half]"),
                  (INPUT, (roles::ReadsSame<4>), "keys", "[heads, 2, n, half]"))

PARE_ABI_END
}  // namespace pare::routing

#include <pare/core/macros_on.hpp>
