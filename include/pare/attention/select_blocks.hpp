// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Choosing the blocks that attention computes: the concept of a selector, and the loop over heads.
///
/// ```cpp
/// struct Diagonal {                                  // a user's own selector
///   Index row_block = 128, column_block = 128;
///   template <class B, class S>
///   double select(const B&, const SelectorHead<S>& head, BlockLists& keep) const {
///     for (Index m = 0; m < keep.rows(); ++m)
///       keep.add(m, head.position(m * row_block) / column_block);
///     return NAN;                                    // no estimate of the mass kept
///   }
///   void validate(const char*, Index queries, Index keys) const {}
/// };
/// const auto blocks = select_blocks(q, k, Diagonal{}, {.causal = true});
/// attend(q, k, v, out, {.causal = true, .mask = &blocks});
/// ```

#include <pare/core/macros_off.hpp>

#include <pare/attention/block_mask.hpp>
#include <pare/attention/detail/checked_problem.hpp>
#include <pare/attention/key_order.hpp>
#include <pare/attention/key_value.hpp>
#include <pare/attention/score_modifier.hpp>
#include <pare/core/aligned_buffer.hpp>
#include <pare/core/backend.hpp>
#include <pare/core/executor_ref.hpp>
#include <pare/core/refused_call.hpp>
#include <pare/core/tensor_view.hpp>

#include <algorithm>
#include <array>
#include <chrono>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <optional>
#include <span>
#include <type_traits>
#include <utility>
#include <vector>

namespace pare::attention {

/// What a selector sees of one query head: its queries [n_q, dim], the keys [n_k, dim] of its
/// key/value head, and the order that puts keys into slots.
template <StorageScalar S>
struct SelectorHead {
  Index batch = 0;
  Index head = 0;
  TensorView<const S, 2> q{};
  TensorView<const S, 2> k{};
  std::span<const std::uint32_t> order{};  ///< slot -> position; empty: natural
  double scale = 1;
  bool causal = true;
  AlignedBuffer<std::byte>* memory = nullptr;  ///< scratch of this worker
  Index heads = 1;                             ///< query heads of the call

  /// Where a query stands among the keys: query + n_k - n_q (bottom-right aligned).
  Index position(Index query) const { return query + k.rows() - q.rows(); }
  /// The key in a slot, [dim]; `query(i)` is query i.
  /// \throws std::invalid_argument, like `query`, if there is none.
  const S* key(Index slot) const {
    check(slot >= 0 && slot < k.rows() && (order.empty() || slot < Index(order.size())), name_,
          "slot", slot, "a slot of the keys");
    const Index at =
        order.empty() ? slot : static_cast<Index>(order[static_cast<std::size_t>(slot)]);
    return k.data + at * k.stride[0];
  }
  const S* query(Index i) const {
    check(i >= 0 && i < q.rows(), name_, "query", i, "a query of the head");
    return q.data + i * q.stride[0];
  }

 private:
  static constexpr const char* name_ = "attention::SelectorHead";
};

/// The blocks of one head as a selector collects them, in any order; twice the same counts once.
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
      std::sort(list.begin(), list.end());
      list.erase(std::unique(list.begin(), list.end()), list.end());
    }
    return std::move(lists_);
  }

 private:
  static constexpr const char* name_ = "attention::BlockLists";

  Index columns_;
  std::vector<std::vector<std::int32_t>> lists_;
};

/// A type that picks blocks for one head at a time. `select` adds the blocks of every row and
/// returns the mean attention mass it believes they hold, or NaN; it is called for several heads at
/// once. `validate` throws `std::invalid_argument` if its members or the sizes do not fit.
template <class P>
concept BlockSelector = requires(const P& selector, const SelectorHead<float>& head,
                                 BlockLists& keep, const char* function, Index n) {
  { selector.row_block } -> std::convertible_to<Index>;
  { selector.column_block } -> std::convertible_to<Index>;
  { selector.select(reference, head, keep) } -> std::convertible_to<double>;
  selector.validate(function, n, n);
};

/// A mask, and what choosing it told.
struct SelectedBlocks : BlockMask {
  /// Mean over heads of the mass the selector believes it kept; NaN: unknown.
  double mass = 0;
  double seconds = 0;  ///< spent on selecting
};

/// Options of `select_blocks`, with the meaning and the defaults that they have in AttendOptions:
/// the call of `attend` that takes the blocks is to be given the same.
struct SelectOptions {
  bool causal = false;
  std::optional<double> scale{};
};

