// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Means of rows that join and leave a running sum: uniform attention without scores.

#include <pare/core/macros_off.hpp>

#include <pare/kernel/partial_register.hpp>
#include <pare/kernel/simd.hpp>
#include <pare/kernel/streaming.hpp>

#include <bit>
#include <cstddef>
#include <cstdint>
#include <type_traits>
#include <utility>

namespace pare::kernel {

/// For row r: sums += enter_r - leave_r, then out_hr = share_r (base + sums) for each head h.
///
/// Sums are kept in double. Without `lost`, floats are added in float for at most mean_rows_each
/// rows, scaled by powers of 2 so that no sum is larger than the largest value, before they join
/// the sums: an element of out is then off by at most 12 units in the last place of the mean of
/// |values|, however many rows there are. In double throughout it would be 1 unit, but conversions
/// would take twice as long as memory (0.65 of copying the bytes on Zen 5).
///
/// Rows leave only where `lost` is given. Each sum is then two numbers (Knuth's sum of two), so
/// that what a large value rounded away is there again once that value has left. `lost` is NaN
/// where `sums` was infinite.
///
/// Cost: each row read once (twice if it leaves) and out written once; memory binds. Sums stay in
/// registers over all rows of a panel of columns.
template <StorageScalar S, StorageScalar O>
struct RunningMeans {
  const S* const* enter = nullptr;  ///< [rows], an element may be null: none joins
  const S* const* leave = nullptr;  ///< [rows] likewise, or null: none leaves
  const double* share = nullptr;    ///< [rows]
  std::ptrdiff_t rows = 0;
  std::ptrdiff_t columns = 0;
  /// [columns in whole lines], or null: 0. It is null where floats have heads, and not looked at
  /// where `lost` is given.
  const double* base = nullptr;
  double* sums = nullptr;    ///< [columns in whole lines]
  double* lost = nullptr;    ///< [columns in whole lines] likewise, in place of base; or null
  O* const* outs = nullptr;  ///< [heads], each to row 0
  std::ptrdiff_t out_stride = 0;
  std::ptrdiff_t heads = 0;  ///< 0: sums alone
  bool streams = false;      ///< rows of out begin lines: they go past the caches, a fence follows;
                             ///< not where `lost` is given
};

/// Rows of floats that are summed in float.
inline constexpr std::ptrdiff_t mean_rows_each = 8;

/// Values are fetched so far ahead of those that join, into L1, which bridges what is done between
/// two calls: a bare sum of rows that streams its means took 0.97 of the copy bandwidth with 4 KiB
/// on Zen 5, 0.92 with 2, 0.88 with 1.
inline constexpr std::ptrdiff_t mean_bytes_ahead = 4096;

namespace detail {
PARE_ABI_BEGIN

/// The sums of one register of columns, in double, with what rounding took from them if Exact.
template <class Arch, class T, bool Exact>
struct ColumnSums {
  static constexpr std::ptrdiff_t n = lanes<T, Arch>, each = lanes<double, Arch>;
  static constexpr std::ptrdiff_t registers = n / each;

  vec<double, Arch> sum[static_cast<std::size_t>(registers)];
  vec<double, Arch> lost[static_cast<std::size_t>(Exact ? registers : 1)];

