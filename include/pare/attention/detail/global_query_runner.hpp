// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Global-query attention on kernels, over ranges of tokens.

#include <pare/attention/detail/global_query_call.hpp>
#include <pare/core/aligned_buffer.hpp>
#include <pare/core/backend.hpp>
#include <pare/core/ceil_div.hpp>
#include <pare/core/check.hpp>
#include <pare/core/executor_ref.hpp>
#include <pare/core/parallel.hpp>
#include <pare/core/scratch.hpp>
#include <pare/core/tensor_view.hpp>
#include <pare/kernel/global_query.hpp>
#include <pare/kernel/score_query_rows.hpp>

#include <algorithm>
#include <cstddef>
#include <type_traits>

namespace pare::attention::detail {
PARE_ABI_BEGIN

/// Bytes of h that an item reads: they stay in L2 between the mean and the weights.
inline constexpr Index global_query_bytes = Index{512} << 10;

struct GlobalQueryMemory {
  AlignedBuffer<std::byte> shared, workers;
};

template <class B, class S>
class GlobalQuery {
 public:
  using T = compute_t<S>;

  GlobalQuery(const B& backend, const GlobalQueryCall<S>& call)
      : backend_(backend),
        s_(call),
        range_(range_of(call)),
        ranges_(std::max<Index>(1, ceil_div(call.tokens(), range_))),
        room_(kernel::query_dim_room(call.dim())),
        heads_(kernel::whole_query_heads(call.heads())),
        memory_(leased<GlobalQueryMemory>(backend)) {}

  void run() {
    const Index items = s_.batch() * ranges_;
    carve(items);
    fill_keys();
    if (ranges_ == 1) {
      over(items, [this](Index i, Worker& w) {
        if (!s_.options.context) score_range(i, w);
        make_scale(i);
        weigh_range(i, w);
        finish(i);
      });
      return;
    }
    if (!s_.options.context) over(items, [this](Index i, Worker& w) { score_range(i, w); });
    over(s_.batch(), [this](Index i, Worker&) { make_scale(i); });
    over(items, [this](Index i, Worker& w) { weigh_range(i, w); });
    over(s_.batch(), [this](Index i, Worker&) { finish(i); });
  }

 private:
  struct Worker {
    const S** rows = nullptr;  ///< [range]
    Index* tokens = nullptr;   ///< [range]
    T* room = nullptr;         ///< [heads, global_query_rows]
    T* scores = nullptr;       ///< [heads, range], of one range; of more they are kept
    T* weights = nullptr;      ///< [heads, range], if they are wanted
  };

  /// At most 256 ranges of a sequence, in whole blocks.
  static Index range_of(const GlobalQueryCall<S>& s) {
    const Index fit = global_query_bytes / (s.dim() * static_cast<Index>(sizeof(S)));
    const Index least =
        std::max(std::clamp<Index>(fit, 64, 8192), ceil_div(s.tokens(), Index{256}));
    return ceil_div(least, kernel::global_query_rows) * kernel::global_query_rows;
  }

  void carve(Index items) {
    constexpr const char* f = GlobalQueryCall<S>::function;
    const Index sums = checked_product(f, "p", checked_product(f, "p", items, heads_),
                                       checked_sum(f, "p", range_, room_ + 1));
    checked_count(f, "p", checked_sum(f, "p", sums, checked_product(f, "p", items, room_)),
                  sizeof(T));
    carve_from(memory_->shared, [&](Carver& take) {
      take(keys_, heads_ * room_);
      take(scale_, s_.batch() * s_.heads());
      take(counts_, items);
      take(means_, s_.options.context ? 0 : items * room_);
      take(totals_, s_.options.context ? 0 : s_.batch() * s_.dim());
      take(scores_, s_.options.context || ranges_ == 1 ? 0 : items * heads_ * range_);
      take(sums_, items * heads_ * room_);
      take(masses_, items * heads_);
    });
    const int count = worker_count(backend_.executor, items);
    carve_from(memory_->workers, [&](Carver& take) {
      for (int i = 0; i < count; ++i) {
        Worker w;
        take(w.rows, range_);
        take(w.tokens, range_);
        take(w.room, heads_ * kernel::global_query_rows);
        take(w.scores, s_.options.context || ranges_ > 1 ? 0 : heads_ * range_);
        take(w.weights, s_.options.weights ? heads_ * range_ : 0);
        if (i == 0) first_worker_ = w;
        if (i == 1)
          worker_bytes_ = reinterpret_cast<std::byte*>(w.rows) -
                          reinterpret_cast<std::byte*>(first_worker_.rows);
      }
    });
  }

