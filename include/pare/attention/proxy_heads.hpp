// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// ProxyAttn: the heads of a group share the block scores of one proxy head, and keep as many
/// blocks as each needs (arXiv 2509.24745).
///
/// ```cpp
/// const auto stats = attend(q, k, v, out, ProxyHeads{.mass = 0.9f});
/// const auto blocks = select_blocks(q, k, ProxyHeads{.groups = 4}, {.causal = true});
/// attend(q, k, v, out, {.causal = true, .mask = &blocks});   // the same in two steps
/// ```
///
/// 1. The proxy of a group is the mean of its query heads against the mean of its key heads. Block
///    (m, n) scores A_mn = max softmax_j(scale q_i.k_j) over queries i of row block m and keys j of
///    column block n, of which strides may leave some out.
/// 2. Head h needs b_h of the T column blocks: the fewest that hold the share `mass` of what its
///    last queries attend to.
/// 3. Head h keeps in row block m the blocks that score highest, as many as b_h says for the row.
///
/// The method is causal, and budgets are set by the last queries: an early row of a long prompt
/// need not come out as it does alone. It pays where the heads of a group look at the same places.
///
/// Formulas and values called the paper's are those of its abstract and of published notes on it.
/// What these leave open is an option, and its default a choice of this library: the block size,
/// the side of the stride, which queries are the last, how b_h becomes a number of blocks for a
/// row, and forced blocks.

#include <pare/core/macros_off.hpp>

#include <pare/attention/attend.hpp>
#include <pare/attention/detail/proxy_select.hpp>
#include <pare/attention/options.hpp>
#include <pare/attention/proxy_heads_options.hpp>
#include <pare/attention/select_blocks.hpp>
#include <pare/core/backend.hpp>
#include <pare/core/tensor_view.hpp>

#include <concepts>
#include <type_traits>

namespace pare::attention {

PARE_ABI_BEGIN

/// The blocks that ProxyAttn picks for every head.
///
/// \param backend where and how; left out: pare::simd
/// \param q       [batch, heads, queries, dim]
/// \param k       [batch, kv heads, keys, dim], the scalar of q, keys >= queries; the last query
///                stands beside the last key
/// \param policy  groups, budgets, strides and block sizes
/// \param options `causal` must be true, which it is not by default
/// \returns       a mask with rows of its own for every head. Its mass is the mean over heads of
///                the mass that the budget step found in the b_h heaviest blocks; rows keep blocks
///                that the proxy ranked, which may hold less.
/// \throws std::invalid_argument if shapes, the policy or the options do not fit each other
///
/// Where every row keeps all it can see (mass 1, or no more keys than min_budget), nothing is
/// computed, and the mass is 1. A NaN in the last queries of a head or in its keys makes the head
/// keep all; queries of the proxy that meet a NaN add nothing to the scores of blocks.
///
/// Cost, with N tokens: N^2 dim / (stride_queries stride_keys) FLOPs per group and 2 row_block N
/// dim per head, which bind, and two reads of k. Of exact attention, that is 1 / (2 stride_queries
/// stride_keys) shared by the heads of a group, and row_block / N. Memory: the mean keys and the
/// block scores of one group, and block statistics of a few hundred rows for each thread. The same
/// bits for any number of threads.
template <Backend B, In<4> Q, In<4> K>
requires std::is_same_v<scalar_of<Q>, scalar_of<K>>
SelectedBlocks select_blocks(const B& backend, const Q& q, const K& k, const ProxyHeads& policy,
                             const SelectOptions& options = {}) {
  check(options.causal, detail::select_name, "causal", options.causal, "true with ProxyHeads");
  return detail::select_proxy(detail::select_name, backend, as_const(to_view(q)),
                              as_const(to_view(k)), policy, options.scale);
}

/// \overload
template <In<4> Q, In<4> K>
requires std::is_same_v<scalar_of<Q>, scalar_of<K>>
SelectedBlocks select_blocks(const Q& q, const K& k, const ProxyHeads& policy,
                             const SelectOptions& options = {}) {
  return select_blocks(simd, q, k, policy, options);
}

/// Causal attention over the blocks that ProxyAttn picks; parameters as those of `attend` and
/// `select_blocks`. Of the options, `causal` must be true, which it is if they are left out; scale,
/// lse and workspace apply as for exact attention.
///
/// \returns       density, mass as `select_blocks` gives it, and the seconds of selecting
/// \throws std::invalid_argument as `attend` and `select_blocks` do, or if the options are not
///         causal or have a mask, an order, a window, a query_offset, lengths or offsets. Nothing
///         is written then.
///
/// Cost: density of exact attention, and `select_blocks`. Memory: that of both. The same bits for
/// any number of threads.
template <Backend B, In<4> Q, In<4> K, In<4> V, Out<4> O, std::derived_from<ProxyHeads> P>
requires detail::AttendScalars<Q, K, V, O>
AttendStats attend(const B& backend, const Q& q, const K& k, const V& v, O&& out, const P& policy,
                   const AttendOptions& options = {.causal = true}) {
  return detail::attend_proxy(backend, as_const(to_view(q)), as_const(to_view(k)),
                              as_const(to_view(v)), to_view(out), policy, options);
}

PARE_ABI_END
}  // namespace pare::attention

#include <pare/core/macros_on.hpp>
