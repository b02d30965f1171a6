// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Products of rows with queries, of which those that are not below a threshold are listed.

#include <pare/core/macros_off.hpp>

#include <pare/kernel/direct_product.hpp>
#include <pare/kernel/gemm.hpp>
#include <pare/kernel/max_dots.hpp>
#include <pare/kernel/pack.hpp>

#include <cstddef>
#include <cstdint>
#include <utility>

namespace pare::kernel {

/// A row and its product.
template <ComputeScalar T>
struct ListedDot {
  std::uint32_t row = 0;
  T score = 0;
};

/// Where rows are listed that reach a threshold.
template <ComputeScalar T>
struct DotLists {
  const T* thresholds = nullptr;     ///< [queries rounded up to cache lines]; NaN: all are listed
  ListedDot<T>* entries = nullptr;   ///< of query i from i * capacity on
  std::ptrdiff_t capacity = 0;       ///< enough for all rows of the call
  std::ptrdiff_t* counts = nullptr;  ///< [queries], raised
};

/// Lists row j for query i unless <q_i, row_j> < threshold_i. NaN is listed.
///
/// Cost: 2 queries count depth FLOPs, which bind from about a register of queries on; fewer take as
/// long as a register of them. Queries are the lanes, as in MaxDots.
template <StorageScalar S>
struct SelectDots {
  using T = compute_t<S>;

  const T* queries = nullptr;  ///< PackTransposed, PanelWidth::Lanes
  std::ptrdiff_t columns = 0;
  std::ptrdiff_t depth = 0;
  const S* rows = nullptr;
  std::ptrdiff_t row_stride = 0;
  std::ptrdiff_t count = 0;
  std::uint32_t first = 0;  ///< number of the first row
  T* products = nullptr;    ///< [max_dot_rows x columns rounded up to cache lines]; scratch
  T* widened = nullptr;     ///< [max_dot_rows x depth], scratch; unused by float and double
  DotLists<T> lists{};
};

/// The same for a few queries, registers along the depth: as many rows at once as a register has
/// lanes, so that their sums are added up together.
///
/// Cost: one read of the rows, which binds up to about 4 queries. They are fetched in their order,
/// if they lie without gaps.
template <StorageScalar S>
struct SelectFewDots {
  using T = compute_t<S>;

