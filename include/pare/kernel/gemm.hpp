// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// The register-tiled product that attention, draft heads and factorizations run on.
///
/// A tile of C, `Rows` x (`Registers` registers), stays in registers while the depth runs:
/// C += A B. For each step of the depth, one element of each row of A is broadcast, and a row of B
/// is loaded into `Registers` registers. B is packed in panels as wide as the tile (pack.hpp), so
/// that it is read in one stream.
///
/// Register budget of the full tile: AVX-512 and NEON 6 x 4 sums, 4 of B, 1 of A = 29 of 32; AVX2
/// and SSE2 6 x 2 sums, 2 of B, 1 of A = 15 of 16.

#include <pare/core/macros_off.hpp>

#include <pare/kernel/simd.hpp>

#include <bit>
#include <cstddef>
#include <cstdint>
#include <type_traits>
#include <utility>

namespace pare::kernel {

/// Two neighbouring bf16 along the depth: the element of native bf16 products.
struct [[gnu::may_alias]] Bf16Pair {
  std::uint32_t bits = 0;
};

/// Four neighbouring bytes along the depth, without a sign in A and with one in B: the element of
/// products where an arch multiplies_bytes.
struct [[gnu::may_alias]] ByteQuad {
  std::uint32_t bits = 0;
};

/// Two neighbouring words with sign along the depth: the element of bytes where they are not
/// multiplied in fours.
struct [[gnu::may_alias]] WordPair {
  std::uint32_t bits = 0;
};

/// What products of an element are summed in, and how many of the depth an element holds.
template <class E>
struct product {
  using sum = E;
  static constexpr std::ptrdiff_t depth = 1;
};
template <>
struct product<Bf16Pair> {
  using sum = float;
  static constexpr std::ptrdiff_t depth = 2;
};

template <>
struct product<ByteQuad> {
  using sum = std::int32_t;
  static constexpr std::ptrdiff_t depth = 4;
};

template <>
struct product<WordPair> {
  using sum = std::int32_t;
  static constexpr std::ptrdiff_t depth = 2;
};

/// Elements of E that `depth` scalars take.
template <class E>
constexpr std::ptrdiff_t steps_of(std::ptrdiff_t depth) noexcept {
  return (depth + product<E>::depth - 1) / product<E>::depth;
}

/// What storage scalars S are multiplied as on Arch: pairs where bf16 products are native, and
/// `compute_t<S>` elsewhere. Packed operands of both are kept in arrays of `compute_t<S>`.
template <StorageScalar S, class Arch>
using element_t =
    std::conditional_t<std::is_same_v<S, bf16> && Arch::has_bf16_dot, Bf16Pair, compute_t<S>>;

/// Rows of the full tile.
inline constexpr int tile_rows = 6;

/// Rows of the next tile when `left` are to go: at most `most`, and the last tiles alike, since one
/// of a row or two keeps the multiplier waiting.
constexpr int next_group(std::ptrdiff_t left, std::ptrdiff_t most = tile_rows) noexcept {
  const std::ptrdiff_t groups = (left + most - 1) / most;
  return static_cast<int>((left + groups - 1) / groups);
}

/// What a tile of C starts from, before products are added.
enum class TileStart : unsigned char {
  Zero,
  Sum,     ///< C
  Scaled,  ///< scale[row] C
};

/// C = start + A B for one tile.
template <class E>
struct TileCall {
  using T = typename product<E>::sum;

