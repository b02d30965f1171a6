// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Operations of the vector layer as xsimd has them, or lane by lane: for any arch that has none of
/// its own.

#include <pare/core/macros_off.hpp>

#include <pare/core/e4m3.hpp>
#include <pare/kernel/simd/contract.hpp>

#include <cstddef>
#include <cstdint>

namespace pare::kernel::detail {
PARE_ABI_BEGIN

/// No arch: it makes the names known where no arch of this unit has an operation of its own.
struct NoArch {};
void store_streaming_on(NoArch);
void streaming_fence_on(NoArch);
void multiply_add_on(NoArch);
void reduce_add_on(NoArch);
void maximum_on(NoArch);
void minimum_on(NoArch);
void reduce_max_on(NoArch);
void nonzero_lanes_on(NoArch);
void load_widened_on(NoArch);
void multiply_add_pairs_on(NoArch);
void store_rounded_on(NoArch);
void load_pairs_on(NoArch);
void pair_words_on(NoArch);
void load_first_on(NoArch);
void load_first_words_on(NoArch);
void multiply_low_words_on(NoArch);
void high_words_on(NoArch);
void interleave_low_on(NoArch);
void interleave_high_on(NoArch);
void swap_pairs_on(NoArch);
template <int Distance>
void trade_lanes_on(NoArch);
template <int Distance>
void keep_lanes_on(NoArch);
void broadcast_pair_on(NoArch);
template <std::size_t I>
void spread_lane_on(NoArch);
void widen_floats_on(NoArch);
void narrow_doubles_on(NoArch);
void load_signed_bytes_on(NoArch);
void load_e4m3_on(NoArch);
void look_up_e4m3_on(NoArch);
void store_e4m3_on(NoArch);
void load_nibbles_on(NoArch);
void widen_halves_on(NoArch);
void round_nearest_on(NoArch);
void scale_exponent_on(NoArch);
void list_bits_on(NoArch);
void two_largest_on(NoArch);
void compress_eight_on(NoArch);
template <bool Weighed, bool Streaming>
void keep_sixty_four_on(NoArch);
template <int Entries>
void hold_table_on(NoArch);
void look_up_held_on(NoArch);
void look_up_on(NoArch);
void index_kept_on(NoArch);
void load_groups_on(NoArch);
void kept_places_on(NoArch);
void take_kept_on(NoArch);
void expand_kept_on(NoArch);

template <class Arch, class V>
PARE_ALWAYS_INLINE V generic_multiply_add(V a, V b, V c) noexcept {
  if constexpr (is_batch<V>)
    return xsimd::fma(a, b, c);
  else
    return a * b + c;
}

template <class Arch, class V>
PARE_ALWAYS_INLINE auto generic_reduce_add(V v) noexcept {
  if constexpr (!is_batch<V>) {
    return v;
  } else {
#if XSIMD_VERSION_MAJOR >= 9
    return xsimd::reduce_add(v);
#else
    return xsimd::hadd(v);
#endif
  }
}

template <class Arch, class V>
PARE_ALWAYS_INLINE V generic_maximum(V a, V b) noexcept {
  if constexpr (is_batch<V>)
    return xsimd::max(a, b);
  else
    return a > b ? a : b;
}

template <class Arch, class V>
PARE_ALWAYS_INLINE V generic_minimum(V a, V b) noexcept {
  if constexpr (is_batch<V>)
    return xsimd::min(a, b);
  else
    return a < b ? a : b;
}

template <class Arch, class V>
PARE_ALWAYS_INLINE std::uint32_t generic_nonzero_lanes(V v) noexcept {
  using T = lane_t<V>;
  constexpr std::ptrdiff_t n = lanes<T, Arch>;
  T x[static_cast<std::size_t>(n)];
  store<Arch>(static_cast<T*>(x), v);
  std::uint32_t mask = 0;
  for (std::ptrdiff_t i = 0; i < n; ++i) mask |= static_cast<std::uint32_t>(x[i] != T(0)) << i;
  return mask;
}

template <class Arch, class V>
PARE_ALWAYS_INLINE lane_t<V> generic_reduce_max(V v) noexcept {
  if constexpr (is_batch<V>) {
    constexpr std::ptrdiff_t n = lanes<lane_t<V>, Arch>;
    lane_t<V> x[static_cast<std::size_t>(n)];
    store<Arch>(static_cast<lane_t<V>*>(x), v);
    for (std::ptrdiff_t i = 1; i < n; ++i) x[0] = x[i] > x[0] ? x[i] : x[0];
    return x[0];
  } else {
    return v;
  }
}

template <class Arch, StorageScalar T>
PARE_ALWAYS_INLINE vec<compute_t<T>, Arch> generic_load_widened(const T* p) noexcept {
  if constexpr (ComputeScalar<T>) {
    return load<Arch>(p);
  } else if constexpr (!is_batch<vec<float, Arch>>) {
    return static_cast<float>(*p);
  } else {
    float widened[lanes<float, Arch>];
    for (std::ptrdiff_t i = 0; i < lanes<float, Arch>; ++i) widened[i] = static_cast<float>(p[i]);
    return load<Arch>(static_cast<const float*>(widened));
  }
}

template <class Arch>
PARE_ALWAYS_INLINE vec<float, Arch> generic_store_rounded(bf16* p, vec<float, Arch> v) noexcept {
  constexpr std::ptrdiff_t n = lanes<float, Arch>;
  float values[static_cast<std::size_t>(n)];
  store<Arch>(static_cast<float*>(values), v);
  for (std::ptrdiff_t i = 0; i < n; ++i) {
    p[i] = bf16(values[i]);
    values[i] = static_cast<float>(p[i]);
  }
  return load<Arch>(static_cast<const float*>(values));
}

template <class Arch, StorageScalar O>
PARE_ALWAYS_INLINE void generic_store_narrowed(O* p, vec<float, Arch> v) noexcept {
  constexpr std::ptrdiff_t n = lanes<float, Arch>;
  float values[static_cast<std::size_t>(n)];
  store<Arch>(static_cast<float*>(values), v);
  for (std::ptrdiff_t i = 0; i < n; ++i) p[i] = O(values[i]);
}

template <class Arch>
PARE_ALWAYS_INLINE void generic_widen_floats(vec<float, Arch> v, vec<double, Arch>* out) noexcept {
  constexpr std::ptrdiff_t n = lanes<float, Arch>;
  float x[static_cast<std::size_t>(n)];
  double y[static_cast<std::size_t>(n)];
  store<Arch>(static_cast<float*>(x), v);
  for (std::ptrdiff_t i = 0; i < n; ++i) y[i] = static_cast<double>(x[i]);
  for (std::ptrdiff_t i = 0; i < n; i += lanes<double, Arch>)
    out[i / lanes<double, Arch>] = load<Arch>(static_cast<const double*>(y) + i);
}

template <class Arch>
PARE_ALWAYS_INLINE vec<float, Arch> generic_narrow_doubles(const vec<double, Arch>* v) noexcept {
  constexpr std::ptrdiff_t n = lanes<float, Arch>;
  float x[static_cast<std::size_t>(n)];
  double y[static_cast<std::size_t>(n)];
  for (std::ptrdiff_t i = 0; i < n; i += lanes<double, Arch>)
    store<Arch>(static_cast<double*>(y) + i, v[i / lanes<double, Arch>]);
  for (std::ptrdiff_t i = 0; i < n; ++i) x[i] = static_cast<float>(y[i]);
  return load<Arch>(static_cast<const float*>(x));
}

template <class Arch, class V>
PARE_ALWAYS_INLINE V generic_swap_pairs(V v) noexcept {
  if constexpr (is_batch<V>) {
    constexpr std::ptrdiff_t n = lanes<lane_t<V>, Arch>;
    lane_t<V> x[static_cast<std::size_t>(n)], y[static_cast<std::size_t>(n)];
    store<Arch>(static_cast<lane_t<V>*>(x), v);
    for (std::ptrdiff_t i = 0; i < n; ++i) y[i] = x[i ^ 1];
    return load<Arch>(static_cast<const lane_t<V>*>(y));
  } else {
    return v;
  }
}

template <class Arch>
PARE_ALWAYS_INLINE vec<std::uint64_t, Arch> generic_multiply_low_words(
    vec<std::uint64_t, Arch> a, vec<std::uint64_t, Arch> b) noexcept {
  return (a & 0xffffffffu) * (b & 0xffffffffu);
}

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

inline void generic_widen_halves(const void* p, std::ptrdiff_t stride, std::ptrdiff_t count,
                                 float (*out)[2]) noexcept {
  const auto* at = static_cast<const unsigned char*>(p);
  for (std::ptrdiff_t i = 0; i < count; ++i, at += stride)
    for (int k = 0; k < 2; ++k)
      out[i][k] = pare::detail::f16_bits_to_float(
          static_cast<std::uint16_t>(at[2 * k] | at[2 * k + 1] << 8));
}

inline std::int32_t* generic_list_bits(std::uint64_t bits, std::int32_t first,
                                       std::int32_t* out) noexcept {
  for (; bits != 0; bits &= bits - 1) *out++ = first + __builtin_ctzll(bits);
  return out;
}

PARE_ABI_END
}  // namespace pare::kernel::detail

#include <pare/core/macros_on.hpp>
