// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// The driver of attention over key lists.
///
/// Up to 256 rows that share a key/value head pass over K, a window of keys at a time, and leave
/// the scores of their lists; the softmax of each is taken; they pass over V likewise. A window is
/// 64 to 256 KiB that stay in L2, so that what rows gather from is near. It moves by blocks. Rows
/// that do not lie one behind the other on cache lines, or are not of T, are copied and widened,
/// each block once for an item, to a ring. Beyond that memory is read once for each item.
///
/// Of 8192 queries with 1024 random keys of 64 floats, 21 ms on one core of a Zen 5, scores and
/// values take 8 to 9 each. The kernels take 3.7 and 3.4 cycles a pair where a window of 32 KiB
/// stays in L1, 4.5 and 4.1 with one of 64 KiB, 5.7 and 5.0 with 128: the rest is L2. Four loads at
/// loaded addresses alone take 2.5. Lists take 3 ms, a third of which is reading them from memory,
/// weights 1.

#include <pare/attention/detail/call.hpp>
#include <pare/attention/detail/list_groups.hpp>
#include <pare/attention/detail/list_items.hpp>
#include <pare/attention/detail/list_scratch.hpp>
#include <pare/attention/detail/reference_key_lists.hpp>
#include <pare/attention/key_lists.hpp>
#include <pare/attention/key_value.hpp>
#include <pare/attention/key_value_source.hpp>
#include <pare/core/aligned_buffer.hpp>
#include <pare/core/backend.hpp>
#include <pare/core/parallel.hpp>
#include <pare/core/scratch.hpp>
#include <pare/kernel/attend_finish.hpp>
#include <pare/kernel/listed_window.hpp>
#include <pare/kernel/score_listed.hpp>
#include <pare/kernel/sum_listed.hpp>
#include <pare/kernel/weigh_listed.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <type_traits>
#include <utility>
#include <vector>

namespace pare::attention::detail {
PARE_ABI_BEGIN

/// What a call keeps in a workspace.
struct ListMemory {
  std::vector<ListItem> items;
  std::vector<AlignedBuffer<std::byte>> workers;
};

/// One item.
template <class B, class C>
class ListRunner {
  using S = typename C::Scalar;
  using T = typename C::T;
  using O = typename C::Output;
  using Source = typename C::Keys;

 public:
  ListRunner(const B& backend, const C& call, const KeyLists& lists, const ListItem& item,
             AlignedBuffer<std::byte>& memory)
      : backend_(backend),
        call_(call),
        lists_(lists),
        item_(item),
        sequence_(call.sequence(item.sequence)),
        in_place_(gathers_in_place(call, item)),
        scratch_(memory, call.problem, item, in_place_) {}

  void run() {
    using M = typename C::Modifier;
    const Problem& p = call_.problem;
    place_rows();
    each_window(
        p.key_dim, [this](Index position) { return key_at(position); },
        [this](const kernel::ListedWindow<T>& window, const kernel::ListedFetch& next) {
          launch(backend_, kernel::ScoreListed<T>{window, next, scratch_.queries, scratch_.scores});
        });
    launch(backend_, kernel::WeighListed<T, M>{scratch_.rows, item_.rows, static_cast<T>(p.scale),
                                               item_.sequence, call_.modifier, scratch_.maximum,
                                               scratch_.sum});
    each_window(
        p.value_dim, [this](Index position) { return value_at(position); },
        [this](const kernel::ListedWindow<T>& window, const kernel::ListedFetch& next) {
          launch(backend_, kernel::SumListed<T>{window, next, scratch_.scores, scratch_.state});
        });
    launch(backend_,
           kernel::FinishRows<T, O>{scratch_.maximum, scratch_.sum, scratch_.state, item_.rows,
                                    p.value_dim, scratch_.out_rows,
                                    call_.options.lse.wanted() ? scratch_.lse_rows : nullptr});
  }

 private:
  static constexpr bool loads = LoadsKeys<Source> || LoadsValues<Source>;
  static constexpr T lowest = -std::numeric_limits<T>::infinity();

