// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// What an item of attention that stops early ranks: the keys before each segment, and the queries
/// of the segment.

#include <pare/attention/detail/early_stop_plan.hpp>
#include <pare/core/aligned_buffer.hpp>
#include <pare/core/backend.hpp>
#include <pare/linalg/score_rows.hpp>
#include <pare/linalg/top_k.hpp>

#include <algorithm>
#include <chrono>
#include <cstddef>

namespace pare::attention::detail {
PARE_ABI_BEGIN

/// Adds the time it lives to a sum.
class AddSeconds {
 public:
  explicit AddSeconds(double& sum) : sum_(sum) {}
  ~AddSeconds() {
    sum_ += std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
  }
  AddSeconds(const AddSeconds&) = delete;
  AddSeconds& operator=(const AddSeconds&) = delete;

 private:
  double& sum_;
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

/// sum += row
template <class T, class S>
void add_row(T* sum, const S* row, Index columns) {
  for (Index c = 0; c < columns; ++c) sum[c] += static_cast<T>(row[c]);
}

/// mean = sum / count, rounded to what is stored
template <class T, class S>
void store_mean(const T* sum, Index count, Index columns, S* mean) {
  const T factor = T(1) / static_cast<T>(std::max<Index>(count, 1));
  for (Index c = 0; c < columns; ++c) mean[c] = static_cast<S>(sum[c] * factor);
}

/// The rankings of an item, and the seconds that they take.
template <class B, class C>
class StopRanking {
  using T = typename C::T;
  using S = typename C::Scalar;

 public:
  StopRanking(const B& backend, const C& call, const StopPlan& plan, const StopShared<C>& shared,
              const AttendItem& item, const StopScratch<C>& own,
              AlignedBuffer<std::byte>& row_memory)
      : call_(call),
        plan_(plan),
        shared_(shared),
        item_(item),
        own_(own),
        sequence_(call.sequence(item.sequence)),
        kv_head_(item.head_begin / call.problem.group()),
        row_scores_(backend, row_memory, plan.segments_at_once, call.problem.key_dim),
        history_(own.ranked, own.rest) {}

  double seconds() const { return seconds_; }

  /// The products of the mean query of each segment with the keys before the last one.
  void score_history() {
    const AddSeconds timer(seconds_);
    const Index dim = call_.problem.key_dim;
    Index segments = 0, history = 0;
    for_each_segment(sequence_, item_, plan_.rule.segment, [&](const StopSegment& s) {
      average_queries(s);
      ++segments;
      history = s.start;
    });
    row_scores_.set_rows(segments, [&](Index i) { return own_.mean_queries + i * dim; });
    row_scores_.over_keys(
        0, history, [&](Index j) { return call_.source.key(item_.sequence, kv_head_, j); }, T(1),
        [&](Index first, Index count, const T* tile) {
          for (Index i = 0; i < segments; ++i)
            std::copy_n(tile + i * kernel::tile_keys, count,
                        own_.scores + i * plan_.longest + first);
        });
  }

  /// Begins with the history of a segment.
  void start(const StopSegment& s) {
    const AddSeconds timer(seconds_);
    history_.start(own_.scores + s.index * plan_.longest, s.start);
  }
  /// Ranks the first n keys of it, if they are not ranked yet.
  void reach(Index n) {
    if (history_.known() >= n) return;
    const AddSeconds timer(seconds_);
    history_.reach(n);
  }
  /// The i-th of those.
  Index operator[](Index i) const { return history_[i]; }

  /// Queries most like the guide first, but in natural order inside a tile, where the order means
  /// nothing: rows that are computed together then see about the same keys of their segment.
  void order_queries(const StopSegment& s, Index head) {
    const AddSeconds timer(seconds_);
    linalg::Ranked<T>* const order = own_.queries;
    if (!plan_.rule.permute_queries) {
      for (Index i = 0; i < s.queries(); ++i) order[i] = linalg::Ranked<T>(T(0), s.first + i);
      return;
    }
    row_scores_.set_rows(1, [&](Index) { return guide_of(s); });
    row_scores_.over_keys(
        s.first, s.last, [&](Index query) { return query_row(head, query); }, T(1),
        [&](Index first, Index count, const T* tile) {
          for (Index j = 0; j < count; ++j)
            order[first - s.first + j] = linalg::Ranked<T>(tile[j], first + j);
        });
    std::sort(order, order + s.queries());
    for (Index first = 0; first < s.queries(); first += plan_.rule.row_tile)
      std::sort(
          order + first, order + std::min(first + plan_.rule.row_tile, s.queries()),
          [](const linalg::Ranked<T>& a, const linalg::Ranked<T>& b) { return a.index < b.index; });
  }

  const S* query_row(Index head, Index query) const {
    return call_.q.data + sequence_.batch * call_.q.stride[0] + head * call_.q.stride[1] +
           (sequence_.query_begin + query) * call_.q.stride[2];
  }

 private:
  void average_queries(const StopSegment& s) {
    const Index dim = call_.problem.key_dim;
    std::fill_n(own_.sum_queries, dim, T(0));
    for (Index head = item_.head_begin; head < item_.head_end; ++head)
      for (Index query = s.first; query < s.last; ++query)
        add_row(own_.sum_queries, query_row(head, query), dim);
    store_mean(own_.sum_queries, item_.heads() * s.queries(), dim,
               own_.mean_queries + s.index * dim);
  }

  const S* guide_of(const StopSegment& s) const {
    if (plan_.rule.guide == EarlyStop::Guide::FirstKey)
      return call_.source.key(item_.sequence, kv_head_, 0);
    const Index head = item_.sequence * call_.problem.kv_heads + kv_head_;
    const Index segment = shared_.guides_per_head == 1 ? 0 : s.start / plan_.rule.segment;
    return shared_.guides + (head * shared_.guides_per_head + segment) * call_.problem.key_dim;
  }

  const C& call_;
  const StopPlan& plan_;
  const StopShared<C>& shared_;
  const AttendItem& item_;
  const StopScratch<C>& own_;
  Sequence sequence_;
  Index kv_head_;
  linalg::ScoreRows<B, S> row_scores_;
  linalg::LazyRanking<T> history_;
  double seconds_ = 0;
};

PARE_ABI_END
}  // namespace pare::attention::detail
