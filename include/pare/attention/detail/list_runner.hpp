// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// The driver of attention over key lists.
///
/// Up to 256 rows that share a key/value head pass over K, a window of keys at a time, and leave
/// the scores of their lists; the softmax of each is taken; they pass over V likewise. A window is
/// copied, widened, to 64 to 256 KiB that stay in L2, so that what rows gather from is near,
/// whatever the strides and the storage of the tensors. It moves by blocks, each of which is copied
/// once for an item: it is a ring. Beyond that memory is read once for each item.

#include <pare/attention/detail/call.hpp>
#include <pare/attention/detail/list_groups.hpp>
#include <pare/attention/detail/list_items.hpp>
#include <pare/attention/detail/reference_key_lists.hpp>
#include <pare/attention/key_lists.hpp>
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
#include <utility>
#include <vector>

namespace pare::attention::detail {
PARE_ABI_BEGIN

/// A window of keys or values, and how many keys of one of its blocks a row lists at least, on
/// average, up to a window that is half of L2: then most groups are whole. Lists of 1024 of 8192
/// keys of 64 floats took 33, 26 and 26 ms with windows of 32, 64 and 128 KiB; what a group reads
/// of one is half of it.
inline constexpr Index list_window_bytes = 65536, most_list_window_bytes = 262144, list_run = 6;

/// Keys of a block, 2 to this.
inline int list_block_shift(const ListItem& item, Index row_bytes) {
  const Index keys = item.key_end - item.key_begin;
  const Index window_bytes = row_bytes << list_window_shift;
  int shift = 2;
  while ((window_bytes << (shift + 1)) <= list_window_bytes) ++shift;
  while ((window_bytes << (shift + 1)) <= most_list_window_bytes &&
         (item.listed << shift) < list_run * item.rows * keys)
    ++shift;
  return shift;
}

/// What a call keeps in a workspace.
struct ListMemory {
  std::vector<ListItem> items;
  std::vector<AlignedBuffer<std::byte>> workers;
};

/// The arrays of one worker.
template <class C>
struct ListScratch {
  using S = typename C::Scalar;
  using T = typename C::T;

  kernel::ListedRow<T>* rows = nullptr;
  T* queries = nullptr;
  T* scores = nullptr;
  T* state = nullptr;
  T* maximum = nullptr;
  T* sum = nullptr;
  T* window = nullptr;
  std::uint16_t* places = nullptr;
  ListGroups groups{};
  const S** block_rows = nullptr;  ///< of two blocks
  const S** query_rows = nullptr;
  S* loaded = nullptr;
  typename C::Output** out_rows = nullptr;
  T** lse_rows = nullptr;

  ListScratch(AlignedBuffer<std::byte>& memory, const Problem& p, const ListItem& item) {
    const Index key_columns = kernel::padded_columns<T>(p.key_dim);
    const Index value_columns = kernel::padded_columns<T>(p.value_dim);
    const Index columns = std::max(key_columns, value_columns);
    shift = list_block_shift(item, columns * static_cast<Index>(sizeof(T)));
    groups.shift = shift;
    groups.blocks = ((item.key_end - 1) >> shift) + 1;
    const Index block = Index{1} << shift;
    const Index cuts = most_groups(item.listed, item.rows, groups.blocks);
    carve_from(memory, [&](Carver& take) {
      take(rows, item.rows);
      take(queries, item.rows * key_columns);
      take(scores, item.scores);
      take(state, item.rows * value_columns);
      take(maximum, item.rows);
      take(sum, item.rows);
      take(window, (block << list_window_shift) * columns);
      take(places, item.scores);
      take(groups.cuts, cuts);
      take(groups.row_begin, item.rows + 1);
      take(groups.row_entry, item.rows);
      take(groups.groups, cuts);
      take(groups.begin, groups.blocks + 1);
      take(groups.last, groups.blocks);
      take(block_rows, 2 * block);
      take(query_rows, item.rows);
      take(loaded, std::max(p.key_dim, p.value_dim));
      take(out_rows, item.rows);
      take(lse_rows, item.rows);
    });
  }

  int shift = 0;  ///< of the keys of a block
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
        scratch_(memory, call.problem, item) {}

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
        launch(backend_, kernel::PlaceKeys{row.keys, row.count, scratch_.shift + list_window_shift,
                                           scratch_.places + used});
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
        if (c == pointed)
          std::swap(rows, next_rows);
        else
          point_rows(c, rows, row_at);
        copy_block(c, rows, dim, row_at);
        copied = c;
      }
      const Index next = groups.next(b + 1);
      kernel::ListedFetch fetch;
      if (!loads && next < groups.blocks && groups.last[next] > copied) {
        pointed = std::max(next, copied + 1);
        point_rows(pointed, next_rows, row_at);
        fetch = {reinterpret_cast<const void* const*>(next_rows), keys_of(pointed),
                 dim * static_cast<Index>(sizeof(S))};
      }
      use({scratch_.window, kernel::padded_columns<T>(dim), scratch_.places,
           groups.groups + groups.begin[b], groups.count(b)},
          fetch);
      b = next;
    }
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
        if (place >> scratch_.shift == b % list_window_blocks && rows[place & mask] == nullptr)
          f(place & mask);
      }
    }
  }

  const B& backend_;
  const C& call_;
  const KeyLists& lists_;
  const ListItem& item_;
  const Sequence sequence_;
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
