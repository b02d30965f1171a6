// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// One item of attention: some heads, some queries, some key slots.

#include <pare/attention/detail/call.hpp>
#include <pare/attention/detail/plan.hpp>
#include <pare/attention/detail/scratch.hpp>
#include <pare/attention/detail/tile_feed.hpp>
#include <pare/attention/key_value_source.hpp>
#include <pare/core/backend.hpp>
#include <pare/core/cpu_features.hpp>
#include <pare/kernel/attend_tile.hpp>
#include <pare/kernel/pack.hpp>

#include <algorithm>
#include <array>
#include <bit>
#include <cstdint>
#include <limits>
#include <span>
#include <type_traits>

namespace pare::attention::detail {
PARE_ABI_BEGIN

/// Up to this many rows of a sequence, keys and values are multiplied by as they lie: packing them
/// would take longer than the products.
inline constexpr Index direct_rows = 2 * kernel::tile_rows;

/// Whether a backend's kernels multiply pairs of bf16, as fast as floats.
template <class B>
bool multiplies_pairs() {
  if constexpr (requires { typename B::arch; })
    return B::arch::has_bf16_dot && cpu_has_fast_bf16_dot();
  else
    return cpu_has_fast_bf16_dot();
}

/// An item that has one map of scores.
struct OneMap {};

/// Collects the visible slots of an item until a tile is full, and runs it. A second map of scores
/// over the same values is a runner beside it (`Beside`), which is given the same slots and, tile
/// by tile, the values that were packed for the first.
template <class B, class C, class Beside = OneMap>
class ItemRunner {
  using T = typename C::T;
  using S = typename C::Scalar;
  static constexpr bool pairs = !std::is_same_v<Beside, OneMap>;

 public:
  ItemRunner(const B& backend, const C& call, const AttendItem& item, const Scratch<C>& scratch,
             Beside* beside = nullptr)
      : beside_(beside),
        backend_(backend),
        call_(call),
        item_(item),
        scratch_(scratch),
        sequence_(call.sequence(item.sequence)),
        kv_head_(item.head_begin / call.problem.group()),
        rows_(item.heads() * sequence_.queries),
        lanes_(are_lanes()),
        tile_keys_(most_keys()),
        collected_(loads ? tile_keys_ : 2 * tile_keys_),
        feed_(backend, call, item.sequence, kv_head_, scratch) {}

  void run() {
    place_rows();
    const Problem& p = call_.problem;
    if (p.mask != nullptr)
      feed_mask();
    else
      feed(item_.slot_begin, item_.slot_end, all_heads);
    flush();
  }

  /// Packs the queries, and says where each row stands and what it sees.
  void place_rows() {
    place_queries();
    if constexpr (pairs) beside_->place_rows();
  }

  void add_run(Index begin, Index n) {
    feed_.add_run(begin, n);
    if constexpr (pairs) beside_->add_run(begin, n);
  }

  /// Runs a tile of as many slots as another runner's, with its values.
  void follow(const typename TileFeed<B, C>::Tile& first) {
    auto tile = are_direct() ? feed_.direct(first.count)
                             : feed_.packed_keys(first.count, fetch_mode(), first);
    heads_ = all_heads;
    finish_tile(tile);
  }

 private:
  static constexpr std::uint64_t all_heads = ~std::uint64_t{0};
  static constexpr bool loads = LoadsKeys<typename C::Keys> || LoadsValues<typename C::Keys>;

  /// Whether rows are the lanes of registers, for which keys and values need no packing; products
  /// of pairs, where they are fast, gain more by it.
  bool are_lanes() const {
    if (std::is_same_v<S, bf16> && multiplies_pairs<B>()) return false;
    return rows_ > kernel::direct_tile_rows && item_.rows() <= lane_rows &&
           sequence_.queries < split_below_queries && call_.problem.mask == nullptr;
  }

  /// Keys of a tile: more for few rows, unless they are loaded into the worker's own memory.
  Index most_keys() const {
    return rows_ <= kernel::direct_tile_rows && !loads ? kernel::direct_tile_keys
                                                       : kernel::tile_keys;
  }

