// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Means of bags of rows of a table, which lie anywhere in memory: they are fetched ahead, over the
/// ends of bags too.

#include <pare/core/macros_off.hpp>

#include <pare/kernel/partial_register.hpp>
#include <pare/kernel/simd.hpp>

#include <cstddef>

namespace pare::kernel {

/// out_i = 1 / n_i sum of table(ids_j) over the n_i places j of bag i, in the order of j.
///
/// Rows are stored in S and summed in what S computes in, from the first one on: a bag of one is
/// its row, -0 too. A bag of none is 0. Cost: each row is read once and each mean written once,
/// which binds.
template <StorageScalar S>
struct MeanBags {
  using T = compute_t<S>;

  const S* table = nullptr;                 ///< [.. x columns]
  std::ptrdiff_t stride = 0;                ///< between rows
  const std::ptrdiff_t* ids = nullptr;      ///< [places] rows; null: place j is row j
  std::ptrdiff_t places = 0;                ///< up to which rows are fetched ahead
  const std::ptrdiff_t* offsets = nullptr;  ///< [bags + 1] places; null: bag i is place i
  std::ptrdiff_t bags = 0;
  T* out = nullptr;  ///< [bags x columns]
  std::ptrdiff_t out_stride = 0;
  std::ptrdiff_t columns = 0;
};

namespace detail {
PARE_ABI_BEGIN

/// Lines of rows that are under way: a core has 10 to 16 misses of the first level in flight, and
/// some more of the second. At least 4 rows.
inline constexpr std::ptrdiff_t bag_lines_ahead = 32;

/// A bag and how its rows are found.
template <class S>
struct Bag {
  const MeanBags<S>& a;
  std::ptrdiff_t begin, end;
  std::ptrdiff_t ahead;  ///< places

  PARE_ALWAYS_INLINE const S* row(std::ptrdiff_t place) const noexcept {
    return a.table + (a.ids != nullptr ? a.ids[place] : place) * a.stride;
  }
  PARE_ALWAYS_INLINE void fetch(std::ptrdiff_t place) const noexcept {
    if (place + ahead >= a.places) return;
    const S* const next = row(place + ahead);
    const auto bytes = a.columns * static_cast<std::ptrdiff_t>(sizeof(S));
    // Rows need not begin with a line: the last byte may lie one further.
    for (std::ptrdiff_t byte = 0; byte < bytes; byte += 64) prefetch(next, byte);
    prefetch(next, bytes - 1);
  }
};

/// `Registers` registers of a bag's mean, from column c on.
template <class Arch, int Registers, class S>
PARE_ALWAYS_INLINE void mean_columns(const Bag<S>& bag, std::ptrdiff_t c, compute_t<S> share,
                                     compute_t<S>* out) noexcept {
  using T = compute_t<S>;
  constexpr std::ptrdiff_t n = lanes<T, Arch>;
  vec<T, Arch> sum[Registers];
  const S* const first = bag.row(bag.begin) + c;
  for (int r = 0; r < Registers; ++r) sum[r] = load_widened<Arch>(first + r * n);
  for (std::ptrdiff_t j = bag.begin + 1; j < bag.end; ++j) {
    const S* const row = bag.row(j) + c;
    for (int r = 0; r < Registers; ++r) sum[r] = sum[r] + load_widened<Arch>(row + r * n);
  }
  if (bag.end - bag.begin > 1)
    for (int r = 0; r < Registers; ++r) sum[r] = sum[r] * broadcast<Arch>(share);
  for (int r = 0; r < Registers; ++r) store<Arch>(out + c + r * n, sum[r]);
}

/// The last columns, fewer than a register has.
template <class Arch, class S>
PARE_ALWAYS_INLINE void mean_last_columns(const Bag<S>& bag, std::ptrdiff_t c, compute_t<S> share,
                                          compute_t<S>* out) noexcept {
  using T = compute_t<S>;
  const std::ptrdiff_t left = bag.a.columns - c;
  vec<T, Arch> sum = load_first<Arch>(bag.row(bag.begin) + c, left, T(0));
  for (std::ptrdiff_t j = bag.begin + 1; j < bag.end; ++j)
    sum = sum + load_first<Arch>(bag.row(j) + c, left, T(0));
  if (bag.end - bag.begin > 1) sum = sum * broadcast<Arch>(share);
  store_first<Arch>(out + c, left, sum);
}

PARE_ABI_END
}  // namespace detail
PARE_ABI_BEGIN

template <class Arch, class S>
void run_kernel(Arch, const MeanBags<S>& a) noexcept {
  using T = compute_t<S>;
  constexpr std::ptrdiff_t n = lanes<T, Arch>;
  const std::ptrdiff_t lines = (a.columns * static_cast<std::ptrdiff_t>(sizeof(S)) + 63) / 64;
  const std::ptrdiff_t wanted = detail::bag_lines_ahead / lines;
  const std::ptrdiff_t ahead = wanted < 4 ? 4 : wanted;
  const auto place = [&](std::ptrdiff_t i) { return a.offsets != nullptr ? a.offsets[i] : i; };
  detail::Bag<S> bag{a, place(0), 0, ahead};
  for (std::ptrdiff_t j = bag.begin - ahead; j < bag.begin; ++j) bag.fetch(j);
  for (std::ptrdiff_t i = 0; i < a.bags; ++i) {
    bag.begin = place(i);
    bag.end = place(i + 1);
    T* const out = a.out + i * a.out_stride;
    if (bag.begin == bag.end) {
      for (std::ptrdiff_t c = 0; c < a.columns; ++c) out[c] = T(0);
      continue;
    }
    for (std::ptrdiff_t j = bag.begin; j < bag.end; ++j) bag.fetch(j);
    const T share = T(1) / static_cast<T>(bag.end - bag.begin);
    std::ptrdiff_t c = 0;
    for (; c + 8 * n <= a.columns; c += 8 * n) detail::mean_columns<Arch, 8>(bag, c, share, out);
    for (; c + 4 * n <= a.columns; c += 4 * n) detail::mean_columns<Arch, 4>(bag, c, share, out);
    for (; c + n <= a.columns; c += n) detail::mean_columns<Arch, 1>(bag, c, share, out);
    if (c < a.columns) detail::mean_last_columns<Arch>(bag, c, share, out);
  }
}

PARE_ABI_END
}  // namespace pare::kernel

#include <pare/core/macros_on.hpp>
