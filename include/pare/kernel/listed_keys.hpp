// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Attention of rows that list their keys: scores of the listed keys, weights, sums of the listed
/// values.
///
/// Keys and values come in blocks of rows of T that a cache holds, so that what many query rows
/// gather from is near. The three steps of a row are apart: its scores lie whole in memory, and the
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

/// Scores behind those of a list that are written too.
inline constexpr std::ptrdiff_t listed_room = 16;

/// out_i = rows[i] as T, `stride` apart, with zeros behind the columns. A null row is left out.
template <StorageScalar S>
struct WidenRows {
  const S* const* rows = nullptr;  ///< [count]
  std::ptrdiff_t count = 0;
  std::ptrdiff_t columns = 0;
  compute_t<S>* out = nullptr;  ///< [count x stride]
  std::ptrdiff_t stride = 0;    ///< padded_columns(columns)
};

/// A query row and the keys that it lists.
template <ComputeScalar T>
struct ListedRow {
  const T* query = nullptr;            ///< [padded key columns]
  const std::int32_t* keys = nullptr;  ///< [count], ascending
  std::ptrdiff_t count = 0;
  const std::uint16_t* places = nullptr;  ///< [count + listed_room] of keys, each in its block
  T* scores = nullptr;                    ///< [count + listed_room]
  std::ptrdiff_t hide_begin = 0;          ///< of its entries that it lists but does not see
  std::ptrdiff_t hide_end = 0;
  RowPlace place{};
};

/// Splits a list by blocks of 2^shift keys: places[e] = keys[e] mod 2^shift, 0 behind the list, and
/// starts[b] = the entries below b 2^shift for b <= blocks.
///
/// Each entry writes its number behind its block's start, and a running maximum fills in for the
/// blocks without any: no branch depends on the list. A store an entry binds.
struct SplitList {
  const std::int32_t* keys = nullptr;  ///< [count], ascending
  std::ptrdiff_t count = 0;
  int shift = 0;  ///< at most 16
  std::ptrdiff_t blocks = 0;
  std::uint16_t* places = nullptr;  ///< [count + listed_room]
  std::int32_t* starts = nullptr;   ///< [blocks + 1]
};

/// Rows of a block, `columns` apart, and which entries of each list are there: those from
/// starts[r * start_stride] to starts[r * start_stride + 1].
template <ComputeScalar T>
struct ListedBlock {
  const T* data = nullptr;
  std::ptrdiff_t columns = 0;  ///< padded_columns of the key dim or the value dim
  const std::int32_t* starts = nullptr;
  std::ptrdiff_t start_stride = 0;
};

/// Rows of the next block, which are asked for meanwhile, evenly, into L2.
struct ListedFetch {
  const void* const* rows = nullptr;  ///< [count], null or a row
  std::ptrdiff_t count = 0;
  std::ptrdiff_t bytes = 0;
};