  const T* queries =
      nullptr;  ///< [columns x query_stride], zeros behind `depth` to whole registers
  std::ptrdiff_t query_stride = 0;
  std::ptrdiff_t columns = 0;
  std::ptrdiff_t depth = 0;
  const S* rows = nullptr;
  std::ptrdiff_t row_stride = 0;
  std::ptrdiff_t count = 0;
  std::uint32_t first = 0;  ///< number of the first row
  DotLists<T> lists{};
};

namespace detail {
PARE_ABI_BEGIN

template <class V>
PARE_ALWAYS_INLINE bool all_below(const V& x, const V& threshold) noexcept {
  if constexpr (is_batch<V>)
    return xsimd::all(x < threshold);
  else
    return x < threshold;
}

template <class V>
PARE_ALWAYS_INLINE bool all_below(const V& a, const V& b, const V& c, const V& d,
                                  const V& threshold) noexcept {
  if constexpr (is_batch<V>)
    return xsimd::all(((a < threshold) & (b < threshold)) & ((c < threshold) & (d < threshold)));
  else
    return a < threshold && b < threshold && c < threshold && d < threshold;
}

/// Bit l: lane l is not below its threshold.
template <class Arch, class V>
PARE_ALWAYS_INLINE std::uint32_t lanes_not_below(const V& x, const V& threshold) noexcept {
  if constexpr (is_batch<V>)
    return nonzero_lanes<Arch>(xsimd::select(x < threshold, V(0), V(1)));
  else
    return x < threshold ? 0 : 1;
}

template <class T>
PARE_ALWAYS_INLINE void append_dot(const DotLists<T>& lists, std::ptrdiff_t query,
                                   std::uint32_t row, T score) noexcept {
  lists.entries[query * lists.capacity + lists.counts[query]++] = {row, score};
}

template <class T>
PARE_ALWAYS_INLINE void list_dot(const DotLists<T>& lists, std::ptrdiff_t query, std::uint32_t row,
                                 T score) noexcept {
  if (!(score < lists.thresholds[query])) append_dot(lists, query, row, score);
}

/// Bytes from what is multiplied to what is fetched: best of 2 to 16 KiB on Zen 5, with .87 of the
/// read bandwidth for float and .84 for bf16, where 8 and 4 KiB have .79 and .78.
template <class S>
inline constexpr std::ptrdiff_t few_dots_ahead = sizeof(S) == 2 ? 8192 : 4096;

/// The sums of the products of a row and a query, a register of them.
template <class Arch, bool Fetch, class S, class T>
PARE_TILE_INLINE vec<T, Arch> sums_of_row(const S* row, const T* query,
                                          std::ptrdiff_t depth) noexcept {
  constexpr std::ptrdiff_t n = lanes<T, Arch>;
  vec<T, Arch> sum = broadcast<Arch>(T(0));
  std::ptrdiff_t c = 0;
  for (; c + n <= depth; c += n) {
    if constexpr (Fetch) prefetch(row + c, few_dots_ahead<S>);
    sum = multiply_add<Arch>(load_widened<Arch>(row + c), load<Arch>(query + c), sum);
  }
  if (c == depth) return sum;
  S end[static_cast<std::size_t>(n)] = {};
  for (std::ptrdiff_t i = 0; c + i < depth; ++i) end[i] = row[c + i];
  return multiply_add<Arch>(load_widened<Arch>(static_cast<const S*>(end)), load<Arch>(query + c),
                            sum);
}

/// The products of a query with as many rows as a register has lanes, row after row: memory is
/// fastest in its own order.
template <class Arch, bool Fetch, class S, class T>
PARE_TILE_INLINE vec<T, Arch> dots_of_rows(const S* rows, std::ptrdiff_t stride, const T* query,
                                           std::ptrdiff_t depth) noexcept {
  return [&]<std::size_t... R>(std::index_sequence<R...>) PARE_LAMBDA_INLINE {
    vec<T, Arch> sums[] = {
        sums_of_row<Arch, Fetch>(rows + static_cast<std::ptrdiff_t>(R) * stride, query, depth)...};
    return sum_lanes_of_each<Arch>(sums);
  }(std::make_index_sequence<static_cast<std::size_t>(lanes<T, Arch>)>{});
}

PARE_ABI_END
}  // namespace detail
PARE_ABI_BEGIN

template <class Arch, class S>
void run_kernel(Arch, const SelectDots<S>& a) noexcept {
  using T = compute_t<S>;
  constexpr std::ptrdiff_t n = lanes<T, Arch>;
  const std::ptrdiff_t stride = padded_columns<T>(a.columns);
  const auto list = [&](std::ptrdiff_t row, std::ptrdiff_t count) PARE_LAMBDA_INLINE {
    for (std::ptrdiff_t c = 0; c < a.columns; c += n) {
      const vec<T, Arch> threshold = load<Arch>(a.lists.thresholds + c);
      const std::ptrdiff_t end = c + n < a.columns ? c + n : a.columns;
      for (std::ptrdiff_t r = 0; r < count; ++r) {
        const T* const x = a.products + r * stride;
        if (detail::all_below(load<Arch>(x + c), threshold)) continue;
        for (std::ptrdiff_t i = c; i < end; ++i)
          detail::list_dot(a.lists, i, a.first + static_cast<std::uint32_t>(row + r), x[i]);
      }
    }
  };
  detail::each_tile_of_dots<Arch, S>(a, 0, a.count, a.columns, list);
}

template <class Arch, class S>
void run_kernel(Arch, const SelectFewDots<S>& a) noexcept {
  using T = compute_t<S>;
  constexpr std::ptrdiff_t n = lanes<T, Arch>;
  for (std::ptrdiff_t row = 0; row < a.count;) {
    const bool whole = row + n <= a.count;
    const S* const rows = a.rows + row * a.row_stride;
    for (std::ptrdiff_t i = 0; i < a.columns; ++i) {
      // The last rows one by one, each in all lanes.
      const std::ptrdiff_t stride = whole ? a.row_stride : 0;
      const T* const query = a.queries + i * a.query_stride;
      const vec<T, Arch> dots =
          i == 0 ? detail::dots_of_rows<Arch, true>(rows, stride, query, a.depth)
                 : detail::dots_of_rows<Arch, false>(rows, stride, query, a.depth);
      if (detail::all_below(dots, broadcast<Arch>(a.lists.thresholds[i]))) continue;
      T x[static_cast<std::size_t>(n)];
      store<Arch>(static_cast<T*>(x), dots);
      for (std::ptrdiff_t r = 0; r < (whole ? n : 1); ++r)
        detail::list_dot(a.lists, i, a.first + static_cast<std::uint32_t>(row + r), x[r]);
    }
    row += whole ? n : 1;
  }
}

PARE_ABI_END
}  // namespace pare::kernel

#include <pare/core/macros_on.hpp>
