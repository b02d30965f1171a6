// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Heads that weigh all keys they see alike, by running sums of values.

#include <pare/attention/detail/call.hpp>
#include <pare/attention/detail/problem.hpp>
#include <pare/attention/detail/streamed_rows.hpp>
#include <pare/attention/key_value_source.hpp>
#include <pare/core/aligned_buffer.hpp>
#include <pare/core/backend.hpp>
#include <pare/core/check.hpp>
#include <pare/core/parallel.hpp>
#include <pare/core/scratch.hpp>
#include <pare/core/workspace.hpp>
#include <pare/kernel/running_means.hpp>
#include <pare/kernel/streaming.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <type_traits>
#include <vector>

namespace pare::attention::detail {
PARE_ABI_BEGIN

/// Sums begin anew after so many rows, so that what rounding leaves, above all of values that came
/// and went, does not grow with the sequence.
inline constexpr Index restart_rows = 4096;
/// Rows whose pointers are gathered for one call of the kernel.
inline constexpr Index mean_chunk = 64;
/// With fewer (sequence, key/value head) than this, columns are cut, for other cores.
inline constexpr Index enough_mean_items = 8, least_mean_columns = 32;

/// The uniform heads of one key/value head of a sequence, on some columns.
struct MeanItem {
  Index sequence = 0, head_begin = 0, head_end = 0, column_begin = 0, column_end = 0;
};

struct MeanMemory {
  std::vector<AlignedBuffer<std::byte>> workers;
  std::vector<MeanItem> items;
};

/// log(keys + e^sink), -infinity for nothing.
inline double log_weight(Index keys, double sink) {
  const double most = keys == 0 ? sink : std::max(sink, 0.0);
  if (most == -std::numeric_limits<double>::infinity()) return most;
  return most + std::log(static_cast<double>(keys) * std::exp(-most) + std::exp(sink - most));
}

/// 1 / (keys + e^sink), and 0 for no key.
inline double weight_share(Index keys, double sink) {
  if (keys == 0) return 0;
  if (sink == -std::numeric_limits<double>::infinity()) return 1 / static_cast<double>(keys);
  return std::exp(-log_weight(keys, sink));
}

/// Keys that a query sees.
inline Index seen_keys(const Visible& v, Index sinks) {
  return std::max<Index>(0, v.last - v.first + 1) +
         std::max<Index>(0, std::min({sinks, v.first, v.last + 1}));
}

inline double sink_of(const Problem& p, Index head) {
  return p.sink_logits ? static_cast<double>((*p.sink_logits)[static_cast<std::size_t>(head)])
                       : -std::numeric_limits<double>::infinity();
}

/// One item, on one worker.
template <class B, class C>
class MeanRunner {
  using S = typename C::Scalar;
  using O = typename C::Output;
  using T = typename C::T;
  static constexpr bool loads = LoadsValues<typename C::Keys>;

 public:
  MeanRunner(const B& backend, const C& call, const MeanItem& item,
             AlignedBuffer<std::byte>& memory, bool streams)
      : backend_(backend),
        call_(call),
        p_(call.problem),
        item_(item),
        s_(call.sequence(item.sequence)),
        columns_(item.column_end - item.column_begin),
        offset_(s_.offset(p_)),
        sink_(sink_of(p_, item.head_begin)),
        streams_(streams) {
    carve_from(memory, [&](Carver& take) {
      take(sums_, whole_lines(columns_));
      take(base_, whole_lines(columns_));
      take(shares_, mean_chunk);
      take(enter_, mean_chunk);
      take(leave_, mean_chunk);
      take(outs_, item.head_end - item.head_begin);
      take(room_, loads ? 2 * mean_chunk * p_.value_dim : 0);
    });
  }

  void run() {
    for (Index query = 0; query < s_.queries;) {
      const Index end = std::min(s_.queries, (query / restart_rows + 1) * restart_rows);
      if (query == 0 || slides())
        begin_at(query++);
      else
        fold();
      while (query < end) query = advance(query, std::min(end, query + mean_chunk));
    }
    write_lse();
  }

 private:
  /// Whether keys that were seen are left behind.
  bool slides() const { return p_.left < no_limit; }

  bool is_uniform(Index head) const {
    return p_.modes[static_cast<std::size_t>(head)] == HeadMode::Uniform;
  }

