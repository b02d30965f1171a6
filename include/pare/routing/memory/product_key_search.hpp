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
/// The k best of both halves hold the k best of all, so the search is exact. Of equal sums the
/// lower slot comes first.
///
/// Sources: Lample et al., "Large memory layers with product keys", arXiv 1907.05242; PEER, arXiv
/// 2407.04153, which keeps one expert of one neuron per slot.

#include <pare/core/macros_off.hpp>

#include <pare/core/backend.hpp>
#include <pare/core/ceil_div.hpp>
#include <pare/core/check.hpp>
#include <pare/core/executor_ref.hpp>
#include <pare/core/matrix.hpp>
#include <pare/core/parallel.hpp>
#include <pare/core/refused_call.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/core/view_check.hpp>
#include <pare/routing/memory/detail/half_search.hpp>
#include <pare/routing/memory/memory_hits.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <type_traits>
#include <vector>

namespace pare::routing {
namespace detail {
PARE_ABI_BEGIN

template <class T>
struct ProductKeyCall {
  TensorView<const T, 3> queries;  ///< [rows, heads, 2 half]
  TensorView<const T, 4> keys;     ///< [heads, 2, n, half]
  Index k = 0;

  Index rows() const { return queries.extent[0]; }
  Index heads() const { return keys.extent[0]; }
  Index n() const { return keys.extent[2]; }
  Index half() const { return keys.extent[3]; }
};

template <class T>
void check_product_keys(const ProductKeyCall<T>& c) {
  constexpr const char* function = "routing::search_product_keys";
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

/// The k best sums of two lists, both falling: of the pairs (a, b) that at most k - 1 others stand
/// before, (a + 1) (b + 1) <= k. Sums are taken in double.
template <class T, class Entry>
void best_sums(const std::vector<Entry>& first, const std::vector<Entry>& second, Index n, Index k,
               std::vector<PairHit>& pairs, Index* ids, T* scores) {
  pairs.clear();
  for (std::size_t a = 0; a < first.size(); ++a)
    for (std::size_t b = 0; b < second.size() && (a + 1) * (b + 1) <= static_cast<std::size_t>(k);
         ++b)
      pairs.push_back({static_cast<double>(first[a].score) + static_cast<double>(second[b].score),
                       first[a].key() * n + second[b].key()});
  std::partial_sort(pairs.begin(), pairs.begin() + k, pairs.end());
  for (Index i = 0; i < k; ++i) {
    ids[i] = pairs[static_cast<std::size_t>(i)].id;
    scores[i] = static_cast<T>(pairs[static_cast<std::size_t>(i)].score);
  }
}

template <class B, class T>
MemoryHits<T> search_product_keys(const B& backend, const ProductKeyCall<T>& c) {
  check_product_keys(c);
  MemoryHits<T> hits{RowMatrix<Index>(c.rows(), c.heads() * c.k),
                     RowMatrix<T>(c.rows(), c.heads() * c.k)};
  const Index blocks = ceil_div(c.rows(), half_search_rows);
  const auto search = [&](Index item, int) {
    const Index head = item / blocks, begin = item % blocks * half_search_rows;
    const Index count = std::min(half_search_rows, c.rows() - begin);
    std::vector<PairHit> pairs;
    const auto half = [&](Index which) {
      const TensorView<const T, 2> rows{
          &c.queries(begin, head, which * c.half()), {count, c.half()}, {c.queries.stride[0], 1}};
      const TensorView<const T, 2> keys{
          &c.keys(head, which, 0, 0), {c.n(), c.half()}, {c.keys.stride[2], 1}};
      return search_half(backend, rows, keys, c.k);
    };
    const auto first = half(0), second = half(1);
    for (Index r = 0; r < count; ++r)
      best_sums(first.of(r), second.of(r), c.n(), c.k, pairs, &hits.ids(begin + r, head * c.k),
                &hits.scores(begin + r, head * c.k));
  };
  if constexpr (KernelBackend<B>)
    parallel_for(backend.executor, c.heads() * blocks, search);
  else
    for (Index item = 0; item < c.heads() * blocks; ++item) search(item, 0);
  return hits;
}

PARE_ABI_END
}  // namespace detail
PARE_ABI_BEGIN

/// Finds the slots of the largest scores of each row and head.
///
/// \param backend left out: pare::simd
/// \param queries [rows, heads, 2 half] of float or double, contiguous along the last dimension
/// \param keys    [heads, 2, n, half], the same, of the scalar of queries; n below 2^31
/// \param k       1 to n
/// \returns ids, slots from 0 to n^2 - 1, and scores, [rows, heads k] both: those of a head stand
///          together, by falling score
/// \throws std::invalid_argument if an extent does not fit, or k is out of range
///
/// Cost: 4 rows heads n half FLOPs, which bind, and k log k pairs per row and head. Memory: the
/// result, and per worker 2 k hits of 64 rows. A row with a NaN has hits without a meaning, but in
/// range. The same bits for any number of threads.
template <Backend B, In<3> Q, In<4> K>
requires ComputeScalar<scalar_of<Q>> && SameScalar<Q, K>
MemoryHits<scalar_of<Q>> search_product_keys(const B& backend, const Q& queries, const K& keys,
                                             Index k) {
  using T = scalar_of<Q>;
  return detail::search_product_keys(
      on_any_executor(backend),
      detail::ProductKeyCall<T>{as_const(to_view(queries)), as_const(to_view(keys)), k});
}

/// \overload
template <In<3> Q, In<4> K>
requires ComputeScalar<scalar_of<Q>> && SameScalar<Q, K>
MemoryHits<scalar_of<Q>> search_product_keys(const Q& queries, const K& keys, Index k) {
  return search_product_keys(simd, queries, keys, k);
}

PARE_REFUSE_CALLS(search_product_keys, "routing::search_product_keys",
                  "after keys: wanted k, an Index",
                  (INPUT, (roles::ReadsCompute<3>), "queries", "[rows, heads, 2 half]"),
                  (INPUT, (roles::ReadsSame<4>), "keys", "[heads, 2, n, half]"))

PARE_ABI_END
}  // namespace pare::routing

#include <pare/core/macros_on.hpp>
