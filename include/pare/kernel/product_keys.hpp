// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// The choice of product keys: the largest scores of each half, and of their sums.
///
/// Scores stand by keys, a column for each row of queries, so that a register holds one key's
/// scores of as many rows (largest_lanes.hpp).

#include <pare/core/macros_off.hpp>

#include <pare/kernel/largest_lanes.hpp>
#include <pare/kernel/simd.hpp>

#include <cstddef>
#include <cstdint>

namespace pare::kernel {

/// The k largest of each column, falling, and the rows that they stand in; of equal ones the lower
/// row first, NaN last.
///
/// Cost: about 9 comparisons of registers for each value, which bind.
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
/// Only pairs (a, b) that at most k - 1 others stand before are looked at, (a + 1) (b + 1) <= k.
template <ComputeScalar T>
struct LargestPairs {
  const T* first = nullptr;   ///< [k x stride], falling
  const T* second = nullptr;  ///< [k x stride], falling
  const std::int32_t* first_places = nullptr;
  const std::int32_t* second_places = nullptr;
  std::ptrdiff_t stride = 0;
  std::ptrdiff_t columns = 0;
  std::ptrdiff_t k = 0;            ///< 1 to most_largest
  std::ptrdiff_t n = 0;            ///< slots are first n + second
  std::ptrdiff_t* ids = nullptr;   ///< [columns x k], ids_stride apart
  T* scores = nullptr;             ///< [columns x k], scores_stride apart
  std::ptrdiff_t ids_stride = 0;
  std::ptrdiff_t scores_stride = 0;
};

namespace detail {
PARE_ABI_BEGIN

template <class Arch, int Room, class T>
void largest_of_columns(const LargestOfColumns<T>& a) noexcept {
  constexpr std::ptrdiff_t n = lanes<T, Arch>;
  for (std::ptrdiff_t c = 0; c < a.columns; c += n) {
    const T* const values = a.values + c;
    const std::ptrdiff_t stride = a.stride;
    largest_lanes<Arch, T, Room>(
        a.count, a.k, a.columns - c < n ? a.columns - c : n,
        [&](std::ptrdiff_t i) PARE_LAMBDA_INLINE {
          return key_of<Arch, T>(load<Arch>(values + i * stride), i);
        },
        [&](std::ptrdiff_t i, std::ptrdiff_t lane)
            PARE_LAMBDA_INLINE { return values[i * stride + lane]; },
        [](std::ptrdiff_t i, std::ptrdiff_t)
            PARE_LAMBDA_INLINE { return static_cast<std::int32_t>(i); },
        LargestOut<T, std::int32_t>{a.best + c, a.places + c, stride, 1});
  }
}

/// The pairs of places in two lists of k, by the first: (a + 1) (b + 1) <= k.
struct PairPlaces {
  PairPlaces(std::ptrdiff_t k, std::ptrdiff_t stride) noexcept {
    for (std::ptrdiff_t a = 0; a < k; ++a)
      for (std::ptrdiff_t b = 0; (a + 1) * (b + 1) <= k; ++b) {
        first[count] = a * stride;
        second[count++] = b * stride;
      }
  }
  static constexpr std::size_t most = 119;  ///< of lists of most_largest

  std::ptrdiff_t count = 0;
  std::ptrdiff_t first[most];
  std::ptrdiff_t second[most];
};

template <class Arch, int Room, class T>
void largest_pairs(const LargestPairs<T>& a) noexcept {
  constexpr std::ptrdiff_t n = lanes<T, Arch>;
  const PairPlaces pairs(a.k, a.stride);
  alignas(64) double sums[static_cast<std::size_t>(Room * n)];
  alignas(64) std::ptrdiff_t slots[static_cast<std::size_t>(Room * n)];
  for (std::ptrdiff_t c = 0; c < a.columns; c += n) {
    const T *const first = a.first + c, *const second = a.second + c;
    const std::int32_t *const rows = a.first_places + c, *const columns = a.second_places + c;
    const std::ptrdiff_t used = a.columns - c < n ? a.columns - c : n;
    largest_lanes<Arch, T, Room>(
        pairs.count, a.k, used,
        [&](std::ptrdiff_t p) PARE_LAMBDA_INLINE {
          return key_of<Arch, T>(
              load<Arch>(first + pairs.first[p]) + load<Arch>(second + pairs.second[p]), p);
        },
        [&](std::ptrdiff_t p, std::ptrdiff_t lane) PARE_LAMBDA_INLINE {
          return static_cast<double>(first[pairs.first[p] + lane]) +
                 static_cast<double>(second[pairs.second[p] + lane]);
        },
        [&](std::ptrdiff_t p, std::ptrdiff_t lane) PARE_LAMBDA_INLINE {
          return rows[pairs.first[p] + lane] * a.n + columns[pairs.second[p] + lane];
        },
        LargestOut<double, std::ptrdiff_t>{static_cast<double*>(sums),
                                           static_cast<std::ptrdiff_t*>(slots), 1, Room});
    for (std::ptrdiff_t l = 0; l < used; ++l)
      for (std::ptrdiff_t s = 0; s < a.k; ++s) {
        a.ids[(c + l) * a.ids_stride + s] = slots[l * Room + s];
        a.scores[(c + l) * a.scores_stride + s] = static_cast<T>(sums[l * Room + s]);
      }
  }
}

PARE_ABI_END
}  // namespace detail
PARE_ABI_BEGIN

template <class Arch, class T>
void run_kernel(Arch, const LargestOfColumns<T>& a) noexcept {
  detail::with_room(a.k, [&](auto room) { detail::largest_of_columns<Arch, decltype(room)::value>(a); });
}

template <class Arch, class T>
void run_kernel(Arch, const LargestPairs<T>& a) noexcept {
  detail::with_room(a.k, [&](auto room) { detail::largest_pairs<Arch, decltype(room)::value>(a); });
}

PARE_ABI_END
}  // namespace pare::kernel

#include <pare/core/macros_on.hpp>
