// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// The scan on kernels: heads, and strips of their values, are items that workers take, each from
/// the first token to the last, or chunk by chunk.

#include <pare/core/aligned_buffer.hpp>
#include <pare/core/backend.hpp>
#include <pare/core/ceil_div.hpp>
#include <pare/core/executor_ref.hpp>
#include <pare/core/parallel.hpp>
#include <pare/core/scratch.hpp>
#include <pare/kernel/scan_states.hpp>
#include <pare/kernel/scan_values.hpp>
#include <pare/sequence/detail/scan_call.hpp>

#include <algorithm>
#include <cstddef>
#include <type_traits>

namespace pare::sequence::detail {
PARE_ABI_BEGIN

struct ScanMemory {
  AlignedBuffer<std::byte> workers, chunks;
};

/// Some heads of a sequence, or some values of one head.
struct ScanItem {
  Index batch = 0, head = 0, heads = 1, value = 0, values = 1;
};

/// Tokens [begin, end).
struct TokenRange {
  Index begin = 0, end = 0;
};

template <class B, class S, class H>
class ScanRunner {
 public:
  using Call = ScanCall<S, H>;
  using T = typename Call::T;

  ScanRunner(const B& backend, const Call& call)
      : backend_(backend),
        s_(call),
        single_(call.dim() == 1 && (call.state.stride[2] == 1 || call.states() == 1)),
        run_heads_(single_ ? heads_of_item() : 1),
        group_items_(ceil_div(run_span(), run_heads_)),
        strips_(single_ ? 1 : ceil_div(call.dim(), kernel::scan_most_values<T>)),
        items_(call.batch() * (call.heads() / run_span()) * group_items_ * strips_),
        chunk_(call.options.chunk ? std::min(*call.options.chunk, call.tokens()) : call.tokens()),
        chunks_(ceil_div(call.tokens(), chunk_)),
        memory_(leased<ScanMemory>(backend)) {}

  void run() {
    room_size_ =
        (single_ ? 0 : whole_lines(kernel::scan_values_room<T>(s_.states()))) + staged_size();
    room_ = make_room<T>(memory_->workers,
                         room_size_ * worker_count(backend_.executor, items_ * chunks_));
    if (chunks_ > 1) return run_chunks();
    parallel_for(backend_.executor, items_,
                 [&](Index i, int worker) { run_item(item_at(i), room_ + worker * room_size_); });
  }

 private:
  /// Heads that may be one item: all, if each has b and c of its own, else those of a group.
  Index run_span() const {
    return single_ && s_.groups() != s_.heads() ? s_.heads() / s_.groups() : s_.heads();
  }

  /// Heads of a single value that are stepped together: states of at most 16 KiB, which stay in
  /// L1, or 128 KiB in L2 where decays are a stream that each token begins anew; and not so many
  /// that there are fewer than 8 items, unless they were less than 4 heads.
  Index heads_of_item() const {
    const Index kept = Index{s_.a_step() != 0 ? 128 : 16} << 10;
    const Index fit = kept / (s_.states() * static_cast<Index>(sizeof(T)));
    const Index spread = std::max<Index>(4, s_.batch() * s_.heads() / 8);
    return std::clamp<Index>(std::min(fit, spread), 1, run_span());
  }

  ScanItem item_at(Index i) const {
    ScanItem item;
    const Index strip = i % strips_, rest = i / strips_;
    const Index in_span = rest % group_items_, span = rest / group_items_;
    const Index spans = s_.heads() / run_span();
    item.batch = span / spans;
    item.head = span % spans * run_span() + in_span * run_heads_;
    item.heads = std::min(run_heads_, run_span() - in_span * run_heads_);
    item.value = strip * kernel::scan_most_values<T>;
    item.values = std::min(kernel::scan_most_values<T>, s_.dim() - item.value);
    return item;
  }

  /// Where the state is of 16 bits, it is widened for the whole call, so that it is rounded once; a
  /// kernel that reads all tokens at once does that itself.
  void run_item(const ScanItem& item, T* room) const {
    const TokenRange all{0, s_.tokens()};
    if constexpr (std::is_same_v<H, T>) {
      if (single_) return run_states(item, all, state_of(item), s_.state.stride[1], true);
    } else if (single_ || s_.tokens() > kernel::scan_tokens) {
      T* const wide = room + room_size_ - staged_size();
      move_state(item, [&](Index k, H& kept) { wide[k] = static_cast<T>(kept); });
      if (single_)
        run_states(item, all, wide, s_.states(), true);
      else
        run_values<T>(item, all, wide, item.values, true, room);
      return move_state(item, [&](Index k, H& kept) { kept = static_cast<H>(wide[k]); });
    }
    run_values<H>(item, all, state_of(item), s_.state.stride[2], true, room);
  }

