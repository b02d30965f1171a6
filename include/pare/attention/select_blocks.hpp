// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Choosing the blocks that attention computes: `select_blocks` asks a selector for every head.
///
/// ```cpp
/// const auto blocks = select_blocks(q, k, MeanPool{.mass = 0.9f}, {.causal = true});
/// attend(q, k, v, out, {.causal = true, .mask = &blocks});  // causality and scale as above
/// if (blocks.mass < 0.8) std::puts("much was left out");
/// const auto of_cache = select_blocks(q, cache, MeanPool{}, {.causal = true});  // a PagedKeyValue
/// ```

#include <pare/core/macros_off.hpp>

#include <pare/attention/block_mask.hpp>
#include <pare/attention/detail/checked_problem.hpp>
#include <pare/attention/key_order.hpp>
#include <pare/attention/key_value.hpp>
#include <pare/attention/score_modifier.hpp>
#include <pare/attention/selector.hpp>
#include <pare/core/aligned_buffer.hpp>
#include <pare/core/backend.hpp>
#include <pare/core/executor_ref.hpp>
#include <pare/core/refused_call.hpp>
#include <pare/core/tensor_view.hpp>

#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <type_traits>
#include <utility>
#include <vector>

namespace pare::attention {

/// Keys that go with queries Q: a tensor or a source of the same scalar.
template <class K, class Q>
concept KeysFor = (In<K, 4> && std::is_same_v<scalar_of<Q>, scalar_of<K>>) ||
                  (KeyValueSource<K> && std::is_same_v<scalar_of<Q>, typename K::scalar>);

/// A mask, and what choosing it told.
struct SelectedBlocks : BlockMask {
  /// Mean over heads of the mass the selector believes it kept; NaN: unknown.
  double mass = 0;
  double seconds = 0;  ///< spent on selecting
};

/// Options of `select_blocks`. They mean what they mean in AttendOptions, and have its defaults.
/// Give the call of `attend` that takes the blocks the same ones.
struct SelectOptions {
  bool causal = false;
  std::optional<double> scale{};
};

namespace detail {
PARE_ABI_BEGIN

inline constexpr const char* select_name = "attention::select_blocks";

/// Keys [batch, kv heads, keys, dim] as far as checks look at them, with values of their size.
struct KeySizes {
  std::array<Index, 4> extent{};