  template <class F>
  void over(Index items, const F& f) {
    parallel_for(backend_.executor, items, [&](Index i, int worker) {
      const auto moved = [&](auto*& p) {
        p = reinterpret_cast<std::remove_reference_t<decltype(p)>>(reinterpret_cast<std::byte*>(p) +
                                                                   worker * worker_bytes_);
      };
      Worker w = first_worker_;
      moved(w.rows);
      moved(w.tokens);
      moved(w.room);
      moved(w.scores);
      moved(w.weights);
      f(i, w);
    });
  }

  void fill_keys() {
    const Index dim = s_.dim(), step = s_.q.stride[0];
    for (Index m = 0; m < heads_; ++m) {
      T* const key = keys_ + m * room_;
      const Index filled = m < s_.heads() ? dim : 0;
      const T* const q = filled > 0 ? &s_.q(0, m) : nullptr;
      for (Index j = 0; j < filled; ++j) key[j] = q[j * step];
      std::fill(key + filled, key + room_, T(0));
    }
  }

  /// The rows of an item that count; returns how many.
  Index collect(Index item, Worker& w) const {
    const Index i = item / ranges_, begin = item % ranges_ * range_;
    const Index end = std::min(begin + range_, s_.tokens());
    Index count = 0;
    for (Index t = begin; t < end; ++t)
      if (s_.seen(i, t)) {
        w.rows[count] = &s_.h(i, t, 0);
        w.tokens[count++] = t;
      }
    return count;
  }

  /// The scores of an item and the sum of its rows: the scale, which follows from all, is asked for
  /// by what comes after. In one range the second half of its rows is fetched meanwhile, whose
  /// first was with the item before: so both passes wait alike for memory.
  void score_range(Index item, Worker& w) {
    T* const mean = means_ + item * room_;
    std::fill_n(mean, room_, T(0));
    counts_[item] = collect(item, w);
    const kernel::QueryFetch<S> fetch =
        ranges_ == 1 ? rows_from(item, s_.tokens() / 2, 1) : rows_from(item + 1, 0, 0);
    launch(backend_, kernel::ScoreQueryRows<S>{w.rows, counts_[item], s_.dim(), keys_, s_.heads(),
                                               scores_of(item, w), range_, mean, fetch});
  }

  T* scores_of(Index item, const Worker& w) const {
    if (s_.options.context) return nullptr;
    return ranges_ == 1 ? w.scores : scores_ + item * heads_ * range_;
  }

  /// Calls out(j, sum) with the sums over the ranges of a sequence, each `step` scalars from the
  /// one before. A few lines of each range at a time: element by element, the ranges of a long
  /// sequence lie in one set of a cache.
  template <class F>
  void sum_ranges(const T* first, Index step, const F& out) const {
    constexpr Index block = 64;
    for (Index from = 0; from < s_.dim(); from += block) {
      const Index count = std::min(block, s_.dim() - from);
      double sums[block] = {};
      for (Index r = 0; r < ranges_; ++r)
        for (Index j = 0; j < count; ++j)
          sums[j] += static_cast<double>(first[r * step + from + j]);
      for (Index j = 0; j < count; ++j) out(from + j, sums[j]);
    }
  }

  /// The products of p_i and c, in double.
  void make_scale(Index i) {
    if (!s_.options.context)
      sum_ranges(means_ + i * ranges_ * room_, room_,
                 [&](Index j, double sum) { totals_[i * s_.dim() + j] = sum; });
    T* const scale = scale_ + i * s_.heads();
    double count = 0;
    if (!s_.options.context)
      for (Index r = 0; r < ranges_; ++r) count += static_cast<double>(counts_[i * ranges_ + r]);
    const double share = count > 0 ? 1 / count : 0;
    const Index heads = s_.heads();
    Index m = 0;
    if (s_.p.stride[1] == 1) {
      for (; m + 8 <= heads; m += 8) scale_heads<8>(i, m, share, scale + m);
      for (; m + 4 <= heads; m += 4) scale_heads<4>(i, m, share, scale + m);
    }
    for (; m < heads; ++m) scale_heads<1>(i, m, share, scale + m);
  }

  /// Heads whose elements of p lie side by side. Two chains of sums: an addition waits for the one
  /// before.
  template <int Heads>
  void scale_heads(Index i, Index head, double share, T* scale) const {
    const Index dim = s_.dim(), step = s_.p.stride[0];
    const T* p = &s_.p(0, head);
    double even[Heads] = {}, odd[Heads] = {};
    Index j = 0;
    for (; j + 2 <= dim; j += 2, p += 2 * step) {
      const double c = context(i, j, share), next = context(i, j + 1, share);
      for (int m = 0; m < Heads; ++m) even[m] += static_cast<double>(p[m]) * c;
      for (int m = 0; m < Heads; ++m) odd[m] += static_cast<double>(p[step + m]) * next;
    }
    if (j < dim)
      for (int m = 0; m < Heads; ++m) even[m] += static_cast<double>(p[m]) * context(i, j, share);
    for (int m = 0; m < Heads; ++m) scale[m] = static_cast<T>(even[m] + odd[m]);
  }