  const E* a = nullptr;
  std::ptrdiff_t a_stride = 0;
  const E* b = nullptr;  ///< a panel as wide as the tile, or wider
  std::ptrdiff_t steps = 0;
  T* c = nullptr;
  std::ptrdiff_t c_stride = 0;
  TileStart start = TileStart::Zero;
  const T* scale = nullptr;     ///< [rows], for TileStart::Scaled
  std::ptrdiff_t b_stride = 0;  ///< width of the panel; 0: that of the tile
  T* largest = nullptr;  ///< [rows x lanes]: raised to the largest of C in each lane; or null
};

PARE_ABI_BEGIN

/// Registers in a row of the full tile.
template <class Arch>
inline constexpr int tile_registers = Arch::registers >= 32 ? 4 : 2;

/// Columns of the full tile, which are the columns of a panel.
template <class T, class Arch>
inline constexpr std::ptrdiff_t tile_columns = tile_registers<Arch> * lanes<T, Arch>;

/// The same where rows are lanes (attend_lanes.hpp), as many as a tile of them can take.
template <class Arch>
inline constexpr int lane_registers = Arch::registers >= 32 ? 2 : 1;
template <class T, class Arch>
inline constexpr std::ptrdiff_t lane_columns = lane_registers<Arch> * lanes<T, Arch>;

/// A register of panel elements; pairs travel as the bits of floats.
template <class Arch, class E>
PARE_TILE_INLINE vec<typename product<E>::sum, Arch> load_elements(const E* p) noexcept {
  return load<Arch>(reinterpret_cast<const typename product<E>::sum*>(p));
}

/// c plus the products of the elements in each lane of a and b.
template <class Arch, class E, class V>
PARE_TILE_INLINE V multiply_vectors(V a, V b, V c) noexcept {
  if constexpr (std::is_same_v<E, Bf16Pair>)
    return multiply_add_pairs<Arch>(a, b, c);
  else if constexpr (std::is_same_v<E, ByteQuad>)
    return add_byte_products<Arch>(c, a, b);
  else if constexpr (std::is_same_v<E, WordPair>)
    return add_word_products<Arch>(c, a, b);
  else
    return multiply_add<Arch>(a, b, c);
}

/// The same for one element a.
template <class Arch, class E, class V>
PARE_TILE_INLINE V multiply_elements(E a, V b, V c) noexcept {
  if constexpr (std::is_same_v<E, Bf16Pair>)
    return multiply_vectors<Arch, E>(broadcast<Arch>(std::bit_cast<float>(a.bits)), b, c);
  else if constexpr (std::is_same_v<E, ByteQuad> || std::is_same_v<E, WordPair>)
    return multiply_vectors<Arch, E>(broadcast<Arch>(static_cast<std::int32_t>(a.bits)), b, c);
  else
    return multiply_vectors<Arch, E>(broadcast<Arch>(a), b, c);
}

/// A tile of sums. Members are reached through compile-time indices only, or g++ keeps them in
/// memory.
template <class T, class Arch, int Rows, int Registers>
struct RegisterTile {
  static constexpr int rows = Rows;
  static constexpr int registers = Registers;
  static constexpr std::ptrdiff_t n = lanes<T, Arch>;

  vec<T, Arch> sum[Rows][Registers];

  /// f(row, register) for each, unrolled at any optimisation level unless a sanitizer is on.
  template <class F>
  PARE_TILE_INLINE static void each(const F& f) noexcept {
#if PARE_SANITIZED
    for (int r = 0; r < Rows; ++r)
      for (int i = 0; i < Registers; ++i) f(r, i);
#else
    [&]<std::size_t... I>(std::index_sequence<I...>) PARE_LAMBDA_INLINE {
      (f(static_cast<int>(I) / Registers, static_cast<int>(I) % Registers), ...);
    }(std::make_index_sequence<std::size_t(Rows) * std::size_t(Registers)>{});
#endif
  }

  PARE_TILE_INLINE void clear() noexcept {
    each([&](int r, int c) PARE_LAMBDA_INLINE { sum[r][c] = broadcast<Arch>(T(0)); });
  }

  /// sum = C
  PARE_TILE_INLINE void load(const T* c, std::ptrdiff_t stride) noexcept {
    each([&](int r, int i)
             PARE_LAMBDA_INLINE { sum[r][i] = kernel::load<Arch>(c + r * stride + i * n); });
  }

  /// sum = scale[row] * C
  PARE_TILE_INLINE void load_scaled(const T* c, std::ptrdiff_t stride, const T* scale) noexcept {
    each([&](int r, int i) PARE_LAMBDA_INLINE {
      sum[r][i] = broadcast<Arch>(scale[r]) * kernel::load<Arch>(c + r * stride + i * n);
    });
  }

  PARE_TILE_INLINE void store_to(T* c, std::ptrdiff_t stride) const noexcept {
    each([&](int r, int i) PARE_LAMBDA_INLINE { store<Arch>(c + r * stride + i * n, sum[r][i]); });
  }

  /// largest[row] = max(largest[row], sum[row]) of each lane.
  PARE_TILE_INLINE void raise(T* largest) const noexcept {
    each([&](int r, int i) PARE_LAMBDA_INLINE {
      if (i > 0) return;
      vec<T, Arch> most = kernel::load<Arch>(static_cast<const T*>(largest) + r * n);
      [&]<std::size_t... I>(std::index_sequence<I...>) PARE_LAMBDA_INLINE {
        ((most = maximum<Arch>(most, sum[r][I])), ...);
      }(std::make_index_sequence<std::size_t(Registers)>{});
      store<Arch>(largest + r * n, most);
    });
  }

