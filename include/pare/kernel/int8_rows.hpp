// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Rows rounded to bytes with a scale each.

#include <pare/core/macros_off.hpp>

#include <pare/kernel/partial_register.hpp>

#include <cstddef>
#include <cstdint>
#include <limits>

namespace pare::kernel {

/// The longest row of bytes whose products, 255 x 127 each, are summed in 32 bits.
inline constexpr std::ptrdiff_t most_int8_dim = 65535;

/// scale_r = max_i |x_ri| / 127 and code_ri = x_ri / scale_r, rounded to nearest, ties to even.
///
/// A row whose scale would be below the smallest normal float gets codes and a scale of 0, one with
/// a NaN or an infinity codes of 0 and a scale that is NaN.
///
/// Cost: x is read once from memory and once from L1; a division a register binds.
template <StorageScalar S>
requires std::is_same_v<compute_t<S>, float>
struct QuantizeInt8Rows {
  const S* x = nullptr;  ///< [rows x columns], rows contiguous
  std::ptrdiff_t x_stride = 0;
  std::int8_t* codes = nullptr;  ///< [rows x columns], written
  std::ptrdiff_t codes_stride = 0;
  float* scales = nullptr;  ///< [rows], written
  std::ptrdiff_t rows = 0;
  std::ptrdiff_t columns = 0;
};

PARE_ABI_BEGIN

/// The scale of a row whose largest number is `largest`.
PARE_ALWAYS_INLINE float int8_scale(float largest) noexcept {
  const float scale = largest / 127;
  return scale < std::numeric_limits<float>::min() ? 0 : scale;
}

PARE_ABI_END
namespace detail {
PARE_ABI_BEGIN

/// The largest size of a row's numbers, or NaN if one is not finite.
template <class Arch, class S>
float largest_of_row(const S* x, std::ptrdiff_t columns) noexcept {
  using V = vec<float, Arch>;
  const V zero = broadcast<Arch>(0.0f);
  V largest = zero, zeros = zero;
  const auto take = [&](V v) PARE_LAMBDA_INLINE {
    largest = maximum<Arch>(largest, maximum<Arch>(v, zero - v));
    zeros = zeros + v * zero;  // NaN of an infinity, too
  };
  for_row<lanes<float, Arch>>(
      columns, [&](std::ptrdiff_t i) PARE_LAMBDA_INLINE { take(load_widened<Arch>(x + i)); },
      [&](std::ptrdiff_t i, std::ptrdiff_t count)
          PARE_LAMBDA_INLINE { take(load_first<Arch>(x + i, count, 0.0f)); });
  return any_nan(zeros) ? std::numeric_limits<float>::quiet_NaN() : reduce_max<Arch>(largest);
}

/// The low bytes of numbers of size 127 at most, rounded: those of the sum's bits.
template <class Arch>
PARE_ALWAYS_INLINE void store_rounded_bytes(std::int8_t* out, std::ptrdiff_t count,
                                            vec<float, Arch> v) noexcept {
  constexpr std::ptrdiff_t n = lanes<float, Arch>;
  std::int32_t bits[static_cast<std::size_t>(n)];
  store<Arch>(static_cast<std::int32_t*>(bits),
              bits_as<vec<std::int32_t, Arch>>(vec<float, Arch>(v + broadcast<Arch>(0x1.8p23f))));
  for (std::ptrdiff_t i = 0; i < count; ++i) out[i] = static_cast<std::int8_t>(bits[i]);
}

PARE_ABI_END
}  // namespace detail
PARE_ABI_BEGIN

template <class Arch, class S>
void run_kernel(Arch, const QuantizeInt8Rows<S>& a) noexcept {
  constexpr std::ptrdiff_t n = lanes<float, Arch>;
  for (std::ptrdiff_t r = 0; r < a.rows; ++r) {
    const S* const x = a.x + r * a.x_stride;
    std::int8_t* const codes = a.codes + r * a.codes_stride;
    const float scale = int8_scale(detail::largest_of_row<Arch>(x, a.columns));
    a.scales[r] = scale;
    if (!(scale > 0)) {
      for (std::ptrdiff_t i = 0; i < a.columns; ++i) codes[i] = 0;
      continue;
    }
    const vec<float, Arch> divisor = broadcast<Arch>(scale);
    for_row<n>(
        a.columns,
        [&](std::ptrdiff_t i) PARE_LAMBDA_INLINE {
          detail::store_rounded_bytes<Arch>(codes + i, n, load_widened<Arch>(x + i) / divisor);
        },
        [&](std::ptrdiff_t i, std::ptrdiff_t count) PARE_LAMBDA_INLINE {
          detail::store_rounded_bytes<Arch>(codes + i, count,
                                            load_first<Arch>(x + i, count, 0.0f) / divisor);
        });
  }
}

PARE_ABI_END
}  // namespace pare::kernel

#include <pare/core/macros_on.hpp>
