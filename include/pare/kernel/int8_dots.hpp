// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Exact products of rows of bytes with queries of bytes, for MaxSim and for what reaches a
/// threshold: MaxDots, SelectDots and SelectFewDots of bytes.
///
///     score_ij = (float(sum_c query_ic row_jc) factor_i) scale_j
///
/// The sum is an integer and has no rounding, the same on every arch; each product of the formula
/// is rounded once. Where bytes are multiplied in fours (AVX-512 VNNI), one of two has no sign:
/// rows become row + 128 in L1, and 128 sum_c query_ic is taken off. Elsewhere bytes become words,
/// which are multiplied in pairs, since products of bytes in pairs overflow 16 bits.
///
/// Register budget: that of max_dots.hpp.

#include <pare/core/macros_off.hpp>

#include <pare/kernel/direct_product.hpp>
#include <pare/kernel/max_dots.hpp>
#include <pare/kernel/row_maxima.hpp>
#include <pare/kernel/select_dots.hpp>

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <utility>

namespace pare::kernel {

PARE_ABI_BEGIN

/// Integers that a row of `depth` bytes takes once it is widened, in whole registers of any arch.
constexpr std::ptrdiff_t int8_row_words(std::ptrdiff_t depth) noexcept {
  return (depth + 31) / 32 * 16;
}

PARE_ABI_END

/// Where queries run: along the lanes of a register, or along the depth for SelectFewInt8Dots.
enum class Int8Order : unsigned char { Lanes, Depth };

/// Queries for the kernels below. Cost: a pass over them, number by number.
struct PackInt8Queries {
  const std::int8_t* codes = nullptr;  ///< [columns x depth]
  std::ptrdiff_t columns = 0;
  std::ptrdiff_t depth = 0;
  std::int32_t* packed = nullptr;   ///< [columns + 64 x int8_row_words(depth)], written
  std::int32_t* offsets = nullptr;  ///< [columns rounded up to cache lines], written
  Int8Order order = Int8Order::Lanes;
};

/// Rows and queries of bytes.
struct Int8Operands {
  const std::int32_t* queries = nullptr;  ///< packed in the order that the kernel names
  const std::int32_t* offsets = nullptr;  ///< beside them
  const float* factors = nullptr;         ///< [columns rounded up to cache lines]
  std::ptrdiff_t columns = 0;
  std::ptrdiff_t depth = 0;           ///< at most most_int8_dim of int8_rows.hpp
  const std::int8_t* rows = nullptr;  ///< of row 0
  std::ptrdiff_t row_stride = 0;
  const float* scales = nullptr;  ///< of row 0
};

/// As MaxDots, of Int8Order::Lanes. Cost: rows columns depth multiply-adds of bytes, 4 of which
/// take the time of one of float where they are multiplied in fours, and 2 elsewhere; that binds.
struct MaxInt8Dots {
  Int8Operands operands{};
  std::int32_t* products = nullptr;  ///< [max_dot_rows x padded columns], aligned; scratch
  std::int32_t* widened = nullptr;   ///< [max_dot_rows x int8_row_words(depth)], scratch
  DocumentScores<float> documents{};
};

/// As SelectDots, of Int8Order::Lanes. Cost: as MaxInt8Dots.
struct SelectInt8Dots {
  Int8Operands operands{};
  std::ptrdiff_t count = 0;
  std::uint32_t first = 0;           ///< number of the first row
  std::int32_t* products = nullptr;  ///< [max_dot_rows x padded columns], aligned; scratch
  std::int32_t* widened = nullptr;   ///< [max_dot_rows x int8_row_words(depth)], scratch
  DotLists<float> lists{};
};

/// As SelectFewDots, of Int8Order::Depth. Cost: one read of the rows, which binds.
struct SelectFewInt8Dots {
  Int8Operands operands{};
  std::ptrdiff_t count = 0;
  std::uint32_t first = 0;  ///< number of the first row
  DotLists<float> lists{};
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

/// use(row, count) for tiles of rows [begin, end), behind their products with all queries, which
/// want their offsets still.
template <class Arch, class Use>
PARE_TILE_INLINE void each_tile_of_int8(const Int8Operands& a, std::ptrdiff_t begin,
                                        std::ptrdiff_t end, std::int32_t* products,
                                        std::int32_t* widened, const Use& use) noexcept {
  using E = int8_element<Arch>;
  const std::ptrdiff_t stride = padded_columns<std::int32_t>(a.columns);
  const std::ptrdiff_t words = int8_words<Arch>(a.depth), steps = steps_of<E>(a.depth);
  for (std::ptrdiff_t row = begin; row < end;) {
    const std::ptrdiff_t count = max_dot_group(end - row);
    const std::int8_t* const first = a.rows + row * a.row_stride;
    widen_int8_rows<Arch>(first, a.row_stride, count, a.depth, widened);
    const FetchedLines next{first + 2 * max_dot_rows * a.row_stride, count * a.row_stride / steps};
    multiply_by_queries<Arch>(count, reinterpret_cast<const E*>(widened), words,
                              reinterpret_cast<const E*>(a.queries), a.columns,
                              steps * int8_each<Arch>, products, stride, next);
    use(row, count);
    row += count;
  }
}

/// Scores of a register of columns, from their sums and the scale of a row.
template <class Arch>
struct Int8Scores {
  vec<std::int32_t, Arch> offset;
  vec<float, Arch> factor;