  H* state_of(const ScanItem& item) const {
    return &s_.state(item.batch, item.head, 0, item.value);
  }

  /// Scalars of an item's widened state.
  Index staged_size() const {
    if (std::is_same_v<H, T>) return 0;
    return whole_lines(run_heads_ * s_.states() * std::min(s_.dim(), kernel::scan_most_values<T>));
  }

  /// Calls move(k, element) for the state of an item, k in order.
  template <class F>
  void move_state(const ScanItem& item, const F& move) const {
    Index k = 0;
    for (Index g = item.head; g < item.head + item.heads; ++g)
      for (Index n = 0; n < s_.states(); ++n)
        for (Index p = item.value; p < item.value + item.values; ++p)
          move(k++, s_.state(item.batch, g, n, p));
  }

  /// Some values of one head.
  template <class X>
  void run_values(const ScanItem& item, TokenRange range, X* state, Index stride, bool writes,
                  T* room) const {
    const Index i = item.batch, t = range.begin, g = s_.group(item.head);
    kernel::ScanValues<S, X> k;
    k.a = &s_.a(i, t, item.head, 0);
    k.a_stride = s_.a.stride[1];
    k.a_step = s_.a_step();
    k.b = &s_.b(i, t, g, 0);
    k.b_stride = s_.b.stride[1];
    k.c = &s_.c(i, t, g, 0);
    k.c_stride = s_.c.stride[1];
    k.x = &s_.x(i, t, item.head, item.value);
    k.x_stride = s_.x.stride[1];
    k.y = writes ? &s_.y(i, t, item.head, item.value) : nullptr;
    k.y_stride = s_.y.stride[1];
    k.state = state;
    k.state_stride = stride;
    k.tokens = range.end - range.begin;
    k.states = s_.states();
    k.values = item.values;
    k.room = room;
    launch(backend_, k);
  }

  /// Some heads of a single value.
  void run_states(const ScanItem& item, TokenRange range, T* state, Index stride,
                  bool writes) const {
    const Index i = item.batch, t = range.begin, g = s_.group(item.head);
    const bool own = s_.groups() == s_.heads();
    kernel::ScanStates<S, T> k;
    k.a = &s_.a(i, t, item.head, 0);
    k.a_stride = s_.a.stride[1];
    k.a_head_stride = s_.a.stride[2];
    k.a_per_state = s_.a_step() != 0;
    k.b = &s_.b(i, t, g, 0);
    k.b_stride = s_.b.stride[1];
    k.b_head_stride = own ? s_.b.stride[2] : 0;
    k.c = &s_.c(i, t, g, 0);
    k.c_stride = s_.c.stride[1];
    k.c_head_stride = own ? s_.c.stride[2] : 0;
    k.x = &s_.x(i, t, item.head, 0);
    k.x_stride = s_.x.stride[1];
    k.x_head_stride = s_.x.stride[2];
    k.y = writes ? &s_.y(i, t, item.head, 0) : nullptr;
    k.y_stride = s_.y.stride[1];
    k.y_head_stride = s_.y.stride[2];
    k.state = state;
    k.state_stride = stride;
    k.tokens = range.end - range.begin;
    k.heads = item.heads;
    k.states = s_.states();
    launch(backend_, k);
  }

  TokenRange range_at(Index chunk) const {
    return {chunk * chunk_, std::min((chunk + 1) * chunk_, s_.tokens())};
  }
  Index head_size() const { return s_.states() * s_.dim(); }
  /// The state of a head before a chunk, [states, dim].
  T* start_at(Index chunk, Index batch, Index head) const {
    return starts_ + ((chunk * s_.batch() + batch) * s_.heads() + head) * head_size();
  }
  /// The products of a head's decays over a chunk, [states].
  T* decay_at(Index chunk, Index batch, Index head) const {
    return decays_ + ((chunk * s_.batch() + batch) * s_.heads() + head) * s_.states();
  }

