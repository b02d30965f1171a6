// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Permuted block-sparse attention (PBS-Attn) in one call: order the keys, select blocks, attend.
///
/// ```cpp
/// attend(q, k, v, out, Permuted{});                                  // PBS-Attn, causal
/// attend(q, k, v, out, Permuted{MeanPool{.mass = 0.95f}}, {.causal = true});
/// attend(q, k, v, out, Permuted{Antidiagonal{.stride = 16}});        // PBS-Attn+
/// attend(q, k, v, out, Permuted{MySelector{}});                      // a selector of your own
/// attend(pare::simd.threads(4), q, k, v, out, Permuted<MeanPool>{.segment = 512});
/// ```
///
/// g++ 12 and clang 17 also take `Permuted{.selector = MySelector{}, .segment = 512}`.
///
/// Wang et al., "Sparser Block-Sparse Attention via Token Permutation" (arXiv 2510.21270). The keys
/// of each segment are put into an order that gathers those with much weight in few blocks; then
/// blocks are selected over that order. Where skipping blocks cannot pay, the call is exact
/// attention, and its density is 1.

#include <pare/core/macros_off.hpp>

#include <pare/attention/antidiagonal.hpp>
#include <pare/attention/attend_selected.hpp>
#include <pare/attention/mean_pool.hpp>
#include <pare/attention/order_keys.hpp>
#include <pare/attention/select_blocks.hpp>
#include <pare/attention/selector.hpp>
#include <pare/core/backend.hpp>
#include <pare/core/tensor_view.hpp>

#include <chrono>

namespace pare::attention {

/// Policy of `attend`. A default is the paper's (section 4.1 and the authors' code), unless its
/// comment says otherwise.
template <BlockSelector P = MeanPool>
struct Permuted {
  /// Picks the blocks of the ordered keys: MeanPool makes this PBS-Attn, Antidiagonal PBS-Attn+. If
  /// the selector has a member `segment`, as those two have, it is set to the `segment` below:
  /// leave it at 0, or give it the same number. Those two then always compute the row's own
  /// segment.
  P selector{};

  /// Number of keys that are ordered among themselves, at least 1. Keys never leave their segment.
  Index segment = 256;

  /// Whether all query heads of a key/value head share one order, as in OrderOptions. By default
  /// each query head has its own, as in the paper.
  bool share_kv_heads = false;

  /// The order is decided by this many of the last queries, at least 1.
  Index queries = 128;

  /// With fewer keys than this, the call is exact: ordering costs some 280 / keys of exact
  /// attention (3.4% at 8K tokens, 2.3% at 12K, 1.1% at 24K; 310 / keys at a head size of 64),
  /// which a prompt without sparsity would not earn back. Ours, measured on one AVX-512 core at a
  /// head size of 128 with an order for each query head; the paper's GPU kernel breaks even between
  /// 8K and 16K tokens.
  Index dense_below = 12288;

  /// With fewer queries than this, as in a chunk of a prompt, the call is exact: each order costs
  /// as much as some 150 queries. Ours, measured in the same way.
  Index dense_below_queries = 8192;

