// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Scalars: float, double, and 16-bit storage types for data that is large.
///
/// ```cpp
/// const pare::bf16 weight(0.1f);                  // rounded to nearest, ties to even
/// const float wide = static_cast<float>(weight);  // 0.10009765625
/// static_assert(std::is_same_v<pare::compute_t<pare::bf16>, float>);
/// ```
///
/// `bf16` and `f16` hold bits and convert; arithmetic happens in float. They have the layout of
/// `Eigen::bfloat16` and `Eigen::half` and convert to and from them by static_cast (a signalling
/// NaN becomes quiet); views of Eigen's types are accepted wherever views of ours are
/// (tensor_view.hpp).

#include <pare/core/macros_off.hpp>

#include <pare/core/config.hpp>

#include <bit>
#include <cstdint>
#include <type_traits>

namespace pare {

namespace detail {
PARE_ABI_BEGIN

/// Rounds to nearest, ties to even; a NaN stays a NaN and becomes quiet.
constexpr std::uint16_t float_to_bf16_bits(float value) noexcept {
  const std::uint32_t bits = std::bit_cast<std::uint32_t>(value);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return static_cast<std::uint16_t>((bits >> 16) | 0x40u);
  const std::uint32_t rounding = 0x7fffu + ((bits >> 16) & 1u);
  return static_cast<std::uint16_t>((bits + rounding) >> 16);
}

constexpr float bf16_bits_to_float(std::uint16_t bits) noexcept {
  return std::bit_cast<float>(std::uint32_t{bits} << 16);
}

/// Rounds to nearest, ties to even; overflow gives infinity, small values become subnormal.
constexpr std::uint16_t float_to_f16_bits(float value) noexcept {
  const std::uint32_t bits = std::bit_cast<std::uint32_t>(value);
  const std::uint32_t sign = (bits >> 16) & 0x8000u;
  const std::uint32_t magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u)
    return static_cast<std::uint16_t>(sign | 0x7e00u | ((magnitude >> 13) & 0x1ffu));
  if (magnitude >= 0x47800000u) return static_cast<std::uint16_t>(sign | 0x7c00u);
  if (magnitude < 0x38800000u) {
    // Adding 0.5 aligns the last bit of a half subnormal with the last bit of the float sum, so
    // the addition itself rounds to nearest even.
    const float aligned = std::bit_cast<float>(magnitude) + 0.5f;
    return static_cast<std::uint16_t>(sign | (std::bit_cast<std::uint32_t>(aligned) - 0x3f000000u));
  }
  const std::uint32_t rebiased = magnitude - 0x38000000u;
  return static_cast<std::uint16_t>(sign | ((rebiased + 0xfffu + ((rebiased >> 13) & 1u)) >> 13));
}

constexpr float f16_bits_to_float(std::uint16_t bits) noexcept {
  const std::uint32_t sign = (std::uint32_t{bits} & 0x8000u) << 16;
  const std::uint32_t magnitude = bits & 0x7fffu;
  if (magnitude >= 0x7c00u)
    return std::bit_cast<float>(sign | 0x7f800000u | ((magnitude & 0x3ffu) << 13));
  if (magnitude >= 0x0400u) return std::bit_cast<float>(sign | ((magnitude << 13) + 0x38000000u));
  const float subnormal = static_cast<float>(magnitude) * 0x1p-24f;
  return std::bit_cast<float>(sign | std::bit_cast<std::uint32_t>(subnormal));
}

PARE_ABI_END
}  // namespace detail

// may_alias: views read and write Eigen's 16-bit scalars through these two types, which the
// optimiser would otherwise take for separate memory.

/// bfloat16 storage: the upper half of a float, 8 bits of significand (one of them implicit).
struct [[gnu::may_alias]] bf16 {
  std::uint16_t bits = 0;

  constexpr bf16() noexcept = default;
  /// Rounds to nearest, ties to even.
  constexpr explicit bf16(float value) noexcept : bits(detail::float_to_bf16_bits(value)) {}
  /// The same value, exactly.
  constexpr explicit operator float() const noexcept { return detail::bf16_bits_to_float(bits); }

  /// The number that has these bits.
  static constexpr bf16 from_bits(std::uint16_t b) noexcept {
    bf16 x;
    x.bits = b;
    return x;
  }
};

/// IEEE 754 binary16 storage: 11 bits of significand (one of them implicit), largest finite value
/// 65504.
struct [[gnu::may_alias]] f16 {
  std::uint16_t bits = 0;

  constexpr f16() noexcept = default;
  /// Rounds to nearest, ties to even; beyond the range gives infinity.
  constexpr explicit f16(float value) noexcept : bits(detail::float_to_f16_bits(value)) {}
  /// The same value, exactly.
  constexpr explicit operator float() const noexcept { return detail::f16_bits_to_float(bits); }

  /// The number that has these bits.
  static constexpr f16 from_bits(std::uint16_t b) noexcept {
    f16 x;
    x.bits = b;
    return x;
  }
};

/// Types that kernels compute in.
template <class T>
concept ComputeScalar = std::is_same_v<T, float> || std::is_same_v<T, double>;

/// Types that data may be stored in.
template <class T>
concept StorageScalar = ComputeScalar<T> || std::is_same_v<T, bf16> || std::is_same_v<T, f16>;

namespace detail {
template <class T>
struct compute_type {
  using type = float;
};
template <>
struct compute_type<double> {
  using type = double;
};
}  // namespace detail

/// What a storage scalar is computed in: double for double, float for everything else.
template <StorageScalar T>
using compute_t = typename detail::compute_type<T>::type;

PARE_ABI_BEGIN

/// Whether x is NaN, judged on the bits: no compiler flag can assume it away.
template <ComputeScalar T>
constexpr bool is_nan(T x) noexcept {
  if constexpr (std::is_same_v<T, double>)
    return (std::bit_cast<std::uint64_t>(x) & 0x7fffffffffffffffu) > 0x7ff0000000000000u;
  else
    return (std::bit_cast<std::uint32_t>(x) & 0x7fffffffu) > 0x7f800000u;
}

PARE_ABI_END
}  // namespace pare

#include <pare/core/macros_on.hpp>