  void run_chunk(const ScanItem& item, Index chunk, bool writes, T* room) const {
    T* const state = start_at(chunk, item.batch, item.head) + item.value;
    if (single_)
      run_states(item, range_at(chunk), state, s_.states(), writes);
    else
      run_values<T>(item, range_at(chunk), state, s_.dim(), writes, room);
  }

  /// Each chunk from a state of zeros, then all starts in order, then each chunk from its start.
  void run_chunks() {
    const Index sequences =
        checked_product(Call::function, "chunk", s_.batch() * s_.heads(), chunks_);
    checked_count(Call::function, "chunk",
                  checked_product(Call::function, "chunk", sequences, head_size() + s_.states()),
                  sizeof(T));
    carve_from(memory_->chunks, [&](Carver& take) {
      take(starts_, sequences * head_size());
      take(decays_, sequences * s_.states());
    });
    parallel_for(backend_.executor, items_ * (chunks_ - 1), [&](Index i, int worker) {
      const ScanItem item = item_at(i % items_);
      const Index chunk = i / items_;
      for (Index g = item.head; g < item.head + item.heads; ++g) {
        T* const start = start_at(chunk, item.batch, g) + item.value;
        for (Index n = 0; n < s_.states(); ++n)
          std::fill_n(start + n * s_.dim(), item.values, T(0));
        if (item.value == 0) multiply_decays(chunk, item.batch, g);
      }
      run_chunk(item, chunk, false, room_ + worker * room_size_);
    });
    parallel_for(backend_.executor, s_.batch() * s_.heads(),
                 [&](Index i, int) { merge_chunks(i / s_.heads(), i % s_.heads()); });
    parallel_for(backend_.executor, items_ * chunks_, [&](Index i, int worker) {
      run_chunk(item_at(i % items_), i / items_, true, room_ + worker * room_size_);
    });
    parallel_for(backend_.executor, s_.batch() * s_.heads(), [&](Index i, int) {
      const Index batch = i / s_.heads(), head = i % s_.heads();
      const T* const last = start_at(chunks_ - 1, batch, head);
      for (Index n = 0; n < s_.states(); ++n)
        for (Index p = 0; p < s_.dim(); ++p)
          s_.state(batch, head, n, p) = static_cast<H>(last[n * s_.dim() + p]);
    });
  }

  /// A decay of 0 forgets all that was before it, also where that product overflowed.
  void multiply_decays(Index chunk, Index batch, Index head) const {
    T* const decay = decay_at(chunk, batch, head);
    std::fill_n(decay, s_.states(), T(1));
    const TokenRange range = range_at(chunk);
    for (Index t = range.begin; t < range.end; ++t)
      for (Index n = 0; n < s_.states(); ++n) {
        const T a = s_.a(batch, t, head, n * s_.a_step());
        decay[n] = a == T(0) ? T(0) : decay[n] * a;
      }
  }

  /// What a chunk of zeros ended with becomes the state before it. A state of 0 stays 0 where the
  /// product of decays overflowed; where a decay itself is infinite or NaN, so is what zeros ended
  /// with.
  void merge_chunks(Index batch, Index head) const {
    for (Index n = 0; n < s_.states(); ++n)
      for (Index p = 0; p < s_.dim(); ++p) {
        T state = static_cast<T>(s_.state(batch, head, n, p));
        for (Index chunk = 0; chunk < chunks_; ++chunk) {
          T& place = start_at(chunk, batch, head)[n * s_.dim() + p];
          const T end = place;
          place = state;
          if (chunk + 1 < chunks_)
            state = state == T(0) ? end : decay_at(chunk, batch, head)[n] * state + end;
        }
      }
  }

  const B& backend_;
  const Call& s_;
  bool single_;  ///< heads have one value each
  Index run_heads_, group_items_, strips_, items_, chunk_, chunks_;
  const Lease<ScanMemory> memory_;
  T* room_ = nullptr;
  Index room_size_ = 0;
  T *starts_ = nullptr, *decays_ = nullptr;
};

template <class B, class S, class H>
void run_scan(const B& backend, const ScanCall<S, H>& call) {
  check_scan(call);
  if (call.empty()) return;
  if constexpr (!KernelBackend<B>) {
    reference_scan(call);
  } else {
    const auto any = on_any_executor(backend);
    ScanRunner<OnAnyExecutor<B>, S, H>(any, call).run();
  }
}

PARE_ABI_END
}  // namespace pare::sequence::detail