  const S* key_at(Index position) const {
    return key_row(call_.source, item_.sequence, item_.kv_head, position, scratch_.loaded);
  }
  const S* value_at(Index position) const {
    if constexpr (keys_hold_values<Source>)
      return key_at(position);
    else
      return value_row(call_.source, item_.sequence, item_.kv_head, position, scratch_.loaded);
  }

  /// Says what each row lists and where its softmax starts, and widens the queries.
  void place_rows() {
    const Problem& p = call_.problem;
    Index r = 0, used = 0;
    scratch_.groups.start();
    for (Index query = item_.query_begin; query < item_.query_end; ++query)
      for (Index h = item_.kv_head * p.group(); h < (item_.kv_head + 1) * p.group(); ++h, ++r) {
        const SeenList list =
            seen_list(p, sequence_, listed_keys(lists_, p, item_.sequence, h, query), query);
        kernel::ListedRow<T>& row = scratch_.rows[r];
        row = {list.keys.data(), static_cast<Index>(list.keys.size()), scratch_.scores + used,
               list.hide_begin, list.hide_end};
        row.place.query = static_cast<std::int32_t>(query);
        row.place.position = static_cast<std::int32_t>(query + sequence_.offset(p));
        row.place.head = static_cast<std::int32_t>(h);
        launch(backend_,
               kernel::PlaceKeys{row.keys, row.count, place_shift(), scratch_.places + used});
        scratch_.groups.add_row(list.keys, used);
        used += whole_lines(row.count + kernel::listed_group);
        start_row(r, h, query);
      }
    scratch_.groups.sort();
    launch(backend_, kernel::WidenRows<S>{scratch_.query_rows, item_.rows, p.key_dim,
                                          scratch_.queries, kernel::padded_columns<T>(p.key_dim)});
    std::fill_n(scratch_.state, item_.rows * kernel::padded_columns<T>(p.value_dim), T(0));
  }

  /// A sink logit is a key of weight 1 without a value.
  void start_row(Index r, Index h, Index query) {
    const auto& logits = call_.problem.sink_logits;
    T& maximum = scratch_.maximum[r];
    maximum =
        logits ? static_cast<T>((*logits)[static_cast<std::size_t>(h)]) * T(kernel::detail::log2_e)
               : lowest;
    scratch_.sum[r] = maximum == lowest ? T(0) : T(1);
    scratch_.query_rows[r] = &call_.q(item_.sequence, h, query, 0);
    scratch_.out_rows[r] = &call_.out(item_.sequence, h, query, 0);
    if (call_.options.lse.wanted())
      scratch_.lse_rows[r] = &call_.options.lse.template view<T>()(item_.sequence, h, query);
  }

  /// Calls use(window, next) for the groups that begin in each block, with the rows of `dim`
  /// scalars of their keys in scratch memory; those of the next are fetched meanwhile.
  template <class RowAt, class Use>
  void each_window(Index dim, const RowAt& row_at, const Use& use) {
    const ListGroups& groups = scratch_.groups;
    const S** rows = scratch_.block_rows;
    const S** next_rows = rows + (Index{1} << scratch_.shift);
    Index copied = -1, pointed = -1;  // the last blocks that were
    for (Index b = groups.next(0); b < groups.blocks;) {
      for (Index c = std::max(b, copied + 1); c <= groups.last[b]; ++c) {
        copied = c;
        if (in_place_) continue;
        if (c == pointed)
          std::swap(rows, next_rows);
        else
          point_rows(c, rows, row_at);
        copy_block(c, rows, dim, row_at);
      }
      const Index next = groups.next(b + 1);
      kernel::ListedFetch fetch;
      if (!loads && next < groups.blocks && groups.last[next] > copied) {
        pointed = std::max(next, copied + 1);
        point_rows(pointed, next_rows, row_at);
        fetch = {reinterpret_cast<const void* const*>(next_rows), keys_of(pointed),
                 dim * static_cast<Index>(sizeof(S))};
      }
      use({window(row_at), kernel::padded_columns<T>(dim), scratch_.places,
           groups.groups + groups.begin[b], groups.count(b),
           groups.begin[groups.blocks] - groups.begin[b + 1]},
          fetch);
      b = next;
    }
  }

