// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Attention of rows that list their keys: scores of the listed keys, weights, sums of the listed
/// values.
///
/// Keys and values come as a window of rows of T that a cache holds, so that what many query rows
/// gather from is near. What is scored and summed at once is a group: 16 entries of a list, whose
/// keys are in the window. Groups of many rows follow each other without a branch that depends on
/// the lists: how many keys of a window a row lists varies, and each wrong guess costs as much as
/// half a group. The three steps of a row are apart: its scores lie whole in memory, and the
/// softmax is taken once. A listed pair costs 2 (key columns + value columns) FLOPs, as in the
/// dense engine, but each operand is a load: (key columns + value columns) sizeof(T) bytes from L1
/// a pair, two registers a cycle, bind where a matrix product would reuse registers.

#include <pare/core/macros_off.hpp>

#include <pare/kernel/attend_call.hpp>
#include <pare/kernel/direct_product.hpp>
#include <pare/kernel/online_softmax.hpp>
#include <pare/kernel/partial_register.hpp>
#include <pare/kernel/score_modifier.hpp>
#include <pare/kernel/weigh_scores.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <type_traits>

namespace pare::kernel {

/// Entries of a whole group, and the places and scores behind those of a list that are used too.
inline constexpr std::ptrdiff_t listed_group = 16;

/// Entries of the list of a row whose keys are in one window.
struct ListedGroup {
  std::int32_t row = 0;
  std::int32_t count = 0;    ///< 1 to listed_group
  std::ptrdiff_t entry = 0;  ///< of the places and scores of all rows
};

/// out_i = rows[i] as T, `stride` apart, with zeros behind the columns. A null row is left out.
template <StorageScalar S>
struct WidenRows {
  const S* const* rows = nullptr;  ///< [count]
  std::ptrdiff_t count = 0;
  std::ptrdiff_t columns = 0;
  compute_t<S>* out = nullptr;  ///< [count x stride]
  std::ptrdiff_t stride = 0;    ///< padded_columns(columns)
};

/// The keys that a query row lists, and their scores.
template <ComputeScalar T>
struct ListedRow {
  const std::int32_t* keys = nullptr;  ///< [count], ascending
  std::ptrdiff_t count = 0;
  T* scores = nullptr;            ///< [count + listed_group]
  std::ptrdiff_t hide_begin = 0;  ///< of its entries that it lists but does not see
  std::ptrdiff_t hide_end = 0;
  RowPlace place{};
};

/// places[e] = keys[e] mod 2^shift, 0 behind the list.
struct PlaceKeys {
  const std::int32_t* keys = nullptr;  ///< [count]
  std::ptrdiff_t count = 0;
  int shift = 0;                    ///< at most 16
  std::uint16_t* places = nullptr;  ///< [count + listed_group]
};

/// A window of rows, the places in it of the entries of all rows, and groups of them.
template <ComputeScalar T>
struct ListedWindow {
  const T* data = nullptr;
  std::ptrdiff_t columns = 0;  ///< padded_columns of the key dim or the value dim
  const std::uint16_t* places = nullptr;
  const ListedGroup* groups = nullptr;  ///< [count]
  std::ptrdiff_t count = 0;
};

/// Rows of the next window, which are asked for meanwhile, some with each group, into L2.
struct ListedFetch {
  const void* const* rows = nullptr;  ///< [count], null or a row
  std::ptrdiff_t count = 0;
  std::ptrdiff_t bytes = 0;
};

/// The scores <q_r, k_j> of the entries of each group. What is written behind the entries of a
/// group is meant to be written again by the next.
template <ComputeScalar T>
struct ScoreListed {
  ListedWindow<T> window{};
  ListedFetch fetch{};
  const T* queries = nullptr;  ///< [rows x window.columns]
  T* scores = nullptr;         ///< of all rows
};

/// Turns the scores of each row into weights 2^(s_j - m) and advances its m and l from where they
/// start: m' = max(m, max_j s_j), l' = l 2^(m - m') + sum_j 2^(s_j - m'), with s_j = modify(scale
/// score_j) in units of log2. A row of which all is hidden keeps what it starts with.
template <ComputeScalar T, class Modifier>
struct WeighListed {
  const ListedRow<T>* rows = nullptr;  ///< [count]
  std::ptrdiff_t count = 0;
  T scale = 1;
  std::int64_t batch = 0;
  Modifier modifier{};
  T* maximum = nullptr;  ///< [count]
  T* sum = nullptr;      ///< [count]
};

/// out_r += sum over the entries of each group of weight_j v_j.
template <ComputeScalar T>
struct SumListed {
  ListedWindow<T> window{};
  ListedFetch fetch{};
  const T* weights = nullptr;  ///< of all rows
  T* out = nullptr;            ///< [rows x window.columns]
};

/// Groups whose rows, places and scores are asked for ahead: they come from L2 in no order that a
/// processor guesses.
inline constexpr std::ptrdiff_t listed_groups_ahead = 6;

namespace detail {
PARE_ABI_BEGIN

/// What is asked for while the groups of a window are worked on, in step with them.
template <class T>
class ListedAhead {
 public:
  ListedAhead(const ListedWindow<T>& window, const ListedFetch& fetch, const T* rows,
              const T* scores) noexcept
      : window_(window),
        fetch_(fetch),
        rows_(rows),
        scores_(scores),
        each_((fetch.count + window.count - 1) / std::max<std::ptrdiff_t>(1, window.count)) {}

