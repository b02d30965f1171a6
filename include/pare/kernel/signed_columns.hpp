// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Sums of sparse columns of signs, each times a value: a sparse row times a sparse matrix of 0, +1
/// and -1 that is stored by columns.

#include <pare/core/macros_off.hpp>

#include <pare/kernel/simd.hpp>

#include <bit>
#include <cstddef>
#include <cstdint>
#include <type_traits>

namespace pare::kernel {

/// Columns whose lists stand behind each other.
inline constexpr std::ptrdiff_t columns_per_list = 1024;

/// Up to columns_per_list columns of signs. Column c has entries [start[c], start[c + 1]): the row,
/// and in the highest bit whether it is negative.
template <class Entry>
struct SignedLists {
  const std::uint32_t* start = nullptr;  ///< [columns + 1]
  const Entry* entry = nullptr;          ///< and two more, of any row, which are read but not added
};

/// sums[row] += or -= values[i] for each entry of column columns[i], i in [0, count), in order. A
/// column names no row twice; all columns are in [first, last). Entry is std::uint16_t or
/// std::uint32_t.
///
/// Cost: an addition to a scalar in L1 for each entry, 0.6 to 0.8 ns, and a list for each
/// column, which lie apart: those to come are prefetched. Measured on Zen 5: a gather and a scatter
/// of eight rows take a third longer than eight additions.
template <ComputeScalar T, class I, class Entry>
struct AddSignedColumns {
  const I* columns = nullptr;
  const T* values = nullptr;
  std::ptrdiff_t count = 0;
  std::ptrdiff_t readable = 0;  ///< of `columns`, at least count: what is worth a prefetch
  const SignedLists<Entry>* lists = nullptr;  ///< from column `first` on
  std::ptrdiff_t first = 0;
  std::ptrdiff_t last = 0;
  T* sums = nullptr;
};

namespace detail {
PARE_ABI_BEGIN

/// Columns ahead whose list's place, and then the list itself, is fetched: about the latency of L3.
inline constexpr std::ptrdiff_t list_place_ahead = 32;
inline constexpr std::ptrdiff_t list_ahead = 16;

template <class Entry>
inline constexpr int sign_bit = 8 * static_cast<int>(sizeof(Entry)) - 1;

/// value, or -value if the entry is negative.
template <class T, class Entry>
PARE_ALWAYS_INLINE T signed_value(T value, Entry entry) noexcept {
  using Bits = std::conditional_t<sizeof(T) == 8, std::uint64_t, std::uint32_t>;
  constexpr int top = 8 * static_cast<int>(sizeof(T)) - 1;
  const Bits sign = static_cast<Bits>(entry >> sign_bit<Entry>) << top;
  return std::bit_cast<T>(std::bit_cast<Bits>(value) ^ sign);
}

template <class Entry>
inline constexpr auto row_bits = static_cast<Entry>((std::uint64_t{1} << sign_bit<Entry>)-1);

/// `n` entries. The signs are set in one register: compilers do it one by one where they see the
/// additions, which must follow each other.
template <int n, class T, class Entry>
PARE_ALWAYS_INLINE void add_signed(const Entry* entry, T value, T* sums) noexcept {
  using Bits = std::conditional_t<sizeof(T) == 8, std::uint64_t, std::uint32_t>;
  typedef Bits BitVector __attribute__((vector_size(n * sizeof(Bits))));
  typedef Entry EntryVector __attribute__((vector_size(n * sizeof(Entry))));
  constexpr int to_top = 8 * static_cast<int>(sizeof(T)) - 1 - sign_bit<Entry>;
  constexpr Bits top = Bits{1} << (8 * static_cast<int>(sizeof(T)) - 1);
  EntryVector entries;
  __builtin_memcpy(&entries, entry, sizeof(entries));
  BitVector bits = __builtin_convertvector(entries, BitVector);
  bits = (bits << to_top & top) ^ std::bit_cast<Bits>(value);
  T addend[n];
  __builtin_memcpy(addend, &bits, sizeof(bits));
  for (int i = 0; i < n; ++i) sums[entry[i] & row_bits<Entry>] += addend[i];
}

/// A list of `count` entries, of which the first two are added without asking whether there are so
/// many: 0 is in place of those that are not. Where columns have an entry or none, in no order, the
/// branch would be wrong at every third of them, and take as long as five additions.
template <class T, class Entry>
PARE_ALWAYS_INLINE void add_short_list(const Entry* entry, std::ptrdiff_t count, T value,
                                       T* sums) noexcept {
  using Bits = std::conditional_t<sizeof(T) == 8, std::uint64_t, std::uint32_t>;
  for (std::ptrdiff_t i = 0; i < 2; ++i) {
    const Bits kept = Bits{0} - static_cast<Bits>(i < count);
    const Bits bits = std::bit_cast<Bits>(signed_value(value, entry[i])) & kept;
    sums[entry[i] & row_bits<Entry>] += std::bit_cast<T>(bits);
  }
  for (std::ptrdiff_t i = 2; i < count; ++i)
    sums[entry[i] & row_bits<Entry>] += signed_value(value, entry[i]);
}

template <class T, class I, class Entry>
PARE_ALWAYS_INLINE void fetch_lists(const AddSignedColumns<T, I, Entry>& a,
                                    std::ptrdiff_t i) noexcept {
  const auto at = [&](std::ptrdiff_t ahead) {
    return i + ahead < a.readable ? static_cast<std::ptrdiff_t>(a.columns[i + ahead]) : a.last;
  };
  const auto start_of = [&](std::ptrdiff_t column) {
    return a.lists[(column - a.first) / columns_per_list].start +
           (column - a.first) % columns_per_list;
  };
  const std::ptrdiff_t later = at(list_place_ahead), next = at(list_ahead);
  if (later >= a.first && later < a.last) prefetch(start_of(later));
  if (next >= a.first && next < a.last)
    prefetch(a.lists[(next - a.first) / columns_per_list].entry + *start_of(next));
}

PARE_ABI_END
}  // namespace detail
PARE_ABI_BEGIN

template <class Arch, class T, class I, class Entry>
void run_kernel(Arch, const AddSignedColumns<T, I, Entry>& a) noexcept {
  for (std::ptrdiff_t i = 0; i < a.count; ++i) {
    detail::fetch_lists(a, i);
    const auto column =
        static_cast<std::size_t>(static_cast<std::ptrdiff_t>(a.columns[i]) - a.first);
    const SignedLists<Entry>& lists = a.lists[column / columns_per_list];
    const std::uint32_t* start = lists.start + column % columns_per_list;
    const Entry *entry = lists.entry + start[0], *end = lists.entry + start[1];
    const T value = a.values[i];
    if (end - entry < 8) {
      detail::add_short_list(entry, end - entry, value, a.sums);
      continue;
    }
    for (; end - entry >= 8; entry += 8) detail::add_signed<8>(entry, value, a.sums);
    for (; entry != end; ++entry)
      a.sums[*entry & detail::row_bits<Entry>] += detail::signed_value(value, *entry);
  }
}
PARE_ABI_END

}  // namespace pare::kernel

#include <pare/core/macros_on.hpp>
