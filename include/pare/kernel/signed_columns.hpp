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
  std::ptrdiff_t nonzeros = 0;  ///< of each column, whose start is not read then; 0: of any number
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

/// Columns count from a.first: one below it wraps to a number beyond all others.
template <class T, class I, class Entry>
PARE_ALWAYS_INLINE std::uint64_t list_of(const AddSignedColumns<T, I, Entry>& a,
                                         std::ptrdiff_t i) noexcept {
  return static_cast<std::uint64_t>(static_cast<std::ptrdiff_t>(a.columns[i]) - a.first);
}

/// The first entry of a list.
template <bool Alike, class T, class I, class Entry>
PARE_ALWAYS_INLINE const Entry* list_begin(const AddSignedColumns<T, I, Entry>& a,
                                           std::uint64_t list) noexcept {
  const SignedLists<Entry>& lists = a.lists[list / columns_per_list];
  const std::uint64_t column = list % columns_per_list;
  return lists.entry +
         (Alike ? column * static_cast<std::uint64_t>(a.nonzeros) : lists.start[column]);
}

/// Fetches the place of a list, and a list whose place has come, for columns ahead of the i-th.
template <bool Alike, class T, class I, class Entry>
PARE_ALWAYS_INLINE void fetch_lists(const AddSignedColumns<T, I, Entry>& a,
                                    std::ptrdiff_t i) noexcept {
  const auto width = static_cast<std::uint64_t>(a.last - a.first);
  if (i + list_ahead >= a.readable) return;
  const std::uint64_t next = list_of(a, i + list_ahead);
  if (next < width) prefetch(list_begin<Alike>(a, next));
  if (Alike || i + list_place_ahead >= a.readable) return;
  const std::uint64_t later = list_of(a, i + list_place_ahead);
  if (later < width) prefetch(a.lists[later / columns_per_list].start + later % columns_per_list);
}

/// All columns, which have as many nonzeros each if they are `Alike`.
template <bool Alike, class T, class I, class Entry>
PARE_ALWAYS_INLINE void add_columns(const AddSignedColumns<T, I, Entry>& a) noexcept {
  for (std::ptrdiff_t i = 0; i < a.count; ++i) {
    fetch_lists<Alike>(a, i);
    const std::uint64_t list = list_of(a, i);
    const Entry* entry = list_begin<Alike>(a, list);
    const Entry* const end =
        Alike ? entry + a.nonzeros
              : a.lists[list / columns_per_list].entry +
                    a.lists[list / columns_per_list].start[list % columns_per_list + 1];
    const T value = a.values[i];
    if (end - entry < 8) {
      add_short_list(entry, end - entry, value, a.sums);
      continue;
    }
    for (; end - entry >= 8; entry += 8) add_signed<8>(entry, value, a.sums);
    for (; entry != end; ++entry) a.sums[*entry & row_bits<Entry>] += signed_value(value, *entry);
  }
}

PARE_ABI_END
}  // namespace detail
PARE_ABI_BEGIN

template <class Arch, class T, class I, class Entry>
void run_kernel(Arch, const AddSignedColumns<T, I, Entry>& a) noexcept {
  if (a.nonzeros > 0)
    detail::add_columns<true>(a);
  else
    detail::add_columns<false>(a);
}
PARE_ABI_END

}  // namespace pare::kernel

#include <pare/core/macros_on.hpp>
