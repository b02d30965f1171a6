// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Rows and queries of bytes as the elements of their products: bytes in fours where an arch
/// multiplies_bytes, of which rows have no sign (row + 128), and words in pairs elsewhere.

#include <pare/core/macros_off.hpp>

#include <pare/kernel/gemm.hpp>
#include <pare/kernel/pack.hpp>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>

namespace pare::kernel {
PARE_ABI_BEGIN

/// Integers that a row of `depth` bytes takes once it is widened, in whole registers of any arch.
constexpr std::ptrdiff_t int8_row_words(std::ptrdiff_t depth) noexcept {
  return (depth + 31) / 32 * 16;
}

PARE_ABI_END

/// Where queries run: along the lanes of a register, or along the depth for SelectFewInt8Dots.
enum class Int8Order : unsigned char { Lanes, Depth };

/// Queries for the kernels of int8_dots.hpp. Cost: a pass over them, number by number.
struct PackInt8Queries {
  const std::int8_t* codes = nullptr;  ///< [columns x depth]
  std::ptrdiff_t columns = 0;
  std::ptrdiff_t depth = 0;
  std::int32_t* packed = nullptr;   ///< [columns + 64 x int8_row_words(depth)], written
  std::int32_t* offsets = nullptr;  ///< [columns rounded up to cache lines], written
  Int8Order order = Int8Order::Lanes;
};

namespace detail {
PARE_ABI_BEGIN

/// What bytes are multiplied as.
template <class Arch>
using int8_element = std::conditional_t<multiplies_bytes<Arch>, ByteQuad, WordPair>;
template <class Arch>
inline constexpr std::ptrdiff_t int8_each = product<int8_element<Arch>>::depth;

/// Integers of a row in whole registers.
template <class Arch>
constexpr std::ptrdiff_t int8_words(std::ptrdiff_t depth) noexcept {
  constexpr std::ptrdiff_t n = lanes<std::int32_t, Arch>, bytes = n * int8_each<Arch>;
  return (depth + bytes - 1) / bytes * n;
}

/// A register of elements with sign, and of the first `count` bytes alone with zeros behind them.
template <class Arch>
PARE_ALWAYS_INLINE vec<std::int32_t, Arch> load_int8(const std::int8_t* p) noexcept {
  if constexpr (multiplies_bytes<Arch>)
    return load<Arch>(reinterpret_cast<const std::int32_t*>(p));
  else
    return load_byte_pairs<Arch>(p);
}
template <class Arch>
PARE_ALWAYS_INLINE vec<std::int32_t, Arch> load_first_int8(const std::int8_t* p,
                                                           std::ptrdiff_t count) noexcept {
  if constexpr (multiplies_bytes<Arch>) {
    return load_first_bytes<Arch>(p, count);
  } else {
    std::int8_t first[static_cast<std::size_t>(lanes<std::int32_t, Arch> * int8_each<Arch>)] = {};
    std::memcpy(first, p, static_cast<std::size_t>(count));
    return load_byte_pairs<Arch>(static_cast<const std::int8_t*>(first));
  }
}

/// Elements of a row, without sign where an arch wants that.
template <class Arch>
PARE_ALWAYS_INLINE vec<std::int32_t, Arch> row_elements(vec<std::int32_t, Arch> v) noexcept {
  if constexpr (multiplies_bytes<Arch>)
    return v ^ broadcast<Arch>(static_cast<std::int32_t>(0x80808080u));
  else
    return v;
}

/// use(word, elements) for each register of a row or a query, the last with zeros behind it.
template <class Arch, class Use>
PARE_ALWAYS_INLINE void each_int8_register(const std::int8_t* row, std::ptrdiff_t depth,
                                           const Use& use) noexcept {
  constexpr std::ptrdiff_t n = lanes<std::int32_t, Arch>, bytes = n * int8_each<Arch>;
  std::ptrdiff_t c = 0, word = 0;
  for (; c + bytes <= depth; c += bytes, word += n) use(word, load_int8<Arch>(row + c));
  if (c < depth) use(word, load_first_int8<Arch>(row + c, depth - c));
}

template <class Arch>
void widen_int8_rows(const std::int8_t* rows, std::ptrdiff_t row_stride, std::ptrdiff_t count,
                     std::ptrdiff_t depth, std::int32_t* widened) noexcept {
  for (std::ptrdiff_t r = 0; r < count; ++r) {
    each_int8_register<Arch>(
        rows + r * row_stride, depth,
        [widened](std::ptrdiff_t word, vec<std::int32_t, Arch> elements)
            PARE_LAMBDA_INLINE { store<Arch>(widened + word, row_elements<Arch>(elements)); });
    widened += int8_words<Arch>(depth);
  }
}

/// Elements of a query, int8_words of them; what is taken off its products is returned.
template <class Arch>
std::int32_t widen_int8_query(const std::int8_t* query, std::ptrdiff_t depth,
                              std::int32_t* widened) noexcept {
  each_int8_register<Arch>(query, depth,
                           [widened](std::ptrdiff_t word, vec<std::int32_t, Arch> elements)
                               PARE_LAMBDA_INLINE { store<Arch>(widened + word, elements); });
  std::int32_t sum = 0;
  if constexpr (multiplies_bytes<Arch>)
    for (std::ptrdiff_t c = 0; c < depth; ++c) sum += query[c];
  return -128 * sum;
}

PARE_ABI_END
}  // namespace detail
PARE_ABI_BEGIN

template <class Arch>
void run_kernel(Arch, const PackInt8Queries& a) noexcept {
  using E = detail::int8_element<Arch>;
  constexpr std::ptrdiff_t n = lanes<std::int32_t, Arch>;
  constexpr std::ptrdiff_t width = lane_columns<std::int32_t, Arch>;
  const std::ptrdiff_t words = detail::int8_words<Arch>(a.depth), steps = steps_of<E>(a.depth);
  const std::ptrdiff_t padded = (a.columns + n - 1) / n * n;
  for (std::ptrdiff_t i = 0; i < padded_columns<std::int32_t>(a.columns); ++i) a.offsets[i] = 0;
  if (a.order == Int8Order::Depth) {
    for (std::ptrdiff_t i = 0; i < a.columns; ++i)
      a.offsets[i] =
          detail::widen_int8_query<Arch>(a.codes + i * a.depth, a.depth, a.packed + i * words);
    return;
  }
  for (std::ptrdiff_t i = 0; i < padded * steps; ++i) a.packed[i] = 0;
  std::int32_t* const row = a.packed + padded * words;  // behind the panels
  for (std::ptrdiff_t i = 0; i < a.columns; ++i) {
    const std::ptrdiff_t begin = i / width * width;
    const std::ptrdiff_t panel = padded - begin < width ? padded - begin : width;
    a.offsets[i] = detail::widen_int8_query<Arch>(a.codes + i * a.depth, a.depth, row);
    for (std::ptrdiff_t s = 0; s < steps; ++s)
      a.packed[begin * steps + s * panel + (i - begin)] = row[s];
  }
}

PARE_ABI_END
}  // namespace pare::kernel

#include <pare/core/macros_on.hpp>