/// Of each row the scores <q_r, k_j> of its entries in the block.
template <ComputeScalar T>
struct ScoreListed {
  const ListedRow<T>* rows = nullptr;  ///< [count]
  std::ptrdiff_t count = 0;
  ListedBlock<T> block{};
  ListedFetch fetch{};
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

/// out_r += sum over the row's entries in the block of weight_j v_j.
template <ComputeScalar T>
struct SumListed {
  const ListedRow<T>* rows = nullptr;  ///< [count]; weights in place of scores
  std::ptrdiff_t count = 0;
  ListedBlock<T> block{};
  ListedFetch fetch{};
  T* out = nullptr;  ///< [count x block.columns]
};

namespace detail {
PARE_ABI_BEGIN

/// The part of the rows to fetch that goes with row r of `count`.
PARE_TILE_INLINE void fetch_listed(const ListedFetch& a, std::ptrdiff_t r,
                                   std::ptrdiff_t count) noexcept {
  const std::ptrdiff_t end = (r + 1) * a.count / count;
  for (std::ptrdiff_t i = r * a.count / count; i < end; ++i)
    if (a.rows[i] != nullptr)
      for (std::ptrdiff_t byte = 0; byte < a.bytes; byte += 64) prefetch<2>(a.rows[i], byte);
}

/// Registers of a query that stay in registers while a row is scored; 0: loaded again for each key.
template <class Arch>
inline constexpr bool holds_query(std::size_t registers, std::size_t keys) noexcept {
  return registers > 0 && registers + keys < static_cast<std::size_t>(Arch::registers);
}

/// Scores of `Keys` entries of a row from j on, a register of sums for each. Those behind the run
/// are of other blocks, whose places hold what they may.
template <class Arch, std::size_t Keys, std::size_t Held, class T>
PARE_TILE_INLINE void score_listed(const ListedBlock<T>& block, const ListedRow<T>& row,
                                   const vec<T, Arch> (&held)[Held == 0 ? 1 : Held],
                                   std::ptrdiff_t j) noexcept {
  using V = vec<T, Arch>;
  constexpr std::ptrdiff_t n = lanes<T, Arch>;
  V sums[Keys];
  for (V& sum : sums) sum = broadcast<Arch>(T(0));
  const auto key_at = [&](std::size_t i) PARE_LAMBDA_INLINE {
    return block.data +
           std::ptrdiff_t{row.places[j + static_cast<std::ptrdiff_t>(i)]} * block.columns;
  };
  const auto each = [](const auto& f) PARE_LAMBDA_INLINE {
    [&]<std::size_t... I>(std::index_sequence<I...>)
        PARE_LAMBDA_INLINE { (f(I), ...); }(std::make_index_sequence<Keys>{});
  };
  if constexpr (Held > 0) {
    each([&](std::size_t i) PARE_LAMBDA_INLINE {
      const T* const key = key_at(i);
      [&]<std::size_t... R>(std::index_sequence<R...>) PARE_LAMBDA_INLINE {
        ((sums[i] = multiply_add<Arch>(load<Arch>(key + static_cast<std::ptrdiff_t>(R) * n),
                                       held[R], sums[i])),
         ...);
      }(std::make_index_sequence<Held>{});
    });
  } else {
    for (std::ptrdiff_t c = 0; c < block.columns; c += n) {
      const V q = load<Arch>(row.query + c);
      each([&](std::size_t i) PARE_LAMBDA_INLINE {
        sums[i] = multiply_add<Arch>(load<Arch>(key_at(i) + c), q, sums[i]);
      });
    }
  }
  const V totals = fold_lanes_of_each<Arch>(
      sums, [](const V& x, const V& y) PARE_LAMBDA_INLINE { return x + y; });
  if constexpr (static_cast<std::ptrdiff_t>(Keys) == n) {
    store<Arch>(row.scores + j, totals);
  } else {
    alignas(64) T spread[static_cast<std::size_t>(n)];
    store<Arch>(static_cast<T*>(spread), totals);
    constexpr std::size_t apart = static_cast<std::size_t>(n) / Keys;
    for (std::size_t i = 0; i < Keys; ++i)
      row.scores[j + static_cast<std::ptrdiff_t>(i)] = spread[i * apart];
  }
}

/// Scores of the entries of each row in the block: whole registers of them, and half of one for the
/// last where that is enough. What is written behind a run is written again by the next block.
template <class Arch, std::size_t Held, class T>
void score_listed_rows(const ScoreListed<T>& a) noexcept {
  constexpr std::ptrdiff_t n = lanes<T, Arch>, half = n / 2;
  const ListedBlock<T> block = a.block;  // in registers
  const std::int32_t* start = block.starts;
  for (std::ptrdiff_t r = 0; r < a.count; ++r, start += block.start_stride) {
    fetch_listed(a.fetch, r, a.count);
    const ListedRow<T> row = a.rows[r];
    vec<T, Arch> held[Held == 0 ? 1 : Held];
    for (std::size_t i = 0; i < Held; ++i)
      held[i] = load<Arch>(row.query + static_cast<std::ptrdiff_t>(i) * n);
    std::ptrdiff_t j = start[0];
    const std::ptrdiff_t end = start[1];
    for (; end - j > half; j += n)
      score_listed<Arch, static_cast<std::size_t>(n), Held>(block, row, held, j);
    if constexpr (half > 0)
      if (j < end) score_listed<Arch, static_cast<std::size_t>(half), Held>(block, row, held, j);
  }
}

/// The same with as many registers of the query held as there are, of some numbers.
template <class Arch, std::size_t Held, std::size_t... More, class T>
PARE_TILE_INLINE void score_listed_as(const ScoreListed<T>& a,
                                      std::index_sequence<Held, More...>) noexcept {
  constexpr std::ptrdiff_t n = lanes<T, Arch>;
  if constexpr (holds_query<Arch>(Held, static_cast<std::size_t>(n)))
    if (a.block.columns == static_cast<std::ptrdiff_t>(Held) * n)
      return score_listed_rows<Arch, Held>(a);
  if constexpr (sizeof...(More) > 0)
    score_listed_as<Arch>(a, std::index_sequence<More...>{});
  else
    score_listed_rows<Arch, 0>(a);
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

/// `Registers` registers of the weighed sum of a row's values, from column c on.
template <class Arch, std::size_t Registers, class T>
PARE_TILE_INLINE void sum_listed_columns(const ListedBlock<T>& block, const ListedRow<T>& row,
                                         std::ptrdiff_t j, std::ptrdiff_t end, std::ptrdiff_t c,
                                         T* out) noexcept {
  using V = vec<T, Arch>;
  constexpr std::ptrdiff_t n = lanes<T, Arch>;
  constexpr std::size_t side = listed_sums(Registers);
  constexpr auto registers = std::make_index_sequence<Registers>{};
  V sums[side * Registers];
  for (V& sum : sums) sum = broadcast<Arch>(T(0));
  const T* const data = block.data + c;
  const auto add = [&]<std::size_t... R>(std::size_t s, std::ptrdiff_t at,
                                         std::index_sequence<R...>) PARE_LAMBDA_INLINE {
    const T* const value = data + std::ptrdiff_t{row.places[at]} * block.columns;
    const V weight = broadcast<Arch>(row.scores[at]);
    ((sums[s * Registers + R] = multiply_add<Arch>(
          load<Arch>(value + static_cast<std::ptrdiff_t>(R) * n), weight, sums[s * Registers + R])),
     ...);
  };
  for (; j + static_cast<std::ptrdiff_t>(side) <= end; j += static_cast<std::ptrdiff_t>(side))
    [&]<std::size_t... I>(std::index_sequence<I...>) PARE_LAMBDA_INLINE {
      (add(I, j + static_cast<std::ptrdiff_t>(I), registers), ...);
    }(std::make_index_sequence<side>{});
  for (; j < end; ++j) add(0, j, registers);
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
template <class Arch, std::size_t Registers, class T>
PARE_TILE_INLINE void sum_last_columns(const ListedBlock<T>& block, const ListedRow<T>& row,
                                       std::ptrdiff_t j, std::ptrdiff_t end, std::ptrdiff_t c,
                                       T* out) noexcept {
  if constexpr (Registers > 0) {
    if (block.columns - c == static_cast<std::ptrdiff_t>(Registers) * lanes<T, Arch>)
      return sum_listed_columns<Arch, Registers>(block, row, j, end, c, out);
    sum_last_columns<Arch, Registers - 1>(block, row, j, end, c, out);
  }
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
void run_kernel(Arch, const SplitList& call) noexcept {
  const SplitList a = call;  // in registers
  const auto mask = static_cast<std::int32_t>((std::int32_t{1} << a.shift) - 1);
  std::fill_n(a.starts, a.blocks + 1, 0);
  for (std::ptrdiff_t e = 0; e < a.count; ++e)
    a.starts[(a.keys[e] >> a.shift) + 1] = static_cast<std::int32_t>(e + 1);
  for (std::ptrdiff_t e = 0; e < a.count; ++e)
    a.places[e] = static_cast<std::uint16_t>(a.keys[e] & mask);
  std::fill_n(a.places + a.count, listed_room, std::uint16_t{0});
  std::int32_t so_far = 0;
  for (std::ptrdiff_t b = 0; b <= a.blocks; ++b)
    so_far = a.starts[b] = std::max(so_far, a.starts[b]);
}

template <class Arch, class T>
void run_kernel(Arch, const ScoreListed<T>& a) noexcept {
  detail::score_listed_as<Arch>(a, std::index_sequence<2, 4, 8>{});
}

template <class Arch, class T, class M>
void run_kernel(Arch, const WeighListed<T, M>& a) noexcept {
  for (std::ptrdiff_t r = 0; r < a.count; ++r)
    detail::weigh_listed<Arch>(a, a.rows[r], a.maximum[r], a.sum[r]);
}

template <class Arch, class T>
void run_kernel(Arch, const SumListed<T>& a) noexcept {
  constexpr std::size_t most = Arch::registers >= 32 ? 8 : 4;
  constexpr std::ptrdiff_t width = static_cast<std::ptrdiff_t>(most) * lanes<T, Arch>;
  const ListedBlock<T> block = a.block;  // in registers
  const std::int32_t* start = block.starts;
  T* out = a.out;
  for (std::ptrdiff_t r = 0; r < a.count; ++r, start += block.start_stride, out += block.columns) {
    detail::fetch_listed(a.fetch, r, a.count);
    if (start[0] == start[1]) continue;
    const ListedRow<T> row = a.rows[r];
    std::ptrdiff_t c = 0;
    for (; c + width <= block.columns; c += width)
      detail::sum_listed_columns<Arch, most>(block, row, start[0], start[1], c, out);
    detail::sum_last_columns<Arch, most - 1>(block, row, start[0], start[1], c, out);
  }
}

PARE_ABI_END
}  // namespace pare::kernel

#include <pare/core/macros_on.hpp>
