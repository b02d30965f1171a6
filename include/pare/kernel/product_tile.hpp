// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// The kernels of a large matrix product: packing a block of each factor, and multiplying them.
///
/// A factor is seen as lines along the depth: rows of the left one, columns of the right one.
/// Either may be contiguous along its lines or across them, so a transposed factor costs what a
/// plain one does. A line may be scaled on the way, which is how a weighted matrix is multiplied
/// without being stored.

#include <pare/core/macros_off.hpp>

#include <pare/kernel/gemm.hpp>

#include <cstddef>
#include <type_traits>

namespace pare::kernel {

/// Lines of a factor as they lie in memory. Where neither stride is 1 they are read one element at
/// a time.
template <StorageScalar S, ComputeScalar T>
struct Lines {
  const S* data = nullptr;
  std::ptrdiff_t line_stride = 0;
  std::ptrdiff_t depth_stride = 0;
  std::ptrdiff_t count = 0;
  std::ptrdiff_t depth = 0;
  const T* scale = nullptr;        ///< [count], or null
  const T* depth_scale = nullptr;  ///< [depth], or null
};

/// Line i goes to packed[i * steps + step]. With `Pairs`, two bf16 along the depth make one element
/// where the arch multiplies them natively; there is no scale then.
template <StorageScalar S, ComputeScalar T, bool Pairs>
struct PackLeftLines {
  static_assert(!Pairs || (std::is_same_v<S, bf16> && std::is_same_v<T, float>));
  Lines<S, T> lines;
  T* packed = nullptr;  ///< [count * depth]
};

/// Lines [p w, (p + 1) w), w = tile_columns, go to panel p as panel[step * width + line]. The width
/// of the last panel is that of its lines rounded up to whole registers, with zeros.
template <StorageScalar S, ComputeScalar T, bool Pairs>
struct PackRightLines {
  static_assert(!Pairs || (std::is_same_v<S, bf16> && std::is_same_v<T, float>));
  Lines<S, T> lines;
  T* panels = nullptr;  ///< [depth * (count rounded up to registers)]
};

/// C = A B, or C += A B, of packed factors.
///
/// Cost: 2 rows columns depth FLOPs, which bind; of each panel steps * w elements are read for
/// every tile_rows rows, from L2.
template <ComputeScalar T, bool Pairs>
struct MultiplyPanels {
  const T* left = nullptr;
  const T* panels = nullptr;
  std::ptrdiff_t rows = 0;
  std::ptrdiff_t columns = 0;
  std::ptrdiff_t depth = 0;
  T* c = nullptr;
  std::ptrdiff_t c_stride = 0;
  bool accumulate = false;
  std::ptrdiff_t first_row = 0;  ///< rows before it are left alone; a multiple of tile_rows
};

namespace detail {
PARE_ABI_BEGIN

template <class T, bool Pairs, class Arch>
using product_element = std::conditional_t<Pairs && Arch::has_bf16_dot, Bf16Pair, T>;

/// Reads elements of lines, widened to T and scaled, in registers along or across the lines.
template <class Arch, class S, class T, class E>
class LineReader {
 public:
  static constexpr std::ptrdiff_t n = lanes<T, Arch>;
  static constexpr bool pairs = std::is_same_v<E, Bf16Pair>;
  using V = vec<T, Arch>;

  explicit LineReader(const Lines<S, T>& lines) : lines_(lines) {}

  std::ptrdiff_t steps() const noexcept { return steps_of<E>(lines_.depth); }

