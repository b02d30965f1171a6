// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// The key that each row of causal attention gives the most weight, without a map of attention.
///
/// ```cpp
/// const std::vector<Index> keys = most_attended(q, k);  // [batch x heads x queries]
/// ```
///
///     key(i) = argmax_j <q_i, k_j> over the keys j <= i + n_k - n_q
///
/// The scale of scores, if it is above 0, and a softmax change no order, so neither is computed.
/// What changes scores by position (a bias, ALiBi) is not taken.

#include <pare/core/macros_off.hpp>

#include <pare/attention/detail/head_of.hpp>
#include <pare/attention/heads/detail/most_attended_items.hpp>
#include <pare/core/backend.hpp>
#include <pare/core/ceil_div.hpp>
#include <pare/core/check.hpp>
#include <pare/core/executor_ref.hpp>
#include <pare/core/refused_call.hpp>
#include <pare/core/tensor_view.hpp>

#include <cstddef>
#include <vector>

namespace pare::attention {
namespace detail {
PARE_ABI_BEGIN

/// How many rows there are, once q and k are found right.
template <StorageScalar S>
Index checked_rows(const char* function, TensorView<const S, 4> q, TensorView<const S, 4> k) {
  check_view(function, "q", q);
  check_view(function, "k", k);
  check(k.extent[0] == q.extent[0], function, "k", k.extent,
        Worded{"the batch of q, ", q.extent[0]});
  check(q.extent[3] >= 1, function, "q", q.extent, "a key dim of at least 1");
  check(k.extent[3] == q.extent[3], function, "k", k.extent,
        Worded{"the key dim of q, ", q.extent[3]});
  check(k.extent[1] >= 1 && q.extent[1] % k.extent[1] == 0, function, "q", q.extent,
        Worded{"a multiple of the ", k.extent[1], " key/value heads as heads"});
  check(q.extent[2] <= k.extent[2], function, "q", q.extent,
        Worded{"at most as many queries as keys, ", k.extent[2]});
  check_contiguous_rows(function, "q", q);
  check_contiguous_rows(function, "k", k);
  // Tables of rows and chunks of keys are counted by this product.
  const Index rows = checked_product(
      function, "q", checked_product(function, "q", q.extent[0], q.extent[1]), q.extent[2]);
  checked_count(function, "q",
                checked_product(function, "k", rows, ceil_div(k.extent[2], most_attended_keys)),
                sizeof(Index));
  return rows;
}

template <Backend B, StorageScalar S>
std::vector<Index> most_attended(const B& backend, TensorView<const S, 4> q,
                                 TensorView<const S, 4> k, Index rows) {
  std::vector<Index> keys(static_cast<std::size_t>(rows));
  if (rows == 0) return keys;
  if constexpr (KernelBackend<B>) {
    MostAttended<B, S>(backend, q, k).run(keys);
  } else {
    const Index group = q.extent[1] / k.extent[1];
    std::size_t at = 0;
    for (Index b = 0; b < q.extent[0]; ++b)
      for (Index h = 0; h < q.extent[1]; ++h)
        for (Index i = 0; i < q.extent[2]; ++i)
          keys[at++] = reference_most_attended(head_of(q, b, h), head_of(k, b, h / group), i);
  }
  return keys;
}

PARE_ABI_END
}  // namespace detail
PARE_ABI_BEGIN

/// The key that each query attends to most, of equal scores the first.
///
/// \param backend left out: pare::simd. `pare::reference` sums in double
/// \param q       [batch, heads, queries, key dim], any storage scalar, rows contiguous
/// \param k       [batch, kv heads, keys, key dim], the same; head h reads kv head h / (heads / kv
///                heads), and query i the keys up to i + keys - queries
/// \returns [batch x heads x queries]; -1 for a row of which a score is NaN, or all are -infinity
/// \throws std::invalid_argument if shapes differ, heads are no multiple of kv heads, there are
///         more queries than keys, the key dim is 0, rows are not contiguous, or sizes overflow
///
/// Cost: 2 queries keys key dim FLOPs per head, which bind from about eight rows (query heads of a
/// kv head times queries) on; with fewer, reading and packing the keys does. Memory: the result, 12
/// or 16 bytes per row and 4096 keys, and per worker 256 packed rows and a tile of keys, kept in
/// the backend's workspace. The result is the same for any number of threads. Scores are rounded:
/// of two that are nearly equal either may win.
template <Backend B, In<4> Q, In<4> K>
requires SameScalar<Q, K>
std::vector<Index> most_attended(const B& backend, const Q& q, const K& k) {
  const auto queries = as_const(to_view(q));
  const auto keys = as_const(to_view(k));
  const Index rows = detail::checked_rows("attention::most_attended", queries, keys);
  return detail::most_attended(on_any_executor(backend), queries, keys, rows);
}

/// \overload
template <In<4> Q, In<4> K>
requires SameScalar<Q, K>
std::vector<Index> most_attended(const Q& q, const K& k) {
  return most_attended(simd, q, k);
}

PARE_REFUSE_CALLS(most_attended, "attention::most_attended", "after k: wanted nothing",
                  (INPUT, (roles::Reads<4>), "q", "[batch, heads, queries, key dim]"),
                  (INPUT, (roles::ReadsSame<4>), "k", "[batch, kv heads, keys, key dim]"))

PARE_ABI_END
}  // namespace pare::attention

#include <pare/core/macros_on.hpp>
