// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Permuted block-sparse attention (PBS-Attn) in one call: order the keys, select blocks, attend.
///
/// ```cpp
/// attend(q, k, v, out, Permuted{});
/// attend(pare::simd.threads(4), q, k, v, out, Permuted{.mass = 0.95f}, {.causal = true});
/// ```
///
/// Wang et al., "Sparser Block-Sparse Attention via Token Permutation" (arXiv 2510.21270). Where
/// skipping blocks cannot pay, the call is exact attention, and its density is 1.

#include <pare/core/macros_off.hpp>

#include <pare/attention/antidiagonal.hpp>
#include <pare/attention/attend.hpp>
#include <pare/attention/attend_selected.hpp>
#include <pare/attention/mean_pool.hpp>
#include <pare/attention/order_keys.hpp>
#include <pare/attention/select_blocks.hpp>
#include <pare/core/backend.hpp>
#include <pare/core/tensor_view.hpp>

#include <algorithm>
#include <chrono>
#include <concepts>
#include <type_traits>
#include <vector>

namespace pare::attention {

/// What blocks are chosen by.
enum class BlockScore {
  MeanPool,     ///< PBS-Attn: mean query times mean key, see MeanPool
  Antidiagonal  ///< PBS-Attn+: see Antidiagonal
};

/// Policy of `attend`. Defaults are the paper's (section 4.1 and the authors' code) where nothing
/// else is said.
struct Permuted {
  /// Keys that are ordered among themselves, a multiple of `block`. The row's own segment is always
  /// computed.
  Index segment = 256;

  /// Queries of a row block, and key slots of a column block; at least 1.
  Index block = 128;

  /// Share of the block scores that is kept, above 0; from 1 on the call is exact.
  float mass = 0.9f;

  /// A share for each query head; empty: `mass` for all.
  std::vector<float> head_masses{};

  /// As in OrderOptions: by default one order for each query head, as in the paper.
  bool share_kv_heads = false;

  /// Last queries that decide the order, at least 1.
  Index queries = 128;

  BlockScore score = BlockScore::MeanPool;

  /// With antidiagonal scores, the side of a cell: at least 1, a divisor of the block.
  Index stride = 8;

  /// Keeps the block with the first token in every row.
  bool force_first = true;

  /// Fewer keys than this, and the call is exact: ordering costs some 280 / keys of exact attention
  /// (3.4% at 8K tokens, 2.3% at 12K, 1.1% at 24K; 310 / keys at a head size of 64), which a dense
  /// prompt would not earn back. Ours, measured on one AVX-512 core at a head size of 128 with an
  /// order for each query head; the paper's GPU kernel breaks even between 8K and 16K tokens.
  Index dense_below = 12288;

  /// Fewer queries than this, as in a chunk of a prompt, and the call is exact: each order is worth
  /// some 150 queries. Ours, measured likewise.
  Index dense_below_queries = 8192;