  /// sum += a b for one element of depth: of A the elements a[r * a_stride], of B a row in
  /// registers.
  template <class E>
  PARE_TILE_INLINE void multiply_step(const E* a, std::ptrdiff_t a_stride,
                                      const vec<T, Arch> (&b)[Registers]) noexcept {
    each([&](int r, int i) PARE_LAMBDA_INLINE {
      sum[r][i] = multiply_elements<Arch>(a[r * a_stride], b[i], sum[r][i]);
    });
  }

  /// sum += A B over `steps` elements of depth: A rows `a_stride` apart, B those of a panel
  /// `b_stride` wide.
  template <class E>
  PARE_TILE_INLINE void multiply(const E* a, std::ptrdiff_t a_stride, const E* b,
                                 std::ptrdiff_t b_stride, std::ptrdiff_t steps) noexcept {
    for (std::ptrdiff_t s = 0; s < steps; ++s) {
      [&]<std::size_t... I>(std::index_sequence<I...>) PARE_LAMBDA_INLINE {
        const vec<T, Arch> row[] = {load_elements<Arch>(b + static_cast<std::ptrdiff_t>(I) * n)...};
        multiply_step(a + s, a_stride, row);
      }(std::make_index_sequence<Registers>{});
      b += b_stride;
    }
  }
};

PARE_ABI_END

namespace detail {
PARE_ABI_BEGIN

/// The same pointer or stride, of which the compiler does not know that it is: it would keep the
/// addresses of a tile's registers from their loads to their stores, in more registers than there
/// are.
template <class T>
PARE_TILE_INLINE T renewed(T x) noexcept {
#if defined(__GNUC__)
  __asm__("" : "+r"(x));
#endif
  return x;
}

/// Arguments in registers: a tile waits for them after each one before it.
template <class E, class T = typename product<E>::sum>
using TileFunction = void(const E* a, std::ptrdiff_t a_stride, const E* b, std::ptrdiff_t steps,
                          T* c, std::ptrdiff_t c_stride, TileStart start, const T* scale,
                          std::ptrdiff_t b_stride, T* largest) noexcept;

template <class Arch, int Rows, int Registers, class E, class T>
void multiply_shape(const E* a, std::ptrdiff_t a_stride, const E* b, std::ptrdiff_t steps, T* c,
                    std::ptrdiff_t c_stride, TileStart start, const T* scale,
                    std::ptrdiff_t b_stride, T* largest) noexcept {
  RegisterTile<T, Arch, Rows, Registers> tile;
  if (start == TileStart::Zero)
    tile.clear();
  else if (start == TileStart::Sum)
    tile.load(c, c_stride);
  else
    tile.load_scaled(c, c_stride, scale);
  tile.multiply(a, a_stride, b, b_stride, steps);
  tile.store_to(renewed(c), renewed(c_stride));
  if (largest != nullptr) tile.raise(largest);
}

/// The shapes of up to tile_rows x tile_registers, by rows and then by registers.
template <class Arch, class E,
          class I =
              std::make_index_sequence<std::size_t(tile_rows) * std::size_t(tile_registers<Arch>)>>
struct TileShapes;
template <class Arch, class E, std::size_t... I>
struct TileShapes<Arch, E, std::index_sequence<I...>> {
  static constexpr std::size_t width = static_cast<std::size_t>(tile_registers<Arch>);
  static constexpr TileFunction<E>* run[] = {
      multiply_shape<Arch, static_cast<int>(I / width) + 1, static_cast<int>(I % width) + 1, E,
                     typename product<E>::sum>...};
};

PARE_ABI_END
}  // namespace detail

PARE_ABI_BEGIN

/// C = start + A B for a tile of rows x (`registers` registers), at most tile_rows x
/// tile_registers. Each shape is a function of its own, which whatever multiplies tiles shares: it
/// is compiled once, and a call costs a hundredth of the tile's time.
template <class Arch, class E>
PARE_ALWAYS_INLINE void multiply_tile(int rows, int registers, const TileCall<E>& x) noexcept {
  detail::TileShapes<Arch, E>::run[(rows - 1) * tile_registers<Arch> + registers - 1](
      x.a, x.a_stride, x.b, x.steps, x.c, x.c_stride, x.start, x.scale,
      x.b_stride != 0 ? x.b_stride : registers * lanes<typename TileCall<E>::T, Arch>, x.largest);
}

PARE_ABI_END

}  // namespace pare::kernel

#include <pare/core/macros_on.hpp>