namespace detail {
PARE_ABI_BEGIN

inline constexpr const char* select_name = "attention::select_blocks";

/// Whether a selector has a member `shares_rows` that says true: it runs the rows of a head on
/// several threads itself, and is called for one head at a time where heads are fewer than those.
template <class P>
inline constexpr bool shares_rows = false;
template <class P>
requires requires { P::shares_rows; }
inline constexpr bool shares_rows<P> = P::shares_rows;

template <class S>
SelectorHead<S> selector_head(TensorView<const S, 4> q, TensorView<const S, 4> k, Index batch,
                              Index head, const KeyOrder* order, double scale, bool causal) {
  const Index kv_head = head / (q.extent[1] / k.extent[1]);
  SelectorHead<S> h;
  h.batch = batch;
  h.head = head;
  h.q = {q.data + batch * q.stride[0] + head * q.stride[1],
         {q.extent[2], q.extent[3]},
         {q.stride[2], q.stride[3]}};
  h.k = {k.data + batch * k.stride[0] + kv_head * k.stride[1],
         {k.extent[2], k.extent[3]},
         {k.stride[2], k.stride[3]}};
  if (order != nullptr)
    h.order = order->of(batch, order->shape().heads == k.extent[1] ? kv_head : head);
  h.scale = scale;
  h.causal = causal;
  h.heads = q.extent[1];
  return h;
}

/// Shapes of q and k, and the factor of their product.
template <class S>
double check_selection(const char* function, TensorView<const S, 4> q, TensorView<const S, 4> k,
                       const KeyOrder* order, bool causal, std::optional<double> scale) {
  const DenseKeyValue<S> keys{k, k, {}, {}};
  keys.validate(function);
  AttendOptions options;
  options.causal = causal;
  options.scale = scale;
  options.order = order;
  TensorView<const S, 4> out = q;  // only its shape is looked at
  return checked_problem(function, q, keys, out, Exact{}, options, k.extent[2]).scale;
}

template <class B, class S, BlockSelector P>
SelectedBlocks select_views(const B& backend, TensorView<const S, 4> q, TensorView<const S, 4> k,
                            const KeyOrder* order, const P& selector,
                            const SelectOptions& options) {
  const double scale = check_selection(select_name, q, k, order, options.causal, options.scale);
  check(selector.row_block >= 1 && selector.column_block >= 1, select_name, "selector",
        std::array<Index, 2>{selector.row_block, selector.column_block}, "blocks of at least 1");
  selector.validate(select_name, q.extent[2], k.extent[2]);
  const auto start = std::chrono::steady_clock::now();
  const BlockMask::Shape shape{q.extent[0], q.extent[1],        q.extent[2],
                               k.extent[2], selector.row_block, selector.column_block};
  const Index heads = shape.batch * shape.heads;
  std::vector<std::vector<std::vector<std::int32_t>>> lists(static_cast<std::size_t>(heads));
  std::vector<double> masses(lists.size());
  const auto any = on_any_executor(backend);
  const auto select_head = [&](Index i, AlignedBuffer<std::byte>& memory) {
    SelectorHead<S> head =
        selector_head(q, k, i / shape.heads, i % shape.heads, order, scale, options.causal);
    head.memory = &memory;
    BlockLists keep(shape.row_blocks(), shape.column_blocks());
    masses[static_cast<std::size_t>(i)] = selector.select(any, head, keep);
    lists[static_cast<std::size_t>(i)] = keep.take();
  };
  if constexpr (KernelBackend<B>) {
    std::vector<AlignedBuffer<std::byte>> memory(
        static_cast<std::size_t>(worker_count(backend.executor, heads)));
    if (shares_rows<P> && heads < Index{backend.executor.concurrency()}) {
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
  std::vector<std::vector<std::int32_t>> rows;
  for (auto& head : lists)
    for (auto& row : head) rows.push_back(std::move(row));
  SelectedBlocks selected{BlockMask::from_lists(shape, rows), 0, 0};
  for (const double mass : masses) selected.mass += mass / static_cast<double>(heads);
  selected.seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return selected;
}

PARE_ABI_END
}  // namespace detail
PARE_ABI_BEGIN

/// The blocks that a selector picks for every head.
///
/// \param backend  where and how; left out: pare::simd
/// \param q        [batch, heads, queries, dim]
/// \param k        [batch, kv heads, keys, dim], the scalar of q
/// \param order    the order that attention will read keys in; left out: natural
/// \param selector MeanPool, Antidiagonal, SlidingWindow or the user's own
/// \param options  whether attention is to be causal, and its scale
/// \returns a mask with rows of its own for every head, to pass to `attend`, with the mass kept and
///          the time taken
/// \throws std::invalid_argument if shapes, order or selector do not fit each other
///
/// Heads are shared out over threads; the result does not depend on how. Cost: the selector's.
/// Memory: the selector's, and the blocks selected, twice.
template <Backend B, In<4> Q, In<4> K, BlockSelector P>
requires std::is_same_v<scalar_of<Q>, scalar_of<K>>
SelectedBlocks select_blocks(const B& backend, const Q& q, const K& k, const KeyOrder& order,
                             const P& selector, const SelectOptions& options = {}) {
  return detail::select_views(backend, as_const(to_view(q)), as_const(to_view(k)), &order, selector,
                              options);
}

/// \overload
template <Backend B, In<4> Q, In<4> K, BlockSelector P>
requires std::is_same_v<scalar_of<Q>, scalar_of<K>>
SelectedBlocks select_blocks(const B& backend, const Q& q, const K& k, const P& selector,
                             const SelectOptions& options = {}) {
  return detail::select_views(backend, as_const(to_view(q)), as_const(to_view(k)),
                              static_cast<const KeyOrder*>(nullptr), selector, options);
}

/// \overload
template <In<4> Q, In<4> K, BlockSelector P>
requires std::is_same_v<scalar_of<Q>, scalar_of<K>>
SelectedBlocks select_blocks(const Q& q, const K& k, const KeyOrder& order, const P& selector,
                             const SelectOptions& options = {}) {
  return select_blocks(simd, q, k, order, selector, options);
}

/// \overload
template <In<4> Q, In<4> K, BlockSelector P>
requires std::is_same_v<scalar_of<Q>, scalar_of<K>>
SelectedBlocks select_blocks(const Q& q, const K& k, const P& selector,
                             const SelectOptions& options = {}) {
  return select_blocks(simd, q, k, selector, options);
}

PARE_REFUSE_CALLS(select_blocks, "attention::select_blocks",
                  "after k: wanted [a KeyOrder,] a BlockSelector and SelectOptions, members spelt "
                  "and ordered as declared",
                  (INPUT, (roles::Reads<4>), "q", "[batch, heads, queries, dim]"),
                  (INPUT, (roles::ReadsSame<4>), "k", "[batch, kv heads, keys, dim]"))

PARE_ABI_END
}  // namespace pare::attention

#include <pare/core/macros_on.hpp>