  PARE_ALWAYS_INLINE Int8Scores(const Int8Operands& a, std::ptrdiff_t column) noexcept
      : offset(load<Arch>(a.offsets + column)), factor(load<Arch>(a.factors + column)) {}

  PARE_ALWAYS_INLINE vec<float, Arch> operator()(const std::int32_t* sums,
                                                 float scale) const noexcept {
    return to_floats<Arch>(load<Arch>(sums) + offset) * factor * broadcast<Arch>(scale);
  }
};

/// Lists the rows of a tile for a register of columns. In most no score reaches a threshold, which
/// is asked of four rows at once.
template <class Arch>
PARE_TILE_INLINE void list_int8_column(const SelectInt8Dots& a, std::ptrdiff_t column,
                                       std::ptrdiff_t row, std::ptrdiff_t count,
                                       std::ptrdiff_t stride) noexcept {
  constexpr std::ptrdiff_t n = lanes<float, Arch>;
  const Int8Scores<Arch> scores(a.operands, column);
  const vec<float, Arch> threshold = load<Arch>(a.lists.thresholds + column);
  const auto of = [&](std::ptrdiff_t r) PARE_LAMBDA_INLINE {
    return scores(a.products + r * stride + column, a.operands.scales[row + r]);
  };
  const std::ptrdiff_t left = a.operands.columns - column;
  const std::uint32_t mask = (2u << ((left < n ? left : n) - 1)) - 1;
  for (std::ptrdiff_t r = 0; r < count;) {
    const std::ptrdiff_t end = r + 4 <= count ? r + 4 : r + 1;
    if (end == r + 1 || !all_below(of(r), of(r + 1), of(r + 2), of(r + 3), threshold))
      for (std::ptrdiff_t which = r; which < end; ++which) {
        const vec<float, Arch> these = of(which);
        float x[static_cast<std::size_t>(n)];
        store<Arch>(static_cast<float*>(x), these);
        for (std::uint32_t lanes_left = lanes_not_below<Arch>(these, threshold) & mask;
             lanes_left != 0; lanes_left &= lanes_left - 1)
          append_dot(a.lists, column + std::countr_zero(lanes_left),
                     a.first + static_cast<std::uint32_t>(row + which),
                     x[std::countr_zero(lanes_left)]);
      }
    r = end;
  }
}

/// Bytes from what is multiplied to what is fetched, as few_dots_ahead.
inline constexpr std::ptrdiff_t few_int8_ahead = 8192;

/// The sums of the products of a row and a query, a register of them.
template <class Arch, bool Fetch>
PARE_TILE_INLINE vec<std::int32_t, Arch> sums_of_int8_row(const std::int8_t* row,
                                                          const std::int32_t* query,
                                                          std::ptrdiff_t depth) noexcept {
  vec<std::int32_t, Arch> sum = broadcast<Arch>(std::int32_t{0});
  each_int8_register<Arch>(
      row, depth, [&](std::ptrdiff_t word, vec<std::int32_t, Arch> elements) PARE_LAMBDA_INLINE {
        if constexpr (Fetch) prefetch(row + word * int8_each<Arch>, few_int8_ahead);
        sum = multiply_vectors<Arch, int8_element<Arch>>(row_elements<Arch>(elements),
                                                         load<Arch>(query + word), sum);
      });
  return sum;
}

/// The products of a query with as many rows as a register has lanes, row after row.
template <class Arch, bool Fetch>
PARE_TILE_INLINE vec<std::int32_t, Arch> dots_of_int8_rows(const std::int8_t* rows,
                                                           std::ptrdiff_t stride,
                                                           const std::int32_t* query,
                                                           std::ptrdiff_t depth) noexcept {
  return [&]<std::size_t... R>(std::index_sequence<R...>) PARE_LAMBDA_INLINE {
    const vec<std::int32_t, Arch> sums[] = {sums_of_int8_row<Arch, Fetch>(
        rows + static_cast<std::ptrdiff_t>(R) * stride, query, depth)...};
    return sum_integers_of_each<Arch>(sums);
  }(std::make_index_sequence<static_cast<std::size_t>(lanes<std::int32_t, Arch>)>{});
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

template <class Arch>
void run_kernel(Arch, const MaxInt8Dots& a) noexcept {
  const DocumentScores<float>& d = a.documents;
  const std::ptrdiff_t stride = padded_columns<std::int32_t>(d.columns);
  RowMaxima<Arch, float> maxima(d);
  detail::each_tile_of_int8<Arch>(
      a.operands, d.offsets[0], d.offsets[d.documents], a.products, a.widened,
      [&](std::ptrdiff_t row, std::ptrdiff_t count) PARE_LAMBDA_INLINE {
        maxima.take(count, [&](std::ptrdiff_t r, std::ptrdiff_t column) PARE_LAMBDA_INLINE {
          return detail::Int8Scores<Arch>(a.operands, column)(a.products + r * stride + column,
                                                              a.operands.scales[row + r]);
        });
      });
}

template <class Arch>
void run_kernel(Arch, const SelectInt8Dots& a) noexcept {
  constexpr std::ptrdiff_t n = lanes<float, Arch>;
  const std::ptrdiff_t columns = a.operands.columns;
  const std::ptrdiff_t stride = padded_columns<std::int32_t>(columns);
  detail::each_tile_of_int8<Arch>(a.operands, 0, a.count, a.products, a.widened,
                                  [&](std::ptrdiff_t row, std::ptrdiff_t count) PARE_LAMBDA_INLINE {
                                    for (std::ptrdiff_t c = 0; c < columns; c += n)
                                      detail::list_int8_column<Arch>(a, c, row, count, stride);
                                  });
}

template <class Arch>
void run_kernel(Arch, const SelectFewInt8Dots& a) noexcept {
  constexpr std::ptrdiff_t n = lanes<float, Arch>;
  const Int8Operands& o = a.operands;
  const std::ptrdiff_t words = detail::int8_words<Arch>(o.depth);
  for (std::ptrdiff_t row = 0; row < a.count;) {
    const bool whole = row + n <= a.count;
    const std::int8_t* const rows = o.rows + row * o.row_stride;
    // The last rows one by one, each in all lanes.
    const std::ptrdiff_t stride = whole ? o.row_stride : 0;
    const vec<float, Arch> scales =
        whole ? load<Arch>(o.scales + row) : broadcast<Arch>(o.scales[row]);
    for (std::ptrdiff_t i = 0; i < o.columns; ++i) {
      const std::int32_t* const query = o.queries + i * words;
      const vec<std::int32_t, Arch> sums =
          i == 0 ? detail::dots_of_int8_rows<Arch, true>(rows, stride, query, o.depth)
                 : detail::dots_of_int8_rows<Arch, false>(rows, stride, query, o.depth);
      const vec<float, Arch> scores = to_floats<Arch>(sums + broadcast<Arch>(o.offsets[i])) *
                                      broadcast<Arch>(o.factors[i]) * scales;
      if (detail::all_below(scores, broadcast<Arch>(a.lists.thresholds[i]))) continue;
      float x[static_cast<std::size_t>(n)];
      store<Arch>(static_cast<float*>(x), scores);
      for (std::ptrdiff_t r = 0; r < (whole ? n : 1); ++r)
        detail::list_dot(a.lists, i, a.first + static_cast<std::uint32_t>(row + r), x[r]);
    }
    row += whole ? n : 1;
  }
}

PARE_ABI_END
}  // namespace pare::kernel

#include <pare/core/macros_on.hpp>
