// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// The key order of permuted block-sparse attention: inside each segment, the keys that the end of
/// the prompt looks at come first.
///
/// ```cpp
/// const auto order = order_keys(q, k, {.segment = 256});
/// const auto blocks = select_blocks(q, k, order, MeanPool{.mass = 0.9f, .segment = 256},
///                                   {.causal = true});
/// attend(q, k, v, out, {.causal = true, .order = &order, .mask = &blocks});
/// ```
///
/// Wang et al., "Sparser Block-Sparse Attention via Token Permutation" (PBS-Attn, arXiv
/// 2510.21270), sections 3.2 and 4.1, equations 6 to 8. Keys that many queries attend to are
/// gathered into few blocks, so that fewer blocks hold the same mass. Keys never leave their
/// segment, and so all keys of an earlier segment stay visible to a query as a whole.

#include <pare/core/macros_off.hpp>

#include <pare/attention/detail/key_importance.hpp>
#include <pare/attention/key_order.hpp>
#include <pare/attention/reference.hpp>
#include <pare/attention/select_blocks.hpp>
#include <pare/core/backend.hpp>
#include <pare/core/executor_ref.hpp>
#include <pare/core/refused_call.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/linalg/top_k.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <numeric>
#include <optional>
#include <span>
#include <type_traits>
#include <vector>

namespace pare::attention {

/// The keys over which the last queries spread their weight when they decide which keys matter.
enum class ImportanceOver {
  CompleteSegments,  ///< all keys of complete segments, later ones too: the authors' code
  VisibleKeys        ///< the keys that each query sees: equation 7 of the paper
};

/// Options of `order_keys`. A default is the paper's, unless its comment says otherwise.
struct OrderOptions {
  /// Keys of a segment, at least 1. Keys after the last complete segment stay in place.
  Index segment = 256;

  /// How many of the last queries vote, at least 1. The paper takes a block of them.
  Index queries = 128;

  /// True: all query heads of a key/value head share one order, made from the mean of their
  /// queries. The default is the paper's: each query head has its own. Sharing divides the cost of
  /// ordering by the heads of a group, and lets them share packed keys; appendix G of the paper
  /// finds nearly the same quality. It fails where the heads of a group look for different keys,
  /// since the mean of their queries looks for none. In layer 7 of SmolLM2-135M, at 4096 tokens and
  /// a mass of .98, the worst head covers .81 of its attention with a shared order and .94 with its
  /// own, at a relative square error of .34 and .05 (.038 and .006 over all heads).
  bool share_kv_heads = false;

  /// The authors' code and the paper differ; both give valid orders.
  ImportanceOver importance = ImportanceOver::CompleteSegments;

