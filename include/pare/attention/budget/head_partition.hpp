// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Attention over heads of different lengths, cut into pieces and shared out to threads before it
/// runs, so that none waits for another (Tangram's ahead-of-time partition).
///
/// ```cpp
/// const HeadPartition partition(lengths, {.heads = 32, .threads = 2});   // [sequences, kv heads]
/// partition.imbalance();                     // work of the busiest thread over the mean: 1.01
/// attend_heads(pare::simd.threads(2), q, source, out, partition);
/// ```
///
/// A piece is some of the keys of one (sequence, kv head). How heads are cut depends on their own
/// lengths alone, never on threads or on other heads, and neither do bits. Pieces go to threads by
/// size, the largest first, each to the thread with the least work so far (Graham's rule: at most
/// one piece above the mean). A thread that is done takes what others have not begun.
///
/// Source: Tangram, arXiv 2606.06302 (imbalance between heads costs it up to 1.7 x in decode).
/// Ours: where heads are cut, which is where `attend` cuts them, and the rule of Graham, SIAM J.
/// Appl. Math. 17, 1969.

#include <pare/core/macros_off.hpp>

#include <pare/attention/detail/plan.hpp>
#include <pare/attention/detail/problem.hpp>
#include <pare/attention/key_value_source.hpp>
#include <pare/core/check.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/core/view_check.hpp>

#include <algorithm>
#include <cstddef>
#include <numeric>
#include <span>
#include <type_traits>
#include <vector>

namespace pare::attention {

namespace detail {
PARE_ABI_BEGIN
class PartitionAccess;
PARE_ABI_END
}  // namespace detail

/// What is shared out.
struct PartitionOptions {
  Index heads = 0;      ///< query heads of a sequence, a multiple of the kv heads
  Index queries = 1;    ///< of a sequence, at least 0
  bool causal = false;  ///< as of the call
  int threads = 1;      ///< at least 1
};

PARE_ABI_BEGIN

/// A cut of work over heads, and which thread does what.
class HeadPartition {
 public:
  HeadPartition() = default;

  /// \param lengths [sequences, kv heads] tokens that each head keeps, at least 0, below 2^30
  /// \throws std::invalid_argument if a length or an option is out of its range
  ///
  /// Cost: some 100 ns per piece, of which a head has up to 16, and more beyond 2^15 tokens.
  HeadPartition(const TensorView<const Index, 2>& lengths, const PartitionOptions& options) {
    assign("attention::HeadPartition", lengths, options);
  }

  /// \overload
  /// `lengths` is any matrix of Index: of Eigen's, or a view.
  template <class L>
  requires(view_of<const L>::rank == 2 && std::is_same_v<scalar_of<L>, Index>)
  HeadPartition(const L& lengths, const PartitionOptions& options)
      : HeadPartition(as_const(to_view(lengths)), options) {}

  int threads() const { return options_.threads; }
  Index pieces() const { return static_cast<Index>(plan_.items.size()); }
  /// Query rows times keys of a thread. \throws std::invalid_argument if there is no such thread
  double work(int thread) const {
    check(thread >= 0 && thread < threads(), "attention::HeadPartition::work", "thread", thread,
          Worded{"0 to below ", Index{threads()}});
    double sum = 0;
    for (const Index i : of(thread)) sum += work_[static_cast<std::size_t>(i)];
    return sum;
  }
  /// Work of the busiest thread over the mean of all, at least 1: all but it idle for 1 - 1 /
  /// imbalance of the time.
  double imbalance() const {
    double most = 0;
    for (int t = 0; t < threads(); ++t) most = std::max(most, work(t));
    const double all = std::accumulate(work_.begin(), work_.end(), 0.0);
    return all > 0 ? most * threads() / all : 1;
  }

 private:
  friend class detail::PartitionAccess;

  void assign(const char* function, const TensorView<const Index, 2>& lengths,
              const PartitionOptions& options) {
    check_lengths(function, lengths, options);
    options_ = options;
    kv_heads_ = lengths.cols();
    lengths_.clear();
    for (Index s = 0; s < lengths.rows(); ++s)
      for (Index h = 0; h < kv_heads_; ++h) lengths_.push_back(lengths(s, h));
    detail::Problem p;
    p.sequences = static_cast<Index>(lengths_.size());
    p.kv_heads = 1;
    p.heads = kv_heads_ == 0 ? 0 : options.heads / kv_heads_;
    p.causal = options.causal;
    const auto sequence = [&](Index i) {
      return detail::Sequence{i, 0, options.queries, lengths_[static_cast<std::size_t>(i)]};
    };
    part_rows_ = p.heads == 0 || options.queries == 0
                     ? 0
                     : detail::make_plan(p, 0, p.sequences * options.queries, sequence, plan_);
    if (p.heads == 0 || options.queries == 0) plan_ = {};
    weigh(p, sequence);
    share_out();
  }

