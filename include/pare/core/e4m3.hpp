// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Float8 e4m3fn: one byte of sign, 4 bits of exponent and 3 of significand, as storage for rows
/// that have scales beside them.
///
/// ```cpp
/// const pare::e4m3 code(0.3f);                   // 0.3125, the nearest
/// const float value = static_cast<float>(code);  // exactly
/// ```
///
/// | code | value |
/// |---|---|
/// | 0x00, 0x80 | 0, -0 |
/// | 0x01 to 0x07 | code 2^-9, subnormal |
/// | 0x08 to 0x7e | (1 + m / 8) 2^(e - 7), from 2^-6 to 448 |
/// | 0x7f, 0xff | NaN; there is no infinity |
///
/// It is no StorageScalar: 4 bits of significand need a scale, and what reads them is
/// `kernel/e4m3_rows.hpp`. Source: Micikevicius et al., "FP8 formats for deep learning", 2022,
/// section 3. Saturation, where conversions of others may give NaN, is that paper's and ONNX's
/// default.

#include <pare/core/macros_off.hpp>

#include <pare/core/config.hpp>

#include <bit>
#include <cstdint>

namespace pare {

namespace detail {
PARE_ABI_BEGIN

constexpr float e4m3_bits_to_float(std::uint8_t code) noexcept {
  const std::uint32_t sign = (std::uint32_t{code} & 0x80u) << 24;
  const std::uint32_t magnitude = code & 0x7fu;
  if (magnitude == 0x7fu) return std::bit_cast<float>(sign | 0x7fc00000u);
  if (magnitude >= 8) return std::bit_cast<float>(sign | ((magnitude << 20) + (120u << 23)));
  const float subnormal = static_cast<float>(magnitude) * 0x1p-9f;
  return std::bit_cast<float>(sign | std::bit_cast<std::uint32_t>(subnormal));
}

/// Rounds to nearest, ties to even; beyond 448, infinity included, gives 448; a NaN stays one.
constexpr std::uint8_t float_to_e4m3_bits(float value) noexcept {
  const std::uint32_t bits = std::bit_cast<std::uint32_t>(value);
  const std::uint32_t sign = (bits >> 24) & 0x80u;
  const std::uint32_t magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u) return static_cast<std::uint8_t>(sign | 0x7fu);
  if (magnitude >= 0x43e00000u) return static_cast<std::uint8_t>(sign | 0x7eu);
  if (magnitude < 0x3c800000u) {
    // The last bit of 2^14 is 2^-9, the step of subnormals: the addition rounds to nearest even.
    const float aligned = std::bit_cast<float>(magnitude) + 0x1p14f;
    return static_cast<std::uint8_t>(sign | (std::bit_cast<std::uint32_t>(aligned) - 0x46800000u));
  }
  const std::uint32_t rebiased = magnitude - (120u << 23);
  return static_cast<std::uint8_t>(sign | ((rebiased + 0x7ffffu + ((rebiased >> 20) & 1u)) >> 20));
}

PARE_ABI_END
}  // namespace detail

/// Float8 e4m3fn storage; arithmetic happens in float.
struct e4m3 {
  std::uint8_t bits = 0;

  constexpr e4m3() noexcept = default;
  /// Rounds to nearest, ties to even; beyond 448 gives 448 with the sign; a NaN stays one.
  constexpr explicit e4m3(float value) noexcept : bits(detail::float_to_e4m3_bits(value)) {}
  /// The same value, exactly.
  constexpr explicit operator float() const noexcept { return detail::e4m3_bits_to_float(bits); }

  /// The number that has these bits.
  static constexpr e4m3 from_bits(std::uint8_t b) noexcept {
    e4m3 x;
    x.bits = b;
    return x;
  }
};
static_assert(sizeof(e4m3) == 1);

/// The largest e4m3.
inline constexpr float largest_e4m3 = 448;

}  // namespace pare

#include <pare/core/macros_on.hpp>
