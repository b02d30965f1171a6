// SPDX-License-Identifier: Apache-2.0
#pragma once

/// \file
/// Operations of the vector layer as xsimd has them, or lane by lane: for any arch that has none of
/// its own.

#include <pare/core/macros_off.hpp>

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
void to_floats_on(NoArch);
void widen_floats_on(NoArch);
void narrow_doubles_on(NoArch);
void load_signed_bytes_on(NoArch);
void add_byte_products_on(NoArch);
void load_first_bytes_on(NoArch);
void add_word_products_on(NoArch);
void load_byte_pairs_on(NoArch);
void look_up_planes_on(NoArch);
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

inline std::int32_t* generic_list_bits(std::uint64_t bits, std::int32_t first,
                                       std::int32_t* out) noexcept {
  for (; bits != 0; bits &= bits - 1) *out++ = first + __builtin_ctzll(bits);
  return out;
}

PARE_ABI_END
}  // namespace pare::kernel::detail

#include <pare/core/macros_on.hpp>