  Index sequences() const { return extent[0]; }
  Index kv_heads() const { return extent[1]; }
  Index key_dim() const { return extent[3]; }
  Index value_dim() const { return extent[3]; }
};

/// Checks q against keys that are sound themselves; returns the factor of their product.
template <class S>
double checked_product_scale(const char* function, TensorView<const S, 4> q, const KeySizes& keys,
                             const KeyOrder* order, const SelectOptions& select) {
  AttendOptions options;
  options.causal = select.causal;
  options.scale = select.scale;
  options.order = order;
  TensorView<const S, 4> out = q;  // only its shape is looked at
  return checked_problem(function, q, keys, out, Exact{}, options, keys.extent[2]).scale;
}

template <class S>
SelectorLayer<S> checked_layer(const char* function, TensorView<const S, 4> q,
                               const TensorView<const S, 4>& k, const KeyOrder* order,
                               const SelectOptions& options) {
  DenseKeyValue<S>{k, k, {}, {}}.validate(function);
  const double scale = checked_product_scale(function, q, {k.extent}, order, options);
  return {q, k, order, scale, options.causal};
}

template <class S, KeyValueSource Source>
SelectorLayer<S> checked_layer(const char* function, TensorView<const S, 4> q, const Source& source,
                               const KeyOrder* order, const SelectOptions& options) {
  source.validate(function);
  check_scale_given<Source>(function, options.scale);
  const Index keys = source.sequences() > 0 ? Index{source.length(0)} : 0;
  for (Index i = 0; i < source.sequences(); ++i)
    check(source.length(i) == keys, function, "source", source.length(i),
          Worded{"sequences of one length, as the first, ", keys});
  const double scale = checked_product_scale(
      function, q, {{source.sequences(), source.kv_heads(), keys, source.key_dim()}}, order,
      options);
  return {q, {source, keys}, order, scale, options.causal};
}

template <BlockSelector P>
void check_selector(const char* function, const P& selector, const SelectorCall& call) {
  check(selector.row_block >= 1, function, "row_block", selector.row_block, "at least 1");
  check(selector.column_block >= 1, function, "column_block", selector.column_block, "at least 1");
  selector.validate(function, call);
}

/// Whether attention may as well be exact: no row loses a key, or there is none.
template <BlockSelector P>
bool keeps_all(const P& selector, const SelectorCall& call) {
  return call.batch == 0 || call.heads == 0 || call.queries == 0 || selector.keeps_all(call);
}

/// Asks a selector for one head after the other; returns the mean of what it believes.
template <class B, class S, HeadSelector P>
double select_heads(const B& backend, const SelectorLayer<S>& layer, const P& selector,
                    std::span<BlockLists> lists) {
  const auto heads = static_cast<Index>(lists.size());
  std::vector<double> masses(lists.size());
  const B apart = for_workers(backend);
  const auto select_head = [&](Index i, AlignedBuffer<std::byte>& memory) {
    const auto at = static_cast<std::size_t>(i);
    SelectorHead<S> head = layer.of(i / layer.q.extent[1], i % layer.q.extent[1]);
    head.memory = &memory;
    masses[at] = selector.select(apart, head, lists[at]);
  };
  if constexpr (KernelBackend<B>) {
    std::vector<AlignedBuffer<std::byte>> memory(
        static_cast<std::size_t>(worker_count(backend.executor, heads)));
    if (P::shares_rows && heads < Index{backend.executor.concurrency()}) {
      for (Index i = 0; i < heads; ++i) select_head(i, memory[0]);
    } else {
      parallel_for(backend.executor, heads, [&](Index i, int worker) {
        select_head(i, memory[static_cast<std::size_t>(worker)]);
      });
    }
  } else {
    AlignedBuffer<std::byte> memory;
    for (Index i = 0; i < heads; ++i) select_head(i, memory);
  }
  double sum = 0;
  for (const double mass : masses) sum += mass / static_cast<double>(heads);
  return sum;
}

/// The blocks of a layer, after all was checked.
template <class B, class S, BlockSelector P>
SelectedBlocks select_layer(const B& backend, SelectorLayer<S> layer, const P& selector) {
  const auto start = std::chrono::steady_clock::now();
  std::vector<S> loaded;
  layer.k = layer.k.in_memory(loaded);
  const SelectorCall call = layer.call();
  const BlockMask::Shape shape{call.batch, call.heads,         call.queries,
                               call.keys,  selector.row_block, selector.column_block};
  std::vector<BlockLists> lists(static_cast<std::size_t>(call.batch * call.heads),
                                BlockLists(shape.row_blocks(), shape.column_blocks()));
  double mass = 0;
  if constexpr (LayerSelector<P>)
    mass = selector.select_layer(on_any_executor(backend), layer, std::span(lists));
  else
    mass = select_heads(on_any_executor(backend), layer, selector, std::span(lists));
  std::vector<std::vector<std::int32_t>> rows;
  for (BlockLists& head : lists)
    for (auto& row : head.take()) rows.push_back(std::move(row));
  SelectedBlocks selected{BlockMask::from_lists(shape, rows), mass, 0};
  selected.seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return selected;
}

template <class B, class S, class K, BlockSelector P>
SelectedBlocks select_views(const B& backend, TensorView<const S, 4> q, const K& k,
                            const KeyOrder* order, const P& selector,
                            const SelectOptions& options) {
  const SelectorLayer<S> layer = checked_layer(select_name, q, k, order, options);
  check_selector(select_name, selector, layer.call());
  return select_layer(backend, layer, selector);
}

/// A source as it is, a tensor as a view.
template <class K>
decltype(auto) keys_of(const K& k) {
  if constexpr (KeyValueSource<K>)
    return (k);
  else
    return as_const(to_view(k));
}

PARE_ABI_END
}  // namespace detail
PARE_ABI_BEGIN

/// The blocks that a selector picks for every head.
///
/// \param backend  where and how; left out: pare::simd
/// \param q        [batch, heads, queries, dim]
/// \param k        [batch, kv heads, keys, dim], or a KeyValueSource such as PagedKeyValue, whose
///                 sequences all have one length; the scalar of q
/// \param order    the order that attention will read keys in; left out: natural
/// \param selector MeanPool, Antidiagonal, SlidingWindow, ProxyHeads, SampledMass or the user's own
/// \param options  whether attention is to be causal, and its scale
/// \returns a mask with rows of its own for every head, to pass to `attend`, with the mass kept and
///          the time taken
/// \throws std::invalid_argument if shapes, order or selector do not fit each other, sequences of a
///         source differ in length, or as its `validate`
///
/// Heads are shared among threads, or left to a LayerSelector. The result depends neither on that
/// nor on where the keys lie. Cost: the selector's. Memory: the selector's, and the selected blocks
/// twice. The keys of a source are copied if it loads them, and for ProxyHeads.
template <Backend B, In<4> Q, KeysFor<Q> K, BlockSelector P>
SelectedBlocks select_blocks(const B& backend, const Q& q, const K& k, const KeyOrder& order,
                             const P& selector, const SelectOptions& options = {}) {
  return detail::select_views(backend, as_const(to_view(q)), detail::keys_of(k), &order, selector,
                              options);
}

/// \overload
template <Backend B, In<4> Q, KeysFor<Q> K, BlockSelector P>
SelectedBlocks select_blocks(const B& backend, const Q& q, const K& k, const P& selector,
                             const SelectOptions& options = {}) {
  return detail::select_views(backend, as_const(to_view(q)), detail::keys_of(k),
                              static_cast<const KeyOrder*>(nullptr), selector, options);
}

/// \overload
template <In<4> Q, KeysFor<Q> K, BlockSelector P>
SelectedBlocks select_blocks(const Q& q, const K& k, const KeyOrder& order, const P& selector,
                             const SelectOptions& options = {}) {
  return select_blocks(simd, q, k, order, selector, options);
}

/// \overload
template <In<4> Q, KeysFor<Q> K, BlockSelector P>
SelectedBlocks select_blocks(const Q& q, const K& k, const P& selector,
                             const SelectOptions& options = {}) {
  return select_blocks(simd, q, k, selector, options);
}

PARE_REFUSE_CALLS(select_blocks, "attention::select_blocks",
                  "after k: wanted [a KeyOrder,] a BlockSelector and SelectOptions, members spelt "
                  "and ordered as declared (a KeyValueSource as k: of the scalar of q)",
                  (INPUT, (roles::Reads<4>), "q", "[batch, heads, queries, dim]"),
                  (INPUT, (roles::Unless<roles::ReadsSame<4>, detail::IsSource, roles::right>), "k",
                   "[batch, kv heads, keys, dim]"))

PARE_ABI_END
}  // namespace pare::attention

#include <pare/core/macros_on.hpp>
