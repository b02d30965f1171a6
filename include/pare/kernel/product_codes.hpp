// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Product quantisation with 16 codewords in each sub-space: codes of rows, and the keys whose
/// codes agree most with those of a query.
///
/// For each sub-space and code a bitmap says which keys have it. How often a query's codes agree
/// with a key's is then a sum of bits, taken for all keys of a register at once as binary digits in
/// planes (M sub-spaces: some M log2 M operations for 512 keys), and the largest counts are chosen
/// digit by digit, the highest first, by population counts: no count is ever a number.

#include <pare/core/macros_off.hpp>

#include <pare/kernel/math.hpp>
#include <pare/kernel/simd.hpp>

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <utility>

namespace pare::kernel {

/// Codewords of a sub-space.
inline constexpr std::ptrdiff_t product_codewords = 16;

/// Digits of a count of agreeing codes: up to 255 sub-spaces.
inline constexpr int most_code_planes = 8;

/// code_ms = argmin_w |x_ms - word_sw|_1 for rows m, sub-spaces s; of equal distances the first. A
/// row with a NaN has the code 0 in its sub-space.
///
/// Rows are the lanes of registers. Cost: 3 operations for each scalar of a row and codeword.
template <ComputeScalar T>
struct EncodeRows {
  const T* x = nullptr;      ///< [subspaces * width x lanes]: row m is lane m
  const T* words = nullptr;  ///< [subspaces x 16 x width]
  std::ptrdiff_t subspaces = 0;
  std::ptrdiff_t width = 0;
  std::ptrdiff_t rows = 0;        ///< at most 16; x has 16 lanes
  std::uint8_t* codes = nullptr;  ///< [rows x subspaces]
};

/// Lanes of EncodeRows, of any arch.
inline constexpr std::ptrdiff_t encoded_rows = 16;

/// The `wanted` of keys [0, visible) whose codes agree most with those of a query, of equal counts
/// those with the highest numbers, ascending.
struct SelectByCodes {
  const std::uint64_t* const* bitmaps = nullptr;  ///< [subspaces] keys that have the query's code
  std::ptrdiff_t subspaces = 0;                   ///< at most 255
  std::ptrdiff_t visible = 0;
  std::ptrdiff_t wanted = 0;        ///< below visible
  std::uint64_t* planes = nullptr;  ///< [(most_code_planes + 2) x code_words(visible)]
  std::int32_t* keys = nullptr;     ///< [wanted + code_room]
};

/// 64-bit words of a bitmap, in whole registers of any arch.
constexpr std::ptrdiff_t code_words(std::ptrdiff_t keys) noexcept { return (keys + 511) / 512 * 8; }

/// Keys behind those wanted that are written too.
inline constexpr std::ptrdiff_t code_room = 16;

namespace detail {
PARE_ABI_BEGIN

/// How often the codes of each key agree, in `Planes` binary digits. One bit after the other is
/// added, and carried through all digits: they stay in registers.
template <class Arch, int Planes>
void count_codes(const SelectByCodes& a, std::ptrdiff_t words) noexcept {
  using V = vec<std::uint64_t, Arch>;
  constexpr std::ptrdiff_t n = lanes<std::uint64_t, Arch>;
  for (std::ptrdiff_t w = 0; w < words; w += n) {
    V digit[Planes];
    for (V& d : digit) d = broadcast<Arch>(std::uint64_t{0});
    for (std::ptrdiff_t s = 0; s < a.subspaces; ++s) {
      V carry = load<Arch>(a.bitmaps[s] + w);
      [&]<std::size_t... P>(std::index_sequence<P...>) PARE_LAMBDA_INLINE {
        const auto add = [&](V& d) PARE_LAMBDA_INLINE {
          const V both = d & carry;
          d = d ^ carry;
          carry = both;
        };
        (add(digit[P]), ...);
      }(std::make_index_sequence<static_cast<std::size_t>(Planes)>{});
    }
    for (int p = 0; p < Planes; ++p) store<Arch>(a.planes + p * words + w, digit[p]);
  }
}

/// The same of as many digits as `planes` says.
template <class Arch, int Planes = most_code_planes>
void count_codes_in(int planes, const SelectByCodes& a, std::ptrdiff_t words) noexcept {
  if constexpr (Planes > 1)
    if (planes < Planes) return count_codes_in<Arch, Planes - 1>(planes, a, words);
  count_codes<Arch, Planes>(a, words);
}

inline std::ptrdiff_t count_common(const std::uint64_t* x, const std::uint64_t* y,
                                   std::ptrdiff_t words) noexcept {
  std::ptrdiff_t count = 0;
  for (std::ptrdiff_t w = 0; w < words; ++w) count += std::popcount(x[w] & y[w]);
  return count;
}

/// Of `from`, the `wanted` keys with the highest numbers go to `chosen`.
inline void choose_last(const std::uint64_t* from, std::ptrdiff_t words, std::ptrdiff_t wanted,
                        std::uint64_t* chosen) noexcept {
  for (std::ptrdiff_t w = words - 1; w >= 0 && wanted > 0; --w) {
    std::uint64_t bits = from[w];
    for (std::ptrdiff_t more = std::popcount(bits) - wanted; more > 0; --more) bits &= bits - 1;
    chosen[w] |= bits;
    wanted -= std::popcount(bits);
  }
}

PARE_ABI_END
}  // namespace detail
PARE_ABI_BEGIN

template <class Arch, class T>
void run_kernel(Arch, const EncodeRows<T>& a) noexcept {
  using V = vec<T, Arch>;
  constexpr std::ptrdiff_t n = lanes<T, Arch>;
  for (std::ptrdiff_t first = 0; first < a.rows; first += n)
    for (std::ptrdiff_t s = 0; s < a.subspaces; ++s) {
      const T* const x = a.x + s * a.width * encoded_rows + first;
      const T* word = a.words + s * product_codewords * a.width;
      V nearest = broadcast<Arch>(-std::numeric_limits<T>::infinity());
      V code = broadcast<Arch>(T(0));
      for (std::ptrdiff_t w = 0; w < product_codewords; ++w, word += a.width) {
        V closeness = broadcast<Arch>(T(0));
        for (std::ptrdiff_t c = 0; c < a.width; ++c)
          closeness = closeness + minus_magnitude<Arch>(load<Arch>(x + c * encoded_rows) -
                                                        broadcast<Arch>(word[c]));
        const V behind = nearest - closeness;
        code = select_negative<Arch>(behind, broadcast<Arch>(static_cast<T>(w)), code);
        nearest = select_negative<Arch>(behind, closeness, nearest);
      }
      T found[static_cast<std::size_t>(n)];
      store<Arch>(static_cast<T*>(found), code);
      for (std::ptrdiff_t i = 0; i < n && first + i < a.rows; ++i)
        a.codes[(first + i) * a.subspaces + s] = static_cast<std::uint8_t>(found[i]);
    }
}

template <class Arch>
void run_kernel(Arch, const SelectByCodes& a) noexcept {
  const std::ptrdiff_t words = code_words(a.visible);
  const int planes = static_cast<int>(std::bit_width(static_cast<std::uint64_t>(a.subspaces)));
  std::uint64_t* const left = a.planes + most_code_planes * words;
  std::uint64_t* const chosen = left + words;
  detail::count_codes_in<Arch>(planes, a, words);
  const std::ptrdiff_t whole = a.visible / 64;
  std::fill_n(left, whole, ~std::uint64_t{0});
  std::fill(left + whole, left + words, std::uint64_t{0});
  if (a.visible % 64 != 0) left[whole] = (std::uint64_t{1} << (a.visible % 64)) - 1;
  std::fill_n(chosen, words, std::uint64_t{0});
  std::ptrdiff_t wanted = a.wanted;
  for (int p = planes - 1; p >= 0; --p) {
    const std::uint64_t* const digit = a.planes + p * words;
    const std::ptrdiff_t larger = detail::count_common(left, digit, words);
    if (larger >= wanted) {
      for (std::ptrdiff_t w = 0; w < words; ++w) left[w] &= digit[w];
      continue;
    }
    wanted -= larger;
    for (std::ptrdiff_t w = 0; w < words; ++w) {
      chosen[w] |= left[w] & digit[w];
      left[w] &= ~digit[w];
    }
  }
  detail::choose_last(left, words, wanted, chosen);
  std::int32_t* keys = a.keys;
  for (std::ptrdiff_t w = 0; w < words; ++w)
    keys = list_bits<Arch>(chosen[w], static_cast<std::int32_t>(64 * w), keys);
}

PARE_ABI_END
}  // namespace pare::kernel

#include <pare/core/macros_on.hpp>
