// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// The choice of product keys: the largest scores of each half, and of their sums.
///
/// Scores stand by keys, a column for each row of queries, so that a register holds one key's
/// scores of as many rows (largest_lanes.hpp).
///
/// Source: Lample et al., "Large memory layers with product keys", arXiv 1907.05242.

#include <pare/core/macros_off.hpp>

#include <pare/kernel/falling_list.hpp>
#include <pare/kernel/largest_lanes.hpp>
#include <pare/kernel/simd.hpp>

#include <cstddef>
#include <cstdint>
#include <type_traits>

namespace pare::kernel {

/// The k largest of each column, falling, and the rows that they stand in; of equal ones the lower
/// row first, NaN last.
///
/// Cost: comparisons of registers bind, each a minimum and a maximum. Of 8 times as many values as
/// `k` rounded up to 8, 16 or 32 and more they are 3.3, 4.9 or 6.9 per value; of fewer, 4.9, 6.9 or
/// 9.5.
template <ComputeScalar T>
struct LargestOfColumns {
  const T* values = nullptr;  ///< [count x stride]
  std::ptrdiff_t count = 0;   ///< at least k, at most most_places
  std::ptrdiff_t stride = 0;  ///< at least the columns rounded up to 64 bytes
  std::ptrdiff_t columns = 0;
  std::ptrdiff_t k = 0;            ///< 1 to most_largest
  T* best = nullptr;               ///< [most_largest x stride], of which k are meant
  std::int32_t* places = nullptr;  ///< likewise
};

/// The k largest sums of two falling lists of each column, in double, and the slots
/// first_place n + second_place of their pairs; of equal sums the lower slot first, NaN last.
///
/// Only the pairs of each_pair are looked at. They have the k best sums of all k^2 pairs where no
/// sum is NaN. A sum of a NaN or of infinities of both signs is, and stands last: the pairs behind
/// it may have sums that are numbers, and are not looked at. Neither are those behind a sum that is
/// equal only by rounding or as an infinity, though their slot may be lower.
template <ComputeScalar T>
struct LargestPairs {
  const T* first = nullptr;   ///< [k x stride], falling
  const T* second = nullptr;  ///< [k x stride], falling
  const std::int32_t* first_places = nullptr;
  const std::int32_t* second_places = nullptr;
  std::ptrdiff_t stride = 0;
  std::ptrdiff_t columns = 0;
  std::ptrdiff_t k = 0;           ///< 1 to most_largest
  std::ptrdiff_t n = 0;           ///< slots are first n + second
  std::ptrdiff_t* ids = nullptr;  ///< [columns x k], ids_stride apart
  T* scores = nullptr;            ///< [columns x k], scores_stride apart
  std::ptrdiff_t ids_stride = 0;
  std::ptrdiff_t scores_stride = 0;
};

PARE_ABI_BEGIN

/// f(a, b) for the places in two falling lists whose pair may be one of the k largest sums, by a:
/// as many as (a + 1) (b + 1) pairs, with itself, are at least as large, so that is at most k.
template <class F>
constexpr void each_pair(std::ptrdiff_t k, const F& f) {
  for (std::ptrdiff_t a = 0; a < k; ++a)
    for (std::ptrdiff_t b = 0; (a + 1) * (b + 1) <= k; ++b) f(a, b);
}

PARE_ABI_END
namespace detail {
PARE_ABI_BEGIN

template <class Arch, int Room, class T>
void largest_of_columns(const LargestOfColumns<T>& a) noexcept {
  constexpr std::ptrdiff_t n = lanes<T, Arch>;
  static_assert(most_places == 512);
  LargestKeys<Arch, T, 9, Room> keys;
  const std::ptrdiff_t found = a.count < Room ? a.count : Room;
  for (std::ptrdiff_t c = 0; c < a.columns; c += n) {
    const T* const values = a.values + c;
    T* const best = a.best + c;
    std::int32_t* const places = a.places + c;
    const std::ptrdiff_t stride = a.stride, used = a.columns - c < n ? a.columns - c : n;
    keys.find(a.count, [&](std::ptrdiff_t i) PARE_LAMBDA_INLINE {
      return key_of<Arch, 9, T>(load<Arch>(values + i * stride), i);
    });
    for (std::ptrdiff_t s = 0; s < found; ++s) {
      if constexpr (std::is_same_v<T, float>) store<Arch>(places + s * stride, keys.places(s));
      for (std::ptrdiff_t l = 0; l < n; ++l) {
        const std::ptrdiff_t place = keys.place(s, l);
        if constexpr (!std::is_same_v<T, float>)
          places[s * stride + l] = static_cast<std::int32_t>(place);
        best[s * stride + l] = values[place * stride + l];
      }
    }
    const std::uint32_t sorted = falling_lanes<Arch>(static_cast<const T*>(best), found, stride);
    for (std::ptrdiff_t l = 0; l < used; ++l) {
      const bool holds = keys.holds(a.k, l);
      if (holds && (sorted >> l & 1) != 0) continue;
      // NaN may stand first or last among integers, by its sign, and NaNs there by their payload
      // rather than their place.
      const bool whole = !holds || is_nan(best[l]) || is_nan(best[(a.k - 1) * stride + l]);
      FallingList<T, std::int32_t> list(a.k, best + l, places + l, stride);
      for (std::ptrdiff_t s = 0; s < found; ++s) {
        const std::ptrdiff_t place = keys.place(s, l);
        list.offer(values[place * stride + l], static_cast<std::int32_t>(place));
      }
      for (std::ptrdiff_t i = 0; whole && i < a.count; ++i)
        list.offer_again(values[i * stride + l], static_cast<std::int32_t>(i));
    }
  }
}

constexpr std::size_t count_pairs(std::ptrdiff_t k) {
  std::size_t count = 0;
  each_pair(k, [&](std::ptrdiff_t, std::ptrdiff_t) { ++count; });
  return count;
}

/// The pairs of each_pair, as elements from the first of a list.
struct PairPlaces {
  PairPlaces(std::ptrdiff_t k, std::ptrdiff_t stride) noexcept {
    each_pair(k, [&](std::ptrdiff_t a, std::ptrdiff_t b) {
      first[count] = a * stride;
      second[count++] = b * stride;
    });
  }
  static constexpr std::size_t most = count_pairs(most_largest);