  /// Element j of the given context, or of the mean: a sum times `share`.
  double context(Index i, Index j, double share) const {
    if (s_.options.context) return static_cast<double>(s_.context(i, j));
    return share > 0 ? totals_[i * s_.dim() + j] * share : 0;
  }

  /// Rows of an item from one on, if there are any, to be fetched.
  kernel::QueryFetch<S> rows_from(Index item, Index row, int shift) const {
    const Index i = item / ranges_, t = item % ranges_ * range_ + row;
    if (i >= s_.batch() || t >= s_.tokens()) return {};
    return {&s_.h(i, t, 0), s_.h.stride[1], shift};
  }

  void weigh_range(Index item, Worker& w) {
    const Index i = item / ranges_;
    kernel::GlobalQueryRows<S> k;
    k.rows = w.rows;
    k.count = ranges_ == 1 && !s_.options.context ? counts_[item] : collect(item, w);
    k.dim = s_.dim();
    k.keys = keys_;
    k.scores = scores_of(item, w);
    k.scores_stride = range_;
    k.scale = scale_ + i * s_.heads();
    k.heads = s_.heads();
    k.epsilon = static_cast<T>(s_.options.epsilon);
    k.sum = sums_ + item * heads_ * room_;
    k.mass = masses_ + item * heads_;
    k.weights = s_.options.weights ? w.weights : nullptr;
    k.weights_stride = range_;
    k.room = w.room;
    if (s_.options.context) {
      k.score_fetch = rows_from(item + 1, 0, 1);
      k.fetch = rows_from(item + 1, std::min(range_, s_.tokens()) / 2, 1);
    } else {
      k.fetch = rows_from(item + 1, 0, ranges_ == 1 ? 1 : 0);
    }
    std::fill_n(k.sum, heads_ * room_, T(0));
    std::fill_n(k.mass, heads_, T(0));
    launch(backend_, k);
    if (!s_.options.weights) return;
    const auto& a = *s_.options.weights;
    const Index begin = item % ranges_ * range_, end = std::min(begin + range_, s_.tokens());
    for (Index m = 0; m < s_.heads(); ++m) {
      for (Index t = begin; t < end; ++t) a(i, m, t) = T(0);
      for (Index r = 0; r < k.count; ++r) a(i, m, w.tokens[r]) = w.weights[m * range_ + r];
    }
  }

  /// The ranges of a sequence together, in their order.
  void finish(Index i) {
    for (Index m = 0; m < s_.heads(); ++m) {
      double mass = 0;
      for (Index r = 0; r < ranges_; ++r)
        mass += static_cast<double>(masses_[(i * ranges_ + r) * heads_ + m]);
      const double share = mass == 0 ? 0 : 1 / mass;
      T* const out = &s_.out(i, m, 0);
      const T* const first = sums_ + (i * ranges_ * heads_ + m) * room_;
      const Index dim = s_.dim();
      if (ranges_ == 1)
        for (Index j = 0; j < dim; ++j)
          out[j] = static_cast<T>(static_cast<double>(first[j]) * share);
      else
        sum_ranges(first, heads_ * room_,
                   [&](Index j, double sum) { out[j] = static_cast<T>(sum * share); });
      if (s_.options.weights)
        for (Index t = 0; t < s_.tokens(); ++t)
          (*s_.options.weights)(i, m, t) *= static_cast<T>(share);
    }
  }

  const B& backend_;
  const GlobalQueryCall<S>& s_;
  Index range_, ranges_, room_, heads_;
  const Lease<GlobalQueryMemory> memory_;
  T *keys_ = nullptr, *scale_ = nullptr, *means_ = nullptr, *sums_ = nullptr, *masses_ = nullptr,
    *scores_ = nullptr;
  double* totals_ = nullptr;  ///< [batch, dim] of all rows that count
  Index* counts_ = nullptr;
  Worker first_worker_{};
  Index worker_bytes_ = 0;
};

template <class B, class S>
void run_global_query(const B& backend, const GlobalQueryCall<S>& call) {
  check_global_query(call);
  if (call.batch() == 0) return;
  if constexpr (!KernelBackend<B>) {
    reference_global_query(call);
  } else {
    const auto any = on_any_executor(backend);
    GlobalQuery<OnAnyExecutor<B>, S>(any, call).run();
  }
}

PARE_ABI_END
}  // namespace pare::attention::detail
