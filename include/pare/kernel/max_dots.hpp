// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// MaxSim's kernel: rows of documents times a few query rows, of which only the largest product of
/// each query row and document is kept.
///
/// Query rows are the lanes. A row of a document is read where it lies, scalar by scalar, and needs
/// neither packing nor padding: a tile takes the next rows of the table, whichever documents they
/// are of, and a maximum is one instruction for as many query rows as a register has lanes.
///
/// Register budget: AVX-512 and NEON 12 rows x 2 sums, 2 of the queries, 1 of the row = 27 of 32;
/// AVX2 and SSE2 12 x 1 sums, 1 and 1 = 14 of 16. Of 24 products, 14 are loaded.

#include <pare/core/macros_off.hpp>

#include <pare/kernel/gemm.hpp>
#include <pare/kernel/pack.hpp>
#include <pare/kernel/row_maxima.hpp>

#include <cstddef>
#include <cstring>
#include <type_traits>
#include <utility>

namespace pare::kernel {

/// Rows of documents in a tile.
inline constexpr std::ptrdiff_t max_dot_rows = 12;

/// score_d = sum_i max_j <q_i, row_j> over the rows j of document d, as RowMaxima has it. bf16 is
/// multiplied in pairs where that is native, other 16-bit storage is widened into L1.
///
/// Cost: 2 queries rows depth FLOPs, which bind from about a register of queries on; fewer take as
/// long as a register of them. What comes next is fetched meanwhile: rows without gaps, that is.
template <StorageScalar S>
struct MaxDots {
  using T = compute_t<S>;

