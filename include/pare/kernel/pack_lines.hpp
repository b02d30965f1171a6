// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Packing a block of either factor of a large matrix product (product_tile.hpp).
///
/// A factor is seen as lines along the depth: rows of the left one, columns of the right one.
/// Either may be contiguous along its lines or across them, so a transposed factor costs what a
/// plain one does. A line may be scaled on the way, which is how a weighted matrix is multiplied
/// without being stored.

#include <pare/core/macros_off.hpp>

#include <pare/kernel/gemm.hpp>

#include <cstddef>
#include <cstdint>
#include <type_traits>
#include <utility>

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
  /// Those of whole registers.
  std::ptrdiff_t whole_steps() const noexcept { return lines_.depth / product<E>::depth / n * n; }
  bool scales() const noexcept { return lines_.scale != nullptr || lines_.depth_scale != nullptr; }

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

  /// The same for a square of n lines and n steps, unscaled and stored `across` lines or not.
  bool is_plain_square(std::ptrdiff_t line, std::ptrdiff_t step, bool across) const noexcept {
    return !scales() && line + n <= lines_.count &&
           (step + n) * product<E>::depth <= lines_.depth &&
           (across ? lines_.line_stride : lines_.depth_stride) == 1;
  }

  /// Steps [step, step + n) of a line; depth_stride is 1.
  PARE_TILE_INLINE V plain_along(std::ptrdiff_t line, std::ptrdiff_t step) const noexcept {
    const S* p = lines_.data + line * lines_.line_stride + step * product<E>::depth;
    if constexpr (pairs)
      return load_elements<Arch>(reinterpret_cast<const Bf16Pair*>(p));
    else
      return load_as(p);
  }
  PARE_TILE_INLINE V along(std::ptrdiff_t line, std::ptrdiff_t step) const noexcept {
    V v = plain_along(line, step);
    if constexpr (pairs) {
      return v;
    } else {
      if (lines_.scale != nullptr) v = v * broadcast<Arch>(lines_.scale[line]);
      return lines_.depth_scale != nullptr ? v * load<Arch>(lines_.depth_scale + step) : v;
    }
  }

  /// Lines [line, line + n) at a step; line_stride is 1.
  PARE_TILE_INLINE V plain_across(std::ptrdiff_t line, std::ptrdiff_t step) const noexcept {
    const S* p = lines_.data + line + step * product<E>::depth * lines_.depth_stride;
    if constexpr (pairs)
      return load_pairs<Arch>(p, p + lines_.depth_stride);
    else
      return load_as(p);
  }
  PARE_TILE_INLINE V across(std::ptrdiff_t line, std::ptrdiff_t step) const noexcept {
    V v = plain_across(line, step);
    if constexpr (pairs) {
      return v;
    } else {
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

/// The same for a plain square that is stored the other way than wanted, to `to`, whose registers
/// are `stride` apart. Without a branch and unrolled, which takes a third of the time.
template <class Arch, class Reader, class E>
void transpose_square(const Reader& reader, std::ptrdiff_t line, std::ptrdiff_t step, bool across,
                      E* to, std::ptrdiff_t stride) noexcept {
  using T = typename product<E>::sum;
  [&]<std::size_t... I>(std::index_sequence<I...>) PARE_LAMBDA_INLINE {
    typename Reader::V v[sizeof...(I)];
    if (across)
      ((v[I] = reader.plain_across(line, step + static_cast<std::ptrdiff_t>(I))), ...);
    else
      ((v[I] = reader.plain_along(line + static_cast<std::ptrdiff_t>(I), step)), ...);
    transpose_block<Arch>(v);
    (store<Arch>(reinterpret_cast<T*>(to + static_cast<std::ptrdiff_t>(I) * stride), v[I]), ...);
  }(std::make_index_sequence<std::size_t(Reader::n)>{});
}

/// A line that lies along the depth, unscaled.
template <class Arch, class Reader, class E>
void copy_line(const Reader& reader, std::ptrdiff_t line, E* to) noexcept {
  using T = typename product<E>::sum;
  constexpr std::ptrdiff_t n = Reader::n;
  const std::ptrdiff_t steps = reader.steps();
  const std::ptrdiff_t whole = reader.whole_steps();
  for (std::ptrdiff_t s = 0; s < whole; s += n)
    store<Arch>(reinterpret_cast<T*>(to + s), reader.plain_along(line, s));
  for (std::ptrdiff_t s = whole; s < steps; ++s) to[s] = reader.at(line, s);
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
  if (!across && !reader.scales()) {
    for (std::ptrdiff_t line = 0; line < a.lines.count; ++line)
      detail::copy_line<Arch>(reader, line, packed + line * steps);
    return;
  }
  for (std::ptrdiff_t line = 0; line < a.lines.count; line += n)
    for (std::ptrdiff_t step = 0; step < steps; step += n) {
      if (across && reader.is_plain_square(line, step, true)) {
        detail::transpose_square<Arch>(reader, line, step, true, packed + line * steps + step,
                                       steps);
        continue;
      }
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
      T* const to = panels + begin * steps + step * width + j;
      if (!across && reader.is_plain_square(begin + j, step, false))
        return detail::transpose_square<Arch>(reader, begin + j, step, false,
                                              reinterpret_cast<E*>(to), width);
      typename Reader::V v[static_cast<std::size_t>(n)];
      detail::read_square<Arch>(reader, begin + j, step, across, true, v);
      for (std::ptrdiff_t i = 0; i < n && step + i < steps; ++i) store<Arch>(to + i * width, v[i]);
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

PARE_ABI_END
}  // namespace pare::kernel

#include <pare/core/macros_on.hpp>