  std::ptrdiff_t count = 0;
  std::ptrdiff_t first[most];
  std::ptrdiff_t second[most];
};

/// Sums and slots of a register of columns.
template <class Arch, class T>
struct PairsOfColumns {
  const LargestPairs<T>& a;
  const PairPlaces& pairs;
  std::ptrdiff_t column;

  PARE_ALWAYS_INLINE vec<T, Arch> sums(std::ptrdiff_t p) const noexcept {
    return load<Arch>(a.first + column + pairs.first[p]) +
           load<Arch>(a.second + column + pairs.second[p]);
  }
  PARE_ALWAYS_INLINE double sum(std::ptrdiff_t p, std::ptrdiff_t lane) const noexcept {
    return static_cast<double>(a.first[column + lane + pairs.first[p]]) +
           static_cast<double>(a.second[column + lane + pairs.second[p]]);
  }
  /// The sum as it is written. In float, rounding the sum of two floats by way of a double changes
  /// nothing: 53 bits are more than 2 x 24 + 2.
  PARE_ALWAYS_INLINE T score(std::ptrdiff_t p, std::ptrdiff_t lane) const noexcept {
    return a.first[column + lane + pairs.first[p]] + a.second[column + lane + pairs.second[p]];
  }
  PARE_ALWAYS_INLINE std::ptrdiff_t slot(std::ptrdiff_t p, std::ptrdiff_t lane) const noexcept {
    return a.first_places[column + lane + pairs.first[p]] * a.n +
           a.second_places[column + lane + pairs.second[p]];
  }
};

/// Whether numbers fall strictly; of one number: yes.
template <class Arch, class T>
PARE_ALWAYS_INLINE bool falls(const T* x, std::ptrdiff_t count) noexcept {
  constexpr std::ptrdiff_t n = lanes<T, Arch>;
  constexpr std::uint32_t all = static_cast<std::uint32_t>((std::uint64_t{1} << n) - 1);
  std::uint32_t falling = all;
  std::ptrdiff_t i = 0;
  for (; i + n < count; i += n) falling &= falling_lanes<Arch>(x + i, 2, 1);
  bool rest = true;
  for (; i + 1 < count; ++i) rest &= x[i] > x[i + 1];
  return falling == all && rest;
}

template <class Arch, int Room, class T>
void largest_pairs(const LargestPairs<T>& a) noexcept {
  constexpr std::ptrdiff_t n = lanes<T, Arch>;
  const PairPlaces pairs(a.k, a.stride);
  static_assert(PairPlaces::most <= 128);
  LargestKeys<Arch, T, 7, Room> keys;
  // The smaller is the count itself: g++ 12 warns of places beyond the arrays otherwise.
  constexpr auto most = static_cast<std::ptrdiff_t>(PairPlaces::most);
  const std::ptrdiff_t count = pairs.count < most ? pairs.count : most;
  const std::ptrdiff_t found = count < Room ? count : Room, kept = a.k;
  for (std::ptrdiff_t c = 0; c < a.columns; c += n) {
    const PairsOfColumns<Arch, T> at{a, pairs, c};
    keys.find(count, [&](std::ptrdiff_t p)
                         PARE_LAMBDA_INLINE { return key_of<Arch, 7, T>(at.sums(p), p); });
    for (std::ptrdiff_t l = 0; l < n && c + l < a.columns; ++l) {
      std::ptrdiff_t* const ids = a.ids + (c + l) * a.ids_stride;
      T* const scores = a.scores + (c + l) * a.scores_stride;
      for (std::ptrdiff_t s = 0; s < kept; ++s) {
        const std::ptrdiff_t p = keys.place(s, l);
        scores[s] = at.score(p, l);
        ids[s] = at.slot(p, l);
      }
      bool sorted = falls<Arch>(static_cast<const T*>(scores), kept);
      for (std::ptrdiff_t s = kept; s < found; ++s)
        sorted &= scores[a.k - 1] > at.score(keys.place(s, l), l);
      const bool whole = !keys.holds(a.k, l) || is_nan(scores[a.k - 1]) || is_nan(scores[0]);
      if (!whole && sorted) continue;
      double best[static_cast<std::size_t>(Room)];
      FallingList<double, std::ptrdiff_t> list(a.k, static_cast<double*>(best), ids, 1);
      for (std::ptrdiff_t s = 0; s < found; ++s)
        list.offer(at.sum(keys.place(s, l), l), at.slot(keys.place(s, l), l));
      for (std::ptrdiff_t p = 0; whole && p < pairs.count; ++p)
        list.offer_again(at.sum(p, l), at.slot(p, l));
      for (std::ptrdiff_t s = 0; s < a.k; ++s) scores[s] = static_cast<T>(best[s]);
    }
  }
}

PARE_ABI_END
}  // namespace detail
PARE_ABI_BEGIN

template <class Arch, class T>
void run_kernel(Arch, const LargestOfColumns<T>& a) noexcept {
  detail::with_room(a.k,
                    [&](auto room) { detail::largest_of_columns<Arch, decltype(room)::value>(a); });
}

template <class Arch, class T>
void run_kernel(Arch, const LargestPairs<T>& a) noexcept {
  detail::with_room(a.k, [&](auto room) { detail::largest_pairs<Arch, decltype(room)::value>(a); });
}

PARE_ABI_END
}  // namespace pare::kernel

#include <pare/core/macros_on.hpp>
