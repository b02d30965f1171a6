// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// The dtypes of .safetensors files: their sizes, the scalars that are viewed as them, and the
/// values of the 8-bit floats.
///
/// Source: the reference implementation's list; 8-bit floats: Micikevicius et al., FP8 formats for
/// deep learning, 2022.

#include <pare/core/check.hpp>
#include <pare/core/scalar.hpp>
#include <pare/io/detail/elements.hpp>
#include <pare/io/detail/place.hpp>
#include <pare/io/detail/shape.hpp>

#include <array>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <numeric>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

namespace pare::io {

/// Scalars with a dtype: float, double, f16, bf16, bool, and integers of 8 to 64 bits. Character
/// types are text and have none.
template <class T>
concept SafetensorsScalar = detail::PlainNumber<T> || std::same_as<T, bf16>;

namespace detail {
PARE_ABI_BEGIN

struct SafetensorsDtype {
  std::string_view name;
  int bits;  ///< of an element
};

inline constexpr std::array<SafetensorsDtype, 22> safetensors_dtypes{
    {{"F64", 64},    {"F32", 32},        {"F16", 16},        {"BF16", 16},   {"I64", 64},
     {"I32", 32},    {"I16", 16},        {"I8", 8},          {"U64", 64},    {"U32", 32},
     {"U16", 16},    {"U8", 8},          {"BOOL", 8},        {"F8_E4M3", 8}, {"F8_E5M2", 8},
     {"F8_E8M0", 8}, {"F8_E4M3FNUZ", 8}, {"F8_E5M2FNUZ", 8}, {"F6_E2M3", 6}, {"F6_E3M2", 6},
     {"F4", 4},      {"C64", 64}}};

/// The dtype of T.
template <SafetensorsScalar T>
constexpr std::string_view safetensors_dtype() {
  if (std::is_same_v<T, bool>) return "BOOL";
  if (std::is_same_v<T, bf16>) return "BF16";
  if (std::is_same_v<T, f16>) return "F16";
  constexpr char kind = std::is_floating_point_v<T> ? 'F' : std::is_signed_v<T> ? 'I' : 'U';
  for (const SafetensorsDtype& d : safetensors_dtypes)
    if (d.name[0] == kind && d.bits == 8 * static_cast<int>(sizeof(T))) return d.name;
  return {};
}

/// Bits of an element; refused if the format has no such dtype.
inline int safetensors_bits(const Place& place, std::string_view dtype) {
  std::string wanted;
  for (const SafetensorsDtype& d : safetensors_dtypes) {
    if (d.name == dtype) return d.bits;
    wanted += (wanted.empty() ? "" : ", ") + std::string(d.name);
  }
  place.refuse("dtype '" + excerpt(dtype) + "'", "one of " + wanted);
}

/// The bytes that a shape and a dtype stand for; refused if the last one would not be full.
inline std::size_t safetensors_bytes(const Place& place, std::string_view dtype,
                                     const std::vector<Index>& shape) {
  const int bits = safetensors_bits(place, dtype);
  const Index count = element_count(place, shape);
  // The fewest elements that fill whole bytes: 1, or 2 of 4 bits, or 4 of 6 bits.
  const int group = 8 / std::gcd(8, bits);
  if (count % group != 0)
    place.refuse(std::to_string(count) + " elements of " + std::to_string(bits) + " bits",
                 "elements that fill whole bytes");
  return static_cast<std::size_t>(checked_product(place.function, place.source.c_str(),
                                                  count / group, Index{group} * bits / 8));
}

/// S.EEEE.MMM with bias 7 is S.EEEEE.MMM of f16 times 2^8; all ones are NaN, there is no infinity.
constexpr float e4m3_to_float(std::uint8_t bits) noexcept {
  const auto sign = static_cast<std::uint16_t>((bits & 0x80u) << 8);
  const unsigned magnitude = bits & 0x7fu;
  if (magnitude == 0x7fu)
    return pare::detail::f16_bits_to_float(static_cast<std::uint16_t>(sign | 0x7e00u));
  return pare::detail::f16_bits_to_float(static_cast<std::uint16_t>(sign | (magnitude << 7))) *
         256.0f;
}

/// S.EEEEE.MM is the upper byte of f16, infinity and NaN included.
constexpr float e5m2_to_float(std::uint8_t bits) noexcept {
  return pare::detail::f16_bits_to_float(static_cast<std::uint16_t>(bits << 8));
}

/// An 8-bit float of either kind; as a float, exactly.
template <float (*ToFloat)(std::uint8_t) noexcept>
struct Float8 {
  std::uint8_t bits;
  explicit operator float() const { return values[bits]; }

 private:
  static constexpr std::array<float, 256> values = [] {
    std::array<float, 256> all{};
    for (std::size_t b = 0; b < all.size(); ++b) all[b] = ToFloat(static_cast<std::uint8_t>(b));
    return all;
  }();
};
using E4m3 = Float8<e4m3_to_float>;
using E5m2 = Float8<e5m2_to_float>;

PARE_ABI_END
}  // namespace detail

}  // namespace pare::io
