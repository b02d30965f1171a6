// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Rows of e4m3 codes with scales, as latent caches store them: made of numbers, and numbers again.
///
/// ```cpp
/// launch(backend, QuantizeE4m3Rows{.x = x, .codes = codes, .scales = scales, .rows = 1,
///                                  .columns = 512, .tile = 128, .power_of_two = true});
/// launch(backend, WidenE4m3Rows<bf16>{.codes = codes, .scales = scales, .out = row, .rows = 1,
///                                     .columns = 512, .tile = 128});  // code * scale
/// ```
///
/// Bits do not depend on the arch: a code is exact in float, each product is rounded once, and to
/// bf16 once more. Only where a scale is so small that products are subnormal may they, as all
/// subnormals of bf16, become 0 (store_rounded). Products of scales that are powers of two are
/// exact.

#include <pare/core/macros_off.hpp>

#include <pare/core/e4m3.hpp>
#include <pare/kernel/partial_register.hpp>

#include <bit>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <type_traits>

namespace pare::kernel {

/// out_ij = code_ij scale_i,j/tile, rounded to nearest where O has 16 bits. A NaN stays in its
/// place, a scale that is NaN in its tile. Cost: some 8 operations for a register, which bind;
/// bytes are read, and out is written, once.
template <StorageScalar O>
requires(!std::is_same_v<O, double>)
struct WidenE4m3Rows {
  const e4m3* codes = nullptr;  ///< [rows x columns]
  std::ptrdiff_t code_stride = 0;
  const float* scales = nullptr;  ///< [rows x ceil(columns / tile)]
  std::ptrdiff_t scale_stride = 0;
  O* out = nullptr;  ///< [rows x columns]
  std::ptrdiff_t out_stride = 0;
  std::ptrdiff_t rows = 0;
  std::ptrdiff_t columns = 0;
  std::ptrdiff_t tile = 0;  ///< columns that share a scale, at least 1; the last may be fewer
};

/// codes and scales of x: code = e4m3(x / scale) with the scale of a tile from its largest finite
/// |x|, a: with power_of_two 2^ceil(log2(max(a / 448, 1e-4))), the rule of DeepSeek-V3.2, else
/// max(a / 448, 2^-110). An infinity becomes 448 times the scale, a NaN stays one, and neither
/// counts for the scale. |x - code scale| is at most max(2^-4 |x|, 2^-10 scale) for finite x.
/// Cost: x is read twice, and divided.
struct QuantizeE4m3Rows {
  const float* x = nullptr;  ///< [rows x columns]
  std::ptrdiff_t x_stride = 0;
  e4m3* codes = nullptr;  ///< [rows x columns]
  std::ptrdiff_t code_stride = 0;
  float* scales = nullptr;  ///< [rows x ceil(columns / tile)]
  std::ptrdiff_t scale_stride = 0;
  std::ptrdiff_t rows = 0;
  std::ptrdiff_t columns = 0;
  std::ptrdiff_t tile = 0;  ///< at least 1
  bool power_of_two = false;
};

PARE_ABI_BEGIN

/// The scale of a tile whose largest finite magnitude this is.
constexpr float e4m3_scale(float largest, bool power_of_two) noexcept {
  const float least = power_of_two ? 1e-4f : 0x1p-110f;
  const float ratio = largest / largest_e4m3;
  const float scale = ratio > least ? ratio : least;
  if (!power_of_two) return scale;
  // The next power of two: carries into the exponent unless the significand is 0.
  return std::bit_cast<float>((std::bit_cast<std::uint32_t>(scale) + 0x7fffffu) & 0xff800000u);
}

PARE_ABI_END

namespace detail {
PARE_ABI_BEGIN

/// |x| of finite numbers, 0 of others.
template <class Arch>
PARE_ALWAYS_INLINE vec<float, Arch> finite_size(vec<float, Arch> x) noexcept {
  using F = vec<float, Arch>;
  constexpr float most = std::numeric_limits<float>::max();
  if constexpr (!is_batch<F>) {
    const float size = x < 0 ? -x : x;
    return size <= most ? size : 0;
  } else {
    using U = vec<std::uint32_t, Arch>;
    const F size = xsimd::bitwise_cast<F>(xsimd::bitwise_cast<U>(x) & U(0x7fffffffu));
    return xsimd::select(size <= F(most), size, F(0.0f));
  }
}

/// The numbers of the codes without a sign.
struct E4m3Magnitudes {
  static constexpr std::ptrdiff_t count = 128;
  float of[count] = {};

