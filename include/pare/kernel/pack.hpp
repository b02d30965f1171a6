// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Packing of matrix rows into the panels that gemm.hpp multiplies by.
///
/// Rows are given by pointers, and packing gathers them: a permuted, paged or strided operand costs
/// what a plain one does. 16-bit storage is widened on the way, unless the element is a pair of
/// bf16 for native products.

#include <pare/core/macros_off.hpp>

#include <pare/kernel/gemm.hpp>

#include <cstddef>
#include <cstdint>
#include <type_traits>
#include <utility>

namespace pare::kernel {

/// Registers of panel `index` when a row of `registers` is cut into panels at most `most` wide, as
/// evenly as it goes: one register alone keeps the multiplier waiting.
struct PanelSplit {
  int registers = 0;
  int most = 1;

  constexpr int panels() const noexcept { return (registers + most - 1) / most; }
  constexpr int width(int index) const noexcept {
    return registers / panels() + (index < registers % panels() ? 1 : 0);
  }
};

/// Scalars of T that a row of `columns` takes when rounded up to the widest register.
template <class T>
constexpr std::ptrdiff_t padded_columns(std::ptrdiff_t columns) noexcept {
  constexpr auto widest = static_cast<std::ptrdiff_t>(64 / sizeof(T));
  return (columns + widest - 1) / widest * widest;
}

/// Rows that will be packed next, which a kernel asks for, into L2, while it works on others:
/// evenly over its time, since a core has few requests to memory open at once.
template <StorageScalar S>
struct FetchRows {
  const S* const* rows = nullptr;  ///< [count]
  std::ptrdiff_t count = 0;
  std::ptrdiff_t columns = 0;
};

/// A = X for rows x_i of X, element after element: row i is at i * steps_of(depth) elements.
template <StorageScalar S>
struct PackLeft {
  const S* const* rows = nullptr;  ///< [count]
  std::ptrdiff_t count = 0;
  std::ptrdiff_t depth = 0;        ///< scalars in a row
  compute_t<S>* packed = nullptr;  ///< [count * depth]
};

/// How wide the panels of PackTransposed are.
enum class PanelWidth : unsigned char {
  Tile,   ///< w = tile_columns
  Lanes,  ///< w = lane_columns, and of the last panel its rows in whole registers
};

/// B = X^T for rows x_j of X: panel p holds rows [p w, (p + 1) w) as panel[step * w + j]. Rows past
/// `count`, and depth past `depth`, are zeros.
template <StorageScalar S>
struct PackTransposed {
  const S* const* rows = nullptr;  ///< [count]
  std::ptrdiff_t count = 0;
  std::ptrdiff_t depth = 0;
  compute_t<S>* panels = nullptr;  ///< [depth * (count rounded up to w)]
  FetchRows<S> fetch{};
  PanelWidth width = PanelWidth::Tile;
};

/// B = X for rows x_j of X, the depth: panel p holds its columns of all rows, its width as
/// PanelSplit cuts ceil(columns / lanes) registers, as panel[step * width + c]. Columns past
/// `columns`, and rows past `count` that complete an element, are zeros.
template <StorageScalar S>
struct PackRows {
  const S* const* rows = nullptr;  ///< [count]
  std::ptrdiff_t count = 0;
  std::ptrdiff_t columns = 0;
  compute_t<S>* panels = nullptr;  ///< [(count + 1) * padded_columns(columns)]
  FetchRows<S> fetch{};
};

namespace detail {
PARE_ABI_BEGIN

/// The rows from begin / whole to end / whole of all.
template <class S>
PARE_TILE_INLINE void fetch_part(const FetchRows<S>& a, std::ptrdiff_t begin, std::ptrdiff_t end,
                                 std::ptrdiff_t whole) noexcept {
  const auto bytes = a.columns * static_cast<std::ptrdiff_t>(sizeof(S));
  for (std::ptrdiff_t r = a.count * begin / whole; r < a.count * end / whole; ++r)
    for (std::ptrdiff_t byte = 0; byte < bytes; byte += 64) prefetch<2>(a.rows[r], byte);
}

/// Element `step` of a row of `depth` scalars.
template <class E, class Source>
PARE_TILE_INLINE E element_at(const Source* row, std::ptrdiff_t step,
                              std::ptrdiff_t depth) noexcept {
  if constexpr (std::is_same_v<E, Bf16Pair>) {
    const std::uint32_t low = row[2 * step].bits;
    const std::uint32_t high = 2 * step + 1 < depth ? row[2 * step + 1].bits : 0;
    return E{low | (high << 16)};
  } else {
    return static_cast<E>(row[step]);
  }
}

/// A register of whole elements of a row from `step` on.
template <class Arch, class E, class Source>
PARE_TILE_INLINE auto load_row(const Source* row, std::ptrdiff_t step) noexcept {
  if constexpr (std::is_same_v<E, Bf16Pair>)
    return load_elements<Arch>(reinterpret_cast<const Bf16Pair*>(row + 2 * step));
  else
    return load_widened<Arch>(row + step);
}

template <class Arch, class E, class V>
PARE_TILE_INLINE void store_elements(E* p, V v) noexcept {
  store<Arch>(reinterpret_cast<typename product<E>::sum*>(p), v);
}

/// One register of rows, transposed square by square into column `j` of a panel `width` wide.
template <class Arch, class Source, class E>
PARE_TILE_INLINE void transpose_rows(const Source* const* rows, std::ptrdiff_t count,
                                     std::ptrdiff_t depth, E* panel,
                                     std::ptrdiff_t width) noexcept {
  using T = typename product<E>::sum;
  constexpr std::ptrdiff_t n = lanes<T, Arch>;
  const std::ptrdiff_t steps = steps_of<E>(depth);
  const std::ptrdiff_t whole = depth / product<E>::depth / n * n;
  for (std::ptrdiff_t s = 0; s < whole; s += n) {
    vec<T, Arch> block[static_cast<std::size_t>(n)];
    [&]<std::size_t... I>(std::index_sequence<I...>) PARE_LAMBDA_INLINE {
      if (count >= n)
        ((block[I] = load_row<Arch, E>(rows[I], s)), ...);
      else
        ((block[I] = static_cast<std::ptrdiff_t>(I) < count ? load_row<Arch, E>(rows[I], s)
                                                            : broadcast<Arch>(T(0))),
         ...);
      transpose_block<Arch>(block);
      (store_elements<Arch>(panel + (s + static_cast<std::ptrdiff_t>(I)) * width, block[I]), ...);
    }(std::make_index_sequence<static_cast<std::size_t>(n)>{});
  }
  for (std::ptrdiff_t s = whole; s < steps; ++s)
    for (std::ptrdiff_t i = 0; i < n; ++i)
      panel[s * width + i] = i < count ? element_at<E>(rows[i], s, depth) : E{};
}

/// Rows that make up element `step` of the depth: for pairs the second, null where there is none.
template <class S>
struct StepRows {
  const S* first;
  const S* second;
};
template <class E, class S>
PARE_TILE_INLINE StepRows<S> step_rows(const S* const* rows, std::ptrdiff_t count,
                                       std::ptrdiff_t step) noexcept {
  if constexpr (product<E>::depth == 2)
    return {rows[2 * step], 2 * step + 1 < count ? rows[2 * step + 1] : nullptr};
  else
    return {rows[step], nullptr};
}

/// The element of column c.
template <class E, class S>
E step_element(const StepRows<S>& rows, std::ptrdiff_t c) noexcept {
  if constexpr (std::is_same_v<E, Bf16Pair>) {
    const std::uint32_t high = rows.second != nullptr ? rows.second[c].bits : 0;
    return E{rows.first[c].bits | (high << 16)};
  } else {
    return static_cast<E>(rows.first[c]);
  }
}

/// The elements of columns c to c + lanes; zeros from `columns` on.
template <class Arch, class E, class S>
PARE_TILE_INLINE auto load_step(const StepRows<S>& rows, std::ptrdiff_t c,
                                std::ptrdiff_t columns) noexcept {
  constexpr std::ptrdiff_t n = lanes<typename product<E>::sum, Arch>;
  constexpr bool pairs = std::is_same_v<E, Bf16Pair>;
  if (c + n <= columns && (!pairs || rows.second != nullptr)) {
    if constexpr (pairs)
      return load_pairs<Arch>(rows.first + c, rows.second + c);
    else
      return load_widened<Arch>(rows.first + c);
  }
  E elements[static_cast<std::size_t>(n)] = {};
  for (std::ptrdiff_t k = 0; k < n && c + k < columns; ++k)
    elements[k] = step_element<E>(rows, c + k);
  return load_elements<Arch>(static_cast<const E*>(elements));
}

PARE_ABI_END
}  // namespace detail
PARE_ABI_BEGIN

template <class Arch, class S>
void run_kernel(Arch, const PackLeft<S>& a) noexcept {
  using E = element_t<S, Arch>;
  constexpr std::ptrdiff_t n = lanes<compute_t<S>, Arch>;
  const std::ptrdiff_t steps = steps_of<E>(a.depth);
  const std::ptrdiff_t whole = a.depth / product<E>::depth / n * n;
  for (std::ptrdiff_t i = 0; i < a.count; ++i) {
    E* out = reinterpret_cast<E*>(a.packed) + i * steps;
    for (std::ptrdiff_t s = 0; s < whole; s += n)
      detail::store_elements<Arch>(out + s, detail::load_row<Arch, E>(a.rows[i], s));
    for (std::ptrdiff_t s = whole; s < steps; ++s)
      out[s] = detail::element_at<E>(a.rows[i], s, a.depth);
  }
}

template <class Arch, class S>
void run_kernel(Arch, const PackTransposed<S>& a) noexcept {
  using E = element_t<S, Arch>;
  using T = compute_t<S>;
  constexpr std::ptrdiff_t n = lanes<T, Arch>;
  const bool tight = a.width == PanelWidth::Lanes;
  const std::ptrdiff_t width = tight ? lane_columns<T, Arch> : tile_columns<T, Arch>;
  const std::ptrdiff_t whole = tight ? n : width, steps = steps_of<E>(a.depth);
  const std::ptrdiff_t padded = (a.count + whole - 1) / whole * whole;
  E* panels = reinterpret_cast<E*>(a.panels);
  for (std::ptrdiff_t j = 0; j < padded; j += n) {
    const std::ptrdiff_t begin = j / width * width;
    detail::fetch_part(a.fetch, j, j + n, padded);
    detail::transpose_rows<Arch>(a.rows + (j < a.count ? j : 0), a.count - j, a.depth,
                                 panels + begin * steps + (j - begin),
                                 padded - begin < width ? padded - begin : width);
  }
}

template <class Arch, class S>
void run_kernel(Arch, const PackRows<S>& a) noexcept {
  using E = element_t<S, Arch>;
  constexpr std::ptrdiff_t n = lanes<compute_t<S>, Arch>;
  const std::ptrdiff_t steps = steps_of<E>(a.count);
  const PanelSplit split{static_cast<int>((a.columns + n - 1) / n), tile_registers<Arch>};
  for (std::ptrdiff_t s = 0; s < steps; ++s) {
    detail::fetch_part(a.fetch, s, s + 1, steps);
    const detail::StepRows<S> rows = detail::step_rows<E>(a.rows, a.count, s);
    E* panel = reinterpret_cast<E*>(a.panels);
    std::ptrdiff_t c = 0;
    for (int p = 0; p < split.panels(); ++p) {
      const std::ptrdiff_t width = split.width(p) * n;
      for (std::ptrdiff_t i = 0; i < width; i += n)
        detail::store_elements<Arch>(panel + s * width + i,
                                     detail::load_step<Arch, E>(rows, c + i, a.columns));
      panel += steps * width;
      c += width;
    }
  }
}

PARE_ABI_END

}  // namespace pare::kernel

#include <pare/core/macros_on.hpp>