  /// If the selected density is above this, the call is exact: blocks of 128 queries run some 7%
  /// slower than long runs. At 1 this never happens. Ours, measured in the same way.
  float dense_above = 0.9f;
};

// Compilers that deduce for aggregates need no guides, and let designators name what is deduced.
#if __cpp_deduction_guides < 201907L
Permuted() -> Permuted<MeanPool>;
template <BlockSelector P, class... Rest>
Permuted(P, Rest...) -> Permuted<P>;
#endif

namespace detail {
PARE_ABI_BEGIN

template <class P>
OrderOptions order_options(const Permuted<P>& p, const AttendOptions& options) {
  OrderOptions order;
  order.segment = p.segment;
  order.queries = p.queries;
  order.share_kv_heads = p.share_kv_heads;
  order.scale = options.scale;
  return order;
}

/// The selector, told of the segment.
template <class P>
P selector_of(const Permuted<P>& p) {
  P selector = p.selector;
  if constexpr (requires { selector.segment = p.segment; }) {
    check(selector.segment == 0 || selector.segment == p.segment, attend_name, "selector.segment",
          selector.segment, Worded{"0, or the segment of the order, ", p.segment});
    selector.segment = p.segment;
  }
  return selector;
}

template <class P>
void check_permuted(const Permuted<P>& p, const AttendOptions& options) {
  check(p.segment >= 1, attend_name, "segment", p.segment, "at least 1 key");
  check(p.queries >= 1, attend_name, "queries", p.queries, "at least 1 query");
  check(!is_nan(p.dense_above), attend_name, "dense_above", p.dense_above, "a density");
  check(options.causal.value_or(true), attend_name, "causal", "false", "true with Permuted");
  check_selected_options(options);
}

/// Whether a call is exact before anything was looked at.
template <class P>
bool wants_dense(const Permuted<P>& p, const SelectorCall& call) {
  return keeps_all(p.selector, call) || call.keys <= p.segment || call.keys < p.dense_below ||
         call.queries < p.dense_below_queries;
}

template <class B, class S, class O, class P>
AttendStats attend_permuted(const B& backend, TensorView<const S, 4> q, TensorView<const S, 4> k,
                            TensorView<const S, 4> v, TensorView<O, 4> out, const Permuted<P>& p,
                            const AttendOptions& given) {
  AttendOptions options = causal_unless_told(given);
  check_permuted(p, options);
  SelectorLayer<S> layer =
      checked_layer(attend_name, q, k, nullptr, {*options.causal, options.scale});
  SelectorCall call = layer.call();
  call.ordered = true;
  const P selector = selector_of(p);
  check_selector(attend_name, selector, call);
  const auto attends = [&](const AttendOptions& o) {
    return attend_dense(backend, q, k, v, out, Exact{}, o);
  };
  if (wants_dense(p, call)) return attend_whole(attends, options, 0);
  const auto start = std::chrono::steady_clock::now();
  const KeyOrder order = order_views(backend, q, k, order_options(p, options));
  layer.order = &order;
  const SelectedBlocks blocks = select_layer(backend, layer, selector);
  const double seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  if (blocks.density(true) > static_cast<double>(p.dense_above))
    return attend_whole(attends, options, seconds);
  options.order = &order;
  return attend_masked(attends, blocks, options, seconds);
}

PARE_ABI_END
}  // namespace detail
PARE_ABI_BEGIN

/// Causal attention over the blocks that PBS-Attn selects: `order_keys`, `select_blocks`, `attend`.
///
/// q [batch, heads, queries, key dim], k [batch, kv heads, keys, key dim], v [batch, kv heads,
/// keys, value dim] and out [batch, heads, queries, value dim] are as for exact attention; query i
/// stands at position i + keys - queries. `policy` says how to order and select. Of the options,
/// `causal` must be true, which it is if left out. order, mask, window, query_offset,
/// lengths and offsets may not be given. sink_logits count in the output, not in the selection.
///
/// \returns the density by the paper's convention, the mean share of block scores that was kept
///          (an estimate; 1 if exact) and the seconds spent on ordering and selecting
/// \throws std::invalid_argument if segment or queries is below 1, dense_above is NaN, the selector
///         has another segment or refuses the call (as MeanPool and Antidiagonal do if segment is
///         not a multiple of column_block, or there are more queries than keys; SlidingWindow,
///         ProxyHeads and SampledMass refuse every order), the options are not as above, or as
///         exact attention. Nothing is written then.
///
/// The call is exact, and spends no time on selecting, if the selector keeps all (every mass is 1),
/// if the keys fill no more than one segment, or if there are fewer keys than `dense_below` or
/// fewer queries than `dense_below_queries`. It is exact after selecting if the density is above
/// `dense_above`.
///
/// Cost: `density` of exact attention; ordering by 128 queries adds about 280 / keys of it;
/// selecting adds less, and antidiagonal scores add 1 / (2 stride) of it. Memory: that of the three
/// calls, and an order of 4 bytes per (batch, query head, key). The bits are the same for any
/// number of threads.
///
/// A row may differ from that of a shorter prompt, since later queries take part in the choice of
/// blocks.
template <Backend B, In<4> Q, In<4> K, In<4> V, Out<4> O, BlockSelector P>
requires AttendScalars<Q, K, V, O>
AttendStats attend(const B& backend, const Q& q, const K& k, const V& v, O&& out,
                   const Permuted<P>& policy, const AttendOptions& options = {}) {
  return detail::attend_permuted(backend, as_const(to_view(q)), as_const(to_view(k)),
                                 as_const(to_view(v)), to_view(out), policy, options);
}

PARE_ABI_END
}  // namespace pare::attention

#include <pare/core/macros_on.hpp>
