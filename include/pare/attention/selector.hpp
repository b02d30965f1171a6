// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// What a type must have to choose the blocks that attention computes: your own selector needs two
/// block sizes and one function.
///
/// ```cpp
/// struct Diagonal : SelectorHooks {                  // a user's own selector
///   Index row_block = 128, column_block = 128;
///   template <class B, class S>
///   double select(const B&, const SelectorHead<S>& head, BlockLists& keep) const {
///     for (Index m = 0; m < keep.rows(); ++m)
///       keep.add(m, head.position(m * row_block) / column_block);
///     return NAN;                                    // no estimate of the mass kept
///   }
/// };
/// const auto blocks = select_blocks(q, k, Diagonal{}, {.causal = true});
/// attend(q, k, v, out, {.causal = true, .mask = &blocks});
/// ```

#include <pare/core/macros_off.hpp>

#include <pare/attention/key_order.hpp>
#include <pare/attention/key_rows.hpp>
#include <pare/core/aligned_buffer.hpp>
#include <pare/core/backend.hpp>
#include <pare/core/check.hpp>
#include <pare/core/tensor_view.hpp>

#include <algorithm>
#include <array>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <utility>
#include <vector>

namespace pare::attention {

/// The shapes and options of a call, which a selector may check before tensors are read.
struct SelectorCall {
  Index batch = 0;
  Index heads = 0;  ///< query heads
  Index kv_heads = 0;
  Index queries = 0;
  Index keys = 0;
  bool causal = false;
  bool ordered = false;  ///< whether keys are read in a KeyOrder
};

PARE_ABI_BEGIN

/// What a selector sees of one query head: its queries [n_q, dim], the keys [n_k, dim] of its
/// key/value head, and the order of the keys. With an order, attention reads its keys slot by slot,
/// and a column block is a block of slots; without one, slot and position are the same.
template <StorageScalar S>
struct SelectorHead {
  Index batch = 0;
  Index head = 0;
  TensorView<const S, 2> q{};
  KeyRows<S> k{};                          ///< by position
  std::span<const std::uint32_t> order{};  ///< slot -> position; empty: natural
  double scale = 1;
  bool causal = false;
  AlignedBuffer<std::byte>* memory = nullptr;  ///< scratch of this worker
  Index heads = 1;                             ///< query heads of the call

  /// Position of a query among the keys: query + n_k - n_q, so that the last query stands beside
  /// the last key.
  Index position(Index query) const { return query + k.rows() - q.rows(); }
  /// The key in a slot, [dim]; `query(i)` is query i, [dim].
  /// \throws std::invalid_argument, as `query` does, if there is none.
  const S* key(Index slot) const {
    check(slot >= 0 && slot < k.rows() && (order.empty() || slot < Index(order.size())), name_,
          "slot", slot, "a slot of the keys");
    return k[order.empty() ? slot : static_cast<Index>(order[static_cast<std::size_t>(slot)])];
  }
  const S* query(Index i) const {
    check(i >= 0 && i < q.rows(), name_, "query", i, "a query of the head");
    return q.data + i * q.stride[0];
  }

 private:
  static constexpr const char* name_ = "attention::SelectorHead";
};

/// What a selector of layers sees: all heads at once.
template <StorageScalar S>
struct SelectorLayer {
  TensorView<const S, 4> q{};       ///< [batch, heads, queries, dim]
  LayerKeys<S> k{};                 ///< [batch, kv heads, keys, dim]
  const KeyOrder* order = nullptr;  ///< in which keys are read; null: natural
  double scale = 1;
  bool causal = false;

  SelectorCall call() const {
    return {q.extent[0], q.extent[1], k.kv_heads(),    q.extent[2],
            k.keys(),    causal,      order != nullptr};
  }