  /// With group g.
  PARE_TILE_INLINE void advance(std::ptrdiff_t g) noexcept {
    if (g + listed_groups_ahead < window_.count) {
      const ListedGroup next = window_.groups[g + listed_groups_ahead];
      const auto bytes = window_.columns * static_cast<std::ptrdiff_t>(sizeof(T));
      for (std::ptrdiff_t byte = 0; byte < bytes; byte += 64)
        prefetch(rows_ + next.row * window_.columns, byte);
      prefetch(scores_ + next.entry);
      prefetch(window_.places + next.entry);
    }
    const std::ptrdiff_t end = std::min(fetched_ + each_, fetch_.count);
    for (; fetched_ < end; ++fetched_)
      if (fetch_.rows[fetched_] != nullptr)
        for (std::ptrdiff_t byte = 0; byte < fetch_.bytes; byte += 64)
          prefetch<2>(fetch_.rows[fetched_], byte);
  }

 private:
  ListedWindow<T> window_;
  ListedFetch fetch_;
  const T* rows_;
  const T* scores_;
  std::ptrdiff_t each_;
  std::ptrdiff_t fetched_ = 0;
};

/// Registers of a query that stay in registers while a row is scored; 0: loaded again for each key.
template <class Arch>
inline constexpr bool holds_query(std::size_t registers, std::size_t keys) noexcept {
  return registers > 0 && registers + keys < static_cast<std::size_t>(Arch::registers);
}

/// Scores of a register of entries, a register of sums for each. Those behind the group are of
/// others, whose places hold what they may.
template <class Arch, std::size_t Held, class T>
PARE_TILE_INLINE void score_entries(const T* data, std::ptrdiff_t columns,
                                    const std::uint16_t* places, const T* query,
                                    const vec<T, Arch> (&held)[Held == 0 ? 1 : Held],
                                    T* scores) noexcept {
  using V = vec<T, Arch>;
  constexpr std::ptrdiff_t n = lanes<T, Arch>;
  constexpr auto keys = std::make_index_sequence<static_cast<std::size_t>(n)>{};
  V sums[static_cast<std::size_t>(n)];
  const auto key_at = [&](std::size_t i)
                          PARE_LAMBDA_INLINE { return data + std::ptrdiff_t{places[i]} * columns; };
  const auto each = [&]<std::size_t... I>(const auto& f, std::index_sequence<I...>)
                        PARE_LAMBDA_INLINE { (f(I), ...); };
  if constexpr (Held > 0) {
    each(
        [&](std::size_t i) PARE_LAMBDA_INLINE {
          const T* const key = key_at(i);
          sums[i] = load<Arch>(key) * held[0];
          [&]<std::size_t... R>(std::index_sequence<R...>) PARE_LAMBDA_INLINE {
            ((sums[i] = multiply_add<Arch>(load<Arch>(key + static_cast<std::ptrdiff_t>(R + 1) * n),
                                           held[R + 1], sums[i])),
             ...);
          }(std::make_index_sequence<Held - 1>{});
        },
        keys);
  } else {
    for (V& sum : sums) sum = broadcast<Arch>(T(0));
    for (std::ptrdiff_t c = 0; c < columns; c += n) {
      const V q = load<Arch>(query + c);
      each(
          [&](std::size_t i) PARE_LAMBDA_INLINE {
            sums[i] = multiply_add<Arch>(load<Arch>(key_at(i) + c), q, sums[i]);
          },
          keys);
    }
  }
  store<Arch>(scores, sum_lanes_of_each<Arch>(sums));
}

/// Scores of all groups, by whole registers of entries.
template <class Arch, std::size_t Held, class T>
void score_groups(const ScoreListed<T>& a) noexcept {
  constexpr std::ptrdiff_t n = lanes<T, Arch>;
  static_assert(listed_group % n == 0);
  const ListedWindow<T> window = a.window;  // in registers
  constexpr auto known = static_cast<std::ptrdiff_t>(Held) * n;
  const std::ptrdiff_t columns = Held > 0 ? known : window.columns;
  ListedAhead<T> ahead(window, a.fetch, a.queries, a.scores);
  for (std::ptrdiff_t g = 0; g < window.count; ++g) {
    ahead.advance(g);
    const ListedGroup group = window.groups[g];
    const T* const query = a.queries + group.row * columns;
    vec<T, Arch> held[Held == 0 ? 1 : Held];
    for (std::size_t i = 0; i < Held; ++i)
      held[i] = load<Arch>(query + static_cast<std::ptrdiff_t>(i) * n);
    for (std::ptrdiff_t j = 0; j < (n == listed_group ? 1 : group.count); j += n)
      score_entries<Arch, Held>(window.data, columns, window.places + group.entry + j, query, held,
                                a.scores + group.entry + j);
  }
}

/// The same with as many registers of the query held as there are, of some numbers.
template <class Arch, std::size_t Held, std::size_t... More, class T>
PARE_TILE_INLINE void score_groups_as(const ScoreListed<T>& a,
                                      std::index_sequence<Held, More...>) noexcept {
  constexpr std::ptrdiff_t n = lanes<T, Arch>;
  if constexpr (holds_query<Arch>(Held, static_cast<std::size_t>(n)))
    if (a.window.columns == static_cast<std::ptrdiff_t>(Held) * n)
      return score_groups<Arch, Held>(a);
  if constexpr (sizeof...(More) > 0)
    score_groups_as<Arch>(a, std::index_sequence<More...>{});
  else
    score_groups<Arch, 0>(a);
}

/// What a modifier makes of the scores of a row, -infinity what the row does not see and what is
/// behind its list, up to whole registers.
template <class Arch, class T, class M>
std::ptrdiff_t finish_scores(const WeighListed<T, M>& a, const ListedRow<T>& row) noexcept {
  constexpr std::ptrdiff_t n = lanes<T, Arch>;
  constexpr T hidden = -std::numeric_limits<T>::infinity();
  const RowPlace& place = row.place;
  if constexpr (!std::is_same_v<M, Exact>) {
    ScorePlace at{a.batch, place.head, place.query, place.position, 0};
    for (std::ptrdiff_t j = 0; j < row.count; ++j) {
      at.key = row.keys[j];
      row.scores[j] = modified(a.modifier, row.scores[j] * a.scale, at);
    }
  }
  std::fill(row.scores + row.hide_begin, row.scores + row.hide_end, hidden);
  const std::ptrdiff_t padded = (row.count + n - 1) / n * n;
  std::fill(row.scores + row.count, row.scores + padded, hidden);
  return padded;
}

/// The weights of a row.
template <class Arch, class T, class M>
void weigh_listed(const WeighListed<T, M>& a, const ListedRow<T>& row, T& maximum_so_far,
                  T& sum_so_far) noexcept {
  constexpr T lowest = -std::numeric_limits<T>::infinity();
  constexpr bool is_exact = std::is_same_v<M, Exact>;
  const std::ptrdiff_t padded = finish_scores<Arch>(a, row);
  if (padded == 0) return;
  T factor = is_exact ? a.scale * T(log2_e) : T(log2_e);
  const T before = maximum_so_far;
  const T own = in_log2(
      reduce_max<Arch>(largest_of_lanes<Arch>(static_cast<const T*>(row.scores), padded)), factor);
  const T now = !(own <= before) ? own : before;
  T shift = now == lowest ? T(0) : -now;
  if (is_far(now)) {
    far_exponents(row.scores, padded, factor, now);
    factor = T(1);
    shift = T(0);
  }
  alignas(64) T sums[static_cast<std::size_t>(lanes<T, Arch>)];
  store_weights<Arch, false>(static_cast<const T*>(row.scores), row.scores, padded,
                             broadcast<Arch>(factor), broadcast<Arch>(shift), static_cast<T*>(sums),
                             static_cast<T*>(nullptr));
  const T keep = before == lowest ? T(0) : exp2<arch::scalar>(before - now);
  sum_so_far = sum_so_far * keep + reduce_add<Arch>(load<Arch>(static_cast<const T*>(sums)));
  maximum_so_far = now;
}

/// Sums of a column that run side by side, since a product waits for the one before it.
inline constexpr std::size_t listed_sums(std::size_t registers) noexcept {
  return registers <= 2 ? 4 : registers <= 4 ? 2 : 1;
}

/// `Registers` registers of out from column c on, with the entries of a group.
template <class Arch, bool Whole, std::size_t Registers, class T>
PARE_TILE_INLINE void sum_group_columns(const ListedWindow<T>& window, const ListedGroup& group,
                                        const T* weights, std::ptrdiff_t c, T* out) noexcept {
  using V = vec<T, Arch>;
  constexpr std::ptrdiff_t n = lanes<T, Arch>;
  constexpr std::size_t side = listed_sums(Registers);
  constexpr auto registers = std::make_index_sequence<Registers>{};
  V sums[side * Registers];
  for (V& sum : sums) sum = broadcast<Arch>(T(0));
  const T* const data = window.data + c;
  const std::uint16_t* const places = window.places + group.entry;
  const auto add = [&]<std::size_t... R>(std::size_t s, std::ptrdiff_t at,
                                         std::index_sequence<R...>) PARE_LAMBDA_INLINE {
    const T* const value = data + std::ptrdiff_t{places[at]} * window.columns;
    const V weight = broadcast<Arch>(weights[at]);
    ((sums[s * Registers + R] = multiply_add<Arch>(
          load<Arch>(value + static_cast<std::ptrdiff_t>(R) * n), weight, sums[s * Registers + R])),
     ...);
  };
  const std::ptrdiff_t count = Whole ? listed_group : group.count;
  std::ptrdiff_t j = 0;
  for (; j + static_cast<std::ptrdiff_t>(side) <= count; j += static_cast<std::ptrdiff_t>(side))
    [&]<std::size_t... I>(std::index_sequence<I...>) PARE_LAMBDA_INLINE {
      (add(I, j + static_cast<std::ptrdiff_t>(I), registers), ...);
    }(std::make_index_sequence<side>{});
  for (; j < count; ++j) add(0, j, registers);
  [&]<std::size_t... R>(std::index_sequence<R...>) PARE_LAMBDA_INLINE {
    const auto total = [&](std::size_t r) PARE_LAMBDA_INLINE {
      if constexpr (side == 4)
        return (sums[r] + sums[Registers + r]) +
               (sums[2 * Registers + r] + sums[3 * Registers + r]);
      else if constexpr (side == 2)
        return sums[r] + sums[Registers + r];
      else
        return sums[r];
    };
    T* const at = out + c;
    (store<Arch>(
         at + static_cast<std::ptrdiff_t>(R) * n,
         load<Arch>(static_cast<const T*>(at) + static_cast<std::ptrdiff_t>(R) * n) + total(R)),
     ...);
  }(registers);
}

/// The columns from c on, at most `Registers` registers of them.
template <class Arch, bool Whole, std::size_t Registers, class T>
PARE_TILE_INLINE void sum_last_columns(const ListedWindow<T>& window, const ListedGroup& group,
                                       const T* weights, std::ptrdiff_t c, T* out) noexcept {
  if constexpr (Registers > 0) {
    if (window.columns - c == static_cast<std::ptrdiff_t>(Registers) * lanes<T, Arch>)
      return sum_group_columns<Arch, Whole, Registers>(window, group, weights, c, out);
    sum_last_columns<Arch, Whole, Registers - 1>(window, group, weights, c, out);
  }
}

/// All columns, with the entries of a group, which is whole or not.
template <class Arch, bool Whole, class T>
PARE_TILE_INLINE void sum_group(const ListedWindow<T>& window, const ListedGroup& group,
                                const T* weights, T* out) noexcept {
  constexpr std::size_t most = Arch::registers >= 32 ? 8 : 4;
  constexpr std::ptrdiff_t width = static_cast<std::ptrdiff_t>(most) * lanes<T, Arch>;
  std::ptrdiff_t c = 0;
  for (; c + width <= window.columns; c += width)
    sum_group_columns<Arch, Whole, most>(window, group, weights, c, out);
  sum_last_columns<Arch, Whole, most - 1>(window, group, weights, c, out);
}

PARE_ABI_END
}  // namespace detail
PARE_ABI_BEGIN

template <class Arch, class S>
void run_kernel(Arch, const WidenRows<S>& a) noexcept {
  using T = compute_t<S>;
  for (std::ptrdiff_t i = 0; i < a.count; ++i) {
    const S* const row = a.rows[i];
    if (row == nullptr) continue;
    T* const out = a.out + i * a.stride;
    for_row<lanes<T, Arch>>(
        a.columns,
        [&](std::ptrdiff_t c)
            PARE_LAMBDA_INLINE { store<Arch>(out + c, load_widened<Arch>(row + c)); },
        [&](std::ptrdiff_t c, std::ptrdiff_t count) PARE_LAMBDA_INLINE {
          for (std::ptrdiff_t e = c; e < c + count; ++e) out[e] = static_cast<T>(row[e]);
        });
    std::fill(out + a.columns, out + a.stride, T(0));
  }
}

template <class Arch>
void run_kernel(Arch, const PlaceKeys& call) noexcept {
  const PlaceKeys a = call;  // in registers
  const auto mask = static_cast<std::int32_t>((std::int32_t{1} << a.shift) - 1);
  for (std::ptrdiff_t e = 0; e < a.count; ++e)
    a.places[e] = static_cast<std::uint16_t>(a.keys[e] & mask);
  std::fill_n(a.places + a.count, listed_group, std::uint16_t{0});
}

template <class Arch, class T>
void run_kernel(Arch, const ScoreListed<T>& a) noexcept {
  detail::score_groups_as<Arch>(a, std::index_sequence<2, 4, 8>{});
}

template <class Arch, class T, class M>
void run_kernel(Arch, const WeighListed<T, M>& a) noexcept {
  for (std::ptrdiff_t r = 0; r < a.count; ++r)
    detail::weigh_listed<Arch>(a, a.rows[r], a.maximum[r], a.sum[r]);
}

template <class Arch, class T>
void run_kernel(Arch, const SumListed<T>& a) noexcept {
  const ListedWindow<T> window = a.window;  // in registers
  detail::ListedAhead<T> ahead(window, a.fetch, a.out, a.weights);
  for (std::ptrdiff_t g = 0; g < window.count; ++g) {
    ahead.advance(g);
    const ListedGroup group = window.groups[g];
    const T* const weights = a.weights + group.entry;
    T* const out = a.out + group.row * window.columns;
    if (group.count == listed_group)
      detail::sum_group<Arch, true>(window, group, weights, out);
    else
      detail::sum_group<Arch, false>(window, group, weights, out);
  }
}

PARE_ABI_END
}  // namespace pare::kernel

#include <pare/core/macros_on.hpp>
