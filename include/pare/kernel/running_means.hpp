// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Means of rows that join and leave a running sum: uniform attention without scores.

#include <pare/core/macros_off.hpp>

#include <pare/kernel/simd.hpp>
#include <pare/kernel/streaming.hpp>

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <type_traits>

namespace pare::kernel {

/// For row r: sums += enter_r - leave_r, then out_hr = share_r (base + sums) for each head h. Sums
/// are kept in double. Returns through `done` how many rows were written: fewer than all where a
/// row left and a sum is not finite, which is then to be made anew.
///
/// Cost: each row read once (twice if it leaves) and out written once; memory binds.
template <StorageScalar S, StorageScalar O>
struct RunningMeans {
  const S* const* enter = nullptr;  ///< [rows], an element may be null: none joins
  const S* const* leave = nullptr;  ///< [rows] likewise, or null: none leaves
  const double* share = nullptr;    ///< [rows]
  std::ptrdiff_t rows = 0;
  std::ptrdiff_t columns = 0;
  const double* base = nullptr;  ///< [columns]
  double* sums = nullptr;        ///< [columns]
  O* const* outs = nullptr;      ///< [heads], each to row 0
  std::ptrdiff_t out_stride = 0;
  std::ptrdiff_t heads = 0;  ///< 0: sums alone
  bool streams = false;      ///< rows of out begin lines: they go past the caches, a fence follows
  std::ptrdiff_t* done = nullptr;
};

namespace detail {
PARE_ABI_BEGIN

/// Columns at once: a length known beforehand is what compilers vectorise at -O2.
inline constexpr std::ptrdiff_t mean_columns = 16;

template <class Arch, StorageScalar S>
PARE_ALWAYS_INLINE void add_widened(const S* p, double sign, double* sums) noexcept {
  using T = compute_t<S>;
  if constexpr (std::is_same_v<S, T>) {
    for (std::ptrdiff_t l = 0; l < mean_columns; ++l) sums[l] += sign * static_cast<double>(p[l]);
  } else {
    T x[static_cast<std::size_t>(mean_columns)];
    for (std::ptrdiff_t l = 0; l < mean_columns; l += lanes<T, Arch>)
      store<Arch>(x + l, load_widened<Arch>(p + l));
    for (std::ptrdiff_t l = 0; l < mean_columns; ++l) sums[l] += sign * static_cast<double>(x[l]);
  }
}

template <class Arch, bool Streams, StorageScalar O>
PARE_ALWAYS_INLINE void put_means(const compute_t<O>* mean, O* out) noexcept {
  using T = compute_t<O>;
  for (std::ptrdiff_t l = 0; l < mean_columns; l += lanes<T, Arch>)
    if constexpr (Streams && std::is_same_v<O, T>)
      put<Arch, true>(out + l, load<Arch>(mean + l));
    else
      store_narrowed<Arch>(out + l, load<Arch>(mean + l));
}

/// Whether none of the totals is infinite or NaN, judged on the bits.
inline bool all_finite(const double* base, const double* sums, std::ptrdiff_t columns) noexcept {
  std::uint64_t bad = 0;
  for (std::ptrdiff_t c = 0; c < columns; ++c) {
    const auto exponent = std::bit_cast<std::uint64_t>(base[c] + sums[c]) >> 52 & 0x7ff;
    bad |= static_cast<std::uint64_t>(exponent == 0x7ff);
  }
  return bad == 0;
}

template <class Arch, bool Streams, class S, class O>
void mean_row(const RunningMeans<S, O>& a, std::ptrdiff_t r, const S* enter,
              const S* leave) noexcept {
  using T = compute_t<O>;
  const double share = a.heads > 0 ? a.share[r] : 0;
  std::ptrdiff_t c = 0;
  for (; c + mean_columns <= a.columns; c += mean_columns) {
    double sum[static_cast<std::size_t>(mean_columns)];
    for (std::ptrdiff_t l = 0; l < mean_columns; ++l) sum[l] = a.sums[c + l];
    if (enter != nullptr) add_widened<Arch>(enter + c, 1, static_cast<double*>(sum));
    if (leave != nullptr) add_widened<Arch>(leave + c, -1, static_cast<double*>(sum));
    for (std::ptrdiff_t l = 0; l < mean_columns; ++l) a.sums[c + l] = sum[l];
    if (a.heads == 0) continue;
    alignas(64) T mean[static_cast<std::size_t>(mean_columns)];
    for (std::ptrdiff_t l = 0; l < mean_columns; ++l)
      mean[l] = static_cast<T>((a.base[c + l] + sum[l]) * share);
    for (std::ptrdiff_t h = 0; h < a.heads; ++h)
      put_means<Arch, Streams>(static_cast<const T*>(mean), a.outs[h] + r * a.out_stride + c);
  }
  for (; c < a.columns; ++c) {
    if (enter != nullptr) a.sums[c] += static_cast<double>(static_cast<compute_t<S>>(enter[c]));
    if (leave != nullptr) a.sums[c] -= static_cast<double>(static_cast<compute_t<S>>(leave[c]));
    for (std::ptrdiff_t h = 0; h < a.heads; ++h)
      a.outs[h][r * a.out_stride + c] =
          static_cast<O>(static_cast<T>((a.base[c] + a.sums[c]) * share));
  }
}

template <class Arch, bool Streams, class S, class O>
std::ptrdiff_t mean_rows(const RunningMeans<S, O>& a) noexcept {
  for (std::ptrdiff_t r = 0; r < a.rows; ++r) {
    const S* const leave = a.leave == nullptr ? nullptr : a.leave[r];
    // Infinity minus infinity would stay NaN in rows that see neither.
    if (leave != nullptr && !all_finite(a.base, a.sums, a.columns)) return r;
    mean_row<Arch, Streams>(a, r, a.enter[r], leave);
  }
  return a.rows;
}

PARE_ABI_END
}  // namespace detail
PARE_ABI_BEGIN

template <class Arch, class S, class O>
void run_kernel(Arch, const RunningMeans<S, O>& a) noexcept {
  *a.done = a.streams ? detail::mean_rows<Arch, true>(a) : detail::mean_rows<Arch, false>(a);
}

PARE_ABI_END
}  // namespace pare::kernel

#include <pare/core/macros_on.hpp>
