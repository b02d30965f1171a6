// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// One item of attention that stops early: some segments of one head, or of the heads that share a
/// ranking of the keys.

#include <pare/attention/detail/early_stop_plan.hpp>
#include <pare/attention/detail/early_stop_ranking.hpp>
#include <pare/attention/detail/tile_feed.hpp>
#include <pare/core/aligned_buffer.hpp>
#include <pare/core/backend.hpp>
#include <pare/kernel/attend_finish.hpp>
#include <pare/kernel/math.hpp>
#include <pare/kernel/pack.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>

namespace pare::attention::detail {
PARE_ABI_BEGIN

/// Runs the segments of an item one after the other. Row r of a head is the r-th query of the
/// segment in the order in which queries are tiled.
template <class B, class C>
class StopRunner {
  using T = typename C::T;
  using S = typename C::Scalar;

 public:
  StopRunner(const B& backend, const C& call, const StopPlan& plan, const StopShared<C>& shared,
             const AttendItem& item, const Scratch<C>& scratch, const StopScratch<C>& own,
             AlignedBuffer<std::byte>& row_memory)
      : backend_(backend),
        call_(call),
        plan_(plan),
        item_(item),
        scratch_(scratch),
        own_(own),
        sequence_(call.sequence(item.sequence)),
        ranking_(backend, call, plan, shared, item, own, row_memory),
        feed_(backend, call, item.sequence, item.head_begin / call.problem.group(), scratch) {}

  void run() {
    ranking_.score_history();
    for_each_segment(sequence_, item_, plan_.rule.segment,
                     [this](const StopSegment& s) { run_segment(s); });
  }

  /// (query, key) pairs gone through that causality allows.
  double computed() const { return computed_; }
  double seconds() const { return ranking_.seconds(); }

 private:
  void run_segment(const StopSegment& s) {
    ranking_.start(s);
    for (Index head = item_.head_begin; head < item_.head_end; head += plan_.heads_at_once) {
      rows_ = live_ = 0;
      const Index end = std::min(item_.head_end, head + plan_.heads_at_once);
      for (Index h = head; h < end; ++h) place_head(s, h);
      begin_rows();
      attend_own(s);
      attend_history(s);
      finish();
    }
  }

  /// Appends the queries of a head, tile by tile.
  void place_head(const StopSegment& s, Index head) {
    ranking_.order_queries(s, head);
    const Index offset = sequence_.keys - sequence_.queries, begin = rows_;
    for (Index first = 0; first < s.queries(); first += plan_.rule.row_tile) {
      const Index last = std::min(first + plan_.rule.row_tile, s.queries());
      own_.live[live_++] = {begin + first, begin + last};
      for (Index i = first; i < last; ++i) {
        const auto query = static_cast<std::int32_t>(own_.queries[i].index);
        kernel::RowPlace& place = scratch_.places[rows_];
        place.query = query;
        place.position = place.last = query + static_cast<std::int32_t>(offset);
        place.first = 0;
        place.head = static_cast<std::int32_t>(head);
        scratch_.query_rows[rows_++] = ranking_.query_row(head, query);
        computed_ += static_cast<double>(place.position + 1 - s.start);
      }
    }
  }

  void begin_rows() {
    const Problem& p = call_.problem;
    launch(backend_, kernel::PackLeft<S>{scratch_.query_rows, rows_, p.key_dim, scratch_.queries});
    std::fill_n(scratch_.maximum, rows_, -std::numeric_limits<T>::infinity());
    std::fill_n(scratch_.sum, rows_, T(0));
    std::fill_n(scratch_.mass, rows_, T(0));
    std::fill_n(scratch_.state, rows_ * kernel::padded_columns<T>(p.value_dim), T(0));
  }

  /// Collects the keys position(0) ... position(n - 1), of which the feed has the first.
  template <class Position>
  void collect(Index n, const Position& position) {
    while (feed_.count() < n) feed_.add(position(feed_.count()));
  }

  /// The keys of the segment itself, hidden where they come after a query.
  void attend_own(const StopSegment& s) {
    const Index end = s.last + sequence_.keys - sequence_.queries;
    feed_.clear();
    for (Index first = s.start; first < end; first += kernel::tile_keys) {
      const Index count = std::min<Index>(kernel::tile_keys, end - first);
      collect(std::min<Index>(2 * kernel::tile_keys, end - first),
              [first](Index j) { return first + j; });
      auto tile = feed_.packed(count, Fetch::Throughout);
      tile.lowest = static_cast<std::int32_t>(first);
      tile.highest = static_cast<std::int32_t>(first + count - 1);
      tile.contiguous = true;
      tile.rows = rows_;
      launch(backend_, tile);
      feed_.drop(count);
    }
  }

