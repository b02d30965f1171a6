// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// ProxyAttn: the heads of a group share the block scores of one proxy head, and keep as many
/// blocks as each needs (arXiv 2509.24745).
///
/// ```cpp
/// const auto stats = attend(q, k, v, out, ProxyHeads{.groups = 4});  // causal
/// const auto blocks = select_blocks(q, k, ProxyHeads{.groups = 4}, {.causal = true});
/// attend(q, k, v, out, {.causal = true, .mask = &blocks});          // the same in two steps
/// ```
///
/// 1. The proxy of a group is one head: the mean of the group's query heads against the mean of its
///    key heads. Block (m, n) gets the score A_mn = max softmax_j(scale q_i.k_j) over queries i of
///    row block m and keys j of column block n; strides may leave some queries and keys out.
/// 2. Head h needs b_h of the T column blocks: the fewest that hold the share `mass` of what its
///    last queries attend to.
/// 3. In row block m, head h keeps the blocks that score highest, as many as b_h allows for that
///    row.
///
/// The method is causal. The last queries set the budgets, so an early row of a long prompt may
/// differ from the same row of a short one. The method pays where the heads of a group look at the
/// same places.
///
/// Formulas and values called the paper's are those of its abstract and of published notes on it.
/// What these leave open is an option here, and its default is our choice: the block size, the side
/// of the stride, which queries are the last, how b_h becomes a number of blocks for a row, and
/// blocks that are always kept.
///
/// The reported mass is the mean over heads of the mass that step 2 found in the b_h heaviest
/// blocks. Rows keep the blocks that the proxy ranked highest, which may hold less. Where every row
/// keeps all that it can see (mass 1, or no more keys than min_budget), nothing is computed, and
/// the mass is 1. A NaN in the last queries of a head or in its keys makes the head keep all.
/// Queries of the proxy that meet a NaN add nothing to the scores of blocks.
///
/// Cost of selecting, with N tokens: N^2 dim / (stride_queries stride_keys) FLOPs per group and 2
/// row_block N dim FLOPs per head, which bind, and two reads of k. Compared with exact attention,
/// this is 1 / (2 stride_queries stride_keys), shared by the heads of a group, and row_block / N.
/// Memory: the mean keys and the block scores of one group, and block statistics of a few hundred
/// rows per thread. The bits are the same for any number of threads.

#include <pare/core/macros_off.hpp>

#include <pare/attention/attend_selected.hpp>
#include <pare/attention/detail/proxy_select.hpp>
#include <pare/attention/proxy_heads_options.hpp>
#include <pare/attention/selector.hpp>
#include <pare/core/tensor_view.hpp>

#include <span>

namespace pare::attention {

template <class B, StorageScalar S>
PARE_ALWAYS_INLINE double ProxyHeads::select_layer(const B& backend, const SelectorLayer<S>& layer,
                                                   std::span<BlockLists> keep) const {
  return detail::select_proxy(backend, layer, *this, keep);
}

}  // namespace pare::attention

#include <pare/core/macros_on.hpp>
