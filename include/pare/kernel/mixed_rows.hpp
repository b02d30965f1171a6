// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Sparse times a matrix whose rows are mostly zeros: a row with few nonzeros is a list of them,
/// another all of its elements.

#include <pare/core/macros_off.hpp>

#include <pare/kernel/simd.hpp>

#include <bit>
#include <cstddef>
#include <cstdint>
#include <type_traits>

namespace pare::kernel {

/// Rows of a matrix in words of its scalar. Row v has those from start[v] to start[v + 1], a row of
/// zeros may have none. The first, as bits, is the number of nonzeros that follow, each a value and
/// the bits of its column; or `whole_row`, and all elements follow.
template <ComputeScalar T>
struct MixedRows {
  const std::int64_t* start = nullptr;  ///< [rows + 1]
  const T* words = nullptr;
  std::ptrdiff_t columns = 0;
};

/// The word that says of a row that all of its elements follow.
inline constexpr std::uint32_t whole_row = 0xffffffffu;

PARE_ABI_BEGIN

/// Nonzeros of the longest list. An addition to a scalar takes about as long as a cache line of a
/// whole row takes from DRAM, and half of a line of 16 floats: beyond an eighth the row is better.
constexpr std::int64_t longest_list(std::ptrdiff_t columns) noexcept { return columns / 8; }

/// Words that hold a row of at most so many nonzeros.
constexpr std::int64_t mixed_row_words(std::int64_t nonzeros, std::ptrdiff_t columns) noexcept {
  if (nonzeros == 0) return 0;
  return 1 + (nonzeros <= longest_list(columns) ? 2 * nonzeros : columns);
}

/// The most nonzeros that so many words hold.
constexpr std::int64_t mixed_row_nonzeros(std::int64_t words, std::ptrdiff_t columns) noexcept {
  return words <= 1 ? 0 : words == 1 + columns ? columns : (words - 1) / 2;
}

template <class T>
using word_bits = std::conditional_t<sizeof(T) == 8, std::uint64_t, std::uint32_t>;

/// A number as the bits of a word, and back.
template <class T>
PARE_ALWAYS_INLINE T to_word(std::uint32_t number) noexcept {
  return std::bit_cast<T>(static_cast<word_bits<T>>(number));
}
template <class T>
PARE_ALWAYS_INLINE std::uint32_t from_word(T word) noexcept {
  return static_cast<std::uint32_t>(std::bit_cast<word_bits<T>>(word));
}

PARE_ABI_END

/// out[u - first] = row_scale[u - first] * sum over entries e of row u of values[e] * row inner[e],
/// as SpmmRows, for rows that are mixed.
///
/// Cost: an addition to a scalar in L1 for each nonzero that an entry meets, .3 to .7 ns, and what
/// a row's place and its words take to arrive, which are prefetched.
template <ComputeScalar T, class I>
struct SpmmMixedRows {
  const I* outer = nullptr;          ///< offsets of rows
  const I* line_nonzeros = nullptr;  ///< entries of each row; null: up to the next offset
  const I* inner = nullptr;
  const T* values = nullptr;     ///< null: all entries are 1
  const T* row_scale = nullptr;  ///< [last - first]; null: all are 1
  MixedRows<T> rows;
  T* out = nullptr;  ///< row `first`
  std::ptrdiff_t out_stride = 0;
  std::ptrdiff_t first = 0;
  std::ptrdiff_t last = 0;
};

/// Writes dense rows as mixed ones, from start[0] to start[rows]: `mixed_row_words` of no fewer
/// nonzeros than a row has. Zeros of either sign are dropped from lists.
template <ComputeScalar T>
struct PackMixedRows {
  const T* dense = nullptr;  ///< [rows x columns], rows contiguous
  std::ptrdiff_t dense_stride = 0;
  std::ptrdiff_t rows = 0;
  std::ptrdiff_t columns = 0;
  const std::int64_t* start = nullptr;  ///< [rows + 1]
  T* words = nullptr;
};

namespace detail {
PARE_ABI_BEGIN

/// Rows ahead whose place, and then the row itself, is fetched: as for lists of signs.
inline constexpr std::ptrdiff_t mixed_place_ahead = 32;
inline constexpr std::ptrdiff_t mixed_row_ahead = 16;

/// sums += value * row v.
template <class Arch, class T>
PARE_ALWAYS_INLINE void add_mixed_row(const MixedRows<T>& m, std::ptrdiff_t v, T value,
                                      T* sums) noexcept {
  if (m.start[v] == m.start[v + 1]) return;
  const T* word = m.words + m.start[v];
  const std::uint32_t count = from_word(*word++);
  if (count != whole_row) {
    for (const T* const end = word + 2 * std::ptrdiff_t{count}; word != end; word += 2) {
      T& sum = sums[from_word(word[1])];
      sum = multiply_add<arch::scalar>(value, word[0], sum);
    }
    return;
  }
  constexpr std::ptrdiff_t n = lanes<T, Arch>;
  const vec<T, Arch> factor = broadcast<Arch>(value);
  std::ptrdiff_t c = 0;
  for (; c + n <= m.columns; c += n)
    store<Arch>(sums + c, multiply_add<Arch>(factor, load<Arch>(word + c),
                                             load<Arch>(static_cast<const T*>(sums) + c)));
  for (; c < m.columns; ++c) sums[c] = multiply_add<arch::scalar>(value, word[c], sums[c]);
}

/// What the entries to come of row `e` will read, as far as `readable`.
template <class T, class I>
PARE_ALWAYS_INLINE void fetch_mixed_rows(const SpmmMixedRows<T, I>& a, std::ptrdiff_t e,
                                         std::ptrdiff_t readable) noexcept {
  constexpr std::ptrdiff_t line = 64 / static_cast<std::ptrdiff_t>(sizeof(T));
  if (e + mixed_place_ahead < readable) prefetch(a.rows.start + a.inner[e + mixed_place_ahead]);
  if (e + mixed_row_ahead >= readable) return;
  const std::int64_t* place = a.rows.start + a.inner[e + mixed_row_ahead];
  for (std::int64_t word = place[0]; word < place[1]; word += line) prefetch(a.rows.words + word);
}

PARE_ABI_END
}  // namespace detail
PARE_ABI_BEGIN

template <class Arch, class T, class I>
void run_kernel(Arch, const SpmmMixedRows<T, I>& a) noexcept {
  const bool gapless = a.line_nonzeros == nullptr;
  const std::ptrdiff_t columns = a.rows.columns;
  for (std::ptrdiff_t u = a.first; u < a.last; ++u) {
    T* out = a.out + (u - a.first) * a.out_stride;
    for (std::ptrdiff_t c = 0; c < columns; ++c) out[c] = T(0);
    const auto begin = static_cast<std::ptrdiff_t>(a.outer[u]);
    const auto end = gapless ? static_cast<std::ptrdiff_t>(a.outer[u + 1])
                             : begin + static_cast<std::ptrdiff_t>(a.line_nonzeros[u]);
    const auto readable = gapless ? static_cast<std::ptrdiff_t>(a.outer[a.last]) : end;
    for (std::ptrdiff_t e = begin; e < end; ++e) {
      detail::fetch_mixed_rows(a, e, readable);
      detail::add_mixed_row<Arch>(a.rows, static_cast<std::ptrdiff_t>(a.inner[e]),
                                  a.values != nullptr ? a.values[e] : T(1), out);
    }
    if (a.row_scale != nullptr)
      for (std::ptrdiff_t c = 0; c < columns; ++c) out[c] *= a.row_scale[u - a.first];
  }
}

template <class Arch, class T>
void run_kernel(Arch, const PackMixedRows<T>& a) noexcept {
  for (std::ptrdiff_t u = 0; u < a.rows; ++u) {
    if (a.start[u] == a.start[u + 1]) continue;
    const T* row = a.dense + u * a.dense_stride;
    T* const words = a.words + a.start[u];
    const std::int64_t longest = longest_list(a.columns);
    constexpr std::ptrdiff_t n = lanes<T, Arch>;
    std::int64_t count = 0;
    std::ptrdiff_t c = 0;
    for (; c + n <= a.columns && count <= longest; c += n) {
      std::uint32_t mask = nonzero_lanes<Arch>(load<Arch>(row + c));
      count += std::popcount(mask);
      if (count > longest) break;
      for (T* word = words + 1 + 2 * (count - std::popcount(mask)); mask != 0; mask &= mask - 1) {
        const auto column = c + std::countr_zero(mask);
        *word++ = row[column];
        *word++ = to_word<T>(static_cast<std::uint32_t>(column));
      }
    }
    for (; c < a.columns && count <= longest; ++c) {
      if (row[c] == T(0)) continue;
      if (++count > longest) break;
      words[2 * count - 1] = row[c];
      words[2 * count] = to_word<T>(static_cast<std::uint32_t>(c));
    }
    words[0] = to_word<T>(count <= longest ? static_cast<std::uint32_t>(count) : whole_row);
    if (count > longest)
      for (c = 0; c < a.columns; ++c) words[1 + c] = row[c];
  }
}

PARE_ABI_END

}  // namespace pare::kernel

#include <pare/core/macros_on.hpp>