  /// Sums over what a query sees, and its row.
  void begin_at(Index query) {
    std::fill_n(sums_, whole_lines(columns_), 0.0);
    std::fill_n(base_, whole_lines(columns_), 0.0);
    const Visible v = visible(p_, s_, query);
    add_run(0, std::max<Index>(0, std::min({p_.sinks, v.first, v.last + 1})));
    add_run(v.first, v.last + 1);
    // Of an infinite sum what it lost is NaN.
    if (slides() && !is_finite_sum()) std::fill_n(base_, whole_lines(columns_), 0.0);
    gather(v, 0, nullptr, nullptr);
    write(query, 1, nullptr);
    before_ = v;
  }

  /// Adds the values at positions [begin, end).
  void add_run(Index begin, Index end) {
    for (Index added = 0; begin < end;) {
      const Index n = std::min(mean_chunk, end - begin);
      for (Index i = 0; i < n; ++i) enter_[i] = value(begin + i, i);
      launch(backend_, kernel::RunningMeans<S, O>{enter_, nullptr, nullptr, n, columns_, nullptr,
                                                  sums_, lost(), nullptr, 0, 0, false});
      begin += n;
      added += n;
      if (added % restart_rows == 0) fold();
    }
  }

  /// What was summed joins the base. Sums of floats in double stay far below what a float tells.
  void fold() {
    if (std::is_same_v<T, double> && !slides()) {
      for (Index c = 0; c < columns_; ++c) base_[c] += sums_[c];
      std::fill_n(sums_, columns_, 0.0);
    }
  }

  /// Rows [query, end), or a beginning of them; returns how far it got.
  Index advance(Index query, Index end) {
    const Index n = slides() ? gather_window(query, end) : gather_prefix(query, end);
    if (n == 0) {
      begin_at(query);
      return query + 1;
    }
    write(query, n, leaves_ ? leave_ : nullptr);
    // Infinity minus infinity would stay NaN in rows that see neither.
    if (slides() && !is_finite_sum())
      for (Index i = 0; i < n; ++i) begin_at(query + i);
    return query + n;
  }

  /// What joins and leaves at the rows from `query` on, as long as that is at most one key each.
  Index gather_window(Index query, Index end) {
    Index n = 0;
    leaves_ = false;
    for (; query + n < end; ++n) {
      const Visible v = visible(p_, s_, query + n);
      const Index joined = v.last - before_.last, passed = v.first - before_.first;
      if (joined < 0 || joined > 1 || passed < 0 || passed > 1) break;
      const bool enters = joined == 1 && v.last >= 0 && (v.last >= v.first || v.last < p_.sinks);
      const bool left = passed == 1 && before_.first <= before_.last && before_.first >= p_.sinks;
      gather(v, n, enters ? value(v.last, n) : nullptr,
             left ? value(before_.first, mean_chunk + n) : nullptr);
      leaves_ |= left;
      before_ = v;
    }
    return n;
  }

  /// The same where no key is left behind: all that is seen begins at position 0.
  Index gather_prefix(Index query, Index end) {
    Index n = 0;
    if constexpr (HasRowRuns<typename C::Keys>) n = gather_next(query, end);
    for (; query + n < end; ++n) {
      const Index last = last_seen(query + n), joined = last - before_.last;
      if (joined > 1) break;
      enter_[n] = joined == 1 && last >= 0 ? value(last, n) : nullptr;
      before_.last = last;
      shares_[n] = static_cast<double>(last + 1);
    }
    if (p_.sink_logits)
      for (Index i = 0; i < n; ++i)
        shares_[i] = weight_share(std::max<Index>(0, static_cast<Index>(shares_[i])), sink_);
    else
      for (Index i = 0; i < n; ++i) shares_[i] = shares_[i] > 0 ? 1 / shares_[i] : 0;
    return n;
  }

  /// Rows that each see one key more, as those of a prompt do, by the source's runs of rows: memory
  /// would be idle while visibility and address are asked for row by row.
  Index gather_next(Index query, Index end) {
    const Index first = before_.last + 1, n = std::min(end - query, s_.keys - first);
    if (!p_.causal || first < 0 || last_seen(query) != first || n <= 0) return 0;
    point_at_rows<S>(first, n, enter_, [this](Index position) {
      RowRun<S> run =
          call_.source.value_run(item_.sequence, item_.head_begin / p_.group(), position);
      run.first += item_.column_begin;
      return run;
    });
    for (Index i = 0; i < n; ++i) shares_[i] = static_cast<double>(first + i + 1);
    before_.last = first + n - 1;
    return n;
  }

  /// As `visible` says, whose other cases need not be asked where rows take a few nanoseconds.
  Index last_seen(Index query) const {
    return p_.causal ? std::min(s_.keys - 1, query + offset_) : visible(p_, s_, query).last;
  }