  template <class S, class O>
  PARE_ALWAYS_INLINE void load_from(const RunningMeans<S, O>& a, std::ptrdiff_t c) noexcept {
    for (std::ptrdiff_t i = 0; i < registers; ++i) {
      sum[i] = load<Arch>(static_cast<const double*>(a.sums) + c + i * each);
      if constexpr (Exact) lost[i] = load<Arch>(static_cast<const double*>(a.lost) + c + i * each);
    }
  }
  template <class S, class O>
  PARE_ALWAYS_INLINE void store_to(const RunningMeans<S, O>& a, std::ptrdiff_t c) const noexcept {
    for (std::ptrdiff_t i = 0; i < registers; ++i) {
      store<Arch>(a.sums + c + i * each, sum[i]);
      if constexpr (Exact) store<Arch>(a.lost + c + i * each, lost[i]);
    }
  }
  template <bool Leaves>
  PARE_ALWAYS_INLINE void add(vec<T, Arch> v) noexcept {
    vec<double, Arch> x[static_cast<std::size_t>(registers)];
    if constexpr (std::is_same_v<T, double>)
      x[0] = v;
    else
      widen_floats<Arch>(v, static_cast<vec<double, Arch>*>(x));
    for (std::ptrdiff_t i = 0; i < registers; ++i) {
      const vec<double, Arch> before = sum[i], more = Leaves ? vec<double, Arch>(-x[i]) : x[i];
      sum[i] = before + more;
      if constexpr (Exact) {
        const vec<double, Arch> added = sum[i] - before;
        lost[i] = lost[i] + ((before - (sum[i] - added)) + (more - added));
      }
    }
  }
  PARE_ALWAYS_INLINE void add_scaled(vec<float, Arch> v, double scale) noexcept {
    vec<double, Arch> x[static_cast<std::size_t>(registers)];
    widen_floats<Arch>(v, static_cast<vec<double, Arch>*>(x));
    for (std::ptrdiff_t i = 0; i < registers; ++i)
      sum[i] = multiply_add<Arch>(x[i], broadcast<Arch>(scale), sum[i]);
  }
  PARE_ALWAYS_INLINE vec<T, Arch> mean(const double* base, double share) const noexcept {
    vec<double, Arch> x[static_cast<std::size_t>(registers)];
    for (std::ptrdiff_t i = 0; i < registers; ++i) {
      if constexpr (Exact)
        x[i] = sum[i] + lost[i];
      else
        x[i] = base == nullptr ? sum[i] : sum[i] + load<Arch>(base + i * each);
      x[i] = x[i] * broadcast<Arch>(share);
    }
    if constexpr (std::is_same_v<T, double>)
      return x[0];
    else
      return narrow_doubles<Arch>(static_cast<const vec<double, Arch>*>(x));
  }
};

template <class Arch, bool Streams, StorageScalar O>
PARE_ALWAYS_INLINE void put_mean(O* out, vec<compute_t<O>, Arch> v) noexcept {
  if constexpr (Streams && std::is_same_v<O, compute_t<O>>)
    put<Arch, true>(out, v);
  else
    store_narrowed<Arch>(out, v);
}

/// The largest power of 2 up to every share of some rows that is not 0, and at least 2^-100. Bits
/// of numbers that are not negative are ordered as these; 0 comes last when one is taken away.
inline double block_scale(const double* share, std::ptrdiff_t rows) noexcept {
  constexpr std::uint64_t least = 1023 - 100;
  std::uint64_t smallest = (std::uint64_t{1023} << 52) - 1;
  for (std::ptrdiff_t r = 0; r < rows; ++r) {
    const std::uint64_t of_row = std::bit_cast<std::uint64_t>(share[r]) - 1;
    smallest = of_row < smallest ? of_row : smallest;
  }
  const std::uint64_t exponent = (smallest + 1) >> 52;
  return std::bit_cast<double>((exponent < least ? least : exponent) << 52);
}

/// Up to mean_rows_each rows from `row` on, none of which leaves, in float. Values are divided by
/// mean_rows_each alone, whatever the share: of small ones nothing else is rounded away.
template <class Arch, bool Streams, class S, class O, std::size_t... I>
PARE_ALWAYS_INLINE void mean_block(const RunningMeans<S, O>& a, std::ptrdiff_t row,
                                   std::ptrdiff_t rows, ColumnSums<Arch, float, false>* sums,
                                   std::ptrdiff_t c, std::index_sequence<I...>) noexcept {
  constexpr std::ptrdiff_t n = lanes<float, Arch>;
  const double scale = block_scale(a.share + row, rows);
  const double over = 1 / scale;
  constexpr double each = static_cast<double>(mean_rows_each);
  const auto part = broadcast<Arch>(static_cast<float>(1 / each));
  const auto factor = broadcast<Arch>(static_cast<float>(scale * each));
  const vec<float, Arch> before[] = {sums[I].mean(nullptr, scale)...};
  vec<float, Arch> now[] = {(static_cast<void>(I), broadcast<Arch>(0.0f))...};
  const auto at = [c](std::size_t i) { return c + static_cast<std::ptrdiff_t>(i) * n; };
  for (std::ptrdiff_t r = row; r < row + rows; ++r) {
    if (const S* const enter = a.enter[r]; enter != nullptr) {
      (prefetch<3>(enter + at(I), mean_bytes_ahead), ...);
      ((now[I] = multiply_add<Arch>(load_widened<Arch>(enter + at(I)), part, now[I])), ...);
    }
    const auto share = broadcast<Arch>(static_cast<float>(a.share[r] * over));
    const vec<float, Arch> mean[] = {multiply_add<Arch>(now[I], factor, before[I]) * share...};
    for (std::ptrdiff_t h = 0; h < a.heads; ++h)
      (put_mean<Arch, Streams>(a.outs[h] + r * a.out_stride + at(I), mean[I]), ...);
  }
  (sums[I].add_scaled(now[I], each), ...);
}

/// All rows of `Registers` registers of columns from c on.
template <class Arch, bool Streams, bool Exact, class S, class O, std::size_t... I>
void mean_panel(const RunningMeans<S, O>& call, std::ptrdiff_t c,
                std::index_sequence<I...>) noexcept {
  using T = compute_t<S>;
  constexpr std::ptrdiff_t n = lanes<T, Arch>;
  const RunningMeans<S, O> a = call;  // in registers
  ColumnSums<Arch, T, Exact> sums[sizeof...(I)];
  const auto at = [c](std::size_t i) { return c + static_cast<std::ptrdiff_t>(i) * n; };
  (sums[I].load_from(a, at(I)), ...);
  if constexpr (std::is_same_v<T, float> && !Exact)
    if (a.heads > 0) {
      for (std::ptrdiff_t r = 0; r < a.rows; r += mean_rows_each)
        mean_block<Arch, Streams>(a, r, a.rows - r < mean_rows_each ? a.rows - r : mean_rows_each,
                                  static_cast<ColumnSums<Arch, T, false>*>(sums), c,
                                  std::index_sequence<I...>{});
      (sums[I].store_to(a, at(I)), ...);
      return;
    }
  for (std::ptrdiff_t r = 0; r < a.rows; ++r) {
    if (const S* const enter = a.enter[r]; enter != nullptr)
      (sums[I].template add<false>(load_widened<Arch>(enter + at(I))), ...);
    if constexpr (Exact)
      if (const S* const leave = a.leave == nullptr ? nullptr : a.leave[r]; leave != nullptr)
        (sums[I].template add<true>(load_widened<Arch>(leave + at(I))), ...);
    if (a.heads == 0) continue;
    const double share = a.share[r];
    const vec<T, Arch> mean[] = {
        sums[I].mean(a.base == nullptr ? nullptr : a.base + at(I), share)...};
    for (std::ptrdiff_t h = 0; h < a.heads; ++h)
      (put_mean<Arch, Streams>(a.outs[h] + r * a.out_stride + at(I), mean[I]), ...);
  }
  (sums[I].store_to(a, at(I)), ...);
}

/// The same of the columns behind the last whole register.
template <class Arch, bool Exact, class S, class O>
void mean_end(const RunningMeans<S, O>& a, std::ptrdiff_t c) noexcept {
  using T = compute_t<S>;
  const std::ptrdiff_t count = a.columns - c;
  ColumnSums<Arch, T, Exact> sums;
  sums.load_from(a, c);
  for (std::ptrdiff_t r = 0; r < a.rows; ++r) {
    if (a.enter[r] != nullptr)
      sums.template add<false>(load_first<Arch>(a.enter[r] + c, count, T(0)));
    if constexpr (Exact)
      if (a.leave != nullptr && a.leave[r] != nullptr)
        sums.template add<true>(load_first<Arch>(a.leave[r] + c, count, T(0)));
    if (a.heads == 0) continue;
    const vec<T, Arch> mean = sums.mean(a.base == nullptr ? nullptr : a.base + c, a.share[r]);
    for (std::ptrdiff_t h = 0; h < a.heads; ++h)
      store_first<Arch>(a.outs[h] + r * a.out_stride + c, count, mean);
  }
  sums.store_to(a, c);
}

template <class Arch, bool Streams, bool Exact, class S, class O>
void mean_rows(const RunningMeans<S, O>& a) noexcept {
  constexpr std::ptrdiff_t n = lanes<compute_t<S>, Arch>;
  // 8 registers of floats have 16 of sums, and as many are left; 4 have 8, and 8 of what is lost.
  constexpr std::ptrdiff_t most = Arch::registers < 32 ? (Exact ? 1 : 2) : (Exact ? 4 : 8);
  std::ptrdiff_t c = 0;
  const auto panels = [&]<std::size_t Registers>() PARE_LAMBDA_INLINE {
    constexpr auto width = static_cast<std::ptrdiff_t>(Registers) * n;
    for (; c + width <= a.columns; c += width)
      mean_panel<Arch, Streams, Exact>(a, c, std::make_index_sequence<Registers>{});
  };
  panels.template operator()<static_cast<std::size_t>(most)>();
  if constexpr (most > 4) panels.template operator()<4>();
  if constexpr (most > 2) panels.template operator()<2>();
  if constexpr (most > 1) panels.template operator()<1>();
  if (c < a.columns) mean_end<Arch, Exact>(a, c);
}

PARE_ABI_END
}  // namespace detail
PARE_ABI_BEGIN

template <class Arch, class S, class O>
void run_kernel(Arch, const RunningMeans<S, O>& a) noexcept {
  if (a.lost != nullptr)
    detail::mean_rows<Arch, false, true>(a);
  else if (a.streams)
    detail::mean_rows<Arch, true, false>(a);
  else
    detail::mean_rows<Arch, false, false>(a);
}

PARE_ABI_END
}  // namespace pare::kernel

#include <pare/core/macros_on.hpp>