  /// The keys before the segment in the order of their rank, as long as a tile of rows is live.
  void attend_history(const StopSegment& s) {
    const Index most = std::min<Index>(kernel::tile_keys, plan_.rule.key_tile);
    for (Index at = 0; at < s.start && live_ > 0;) {
      const Index end = std::min(at + plan_.rule.key_tile, s.start);
      const Index fetched = std::min(end + most, s.start);
      ranking_.reach(fetched);
      set_sums_aside();
      while (at < end) {
        const Index count = std::min(most, end - at);
        collect(count + std::min(most, fetched - at - count),
                [&](Index j) { return ranking_[at + j]; });
        attend_ranked(s, count);
        at += count;
      }
      retire(end);
    }
    for (Index i = 0; i < live_; ++i) count_pairs(own_.live[i], s.start);
  }

  void attend_ranked(const StopSegment& s, Index count) {
    auto tile = feed_.packed(count, Fetch::Throughout);
    tile.lowest = 0;
    tile.highest = static_cast<std::int32_t>(s.start - 1);
    for (Index i = 0; i < live_;) {
      tile.first_row = own_.live[i].first;
      do tile.rows = own_.live[i++].last;
      while (i < live_ && own_.live[i].first == tile.rows);
      launch(backend_, tile);
      tile.fetch.count = 0;
    }
    feed_.drop(count);
  }

  /// Lets the sums begin at 0, so that they come to be what the next tile of keys adds: a small
  /// gain would drown in the rounding of the difference of two sums.
  void set_sums_aside() {
    for (Index i = 0; i < live_; ++i)
      for (Index r = own_.live[i].first; r < own_.live[i].last; ++r) {
        own_.maximum_before[r] = scratch_.maximum[r];
        own_.sum_before[r] = scratch_.sum[r];
        scratch_.sum[r] = T(0);
      }
  }

  /// Takes tiles that gained less than the threshold off the list, after `keys` keys of history.
  void retire(Index keys) {
    Index live = 0;
    for (Index i = 0; i < live_; ++i) {
      if (gain_of(own_.live[i]) < plan_.rule.threshold)
        count_pairs(own_.live[i], keys);
      else
        own_.live[live++] = own_.live[i];
    }
    live_ = live;
  }

  /// Puts the sums of a tile together again; returns the gain that decides. A row whose gain is NaN
  /// does not decide.
  double gain_of(const StopTile& tile) {
    double largest = 0, total = 0, counted = 0;
    for (Index r = tile.first; r < tile.last; ++r) {
      const T before = own_.maximum_before[r], now = scratch_.maximum[r];
      const T added = scratch_.sum[r];
      // Where nothing was seen yet, both may be -infinity.
      scratch_.sum[r] +=
          own_.sum_before[r] * (before == now ? T(1) : kernel::exp2<arch::scalar>(before - now));
      const auto gain = static_cast<double>(added / scratch_.sum[r]);
      if (!is_finite(gain)) continue;
      largest = std::max(largest, gain);
      total += gain;
      ++counted;
    }
    if (plan_.rule.aggregate == EarlyStop::Aggregate::Max) return largest;
    return counted > 0 ? total / counted : 0;
  }

  void count_pairs(const StopTile& tile, Index keys) {
    computed_ += static_cast<double>(tile.last - tile.first) * static_cast<double>(keys);
  }

  void finish() {
    const auto lse = call_.options.lse.template view<T>();
    const bool lse_wanted = call_.options.lse.wanted();
    for (Index r = 0; r < rows_; ++r) {
      const Index head = scratch_.places[r].head;
      const Index token = sequence_.query_begin + scratch_.places[r].query;
      scratch_.out_rows[r] = call_.out.data + sequence_.batch * call_.out.stride[0] +
                             head * call_.out.stride[1] + token * call_.out.stride[2];
      if (lse_wanted) scratch_.lse_rows[r] = &lse(sequence_.batch, head, token);
    }
    launch(backend_,
           kernel::FinishRows<T, typename C::Output>{
               scratch_.maximum, scratch_.sum, scratch_.state, rows_, call_.problem.value_dim,
               scratch_.out_rows, lse_wanted ? scratch_.lse_rows : nullptr,
               call_.keeps_mass() ? scratch_.mass : nullptr});
  }

  const B& backend_;
  const C& call_;
  const StopPlan& plan_;
  const AttendItem& item_;
  const Scratch<C>& scratch_;
  const StopScratch<C>& own_;
  Sequence sequence_;
  StopRanking<B, C> ranking_;
  TileFeed<B, C> feed_;
  Index rows_ = 0;
  Index live_ = 0;
  double computed_ = 0;
};

PARE_ABI_END
}  // namespace pare::attention::detail