  static void check_lengths(const char* function, const TensorView<const Index, 2>& lengths,
                            const PartitionOptions& options) {
    check_view(function, "lengths", lengths);
    for (Index s = 0; s < lengths.rows(); ++s)
      for (Index h = 0; h < lengths.cols(); ++h)
        check(lengths(s, h) >= 0 && lengths(s, h) <= most_tokens, function, "lengths",
              lengths(s, h), "0 to 2^30 - 1 tokens");
    const Index kv_heads = lengths.cols();
    check(
        options.heads >= 0 && (kv_heads == 0 ? options.heads == 0 : options.heads % kv_heads == 0),
        function, "heads", options.heads, Worded{"a multiple of the ", kv_heads, " kv heads"});
    check(options.queries >= 0 && options.queries <= most_tokens, function, "queries",
          options.queries, "0 to 2^30 - 1");
    check(options.threads >= 1, function, "threads", options.threads, "at least 1");
  }

  /// Rows times keys that each item reads.
  template <class SequenceOf>
  void weigh(const detail::Problem& p, const SequenceOf& sequence) {
    work_.clear();
    for (const detail::AttendItem& item : plan_.items) {
      const auto last = detail::visible(p, sequence(item.sequence), item.query_end - 1).last;
      const Index keys = std::min(item.slot_end, last + 1) - item.slot_begin;
      work_.push_back(static_cast<double>(std::max<Index>(keys, 0)) *
                      static_cast<double>(item.rows()));
    }
  }

  /// Items by thread; offsets_ has where each thread's begin.
  void share_out() {
    const std::size_t items = work_.size(), threads = static_cast<std::size_t>(options_.threads);
    order_.resize(items);
    std::iota(order_.begin(), order_.end(), Index{0});
    const auto work = [&](Index i) { return work_[static_cast<std::size_t>(i)]; };
    std::sort(order_.begin(), order_.end(),
              [&](Index a, Index b) { return work(a) != work(b) ? work(a) > work(b) : a < b; });
    loads_.assign(threads, 0);
    owner_.resize(items);
    for (const Index i : order_) {
      const auto least = std::min_element(loads_.begin(), loads_.end());
      *least += work(i);
      owner_[static_cast<std::size_t>(i)] = least - loads_.begin();
    }
    std::sort(order_.begin(), order_.end(), [&](Index a, Index b) {
      const Index x = owner_[static_cast<std::size_t>(a)], y = owner_[static_cast<std::size_t>(b)];
      if (x != y) return x < y;
      return work(a) != work(b) ? work(a) > work(b) : a < b;
    });
    offsets_.assign(threads + 1, 0);
    for (const Index t : owner_) ++offsets_[static_cast<std::size_t>(t) + 1];
    std::partial_sum(offsets_.begin(), offsets_.end(), offsets_.begin());
  }

  /// The items of a thread, the largest first.
  std::span<const Index> of(int thread) const {
    const auto t = static_cast<std::size_t>(thread);
    return std::span(order_).subspan(static_cast<std::size_t>(offsets_[t]),
                                     static_cast<std::size_t>(offsets_[t + 1] - offsets_[t]));
  }

  PartitionOptions options_{};
  Index kv_heads_ = 0;
  std::vector<Index> lengths_{};  ///< of each (sequence, kv head)
  detail::AttendMemory plan_{};   ///< items and merges alone
  Index part_rows_ = 0;
  std::vector<double> work_{};        ///< of each item
  std::vector<double> loads_{};       ///< of each thread, while work is shared out
  std::vector<Index> owner_{};        ///< of each item
  std::vector<Index> order_{};        ///< items, by thread
  std::vector<Index> offsets_{0, 0};  ///< [threads + 1]
};

PARE_ABI_END

namespace detail {
PARE_ABI_BEGIN

/// What a call that carries a partition out reads of it.
class PartitionAccess {
 public:
  static void assign(HeadPartition& to, const char* function,
                     const TensorView<const Index, 2>& lengths, const PartitionOptions& options) {
    to.assign(function, lengths, options);
  }
  static const AttendMemory& plan(const HeadPartition& p) { return p.plan_; }
  static Index part_rows(const HeadPartition& p) { return p.part_rows_; }
  static std::span<const Index> of(const HeadPartition& p, int thread) { return p.of(thread); }
  static std::span<const Index> lengths(const HeadPartition& p) { return p.lengths_; }
  static Index kv_heads(const HeadPartition& p) { return p.kv_heads_; }
  static const PartitionOptions& options(const HeadPartition& p) { return p.options_; }
};

PARE_ABI_END
}  // namespace detail
}  // namespace pare::attention

#include <pare/core/macros_on.hpp>