  /// A density above this, and the call is exact: blocks of 128 queries run some 7% slower than
  /// long runs. 1: never. Ours, measured likewise.
  float dense_above = 0.9f;
};

namespace detail {
PARE_ABI_BEGIN

inline OrderOptions order_options(const Permuted& p, const AttendOptions& options) {
  OrderOptions order;
  order.segment = p.segment;
  order.queries = p.queries;
  order.share_kv_heads = p.share_kv_heads;
  order.scale = options.scale;
  return order;
}

inline MeanPool mean_pool_of(const Permuted& p) {
  MeanPool selector;
  selector.row_block = selector.column_block = p.block;
  selector.mass = p.mass;
  selector.head_masses = p.head_masses;
  selector.segment = p.segment;
  selector.force_first = p.force_first;
  return selector;
}

inline Antidiagonal antidiagonal_of(const Permuted& p) {
  Antidiagonal selector;
  selector.row_block = selector.column_block = p.block;
  selector.stride = p.stride;
  selector.mass = p.mass;
  selector.head_masses = p.head_masses;
  selector.segment = p.segment;
  selector.force_first = p.force_first;
  return selector;
}

inline void check_permuted(const Permuted& p, const AttendOptions& options,
                           const SelectorCall& call) {
  check(p.block >= 1, attend_name, "block", p.block, "at least 1");
  check(p.segment >= 1, attend_name, "segment", p.segment, "at least 1 key");
  check(p.queries >= 1, attend_name, "queries", p.queries, "at least 1 query");
  check_enumerator(attend_name, "score", p.score, BlockScore::Antidiagonal);
  if (p.score == BlockScore::MeanPool)
    mean_pool_of(p).validate(attend_name, call);
  else
    antidiagonal_of(p).validate(attend_name, call);
  check(!is_nan(p.dense_above), attend_name, "dense_above", p.dense_above, "a density");
  check(options.causal, attend_name, "causal", "false", "true with Permuted");
  check(options.order == nullptr && options.mask == nullptr, attend_name, "order, mask",
        "an order or a mask", "neither with Permuted, which makes both");
  check_plain_visibility(attend_name, options, "none with Permuted");
  check(options.key_lengths.empty() && options.query_offsets.empty() && options.key_offsets.empty(),
        attend_name, "key_lengths, query_offsets, key_offsets", "lengths or offsets",
        "none with Permuted");
}

/// Whether a call is exact before anything was looked at.
inline bool wants_dense(const Permuted& p, Index queries, Index keys) {
  return whole_masses(p.mass, p.head_masses) || keys <= p.segment || keys < p.dense_below ||
         queries < p.dense_below_queries;
}

template <class B, class S, class O>
AttendStats attend_permuted(const B& backend, TensorView<const S, 4> q, TensorView<const S, 4> k,
                            TensorView<const S, 4> v, TensorView<O, 4> out, const Permuted& p,
                            AttendOptions options) {
  check_permuted(p, options, SelectorLayer<S>{q, k, nullptr, 1, options.causal}.call());
  if (wants_dense(p, q.extent[2], k.extent[2]))
    return attend_whole(backend, q, k, v, out, options, 0);
  const auto start = std::chrono::steady_clock::now();
  const KeyOrder order = order_views(backend, q, k, order_options(p, options));
  const SelectOptions select{true, options.scale};
  const SelectedBlocks blocks =
      p.score == BlockScore::MeanPool
          ? select_views(backend, q, k, &order, mean_pool_of(p), select)
          : select_views(backend, q, k, &order, antidiagonal_of(p), select);
  const double seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  if (blocks.density(true) > static_cast<double>(p.dense_above))
    return attend_whole(backend, q, k, v, out, options, seconds);
  options.order = &order;
  return attend_masked(backend, q, k, v, out, blocks, options, seconds);
}

PARE_ABI_END
}  // namespace detail
PARE_ABI_BEGIN

/// Causal attention over the blocks that PBS-Attn selects: `order_keys`, `select_blocks`, `attend`.
///
/// q [batch, heads, queries, key dim], k [batch, kv heads, keys, key dim], v [batch, kv heads,
/// keys, value dim] and out [batch, heads, queries, value dim] as for exact attention; query i
/// stands at position i + keys - queries. `policy` says how to order and select. Of the options,
/// `causal` must be true, which it is if they are left out; neither order, mask, window,
/// query_offset, lengths nor offsets may be given; sink_logits count in the output alone.
///
/// \returns the density by the paper's convention, the mean share of block scores that was kept
///          (an estimate; 1 if exact) and the seconds spent on ordering and selecting
/// \throws std::invalid_argument if a block, segment, stride or number of queries is below 1,
///         segment is not a multiple of block or block, with antidiagonal scores, of stride, a mass
///         is NaN or not above 0, head_masses are not one for each query head, dense_above is NaN,
///         there are more queries than keys, the options are not as above, or as exact attention.
///         Nothing is written then.
///
/// Exact, with no time spent on selecting, if every mass is 1 or more, keys fill no more than one
/// segment, or there are fewer keys than `dense_below` or queries than `dense_below_queries`; exact
/// after selecting if the density is above `dense_above`. Cost: `density` of exact attention, and
/// for ordering with 128 queries about 280 / keys of it; selecting takes less, antidiagonal scores
/// add 1 / (2 stride) of it. Memory: that of the three calls, with an order of 4 bytes per
/// (batch, query head, key). The same bits for any number of threads.
///
/// Rows are not those of a shorter prompt: later queries take part in the choice of blocks.
template <Backend B, In<4> Q, In<4> K, In<4> V, Out<4> O, std::derived_from<Permuted> P>
requires detail::AttendScalars<Q, K, V, O>
AttendStats attend(const B& backend, const Q& q, const K& k, const V& v, O&& out, const P& policy,
                   const AttendOptions& options = {.causal = true}) {
  return detail::attend_permuted(backend, as_const(to_view(q)), as_const(to_view(k)),
                                 as_const(to_view(v)), to_view(out), policy, options);
}

PARE_ABI_END
}  // namespace pare::attention

#include <pare/core/macros_on.hpp>