  /// A place is that of a key in the window, or its position.
  int place_shift() const { return in_place_ ? 16 : scratch_.shift + list_window_shift; }

  template <class RowAt>
  const T* window(const RowAt& row_at) const {
    if constexpr (std::is_same_v<Source, DenseKeyValue<T>>)
      if (in_place_) return row_at(0);
    return scratch_.window;
  }

  /// Keys of a block that are before the item's last.
  Index keys_of(Index b) const {
    return std::min(item_.key_end - (b << scratch_.shift), Index{1} << scratch_.shift);
  }

  /// Points to the rows of a block, all of them or those that are listed where they are few.
  template <class RowAt>
  void point_rows(Index b, const S** rows, const RowAt& row_at) const {
    if (loads) return;
    each_place(b, rows, [&](Index place) { rows[place] = row_at((b << scratch_.shift) + place); });
  }

  /// Copies those rows, or loads them.
  template <class RowAt>
  void copy_block(Index b, const S** rows, Index dim, const RowAt& row_at) {
    const Index columns = kernel::padded_columns<T>(dim);
    T* const block = scratch_.window + ((b % list_window_blocks) << scratch_.shift) * columns;
    if (!loads) {
      launch(backend_, kernel::WidenRows<S>{rows, keys_of(b), dim, block, columns});
      return;
    }
    each_place(b, rows, [&](Index place) {
      rows[place] = row_at((b << scratch_.shift) + place);
      launch(backend_,
             kernel::WidenRows<S>{rows + place, 1, dim, block + place * columns, columns});
    });
  }

  /// Calls f(place) once for each of them; `rows` says which are done, and is null elsewhere.
  template <class F>
  void each_place(Index b, const S** rows, const F& f) const {
    const ListGroups& groups = scratch_.groups;
    const Index count = keys_of(b), mask = (Index{1} << scratch_.shift) - 1;
    const Index first = groups.begin[std::max<Index>(0, b - list_window_blocks + 1)];
    const Index end = groups.begin[b + 1];
    std::fill_n(rows, count, nullptr);
    if ((end - first) * kernel::listed_group >= 2 * list_window_blocks * count) {
      for (Index place = 0; place < count; ++place) f(place);
      return;
    }
    for (Index g = first; g < end; ++g) {
      const kernel::ListedGroup& group = groups.groups[g];
      for (Index e = group.entry; e < group.entry + group.count; ++e) {
        const Index place = scratch_.places[e];
        if ((place >> scratch_.shift) % list_window_blocks == b % list_window_blocks &&
            rows[place & mask] == nullptr)
          f(place & mask);
      }
    }
  }

  const B& backend_;
  const C& call_;
  const KeyLists& lists_;
  const ListItem& item_;
  const Sequence sequence_;
  const bool in_place_;
  ListScratch<C> scratch_;
};

/// Runs a call over lists by kernels. Returns the pairs that are seen.
template <class B, class C>
double run_listed(const B& backend, const C& call, const KeyLists& lists) {
  const auto memory = leased<ListMemory>(backend);
  const double pairs = make_list_items(call, lists, memory->items);
  const auto items = static_cast<Index>(memory->items.size());
  const auto workers = static_cast<std::size_t>(worker_count(backend.executor, items));
  if (memory->workers.size() < workers) memory->workers.resize(workers);
  parallel_for(backend.executor, items, [&](Index i, int worker) {
    ListRunner<B, C>(backend, call, lists, memory->items[static_cast<std::size_t>(i)],
                     memory->workers[static_cast<std::size_t>(worker)])
        .run();
  });
  return pairs;
}

PARE_ABI_END
}  // namespace pare::attention::detail