  bool is_finite_sum() const {
    const auto finite = [this](const double* x) {
      return std::all_of(x, x + columns_, [](double y) { return is_finite(y); });
    };
    return finite(sums_) && finite(base_);
  }

  /// Where values leave the base is what rounding took from the sums.
  double* lost() const { return slides() ? base_ : nullptr; }

  const S* value(Index position, Index at) {
    const Index kv_head = item_.head_begin / p_.group();
    return value_row(call_.source, item_.sequence, kv_head, position,
                     loads ? room_ + at * p_.value_dim : nullptr) +
           item_.column_begin;
  }

  void gather(const Visible& v, Index at, const S* enters, const S* leaves) {
    enter_[at] = enters;
    leave_[at] = leaves;
    shares_[at] = weight_share(seen_keys(v, p_.sinks), sink_);
  }

  /// Rows [query, query + n) of every uniform head of the item.
  void write(Index query, Index n, const S* const* leave) {
    Index heads = 0;
    for (Index h = item_.head_begin; h < item_.head_end; ++h)
      if (is_uniform(h)) outs_[heads++] = out_row(h, query);
    const double* const base = std::is_same_v<T, double> && !slides() ? base_ : nullptr;
    launch(backend_,
           kernel::RunningMeans<S, O>{enter_, leave, shares_, n, columns_, base, sums_, lost(),
                                      outs_, call_.out.stride[2], heads, streams_});
  }

  O* out_row(Index head, Index query) const {
    const auto& out = call_.out;
    return out.data + s_.batch * out.stride[0] + head * out.stride[1] +
           (s_.query_begin + query) * out.stride[2] + item_.column_begin;
  }

  void write_lse() const {
    if (!call_.options.lse.wanted() || item_.column_begin > 0) return;
    const auto lse = call_.options.lse.template view<T>();
    for (Index h = item_.head_begin; h < item_.head_end; ++h)
      for (Index i = 0; is_uniform(h) && i < s_.queries; ++i)
        lse(s_.batch, h, s_.query_begin + i) =
            static_cast<T>(log_weight(seen_keys(visible(p_, s_, i), p_.sinks), sink_of(p_, h)));
  }

  const B& backend_;
  const C& call_;
  const Problem& p_;
  const MeanItem& item_;
  Sequence s_;
  Index columns_;
  Index offset_;  ///< position of query 0
  double sink_;
  bool streams_;
  bool leaves_ = false;  ///< whether a key leaves in the rows that were gathered
  Visible before_{};     ///< of the row that was written last
  double* sums_ = nullptr;
  double* base_ = nullptr;
  double* shares_ = nullptr;
  const S** enter_ = nullptr;
  const S** leave_ = nullptr;
  O** outs_ = nullptr;
  S* room_ = nullptr;
};

/// Cuts the uniform heads of a call: by key/value head, by head where each has a sink logit of its
/// own, and by columns where those are few.
template <class C>
void plan_means(const C& call, std::vector<MeanItem>& items) {
  const Problem& p = call.problem;
  const Index heads = p.sink_logits ? 1 : p.group();
  const bool cuts = p.sequences * (p.heads / heads) < enough_mean_items &&
                    !LoadsValues<typename C::Keys> && p.value_dim % least_mean_columns == 0;
  const Index columns = cuts ? least_mean_columns : p.value_dim;
  items.clear();
  for (Index i = 0; i < p.sequences; ++i)
    for (Index h = 0; h < p.heads; h += heads) {
      const auto of_head =
          p.modes.subspan(static_cast<std::size_t>(h), static_cast<std::size_t>(heads));
      if (std::find(of_head.begin(), of_head.end(), HeadMode::Uniform) == of_head.end()) continue;
      for (Index c = 0; c < p.value_dim; c += columns)
        items.push_back({i, h, h + heads, c, std::min(p.value_dim, c + columns)});
    }
}

template <class B, class C>
void run_means(const B& backend, const C& call) {
  const auto memory = leased<MeanMemory>(backend);
  plan_means(call, memory->items);
  const auto items = static_cast<Index>(memory->items.size());
  const auto workers = static_cast<std::size_t>(worker_count(backend.executor, items));
  if (memory->workers.size() < workers) memory->workers.resize(workers);
  const bool streams = streams_rows(call.out);
  parallel_for(backend.executor, items, [&](Index i, int worker) {
    MeanRunner<B, C>(backend, call, memory->items[static_cast<std::size_t>(i)],
                     memory->workers[static_cast<std::size_t>(worker)], streams)
        .run();
    if (streams) launch(backend, kernel::FinishStreaming{});
  });
}

PARE_ABI_END
}  // namespace pare::attention::detail