  /// What a selector of heads sees of a query head, without scratch.
  PARE_ALWAYS_INLINE SelectorHead<S> of(Index batch, Index head) const {
    const Index kv_head = head / (q.extent[1] / k.kv_heads());
    SelectorHead<S> h;
    h.batch = batch;
    h.head = head;
    h.q = {q.data + batch * q.stride[0] + head * q.stride[1],
           {q.extent[2], q.extent[3]},
           {q.stride[2], q.stride[3]}};
    h.k = k.of(batch, kv_head);
    if (order != nullptr)
      h.order = order->of(batch, order->shape().heads == k.kv_heads() ? kv_head : head);
    h.scale = scale;
    h.causal = causal;
    h.heads = q.extent[1];
    return h;
  }
};

/// The blocks of one head, collected in any order. A block that is added twice counts once.
class BlockLists {
 public:
  /// \throws std::invalid_argument if rows are negative, or columns not in [0, 2^31).
  BlockLists(Index rows, Index columns) : columns_(columns) {
    check(rows >= 0 && columns >= 0 && columns <= std::numeric_limits<std::int32_t>::max(), name_,
          "rows, columns", std::array<Index, 2>{rows, columns}, "sizes of a mask");
    lists_.resize(static_cast<std::size_t>(rows));
  }

  /// Row blocks and column blocks of the mask.
  Index rows() const { return static_cast<Index>(lists_.size()); }
  Index columns() const { return columns_; }
  /// Selects a block. Rows may be added to on several threads, each row on one.
  /// \throws std::invalid_argument if the block lies outside the mask.
  void add(Index row, Index column) {
    check(row >= 0 && row < rows() && column >= 0 && column < columns_, name_, "row, column",
          std::array<Index, 2>{row, column}, "a block of the mask");
    lists_[static_cast<std::size_t>(row)].push_back(static_cast<std::int32_t>(column));
  }

  /// The columns of each row, sorted, each once; the object is empty afterwards.
  std::vector<std::vector<std::int32_t>> take() {
    for (auto& list : lists_) {
      if (!std::ranges::is_sorted(list)) std::ranges::sort(list);
      list.erase(std::unique(list.begin(), list.end()), list.end());
    }
    return std::move(lists_);
  }

 private:
  static constexpr const char* name_ = "attention::BlockLists";

  Index columns_;
  std::vector<std::vector<std::int32_t>> lists_;
};

/// What a selector says of itself besides its blocks. Derive your own from it, and define again
/// what differs. A type may also have the three members without this base, as those of this folder
/// do (g++ 12 warns under -Wextra of designators for an aggregate that has a base).
struct SelectorHooks {
  /// Whether `select` itself shares the rows of a head among threads. It is then called for one
  /// head at a time if there are fewer heads than threads. A LayerSelector ignores it.
  static constexpr bool shares_rows = false;

  /// Throws std::invalid_argument, in the name of `function`, if the members or the call do not
  /// fit.
  void validate(const char* /*function*/, const SelectorCall& /*call*/) const {}

  /// Whether every row keeps all that it sees. Attention is then computed exactly, and nothing is
  /// selected. Called after `validate`.
  bool keeps_all(const SelectorCall& /*call*/) const { return false; }
};

PARE_ABI_END

namespace detail {
/// Block sizes, and what SelectorHooks has.
template <class P>
concept HasSelectorHooks = requires(const P& p, const char* function, const SelectorCall& call) {
  { p.row_block } -> std::convertible_to<Index>;
  { p.column_block } -> std::convertible_to<Index>;
  { P::shares_rows } -> std::convertible_to<bool>;
  { p.keeps_all(call) } -> std::convertible_to<bool>;
  p.validate(function, call);
};
}  // namespace detail

/// A type that picks blocks of row_block queries and column_block key slots, for one head at a
/// time. `select` adds the blocks of every row and returns the mean attention mass that it believes
/// they hold, or NaN if it has no estimate. It is called for several heads at the same time. The
/// other members are those of SelectorHooks.
template <class P>
concept HeadSelector =
    detail::HasSelectorHooks<P> &&
    requires(const P& selector, const SelectorHead<float>& head, BlockLists& keep) {
      { selector.select(reference, head, keep) } -> std::convertible_to<double>;
    };

/// A type that picks blocks for all heads of a layer at once, where one head has a say in the
/// blocks of another. `select_layer` is called once, with one list for each (batch, query head),
/// all heads of a batch entry before the next entry. It returns the mean mass over heads, and
/// shares its work among threads itself.
template <class P>
concept LayerSelector =
    detail::HasSelectorHooks<P> &&
    requires(const P& selector, const SelectorLayer<float>& layer, std::span<BlockLists> keep) {
      { selector.select_layer(reference, layer, keep) } -> std::convertible_to<double>;
    };

/// What `select_blocks` takes. A type that is both selects by layers.
template <class P>
concept BlockSelector = HeadSelector<P> || LayerSelector<P>;

}  // namespace pare::attention

#include <pare/core/macros_on.hpp>