  constexpr E4m3Magnitudes() noexcept {
    for (std::uint8_t i = 0; i < count; ++i) of[i] = static_cast<float>(e4m3::from_bits(i));
  }
};
inline constexpr E4m3Magnitudes e4m3_magnitudes{};

/// The first codes of a tile by a table of all products with its scale, which pays for some dozens;
/// returns how many.
template <class Arch>
PARE_ALWAYS_INLINE std::ptrdiff_t look_up_tile(const e4m3* codes, float scale, bf16* out,
                                               std::ptrdiff_t columns) noexcept {
  constexpr std::ptrdiff_t least = 64, step = 32;
  if (columns < least) return 0;
  const std::ptrdiff_t count = columns / step * step;
  look_up_e4m3<Arch>(codes, count, e4m3_magnitudes.of, scale, out);
  return count;
}

/// One tile of a row.
template <class Arch, class O>
PARE_ALWAYS_INLINE void widen_tile(const e4m3* codes, float scale, O* out,
                                   std::ptrdiff_t columns) noexcept {
  if constexpr (std::is_same_v<O, bf16> && looks_up_e4m3<Arch>) {
    const std::ptrdiff_t done = look_up_tile<Arch>(codes, scale, out, columns);
    codes += done;
    out += done;
    columns -= done;
  }
  constexpr std::ptrdiff_t n = lanes<float, Arch>;
  const auto s = broadcast<Arch>(scale);
  for_row<n>(
      columns,
      [&](std::ptrdiff_t i)
          PARE_LAMBDA_INLINE { store_narrowed<Arch>(out + i, load_e4m3<Arch>(codes + i) * s); },
      [&](std::ptrdiff_t i, std::ptrdiff_t count) PARE_LAMBDA_INLINE {
        e4m3 rest[static_cast<std::size_t>(n)];
        for (std::ptrdiff_t k = 0; k < count; ++k) rest[k] = codes[i + k];
        store_first<Arch>(out + i, count, load_e4m3<Arch>(static_cast<const e4m3*>(rest)) * s);
      });
}

template <class Arch>
PARE_ALWAYS_INLINE float largest_finite(const float* x, std::ptrdiff_t columns) noexcept {
  constexpr std::ptrdiff_t n = lanes<float, Arch>;
  auto largest = broadcast<Arch>(0.0f);
  for_row<n>(
      columns,
      [&](std::ptrdiff_t i) PARE_LAMBDA_INLINE {
        largest = maximum<Arch>(finite_size<Arch>(load<Arch>(x + i)), largest);
      },
      [&](std::ptrdiff_t i, std::ptrdiff_t count) PARE_LAMBDA_INLINE {
        largest = maximum<Arch>(finite_size<Arch>(load_first<Arch>(x + i, count, 0.0f)), largest);
      });
  return reduce_max<Arch>(largest);
}

template <class Arch>
PARE_ALWAYS_INLINE void narrow_tile(const float* x, float scale, e4m3* codes,
                                    std::ptrdiff_t columns) noexcept {
  constexpr std::ptrdiff_t n = lanes<float, Arch>;
  const auto s = broadcast<Arch>(scale);
  for_row<n, true>(
      columns,
      [&](std::ptrdiff_t i)
          PARE_LAMBDA_INLINE { store_e4m3<Arch>(codes + i, load<Arch>(x + i) / s); },
      [&](std::ptrdiff_t i, std::ptrdiff_t count) PARE_LAMBDA_INLINE {
        e4m3 rest[static_cast<std::size_t>(n)];
        store_e4m3<Arch>(static_cast<e4m3*>(rest), load_first<Arch>(x + i, count, 0.0f) / s);
        for (std::ptrdiff_t k = 0; k < count; ++k) codes[i + k] = rest[k];
      });
}

/// Calls body(tile, first column, columns of it).
template <class Body>
PARE_ALWAYS_INLINE void for_tiles(std::ptrdiff_t columns, std::ptrdiff_t tile,
                                  const Body& body) noexcept {
  for (std::ptrdiff_t j = 0, t = 0; j < columns; j += tile, ++t)
    body(t, j, columns - j < tile ? columns - j : tile);
}

PARE_ABI_END
}  // namespace detail
PARE_ABI_BEGIN

template <class Arch, class O>
void run_kernel(Arch, const WidenE4m3Rows<O>& a) noexcept {
  for (std::ptrdiff_t r = 0; r < a.rows; ++r) {
    const e4m3* const codes = a.codes + r * a.code_stride;
    const float* scale = a.scales + r * a.scale_stride;
    // Neighbours of one scale, as powers of two often are, are one tile.
    for (std::ptrdiff_t begin = 0, end = 0; begin < a.columns; begin = end, ++scale) {
      end = a.columns - begin < a.tile ? a.columns : begin + a.tile;
      for (; end < a.columns && scale[1] == scale[0]; ++scale)
        end = a.columns - end < a.tile ? a.columns : end + a.tile;
      detail::widen_tile<Arch>(codes + begin, *scale, a.out + r * a.out_stride + begin,
                               end - begin);
    }
  }
}

template <class Arch>
void run_kernel(Arch, const QuantizeE4m3Rows& a) noexcept {
  for (std::ptrdiff_t r = 0; r < a.rows; ++r)
    detail::for_tiles(a.columns, a.tile,
                      [&](std::ptrdiff_t t, std::ptrdiff_t j, std::ptrdiff_t n) PARE_LAMBDA_INLINE {
                        const float* const x = a.x + r * a.x_stride + j;
                        const float scale =
                            e4m3_scale(detail::largest_finite<Arch>(x, n), a.power_of_two);
                        a.scales[r * a.scale_stride + t] = scale;
                        detail::narrow_tile<Arch>(x, scale, a.codes + r * a.code_stride + j, n);
                      });
}

PARE_ABI_END
}  // namespace pare::kernel

#include <pare/core/macros_on.hpp>