  /// Factor of q.k, in the range of AttendOptions::scale; left out: 1 / sqrt(dim).
  std::optional<double> scale{};
};

namespace detail {
PARE_ABI_BEGIN

inline constexpr const char* order_name = "attention::order_keys";

inline void check_order_options(const OrderOptions& options) {
  check(options.segment >= 1, order_name, "segment", options.segment, "at least 1 key");
  check(options.queries >= 1, order_name, "queries", options.queries, "at least 1 query");
  check_enumerator(order_name, "importance", options.importance, ImportanceOver::VisibleKeys);
}

template <class S>
ImportanceSizes importance_sizes(TensorView<const S, 4> q, TensorView<const S, 4> k,
                                 const OrderOptions& options) {
  ImportanceSizes sizes;
  sizes.batch = q.extent[0];
  sizes.group = q.extent[1] / k.extent[1];
  sizes.sharing = options.share_kv_heads ? std::max<Index>(sizes.group, 1) : 1;
  sizes.orders = q.extent[1] / sizes.sharing;
  sizes.rows = std::min(options.queries, q.extent[2]);
  sizes.causal = options.importance == ImportanceOver::VisibleKeys;
  sizes.keys = sizes.causal ? k.extent[2] : k.extent[2] / options.segment * options.segment;
  return sizes;
}

/// Ranks the keys of every complete segment of every order.
template <class B, class S>
void order_segments(const B& backend, const KeyImportance<B, S>& importance, Index orders,
                    Index keys, Index segment, std::vector<std::uint32_t>& positions) {
  const Index segments = keys / segment;
  parallel_for(backend.executor, orders * segments, [&](Index item, int) {
    const Index order = item / segments, begin = item % segments * segment;
    const std::span<std::uint32_t> slots(positions.data() + order * keys + begin,
                                         static_cast<std::size_t>(segment));
    linalg::rank_scores(importance.of(order, begin, segment), slots);
    for (std::uint32_t& slot : slots) slot += static_cast<std::uint32_t>(begin);
  });
}

/// The order of one head or group of heads by its definition.
template <class S>
void reference_order(TensorView<const S, 4> q, TensorView<const S, 4> k, Index order,
                     const ImportanceSizes& sizes, const OrderOptions& options, double scale,
                     std::uint32_t* positions) {
  const Index batch = order / sizes.orders, head = order % sizes.orders * sizes.sharing;
  const TensorView<const S, 3> heads{q.data + batch * q.stride[0] + head * q.stride[1],
                                     {sizes.sharing, q.extent[2], q.extent[3]},
                                     {q.stride[1], q.stride[2], q.stride[3]}};
  const TensorView<const S, 2> keys{k.data + batch * k.stride[0] + head / sizes.group * k.stride[1],
                                    {k.extent[2], k.extent[3]},
                                    {k.stride[2], k.stride[3]}};
  const std::vector<double> mean = reference_mean_heads(heads);
  const std::vector<double> importance = reference_key_importance(
      reference_matrix(mean, q.extent[3]), keys, options.queries, options.segment, scale,
      sizes.causal ? ReferenceImportance::Causal : ReferenceImportance::CompleteSegments);
  std::ranges::copy(reference_order_segments(importance, options.segment), positions);
}

template <class B, class S>
KeyOrder order_views(const B& backend, TensorView<const S, 4> q, TensorView<const S, 4> k,
                     const OrderOptions& options) {
  const double scale = checked_layer(order_name, q, k, nullptr, {true, options.scale}).scale;
  check_order_options(options);
  const Index keys = k.extent[2];
  if (k.extent[1] == 0) return KeyOrder::identity({q.extent[0], 0, keys});
  const ImportanceSizes sizes = importance_sizes(q, k, options);
  const KeyOrder::Shape shape{sizes.batch, sizes.orders, keys};
  const Index orders = sizes.batch * sizes.orders;
  if (keys <= options.segment || sizes.rows == 0 || orders == 0) return KeyOrder::identity(shape);
  std::vector<std::uint32_t> positions(static_cast<std::size_t>(orders * keys));
  for (Index order = 0; order < orders; ++order)
    std::iota(positions.begin() + order * keys, positions.begin() + (order + 1) * keys, 0u);
  if constexpr (KernelBackend<B>) {
    const auto any = on_any_executor(backend);
    const KeyImportance<OnAnyExecutor<B>, S> importance(any, q, k, scale, sizes);
    order_segments(any, importance, orders, keys, options.segment, positions);
  } else {
    for (Index order = 0; order < orders; ++order)
      reference_order(q, k, order, sizes, options, scale, positions.data() + order * keys);
  }
  return {shape, std::move(positions)};
}

PARE_ABI_END
}  // namespace detail
PARE_ABI_BEGIN

/// Orders the keys of each segment by the weight that the last queries give them: with S =
/// options.segment, slot g S + t holds the key of segment g whose mean weight, over the last
/// options.queries queries, is the t-th largest, t from 0.
///
/// \param backend where and how; left out: pare::simd
/// \param q       [batch, heads, queries, dim]; query i stands at position i + keys - queries
/// \param k       [batch, kv heads, keys, dim], the scalar of q
/// \returns one order of the keys for each (batch, query head), or with share_kv_heads for each
///          (batch, key/value head)
/// \throws std::invalid_argument if shapes do not fit, segment or queries is below 1, or the scale
///         is out of range
///
/// With one segment or none, the order is the natural one. Of keys of equal weight the earlier
/// comes first, and a NaN last. A head with a NaN among what is scored keeps its natural order.
/// Heads that share an order are averaged in compute_t and rounded to the scalar of q. Cost: 2 *
/// min(options.queries, queries) * keys * dim FLOPs per order, and two exponentials for each of its
/// scores. Memory: O(keys) per order, and 128 scores per key for as many orders as keep the threads
/// busy. The bits are the same for any number of threads.
template <Backend B, In<4> Q, In<4> K>
requires SameScalar<Q, K>
KeyOrder order_keys(const B& backend, const Q& q, const K& k, const OrderOptions& options = {}) {
  return detail::order_views(backend, as_const(to_view(q)), as_const(to_view(k)), options);
}

/// \overload
template <In<4> Q, In<4> K>
requires SameScalar<Q, K>
KeyOrder order_keys(const Q& q, const K& k, const OrderOptions& options = {}) {
  return order_keys(simd, q, k, options);
}

PARE_REFUSE_CALLS(order_keys, "attention::order_keys",
                  "after k: wanted OrderOptions, members spelt and ordered as declared",
                  (INPUT, (roles::Reads<4>), "q", "[batch, heads, queries, dim]"),
                  (INPUT, (roles::ReadsSame<4>), "k", "[batch, kv heads, keys, dim]"))

PARE_ABI_END
}  // namespace pare::attention

#include <pare/core/macros_on.hpp>
