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
/// or L2 a pair bind where a matrix product would reuse registers.

#include <pare/core/macros_off.hpp>

#include <pare/kernel/partial_register.hpp>
#include <pare/kernel/simd.hpp>

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>

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
  const ListedGroup* groups = nullptr;  ///< [count + after]
  std::ptrdiff_t count = 0;
  std::ptrdiff_t after = 0;  ///< groups behind them, of later calls
};

/// Rows of the next window, which are asked for meanwhile, some with each group, into L2.
struct ListedFetch {
  const void* const* rows = nullptr;  ///< [count], null or a row
  std::ptrdiff_t count = 0;
  std::ptrdiff_t bytes = 0;
};

/// Groups whose places and scores are asked for ahead: they come from L2 in no order that a
/// processor guesses. Their rows do; to ask for those too took the place of four loads a group.
inline constexpr std::ptrdiff_t listed_groups_ahead = 6;

namespace detail {
PARE_ABI_BEGIN

/// Places read as one word. A scalar that is loaded takes more than the place of a register: on Zen
/// 5 rows of four registers took 2.0 cycles at known addresses, 3.0 where each address was loaded,
/// 2.5 where four of them were.
inline constexpr std::ptrdiff_t places_together = 4;

PARE_ALWAYS_INLINE std::uint64_t load_places(const std::uint16_t* places) noexcept {
  std::uint64_t word;
  std::memcpy(&word, places, sizeof(word));
  return word;
}
/// Place i of them.
PARE_ALWAYS_INLINE std::ptrdiff_t place_of(std::uint64_t word, std::size_t i) noexcept {
  const std::size_t at = std::endian::native == std::endian::little ? i : 3 - i;
  return static_cast<std::ptrdiff_t>((word >> (16 * at)) & 0xffff);
}

/// What is asked for while the groups of a window are worked on, in step with them.
template <class T>
class ListedAhead {
 public:
  ListedAhead(const ListedWindow<T>& window, const ListedFetch& fetch, const T* scores) noexcept
      : window_(window),
        fetch_(fetch),
        scores_(scores),
        each_((fetch.count + window.count - 1) / std::max<std::ptrdiff_t>(1, window.count)) {}

  /// With group g.
  PARE_TILE_INLINE void advance(std::ptrdiff_t g) noexcept {
    if (g + listed_groups_ahead < window_.count + window_.after) {
      const ListedGroup next = window_.groups[g + listed_groups_ahead];
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
  const T* scores_;
  std::ptrdiff_t each_;
  std::ptrdiff_t fetched_ = 0;
};

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

PARE_ABI_END
}  // namespace pare::kernel

#include <pare/core/macros_on.hpp>