  /// Element `step` of `line`; zero outside.
  E at(std::ptrdiff_t line, std::ptrdiff_t step) const noexcept {
    if (line >= lines_.count || step >= steps()) return E{};
    const S* p = lines_.data + line * lines_.line_stride;
    if constexpr (pairs) {
      const std::uint32_t low = p[2 * step * lines_.depth_stride].bits;
      const std::uint32_t high =
          2 * step + 1 < lines_.depth ? p[(2 * step + 1) * lines_.depth_stride].bits : 0;
      return E{low | (high << 16)};
    } else {
      T x = static_cast<T>(static_cast<compute_t<S>>(p[step * lines_.depth_stride]));
      if (lines_.scale != nullptr) x = x * lines_.scale[line];
      return lines_.depth_scale != nullptr ? x * lines_.depth_scale[step] : x;
    }
  }

  /// Whether a register from (line, step) on lies in memory, along the depth or across lines.
  bool fits_along(std::ptrdiff_t line, std::ptrdiff_t step) const noexcept {
    return lines_.depth_stride == 1 && line < lines_.count &&
           (step + n) * product<E>::depth <= lines_.depth;
  }
  bool fits_across(std::ptrdiff_t line, std::ptrdiff_t step) const noexcept {
    return lines_.line_stride == 1 && line + n <= lines_.count &&
           (step + 1) * product<E>::depth <= lines_.depth;
  }

  /// Steps [step, step + n) of a line; depth_stride is 1.
  PARE_TILE_INLINE V along(std::ptrdiff_t line, std::ptrdiff_t step) const noexcept {
    const S* p = lines_.data + line * lines_.line_stride + step * product<E>::depth;
    if constexpr (pairs) {
      return load_elements<Arch>(reinterpret_cast<const Bf16Pair*>(p));
    } else {
      V v = load_as(p);
      if (lines_.scale != nullptr) v = v * broadcast<Arch>(lines_.scale[line]);
      return lines_.depth_scale != nullptr ? v * load<Arch>(lines_.depth_scale + step) : v;
    }
  }

  /// Lines [line, line + n) at a step; line_stride is 1.
  PARE_TILE_INLINE V across(std::ptrdiff_t line, std::ptrdiff_t step) const noexcept {
    const S* p = lines_.data + line + step * product<E>::depth * lines_.depth_stride;
    if constexpr (pairs) {
      return load_pairs<Arch>(p, p + lines_.depth_stride);
    } else {
      V v = load_as(p);
      if (lines_.scale != nullptr) v = v * load<Arch>(lines_.scale + line);
      return lines_.depth_scale != nullptr ? v * broadcast<Arch>(lines_.depth_scale[step]) : v;
    }
  }

  /// Asks for n x n elements from (line, step) on, which need not be there, of lines that lie along
  /// the depth: more lines than the hardware follows at once.
  PARE_TILE_INLINE void fetch(std::ptrdiff_t line, std::ptrdiff_t step) const noexcept {
    constexpr auto size = static_cast<std::ptrdiff_t>(sizeof(S));
    for (std::ptrdiff_t i = 0; i < n; ++i)
      prefetch<2>(lines_.data, ((line + i) * lines_.line_stride + step * product<E>::depth) * size);
  }

  /// Element by element, for what `along` or `across` cannot reach.
  PARE_TILE_INLINE V gather(std::ptrdiff_t line, std::ptrdiff_t step, bool across) const noexcept {
    E e[static_cast<std::size_t>(n)];
    for (std::ptrdiff_t i = 0; i < n; ++i) e[i] = across ? at(line + i, step) : at(line, step + i);
    return load_elements<Arch>(static_cast<const E*>(e));
  }

 private:
  PARE_TILE_INLINE static V load_as(const S* p) noexcept {
    if constexpr (std::is_same_v<compute_t<S>, T>) {
      return load_widened<Arch>(p);
    } else {
      T widened[static_cast<std::size_t>(n)];
      for (std::ptrdiff_t i = 0; i < n; ++i)
        widened[i] = static_cast<T>(static_cast<compute_t<S>>(p[i]));
      return load<Arch>(static_cast<const T*>(widened));
    }
  }

