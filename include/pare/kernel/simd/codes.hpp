// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Operations of the vector layer on codes of few bits: look-ups, bytes, e4m3, nibbles, halves.
///
/// ```cpp
/// const vec<float, Arch> x = load_signed_bytes<Arch>(bytes);
/// const auto table = hold_table<Arch, 64>(floats);              // where holds_tables<Arch>
/// const vec<float, Arch> y = look_up_held<Arch>(table, places);
/// ```

#include <pare/core/macros_off.hpp>

#include <pare/core/e4m3.hpp>
#include <pare/kernel/simd/archs.hpp>

#include <cstddef>
#include <cstdint>

namespace pare::kernel {
namespace detail {
PARE_ABI_BEGIN

template <class Arch, class T, class I>
PARE_ALWAYS_INLINE vec<T, Arch> generic_look_up(const T* table, const I* places) noexcept {
  constexpr std::ptrdiff_t n = lanes<T, Arch>;
  T values[static_cast<std::size_t>(n)];
  for (std::ptrdiff_t i = 0; i < n; ++i) values[i] = table[places[i]];
  return load<Arch>(static_cast<const T*>(values));
}

template <class Arch>
PARE_ALWAYS_INLINE vec<float, Arch> generic_load_signed_bytes(const std::int8_t* p) noexcept {
  constexpr std::ptrdiff_t n = lanes<float, Arch>;
  float values[static_cast<std::size_t>(n)];
  for (std::ptrdiff_t i = 0; i < n; ++i) values[i] = static_cast<float>(p[i]);
  return load<Arch>(static_cast<const float*>(values));
}

template <class Arch>
PARE_ALWAYS_INLINE vec<float, Arch> generic_load_e4m3(const e4m3* p) noexcept {
  using F = vec<float, Arch>;
  if constexpr (!is_batch<F>) {
    return static_cast<float>(*p);
  } else {
    using U = vec<std::uint32_t, Arch>;
    std::uint32_t codes[static_cast<std::size_t>(lanes<float, Arch>)];
    for (std::ptrdiff_t i = 0; i < lanes<float, Arch>; ++i) codes[i] = p[i].bits;
    const U code = load<Arch>(static_cast<const std::uint32_t*>(codes));
    const F t = xsimd::bitwise_cast<F>(((code & U(0x7fu)) << 20) + U(120u << 23));
    // Of exponent 0 this is 2^-7 (1 + m / 8), and m 2^-9 twice that, less 2^-6: no rounding.
    const F value = xsimd::select(t < F(0x1p-6f), (t + t) - F(0x1p-6f), t);
    const F number = xsimd::select(t > F(largest_e4m3), F(__builtin_nanf("")), value);
    return xsimd::bitwise_cast<F>(xsimd::bitwise_cast<U>(number) | ((code & U(0x80u)) << 24));
  }
}

/// As pare::detail::float_to_e4m3_bits; codes are chosen as floats, for which every arch compares.
template <class Arch>
PARE_ALWAYS_INLINE void generic_store_e4m3(e4m3* p, vec<float, Arch> v) noexcept {
  using F = vec<float, Arch>;
  if constexpr (!is_batch<F>) {
    *p = e4m3(v);
  } else {
    using U = vec<std::uint32_t, Arch>;
    const auto as_float = [](U x) PARE_LAMBDA_INLINE { return xsimd::bitwise_cast<F>(x); };
    const U bits = xsimd::bitwise_cast<U>(v), magnitude = bits & U(0x7fffffffu);
    const F size = as_float(magnitude);
    const U subnormal = xsimd::bitwise_cast<U>(size + F(0x1p14f)) - U(0x46800000u);
    const U rebiased = magnitude - U(120u << 23);
    const U normal = (rebiased + U(0x7ffffu) + ((rebiased >> 20) & U(1u))) >> 20;
    F code = xsimd::select(size < F(0x1p-6f), as_float(subnormal), as_float(normal));
    code = xsimd::select(size < F(largest_e4m3), code, as_float(U(0x7eu)));
    // Of a NaN that is 0x7e, and with the last bit a NaN.
    const U nan = (magnitude + U(0x7fffffu)) >> 31;
    const U signed_code = xsimd::bitwise_cast<U>(code) | nan | ((bits >> 24) & U(0x80u));
    std::uint32_t codes[static_cast<std::size_t>(lanes<float, Arch>)];
    store<Arch>(static_cast<std::uint32_t*>(codes), signed_code);
    for (std::ptrdiff_t i = 0; i < lanes<float, Arch>; ++i)
      p[i].bits = static_cast<std::uint8_t>(codes[i]);
  }
}

template <class Arch, class V>
PARE_ALWAYS_INLINE void generic_load_nibbles(const std::uint8_t* p, V scale, V offset, V& low,
                                             V& high) noexcept {
  constexpr std::ptrdiff_t n = lanes<float, Arch>;
  float values[2][static_cast<std::size_t>(n)];
  for (std::ptrdiff_t i = 0; i < n; ++i) {
    values[0][i] = static_cast<float>(p[i] & 15);
    values[1][i] = static_cast<float>(p[i] >> 4);
  }
  low = load<Arch>(static_cast<const float*>(values[0])) * scale + offset;
  high = load<Arch>(static_cast<const float*>(values[1])) * scale + offset;
}

/// Of a register or of one lane. Low words are moved up, so that moving them down widens them.
template <class V>
PARE_ALWAYS_INLINE V generic_add_word_products(V sum, V a, V b) noexcept {
  return sum + ((a << 16) >> 16) * ((b << 16) >> 16) + (a >> 16) * (b >> 16);
}

template <class Arch>
PARE_ALWAYS_INLINE vec<std::int32_t, Arch> generic_load_byte_pairs(const std::int8_t* p) noexcept {
  constexpr std::ptrdiff_t n = lanes<std::int32_t, Arch>;
  std::int32_t pairs[static_cast<std::size_t>(n)];
  for (std::ptrdiff_t i = 0; i < n; ++i)
    pairs[i] = static_cast<std::int32_t>((static_cast<std::uint32_t>(p[2 * i]) & 0xffffu) |
                                         static_cast<std::uint32_t>(p[2 * i + 1]) << 16);
  return load<Arch>(static_cast<const std::int32_t*>(pairs));
}

inline void generic_widen_halves(const void* p, std::ptrdiff_t stride, std::ptrdiff_t count,
                                 float (*out)[2]) noexcept {
  const auto* at = static_cast<const unsigned char*>(p);
  for (std::ptrdiff_t i = 0; i < count; ++i, at += stride)
    for (int k = 0; k < 2; ++k)
      out[i][k] = pare::detail::f16_bits_to_float(
          static_cast<std::uint16_t>(at[2 * k] | at[2 * k + 1] << 8));
}

PARE_ABI_END
}  // namespace detail
PARE_ABI_BEGIN

/// table[places[i]] in lane i, for places of 8 or 16 bits.
template <class Arch, ComputeScalar T, class I>
PARE_ALWAYS_INLINE vec<T, Arch> look_up(const T* table, const I* places) noexcept {
  if constexpr (requires { detail::look_up_on(Arch{}, table, places); })
    return detail::look_up_on(Arch{}, table, places);
  else
    return detail::generic_look_up<Arch>(table, places);
}

/// Whether an arch holds tables of floats in registers, and looks them up faster there.
template <class Arch>
inline constexpr bool holds_tables =
    requires(const float* p) { detail::hold_table_on<64>(Arch{}, p); };

/// 64, 128 or 256 floats in registers.
template <class Arch, int Entries>
requires holds_tables<Arch>
PARE_ALWAYS_INLINE auto hold_table(const float* table) noexcept {
  return detail::hold_table_on<Entries>(Arch{}, table);
}

/// look_up of a table that is held, for places below its size.
template <class Arch, class Table, class I>
requires holds_tables<Arch>
PARE_ALWAYS_INLINE vec<float, Arch> look_up_held(const Table& table, const I* places) noexcept {
  return detail::look_up_held_on(Arch{}, table, places);
}

/// Bytes with sign as floats.
template <class Arch>
PARE_ALWAYS_INLINE vec<float, Arch> load_signed_bytes(const std::int8_t* p) noexcept {
  if constexpr (requires { detail::load_signed_bytes_on(Arch{}, p); })
    return detail::load_signed_bytes_on(Arch{}, p);
  else
    return detail::generic_load_signed_bytes<Arch>(p);
}

/// Whether an arch multiplies bytes in fours, and looks bytes up by codes of few bits.
template <class Arch>
inline constexpr bool multiplies_bytes =
    requires(vec<std::int32_t, Arch> v) { detail::add_byte_products_on(Arch{}, v, v, v); };

/// sum plus, in each lane, the products of the four bytes of a, without sign, and of b, with sign.
template <class Arch>
requires multiplies_bytes<Arch>
PARE_ALWAYS_INLINE vec<std::int32_t, Arch> add_byte_products(vec<std::int32_t, Arch> sum,
                                                             vec<std::int32_t, Arch> a,
                                                             vec<std::int32_t, Arch> b) noexcept {
  return detail::add_byte_products_on(Arch{}, sum, a, b);
}

/// The first `count` bytes, fewer than a register holds, four in a lane, and zeros behind them.
template <class Arch>
requires multiplies_bytes<Arch>
PARE_ALWAYS_INLINE vec<std::int32_t, Arch> load_first_bytes(const std::int8_t* p,
                                                            std::ptrdiff_t count) noexcept {
  return detail::load_first_bytes_on(Arch{}, p, count);
}

/// sum plus, in each lane, the products of the two words of a and of b, with sign.
template <class Arch>
PARE_ALWAYS_INLINE vec<std::int32_t, Arch> add_word_products(vec<std::int32_t, Arch> sum,
                                                             vec<std::int32_t, Arch> a,
                                                             vec<std::int32_t, Arch> b) noexcept {
  if constexpr (requires { detail::add_word_products_on(Arch{}, sum, a, b); })
    return detail::add_word_products_on(Arch{}, sum, a, b);
  else
    return detail::generic_add_word_products(sum, a, b);
}

/// Bytes with sign as words, two in a lane.
template <class Arch>
PARE_ALWAYS_INLINE vec<std::int32_t, Arch> load_byte_pairs(const std::int8_t* p) noexcept {
  if constexpr (requires { detail::load_byte_pairs_on(Arch{}, p); })
    return detail::load_byte_pairs_on(Arch{}, p);
  else
    return detail::generic_load_byte_pairs<Arch>(p);
}

/// out[(r planes + k) bytes + i] = table[k-th code of byte i of row r] for rows of `bytes` bytes
/// that lie without gaps, codes of 1, 2 or 4 bits, planes = 8 / bits, and a table of 16.
template <class Arch>
requires multiplies_bytes<Arch>
PARE_ALWAYS_INLINE void look_up_planes(const std::uint8_t* p, std::ptrdiff_t rows,
                                       std::ptrdiff_t bytes, int bits, const std::uint8_t* table,
                                       std::uint8_t* out) noexcept {
  detail::look_up_planes_on(Arch{}, p, rows, bytes, bits, table, out);
}

/// The values of e4m3 codes; a NaN is quiet, of either sign.
template <class Arch>
PARE_ALWAYS_INLINE vec<float, Arch> load_e4m3(const e4m3* p) noexcept {
  if constexpr (requires { detail::load_e4m3_on(Arch{}, p); })
    return detail::load_e4m3_on(Arch{}, p);
  else
    return detail::generic_load_e4m3<Arch>(p);
}

/// Whether an arch looks numbers of e4m3 codes up faster than it computes them.
template <class Arch>
inline constexpr bool looks_up_e4m3 =
    requires(const e4m3* p, std::ptrdiff_t n, const float* magnitudes, bf16* out) {
      detail::look_up_e4m3_on(Arch{}, p, n, magnitudes, 1.0f, out);
    };

/// out_i = code i times a scale, rounded as store_narrowed does; of `count` codes, a multiple
/// of 32. magnitudes [128] are the numbers of codes without a sign.
template <class Arch>
requires looks_up_e4m3<Arch>
PARE_ALWAYS_INLINE void look_up_e4m3(const e4m3* p, std::ptrdiff_t count, const float* magnitudes,
                                     float scale, bf16* out) noexcept {
  detail::look_up_e4m3_on(Arch{}, p, count, magnitudes, scale, out);
}

/// Stores the codes of numbers, as e4m3(x) rounds them.
template <class Arch>
PARE_ALWAYS_INLINE void store_e4m3(e4m3* p, vec<float, Arch> v) noexcept {
  if constexpr (requires { detail::store_e4m3_on(Arch{}, p, v); })
    detail::store_e4m3_on(Arch{}, p, v);
  else
    detail::generic_store_e4m3<Arch>(p, v);
}

/// low_i = (p_i mod 16) scale_i + offset_i and high_i = (p_i / 16) scale_i + offset_i for numbers
/// scale and offset in every lane; scale has at most 20 bits of significand, so that its products
/// are exact and the bits do not depend on the arch.
template <class Arch, class V>
PARE_ALWAYS_INLINE void load_nibbles(const std::uint8_t* p, V scale, V offset, V& low,
                                     V& high) noexcept {
  if constexpr (requires { detail::load_nibbles_on(Arch{}, p, scale, offset, low, high); })
    detail::load_nibbles_on(Arch{}, p, scale, offset, low, high);
  else
    detail::generic_load_nibbles<Arch>(p, scale, offset, low, high);
}

/// Pairs of binary16 numbers, little endian, as floats: pair i is at p + i stride. 4 bytes are read
/// from each place.
template <class Arch>
PARE_ALWAYS_INLINE void widen_halves(const void* p, std::ptrdiff_t stride, std::ptrdiff_t count,
                                     float (*out)[2]) noexcept {
  if constexpr (requires { detail::widen_halves_on(Arch{}, p, stride, count, out); })
    detail::widen_halves_on(Arch{}, p, stride, count, out);
  else
    detail::generic_widen_halves(p, stride, count, out);
}

PARE_ABI_END
}  // namespace pare::kernel

#include <pare/core/macros_on.hpp>
