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
#include <pare/kernel/int8_elements.hpp>
#include <pare/kernel/max_dots.hpp>
#include <pare/kernel/row_maxima.hpp>
#include <pare/kernel/select_dots.hpp>

#include <bit>
#include <cstddef>
#include <cstdint>
#include <utility>

namespace pare::kernel {

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