  void place_queries() {
    const Problem& p = call_.problem;
    const Index queries = item_.queries();
    lowest_ = std::numeric_limits<Index>::max();
    for (Index query = 0; query < queries; ++query) {
      const Visible v = visible(p, sequence_, item_.query_begin + query);
      if (v.last >= 0) lowest_ = std::min(lowest_, v.first);
      highest_ = std::max(highest_, v.last);
      kernel::RowPlace place;
      place.query = static_cast<std::int32_t>(item_.query_begin + query);
      place.position = static_cast<std::int32_t>(item_.query_begin + query + sequence_.offset(p));
      place.first = static_cast<std::int32_t>(v.first);
      place.last = static_cast<std::int32_t>(v.last);
      for (Index h = 0; h < item_.heads(); ++h) {
        place.head = static_cast<std::int32_t>(item_.head_begin + h);
        scratch_.places[h * queries + query] = place;
        scratch_.query_rows[h * queries + query] =
            call_.q.data + sequence_.batch * call_.q.stride[0] +
            (item_.head_begin + h) * call_.q.stride[1] +
            (sequence_.query_begin + item_.query_begin + query) * call_.q.stride[2];
      }
    }
    if (lanes_)
      pack_lanes();
    else
      launch(backend_,
             kernel::PackLeft<S>{scratch_.query_rows, item_.rows(), p.key_dim, scratch_.queries});
    const Index columns = item_.rows() * kernel::padded_columns<T>(p.value_dim);
    std::fill_n(scratch_.state, columns, T(0));
    for (Index h = 0; h < item_.heads(); ++h) start_states(h * queries, queries, first_maximum(h));
  }

  /// Queries become the lanes of panels.
  void pack_lanes() {
    constexpr auto lanes = kernel::PanelWidth::Lanes;
    const Index rows = item_.rows(), dim = call_.problem.key_dim;
    if constexpr (std::is_same_v<S, T>) {
      launch(backend_, kernel::PackTransposed<T>{
                           scratch_.query_rows, rows, dim, scratch_.queries, {}, lanes});
    } else {
      for (Index r = 0; r < rows; ++r) {
        T* const row = scratch_.lane_queries + r * dim;
        for (Index c = 0; c < dim; ++c) row[c] = static_cast<T>(scratch_.query_rows[r][c]);
        scratch_.lane_query_rows[r] = row;
      }
      launch(backend_, kernel::PackTransposed<T>{
                           scratch_.lane_query_rows, rows, dim, scratch_.queries, {}, lanes});
    }
  }

  /// Where the softmax of the rows of a head starts: at nothing, or at its sink logit, which is a
  /// key of weight 1 without a value; of split keys the first part has it.
  T first_maximum(Index h) const {
    const auto& logits = call_.problem.sink_logits;
    if (!logits || item_.slot_begin > 0) return -std::numeric_limits<T>::infinity();
    return static_cast<T>((*logits)[static_cast<std::size_t>(item_.head_begin + h)]) *
           T(kernel::detail::log2_e);
  }

  void start_states(Index row, Index rows, T maximum) {
    const T weight = maximum == -std::numeric_limits<T>::infinity() ? T(0) : T(1);
    std::fill_n(scratch_.maximum + row, rows, maximum);
    std::fill_n(scratch_.sum + row, rows, weight);
    std::fill_n(scratch_.mass + row, rows, weight);
  }

  /// Blocks that the mask selects for any head of the item, in ascending order, each with the heads
  /// that selected it.
  void feed_mask() {
    const BlockMask& mask = *call_.problem.mask;
    const Index row = item_.query_begin / mask.shape().row_block;
    const Index heads = mask.shape().heads == 1 ? 1 : item_.heads();
    std::array<std::span<const std::int32_t>, static_cast<std::size_t>(most_heads)> left;
    for (Index h = 0; h < heads; ++h)
      left[static_cast<std::size_t>(h)] = mask.row(item_.sequence, item_.head_begin + h, row);
    for (;;) {
      constexpr std::int32_t none = std::numeric_limits<std::int32_t>::max();
      std::int32_t column = none;
      for (std::size_t h = 0; h < static_cast<std::size_t>(heads); ++h)
        if (!left[h].empty()) column = std::min(column, left[h].front());
      if (column == none) return;
      std::uint64_t set = 0;
      for (std::size_t h = 0; h < static_cast<std::size_t>(heads); ++h)
        if (!left[h].empty() && left[h].front() == column) {
          set |= std::uint64_t{1} << h;
          left[h] = left[h].subspan(1);
        }
      const Index block = mask.shape().column_block, begin = column * block;
      feed(std::max(begin, item_.slot_begin), std::min(begin + block, item_.slot_end),
           heads == 1 && item_.heads() > 1 ? all_heads : set);
    }
  }