  const T* queries = nullptr;  ///< PackTransposed, PanelWidth::Lanes: documents.columns of them
  std::ptrdiff_t depth = 0;
  const S* rows = nullptr;  ///< of row 0, to which offsets refer
  std::ptrdiff_t row_stride = 0;
  T* products = nullptr;  ///< [max_dot_rows x columns rounded up to cache lines], aligned; scratch
  T* widened = nullptr;   ///< [max_dot_rows x depth], scratch; unused by float and double
  DocumentScores<T> documents{};
};

namespace detail {
PARE_ABI_BEGIN

/// How many rows the next tile has when `left` are to go.
constexpr std::ptrdiff_t max_dot_group(std::ptrdiff_t left) noexcept {
  if (left >= max_dot_rows) return max_dot_rows;
  return left >= 6 ? 6 : left >= 3 ? 3 : 1;
}

/// Lines that are fetched beside each step of the depth.
struct FetchedLines {
  const void* first = nullptr;
  std::ptrdiff_t step = 0;  ///< bytes
};

/// An element of a row, which need not be aligned to it.
template <class E, class S>
PARE_TILE_INLINE E element_of_row(const S* row) noexcept {
  if constexpr (std::is_same_v<E, S>) {
    return *row;
  } else {
    E element;
    std::memcpy(static_cast<void*>(&element), row, sizeof(E));
    return element;
  }
}

/// The products of `Rows` rows and `Registers` registers of queries.
template <class Arch, int Rows, int Registers, class E, class S>
void multiply_document_rows(const S* rows, std::ptrdiff_t row_stride, const E* queries,
                            std::ptrdiff_t depth, typename product<E>::sum* products,
                            std::ptrdiff_t stride, FetchedLines fetched) noexcept {
  using T = typename product<E>::sum;
  constexpr std::ptrdiff_t n = lanes<T, Arch>, each = product<E>::depth;
  RegisterTile<T, Arch, Rows, Registers> tile;
  tile.clear();
  // Three rows from an address each: others would want more registers than there are.
  const S* first[] = {rows, rows + (Rows > 3 ? 3 : 0) * row_stride,
                      rows + (Rows > 6 ? 6 : 0) * row_stride,
                      rows + (Rows > 6 ? 9 : 0) * row_stride};
  std::ptrdiff_t ahead = 0;
  const auto step = [&](const auto& element) PARE_LAMBDA_INLINE {
    [&]<std::size_t... I>(std::index_sequence<I...>) PARE_LAMBDA_INLINE {
      const vec<T, Arch> q[] = {
          held(load_elements<Arch>(queries + static_cast<std::ptrdiff_t>(I) * n))...};
      RegisterTile<T, Arch, Rows, 1>::each([&](int r, int) PARE_LAMBDA_INLINE {
        const E x = element(first[r / 3] + (r % 3) * row_stride);
        ((tile.sum[r][I] = multiply_elements<Arch>(x, q[I], tile.sum[r][I])), ...);
      });
    }(std::make_index_sequence<std::size_t(Registers)>{});
    queries += Registers * n;
  };
  for (std::ptrdiff_t s = depth / each; s > 0; --s) {
    prefetch(fetched.first, ahead);
    if constexpr (Rows * sizeof(E) > 64) prefetch(fetched.first, ahead + 64);
    ahead += fetched.step;
    step([](const S* p) PARE_LAMBDA_INLINE { return element_of_row<E>(p); });
    for (const S*& p : first) p += std::is_same_v<S, E> ? 1 : each;
  }
  if constexpr (std::is_same_v<S, bf16> && each == 2)
    if (depth % 2 != 0)
      step([](const S* p) PARE_LAMBDA_INLINE { return E{std::uint32_t{p->bits}}; });
  tile.store_to(renewed(products), renewed(stride));
}

/// The same for a number of rows that max_dot_group returns.
template <class Arch, int Registers, class E, class S, class... Rest>
PARE_ALWAYS_INLINE void multiply_group(std::ptrdiff_t count, Rest... rest) noexcept {
  if (count == max_dot_rows) return multiply_document_rows<Arch, 12, Registers, E, S>(rest...);
  if (count == 6) return multiply_document_rows<Arch, 6, Registers, E, S>(rest...);
  if (count == 3) return multiply_document_rows<Arch, 3, Registers, E, S>(rest...);
  multiply_document_rows<Arch, 1, Registers, E, S>(rest...);
}

/// Rows of 16-bit storage, widened, without gaps.
template <class Arch, class S, class T>
void widen_rows(const S* rows, std::ptrdiff_t row_stride, std::ptrdiff_t count,
                std::ptrdiff_t depth, T* widened) noexcept {
  constexpr std::ptrdiff_t n = lanes<T, Arch>;
  for (std::ptrdiff_t r = 0; r < count; ++r) {
    const S* const row = rows + r * row_stride;
    T* const out = widened + r * depth;
    std::ptrdiff_t c = 0;
    for (; c + n <= depth; c += n) store<Arch>(out + c, load_widened<Arch>(row + c));
    for (; c < depth; ++c) out[c] = static_cast<T>(row[c]);
  }
}

/// Rows times all queries: products of row r and query i at r * stride + i.
template <class Arch, class E, class S, class T>
void multiply_by_queries(std::ptrdiff_t count, const S* rows, std::ptrdiff_t row_stride,
                         const E* queries, std::ptrdiff_t columns, std::ptrdiff_t depth,
                         T* products, std::ptrdiff_t stride, FetchedLines fetched) noexcept {
  constexpr std::ptrdiff_t n = lanes<T, Arch>, width = lane_columns<T, Arch>;
  for (std::ptrdiff_t i = 0; i < columns; i += width) {
    if (columns - i > n && lane_registers<Arch> == 2)
      multiply_group<Arch, lane_registers<Arch>, E, S>(count, rows, row_stride, queries, depth,
                                                       products + i, stride, fetched);
    else
      multiply_group<Arch, 1, E, S>(count, rows, row_stride, queries, depth, products + i, stride,
                                    fetched);
    queries += width * steps_of<E>(depth);
    fetched.step = 0;
  }
}

/// use(row, count) for tiles of rows [begin, end) of S of a MaxDots or SelectDots call, behind
/// their products with all queries: a.products, padded columns apart.
template <class Arch, class S, class Call, class Use>
PARE_TILE_INLINE void each_tile_of_dots(const Call& a, std::ptrdiff_t begin, std::ptrdiff_t end,
                                        std::ptrdiff_t columns, const Use& use) noexcept {
  using T = compute_t<S>;
  using E = element_t<S, Arch>;
  const std::ptrdiff_t stride = padded_columns<T>(columns);
  const E* const queries = reinterpret_cast<const E*>(a.queries);
  const std::ptrdiff_t row_bytes = a.row_stride * static_cast<std::ptrdiff_t>(sizeof(S));
  for (std::ptrdiff_t row = begin; row < end;) {
    const std::ptrdiff_t count = max_dot_group(end - row);
    const S* const first = a.rows + row * a.row_stride;
    if constexpr (std::is_same_v<S, T> || std::is_same_v<E, Bf16Pair>) {
      const FetchedLines next{reinterpret_cast<const char*>(first) + max_dot_rows * row_bytes,
                              count * row_bytes / steps_of<E>(a.depth)};
      multiply_by_queries<Arch>(count, first, a.row_stride, queries, columns, a.depth, a.products,
                                stride, next);
    } else {
      widen_rows<Arch>(first, a.row_stride, count, a.depth, a.widened);
      multiply_by_queries<Arch>(count, static_cast<const T*>(a.widened), a.depth, queries, columns,
                                a.depth, a.products, stride, {});
    }
    use(row, count);
    row += count;
  }
}

PARE_ABI_END
}  // namespace detail
PARE_ABI_BEGIN

template <class Arch, class S>
void run_kernel(Arch, const MaxDots<S>& a) noexcept {
  using T = compute_t<S>;
  const DocumentScores<T>& d = a.documents;
  const std::ptrdiff_t stride = padded_columns<T>(d.columns);
  RowMaxima<Arch, T> maxima(d);
  detail::each_tile_of_dots<Arch, S>(a, d.offsets[0], d.offsets[d.documents], d.columns,
                                     [&](std::ptrdiff_t, std::ptrdiff_t count) PARE_LAMBDA_INLINE {
                                       maxima.take(a.products, stride, count);
                                     });
}

PARE_ABI_END
}  // namespace pare::kernel

#include <pare/core/macros_on.hpp>