  const Lines<S, T>& lines_;
};

/// n x n elements from (line, step) on, as registers along the depth or across lines.
template <class Arch, class Reader>
PARE_TILE_INLINE void read_square(const Reader& reader, std::ptrdiff_t line, std::ptrdiff_t step,
                                  bool stored_across, bool wanted_across,
                                  typename Reader::V (&v)[std::size_t(Reader::n)]) noexcept {
  for (std::ptrdiff_t i = 0; i < Reader::n; ++i) {
    const std::ptrdiff_t l = stored_across ? line : line + i, s = stored_across ? step + i : step;
    if (stored_across)
      v[i] = reader.fits_across(l, s) ? reader.across(l, s) : reader.gather(l, s, true);
    else
      v[i] = reader.fits_along(l, s) ? reader.along(l, s) : reader.gather(l, s, false);
  }
  if (stored_across != wanted_across) transpose_block<Arch>(v);
}

/// rows x (`registers` registers) of C, of which `columns` columns are there. What hangs over is
/// computed beside it.
template <class Arch, class E>
void multiply_block(int rows, int registers, std::ptrdiff_t columns,
                    const TileCall<E>& call) noexcept {
  using T = typename TileCall<E>::T;
  const std::ptrdiff_t width = registers * lanes<T, Arch>;
  if (columns >= width) return multiply_tile<Arch>(rows, registers, call);
  alignas(64) T edge[static_cast<std::size_t>(tile_rows * tile_columns<T, Arch>)];
  T* const c = call.c;
  const std::ptrdiff_t c_stride = call.c_stride;
  if (call.start != TileStart::Zero)
    for (std::ptrdiff_t r = 0; r < rows; ++r)
      for (std::ptrdiff_t j = 0; j < width; ++j)
        edge[r * width + j] = j < columns ? c[r * c_stride + j] : T(0);
  TileCall<E> beside = call;
  beside.c = edge;
  beside.c_stride = width;
  multiply_tile<Arch>(rows, registers, beside);
  for (std::ptrdiff_t r = 0; r < rows; ++r)
    for (std::ptrdiff_t j = 0; j < columns; ++j) c[r * c_stride + j] = edge[r * width + j];
}

/// Asks for the rows [begin, end) of C, `width` columns of them: they come from beyond L2, and a
/// tile would wait for them for a tenth of its time.
template <class T>
PARE_TILE_INLINE void prefetch_tile(const T* c, std::ptrdiff_t c_stride, std::ptrdiff_t begin,
                                    std::ptrdiff_t end, std::ptrdiff_t width) noexcept {
  constexpr std::ptrdiff_t line = 64 / static_cast<std::ptrdiff_t>(sizeof(T));
  for (std::ptrdiff_t row = begin; row < end; ++row)
    for (std::ptrdiff_t j = 0; j < width; j += line) prefetch(c + row * c_stride + j);
}

/// The rows of C under one panel, `registers` wide, which stays in L2 meanwhile.
template <class Arch, class T, bool Pairs>
void multiply_panel(const MultiplyPanels<T, Pairs>& a, std::ptrdiff_t column,
                    int registers) noexcept {
  using E = product_element<T, Pairs, Arch>;
  const std::ptrdiff_t steps = steps_of<E>(a.depth);
  const E* left = reinterpret_cast<const E*>(a.left);
  const E* panel = reinterpret_cast<const E*>(a.panels) + column * steps;
  for (std::ptrdiff_t row = a.first_row; row < a.rows;) {
    const int rows = next_group(a.rows - row);
    const std::ptrdiff_t next = row + rows, end = next + tile_rows;
    prefetch_tile(a.c + column, a.c_stride, next, end < a.rows ? end : a.rows,
                  registers * lanes<T, Arch>);
    multiply_block<Arch, E>(rows, registers, a.columns - column,
                            {.a = left + row * steps,
                             .a_stride = steps,
                             .b = panel,
                             .steps = steps,
                             .c = a.c + row * a.c_stride + column,
                             .c_stride = a.c_stride,
                             .start = a.accumulate ? TileStart::Sum : TileStart::Zero});
    row = next;
  }
}

PARE_ABI_END
}  // namespace detail
PARE_ABI_BEGIN

template <class Arch, class S, class T, bool Pairs>
void run_kernel(Arch, const PackLeftLines<S, T, Pairs>& a) noexcept {
  using E = detail::product_element<T, Pairs, Arch>;
  using Reader = detail::LineReader<Arch, S, T, E>;
  constexpr std::ptrdiff_t n = Reader::n;
  const Reader reader(a.lines);
  const std::ptrdiff_t steps = reader.steps();
  const bool across = a.lines.depth_stride != 1;
  E* packed = reinterpret_cast<E*>(a.packed);
  for (std::ptrdiff_t line = 0; line < a.lines.count; line += n)
    for (std::ptrdiff_t step = 0; step < steps; step += n) {
      typename Reader::V v[static_cast<std::size_t>(n)];
      detail::read_square<Arch>(reader, line, step, across, false, v);
      for (std::ptrdiff_t i = 0; i < n && line + i < a.lines.count; ++i) {
        E* out = packed + (line + i) * steps + step;
        if (step + n <= steps) {
          store<Arch>(reinterpret_cast<T*>(out), v[i]);
        } else {
          E rest[static_cast<std::size_t>(n)];
          store<Arch>(reinterpret_cast<T*>(rest), v[i]);
          for (std::ptrdiff_t s = 0; step + s < steps; ++s) out[s] = rest[s];
        }
      }
    }
}

template <class Arch, class S, class T, bool Pairs>
void run_kernel(Arch, const PackRightLines<S, T, Pairs>& a) noexcept {
  using E = detail::product_element<T, Pairs, Arch>;
  using Reader = detail::LineReader<Arch, S, T, E>;
  constexpr std::ptrdiff_t n = Reader::n, full = tile_columns<T, Arch>;
  const Reader reader(a.lines);
  const std::ptrdiff_t steps = reader.steps(), padded = (a.lines.count + n - 1) / n * n;
  const bool across = a.lines.line_stride == 1;
  T* panels = a.panels;
  for (std::ptrdiff_t begin = 0; begin < padded; begin += full) {
    const std::ptrdiff_t width = padded - begin < full ? padded - begin : full;
    const auto square = [&](std::ptrdiff_t step, std::ptrdiff_t j) {
      typename Reader::V v[static_cast<std::size_t>(n)];
      detail::read_square<Arch>(reader, begin + j, step, across, true, v);
      for (std::ptrdiff_t i = 0; i < n && step + i < steps; ++i)
        store<Arch>(panels + begin * steps + (step + i) * width + j, v[i]);
    };
    // Along the way that lines lie, since they come from memory.
    if (across) {
      for (std::ptrdiff_t step = 0; step < steps; step += n)
        for (std::ptrdiff_t j = 0; j < width; j += n) square(step, j);
    } else {
      for (std::ptrdiff_t j = 0; j < width; j += n)
        for (std::ptrdiff_t step = 0; step < steps; step += n) {
          reader.fetch(begin + j + n, step);
          square(step, j);
        }
    }
  }
}

template <class Arch, class T, bool Pairs>
void run_kernel(Arch, const MultiplyPanels<T, Pairs>& a) noexcept {
  constexpr std::ptrdiff_t n = lanes<T, Arch>, full = tile_columns<T, Arch>;
  for (std::ptrdiff_t column = 0; column < a.columns; column += full) {
    const std::ptrdiff_t left = a.columns - column;
    detail::multiply_panel<Arch>(
        a, column, left < full ? static_cast<int>((left + n - 1) / n) : tile_registers<Arch>);
  }
}

PARE_ABI_END

}  // namespace pare::kernel

#include <pare/core/macros_on.hpp>