  /// Takes slots [begin, end) for a set of heads, leaving out keys that no row of the item sees.
  void feed(Index begin, Index end, std::uint64_t heads) {
    if (heads != heads_ && feed_.count() > 0) flush();
    heads_ = heads;
    const Problem& p = call_.problem;
    if (p.order == nullptr) {
      end = std::min(end, highest_ + 1);
      take_run(begin, std::min(end, p.sinks));
      take_run(std::max({begin, lowest_, p.sinks}), end);
      return;
    }
    const auto order = p.order->of(
        item_.sequence, p.order->shape().heads == p.kv_heads ? kv_head_ : item_.head_begin);
    for (Index slot = begin; slot < end; ++slot) {
      const auto position = static_cast<Index>(order[static_cast<std::size_t>(slot)]);
      if (position <= highest_ && (position >= lowest_ || position < p.sinks)) take(position);
    }
  }

  /// Two tiles are collected before the first runs, so that packing it can fetch the other; of rows
  /// that are loaded, one.
  void take(Index position) {
    if (hides_key(call_.modifier, item_.sequence, position)) return;
    if (feed_.count() == collected_) run_tile();
    add_run(position, 1);
  }

  /// The same for positions [begin, end).
  void take_run(Index begin, Index end) {
    while (begin < end) {
      if (hides_key(call_.modifier, item_.sequence, begin)) {
        ++begin;
        continue;
      }
      if (feed_.count() == collected_) run_tile();
      const Index most = std::min(collected_ - feed_.count(), end - begin);
      Index room = 1;
      while (room < most && !hides_key(call_.modifier, item_.sequence, begin + room)) ++room;
      add_run(begin, room);
      begin += room;
    }
  }

  void flush() {
    while (feed_.count() > 0) run_tile();
  }

  /// Whether keys and values are multiplied by as they lie.
  bool are_direct() const { return lanes_ || rows_ <= direct_rows; }

  Fetch fetch_mode() const {
    return item_.rows() < small_block_rows ? Fetch::Packing : Fetch::Computing;
  }

  /// Runs the first tile of what was collected.
  void run_tile() {
    const Index count = std::min(feed_.count(), tile_keys_);
    auto tile = are_direct() ? feed_.direct(count) : feed_.packed(count, fetch_mode());
    if constexpr (pairs) {
      const auto first = tile;
      finish_tile(tile);
      beside_->follow(first);
    } else {
      finish_tile(tile);
    }
  }

  void finish_tile(typename TileFeed<B, C>::Tile& tile) {
    if (lanes_) {
      tile.lanes = scratch_.lanes;
      tile.lanes.stride = kernel::padded_columns<T>(item_.rows());
    }
    note_positions(tile);
    run_heads(tile);
    feed_.drop(tile.count);
  }

  /// The tile for each run of neighbouring heads that want it.
  void run_heads(typename TileFeed<B, C>::Tile& tile) {
    if (heads_ == all_heads) {
      tile.first_row = 0;
      tile.rows = item_.rows();
      launch(backend_, tile);
      return;
    }
    const auto heads = static_cast<int>(item_.heads());
    for (int begin = 0; begin < heads;) {
      const std::uint64_t rest = heads_ >> begin;
      if ((rest & 1) == 0) {
        ++begin;
        continue;
      }
      const int end = std::min(heads, begin + std::countr_one(rest));
      tile.first_row = begin * item_.queries();
      tile.rows = end * item_.queries();
      launch(backend_, tile);
      tile.fetch.count = tile.fetch_keys.count = 0;
      begin = end;
    }
  }

  Beside* beside_;
  const B& backend_;
  const C& call_;
  const AttendItem& item_;
  const Scratch<C>& scratch_;
  Sequence sequence_;
  Index kv_head_;
  Index rows_;          ///< of the sequence, for the heads of the item
  bool lanes_;          ///< whether rows are lanes
  Index tile_keys_;     ///< of a full tile
  Index collected_;     ///< keys that are collected at most
  Index lowest_ = 0;    ///< lowest position that some row sees, sinks apart
  Index highest_ = -1;  ///< highest position that some row sees
  TileFeed<B, C> feed_;
  std::uint64_t heads_ = 0;
};

PARE_ABI_END
}  // namespace pare::attention::detail
